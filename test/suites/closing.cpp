// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A file comes to its end, on each kind of file and in each way. Whatever was done with the
// registration before, a wait completes for what poll(2) reports, and for nothing else; and an end
// of which one wait was told is still told to the waits for other events.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"

#include <moor.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>

#include <functional>
#include <string>

#include <sys/socket.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::error_code;
using test::fd_pair;

/// What was done with a registration of p.a before the end came.
struct scene {
    asio::io_context& io;
    fd_pair& p;
    moor::registration& reg;
    test::tally& results;

    bool completes(test::outcome& c) {
        return results.check(results.comes(io, [&] { return bool(c); }), "a wait of the history");
    }
    bool put_and_wait() {
        test::outcome c;
        reg.async_wait_readable(c.handler());
        test::put(p.b, "x");
        return completes(c);
    }
    void cancel(test::outcome& c) {
        results.run_ready(io);
        reg.cancel();
        completes(c);
    }
};

error_code fill_some(int fd) {
    static const std::string chunk(1024, 'x');
    error_code ec;
    for (int i = 0; i != 64 && !ec; ++i) {
        ::ssize_t n = ::send(fd, chunk.data(), chunk.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == ENOTSOCK)
            n = ::write(fd, chunk.data(), chunk.size());
        if (n < 0)
            ec = test::last_error();
    }
    return ec;
}

struct history {
    const char* name;
    enum { always, reads, fills } needs;
    void (*make)(scene&);
    bool leaves_readiness = false; ///< as long as nobody has met would-block
};

const history histories[] = {
    {"nothing", history::always, [](scene&) {}},
    {"a completed read wait", history::reads,
     [](scene& s) {
         s.put_and_wait();
         test::drain(s.p.a);
     }},
    {"data left unread", history::reads, [](scene& s) { s.put_and_wait(); }},
    {"try_io would block", history::reads,
     [](scene& s) {
         s.put_and_wait();
         test::drain(s.p.a);
         (void)s.reg.try_io(interest::readable, test::reader{s.p.a});
     }},
    {"try_io reads, then would block", history::reads,
     [](scene& s) {
         s.put_and_wait();
         for (int i = 0; i != 2; ++i)
             (void)s.reg.try_io(interest::readable, test::reader{s.p.a});
     }},
    {"try_io would block before any wait", history::reads,
     [](scene& s) { (void)s.reg.try_io(interest::readable, test::reader{s.p.a}); }},
    {"try_io for any event would block", history::reads,
     [](scene& s) {
         s.put_and_wait();
         test::drain(s.p.a);
         (void)s.reg.try_io(interest::readable | interest::error | interest::read_closed |
                                interest::write_closed,
                            test::reader{s.p.a});
     }},
    {"async_io", history::reads,
     [](scene& s) {
         test::outcome c;
         s.reg.async_io(interest::readable, test::reader{s.p.a}, c.handler());
         s.results.run_ready(s.io);
         test::put(s.p.b, "x");
         s.completes(c);
     },
     true},
    {"async_io would block and is cancelled", history::reads,
     [](scene& s) {
         test::outcome c;
         s.reg.async_io(interest::readable, test::reader{s.p.a}, c.handler());
         s.cancel(c);
     }},
    {"async_io says drained", history::reads,
     [](scene& s) {
         test::outcome c;
         test::put(s.p.b, "x");
         s.reg.async_io(
             interest::readable,
             [fd = s.p.a.get()](error_code& ec) {
                 std::string text = test::reader{fd}(ec);
                 return moor::drained_if(!ec, text);
             },
             c.handler());
         s.completes(c);
     }},
    {"async_io says short transfer", history::reads,
     [](scene& s) {
         test::outcome c;
         test::put(s.p.b, "x");
         s.reg.async_io(
             interest::readable,
             [fd = s.p.a.get()](error_code& ec) {
                 return moor::short_transfer(test::reader{fd}(ec).size(), 4096);
             },
             c.handler());
         s.completes(c);
     },
     true},
    {"clear", history::reads,
     [](scene& s) {
         test::outcome c;
         s.reg.async_wait(interest::readable | interest::error | interest::read_closed,
                          c.handler());
         test::put(s.p.b, "x");
         s.completes(c);
         test::drain(s.p.a);
         s.reg.clear(c.event());
     }},
    {"a cancelled read wait", history::always,
     [](scene& s) {
         test::outcome c;
         s.reg.async_wait_readable(c.handler());
         s.cancel(c);
     }},
    {"cancelled waits for closing", history::always,
     [](scene& s) {
         test::outcome c, d;
         s.reg.async_wait(interest::read_closed | interest::error, c.handler());
         s.reg.async_wait(interest::write_closed, d.handler());
         s.cancel(c);
         s.completes(d);
     }},
    {"a wait that its slot cancelled", history::always,
     [](scene& s) {
         test::outcome c;
         asio::cancellation_signal signal;
         s.reg.async_wait(interest::read_closed,
                          asio::bind_cancellation_slot(signal.slot(), c.handler()));
         s.results.run_ready(s.io);
         signal.emit(asio::cancellation_type::total);
         s.completes(c);
     }},
    {"a completed write wait", history::fills,
     [](scene& s) {
         test::outcome c;
         s.reg.async_wait_writable(c.handler());
         s.completes(c);
     }},
    {"filled by try_io", history::fills,
     [](scene& s) {
         auto fill = [fd = s.p.a.get()](error_code& ec) { ec = fill_some(fd); };
         for (int i = 0; i != 1000; ++i)
             if (!s.reg.try_io(interest::writable, fill))
                 break;
     }},
    {"a write that would block and is cancelled", history::fills,
     [](scene& s) {
         test::outcome c;
         s.reg.async_io(
             interest::writable,
             [fd = s.p.a.get()](error_code& ec) {
                 while (!ec)
                     ec = fill_some(fd);
             },
             c.handler());
         s.cancel(c);
     }},
};

