// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A handle's state on a simulated reactor, step by step: schedules that real threads meet once in
// a million runs.

#include "support/simulated.hpp"

#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/test/unit_test.hpp>

#include <cstddef>
#include <deque>
#include <iterator>
#include <string>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>

namespace sim = test::simulated;
using moor::interest;
using moor::readiness;
using moor::trigger;

BOOST_AUTO_TEST_SUITE(simulated)

const auto aborted = boost::asio::error::make_error_code(boost::asio::error::operation_aborted);
using sim::handle;
using test::both_triggers;
constexpr interest readable = interest::readable, writable = interest::writable;

/// An operation is pending, and the next event completes it.
void check_is_told_of_the_next_event(handle& h, const sim::operation& op) {
    BOOST_TEST(op.is_pending());
    h.on.raise(POLLIN);
    h.run();
    BOOST_TEST(op.was_told(readable));
}

BOOST_AUTO_TEST_CASE(a_wait_completes_for_an_event_and_the_next_one_as_the_trigger_says) {
    for (trigger mode : both_triggers)
        for (auto [want, event] : {std::pair(readable, POLLIN), std::pair(writable, POLLOUT),
                                   std::pair(interest::priority, POLLPRI)}) {
            handle h(mode);
            sim::operation& first = h.make_operation(want);
            sim::operation& second = h.make_operation(want);
            first.start();
            h.run();
            BOOST_TEST(first.is_pending());
            BOOST_TEST(h.host.port.work() == 1);
            h.on.raise(event);
            h.run();
            BOOST_TEST(first.was_told(want));
            second.start(); // the file is ready still
            h.run();
            BOOST_TEST(second.is_over() == (mode == trigger::level));
            h.on.raise(event);
            h.run();
            BOOST_TEST(second.was_told(want));
        }
}

BOOST_AUTO_TEST_CASE(a_duplicate_is_closed_once_if_the_context_ends_beside_its_registration) {
    handle h(trigger::level);
    h.state->close(sim::policy::state::deregistered, true);
    moor::error_code ec;
    test::unique_fd first(::eventfd(0, EFD_CLOEXEC));
    const int number = first;
    h.state->open(number, moor::detail::identify(number, ec), trigger::level, 1000);
    h.state->close(sim::policy::state::deregistered, true);
    BOOST_TEST(!test::is_open(number));
    first.release();
    // All eventfds look the same.
    test::unique_fd other(::eventfd(0, EFD_CLOEXEC));
    BOOST_TEST(int(other) == number);
    moor::detail::item_queue items;
    h.state->abandon(items);
    BOOST_TEST(test::is_open(other));
}

BOOST_AUTO_TEST_CASE(one_event_completes_two_waits_of_one_direction) {
    for (trigger mode : both_triggers) {
        handle h(mode);
        sim::operation& first = h.make_operation(readable);
        sim::operation& second = h.make_operation(readable);
        first.start();
        second.start();
        BOOST_TEST(h.host.port.work() == 2);
        h.on.raise(POLLIN);
        h.fetch_and_run_one();
        BOOST_TEST(first.was_told(readable)); // in the place of the reactor's own item
        BOOST_TEST(second.is_pending());      // in the scheduler
        h.run();
        BOOST_TEST(second.was_told(readable));
    }
}

BOOST_AUTO_TEST_CASE(a_change_that_is_told_once_reaches_one_wait) {
    for (trigger mode : both_triggers) {
        handle h(mode, 0, false);
        sim::operation& first = h.make_operation(readable);
        sim::operation& second = h.make_operation(readable);
        first.start();
        h.on.raise(POLLIN);
        h.run();
        BOOST_TEST(first.is_over());
        second.start();
        h.run();
        BOOST_TEST(second.is_pending());
    }
}

BOOST_AUTO_TEST_CASE(a_call_that_would_block_is_made_again_for_a_newer_event) {
    for (trigger mode : both_triggers) {
        handle h(mode, POLLIN);
        int calls = 0;
        sim::operation& op = h.make_operation(readable, [&] {
            h.on.lower(POLLIN);
            return ++calls == 2;
        });
        op.start();
        h.run();
        BOOST_TEST(op.is_pending());
        BOOST_TEST(calls == 1);
        h.on.raise(POLLIN);
        h.run();
        BOOST_TEST(op.is_over());
        BOOST_TEST(calls == 2);
    }
}

