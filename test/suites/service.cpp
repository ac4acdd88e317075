// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The registration service: one a context, its counts, its snapshots, its budget.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>

#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <algorithm>
#include <atomic>
#include <iomanip>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

BOOST_AUTO_TEST_SUITE(service)

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::error_code;

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    moor::registration_service& service = moor::use_registration_service(io);
    moor::registration reg{io, p.a.get()};
};

static_assert(std::is_base_of<asio::execution_context::service, moor::registration_service>::value,
              "");

BOOST_FIXTURE_TEST_CASE(a_context_has_one_service, fixture) {
    BOOST_TEST(&moor::use_registration_service(io) == &service);
    BOOST_TEST(&asio::use_service<moor::registration_service>(io) == &service);
    BOOST_TEST(asio::has_service<moor::registration_service>(io));
    BOOST_TEST(&static_cast<asio::execution_context&>(service.context()) == &io);
    // Registrations on any executor of the context share it.
    test::fd_pair q = test::make_socketpair();
    moor::registration r(asio::make_strand(io), q.a.get());
    BOOST_TEST(service.snapshot().size() == 2u);

    asio::thread_pool pool(1);
    test::fd_pair of_pool = test::make_pipe();
    moor::basic_registration<asio::thread_pool::executor_type> on_pool(pool, of_pool.a.get());
    BOOST_TEST(moor::use_registration_service(pool).snapshot().size() == 1u);
    pool.join();
}

BOOST_AUTO_TEST_CASE(the_first_registration_makes_the_service) {
    asio::io_context io;
    BOOST_TEST(!asio::has_service<moor::registration_service>(io));
    moor::registration r(io);
    BOOST_TEST(asio::has_service<moor::registration_service>(io));
}

BOOST_AUTO_TEST_CASE(threads_that_use_a_context_for_the_first_time_at_once_get_one_service) {
    for (int round = 0; round != 200; ++round) {
        asio::io_context io;
        moor::registration_service* found[2] = {};
        std::atomic<int> ready{0};
        auto find = [&](int i) {
            ++ready;
            while (ready != 2) {}
            found[i] = &moor::use_registration_service(io);
        };
        std::thread other(find, 1);
        find(0);
        other.join();
        BOOST_TEST(found[0] == found[1]);
        // The reactor has forgotten the other one.
        test::fd_pair p = test::make_pipe();
        moor::registration reg(io, p.a.get());
        error_code ec = test::not_registered;
        reg.async_wait_readable([&](error_code e) { ec = e; });
        test::put(p.b, "x");
        test::run_ready(io);
        BOOST_TEST(!ec);
    }
}

BOOST_FIXTURE_TEST_CASE(two_contexts_have_two_services_and_both_get_their_events, fixture) {
    asio::io_context other;
    auto& another = moor::use_registration_service(other);
    BOOST_TEST(&another != &service);
    moor::registration elsewhere(other, p.a.get()); // the same handle
    test::called here, there;
    reg.async_wait_readable(here.handler());
    elsewhere.async_wait_readable(there.handler());
    test::run_ready(io);
    test::run_ready(other);
    test::put(p.b, "x");
    test::run_all(io);
    test::run_all(other);
    BOOST_TEST(!here.ec);
    BOOST_TEST(!there.ec);
    BOOST_TEST(service.metrics().registered == 1u);
    BOOST_TEST(another.metrics().registered == 1u);
}

// ---- metrics -----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(registering_is_counted, fixture) {
    BOOST_TEST(service.metrics().registered == 1u);
    BOOST_TEST(service.metrics().deregistered == 0u);
    reg.deregister();
    BOOST_TEST(service.metrics().deregistered == 1u);
    reg.register_handle(p.a.get());
    error_code ec;
    moor::registration twice(io);
    twice.register_handle(p.a.get(), ec); // fails: not counted
    BOOST_TEST(bool(ec));
    BOOST_TEST(service.metrics().registered == 2u);
    { moor::registration dies(std::move(reg)); }
    BOOST_TEST(service.metrics().deregistered == 2u);
    reg.register_handle(p.a.get());
    reg.abandon();
    BOOST_TEST(service.metrics().registered == 3u);
    BOOST_TEST(service.metrics().deregistered == 3u);
    reg.register_handle(p.a.get());
    service.close();
    BOOST_TEST(service.metrics().deregistered == 4u);
    reg.deregister();
    BOOST_TEST(service.metrics().deregistered == 4u); // once only
}

