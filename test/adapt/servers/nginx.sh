# shellcheck shell=bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# nginx, for servers.sh. Sets MOOR_SERVERS_HTTP and MOOR_SERVERS_HTTPS, the beginnings of addresses, MOOR_SERVERS_CERTIFICATE,
# and MOOR_SERVERS_DOWNLOADS, addresses of four files for which the server takes two seconds. Stops: graceful, fast, immediate.
#
#   /echo/...      the path as the body
#   /close/...     the same, and the server closes the connection
#   /files/N       N bytes, the letter x; N is 0, 1000, 100000 or 1000000
#   /slow/N        the same, with 100,000 bytes a second
#   /never/N       1,000 bytes of N, and then 1 byte a second
#   /uploads/...   takes PUT, DELETE and GET
#   /moved         redirects to /echo/there

# Sets $nginx to the server.
find_nginx() {
    nginx=$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v nginx) ||
        fail "nginx is not installed; on Debian: apt-get install nginx-light"
}

# HTTP/1.1, and HTTP/2 with TLS (a certificate for localhost).
setup_nginx() {
    local dir=$MOOR_SERVERS_DIR/nginx size
    find_nginx
    unprivileged mkdir -p "$dir/www/files" "$dir/www/uploads" "$dir/tmp"
    for size in 0 1000 100000 1000000; do
        head -c "$size" /dev/zero | tr '\0' x | unprivileged tee "$dir/www/files/$size" >/dev/null
    done
    (
        umask 077
        unprivileged openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
            -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$dir/key.pem" -out "$dir/certificate.pem" \
            2>"$MOOR_SERVERS_DIR/openssl.log"
    ) || { cat "$MOOR_SERVERS_DIR/openssl.log" >&2; fail "openssl failed"; }
    cp "$dir/certificate.pem" "$MOOR_SERVERS_DIR/nginx.pem"
    chmod 644 "$MOOR_SERVERS_DIR/nginx.pem"

    export MOOR_SERVERS_HTTP MOOR_SERVERS_HTTPS MOOR_SERVERS_DOWNLOADS MOOR_SERVERS_CERTIFICATE=$MOOR_SERVERS_DIR/nginx.pem
    # A port may be taken, or be taken until the server binds it: then others.
    local try http https
    for try in 1 2 3 4 5 6 7 8 9 10; do
        http=$(random_port)
        https=$(random_port)
        [ "$http" != "$https" ] || continue
        configure_nginx "$dir" "$http" "$https" | unprivileged tee "$dir/nginx.conf" >/dev/null
        if start_nginx; then
            MOOR_SERVERS_HTTP=http://127.0.0.1:$http
            MOOR_SERVERS_HTTPS=https://localhost:$https
            MOOR_SERVERS_DOWNLOADS=
            for size in 1 2 3 4; do
                MOOR_SERVERS_DOWNLOADS+="$MOOR_SERVERS_HTTP/half/$size "
            done
            "$nginx" -v
            return
        fi
    done
    cat "$dir/error.log" >&2
    fail "nginx does not start after $try attempts"
}

# configure_nginx <directory> <port of HTTP> <port of HTTPS>
configure_nginx() {
    cat <<EOF
# One process, which is killed as a whole.
master_process off;
daemon on;
pid $1/nginx.pid;
error_log $1/error.log;
events { worker_connections 1024; }
http {
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path $1/tmp;
    proxy_temp_path $1/tmp;
    fastcgi_temp_path $1/tmp;
    uwsgi_temp_path $1/tmp;
    scgi_temp_path $1/tmp;
    client_max_body_size 64m;
    keepalive_requests 1000;
    server {
        listen 127.0.0.1:$2 backlog=1024;
        listen 127.0.0.1:$3 ssl http2 backlog=1024;
        ssl_certificate $1/certificate.pem;
        ssl_certificate_key $1/key.pem;
        root $1/www;
        location /echo/ { return 200 \$uri; }
        location /close/ { keepalive_timeout 0; return 200 \$uri; }
        location /slow/ { alias $1/www/files/; limit_rate 100k; }
        location /half/ { try_files /files/1000000 =404; limit_rate 500k; }
        location /never/ { alias $1/www/files/; limit_rate_after 1k; limit_rate 1; }
        location /uploads/ { dav_methods PUT DELETE; create_full_put_path on; }
        location /moved { return 302 /echo/there; }
    }
}
EOF
}

start_nginx() {
    find_nginx
    # The server must not keep the pipe to which a test driver listens.
    unprivileged "$nginx" -p "$MOOR_SERVERS_DIR/nginx" -e "$MOOR_SERVERS_DIR/nginx/error.log" -c nginx.conf \
        </dev/null >/dev/null 2>&1
}

stop_nginx() {
    local file=$MOOR_SERVERS_DIR/nginx/nginx.pid pid signal=TERM
    case ${1-} in
        graceful) signal=QUIT ;;
        immediate) signal=KILL ;;
    esac
    pid=$(cat "$file" 2>/dev/null) || return
    unprivileged kill -s "$signal" "$pid"
    timeout 20 tail --pid="$pid" -s 0.05 -f /dev/null
    rm -f "$file"
}

version_nginx() {
    find_nginx
    "$nginx" -v 2>&1
}
