// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A stream descriptor: its transfers, on every kind of handle. What the original does as well is
// tested on both.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/loop_thread.hpp"
#include "support/programs.hpp"
#include "support/pty.hpp"
#include "support/streams.hpp"
#include "support/tracker.hpp"
#include "support/transferred.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#if BOOST_ASIO_VERSION >= 102700 // Boost 1.82
#include <boost/asio/bind_immediate_executor.hpp>
#endif

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(stream)

namespace {

namespace asio = boost::asio;
using boost::unit_test::precondition;
using namespace test;

using theirs = asio::posix::stream_descriptor;
using ours = moor::stream_descriptor;
using both = std::tuple<theirs, ours>;
using io_executor = asio::io_context::executor_type;
using concrete = moor::basic_stream_descriptor<io_executor>;

const error_code broken_pipe(asio::error::broken_pipe);

/// Runs what is ready, and does `meanwhile`, until `done()`, with the cap.
template <class Meanwhile, class Done>
void run_beside(asio::io_context& io, Meanwhile meanwhile, Done done) {
    auto deadline = std::chrono::steady_clock::now() + test::cap;
    while (!done()) {
        BOOST_REQUIRE_MESSAGE(std::chrono::steady_clock::now() < deadline, "the cap was reached");
        meanwhile();
        test::run_ready(io);
    }
}

/// More than it takes at once, where that can be.
asio::const_buffer too_much(const byte_kind& k) {
    return asio::buffer(much().data(), k.keeps_packets ? 4096 : much().size());
}

/// How a descriptor has its handle.
enum class how { owned, borrowed, borrowed_blocking };
constexpr how all_hows[] = {how::owned, how::borrowed, how::borrowed_blocking};

/// A descriptor of p.a, which keeps borrowed ones open.
template <class D = ours>
D make(asio::io_context& io, test::fd_pair& p, how h) {
    if (h == how::owned)
        return D(io, p.a.release());
    if (h == how::borrowed_blocking)
        set_blocking(p.a);
    return D(io, moor::borrow(p.a.get()));
}

/// Each kind of file, for a descriptor that owns it or borrows it.
template <class F>
void for_each_kind(F f) {
    for (const byte_kind& k : byte_kinds())
        for (how h : all_hows)
            BOOST_TEST_CONTEXT(k.name << ", " << static_cast<int>(h)) { f(k, h); }
}

/// Reads to the end, with a buffer that every read leaves partly empty.
class greedy {
public:
    explicit greedy(ours d) : d_(std::move(d)) {}

    void start() {
        d_.async_read_some(asio::buffer(buffer_), [this](error_code ec, std::size_t n) {
            text_.append(buffer_.data(), n);
            error_ = ec;
            if (!ec)
                start();
        });
    }

    ours& descriptor() { return d_; }
    const std::string& text() const { return text_; }
    const error_code& error() const { return error_; }

private:
    ours d_;
    std::array<char, 4096> buffer_;
    std::string text_;
    error_code error_;
};

/// A round trip: the reader is pending again, and has seen all.
void pass(asio::io_context& io, greedy& g, int peer, const std::string& s) {
    std::string expected = g.text() + s;
    test::put(peer, s);
    test::run_until(io, [&] { return g.text() == expected; });
    test::run_ready(io);
}

std::atomic<int> signals{0};
void count_signal(int) { ++signals; }

} // namespace

