// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Whether a wait is pending, completes, or fails; and the sockets and triggers that most waits are
// tried with.

#ifndef MOOR_TEST_SUPPORT_WAITING_HPP
#define MOOR_TEST_SUPPORT_WAITING_HPP

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor/readiness.hpp>
#include <moor/registration.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/test/unit_test.hpp>

namespace test {

/// A handler of async_wait that must be called once.
struct called_event : called_with<moor::ready_event> {
    moor::interest ready() const { return value.ready(); }
};

/// A wait that must stay pending for now.
inline void check_pends(boost::asio::io_context& io, const called& c) {
    run_ready(io);
    BOOST_TEST(c.times == 0);
}

/// A wait that must end once, with this error.
inline void check_fails(boost::asio::io_context& io, const called& c, const error_code& expected) {
    run_until(io, [&] { return bool(c); });
    BOOST_TEST(c.times == 1);
    BOOST_CHECK_EQUAL(c.ec, expected);
}

/// A wait that must end once, and without an error.
inline void check_completes(boost::asio::io_context& io, const called& c) {
    check_fails(io, c, error_code());
}

/// A wait for reading that has begun, and is pending.
struct pending_reader : called {
    template <class Registration>
    pending_reader(boost::asio::io_context& io, Registration& reg) {
        reg.async_wait_readable(handler());
        check_pends(io, *this);
    }
};

/// The same for writing.
struct pending_writer : called {
    template <class Registration>
    pending_writer(boost::asio::io_context& io, Registration& reg) {
        reg.async_wait_writable(handler());
        check_pends(io, *this);
    }
};

/// A wait that begins now completes.
template <class Registration>
void check_readable(boost::asio::io_context& io, Registration& reg) {
    called done;
    reg.async_wait_readable(done.handler());
    check_completes(io, done);
}
template <class Registration>
void check_writable(boost::asio::io_context& io, Registration& reg) {
    called done;
    reg.async_wait_writable(done.handler());
    check_completes(io, done);
}

/// Waits for one byte, to show that a registration works.
template <class Registration>
void check_works(boost::asio::io_context& io, Registration& reg, int reader, int writer) {
    pending_reader done(io, reg);
    put(writer, "x");
    check_completes(io, done);
    BOOST_TEST(get(reader) == "x");
}

/// Calls f(trigger, pair, is_tcp) for each trigger, with sockets of each kind.
template <class F>
void on_unix_and_tcp(F f) {
    for (moor::trigger t : both_triggers)
        for (bool is_tcp : {false, true})
            BOOST_TEST_CONTEXT((t == moor::trigger::edge ? "edge, " : "level, ")
                               << (is_tcp ? "TCP" : "Unix")) {
                f(t, is_tcp ? make_tcp_pair() : make_socketpair(), is_tcp);
            }
}

} // namespace test

#endif
