// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What the suites of descriptors have in common: one operation within the cap, the flags of a
// handle, signals, and the kinds of file that carry bytes to an end.

#ifndef MOOR_TEST_SUPPORT_STREAMS_HPP
#define MOOR_TEST_SUPPORT_STREAMS_HPP

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/pty.hpp"
#include "support/tracker.hpp"
#include "support/transferred.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/descriptor_base.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>
#include <boost/test/unit_test.hpp>

#include <csignal>
#include <cstddef>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

namespace test {

// ---- one operation ------------------------------------------------------------------------------

/// Reads once, within the cap: the bytes.
template <class D>
std::string read_once(boost::asio::io_context& io, D& d, error_code& ec, std::size_t size = 4096) {
    std::string s(size, '\0');
    transferred t;
    {
        initiation_guard guard;
        d.async_read_some(boost::asio::buffer(s), t.handler());
    }
    BOOST_TEST(t.times == 0); // never from within
    run_until(io, [&] { return bool(t); });
    ec = t.ec;
    s.resize(t.bytes);
    return s;
}

template <class D>
std::size_t write_once(boost::asio::io_context& io, D& d, const std::string& s, error_code& ec) {
    transferred t;
    d.async_write_some(boost::asio::buffer(s), t.handler());
    BOOST_TEST(t.times == 0);
    run_until(io, [&] { return bool(t); });
    ec = t.ec;
    return t.bytes;
}

/// The error of one wait.
template <class D>
error_code waited(boost::asio::io_context& io, D& d,
                  boost::asio::posix::descriptor_base::wait_type w) {
    called done;
    d.async_wait(w, done.handler());
    BOOST_TEST(done.times == 0);
    run_until(io, [&] { return bool(done); });
    return done.ec;
}

/// The error that a throwing overload throws.
template <class F>
error_code thrown_by(F f) {
    try {
        f();
    } catch (const boost::system::system_error& e) {
        return e.code();
    }
    return error_code();
}

/// More than any handle here takes at once.
inline const std::string& much() {
    static const std::string s(std::size_t(1) << 25, 'x');
    return s;
}

// ---- flags and signals --------------------------------------------------------------------------

inline int flags_of(int fd) { return ::fcntl(fd, F_GETFL); }
inline bool has_nonblock(int fd) { return (flags_of(fd) & O_NONBLOCK) != 0; }
inline void set_blocking(int fd) {
    BOOST_REQUIRE_EQUAL(::fcntl(fd, F_SETFL, flags_of(fd) & ~O_NONBLOCK), 0);
}

/// What a signal does here, until this is over.
class signal_action {
public:
    signal_action(int number, void (*handler)(int)) : number_(number) {
        struct ::sigaction a {};
        a.sa_handler = handler;
        BOOST_REQUIRE_EQUAL(::sigaction(number, &a, &old_), 0);
    }
    ~signal_action() { ::sigaction(number_, &old_, nullptr); }
    signal_action(const signal_action&) = delete;
    signal_action& operator=(const signal_action&) = delete;

private:
    int number_;
    struct ::sigaction old_;
};

// ---- kinds of file ------------------------------------------------------------------------------

/// A kind of file and its end: a reads what b is written.
struct byte_kind {
    std::string name;
    fd_pair (*make)();
    void (*end)(fd_pair&);          ///< no more comes
    bool loses_data = false;        ///< the end may overtake what was written
    error_code last = error_code(); ///< what is read at the end; none: eof
    bool keeps_packets = false;     ///< and refuses one that is too large

    bool is_tcp() const { return name.compare(0, 3, "tcp") == 0; }
    bool is_pty() const { return name.compare(0, 3, "pty") == 0; }
};

inline const std::vector<byte_kind>& byte_kinds() {
    auto sockets = [] { return make_socketpair(); };
    auto packets = [] { return make_socketpair(SOCK_SEQPACKET); };
    auto terminal = [] { return swapped(make_raw_pty()); };
    static const error_code io_error(EIO, boost::asio::error::get_system_category());
    static const error_code was_reset(boost::asio::error::connection_reset);
    static const std::vector<byte_kind> all = {
        {"pipe", make_pipe, close_peer},
        {"fifo", make_fifo, close_peer},
        {"unix socket, closed", sockets, close_peer},
        {"unix socket, shut down", sockets, shut_peer},
        {"unix packets, closed", packets, close_peer, false, error_code(), true},
        {"tcp, closed", make_tcp_pair, close_peer},
        {"tcp, shut down", make_tcp_pair, shut_peer},
        {"tcp, reset", make_tcp_pair, reset_peer, true, was_reset},
        {"pty master", make_raw_pty, close_peer, false, io_error},
        {"pty slave", terminal, close_peer, true}};
    return all;
}

/// A pipe that keeps packets apart, which can't be seen at its reading end.
inline fd_pair make_packet_pipe() {
    int fds[2];
    BOOST_REQUIRE_EQUAL(::pipe2(fds, O_DIRECT | O_NONBLOCK | O_CLOEXEC), 0);
    return {unique_fd(fds[0]), unique_fd(fds[1])};
}

/// The terminal a is read line by line.
inline fd_pair make_terminal_of_lines() {
    fd_pair p = swapped(make_raw_pty());
    ::termios t{};
    BOOST_REQUIRE_EQUAL(::tcgetattr(p.a, &t), 0);
    t.c_lflag |= ICANON;
    BOOST_REQUIRE_EQUAL(::tcsetattr(p.a, TCSANOW, &t), 0);
    return p;
}

/// Several messages in one event, between which a read ends.
struct boundary {
    const char* name;
    fd_pair (*make)();
    void (*put)(int);
    std::string text; ///< what is read
};

inline const std::vector<boundary>& boundaries() {
    auto put_two = [](int fd) {
        put(fd, "one");
        put(fd, "two");
    };
    auto put_three = [](int fd) {
        for (const char* s : {"one", "two", "three"})
            put(fd, s);
    };
    auto put_around_urgent_data = [](int fd) {
        put(fd, "one");
        BOOST_REQUIRE_EQUAL(::send(fd, "!", 1, MSG_OOB), 1);
        put(fd, "two");
    };
    static const std::vector<boundary> all = {
        {"datagrams", [] { return make_socketpair(SOCK_DGRAM); }, put_two, "onetwo"},
        {"packets", [] { return make_socketpair(SOCK_SEQPACKET); }, put_two, "onetwo"},
        {"urgent data", make_tcp_pair, put_around_urgent_data, "onetwo"},
        {"lines", make_terminal_of_lines, [](int fd) { put(fd, "one\ntwo\n"); }, "one\ntwo\n"},
        {"packets in a pipe", make_packet_pipe, put_three, "onetwothree"}};
    return all;
}

} // namespace test

#endif
