// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A stream descriptor where a stream of Asio's is expected: it has the original's members, models
// the stream concepts of Asio and Beast, and carries what is built on them.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/transferred.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/buffered_stream.hpp>
#include <boost/asio/completion_condition.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/posix/descriptor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/spawn.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/stream_traits.hpp>
#include <boost/beast/http.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(concepts)

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
using test::error_code;
using test::transferred;

using theirs = asio::posix::stream_descriptor;
using ours = moor::stream_descriptor;
using both = std::tuple<theirs, ours>;

const error_code eof(asio::error::eof);

/// Two descriptors that talk to each other.
template <class D>
struct streams {
    D a;
    D b;

    explicit streams(asio::io_context& io, test::fd_pair p = test::make_socketpair())
        : a(io, p.a.release()), b(io, p.b.release()) {}
};

std::string long_text(std::size_t n) {
    std::string s(n, ' ');
    for (std::size_t i = 0; i != n; ++i)
        s[i] = static_cast<char>('a' + (i * 7 + i / 26) % 26);
    return s;
}

// ---- the same members ---------------------------------------------------------------------------

template <class D>
D& object();
template <class D>
const D& constant();

/// What the functions of a descriptor return.
template <class D>
using of_descriptor = std::tuple<
    typename D::executor_type, typename D::native_handle_type, typename D::bytes_readable,
    typename D::wait_type, decltype(object<D>().get_executor()),
    decltype(object<D>().assign(constant<int>())),
    decltype(object<D>().assign(constant<int>(), object<error_code>())),
    decltype(constant<D>().is_open()), decltype(object<D>().close()),
    decltype(object<D>().close(object<error_code>())), decltype(object<D>().native_handle()),
    decltype(object<D>().release()), decltype(object<D>().cancel()),
    decltype(object<D>().cancel(object<error_code>())),
    decltype(object<D>().io_control(object<typename D::bytes_readable>())),
    decltype(object<D>().io_control(object<typename D::bytes_readable>(), object<error_code>())),
    decltype(constant<D>().non_blocking()),
    decltype(object<D>().non_blocking(std::declval<bool>())),
    decltype(object<D>().non_blocking(std::declval<bool>(), object<error_code>())),
    decltype(constant<D>().native_non_blocking()),
    decltype(object<D>().native_non_blocking(std::declval<bool>())),
    decltype(object<D>().native_non_blocking(std::declval<bool>(), object<error_code>())),
    decltype(object<D>().wait(D::wait_read)),
    decltype(object<D>().wait(D::wait_write, object<error_code>())),
    decltype(object<D>().async_wait(D::wait_error, std::declval<void (*)(error_code)>())),
    decltype(object<D>().async_wait(D::wait_read, asio::use_future))>;

/// The same for those that a stream descriptor has besides.
template <class D, class In = asio::mutable_buffer, class Out = asio::const_buffer>
using of_stream =
    std::tuple<decltype(object<D>().read_some(std::declval<const In&>())),
               decltype(object<D>().read_some(std::declval<const In&>(), object<error_code>())),
               decltype(object<D>().write_some(std::declval<const Out&>())),
               decltype(object<D>().write_some(std::declval<const Out&>(), object<error_code>())),
               decltype(object<D>().async_read_some(
                   std::declval<const In&>(), std::declval<void (*)(error_code, std::size_t)>())),
               decltype(object<D>().async_read_some(std::declval<const In&>(), asio::use_future)),
               decltype(object<D>().async_write_some(
                   std::declval<const Out&>(), std::declval<void (*)(error_code, std::size_t)>())),
               decltype(object<D>().async_write_some(std::declval<const Out&>(),
                                                     asio::use_future))>;

static_assert(
    std::is_same<of_descriptor<asio::posix::descriptor>, of_descriptor<moor::descriptor>>::value,
    "");
static_assert(std::is_same<of_descriptor<theirs>, of_descriptor<ours>>::value, "");
static_assert(std::is_same<of_stream<theirs>, of_stream<ours>>::value, "");
static_assert(
    std::is_same<of_stream<theirs, std::array<asio::mutable_buffer, 3>, asio::mutable_buffer>,
                 of_stream<ours, std::array<asio::mutable_buffer, 3>, asio::mutable_buffer>>::value,
    "");