// ---- synchronous transfers ------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(synchronous_transfers_on_every_kind, D, both) {
    test::context_fixture f;
    for (const byte_kind& k : byte_kinds())
        BOOST_TEST_CONTEXT(k.name) {
            test::fd_pair p = k.make();
            D in(f.io, p.a.release());
            D out(f.io, test::duplicate(p.b));
            std::array<char, 16> got;
            error_code ec = bad_descriptor;
            BOOST_TEST(out.write_some(asio::buffer("hello", 5), ec) == 5u);
            BOOST_TEST(!ec);
            ec = bad_descriptor;
            BOOST_TEST(in.read_some(asio::buffer(got), ec) == 5u);
            BOOST_TEST(!ec);
            BOOST_TEST(std::string(got.data(), 5) == "hello");
            BOOST_TEST(out.write_some(asio::buffer("world!", 6)) == 6u);
            BOOST_TEST(in.read_some(asio::buffer(got)) == 6u);
            BOOST_TEST(std::string(got.data(), 6) == "world!");
            out.close();
            k.end(p);
            error_code expected = k.last ? k.last : eof;
            BOOST_TEST(in.read_some(asio::buffer(got), ec) == 0u);
            BOOST_TEST((ec == expected));
            if (expected == eof) // an error is told once
                BOOST_TEST((thrown_by([&] { in.read_some(asio::buffer(got)); }) == eof));
        }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(buffers_are_gathered_and_scattered, D, both) {
    test::context_fixture f;
    for (auto make : {+[] { return test::make_pipe(); }, +[] { return test::make_socketpair(); }}) {
        test::fd_pair p = make();
        D in(f.io, p.a.release());
        D out(f.io, p.b.release());
        const std::array<asio::const_buffer, 4> parts{asio::buffer("one", 3), asio::const_buffer(),
                                                      asio::buffer("two", 3),
                                                      asio::buffer("three", 5)};
        char a[2], b[4], c[8];
        const std::array<asio::mutable_buffer, 4> room{asio::mutable_buffer(), asio::buffer(a),
                                                       asio::buffer(b), asio::buffer(c)};
        BOOST_TEST(out.write_some(parts) == 11u);
        BOOST_TEST(in.read_some(room) == 11u);
        BOOST_TEST(std::string(a, 2) + '|' + std::string(b, 4) + '|' + std::string(c, 5) ==
                   "on|etwo|three");

        // A sequence is copied, and may have more parts than the kernel takes at once.
        std::string many(500, '-');
        for (bool now : {true, false}) {
            std::vector<asio::const_buffer> letters;
            for (std::size_t i = 0; i != many.size(); ++i)
                letters.push_back(asio::buffer(&"0123456789"[i % 10], 1));
            error_code ec;
            transferred t;
            if (now) {
                t.bytes = out.write_some(letters, ec);
            } else {
                out.async_write_some(letters, t.handler());
                letters.assign(letters.size(), asio::const_buffer());
                test::run_until(f.io, [&] { return bool(t); });
            }
            BOOST_REQUIRE(t.bytes >= 16u);
            BOOST_TEST(in.read_some(asio::buffer(many)) == t.bytes);
            BOOST_TEST(many.substr(0, 12) == "012345678901");
        }
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(nothing_is_transferred_without_an_error_and_without_waiting, D,
                              both) {
    test::context_fixture f;
    for (const byte_kind& k : byte_kinds())
        BOOST_TEST_CONTEXT(k.name) {
            test::fd_pair p = k.make();
            D d(f.io, p.a.release());
            const std::array<asio::mutable_buffer, 2> none{};
            error_code ec = bad_descriptor;
            BOOST_TEST(d.read_some(asio::mutable_buffer(), ec) == 0u);
            BOOST_TEST(!ec);
            ec = bad_descriptor;
            BOOST_TEST(d.write_some(none, ec) == 0u);
            BOOST_TEST(!ec);
            test::watched_transfers calls(d.native_handle());
            transferred read, reads, write;
            d.async_read_some(asio::mutable_buffer(), read.handler());
            d.async_read_some(none, reads.handler());
            d.async_write_some(asio::const_buffer(), write.handler());
            BOOST_TEST(read.times + reads.times + write.times == 0);
            test::run_all(f.io);
            for (transferred* t : {&read, &reads, &write}) {
                BOOST_TEST(t->times == 1);
                BOOST_TEST(!t->ec);
                BOOST_TEST(t->bytes == 0u);
            }
            BOOST_TEST(calls.reads() + calls.writes() == 0);
        }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_synchronous_transfer_waits, D, both) {
    test::context_fixture f;
    for (bool made_non_blocking : {false, true}) {
        test::fd_pair p = test::make_socketpair();
        set_blocking(p.a);
        D d(f.io, p.a.release());
        if (made_non_blocking) // as an asynchronous operation would
            d.native_non_blocking(true);
        std::array<char, 16> got;
        std::future<::ssize_t> later =
            std::async(std::launch::async, [&] { return ::write(p.b, "x", 1); });
        std::size_t n = d.read_some(asio::buffer(got));
        BOOST_TEST(later.get() == 1);
        BOOST_TEST(n == 1u);
        test::set_nonblocking(d.native_handle());
        test::fill(d.native_handle());
        if (!made_non_blocking)
            set_blocking(d.native_handle());
        std::future<std::size_t> drained =
            std::async(std::launch::async, [&] { return test::drain(p.b); });
        n = d.write_some(asio::buffer("y", 1));
        BOOST_TEST(drained.get() > 0u);
        BOOST_TEST(n == 1u);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_synchronous_transfer_would_block_if_asked_to, D, both) {
    test::context_fixture f;
    for (const byte_kind& k : byte_kinds())
        BOOST_TEST_CONTEXT(k.name) {
            test::fd_pair p = k.make();
            set_blocking(p.a);
            set_blocking(p.b);
            D in(f.io, p.a.release());
            D out(f.io, p.b.release());
            in.non_blocking(true);
            out.non_blocking(true);
            std::array<char, 16> got;
            error_code ec;
            BOOST_TEST(in.read_some(asio::buffer(got), ec) == 0u);
            BOOST_TEST((ec == would_block));
            BOOST_TEST((thrown_by([&] { in.read_some(asio::buffer(got)); }) == would_block));
            do
                out.write_some(too_much(k), ec);
            while (!ec);
            BOOST_TEST((ec == would_block));
            if (!k.is_pty()) // the kernel makes room when it likes
                BOOST_TEST((thrown_by([&] { out.write_some(too_much(k)); }) == would_block));
        }
}

// ---- asynchronous transfers -------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(asynchronous_transfers_on_every_kind, D, both) {
    test::context_fixture f;
    for (const byte_kind& k : byte_kinds()) {
        if (std::is_same<D, theirs>::value && test::on_io_uring() && k.is_pty())
            continue; // its reads of a terminal fail with EINTR at times
        BOOST_TEST_CONTEXT(k.name) {
            test::fd_pair p = k.make();
            D in(f.io, p.a.release());
            D out(f.io, test::duplicate(p.b));
            error_code ec;
            // There before it is read.
            BOOST_TEST(write_once(f.io, out, "hello", ec) == 5u);
            BOOST_TEST(!ec);
            BOOST_TEST(read_once(f.io, in, ec) == "hello");
            BOOST_TEST(!ec);
            // Waited for.
            for (int i = 0; i != 3; ++i) {
                std::array<char, 16> got;
                transferred t;
                in.async_read_some(asio::buffer(got), t.handler());
                test::run_ready(f.io);
                BOOST_TEST(t.times == 0);
                BOOST_TEST(write_once(f.io, out, "world!", ec) == 6u);
                test::run_until(f.io, [&] { return bool(t); });
                BOOST_TEST(!t.ec);
                BOOST_TEST(std::string(got.data(), t.bytes) == "world!");
            }
            transferred t;
            std::array<char, 16> got;
            in.async_read_some(asio::buffer(got), t.handler());
            test::run_ready(f.io);
            out.close();
            k.end(p);
            test::run_until(f.io, [&] { return bool(t); });
            BOOST_TEST(t.bytes == 0u);
            BOOST_TEST((t.ec == (k.last ? k.last : eof)));
            if (!k.last) {
                BOOST_TEST(read_once(f.io, in, ec).empty()); // and again
                BOOST_TEST((ec == eof));
            }
        }
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(both_directions_are_pending_at_once, D, both) {
    test::context_fixture f;
    for (auto make : {+[] { return test::make_socketpair(); }, &test::make_tcp_pair}) {
        test::fd_pair p = make();
        D d(f.io, p.a.release());
        test::fill(d.native_handle());
        std::array<char, 16> got;
        transferred read, write;
        d.async_read_some(asio::buffer(got), read.handler());
        d.async_write_some(asio::buffer("z", 1), write.handler());
        test::run_ready(f.io);
        BOOST_TEST(read.times + write.times == 0);
        test::put(p.b, "x");
        test::run_until(f.io, [&] { return bool(read); });
        BOOST_TEST(read.bytes == 1u);
        BOOST_TEST(write.times == 0); // still armed
        run_beside(
            f.io, [&] { test::drain(p.b); }, [&] { return bool(write); });
        BOOST_TEST(!write.ec);
        BOOST_TEST(write.bytes == 1u);
    }
}

BOOST_FIXTURE_TEST_CASE(a_write_goes_on_when_there_is_room, test::context_fixture) {
    for_each_kind([&](const byte_kind& k, how h) {
        test::fd_pair p = swapped(k.make());
        ours d = make(io, p, h);
        for (int round = 0; round != 3; ++round) {
            std::size_t sent = 0, got = 0;
            transferred t;
            for (;;) { // until one is pending
                t = transferred();
                d.async_write_some(too_much(k), t.handler());
                test::run_ready(io);
                if (!t)
                    break;
                BOOST_REQUIRE(!t.ec);
                BOOST_TEST(t.bytes > 0u);
                BOOST_TEST(t.bytes < much().size());
                sent += t.bytes;
            }
            auto drain = [&] { got += test::drain(p.b); };
            run_beside(io, drain, [&] { return bool(t); });
            BOOST_TEST(!t.ec);
            sent += t.bytes;
            run_beside(io, drain, [&] { return got >= sent; });
            BOOST_TEST(got == sent);
        }
    });
}

// ---- the peer goes ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(writes_after_the_peer_has_gone_fail, test::context_fixture) {
    signal_action ignored(SIGPIPE, SIG_IGN);
    enum before { nothing, a_write, a_full_one, one_that_waits };
    for_each_kind([&](const byte_kind& k, how h) {
        // To a terminal's master one can write when the terminal is closed: somebody may open it
        // again.
        if (k.name == "pty slave")
            return;
        for (before b : {nothing, a_write, a_full_one, one_that_waits})
            BOOST_TEST_CONTEXT("after " << b) {
                test::fd_pair p = swapped(k.make());
                ours d = make(io, p, h);
                const int flags = test::flags_of(d.native_handle());
                error_code ec;
                transferred t;
                if (b == a_write)
                    write_once(io, d, "x", ec);
                if (b == a_full_one || b == one_that_waits) {
                    do {
                        t = transferred();
                        d.async_write_some(too_much(k), t.handler());
                        test::run_ready(io);
                    } while (b == one_that_waits && t);
                    BOOST_TEST(!t.ec);
                }
                p.b.close();
                if (b == one_that_waits) {
                    test::run_until(io, [&] { return bool(t); });
                    BOOST_TEST(bool(t.ec));
                }
                int failures = 0;
                for (int i = 0; i != 8; ++i) {
                    write_once(io, d, "x", ec);
                    failures += bool(ec);
                    if (h != how::owned)
                        BOOST_TEST(test::flags_of(p.a) == flags);
                }
                // The first may be sent before a reset comes.
                BOOST_TEST(failures >= (k.is_tcp() ? 6 : 8));
                d.write_some(asio::buffer("x", 1), ec);
                BOOST_TEST(bool(ec));
            }
    });
}

BOOST_FIXTURE_TEST_CASE(a_reader_and_a_writer_that_wait_both_learn_of_a_hang_up,
                        test::context_fixture) {
    for (auto make_pair : {+[] { return test::make_socketpair(); }, &test::make_tcp_pair})
        for (how h : all_hows) {
            test::fd_pair p = make_pair();
            test::fill(p.a);
            ours d = make(io, p, h);
            std::array<char, 16> got;
            transferred read, write;
            d.async_read_some(asio::buffer(got), read.handler());
            d.async_write_some(asio::buffer("x", 1), write.handler());
            test::run_ready(io);
            BOOST_TEST(read.times + write.times == 0);
            p.b.close(); // with what it has not read, so that TCP resets
            test::run_until(io, [&] { return read && write; });
            BOOST_TEST((read.ec == eof || read.ec == asio::error::connection_reset));
            BOOST_TEST((write.ec == broken_pipe || write.ec == asio::error::connection_reset));
        }
}

BOOST_FIXTURE_TEST_CASE(a_broken_socket_raises_no_signal, test::context_fixture) {
    signal_action counted(SIGPIPE, &count_signal);
    signals = 0;
    const std::array<asio::const_buffer, 2> parts{asio::buffer("x", 1), asio::buffer("y", 1)};
    for (how h : all_hows) {
        test::fd_pair p = test::make_socketpair();
        ours d = make(io, p, h);
        p.b.close();
        error_code ec;
        d.write_some(asio::buffer("x", 1), ec);
        BOOST_TEST((ec == broken_pipe));
        d.write_some(parts, ec);
        BOOST_TEST((ec == broken_pipe));
        transferred one, many;
        d.async_write_some(asio::buffer("x", 1), one.handler());
        d.async_write_some(parts, many.handler());
        test::run_all(io);
        BOOST_TEST((one.ec == broken_pipe));
        BOOST_TEST((many.ec == broken_pipe));
        BOOST_TEST((thrown_by([&] { d.write_some(parts); }) == broken_pipe));
        d.non_blocking(true);
        d.write_some(parts, ec);
        BOOST_TEST((ec == broken_pipe));
    }
    BOOST_TEST(signals == 0);
    // A pipe has no way to do without it.
    for (how h : all_hows) {
        test::fd_pair p = swapped(test::make_pipe());
        ours d = make(io, p, h);
        p.b.close();
        error_code ec;
        write_once(io, d, "x", ec);
        BOOST_TEST((ec == broken_pipe));
    }
    BOOST_TEST(signals == 3);
}

// ---- signals ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_interrupted_call_is_made_again, test::context_fixture) {
    const std::array<asio::const_buffer, 1> one_part{asio::buffer("one", 3)};
    const std::array<asio::const_buffer, 2> parts{asio::buffer("o", 1), asio::buffer("ne", 2)};
    char a[1], b[16], got[16];
    const std::array<asio::mutable_buffer, 1> one_room{asio::buffer(got)};
    const std::array<asio::mutable_buffer, 2> room{asio::buffer(a), asio::buffer(b)};
    for_each_kind([&](const byte_kind& k, how h) {
        test::fd_pair p = k.make();
        test::fd_pair q = swapped(k.make());
        ours in = make(io, p, h);
        ours out = make(io, q, h);
        // Interrupted three times, and made once more at least. (What RWF_NOWAIT does not know is
        // found out in one more.)
        auto finish = [&](transferred& t) {
            test::run_until(io, [&] { return bool(t); });
            BOOST_TEST(t.bytes == 3u);
            BOOST_TEST(!t.ec);
        };
        auto read = [&](const auto& buffers, bool at_once) {
            test::put(p.b, "one");
            test::watched_transfers calls(in.native_handle());
            calls.interrupt(3);
            transferred t;
            if (at_once)
                t.times = 1, t.bytes = in.read_some(buffers, t.ec);
            else
                in.async_read_some(buffers, t.handler());
            finish(t);
            BOOST_TEST(calls.reads() >= 4);
        };
        auto write = [&](const auto& buffers, bool at_once) {
            test::watched_transfers calls(out.native_handle());
            calls.interrupt(3);
            transferred t;
            if (at_once)
                t.times = 1, t.bytes = out.write_some(buffers, t.ec);
            else
                out.async_write_some(buffers, t.handler());
            finish(t);
            BOOST_TEST(calls.writes() >= 4);
        };
        for (bool at_once : {true, false}) {
            read(one_room, at_once);
            read(room, at_once);
            write(one_part, at_once);
            write(parts, at_once);
        }
    });
}

BOOST_FIXTURE_TEST_CASE(a_transfer_that_blocks_goes_on_after_a_signal, test::context_fixture) {
    signal_action counted(SIGUSR1, &count_signal);
    for (bool made_non_blocking : {false, true}) { // blocked in read(2), and in poll(2)
        test::fd_pair p = test::make_socketpair();
        set_blocking(p.a);
        ours d(io, p.a.release());
        d.native_non_blocking(made_non_blocking);
        std::promise<std::pair<::pthread_t, ::pid_t>> reading;
        std::future<std::size_t> read = std::async(std::launch::async, [&] {
            char got[16];
            reading.set_value({::pthread_self(), static_cast<::pid_t>(::syscall(SYS_gettid))});
            return d.read_some(asio::buffer(got));
        });
        const auto thread = reading.get_future().get();
        const ::pthread_t reader = thread.first;
        const ::pid_t reader_id = thread.second;
        for (int i = 0; i != 50; ++i) {
            const int before = signals;
            BOOST_TEST(test::wait_for([&] {
                // A signal to a thread that sleeps interrupts its call. (Many at once can leave it
                // with all signals blocked for good, under TSan.)
                if (test::sleeps(reader_id))
                    BOOST_REQUIRE_EQUAL(::pthread_kill(reader, SIGUSR1), 0);
                return signals != before;
            }));
        }
        test::put(p.b, "x");
        BOOST_TEST(read.get() == 1u);
    }
}

// ---- releasing, cancelling, moving ------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(release_ends_what_is_pending_and_a_reused_number_is_left_alone,
                        test::context_fixture) {
    for (bool started : {false, true}) // whether the loop has seen the operations
        for (bool has_data : {false, true}) {
            test::fd_pair p = test::make_socketpair();
            test::fill(p.a);
            ours d(io, p.a.release());
            std::array<char, 16> got;
            transferred read, write, nothing;
            test::called waits[3];
            d.async_read_some(asio::buffer(got), read.handler());
            d.async_write_some(asio::buffer("x", 1), write.handler());
            d.async_wait(ours::wait_read, waits[0].handler());
            d.async_wait(ours::wait_read, waits[1].handler());
            d.async_wait(ours::wait_error, waits[2].handler());
            if (started)
                test::run_ready(io);
            d.async_read_some(asio::mutable_buffer(), nothing.handler());
            int number = d.release();
            BOOST_TEST(read.times + write.times == 0);
            p.a = test::unique_fd(number);

            // Before the loop runs, the number is another file, which has room, and may have data.
            test::fd_pair q = test::reuse_number(p.a, test::make_socketpair());
            if (has_data)
                test::put(q.b, "theirs");
            ours other(io, q.a.release());
            BOOST_TEST(other.native_handle() == number);
            test::called its_wait;
            other.async_wait(ours::wait_read, its_wait.handler());
            test::watched_transfers calls(number);
            test::run_ready(io);
            for (transferred* t : {&read, &write}) {
                BOOST_TEST(t->times == 1);
                BOOST_TEST((t->ec == aborted));
                BOOST_TEST(t->bytes == 0u);
            }
            for (test::called& w : waits) {
                BOOST_TEST(w.times == 1);
                BOOST_TEST((w.ec == aborted));
            }
            BOOST_TEST(nothing.times == 1);
            BOOST_TEST(calls.reads() + calls.writes() == 0);
            BOOST_TEST(its_wait.times == (has_data ? 1 : 0));
            if (!has_data)
                test::put(q.b, "theirs");
            test::run_until(io, [&] { return bool(its_wait); });
            BOOST_TEST(!its_wait.ec);
            error_code ec;
            BOOST_TEST(read_once(io, other, ec) == "theirs");
            BOOST_TEST(test::get(q.b).empty());
        }
}

BOOST_FIXTURE_TEST_CASE(release_gives_back_the_mode_that_it_found, test::context_fixture) {
    error_code ec;
    auto with = [&](bool found, auto f) {
        test::fd_pair p = test::make_socketpair();
        if (!found)
            set_blocking(p.a);
        ours d(io, p.a.release());
        test::put(p.b, "x");
        f(d);
        return test::unique_fd(d.release(ec));
    };
    auto read = [&](ours& d) { BOOST_TEST(read_once(io, d, ec) == "x"); };
    auto write = [&](ours& d) { BOOST_TEST(write_once(io, d, "x", ec) == 1u); };
    BOOST_TEST(!has_nonblock(with(false, [](ours&) {})));
    BOOST_TEST(!has_nonblock(with(false, read)));
    BOOST_TEST(!has_nonblock(with(false, write)));
    BOOST_TEST(has_nonblock(with(true, read)));
    BOOST_TEST(has_nonblock(with(true, write)));
    auto with_native = [&](ours& d) {
        d.native_non_blocking(true);
        read(d);
    };
    BOOST_TEST(has_nonblock(with(false, with_native)));
    auto native_afterwards = [&](ours& d) {
        read(d);
        BOOST_TEST(d.native_non_blocking());
        d.native_non_blocking(true); // now it is the user's
    };
    BOOST_TEST(has_nonblock(with(false, native_afterwards)));
    auto with_user = [&](ours& d) {
        d.non_blocking(true);
        read(d);
    };
    BOOST_TEST(has_nonblock(with(false, with_user)));
    auto cleared = [&](ours& d) {
        read(d);
        d.non_blocking(true);
        d.non_blocking(false);
        BOOST_TEST(!has_nonblock(d.native_handle()));
        write(d); // sets it again
        BOOST_TEST(has_nonblock(d.native_handle()));
    };
    BOOST_TEST(!has_nonblock(with(true, cleared)));
    BOOST_TEST(!ec);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(whatever_ends_it_aborts_what_is_pending, D, both) {
    test::context_fixture f;
    enum way { cancelled, closed, destroyed, assigned };
    for (way w : {cancelled, closed, destroyed, assigned}) {
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        std::optional<D> d(std::in_place, f.io, p.a.release());
        std::array<char, 16> got;
        transferred read, write;
        test::called readable, error;
        d->async_read_some(asio::buffer(got), read.handler());
        d->async_write_some(asio::buffer("x", 1), write.handler());
        d->async_wait(D::wait_read, readable.handler());
        d->async_wait(D::wait_error, error.handler());
        test::run_ready(f.io);
        if (w == cancelled)
            d->cancel();
        else if (w == closed)
            d->close();
        else if (w == destroyed)
            d.reset();
        else
            *d = D(f.io);
        BOOST_TEST(read.times + write.times + readable.times + error.times == 0); // by the loop
        test::run_all(f.io);
        for (error_code ec : {read.ec, write.ec, readable.ec, error.ec})
            BOOST_TEST((ec == aborted));
    }
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_read_takes_no_data, test::context_fixture) {
    for_each_kind([&](const byte_kind& k, how h) {
        test::fd_pair p = k.make();
        ours d = make(io, p, h);
        std::array<char, 16> got;
        asio::cancellation_signal signal;
        for (bool by_slot : {false, true}) {
            transferred t;
            d.async_read_some(asio::buffer(got),
                              asio::bind_cancellation_slot(signal.slot(), t.handler()));
            test::run_ready(io);
            test::put(p.b, "kept"); // there, and not seen yet
            by_slot ? signal.emit(asio::cancellation_type::total) : d.cancel();
            test::run_all(io);
            BOOST_TEST((t.ec == aborted));
            BOOST_TEST(t.bytes == 0u);
            error_code ec;
            BOOST_TEST(read_once(io, d, ec) == "kept");
        }
    });
}

BOOST_FIXTURE_TEST_CASE(one_transfer_is_cancelled_by_its_slot, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    ours d(io, p.a.release());
    std::array<char, 2> got;
    for (asio::cancellation_type type :
         {asio::cancellation_type::terminal, asio::cancellation_type::partial,
          asio::cancellation_type::total}) {
        asio::cancellation_signal signal;
        transferred one, other;
        d.async_read_some(asio::buffer(&got[0], 1),
                          asio::bind_cancellation_slot(signal.slot(), one.handler()));
        d.async_read_some(asio::buffer(&got[1], 1), other.handler());
        test::run_ready(io);
        signal.emit(type);
        test::run_ready(io);
        BOOST_TEST(one.times == 1);
        BOOST_TEST((one.ec == aborted));
        BOOST_TEST(other.times == 0);
        test::put(p.b, "x");
        test::run_until(io, [&] { return bool(other); });
        BOOST_TEST(!other.ec);
    }
}

BOOST_FIXTURE_TEST_CASE(a_cancellation_slot_is_safe_at_any_time, test::context_fixture) {
    asio::cancellation_signal signal;
    auto emit = [&] { signal.emit(asio::cancellation_type::all); };
    std::array<char, 16> got;
    enum operation { read, wait_read, wait_error };
    auto start = [&](operation o, ours& d, transferred& t) {
        auto handler = asio::bind_cancellation_slot(
            signal.slot(), [&t](error_code ec, auto... n) { t.handler()(ec, (0u + ... + n)); });
        if (o == read)
            d.async_read_some(asio::buffer(got), handler);
        else
            d.async_wait(o == wait_read ? ours::wait_read : ours::wait_error, handler);
    };
    test::fd_pair p = test::make_socketpair();
    for (operation o : {read, wait_read, wait_error}) {
        auto d = std::make_unique<ours>(io, moor::borrow(p.a.get()));
        transferred t;
        start(o, *d, t);
        test::run_ready(io);
        auto moved = std::make_unique<ours>(std::move(*d));
        d.reset();
        emit(); // after a move
        test::run_all(io);
        BOOST_TEST((t.ec == aborted));
        emit(); // after completion

        transferred later; // the slot is used again
        start(read, *moved, later);
        test::put(p.b, "x");
        test::run_until(io, [&] { return bool(later); });
        BOOST_TEST(!later.ec);
        emit();
        transferred last;
        start(o, *moved, last);
        test::run_ready(io);
        moved.reset();
        emit(); // after destruction, before the loop has run
        test::run_all(io);
        BOOST_TEST(last.times == 1);
        BOOST_TEST((last.ec == aborted));
        emit();
    }
    { // after release and reuse of the number
        ours d(io, p.a.release());
        transferred t;
        start(read, d, t);
        p.a = test::unique_fd(d.release());
        test::fd_pair q = test::reuse_number(p.a, test::make_socketpair());
        ours other(io, q.a.release());
        transferred theirs_;
        std::array<char, 16> their_got;
        other.async_read_some(asio::buffer(their_got), theirs_.handler());
        test::run_ready(io);
        emit();
        test::run_ready(io);
        BOOST_TEST((t.ec == aborted));
        BOOST_TEST(theirs_.times == 0);
        test::put(q.b, "x");
        test::run_until(io, [&] { return bool(theirs_); });
        BOOST_TEST(!theirs_.ec);
    }
    { // after the data has come, and before the handler has run
        test::fd_pair q = test::make_socketpair();
        ours d(io, q.a.release());
        transferred t;
        bool emitted = false;
        d.async_wait(ours::wait_read, [&](error_code) {
            emit();
            emitted = true;
        });
        start(read, d, t); // completed by the same event, and comes after it
        test::run_ready(io);
        test::put(q.b, "data");
        test::run_until(io, [&] { return t && emitted; });
        BOOST_TEST((t.ec == aborted));
        BOOST_TEST(test::get(d.native_handle()) == "data");
    }
    emit();
}

BOOST_FIXTURE_TEST_CASE(transfers_go_on_when_the_descriptor_moves, test::context_fixture) {
    for (how h : all_hows) {
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        concrete d = make<concrete>(io, p, h);
        std::array<char, 16> got;
        transferred read, write;
        d.async_read_some(asio::buffer(got), read.handler());
        d.async_write_some(asio::buffer("x", 1), write.handler());
        test::run_ready(io);
        concrete moved(std::move(d));
        d = std::move(moved);
        ours any(std::move(d)); // and to another executor's type
        BOOST_TEST(any.is_borrowed() == (h != how::owned));
        test::put(p.b, "data");
        run_beside(
            io, [&] { test::drain(p.b); }, [&] { return read && write; });
        BOOST_TEST(!read.ec);
        BOOST_TEST(read.bytes == 4u);
        BOOST_TEST(!write.ec);
        error_code ec;
        test::put(p.b, "more");
        BOOST_TEST(read_once(io, any, ec) == "more");
    }
}

// ---- what cannot be polled ----------------------------------------------------------------------

/// A file with this text, at its beginning.
test::unique_fd make_file(const std::string& text) {
    char name[] = "/tmp/moor-file-XXXXXX";
    test::unique_fd fd(::mkostemp(name, O_CLOEXEC));
    ::unlink(name);
    test::put(fd, text);
    BOOST_REQUIRE_EQUAL(::lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

/// All that comes, by asynchronous reads, until an error.
std::string read_all(asio::io_context& io, ours d, error_code& ec) {
    greedy g(std::move(d));
    g.start();
    test::run_until(io, [&] { return bool(g.error()); });
    ec = g.error();
    return g.text();
}

BOOST_FIXTURE_TEST_CASE(a_regular_file_is_read_and_written, test::context_fixture) {
    const std::string text = much().substr(0, 100000) + "the end";
    for (how h : all_hows) {
        test::fd_pair p;
        error_code ec;
        p.a = make_file(text);
        BOOST_TEST((read_all(io, make(io, p, h), ec) == text));
        BOOST_TEST((ec == eof));

        p.a = make_file(text);
        ours d = make(io, p, h);
        std::string got(text.size(), '\0');
        BOOST_TEST(d.read_some(asio::buffer(got)) == text.size());
        BOOST_TEST(d.read_some(asio::buffer(got), ec) == 0u);
        BOOST_TEST((ec == eof));
        // The end of a file is not for ever.
        BOOST_TEST(write_once(io, d, "more", ec) == 4u);
        BOOST_TEST(d.write_some(asio::buffer(" and more", 9)) == 9u);
        BOOST_REQUIRE_EQUAL(::lseek(d.native_handle(), -13, SEEK_END), ::off_t(text.size()));
        BOOST_TEST(read_once(io, d, ec) == "more and more");
        BOOST_TEST(read_once(io, d, ec).empty());
        BOOST_TEST((ec == eof));
        for (ours::wait_type w : {ours::wait_read, ours::wait_write}) {
            test::called waited;
            d.wait(w);
            d.async_wait(w, waited.handler());
            test::run_all(io);
            BOOST_TEST(!waited.ec);
        }
        // Both directions, and many at once.
        transferred t[4];
        std::array<char, 16> some;
        for (int i = 0; i != 2; ++i) {
            d.async_write_some(asio::buffer("x", 1), t[i].handler());
            d.async_read_some(asio::buffer(some), t[2 + i].handler());
        }
        test::run_all(io);
        for (transferred& one : t)
            BOOST_TEST(one.times == 1);
    }
}

BOOST_FIXTURE_TEST_CASE(devices_that_are_always_ready, test::context_fixture) {
    auto system = [](int e) { return error_code(e, asio::error::get_system_category()); };
    const struct {
        const char* name;
        int flags;
        std::string read;
        error_code read_error, write_error;
    } devices[] = {{"/dev/null", O_RDWR, "", eof, error_code()},
                   {"/dev/zero", O_RDWR, std::string(4096, '\0'), error_code(), error_code()},
                   {"/dev/full", O_RDWR, std::string(4096, '\0'), error_code(), system(ENOSPC)},
                   {"/", O_RDONLY | O_DIRECTORY, "", system(EISDIR), bad_descriptor}};
    for (auto& device : devices)
        for (how h : all_hows)
            BOOST_TEST_CONTEXT(device.name << ", " << static_cast<int>(h)) {
                test::fd_pair p;
                p.a = test::unique_fd(::open(device.name, device.flags | O_CLOEXEC));
                ours d = make(io, p, h);
                error_code ec;
                for (int i = 0; i != 3; ++i) { // the second time it knows
                    BOOST_TEST((read_once(io, d, ec) == device.read));
                    BOOST_TEST((ec == device.read_error));
                    BOOST_TEST(write_once(io, d, "gone", ec) == (device.write_error ? 0u : 4u));
                    BOOST_TEST((ec == device.write_error));
                    for (ours::wait_type w : {ours::wait_read, ours::wait_write}) {
                        d.wait(w);
                        BOOST_TEST(!test::waited(io, d, w));
                    }
                }
            }
}

BOOST_FIXTURE_TEST_CASE(a_standard_input_that_was_redirected, test::context_fixture) {
    test::unique_fd saved(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 100));
    struct restore {
        int fd;
        ~restore() { ::dup2(fd, STDIN_FILENO); }
    } restored{saved};
    test::fd_pair pipe = test::make_pipe();
    test::put(pipe.b, "piped");
    pipe.b.close();
    test::unique_fd file = make_file("from a file");
    test::unique_fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const struct {
        int fd;
        const char* text;
    } inputs[] = {{file, "from a file"}, {null, ""}, {pipe.a, "piped"}};
    for (auto& input : inputs)
        BOOST_TEST_CONTEXT(input.text) {
            BOOST_REQUIRE_EQUAL(::dup2(input.fd, STDIN_FILENO), STDIN_FILENO);
            error_code ec;
            BOOST_TEST(read_all(io, ours(io, moor::borrow(STDIN_FILENO)), ec) == input.text);
            BOOST_TEST((ec == eof));
            BOOST_TEST(is_open(STDIN_FILENO));
        }
}

// ---- short transfers --------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(data_and_the_end_in_one_event, test::context_fixture) {
    for_each_kind([&](const byte_kind& k, how h) {
        for (int before = -1; before != 4; ++before) // -1: all is there before the descriptor is
            BOOST_TEST_CONTEXT("after " << before) {
                test::fd_pair p = k.make();
                auto put_last = [&] {
                    test::put(p.b, "last");
                    k.end(p);
                };
                if (before == -1)
                    put_last();
                greedy g(make(io, p, h));
                g.start();
                for (int i = 0; i < before; ++i)
                    pass(io, g, p.b, "before ");
                std::string expected = g.text() + "last";
                if (before != -1)
                    put_last();
                test::run_until(io, [&] { return bool(g.error()); });
                if (!k.loses_data) {
                    BOOST_TEST(g.text() == expected);
                    BOOST_TEST((g.error() == (k.last ? k.last : eof)));
                }
            }
    });
}

BOOST_FIXTURE_TEST_CASE(the_end_while_the_data_is_handled, test::context_fixture) {
    for_each_kind([&](const byte_kind& k, how h) {
        test::fd_pair p = k.make();
        ours d = make(io, p, h);
        std::array<char, 64> got;
        error_code ec;
        test::put(p.b, "before");
        BOOST_TEST(read_once(io, d, ec) == "before");
        transferred second;
        d.async_read_some(asio::buffer(got), [&](error_code, std::size_t) {
            k.end(p);
            d.async_read_some(asio::buffer(got), second.handler());
        });
        test::run_ready(io);
        test::put(p.b, "last");
        test::run_until(io, [&] { return bool(second); });
        BOOST_TEST(second.bytes == 0u);
        BOOST_TEST(bool(second.ec));
    });
}

BOOST_FIXTURE_TEST_CASE(on_epoll_only_a_short_read_of_a_pipe_is_trusted, test::context_fixture) {
    if (!test::on_epoll())
        return; // the others check first
    for_each_kind([&](const byte_kind& k, how h) {
        const bool is_pipe = k.name == "pipe" || k.name == "fifo";
        if (!is_pipe && h != how::owned)
            return;
        test::fd_pair p = k.make();
        greedy g(make(io, p, h));
        g.start();
        for (int i = 0; i != 3; ++i)
            pass(io, g, p.b, "warm");
        test::watched_transfers calls(g.descriptor().native_handle());
        test::call_counts before = test::counts();
        for (int i = 0; i != 100; ++i)
            pass(io, g, p.b, "x");
        test::call_counts c = test::counts() - before;
        BOOST_TEST(c.epoll_ctl == 0);
        if (is_pipe) {
            // A named pipe that is borrowed does not know RWF_NOWAIT, and is asked first.
            bool asked = k.name == "fifo" && h != how::owned;
            BOOST_TEST(calls.reads() == (asked ? 200 : 100));
            BOOST_TEST(c.poll == (asked ? 100 : 0));
        } else {
            // As many as the original's, but for some that are deferred.
            BOOST_TEST(calls.reads() + c.poll == 200);
            BOOST_TEST(calls.reads() >= 180);
        }
        k.end(p);
        test::run_until(io, [&] { return bool(g.error()); });
    });
}

BOOST_FIXTURE_TEST_CASE(boundaries_inside_of_one_event, test::context_fixture) {
    for (const test::boundary& b : test::boundaries())
        for (how h : all_hows) {
            if (b.make == &test::make_packet_pipe && test::on_epoll())
                continue; // a short read is trusted there
            BOOST_TEST_CONTEXT(b.name << ", " << static_cast<int>(h)) {
                test::fd_pair p = b.make();
                greedy g(make(io, p, h));
                g.start();
                for (int i = 0; i != 4; ++i) {
                    std::string text = g.text() + b.text;
                    b.put(p.b);
                    test::run_until(io, [&] { return g.text() == text; });
                    if (i != 0)
                        test::run_ready(io);
                }
                g.descriptor().cancel();
                test::run_all(io);
            }
        }
}

BOOST_FIXTURE_TEST_CASE(handles_that_the_kernel_fills, test::context_fixture) {
    for (how h : {how::owned, how::borrowed}) {
        test::fd_pair p;
        error_code ec;
        { // counters
            p.a = test::unique_fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
            ours d = make(io, p, h);
            for (std::uint64_t i = 1; i != 4; ++i) {
                std::uint64_t in = 0;
                transferred read;
                d.async_read_some(asio::buffer(&in, sizeof(in)), read.handler());
                test::run_ready(io);
                BOOST_TEST(read.times == 0);
                transferred write;
                d.async_write_some(asio::buffer(&i, sizeof(i)), write.handler());
                test::run_until(io, [&] { return read && write; });
                BOOST_TEST(in == i);
            }
        }
        { // a timer
            p.a = test::unique_fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
            ours d = make(io, p, h);
            for (int i = 0; i != 3; ++i) {
                ::itimerspec soon = {{0, 0}, {0, 1}};
                ::timerfd_settime(d.native_handle(), 0, &soon, nullptr);
                BOOST_TEST(read_once(io, d, ec).size() == sizeof(std::uint64_t));
            }
        }
        { // inotify
            p.a = test::unique_fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
            char name[] = "/tmp/moor-dir-XXXXXX";
            BOOST_REQUIRE(::mkdtemp(name));
            BOOST_REQUIRE_GE(::inotify_add_watch(p.a, name, IN_CREATE), 0);
            ours d = make(io, p, h);
            std::string file = std::string(name) + "/file";
            transferred t;
            std::array<char, 4096> got;
            d.async_read_some(asio::buffer(got), t.handler());
            test::run_ready(io);
            BOOST_TEST(t.times == 0);
            test::unique_fd(::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
            test::run_until(io, [&] { return bool(t); });
            BOOST_TEST(t.bytes > sizeof(::inotify_event));
            ::unlink(file.c_str());
            ::rmdir(name);
        }
    }
}

// ---- what it costs ------------------------------------------------------------------------------

/// What a hundred round trips cost; data is there before they are read, or later.
template <class D>
test::call_counts cost_of_a_hundred(asio::io_context& io, D& d, int peer, bool ready) {
    std::array<char, 64> got;
    test::call_counts before;
    auto run_until = [&](const transferred& t) { // which itself costs nothing
        while (t.times == 0) {
            io.restart();
            BOOST_REQUIRE(io.run_one_for(test::cap) == 1u);
        }
    };
    for (int i = 0; i != 110; ++i) {
        if (i == 10)
            before = test::counts();
        transferred read, write;
        if (ready)
            test::put(peer, "x");
        d.async_read_some(asio::buffer(got), read.handler());
        if (!ready) {
            io.restart();
            io.poll();
            test::put(peer, "x");
        }
        run_until(read);
        d.async_write_some(asio::buffer("y", 1), write.handler());
        run_until(write);
        test::drain(peer);
    }
    return test::counts() - before;
}

BOOST_FIXTURE_TEST_CASE(a_transfer_allocates_nothing, test::context_fixture,
                        *precondition(test::allocations_are_counted)) {
    for (how h : all_hows)
        for (bool ready : {false, true})
            for (auto make_pair : {+[] { return test::make_socketpair(); }, &test::make_tcp_pair,
                                   +[] { return swapped(test::make_raw_pty()); }}) {
                test::fd_pair p = make_pair(), q = make_pair();
                ours any = make(io, p, h);
                BOOST_TEST(cost_of_a_hundred(io, any, p.b, ready).allocations == 0);
                concrete typed = make<concrete>(io, q, h);
                BOOST_TEST(cost_of_a_hundred(io, typed, q.b, ready).allocations == 0);
            }
}

BOOST_FIXTURE_TEST_CASE(a_transfer_costs_no_epoll_ctl, test::context_fixture) {
    for (how h : all_hows) {
        test::fd_pair p = test::make_socketpair();
        concrete d = make<concrete>(io, p, h);
        test::call_counts c = cost_of_a_hundred(io, d, p.b, false);
        BOOST_TEST(c.epoll_ctl == 0);
        if (test::on_epoll())
            BOOST_TEST(c.poll == 0);
    }
}

// ---- tokens and executors -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(any_token_will_do, D, both) {
    test::context_fixture f;
    test::fd_pair p = test::make_socketpair();
    D d(f.io, p.a.release());
    std::array<char, 16> got;
    std::future<std::size_t> write = d.async_write_some(asio::buffer("abc", 3), asio::use_future);
    std::future<std::size_t> read = d.async_read_some(asio::buffer(got), asio::use_future);
    std::future<void> wait = d.async_wait(D::wait_write, asio::use_future);
    test::put(p.b, "xy");
    test::run_all(f.io);
    BOOST_TEST(write.get() == 3u);
    BOOST_TEST(read.get() == 2u);
    wait.get();
    auto deferred = d.async_read_some(asio::buffer(got), asio::deferred);
    auto deferred_wait = d.async_wait(D::wait_read, asio::deferred);
    test::drain(p.b); // or it is a reset
    p.b.close();
    transferred t;
    test::called waited;
    std::move(deferred)(t.handler());
    std::move(deferred_wait)(waited.handler());
    test::run_all(f.io);
    BOOST_TEST((t.ec == eof));
    BOOST_TEST((waited.times == 1 && !waited.ec));
    std::future<std::size_t> failed = d.async_read_some(asio::buffer(got), asio::use_future);
    test::run_all(f.io);
    BOOST_TEST((thrown_by([&] { failed.get(); }) == eof));
}

BOOST_FIXTURE_TEST_CASE(the_executors_default_token_is_used, test::context_fixture) {
    asio::deferred_t::as_default_on_t<ours> stream(io);
    std::array<char, 16> got;
    transferred none;
    stream.async_read_some(asio::buffer(got))(none.handler());
    test::fd_pair p = test::make_socketpair();
    using typed = asio::deferred_t::as_default_on_t<moor::descriptor>;
    typed d(io, p.a.release());
    test::called done;
    d.async_wait(typed::wait_write)(done.handler());
    test::run_all(io);
    BOOST_TEST((none.ec == bad_descriptor));
    BOOST_TEST(done.times == 1);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE(the_associations_of_a_handler_are_honoured, test::context_fixture) {
    // Also of one that fails at once, and of one that has nothing to do.
    test::fd_pair p = test::make_socketpair();
    test::tracker_executor ex(7, io.get_executor());
    test::allocation_counts memory;
    std::array<char, 16> got;
    test::put(p.b, "xxx");
    bool inside = false, empty = false;
    int times = 0;
    // (Boost 1.84 does not compile the two the other way round.)
    auto handler = asio::bind_allocator(test::counting_allocator<>(memory),
                                        asio::bind_executor(ex, [&](error_code, auto...) {
                                            ++times;
                                            inside = test::running_on(7);
                                            empty = memory.live == 0;
                                        }));
    auto check = [&](auto start) {
        ours d(io, moor::borrow(p.a.get()));
        inside = empty = false;
        times = 0;
        memory.total = 0;
        {
            test::initiation_guard guard;
            start(d);
        }
        BOOST_TEST(memory.total > 0);
        BOOST_TEST(times == 0);
        test::run_all(io);
        BOOST_TEST(times == 1);
        BOOST_TEST(inside);
        BOOST_TEST(empty);
    };
    check([&](ours& d) { d.async_read_some(asio::buffer(got, 1), handler); });
    check([&](ours& d) { d.async_read_some(asio::buffer(got, 0), handler); });
    check([&](ours& d) { d.async_write_some(asio::buffer("x", 1), handler); });
    check([&](ours& d) { d.async_wait(ours::wait_read, handler); });
    check([&](ours& d) { d.async_wait(static_cast<ours::wait_type>(3), handler); });
    check([&](ours& d) {
        d.close();
        d.async_read_some(asio::buffer(got, 1), handler);
    });
    p.b.close();
    check([&](ours& d) { d.async_wait(ours::wait_error, handler); });
}

BOOST_FIXTURE_TEST_CASE(a_move_only_handler_is_invoked_once, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    ours d(io, p.a.release());
    std::array<char, 16> got;
    test::once read, write, nothing;
    {
        test::initiation_guard guard;
        d.async_read_some(asio::buffer(got), read.handler());
        d.async_write_some(asio::buffer("x", 1), write.handler());
        d.async_write_some(asio::const_buffer(), nothing.handler());
    }
    test::put(p.b, "x");
    test::run_all(io);
}

BOOST_AUTO_TEST_CASE(a_strand_and_a_pool_are_executors) {
    test::context_fixture f;
    std::array<char, 16> got;
    {
        using io_strand = asio::strand<io_executor>;
        io_strand strand(f.io.get_executor());
        test::fd_pair p = test::make_socketpair();
        moor::basic_stream_descriptor<io_strand> d(strand, p.a.release());
        bool inside = false;
        d.async_read_some(asio::buffer(got), [&](error_code ec, std::size_t n) {
            inside = strand.running_in_this_thread() && !ec && n == 1;
        });
        test::put(p.b, "x");
        test::run_all(f.io);
        BOOST_TEST(inside);
    }
    asio::thread_pool pool(2);
    test::fd_pair p = test::make_socketpair();
    moor::basic_stream_descriptor<asio::thread_pool::executor_type> d(pool, p.a.release());
    std::future<std::size_t> read = d.async_read_some(asio::buffer(got), asio::use_future);
    test::put(p.b, "x");
    BOOST_REQUIRE((read.wait_for(test::cap) == std::future_status::ready));
    BOOST_TEST(read.get() == 1u);
    pool.join();
}

BOOST_FIXTURE_TEST_CASE(an_exception_of_a_handler_leaves_run, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    ours d(io, p.a.release());
    std::array<char, 16> got;
    d.async_read_some(asio::buffer(got),
                      [](error_code, std::size_t) -> void { throw std::runtime_error("handler"); });
    test::put(p.b, "x");
    BOOST_CHECK_THROW(test::run_all(io), std::runtime_error);
    test::put(p.b, "y");
    error_code ec;
    BOOST_TEST(read_once(io, d, ec) == "y");
}

// ---- the end of the context ---------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_context_that_is_destroyed_takes_the_handlers_along) {
    auto io = std::make_unique<asio::io_context>();
    test::fd_pair p = test::make_socketpair();
    int number = p.a.get();
    test::once read(test::expect::destroyed), write(test::expect::destroyed),
        self(test::expect::destroyed);
    auto d = std::make_shared<ours>(*io, p.a.release());
    test::fill(number);
    std::array<char, 16> got;
    d->async_read_some(asio::buffer(got), read.handler());
    d->async_write_some(asio::buffer("x", 1), write.handler());
    // One that owns the descriptor.
    d->async_read_some(asio::buffer(got),
                       [d, h = self.handler()](error_code ec, std::size_t) mutable { h(ec); });
    d.reset();
    test::run_ready(*io);
    BOOST_TEST(is_open(number));
    io.reset();
    BOOST_TEST(read.destroyed());
    BOOST_TEST(write.destroyed());
    BOOST_TEST(self.destroyed());
    BOOST_TEST(!is_open(number)); // its handler took it along
}

// ---- its registration ---------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(its_registration_works_beside_transfers, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    ours d(io, p.a.release());
    BOOST_TEST(d.registration().native_handle() == d.native_handle());
    BOOST_TEST(static_cast<const ours&>(d).registration().is_registered());
    std::array<char, 16> got;
    transferred read;
    d.async_read_some(asio::buffer(got, 1), read.handler());
    moor::ready_event closing;
    d.registration().async_wait(moor::interest::read_closed,
                                [&](error_code, moor::ready_event e) { closing = e; });
    std::string text;
    test::run_ready(io);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(read); });
    BOOST_TEST(closing.ready().empty());
    d.registration().async_io(moor::interest::readable, test::reader{d.native_handle()},
                              [&](error_code, std::string s) { text = s; });
    test::run_ready(io);
    test::put(p.b, "the rest");
    test::run_until(io, [&] { return !text.empty(); });
    BOOST_TEST(text == "the rest");
    // A transfer that met would-block is what the cache knows.
    transferred pending;
    d.async_read_some(asio::buffer(got), pending.handler());
    test::run_ready(io);
    auto none = d.registration().try_io(moor::interest::readable, [](error_code&) { return 1; });
    BOOST_TEST((none.error() == would_block));
    auto some = d.registration().try_io(moor::interest::writable, [](error_code&) { return 1; });
    BOOST_TEST(some.value() == 1);
    BOOST_TEST(d.registration().query().contains(moor::interest::writable));
    ::shutdown(p.b, SHUT_WR);
    test::run_until(io, [&] { return pending && !closing.ready().empty(); });
    BOOST_TEST((pending.ec == eof));
    BOOST_TEST(closing.ready() == moor::interest::read_closed);
}

