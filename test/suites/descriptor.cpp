// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A descriptor: what it does to its handle, its modes and its waits. What the original does as well
// is tested on both.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/streams.hpp"
#include "support/tracker.hpp"
#include "support/transferred.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/descriptor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <array>
#include <future>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using namespace test;

using theirs = asio::posix::stream_descriptor;
using ours = moor::stream_descriptor;
using both = std::tuple<theirs, ours>;
using wait_type = asio::posix::descriptor_base::wait_type;

using io_executor = asio::io_context::executor_type;

constexpr wait_type no_wait_type = static_cast<wait_type>(3);

/// A pair in blocking mode.
test::fd_pair make_blocking_socketpair() {
    test::fd_pair p = test::make_socketpair();
    test::set_blocking(p.a);
    test::set_blocking(p.b);
    return p;
}

} // namespace

BOOST_AUTO_TEST_SUITE(descriptor)

// ---- types ----------------------------------------------------------------------------------

template <class D>
constexpr bool has_the_interface() {
    using other = typename D::template rebind_executor<io_executor>::other;
    using native = typename D::native_handle_type;
    static_assert(std::is_same<typename D::executor_type, asio::any_io_executor>::value, "");
    static_assert(std::is_same<native, int>::value, "");
    static_assert(std::is_same<typename other::executor_type, io_executor>::value, "");
    static_assert(std::is_convertible<D&, typename D::lowest_layer_type&>::value, "");
    static_assert(std::is_base_of<asio::posix::descriptor_base, D>::value, "");
    static_assert(std::is_constructible<D, asio::io_context&>::value, "");
    static_assert(std::is_constructible<D, asio::io_context&, native>::value, "");
    static_assert(std::is_constructible<D, asio::thread_pool&, native>::value, "");
    static_assert(std::is_constructible<D, asio::any_io_executor>::value, "");
    static_assert(std::is_constructible<D, io_executor, native>::value, "");
    static_assert(!std::is_convertible<asio::io_context&, D>::value, "");
    static_assert(!std::is_convertible<asio::any_io_executor, D>::value, "");
    static_assert(!std::is_constructible<D, native>::value, "");
    static_assert(!std::is_copy_constructible<D>::value, "");
    static_assert(!std::is_copy_assignable<D>::value, "");
    static_assert(std::is_nothrow_move_constructible<D>::value, "");
    static_assert(std::is_move_assignable<D>::value, "");
    static_assert(std::is_constructible<D, other&&>::value, "");
    static_assert(std::is_assignable<D&, other&&>::value, "");
    static_assert(!std::is_constructible<other, D&&>::value, "");
    return true;
}
static_assert(has_the_interface<theirs>(), "");
static_assert(has_the_interface<ours>(), "");
static_assert(has_the_interface<moor::descriptor>(), "");

static_assert(std::is_nothrow_move_assignable<ours>::value, "");
static_assert(std::is_nothrow_move_assignable<moor::descriptor>::value, "");
static_assert(std::is_nothrow_destructible<moor::descriptor>::value, "");
static_assert(std::is_same<moor::descriptor, moor::basic_descriptor<>>::value, "");
static_assert(std::is_same<ours, moor::basic_stream_descriptor<>>::value, "");
static_assert(std::is_same<ours::bytes_readable, theirs::bytes_readable>::value, "");
// The layer below a stream descriptor is a descriptor, as in the original.
static_assert(std::is_same<ours::lowest_layer_type, moor::descriptor>::value, "");
// A plain descriptor is no stream.
static_assert(!std::is_constructible<ours, moor::descriptor&&>::value, "");
static_assert(!std::is_constructible<ours, moor::basic_descriptor<io_executor>&&>::value, "");

