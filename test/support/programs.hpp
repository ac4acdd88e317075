// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What the programs of the suites have in common: the streams that they are built with, and the
// person at the terminal.

#ifndef MOOR_TEST_SUPPORT_PROGRAMS_HPP
#define MOOR_TEST_SUPPORT_PROGRAMS_HPP

#include "support/handles.hpp"

#include <moor/stream_descriptor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/write.hpp>
#include <boost/test/unit_test.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <string>
#include <tuple>

#include <fcntl.h>

namespace test {

namespace asio = boost::asio;

/// What the programs are built with.
using streams = std::tuple<asio::posix::stream_descriptor, moor::stream_descriptor>;
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
// Asio's own read of a terminal fails there with EINTR at times.
using terminal_streams = std::tuple<moor::stream_descriptor>;
#else
using terminal_streams = streams;
#endif

/// So far away that a timer set to it does not fire in a test.
inline constexpr std::chrono::hours never(1);

/// Many bytes, all different enough that a lost or a repeated one shows.
inline std::string long_text(std::size_t n) {
    std::string s;
    for (unsigned line = 0; s.size() < n; ++line)
        s += "line " + std::to_string(line * 2654435761U) + '\n';
    s.resize(n);
    return s;
}

/// Somebody at a terminal: types, and sees what is on the screen.
template <class Stream>
class person {
public:
    person(asio::io_context& io, unique_fd master) : tty_(io, master.release()) { look(); }

    void types(const std::string& s) { BOOST_TEST(asio::write(tty_, asio::buffer(s)) == s.size()); }
    const std::string& screen() const { return screen_; }
    void leaves() { tty_.close(); }
    /// Why nothing more comes: EIO when the terminal has no program left.
    const error_code& end() const { return end_; }

private:
    void look() {
        tty_.async_read_some(asio::buffer(glance_), [this](error_code ec, std::size_t n) {
            screen_.append(glance_.data(), n);
            end_ = ec;
            if (!ec)
                look();
        });
    }

    Stream tty_;
    std::array<char, 256> glance_{};
    std::string screen_;
    error_code end_;
};

inline const std::string end_key = "\x04"; // control-D
inline const error_code eof(asio::error::eof);
inline const error_code terminal_gone(EIO, asio::error::get_system_category());

} // namespace test

#endif
