//
// redis.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Publishing and subscribing with Redis in the terminal. The program prints the messages of a
// channel, and publishes each line of its standard input there. With a server of its own:
//
//     example/run.sh redis
//
// With another server, on 127.0.0.1:6379:
//
//     g++ -std=c++20 -I../include redis.cpp -pthread -lhiredis
//     ./a.out CHANNEL
//
// doc/adapt-hiredis.adoc shows the parts between the markers.
//

#include <moor.hpp>
#include <moor/adapt/hiredis.hpp>

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
    adapt::redis_connection messages; // with a subscription, for which it is reserved
    adapt::redis_connection commands;
    std::string channel;
    long sent = 0;
    long received = 0;
    bool has_input = true;

    /// Without input, the program ends when the last line has come back.
    void end_if_over() {
        if (!has_input && received >= sent)
            messages.close();
    }
};

//[connect
/// Connects to the server of the environment, or to the usual port.
asio::awaitable<void> connect(adapt::redis_connection& c) {
    if (const char* path = std::getenv("MOOR_SERVERS_REDIS_SOCKET"))
        co_await c.async_connect_unix(path, use_awaitable);
    else
        co_await c.async_connect("127.0.0.1", 6379, use_awaitable);
}
//]

//[show
/// Prints messages until the connection is closed.
asio::awaitable<void> show_messages(talk& t) {
    for (;;) {
        auto [ec, m] = co_await t.messages.async_receive(asio::as_tuple(use_awaitable));
        if (ec == asio::error::operation_aborted)
            co_return;
        if (ec)
            throw boost::system::system_error(ec, t.messages.error_message());
        std::cout << m.elements.at(1).text << ": " << m.elements.at(2).text << std::endl;
        ++t.received;
        t.end_if_over();
    }
}
//]

//[send
/// Publishes the lines of the standard input.
asio::awaitable<void> send_lines(talk& t) {
    moor::stream_descriptor in(t.commands.get_executor(), moor::borrow(STDIN_FILENO));
    std::string text;
    for (;;) {
        auto [ec, size] = co_await asio::async_read_until(in, asio::dynamic_buffer(text), '\n',
                                                          asio::as_tuple(use_awaitable));
        if (ec || !t.messages.is_open())
            break;
        std::string line = text.substr(0, size - 1);
        text.erase(0, size);
        ++t.sent;
        co_await t.commands.async_command("PUBLISH", t.channel, line, use_awaitable);
    }
    t.has_input = false;
    t.end_if_over();
}
//]

//[main
asio::awaitable<void> run(talk& t) {
    co_await connect(t.commands);
    co_await connect(t.messages);
    co_await t.messages.async_command("SUBSCRIBE", t.channel, use_awaitable);
    std::cout << "subscribed to " << t.channel << std::endl;
    auto rethrow = [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    };
    asio::co_spawn(t.commands.get_executor(), send_lines(t), rethrow);
    co_await show_messages(t);
}
//]

} // namespace

int main(int argc, char** argv) {
    try {
        std::signal(SIGPIPE, SIG_IGN); // hiredis may write to a server that has just ended
        asio::io_context io;
        talk t{adapt::redis_connection(io), adapt::redis_connection(io),
               argc > 1 ? argv[1] : "news"};
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
