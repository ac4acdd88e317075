//
// drop_in.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Numbers the lines of the standard input, whatever that is:
//
//     ./drop_in    ./drop_in < file    something | ./drop_in    ./drop_in < /dev/null
//
// It was written for Asio's stream descriptor. Two things have changed: the alias, and that the
// handles are borrowed, so that the shell finds its terminal as it was.
//

#include <moor/stream_descriptor.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/system/system_error.hpp>

#include <exception>
#include <iostream>
#include <string>

#include <unistd.h>

namespace asio = boost::asio;

//[drop_in
// using stream_descriptor = asio::posix::stream_descriptor;
using stream_descriptor = moor::stream_descriptor;

asio::awaitable<void> number_lines(stream_descriptor& in, stream_descriptor& out); // unchanged

asio::awaitable<void> filter(asio::io_context& io) {
    stream_descriptor in(io, moor::borrow(STDIN_FILENO)); // was: in(io, ::dup(STDIN_FILENO))
    stream_descriptor out(io, moor::borrow(STDOUT_FILENO));
    co_await number_lines(in, out);
}
//]

asio::awaitable<void> number_lines(stream_descriptor& in, stream_descriptor& out) {
    std::string text;
    for (unsigned number = 1;; ++number) {
        auto [ec, size] = co_await asio::async_read_until(in, asio::dynamic_buffer(text), '\n',
                                                          asio::as_tuple(asio::use_awaitable));
        if (ec && ec != asio::error::eof)
            throw boost::system::system_error(ec);
        if (text.empty())
            co_return; // the end
        if (ec)
            size = text.size(); // a line that was not finished
        std::string line = std::to_string(number) + "  " + text.substr(0, size);
        text.erase(0, size);
        co_await asio::async_write(out, asio::buffer(line), asio::use_awaitable);
    }
}

int main() {
    asio::io_context io;
    asio::co_spawn(io, filter(io), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    try {
        io.run();
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return 1;
    }
}
