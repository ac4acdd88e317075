// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Mistakes in the use of Moor, as doc/misuse.adoc lists them: what happens, and what the checks of
// MOOR_CHECK_USE report.

#ifndef MOOR_CHECK_USE
#define MOOR_CHECK_USE
#endif

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/sanitizers.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using kind = moor::misuse::kind;
using moor::interest;
using moor::trigger;
using test::unique_fd;

struct report {
    kind what;
    int handle;
    std::string name;
    std::string message;
};

std::mutex reports_mutex;
std::vector<report> reports;

std::function<void()> on_report; // once

void keep_report(const moor::misuse& m) noexcept {
    std::function<void()> then;
    {
        std::lock_guard<std::mutex> lock(reports_mutex);
        reports.push_back({m.what, m.native_handle, m.name, m.message});
        then = std::exchange(on_report, nullptr);
    }
    if (then)
        then();
}

std::size_t count_reports() {
    std::lock_guard<std::mutex> lock(reports_mutex);
    return reports.size();
}

/// A context and a loop; what is reported meanwhile is kept.
struct fixture : test::context_fixture {
    fixture() {
        std::lock_guard<std::mutex> lock(reports_mutex);
        reports.clear();
        // A busy machine may leave a call alone for a while. That is no mistake.
        moor::set_misuse_time_limit(std::chrono::hours(1));
        moor::set_misuse_handler(&keep_report);
    }
    ~fixture() {
        moor::set_misuse_handler(nullptr);
        std::lock_guard<std::mutex> lock(reports_mutex);
        BOOST_CHECK_MESSAGE(reports.empty(),
                            "not expected: " << (reports.empty() ? "" : reports[0].message));
    }

    /// There is one report, on this handle. What its sentence says of it.
    void check_report(kind what, int handle, const std::string& text) {
        std::lock_guard<std::mutex> lock(reports_mutex);
        BOOST_REQUIRE_EQUAL(reports.size(), 1u);
        BOOST_CHECK(reports[0].what == what);
        BOOST_TEST(reports[0].handle == handle);
        BOOST_TEST(reports[0].name == "library");
        BOOST_CHECK_MESSAGE(reports[0].message.find(text) != std::string::npos, reports[0].message);
        reports.clear();
    }

    /// The same, once it comes: the loop runs meanwhile.
    void wait_for_report(kind what, int handle, const std::string& text) {
        BOOST_TEST(test::wait_for([&] {
            test::run_ready(io);
            return count_reports() != 0;
        }));
        check_report(what, handle, text);
    }

    moor::registration make_registration(int handle, trigger t = trigger::level) {
        moor::registration reg(io, handle, t);
        reg.name("library");
        return reg;
    }
};

/// For the mistakes that only time tells.
struct impatient_fixture : fixture {
    impatient_fixture() { moor::set_misuse_time_limit(std::chrono::milliseconds(20)); }
};

/// Time passes for the watch: a call that takes too long is reported. The number of what else was.
std::size_t let_the_watch_look(asio::io_context& io, int handle) {
    const std::size_t before = count_reports();
    moor::registration reg(io, handle);
    (void)reg.try_io(interest::writable, [&](moor::error_code&) {
        BOOST_TEST(test::wait_for([&] {
            std::lock_guard<std::mutex> lock(reports_mutex);
            return reports.size() > before && reports.back().handle == handle;
        }));
    });
    reg.deregister();
    std::lock_guard<std::mutex> lock(reports_mutex);
    reports.pop_back();
    return reports.size() - before;
}

} // namespace

BOOST_AUTO_TEST_SUITE(misuse)

// ---- what the checks report ---------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_edge_triggered_wait_on_a_handle_that_was_not_drained,
                        impatient_fixture) {
    auto p = test::make_socketpair();
    auto reg = make_registration(p.a, trigger::edge);
    test::put(p.b, "first");
    test::check_readable(io, reg); // and nobody reads
    test::called later;
    reg.async_wait_readable(later.handler());
    wait_for_report(kind::not_drained, p.a, "readable");
    test::check_pends(io, later);
    // It is reported once.
    for (int i = 0; i != 3; ++i) {
        BOOST_TEST(let_the_watch_look(io, p.b) == 0u);
        test::run_ready(io);
    }
    reg.deregister();
    test::check_fails(io, later, asio::error::operation_aborted);
}

