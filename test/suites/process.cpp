// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Children, and how they end. Each is a real one, which ends when the test says so; the test reaps
// what Moor has not reaped, and looks at no other child.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/sanitizers.hpp"
#include "support/tracker.hpp"
#include "support/vocabulary.hpp"

#include <moor/process.hpp>
#include <moor/stream_descriptor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
namespace errc = boost::system::errc;
using moor::exit_status;
using test::aborted;
using test::call;
using test::error_code;
using test::gone;

/// The status word of a child that exited with this code.
constexpr exit_status exited(int code) { return exit_status(code << 8); }
/// The same of one that this signal ended.
constexpr exit_status killed(int signal) { return exit_status(signal); }

constexpr ::idtype_t by_pidfd = static_cast<::idtype_t>(3); // P_PIDFD

/// A child of the test's. It ends when it is told its exit code, or by a signal, or with the test,
/// and is reaped in the end.
class child {
public:
    explicit child(const std::function<void()>& does_first = [] {}) {
        ::pid_t parent = ::getpid();
        pid_ = ::fork();
        if (pid_ == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (::getppid() != parent)
                ::_exit(99);
            does_first();
            unsigned char code = 98;
            ::_exit(::read(gate_.a, &code, 1) == 1 ? code : 97);
        }
        BOOST_REQUIRE_GT(pid_, 0);
        gate_.a.close();
        pidfd_ = test::unique_fd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0u)));
    }
    child(const child&) = delete;
    child& operator=(const child&) = delete;
    ~child() {
        signal(SIGKILL);
        ::siginfo_t info;
        ::waitid(by_pidfd, static_cast<::id_t>(pidfd_.get()), &info, WEXITED);
    }

    ::pid_t pid() const { return pid_; }
    int pidfd() const { return pidfd_; }

    void exit(int code) { test::put(gate_.b, std::string(1, static_cast<char>(code))); }
    void signal(int number) const {
        ::syscall(SYS_pidfd_send_signal, pidfd_.get(), number, nullptr, 0u);
    }

    /// Waits until the child has ended, is stopped, or goes on, and leaves it to others to reap.
    bool wait_until(int event) const {
        ::siginfo_t info{};
        return ::waitid(by_pidfd, static_cast<::id_t>(pidfd_.get()), &info, event | WNOWAIT) == 0;
    }
    void exit_and_wait(int code) {
        exit(code);
        BOOST_REQUIRE(wait_until(WEXITED));
    }

    /// Reaps the child; the status word, or -1 if there is none.
    int reap() const {
        int status = -1;
        return ::waitpid(pid_, &status, 0) == pid_ ? status : -1;
    }
    /// Whether somebody has yet to reap the child: it runs, or is a zombie.
    bool is_there() const {
        ::siginfo_t info{};
        return ::waitid(by_pidfd, static_cast<::id_t>(pidfd_.get()), &info,
                        WEXITED | WNOHANG | WNOWAIT) == 0;
    }

private:
    test::fd_pair gate_ = [] {
        int p[2];
        BOOST_REQUIRE_EQUAL(::pipe2(p, O_CLOEXEC), 0);
        return test::fd_pair{test::unique_fd(p[0]), test::unique_fd(p[1])};
    }();
    ::pid_t pid_ = -1;
    test::unique_fd pidfd_;
};

/// A handler of both kinds of wait.
struct ended : test::called {
    exit_status status = killed(SIGUSR1); // of no child here
    ::rusage usage{};

    auto handler() {
        return [this](error_code e, exit_status s, auto... u) {
            ++times;
            ec = e;
            status = s;
            ((usage = u), ...);
        };
    }
};

/// A wait that must stay pending for now.
void check_pends(asio::io_context& io, const ended& e) {
    test::run_ready(io);
    BOOST_TEST(e.times == 0);
}

/// A wait that must end once, with this status.
void check_ends(asio::io_context& io, const ended& e, exit_status expected) {
    test::run_until(io, [&] { return bool(e); });
    BOOST_TEST(e.times == 1);
    BOOST_CHECK_EQUAL(e.ec, error_code());
    BOOST_TEST(e.status == expected);
}

/// A wait that must end once, with this error, and no status.
template <class Error>
void check_fails(asio::io_context& io, const ended& e, const Error& expected) {
    test::run_until(io, [&] { return bool(e); });
    BOOST_TEST(e.times == 1);
    BOOST_CHECK_EQUAL(e.ec, expected);
    BOOST_TEST(e.status == exit_status());
    BOOST_TEST(e.usage.ru_maxrss == 0);
}

const errc::errc_t no_child = errc::no_child_process;

/// A loop and a child.
struct fixture : test::context_fixture {
    child c;
    moor::process p{io, c.pid()};
};

/// The kinds of wait.
struct wait_op {
    template <class Process, class Handler>
    static void start(Process& p, Handler&& h) {
        p.async_wait(std::forward<Handler>(h));
    }
};
struct usage_op {
    template <class Process, class Handler>
    static void start(Process& p, Handler&& h) {
        p.async_wait_usage(std::forward<Handler>(h));
    }
};
using all_operations = std::tuple<wait_op, usage_op>;

std::string text_of(exit_status s) {
    std::ostringstream os;
    os << s;
    return os.str();
}

long nanoseconds(const ::timeval& t) { return t.tv_sec * 1'000'000L + t.tv_usec; }

} // namespace

BOOST_AUTO_TEST_SUITE(process)

// ---- the status ---------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_status_tells_an_exit_code_from_a_signal) {
    exit_status three = exited(3), nine = killed(9), none;
    BOOST_TEST(three.exited());
    BOOST_TEST(!three.signaled());
    BOOST_TEST(three.code() == 3);
    BOOST_TEST(three.signal() == 0);
    BOOST_TEST(!nine.exited());
    BOOST_TEST(nine.signaled());
    BOOST_TEST(nine.code() == -1);
    BOOST_TEST(nine.signal() == 9);
    BOOST_TEST(!nine.core_dumped());
    BOOST_TEST(exit_status(6 | 0x80).core_dumped());
    BOOST_TEST(exit_status(6 | 0x80).signal() == 6);
    BOOST_TEST(!exited(128).core_dumped());
    BOOST_TEST(none.exited());
    BOOST_TEST(none.code() == 0);
    BOOST_TEST(exited(255).code() == 255);
    BOOST_TEST(WEXITSTATUS(three.native()) == 3);
    BOOST_TEST(WTERMSIG(nine.native()) == 9);
}

