// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Files that tell a change to one poll(2) only: the mounts of a process, the kernel's settings, the
// pressure triggers, and epoll sets that hold such a file. The reactor's poll(2) was that one, or a
// readiness check: in any case the change reaches a wait.
//
// A second open file of the same name is the oracle, since it is told for itself.

#include "support/changer.hpp"
#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"

#include <moor.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/epoll.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::changer;
using test::error_code;

/// A file that tells its changes once, or an epoll set with one.
struct source {
    std::string name;
    bool is_in_set;
    bool (changer::*change)();
};

std::vector<source> each_source(const changer& c) {
    std::vector<source> all;
    for (bool is_in_set : {false, true}) {
        all.push_back({c.file("mountinfo"), is_in_set, &changer::change_mounts});
        all.push_back({c.file("mounts"), is_in_set, &changer::change_mounts});
        all.push_back({"/proc/sys/kernel/hostname", is_in_set, &changer::change_host_name});
    }
    return all;
}

struct opened {
    test::unique_fd file, set;
    int fd() const { return set < 0 ? file.get() : set.get(); }
};

test::unique_fd open_file(const std::string& name, int mode = O_RDONLY) {
    return test::unique_fd(::open(name.c_str(), mode | O_NONBLOCK | O_CLOEXEC));
}

opened put_in_set(test::unique_fd file) {
    opened o;
    o.file = std::move(file);
    o.set = test::unique_fd(::epoll_create1(EPOLL_CLOEXEC));
    ::epoll_event e{};
    e.events = EPOLLPRI;
    BOOST_REQUIRE_EQUAL(::epoll_ctl(o.set, EPOLL_CTL_ADD, o.file, &e), 0);
    return o;
}

opened open_source(const source& s) {
    opened o;
    if (s.is_in_set)
        return put_in_set(open_file(s.name));
    o.file = open_file(s.name);
    return o;
}

/// What tells of a change.
std::vector<interest> interests_of(const source& s) {
    if (s.is_in_set)
        return {interest::readable, interest::readable | interest::priority};
    return {interest::priority, interest::error, interest::priority | interest::error,
            interest::priority | interest::read_closed};
}

enum class when {
    pending,
    before_the_first_wait,
    at_once,
    after_the_loop_ran,
    after_a_reader,
    after_a_writer,
    after_a_cancelled_wait,
    after_many_more
};

const char* name_of(when w) {
    static const char* names[] = {"while the wait is pending",
                                  "before the first wait",
                                  "before the wait",
                                  "before the wait, the loop ran",
                                  "before the wait, and a read wait",
                                  "before the wait, and a write wait",
                                  "while a wait is pending that is cancelled",
                                  "many times before the wait"};
    return names[static_cast<int>(w)];
}

const when whens[] = {when::pending,
                      when::before_the_first_wait,
                      when::at_once,
                      when::after_the_loop_ran,
                      when::after_a_reader,
                      when::after_a_writer,
                      when::after_a_cancelled_wait,
                      when::after_many_more};

/// A wait, until it pends: for what is there already.
bool is_exhausted(test::tally& results, asio::io_context& io, moor::registration& reg,
                  interest want) {
    for (int i = 0; i != 4; ++i) {
        test::outcome c;
        reg.async_wait(want, c.handler());
        results.run_ready(io);
        if (c.times() == 0) {
            reg.cancel();
            results.run_ready(io);
            return true;
        }
    }
    return false;
}

