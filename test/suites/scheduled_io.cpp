// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The scheduled state's transitions, driven without an event of the kernel.

#include "support/context.hpp"
#include "support/handles.hpp"

#include <moor/detail/scheduled_io.hpp>
#include <moor/detail/service_core.hpp>
#include <moor/registration_service.hpp>

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

BOOST_AUTO_TEST_SUITE(scheduled_io)

namespace asio = boost::asio;
namespace detail = moor::detail;
using detail::readiness_word;
using detail::ready_event_access;
using moor::interest;
using moor::readiness;
using moor::trigger;
using test::error_code;

moor::ready_event stamped(const readiness_word& w, readiness r) {
    return ready_event_access::make(r, w.tick());
}

// ---- the word
// -----------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_new_word_knows_nothing) {
    readiness_word w;
    BOOST_TEST(w.flags().empty());
    BOOST_TEST(w.tick().read == 0u);
    BOOST_TEST(w.tick().write == 0u);
    BOOST_TEST(w.tick().priority == 0u);
    BOOST_TEST(w.matched(interest::readable | interest::error).empty());
}

BOOST_AUTO_TEST_CASE(an_event_advances_the_tick_of_its_own_stream_only) {
    readiness_word w;
    w.set(readiness::readable);
    BOOST_TEST(w.tick().read == 1u);
    BOOST_TEST(w.tick().write == 0u);
    w.set(readiness::writable);
    BOOST_TEST(w.tick().read == 1u);
    BOOST_TEST(w.tick().write == 1u);
    w.set(readiness::priority);
    BOOST_TEST(w.tick().priority == 1u);
    BOOST_TEST(w.tick().read == 1u);
    w.set(readiness::readable | readiness::read_closed);
    BOOST_TEST(w.tick().read == 2u);
    w.set(readiness::write_closed);
    BOOST_TEST(w.tick().write == 2u);
    w.set(readiness::error);
    BOOST_TEST(w.tick().read == 3u); // errors belong to the read stream
    BOOST_TEST(w.tick().write == 2u);
}

BOOST_AUTO_TEST_CASE(an_observation_replaces_what_was_asked_for) {
    readiness_word w;
    w.set(readiness::readable | readiness::writable);
    w.observe(interest::readable, readiness());
    BOOST_TEST(w.flags() == readiness::writable);
    BOOST_TEST(w.tick().read == 1u); // nothing came
    w.observe(interest::readable, readiness::readable);
    BOOST_TEST(w.flags() == (readiness::readable | readiness::writable));
    BOOST_TEST(w.tick().read == 2u);
    // What was seen without being asked for is kept, too.
    w.observe(interest::readable, readiness::readable | readiness::read_closed);
    BOOST_TEST(w.flags().contains(readiness::read_closed));
}

BOOST_AUTO_TEST_CASE(clear_drops_what_was_observed) {
    readiness_word w;
    w.set(readiness::readable | readiness::writable | readiness::priority);
    w.clear(stamped(w, readiness::readable));
    BOOST_TEST(w.flags() == (readiness::writable | readiness::priority));
    w.clear(stamped(w, readiness::writable | readiness::priority));
    BOOST_TEST(w.flags().empty());
    w.clear(stamped(w, readiness::writable)); // again: nothing
    BOOST_TEST(w.flags().empty());
}

BOOST_AUTO_TEST_CASE(clear_drops_nothing_newer_in_the_same_stream) {
    readiness_word w;
    w.set(readiness::readable);
    moor::ready_event e = stamped(w, readiness::readable);
    w.set(readiness::readable);
    w.clear(e);
    BOOST_TEST(w.flags() == readiness::readable);
    w.clear(stamped(w, readiness::readable));
    BOOST_TEST(w.flags().empty());
}

BOOST_AUTO_TEST_CASE(clear_is_not_stopped_by_another_stream) {
    readiness_word w;
    w.set(readiness::readable | readiness::writable);
    moor::ready_event e = stamped(w, readiness::readable | readiness::writable);
    w.set(readiness::writable);
    w.clear(e);
    BOOST_TEST(w.flags() == readiness::writable); // the newer one stays
    e = stamped(w, readiness::writable);
    w.set(readiness::readable);
    w.set(readiness::priority);
    w.clear(e);
    BOOST_TEST(w.flags() == (readiness::readable | readiness::priority));
}

