// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The machines of which a handle's state is made, each driven alone: without a reactor, a context
// or a system call, but for the pipes that drain_policy identifies.

#include "support/handles.hpp"
#include "support/probe.hpp"

#include <moor/detail/deferred_checks.hpp>
#include <moor/detail/drain_policy.hpp>
#include <moor/detail/edge_source.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/readiness_word.hpp>
#include <moor/detail/transfer_queue.hpp>
#include <moor/detail/unverified_events.hpp>
#include <moor/detail/wait_queue.hpp>
#include <moor/detail/waker.hpp>
#include <moor/readiness.hpp>

#include <boost/test/unit_test.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

#include <fcntl.h>

namespace detail = moor::detail;
using detail::read_channel;
using detail::write_channel;
using moor::interest;
using moor::readiness;
using namespace test;

BOOST_AUTO_TEST_SUITE(machines)

/// How often the answer is no before it is yes.
template <class Answer>
int count_until(Answer is_yes) {
    int n = 0;
    while (!is_yes())
        BOOST_REQUIRE(++n < 1000);
    return n;
}

BOOST_AUTO_TEST_SUITE(readiness_word)
using word = detail::readiness_word;

constexpr interest readable = interest::readable, writable = interest::writable,
                   priority = interest::priority, error = interest::error,
                   read_closed = interest::read_closed, write_closed = interest::write_closed;

moor::ready_event stamped(const word& w, readiness r) {
    return detail::ready_event_access::make(r, w.tick());
}

word with(readiness r) {
    word w;
    w.set(r);
    return w;
}

BOOST_AUTO_TEST_CASE(an_event_advances_the_tick_of_its_own_stream_only) {
    word w;
    auto ticks_after = [&](readiness event) {
        w.set(event);
        const detail::ticks& t = w.tick();
        return t.read * 1000 + t.write * 100 + t.priority * 10 + t.error;
    };
    BOOST_TEST(ticks_after(readiness()) == 0u);
    BOOST_TEST(ticks_after(readable) == 1000u);
    BOOST_TEST(ticks_after(writable) == 1100u);
    BOOST_TEST(ticks_after(priority) == 1110u);
    BOOST_TEST(ticks_after(readable | read_closed) == 2110u);
    BOOST_TEST(ticks_after(write_closed) == 2210u);
    BOOST_TEST(ticks_after(error) == 2211u);
}

BOOST_AUTO_TEST_CASE(an_observation_replaces_what_was_asked_for_and_counts_only_what_is_new) {
    word w = with(readable);
    w.consume(readable);
    auto check = [&](readiness seen, readiness flags, readiness unconsumed, unsigned tick) {
        w.observe(readable, seen);
        BOOST_TEST(w.flags() == flags);
        BOOST_TEST(w.unconsumed() == unconsumed);
        BOOST_TEST(w.tick().read == tick);
    };
    check(readable, readable, readiness(), 1); // was cached
    check(readable | writable, readable | writable, writable, 1);
    check(readiness(), writable, writable, 1); // drained: the next data is new
    check(readable, readable | writable, readable | writable, 2);
    BOOST_TEST(w.tick().write == 1u);
}

BOOST_AUTO_TEST_CASE(clear_drops_what_was_observed_but_nothing_newer_nor_that_a_side_is_closed) {
    word w = with(readable | writable | priority | error | read_closed | write_closed);
    moor::ready_event e = stamped(w, w.flags() - priority);
    w.set(writable);
    w.set(priority); // which the event does not have
    w.clear(e);
    BOOST_TEST(w.flags() == (writable | priority | read_closed | write_closed));
    w.clear(stamped(w, w.flags()));
    BOOST_TEST(w.flags() == (read_closed | write_closed));
    w.forget(read_closed); // the kernel says otherwise
    BOOST_TEST(w.flags() == write_closed);
}

BOOST_AUTO_TEST_CASE(clear_drops_nothing_newer_of_any_stream) {
    for (readiness stream : {readable, writable, priority, error}) {
        word w = with(readable | writable | priority | error);
        const moor::ready_event e = stamped(w, w.flags());
        w.set(stream);
        w.clear(e);
        BOOST_TEST(w.flags() == stream);
    }
}

