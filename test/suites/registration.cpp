// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The life of a registration: how one is made, moved, ended, and what it leaves behind.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/quiet.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/timerfd.h>

namespace {

namespace asio = boost::asio;
using test::aborted;
using test::already_registered;
using test::bad_descriptor;
using test::both_triggers;
using test::check_works;
using test::error_code;
using test::gone;
using test::is_open;
using test::would_block;

using io_executor = asio::io_context::executor_type;
using io_strand = asio::strand<io_executor>;
using pool_executor = asio::thread_pool::executor_type;

/// Any object that has native_handle().
struct holder {
    int fd;
    int native_handle() const { return fd; }
};

} // namespace

BOOST_AUTO_TEST_SUITE(registration)

// ---- constructing -------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(one_made_without_a_handle_has_none, test::context_fixture) {
    moor::registration by_executor(io.get_executor());
    moor::registration by_context(io);
    BOOST_TEST(!by_executor.is_registered());
    BOOST_TEST(!by_context.is_registered());
    BOOST_TEST(by_executor.native_handle() == -1);
    BOOST_TEST(by_context.native_handle() == -1);
    BOOST_TEST((by_executor.get_executor() == io.get_executor()));
    BOOST_TEST((by_context.get_executor() == io.get_executor()));
}

BOOST_AUTO_TEST_CASE(an_empty_executor_is_an_error_at_once) {
    const asio::any_io_executor none;
    test::fd_pair p = test::make_pipe();
    using asio::execution::bad_executor;
    BOOST_CHECK_THROW(moor::registration{none}, bad_executor);
    BOOST_CHECK_THROW(moor::registration(none, p.a.get()), bad_executor);
    BOOST_CHECK_THROW(moor::stream_descriptor{none}, bad_executor);
    BOOST_CHECK_THROW(moor::watcher{none}, bad_executor);
}

BOOST_FIXTURE_TEST_CASE(every_constructor_with_a_handle_registers_it, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    holder owner{p.a};
    const holder const_owner{p.a};
    asio::any_io_executor ex = io.get_executor();
    auto check = [&](moor::registration reg) {
        BOOST_TEST(reg.is_registered());
        BOOST_TEST(reg.native_handle() == p.a.get());
        BOOST_TEST((reg.get_executor() == ex));
        check_works(io, reg, p.a, p.b);
    };
    check(moor::registration(ex, p.a.get()));
    check(moor::registration(ex, p.a.get(), moor::trigger::edge));
    check(moor::registration(ex, p.a.get(), moor::registration_options(moor::trigger::level)));
    check(moor::registration(io, p.a.get()));
    check(moor::registration(io, p.a.get(), moor::trigger::edge));
    check(moor::registration(ex, owner));
    check(moor::registration(ex, owner, moor::trigger::edge));
    check(moor::registration(io, owner));
    check(moor::registration(io, const_owner, moor::trigger::edge));
}

BOOST_FIXTURE_TEST_CASE(the_trigger_asked_for_is_the_one_registered, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    auto mode = [&] { return moor::use_registration_service(io).snapshot().at(0).mode; };
    moor::registration reg(io, p.a.get());
    BOOST_TEST((mode() == moor::trigger::level));
    reg.reset(p.a, moor::trigger::edge);
    BOOST_TEST((mode() == moor::trigger::edge));
    reg.deregister();
    reg.register_handle(p.a, moor::trigger::edge);
    BOOST_TEST((mode() == moor::trigger::edge));
}

BOOST_FIXTURE_TEST_CASE(a_stream_descriptor_of_another_context_can_be_registered_here,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    int fd = p.a.get();
    asio::io_context other;
    asio::posix::stream_descriptor theirs(other, p.a.release());
    moor::registration reg(io, theirs);
    BOOST_TEST(reg.native_handle() == fd);
    check_works(io, reg, fd, p.b);

    // And both contexts learn of the same byte.
    test::called ours, other_side;
    reg.async_wait_readable(ours.handler());
    theirs.async_wait(asio::posix::stream_descriptor::wait_read, other_side.handler());
    test::check_pends(io, ours);
    test::check_pends(other, other_side);
    test::put(p.b, "x");
    test::check_completes(io, ours);
    test::check_completes(other, other_side);
}