void check_one(test::tally& results, changer& agent, const source& s, moor::trigger t,
               interest want, when w) {
    asio::io_context io;
    opened o = open_source(s);
    test::unique_fd oracle = open_file(s.name);
    moor::registration reg(io, o.fd(), t);
    auto describe = [&](const char* what) {
        return std::string(test::name_of(t)) + ", " + s.name + (s.is_in_set ? " in a set" : "") +
               ", a change " + name_of(w) + ": " + what;
    };
    auto change = [&] {
        test::poll_bits(oracle); // what was
        BOOST_REQUIRE((agent.*s.change)());
        BOOST_REQUIRE(test::poll_bits(oracle) & POLLPRI);
    };
    if (w != when::before_the_first_wait)
        (void)is_exhausted(results, io, reg, want);
    for (int round = 0; round != 4; ++round) {
        test::outcome c, other;
        if (w == when::pending) {
            reg.async_wait(want, c.handler());
            results.run_ready(io);
            if (c.times() != 0)
                continue; // the host name is everybody's
        } else if (w == when::after_a_cancelled_wait) {
            reg.async_wait(want, other.handler());
            results.run_ready(io);
        }
        change();
        if (w == when::after_a_cancelled_wait)
            reg.cancel();
        if (w == when::after_many_more)
            for (int i = 0; i != 12; ++i) {
                results.run_ready(io);
                change();
            }
        if (w == when::after_the_loop_ran)
            results.run_ready(io);
        if (w == when::after_a_reader)
            reg.async_wait_readable(other.handler());
        if (w == when::after_a_writer)
            reg.async_wait_writable(other.handler());
        if (w == when::after_a_reader || w == when::after_a_writer ||
            w == when::after_a_cancelled_wait)
            results.run_ready(io);
        const bool was_told = other.times() == 1 && !other.ec();
        if ((w == when::after_a_reader && s.is_in_set && was_told) ||
            (w == when::after_a_writer && want == interest::error && was_told) ||
            (w == when::after_a_cancelled_wait && was_told))
            continue; // of the change
        if (w != when::pending)
            reg.async_wait(want, c.handler());
        if (!results.check(results.comes(io, [&] { return c.times() == 1; }) && !c.ec(),
                           describe("not told: "), want))
            break;
        if (s.change == &changer::change_mounts)
            results.check(is_exhausted(results, io, reg, want), describe("told for ever: "), want);
    }
    reg.deregister();
    results.run_ready(io);
}

/// Two threads in run(); the waits begin in handlers or outside.
void check_with_threads(test::tally& results, changer& agent, const source& s, moor::trigger t,
                        interest want, bool begins_in_handler) {
    asio::io_context io;
    opened o = open_source(s);
    moor::registration reg(io, o.fd(), t);
    // Adding the file to epoll can take a change away, as can adding an event to what is asked for.
    (void)is_exhausted(results, io, reg, want);
    io.restart();
    auto work = asio::make_work_guard(io);
    std::thread threads[2];
    for (std::thread& thread : threads)
        thread = std::thread([&] { io.run(); });
    for (int round = 0; round != 20; ++round) {
        std::atomic<int> times{0};
        std::atomic<bool> has_begun{false};
        auto begin = [&] {
            reg.async_wait(want, [&](error_code, moor::ready_event) { ++times; });
            has_begun = true;
        };
        bool changes_first = round % 2 != 0;
        if (changes_first)
            BOOST_REQUIRE((agent.*s.change)());
        if (begins_in_handler)
            asio::post(io, begin);
        else
            begin();
        test::wait_for([&] { return has_begun.load(); });
        if (!changes_first)
            BOOST_REQUIRE((agent.*s.change)());
        auto deadline = std::chrono::steady_clock::now() + results.patience();
        while (times == 0 && std::chrono::steady_clock::now() < deadline)
            std::this_thread::yield();
        bool is_told = times == 1;
        results.check(is_told, test::name_of(t), ", ", s.name, s.is_in_set ? " in a set" : "",
                      begins_in_handler ? ", in a handler" : "", ", round ", round,
                      ": not told: ", want);
        if (!is_told) {
            reg.cancel();
            test::wait_for([&] { return times == 1; });
        }
    }
    work.reset();
    for (std::thread& thread : threads)
        thread.join();
}

/// check(results, changer, source, trigger) for each of them, if changes can be made at all.
template <class Check>
void for_each_source(Check check) {
    changer agent;
    if (!agent.exists()) {
        BOOST_TEST_MESSAGE("not run: no right to mounts and a host name of one's own");
        return;
    }
    test::tally results;
    for (const source& s : each_source(agent))
        for (moor::trigger t : test::both_triggers)
            check(results, agent, s, t);
}

} // namespace

BOOST_AUTO_TEST_SUITE(told_once)

BOOST_AUTO_TEST_CASE(each_change_reaches_a_wait) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        for (interest want : interests_of(s))
            for (when w : whens)
                check_one(results, agent, s, t, want, w);
    });
}