BOOST_AUTO_TEST_CASE(statuses_are_compared_and_printed) {
    BOOST_TEST((exited(3) == exited(3)));
    BOOST_TEST((exited(3) != exited(4)));
    BOOST_TEST((exited(9) != killed(9)));
    BOOST_TEST((exited(0) == exit_status()));
    BOOST_TEST(text_of(exited(3)) == "exited with 3");
    BOOST_TEST(text_of(exit_status()) == "exited with 0");
    BOOST_TEST(text_of(killed(9)).rfind("killed by signal 9", 0) == 0);
    std::string aborted_with_core = text_of(exit_status(6 | 0x80));
    BOOST_TEST(aborted_with_core.rfind("killed by signal 6", 0) == 0);
    BOOST_TEST(aborted_with_core.find(", core dumped") != std::string::npos);
    BOOST_TEST(text_of(killed(SIGRTMIN)) == "killed by signal " + std::to_string(SIGRTMIN));
#if defined(__GLIBC__)
#if __GLIBC_PREREQ(2, 32)
    BOOST_TEST(text_of(killed(9)) == "killed by signal 9 (SIGKILL)");
#endif
#endif
}

// ---- how a child ends ---------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(a_wait_has_the_exit_code, Op, all_operations) {
    for (int code : {0, 1, 3, 127, 128, 255}) {
        fixture f;
        ended e;
        Op::start(f.p, e.handler());
        check_pends(f.io, e);
        f.c.exit(code);
        check_ends(f.io, e, exited(code));
        BOOST_TEST(!f.c.is_there());
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_wait_has_the_signal, Op, all_operations) {
    for (int signal : {SIGKILL, SIGTERM, SIGUSR1, SIGRTMIN}) {
        fixture f;
        ended e;
        Op::start(f.p, e.handler());
        check_pends(f.io, e);
        f.p.kill(signal);
        check_ends(f.io, e, killed(signal));
    }
}

BOOST_FIXTURE_TEST_CASE(a_child_that_has_ended_before_can_be_adopted, test::context_fixture) {
    child c;
    c.exit_and_wait(5);
    moor::process p(io, c.pid());
    BOOST_TEST(c.is_there());
    ended e;
    p.async_wait(e.handler());
    BOOST_TEST(e.times == 0);
    check_ends(io, e, exited(5));
}

BOOST_FIXTURE_TEST_CASE(a_child_that_is_stopped_or_continued_has_not_ended, fixture) {
    ended e;
    p.async_wait(e.handler());
    p.kill(SIGSTOP);
    BOOST_REQUIRE(c.wait_until(WSTOPPED));
    check_pends(io, e);
    p.kill(SIGCONT);
    BOOST_REQUIRE(c.wait_until(WCONTINUED));
    check_pends(io, e);
    c.exit(6);
    check_ends(io, e, exited(6));
}

BOOST_FIXTURE_TEST_CASE(a_child_without_its_first_thread_has_not_ended, test::context_fixture) {
    test::fd_pair pipe = test::make_pipe();
    child c([&] {
        std::thread([&] {
            char byte;
            while (::read(pipe.a, &byte, 1) != 1)
                ::sched_yield();
            ::_exit(7);
        }).detach();
        ::syscall(SYS_exit, 1); // this thread only
    });
    moor::process p(io, c.pid());
    ended e;
    p.async_wait(e.handler());
    // The first thread is a zombie, while the process runs.
    std::string stat = "/proc/" + std::to_string(c.pid()) + "/stat";
    BOOST_REQUIRE(test::wait_for([&] {
        test::unique_fd file(::open(stat.c_str(), O_RDONLY | O_CLOEXEC));
        return test::get(file).find(") Z") != std::string::npos;
    }));
    check_pends(io, e);
    test::put(pipe.b, "x");
    check_ends(io, e, exited(7));
}

BOOST_FIXTURE_TEST_CASE(a_child_that_was_spawned_says_something_and_ends, test::context_fixture) {
    int out[2];
    BOOST_REQUIRE_EQUAL(::pipe2(out, O_CLOEXEC), 0);
    test::unique_fd writer(out[1]);
    moor::stream_descriptor reader(io, out[0]);
    ::posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, writer, STDOUT_FILENO);
    std::string name = "/bin/sh", option = "-c", script = "echo said by a child; exit 4";
    char* arguments[] = {&name[0], &option[0], &script[0], nullptr};
    ::pid_t pid = -1;
    BOOST_REQUIRE_EQUAL(::posix_spawn(&pid, name.c_str(), &actions, nullptr, arguments, environ),
                        0);
    ::posix_spawn_file_actions_destroy(&actions);
    writer.close();

    moor::process p(io, pid);
    BOOST_TEST(p.id() == pid);
    ended e;
    p.async_wait(e.handler());
    std::string said;
    test::called read;
    asio::async_read(reader, asio::dynamic_buffer(said), read.handler());
    check_ends(io, e, exited(4));
    test::run_until(io, [&] { return bool(read); });
    BOOST_CHECK_EQUAL(read.ec, asio::error::eof);
    BOOST_TEST(said == "said by a child\n");
    int status = 0;
    BOOST_TEST(::waitpid(pid, &status, WNOHANG) == -1); // reaped
}

