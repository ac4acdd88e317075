// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// registration_options::duplicate: Moor registers a duplicate of the handle. It is for handles that
// something else in the context has, and is closed once, whatever ends the registration.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(duplicates)

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::registration_options;
using moor::trigger;
using test::error_code;
using test::is_open;

constexpr registration_options duplicate(trigger::level, true);

static_assert(!registration_options().duplicate, "");
static_assert(!registration_options(trigger::edge).duplicate, "");
static_assert(registration_options(trigger::edge, true).mode == trigger::edge, "");
static_assert(std::is_convertible<trigger, registration_options>::value, "");

/// The numbers that stand for the file of a number, in order.
std::vector<int> numbers_of(int fd) {
    struct ::stat file, other;
    BOOST_REQUIRE_EQUAL(::fstat(fd, &file), 0);
    std::vector<int> numbers;
    for (int n = 0; n != 1024; ++n)
        if (::fstat(n, &other) == 0 && other.st_dev == file.st_dev && other.st_ino == file.st_ino)
            numbers.push_back(n);
    return numbers;
}

bool has_duplicate(int fd) { return numbers_of(fd).size() == 2; }
bool has_none(int fd) { return numbers_of(fd) == std::vector<int>{fd}; }

/// The number of the duplicate.
int duplicate_of(int fd) {
    std::vector<int> n = numbers_of(fd);
    BOOST_REQUIRE_EQUAL(n.size(), 2u);
    return n[0] == fd ? n[1] : n[0];
}

/// Opens a file under this number, which is free.
test::unique_fd reopen(int number) {
    test::unique_fd other(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (other == number)
        return other;
    BOOST_REQUIRE(!is_open(number));
    return test::unique_fd(::fcntl(other, F_DUPFD_CLOEXEC, number));
}

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
};

} // namespace

// ---- what a duplicate is for --------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_close_of_a_peer_is_seen_while_nobody_reads_the_asio_socket, fixture) {
    for (trigger t : test::both_triggers) {
        test::fd_pair tcp = test::make_tcp_pair();
        asio::ip::tcp::socket socket(io, asio::ip::tcp::v4(), tcp.a.release());
        // Asio has the handle in its reactor.
        test::called asio_wait;
        socket.async_wait(asio::ip::tcp::socket::wait_error, asio_wait.handler());
        test::run_ready(io);
        moor::registration reg(io, socket, registration_options(t, true));
        test::called_event closed;
        reg.async_wait(interest::read_closed, closed.handler());
        test::put(tcp.b, "unread");
        test::check_pends(io, closed);
        tcp.b.close();
        test::run_until(io, [&] { return bool(closed); });
        BOOST_TEST(!closed.ec);
        BOOST_TEST(closed.value.is_read_closed());
        // The socket works on.
        std::array<char, 16> bytes{};
        test::called read;
        socket.async_read_some(asio::buffer(bytes), read.handler());
        test::run_until(io, [&] { return bool(read); });
        BOOST_TEST(!read.ec);
        BOOST_TEST(std::string(bytes.data()) == "unread");
        reg.deregister();
        socket.cancel();
        test::run_until(io, [&] { return bool(asio_wait); });
    }
}

BOOST_FIXTURE_TEST_CASE(priority_events_of_an_asio_socket_are_seen, fixture) {
    test::fd_pair tcp = test::make_tcp_pair();
    asio::ip::tcp::socket socket(io, asio::ip::tcp::v4(), tcp.a.release());
    test::called asio_wait;
    socket.async_wait(asio::ip::tcp::socket::wait_read, asio_wait.handler());
    registration_options options;
    options.duplicate = true;
    moor::registration reg(io, socket, options);
    test::called_event urgent;
    reg.async_wait(interest::priority, urgent.handler());
    test::check_pends(io, urgent);
    BOOST_REQUIRE_EQUAL(::send(tcp.b, "!", 1, MSG_OOB), 1);
    test::run_until(io, [&] { return bool(urgent); });
    BOOST_TEST(!urgent.ec);
    BOOST_TEST(urgent.value.is_priority());
    reg.deregister();
    socket.cancel();
    test::run_until(io, [&] { return bool(asio_wait); });
}