BOOST_FIXTURE_TEST_CASE(a_closed_service_is_gone_for_a_registration_that_holds_a_handle, fixture) {
    service.close();
    BOOST_TEST(service.snapshot().empty());
    std::ostringstream os;
    service.dump(os);
    BOOST_TEST(!os.str().empty());
    BOOST_TEST(reg.is_registered());
    error_code ec;
    reg.register_handle(p.a.get(), ec);
    BOOST_CHECK_EQUAL(ec, test::gone);
    BOOST_TEST(reg.deregister() == p.a.get());
}

BOOST_FIXTURE_TEST_CASE(waits_are_counted_by_how_they_went, fixture) {
    auto wait = [&](auto happen) {
        test::called done;
        reg.async_wait_readable(done.handler());
        happen();
        test::run_all(io);
        return done.ec;
    };
    auto m = [&] { return service.metrics(); };
    test::put(p.b, "x");
    BOOST_TEST(!wait([] {}));
    BOOST_TEST(m().waits_started == 1u);
    BOOST_TEST(m().waits_completed_at_once == 1u);
    BOOST_TEST(m().waits_pended == 0u);
    BOOST_TEST(m().readiness_checks == 1u);
    test::drain(p.a);
    BOOST_TEST(!wait([&] {
        BOOST_TEST(m().waits_started == 2u);
        BOOST_TEST(m().waits_pended == 1u);
        test::put(p.b, "x");
    }));
    BOOST_TEST(m().events_delivered >= 1u);
    BOOST_TEST(m().waits_cancelled == 0u);
    test::drain(p.a);
    BOOST_TEST(bool(wait([&] { reg.cancel(); })));
    BOOST_TEST(m().waits_cancelled == 1u);
    for (unsigned i = 2; i != 12; ++i) { // the counts survive the registration
        BOOST_TEST(bool(wait([&] { reg.deregister(); })));
        BOOST_TEST(m().waits_cancelled == i);
        reg.register_handle(p.a.get());
    }
    BOOST_TEST(bool(wait([&] { service.close(); })));
    BOOST_TEST(m().waits_cancelled == 12u);
    BOOST_TEST(m().waits_started == 14u);
    BOOST_TEST(m().waits_pended + m().waits_completed_at_once == 14u);
}

BOOST_FIXTURE_TEST_CASE(events_that_nobody_waits_for_are_counted, fixture) {
    test::called done;
    reg.async_wait_readable(done.handler());
    test::put(p.b, "x");
    test::run_all(io);
    auto before = service.metrics();
    for (int i = 0; i != 3; ++i) {
        test::put(p.b, "x");
        test::run_ready(io);
    }
    auto after = service.metrics();
    if (test::on_epoll()) {
        BOOST_TEST(after.events_unhandled - before.events_unhandled == 3u);
    } else {
        // Elsewhere no waker is left armed, and nothing is told.
        BOOST_TEST(after.events_unhandled == before.events_unhandled);
    }
    BOOST_TEST(after.events_delivered == before.events_delivered);
}

BOOST_FIXTURE_TEST_CASE(a_verification_is_counted_where_the_kernel_was_asked, fixture) {
    auto before = service.metrics().readiness_checks;
    (void)reg.try_io(interest::readable, [](error_code&) {});
    BOOST_TEST(service.metrics().readiness_checks == before + 1);
    (void)reg.ready(interest::readable);
    BOOST_TEST(service.metrics().readiness_checks == before + 1);
}