BOOST_AUTO_TEST_CASE(a_stale_event_never_meets_its_tick_again) {
    readiness_word w;
    w.set(readiness::readable);
    moor::ready_event stale = stamped(w, readiness::readable);
    for (unsigned long newer = 1; newer <= 65536; ++newer) {
        w.set(readiness::readable);
        w.clear(stale);
        if (newer == 1 || newer == 255 || newer == 256 || newer == 65535 || newer == 65536)
            BOOST_TEST(w.flags() == readiness::readable);
        BOOST_REQUIRE(w.flags().is_readable());
    }
    static_assert(std::numeric_limits<decltype(detail::ticks::read)>::digits >= 32, "");
}

BOOST_AUTO_TEST_CASE(that_a_side_is_closed_is_never_cleared) {
    readiness_word w;
    readiness all = readiness::readable | readiness::writable | readiness::priority |
                    readiness::error | readiness::read_closed | readiness::write_closed;
    w.set(all);
    w.clear(stamped(w, all));
    BOOST_TEST(w.flags() == (readiness::read_closed | readiness::write_closed));
    w.consume(all);
    BOOST_TEST(w.flags() == (readiness::read_closed | readiness::write_closed));
}

BOOST_AUTO_TEST_CASE(a_closed_side_or_an_error_satisfies_readers_and_writers) {
    readiness_word w;
    w.set(readiness::error);
    BOOST_TEST(w.matched(interest::readable) == readiness::readable);
    BOOST_TEST(w.matched(interest::writable) == readiness::writable);
    BOOST_TEST(w.matched(interest::readable | interest::error) == readiness::error);
    BOOST_TEST(w.matched(interest::error) == readiness::error);
    BOOST_TEST(w.matched(interest::priority).empty());
    BOOST_TEST(w.matched(interest::read_closed).empty()); // never made up
    readiness_word r;
    r.set(readiness::read_closed);
    BOOST_TEST(r.matched(interest::readable) == readiness::readable);
    BOOST_TEST(r.matched(interest::writable).empty());
    BOOST_TEST(r.matched(interest::write_closed).empty());
    readiness_word c;
    c.set(readiness::write_closed);
    BOOST_TEST(c.matched(interest::readable).empty());
    BOOST_TEST(c.matched(interest::writable) == readiness::writable);
}

BOOST_AUTO_TEST_CASE(only_what_was_asked_for_is_reported) {
    readiness_word w;
    w.set(readiness::readable | readiness::writable | readiness::priority);
    BOOST_TEST(w.matched(interest::readable) == readiness::readable);
    BOOST_TEST(w.matched(interest::readable | interest::error) == readiness::readable);
    BOOST_TEST(w.matched(interest::error).empty());
    BOOST_TEST(w.matched(interest::readable | interest::writable) ==
               (readiness::readable | readiness::writable));
    BOOST_TEST(w.matched(interest()).empty());
}

// ---- the state
// ------------------------------------------------------------------------------------------

/// A wait that records how it was completed, and is the test's to destroy.
class plain_wait : public detail::waiter {
public:
    explicit plain_wait(interest want, detail::purpose why = detail::purpose::wait)
        : waiter(&plain_wait::do_complete, want, why) {}

    int completed = 0;
    int destroyed = 0;

private:
    static void do_complete(void* owner, detail::scheduler_item* item, const error_code&,
                            std::size_t) {
        plain_wait* w = static_cast<plain_wait*>(item);
        ++(owner ? w->completed : w->destroyed);
    }
};

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    detail::service_core_ptr core{new detail::service_core(io)};
    detail::scheduled_io_ptr state = open();

    detail::scheduled_io_ptr open(trigger mode = trigger::level) {
        error_code ec;
        detail::scheduled_io_ptr s = core->open(p.a.get(), mode, ec);
        BOOST_REQUIRE(!ec);
        return s;
    }
    std::uint64_t verifications() const {
        detail::wait_totals t;
        state->add_counts(t);
        return t.verifications;
    }
    ~fixture() {
        core->end(*state, true);
        test::run_ready(io);
    }
};

BOOST_FIXTURE_TEST_CASE(a_wait_that_parks_arms_the_waker_of_its_interest, fixture) {
    plain_wait r(interest::readable);
    BOOST_TEST(!state->info().attached); // the reactor is told at the first wait that parks
    BOOST_TEST(state->start(r));
    auto i = state->info();
    BOOST_TEST(i.attached);
    BOOST_TEST(i.waiters == 1u);
    BOOST_TEST(i.waited_for == interest::readable);
    BOOST_TEST(i.armed[detail::read_channel]);
    BOOST_TEST(!i.armed[detail::write_channel]);
    test::fill(p.a);
    plain_wait w(interest::writable), both(interest::readable | interest::writable);
    BOOST_TEST(state->start(w));
    BOOST_TEST(state->start(both));
    i = state->info();
    BOOST_TEST(i.armed[detail::write_channel]);
    BOOST_TEST(i.waiters == 3u);
    state->cancel(interest());
    test::run_all(io);
    BOOST_TEST(r.completed == 1);
    BOOST_TEST(w.completed == 1);
    BOOST_TEST(both.completed == 1);
    BOOST_TEST(both.ec() == asio::error::operation_aborted);
}

