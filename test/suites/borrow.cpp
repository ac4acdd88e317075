// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Descriptors that borrow their handle: it stays open, there is no second one, and whoever shares
// the open file finds its flags as they were.

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
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <future>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(borrow)

namespace {

namespace asio = boost::asio;
using namespace test;

using theirs = asio::posix::stream_descriptor;
using ours = moor::stream_descriptor;

struct kind {
    std::string name;
    test::fd_pair (*make)(); ///< what b is written, a reads
    bool is_polled = false;  ///< there is no call that does not block
    bool is_opened = false;  ///< transfers use a second descriptor

    /// More than it takes at once, but for one message.
    std::size_t much() const { return name == "datagrams" ? 4096 : test::much().size(); }
};

const std::vector<kind>& kinds() {
    static const std::vector<kind> all = {
        {"pipe", test::make_pipe},
        {"fifo", test::make_fifo, true},
        {"unix socket", [] { return test::make_socketpair(); }},
        {"tcp", test::make_tcp_pair},
        {"datagrams", [] { return test::make_socketpair(SOCK_DGRAM); }},
        {"pty master", test::make_raw_pty, true},
        {"pty slave", [] { return swapped(test::make_raw_pty()); }, false, true}};
    return all;
}

/// Each kind in both modes, of which `a` reads or writes. No flag of any file is changed meanwhile.
template <class F>
void for_each_kind_and_mode(bool writes, F f) {
    for (const kind& k : kinds())
        for (bool blocks : {true, false})
            BOOST_TEST_CONTEXT(k.name << (blocks ? ", blocking" : ", non-blocking")) {
                test::fd_pair p = writes ? swapped(k.make()) : k.make();
                if (blocks)
                    set_blocking(p.a);
                test::call_counts before = test::counts();
                f(k, p);
                BOOST_TEST((test::counts() - before).flag_changes == 0);
            }
}

/// The flags of a handle at each transfer, and at the end.
class flag_watch {
public:
    explicit flag_watch(int fd) : fd_(fd), calls_(fd) {
        calls_.before([this] { seen_.insert(flags_of(fd_)); });
    }

    /// Since the last time.
    std::set<int> seen() { return std::exchange(seen_, {}); }
    test::watched_transfers& calls() { return calls_; }

private:
    int fd_;
    test::watched_transfers calls_;
    std::set<int> seen_;
};

/// The lowest number that is not open.
int next_number() { return test::unique_fd(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)).get(); }

} // namespace

// ---- whose handle it is -------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(it_stays_open_whatever_ends_the_descriptor, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    test::fd_pair q = test::make_socketpair();
    int a = p.a;
    {
        ours by_context(io, moor::borrow(a));
        BOOST_TEST(by_context.is_open());
        BOOST_TEST(by_context.is_borrowed());
        BOOST_TEST(by_context.native_handle() == a);
        by_context.close();
        BOOST_TEST(!by_context.is_open());
        BOOST_TEST(!by_context.is_borrowed());
        BOOST_TEST(is_open(a));

        ours by_executor(io.get_executor(), moor::borrow(a));
        BOOST_TEST(by_executor.release() == a);
        BOOST_TEST(!by_executor.is_open());

        error_code ec = bad_descriptor;
        BOOST_TEST(!by_executor.assign(moor::borrow(a), ec));
        BOOST_TEST(!ec);
        by_executor.assign(moor::borrow(q.a.get()), ec);
        BOOST_TEST((ec == asio::error::already_open));
        BOOST_CHECK_THROW(by_executor.assign(moor::borrow(q.a.get())), boost::system::system_error);
        ours moved(std::move(by_executor));
        BOOST_TEST(moved.is_borrowed());
        BOOST_TEST(!by_executor.is_borrowed());
        moved = ours(io, moor::borrow(q.a.get()));
        BOOST_TEST(is_open(a));
        BOOST_TEST(moved.native_handle() == q.a);
        ours other(io, q.b.release());
        BOOST_TEST(!other.is_borrowed());
        std::swap(moved, other); // each keeps what it may do
        BOOST_TEST(!moved.is_borrowed());
        BOOST_TEST(other.is_borrowed());
        moor::descriptor plain(io, moor::borrow(a));
    }
    BOOST_TEST(is_open(a));
    BOOST_TEST(is_open(q.a));
    test::put(p.b, "x");
    BOOST_TEST(test::get(a) == "x");
}