BOOST_FIXTURE_TEST_CASE(two_registrations_watch_one_descriptor, fixture) {
    for (trigger t : test::both_triggers) {
        moor::registration own(io, p.a, t);
        moor::registration first(io, p.a, registration_options(t, true));
        moor::registration second(io, p.a, registration_options(t, true));
        BOOST_TEST(numbers_of(p.a).size() == 3u);
        test::pending_reader a(io, own), b(io, first), c(io, second);
        test::put(p.b, "x");
        for (test::called* done : {static_cast<test::called*>(&a), static_cast<test::called*>(&b),
                                   static_cast<test::called*>(&c)})
            test::check_completes(io, *done);
        BOOST_TEST(test::get(p.a) == "x");
        // The end of one is none of the others'.
        first.deregister();
        test::pending_reader d(io, own), e(io, second);
        test::put(p.b, "y");
        test::check_completes(io, d);
        test::check_completes(io, e);
        BOOST_TEST(test::get(p.a) == "y");
    }
}

BOOST_FIXTURE_TEST_CASE(a_duplicate_of_a_pipe_is_waited_for_in_both_triggers, fixture) {
    for (trigger t : test::both_triggers) {
        test::fd_pair pipe = test::make_pipe();
        moor::registration reader(io, pipe.a, registration_options(t, true));
        moor::registration writer(io, pipe.b, registration_options(t, true));
        test::check_writable(io, writer);
        for (int i = 0; i != 3; ++i)
            test::check_works(io, reader, pipe.a, pipe.b);
    }
}

BOOST_FIXTURE_TEST_CASE(a_registration_on_a_strand_may_have_a_duplicate, fixture) {
    moor::registration reg(asio::any_io_executor(asio::make_strand(io)), p.a, duplicate);
    test::check_works(io, reg, p.a, p.b);
}

// ---- numbers and flags --------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_registration_has_the_callers_number, fixture) {
    moor::registration reg(io, p.a, duplicate);
    BOOST_TEST(reg.native_handle() == p.a.get());
    moor::registration moved(std::move(reg));
    BOOST_TEST(moved.native_handle() == p.a.get());
    BOOST_TEST(reg.native_handle() == -1);
    BOOST_TEST(moved.deregister() == p.a.get());
    BOOST_TEST(moved.native_handle() == -1);
}

BOOST_FIXTURE_TEST_CASE(snapshot_and_dump_show_the_callers_number, fixture) {
    moor::registration own(io, p.a);
    moor::registration reg(io, p.a, duplicate);
    reg.name("second");
    auto& service = moor::use_registration_service(io);
    auto infos = service.snapshot();
    BOOST_REQUIRE_EQUAL(infos.size(), 2u);
    for (const auto& i : infos)
        BOOST_TEST(i.native_handle == p.a.get());
    BOOST_TEST((infos[0].name == "second" || infos[1].name == "second"));
    std::ostringstream os;
    service.dump(os);
    std::size_t rows = 0;
    const std::string row = "\n" + std::to_string(p.a.get()) + " ";
    const std::string text = os.str();
    for (std::size_t i = text.find(row); i != std::string::npos; i = text.find(row, i + 1))
        ++rows;
    BOOST_TEST(rows == 2u);
}

BOOST_FIXTURE_TEST_CASE(a_duplicate_is_closed_on_exec_and_shares_the_status_flags, fixture) {
    const int flags = ::fcntl(p.a, F_GETFL);
    moor::registration reg(io, p.a, duplicate);
    const int number = duplicate_of(p.a);
    BOOST_TEST(::fcntl(number, F_GETFD) == FD_CLOEXEC);
    BOOST_TEST(::fcntl(number, F_GETFL) == flags);
    BOOST_TEST(::fcntl(p.a, F_GETFL) == flags);
}

BOOST_FIXTURE_TEST_CASE(a_duplicate_costs_one_fcntl_and_one_close_and_others_cost_none, fixture) {
    moor::registration warm(io, p.b);
    for (bool duplicates : {false, true}) {
        const long dups = test::calls_of(test::call::fcntl_dup);
        const long closes = test::calls_of(test::call::close);
        {
            moor::registration reg(io, p.a, registration_options(trigger::level, duplicates));
            BOOST_TEST(has_duplicate(p.a) == duplicates);
        }
        BOOST_TEST(test::calls_of(test::call::fcntl_dup) - dups == (duplicates ? 1 : 0));
        BOOST_TEST(test::calls_of(test::call::close) - closes == (duplicates ? 1 : 0));
    }
}

