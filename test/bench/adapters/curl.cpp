//
// test/bench/adapters/curl.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Small transfers from nginx, which servers.sh starts, on connections that are kept: one at a time,
// and 50 at once. The library's own use: curl_easy_perform, and a loop around curl_multi_poll.
//

#include "bench.hpp"

#include <moor/adapt/curl.hpp>

#include <boost/asio/io_context.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <list>
#include <memory>
#include <string>

#include <curl/curl.h>

namespace {

namespace adapt = moor::adapt;
constexpr std::uint64_t at_once = 50;
constexpr std::uint64_t transfers = 1000;

std::size_t append(char* data, std::size_t, std::size_t size, void* body) {
    static_cast<std::string*>(body)->append(data, size);
    return size;
}

struct transfer {
    adapt::curl_handle easy{curl_easy_init()};
    std::string body;

    transfer() {
        const char* const server = std::getenv("MOOR_SERVERS_HTTP");
        bench::check(server, "MOOR_SERVERS_HTTP is not set");
        curl_easy_setopt(easy.get(), CURLOPT_URL, (server + std::string("/echo/42")).c_str());
        curl_easy_setopt(easy.get(), CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, &append);
        curl_easy_setopt(easy.get(), CURLOPT_WRITEDATA, &body);
        curl_easy_setopt(easy.get(), CURLOPT_PRIVATE, this);
    }

    void check() {
        bench::check(body == "/echo/42", "wrong body");
        body.clear();
    }
};

/// By default, libcurl keeps fewer when there are fewer transfers, as at the end of each iteration.
void keep_connections(CURLM* m) {
    curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, static_cast<long>(at_once));
}

bench::work easy_one() {
    return [t = std::make_shared<transfer>()](std::uint64_t times) {
        for (std::uint64_t i = 0; i != times; ++i) {
            bench::check(curl_easy_perform(t->easy.get()) == CURLE_OK, "no transfer");
            t->check();
        }
    };
}

struct multi {
    std::unique_ptr<CURLM, CURLMcode (*)(CURLM*)> handle{curl_multi_init(), &curl_multi_cleanup};
    std::list<transfer> all{at_once};

    multi() { keep_connections(handle.get()); }

    void run(std::uint64_t times) {
        std::uint64_t unstarted = times, left = times;
        const auto start = [&](CURL* easy) {
            if (unstarted == 0)
                return false;
            --unstarted;
            bench::check(curl_multi_add_handle(handle.get(), easy) == CURLM_OK, "no start");
            return true;
        };
        for (transfer& t : all)
            start(t.easy.get());
        while (left != 0) {
            int running = 0, messages = 0;
            bench::check(curl_multi_perform(handle.get(), &running) == CURLM_OK, "no progress");
            bool has_started = false;
            while (const CURLMsg* m = curl_multi_info_read(handle.get(), &messages)) {
                CURL* const easy = m->easy_handle;
                bench::check(m->data.result == CURLE_OK, "no transfer");
                transfer* t = nullptr;
                curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t);
                t->check();
                --left;
                curl_multi_remove_handle(handle.get(), easy);
                has_started = start(easy) || has_started;
            }
            if (!has_started && left != 0)
                curl_multi_poll(handle.get(), nullptr, 0, 1000, nullptr);
        }
    }
};

bench::work multi_fifty() {
    return [m = std::make_shared<multi>()](std::uint64_t times) { m->run(times); };
}

struct asynchronous {
    boost::asio::io_context io{1};
    adapt::curl_multi multi{io};
    std::list<transfer> all;
    std::uint64_t unstarted = 0, left = 0;

    explicit asynchronous(std::uint64_t n) : all(n) { keep_connections(multi.native_handle()); }

    void start(transfer& t) {
        if (unstarted == 0)
            return;
        --unstarted;
        multi.async_perform(t.easy.get(), [this, &t](moor::error_code ec) {
            bench::check(!ec, "no transfer");
            t.check();
            --left;
            start(t);
        });
    }

    void run(std::uint64_t times) {
        unstarted = left = times;
        for (transfer& t : all)
            start(t);
        io.restart();
        io.run();
        bench::check(left == 0, "not all completed");
    }
};

template <std::uint64_t N>
bench::work with_moor() {
    return [a = std::make_shared<asynchronous>(N)](std::uint64_t times) { a->run(times); };
}

} // namespace

int main(int argc, char** argv) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const int result = bench::main_of({{"one", "curl", easy_one, 10},
                                       {"one", "moor", with_moor<1>, 10},
                                       {"fifty", "curl", multi_fifty, transfers},
                                       {"fifty", "moor", with_moor<at_once>, transfers}},
                                      argc, argv);
    curl_global_cleanup();
    return result;
}
