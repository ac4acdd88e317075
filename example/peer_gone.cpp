//
// peer_gone.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A server works for a client, and does not read meanwhile. It learns at once that the client has
// gone, from a socket which Asio owns: Moor registers a duplicate of the descriptor.
//

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;

namespace {

//[peer_gone
/// A registration of a descriptor which Asio has, too.
moor::registration watch_socket(asio::io_context& io, tcp::socket& socket) {
    moor::registration_options options;
    options.duplicate = true;
    return moor::registration(io, socket, options);
}

/// Calls `gone` when the peer has closed the connection, or only its sending side; also while data
/// are unread.
template <class F>
void when_peer_has_gone(moor::registration& watch, F gone) {
    watch.async_wait(moor::interest::read_closed,
                     [gone](moor::error_code ec, moor::ready_event) mutable {
                         if (!ec)
                             gone();
                     });
}
//]

} // namespace

int main() try {
    asio::io_context io;
    tcp::acceptor acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    tcp::socket client(io);
    client.connect(acceptor.local_endpoint());
    tcp::socket socket = acceptor.accept();
    moor::registration watch = watch_socket(io, socket);

    // The work, of an hour.
    asio::steady_timer work(io, 1h);
    bool is_over = false;
    work.async_wait([&](moor::error_code ec) {
        is_over = !ec;
        std::cout << (ec ? "the work was stopped\n" : "the work is done\n");
    });
    when_peer_has_gone(watch, [&] {
        std::cout << "the peer has gone, and left " << socket.available() << " bytes unread\n";
        work.cancel();
    });

    // The client sends a request that nobody reads, and goes.
    asio::write(client, asio::buffer("hello", 5));
    client.close();
    io.run();

    watch.deregister(); // before socket.close()
    return is_over ? EXIT_FAILURE : EXIT_SUCCESS;
} catch (const std::exception& e) {
    std::cerr << "FAILED: " << e.what() << '\n';
    return EXIT_FAILURE;
}