BOOST_AUTO_TEST_CASE(each_change_reaches_all_waits_that_are_pending) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        asio::io_context io;
        opened o = open_source(s);
        moor::registration reg(io, o.fd(), t);
        test::outcome a, b, c;
        std::vector<interest> wants = interests_of(s);
        reg.async_wait(wants[0], a.handler());
        reg.async_wait(wants[1], b.handler());
        reg.async_wait(wants[0], c.handler());
        results.run_ready(io);
        BOOST_REQUIRE((agent.*s.change)());
        results.check(results.comes(io, [&] { return a.times() + b.times() + c.times() == 3; }),
                      test::name_of(t), ", ", s.name, s.is_in_set ? " in a set" : "", ": told to ",
                      a.times() + b.times() + c.times(), " of 3");
        reg.deregister();
        results.run_ready(io);
    });
}

BOOST_AUTO_TEST_CASE(a_change_that_the_start_of_another_operation_meets_reaches_all) {
    enum beginner { wait, call, no_wait, reader, writer };
    enum moment { before, between_its_checks, behind_its_checks };
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        for (interest want : interests_of(s))
            for (beginner b : {wait, call, no_wait, reader, writer})
                for (int variant = 0; variant != 6; ++variant) {
                    const moment m = static_cast<moment>(variant / 2);
                    const bool is_second_change = variant % 2 != 0;
                    if (test::on_epoll() && t == moor::trigger::edge && s.is_in_set &&
                        b == writer && m == behind_its_checks)
                        continue; // the moment between the last poll(2) and EPOLL_CTL_MOD
                    asio::io_context io;
                    opened o = open_source(s);
                    moor::registration reg(io, o.fd(), t);
                    (void)is_exhausted(results, io, reg, interest::readable);
                    (void)is_exhausted(results, io, reg, want);
                    if (is_second_change) {
                        BOOST_REQUIRE((agent.*s.change)());
                        (void)is_exhausted(results, io, reg, want);
                    }
                    test::outcome c, other;
                    reg.async_wait(want, c.handler());
                    results.run_ready(io);
                    if (c.times() != 0)
                        continue; // the host name is everybody's
                    bool is_changed = false;
                    auto change = [&] {
                        BOOST_REQUIRE((agent.*s.change)());
                        is_changed = true;
                    };
                    if (m == before)
                        change();
                    else if (m == between_its_checks)
                        test::after_poll_here(change);
                    else
                        test::after_poll_here([&] { test::after_poll_here(change); });
                    if (b == wait)
                        reg.async_wait(want, other.handler());
                    else if (b == call)
                        reg.async_io(
                            want,
                            [](error_code& ec) {
                                ec = asio::error::would_block;
                                return 0;
                            },
                            other.handler());
                    else if (b == no_wait)
                        (void)reg.try_io(want, [](error_code&) { return 0; });
                    else
                        reg.async_wait(b == reader ? interest::readable : interest::writable,
                                       other.handler());
                    test::after_poll_here(nullptr);
                    results.check(!is_changed || results.comes(io, [&] { return bool(c); }),
                                  test::name_of(t), ", ", s.name, s.is_in_set ? " in a set" : "",
                                  ", a wait for ", want, ", beginner ", b, ", moment ", m,
                                  is_second_change ? ", second change" : "", ": not told");
                    reg.deregister();
                    results.run_ready(io);
                }
    });
}

BOOST_AUTO_TEST_CASE(a_change_reaches_a_wait_whatever_its_event_tells_besides) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        const interest others[] = {interest::readable, interest::writable, interest::read_closed};
        for (interest want : interests_of(s))
            for (interest pending : others)
                for (interest over : others) {
                    asio::io_context io;
                    opened o = open_source(s);
                    moor::registration reg(io, o.fd(), t);
                    (void)is_exhausted(results, io, reg, want);
                    test::outcome c;
                    reg.async_wait(want, c.handler());
                    results.run_ready(io);
                    reg.async_wait(pending, test::outcome().handler());
                    results.run_ready(io);
                    reg.async_wait(over, test::outcome().handler());
                    results.run_ready(io);
                    if (c.times() != 0)
                        continue; // without a change
                    BOOST_REQUIRE((agent.*s.change)());
                    results.check(results.comes(io, [&] { return bool(c); }), test::name_of(t),
                                  ", ", s.name, s.is_in_set ? " in a set" : "", ", ", want,
                                  " beside ", pending, " and ", over, ": not told");
                    reg.deregister();
                    results.run_ready(io);
                }
    });
}