// ---- threads ----------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(one_descriptor_is_used_by_several_threads) {
    // Asynchronous transfers both ways, synchronous ones beside them, waits and cancellations.
    asio::io_context io;
    test::fd_pair p = test::make_socketpair();
    set_blocking(p.a);
    ours d(io, p.a.release());
    {
        // This thread handles the first event, so that the others know that they are several.
        test::called first;
        d.async_wait(ours::wait_read, first.handler());
        test::run_ready(io);
        test::put(p.b, "x");
        test::run_until(io, [&] { return bool(first); });
        char got;
        BOOST_TEST(d.read_some(asio::buffer(&got, 1)) == 1u);
        io.restart();
    }
    std::atomic<std::size_t> received{0}, sent{0}, waits{0}, failures{0};
    std::atomic<bool> stop{false};
    std::atomic<int> finished{0};
    std::array<char, 64> got;
    auto goes_on = [&](error_code ec) { return !stop && (!ec || ec == aborted); };
    std::function<void()> read = [&] {
        d.async_read_some(asio::buffer(got), [&](error_code ec, std::size_t n) {
            received += n;
            if (goes_on(ec))
                read();
        });
    };
    std::function<void()> write = [&] {
        d.async_write_some(asio::buffer("0123456789", 10), [&](error_code ec, std::size_t n) {
            sent += n;
            if (goes_on(ec))
                write();
        });
    };
    read();
    write();
    const test::watchdog dog(io);
    std::thread loops[] = {std::thread([&] { io.run(); }), std::thread([&] { io.run(); })};
    std::thread synchronous([&] {
        for (int i = 0; i != 200; ++i) {
            error_code ec;
            sent += d.write_some(asio::buffer("sync", 4), ec);
            failures += bool(ec);
        }
        ++finished;
    });
    std::thread waiting([&] {
        for (int i = 0; i != 100; ++i) {
            d.async_wait(ours::wait_write, [&](error_code) { ++waits; });
            if (i % 10 == 0)
                d.cancel();
        }
        ++finished;
    });
    // The peer echoes until both have had enough.
    std::size_t echoed = 0, drained = 0;
    auto deadline = std::chrono::steady_clock::now() + test::cap;
    while ((received < 5000 || waits < 100 || drained < 10000) &&
           std::chrono::steady_clock::now() < deadline) {
        drained += test::drain(p.b);
        if (::write(p.b, "echo", 4) == 4)
            echoed += 4;
    }
    BOOST_TEST(received >= 5000u);
    while (finished != 2) // a write that blocks goes on when its data are taken
        drained += test::drain(p.b);
    synchronous.join();
    waiting.join();
    stop = true;
    // A handler that saw `stop` unset may begin a transfer behind any one cancellation.
    while (!io.stopped()) {
        d.cancel();
        std::this_thread::yield();
    }
    for (std::thread& t : loops)
        t.join();
    drained += test::drain(p.b);
    std::array<char, 65536> rest;
    error_code ec;
    d.non_blocking(true);
    while (std::size_t n = d.read_some(asio::buffer(rest), ec))
        received += n;
    BOOST_TEST(failures == 0u);
    BOOST_TEST(received == echoed);
    BOOST_TEST(sent == drained);
    BOOST_TEST(waits == 100u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(release_beside_a_transfer_that_another_thread_makes, D, both) {
    if (std::is_same<D, theirs>::value && test::on_io_uring())
        return; // there the kernel transfers
    asio::thread_pool pool(1);
    for (int round = 0; round != 20; ++round) {
        test::fd_pair p = test::make_socketpair();
        test::fd_pair q = test::make_socketpair();
        test::put(q.b, "theirs");
        D d(pool, p.a.release());
        int number = d.native_handle();
        std::array<char, 16> got;
        std::promise<std::string> read;
        std::atomic<bool> in_transfer{false}, reused{false};
        test::watched_transfers calls(number);
        calls.before([&, owner = std::this_thread::get_id()] {
            if (std::this_thread::get_id() == owner)
                return; // a first try
            // The data is there, and read(2) is about to be called. The owner is given the time to
            // release the number, and to use it for something else; it may also have to wait.
            // (A number of yields would be minutes on a busy machine.)
            in_transfer = true;
            const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
            while (!reused && std::chrono::steady_clock::now() < end)
                std::this_thread::yield();
        });
        d.async_read_some(asio::buffer(got), [&](error_code, std::size_t n) {
            read.set_value(std::string(got.data(), n));
        });
        test::put(p.b, "ours");
        test::wait_for([&] { return in_transfer.load(); });
        p.a = test::unique_fd(d.release());
        q = test::reuse_number(p.a, std::move(q));
        reused = true;
        std::string what = read.get_future().get();
        BOOST_TEST((what == "ours" || what.empty()));
    }
    pool.join();
}

BOOST_AUTO_TEST_CASE(the_end_comes_at_any_time_with_several_threads) {
    for (int round = 0; round != 200; ++round) {
        asio::io_context io;
        test::fd_pair p = round % 4 < 2 ? test::make_pipe() : test::make_socketpair();
        greedy g(make(io, p, all_hows[round % 3]));
        g.start();
        std::thread writer([&] {
            for (int i = 0; i != round % 5; ++i)
                test::put(p.b, "data ");
            test::put(p.b, "last");
            p.b.close();
        });
        const test::watchdog dog(io);
        std::thread other([&] { io.run(); });
        io.run();
        writer.join();
        other.join();
        BOOST_REQUIRE((g.error() == eof));
        BOOST_TEST(g.text().size() == 4u + 5u * static_cast<unsigned>(round % 5));
    }
}

#if BOOST_ASIO_VERSION >= 102700

BOOST_FIXTURE_TEST_CASE(a_transfer_that_need_not_wait_completes_through_its_immediate_executor,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    ours d(io, p.a.release());
    test::put(p.b, "x");
    asio::post(io, [&] {
        std::array<char, 8> bytes;
        transferred read, written;
        auto at_once = [&](auto f) {
            return asio::bind_immediate_executor(io.get_executor(), std::move(f));
        };
        d.async_read_some(asio::buffer(bytes), at_once(read.handler()));
        BOOST_TEST((read.bytes == 1u && !read.ec)); // dispatch() within the context
        d.async_write_some(asio::buffer("y", 1), at_once(written.handler()));
        BOOST_TEST((written.bytes == 1u && !written.ec));
    });
    test::run_all(io);
    BOOST_TEST(test::get(p.b) == "y");
}

#endif

BOOST_AUTO_TEST_SUITE_END()
