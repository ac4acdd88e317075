// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Files that others share, terminals before all: no transfer of a borrowed one blocks a thread of
// the loop for want of data or room. What does block, since somebody else took the room, keeps
// nobody else waiting. And when a terminal is read: as Asio's own descriptor reads it on the same
// backend.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/programs.hpp"
#include "support/pty.hpp"
#include "support/streams.hpp"
#include "support/transferred.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(terminals)

namespace {

namespace asio = boost::asio;
using namespace test;

using theirs = asio::posix::stream_descriptor;
using ours = moor::stream_descriptor;

/// Runs a context on a thread of its own, until it is told to end.
class runner {
public:
    explicit runner(asio::io_context& io)
        : io_(io), work_(asio::make_work_guard(io)), thread_([&io] { io.run(); }) {}
    ~runner() {
        work_.reset();
        thread_.join();
    }
    runner(const runner&) = delete;
    runner& operator=(const runner&) = delete;

    /// Whether the loop answers: it runs what is posted, soon.
    bool answers() {
        auto answered = std::make_shared<std::promise<void>>();
        auto answer = answered->get_future();
        asio::post(io_, [answered] { answered->set_value(); });
        return answer.wait_for(std::chrono::seconds(3)) == std::future_status::ready;
    }

private:
    asio::io_context& io_;
    asio::executor_work_guard<asio::io_context::executor_type> work_;
    std::thread thread_;
};

} // namespace

// ---- what does not block ------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_write_does_not_block_whatever_others_do_to_the_flags) {
    // Standard output and standard error are two numbers of one open file. Whoever has the other
    // one clears O_NONBLOCK, just before a write is made.
    const struct {
        const char* name;
        test::fd_pair (*make)(); ///< `b` is what is written to
    } kinds[] = {{"terminal", test::make_raw_pty},
                 {"master", [] { return test::swapped(test::make_raw_pty()); }},
                 {"named pipe", test::make_fifo},
                 {"pipe", test::make_pipe}};
    for (auto& k : kinds)
        BOOST_TEST_CONTEXT(k.name) {
            test::fd_pair p = k.make();
            set_blocking(p.b);
            test::unique_fd other(test::duplicate(p.b));
            asio::io_context io;
            ours out(io, moor::borrow(p.b.get()));
            test::watched_transfers calls(p.b);
            calls.before([&] { set_blocking(other); });
            std::atomic<int> writes{0};
            std::function<void()> write = [&] {
                out.async_write_some(asio::buffer(much()), [&](error_code ec, std::size_t) {
                    ++writes;
                    if (!ec)
                        write();
                });
            };
            asio::post(io, write);
            std::atomic<bool> over{false};
            std::thread reader; // so that a write that blocks ends
            {
                runner loop(io);
                BOOST_TEST((loop.answers() && loop.answers()), "the thread is blocked in a write");
                BOOST_TEST(writes >= 1);
                asio::post(io, [&] { out.close(); });
                reader = std::thread([&] {
                    while (!over) {
                        test::drain(p.a);
                        std::this_thread::yield();
                    }
                });
            }
            over = true;
            reader.join();
        }
}

// ---- what blocks after all ----------------------------------------------------------------------

namespace {

/// A write to a named pipe, which has room, and something that happens just before it is made, on
/// the same thread.
struct late_write {
    test::fd_pair p = test::make_fifo();
    asio::io_context io;
    ours out;
    test::watched_transfers calls;
    std::atomic<bool> has_happened{false};
    transferred written;

    explicit late_write(std::function<void()> happen) : out(io, make_blocking()), calls(p.b) {
        calls.before([this, happen] {
            // (First the kernel is asked for a call that does not block.)
            if (rounds_++ != 1)
                return;
            happen();
            has_happened = true;
        });
        asio::post(io,
                   [this] { out.async_write_some(asio::buffer("text", 4), written.handler()); });
    }