BOOST_AUTO_TEST_CASE(a_closed_side_or_an_error_satisfies_readers_and_writers) {
    BOOST_TEST(with(error).matched(readable) == readable);
    BOOST_TEST(with(error).matched(writable) == writable);
    BOOST_TEST(with(error).matched(readable | error) == error);
    BOOST_TEST(with(error).matched(priority | read_closed).empty()); // which were not observed
    BOOST_TEST(with(read_closed).matched(readable) == readable);
    BOOST_TEST(with(read_closed).matched(writable | write_closed).empty());
    BOOST_TEST(with(write_closed).matched(writable) == writable);
    BOOST_TEST(with(readable | writable).matched(readable | error) == readable);
}

BOOST_AUTO_TEST_CASE(what_a_wait_was_told_is_no_news_and_stays_cached) {
    for (bool has_states : {true, false}) {
        word w = with(readable | writable);
        w.consume(readable);
        BOOST_TEST(w.news(readable, has_states).empty());
        BOOST_TEST(w.news(readable | writable | error, has_states) == writable);
        BOOST_TEST(w.flags() == (readable | writable));
        w.set(readable);
        BOOST_TEST(w.news(readable, has_states) == readable);
    }
}

BOOST_AUTO_TEST_CASE(a_closed_side_is_told_for_as_long_as_it_lasts) {
    word w = with(read_closed);
    w.consume(read_closed | readable);
    BOOST_TEST(w.news(read_closed, true) == read_closed);
    BOOST_TEST(w.news(read_closed, false).empty()); // a change, told once
    for (bool has_states : {true, false}) {
        BOOST_TEST(w.news(readable, has_states) == readable);
        BOOST_TEST(w.news(writable, has_states).empty());
    }
    w.set(write_closed);
    w.consume(write_closed | writable);
    BOOST_TEST(w.news(writable, false) == writable);
}

BOOST_AUTO_TEST_CASE(an_error_is_told_once_to_readers_and_once_to_writers) {
    word w;
    for (int i = 0; i != 2; ++i) {
        w.set(error);
        BOOST_TEST(w.news(readable, true) == readable);
        w.consume(readable);
        BOOST_TEST(w.news(readable, true).empty());
        BOOST_TEST(w.news(writable, true) == writable);
        w.consume(writable);
        BOOST_TEST(w.news(readable | writable, true).empty());
        w.consume(error);
        BOOST_TEST(w.news(error, false).empty());
        BOOST_TEST(w.news(error, true) == error);
    }
}

BOOST_AUTO_TEST_CASE(an_error_that_a_writer_was_told_first_is_told_to_readers) {
    word w;
    w.set(error);
    w.consume(writable);
    BOOST_TEST(w.news(writable, true).empty());
    BOOST_TEST(w.news(readable, true) == readable);
}

BOOST_AUTO_TEST_CASE(what_is_given_back_is_news_again_unless_something_newer_came) {
    word w = with(readable | writable | error);
    moor::ready_event e = stamped(w, readable);
    w.consume(readable | writable | error);
    w.set(priority); // another stream
    w.give_back(e);
    BOOST_TEST(w.unconsumed() == (readable | priority));
    word failed = with(error);
    failed.consume(readable | writable);
    failed.give_back(stamped(failed, readable));
    BOOST_TEST(failed.news(readable | writable, true) == readable);
    w.set(readable);
    w.consume(readable | priority); // by the next wait
    w.give_back(e);
    BOOST_TEST(w.unconsumed().empty());
}

BOOST_AUTO_TEST_CASE(an_error_takes_nothing_from_what_is_given_back_or_cleared) {
    word w = with(readable | writable);
    moor::ready_event e = stamped(w, readable | writable);
    w.consume(readable | writable);
    w.set(error);
    w.observe(error, readiness()); // somebody has taken it
    w.give_back(e);
    BOOST_TEST(w.unconsumed() == (readable | writable));
    w.set(error);
    w.clear(e);
    BOOST_TEST(w.flags() == error);
}