BOOST_FIXTURE_TEST_CASE(an_owner_lends_its_handle, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    theirs owner(io, p.a.release());
    {
        asio::io_context other;
        ours d(other, moor::borrow(owner));
        BOOST_TEST(d.native_handle() == owner.native_handle());
        test::put(p.b, "x");
        error_code ec;
        BOOST_TEST(read_once(other, d, ec) == "x");
    }
    BOOST_TEST(owner.is_open());
    BOOST_TEST(is_open(owner.native_handle()));
    constexpr moor::borrowed_handle b = moor::borrow(7);
    static_assert(b.native_handle() == 7, "");
    static_assert(!std::is_convertible<int, moor::borrowed_handle>::value, "");
}

BOOST_FIXTURE_TEST_CASE(one_that_cannot_be_borrowed_is_an_error, test::context_fixture) {
    error_code ec;
    ours d(io);
    d.assign(moor::borrow(test::closed_number()), ec);
    BOOST_TEST((ec == bad_descriptor));
    BOOST_CHECK_THROW(ours(io, moor::borrow(-1)), boost::system::system_error);
    test::fd_pair p = test::make_pipe();
    ours first(io, moor::borrow(p.a.get()));
    d.assign(moor::borrow(p.a.get()), ec);
    BOOST_TEST((ec == already_registered));
    BOOST_TEST(!d.is_open());
}

BOOST_FIXTURE_TEST_CASE(there_is_no_second_handle_but_for_transfers_of_a_terminal,
                        test::context_fixture) {
    moor::use_registration_service(io); // has the context's own handles made
    for (const kind& k : kinds())
        BOOST_TEST_CONTEXT(k.name) {
            test::fd_pair p = k.make();
            int next = next_number();
            {
                ours d(io, moor::borrow(p.a.get()));
                test::called waited;
                d.async_wait(ours::wait_read, waited.handler());
                test::run_ready(io);
                BOOST_TEST(next_number() == next);
                d.cancel();
                test::run_ready(io);
                std::array<char, 16> got;
                transferred t;
                d.async_read_some(asio::buffer(got), t.handler());
                test::run_ready(io);
                BOOST_TEST((next_number() != next) == k.is_opened);
                if (k.is_opened)
                    BOOST_TEST((flags_of(next) & O_NONBLOCK) != 0);
                test::put(p.b, "x");
                test::run_until(io, [&] { return bool(t); });
                BOOST_TEST((next_number() != next) == k.is_opened);
                ours moved(std::move(d)); // which takes it along
                BOOST_TEST((next_number() != next) == k.is_opened);
                if (k.is_polled)
                    BOOST_TEST(moved.release() == p.a);
            }
            BOOST_TEST(next_number() == next);
        }
}

// ---- its flags ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(others_see_the_flags_that_were_there, test::context_fixture) {
    for_each_kind_and_mode(false, [&](const kind&, test::fd_pair& p) {
        const int found = flags_of(p.a);
        const std::set<int> unchanged{found};
        std::array<char, 16> got;
        error_code ec;
        ours d(io, moor::borrow(p.a.get()));
        flag_watch flags(p.a);
        BOOST_TEST(flags_of(p.a) == found);

        for (int i = 0; i != 3; ++i) {
            transferred t;
            d.async_read_some(asio::buffer(got), t.handler());
            test::run_ready(io);
            BOOST_TEST(t.times == 0); // nothing blocks
            BOOST_TEST(flags_of(p.a) == found);
            test::put(p.b, "x");
            test::run_until(io, [&] { return bool(t); });
            BOOST_TEST(t.bytes == 1u);
            BOOST_TEST((flags.seen() == unchanged));
            BOOST_TEST(flags_of(p.a) == found);
        }
        test::put(p.b, "x");
        BOOST_TEST(d.read_some(asio::buffer(got), ec) == 1u);
        BOOST_TEST((flags.seen() == unchanged));
        // A synchronous one waits in either mode.
        std::future<::ssize_t> later =
            std::async(std::launch::async, [&] { return ::write(p.b, "x", 1); });
        std::size_t n = d.read_some(asio::buffer(got));
        BOOST_TEST(later.get() == 1);
        BOOST_TEST(n == 1u);
        BOOST_TEST((flags.seen() == unchanged));

        for (ours::wait_type w : {ours::wait_read, ours::wait_error}) {
            test::called waited;
            d.async_wait(w, waited.handler());
            test::run_ready(io);
            BOOST_TEST(flags_of(p.a) == found);
            d.cancel();
            test::run_all(io);
        }
        BOOST_TEST(flags_of(p.a) == found);
        BOOST_TEST(flags.seen().empty());
        BOOST_TEST(!d.native_non_blocking());
        BOOST_TEST(!d.non_blocking());
        BOOST_TEST(d.release() == p.a);
        BOOST_TEST(flags_of(p.a) == found);
    });
}