/// The child sends what it knows of itself just before its end.
BOOST_FIXTURE_TEST_CASE(the_usage_is_that_of_the_child, test::context_fixture) {
    test::fd_pair pipe = test::make_pipe();
    constexpr std::size_t size = 24 << 20, page = 4096;
    child c([&] {
        auto* memory = static_cast<volatile char*>(
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        for (std::size_t i = 0; i < size; i += page)
            memory[i] = 1;
        ::rusage u{};
        while (nanoseconds(u.ru_utime) + nanoseconds(u.ru_stime) < 20'000)
            ::getrusage(RUSAGE_SELF, &u);
        [[maybe_unused]] auto n = ::write(pipe.b, &u, sizeof(u));
    });
    moor::process p(io, c.pid());
    ended first, second, without;
    p.async_wait_usage(first.handler());
    p.async_wait(without.handler());
    c.exit(8);
    check_ends(io, first, exited(8));
    check_ends(io, without, exited(8));
    p.async_wait_usage(second.handler());
    check_ends(io, second, exited(8));

    std::string text = test::get(pipe.a, sizeof(::rusage));
    BOOST_REQUIRE_EQUAL(text.size(), sizeof(::rusage));
    ::rusage said;
    std::copy_n(text.data(), sizeof(said), reinterpret_cast<char*>(&said));
    for (const ::rusage& u : {first.usage, second.usage}) {
        // The kernel does not divide the time exactly into these two.
        BOOST_TEST(nanoseconds(u.ru_utime) + nanoseconds(u.ru_stime) >= 20'000);
        BOOST_TEST(u.ru_maxrss >= said.ru_maxrss);
        BOOST_TEST(u.ru_maxrss < said.ru_maxrss + (64 << 10));
        BOOST_TEST(u.ru_minflt >= said.ru_minflt);
        BOOST_TEST(u.ru_minflt >= long(size / page / 512)); // with huge pages, if there are any
        BOOST_TEST(u.ru_minflt < said.ru_minflt + 10'000);
        BOOST_TEST(u.ru_nvcsw >= said.ru_nvcsw);
        BOOST_TEST(u.ru_nivcsw >= said.ru_nivcsw);
    }
    BOOST_TEST(first.usage.ru_utime.tv_usec == second.usage.ru_utime.tv_usec);
    BOOST_TEST(first.usage.ru_minflt == second.usage.ru_minflt);
}

// ---- several waits, and later ones --------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(all_waits_have_the_status, fixture) {
    ended e[6];
    for (int i = 0; i != 6; ++i)
        i % 2 == 0 ? p.async_wait(e[i].handler()) : p.async_wait_usage(e[i].handler());
    test::run_ready(io);
    c.exit(9);
    for (const ended& each : e)
        check_ends(io, each, exited(9));
    BOOST_TEST(!c.is_there());
}

BOOST_FIXTURE_TEST_CASE(a_wait_after_the_end_has_the_status_and_asks_nobody, fixture) {
    ended first;
    p.async_wait(first.handler());
    c.exit(10);
    check_ends(io, first, exited(10));
    long calls = test::calls_of(call::waitid);
    for (int i = 0; i != 3; ++i) {
        ended later;
        p.async_wait(later.handler());
        BOOST_TEST(later.times == 0);
        check_ends(io, later, exited(10));
    }
    moor::process moved(std::move(p));
    ended of_moved;
    moved.async_wait(of_moved.handler());
    check_ends(io, of_moved, exited(10));
    BOOST_TEST(test::calls_of(call::waitid) == calls);
}

BOOST_FIXTURE_TEST_CASE(a_handler_may_wait_again_and_destroy_the_object, test::context_fixture) {
    child c;
    auto p = std::make_unique<moor::process>(io, c.pid());
    ended again;
    p->async_wait([&](error_code, exit_status) {
        p->async_wait([&, h = again.handler()](error_code ec, exit_status s) mutable {
            p.reset();
            h(ec, s);
        });
    });
    c.exit(11);
    check_ends(io, again, exited(11));
    BOOST_TEST(!p);
}

// ---- no status ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_wait_for_no_child_fails_at_once, test::context_fixture) {
    moor::process self(io, ::getpid()); // is not its own child, and goes on
    BOOST_TEST(self.id() == ::getpid());
    ended one, two;
    self.async_wait(one.handler());
    self.async_wait_usage(two.handler());
    BOOST_TEST(one.times + two.times == 0); // not from within
    check_fails(io, one, no_child);
    check_fails(io, two, no_child);
    self.kill(0);
}

BOOST_FIXTURE_TEST_CASE(a_status_that_went_elsewhere_is_not_waited_for, fixture) {
    ended pending, later;
    p.async_wait(pending.handler());
    test::run_ready(io);
    c.exit(12);
    BOOST_TEST(c.reap() == exited(12).native());
    check_fails(io, pending, no_child);
    p.async_wait(later.handler());
    check_fails(io, later, no_child);
    BOOST_TEST(p.id() == c.pid());
}

BOOST_FIXTURE_TEST_CASE(of_two_objects_for_one_child_one_has_the_status, fixture) {
    moor::process q(io, c.pid());
    ended one, two;
    p.async_wait(one.handler());
    q.async_wait(two.handler());
    test::run_ready(io);
    c.exit(13);
    test::run_until(io, [&] { return one && two; });
    BOOST_TEST((one.ec == no_child) != (two.ec == no_child));
    BOOST_TEST(((one.ec ? two : one).status == exited(13)));
}

BOOST_AUTO_TEST_CASE(no_status_is_kept_while_sigchld_is_ignored) {
    struct ignored {
        ignored() { ::signal(SIGCHLD, SIG_IGN); }
        ~ignored() { ::signal(SIGCHLD, SIG_DFL); }
    } scope;
    fixture f;
    ended e;
    f.p.async_wait(e.handler());
    check_pends(f.io, e);
    f.c.exit(0);
    check_fails(f.io, e, no_child);
}

BOOST_FIXTURE_TEST_CASE(other_children_and_sigchld_are_left_alone, fixture) {
    static std::atomic<int> signals;
    signals = 0;
    struct counted {
        struct ::sigaction before {};
        counted() {
            struct ::sigaction a {};
            a.sa_handler = [](int) { ++signals; };
            a.sa_flags = SA_RESTART;
            ::sigaction(SIGCHLD, &a, &before);
        }
        ~counted() { ::sigaction(SIGCHLD, &before, nullptr); }
    } scope;
    child before, after;
    ended e;
    p.async_wait(e.handler());
    before.exit_and_wait(20);
    check_pends(io, e);
    c.exit(21);
    check_ends(io, e, exited(21));
    after.exit_and_wait(22);
    test::run_ready(io);
    BOOST_TEST(before.reap() == exited(20).native());
    BOOST_TEST(after.reap() == exited(22).native());
    BOOST_TEST(test::wait_for([&] { return signals > 0; })); // equal signals are merged
    struct ::sigaction now {};
    ::sigaction(SIGCHLD, nullptr, &now);
    BOOST_TEST((now.sa_flags & SA_NOCLDWAIT) == 0);
    BOOST_TEST((now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN));
}

// ---- adopting -----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_process_that_is_not_there_cannot_be_adopted, test::context_fixture) {
    constexpr ::pid_t none = 0x7fff'fff0; // beyond pid_max, which is at most 2^22
    error_code ec;
    auto check_empty = [&](moor::process&& p) {
        BOOST_TEST(p.id() == -1);
        BOOST_TEST(p.native_handle() == -1);
        ended e;
        p.async_wait(e.handler());
        check_fails(io, e, test::not_registered);
        p.cancel();
        error_code killing;
        p.kill(SIGKILL, killing);
        BOOST_CHECK_EQUAL(killing, test::not_registered);
    };
    check_empty(moor::process(io, none, ec));
    BOOST_CHECK_EQUAL(ec, errc::no_such_process);
    for (::pid_t pid : {0, -1, -::getpid()}) {
        check_empty(moor::process(io, pid, ec));
        BOOST_CHECK_EQUAL(ec, errc::invalid_argument);
        check_empty(moor::process(io.get_executor(), pid, ec));
        BOOST_CHECK_EQUAL(ec, errc::invalid_argument);
    }
    BOOST_CHECK_EXCEPTION(moor::process(io, none), boost::system::system_error, [&](auto& e) {
        return e.code() == errc::no_such_process &&
               std::string(e.what()).find("moor::process(" + std::to_string(none) + ")") == 0;
    });
    BOOST_CHECK_THROW(moor::process(io.get_executor(), 0), boost::system::system_error);
    child c;
    moor::process p(io, c.pid(), ec);
    BOOST_CHECK_EQUAL(ec, error_code());
    BOOST_TEST(p.id() == c.pid());
}

BOOST_FIXTURE_TEST_CASE(the_pidfd_of_an_adopted_child_is_closed_with_the_object,
                        test::context_fixture) {
    moor::use_registration_service(io); // makes the reactor, with descriptors of its own
    child c;
    long open = test::open_descriptors();
    int handle = -1;
    {
        moor::process p(io, c.pid());
        handle = p.native_handle();
        BOOST_TEST(test::open_descriptors() == open + 1);
        BOOST_TEST((::fcntl(handle, F_GETFD) & FD_CLOEXEC) != 0);
    }
    BOOST_TEST(::fcntl(handle, F_GETFD) == -1);
    BOOST_TEST(test::open_descriptors() == open);
}

BOOST_FIXTURE_TEST_CASE(a_borrowed_pidfd_stays_open_and_names_its_process, test::context_fixture) {
    child c;
    {
        moor::process p = moor::process::from_pidfd(io, c.pidfd());
        BOOST_TEST(p.id() == c.pid());
        BOOST_TEST(p.native_handle() == c.pidfd());
        ended e;
        p.async_wait(e.handler());
        check_pends(io, e);
        p.kill(SIGTERM);
        check_ends(io, e, killed(SIGTERM));
        BOOST_TEST(p.id() == c.pid()); // asked once
    }
    BOOST_TEST(::fcntl(c.pidfd(), F_GETFD) != -1);
}

BOOST_FIXTURE_TEST_CASE(a_pidfd_that_does_not_block_is_used_as_any_other, test::context_fixture) {
    child c;
    test::set_nonblocking(c.pidfd());
    moor::process p = moor::process::from_pidfd(io.get_executor(), c.pidfd());
    ended e;
    p.async_wait(e.handler());
    check_pends(io, e);
    c.exit(14);
    check_ends(io, e, exited(14));
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_is_no_pidfd_is_refused, test::context_fixture) {
    test::fd_pair pipe = test::make_pipe();
    error_code ec;
    moor::process of_pipe = moor::process::from_pidfd(io, pipe.a, ec);
    BOOST_CHECK_EQUAL(ec, errc::invalid_argument);
    BOOST_TEST(of_pipe.id() == -1);
    BOOST_TEST(of_pipe.native_handle() == -1);
    moor::process of_closed =
        moor::process::from_pidfd(io.get_executor(), test::closed_number(), ec);
    BOOST_CHECK_EQUAL(ec, test::bad_descriptor);
    moor::process::from_pidfd(io, -1, ec);
    BOOST_CHECK_EQUAL(ec, test::bad_descriptor);
    BOOST_CHECK_THROW(moor::process::from_pidfd(io, pipe.a), boost::system::system_error);
    child c;
    moor::process p = moor::process::from_pidfd(io, c.pidfd(), ec);
    BOOST_CHECK_EQUAL(ec, error_code());
    moor::process again = moor::process::from_pidfd(io, c.pidfd(), ec);
    BOOST_CHECK_EQUAL(ec, test::already_registered);
}

BOOST_FIXTURE_TEST_CASE(a_pidfd_of_a_reaped_process_can_be_used, test::context_fixture) {
    child c;
    c.exit(0);
    c.reap();
    moor::process p = moor::process::from_pidfd(io, c.pidfd());
    BOOST_TEST(p.id() == -1);
    ended e;
    p.async_wait(e.handler());
    check_fails(io, e, no_child);
    error_code ec;
    p.kill(SIGKILL, ec);
    BOOST_CHECK_EQUAL(ec, errc::no_such_process);
}

// ---- kill ---------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_signal_reaches_the_child_until_it_is_reaped, fixture) {
    error_code ec(asio::error::eof);
    p.kill(0, ec);
    BOOST_CHECK_EQUAL(ec, error_code());
    p.kill(12345, ec);
    BOOST_CHECK_EQUAL(ec, errc::invalid_argument);
    c.exit_and_wait(15);
    p.kill(SIGKILL, ec); // a zombie takes it, and has its status already
    BOOST_CHECK_EQUAL(ec, error_code());
    ended e;
    p.async_wait(e.handler());
    check_ends(io, e, exited(15));
    p.kill(SIGKILL, ec);
    BOOST_CHECK_EQUAL(ec, errc::no_such_process);
    BOOST_CHECK_EXCEPTION(p.kill(SIGKILL), boost::system::system_error,
                          [](auto& x) { return x.code() == errc::no_such_process; });
}

