// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Events that the kernel has given to the loop, and that the loop has not handled yet: a second
// thread is held between the two, or the handler of the first event of a batch runs. What happens
// meanwhile must make no event of the past complete a wait that began later: not if the data were
// read, and not if the registration ended and a new one began, under the same number or not.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/loop_thread.hpp"

#include <moor.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <atomic>
#include <optional>
#include <utility>

#include <poll.h>
#include <sys/socket.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::error_code;

/// Completions that another thread may count.
struct told {
    std::atomic<int> times{0};
    std::atomic<bool> failed{false};

    auto handler() {
        return [this](error_code ec, auto&&...) {
            failed = !!ec;
            ++times;
        };
    }
};

/// The handle has been waited for, and its waker rests in the reactor.
void warm_up(asio::io_context& io, moor::registration& reg, test::fd_pair& p) {
    test::called done;
    reg.async_wait_readable(done.handler());
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    BOOST_REQUIRE_EQUAL(test::drain(p.a), 1u);
    test::run_ready(io);
}

enum class finish { deregister, destroy, abandon, reset };
enum class successor { other_number, same_number, same_file };

struct how {
    moor::trigger trigger;
    finish end;
    successor next;
    bool is_pending; ///< a wait of the old registration, when its event comes
    bool hangs_up;   ///< the event: a hang-up, or data
    interest want;

    friend std::ostream& operator<<(std::ostream& os, const how& h) {
        static const char* ends[] = {"deregister", "destroy", "abandon", "reset"};
        static const char* nexts[] = {"another number", "the same number", "the same file"};
        return os << test::name_of(h.trigger) << ", " << ends[static_cast<int>(h.end)] << ", "
                  << nexts[static_cast<int>(h.next)] << (h.is_pending ? ", a wait was pending" : "")
                  << (h.hangs_up ? ", hang-up" : ", data") << ", " << h.want;
    }
};

/// Whether the loop asks for events when nobody waits.
bool can_fetch_unasked() { return test::on_epoll(); }

template <class Check>
void for_each_how(Check check) {
    for (moor::trigger t : test::both_triggers)
        for (finish end : {finish::deregister, finish::destroy, finish::abandon, finish::reset})
            for (successor next :
                 {successor::other_number, successor::same_number, successor::same_file})
                for (bool is_pending : {false, true})
                    for (bool hangs_up : {false, true})
                        for (interest want :
                             {interest::readable, interest::readable | interest::read_closed,
                              interest::read_closed | interest::error}) {
                            // A file that was abandoned is closed; and an end stays.
                            if (next == successor::same_file &&
                                (end == finish::abandon || hangs_up))
                                continue;
                            const bool is_asked = is_pending && (hangs_up || want.is_readable());
                            if (!is_asked && !can_fetch_unasked())
                                continue;
                            check(how{t, end, next, is_pending, hangs_up, want});
                        }
}

/// A registration whose event is on its way when another one takes its place.
struct scene {
    asio::io_context& io;
    how h;
    test::fd_pair p = test::make_socketpair();
    test::fd_pair q = test::make_socketpair();
    std::optional<moor::registration> old_one, new_one;
    told old_wait, new_wait;

    scene(asio::io_context& context, const how& what) : io(context), h(what) {
        old_one.emplace(io, p.a.get(), h.trigger);
        warm_up(io, *old_one, p);
        if (h.is_pending)
            old_one->async_wait(h.want, old_wait.handler());
        test::run_ready(io);
    }

    void make_event() {
        if (h.hangs_up)
            p.b.close();
        else
            test::put(p.b, "old");
    }

    /// While the event is on its way.
    void replace() {
        test::drain(p.a);
        if (h.end == finish::deregister)
            old_one->deregister();
        else if (h.end == finish::destroy)
            old_one.reset();
        if (h.next == successor::same_number)
            q = test::reuse_number(p.a, std::move(q));
        else if (h.end == finish::abandon)
            p.a.close();
        if (h.next == successor::same_file)
            q = std::move(p);
        if (h.end == finish::abandon)
            old_one->abandon();
        if (h.end == finish::reset) {
            old_one->reset(q.a, h.trigger);
            new_one = std::move(old_one);
        } else {
            new_one.emplace(io, q.a.get(), h.trigger);
        }
        new_one->async_wait(h.want, new_wait.handler());
    }

