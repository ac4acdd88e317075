// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for ZeroMQ does: a message to itself.

#include <moor/adapt/zmq.hpp>

#include <boost/asio/io_context.hpp>

#include <memory>

#include <zmq.h>

int main() {
    const std::unique_ptr<void, int (*)(void*)> zmq(zmq_ctx_new(), &zmq_ctx_term);
    boost::asio::io_context io;
    using moor::adapt::zeromq_handle;
    moor::adapt::zeromq_socket a(io, zeromq_handle(zmq_socket(zmq.get(), ZMQ_PAIR)));
    moor::adapt::zeromq_socket b(io, zeromq_handle(zmq_socket(zmq.get(), ZMQ_PAIR)));
    zmq_bind(a.native_handle(), "inproc://consumer");
    zmq_connect(b.native_handle(), "inproc://consumer");
    bool has_come = false;
    b.async_receive([&](moor::error_code ec, moor::adapt::zeromq_message m) {
        has_come = !ec && m.back().view() == "hello";
    });
    a.async_send("hello", [](moor::error_code) {});
    io.run();
    return has_come ? 0 : 1;
}