BOOST_FIXTURE_TEST_CASE(others_see_the_flags_that_were_there_during_a_write_too,
                        test::context_fixture) {
    for_each_kind_and_mode(true, [&](const kind& k, test::fd_pair& p) {
        const int found = flags_of(p.a);
        const asio::const_buffer too_much = asio::buffer(much().data(), k.much());
        error_code ec;
        ours d(io, moor::borrow(p.a.get()));
        flag_watch flags(p.a);
        auto check_flags = [&] {
            BOOST_TEST((flags.seen() == std::set<int>{found}));
            BOOST_TEST(flags_of(p.a) == found);
        };
        BOOST_TEST(write_once(io, d, "x", ec) == 1u);
        check_flags();
        BOOST_TEST(d.write_some(asio::buffer("x", 1), ec) == 1u);
        check_flags(); // it may block
        flags.calls().interrupt(2);
        BOOST_TEST(write_once(io, d, "x", ec) == 1u);
        check_flags();
        // Until there is no room, and when there is.
        transferred t;
        for (;;) {
            t = transferred();
            d.async_write_some(too_much, t.handler());
            bool others_run = false;
            asio::post(io, [&] { others_run = true; });
            test::run_ready(io);
            BOOST_TEST(others_run);
            BOOST_TEST(flags_of(p.a) == found);
            if (!t)
                break;
            BOOST_REQUIRE(!t.ec);
        }
        check_flags();
        test::run_until(io, [&] {
            test::drain(p.b);
            test::run_ready(io);
            return bool(t);
        });
        BOOST_TEST(!t.ec);
        check_flags();
        BOOST_TEST(!d.native_non_blocking());
        // A synchronous one that would block says so, and one that is pending is cancelled.
        test::drain(p.b);
        d.non_blocking(true);
        do
            d.write_some(too_much, ec);
        while (!ec);
        BOOST_TEST((ec == would_block));
        BOOST_TEST(flags_of(p.a) == found);
        d.async_write_some(too_much, [](error_code, std::size_t) {});
        test::run_ready(io);
        d.cancel();
        test::run_all(io);
        d.close();
        BOOST_TEST(flags_of(p.a) == found);
    });
}

BOOST_FIXTURE_TEST_CASE(files_and_devices_keep_their_flags, test::context_fixture) {
    auto check = [&](const char* what, const test::unique_fd& fd, auto start) {
        BOOST_TEST_CONTEXT(what) {
            int found = flags_of(fd);
            ours d(io, moor::borrow(fd.get()));
            flag_watch flags(fd);
            transferred t;
            start(d, t);
            test::run_all(io);
            BOOST_TEST(t.times == 1);
            BOOST_TEST((flags.seen() == std::set<int>{found}));
            BOOST_TEST(flags_of(fd) == found);
        }
    };
    std::array<char, 16> got;
    for (const char* name : {"/dev/null", "/dev/zero", "/proc/self/status"})
        check(name, test::unique_fd(::open(name, O_RDONLY | O_CLOEXEC)),
              [&](ours& d, transferred& t) { d.async_read_some(asio::buffer(got), t.handler()); });
    char name[] = "/tmp/moor-file-XXXXXX";
    test::unique_fd file(::mkostemp(name, O_CLOEXEC));
    ::unlink(name);
    check("a regular file", file,
          [&](ours& d, transferred& t) { d.async_write_some(asio::buffer("x", 1), t.handler()); });
    BOOST_TEST(::lseek(file, 0, SEEK_END) == 1);
    std::uint64_t in = 0, out = 5;
    check("a counter", test::unique_fd(::eventfd(0, EFD_CLOEXEC)), [&](ours& d, transferred& t) {
        d.async_read_some(asio::buffer(&in, sizeof(in)), t.handler());
        test::run_ready(io);
        BOOST_TEST(t.times == 0);
        d.async_write_some(asio::buffer(&out, sizeof(out)), [](error_code, std::size_t) {});
    });
    BOOST_TEST(in == 5u);
}