BOOST_AUTO_TEST_CASE(a_thread_pool_waits_too) {
    test::fd_pair p = test::make_pipe();
    asio::thread_pool pool(2);
    auto check = [&](auto reg) {
        std::future<void> f = reg.async_wait_readable(asio::use_future);
        test::put(p.b, "x");
        BOOST_REQUIRE((f.wait_for(test::cap) == std::future_status::ready));
        f.get();
        test::get(p.a);
    };
    check(moor::registration(pool, p.a.get()));
    check(moor::basic_registration<pool_executor>(pool, p.a.get()));
    pool.join();
}

BOOST_FIXTURE_TEST_CASE(a_strand_as_the_executor_runs_the_handlers, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    io_strand s = asio::make_strand(io.get_executor());
    moor::basic_registration<io_strand> typed(s, p.a.get());
    BOOST_TEST((typed.get_executor() == s));
    int inside = 0;
    typed.async_wait_readable([&](error_code ec) { inside += !ec && s.running_in_this_thread(); });
    test::put(p.b, "x");
    test::run_until(io, [&] { return inside != 0; });

    moor::registration any(std::move(typed));
    any.async_wait_readable([&](error_code ec) { inside += !ec && s.running_in_this_thread(); });
    test::run_until(io, [&] { return inside == 2; });
}

BOOST_FIXTURE_TEST_CASE(the_executor_of_an_io_context_can_be_named, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::basic_registration<io_executor> by_context(io, p.a.get());
    check_works(io, by_context, p.a, p.b);
    by_context.deregister();
    moor::basic_registration<io_executor> by_executor(io.get_executor(), p.a.get());
    check_works(io, by_executor, p.a, p.b);
}

static_assert(std::is_same<moor::registration::rebind_executor<io_strand>::other,
                           moor::basic_registration<io_strand>>::value,
              "");
static_assert(std::is_same<moor::registration::executor_type, asio::any_io_executor>::value, "");
static_assert(std::is_same<moor::registration, moor::basic_registration<>>::value, "");
static_assert(std::is_same<moor::registration::native_handle_type, int>::value, "");

// ---- moving -------------------------------------------------------------------------------------

template <class Executor>
constexpr bool moves_without_throwing =
    std::is_nothrow_move_constructible<moor::basic_registration<Executor>>::value&&
        std::is_nothrow_move_assignable<moor::basic_registration<Executor>>::value &&
    !std::is_copy_constructible<moor::basic_registration<Executor>>::value &&
    !std::is_copy_assignable<moor::basic_registration<Executor>>::value;

static_assert(moves_without_throwing<asio::any_io_executor>, "");
static_assert(moves_without_throwing<io_executor>, "");
static_assert(moves_without_throwing<io_strand>, "");
static_assert(moves_without_throwing<pool_executor>, "");