static_assert(noexcept(std::declval<ours&>().get_executor()), "");
static_assert(ours::wait_read == theirs::wait_read && ours::wait_write == theirs::wait_write &&
                  ours::wait_error == theirs::wait_error,
              "");
// The layers, and the bases.
template <class D>
constexpr bool has_layers() {
    using lowest = typename D::lowest_layer_type;
    static_assert(std::is_same<decltype(object<D>().lowest_layer()), lowest&>::value, "");
    static_assert(std::is_same<decltype(constant<D>().lowest_layer()), const lowest&>::value, "");
    static_assert(std::is_base_of<lowest, D>::value, "");
    static_assert(std::is_base_of<asio::posix::descriptor_base, D>::value, "");
    return true;
}
static_assert(has_layers<theirs>() && has_layers<ours>(), "");
static_assert(std::is_base_of<moor::descriptor, ours>::value, "");
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
// A default token, and one that only the awaitable's result tells.
template <class D>
using awaited =
    std::tuple<decltype(object<asio::use_awaitable_t<>::as_default_on_t<D>>().async_wait(
                   D::wait_read)),
               decltype(object<asio::use_awaitable_t<>::as_default_on_t<D>>().async_read_some(
                   std::declval<const asio::mutable_buffer&>())),
               decltype(object<D>().async_write_some(std::declval<const asio::const_buffer&>(),
                                                     asio::use_awaitable))>;
static_assert(std::is_same<awaited<theirs>, awaited<ours>>::value, "");
#endif

// ---- the concepts -------------------------------------------------------------------------------

template <class D>
constexpr bool is_stream() {
    static_assert(beast::is_sync_stream<D>::value, "");
    static_assert(beast::is_sync_read_stream<D>::value, "");
    static_assert(beast::is_sync_write_stream<D>::value, "");
    static_assert(beast::is_async_stream<D>::value, "");
    static_assert(beast::is_async_read_stream<D>::value, "");
    static_assert(beast::is_async_write_stream<D>::value, "");
    static_assert(beast::has_get_executor<D>::value, "");
    static_assert(std::is_same<beast::executor_type<D>, typename D::executor_type>::value, "");
    // Beast's layers end at what has no next_layer(), as with the original.
    static_assert(std::is_same<beast::lowest_layer_type<D>, D>::value, "");
    return true;
}
static_assert(is_stream<theirs>() && is_stream<ours>(), "");
static_assert(is_stream<moor::basic_stream_descriptor<asio::io_context::executor_type>>(), "");
static_assert(!beast::is_sync_stream<moor::descriptor>::value, "");
static_assert(!beast::is_async_stream<moor::descriptor>::value, "");

} // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(one_alias_is_all_that_changes, D, both) {
    // What a program does with the values that the functions return.
    test::context_fixture f;
    test::fd_pair p = test::make_socketpair();
    D d(f.io);
    error_code e;
    BOOST_TEST(!d.assign(p.a, e));
    p.a.release();
    if (d.non_blocking(true, e) || d.non_blocking(false, e) || d.native_non_blocking(true, e) ||
        d.native_non_blocking(false, e) || d.wait(D::wait_write, e) || d.cancel(e))
        BOOST_ERROR("no error is expected");
    typename D::bytes_readable command;
    e = d.io_control(command, e);
    BOOST_TEST(!e);
    BOOST_TEST((d.assign(d.native_handle(), e) == asio::error::already_open));
    BOOST_TEST(!d.close(e));
    BOOST_TEST((d.cancel(e) == asio::error::bad_descriptor));
    BOOST_TEST((d.wait(D::wait_read, e) == asio::error::bad_descriptor));
}