    void make_news() {
        if (h.want.is_readable())
            test::put(q.b, "new");
        else
            q.b.close();
    }
};

} // namespace

BOOST_AUTO_TEST_SUITE(two_threads)

BOOST_AUTO_TEST_CASE(a_level_wait_is_not_told_of_data_that_were_read_before_it_began) {
    test::tally results;
    for (bool was_waiting : {false, true})
        for (int variant = 0; variant != 4; ++variant)
            for (interest want : {interest::readable, interest::readable | interest::priority}) {
                const bool is_in_handler = variant % 2 != 0, by_try_io = variant / 2 != 0;
                if (!was_waiting && !can_fetch_unasked())
                    continue;
                asio::io_context io;
                test::fd_pair p = test::make_socketpair();
                moor::registration reg(io, p.a.get());
                warm_up(io, reg, p);
                told earlier, wait;
                if (was_waiting)
                    reg.async_wait(want, earlier.handler());
                test::loop_thread other(io);
                BOOST_REQUIRE(other.fetches([&] { test::put(p.b, "old"); }));
                auto act = [&] {
                    reg.cancel();
                    if (by_try_io)
                        (void)reg.try_io(interest::readable, test::reader{p.a});
                    test::drain(p.a);
                    reg.async_wait(want, wait.handler());
                };
                if (is_in_handler) {
                    asio::post(io, act);
                    io.poll_one();
                } else {
                    act();
                }
                other.let_go();
                BOOST_REQUIRE(other.settles());
                results.check(wait.times == 0, "a wait was told of the past: ", want,
                              is_in_handler ? ", in a handler" : "");
                test::put(p.b, "new");
                results.check(test::wait_for([&] { return wait.times == 1; }), "the wait hangs");
                BOOST_REQUIRE(other.settles());
            }
}

BOOST_AUTO_TEST_CASE(a_wait_is_told_of_an_event_that_another_thread_has_fetched) {
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (int variant = 0; variant != 4; ++variant)
            for (interest want :
                 {interest::readable, interest::read_closed, interest::write_closed}) {
                const bool is_in_handler = variant % 2 != 0, was_waiting = variant / 2 != 0;
                if (!was_waiting && !can_fetch_unasked())
                    continue;
                asio::io_context io;
                test::fd_pair p = test::make_socketpair();
                moor::registration reg(io, p.a.get(), t);
                warm_up(io, reg, p);
                told earlier, wait;
                if (was_waiting)
                    reg.async_wait(want, earlier.handler());
                test::loop_thread other(io);
                BOOST_REQUIRE(other.fetches([&] { p.b.close(); }));
                auto act = [&] {
                    reg.cancel();
                    reg.async_wait(want, wait.handler());
                };
                if (is_in_handler) {
                    asio::post(io, act);
                    io.poll_one();
                } else {
                    act();
                }
                other.let_go();
                results.check(test::wait_for([&] { return wait.times == 1; }), test::name_of(t),
                              ": the wait hangs: ", want);
            }
}