BOOST_AUTO_TEST_CASE(an_edge_wait_is_not_told_of_what_a_pending_call_has_read) {
    handle h(trigger::edge);
    int calls = 0;
    sim::operation& call = h.make_operation(readable, [&] {
        h.on.lower(POLLIN);
        return ++calls == 3;
    });
    sim::operation& wait = h.make_operation(readable);
    call.start();
    h.run();
    h.on.raise(POLLIN);
    h.run();
    BOOST_TEST(calls == 2);
    wait.start();
    h.run();
    BOOST_TEST(call.is_pending());
    check_is_told_of_the_next_event(h, wait);
    BOOST_TEST(call.is_over());
}

BOOST_AUTO_TEST_CASE(a_change_that_a_call_finds_when_it_asks_again_reaches_another_wait) {
    // poll(2) tells the change once: there is no event.
    for (trigger mode : both_triggers) {
        handle h(mode, 0, false);
        sim::operation& reader = h.make_operation(readable); // keeps the waker of the call armed
        sim::operation& wait = h.make_operation(interest::priority);
        int calls = 0;
        sim::operation& op = h.make_operation(writable, [&] {
            if (++calls == 2)
                return interest();
            h.on.raise(POLLPRI);
            return interest(interest::readable);
        });
        reader.start();
        wait.start();
        h.run();
        BOOST_TEST(wait.is_pending());
        op.start();
        h.run();
        BOOST_TEST(wait.was_told(interest::priority));
        BOOST_TEST(op.is_pending());
        h.on.raise(POLLIN);
        h.run();
        BOOST_TEST(op.is_over());
        BOOST_TEST(calls == 2);
    }
}

BOOST_AUTO_TEST_CASE(a_change_in_the_last_of_many_different_answers_reaches_a_wait) {
    // query() asks until two answers agree, but not for ever.
    for (trigger mode : both_triggers) {
        handle h(mode, 0, false);
        sim::operation& wait = h.make_operation(interest::priority);
        wait.start();
        h.run();
        const int answers[] = {POLLIN, POLLIN | POLLOUT, POLLIN | POLLOUT | POLLRDHUP,
                               POLLIN | POLLOUT | POLLRDHUP | POLLHUP,
                               POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLPRI};
        std::size_t asked = 0;
        h.on.before_poll = [&] {
            if (asked != std::size(answers))
                h.on.raise(answers[asked++]);
        };
        moor::error_code ec;
        (void)h.state->query(ec);
        BOOST_TEST(asked == std::size(answers));
        h.run();
        BOOST_TEST(wait.was_told(interest::priority));
    }
}

/// An event comes while the read waker is firing. Returns whether the next wait completes.
bool completes_after_an_event_that_finds_the_waker_firing(bool forgets_events) {
    handle h(trigger::edge);
    sim::port& port = h.host.port;
    port.forgets_events = forgets_events;
    sim::operation& reader = h.make_operation(readable);
    sim::operation& writer = h.make_operation(writable);
    sim::operation& next = h.make_operation(readable);
    reader.start();
    writer.start();
    h.on.raise(POLLIN | POLLOUT);
    h.fetch_and_run_one(); // fires both wakers; the writer's comes back at once
    BOOST_TEST(writer.is_over());
    sim::port::taken read_waker = port.take(); // one thread has the reader's waker in its hands
    h.on.raise(POLLIN);
    h.fetch_and_run_one(); // and another one handles the event
    BOOST_TEST(reader.is_pending());
    port.run(read_waker);
    BOOST_TEST(reader.was_told(readable));
    next.start();
    h.run();
    return next.was_told(readable);
}

BOOST_AUTO_TEST_CASE(an_event_that_finds_the_waker_firing_completes_the_next_wait) {
    BOOST_TEST(completes_after_an_event_that_finds_the_waker_firing(false));
    BOOST_TEST(
        !completes_after_an_event_that_finds_the_waker_firing(true)); // so the check can fail
}

/// An event comes after the waker's own event was found to be old, and before the waker is armed
/// again. Returns whether the wait that began in between completes.
bool completes_after_an_event_just_before_arming(bool forgets_events) {
    handle h(trigger::level);
    sim::thread second_thread;
    sim::port& port = h.host.port;
    port.forgets_events = forgets_events;
    sim::operation& earlier = h.make_operation(readable);
    sim::operation& op = h.make_operation(readable);
    earlier.start();
    h.on.raise(POLLIN);
    h.run();
    BOOST_TEST(earlier.is_over());
    h.on.raise(POLLIN);
    BOOST_TEST(port.fetch());
    h.on.lower(POLLIN);
    op.start();
    port.before_arming = [&] {
        BOOST_TEST(op.is_pending());
        h.raise_and_handle(second_thread, POLLIN);
    };
    h.run();
    BOOST_TEST(!port.before_arming); // the event came
    return op.was_told(readable);
}

