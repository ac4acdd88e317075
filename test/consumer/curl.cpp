// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for libcurl does: learn that there is no server.

#include <moor/adapt/curl.hpp>

#include <boost/asio/io_context.hpp>

int main() {
    boost::asio::io_context io;
    moor::adapt::curl_multi m(io);
    moor::adapt::curl_handle easy(curl_easy_init());
    curl_easy_setopt(easy.get(), CURLOPT_URL, "http://127.0.0.1:1/");
    bool has_failed = false;
    m.async_perform(easy.get(), [&](moor::error_code ec) {
        has_failed = ec == moor::adapt::curl_error(CURLE_COULDNT_CONNECT);
    });
    io.run();
    return has_failed ? 0 : 1;
}