BOOST_AUTO_TEST_CASE(each_change_has_a_pending_call_made) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        for (interest want : interests_of(s))
            for (bool is_beside_a_wait : {false, true}) {
                asio::io_context io;
                opened o = open_source(s);
                moor::registration reg(io, o.fd(), t);
                auto change = [&] { BOOST_REQUIRE((agent.*s.change)()); };
                int calls = 0;
                bool changes = false;
                test::outcome done;
                auto call = [&](error_code& ec) {
                    ++calls;
                    ec = asio::error::would_block;
                    if (!std::exchange(changes, false))
                        return 0;
                    // The call has found nothing. A wait takes the change that comes now.
                    change();
                    reg.async_wait(want, test::outcome().handler());
                    return 0;
                };
                reg.async_io(want, call, done.handler());
                results.run_ready(io);
                for (int i = 0; i != 4; ++i) {
                    const int before = calls;
                    changes = is_beside_a_wait;
                    change();
                    const int expected = before + (is_beside_a_wait ? 2 : 1);
                    results.check(results.comes(io, [&] { return calls >= expected; }),
                                  test::name_of(t), ", ", s.name, s.is_in_set ? " in a set" : "",
                                  ", ", want, is_beside_a_wait ? ", beside a wait" : "",
                                  ", change ", i, ": ", calls - before, " calls");
                }
                reg.deregister();
                results.run_ready(io);
            }
    });
}

/// That a call found nothing says nothing of the changes that come after it, although a wait was
/// told of them.
BOOST_AUTO_TEST_CASE(a_call_that_begins_after_a_change_is_made) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        for (interest want : interests_of(s))
            for (interest of_call : {interest::readable, interest::writable}) {
                asio::io_context io;
                opened o = open_source(s);
                moor::registration reg(io, o.fd(), t);
                int calls = 0;
                auto call = [&](error_code& ec) {
                    ++calls;
                    ec = asio::error::would_block;
                };
                for (int i = 0; i != 3; ++i) {
                    const int before = calls;
                    reg.async_io(of_call, call, test::outcome().handler());
                    results.run_ready(io);
                    results.check(calls > before, test::name_of(t), ", ", s.name,
                                  s.is_in_set ? " in a set" : "", ", ", want, ", call for ",
                                  of_call, " ", i);
                    reg.cancel();
                    results.run_ready(io);
                    bool is_told = false;
                    reg.async_wait(want, [&](error_code, auto) { is_told = true; });
                    BOOST_REQUIRE((agent.*s.change)());
                    results.comes(io, [&] { return is_told; });
                }
                reg.deregister();
                results.run_ready(io);
            }
    });
}

BOOST_AUTO_TEST_CASE(each_change_reaches_a_wait_with_two_threads) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        for (interest want : interests_of(s)) {
            for (bool in_handler : {false, true})
                check_with_threads(results, agent, s, t, want, in_handler);
        }
    });
}

BOOST_AUTO_TEST_CASE(a_change_reaches_waits_beside_data_that_others_have_waited_for) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        for (interest before : {interest::readable, interest::writable}) {
            if (s.is_in_set)
                continue; // where a change is all that there is to read
            asio::io_context io;
            opened o = open_source(s);
            moor::registration reg(io, o.fd(), t);
            (void)is_exhausted(results, io, reg, before);
            reg.async_wait(before, test::outcome().handler());
            results.run_ready(io);
            reg.cancel();
            results.run_ready(io);
            test::outcome error, priority;
            reg.async_wait(interest::error, error.handler());
            reg.async_wait(interest::priority, priority.handler());
            results.run_ready(io);
            if (error.times() + priority.times() != 0)
                continue; // the host name is everybody's
            BOOST_REQUIRE((agent.*s.change)());
            results.check(results.comes(io, [&] { return bool(error) && bool(priority); }),
                          test::name_of(t), ", ", s.name, ", after waits for ", before,
                          ": told error ", error.times(), ", priority ", priority.times());
            reg.deregister();
            results.run_ready(io);
        }
    });
}