// ---- composed operations ------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(whole_buffers_are_read_and_written, D, both) {
    test::context_fixture f;
    const std::string text = long_text(1 << 20);
    for (auto make : {+[] { return test::make_socketpair(); }, &test::make_tcp_pair,
                      +[] { return test::make_pipe(); }}) {
        streams<D> s(f.io, make());
        // Some, exactly; then all that comes.
        std::string head(100000, '\0');
        std::string rest;
        transferred wrote, some, all;
        asio::async_write(s.b, asio::buffer(text), [&](error_code e, std::size_t n) {
            wrote.handler()(e, n);
            s.b.close();
        });
        asio::async_read(s.a, asio::buffer(head), [&](error_code e, std::size_t n) {
            some.handler()(e, n);
            asio::async_read(s.a, asio::dynamic_buffer(rest), asio::transfer_all(), all.handler());
        });
        test::run_all(f.io);
        BOOST_TEST(!wrote.ec);
        BOOST_TEST(wrote.bytes == text.size());
        BOOST_TEST(!some.ec);
        BOOST_TEST(some.bytes == head.size());
        BOOST_TEST((all.ec == eof));
        BOOST_TEST((head + rest == text));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(whole_buffers_are_read_and_written_synchronously, D, both) {
    test::context_fixture f;
    streams<D> s(f.io);
    BOOST_TEST(asio::write(s.b, asio::buffer("hello world", 11)) == 11u);
    std::array<char, 5> head;
    BOOST_TEST(asio::read(s.a, asio::buffer(head)) == 5u);
    BOOST_TEST(std::string(head.data(), 5) == "hello");
    s.b.close();
    std::string rest;
    error_code e;
    BOOST_TEST(asio::read(s.a, asio::dynamic_buffer(rest), e) == 6u);
    BOOST_TEST((e == eof));
    BOOST_TEST(rest == " world");
    BOOST_CHECK_THROW(asio::read(s.a, asio::buffer(head)), boost::system::system_error);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(lines_are_read, D, both) {
    test::context_fixture f;
    streams<D> s(f.io);
    asio::streambuf buffer;
    std::string lines;
    transferred last;
    auto next = [&](auto& self) -> void {
        asio::async_read_until(s.a, buffer, '\n', [&](error_code e, std::size_t n) {
            if (e) {
                last.handler()(e, n);
                return;
            }
            std::string line(n, '\0');
            BOOST_TEST(buffer.sgetn(&line[0], static_cast<std::streamsize>(n)) ==
                       static_cast<std::streamsize>(n));
            lines += '[' + line.substr(0, n - 1) + ']';
            self(self);
        });
    };
    next(next);
    for (const char* piece : {"one\ntw", "o\n", "\nthree", "\nunfinished"}) {
        asio::write(s.b, asio::buffer(std::string(piece)));
        test::run_ready(f.io);
    }
    BOOST_TEST(lines == "[one][two][][three]");
    s.b.close();
    test::run_all(f.io);
    BOOST_TEST((last.ec == eof));
    BOOST_TEST(buffer.size() == 10u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_buffered_stream, D, both) {
    test::context_fixture f;
    test::fd_pair p = test::make_socketpair();
    asio::buffered_stream<D> s(f.io);
    s.next_layer().assign(p.a.release());
    BOOST_TEST(s.lowest_layer().is_open());
    error_code e;
    BOOST_TEST(s.write_some(asio::buffer("kept", 4), e) == 4u);
    BOOST_TEST(test::get(p.b).empty()); // in the buffer
    transferred flushed;
    s.async_flush(flushed.handler());
    test::run_all(f.io);
    BOOST_TEST(flushed.bytes == 4u);
    BOOST_TEST(test::get(p.b) == "kept");

    test::put(p.b, "lines\nof text\n");
    std::string line;
    transferred read;
    asio::async_read_until(s, asio::dynamic_buffer(line), '\n', read.handler());
    test::run_all(f.io);
    BOOST_TEST(read.bytes == 6u);
    test::put(p.b, "more");
    transferred filled;
    s.async_fill(filled.handler());
    test::run_all(f.io);
    BOOST_TEST(filled.bytes == 4u);
    BOOST_TEST(s.in_avail() >= 4u);
    p.b.close();
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_stackful_coroutine, D, both) {
    test::context_fixture f;
    streams<D> s(f.io);
    std::string got(5, '\0');
    error_code end;
    asio::spawn(
        f.io,
        [&](asio::yield_context yield) {
            asio::async_read(s.a, asio::buffer(got), yield);
            asio::async_write(s.a, asio::buffer("pong", 4), yield);
            s.a.async_read_some(asio::buffer(got), yield[end]);
        },
        asio::detached);
    test::run_ready(f.io);
    asio::write(s.b, asio::buffer("hello", 5));
    std::array<char, 4> pong;
    transferred read;
    asio::async_read(s.b, asio::buffer(pong), read.handler());
    test::run_until(f.io, [&] { return bool(read); });
    BOOST_TEST(got == "hello");
    BOOST_TEST(std::string(pong.data(), 4) == "pong");
    s.b.close();
    test::run_all(f.io);
    BOOST_TEST((end == eof));
}

// ---- TLS ----------------------------------------------------------------------------------------

/// A key and a certificate that it has signed itself, made here.
struct identity {
    std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key{EVP_EC_gen("P-256"), &EVP_PKEY_free};
    std::unique_ptr<X509, decltype(&X509_free)> certificate{X509_new(), &X509_free};

    identity() {
        X509* x = certificate.get();
        BOOST_REQUIRE(key);
        BOOST_REQUIRE(x);
        X509_set_version(x, 2);
        ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
        X509_gmtime_adj(X509_getm_notBefore(x), -3600);
        X509_gmtime_adj(X509_getm_notAfter(x), 3600);
        X509_set_pubkey(x, key.get());
        X509_NAME* name = X509_get_subject_name(x);
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                   reinterpret_cast<const unsigned char*>("moor"), -1, -1, 0);
        X509_set_issuer_name(x, name);
        BOOST_REQUIRE(X509_sign(x, key.get(), EVP_sha256()) > 0);
    }
};

/// A client that trusts a server, on two streams that are not connected yet.
struct tls {
    identity id;
    ssl::context server_context{ssl::context::tls_server};
    ssl::context client_context{ssl::context::tls_client};

    tls() {
        SSL_CTX* s = server_context.native_handle();
        BOOST_REQUIRE_EQUAL(SSL_CTX_use_certificate(s, id.certificate.get()), 1);
        BOOST_REQUIRE_EQUAL(SSL_CTX_use_PrivateKey(s, id.key.get()), 1);
        SSL_CTX* c = client_context.native_handle();
        BOOST_REQUIRE_EQUAL(X509_STORE_add_cert(SSL_CTX_get_cert_store(c), id.certificate.get()),
                            1);
        client_context.set_verify_mode(ssl::verify_peer);
    }
};

using tls_stream = ssl::stream<ours>;

/// A client and a server that shake hands; how that ended.
struct tls_pair {
    test::fd_pair sockets = test::make_socketpair();
    tls_stream client;
    tls_stream server;
    test::called of_client, of_server;

    tls_pair(asio::io_context& io, tls& client_side, tls& server_side, bool borrows = false)
        : client(borrows ? ours(io, moor::borrow(sockets.a.get())) : ours(io, sockets.a.release()),
                 client_side.client_context),
          server(ours(io, sockets.b.release()), server_side.server_context) {
        client.async_handshake(tls_stream::client, of_client.handler());
        server.async_handshake(tls_stream::server, of_server.handler());
        test::run_until(io, [&] { return of_client && of_server; });
    }
};

BOOST_FIXTURE_TEST_CASE(tls_over_a_socketpair, test::context_fixture) {
    tls t;
    for (bool borrows : {false, true}) {
        tls_pair p(io, t, t, borrows);
        BOOST_TEST((!p.of_client.ec && !p.of_server.ec));

        // More than the socket holds, both ways at once.
        const std::string text = long_text(2 << 20);
        std::string to_server(text.size(), '\0'), to_client(text.size(), '\0');
        transferred read_s, read_c, write_s, write_c;
        asio::async_write(p.client, asio::buffer(text), write_c.handler());
        asio::async_write(p.server, asio::buffer(text), write_s.handler());
        asio::async_read(p.client, asio::buffer(to_client), read_c.handler());
        asio::async_read(p.server, asio::buffer(to_server), read_s.handler());
        test::run_all(io);
        for (transferred* x : {&read_s, &read_c, &write_s, &write_c}) {
            BOOST_TEST(!x->ec);
            BOOST_TEST(x->bytes == text.size());
        }
        BOOST_TEST((to_server == text && to_client == text));

        test::called c, s;
        p.client.async_shutdown(c.handler());
        p.server.async_shutdown(s.handler());
        test::run_all(io);
        BOOST_TEST((!c.ec && !s.ec));
    }
}

BOOST_FIXTURE_TEST_CASE(tls_that_is_cut_off_is_noticed, test::context_fixture) {
    tls t;
    tls_pair p(io, t, t);
    asio::write(p.server, asio::buffer("last", 4));
    p.server.lowest_layer().close(); // no close_notify
    std::string got;
    transferred read;
    asio::async_read(p.client, asio::dynamic_buffer(got), read.handler());
    test::run_all(io);
    BOOST_TEST(got == "last");
    BOOST_TEST((read.ec == ssl::error::stream_truncated));
}

BOOST_FIXTURE_TEST_CASE(tls_with_a_stranger_fails, test::context_fixture) {
    tls t, other;
    tls_pair p(io, other, t);
    BOOST_TEST(bool(p.of_client.ec));
}

// ---- HTTP ---------------------------------------------------------------------------------------

/// Answers with what it was sent, until the client closes.
class echo_server {
public:
    echo_server(asio::io_context& io, int fd) : stream_(io, fd) { next(); }

    int answered = 0;
    error_code end;

private:
    void next() {
        request_ = {};
        http::async_read(stream_, buffer_, request_, [this](error_code e, std::size_t) {
            if (e) {
                end = e;
                stream_.close();
                return;
            }
            response_ = {};
            response_.result(http::status::ok);
            response_.version(11);
            response_.keep_alive(request_.keep_alive());
            response_.chunked(answered % 2 != 0);
            response_.body() = std::string(request_.target()) + '\n' + request_.body();
            if (!response_.chunked())
                response_.prepare_payload();
            http::async_write(stream_, response_, [this](error_code we, std::size_t) {
                BOOST_TEST(!we);
                ++answered;
                next();
            });
        });
    }

    ours stream_;
    beast::flat_buffer buffer_;
    http::request<http::string_body> request_;
    http::response<http::string_body> response_;
};

BOOST_FIXTURE_TEST_CASE(http_over_a_socketpair, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    ours client(io, p.a.release());
    echo_server server(io, p.b.release());
    beast::flat_buffer buffer;
    for (int i = 0; i != 4; ++i) {
        const std::string body = long_text(std::size_t(300000) * static_cast<unsigned>(i));
        http::request<http::string_body> request(http::verb::post, "/number/" + std::to_string(i),
                                                 11);
        request.set(http::field::host, "moor");
        request.body() = body;
        request.prepare_payload();
        http::response_parser<http::string_body> response;
        response.body_limit(std::uint64_t(1) << 24);
        transferred wrote, read;
        http::async_write(client, request, wrote.handler());
        http::async_read(client, buffer, response, read.handler());
        test::run_until(io, [&] { return wrote && read; });
        BOOST_TEST(!wrote.ec);
        BOOST_TEST(!read.ec);
        BOOST_TEST(response.get().result_int() == 200u);
        BOOST_TEST((response.get().body() == "/number/" + std::to_string(i) + '\n' + body));
    }
    client.close();
    test::run_all(io);
    BOOST_TEST(server.answered == 4);
    BOOST_TEST((server.end == http::error::end_of_stream));
}

BOOST_FIXTURE_TEST_CASE(http_without_a_loop, test::context_fixture) {
    streams<ours> s(io);
    http::request<http::string_body> request(http::verb::put, "/", 11);
    request.body() = "small";
    request.prepare_payload();
    http::write(s.a, request);
    beast::flat_buffer buffer;
    http::request<http::string_body> got;
    http::read(s.b, buffer, got);
    BOOST_TEST(got.body() == "small");
    s.a.close();
    error_code e;
    http::read(s.b, buffer, got, e);
    BOOST_TEST((e == http::error::end_of_stream));
}

BOOST_AUTO_TEST_SUITE_END()