// ---- cancelling, moving, destroying -------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(a_cancelled_wait_leaves_the_status_to_a_later_one, Op,
                              all_operations) {
    for (asio::cancellation_type type :
         {asio::cancellation_type::terminal, asio::cancellation_type::partial,
          asio::cancellation_type::total}) {
        fixture f;
        asio::cancellation_signal signal;
        ended cancelled, other, later;
        Op::start(f.p, asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
        Op::start(f.p, other.handler());
        check_pends(f.io, cancelled);
        signal.emit(type);
        check_fails(f.io, cancelled, aborted);
        check_pends(f.io, other);
        f.p.cancel();
        check_fails(f.io, other, aborted);
        Op::start(f.p, later.handler());
        check_pends(f.io, later);
        f.c.exit(16);
        check_ends(f.io, later, exited(16));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_wait_that_is_cancelled_before_its_handler_has_not_reaped, Op,
                              all_operations) {
    for (bool by_slot : {false, true})
        for (bool pends_first : {false, true}) {
            fixture f;
            asio::cancellation_signal signal;
            ended e;
            auto start = [&] {
                Op::start(f.p, asio::bind_cancellation_slot(signal.slot(), e.handler()));
            };
            if (pends_first) {
                start();
                check_pends(f.io, e);
            }
            f.c.exit_and_wait(17);
            if (!pends_first)
                start();
            if (by_slot)
                signal.emit(asio::cancellation_type::terminal);
            else
                f.p.cancel();
            check_fails(f.io, e, aborted);
            BOOST_TEST(f.c.reap() == exited(17).native());
        }
}

BOOST_FIXTURE_TEST_CASE(waits_go_on_when_the_object_is_moved, test::context_fixture) {
    child c;
    asio::cancellation_signal signal;
    ended e, cancelled, of_third;
    moor::process first(io, c.pid());
    int handle = first.native_handle();
    first.async_wait(e.handler());
    first.async_wait(asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
    check_pends(io, e);
    moor::process second(std::move(first));
    BOOST_TEST(second.id() == c.pid());
    BOOST_TEST(second.native_handle() == handle);
    BOOST_TEST(first.id() == -1);
    BOOST_TEST(first.native_handle() == -1);
    signal.emit(asio::cancellation_type::terminal);
    check_fails(io, cancelled, aborted);
    check_pends(io, e);

    child d;
    ended of_second;
    moor::process third(io, d.pid());
    int closed = third.native_handle();
    third.async_wait(of_third.handler());
    check_pends(io, of_third);
    third = std::move(second);
    check_fails(io, of_third, aborted);
    BOOST_TEST(::fcntl(closed, F_GETFD) == -1);
    BOOST_TEST(d.is_there());
    BOOST_TEST(third.id() == c.pid());
    moor::process& same = third;
    third = std::move(same);
    BOOST_TEST(third.id() == c.pid());
    c.exit(18);
    check_ends(io, e, exited(18));
    second.async_wait(of_second.handler());
    check_fails(io, of_second, test::not_registered);
}

BOOST_FIXTURE_TEST_CASE(an_object_can_be_moved_to_another_executor, test::context_fixture) {
    using plain = moor::basic_process<asio::io_context::executor_type>;
    static_assert(
        std::is_same<plain::rebind_executor<asio::any_io_executor>::other, moor::process>::value,
        "");
    static_assert(!std::is_convertible<moor::process, plain>::value, "");
    child c, d;
    plain p(io, c.pid()), q(io.get_executor(), d.pid());
    ended e, f;
    p.async_wait(e.handler());
    q.async_wait_usage(f.handler());
    check_pends(io, e);
    moor::process moved(std::move(p));
    BOOST_TEST(moved.id() == c.pid());
    BOOST_TEST((moved.get_executor() == asio::any_io_executor(io.get_executor())));
    c.exit(19);
    check_ends(io, e, exited(19));
    moved = std::move(q);
    BOOST_TEST(moved.id() == d.pid());
    BOOST_TEST(q.id() == -1);
    d.exit(20);
    check_ends(io, f, exited(20));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(destroying_neither_kills_nor_reaps, Op, all_operations) {
    for (bool has_ended : {false, true}) {
        test::context_fixture f;
        child c;
        ended e;
        {
            moor::process p(f.io, c.pid());
            Op::start(p, e.handler());
            check_pends(f.io, e);
            if (has_ended)
                c.exit_and_wait(21);
        }
        check_fails(f.io, e, aborted);
        BOOST_TEST(c.is_there());
        if (!has_ended)
            c.exit(21);
        BOOST_TEST(c.reap() == exited(21).native());
    }
}

// ---- never early --------------------------------------------------------------------------------

/// Two handles are ready at once. The handler of whichever is first destroys the object of the
/// other, whose event is queued already, and starts a child and waits for the child.
template <class Make>
void check_fresh_child(Make make, bool from_pidfd) {
    for (int round = 0; round != 5; ++round) {
        test::context_fixture f;
        test::fd_pair pairs[2] = {test::make_socketpair(), test::make_socketpair()};
        decltype(make(f.io, pairs[0].a)) objects[2];
        std::optional<child> c;
        std::optional<moor::process> p;
        ended e;
        for (int i = 0; i != 2; ++i) {
            objects[i] = make(f.io, pairs[i].a);
            objects[i]->async_wait(moor::stream_descriptor::wait_read,
                                   [&, i](const error_code& ec) {
                                       if (ec || c)
                                           return;
                                       objects[1 - i].reset();
                                       c.emplace();
                                       if (from_pidfd)
                                           p.emplace(moor::process::from_pidfd(f.io, c->pidfd()));
                                       else
                                           p.emplace(f.io, c->pid());
                                       p->async_wait(e.handler());
                                   });
        }
        test::run_ready(f.io);
        for (test::fd_pair& each : pairs)
            test::put(each.b, "x");
        test::run_until(f.io, [&] { return bool(c); });
        check_pends(f.io, e);
        BOOST_TEST(c->is_there());
        c->exit(30 + round);
        check_ends(f.io, e, exited(30 + round));
        p.reset();
    }
}

BOOST_AUTO_TEST_CASE(a_wait_on_a_fresh_child_in_a_handler_that_destroyed_another_handle_pends) {
    for (bool from_pidfd : {false, true}) {
        check_fresh_child(
            [](asio::io_context& io, test::unique_fd& fd) {
                return std::make_unique<moor::stream_descriptor>(io, fd.release());
            },
            from_pidfd);
        check_fresh_child(
            [](asio::io_context& io, test::unique_fd& fd) {
                return std::make_unique<asio::posix::stream_descriptor>(io, fd.release());
            },
            from_pidfd);
    }
}

/// A debugger of the child learns of the end first; until it has, there is no status.
BOOST_FIXTURE_TEST_CASE(a_child_whose_debugger_was_not_told_has_no_status_yet,
                        test::context_fixture) {
    child c([] { ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); });
    test::fd_pair news = test::make_pipe(), orders = test::make_pipe();
    child debugger([&] {
        bool attached = ::ptrace(PTRACE_SEIZE, c.pid(), nullptr, nullptr) == 0;
        char byte = attached ? 'y' : 'n';
        if (::write(news.b, &byte, 1) != 1 || !attached)
            return;
        while (::read(orders.a, &byte, 1) != 1)
            ::sched_yield();
        ::siginfo_t info;
        ::waitid(by_pidfd, static_cast<::id_t>(c.pidfd()), &info, WEXITED | __WALL);
    });
    std::string answer;
    BOOST_REQUIRE(test::wait_for([&] { return !(answer = test::get(news.a)).empty(); }));
    if (answer != "y") {
        BOOST_TEST_MESSAGE("debugging is not allowed here");
        return;
    }
    moor::process p(io, c.pid());
    ended e;
    p.async_wait(e.handler());
    check_pends(io, e);
    c.exit(23);
    ::pollfd poll = {c.pidfd(), POLLIN, 0};
    BOOST_REQUIRE_EQUAL(::poll(&poll, 1, -1), 1);
    for (int i = 0; i != 100; ++i)
        io.poll_one();
    BOOST_TEST(e.times == 0);
    test::put(orders.b, "x");
    check_ends(io, e, exited(23));
}

// ---- many ---------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_thousand_children_each_have_their_own_status, test::context_fixture) {
    // Asio 1.26 (Boost 1.81) hangs with many requests on io_uring.
    const int n = test::on_io_uring() && BOOST_ASIO_VERSION < 102700 ? 100 : 1000;
    moor::use_registration_service(io);
    long open = test::open_descriptors();
    // All run until the pipe has a byte for each.
    int gate[2];
    BOOST_REQUIRE_EQUAL(::pipe2(gate, O_CLOEXEC), 0);
    test::unique_fd reader(gate[0]), writer(gate[1]);
    auto expected = [](int i) { return i % 7 == 3 ? killed(1 + i % 15) : exited(i % 256); };
    std::vector<ended> ends(static_cast<std::size_t>(n));
    {
        std::vector<moor::process> all;
        for (int i = 0; i != n; ++i) {
            ::pid_t parent = ::getpid();
            ::pid_t pid = ::fork();
            if (pid == 0) {
                ::prctl(PR_SET_PDEATHSIG, SIGKILL);
                ::prctl(PR_SET_DUMPABLE, 0);
                char byte;
                if (::getppid() != parent || ::read(reader, &byte, 1) != 1)
                    ::_exit(99);
                exit_status s = expected(i);
                if (s.signaled()) {
                    ::signal(s.signal(), SIG_DFL);
                    ::raise(s.signal());
                }
                ::_exit(s.code());
            }
            BOOST_REQUIRE_GT(pid, 0);
            all.emplace_back(io, pid);
            all.back().async_wait(ends[static_cast<std::size_t>(i)].handler());
        }
        test::run_ready(io);
        BOOST_TEST(std::none_of(ends.begin(), ends.end(), [](auto& e) { return bool(e); }));
        test::put(writer, std::string(static_cast<std::size_t>(n), 'x'));
        test::run_until(io, [&] {
            return std::all_of(ends.begin(), ends.end(), [](auto& e) { return bool(e); });
        });
        int wrong = 0;
        for (int i = 0; i != n; ++i) {
            const ended& e = ends[static_cast<std::size_t>(i)];
            wrong += e.ec || e.times != 1 || e.status != expected(i);
        }
        BOOST_TEST(wrong == 0);
    }
    reader.close();
    writer.close();
    BOOST_TEST(test::open_descriptors() == open);
}

// ---- executors, threads, tokens -----------------------------------------------------------------

BOOST_AUTO_TEST_CASE(handlers_run_on_the_strand_of_a_thread_pool) {
    constexpr int n = 20;
    std::vector<std::unique_ptr<child>> children; // before there are threads
    for (int i = 0; i != n; ++i)
        children.push_back(std::make_unique<child>());
    asio::thread_pool pool(3);
    auto strand = asio::make_strand(pool);
    using process = moor::basic_process<decltype(strand)>;
    std::vector<process> all;
    std::vector<exit_status> statuses(n);
    int elsewhere = 0, failed = 0; // changed on the strand
    std::promise<void> over;
    int left = n;
    for (int i = 0; i != n; ++i) {
        auto place = static_cast<std::size_t>(i);
        all.emplace_back(strand, children[place]->pid());
        all.back().async_wait([&, place](error_code ec, exit_status s) {
            elsewhere += !strand.running_in_this_thread();
            failed += ec ? 1 : 0;
            statuses[place] = s;
            if (--left == 0)
                over.set_value();
        });
    }
    for (int i = 0; i != n; ++i)
        children[static_cast<std::size_t>(i)]->exit(i);
    BOOST_REQUIRE((over.get_future().wait_for(test::cap) == std::future_status::ready));
    pool.join();
    BOOST_TEST(elsewhere == 0);
    BOOST_TEST(failed == 0);
    for (int i = 0; i != n; ++i)
        BOOST_TEST(statuses[static_cast<std::size_t>(i)] == exited(i));
}

BOOST_AUTO_TEST_CASE(several_threads_wait_kill_and_cancel_at_the_same_time) {
    for (int round = 0; round != 10; ++round) {
        child c;
        asio::thread_pool pool(2);
        moor::process p(pool, c.pid());
        std::atomic<int> called{0}, wrong{0}, waits{0};
        auto handler = [&](error_code ec, exit_status s) {
            ++called;
            wrong += ec ? ec != aborted : s != killed(SIGTERM);
        };
        auto wait = [&] {
            for (int i = 0; i != 20; ++i, ++waits)
                p.async_wait(handler);
        };
        std::thread one(wait), two(wait), three([&] {
            error_code ec;
            p.cancel();
            p.kill(0, ec);
            p.kill(SIGTERM, ec);
            p.cancel();
        });
        one.join();
        two.join();
        three.join();
        auto last = p.async_wait(asio::use_future);
        BOOST_REQUIRE((last.wait_for(test::cap) == std::future_status::ready));
        BOOST_TEST(last.get() == killed(SIGTERM));
        pool.join();
        BOOST_TEST(called == waits);
        BOOST_TEST(wrong == 0);
    }
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_handler_is_invoked_once_and_its_memory_given_back, Op,
                                 all_operations, test::context_fixture) {
    child c;
    moor::process p(io, c.pid());
    test::allocation_counts counts;
    test::tracker_executor ex(5, io.get_executor());
    test::once pending;
    long live = -1;
    bool on_executor = false;
    auto handler = [&, h = pending.handler()](error_code ec, exit_status s, auto...) mutable {
        live = counts.live;
        on_executor = test::running_on(5);
        h(ec, s);
    };
    {
        test::initiation_guard guard;
        Op::start(p, asio::bind_allocator(test::counting_allocator<>(counts),
                                          asio::bind_executor(ex, std::move(handler))));
    }
    BOOST_TEST(counts.live > 0);
    c.exit(0);
    test::run_until(io, [&] { return bool(pending); });
    BOOST_TEST(live == 0);
    BOOST_TEST(on_executor);
    BOOST_TEST(counts.total > 0);
}

BOOST_FIXTURE_TEST_CASE(every_token_can_be_used, fixture) {
    auto future = p.async_wait(asio::use_future);
    auto both = p.async_wait_usage(asio::use_future);
    ended e;
    auto deferred = p.async_wait(asio::deferred);
    auto tuple = p.async_wait_usage(asio::as_tuple(asio::deferred));
    test::called tuple_called;
    c.exit(24);
    std::move(deferred)(e.handler());
    check_ends(io, e, exited(24));
    std::move(tuple)([&](std::tuple<error_code, exit_status, ::rusage> t) {
        ++tuple_called.times;
        BOOST_TEST(std::get<1>(t) == exited(24));
    });
    const auto is_ready = [](auto& f) {
        return f.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    };
    test::run_until(io, [&] { return tuple_called && is_ready(future) && is_ready(both); });
    BOOST_TEST(future.get() == exited(24));
    auto [status, usage] = both.get();
    BOOST_TEST(status == exited(24));
    BOOST_TEST(usage.ru_maxrss > 0);
}

BOOST_FIXTURE_TEST_CASE(a_wait_keeps_the_loop_running_and_an_object_alone_does_not, fixture) {
    test::run_all(io); // returns
    ended e;
    p.async_wait(e.handler());
    if (io.stopped())
        io.restart();
    io.poll();
    BOOST_TEST(!io.stopped());
    c.exit(25);
    test::run_all(io);
    BOOST_TEST(e.times == 1);
    BOOST_TEST(e.status == exited(25));
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
BOOST_FIXTURE_TEST_CASE(a_coroutine_kills_a_child_after_a_deadline, fixture) {
    using namespace asio::experimental::awaitable_operators;
    child quick;
    moor::process q(io, quick.pid());
    bool over = false;
    auto body = [&]() -> asio::awaitable<void> {
        asio::steady_timer deadline(io, std::chrono::milliseconds(1));
        auto first = co_await (p.async_wait(asio::use_awaitable) ||
                               deadline.async_wait(asio::use_awaitable));
        BOOST_TEST(first.index() == 1u);
        BOOST_TEST(c.is_there());
        p.kill(SIGKILL);
        BOOST_TEST((co_await p.async_wait(asio::use_awaitable)) == killed(SIGKILL));
        quick.exit(26);
        deadline.expires_after(test::cap);
        auto second = co_await (q.async_wait(asio::use_awaitable) ||
                                deadline.async_wait(asio::use_awaitable));
        BOOST_REQUIRE_EQUAL(second.index(), 0u);
        BOOST_TEST(std::get<0>(second) == exited(26));
        auto [status, usage] = co_await q.async_wait_usage(asio::use_awaitable);
        BOOST_TEST(status == exited(26));
        BOOST_TEST(usage.ru_maxrss > 0);
    };
    asio::co_spawn(io, body(), [&](std::exception_ptr e) {
        BOOST_TEST(!e);
        over = true;
    });
    test::run_until(io, [&] { return over; });
}
#endif

// ---- the context goes ---------------------------------------------------------------------------

template <class Context, class Make>
void check_outlives(const Make& make) {
    child c;
    long open = test::open_descriptors();
    test::once pending(test::expect::destroyed);
    {
        auto context = std::make_unique<Context>();
        using executor = decltype(make(*context));
        moor::basic_process<executor> p(make(*context), c.pid());
        p.async_wait(pending.handler());
        context.reset();
        BOOST_TEST(pending.destroyed());
        test::called after;
        p.async_wait(after.handler()); // completes within: there is nothing to post it to
        BOOST_CHECK_EQUAL(after.ec, gone);
        BOOST_TEST(p.id() == c.pid());
        p.cancel();
        p.kill(0);
        moor::basic_process<executor> moved(std::move(p));
        moved.kill(SIGTERM);
        BOOST_REQUIRE(c.wait_until(WEXITED));
    }
    BOOST_TEST(test::open_descriptors() == open);
    BOOST_TEST(c.reap() == killed(SIGTERM).native());
}

BOOST_AUTO_TEST_CASE(an_object_may_outlive_its_context) {
    check_outlives<asio::io_context>([](auto& io) { return io.get_executor(); });
    check_outlives<asio::io_context>(
        [](auto& io) { return asio::any_io_executor(io.get_executor()); });
    check_outlives<asio::io_context>([](auto& io) { return asio::make_strand(io); });
    check_outlives<asio::io_context>(
        [](auto& io) { return asio::any_io_executor(asio::make_strand(io)); });
}

BOOST_FIXTURE_TEST_CASE(nothing_can_be_waited_for_when_the_service_is_closed, fixture) {
    moor::process self(io, ::getpid());
    ended pending, later, no_child_later;
    p.async_wait(pending.handler());
    check_pends(io, pending);
    moor::use_registration_service(io).close();
    check_fails(io, pending, gone);
    p.async_wait(later.handler());
    check_fails(io, later, gone);
    self.async_wait(no_child_later.handler());
    check_fails(io, no_child_later, gone);
    error_code ec;
    moor::process another(io, c.pid(), ec);
    BOOST_CHECK_EQUAL(ec, gone);
    BOOST_TEST(another.id() == -1);
    BOOST_TEST(c.is_there());
    p.kill(0);
}

BOOST_FIXTURE_TEST_CASE(after_a_fork_only_the_parent_has_the_status, fixture) {
    ended pending;
    p.async_wait(pending.handler());
    check_pends(io, pending);
    io.notify_fork(asio::execution_context::fork_prepare);
    child forked([&] {
        io.notify_fork(asio::execution_context::fork_child);
        ended e;
        p.async_wait(e.handler());
        auto deadline = std::chrono::steady_clock::now() + test::cap / 2;
        while (!e && std::chrono::steady_clock::now() < deadline)
            io.run_one_until(deadline);
        bool right = e.times == 1 && e.ec == no_child;
        ::_exit(right ? 0 : 1);
    });
    io.notify_fork(asio::execution_context::fork_parent);
    check_pends(io, pending);
    c.exit(27);
    check_ends(io, pending, exited(27));
    BOOST_TEST(forked.reap() == exited(0).native());
}

// ---- calls that fail ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_pidfd_that_cannot_be_had_is_an_error_of_the_constructor,
                        test::context_fixture) {
    moor::use_registration_service(io);
    child c;
    long open = test::open_descriptors();
    struct {
        int error;
        errc::errc_t expected;
    } const cases[] = {{EMFILE, errc::too_many_files_open},
                       {ENFILE, errc::too_many_files_open_in_system},
                       {ENOMEM, errc::not_enough_memory},
                       {ENOSYS, errc::operation_not_supported}};
    for (auto& each : cases) {
        error_code ec;
        test::fault fails(call::pidfd_open, each.error);
        moor::process p(io, c.pid(), ec);
        BOOST_TEST(fails.happened() == 1);
        BOOST_CHECK_EQUAL(ec, each.expected);
        BOOST_TEST(p.id() == -1);
        BOOST_CHECK_THROW(moor::process(io, c.pid()), boost::system::system_error);
    }
    for (int error : {EMFILE, ENOENT}) {
        error_code ec;
        test::fault fails(call::open, error);
        moor::process p = moor::process::from_pidfd(io, c.pidfd(), ec);
        BOOST_TEST(ec.value() == error);
    }
    {
        error_code ec;
        test::fault fails(call::fstat, ENOMEM);
        moor::process p(io, c.pid(), ec);
        BOOST_TEST(fails.happened() > 0);
        BOOST_TEST(ec.value() == ENOMEM);
    }
    BOOST_TEST(test::open_descriptors() == open);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(an_error_of_waitid_is_one_of_the_wait, Op, all_operations) {
    struct {
        int error;
        errc::errc_t expected;
    } const cases[] = {{ECHILD, errc::no_child_process},
                       {EBADF, errc::bad_file_descriptor},
                       {EINVAL, errc::operation_not_supported}, // Linux 5.3
                       {ENOSYS, errc::operation_not_supported}};
    for (auto& each : cases)
        for (long n : {1, 2}) { // at the start, and at the end of the child
            fixture f;
            ended e, later;
            {
                test::fault fails(call::waitid, each.error, n, 1);
                Op::start(f.p, e.handler());
                BOOST_TEST(e.times == 0);
                if (n == 2)
                    check_pends(f.io, e);
                f.c.exit(28);
                check_fails(f.io, e, each.expected);
                BOOST_TEST(fails.happened() == 1);
            }
            Op::start(f.p, later.handler()); // nothing was lost
            check_ends(f.io, later, exited(28));
        }
}

BOOST_AUTO_TEST_CASE(an_interrupted_waitid_is_repeated) {
    for (long n : {1, 2}) {
        fixture f;
        ended e;
        test::fault interrupted(call::waitid, EINTR, n, 3);
        f.p.async_wait(e.handler());
        if (n == 2)
            check_pends(f.io, e);
        f.c.exit(29);
        check_ends(f.io, e, exited(29));
        BOOST_TEST(interrupted.happened() == 3);
    }
}

BOOST_FIXTURE_TEST_CASE(a_signal_that_cannot_be_sent_is_an_error, fixture) {
    test::fault fails(call::pidfd_send_signal, ENOSYS);
    error_code ec;
    p.kill(SIGKILL, ec);
    BOOST_CHECK_EQUAL(ec, errc::operation_not_supported);
}

/// The last: of all calls that were made here.
BOOST_AUTO_TEST_CASE(no_wait_ever_blocks) {
    BOOST_TEST(test::calls_of(call::waitid_blocking) == 0);
    BOOST_TEST(test::calls_of(call::waitid) > 0);
}

BOOST_AUTO_TEST_SUITE_END()
