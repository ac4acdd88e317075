//
// bus.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// D-Bus in the terminal: a client that calls a service and shows its signals, and the service,
// which greets. The client greets everybody on the standard input, one name a line. With a message
// bus of its own:
//
//     example/run.sh bus
//
// With the user's bus, where other programs may call the service, too:
//
//     g++ -std=c++20 -I../include bus.cpp -pthread -lsystemd && ./a.out
//     busctl --user call org.example.Greeter /org/example/Greeter org.example.Greeter Greet s Ann
//
// doc/adapt-sd_bus.adoc shows the parts between the markers.
//

#include <moor.hpp>
#include <moor/adapt/sd_bus.hpp>

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

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <utility>

#include <systemd/sd-bus.h>
#include <unistd.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;
using asio::use_awaitable;
using namespace std::chrono_literals;

namespace {

const char* const service_name = "org.example.Greeter";
const char* const object_path = "/org/example/Greeter";

//[serve
/// sd-bus calls this for each call of the method.
int on_greet(sd_bus_message* call, void*, sd_bus_error*) {
    const char* name = nullptr;
    int result = sd_bus_message_read(call, "s", &name);
    if (result < 0)
        return result;
    sd_bus* b = sd_bus_message_get_bus(call);
    sd_bus_emit_signal(b, object_path, service_name, "Greeted", "s", name);
    return sd_bus_reply_method_return(call, "s", ("Hello, " + std::string(name) + "!").c_str());
}

const sd_bus_vtable greeter[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Greet", "s", "s", on_greet, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_SIGNAL("Greeted", "s", 0),
    SD_BUS_VTABLE_END,
};

/// Serves the object for as long as the context runs.
asio::awaitable<void> serve(adapt::sd_bus_connection& bus) {
    co_await bus.async_open(sd_bus_open_user, use_awaitable);
    int result = sd_bus_add_object_vtable(bus.native_handle(), nullptr, object_path, service_name,
                                          greeter, nullptr);
    if (result < 0)
        throw boost::system::system_error(adapt::sd_bus_error_of(result));
    adapt::sd_bus_message_handle request =
        bus.new_call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                     "RequestName", "su", service_name, 0u);
    co_await bus.async_call(std::move(request), use_awaitable);
}
//]

//[signals
/// Prints signals until the connection is closed.
asio::awaitable<void> show_signals(adapt::sd_bus_match signals) {
    for (;;) {
        auto [ec, m] = co_await signals.async_receive(asio::as_tuple(use_awaitable));
        if (ec == asio::error::operation_aborted)
            co_return;
        if (ec)
            throw boost::system::system_error(ec);
        const char* name = "";
        sd_bus_message_read(m.get(), "s", &name);
        std::cout << "signal: " << sd_bus_message_get_member(m.get()) << ' ' << name << std::endl;
    }
}
//]

//[call
/// Calls the service for each line of the standard input.
asio::awaitable<void> greet_lines(adapt::sd_bus_connection& bus) {
    moor::stream_descriptor in(bus.get_executor(), moor::borrow(STDIN_FILENO));
    std::string text;
    for (;;) {
        auto [eof, size] = co_await asio::async_read_until(in, asio::dynamic_buffer(text), '\n',
                                                           asio::as_tuple(use_awaitable));
        if (eof)
            co_return;
        std::string name = text.substr(0, size - 1);
        text.erase(0, size);
        adapt::sd_bus_message_handle call =
            bus.new_call(service_name, object_path, service_name, "Greet", "s", name.c_str());
        auto [ec, reply] =
            co_await bus.async_call(std::move(call), 5s, asio::as_tuple(use_awaitable));
        if (ec) {
            std::cout << ec.message() << ": " << bus.error_message() << std::endl;
            continue;
        }
        const char* greeting = "";
        sd_bus_message_read(reply.get(), "s", &greeting);
        std::cout << greeting << std::endl;
    }
}
//]

void rethrow(std::exception_ptr e) {
    if (e)
        std::rethrow_exception(e);
}

//[main
asio::awaitable<void> run(adapt::sd_bus_connection& service, adapt::sd_bus_connection& client) {
    co_await serve(service);
    co_await client.async_open(sd_bus_open_user, use_awaitable);
    adapt::sd_bus_match signals =
        co_await client.async_match("type='signal',sender='org.example.Greeter'", use_awaitable);
    asio::co_spawn(client.get_executor(), show_signals(std::move(signals)), rethrow);
    std::cout << "names to greet, one a line:" << std::endl;
    co_await greet_lines(client);
    client.close(); // ends show_signals()
}
//]

} // namespace

int main() {
    try {
        asio::io_context io;
        adapt::sd_bus_connection service(io), client(io);
        asio::signal_set signals(io, SIGINT, SIGTERM);
        signals.async_wait([&](moor::error_code, int) { io.stop(); });
        asio::co_spawn(io, run(service, client), [&](std::exception_ptr e) {
            signals.cancel();
            rethrow(e);
        });
        io.run(); // returns when nothing is pending, although the service is still there
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