enum class when { pending, after_the_loop_ran, at_once, after_a_reader, after_a_writer };
const when whens[] = {when::pending, when::after_the_loop_ran, when::at_once, when::after_a_reader,
                      when::after_a_writer};

const char* name_of(when w) {
    switch (w) {
    case when::pending:
        return "begun before";
    case when::after_the_loop_ran:
        return "begun after, the loop has run";
    case when::at_once:
        return "begun after, the loop has not run";
    case when::after_a_reader:
        return "begun after, a reader was told";
    case when::after_a_writer:
        return "begun after, a writer was told";
    }
    return "";
}

void check_one(test::tally& results, asio::io_context& io, moor::trigger t, const test::ending& end,
               const history& h, when w, interest want) {
    fd_pair p = end.make();
    int fd = p.a;
    int mask = test::bits_of(want, fd);
    moor::registration reg(io, fd, t);
    scene s{io, p, reg, results};
    h.make(s);
    results.run_ready(io);

    const int before = test::poll_bits(fd);
    test::outcome wait;
    test::outcome other;
    bool consumed = h.needs != history::always;
    if (w == when::pending) {
        reg.async_wait(want, wait.handler());
        results.run_ready(io);
    } else if (w == when::after_a_reader) {
        reg.async_wait_readable(other.handler());
        results.run_ready(io);
        consumed = consumed || want.is_readable();
    } else if (w == when::after_a_writer) {
        reg.async_wait_writable(other.handler());
        results.run_ready(io);
        consumed = consumed || want.is_writable();
    }
    end.close(p);
    if (w != when::pending) {
        if (w != when::at_once)
            results.run_ready(io);
        reg.async_wait(want, wait.handler());
    }
    const int after = test::poll_bits(fd);
    // Edge: what an earlier wait was told of need not be told again.
    int due = t == moor::trigger::level || !consumed ? after : after & ~before;
    if (w == when::after_a_reader && want.is_readable() && t == moor::trigger::edge)
        due = 0;
    if (w == when::after_a_writer && want.is_writable() && t == moor::trigger::edge)
        due = 0;
    const bool is_kept = t == moor::trigger::edge && h.leaves_readiness && want.is_readable();
    const bool must = (due & mask) != 0, may = ((before | after) & mask) != 0 || is_kept;
    auto describe = [&](const char* what) {
        return std::string(test::name_of(t)) + ", " + end.name + "; " + h.name + "; " + name_of(w) +
               ": " + what;
    };
    if (must)
        results.check(results.comes(io, [&] { return wait.times() != 0; }), describe("hangs: "),
                      want);
    else
        results.run_ready(io);
    results.check(wait.times() <= 1, describe("completes twice: "), want);
    if (wait.times() != 0) {
        results.check(may, describe("completes for nothing: "), want);
        results.check(!wait.ec(), describe("fails: "), want, ": ", wait);
        results.check(
            !wait.event().ready().empty() && want.contains(wait.event().ready()) &&
                (is_kept || (test::bits_of(wait.event().ready(), fd) & (before | after)) != 0),
            describe("reports "), wait.event().ready(), " for ", want);
    }
    // Somebody waits for the reader or the writer too.
    if (w == when::after_a_reader && (after & test::bits_of(interest::readable, fd)))
        results.check(other.times() == 1 || (t == moor::trigger::edge && consumed),
                      describe("the reader was not told"));
    reg.deregister();
    results.run_ready(io);
}

void check_all(moor::trigger t, const std::vector<interest>& wants) {
    test::tally results;
    for (const test::ending& end : test::each_ending()) {
        asio::io_context io; // Asio's io_uring service bears few cancellations before Boost 1.82
        bool reads, fills;
        {
            fd_pair p = end.make();
            reads = test::can_be_read(p.a);
            fills = test::can_be_written(p.a) && end.can_be_filled;
        }
        for (const history& h : histories) {
            if ((h.needs == history::reads && !reads) || (h.needs == history::fills && !fills))
                continue;
            for (when w : whens)
                for (interest want : wants)
                    check_one(results, io, t, end, h, w, want);
        }
    }
}