BOOST_FIXTURE_TEST_CASE(modes_are_the_descriptors_own_unless_the_handle_is_meant,
                        test::context_fixture) {
    std::array<char, 16> got;
    error_code ec;
    for (const kind& k : kinds())
        BOOST_TEST_CONTEXT(k.name) {
            test::fd_pair p = k.make();
            set_blocking(p.a);
            int found = flags_of(p.a);
            ours d(io, moor::borrow(p.a.get()));
            d.non_blocking(true);
            BOOST_TEST(d.non_blocking());
            BOOST_TEST(flags_of(p.a) == found);
            BOOST_TEST(d.read_some(asio::buffer(got), ec) == 0u);
            BOOST_TEST((ec == would_block)); // although it would block
            test::put(p.b, "x");
            d.wait(ours::wait_read, ec); // (a terminal takes its time)
            while ((ec = error_code(), d.read_some(asio::buffer(got), ec)) == 0u)
                BOOST_REQUIRE((ec == would_block));
            d.non_blocking(false);
            BOOST_TEST(flags_of(p.a) == found);
            BOOST_TEST(!d.native_non_blocking());

            d.native_non_blocking(true); // for good
            BOOST_TEST(flags_of(p.a) == (found | O_NONBLOCK));
            BOOST_TEST(d.native_non_blocking());
            d.native_non_blocking(false);
            BOOST_TEST(flags_of(p.a) == found);
            d.native_non_blocking(true);
            d.close();
            BOOST_TEST(flags_of(p.a) == (found | O_NONBLOCK));
        }
}

BOOST_FIXTURE_TEST_CASE(a_reader_that_is_robbed_waits_on, test::context_fixture) {
    // Somebody who shares the file takes the data between the event and the read.
    for (const kind& k : kinds()) {
        if (k.is_polled)
            continue; // there the read would block
        BOOST_TEST_CONTEXT(k.name) {
            test::fd_pair p = k.make();
            test::unique_fd other(test::duplicate(p.a));
            set_blocking(p.a);
            ours d(io, moor::borrow(p.a.get()));
            std::array<char, 16> got;
            transferred t;
            d.async_read_some(asio::buffer(got), t.handler());
            test::run_ready(io);
            std::string robbed;
            {
                test::watched_transfers calls(p.a);
                calls.before([&] {
                    if (robbed.empty())
                        robbed = test::get(other);
                });
                test::put(p.b, "robbed");
                test::run_until(io, [&] { return !robbed.empty(); });
                test::run_ready(io);
            }
            BOOST_TEST(robbed == "robbed");
            BOOST_TEST(t.times == 0);
            test::put(p.b, "mine");
            test::run_until(io, [&] { return bool(t); });
            BOOST_TEST(std::string(got.data(), t.bytes) == "mine");
        }
    }
}

// ---- a terminal that is shared with a shell -----------------------------------------------------

/// A terminal whose user is at `person`; the shell and the program share one open file.
struct shared_terminal {
    test::unique_fd person;
    test::unique_fd shell;
    test::unique_fd program;

    shared_terminal() {
        test::fd_pair p = test::make_pty();
        person = std::move(p.a);
        set_blocking(p.b);
        ::termios t{};
        BOOST_REQUIRE_EQUAL(::tcgetattr(p.b, &t), 0);
        t.c_lflag &= ~static_cast<::tcflag_t>(ECHO);
        BOOST_REQUIRE_EQUAL(::tcsetattr(p.b, TCSANOW, &t), 0);
        program = test::unique_fd(test::duplicate(p.b));
        shell = std::move(p.b);
    }