BOOST_AUTO_TEST_CASE(changes_that_nobody_waits_for_are_one_event) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        for (interest want : interests_of(s))
            for (int before = 0; before != 3; ++before) // changes that a wait is told of
                for (int changes = 1; changes != 10; ++changes) {
                    if (!test::on_epoll() && want == interest::error)
                        continue; // where only an error that is waited for is assumed
                    asio::io_context io;
                    opened o = open_source(s);
                    moor::registration reg(io, o.fd(), t);
                    auto describe = [&](const char* what) {
                        return std::string(test::name_of(t)) + ", " + s.name +
                               (s.is_in_set ? " in a set, " : ", ") + std::to_string(before) +
                               " changes, then " + std::to_string(changes) + ": " + what;
                    };
                    // So that an event has several parts.
                    (void)is_exhausted(results, io, reg, interest::writable);
                    (void)is_exhausted(results, io, reg, interest::readable);
                    (void)is_exhausted(results, io, reg, want);
                    for (int i = 0; i != before; ++i) {
                        reg.async_wait(want, test::outcome().handler());
                        results.run_ready(io);
                        BOOST_REQUIRE((agent.*s.change)());
                        results.run_ready(io);
                    }
                    for (int i = 0; i != changes; ++i) {
                        BOOST_REQUIRE((agent.*s.change)());
                        results.run_ready(io);
                    }
                    test::outcome c;
                    reg.async_wait(want, c.handler());
                    results.check(results.comes(io, [&] { return bool(c); }),
                                  describe("not told: "), want);
                    if (s.change == &changer::change_mounts)
                        results.check(is_exhausted(results, io, reg, want),
                                      describe("told for ever: "), want);
                    reg.deregister();
                    results.run_ready(io);
                }
    });
}

/// query() asks more than once, to tell a change from a state.
BOOST_AUTO_TEST_CASE(a_change_that_query_finds_reaches_a_wait) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        if (s.is_in_set)
            return; // which tells a state: it has something to read
        for (int calls_before = 0; calls_before != 4; ++calls_before)
            for (bool is_pending : {true, false}) {
                if (!is_pending && t == moor::trigger::level)
                    continue; // a change of before the wait
                asio::io_context io;
                opened o = open_source(s);
                moor::registration reg(io, o.fd(), t);
                (void)is_exhausted(results, io, reg, interest::priority);
                test::outcome c;
                auto wait = [&] {
                    reg.async_wait(interest::priority, c.handler());
                    results.run_ready(io);
                };
                if (is_pending)
                    wait();
                bool is_changed = false;
                std::function<void()> change = [&] {
                    BOOST_REQUIRE((agent.*s.change)());
                    is_changed = true;
                };
                for (int i = 0; i != calls_before; ++i)
                    change = [next = change] { test::after_poll_here(next); };
                change();
                (void)reg.query();
                test::after_poll_here(nullptr);
                if (!is_pending)
                    wait();
                results.check(!is_changed || results.comes(io, [&] { return bool(c); }),
                              test::name_of(t), ", ", s.name, ", a change after ", calls_before,
                              " calls of poll(2)", is_pending ? ", while a wait is pending" : "",
                              ": not told");
                reg.deregister();
                results.run_ready(io);
            }
    });
}

BOOST_AUTO_TEST_CASE(a_change_that_query_finds_in_a_call_has_it_made_again) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        if (s.is_in_set)
            return;
        asio::io_context io;
        opened o = open_source(s);
        moor::registration reg(io, o.fd(), t);
        int calls = 0;
        bool is_to_change = false;
        reg.async_io(
            interest::priority,
            [&](error_code& ec) {
                ++calls;
                ec = asio::error::would_block;
                if (std::exchange(is_to_change, false)) {
                    BOOST_REQUIRE((agent.*s.change)());
                    (void)reg.query();
                }
            },
            test::outcome().handler());
        results.run_ready(io);
        is_to_change = true;
        BOOST_REQUIRE((agent.*s.change)());
        const int before = calls;
        results.check(results.comes(io, [&] { return calls >= before + 2; }), test::name_of(t),
                      ", ", s.name, ": ", calls - before, " calls");
        reg.deregister();
        results.run_ready(io);
    });
}

/// The event is handled while the call runs on another executor, and a wait beside it has the
/// change noted as something else.
BOOST_AUTO_TEST_CASE(a_change_during_a_call_for_an_error_has_it_made_again) {
    for_each_source([](test::tally& results, changer& agent, const source& s, moor::trigger t) {
        if (s.is_in_set)
            return;
        for (interest beside : {interest::priority, interest::readable}) {
            asio::io_context io, elsewhere;
            opened o = open_source(s);
            moor::registration reg(io, o.fd(), t);
            auto change = [&] { BOOST_REQUIRE((agent.*s.change)()); };
            auto run = [&] {
                results.run_ready(io);
                results.run_ready(elsewhere);
            };
            int calls = 0;
            bool changes = false;
            auto call = [&](error_code& ec) {
                ++calls;
                ec = asio::error::would_block;
                if (std::exchange(changes, false)) {
                    change();
                    results.run_ready(io);
                }
                return 0;
            };
            test::outcome done, waits[3];
            reg.async_io(interest::error, call, asio::bind_executor(elsewhere, done.handler()));
            run();
            change();
            results.run_ready(io);           // the call is to be made, elsewhere
            for (test::outcome& w : waits) { // the last one is pending
                reg.async_wait(beside, w.handler());
                results.run_ready(io);
            }
            const int before = calls;
            changes = true;
            results.check(results.comes_by(run, [&] { return calls >= before + 2; }),
                          test::name_of(t), ", ", s.name, ", beside ", beside, ": ", calls - before,
                          " calls");
            reg.deregister();
            run();
        }
    });
}

