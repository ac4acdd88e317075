//
// download.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Downloads files at once, with a progress bar. The files get the last parts of the addresses as
// their names. Ctrl-C ends all downloads. Four files from a server of its own, to a temporary
// directory:
//
//     example/run.sh download
//
// Other files, to the current directory:
//
//     example/run.sh download https://www.example.org/a.html ...
//     g++ -std=c++20 -I../include download.cpp -pthread -lcurl && ./a.out https://...
//
// doc/adapt-curl.adoc shows the parts between the markers.
//

#include <moor/adapt/curl.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <list>
#include <string>

#include <unistd.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;

namespace {

struct download;

/// All downloads, and the line on the terminal that shows their progress.
struct downloads {
    std::list<download> all;
    std::size_t left = 0, failed = 0;

    void show() const;
    void show_on_terminal() const {
        if (::isatty(STDERR_FILENO))
            show();
    }
};

struct download {
    downloads& owner;
    std::string url;
    std::string name = "./" + url.substr(url.rfind('/') + 1);
    std::ofstream file{name, std::ios::binary};
    curl_off_t size = 0, received = 0;

    download(downloads& d, std::string from) : owner(d), url(std::move(from)) {}
};

void downloads::show() const {
    constexpr curl_off_t width = 50;
    curl_off_t size = 0, received = 0;
    for (const download& d : all) {
        size += d.size;
        received += d.received;
    }
    // More than the size has come if the sizes of some are unknown.
    const auto filled =
        static_cast<std::size_t>(size != 0 ? std::min(width, width * received / size) : 0);
    std::cerr << "\r[" << std::string(filled, '#') << std::string(width - filled, ' ') << "] "
              << received / 1000 << " kB, " << left << " left " << std::flush;
}

//[callbacks
// libcurl calls these functions within the loop.
std::size_t write_data(char* data, std::size_t, std::size_t size, void* self) {
    auto& d = *static_cast<download*>(self);
    d.file.write(data, static_cast<std::streamsize>(size));
    return d.file ? size : 0; // 0 is an error
}

int show_progress(void* self, curl_off_t size, curl_off_t received, curl_off_t, curl_off_t) {
    auto& d = *static_cast<download*>(self);
    d.size = size;
    d.received = received;
    d.owner.show_on_terminal();
    return 0;
}
//]

//[download
asio::awaitable<void> run(adapt::curl_multi& m, download& d) {
    adapt::curl_handle easy(curl_easy_init());
    curl_easy_setopt(easy.get(), CURLOPT_URL, d.url.c_str());
    curl_easy_setopt(easy.get(), CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy.get(), CURLOPT_FAILONERROR, 1L); // 404 and so on
    curl_easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, &write_data);
    curl_easy_setopt(easy.get(), CURLOPT_WRITEDATA, &d);
    curl_easy_setopt(easy.get(), CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy.get(), CURLOPT_XFERINFOFUNCTION, &show_progress);
    curl_easy_setopt(easy.get(), CURLOPT_XFERINFODATA, &d);
    auto [ec] = co_await m.async_perform(easy.get(), asio::as_tuple(asio::use_awaitable));
    if (::isatty(STDERR_FILENO))
        std::cerr << "\r\033[K"; // the bar gives way
    if (ec)
        std::cout << d.url << ": " << ec.message() << std::endl;
    else
        std::cout << d.name << ": " << d.file.tellp() << " bytes" << std::endl;
    d.owner.failed += ec.failed();
    --d.owner.left;
}
//]

} // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::cerr << "usage: download URL...\n";
        return EXIT_FAILURE;
    }
    try {
        //[main
        curl_global_init(CURL_GLOBAL_DEFAULT);
        asio::io_context io;
        adapt::curl_multi m(io);
        curl_multi_setopt(m.native_handle(), CURLMOPT_MAX_HOST_CONNECTIONS, 6L);
        asio::signal_set signals(io, SIGINT, SIGTERM);
        signals.async_wait([&](moor::error_code, int) { m.cancel(); });
        downloads d;
        for (int i = 1; i != argc; ++i)
            d.all.emplace_back(d, argv[i]);
        d.left = d.all.size();
        for (download& each : d.all)
            asio::co_spawn(io, run(m, each), [&](std::exception_ptr e) {
                if (e)
                    std::rethrow_exception(e);
                if (d.left == 0)
                    signals.cancel();
            });
        io.run();
        //]
        std::cout << d.all.size() - d.failed << " of " << d.all.size() << " files" << std::endl;
        return d.failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
