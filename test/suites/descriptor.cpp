// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A descriptor: what it does to its handle, its modes and its waits. What the original does as well
// is tested on both.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/tracker.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/posix/descriptor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <future>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using test::aborted;
using test::already_registered;
using test::bad_descriptor;
using test::error_code;
using test::gone;
using test::would_block;

using theirs = asio::posix::stream_descriptor;
using ours = moor::stream_descriptor;
using both = std::tuple<theirs, ours>;
using wait_type = asio::posix::descriptor_base::wait_type;

using io_executor = asio::io_context::executor_type;
using io_strand = asio::strand<io_executor>;

constexpr wait_type no_wait_type = static_cast<wait_type>(3);

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }
bool has_nonblock(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

/// A pair in blocking mode.
test::fd_pair make_blocking_socketpair() {
    int p[2];
    BOOST_REQUIRE_EQUAL(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
    return {test::unique_fd(p[0]), test::unique_fd(p[1])};
}

/// The error that a throwing overload throws.
template <class F>
error_code thrown_by(F f) {
    try {
        f();
    } catch (const boost::system::system_error& e) {
        return e.code();
    }
    return error_code();
}

/// What a wait said, within the cap.
template <class D>
error_code waited(asio::io_context& io, D& d, wait_type w) {
    test::called done;
    d.async_wait(w, done.handler());
    BOOST_TEST(done.times == 0); // never from within
    test::run_until(io, [&] { return bool(done); });
    return done.ec;
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
}

BOOST_AUTO_TEST_CASE_TEMPLATE(one_on_another_executor_can_be_moved_from, D, both) {
    using typed = typename D::template rebind_executor<io_executor>::other;
    test::context_fixture f;
    test::fd_pair p = test::make_pipe();
    int a = p.a.release();
    int b = p.b.release();
    typed t(f.io, a);
    D d(std::move(t));
    BOOST_TEST(!t.is_open());
    BOOST_TEST(d.native_handle() == a);
    BOOST_TEST((d.get_executor() == f.io.get_executor()));
    d = typed(f.io.get_executor(), b);
    BOOST_TEST(d.native_handle() == b);
    BOOST_TEST(!is_open(a));
    test::called done;
    d.async_wait(D::wait_write, done.handler());
    test::run_until(f.io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
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

BOOST_FIXTURE_TEST_CASE(assigning_itself_changes_nothing, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    int a = p.a.release();
    ours d(io, a);
    ours& same = d;
    d = std::move(same);
    BOOST_TEST(d.native_handle() == a);
    BOOST_TEST(is_open(a));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(without_a_handle_all_is_bad_descriptor, D, both) {
    test::context_fixture f;
    D d(f.io);
    error_code ec;
    typename D::bytes_readable command;
    auto expect = [&](const char* what) {
        BOOST_TEST_INFO(what);
        BOOST_TEST((ec == bad_descriptor));
        ec = error_code();
    };
    d.cancel(ec), expect("cancel");
    d.io_control(command, ec), expect("io_control");
    d.non_blocking(true, ec), expect("non_blocking");
    d.native_non_blocking(true, ec), expect("native_non_blocking");
    for (wait_type w : {D::wait_read, D::wait_write, D::wait_error})
        d.wait(w, ec), expect("wait");
    BOOST_TEST((thrown_by([&] { d.cancel(); }) == bad_descriptor));
    BOOST_TEST((thrown_by([&] { d.io_control(command); }) == bad_descriptor));
    BOOST_TEST((thrown_by([&] { d.non_blocking(true); }) == bad_descriptor));
    BOOST_TEST((thrown_by([&] { d.native_non_blocking(true); }) == bad_descriptor));
    BOOST_TEST((thrown_by([&] { d.wait(D::wait_read); }) == bad_descriptor));
    BOOST_TEST(!d.non_blocking());
    BOOST_TEST(!d.native_non_blocking());
    if (!std::is_same<D, theirs>::value || !test::on_io_uring()) // there it never completes
        for (wait_type w : {D::wait_read, D::wait_write, D::wait_error})
            BOOST_TEST((waited(f.io, d, w) == bad_descriptor));
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
        {"the peer's end", test::make_socketpair(), [](test::fd_pair& p) { p.b.close(); }},
        {"out-of-band data", test::make_tcp_pair(),
         [](test::fd_pair& p) { BOOST_REQUIRE_EQUAL(::send(p.b, "!", 1, MSG_OOB), 1); }},
        {"a pipe's last writer", test::make_pipe(), [](test::fd_pair& p) { p.b.close(); }},
        {"a pipe's last reader", test::make_pipe(),
         [](test::fd_pair& p) {
             std::swap(p.a, p.b);
             p.b.close();
         }},
    };
    for (auto& c : cases) {
        BOOST_TEST_CONTEXT(c.what) {
            // For the last one, the writing end is waited for.
            bool writer = &c == &cases[std::size(cases) - 1];
            ours d(io, moor::borrow(writer ? c.p.b.get() : c.p.a.get()));
            test::called done;
            d.async_wait(ours::wait_error, done.handler());
            test::run_ready(io);
            BOOST_TEST(done.times == 0);
            if (writer)
                c.p.a.close();
            else
                c.prompt(c.p);
            test::run_until(io, [&] { return bool(done); });
            BOOST_TEST(!done.ec);
        }
    }
}

BOOST_FIXTURE_TEST_CASE(an_error_wait_sleeps_beside_what_is_no_error, test::context_fixture) {
    for (bool data : {true, false}) {
        test::fd_pair p = test::make_socketpair();
        ours d(io, p.a.release());
        test::called done;
        d.async_wait(ours::wait_error, done.handler());
        test::run_ready(io);
        if (data)
            test::put(p.b, "x");
        else
            ::shutdown(p.b, SHUT_WR);
        test::run_ready(io);
        BOOST_TEST(done.times == 0);
        d.cancel();
        test::run_all(io);
    }
}

BOOST_FIXTURE_TEST_CASE(files_that_cannot_be_polled_are_ready, test::context_fixture) {
    for (const char* name : {"/proc/self/exe", "/dev/null", "/"}) {
        BOOST_TEST_CONTEXT(name) {
            moor::descriptor d(io, ::open(name, O_RDONLY | O_CLOEXEC));
            d.wait(moor::descriptor::wait_read);
            for (int i = 0; i != 2; ++i) { // the second one knows
                BOOST_TEST(!waited(io, d, moor::descriptor::wait_read));
                BOOST_TEST(!waited(io, d, moor::descriptor::wait_write));
            }
        }
    }
}

BOOST_FIXTURE_TEST_CASE(a_number_closed_behind_our_back_is_bad_descriptor, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    for (wait_type w : {ours::wait_read, ours::wait_write, ours::wait_error}) {
        test::unique_fd copy(::fcntl(p.a, F_DUPFD_CLOEXEC, 900));
        ours d(io, moor::borrow(copy.get()));
        copy.close();
        error_code ec;
        d.wait(w, ec);
        BOOST_TEST((ec == bad_descriptor));
        BOOST_TEST((waited(io, d, w) == bad_descriptor));
    }
    ours d(io, ::fcntl(p.a, F_DUPFD_CLOEXEC, 900));
    ::close(d.native_handle());
    error_code ec;
    d.non_blocking(true, ec);
    BOOST_TEST((ec == bad_descriptor));
    ours::bytes_readable command;
    d.io_control(command, ec);
    BOOST_TEST((ec == bad_descriptor));
    d.close(ec); // as the original
    BOOST_TEST((ec == bad_descriptor));
    BOOST_TEST(!d.is_open());
}

BOOST_AUTO_TEST_CASE_TEMPLATE(any_token_will_do, D, both) {
    test::context_fixture f;
    test::fd_pair p = test::make_socketpair();
    D d(f.io, p.a.release());
    std::future<void> future = d.async_wait(D::wait_write, asio::use_future);
    auto deferred = d.async_wait(D::wait_write, asio::deferred);
    test::run_all(f.io);
    future.get();
    test::called done;
    std::move(deferred)(done.handler());
    test::run_all(f.io);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE(the_executors_default_token_is_used, test::context_fixture) {
    using typed = asio::deferred_t::as_default_on_t<moor::descriptor>;
    test::fd_pair p = test::make_socketpair();
    typed d(io, p.a.release());
    test::called done;
    d.async_wait(typed::wait_write)(done.handler());
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE(the_associations_of_a_handler_are_honoured, test::context_fixture) {
    // Through the adapters, too: a wait for errors, and one that can't be started.
    test::fd_pair p = test::make_socketpair();
    test::tracker_executor ex(7, io.get_executor());
    test::allocation_counts memory;
    p.b.close();
    for (wait_type w : {ours::wait_read, ours::wait_error, no_wait_type}) {
        ours d(io, moor::borrow(p.a.get()));
        bool inside = false;
        bool empty = false;
        auto handler = [&](error_code) {
            inside = test::running_on(7);
            empty = memory.live == 0;
        };
        memory.total = 0;
        {
            test::initiation_guard guard;
            d.async_wait(
                w, asio::bind_executor(
                       ex, asio::bind_allocator(test::counting_allocator<>(memory), handler)));
        }
        BOOST_TEST(memory.total > 0);
        test::run_all(io);
        BOOST_TEST(inside);
        BOOST_TEST(empty);
    }
}

// ---- ending what is pending -------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(whatever_ends_it_aborts_what_is_pending, D, both) {
    test::context_fixture f;
    for (int how = 0; how != 4; ++how) {
        test::fd_pair p = test::make_socketpair();
        std::optional<D> d(std::in_place, f.io, p.a.release());
        test::called read;
        test::called error;
        d->async_wait(D::wait_read, read.handler());
        d->async_wait(D::wait_error, error.handler());
        test::run_ready(f.io);
        switch (how) {
        case 0:
            d->cancel();
            break;
        case 1:
            d->close();
            break;
        case 2:
            d.reset();
            break;
        case 3:
            *d = D(f.io);
            break;
        }
        BOOST_TEST(read.times + error.times == 0); // through the loop
        test::run_all(f.io);
        BOOST_TEST((read.ec == aborted));
        BOOST_TEST((error.ec == aborted));
    }
}

BOOST_FIXTURE_TEST_CASE(release_aborts_what_is_pending_and_a_reused_number_is_left_alone,
                        test::context_fixture) {
    for (bool started : {false, true}) { // whether the loop has seen the waits
        test::fd_pair p = test::make_socketpair();
        ours d(io, p.a.release());
        test::called waits[3];
        d.async_wait(ours::wait_read, waits[0].handler());
        d.async_wait(ours::wait_read, waits[1].handler());
        d.async_wait(ours::wait_error, waits[2].handler());
        if (started)
            test::run_ready(io);
        p.a = test::unique_fd(d.release());

        // Before the loop runs, the number is closed and becomes another file, with another owner.
        test::fd_pair q = test::reuse_number(p.a, test::make_socketpair());
        ours other(io, q.a.release());
        test::called theirs;
        other.async_wait(ours::wait_read, theirs.handler());
        test::run_ready(io);
        for (test::called& w : waits) {
            BOOST_TEST(w.times == 1);
            BOOST_TEST((w.ec == aborted));
        }
        BOOST_TEST(theirs.times == 0);
        test::put(q.b, "x");
        test::run_until(io, [&] { return bool(theirs); });
        BOOST_TEST(!theirs.ec);
    }
}

BOOST_FIXTURE_TEST_CASE(a_cancellation_slot_works_after_a_move_and_is_harmless_after_all_else,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    for (wait_type w : {ours::wait_read, ours::wait_error}) {
        asio::cancellation_signal signal;
        auto start = [&](ours& d, test::called& c) {
            d.async_wait(w, asio::bind_cancellation_slot(signal.slot(), c.handler()));
            test::run_ready(io);
        };
        auto emit = [&] { signal.emit(asio::cancellation_type::terminal); };
        {
            auto d = std::make_unique<ours>(io, moor::borrow(p.a.get()));
            test::called done;
            start(*d, done);
            auto moved = std::make_unique<ours>(std::move(*d));
            d.reset();
            emit();
            test::run_all(io);
            BOOST_TEST((done.ec == aborted));
            emit(); // after completion
            moved.reset();
            emit(); // after destruction
        }
        {
            // Destroyed with the wait pending, and the loop has not run yet.
            auto d = std::make_unique<ours>(io, moor::borrow(p.a.get()));
            test::called done;
            start(*d, done);
            d.reset();
            emit();
            test::run_all(io);
            BOOST_TEST(done.times == 1);
            BOOST_TEST((done.ec == aborted));
        }
        emit();
    }
}

BOOST_FIXTURE_TEST_CASE(a_pending_wait_moves_to_another_executors_type, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::basic_descriptor<io_executor> typed(io, p.a.release());
    test::called done;
    typed.async_wait(moor::descriptor::wait_read, done.handler());
    test::run_ready(io);
    moor::descriptor d(std::move(typed));
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
}

// ---- what the original has not ----------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_registration_waits_for_more, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    ours d(io, p.a.release());
    BOOST_TEST(d.registration().native_handle() == d.native_handle());
    moor::ready_event event;
    d.registration().async_wait(moor::interest::read_closed,
                                [&](error_code ec, moor::ready_event e) {
                                    BOOST_TEST(!ec);
                                    event = e;
                                });
    test::run_ready(io);
    ::shutdown(p.b, SHUT_WR);
    test::run_until(io, [&] { return !event.ready().empty(); });
    BOOST_TEST(event.ready() == moor::interest::read_closed);
    auto r = d.registration().try_io(moor::interest::writable, [](error_code&) { return 3; });
    BOOST_TEST(*r == 3);
    const ours& c = d;
    BOOST_TEST(c.registration().is_registered());
}

BOOST_FIXTURE_TEST_CASE(without_its_registration_it_is_bad_descriptor, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    int a = p.a.release();
    ours d(io, a);
    d.registration().deregister();
    for (wait_type w : {ours::wait_read, ours::wait_write, ours::wait_error})
        BOOST_TEST((waited(io, d, w) == bad_descriptor));
    BOOST_TEST(d.is_open()); // and still its owner
    d.close();
    BOOST_TEST(!is_open(a));
}

BOOST_FIXTURE_TEST_CASE(closing_the_service_ends_its_waits_and_not_its_ownership,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    int a = p.a.release();
    {
        ours d(io, a);
        test::called done;
        d.async_wait(ours::wait_read, done.handler());
        moor::use_registration_service(io).close();
        test::run_all(io);
        BOOST_TEST((done.ec == gone));
        BOOST_TEST((waited(io, d, ours::wait_error) == gone));
        BOOST_TEST(d.is_open());
        d.wait(ours::wait_write); // needs no loop
    }
    BOOST_TEST(!is_open(a));
}

BOOST_AUTO_TEST_CASE(one_that_outlives_its_context_still_closes_its_handle) {
    test::fd_pair p = test::make_socketpair();
    int a = p.a.release();
    {
        auto io = std::make_unique<asio::io_context>();
        ours d(*io, a);
        test::once never(test::expect::destroyed);
        d.async_wait(ours::wait_read, never.handler());
        io.reset();
        error_code seen;
        d.async_wait(ours::wait_read, [&](error_code ec) { seen = ec; });
        BOOST_TEST((seen == gone));
        BOOST_TEST(d.is_open());
    }
    BOOST_TEST(!is_open(a));
}

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