BOOST_FIXTURE_TEST_CASE(an_edge_triggered_wait_that_is_rightly_pending_is_not_reported,
                        impatient_fixture) {
    auto p = test::make_socketpair();
    auto reg = make_registration(p.a, trigger::edge);
    test::called drained, call, both;
    reg.async_wait_readable(drained.handler());
    // A condition that the callable does not see is no mistake.
    test::put(p.b, "unread");
    test::check_completes(io, drained);
    reg.async_io(
        interest::readable, [](moor::error_code& ec) { ec = asio::error::would_block; },
        call.handler());
    (void)reg.poll_read_io([] {}, [](moor::error_code& ec) { ec = asio::error::would_block; });
    // Nor is room that nobody has something to write for.
    auto q = test::make_socketpair();
    auto two_way = make_registration(q.a, trigger::edge);
    two_way.async_wait(interest::readable | interest::writable, both.handler());
    test::check_completes(io, both);
    two_way.async_wait(interest::readable | interest::writable, both.handler());
    auto level = test::make_socketpair();
    auto reader = make_registration(level.a);
    test::called pending;
    reader.async_wait_readable(pending.handler());
    for (int i = 0; i != 8; ++i) {
        test::run_ready(io);
        BOOST_TEST(let_the_watch_look(io, p.b) == 0u);
    }
    reg.deregister();
    two_way.deregister();
    reader.deregister();
    test::run_ready(io);
}

BOOST_FIXTURE_TEST_CASE(a_wait_is_not_reported_while_the_loop_does_not_run, impatient_fixture) {
    auto p = test::make_socketpair();
    auto reg = make_registration(p.a, trigger::edge);
    test::called done;
    reg.async_wait_readable(done.handler());
    test::run_ready(io);
    test::put(p.b, "x"); // the loop has not seen it
    for (int i = 0; i != 8; ++i)
        BOOST_TEST(let_the_watch_look(io, p.b) == 0u);
    test::check_completes(io, done);
}

BOOST_FIXTURE_TEST_CASE(a_handle_is_closed_before_its_registration_ends, fixture) {
    auto p = test::make_socketpair();
    const int number = p.a;
    {
        auto reg = make_registration(p.a);
        p.a.close();
    }
    check_report(kind::number_closed, number, "deregister it first");
    // As it should be.
    p = test::make_socketpair();
    {
        auto reg = make_registration(p.a);
        reg.deregister();
        p.a.close();
    }
    p = test::make_socketpair();
    auto reg = make_registration(p.a);
    p.a.close();
    reg.abandon();
}

BOOST_FIXTURE_TEST_CASE(a_number_is_another_file_when_its_registration_ends, fixture) {
    auto p = test::make_socketpair();
    auto reg = make_registration(p.a);
    p = test::reuse_number(p.a, test::make_pipe());
    reg.deregister();
    check_report(kind::number_reused, p.a, "deregister it first");
}