BOOST_AUTO_TEST_CASE(an_event_just_before_the_waker_is_armed_completes_a_wait) {
    BOOST_TEST(completes_after_an_event_just_before_arming(false));
    BOOST_TEST(!completes_after_an_event_just_before_arming(true)); // so the check can fail
}

BOOST_AUTO_TEST_CASE(an_event_that_the_reactor_remembers_is_no_news_once_a_wait_was_told) {
    // Beside a reader, the waker of a writer is not armed again where nobody waits for room.
    handle h(trigger::edge);
    sim::operation& reader = h.make_operation(readable);
    sim::operation& first = h.make_operation(writable);
    sim::operation& second = h.make_operation(writable);
    sim::operation& third = h.make_operation(writable);
    reader.start();
    first.start();
    h.on.raise(POLLOUT);
    h.run();
    BOOST_TEST(first.was_told(writable));
    for (int n = 0; n != 2; ++n) { // one is cached, and the reactor remembers the other one
        h.on.raise(POLLOUT);
        h.run();
    }
    second.start();
    h.run();
    BOOST_TEST(second.was_told(writable));
    third.start();
    h.run();
    BOOST_TEST(third.is_pending());
    h.on.raise(POLLOUT);
    h.run();
    BOOST_TEST(third.was_told(writable));
    BOOST_TEST(reader.is_pending());
}

BOOST_AUTO_TEST_CASE(an_event_that_was_fetched_before_a_level_wait_began_does_not_complete_it) {
    for (bool defers : {false, true}) {
        handle h(trigger::level);
        sim::operation& earlier = h.make_operation(readable);
        sim::operation& op = h.make_operation(readable);
        earlier.start();
        h.on.raise(POLLIN);
        h.run();
        BOOST_TEST(earlier.is_over());
        h.host.defers = defers;
        h.on.raise(POLLIN);
        BOOST_TEST(h.host.port.fetch());
        h.on.lower(POLLIN); // somebody else has read
        op.start();
        h.run();
        h.host.check_deferred();
        h.run();
        check_is_told_of_the_next_event(h, op);
    }
}

BOOST_AUTO_TEST_CASE(an_event_of_an_earlier_handle_completes_no_wait_of_the_next_one) {
    for (trigger mode : both_triggers)
        for (bool is_ours : {false, true})
            for (bool is_held : {false, true}) { // by a thread that has handled nothing so far
                handle h(mode);
                sim::thread second_thread;
                sim::port::taken held;
                h.make_operation(readable).start();
                h.on.raise(POLLIN);
                h.run();
                h.make_operation(readable).start();
                h.on.raise(POLLIN);
                BOOST_TEST(h.host.port.fetch());
                if (is_held)
                    held = h.host.port.take();
                if (!is_ours)
                    h.on.close(true);
                h.host.port.run_in_loop([&] { h.deregister(is_ours); });
                sim::file next(is_ours ? h.on.number + 1 : h.on.number);
                sim::state_ptr state = h.host.open(next, mode); // gets the reactor's same object
                ++h.opened;
                sim::operation& op = h.operations.emplace_back(state, readable);
                h.host.port.run_in_loop([&] { op.start(); });
                if (is_held) {
                    sim::on_thread current(second_thread);
                    h.host.port.run(held);
                }
                h.run();
                h.on.raise(POLLIN); // epoll may have this file still
                h.run();
                BOOST_TEST(op.is_pending());
                next.raise(POLLIN);
                h.run();
                BOOST_TEST(op.was_told(readable));
                state->close(sim::state::deregistered, true);
            }
}

BOOST_AUTO_TEST_CASE(an_event_that_another_thread_holds_completes_no_wait_of_the_next_handle) {
    // The registration ends outside of the loop, the next one begins in the loop. Of the two wakers
    // that the event fires, one comes back on the loop's thread.
    for (trigger mode : both_triggers) {
        handle h(mode);
        sim::thread second_thread;
        for (interest want : {readable, writable})
            h.make_operation(want).start();
        h.on.raise(POLLIN | POLLOUT);
        h.run();
        h.on.lower(POLLIN | POLLOUT);
        for (interest want : {readable, writable})
            h.make_operation(want).start();
        h.on.raise(POLLIN | POLLOUT);
        BOOST_TEST(h.host.port.fetch());
        sim::port::taken held = h.host.port.take();
        h.deregister(true);
        sim::file next(h.on.number + 1);
        sim::state_ptr state = h.host.open(next, mode); // gets the reactor's same object
        ++h.opened;
        sim::operation& reader = h.operations.emplace_back(state, readable);
        sim::operation& writer = h.operations.emplace_back(state, writable);
        h.host.port.run_in_loop([&] { reader.start(); });
        h.host.port.run_in_loop([&] { writer.start(); });
        {
            sim::on_thread current(second_thread);
            h.host.port.run(held);
        }
        h.run();
        BOOST_TEST(reader.is_pending());
        BOOST_TEST(writer.is_pending());
        next.raise(POLLIN | POLLOUT);
        h.run();
        BOOST_TEST(reader.was_told(readable));
        BOOST_TEST(writer.was_told(writable));
        state->close(sim::state::deregistered, true);
    }
}