BOOST_AUTO_TEST_CASE(a_call_that_would_block_is_not_repeated_for_what_the_file_is) {
    // Always readable, and not known to tell a state.
    for (moor::trigger t : test::both_triggers) {
        asio::io_context io;
        test::unique_fd file = open_file("/dev/random");
        moor::registration reg(io, file, t);
        int calls = 0;
        auto would_block = [&](error_code& ec) {
            if (++calls < 100)
                ec = asio::error::would_block;
            return 0;
        };
        reg.async_io(interest::readable, would_block, [](error_code, int) {});
        test::run_ready(io);
        BOOST_TEST(calls <= 3);
        reg.cancel();
        test::run_ready(io);
        calls = 0;
        BOOST_TEST(!reg.poll_read_io([] {}, would_block));
        test::run_ready(io);
        BOOST_TEST(calls <= 3);
    }
}

BOOST_AUTO_TEST_CASE(pressure_on_the_processors_reaches_a_wait) {
    // What a user may ask for at the least: in each window of two seconds.
    const std::string trigger = "some 1000 2000000";
    auto open_trigger = [&] {
        int fd = ::open("/proc/pressure/cpu", O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && ::write(fd, trigger.c_str(), trigger.size() + 1) < 0)
            ::close(std::exchange(fd, -1));
        return fd;
    };
    int oracle_fd = open_trigger();
    if (oracle_fd < 0) {
        BOOST_TEST_MESSAGE("not run: no pressure triggers here");
        return;
    }
    test::unique_fd oracle(oracle_fd);

    struct waiter {
        opened o;
        moor::registration reg;
        interest want;
        test::outcome c;
        std::string name;
    };
    asio::io_context io;
    std::vector<std::unique_ptr<waiter>> waiters;
    for (moor::trigger t : test::both_triggers)
        for (bool is_in_set : {false, true}) {
            opened o;
            if (is_in_set)
                o = put_in_set(test::unique_fd(open_trigger()));
            else
                o.file = test::unique_fd(open_trigger());
            int fd = o.fd();
            waiters.push_back(std::unique_ptr<waiter>(
                new waiter{std::move(o), moor::registration(io, fd, t),
                           is_in_set ? interest::readable : interest::priority, test::outcome(),
                           std::string(test::name_of(t)) + (is_in_set ? ", in a set" : "")}));
        }
    // More threads than processors.
    std::atomic<bool> is_over{false};
    std::vector<std::thread> busy;
    for (unsigned i = 0; i != 2 * std::thread::hardware_concurrency() + 1; ++i)
        busy.emplace_back([&] {
            while (!is_over) {}
        });
    for (int round = 0; round != 2; ++round) {
        for (auto& w : waiters) {
            w->c = test::outcome();
            w->reg.async_wait(w->want, w->c.handler());
        }
        auto are_told = [&] {
            return std::all_of(waiters.begin(), waiters.end(),
                               [](auto& w) { return w->c.times() == 1; });
        };
        // The oracle is told twice in the time that the others have.
        int told = 0;
        auto deadline = std::chrono::steady_clock::now() + test::cap;
        while (!are_told() && told != 2 && std::chrono::steady_clock::now() < deadline) {
            io.restart();
            io.run_one_for(std::chrono::milliseconds(100));
            told += (test::poll_bits(oracle) & POLLPRI) != 0;
        }
        for (auto& w : waiters)
            BOOST_CHECK_MESSAGE(w->c.times() == 1 || told != 2, w->name << ": not told");
        for (auto& w : waiters)
            w->reg.cancel();
        test::run_ready(io);
    }
    is_over = true;
    for (std::thread& thread : busy)
        thread.join();
}

BOOST_AUTO_TEST_SUITE_END()