// ---- the end of a registration closes the duplicate, and nothing else ---------------------------

namespace {

enum class way { deregister, abandon, destroy, reset, move_assign, service_close, context };

constexpr way ways[] = {way::deregister,  way::abandon,       way::destroy, way::reset,
                        way::move_assign, way::service_close, way::context};

const char* name_of(way w) {
    switch (w) {
    case way::deregister:
        return "deregister";
    case way::abandon:
        return "abandon";
    case way::destroy:
        return "the destructor";
    case way::reset:
        return "reset";
    case way::move_assign:
        return "a move assignment";
    case way::service_close:
        return "the service's close";
    case way::context:
        return "the end of the context";
    }
    return "";
}

template <class F>
void for_each_end(F f) {
    for (way w : ways)
        for (trigger t : test::both_triggers)
            for (bool waits : {false, true})
                BOOST_TEST_CONTEXT("ended by " << name_of(w) << (waits ? ", with a wait" : "")) {
                    f(w, t, waits);
                }
}

/// A registration of a duplicate, and what ends it.
struct ending {
    std::unique_ptr<asio::io_context> io = std::make_unique<asio::io_context>();
    test::fd_pair p = test::make_socketpair();
    test::fd_pair q = test::make_socketpair();
    std::optional<moor::registration> reg;
    test::called wait;

    ending(trigger t, bool waits) {
        reg.emplace(*io, p.a, registration_options(t, true));
        if (waits) {
            reg->async_wait_readable(wait.handler());
            test::run_ready(*io);
        }
    }

    void end(way w) {
        switch (w) {
        case way::deregister:
            reg->deregister();
            break;
        case way::abandon:
            reg->abandon();
            break;
        case way::destroy:
            reg.reset();
            break;
        case way::reset:
            reg->reset(q.a);
            break;
        case way::move_assign:
            *reg = moor::registration(*io);
            break;
        case way::service_close:
            moor::use_registration_service(*io).close();
            break;
        case way::context:
            io.reset();
            break;
        }
    }
};

} // namespace

BOOST_AUTO_TEST_CASE(each_end_of_a_registration_closes_the_duplicate_once) {
    for_each_end([](way w, trigger t, bool waits) {
        ending e(t, waits);
        const int number = duplicate_of(e.p.a);
        e.end(w);
        BOOST_TEST(has_none(e.p.a));
        // Somebody else gets the number, and keeps it.
        test::unique_fd other = reopen(number);
        BOOST_TEST(other == number);
        if (e.io)
            test::run_ready(*e.io);
        e.reg.reset();
        if (e.io)
            test::run_ready(*e.io);
        e.io.reset();
        BOOST_TEST(is_open(other));
        BOOST_TEST(is_open(e.p.a));
        BOOST_TEST(e.wait.times == (waits && w != way::context ? 1 : 0));
    });
}

BOOST_AUTO_TEST_CASE(a_registration_keeps_the_callers_number_after_its_service_or_context) {
    for (way w : {way::service_close, way::context}) {
        ending e(trigger::level, true);
        const int number = e.p.a;
        e.end(w);
        BOOST_TEST(e.reg->native_handle() == number);
        BOOST_TEST(e.reg->deregister() == number);
        BOOST_TEST(is_open(number));
        if (e.io)
            test::run_ready(*e.io);
    }
}

BOOST_AUTO_TEST_CASE(the_end_of_a_registration_leaves_the_callers_number_alone) {
    // The owner has closed the number, and somebody else has it.
    for_each_end([](way w, trigger t, bool waits) {
        ending e(t, waits);
        const int number = e.p.a;
        e.p.a.close();
        test::unique_fd other = reopen(number);
        BOOST_TEST(other == number);
        e.end(w);
        if (e.io)
            test::run_ready(*e.io);
        e.reg.reset();
        e.io.reset();
        BOOST_TEST(is_open(other));
        BOOST_TEST(test::get(e.p.b).empty()); // the end of the file: nobody has it any more
        char c;
        BOOST_TEST(::recv(e.p.b, &c, 1, MSG_DONTWAIT) == 0);
    });
}

