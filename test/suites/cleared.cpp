// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// clear() and the waits that follow. A level-triggered wait is exact whatever was cleared: data
// that are unread, a part of an event, an event of long ago. With an edge trigger a clear drops
// nothing that came since its event.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/pty.hpp"

#include <moor.hpp>

#include <boost/asio/io_context.hpp>

#include <string>
#include <vector>

#include <poll.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::ready_event;
using test::fd_pair;

/// How an event comes about.
enum class order { data_first, wait_first, would_block_first };
const order orders[] = {order::data_first, order::wait_first, order::would_block_first};

struct scene {
    asio::io_context& io;
    fd_pair& p;
    moor::registration& reg;
    test::tally& results;
    interest want;
    ready_event earlier{}, event{};

    /// An event with data that are left unread.
    ready_event observe(order o) {
        test::outcome c;
        if (o == order::would_block_first) {
            test::outcome first;
            reg.async_wait_readable(first.handler());
            test::put(p.b, "x");
            results.check(results.comes(io, [&] { return bool(first); }), "the first wait");
            test::drain(p.a);
            (void)reg.try_io(interest::readable, test::reader{p.a});
        }
        if (o != order::wait_first)
            test::put(p.b, "data");
        if (o == order::would_block_first)
            results.run_ready(io);
        test::outcome reader;
        if (want == interest::writable)
            reg.async_wait_readable(reader.handler());
        reg.async_wait(want, c.handler());
        if (o == order::wait_first) {
            results.run_ready(io);
            test::put(p.b, "data");
        }
        results.check(results.comes(io, [&] { return bool(c); }), "the wait for ", want);
        // A terminal's data arrive later; the news of them is not to meet what comes next.
        if (want == interest::writable)
            results.check(results.comes(io, [&] { return bool(reader); }), "the reader's wait");
        return c.event();
    }
};

struct file {
    const char* name;
    fd_pair (*make)();
};

const file files[] = {
    {"Unix socket", [] { return test::small(test::make_socketpair()); }},
    {"TCP socket", [] { return test::small(test::make_tcp_pair()); }},
    {"pipe", [] { return test::make_pipe(); }},
    {"terminal", [] { return test::swapped(test::make_raw_pty()); }},
};

/// What happens between an event and its clear.
struct meanwhile {
    const char* name;
    void (*happen)(scene&);
    interest news; ///< to an edge-triggered wait, whatever is cleared
};

const meanwhile meanwhiles[] = {
    {"nothing", [](scene&) {}, interest()},
    {"a part is read", [](scene& s) { test::get(s.p.a, 2); }, interest()},
    {"all is read", [](scene& s) { test::drain(s.p.a); }, interest()},
    {"try_io would block",
     [](scene& s) {
         test::drain(s.p.a);
         (void)s.reg.try_io(interest::readable, test::reader{s.p.a});
     },
     interest()},
    {"more comes", [](scene& s) { test::put(s.p.b, "more"); }, interest()},
    {"more comes, and the loop runs",
     [](scene& s) {
         test::put(s.p.b, "more");
         s.results.run_ready(s.io);
     },
     interest()},
    {"all is read, and more comes",
     [](scene& s) {
         test::drain(s.p.a);
         s.results.run_ready(s.io);
         test::put(s.p.b, "more");
     },
     interest::readable},
    {"all is read, more comes, and the loop runs",
     [](scene& s) {
         test::drain(s.p.a);
         s.results.run_ready(s.io);
         test::put(s.p.b, "more");
         s.results.run_ready(s.io);
     },
     interest::readable},
    {"the peer closes", [](scene& s) { s.p.b.close(); },
     interest::read_closed | interest::write_closed},
    {"the peer closes, and the loop runs",
     [](scene& s) {
         s.p.b.close();
         s.results.run_ready(s.io);
     },
     interest::read_closed | interest::write_closed},
};

struct clearing {
    const char* name;
    void (*clear)(scene&);
};

const clearing clearings[] = {
    {"its event", [](scene& s) { s.reg.clear(s.event); }},
    {"its event, twice",
     [](scene& s) {
         s.reg.clear(s.event);
         s.results.run_ready(s.io);
         s.reg.clear(s.event);
     }},
    {"an event of long ago", [](scene& s) { s.reg.clear(s.earlier); }},
    {"both events",
     [](scene& s) {
         s.reg.clear(s.event);
         s.reg.clear(s.earlier);
     }},
    {"the readable part", [](scene& s) { s.reg.clear(s.event.only(interest::readable)); }},
    {"the writable part", [](scene& s) { s.reg.clear(s.event.only(interest::writable)); }},
    {"the closing part",
     [](scene& s) {
         s.reg.clear(
             s.event.only(interest::read_closed | interest::write_closed | interest::error));
     }},
    {"an empty event", [](scene& s) { s.reg.clear(ready_event()); }},
};

