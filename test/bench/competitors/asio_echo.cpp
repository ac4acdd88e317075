//
// test/bench/competitors/asio_echo.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The echo servers that run in an io_context, on the backend that this file is compiled for.
//

#include "../echo.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/write.hpp>

#include <cstddef>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

namespace bench {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

template <class Stream>
class asio_server final : public echo_server {
public:
    /// `open`: makes a stream of a connection.
    template <class Open>
    asio_server(const std::vector<int>& connections, Open open) {
        for (int fd : connections)
            sessions_.emplace_back(open(context_, fd)).read();
    }

    void run() override { context_.run(); }

private:
    struct session {
        explicit session(Stream s) : stream(std::move(s)) {}

        void read() {
            stream.async_read_some(asio::buffer(buffer), [this](error_code ec, std::size_t n) {
                if (!ec)
                    write(n);
            });
        }
        void write(std::size_t n) {
            asio::async_write(stream, asio::buffer(buffer, n), [this](error_code ec, std::size_t) {
                if (!ec)
                    read();
            });
        }

        Stream stream;
        char buffer[echo_buffer];
    };

    asio::io_context context_{1};
    std::deque<session> sessions_;
};

std::unique_ptr<echo_server> make_moor(connection_kind, const std::vector<int>& connections) {
    using stream = moor::stream_descriptor;
    return std::make_unique<asio_server<stream>>(
        connections, [](asio::io_context& context, int fd) { return stream(context, fd); });
}

std::unique_ptr<echo_server> make_moor_borrowed(connection_kind,
                                                const std::vector<int>& connections) {
    using stream = moor::stream_descriptor;
    return std::make_unique<asio_server<stream>>(
        connections,
        [](asio::io_context& context, int fd) { return stream(context, moor::borrow(fd)); });
}

std::unique_ptr<echo_server> make_asio(connection_kind, const std::vector<int>& connections) {
    using stream = asio::posix::stream_descriptor;
    return std::make_unique<asio_server<stream>>(
        connections, [](asio::io_context& context, int fd) { return stream(context, fd); });
}

std::unique_ptr<echo_server> make_asio_socket(connection_kind kind,
                                              const std::vector<int>& connections) {
    using unix_socket = asio::local::stream_protocol::socket;
    using tcp_socket = asio::ip::tcp::socket;
    if (kind == connection_kind::tcp)
        return std::make_unique<asio_server<tcp_socket>>(
            connections, [](asio::io_context& context, int fd) {
                return tcp_socket(context, asio::ip::tcp::v4(), fd);
            });
    return std::make_unique<asio_server<unix_socket>>(
        connections, [](asio::io_context& context, int fd) {
            return unix_socket(context, asio::local::stream_protocol(), fd);
        });
}

const added_servers all({{"moor", true, &make_moor},
                         {"moor_borrowed", false, &make_moor_borrowed},
                         {"asio", true, &make_asio},
                         {"asio_socket", true, &make_asio_socket}});

} // namespace
} // namespace bench