BOOST_FIXTURE_TEST_CASE(moving_leaves_pending_waits_and_their_cancellation_working,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    test::called read, cancelled;
    asio::cancellation_signal signal;
    std::optional<moor::registration> first(std::in_place, io, p.a.get());
    first->async_wait_readable(read.handler());
    first->async_wait(moor::interest::priority,
                      asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
    test::run_ready(io);
    moor::registration second(std::move(*first));
    BOOST_TEST(!first->is_registered());
    BOOST_TEST(first->native_handle() == -1);
    BOOST_TEST(second.native_handle() == p.a.get());
    first.reset();
    test::check_pends(io, read);
    BOOST_TEST(cancelled.times == 0);

    signal.emit(asio::cancellation_type::terminal);
    test::check_fails(io, cancelled, aborted);
    BOOST_TEST(read.times == 0);

    test::put(p.b, "x");
    test::check_completes(io, read);
    test::drain(p.a);
    check_works(io, second, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(a_moved_from_registration_can_be_used_again, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    test::fd_pair q = test::make_pipe();
    moor::registration first(io, p.a.get());
    moor::registration second(std::move(first));
    BOOST_TEST((first.get_executor() == io.get_executor()));
    BOOST_TEST(first.deregister() == -1);
    first.cancel();
    first.abandon();
    first.register_handle(q.a);
    check_works(io, first, q.a, q.b);
    check_works(io, second, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(move_assignment_ends_the_waits_of_the_target_only, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    test::fd_pair q = test::make_pipe();
    moor::registration target(io, p.a.get());
    moor::registration source(io, q.a.get());
    test::called of_target, of_source;
    target.async_wait_readable(of_target.handler());
    source.async_wait_readable(of_source.handler());
    test::run_ready(io);
    target = std::move(source);
    BOOST_TEST(of_target.times == 0); // not from within the assignment
    test::check_fails(io, of_target, aborted);
    test::check_pends(io, of_source);
    BOOST_TEST(target.native_handle() == q.a.get());
    BOOST_TEST(!source.is_registered());
    BOOST_TEST(is_open(p.a));

    test::put(q.b, "x");
    test::check_completes(io, of_source);

    // The handle that was given up can be registered again.
    source.register_handle(p.a);
    check_works(io, source, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(assigning_to_itself_changes_nothing, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::called done;
    reg.async_wait_readable(done.handler());
    moor::registration& same = reg;
    reg = std::move(same);
    BOOST_TEST(reg.native_handle() == p.a.get());
    test::check_pends(io, done);
    test::put(p.b, "x");
    test::check_completes(io, done);
}

BOOST_FIXTURE_TEST_CASE(moving_to_another_executor_type_keeps_the_waits, test::context_fixture) {
    static_assert(
        std::is_convertible<moor::basic_registration<io_executor>&&, moor::registration>::value,
        "");
    static_assert(
        std::is_assignable<moor::registration&, moor::basic_registration<io_strand>&&>::value, "");
    static_assert(
        !std::is_constructible<moor::basic_registration<io_executor>, moor::registration&&>::value,
        "an executor is not narrowed");
    test::fd_pair p = test::make_pipe();
    test::fd_pair q = test::make_pipe();
    moor::basic_registration<io_executor> typed(io, p.a.get());
    test::called done;
    typed.async_wait_readable(done.handler());
    moor::registration any(std::move(typed));
    BOOST_TEST(any.native_handle() == p.a.get());
    BOOST_TEST(!typed.is_registered());
    test::check_pends(io, done);

    typed.register_handle(q.a);
    test::called second;
    typed.async_wait_readable(second.handler());
    any = std::move(typed);
    test::check_fails(io, done, aborted);
    BOOST_TEST(any.native_handle() == q.a.get());
    test::put(q.b, "x");
    test::check_completes(io, second);
}

BOOST_AUTO_TEST_CASE(assigning_across_contexts_changes_the_context) {
    test::fd_pair p = test::make_pipe();
    asio::io_context io;
    moor::registration reg(io);
    {
        asio::io_context other;
        moor::registration theirs(other, p.a.get());
        reg = std::move(theirs);
        BOOST_TEST((reg.get_executor() == other.get_executor()));
        check_works(other, reg, p.a, p.b);
        moor::registration back(io);
        reg = std::move(back);
        BOOST_TEST(!reg.is_registered());
    }
    reg.register_handle(p.a);
    check_works(io, reg, p.a, p.b);
}

// ---- ending -------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(deregister_returns_the_handle_and_ends_the_waits, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    test::fill(p.a);
    moor::registration reg(io, p.a.get());
    test::called read, write, any;
    reg.async_wait_readable(read.handler());
    reg.async_wait_writable(write.handler());
    reg.async_wait(moor::interest::priority, any.handler());
    test::run_ready(io);
    error_code ec = would_block;
    BOOST_TEST(reg.deregister(ec) == p.a.get());
    BOOST_TEST(!ec);
    BOOST_TEST(!reg.is_registered());
    BOOST_TEST(read.times == 0); // not from within the call
    test::run_all(io);
    BOOST_CHECK_EQUAL(read.ec, aborted);
    BOOST_CHECK_EQUAL(write.ec, aborted);
    BOOST_CHECK_EQUAL(any.ec, aborted);
    BOOST_TEST(read.times + write.times + any.times == 3);
    BOOST_TEST(is_open(p.a));
}

BOOST_FIXTURE_TEST_CASE(a_handle_can_be_registered_again_and_again, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io);
    for (int i = 0; i != 20; ++i) {
        reg.register_handle(p.a, i % 2 ? moor::trigger::edge : moor::trigger::level);
        check_works(io, reg, p.a, p.b);
        BOOST_TEST(reg.deregister() == p.a.get());
        // Also by somebody else.
        moor::registration other(io, p.a.get());
        check_works(io, other, p.a, p.b);
    }
}

BOOST_FIXTURE_TEST_CASE(readiness_of_an_earlier_registration_is_forgotten, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    for (moor::trigger t : both_triggers) {
        moor::registration reg(io, p.a.get(), t);
        test::put(p.b, "x");
        test::called done;
        reg.async_wait_readable(done.handler());
        test::run_until(io, [&] { return bool(done); });
        reg.deregister();
        test::drain(p.a);
        reg.register_handle(p.a, t);
        BOOST_TEST(reg.ready(moor::interest::readable).ready().empty());
        test::pending_reader again(io, reg);
        reg.deregister();
        test::run_until(io, [&] { return bool(again); });
    }
}

BOOST_FIXTURE_TEST_CASE(data_that_came_between_two_registrations_is_seen, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    for (moor::trigger t : both_triggers) {
        moor::registration reg(io, p.a.get(), t);
        check_works(io, reg, p.a, p.b);
        reg.deregister();
        test::put(p.b, "x");
        reg.register_handle(p.a, t);
        test::check_readable(io, reg);
        test::drain(p.a);
    }
}

BOOST_FIXTURE_TEST_CASE(destroying_ends_the_waits_and_leaves_the_handle_open,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    test::called done;
    {
        moor::registration reg(io, p.a.get());
        reg.async_wait_readable(done.handler());
        test::run_ready(io);
    }
    BOOST_TEST(done.times == 0);
    BOOST_TEST(is_open(p.a));
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_CHECK_EQUAL(done.ec, aborted);
    BOOST_TEST(is_open(p.a));
    test::put(p.b, "x");
    BOOST_TEST(test::get(p.a) == "x");
}

BOOST_FIXTURE_TEST_CASE(a_completion_may_destroy_its_own_registration, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    auto reg = std::make_unique<moor::registration>(io, p.a.get());
    test::called other;
    error_code seen = would_block;
    reg->async_wait_readable([&](error_code ec) {
        seen = ec;
        reg.reset();
    });
    reg->async_wait(moor::interest::priority, other.handler());
    test::run_ready(io);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(!seen);
    BOOST_TEST(!reg);
    BOOST_CHECK_EQUAL(other.ec, aborted);
}

BOOST_FIXTURE_TEST_CASE(abandon_makes_no_system_call_on_the_number, test::context_fixture) {
    for (bool waiting : {false, true}) {
        test::fd_pair p = test::make_pipe();
        moor::registration reg(io, p.a.get());
        test::called done;
        if (waiting) {
            reg.async_wait_readable(done.handler());
            test::run_ready(io);
        }
        // The owner closed it, and the number is somebody else's by now: registered there with
        // the same epoll set, so that a system call with the number would do harm.
        test::fd_pair q = test::reuse_number(p.a, test::make_pipe());
        asio::posix::stream_descriptor theirs(io, q.a.release());
        test::called their_wait;
        theirs.async_wait(asio::posix::stream_descriptor::wait_read, their_wait.handler());

        test::call_counts before = test::counts();
        reg.abandon();
        test::call_counts used = test::counts() - before;
        BOOST_TEST(used.epoll_ctl == 0);
        BOOST_TEST(used.poll == 0);
        BOOST_TEST(used.fstat == 0);
        BOOST_TEST(!reg.is_registered());
        if (waiting) {
            test::check_fails(io, done, aborted);
        }
        test::put(q.b, "x");
        test::check_completes(io, their_wait);
    }
}

BOOST_FIXTURE_TEST_CASE(reset_replaces_the_handle, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    test::fd_pair q = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::pending_reader done(io, reg);
    reg.reset(q.a);
    BOOST_TEST(moor::use_registration_service(io).metrics().registered == 2u);
    BOOST_TEST(moor::use_registration_service(io).metrics().deregistered == 1u);
    BOOST_TEST(reg.native_handle() == q.a.get());
    test::check_fails(io, done, aborted);
    test::put(p.b, "old");
    check_works(io, reg, q.a, q.b);

    // To the same number, which is another file now.
    int number = q.a.get();
    test::fd_pair r = test::reuse_number(q.a, test::make_pipe());
    error_code ec = would_block;
    reg.reset(number, ec);
    BOOST_TEST(!ec);
    check_works(io, reg, r.a, r.b);

    // On an error there is none.
    reg.reset(-1, ec);
    BOOST_CHECK_EQUAL(ec, bad_descriptor);
    BOOST_TEST(!reg.is_registered());
    BOOST_CHECK_THROW(reg.reset(-1), boost::system::system_error);
    reg.reset(p.a);
    BOOST_TEST(reg.native_handle() == p.a.get());
}

// ---- the handle is borrowed ---------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_flags_of_the_handle_are_never_touched, test::context_fixture) {
    // Nor made non-blocking, as posix::descriptor::async_wait does up to Boost 1.85.
    for (bool is_pipe : {false, true}) {
        test::fd_pair p = is_pipe ? test::make_pipe() : test::make_socketpair();
        BOOST_REQUIRE_EQUAL(::fcntl(p.a, F_SETFL, ::fcntl(p.a, F_GETFL) & ~O_NONBLOCK), 0);
        BOOST_REQUIRE_EQUAL(::fcntl(p.a, F_SETFD, 0), 0);
        int status = ::fcntl(p.a, F_GETFL);
        BOOST_REQUIRE((status & O_NONBLOCK) == 0);
        auto check = [&](const char* when) {
            BOOST_TEST_CONTEXT(when) {
                BOOST_TEST(::fcntl(p.a, F_GETFL) == status);
                BOOST_TEST(::fcntl(p.a, F_GETFD) == 0);
            }
        };
        for (moor::trigger t : both_triggers) {
            moor::registration reg(io, p.a.get(), t);
            check("registered");
            test::called read, write, any;
            reg.async_wait_readable(read.handler());
            if (!is_pipe)
                reg.async_wait_writable(write.handler());
            reg.async_wait(moor::interest::readable | moor::interest::error, any.handler());
            check("waiting");
            test::run_until(io, [&] { return is_pipe || write; });
            test::check_pends(io, read);
            check("waited");
            test::put(p.b, "x");
            test::run_until(io, [&] { return read && any; });
            check("read");
            bool called = false;
            test::put(p.b, "y"); // the waits have consumed the edge of the first
            reg.async_io(moor::interest::readable, test::reader{p.a},
                         [&](error_code, std::string) { called = true; });
            test::run_until(io, [&] { return called; });
            reg.try_io(moor::interest::writable, [](error_code&) {});
            check("async_io");
            reg.deregister();
            check("deregistered");
        }
    }
}

BOOST_FIXTURE_TEST_CASE(closing_a_duplicate_changes_nothing, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::called done;
    reg.async_wait_readable(done.handler());
    test::unique_fd copy(::dup(p.a));
    copy.close();
    test::run_ready(io);
    test::put(p.b, "x");
    test::check_completes(io, done);
}

BOOST_FIXTURE_TEST_CASE(a_handle_and_its_duplicate_can_both_be_registered, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    test::unique_fd copy(::dup(p.a));
    moor::registration one(io, p.a.get());
    moor::registration two(io, copy.get());
    test::called first, second;
    one.async_wait_readable(first.handler());
    two.async_wait_readable(second.handler());
    test::run_ready(io);
    test::put(p.b, "x");
    test::check_completes(io, first);
    test::check_completes(io, second);
}

BOOST_FIXTURE_TEST_CASE(one_handle_in_two_contexts_gets_its_events_in_both, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    asio::io_context other;
    moor::registration here(io, p.a.get());
    moor::registration there(other, p.a.get());
    for (int i = 0; i != 3; ++i) {
        test::called first, second;
        here.async_wait_readable(first.handler());
        there.async_wait_readable(second.handler());
        test::run_ready(io);
        test::run_ready(other);
        BOOST_TEST(first.times + second.times == 0);
        test::put(p.b, "x");
        test::check_completes(io, first);
        test::check_completes(other, second);
        test::drain(p.a);
    }
    // Ending one leaves the other.
    here.deregister();
    check_works(other, there, p.a, p.b);
}

// ---- the number is closed behind our back -------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_reused_number_ends_the_stale_registration, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    int number = p.a.get();
    moor::registration stale(io, number);
    test::pending_reader left(io, stale);

    test::fd_pair q = test::reuse_number(p.a, test::make_pipe()); // closes the old pipe
    moor::registration fresh(io, number);
    test::check_fails(io, left, bad_descriptor);
    test::called late;
    stale.async_wait_readable(late.handler());
    test::check_fails(io, late, bad_descriptor);

    // The stale one goes while the new owner waits: that does not disturb it.
    test::pending_reader wait(io, fresh);
    stale.deregister();
    test::check_pends(io, wait);
    test::put(q.b, "x");
    test::check_completes(io, wait);
}

BOOST_FIXTURE_TEST_CASE(a_late_deregistering_does_not_starve_the_new_owner_of_the_number,
                        test::context_fixture) {
    // The new owner is Asio itself, which Moor can't know of. Its wait may be in the reactor
    // already.
    for (bool loop_runs : {false, true}) {
        test::fd_pair p = test::make_pipe();
        moor::registration stale(io, p.a.get());
        test::pending_reader left(io, stale);

        test::fd_pair q =
            test::reuse_number(p.a, loop_runs ? test::make_socketpair() : test::make_pipe());
        asio::posix::stream_descriptor fresh(io, q.a.release());
        test::called wait;
        fresh.async_wait(asio::posix::stream_descriptor::wait_read, wait.handler());
        if (loop_runs)
            test::run_ready(io);
        stale.deregister();
        test::run_until(io, [&] { return bool(left); });
        if (!loop_runs)
            BOOST_CHECK_EQUAL(left.ec, aborted);
        test::check_pends(io, wait);
        test::put(q.b, "x");
        test::check_completes(io, wait);
    }
}

BOOST_FIXTURE_TEST_CASE(a_handle_closed_while_a_duplicate_lives_leaves_no_busy_loop,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    test::unique_fd copy(::dup(p.a));
    std::optional<moor::registration> reg(std::in_place, io, p.a.get());
    test::pending_reader done(io, *reg);
    p.a.close();
    reg.reset();
    test::check_fails(io, done, aborted);
    test::put(p.b, "x"); // the duplicate is readable, and stays so
    test::check_is_quiet(io, test::on_io_uring() ? 16 : 8, 8);
}

BOOST_FIXTURE_TEST_CASE(a_registration_after_a_closed_duplicate_is_not_told_of_its_events,
                        test::context_fixture) {
    // epoll keeps an open file that it was told of by a number that is closed now. The next
    // registration must not receive what happens to that file.
    test::fd_pair p = test::make_pipe();
    test::unique_fd copy(::dup(p.a));
    std::optional<moor::registration> reg(std::in_place, io, p.a.get());
    test::pending_reader done(io, *reg);
    p.a.close();
    reg.reset();
    test::run_until(io, [&] { return bool(done); });

    test::fd_pair q = test::make_pipe();
    moor::registration next(io, q.a.get());
    test::pending_reader wait(io, next);
    test::put(p.b, "x");
    test::check_pends(io, wait);
    test::put(q.b, "x");
    test::check_completes(io, wait);
}

// ---- many ---------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(ten_thousand_are_registered_and_closed_before_the_loop_runs,
                        test::context_fixture) {
    int completed = 0;
    int wrong = 0;
    for (int i = 0; i != 10000; ++i) {
        test::unique_fd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        moor::registration reg(io, fd.get());
        reg.async_wait_readable([&](error_code ec) {
            ++completed;
            wrong += ec != aborted;
        });
    }
    test::run_all(io);
    BOOST_TEST(completed == 10000);
    BOOST_TEST(wrong == 0);
}

BOOST_FIXTURE_TEST_CASE(hundreds_at_once_are_closed_before_the_loop_runs, test::context_fixture) {
    constexpr std::size_t count = 400; // below the usual limit of 1,024 open files
    std::vector<test::unique_fd> fds;
    std::vector<moor::registration> regs;
    std::size_t completed = 0;
    for (std::size_t i = 0; i != count; ++i) {
        fds.emplace_back(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        regs.emplace_back(io, fds.back().get());
        regs.back().async_wait_readable([&](error_code ec) { completed += ec == aborted; });
    }
    BOOST_TEST(moor::use_registration_service(io).snapshot().size() == count);
    // Some properly, some in the wrong order.
    for (std::size_t i = 0; i != count; ++i) {
        if (i % 2)
            fds[i].close();
        regs[i].deregister();
        fds[i].close();
    }
    test::run_all(io);
    BOOST_TEST(completed == count);
    BOOST_TEST(moor::use_registration_service(io).snapshot().empty());
}

BOOST_FIXTURE_TEST_CASE(a_failing_registration_leaks_nothing, test::context_fixture) {
    moor::registration reg(io);
    test::fd_pair p = test::make_pipe();
    reg.register_handle(p.a);
    reg.deregister();
    int number = test::closed_number();
    test::call_counts before = test::counts();
    int failed = 0;
    for (int i = 0; i != 3000; ++i) {
        error_code ec;
        reg.register_handle(number, ec);
        failed += ec == bad_descriptor;
    }
    test::call_counts used = test::counts() - before;
    BOOST_TEST(failed == 3000);
    BOOST_TEST(used.allocations == 0);
    BOOST_TEST(used.epoll_ctl == 0);
    moor::registration_metrics m = moor::use_registration_service(io).metrics();
    BOOST_TEST(m.registered == 1u);
    BOOST_TEST(m.deregistered == 1u);
    BOOST_TEST(moor::use_registration_service(io).snapshot().empty());
    BOOST_TEST(!reg.is_registered());
}

/// Three times a thousand.
template <class Round>
void check_that_rounds_leak_nothing(Round round, long most = 0) {
    for (int thousand = 0; thousand != 3; ++thousand) {
        round();
        test::call_counts before = test::counts();
        for (int i = 0; i != 1000; ++i)
            round();
        test::call_counts used = test::counts() - before;
        BOOST_TEST(used.allocations <= most);
    }
}

BOOST_FIXTURE_TEST_CASE(handles_closed_before_they_are_deregistered_leak_nothing,
                        test::context_fixture) {
    // The memory of a round is that of the first. Also when the reactor knows the handle, if its
    // number is another file by now, and if its owner says so.
    enum class end { never_waited_for, deregistered, reused, abandoned };
    for (end how : {end::never_waited_for, end::deregistered, end::reused, end::abandoned}) {
        moor::registration reg(io);
        const bool waits = how != end::never_waited_for;
        auto round = [&] {
            test::fd_pair p = test::make_pipe();
            reg.register_handle(p.a);
            test::called done;
            if (waits) {
                reg.async_wait_readable(done.handler());
                test::check_pends(io, done);
            }
            if (how == end::reused)
                p = test::reuse_number(p.a, test::make_pipe());
            else
                p.a.close();
            error_code ec;
            if (how == end::abandoned)
                reg.abandon();
            else
                reg.deregister(ec);
            BOOST_TEST(!ec);
            if (waits)
                test::check_fails(io, done, aborted);
        };
        // Asio's io_uring service makes an allocation now and then.
        check_that_rounds_leak_nothing(round, waits ? 10 : 0);
    }
}

BOOST_FIXTURE_TEST_CASE(waits_that_the_reactor_refuses_leak_nothing_in_thousands_of_rounds,
                        test::context_fixture) {
    if (!test::on_epoll())
        return; // there nothing is refused
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io);
    auto round = [&] {
        reg.register_handle(p.a);
        test::called done;
        reg.async_wait_readable(done.handler());
        test::run_until(io, [&] { return bool(done); });
        BOOST_TEST((done.ec == boost::system::errc::no_space_on_device));
        BOOST_TEST(reg.deregister() == p.a);
    };
    {
        test::fault failing(test::call::epoll_add, ENOSPC);
        check_that_rounds_leak_nothing(round);
    }
    test::put(p.b, "x"); // the handle is as good as before
    reg.register_handle(p.a);
    test::check_readable(io, reg);
}

BOOST_FIXTURE_TEST_CASE(registering_in_the_steady_state_allocates_nothing, test::context_fixture) {
    constexpr int several = 10;
    std::vector<test::unique_fd> fds;
    for (int i = 0; i != several; ++i)
        fds.emplace_back(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    std::vector<moor::registration> regs;
    for (int i = 0; i != several; ++i)
        regs.emplace_back(io);
    auto round = [&] {
        for (std::size_t i = 0; i != several; ++i)
            regs[i].register_handle(fds[i]);
        for (std::size_t i = 0; i != several; ++i)
            regs[i].deregister();
    };
    round();
    test::call_counts before = test::counts();
    for (int i = 0; i != 100; ++i)
        round();
    test::call_counts used = test::counts() - before;
    BOOST_TEST(used.allocations == 0);
    BOOST_TEST(used.epoll_ctl == 0); // the reactor is told at the first wait
}

BOOST_FIXTURE_TEST_CASE(registering_and_waiting_in_the_steady_state_allocates_nothing,
                        test::context_fixture) {
    // From within a handler, where Asio recycles the memory of operations.
    if (!test::on_epoll())
        return; // select's operation queues allocate a node for each descriptor, io_uring's don't
                // promise anything
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io);
    int rounds = 0;
    test::call_counts before;
    test::call_counts used;
    std::function<void()> step = [&] {
        reg.deregister();
        if (rounds == 10)
            before = test::counts();
        if (rounds == 110) {
            used = test::counts() - before;
            return;
        }
        test::drain(p.a);
        reg.register_handle(p.a);
        reg.async_wait_readable([&](error_code ec) {
            if (!ec)
                step();
        });
        if (::write(p.b, "x", 1) == 1)
            ++rounds;
    };
    asio::post(io, [&] { step(); });
    test::run_all(io);
    BOOST_TEST(rounds == 110);
    BOOST_TEST(used.allocations == 0);
}

// ---- after the context --------------------------------------------------------------------------

namespace {

/// Every member of a registration whose context is gone.
void check_gone(moor::registration& reg, int fd) {
    error_code ec;
    // Waits: through the handler's own executor.
    asio::io_context own;
    test::called read, write;
    test::called any, io_done;
    reg.async_wait_readable(asio::bind_executor(own, read.handler()));
    reg.async_wait_writable(asio::bind_executor(own, write.handler()));
    reg.async_wait(moor::interest::readable, asio::bind_executor(own, any.handler()));
    bool ran = false;
    reg.async_io(
        moor::interest::readable, [&](error_code&) { ran = true; },
        asio::bind_executor(own, io_done.handler()));
    test::run_all(own);
    for (test::called* c : {&read, &write, &any, &io_done}) {
        BOOST_TEST(c->times == 1);
        BOOST_CHECK_EQUAL(c->ec, gone);
    }
    BOOST_TEST(!ran);
    // Or at once, if they have none.
    test::called at_once;
    reg.async_wait_readable(at_once.handler());
    BOOST_TEST(at_once.times == 1);
    BOOST_CHECK_EQUAL(at_once.ec, gone);
    std::future<void> f = reg.async_wait_writable(asio::use_future);
    BOOST_CHECK_EXCEPTION(f.get(), boost::system::system_error,
                          [](auto& e) { return e.code() == gone; });

    auto count = [&](error_code&) {
        ran = true;
        return 1;
    };
    BOOST_CHECK_EQUAL(reg.try_io(moor::interest::readable, count).error(), gone);
    BOOST_CHECK_EQUAL(reg.poll_read_ready([] {}).error(), gone);
    BOOST_CHECK_EQUAL(reg.poll_write_ready([] {}).error(), gone);
    BOOST_CHECK_EQUAL(reg.poll_read_io([] {}, count).error(), gone);
    BOOST_CHECK_EQUAL(reg.poll_write_io([] {}, count).error(), gone);
    BOOST_TEST(!ran);
    reg.ready(moor::interest::readable | moor::interest::writable);
    reg.clear(moor::ready_event());
    reg.query(ec);
    BOOST_CHECK_EQUAL(ec, gone);
    BOOST_CHECK_THROW(reg.query(), boost::system::system_error);
    reg.cancel();
    reg.cancel(moor::direction::read);
    reg.cancel(moor::direction::write);

    moor::registration moved(std::move(reg));
    reg = std::move(moved);
    if (reg.is_registered()) {
        BOOST_TEST(reg.deregister(ec) == fd);
        BOOST_TEST(!ec);
    }
    reg.abandon();
    reg.register_handle(fd, ec);
    BOOST_CHECK_EQUAL(ec, gone);
    BOOST_CHECK_THROW(reg.register_handle(fd), boost::system::system_error);
    reg.reset(fd, ec);
    BOOST_CHECK_EQUAL(ec, gone);
    BOOST_TEST(!reg.is_registered());
    BOOST_TEST(is_open(fd));
}

} // namespace

BOOST_AUTO_TEST_CASE(one_that_outlives_its_context_answers_gone_and_destroys_safely) {
    test::fd_pair p = test::make_pipe();
    test::fd_pair q = test::make_pipe();
    std::optional<moor::registration> waited;
    std::optional<moor::registration> fresh;
    std::optional<moor::registration> empty;
    std::optional<moor::registration> only_destroyed;
    test::called never;
    {
        asio::io_context io;
        waited.emplace(io, p.a.get());
        fresh.emplace(io, p.b.get());
        empty.emplace(io);
        only_destroyed.emplace(io, q.a.get());
        waited->async_wait_readable(never.handler());
        only_destroyed->async_wait_readable(never.handler());
        test::run_ready(io);
    }
    BOOST_TEST(never.times == 0); // destroyed, not invoked
    check_gone(*waited, p.a);
    check_gone(*fresh, p.b);
    check_gone(*empty, p.a);
    only_destroyed.reset();
    BOOST_TEST(is_open(q.a));
}

BOOST_AUTO_TEST_CASE(one_that_outlives_a_thread_pool_answers_gone) {
    test::fd_pair p = test::make_pipe();
    std::optional<moor::registration> reg;
    {
        asio::thread_pool pool(1);
        reg.emplace(pool, p.a.get());
        std::future<void> f = reg->async_wait_readable(asio::use_future);
        test::put(p.b, "x");
        f.get();
        pool.join();
    }
    check_gone(*reg, p.a);
}

BOOST_AUTO_TEST_SUITE_END()