BOOST_FIXTURE_TEST_CASE(a_wait_that_is_answered_at_once_is_the_callers, fixture) {
    plain_wait w(interest::writable);
    BOOST_TEST(!state->start(w));
    BOOST_TEST(!w.ec());
    BOOST_TEST(w.event().ready() == readiness::writable);
    BOOST_TEST(state->info().waiters == 0u);
    BOOST_TEST(!state->info().attached);
    BOOST_TEST(w.completed == 0);
}

BOOST_FIXTURE_TEST_CASE(cancel_meets_the_waits_of_its_interest, fixture) {
    test::fill(p.a);
    plain_wait r(interest::readable), w(interest::writable), c(interest::read_closed),
        q(interest::priority);
    for (plain_wait* x : {&r, &w, &c, &q})
        BOOST_TEST(state->start(*x));
    state->cancel(readiness_word::write_stream);
    test::run_ready(io);
    BOOST_TEST(w.completed == 1);
    BOOST_TEST(r.completed + c.completed + q.completed == 0);
    state->cancel(readiness_word::read_stream | interest::priority);
    test::run_all(io);
    BOOST_TEST(r.completed + c.completed + q.completed == 3);
}

BOOST_FIXTURE_TEST_CASE(cancel_by_id_meets_one_wait, fixture) {
    plain_wait a(interest::readable), b(interest::readable);
    std::uint64_t first = state->next_id(), second = state->next_id();
    BOOST_TEST(first != second);
    a.set_id(first);
    b.set_id(second);
    BOOST_TEST(state->start(a));
    BOOST_TEST(state->start(b));
    state->cancel(second);
    test::run_ready(io);
    BOOST_TEST(a.completed == 0);
    BOOST_TEST(b.completed == 1);
    BOOST_TEST(b.ec() == asio::error::operation_aborted);
    state->cancel(second); // over
    state->cancel(first);
    test::run_all(io);
    BOOST_TEST(a.completed == 1);
}

BOOST_FIXTURE_TEST_CASE(the_first_reason_to_close_stays, fixture) {
    plain_wait w(interest::readable);
    BOOST_TEST(state->start(w));
    state->close(detail::scheduled_io::service_closed, true);
    state->close(detail::scheduled_io::deregistered, true);
    BOOST_TEST((state->closed() == detail::scheduled_io::service_closed));
    BOOST_TEST((state->closed_error() == moor::error::gone));
    test::run_all(io);
    BOOST_TEST((w.ec() == moor::error::gone));
    BOOST_TEST(!state->info().attached);
    plain_wait later(interest::readable);
    BOOST_TEST(!state->start(later));
    BOOST_TEST((later.ec() == moor::error::gone));
    error_code ec;
    BOOST_TEST(state->glance(interest::readable, true, ec).ready().empty());
    BOOST_TEST((ec == moor::error::gone));
}

BOOST_FIXTURE_TEST_CASE(clear_and_would_block_change_nothing_once_closed, fixture) {
    plain_wait w(interest::writable);
    BOOST_TEST(!state->start(w));
    state->close(detail::scheduled_io::service_closed, true);
    readiness before = state->info().cached;
    state->clear(w.event());
    state->would_block(w.event());
    BOOST_TEST(state->info().cached == before);
    BOOST_TEST((state->closed_error() == moor::error::gone));
}

BOOST_FIXTURE_TEST_CASE(a_slot_keeps_the_newest_and_completes_the_displaced, fixture) {
    plain_wait a(interest::readable, detail::purpose::read_slot),
        b(interest::readable, detail::purpose::read_slot), list(interest::readable);
    BOOST_TEST(state->start(a));
    BOOST_TEST(state->start(list));
    BOOST_TEST(state->start(b));
    test::run_ready(io);
    BOOST_TEST(a.completed == 1);
    BOOST_TEST(b.completed == 0);
    BOOST_TEST(list.completed == 0);
    BOOST_TEST(state->info().waiters == 2u);
    state->cancel(interest());
    test::run_all(io);
    BOOST_TEST(b.completed == 1);
    BOOST_TEST(list.completed == 1);
}