BOOST_AUTO_TEST_CASE(an_error_is_given_back_if_it_is_the_last_one) {
    for (interest i : {readable, writable}) {
        word w = with(error);
        moor::ready_event e = stamped(w, i);
        w.consume(i);
        w.set(i); // data or room, which a call takes
        w.clear(stamped(w, i));
        w.give_back(e);
        BOOST_TEST(w.news(i, true) == i);
        w.consume(i);
        w.set(error);
        BOOST_TEST(w.news(i, true) == i);
        w.consume(i);
        w.give_back(e);
        BOOST_TEST(w.news(i, true).empty());
    }
}

BOOST_AUTO_TEST_CASE(an_event_is_newer_in_its_own_stream) {
    const interest all = readable | writable | priority;
    for (readiness r : {readable, writable, priority}) {
        word w = with(all);
        moor::ready_event e = stamped(w, all);
        BOOST_TEST(!w.is_newer(e, all));
        w.set(r);
        BOOST_TEST(w.is_newer(e, r));
        BOOST_TEST(!w.is_newer(e, all - r));
    }
}

BOOST_AUTO_TEST_CASE(an_error_is_newer_for_readers_and_writers) {
    word w = with(readable | writable);
    moor::ready_event e = stamped(w, readable | writable);
    w.set(error);
    for (interest i : {readable, writable})
        BOOST_TEST(w.is_newer(e, i));
    BOOST_TEST(!w.is_newer(e, priority));
    // What a writer was told is not old because of it.
    w.consume(writable);
    w.give_back(e);
    BOOST_TEST(w.unconsumed().is_writable());
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE(wait_queue)

BOOST_FIXTURE_TEST_CASE(a_list_keeps_the_order_wherever_one_is_erased, four_probes) {
    for (std::string erased : choices)
        BOOST_TEST_CONTEXT(erased) {
            detail::waiter_list list;
            for (probe* w : all)
                list.push_back(*w);
            for (char n : erased)
                list.erase(*all[n - 'a']);
            const std::string left = others(erased);
            BOOST_TEST(names_in(list) == left);
            BOOST_TEST(list.empty() == left.empty());
            BOOST_TEST(name_of(list.front()) == (left + '-')[0]);
            BOOST_TEST(name_of(list.only()) == (left.size() == 1 ? left[0] : '-'));
            for (char n : erased) // at the end, as new ones
                list.push_back(*all[n - 'a']);
            BOOST_TEST(names_in(list) == left + erased);
        }
}

BOOST_FIXTURE_TEST_CASE(pending_ones_may_be_taken_while_they_are_visited, four_probes) {
    for (std::string taken : choices)
        BOOST_TEST_CONTEXT(taken) {
            detail::wait_queue q;
            for (probe* w : all)
                q.push(*w);
            std::string seen;
            q.for_each([&](waiter& w) {
                seen += name_of(&w);
                if (is_one_of(taken)(w))
                    q.take(w);
            });
            BOOST_TEST(seen == "abcd");
            BOOST_TEST(names_in(q) == others(taken));
            BOOST_TEST(q.size() == 4 - taken.size());
            BOOST_TEST(q.empty() == (taken == "abcd"));
        }
}

BOOST_FIXTURE_TEST_CASE(running_ones_want_nothing_and_are_cancelled_by_a_mark, four_probes) {
    detail::wait_queue q;
    for (probe* w : {&a, &b, &c})
        q.push(*w);
    BOOST_TEST(q.want() == (interest::readable | interest::writable));
    a.set_goes_on();
    q.take(a);
    q.take(b); // is over
    q.start_running(d);
    BOOST_TEST(q.want() == interest::readable);
    BOOST_TEST(name_of(q.only()) == 'c');
    BOOST_TEST(marked(marks::is_running) == "ad");
    q.cancel_running(is_one_of("bcd"));
    BOOST_TEST(marked(marks::is_cancelled) == "d"); // not: not meant, over, pending
    for (probe* w : {&a, &a, &b})                   // one of them again, and one that never ran
        q.stop_running(*w);
    q.cancel_running(is_one_of("abcd"));
    BOOST_TEST(marked(marks::is_running) == "d");
    BOOST_TEST(marked(marks::is_cancelled) == "d");
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE(transfer_queue)
/// Ends one turn after the other: the names of those that had one.
std::string end_all(detail::transfer_queue& q) {
    std::string names;
    while (waiter* w = q.end())
        names += name_of(w);
    return names;
}

BOOST_FIXTURE_TEST_CASE(the_turn_goes_round_in_the_order_of_arrival, four_probes) {
    detail::transfer_queue q;
    BOOST_TEST(!q.is_busy());
    for (int i = 0; i != 2; ++i) {
        BOOST_TEST(q.begin(a));
        BOOST_TEST(!q.begin(b)); // a ring of one
        BOOST_TEST(name_of(q.end()) == 'b');
        BOOST_TEST(q.is_busy()); // b has the turn
        BOOST_TEST(!q.begin(c));
        BOOST_TEST(!q.begin(d));
        BOOST_TEST(name_of(q.end()) == 'c');
        BOOST_TEST(!q.begin(a)); // behind d
        BOOST_TEST(end_all(q) == "da");
        BOOST_TEST(!q.is_busy());
    }
}

BOOST_FIXTURE_TEST_CASE(those_that_are_meant_leave_wherever_they_are, four_probes) {
    probe running('x'), late('y');
    for (std::string taken : choices)
        BOOST_TEST_CONTEXT(taken) {
            detail::transfer_queue q;
            detail::item_queue items;
            q.take_if(is_one_of("x"), items); // nobody is there
            BOOST_TEST(q.begin(running));
            for (probe* w : all)
                BOOST_TEST(!q.begin(*w));
            std::string asked, got;
            auto is_meant = [&](const waiter& w) {
                asked += name_of(&w);
                return is_one_of(taken)(w);
            };
            q.take_if(is_meant, items);
            BOOST_TEST(asked == "abcd"); // and not the one that has the turn
            for (; !items.empty(); items.pop())
                got += name_of(static_cast<waiter*>(items.front()));
            BOOST_TEST(got == taken);
            BOOST_TEST(!q.begin(late)); // the ring is whole
            BOOST_TEST(end_all(q) == others(taken) + "y");
        }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE(waker)
/// With a reactor that counts a unit of work for the waker, and a scheduler that takes one back:
/// none may be left, nor be missing, while the waker is idle or armed.
struct accounted {
    detail::waker_state<> state;
    int work = 0;

    ~accounted() { BOOST_TEST(work == 0); }

    void arm(bool fires_meanwhile = false) {
        BOOST_TEST(state.is_idle());
        state.begin_arming(fires_meanwhile);
        BOOST_TEST(state.is_armed());
        BOOST_TEST(state.is_asked() == fires_meanwhile);
        if (fires_meanwhile)
            state.fire();
        work += 1 - state.finish_arming();
        BOOST_TEST(work == int(fires_meanwhile));
    }
    void fire() {
        state.fire();
        BOOST_TEST(state.is_firing());
    }
    void come_back() {
        work += state.come_back();
        BOOST_TEST(work == 1); // so that the scheduler never counts below zero
        --work;
        BOOST_TEST(state.is_idle());
    }
};

BOOST_FIXTURE_TEST_CASE(it_fires_while_it_is_armed_or_after, accounted) {
    for (bool fires_meanwhile : {false, true, true, false, false}) {
        arm(fires_meanwhile);
        if (fires_meanwhile)
            BOOST_TEST(state.prepay() == 0); // the reactor's own unit pays
        else
            fire();
        come_back();
    }
}

BOOST_FIXTURE_TEST_CASE(its_way_back_is_paid_for_once, accounted) {
    BOOST_TEST(state.prepay() == 0); // it is not on a way
    for (bool fires_first : {true, false}) {
        arm();
        if (fires_first)
            fire();
        work += state.prepay() + state.prepay();
        come_back(); // taken out of the reactor, perhaps without an event
    }
}

BOOST_FIXTURE_TEST_CASE(the_reactor_refuses_it_or_drops_it, accounted) {
    state.begin_arming(false);
    state.drop();
    arm();
    BOOST_TEST(state.prepay() == 1); // a unit that goes with the context
    state.drop();
    arm(); // the unit is not taken for this one's
    fire();
    come_back();
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE(unverified_events)
/// How many events of each of three channels have to be checked, of five.
std::string counts_of(detail::unverified_events e) {
    std::string s;
    for (unsigned channel : {0u, 1u, 2u}) {
        int n = 0;
        for (; n != 5 && e.contain(channel); ++n)
            e.remove(channel);
        s += std::to_string(n);
    }
    return s;
}

BOOST_AUTO_TEST_CASE(each_event_that_may_be_older_than_the_attachment_is_checked) {
    constexpr unsigned first_and_third = 5;
    detail::unverified_events e;
    BOOST_TEST(counts_of(e) == "000");
    e.attached(first_and_third, false, false);
    BOOST_TEST(counts_of(e) == "101");
    e.attached(first_and_third, true, false);
    BOOST_TEST(counts_of(e) == "212");
    e.attached(first_and_third, true, true);
    BOOST_TEST(counts_of(e) == "555");
    e.attached(0, true, false);
    BOOST_TEST(counts_of(e) == "111");
    e.attached(0, false, false);
    BOOST_TEST(counts_of(e) == "000");
    e.add(1);
    e.add(1);
    BOOST_TEST(counts_of(e) == "010");
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE(edge_source)
int waits_until_check(detail::edge_source& s) {
    return count_until([&] { return s.must_check(); });
}

BOOST_AUTO_TEST_CASE(a_set_is_left_after_some_checks_in_a_row_that_find_the_handle_drained) {
    detail::edge_source s;
    BOOST_TEST(!detail::edge_source::direct().is_set());
    for (int drained : {0, 1, 3, 4}) {
        BOOST_TEST(s.is_set());
        for (int i = 0; i != drained; ++i) {
            BOOST_TEST(waits_until_check(s) == 0); // each wait checks
            s.checked(true);
            BOOST_TEST(s.is_set() == (i != 3));
        }
        if (drained == 1) // and those before do not count
            s.refused();
        else if (drained != 4)
            s.checked(false);
        BOOST_TEST(waits_until_check(s) == (drained == 4 ? 127 : 31));
    }
    BOOST_TEST(!s.is_set());
}

BOOST_AUTO_TEST_CASE(data_left_unread_and_refused_calls_lead_to_a_set) {
    for (bool by_a_call : {false, true}) {
        detail::edge_source s;
        while (s.is_set())
            s.checked(true);
        for (int i = 0; i != 2; ++i) {
            BOOST_TEST(!s.is_set());
            BOOST_TEST(waits_until_check(s) == 127);
            s.checked(true);
        }
        by_a_call ? s.refused() : s.checked(false);
        BOOST_TEST(s.is_set());
        BOOST_TEST(waits_until_check(s) == 31);
        for (int i = 0; i != 4; ++i) {
            BOOST_TEST(s.is_set());
            s.checked(true);
        }
        BOOST_TEST(!s.is_set());
    }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE(drain_policy)
using policy = detail::drain_policy;
using verdict = policy::verdict;

BOOST_AUTO_TEST_CASE(only_a_pipe_that_gives_all_there_is_shows_that_it_is_drained) {
    auto check = [](int handle, verdict reader, verdict writer) {
        policy p;
        moor::error_code ec;
        const detail::file_identity id = detail::identify(handle, ec);
        BOOST_TEST(!p.is_known());
        BOOST_TEST((p.cut_short(read_channel, handle, id) == reader));
        BOOST_TEST((p.cut_short(write_channel, handle, id) == writer));
        BOOST_TEST(p.is_known());
        BOOST_TEST(p.is_hang_up(write_channel) == (reader == verdict::drained_or_end));
        BOOST_TEST(!p.is_hang_up(read_channel));
        p.give_up(); // the hang-up can't be waited for
        BOOST_TEST(!p.is_hang_up(write_channel));
        BOOST_TEST((p.cut_short(read_channel, handle, id) == verdict::nothing));
    };
    fd_pair pipe = make_pipe(), socket = make_socketpair();
    unique_fd both(::open(("/proc/self/fd/" + std::to_string(pipe.a)).c_str(), O_RDWR));
    check(pipe.a, verdict::drained_or_end, verdict::nothing);
    check(pipe.b, verdict::nothing, verdict::drained);
    check(both, verdict::drained, verdict::drained);
    check(socket.a, verdict::nothing, verdict::nothing);
    BOOST_REQUIRE_EQUAL(::fcntl(pipe.a, F_SETFL, O_DIRECT), 0); // packets
    check(pipe.a, verdict::nothing, verdict::nothing);
}

BOOST_AUTO_TEST_CASE(a_short_transfer_defers_calls_until_that_was_wrong_or_is_not_put_to_the_test) {
    for (bool was_wrong : {true, false}) {
        policy p;
        std::uint32_t tick = 0;
        auto is_drained_by_the_next = [&] {
            p.transferred(read_channel, true, ++tick);
            return p.is_likely_drained(read_channel, tick);
        };
        for (int deferred = 0; deferred != (was_wrong ? 1 : 16); ++deferred) {
            BOOST_TEST(is_drained_by_the_next());
            BOOST_TEST(!p.is_likely_drained(read_channel, tick + 1)); // after an event
            BOOST_TEST(!p.is_likely_drained(write_channel, tick));
            p.deferred(read_channel);
        }
        if (was_wrong)
            p.transferred(read_channel, true, tick); // no event told of this data
        BOOST_TEST(!is_drained_by_the_next());
        p.would_block(read_channel);
        BOOST_TEST(!p.is_likely_drained(read_channel, tick));
        BOOST_TEST(is_drained_by_the_next());
        p.transferred(read_channel, false, ++tick); // all that was asked for
        BOOST_TEST(!p.is_likely_drained(read_channel, tick));
    }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE(deferral_pacing)
using pacing = detail::deferral_pacing;

int checks_at_once(pacing& p) {
    return count_until([&] { return p.allows(); });
}

BOOST_AUTO_TEST_CASE(deferring_begins_after_some_checks_and_stops_where_it_does_not_pay) {
    pacing p;
    BOOST_TEST(checks_at_once(p) == 64);
    for (int i = 0; i != 2; ++i) {
        for (int rounds = 0; rounds != 4; ++rounds) {
            BOOST_TEST(p.allows());
            p.note_checked(1, 0, 0);
            p.note_checked(0, 0, 0); // no round
        }
        BOOST_TEST(checks_at_once(p) == 256);
    }
    for (std::size_t checked : {1u, 1u, 1u, 3u, 1u, 1u, 1u}) { // one round that pays is enough
        p.note_checked(checked, 0, 0);
        BOOST_TEST(p.allows());
    }
}

BOOST_AUTO_TEST_CASE(deferring_pays_where_checks_are_saved_or_made_together) {
    auto pays = [](int saved, std::size_t checked, std::size_t ready, std::size_t called) {
        pacing p;
        checks_at_once(p);
        for (int rounds = 0; rounds != 4; ++rounds) {
            for (int i = 0; i != saved; ++i)
                p.note_saved();
            p.note_checked(checked, ready, called);
        }
        return p.allows();
    };
    BOOST_TEST(pays(0, 3, 0, 0));
    BOOST_TEST(!pays(0, 2, 0, 0));
    BOOST_TEST(pays(0, 100, 25, 0));
    BOOST_TEST(!pays(0, 100, 26, 0)); // too many were told late
    BOOST_TEST(pays(1, 1, 0, 0));
    BOOST_TEST(!pays(1, 1, 1, 0));
    BOOST_TEST(pays(2, 0, 0, 1));
    BOOST_TEST(!pays(1, 0, 0, 1)); // as many calls were deferred for nothing
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE_END()
