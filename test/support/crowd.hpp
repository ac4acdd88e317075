// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Many handles in one loop, as in a busy server: their readiness checks are deferred.

#ifndef MOOR_TEST_SUPPORT_CROWD_HPP
#define MOOR_TEST_SUPPORT_CROWD_HPP

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"

#include <moor/registration.hpp>
#include <moor/stream_descriptor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/system/error_code.hpp>

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

namespace test {

/// A pipe whose reader takes one byte, and waits again.
struct source {
    fd_pair pipe = make_pipe();
    moor::registration reg;
    std::function<void()> then = [] {}; // once it waits again
    std::size_t bytes = 0;
    bool at_end = false;
    error_code ec; // of a wait that failed, and was not begun again

    explicit source(boost::asio::io_context& io) : reg(io, pipe.a.get()) {}

    void wait() {
        reg.async_wait_readable([this](error_code e) {
            char c;
            ::ssize_t n = e ? -1 : ::read(pipe.a, &c, 1);
            if (e || n == 0) {
                ec = e;
                at_end = !e;
                return;
            }
            bytes += n == 1;
            wait();
            then();
        });
    }
};

/// Many of them in one loop, which has learnt that it pays to defer their checks.
struct crowd {
    boost::asio::io_context& io;
    std::vector<std::unique_ptr<source>> all;

    explicit crowd(boost::asio::io_context& context, std::size_t n = 20) : io(context) {
        for (std::size_t i = 0; i != n; ++i) {
            all.push_back(std::make_unique<source>(io));
            all.back()->wait();
        }
        for (std::size_t i = 0; i * n <= 300; ++i)
            turn();
    }
    ~crowd() {
        for (auto& s : all)
            s->reg.cancel();
        run_ready(io);
    }

    source& operator[](std::size_t i) { return *all[i]; }

    void put_everywhere() {
        for (auto& s : all)
            put(s->pipe.b, "x");
    }

    /// All become readable, and are read.
    call_counts turn() {
        put_everywhere();
        call_counts before = counts();
        run_ready(io);
        return counts() - before;
    }

    std::size_t bytes() const {
        std::size_t n = 0;
        for (auto& s : all)
            n += s->bytes;
        return n;
    }
};

/// A byte goes round two pipes so many times, in a loop that never blocks.
struct spinning {
    source& a;
    source& b;
    int trips = 0;

    spinning(
        source& one, source& other, int limit, std::function<void(int)> each = [](int) {})
        : a(one), b(other) {
        auto pass_on = [this, limit, each](int out) {
            each(++trips);
            if (trips < limit)
                put(out, "x");
        };
        a.then = [this, pass_on] { pass_on(b.pipe.b); };
        b.then = [this, pass_on] { pass_on(a.pipe.b); };
        put(a.pipe.b, "x");
    }
};

/// A stream that is read on and on, with a buffer of this size.
struct eager {
    boost::asio::io_context& io;
    moor::stream_descriptor in;
    unique_fd out;
    std::size_t size;
    std::array<char, 64> room;
    std::string text;
    boost::system::error_code ec;

    eager(boost::asio::io_context& context, fd_pair p, std::size_t n = 64)
        : io(context), in(io, p.a.release()), out(std::move(p.b)), size(n) {}
    ~eager() {
        in.close();
        run_ready(io);
    }

    void read() {
        in.async_read_some(boost::asio::buffer(room, size),
                           [this](boost::system::error_code e, std::size_t n) {
                               text.append(room.data(), n);
                               ec = e;
                               if (!e)
                                   read();
                           });
    }
};

} // namespace test

#endif