/// One registration, one wait after the other, whatever the one before was told.
void check_each_is_told(test::tally& results, moor::trigger t, bool loop_runs) {
    for (const test::ending& end : test::each_ending())
        for (std::size_t first = 0; first != 6; ++first) {
            asio::io_context io;
            fd_pair p = end.make();
            moor::registration reg(io, p.a.get(), t);
            if (test::can_be_read(p.a)) {
                scene s{io, p, reg, results};
                s.put_and_wait();
                test::drain(p.a);
                (void)reg.try_io(interest::readable, test::reader{p.a});
            }
            int before = test::poll_bits(p.a);
            end.close(p);
            if (loop_runs)
                results.run_ready(io);
            int after = test::poll_bits(p.a);
            for (std::size_t i = 0; i != 6; ++i) {
                interest want = test::each_interest()[(first + i) % 6];
                bool is_due = (test::bits_of(want, p.a) &
                               (t == moor::trigger::level ? after : after & ~before)) != 0;
                if (!is_due)
                    continue;
                test::outcome wait;
                reg.async_wait(want, wait.handler());
                results.check(results.comes(io, [&] { return wait.times() == 1; }),
                              test::name_of(t), ", ", end.name, ", after ", i,
                              " others: hangs: ", want);
                reg.cancel();
                results.run_ready(io);
            }
        }
}

const std::vector<interest> combined = {
    interest::error | interest::read_closed | interest::write_closed,
    interest::readable | interest::read_closed,
    interest::priority | interest::write_closed,
    interest::readable | interest::writable | interest::priority | interest::error |
        interest::read_closed | interest::write_closed,
};

} // namespace

BOOST_AUTO_TEST_SUITE(closing)

BOOST_AUTO_TEST_CASE(a_level_wait_completes_for_what_poll_reports_and_nothing_else) {
    check_all(moor::trigger::level, test::each_interest());
}

BOOST_AUTO_TEST_CASE(an_edge_wait_completes_for_what_is_news_and_nothing_else) {
    check_all(moor::trigger::edge, test::each_interest());
}

BOOST_AUTO_TEST_CASE(a_level_wait_for_several_events_completes_for_any_of_them) {
    check_all(moor::trigger::level, combined);
}

BOOST_AUTO_TEST_CASE(an_edge_wait_for_several_events_completes_for_any_of_them) {
    check_all(moor::trigger::edge, combined);
}

BOOST_AUTO_TEST_CASE(each_interest_is_told_of_an_end_that_another_was_told_of) {
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (bool loop_runs : {true, false})
            check_each_is_told(results, t, loop_runs);
}

BOOST_AUTO_TEST_CASE(a_half_closed_socket_that_closes_is_told_of_twice) {
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (auto make :
             {+[] { return test::make_socketpair(); }, +[] { return test::make_tcp_pair(); }})
            for (bool reads : {false, true}) {
                asio::io_context io;
                fd_pair p = make();
                moor::registration reg(io, p.a.get(), t);
                test::outcome half, full, late;
                reg.async_wait(interest::read_closed, half.handler());
                reg.async_wait(interest::write_closed, full.handler());
                ::shutdown(p.b, SHUT_WR);
                results.check(results.comes(io, [&] { return half.times() == 1; }), "half closed");
                results.check(full.times() == 0, "write_closed came early");
                if (reads)
                    (void)reg.try_io(interest::readable, test::reader{p.a});
                ::shutdown(p.a, SHUT_WR);
                p.b.close();
                results.check(results.comes(io, [&] { return full.times() == 1; }),
                              test::name_of(t), ", the pending wait for write_closed hangs");
                reg.async_wait(interest::read_closed, late.handler()); // POLLHUP is news to it
                results.check(results.comes(io, [&] { return late.times() == 1; }),
                              test::name_of(t), ", the next wait for read_closed hangs");
                reg.deregister();
                results.run_ready(io);
            }
}

BOOST_AUTO_TEST_CASE(what_a_file_cannot_have_pends_and_is_cancelled) {
    test::tally results;
    auto check = [&](const char* name, int fd, interest want) {
        for (moor::trigger t : test::both_triggers) {
            asio::io_context io;
            moor::registration reg(io, fd, t);
            test::outcome c;
            reg.async_wait(want, c.handler());
            results.run_ready(io);
            results.check(c.times() == 0, name, " does not pend: ", c);
            reg.cancel();
            results.check(results.comes(io, [&] { return c.times() == 1; }) &&
                              c.ec() == asio::error::operation_aborted,
                          name, " is not cancelled: ", c);
        }
    };
    fd_pair p = test::make_pipe();
    check("priority on a pipe", p.a, interest::priority);
    check("writable on a pipe's reading end", p.a, interest::writable);
    check("readable on a pipe's writing end", p.b, interest::readable);
}

BOOST_AUTO_TEST_SUITE_END()