BOOST_FIXTURE_TEST_CASE(abandon_hands_the_waits_over_to_be_destroyed, fixture) {
    plain_wait a(interest::readable), b(interest::priority);
    BOOST_TEST(state->start(a));
    BOOST_TEST(state->start(b));
    // As the service's shutdown does, so that the reactor and its wakers go with the context.
    core->shutdown();
    BOOST_TEST(a.destroyed == 1);
    BOOST_TEST(b.destroyed == 1);
    BOOST_TEST(a.completed + b.completed == 0);
    BOOST_TEST((state->closed_error() == moor::error::gone));
    for (int i = 0; i != 2; ++i) // the context that lives on here is not told
        moor::use_registration_service(io);
    io.stop();
    // The units of work that the two waits held are the context's, which was to be destroyed.
    io.get_executor().on_work_finished();
    io.get_executor().on_work_finished();
}

BOOST_FIXTURE_TEST_CASE(a_recycled_state_starts_anew_but_its_ticks_go_on, fixture) {
    plain_wait w(interest::writable);
    BOOST_TEST(!state->start(w));
    detail::scheduled_io* was = state.get();
    auto tick = state->info().tick.write;
    BOOST_TEST(tick >= 1u);
    core->end(*state, true);
    state.reset();
    test::run_ready(io);
    state = open(trigger::edge);
    BOOST_TEST(state.get() == was);
    BOOST_TEST(state->info().cached.empty());
    BOOST_TEST(state->info().tick.write >= tick);
    BOOST_TEST((state->closed() == detail::scheduled_io::still_open));
    BOOST_TEST((state->mode() == trigger::edge));
    state->clear(w.event()); // of the registration before
    plain_wait again(interest::writable);
    BOOST_TEST(!state->start(again));
    state->clear(w.event());
    BOOST_TEST(state->info().cached.is_writable());
}

BOOST_FIXTURE_TEST_CASE(peek_does_not_ask_and_glance_does_where_nothing_is_armed, fixture) {
    error_code ec;
    BOOST_TEST(state->peek(interest::writable).ready().empty());
    BOOST_TEST(verifications() == 0u);
    BOOST_TEST(state->glance(interest::writable, false, ec).ready() == readiness::writable);
    BOOST_TEST(verifications() == 1u);
    BOOST_TEST(state->peek(interest::writable).ready() == readiness::writable);
    BOOST_TEST(state->glance(interest::writable, false, ec).ready() == readiness::writable);
    BOOST_TEST(verifications() == 1u);
    BOOST_TEST(state->glance(interest::writable, true, ec).ready() == readiness::writable);
    BOOST_TEST(verifications() == 2u); // level: a positive answer is checked
}

BOOST_FIXTURE_TEST_CASE(the_counts_say_how_waits_went, fixture) {
    plain_wait now(interest::writable), parked(interest::readable);
    BOOST_TEST(!state->start(now));
    BOOST_TEST(state->start(parked));
    state->cancel(interest());
    detail::wait_totals c;
    state->add_counts(c);
    BOOST_TEST(c.started == 2u);
    BOOST_TEST(c.immediate == 1u);
    BOOST_TEST(c.cancelled == 1u);
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(an_io_wait_is_told_that_it_was_cancelled_while_it_ran, fixture) {
    plain_wait w(interest::writable, detail::purpose::io);
    w.set_id(state->next_id());
    BOOST_TEST(!state->start(w)); // ready: the callable's turn
    BOOST_TEST(state->may_run(w));
    state->cancel(interest());
    BOOST_TEST(!state->restart(w));
    BOOST_TEST(w.ec() == asio::error::operation_aborted);
    state->finish(w);
    plain_wait other(interest::writable, detail::purpose::io);
    BOOST_TEST(!state->start(other)); // begun after the cancel
    BOOST_TEST(state->may_run(other));
    state->finish(other);
}

BOOST_FIXTURE_TEST_CASE(an_io_wait_that_blocked_parks_and_its_readiness_is_gone, fixture) {
    test::fill(p.a);
    plain_wait w(interest::writable, detail::purpose::io);
    BOOST_TEST(!state->start(w)); // unknown: the callable finds out
    BOOST_TEST(state->may_run(w));
    BOOST_TEST(state->restart(w));
    BOOST_TEST(state->info().waiters == 1u);
    BOOST_TEST(state->peek(interest::writable).ready().empty());
    state->cancel(interest());
    test::run_all(io);
    BOOST_TEST(w.completed == 1);
    state->finish(w);
}

BOOST_AUTO_TEST_SUITE_END()