BOOST_AUTO_TEST_CASE(a_first_wait_is_told_of_an_event_that_another_thread_handles_meanwhile) {
    // The event of EPOLL_CTL_ADD, while the wakers are not armed yet.
    test::tally results;
    const interest wants[] = {interest::readable,
                              interest::writable,
                              interest::priority,
                              interest::readable | interest::priority,
                              interest::writable | interest::priority,
                              interest::priority | interest::error,
                              interest::read_closed};
    for (moor::trigger t : test::both_triggers)
        for (interest want : wants)
            for (interest event : {interest::readable, interest::priority, interest::read_closed}) {
                if (!want.contains(event))
                    continue;
                asio::io_context io;
                test::fd_pair p = test::make_tcp_pair();
                moor::registration reg(io, p.a.get(), t);
                test::loop_thread other(io);
                BOOST_REQUIRE(other.settles());
                auto make = [&] {
                    if (event == interest::readable)
                        test::put(p.b, "data");
                    else if (event == interest::priority)
                        BOOST_REQUIRE_EQUAL(::send(p.b, "!", 1, MSG_OOB), 1);
                    else
                        p.b.close();
                    const int bits = event == interest::readable   ? POLLIN
                                     : event == interest::priority ? POLLPRI
                                                                   : POLLRDHUP;
                    test::wait_for([&] { return (test::poll_bits(p.a) & bits) != 0; });
                };
                bool is_made = t == moor::trigger::edge;
                if (is_made)
                    make();
                told wait;
                test::after_epoll_ctl_here([&] {
                    if (!std::exchange(is_made, true))
                        make(); // later than the check that the wait begins with
                    BOOST_CHECK(other.settles());
                });
                reg.async_wait(want, wait.handler());
                if (!is_made) // the handle is in no epoll set
                    make();
                results.check(test::wait_for([&] { return wait.times == 1; }), test::name_of(t),
                              ": a wait for ", want, " hangs, beside: ", event);
                test::after_epoll_ctl_here(nullptr);
                reg.cancel();
                test::wait_for([&] { return wait.times == 1; });
            }
}

BOOST_AUTO_TEST_CASE(an_event_that_another_thread_has_fetched_is_not_for_the_next_registration) {
    test::tally results;
    auto check = [&](const how& h, bool is_in_handler, bool has_handled_one) {
        asio::io_context io;
        test::fd_pair f = test::make_socketpair();
        moor::registration first(io, f.a.get());
        scene s(io, h);
        test::loop_thread other(io);
        if (has_handled_one) {
            told done;
            first.async_wait_readable(done.handler());
            test::put(f.b, "x");
            BOOST_REQUIRE(test::wait_for([&] { return done.times == 1; }));
            test::drain(f.a);
        }
        BOOST_REQUIRE(other.fetches([&] { s.make_event(); }));
        if (is_in_handler) {
            asio::post(io, [&] { s.replace(); });
            io.poll_one();
        } else {
            s.replace();
        }
        other.let_go();
        BOOST_REQUIRE(other.settles());
        const char* thread = has_handled_one ? ", on a thread that has handled one" : "";
        if (!results.check(s.new_wait.times == 0, "completes for the past: ", h, thread))
            return;
        s.make_news();
        results.check(test::wait_for([&] { return s.new_wait.times == 1; }) && !s.new_wait.failed,
                      "hangs or fails: ", h, thread);
        BOOST_REQUIRE(other.settles());
    };
    for_each_how([&](const how& h) {
        for (bool is_in_handler : {false, true})
            for (bool has_handled_one : {false, true})
                check(h, is_in_handler, has_handled_one);
    });
}

BOOST_AUTO_TEST_CASE(an_event_that_is_queued_in_a_batch_is_not_for_the_next_registration) {
    test::tally results;
    for_each_how([&](const how& h) {
        asio::io_context io;
        test::fd_pair f = test::make_socketpair();
        moor::registration first(io, f.a.get());
        warm_up(io, first, f);
        scene s(io, h);
        test::called done;
        first.async_wait_readable([&](error_code ec) {
            done.handler()(ec);
            s.replace();
        });
        test::run_ready(io);
        test::put(f.b, "x"); // one batch: first this event,
        s.make_event();      // then that one
        test::run_until(io, [&] { return bool(done); });
        test::run_ready(io);
        if (!results.check(s.new_wait.times == 0, "completes for the past: ", h))
            return;
        s.make_news();
        results.check(results.comes(io, [&] { return s.new_wait.times == 1; }) &&
                          !s.new_wait.failed,
                      "hangs or fails: ", h);
    });
}

BOOST_AUTO_TEST_SUITE_END()