BOOST_AUTO_TEST_CASE(the_wakers_of_a_number_that_is_not_ours_come_back_through_the_scheduler) {
    handle h(trigger::level);
    h.make_operation(readable).start();
    h.make_operation(writable).start();
    h.deregister(false);
    BOOST_TEST(h.host.port.queued() == 4u); // with the operations
    BOOST_TEST(h.host.port.work() == 4);
}

BOOST_AUTO_TEST_CASE(an_event_on_its_way_to_an_earlier_wait_does_not_complete_a_later_one) {
    // The reactor fires both wakers. The writer's handler runs first, while the reader's waker is
    // queued: it takes the data, and a wait begins. (The first event of a handle is checked.)
    handle h(trigger::level);
    sim::operation* second = nullptr;
    for (bool is_first : {true, false}) {
        sim::operation& reader = h.make_operation(readable);
        sim::operation& writer = h.make_operation(writable);
        if (!is_first) {
            second = &h.make_operation(readable);
            writer.when_over = [&] {
                h.on.lower(POLLIN);
                second->start();
            };
        }
        reader.start();
        writer.start();
        h.on.raise(POLLIN | POLLOUT);
        h.run();
        BOOST_TEST(writer.was_told(writable));
        BOOST_TEST((reader.was_told(readable) || !is_first));
        h.on.lower(POLLIN | POLLOUT);
    }
    BOOST_TEST(second->is_pending());
    h.on.raise(POLLIN);
    h.run();
    BOOST_TEST(second->was_told(readable));
}

BOOST_AUTO_TEST_CASE(a_deferred_check_completes_a_wait_for_what_was_there) {
    handle h(trigger::level);
    sim::operation& first = h.make_operation(readable);
    sim::operation& second = h.make_operation(readable);
    // Only a thread that has handled an event may defer, and only in the loop.
    sim::operation& starter = h.make_operation(readable, [&] { return second.start(), true; });
    first.start();
    h.on.raise(POLLIN);
    h.run();
    h.host.defers = true;
    starter.start();
    h.run();
    BOOST_TEST(second.is_pending());
    h.host.check_deferred();
    h.run();
    BOOST_TEST(second.was_told(readable));
}

BOOST_AUTO_TEST_CASE(a_wait_is_told_at_once_of_a_change_that_is_told_once_and_came_before) {
    // A deferred check forgets what is cached, and poll(2) does not tell the change again.
    handle h(trigger::level, 0, false);
    sim::operation& first = h.make_operation(readable);
    sim::operation& second = h.make_operation(readable);
    first.start();
    h.on.raise(POLLIN);
    h.run();
    BOOST_TEST(first.was_told(readable));
    h.on.raise(POLLIN); // while nobody waits
    h.run();
    h.host.defers = true;
    h.host.port.run_in_loop([&] { second.start(); });
    h.run();
    BOOST_TEST(second.was_told(readable));
    h.host.check_deferred();
    h.run();
}

BOOST_AUTO_TEST_CASE(no_check_is_deferred_at_an_end_that_is_known) {
    handle h(trigger::level);
    sim::operation& first = h.make_operation(readable);
    sim::operation& second = h.make_operation(readable);
    sim::operation& third = h.make_operation(readable);
    first.start();
    h.on.raise(POLLIN | POLLRDHUP | POLLHUP);
    h.run();
    BOOST_TEST(first.is_over());
    second.start(); // asks, and finds the end
    h.run();
    BOOST_TEST(second.was_told(readable));
    h.host.defers = true;
    h.host.port.run_in_loop([&] { third.start(); });
    h.run();
    BOOST_TEST(third.was_told(readable));
    h.host.check_deferred();
}