// ---- snapshot and dump -------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_snapshot_shows_each_handle, fixture) {
    test::fd_pair q = test::make_socketpair();
    moor::registration edge(io, q.a.get(), trigger::edge);
    auto infos = service.snapshot();
    BOOST_REQUIRE(infos.size() == 2u);
    BOOST_TEST(infos[0].native_handle < infos[1].native_handle); // by handle
    auto of = [&](int fd) {
        for (auto& i : service.snapshot())
            if (i.native_handle == fd)
                return i;
        BOOST_FAIL("not there");
        return moor::registration_info();
    };
    BOOST_TEST((of(q.a).mode == trigger::edge));
    moor::registration_info i = of(p.a);
    BOOST_TEST((i.mode == trigger::level));
    BOOST_TEST(i.waiters == 0u);
    BOOST_TEST(i.waited_for.empty());
    BOOST_TEST(i.cached.empty());
    BOOST_TEST(!i.attached);
    BOOST_TEST(!i.always_ready);
    BOOST_TEST(!i.read_armed);
    test::fill(p.a);
    test::called a, b, c;
    reg.async_wait_readable(a.handler());
    reg.async_wait_writable(b.handler());
    reg.async_wait(interest::priority, c.handler());
    i = of(p.a);
    BOOST_TEST(i.waiters == 3u);
    BOOST_TEST(i.waited_for == (interest::readable | interest::writable | interest::priority));
    BOOST_TEST(i.attached);
    BOOST_TEST(i.read_armed);
    BOOST_TEST(i.write_armed);
    BOOST_TEST(i.priority_armed);
    std::uint32_t tick = i.read_tick;
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(a); });
    i = of(p.a);
    BOOST_TEST(i.cached == interest::readable);
    BOOST_TEST(i.waiters == 2u);
    BOOST_TEST(i.read_tick > tick);
    reg.deregister();
    BOOST_TEST(service.snapshot().size() == 1u);
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_snapshot_shows_for_how_long_the_oldest_operation_has_been_pending,
                        fixture) {
    auto pending_for = [&] { return service.snapshot().at(0).pending_for.count(); };
    BOOST_TEST(pending_for() == 0);
    test::called first, second;
    reg.async_wait(interest::priority, first.handler());
    BOOST_TEST(pending_for() == 0); // the first snapshot that sees the operation
    BOOST_TEST(test::wait_for([&] { return pending_for() > 3; }));
    reg.async_wait_readable(second.handler());
    BOOST_TEST(pending_for() > 3); // the oldest's
    reg.cancel();
    test::run_all(io);
    BOOST_TEST(pending_for() == 0);
    reg.async_wait_readable(second.handler());
    BOOST_TEST(pending_for() == 0);
    reg.cancel();
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_snapshot_counts_for_each_handle, fixture) {
    moor::registration_info i = service.snapshot().at(0);
    BOOST_TEST(i.path.rfind("socket:[", 0) == 0u);
    BOOST_TEST(i.waits_started == 0u);
    test::pending_reader reader(io, reg);
    const auto checks = service.snapshot().at(0).readiness_checks;
    BOOST_TEST(checks != 0u);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(reader); });
    i = service.snapshot().at(0);
    BOOST_TEST(i.waits_started == 1u);
    BOOST_TEST(i.events_delivered == 1u);
    BOOST_TEST(i.events_unhandled == 0u);
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_never_blocks_is_shown_as_such, fixture) {
    char name[] = "/tmp/moor-test-XXXXXX";
    test::unique_fd file(::mkstemp(name));
    ::unlink(name);
    moor::registration r(io, file.get());
    auto infos = service.snapshot();
    BOOST_TEST(std::count_if(infos.begin(), infos.end(), [](auto& i) { return i.always_ready; }) ==
               1);
}

BOOST_FIXTURE_TEST_CASE(dump_prints_a_table_a_person_can_read, fixture) {
    test::fd_pair q = test::make_socketpair();
    moor::registration edge(io, q.a.get(), trigger::edge);
    test::called done;
    reg.async_wait(interest::readable | interest::priority, done.handler());
    std::ostringstream os;
    os << std::hex << std::setfill('*') << std::setw(3); // is left alone
    service.dump(os);
    std::string s = os.str();
    BOOST_TEST_MESSAGE(s);
    BOOST_TEST((os.flags() & std::ios::basefield) == std::ios::hex);
    BOOST_TEST(os.fill() == '*');
    BOOST_TEST(s.find(std::to_string(p.a.get())) != std::string::npos);
    BOOST_TEST(s.find("readable|priority") != std::string::npos);
    BOOST_TEST(s.find("level") != std::string::npos);
    BOOST_TEST(s.find("edge") != std::string::npos);
    BOOST_TEST(s.find("socket:[") != std::string::npos);
    BOOST_TEST(s.find("registered 2") != std::string::npos);
    BOOST_TEST(s.find(test::backend()) != std::string::npos);
    BOOST_TEST(std::count(s.begin(), s.end(), '\n') == 4); // a heading, two handles, the counts
    BOOST_TEST(s.find('*') == std::string::npos);
    reg.cancel();
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(dump_keeps_its_columns_apart_whatever_is_in_them, fixture) {
    p.b.close();
    test::called done;
    reg.async_wait(interest::read_closed | interest::write_closed | interest::error |
                       interest::readable | interest::writable | interest::priority,
                   done.handler());
    test::run_all(io);
    std::ostringstream os;
    service.dump(os);
    std::string s = os.str();
    std::size_t at = s.find("write_closed");
    BOOST_REQUIRE(at != std::string::npos);
    BOOST_TEST(s[at + std::string("write_closed").size()] == ' ');
}

// ---- the budget --------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_inline_budget_is_128_unless_set, fixture) {
    BOOST_TEST(service.inline_budget() == 128u);
    service.inline_budget(5);
    BOOST_TEST(service.inline_budget() == 5u);
    asio::io_context other;
    BOOST_TEST(moor::use_registration_service(other).inline_budget() == 128u);
}

BOOST_AUTO_TEST_SUITE_END()