// ---- the handle -----------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(one_made_without_a_handle_is_not_open, D, both) {
    test::context_fixture f;
    D by_context(f.io);
    D by_executor(f.io.get_executor());
    for (D* d : {&by_context, &by_executor}) {
        BOOST_TEST(!d->is_open());
        BOOST_TEST(d->native_handle() == -1);
        BOOST_TEST((d->get_executor() == f.io.get_executor()));
        BOOST_TEST(static_cast<typename D::lowest_layer_type*>(d) == &d->lowest_layer());
        const D& c = *d;
        BOOST_TEST(&c.lowest_layer() == &d->lowest_layer());
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(one_made_with_a_handle_closes_it, D, both) {
    test::context_fixture f;
    test::fd_pair p = test::make_pipe();
    int a = p.a.release();
    int b = p.b.release();
    {
        D by_context(f.io, a);
        D by_executor(f.io.get_executor(), b);
        BOOST_TEST(by_context.is_open());
        BOOST_TEST(by_context.native_handle() == a);
        BOOST_TEST(by_executor.native_handle() == b);
        BOOST_TEST(is_open(a));
    }
    BOOST_TEST(!is_open(a));
    BOOST_TEST(!is_open(b));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(assign_takes_a_handle_and_close_closes_it, D, both) {
    test::context_fixture f;
    test::fd_pair p = test::make_pipe();
    int a = p.a.release();
    int b = p.b.release();
    D d(f.io);
    d.assign(a);
    BOOST_TEST(d.native_handle() == a);
    BOOST_TEST((thrown_by([&] { d.assign(b); }) == asio::error::already_open));
    error_code ec;
    d.assign(b, ec);
    BOOST_TEST((ec == asio::error::already_open));
    BOOST_TEST(d.native_handle() == a);
    d.close();
    BOOST_TEST(!d.is_open());
    BOOST_TEST(!is_open(a));
    BOOST_TEST(is_open(b));
    d.close(); // again: nothing
    d.assign(b, ec);
    BOOST_TEST(!ec);
    ec = bad_descriptor;
    d.close(ec);
    BOOST_TEST(!ec);
    BOOST_TEST(!is_open(b));
    ec = bad_descriptor;
    d.close(ec);
    BOOST_TEST(!ec);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(release_gives_the_handle_back, D, both) {
    test::context_fixture f;
    test::fd_pair p = test::make_pipe();
    int a = p.a.release();
    {
        D d(f.io, a);
        BOOST_TEST(d.release() == a);
        BOOST_TEST(!d.is_open());
        BOOST_TEST(d.release() == -1);
    }
    BOOST_TEST(is_open(a));
    p.a = test::unique_fd(a);
    D again(f.io, a);
    p.a.release();
    BOOST_TEST(again.is_open());
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_move_takes_the_handle_along, D, both) {
    test::context_fixture f;
    test::fd_pair p = test::make_pipe();
    int a = p.a.release();
    int b = p.b.release();
    D d(f.io, a);
    D moved(std::move(d));
    BOOST_TEST(!d.is_open());
    BOOST_TEST(moved.native_handle() == a);
    D other(f.io, b);
    other = std::move(moved); // closes its own
    BOOST_TEST(!moved.is_open());
    BOOST_TEST(other.native_handle() == a);
    BOOST_TEST(is_open(a));
    BOOST_TEST(!is_open(b));
    d = D(f.io);
    d.assign(other.release());
    BOOST_TEST(d.native_handle() == a);
    if (std::is_same<D, ours>::value) {
        D& same = d;
        d = std::move(same);
        BOOST_TEST(d.native_handle() == a);
        BOOST_TEST(is_open(a));
    }
}

using all_three = std::tuple<theirs, ours, moor::descriptor>;

BOOST_AUTO_TEST_CASE_TEMPLATE(one_on_another_executor_can_be_moved_from, D, all_three) {
    using typed = typename D::template rebind_executor<io_executor>::other;
    test::context_fixture f;
    test::fd_pair p = test::make_pipe();
    int a = p.a.release();
    int b = p.b.release();
    typed t(f.io, a);
    test::called pending;
    t.async_wait(D::wait_read, pending.handler());
    test::run_ready(f.io);
    D d(std::move(t));
    BOOST_TEST(!t.is_open());
    BOOST_TEST(d.native_handle() == a);
    BOOST_TEST((d.get_executor() == f.io.get_executor()));
    test::put(b, "x");
    test::run_until(f.io, [&] { return bool(pending); });
    BOOST_TEST(!pending.ec);
    d = typed(f.io.get_executor(), b);
    BOOST_TEST(d.native_handle() == b);
    BOOST_TEST(!is_open(a));
    BOOST_TEST(!waited(f.io, d, D::wait_write));
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_cannot_be_taken_stays_with_the_caller,
                        test::context_fixture) {
    error_code ec;
    ours d(io);
    d.assign(test::closed_number(), ec);
    BOOST_TEST((ec == bad_descriptor));
    d.assign(-1, ec);
    BOOST_TEST((ec == bad_descriptor));
    BOOST_TEST(!d.is_open());
    BOOST_TEST((thrown_by([&] { ours(io, -1); }) == bad_descriptor));

    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    d.assign(p.a, ec);
    BOOST_TEST((ec == already_registered));
    BOOST_TEST((thrown_by([&] { ours(io, p.a.get()); }) == already_registered));
    BOOST_TEST(!d.is_open());
    BOOST_TEST(is_open(p.a));
    reg.deregister();

    moor::use_registration_service(io).close();
    d.assign(p.a, ec);
    BOOST_TEST((ec == gone));
    BOOST_TEST((thrown_by([&] { ours(io, p.a.get()); }) == gone));
    BOOST_TEST(is_open(p.a));
}

// ---- errors -----------------------------------------------------------------------------------

/// Each asynchronous operation ends with this error.
template <class D>
void check_that_all_end_with(asio::io_context& io, D& d, const error_code& expected) {
    error_code ec;
    BOOST_TEST(read_once(io, d, ec).empty());
    BOOST_TEST((ec == expected));
    BOOST_TEST(write_once(io, d, "x", ec) == 0u);
    BOOST_TEST((ec == expected));
    for (wait_type w : {D::wait_read, D::wait_write, D::wait_error})
        BOOST_TEST((waited(io, d, w) == expected));
}

/// What needs no loop goes on.
void check_that_calls_work(ours& d, int peer) {
    char got;
    test::put(peer, "y");
    d.wait(ours::wait_write);
    BOOST_TEST(d.read_some(asio::buffer(&got, 1)) == 1u);
    BOOST_TEST(d.write_some(asio::buffer("x", 1)) == 1u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(without_a_handle_all_is_bad_descriptor, D, both) {
    test::context_fixture f;
    D d(f.io);
    typename D::bytes_readable command;
    std::array<char, 16> got;
    auto check = [&](const char* what, auto call) { // both of its overloads
        BOOST_TEST_CONTEXT(what) {
            error_code ec;
            call(ec);
            BOOST_TEST((ec == bad_descriptor));
            BOOST_TEST((thrown_by([&] { call(); }) == bad_descriptor));
        }
    };
    check("cancel", [&](auto&... ec) { d.cancel(ec...); });
    check("io_control", [&](auto&... ec) { d.io_control(command, ec...); });
    check("non_blocking", [&](auto&... ec) { d.non_blocking(true, ec...); });
    check("native_non_blocking", [&](auto&... ec) { d.native_non_blocking(true, ec...); });
    check("read_some", [&](auto&... ec) { d.read_some(asio::buffer(got), ec...); });
    check("write_some", [&](auto&... ec) { d.write_some(asio::buffer(got), ec...); });
    for (wait_type w : {D::wait_read, D::wait_write, D::wait_error})
        check("wait", [&](auto&... ec) { d.wait(w, ec...); });
    BOOST_TEST(!d.non_blocking());
    BOOST_TEST(!d.native_non_blocking());
    if (!std::is_same<D, theirs>::value || !test::on_io_uring()) // there it never completes
        check_that_all_end_with(f.io, d, bad_descriptor);
}

BOOST_FIXTURE_TEST_CASE(a_number_closed_behind_our_back_is_bad_descriptor, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    std::array<char, 16> got;
    error_code ec;
    for (bool used : {false, true}) {
        test::unique_fd copy(::fcntl(p.a, F_DUPFD_CLOEXEC, 900));
        ours d(io, moor::borrow(copy.get()));
        if (used) {
            test::put(p.b, "x");
            BOOST_TEST(read_once(io, d, ec) == "x");
            BOOST_TEST(write_once(io, d, "x", ec) == 1u);
        }
        copy.close();
        BOOST_TEST(d.read_some(asio::buffer(got), ec) == 0u);
        BOOST_TEST((ec == bad_descriptor));
        BOOST_TEST(d.write_some(asio::buffer(got), ec) == 0u);
        BOOST_TEST((ec == bad_descriptor));
        for (wait_type w : {ours::wait_read, ours::wait_write, ours::wait_error}) {
            d.wait(w, ec);
            BOOST_TEST((ec == bad_descriptor));
        }
        check_that_all_end_with(io, d, bad_descriptor);
    }
    // An owned one, whose flags are looked at first.
    ours d(io, ::fcntl(p.a, F_DUPFD_CLOEXEC, 900));
    ::close(d.native_handle());
    check_that_all_end_with(io, d, bad_descriptor);
    d.non_blocking(true, ec);
    BOOST_TEST((ec == bad_descriptor));
    ours::bytes_readable command;
    d.io_control(command, ec);
    BOOST_TEST((ec == bad_descriptor));
    d.close(ec); // as the original
    BOOST_TEST((ec == bad_descriptor));
    BOOST_TEST(!d.is_open());
}

BOOST_FIXTURE_TEST_CASE(without_its_registration_it_is_bad_descriptor, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    int a = p.a.release();
    ours d(io, a);
    d.registration().deregister();
    check_that_all_end_with(io, d, bad_descriptor);
    check_that_calls_work(d, p.b);
    BOOST_TEST(d.is_open()); // and still its owner
    d.close();
    BOOST_TEST(!is_open(a));
}

BOOST_AUTO_TEST_CASE(closing_the_service_ends_its_operations_and_not_its_ownership) {
    for (bool borrowed : {false, true}) {
        test::fd_pair p = test::make_socketpair();
        int a = p.a;
        auto io = std::make_unique<asio::io_context>();
        {
            ours d(*io);
            borrowed ? d.assign(moor::borrow(a)) : d.assign(p.a.release());
            std::array<char, 16> got;
            test::transferred read;
            test::called readable;
            d.async_read_some(asio::buffer(got), read.handler());
            d.async_wait(ours::wait_read, readable.handler());
            test::run_ready(*io);
            moor::use_registration_service(*io).close();
            test::run_all(*io);
            BOOST_TEST((read.ec == gone));
            BOOST_TEST((readable.ec == gone));
            check_that_all_end_with(*io, d, gone);
            check_that_calls_work(d, p.b);
            BOOST_TEST(d.is_open());
            if (borrowed) {
                io.reset();
                d.close();
            }
        }
        BOOST_TEST(is_open(a) == borrowed);
    }
}

BOOST_AUTO_TEST_CASE(one_that_outlives_its_context_says_gone_and_still_closes_its_handle) {
    test::fd_pair p = test::make_socketpair();
    int a = p.a.release();
    {
        auto io = std::make_unique<asio::io_context>();
        ours d(*io, a);
        test::once never(test::expect::destroyed);
        d.async_wait(ours::wait_read, never.handler());
        io.reset();
        std::array<char, 16> got;
        test::transferred read, write, nothing;
        test::called readable;
        d.async_read_some(asio::buffer(got), read.handler());
        d.async_write_some(asio::buffer("x", 1), write.handler());
        d.async_write_some(asio::const_buffer(), nothing.handler());
        d.async_wait(ours::wait_read, readable.handler());
        for (error_code ec : {read.ec, write.ec, readable.ec})
            BOOST_TEST((ec == gone));
        BOOST_TEST(nothing.times == 1);
        check_that_calls_work(d, p.b);
        BOOST_TEST(d.is_open());
    }
    BOOST_TEST(!is_open(a));
}

// ---- modes and control ------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(non_blocking_sets_and_clears_the_flag, D, both) {
    test::context_fixture f;
    test::fd_pair p = make_blocking_socketpair();
    int a = p.a.release();
    D d(f.io, a);
    BOOST_TEST(!d.non_blocking());
    BOOST_TEST(!has_nonblock(a));
    d.non_blocking(true);
    BOOST_TEST(d.non_blocking());
    BOOST_TEST(has_nonblock(a));
    error_code ec;
    d.native_non_blocking(false, ec); // not while the user wants it
    BOOST_TEST((ec == asio::error::invalid_argument));
    BOOST_TEST(has_nonblock(a));
    d.non_blocking(false, ec);
    BOOST_TEST(!ec);
    BOOST_TEST(!d.non_blocking());
    BOOST_TEST(!d.native_non_blocking());
    BOOST_TEST(!has_nonblock(a));
    d.native_non_blocking(true);
    BOOST_TEST(!d.non_blocking());
    BOOST_TEST(d.native_non_blocking());
    BOOST_TEST(has_nonblock(a));
    d.native_non_blocking(false, ec);
    BOOST_TEST(!ec);
    BOOST_TEST(!d.native_non_blocking());
    BOOST_TEST(!has_nonblock(a));
    D moved(std::move(d));
    moved.non_blocking(true);
    d = std::move(moved);
    BOOST_TEST(d.non_blocking()); // goes along
    BOOST_TEST(!moved.non_blocking());
}

/// FIONBIO as a command.
struct set_mode {
    int value;
    int name() const { return static_cast<int>(FIONBIO); }
    int* data() { return &value; }
};

/// One that no handle here knows.
struct no_command {
    int value = 0;
    int name() const { return static_cast<int>(TIOCGPGRP); }
    int* data() { return &value; }
};

BOOST_AUTO_TEST_CASE_TEMPLATE(io_control_performs_commands, D, both) {
    test::context_fixture f;
    test::fd_pair p = make_blocking_socketpair();
    D d(f.io, p.a.release());
    typename D::bytes_readable readable(true);
    d.io_control(readable);
    BOOST_TEST(readable.get() == 0u);
    test::put(p.b, "hello");
    error_code ec;
    d.io_control(readable, ec);
    BOOST_TEST(!ec);
    BOOST_TEST(readable.get() == 5u);
    set_mode mode{1};
    d.io_control(mode);
    BOOST_TEST(d.non_blocking());
    BOOST_TEST(has_nonblock(d.native_handle()));
    mode.value = 0;
    d.io_control(mode, ec);
    BOOST_TEST(!d.non_blocking());
    BOOST_TEST(!has_nonblock(d.native_handle()));
    no_command no;
    d.io_control(no, ec);
    BOOST_TEST((ec == boost::system::errc::inappropriate_io_control_operation));
    BOOST_CHECK_THROW(d.io_control(no), boost::system::system_error);
}

// ---- waiting --------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(wait_blocks_or_would_block, D, both) {
    test::context_fixture f;
    test::fd_pair p = test::make_socketpair();
    D d(f.io, p.a.release());
    d.wait(D::wait_write);
    d.non_blocking(true);
    error_code ec;
    d.wait(D::wait_read, ec);
    BOOST_TEST((ec == would_block));
    d.wait(D::wait_error, ec);
    BOOST_TEST((ec == would_block));
    BOOST_TEST((thrown_by([&] { d.wait(D::wait_read); }) == would_block));
    d.wait(no_wait_type, ec);
    BOOST_TEST((ec == asio::error::invalid_argument));
    d.non_blocking(false);
    // (Boost.Test's checks are for one thread.)
    auto later = std::async(std::launch::async, [&] { return ::write(p.b, "x", 1); });
    d.wait(D::wait_read, ec);
    BOOST_TEST(!ec);
    BOOST_TEST(later.get() == 1);
    p.b.close();
    d.wait(D::wait_error, ec);
    BOOST_TEST(!ec);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(async_wait_tells_when_it_is_ready, D, both) {
    test::context_fixture f;
    test::fd_pair p = test::make_socketpair();
    D d(f.io, p.a.release());
    BOOST_TEST(!waited(f.io, d, D::wait_write));
    test::called readable;
    test::called hung_up;
    d.async_wait(D::wait_read, readable.handler());
    d.async_wait(D::wait_error, hung_up.handler());
    test::run_ready(f.io);
    BOOST_TEST(readable.times + hung_up.times == 0);
    test::put(p.b, "x");
    test::run_until(f.io, [&] { return bool(readable); });
    BOOST_TEST(!readable.ec);
    BOOST_TEST(test::get(d.native_handle()) == "x");
    test::run_ready(f.io);
    BOOST_TEST(hung_up.times == 0);
    if (std::is_same<D, ours>::value || !test::on_select()) {
        p.b.close();
        test::run_until(f.io, [&] { return bool(hung_up); });
        BOOST_TEST(!hung_up.ec);
    } else { // select(2) knows out-of-band data only
        d.cancel();
        test::run_until(f.io, [&] { return bool(hung_up); });
        BOOST_TEST((hung_up.ec == aborted));
    }
}

BOOST_FIXTURE_TEST_CASE(an_unknown_type_of_wait_is_an_invalid_argument, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    ours d(io, p.a.release());
    BOOST_TEST((waited(io, d, no_wait_type) == asio::error::invalid_argument));
    d.close();
    BOOST_TEST((waited(io, d, no_wait_type) == asio::error::invalid_argument));
}

BOOST_FIXTURE_TEST_CASE(waiting_touches_no_flags, test::context_fixture) {
    test::fd_pair p = make_blocking_socketpair();
    moor::descriptor d(io, p.a.release());
    int flags = ::fcntl(d.native_handle(), F_GETFL);
    test::called done;
    d.async_wait(moor::descriptor::wait_read, done.handler());
    test::run_ready(io);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    d.wait(moor::descriptor::wait_read);
    BOOST_TEST(::fcntl(d.native_handle(), F_GETFL) == flags);
}

BOOST_FIXTURE_TEST_CASE(an_error_wait_learns_of_what_is_an_error, test::context_fixture) {
    struct {
        const char* what;
        test::fd_pair p;
        void (*prompt)(test::fd_pair&);
    } cases[] = {
        {"the peer's end", test::make_socketpair(), test::close_peer},
        {"out-of-band data", test::make_tcp_pair(),
         [](test::fd_pair& p) { BOOST_REQUIRE_EQUAL(::send(p.b, "!", 1, MSG_OOB), 1); }},
        {"a pipe's last writer", test::make_pipe(), test::close_peer},
        {"a pipe's last reader", test::swapped(test::make_pipe()), test::close_peer},
    };
    for (auto& c : cases)
        BOOST_TEST_CONTEXT(c.what) {
            ours d(io, moor::borrow(c.p.a.get()));
            test::called done;
            d.async_wait(ours::wait_error, done.handler());
            test::run_ready(io);
            BOOST_TEST(done.times == 0);
            c.prompt(c.p);
            test::run_until(io, [&] { return bool(done); });
            BOOST_TEST(!done.ec);
        }
}

BOOST_FIXTURE_TEST_CASE(an_error_wait_sleeps_beside_what_is_no_error, test::context_fixture) {
    for (bool data : {true, false}) {
        test::fd_pair p = test::make_socketpair();
        ours d(io, p.a.release());
        test::called done;
        d.async_wait(ours::wait_error, done.handler());
        test::run_ready(io);
        data ? test::put(p.b, "x") : test::shut_peer(p);
        test::run_ready(io);
        BOOST_TEST(done.times == 0);
        d.cancel();
        test::run_all(io);
    }
}

// ---- what the original has not ----------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_plain_descriptor_can_be_made_and_waits) {
    test::context_fixture f;
    test::fd_pair p = test::make_pipe();
    moor::descriptor d(f.io, p.a.release());
    test::put(p.b, "x");
    BOOST_TEST(!waited(f.io, d, moor::descriptor::wait_read));
    asio::thread_pool pool(1);
    moor::descriptor on_pool(pool, moor::borrow(d));
    std::future<void> f2 = on_pool.async_wait(moor::descriptor::wait_read, asio::use_future);
    BOOST_REQUIRE((f2.wait_for(test::cap) == std::future_status::ready));
    f2.get();
    pool.join();
}

BOOST_AUTO_TEST_SUITE_END()