BOOST_AUTO_TEST_CASE(a_deferred_check_is_not_made_while_an_event_of_the_handle_is_queued) {
    handle h(trigger::level);
    auto checks = [&] {
        moor::detail::wait_counts c;
        h.state->add_counts(c);
        return c.checks;
    };
    sim::operation& first = h.make_operation(readable);
    sim::operation& second = h.make_operation(readable);
    first.start();
    h.on.raise(POLLIN);
    h.run();
    BOOST_TEST(first.is_over());
    h.on.lower(POLLIN);
    h.host.defers = true;
    h.host.port.run_in_loop([&] { second.start(); });
    const auto before = checks();
    h.on.raise(POLLIN);
    BOOST_TEST(h.host.port.fetch());
    h.host.check_deferred();
    BOOST_TEST(checks() == before);
    h.run();
    BOOST_TEST(second.was_told(readable));
    h.host.check_deferred();
    BOOST_TEST(checks() == before); // the wait is over
}

BOOST_AUTO_TEST_CASE(a_wait_that_is_cancelled_before_its_handler_gives_the_news_back) {
    for (bool is_cached : {false, true})
        for (bool is_cancelled : {false, true}) {
            handle h(trigger::edge);
            sim::operation& first = h.make_operation(readable);
            sim::operation& second = h.make_operation(readable);
            sim::operation& next = h.make_operation(readable);
            first.start();
            if (is_cached) { // news that nobody has waited for
                h.on.raise(POLLIN);
                h.run();
            } else {
                second.start();
            }
            h.on.raise(POLLIN);
            h.fetch_and_run_one();
            if (is_cached)
                second.start();
            BOOST_TEST(first.is_over());
            BOOST_TEST(h.host.port.queued() == 1u); // the second wait, which has its event
            if (is_cancelled)
                second.cancel();
            h.run();
            BOOST_TEST(second.has_failed_with(aborted) == is_cancelled);
            BOOST_TEST(second.was_told(readable) == !is_cancelled);
            next.start();
            h.run();
            BOOST_TEST(next.was_told(readable) == is_cancelled);
        }
}

/// The events of a handle that nobody waits for, until the next one that fires both wakers is the
/// last.
void wear_out(handle& h) {
    for (interest want : {readable, writable})
        h.make_operation(want).start();
    h.on.raise(POLLIN | POLLOUT);
    h.run();
    h.on.lower(POLLOUT);
    for (unsigned n = 0; n + 1 != sim::state::idle_limit; ++n) {
        BOOST_TEST(h.is_attached());
        h.on.raise(POLLIN);
        h.run();
    }
    BOOST_TEST(h.is_attached());
}

/// The next wait attaches the handle again, and is told of a new event only.
void check_that_it_comes_back(handle& h, trigger mode) {
    if (mode == trigger::edge)
        h.make_operation(readable).start(); // is told of the events so far
    h.on.lower(POLLIN);
    sim::operation& next = h.make_operation(readable);
    next.start();
    BOOST_TEST(h.is_attached());
    h.run();
    check_is_told_of_the_next_event(h, next);
}

BOOST_AUTO_TEST_CASE(a_handle_that_nobody_waits_for_leaves_the_reactor_after_some_events) {
    for (trigger mode : both_triggers)
        for (bool is_firing : {false, true}) { // one waker, when the other one's event is the last
            handle h(mode);
            wear_out(h);
            h.on.raise(is_firing ? POLLIN | POLLOUT : POLLIN);
            h.fetch_and_run_one();
            BOOST_TEST(!h.is_attached());
            BOOST_TEST(h.host.port.queued() == is_firing);
            BOOST_TEST(h.host.recycled == 0);
            check_that_it_comes_back(h, mode);
        }
}

BOOST_AUTO_TEST_CASE(each_old_event_is_checked_of_a_handle_that_comes_back_with_a_firing_waker) {
    // One is the waker's own. The other one was queued for another handle, whose object is used
    // again.
    for (trigger mode : both_triggers)
        for (bool is_waker_first : {false, true}) {
            handle h(mode);
            sim::file on_other(4);
            sim::state_ptr other = h.host.open(on_other, mode);
            h.opened = 2;
            wear_out(h);
            h.operations.emplace_back(other, readable).start();
            if (!is_waker_first)
                on_other.raise(POLLIN);
            h.on.raise(POLLIN | POLLOUT);
            BOOST_TEST(h.host.port.fetch());
            h.host.port.run(h.host.port.take_newest());
            BOOST_TEST(!h.is_attached());
            if (is_waker_first) {
                on_other.raise(POLLIN);
                BOOST_TEST(h.host.port.fetch());
            }
            BOOST_TEST(h.host.port.queued() == 2u);
            other->close(sim::state::deregistered, true);
            other.reset();
            check_that_it_comes_back(h, mode);
        }
}

BOOST_AUTO_TEST_SUITE_END()