BOOST_FIXTURE_TEST_CASE(abandon_takes_the_duplicate_out_of_the_reactor, fixture) {
    // The file stays open, and epoll would go on to report its events.
    moor::registration reg(io, p.a, duplicate);
    test::pending_reader wait(io, reg);
    const auto before = test::counts();
    reg.abandon();
    BOOST_TEST((test::counts() - before).epoll_ctl == (test::on_epoll() ? 1 : 0));
    test::check_fails(io, wait, test::aborted);
}

BOOST_FIXTURE_TEST_CASE(moving_a_registration_keeps_the_duplicate, fixture) {
    moor::registration reg(io, p.a, duplicate);
    const int number = duplicate_of(p.a);
    test::pending_reader wait(io, reg);
    moor::registration moved(std::move(reg));
    BOOST_TEST(duplicate_of(p.a) == number);
    test::put(p.b, "x");
    test::check_completes(io, wait);
    moor::registration other(io);
    other = std::move(moved);
    BOOST_TEST(duplicate_of(p.a) == number);
    other.deregister();
    BOOST_TEST(has_none(p.a));
}

BOOST_AUTO_TEST_CASE(a_service_and_a_registration_that_end_at_once_close_the_duplicate_once) {
    for (int i = 0; i != 100; ++i) {
        asio::io_context io;
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a, duplicate);
        test::called wait;
        reg.async_wait_readable(wait.handler());
        const long closes = test::calls_of(test::call::close);
        std::atomic<bool> go{false};
        std::thread closer([&] {
            while (!go)
                std::this_thread::yield();
            moor::use_registration_service(io).close();
        });
        go = true;
        reg.deregister();
        closer.join();
        BOOST_TEST(has_none(p.a));
        // (select and io_uring may close an edge-triggered set as well.)
        if (test::on_epoll())
            BOOST_TEST(test::calls_of(test::call::close) - closes == 1);
        test::run_all(io);
        BOOST_TEST(wait.times == 1);
    }
}

BOOST_AUTO_TEST_CASE(duplicates_are_registered_and_ended_while_a_pool_runs) {
    asio::thread_pool pool(2);
    test::fd_pair p = test::make_socketpair();
    std::atomic<int> over{0};
    constexpr int rounds = 100;
    std::vector<std::thread> threads;
    for (int t = 0; t != 2; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i != rounds; ++i) {
                moor::registration reg(pool, p.a, duplicate);
                reg.async_wait_readable([&](error_code) { ++over; });
            }
        });
    for (std::thread& t : threads)
        t.join();
    pool.join();
    BOOST_TEST(over == 2 * rounds);
    BOOST_TEST(has_none(p.a));
}

// ---- the owner closes the handle ----------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(waits_go_on_when_the_owner_closes_the_handle, fixture) {
    for (trigger t : test::both_triggers) {
        test::fd_pair s = test::make_socketpair();
        moor::registration reg(io, s.a, registration_options(t, true));
        test::pending_reader wait(io, reg);
        s.a.close();
        test::check_pends(io, wait);
        test::put(s.b, "x");
        test::check_completes(io, wait);
    }
}

BOOST_FIXTURE_TEST_CASE(the_peer_sees_no_end_of_file_until_the_registration_ends, fixture) {
    char c;
    {
        moor::registration reg(io, p.a, duplicate);
        test::check_writable(io, reg);
        p.a.close();
        BOOST_TEST(::recv(p.b, &c, 1, MSG_DONTWAIT) == -1);
        BOOST_TEST(errno == EAGAIN);
    }
    test::run_ready(io); // io_uring's request keeps the file
    BOOST_TEST(::recv(p.b, &c, 1, MSG_DONTWAIT) == 0);
}

// ---- renew and reset ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(renew_compares_the_file_behind_the_callers_number, fixture) {
    moor::registration reg(io, p.a, duplicate);
    const int number = p.a;
    const int own = duplicate_of(number);
    test::pending_reader wait(io, reg);
    BOOST_TEST(!reg.renew(number, duplicate));
    BOOST_TEST(duplicate_of(number) == own);
    test::check_pends(io, wait);
    // The library closes the number, and opens another file under it.
    test::fd_pair other = test::make_socketpair();
    p.a.close();
    BOOST_REQUIRE_EQUAL(::fcntl(other.a, F_DUPFD_CLOEXEC, number), number);
    test::unique_fd renewed(number);
    other.a.close();
    BOOST_TEST(reg.renew(number, duplicate));
    test::check_fails(io, wait, test::aborted);
    BOOST_TEST(reg.native_handle() == number);
    BOOST_TEST(has_duplicate(number));
    test::check_works(io, reg, number, other.b);
    char c;
    BOOST_TEST(::recv(p.b, &c, 1, MSG_DONTWAIT) == 0); // nothing is left of the first
}