    /// Whether `f` returns soon, on another thread.
    template <class F>
    bool returns(F f) {
        auto returned = std::make_shared<std::promise<void>>();
        auto is_over = returned->get_future();
        waiting_.emplace_back([f, returned] {
            f();
            returned->set_value();
        });
        return is_over.wait_for(std::chrono::seconds(3)) == std::future_status::ready;
    }

    ~late_write() {
        for (std::thread& t : waiting_)
            t.join();
    }

private:
    moor::borrowed_handle make_blocking() {
        set_blocking(p.b);
        return moor::borrow(p.b.get());
    }

    int rounds_ = 0;
    std::vector<std::thread> waiting_;
};

} // namespace

BOOST_AUTO_TEST_CASE(a_write_that_blocks_after_all_keeps_nobody_else_waiting) {
    // Somebody else takes the room: a rival, through another open file, which does not block.
    test::unique_fd rival;
    late_write b([&] { test::fill(rival); });
    rival = test::unique_fd(::open(("/proc/self/fd/" + std::to_string(b.p.b.get())).c_str(),
                                   O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    {
        runner loop(b.io);
        BOOST_TEST(test::wait_for([&] { return b.has_happened.load(); }));
        BOOST_TEST(b.returns([&] { b.out.cancel(); }));
        BOOST_TEST(b.returns([&] {
            b.out.async_wait(ours::wait_error, [](error_code) {});
            b.out.registration().ready(moor::interest::writable);
        }));
        BOOST_TEST(b.returns([&] { moor::use_registration_service(b.io).snapshot(); }));
        BOOST_TEST(b.returns([&] { b.out.close(); }));
        while (test::drain(b.p.a) == 0)
            std::this_thread::yield();
    }
    BOOST_TEST(b.written.times == 1);
}

BOOST_AUTO_TEST_CASE(a_write_that_may_block_does_not_use_a_number_that_was_closed_meanwhile) {
    test::fd_pair q;
    bool closed = false;
    late_write* w = nullptr;
    late_write b([&] {
        closed = w->returns([&] { w->out.close(); });
        if (closed)
            q = test::reuse_number(w->p.b, test::make_socketpair());
    });
    w = &b;
    {
        runner loop(b.io);
        BOOST_TEST(test::wait_for([&] { return b.has_happened.load(); }));
    }
    BOOST_TEST(closed);
    BOOST_TEST(b.written.times == 1);
    if (closed)
        BOOST_TEST(test::get(q.b).empty()); // nothing was written to the other file
}

// ---- opening a terminal anew --------------------------------------------------------------------

namespace {

/// Runs `f` in a child process of its own session; its exit status, or -1 if a signal ended it.
template <class F>
int in_a_session(F f) {
    ::pid_t pid = ::fork();
    BOOST_REQUIRE(pid >= 0);
    if (pid == 0) {
        ::setsid();
        ::alarm(20);
        ::_exit(f());
    }
    int status = 0;
    BOOST_REQUIRE_EQUAL(::waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// Writes a line to a terminal that is borrowed and blocking.
bool writes_a_line(int terminal) {
    asio::io_context io;
    ours out(io, moor::borrow(terminal));
    transferred written;
    out.async_write_some(asio::buffer("line\n", 5), written.handler());
    for (int i = 0; i != 100 && !written; ++i) {
        io.restart();
        io.run_one_for(std::chrono::milliseconds(50));
    }
    return written.times == 1 && !written.ec && written.bytes == 5;
}

} // namespace

BOOST_AUTO_TEST_CASE(a_session_does_not_get_a_terminal_by_borrowing_one) {
    test::fd_pair p = test::make_raw_pty();
    set_blocking(p.b);
    int status = in_a_session([&] {
        if (!writes_a_line(p.b))
            return 1;
        return ::open("/dev/tty", O_RDWR | O_CLOEXEC) < 0 ? 0 : 2;
    });
    BOOST_TEST(status == 0);
    BOOST_TEST(test::get(p.a) == "line\n");
}

BOOST_AUTO_TEST_CASE(a_terminal_that_can_not_be_opened_is_borrowed_all_the_same) {
    if (::geteuid() != 0) {
        BOOST_TEST_MESSAGE("only root can give up the right to open a terminal");
        return;
    }
    test::fd_pair p = test::make_raw_pty();
    set_blocking(p.b);
    int status = in_a_session([&] {
        if (::setgid(65534) != 0 || ::setuid(65534) != 0)
            return 1;
        if (::open(("/proc/self/fd/" + std::to_string(p.b.get())).c_str(), O_RDWR | O_NOCTTY) >= 0)
            return 2; // then the test shows nothing
        return writes_a_line(p.b) ? 0 : 3;
    });
    BOOST_TEST(status == 0);
    BOOST_TEST(test::get(p.a) == "line\n");
}

BOOST_AUTO_TEST_CASE(a_terminal_hangs_up_when_its_owner_and_the_descriptor_have_closed_it) {
    test::fd_pair p = test::make_raw_pty();
    set_blocking(p.b);
    asio::io_context io;
    {
        ours in(io, moor::borrow(p.b.get()));
        transferred read;
        std::array<char, 16> bytes;
        in.async_read_some(asio::buffer(bytes), read.handler());
        test::run_ready(io);
        in.close();
        test::run_ready(io);
        BOOST_TEST((read.ec == test::aborted));
    }
    p.b.close();
    ::pollfd q = {p.a, POLLIN, 0};
    BOOST_TEST(::poll(&q, 1, 0) == 1);
    BOOST_TEST((q.revents & POLLHUP) != 0);
}

// ---- when a terminal is read --------------------------------------------------------------------

namespace {

/// What a read shows that finds nothing to read.
enum class found { waits, end, error };

template <class Stream, class Handle>
found read_nothing(Handle handle) {
    asio::io_context io;
    Stream in(io, handle);
    transferred read;
    std::array<char, 16> bytes;
    in.async_read_some(asio::buffer(bytes), read.handler());
    test::run_ready(io);
    found f = !read ? found::waits : read.ec == asio::error::eof ? found::end : found::error;
    in.close();
    test::run_ready(io);
    return f;
}

/// A terminal whose reads give what is there, and 0 if that is nothing.
test::fd_pair make_polled_terminal() {
    test::fd_pair p = test::make_raw_pty();
    ::termios t{};
    BOOST_REQUIRE_EQUAL(::tcgetattr(p.b, &t), 0);
    t.c_cc[VMIN] = 0;
    t.c_cc[VTIME] = 0;
    BOOST_REQUIRE_EQUAL(::tcsetattr(p.b, TCSANOW, &t), 0);
    return p;
}

/// The reading end of a named pipe that nobody has opened for writing yet.
test::unique_fd make_unwritten_fifo() {
    char name[] = "/tmp/moor-fifo-XXXXXX";
    BOOST_REQUIRE(::mkdtemp(name));
    std::string path = std::string(name) + "/fifo";
    BOOST_REQUIRE_EQUAL(::mkfifo(path.c_str(), 0600), 0);
    test::unique_fd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    ::unlink(path.c_str());
    ::rmdir(name);
    return fd;
}

/// Asio's reactor of epoll tries a read before it waits, that of select waits. With io_uring the
/// kernel waits, unless O_NONBLOCK is set.
bool asio_waits(bool blocking) { return test::on_select() || (test::on_io_uring() && blocking); }

found as_asio(bool blocking) { return asio_waits(blocking) ? found::waits : found::end; }

} // namespace

BOOST_AUTO_TEST_CASE(what_gives_nothing_is_read_as_asio_reads_it) {
    for (bool blocking : {false, true})
        BOOST_TEST_CONTEXT((blocking ? "blocking" : "non-blocking")) {
            auto duplicate_of = [&](int fd) {
                if (blocking)
                    set_blocking(fd);
                return test::duplicate(fd);
            };
            test::fd_pair p = make_polled_terminal(), q = make_polled_terminal();
            BOOST_TEST((read_nothing<ours>(duplicate_of(p.b)) == as_asio(blocking)));
            if (!test::on_io_uring()) // where Asio's own read of a terminal fails at times
                BOOST_TEST((read_nothing<theirs>(duplicate_of(q.b)) == as_asio(blocking)));
            // A named pipe without a writer yet.
            test::unique_fd a = make_unwritten_fifo(), b = make_unwritten_fifo();
            BOOST_TEST((read_nothing<ours>(duplicate_of(a)) == as_asio(blocking)));
            BOOST_TEST((read_nothing<theirs>(duplicate_of(b)) == as_asio(blocking)));
            // A terminal that is borrowed waits.
            test::fd_pair r = make_polled_terminal();
            if (blocking)
                set_blocking(r.b);
            BOOST_TEST((read_nothing<ours>(moor::borrow(r.b.get())) == found::waits));
        }
}

BOOST_AUTO_TEST_CASE(a_terminal_that_gives_nothing_is_read_once_something_is_typed) {
    if (test::on_epoll())
        return; // the read has ended
    for (bool borrowed : {false, true}) {
        test::fd_pair p = make_polled_terminal();
        set_blocking(p.b);
        asio::io_context io;
        ours in(io);
        if (borrowed)
            in.assign(moor::borrow(p.b.get()));
        else
            in.assign(test::duplicate(p.b));
        for (int i = 0; i != 3; ++i) {
            transferred read;
            std::array<char, 16> bytes;
            in.async_read_some(asio::buffer(bytes), read.handler());
            test::run_ready(io);
            BOOST_TEST(!read);
            test::put(p.a, "key");
            test::run_until(io, [&] { return bool(read); });
            BOOST_TEST(!read.ec);
            BOOST_TEST(read.bytes >= 1u);
            ::tcflush(p.b, TCIFLUSH);
        }
    }
}

namespace {

/// Whether a background job is stopped that starts a read of its terminal, to which nothing was
/// typed. -1 if that could not be found out.
template <class Stream>
int background_read_stops(int terminal) {
    return in_a_session([&] {
        if (::ioctl(terminal, TIOCSCTTY, 0) != 0)
            return 100;
        ::pid_t job = ::fork();
        if (job < 0)
            return 101;
        if (job == 0) {
            ::setpgid(0, 0); // not the terminal's foreground group
            asio::io_context io;
            Stream in(io, ::dup(terminal));
            std::array<char, 16> bytes;
            in.async_read_some(asio::buffer(bytes), [](error_code, std::size_t) {});
            test::run_ready(io);
            ::_exit(0);
        }
        int status = 0;
        if (::waitpid(job, &status, WUNTRACED) != job)
            return 102;
        if (WIFSTOPPED(status)) {
            ::kill(job, SIGKILL);
            ::waitpid(job, nullptr, 0);
            return 1;
        }
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 103;
    });
}

} // namespace

BOOST_AUTO_TEST_CASE(a_background_job_is_stopped_by_a_read_where_asio_stops_it) {
    for (bool blocking : {false, true})
        BOOST_TEST_CONTEXT((blocking ? "blocking" : "non-blocking")) {
            const int stops = asio_waits(blocking) ? 0 : 1;
            auto terminal = [&] {
                test::fd_pair p = test::make_raw_pty();
                if (blocking)
                    set_blocking(p.b);
                return p;
            };
            test::fd_pair p = terminal();
            test::fd_pair q = terminal();
            BOOST_TEST(background_read_stops<ours>(p.b) == stops);
            if (!test::on_io_uring())
                BOOST_TEST(background_read_stops<theirs>(q.b) == stops);
        }
}

BOOST_AUTO_TEST_SUITE_END()
