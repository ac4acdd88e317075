//
// gio.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// GIO in a program of Boost.Asio: a GFileMonitor prints what changes in a directory, while a
// coroutine, a timer and a signal_set do their work in the same loop.
//
//     example/run.sh gio
//     example/run.sh gio DIRECTORY
//
// The first writes files itself, in a directory of its own; the second ends with Ctrl-C.
//
// Without run.sh:
//
//     g++ -std=c++20 -I../include gio.cpp -pthread $(pkg-config --cflags --libs gio-2.0)
//
// doc/adapt-glib.adoc shows the parts between the markers.
//

#include <moor.hpp>
#include <moor/adapt/glib.hpp>

#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <gio/gio.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;
using asio::use_awaitable;

namespace {

/// A reference of an object of GIO, which is dropped at the end.
template <class T>
std::shared_ptr<T> own(T* object) {
    return std::shared_ptr<T>(object, g_object_unref);
}

/// Throws an error of GIO.
void check(GError* error) {
    if (!error)
        return;
    const std::string text = error->message;
    g_error_free(error);
    throw std::runtime_error(text);
}

//[async
/// Starts an asynchronous function of GIO, and completes with its result.
template <class Start, class Token>
auto async_gio(adapt::glib_guest& guest, Start start, Token&& token) {
    using result = std::shared_ptr<GAsyncResult>;
    using gio_operation = moor::operation<void(result)>;
    auto initiation = [&guest](auto handler, Start f) {
        auto op = std::make_unique<gio_operation>(
            gio_operation::start(std::move(handler), guest.get_executor()));
        GAsyncReadyCallback on_ready = [](GObject*, GAsyncResult* r, gpointer p) {
            std::unique_ptr<gio_operation> ended(static_cast<gio_operation*>(p));
            g_object_ref(r);
            ended->complete(own(r));
        };
        guest.call([&] { f(on_ready, op.release()); });
    };
    return asio::async_initiate<Token, void(result)>(std::move(initiation), token,
                                                     std::move(start));
}
//]

//[write
/// Writes three files, with a timer of Asio and a function of GIO.
asio::awaitable<void> write_files(adapt::glib_guest& guest, std::string directory) {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    for (const char* name : {"one", "two", "three"}) {
        timer.expires_after(std::chrono::milliseconds(50));
        co_await timer.async_wait(use_awaitable);
        auto file = own(g_file_new_build_filename(directory.c_str(), name, nullptr));
        auto start = [&](GAsyncReadyCallback f, gpointer p) {
            g_file_replace_contents_async(file.get(), "hello\n", 6, nullptr, FALSE,
                                          G_FILE_CREATE_NONE, nullptr, f, p);
        };
        auto result = co_await async_gio(guest, start, use_awaitable);
        GError* error = nullptr;
        g_file_replace_contents_finish(file.get(), result.get(), nullptr, &error);
        check(error);
    }
}
//]

/// What the monitor's callback uses.
struct watch {
    adapt::glib_guest& guest;
    bool writes;
    bool is_written = false; // by the coroutine, which needs the guest until then
    bool is_seen = false;    // by the monitor

    void end_if_over() {
        if (writes && is_written && is_seen)
            guest.stop();
    }
};

//[changed
/// Prints a change. The monitor calls this function in the loop.
void on_changed(GFileMonitor*, GFile* file, GFile*, GFileMonitorEvent event, gpointer p) {
    watch& w = *static_cast<watch*>(p);
    char* name = g_file_get_basename(file);
    if (event == G_FILE_MONITOR_EVENT_CREATED)
        std::cout << "created: " << name << std::endl;
    else if (event == G_FILE_MONITOR_EVENT_CHANGES_DONE_HINT)
        std::cout << "written: " << name << std::endl;
    else if (event == G_FILE_MONITOR_EVENT_DELETED)
        std::cout << "deleted: " << name << std::endl;
    if (event == G_FILE_MONITOR_EVENT_CHANGES_DONE_HINT && name == std::string("three"))
        w.is_seen = true;
    w.end_if_over();
    g_free(name);
}
//]

//[run
void run(const std::string& directory, bool writes) {
    asio::io_context io;
    adapt::glib_guest guest(io); // a GMainContext of its own
    asio::signal_set signals(io, SIGINT, SIGTERM);
    signals.async_wait([&](moor::error_code, int) { guest.stop(); });

    watch w{guest, writes};
    auto place = own(g_file_new_for_path(directory.c_str()));
    GError* error = nullptr;
    auto monitor = guest.call([&] { // so that the monitor calls back in the guest's context
        return own(g_file_monitor_directory(place.get(), G_FILE_MONITOR_NONE, nullptr, &error));
    });
    check(error);
    g_signal_connect(monitor.get(), "changed", G_CALLBACK(on_changed), &w);

    guest.async_run([&](moor::error_code) { signals.cancel(); }); // until stop()
    if (writes)
        asio::co_spawn(io, write_files(guest, directory), [&](std::exception_ptr e) {
            if (e)
                std::rethrow_exception(e);
            w.is_written = true;
            w.end_if_over();
        });
    io.run();
}
//]

} // namespace

int main(int argc, char** argv) {
    try {
        if (argc > 1) {
            run(argv[1], false);
            return EXIT_SUCCESS;
        }
        std::string directory = (std::filesystem::temp_directory_path() / "moor-XXXXXX").string();
        if (!g_mkdtemp(directory.data()))
            throw std::runtime_error("no temporary directory");
        run(directory, true);
        std::filesystem::remove_all(directory);
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