void check_one(test::tally& results, asio::io_context& io, const file& f, moor::trigger t,
               interest observed, const meanwhile& m, const clearing& c, interest want,
               bool loop_runs, order o) {
    fd_pair p = f.make();
    moor::registration reg(io, p.a.get(), t);
    scene s{io, p, reg, results, observed};
    s.earlier = s.observe(o);
    test::drain(p.a);
    results.run_ready(io);
    s.event = s.observe(o);
    m.happen(s);
    c.clear(s);
    if (loop_runs)
        results.run_ready(io);
    test::outcome wait;
    reg.async_wait(want, wait.handler());
    const int bits = test::poll_bits(p.a) & test::bits_of(want, p.a);
    const bool must = bits != 0 && (t == moor::trigger::level || !(m.news & want).empty());
    if (must)
        results.check(results.comes(io, [&] { return bool(wait); }), test::name_of(t), ", ", f.name,
                      ", event ", s.event, "; ", m.name, "; cleared: ", c.name,
                      loop_runs ? ", the loop runs: hangs: " : ": hangs: ", want);
    else
        results.run_ready(io);
    if (t == moor::trigger::level && bits == 0)
        results.check(!wait, f.name, ", event ", s.event, "; ", m.name, "; cleared: ", c.name,
                      ": completes for nothing: ", want);
    reg.deregister();
    results.run_ready(io);
}

void check_all(moor::trigger t) {
    test::tally results;
    for (const file& f : files)
        for (interest observed :
             {interest::readable, interest::readable | interest::read_closed | interest::error,
              interest::readable | interest::writable, interest::writable})
            for (const meanwhile& m : meanwhiles) {
                asio::io_context io; // Asio's io_uring service bears few cancellations
                for (const clearing& c : clearings)
                    for (interest want :
                         {interest::readable, interest::writable, interest::read_closed,
                          interest::write_closed, interest::readable | interest::priority})
                        for (order o : orders)
                            for (bool loop_runs : {false, true}) {
                                if (loop_runs && o != order::would_block_first)
                                    continue;
                                // A pipe's reading end is never writable.
                                if (f.make == files[2].make && observed == interest::writable)
                                    continue;
                                check_one(results, io, f, t, observed, m, c, want, loop_runs, o);
                            }
            }
}

} // namespace

BOOST_AUTO_TEST_SUITE(cleared)

BOOST_AUTO_TEST_CASE(a_level_wait_is_exact_whatever_was_cleared) {
    check_all(moor::trigger::level);
}

BOOST_AUTO_TEST_CASE(an_edge_wait_is_told_of_what_came_after_a_cleared_event) {
    check_all(moor::trigger::edge);
}

BOOST_AUTO_TEST_CASE(a_level_wait_for_unread_data_completes_again_and_again) {
    test::tally results;
    for (const file& f : files)
        for (bool in_handler : {false, true})
            for (order o : orders) {
                asio::io_context io;
                fd_pair p = f.make();
                moor::registration reg(io, p.a.get());
                scene s{io, p, reg, results, interest::readable};
                reg.clear(s.observe(o));
                for (int round = 0; round != 20; ++round) {
                    test::outcome c;
                    auto kept = c.handler();
                    reg.async_wait(interest::readable,
                                   [&, kept](boost::system::error_code ec, ready_event e) {
                                       if (in_handler)
                                           reg.clear(e);
                                       kept(ec, e);
                                   });
                    if (!results.check(results.comes(io, [&] { return bool(c); }), f.name,
                                       ", round ", round, ": hangs"))
                        break;
                    reg.clear(c.event());
                }
            }
}

BOOST_AUTO_TEST_CASE(a_clear_does_not_take_an_event_from_a_pending_wait) {
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (bool is_drained : {false, true})
            for (const file& f : files) {
                asio::io_context io;
                fd_pair p = f.make();
                moor::registration reg(io, p.a.get(), t);
                scene s{io, p, reg, results, interest::readable};
                s.event = s.observe(order::wait_first);
                test::outcome c;
                test::drain(p.a);
                reg.async_wait_readable(c.handler());
                if (is_drained)
                    results.run_ready(io);
                test::put(p.b, "more");
                reg.clear(s.event);
                results.check(results.comes(io, [&] { return bool(c); }), test::name_of(t), ", ",
                              f.name, ": hangs");
            }
}

BOOST_AUTO_TEST_CASE(an_event_of_another_registration_clears_nothing) {
    test::tally results;
    enum way { another_object, same_object, same_object_beside_a_handler };
    for (const file& f : files)
        for (way w : {another_object, same_object, same_object_beside_a_handler})
            for (int events = 1; events != 4; ++events) {
                asio::io_context io;
                fd_pair p = f.make(), q = f.make();
                moor::registration reg(io, p.a.get(), moor::trigger::edge), other(io);
                ready_event old;
                auto tell = [&](moor::registration& r, fd_pair& pair) {
                    test::outcome c;
                    r.async_wait(interest::readable, c.handler());
                    results.run_ready(io);
                    test::put(pair.b, "x");
                    results.check(results.comes(io, [&] { return bool(c); }), f.name, ": not told");
                    test::drain(pair.a);
                    return c.event();
                };
                for (int i = 0; i != events; ++i)
                    old = tell(reg, p);
                // (The handler that is on its way keeps the state of the old registration.)
                test::outcome kept;
                if (w == same_object_beside_a_handler) {
                    reg.async_wait_readable(kept.handler());
                    reg.cancel();
                }
                moor::registration& next = w == another_object ? other : reg;
                if (w != another_object)
                    reg.deregister();
                next.register_handle(q.a.get(), moor::trigger::edge);
                for (int i = 0; i != events - 1; ++i)
                    tell(next, q);
                test::outcome c, d;
                next.async_wait_readable(c.handler());
                results.run_ready(io);
                next.cancel();
                results.run_ready(io);
                test::put(q.b, "news");
                results.run_ready(io);
                next.clear(old);
                next.async_wait_readable(d.handler());
                results.check(results.comes(io, [&] { return bool(d); }), f.name, ", way ", w,
                              ", events ", events, ": the news is lost");
            }
}

BOOST_AUTO_TEST_SUITE_END()
