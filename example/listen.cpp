//
// listen.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// LISTEN and NOTIFY of PostgreSQL in the terminal. The program prints the notifications of a
// channel, and sends each line of its standard input to the channel. With a server of its own:
//
//     example/run.sh listen
//
// With another server, which libpq's variables (PGHOST and so on) name:
//
//     g++ -std=c++20 -I../include -I/usr/include/postgresql listen.cpp -pthread -lpq
//     ./a.out CHANNEL
//
// doc/adapt-libpq.adoc shows the parts between the markers.
//

#include <moor.hpp>
#include <moor/adapt/libpq.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>

#include <unistd.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;
using asio::use_awaitable;

namespace {

/// What the two coroutines share.
struct talk {
    adapt::pq_connection connection;
    std::string channel;
    long sent = 0;
    long received = 0; // of those that were sent here
    bool has_input = true;

    /// Without input, the program ends when the last line has come back.
    void end_if_over() {
        if (!has_input && received == sent)
            connection.close();
    }
};

//[show
/// Prints notifications until the connection is closed.
asio::awaitable<void> show_notifications(talk& t) {
    for (;;) {
        auto [ec, n] = co_await t.connection.async_notification(asio::as_tuple(use_awaitable));
        if (ec == asio::error::operation_aborted)
            co_return;
        if (ec)
            throw boost::system::system_error(ec, t.connection.error_message());
        std::cout << n->relname << ": " << n->extra << std::endl;
        if (n->be_pid == PQbackendPID(t.connection.native_handle()))
            ++t.received;
        t.end_if_over();
    }
}
//]

//[send
/// Sends the lines of the standard input.
asio::awaitable<void> send_lines(talk& t) {
    moor::stream_descriptor in(t.connection.get_executor(), moor::borrow(STDIN_FILENO));
    std::string text;
    for (;;) {
        auto [ec, size] = co_await asio::async_read_until(in, asio::dynamic_buffer(text), '\n',
                                                          asio::as_tuple(use_awaitable));
        if (ec || !t.connection.is_open())
            break;
        adapt::pq_params params(t.channel, text.substr(0, size - 1));
        text.erase(0, size);
        ++t.sent;
        co_await t.connection.async_exec_params("select pg_notify($1, $2)", params, use_awaitable);
    }
    t.has_input = false;
    t.end_if_over();
}
//]

//[main
asio::awaitable<void> run(talk& t) {
    co_await t.connection.async_connect("", use_awaitable); // libpq's variables say where
    char* name =
        PQescapeIdentifier(t.connection.native_handle(), t.channel.data(), t.channel.size());
    std::string listen = std::string("listen ") + name;
    PQfreemem(name);
    co_await t.connection.async_exec(listen, use_awaitable);
    std::cout << "listening to " << t.channel << std::endl;
    auto rethrow = [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    };
    asio::co_spawn(t.connection.get_executor(), send_lines(t), rethrow);
    co_await show_notifications(t);
}
//]

} // namespace

int main(int argc, char** argv) {
    try {
        asio::io_context io;
        talk t{adapt::pq_connection(io), argc > 1 ? argv[1] : "news"};
        asio::signal_set signals(io, SIGINT, SIGTERM);
        signals.async_wait([&](moor::error_code, int) { io.stop(); });
        asio::co_spawn(io, run(t), [&](std::exception_ptr e) {
            io.stop(); // the terminal and the signals may be silent
            if (e)
                std::rethrow_exception(e);
        });
        io.run();
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