    bool shell_would_block() const { return !test::has_nonblock(shell); }
};

BOOST_FIXTURE_TEST_CASE(a_shell_can_read_while_a_program_waits_and_after_it,
                        test::context_fixture) {
    shared_terminal tty;
    std::string line;
    {
        // Standard input and output are one open file under two numbers.
        test::unique_fd number(test::duplicate(tty.program));
        ours in(io, moor::borrow(tty.program.get()));
        ours out(io, moor::borrow(number.get()));
        std::string text;
        transferred read, write;
        asio::async_read_until(in, asio::dynamic_buffer(text), '\n', read.handler());
        test::run_ready(io);
        BOOST_TEST(tty.shell_would_block());
        asio::async_write(out, asio::buffer("prompt> ", 8), write.handler());
        test::run_until(io, [&] { return bool(write); });
        BOOST_TEST(!write.ec);
        BOOST_TEST(read.times == 0);
        BOOST_TEST(tty.shell_would_block());
        test::put(tty.person, "for the program\n");
        test::run_until(io, [&] { return bool(read); });
        BOOST_TEST(text == "for the program\n");
        BOOST_TEST(tty.shell_would_block());

        // The program is left with a read pending.
        transferred pending;
        asio::async_read_until(in, asio::dynamic_buffer(line), '\n', pending.handler());
        test::run_ready(io);
        in.close();
        out.close();
        test::run_all(io);
        BOOST_TEST((pending.ec == aborted));
    }
    BOOST_TEST(tty.shell_would_block());
    std::future<std::string> reading = std::async(std::launch::async, [&] {
        char got[64];
        ::ssize_t n = ::read(tty.shell, got, sizeof(got));
        return n < 0 ? "error" : std::string(got, static_cast<std::size_t>(n));
    });
    BOOST_TEST(::write(tty.person, "for the shell\n", 14) == 14);
    BOOST_TEST(reading.get() == "for the shell\n");
}

/// What a program does with its terminal: asks, gets an answer, and exits with a read pending.
template <class Stream>
int asks_and_exits(Stream make_stream(asio::io_context&, int), int tty) {
    asio::io_context io;
    Stream in = make_stream(io, tty);
    std::string text;
    std::array<char, 64> got;
    bool ok = false;
    asio::async_write(in, asio::buffer("name? ", 6), [&](error_code ec, std::size_t) {
        if (!ec)
            asio::async_read_until(
                in, asio::dynamic_buffer(text), '\n', [&](error_code e, std::size_t) {
                    ok = !e && text == "moor\n";
                    in.async_read_some(asio::buffer(got), [](error_code, std::size_t) {});
                    asio::post(io, [&] { io.stop(); });
                });
    });
    io.run_for(test::cap);
    return ok ? 0 : 1;
}

theirs make_theirs(asio::io_context& io, int tty) { return theirs(io, ::dup(tty)); }
ours make_ours(asio::io_context& io, int tty) { return ours(io, moor::borrow(tty)); }

/// Whether the shell's terminal is as it was after the program has ended.
template <class Stream>
bool leaves_the_shell_alone(Stream make_stream(asio::io_context&, int)) {
    shared_terminal tty;
    ::pid_t pid = ::fork();
    BOOST_REQUIRE(pid >= 0);
    if (pid == 0) // The descriptor is not even destroyed.
        ::_exit(asks_and_exits(make_stream, tty.program));
    test::put(tty.person, "moor\n");
    int status = -1;
    BOOST_REQUIRE_EQUAL(::waitpid(pid, &status, 0), pid);
    BOOST_TEST(status == 0);
    return tty.shell_would_block();
}

BOOST_AUTO_TEST_CASE(a_program_that_exits_leaves_the_shell_its_terminal) {
    BOOST_TEST(leaves_the_shell_alone(&make_ours));
    if (!test::on_io_uring()) // there the original needs no flag
        BOOST_TEST(!leaves_the_shell_alone(&make_theirs));
}

BOOST_AUTO_TEST_SUITE_END()
