// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A handler begins an operation that is over at once, and runs the loop until it has completed:
// with each concurrency hint, each function that runs the loop, and each way of being over at once.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"

#include <moor.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <array>
#include <chrono>
#include <cstdio>
#include <memory>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::error_code;

struct scene {
    scene(asio::io_context& context, moor::trigger t) : io(context), trigger(t) {}

    asio::io_context& io;
    moor::trigger trigger;
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get(), trigger};
    moor::stream_descriptor stream{io};
    asio::cancellation_signal signal;
    std::array<char, 4> buffer{};
    test::called c;

    void pend() { reg.async_wait_readable(c.handler()); }
    void open_stream() { stream.assign(p.a.release()); }
};

struct operation {
    const char* name;
    void (*begin)(scene&);
};

const operation operations[] = {
    {"a ready wait",
     [](scene& s) {
         test::put(s.p.b, "x");
         s.reg.async_wait_readable(s.c.handler());
     }},
    {"a ready write wait", [](scene& s) { s.reg.async_wait_writable(s.c.handler()); }},
    {"a ready wait for several events",
     [](scene& s) {
         s.p.b.close();
         s.reg.async_wait(interest::readable | interest::read_closed, s.c.handler());
     }},
    {"a ready async_io",
     [](scene& s) {
         test::put(s.p.b, "x");
         s.reg.async_io(interest::readable, test::reader{s.p.a}, s.c.handler());
     }},
    {"a cancelled wait",
     [](scene& s) {
         s.pend();
         s.reg.cancel();
     }},
    {"a wait cancelled by its slot",
     [](scene& s) {
         s.reg.async_wait_readable(asio::bind_cancellation_slot(s.signal.slot(), s.c.handler()));
         s.signal.emit(asio::cancellation_type::total);
     }},
    {"a cancelled async_io",
     [](scene& s) {
         s.reg.async_io(interest::readable, test::reader{s.p.a}, s.c.handler());
         s.reg.cancel();
     }},
    {"a wait whose registration ends",
     [](scene& s) {
         s.pend();
         s.reg.deregister();
     }},
    {"a wait without a handle",
     [](scene& s) {
         s.reg.deregister();
         s.pend();
     }},
    {"a wait for nothing", [](scene& s) { s.reg.async_wait(interest(), s.c.handler()); }},
    {"a wait on a closed handle",
     [](scene& s) {
         s.p.a.close();
         s.pend();
     }},
    {"a wait that the service's end completes",
     [](scene& s) {
         s.pend();
         moor::use_registration_service(s.io).close();
     }},
    {"a wait on a handle that is always ready",
     [](scene& s) {
         s.reg.reset(::open("/dev/null", O_RDWR | O_CLOEXEC), s.trigger);
         s.p.a = test::unique_fd(s.reg.native_handle());
         s.pend();
     }},
    {"a waker that is displaced",
     [](scene& s) {
         (void)s.reg.poll_read_ready([h = s.c.handler()]() mutable { h(error_code()); });
         (void)s.reg.poll_read_ready([] {});
     }},
    {"a read from a stream",
     [](scene& s) {
         s.reg.deregister();
         test::put(s.p.b, "x");
         s.open_stream();
         s.stream.async_read_some(asio::buffer(s.buffer), s.c.handler());
     }},
    {"an empty read from a stream",
     [](scene& s) {
         s.reg.deregister();
         s.open_stream();
         s.stream.async_read_some(asio::mutable_buffer(), s.c.handler());
     }},
    {"a write to a stream",
     [](scene& s) {
         s.reg.deregister();
         s.open_stream();
         s.stream.async_write_some(asio::buffer(s.buffer), s.c.handler());
     }},
    {"a wait on a stream",
     [](scene& s) {
         s.reg.deregister();
         s.open_stream();
         s.stream.async_wait(moor::stream_descriptor::wait_write, s.c.handler());
     }},
};

struct runner {
    const char* name;
    void (*run)(asio::io_context&);
};

const runner runners[] = {
    {"run_one", [](asio::io_context& io) { io.run_one(); }},
    {"run_one_for", [](asio::io_context& io) { io.run_one_for(std::chrono::milliseconds(500)); }},
    {"run_for", [](asio::io_context& io) { io.run_for(std::chrono::milliseconds(1)); }},
    {"poll", [](asio::io_context& io) { io.poll(); }},
    {"poll_one", [](asio::io_context& io) { io.poll_one(); }},
};

struct hint {
    const char* name;
    std::unique_ptr<asio::io_context> (*make)();
};

template <int Hint>
std::unique_ptr<asio::io_context> make_context() {
    return std::make_unique<asio::io_context>(Hint);
}

const hint hints[] = {
    {"no hint", [] { return std::make_unique<asio::io_context>(); }},
    {"1", make_context<1>},
    {"2", make_context<2>},
    {"unsafe", make_context<BOOST_ASIO_CONCURRENCY_HINT_UNSAFE>},
    {"unsafe I/O", make_context<BOOST_ASIO_CONCURRENCY_HINT_UNSAFE_IO>},
};

void check_one(test::tally& results, const hint& h, const operation& op, const runner& r,
               moor::trigger t, bool in_completion) {
    auto io = h.make();
    scene s(*io, t);
    test::fd_pair outer_pair = test::make_socketpair();
    moor::registration outer(*io, outer_pair.b.get(), t);
    bool ran = false;
    auto handler = [&](error_code = {}) {
        {
            // (No timer: with io_uring a nested loop may not see it either.)
            test::watchdog limit(*io, results.patience());
            op.begin(s);
            for (int i = 0; i != 3 && s.c.times == 0 && !limit.has_bitten(); ++i)
                r.run(*io); // other handlers may come first
        }
        results.check(s.c.times == 1, "hint: ", h.name, "; ", r.name, ", ", test::name_of(t),
                      in_completion ? ", in a completion of Moor's: " : ": ", op.name);
        io->restart();
        ran = true;
    };
    if (in_completion)
        outer.async_wait_writable(handler);
    else
        asio::post(*io, handler);
    test::run_until(*io, [&] { return ran; });
}

} // namespace

BOOST_AUTO_TEST_SUITE(nested_loops)

BOOST_AUTO_TEST_CASE(a_loop_within_a_handler_sees_what_completes_at_once) {
    test::tally results;
    for (const hint& h : hints)
        for (const operation& op : operations)
            for (const runner& r : runners)
                for (moor::trigger t : test::both_triggers)
                    for (bool in_completion : {false, true})
                        check_one(results, h, op, r, t, in_completion);
}

BOOST_AUTO_TEST_CASE(a_loop_within_a_handler_sees_what_completes_later) {
    test::tally results;
    for (const hint& h : hints)
        for (moor::trigger t : test::both_triggers) {
            auto io = h.make();
            scene s(*io, t);
            asio::post(*io, [&] {
                s.pend();
                results.check(s.c.times == 0, "too early");
                io->poll();
                test::put(s.p.b, "x");
                test::run_until(*io, [&] { return bool(s.c); });
            });
            test::run_until(*io, [&] { return bool(s.c); });
            results.check(s.c.times == 1, "hint: ", h.name);
        }
}

BOOST_AUTO_TEST_SUITE_END()