BOOST_FIXTURE_TEST_CASE(reset_takes_the_options_anew, fixture) {
    moor::registration reg(io, p.a, duplicate);
    reg.reset(p.a);
    BOOST_TEST(has_none(p.a));
    BOOST_TEST(reg.native_handle() == p.a.get());
    test::check_works(io, reg, p.a, p.b);
    reg.reset(p.a, duplicate);
    BOOST_TEST(has_duplicate(p.a));
    test::check_works(io, reg, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(a_state_used_again_has_no_duplicate, fixture) {
    { moor::registration reg(io, p.a, duplicate); }
    const long closes = test::calls_of(test::call::close);
    {
        moor::registration reg(io, p.a);
        BOOST_TEST(reg.native_handle() == p.a.get());
    }
    BOOST_TEST(test::calls_of(test::call::close) == closes);
    BOOST_TEST(is_open(p.a));
}

// ---- errors -------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_number_that_is_not_open_is_refused, fixture) {
    moor::registration reg(io);
    error_code ec;
    reg.register_handle(-1, duplicate, ec);
    BOOST_TEST(ec == test::bad_descriptor);
    const int number = p.a;
    p.a.close();
    reg.register_handle(number, duplicate, ec);
    BOOST_TEST(ec == test::bad_descriptor);
    BOOST_TEST(!reg.is_registered());
}

BOOST_FIXTURE_TEST_CASE(the_errors_of_the_duplication_come_out_of_register_handle, fixture) {
    moor::registration reg(io);
    error_code ec;
    {
        test::fault none_left(test::call::fcntl_dup, EMFILE);
        reg.register_handle(p.a, duplicate, ec);
        BOOST_TEST(ec == asio::error::no_descriptors);
        BOOST_CHECK_THROW(reg.register_handle(p.a, duplicate), boost::system::system_error);
    }
    BOOST_TEST(!reg.is_registered());
    BOOST_TEST(has_none(p.a));
    reg.register_handle(p.a, duplicate, ec);
    BOOST_TEST(!ec);
    test::check_works(io, reg, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(a_failed_registration_closes_the_duplicate, fixture) {
    moor::registration reg(io);
    error_code ec;
    {
        test::fault fails(test::call::fstat, ENOMEM);
        reg.register_handle(p.a, duplicate, ec);
        BOOST_TEST(ec.value() == ENOMEM);
    }
    BOOST_TEST(has_none(p.a));
    reg.register_handle(p.a, duplicate);
    reg.register_handle(p.a, duplicate, ec);
    BOOST_TEST(ec == test::already_open);
    BOOST_TEST(has_duplicate(p.a));
    reg.deregister();
    moor::use_registration_service(io).close();
    reg.register_handle(p.a, duplicate, ec);
    BOOST_TEST(ec == test::gone);
    BOOST_TEST(has_none(p.a));
}

BOOST_FIXTURE_TEST_CASE(without_memory_the_duplicate_is_closed, fixture,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    moor::registration reg(io);
    {
        test::out_of_memory none;
        BOOST_CHECK_THROW(reg.register_handle(p.a, duplicate), std::bad_alloc);
    }
    BOOST_TEST(!reg.is_registered());
    BOOST_TEST(has_none(p.a));
}

BOOST_FIXTURE_TEST_CASE(a_duplicate_that_was_closed_behind_moors_back_is_not_closed_twice,
                        fixture) {
    // As by a closefrom(2) in the wrong place: the number is another file's when it is registered.
    moor::registration reg(io, p.a, duplicate);
    const int number = duplicate_of(p.a);
    ::close(number);
    test::fd_pair other = test::make_socketpair();
    BOOST_REQUIRE_EQUAL(std::min(other.a.get(), other.b.get()), number);
    test::unique_fd& reused = other.a == number ? other.a : other.b;
    moor::registration next(io, reused);
    reg.deregister();
    BOOST_TEST(is_open(number));
    test::check_works(io, next, number, other.a == number ? other.b : other.a);
}

// ---- numbers ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_duplicate_may_get_the_number_of_a_handle_that_was_closed, fixture) {
    // A library closes its number; its registration ends a moment later.
    for (bool is_anonymous : {false, true}) {
        test::unique_fd kept(is_anonymous ? ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
                                          : test::duplicate(p.a));
        test::unique_fd closed(is_anonymous ? ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
                                            : test::duplicate(p.a));
        moor::registration stale(io, closed);
        test::called aborted;
        stale.async_wait_readable(aborted.handler());
        test::run_ready(io);
        // The kernel gives out the lowest number that is free.
        const int number = closed.release();
        std::vector<test::unique_fd> below;
        for (int n = 3; n < number; ++n)
            if (!is_open(n))
                below.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        ::close(number);
        error_code ec;
        moor::registration reg(io);
        reg.register_handle(kept, duplicate, ec);
        BOOST_TEST(!ec, ec.message());
        BOOST_TEST(is_open(number));
        stale.abandon();
        BOOST_TEST(is_open(number));
        test::run_until(io, [&] { return bool(aborted); });
        test::called wait;
        reg.async_wait_readable(wait.handler());
        test::check_pends(io, wait);
        reg.deregister();
        BOOST_TEST(!is_open(number));
        test::run_until(io, [&] { return bool(wait); });
    }
}

BOOST_FIXTURE_TEST_CASE(a_duplicate_is_never_a_standard_stream, fixture) {
    test::unique_fd input(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
    ::close(STDIN_FILENO);
    moor::registration reg(io, p.a, duplicate);
    const std::vector<int> numbers = numbers_of(p.a);
    ::dup2(input, STDIN_FILENO);
    BOOST_TEST(numbers.size() == 2u);
    BOOST_TEST(numbers[0] > STDERR_FILENO);
}

BOOST_FIXTURE_TEST_CASE(a_duplicate_that_somebody_closed_is_not_closed_again, fixture) {
    moor::registration reg(io, p.a, duplicate);
    const int number = duplicate_of(p.a);
    ::close(number);
    test::unique_fd stranger = reopen(number);
    reg.deregister();
    BOOST_TEST(is_open(stranger));
}

BOOST_AUTO_TEST_CASE(a_handler_learns_of_the_end_after_the_duplicate_was_closed) {
    test::fd_pair p = test::make_socketpair();
    asio::thread_pool pool(1);
    for (int i = 0; i != 300; ++i) {
        moor::registration reg(pool, p.a, duplicate);
        const int number = duplicate_of(p.a);
        std::promise<bool> was_open;
        reg.async_wait_readable([&](error_code) { was_open.set_value(is_open(number)); });
        reg.deregister();
        BOOST_TEST(!was_open.get_future().get());
    }
}

BOOST_FIXTURE_TEST_CASE(a_socket_that_asio_opened_can_be_closed_after_the_registration, fixture) {
    // Asio leaves it to the kernel to take such a socket out of epoll, which happens with the last
    // number of the file only.
    using tcp = asio::ip::tcp;
    asio::io_context other;
    tcp::acceptor acceptor(other, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    auto connect = [&](tcp::socket& socket, tcp::socket& peer) {
        socket.open(tcp::v4());
        socket.connect(acceptor.local_endpoint());
        acceptor.accept(peer);
    };
    tcp::socket first(io), first_peer(other), second(io), second_peer(other);
    connect(first, first_peer);
    moor::registration reg(io, first, duplicate);
    test::called closed;
    reg.async_wait(interest::read_closed,
                   [&](error_code ec, moor::ready_event) { closed.handler()(ec); });
    test::run_ready(io);
    reg.deregister();
    first.close();
    test::run_until(io, [&] { return bool(closed); });
    connect(second, second_peer);
    test::called wait;
    second.async_wait(tcp::socket::wait_read, wait.handler());
    error_code ec;
    first_peer.write_some(asio::buffer("x", 1), ec);
    test::check_pends(io, wait);
    second_peer.write_some(asio::buffer("x", 1));
    test::run_until(io, [&] { return bool(wait); });
}

BOOST_AUTO_TEST_SUITE_END()