BOOST_FIXTURE_TEST_CASE(a_number_is_registered_again_although_its_file_was_closed, fixture) {
    auto p = test::make_socketpair();
    auto forgotten = make_registration(p.a);
    p = test::reuse_number(p.a, test::make_pipe());
    moor::registration reg(io, p.a);
    check_report(kind::number_reused, p.a, "before its owner closes it");
    test::check_works(io, reg, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(a_library_replaces_its_descriptor_behind_a_registration, fixture) {
    auto p = test::make_socketpair();
    auto reg = make_registration(p.a);
    p = test::reuse_number(p.a, test::make_socketpair());
    test::called lost;
    reg.async_wait_readable(lost.handler());
    check_report(kind::number_reused, p.a, "renew()");
    reg.abandon();
    test::check_fails(io, lost, asio::error::operation_aborted);
    // As it should be.
    p = test::make_socketpair();
    reg = make_registration(p.a);
    p = test::reuse_number(p.a, test::make_socketpair());
    BOOST_TEST(reg.renew(p.a));
    test::check_works(io, reg, p.a, p.b);
    p = test::reuse_number(p.a, test::make_pipe());
    reg.reset(p.a);
    test::check_works(io, reg, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(a_wait_begins_on_a_number_that_was_closed, fixture) {
    auto p = test::make_socketpair();
    const int number = p.a;
    auto reg = make_registration(p.a);
    p.a.close();
    test::called failed;
    reg.async_wait_readable(failed.handler());
    check_report(kind::number_closed, number, "renew()");
    test::check_fails(io, failed, asio::error::bad_descriptor);
    reg.abandon();
}

BOOST_FIXTURE_TEST_CASE(a_call_blocks, impatient_fixture) {
    auto p = test::make_socketpair();
    auto reg = make_registration(p.a);
    test::called done;
    reg.async_io(
        interest::writable,
        [&](moor::error_code&) {
            // The report comes while the call blocks, from another thread.
            BOOST_TEST(test::wait_for([] { return count_reports() != 0; }));
        },
        done.handler());
    test::check_completes(io, done);
    check_report(kind::call_blocked, p.a, "O_NONBLOCK");
}

BOOST_FIXTURE_TEST_CASE(a_call_hides_its_error, fixture) {
    auto p = test::make_socketpair();
    auto reg = make_registration(p.a);
    std::optional<long> result;
    reg.async_io(
        interest::writable, [](moor::error_code&) { return -1l; },
        [&](moor::error_code ec, long n) {
            BOOST_TEST(!ec);
            result = n;
        });
    test::run_until(io, [&] { return bool(result); });
    BOOST_TEST(*result == -1);
    check_report(kind::error_hidden, p.a, "check_errno");
}

BOOST_FIXTURE_TEST_CASE(reports_on_a_duplicate_have_the_callers_number, impatient_fixture) {
    auto p = test::make_socketpair();
    moor::registration reg(io, p.a, moor::registration_options(trigger::edge, true));
    reg.name("library");
    (void)reg.try_io(interest::writable, [](moor::error_code&) { return -1l; });
    check_report(kind::error_hidden, p.a, "check_errno");
    (void)reg.try_io(interest::writable, [](moor::error_code&) {
        BOOST_TEST(test::wait_for([] { return count_reports() != 0; }));
    });
    check_report(kind::call_blocked, p.a, "O_NONBLOCK");
    test::put(p.b, "first");
    test::check_readable(io, reg); // and nobody reads
    test::called later;
    reg.async_wait_readable(later.handler());
    wait_for_report(kind::not_drained, p.a, "readable");
    reg.deregister();
    test::check_fails(io, later, test::aborted);
}

BOOST_FIXTURE_TEST_CASE(the_watch_does_not_look_at_a_handle_whose_registration_has_ended,
                        impatient_fixture) {
    moor::set_misuse_time_limit(std::chrono::milliseconds(1));
    auto p = test::make_socketpair();
    test::put(p.b, "first"); // and nobody reads
    asio::io_context own;    // the watch may post to it until its end
    for (int i = 0; i != 200; ++i) {
        moor::registration reg(own, p.a, moor::registration_options(trigger::edge, true));
        test::check_readable(own, reg);
        test::called pending;
        reg.async_wait_readable(pending.handler());
        test::run_ready(own);
        reg.deregister(); // closes the duplicate: ThreadSanitizer sees a look beside that
        test::check_fails(own, pending, test::aborted);
    }
    std::lock_guard<std::mutex> lock(reports_mutex);
    for (const report& r : reports)
        BOOST_CHECK(r.what == kind::not_drained);
    reports.clear();
}

/// A cancellation slot that lets another thread act while a wait begins.
struct slow_slot {
    std::atomic<int>* step;

    bool is_connected() const {
        step->store(1);
        (void)test::wait_for([this] { return step->load() == 2; });
        return false;
    }
    template <class T, class... Args>
    T& emplace(Args&&...) {
        std::abort();
    }
};

struct slow_handler {
    using cancellation_slot_type = slow_slot;
    std::atomic<int>* step;

    slow_slot get_cancellation_slot() const { return {step}; }
    void operator()(moor::error_code) const {}
};

BOOST_FIXTURE_TEST_CASE(a_registration_is_changed_while_another_thread_uses_it, fixture) {
    auto p = test::make_socketpair();
    using change = void (*)(moor::registration&);
    const change changes[] = {
        [](moor::registration& r) { r.name("library"); },
        [](moor::registration& r) {
            moor::error_code ec;
            r.register_handle(-1, ec);
        },
        [](moor::registration& r) { moor::registration moved(std::move(r)); },
        [](moor::registration& r) {
            moor::registration target(r.get_executor());
            target = std::move(r);
        },
        [](moor::registration& r) { r.deregister(); },
        [](moor::registration& r) { r.abandon(); },
    };
    for (change c : changes) {
        auto reg = make_registration(p.a);
        std::atomic<int> step{0};
        std::thread starter([&] { reg.async_wait_readable(slow_handler{&step}); });
        BOOST_TEST(test::wait_for([&] { return step == 1; }));
        // What follows the report follows the start of the wait, too.
        {
            std::lock_guard<std::mutex> lock(reports_mutex);
            on_report = [&] {
                step = 2;
                starter.join();
            };
        }
        c(reg);
        check_report(kind::used_while_changed, p.a, "another one is using");
        reg.deregister();
        test::run_ready(io);
    }
}

BOOST_FIXTURE_TEST_CASE(a_wait_for_what_its_kind_of_file_never_has, fixture) {
    auto p = test::make_pipe();
    unique_fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    unique_fd event(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    unique_fd notify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    const std::pair<int, interest> never[] = {
        {p.a, interest::writable},   {p.a, interest::priority},   {p.b, interest::readable},
        {p.b, interest::priority},   {timer, interest::writable}, {event, interest::priority},
        {notify, interest::writable}};
    for (auto [handle, want] : never) {
        auto reg = make_registration(handle);
        test::called lost;
        reg.async_wait(want, lost.handler());
        check_report(kind::impossible_interest, handle, "no file of this kind");
        test::check_pends(io, lost);
        // The rest can come.
        reg.async_wait(want | interest::read_closed, lost.handler());
        reg.deregister();
        test::run_ready(io);
    }
}

BOOST_FIXTURE_TEST_CASE(a_list_that_waits_for_less_than_its_wait_is_not_reported,
                        impatient_fixture) {
    // An eventfd that can be read says POLLIN, and not POLLRDNORM.
    auto p = test::make_socketpair();
    test::unique_fd event(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
    moor::poll_set set(io);
    ::pollfd fds[] = {{event, POLLRDNORM, 0}};
    test::called done;
    set.async_wait(fds, 1, std::chrono::hours(1), done.handler());
    for (int i = 0; i != 6; ++i) {
        test::check_pends(io, done);
        BOOST_TEST(let_the_watch_look(io, p.b) == 0u);
    }
    set.cancel();
    test::check_fails(io, done, asio::error::operation_aborted);
}

BOOST_FIXTURE_TEST_CASE(a_report_that_a_list_causes_may_use_the_set, fixture) {
    auto p = test::make_pipe();
    auto reg = make_registration(p.a);
    p = test::reuse_number(p.a, test::make_pipe());
    moor::poll_set set(io);
    ::pollfd fds[] = {{p.a, POLLIN, 0}};
    test::called done;
    {
        std::lock_guard<std::mutex> lock(reports_mutex);
        on_report = [&] { set.cancel(); }; // takes the lock of the list
    }
    set.async_wait(fds, 1, std::chrono::hours(1), done.handler());
    check_report(kind::number_reused, p.a, "another file");
    test::check_fails(io, done, asio::error::operation_aborted);
}

boost::test_tools::assertion_result may_start_threads_in_a_child(boost::unit_test::test_unit_id) {
    return !MOOR_TEST_THREAD_SANITIZER;
}

BOOST_FIXTURE_TEST_CASE(a_child_of_a_fork_is_told_too, impatient_fixture,
                        *boost::unit_test::precondition(may_start_threads_in_a_child)) {
    auto p = test::make_socketpair();
    io.notify_fork(asio::execution_context::fork_prepare);
    ::pid_t child = ::fork();
    if (child == 0) {
        io.notify_fork(asio::execution_context::fork_child);
        moor::registration reg(io, p.a);
        bool is_told = false;
        (void)reg.try_io(interest::writable, [&](moor::error_code&) {
            is_told = test::wait_for([] { return count_reports() != 0; });
        });
        ::_exit(is_told ? 0 : 1);
    }
    io.notify_fork(asio::execution_context::fork_parent);
    int status = -1;
    BOOST_REQUIRE_EQUAL(::waitpid(child, &status, 0), child);
    BOOST_TEST(status == 0);
}

BOOST_FIXTURE_TEST_CASE(without_a_handler_a_report_is_a_line_on_the_error_stream, fixture) {
    moor::set_misuse_handler(nullptr);
    auto pipe = test::make_pipe();
    unique_fd saved(::dup(STDERR_FILENO));
    auto p = test::make_socketpair();
    auto reg = make_registration(p.a);
    ::dup2(pipe.b, STDERR_FILENO);
    p.a.close();
    const int number = reg.deregister();
    ::dup2(saved, STDERR_FILENO);
    BOOST_TEST(test::get(pipe.a) == "moor: descriptor " + std::to_string(number) +
                                        " (library): the number was closed before its "
                                        "registration ended: deregister it first, or call "
                                        "abandon() afterwards\n");
}

// ---- what is an error, without any checks -------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_handle_that_is_not_open, fixture) {
    moor::registration reg(io);
    moor::error_code ec;
    for (int handle : {-1, test::closed_number()}) {
        reg.register_handle(handle, ec);
        BOOST_CHECK_EQUAL(ec, asio::error::bad_descriptor);
    }
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_is_registered_already, fixture) {
    auto p = test::make_socketpair();
    moor::registration first(io, p.a);
    moor::registration second(io);
    moor::error_code ec;
    second.register_handle(p.a, ec);
    BOOST_CHECK(ec == moor::error::already_registered);
}

BOOST_FIXTURE_TEST_CASE(an_object_that_has_a_handle, fixture) {
    auto p = test::make_socketpair();
    moor::registration reg(io, p.a);
    moor::error_code ec;
    reg.register_handle(p.b, ec);
    BOOST_CHECK(ec == moor::error::already_open);
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_asio_has, fixture) {
    auto p = test::make_socketpair();
    asio::posix::stream_descriptor owner(io, p.a.release());
    owner.async_wait(owner.wait_read, [](moor::error_code) {});
    test::run_ready(io);
    moor::registration reg(io, owner);
    test::called wait;
    reg.async_wait_readable(wait.handler());
    if (test::on_epoll())
        test::check_fails(io, wait, moor::error::registered_elsewhere);
    test::put(p.b, "x");
    test::run_ready(io);
    BOOST_TEST(wait.times == 1);
}

BOOST_FIXTURE_TEST_CASE(an_object_without_a_handle, fixture) {
    moor::registration reg(io);
    test::called wait;
    reg.async_wait_readable(wait.handler());
    test::check_fails(io, wait, moor::error::not_registered);
}

BOOST_FIXTURE_TEST_CASE(an_empty_interest, fixture) {
    auto p = test::make_socketpair();
    moor::registration reg(io, p.a);
    test::called wait;
    reg.async_wait(interest::none, wait.handler());
    test::check_fails(io, wait, asio::error::invalid_argument);
}

BOOST_FIXTURE_TEST_CASE(a_registration_that_outlives_its_context, fixture) {
    auto p = test::make_socketpair();
    std::optional<asio::io_context> own(std::in_place);
    moor::registration reg(*own, p.a);
    own.reset();
    test::called wait;
    reg.async_wait_readable(wait.handler());
    BOOST_TEST(test::wait_for([&] { return bool(wait); }));
    BOOST_CHECK(wait.ec == moor::error::gone);
}

BOOST_FIXTURE_TEST_CASE(a_regular_file, fixture) {
    std::FILE* file = std::tmpfile();
    BOOST_REQUIRE(file);
    moor::registration reg(io, ::fileno(file));
    // Waiting is of no use: reading it may block all the same.
    test::check_readable(io, reg);
    test::called urgent;
    reg.async_wait(interest::priority, urgent.handler());
    test::check_fails(io, urgent, asio::error::operation_not_supported);
    reg.deregister();
    std::fclose(file);
}

BOOST_FIXTURE_TEST_CASE(nothing_that_keeps_the_loop_running, fixture) {
    auto p = test::make_socketpair();
    moor::registration reg(io, p.a);
    BOOST_TEST(io.run() == 0u);
    BOOST_TEST(io.stopped());
}

BOOST_FIXTURE_TEST_CASE(a_level_triggered_wait_for_writing_with_nothing_to_write, fixture) {
    auto p = test::make_socketpair();
    moor::registration reg(io, p.a);
    for (int i = 0; i != 3; ++i)
        test::check_writable(io, reg); // a loop that never rests
}

BOOST_FIXTURE_TEST_CASE(a_call_that_throws, fixture) {
    auto p = test::make_socketpair();
    moor::registration reg(io, p.a);
    bool is_called = false;
    reg.async_io(
        interest::writable, [](moor::error_code&) { throw std::runtime_error("the call"); },
        [&](moor::error_code) { is_called = true; });
    BOOST_CHECK_THROW(io.run(), std::runtime_error);
    test::run_ready(io);
    BOOST_TEST(!is_called);
    test::check_writable(io, reg);
}

BOOST_AUTO_TEST_SUITE_END()
