// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// More than one thread: in run(), in the initiating functions, on one registration. Meant to be run
// under ThreadSanitizer, too.

#include "support/context.hpp"
#include "support/handles.hpp"

#include <moor.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

BOOST_AUTO_TEST_SUITE(threads)

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::error_code;

/// Waits for another thread, with the cap. (Boost.Test's macros are for the test's own thread
/// only.)
template <class Done>
void await(Done done) {
    BOOST_REQUIRE_MESSAGE(test::wait_for(done), "the cap was reached");
}

/// An io_context with threads in run(), which ends when it is destroyed.
class running {
public:
    explicit running(unsigned n) : work_(io.get_executor()) {
        for (unsigned i = 0; i != n; ++i)
            threads_.emplace_back([this] { io.run(); });
    }
    ~running() { join(); }
    /// Lets the pending operations end, and the threads with them.
    void join() {
        work_.reset();
        for (std::thread& t : threads_)
            t.join();
        threads_.clear();
    }
    void stop() {
        io.stop();
        join();
    }
    asio::io_context io;

private:
    asio::executor_work_guard<asio::io_context::executor_type> work_;
    std::vector<std::thread> threads_;
};

/// Reads one byte.
struct byte_reader {
    int fd;

    ::ssize_t operator()(error_code& ec) const {
        char c;
        ::ssize_t n = ::recv(fd, &c, 1, 0);
        if (n < 0)
            ec = test::last_error();
        return n;
    }
};

BOOST_AUTO_TEST_CASE(a_wait_from_another_thread_while_run_blocks_in_the_reactor) {
    running r(1);
    for (trigger mode : {trigger::level, trigger::edge}) {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(r.io, p.a.get(), mode);
        for (int i = 0; i != 100; ++i) {
            auto f = reg.async_wait_readable(asio::use_future);
            test::put(p.b, "x");
            BOOST_REQUIRE(f.wait_for(test::cap) == std::future_status::ready);
            f.get();
            (void)reg.try_io(interest::readable, test::reader{p.a.get()});
            (void)reg.try_io(interest::readable, test::reader{p.a.get()});
        }
        auto w = reg.async_wait_writable(asio::use_future);
        BOOST_REQUIRE(w.wait_for(test::cap) == std::future_status::ready);
    }
}

BOOST_AUTO_TEST_CASE(registering_and_cancelling_while_run_blocks_in_the_reactor) {
    running r(1);
    for (int i = 0; i != 100; ++i) {
        test::fd_pair p = test::make_pipe();
        moor::registration reg(r.io, p.a.get());
        for (bool is_cancelled : {true, true, false}) {
            auto f = reg.async_wait_readable(asio::use_future);
            if (is_cancelled)
                reg.cancel();
            else
                test::put(p.b, "x");
            BOOST_REQUIRE(f.wait_for(test::cap) == std::future_status::ready);
            if (is_cancelled)
                BOOST_CHECK_THROW(f.get(), boost::system::system_error);
            else
                f.get();
        }
    }
}

BOOST_AUTO_TEST_CASE(concurrent_read_and_write_waits_in_several_threads) {
    running r(3);
    test::fd_pair p = test::make_socketpair();
    for (trigger mode : {trigger::level, trigger::edge}) {
        moor::registration reg(r.io, p.a.get(), mode);
        std::atomic<int> reads{0}, writes{0}, errors{0};
        constexpr int rounds = 500;
        for (int i = 0; i != rounds; ++i) {
            test::fill(p.a);
            (void)reg.try_io(interest::writable, [&](error_code& ec) {
                if (::send(p.a, "x", 1, MSG_NOSIGNAL) < 0)
                    ec = test::last_error();
            });
            std::thread waiter([&] {
                reg.async_wait_writable([&](error_code ec) {
                    errors += !!ec;
                    ++writes;
                });
            });
            reg.async_wait_readable([&](error_code ec) {
                errors += !!ec;
                ++reads;
            });
            test::put(p.b, "y");
            test::drain(p.b);
            waiter.join();
            await([&] { return reads == i + 1 && writes == i + 1; });
            test::drain(p.a);
            (void)reg.try_io(interest::readable, test::reader{p.a.get()});
        }
        BOOST_TEST(errors == 0);
    }
}

BOOST_AUTO_TEST_CASE(one_registration_is_shared_by_threads_that_do_everything_to_it) {
    running r(2);
    for (trigger mode : {trigger::level, trigger::edge}) {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(r.io, p.a.get(), mode);
        std::atomic<int> started{0}, over{0}, wrong{0};
        std::atomic<bool> stop{false};
        auto done = [&](error_code ec, auto&&...) {
            if (ec && ec != asio::error::operation_aborted)
                ++wrong;
            ++over;
        };
        byte_reader read{p.a};
        std::vector<std::thread> users;
        users.emplace_back([&] { // waits
            while (!stop) {
                ++started;
                reg.async_wait_readable(done);
                ++started;
                reg.async_wait(interest::readable | interest::priority, done);
                while (started - over >= 100 && !stop)
                    std::this_thread::yield();
            }
        });
        users.emplace_back([&] { // I/O
            while (!stop) {
                ++started;
                reg.async_io(interest::readable, read, done);
                auto got = reg.try_io(interest::readable, read);
                if (!got && got.error() != asio::error::would_block)
                    ++wrong;
                while (started - over >= 100 && !stop)
                    std::this_thread::yield();
            }
        });
        users.emplace_back([&] { // the rest
            while (!stop) {
                reg.clear(reg.ready(interest::readable));
                reg.cancel(moor::direction::write);
                ++started;
                // A waker: kept or not, it counts once.
                auto polled = reg.poll_read_ready([&] { ++over; });
                if (polled.has_value() || polled.error() != asio::error::would_block)
                    ++over;
                error_code ec;
                (void)reg.query(ec);
                wrong += !!ec;
                reg.cancel();
                (void)moor::use_registration_service(r.io).metrics();
                (void)moor::use_registration_service(r.io).snapshot();
                std::this_thread::yield();
            }
        });
        for (int i = 0; i != 3000; ++i)
            if (::send(p.b, "x", 1, MSG_NOSIGNAL) < 0)
                std::this_thread::yield();
        await([&] { return over > 1000; });
        stop = true;
        for (std::thread& t : users)
            t.join();
        reg.cancel();
        await([&] {
            // A wait that had been given its turn by then may have pending once more.
            reg.cancel();
            return started == over;
        });
        BOOST_TEST(wrong == 0);
    }
}

BOOST_AUTO_TEST_CASE(no_waiter_of_several_threads_is_forgotten) {
    // Each of the threads waits and reads one byte; as many bytes are written.
    running r(2);
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(r.io, p.a.get());
    constexpr int threads = 4, each = 250;
    std::atomic<int> over{0}, bytes{0};
    std::vector<std::thread> users;
    for (int t = 0; t != threads; ++t)
        users.emplace_back([&] {
            for (int i = 0; i != each; ++i)
                reg.async_io(interest::readable, byte_reader{p.a}, [&](error_code ec, ::ssize_t n) {
                    if (!ec)
                        bytes += static_cast<int>(n);
                    ++over;
                });
        });
    for (int i = 0; i != threads * each; ++i) {
        while (::send(p.b, "x", 1, MSG_NOSIGNAL) != 1)
            std::this_thread::yield();
    }
    for (std::thread& t : users)
        t.join();
    await([&] { return over == threads * each; });
    BOOST_TEST(bytes == threads * each);
}

// ---- a ring of pipes ---------------------------------------------------------------------------

/// Each station passes on what it reads to the next one's pipe, until enough hops were made.
template <class Context>
class ring {
public:
    ring(Context& context, std::size_t stations, long hops, trigger mode)
        : pipes_(stations), left_(hops) {
        for (test::fd_pair& p : pipes_) {
            p = test::make_pipe();
            regs_.emplace_back(context, p.a.get(), mode);
        }
    }
    void start(std::size_t tokens) {
        for (std::size_t i = 0; i != regs_.size(); ++i)
            wait(i);
        for (std::size_t i = 0; i != tokens; ++i)
            test::put(pipes_[i % pipes_.size()].b, "t");
    }
    bool done() const { return left_ <= 0 && waiting_ == 0; }
    long passed() const { return passed_; }
    long read() const { return read_; }
    int errors() const { return errors_; }

private:
    void wait(std::size_t i) {
        ++waiting_;
        regs_[i].async_wait_readable([this, i](error_code ec) {
            if (ec && ec != asio::error::operation_aborted)
                ++errors_;
            if (!ec)
                hop(i);
            if (left_ > 0)
                wait(i);
            else if (!ended_.exchange(true))
                for (auto& r : regs_)
                    r.cancel();
            --waiting_;
        });
        if (left_ <= 0)
            regs_[i].cancel(); // it may have been started after the others were cancelled
    }
    void hop(std::size_t i) {
        int next = pipes_[(i + 1) % pipes_.size()].b;
        for (;;) { // drains, as an edge wait requires
            char buffer[64];
            ::ssize_t n = ::read(pipes_[i].a, buffer, sizeof(buffer));
            if (n <= 0)
                return;
            read_ += n;
            if (::write(next, buffer, static_cast<std::size_t>(n)) != n)
                ++errors_;
            passed_ += n;
            left_ -= n;
        }
    }

    std::vector<test::fd_pair> pipes_;
    std::vector<moor::basic_registration<typename Context::executor_type>> regs_;
    std::atomic<long> left_, passed_{0}, read_{0}, waiting_{0};
    std::atomic<int> errors_{0};
    std::atomic<bool> ended_{false};

public:
    /// The tokens that are in the pipes now.
    std::size_t count() {
        std::size_t n = 0;
        for (test::fd_pair& p : pipes_)
            n += test::drain(p.a);
        return n;
    }
};

BOOST_AUTO_TEST_CASE(a_ring_of_pipes_over_four_threads_loses_no_byte) {
    for (trigger mode : {trigger::level, trigger::edge}) {
        running r(4);
        ring<asio::io_context> stress(r.io, 20, 20000, mode);
        stress.start(10);
        await([&] { return stress.done(); });
        BOOST_TEST(stress.errors() == 0);
        BOOST_TEST(stress.passed() >= 20000);
        BOOST_TEST(stress.passed() == stress.read());
        BOOST_TEST(stress.count() == 10u);
        r.join();
    }
}

BOOST_AUTO_TEST_CASE(a_ring_of_pipes_on_a_thread_pool_loses_no_byte) {
    asio::thread_pool pool(4);
    {
        ring<asio::thread_pool> stress(pool, 10, 10000, trigger::level);
        stress.start(4);
        await([&] { return stress.done(); });
        BOOST_TEST(stress.errors() == 0);
        BOOST_TEST(stress.count() == 4u);
        pool.join();
    }
}

// ---- churn -------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(registrations_come_and_go_in_several_threads) {
    running r(2);
    std::atomic<int> over{0}, wrong{0};
    constexpr int threads = 3, rounds = 500;
    std::vector<std::thread> users;
    for (int t = 0; t != threads; ++t)
        users.emplace_back([&, t] {
            int fds[2];
            if (::pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0)
                std::abort();
            for (int i = 0; i != rounds; ++i) {
                moor::registration reg(r.io, fds[0], i % 2 ? trigger::edge : trigger::level);
                reg.async_wait_readable([&](error_code ec) {
                    if (ec && ec != asio::error::operation_aborted)
                        ++wrong;
                    ++over;
                });
                if ((i + t) % 3 == 0) {
                    char c = 'x';
                    if (::write(fds[1], &c, 1) != 1 || ::read(fds[0], &c, 1) != 1)
                        ++wrong;
                }
                if (i % 5 == 0) {
                    // A number that is used again at once.
                    reg.deregister();
                    ::close(fds[0]);
                    ::close(fds[1]);
                    if (::pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0)
                        std::abort();
                }
            }
            ::close(fds[0]);
            ::close(fds[1]);
        });
    for (std::thread& t : users)
        t.join();
    await([&] { return over == threads * rounds; });
    BOOST_TEST(wrong == 0);
    BOOST_TEST(moor::use_registration_service(r.io).snapshot().empty());
    auto m = moor::use_registration_service(r.io).metrics();
    BOOST_TEST(m.registered == m.deregistered);
}

BOOST_AUTO_TEST_CASE(a_registration_is_destroyed_while_its_event_arrives) {
    running r(2);
    std::atomic<int> over{0};
    for (int i = 0; i != 1000; ++i) {
        test::fd_pair p = test::make_pipe();
        {
            moor::registration reg(r.io, p.a.get(), i % 2 ? trigger::edge : trigger::level);
            reg.async_wait_readable([&](error_code) { ++over; });
            reg.async_io(
                interest::readable,
                [fd = p.a.get()](error_code& ec) { return test::reader{fd}(ec); },
                [&](error_code, std::string) { ++over; });
            test::put(p.b, "x");
        }
        await([&] { return over == 2 * (i + 1); });
    }
}

BOOST_AUTO_TEST_CASE(a_strand_keeps_the_handlers_of_several_threads_apart) {
    running r(3);
    auto strand = asio::make_strand(r.io.get_executor());
    test::fd_pair p = test::make_socketpair();
    moor::basic_registration<decltype(strand)> reg(strand, p.a.get());
    int plain = 0; // not atomic: the strand protects it
    std::atomic<int> over{0};
    for (int i = 0; i != 500; ++i) {
        reg.async_wait_writable([&](error_code) {
            ++plain;
            ++over;
        });
        reg.async_io(
            interest::writable, [&](error_code&) { ++plain; },
            [&](error_code) {
                ++plain;
                ++over;
            });
    }
    await([&] { return over == 1000; });
    r.join();
    BOOST_TEST(plain == 1500);
}

BOOST_AUTO_TEST_CASE(contexts_are_run_and_stopped_by_turns) {
    // Threads leave run() and come back, while events arrive.
    test::fd_pair p = test::make_pipe();
    asio::io_context io;
    moor::registration reg(io, p.a.get());
    for (int i = 0; i != 50; ++i) {
        std::atomic<bool> done{false};
        reg.async_wait_readable([&](error_code) {
            test::drain(p.a);
            done = true;
        });
        std::thread a([&] { io.run(); });
        std::thread b([&] { io.run(); });
        test::put(p.b, "x");
        a.join();
        b.join();
        BOOST_REQUIRE(done);
        io.restart();
    }
}

BOOST_AUTO_TEST_CASE(each_thread_has_a_context_of_its_own) {
    std::vector<std::thread> users;
    std::atomic<int> over{0};
    test::fd_pair p = test::make_socketpair();
    for (int t = 0; t != 4; ++t)
        users.emplace_back([&] {
            asio::io_context io(1);
            moor::registration reg(io, p.a.get()); // the same handle in all of them
            for (int i = 0; i != 200; ++i) {
                reg.async_wait_writable([&](error_code ec) { over += !ec; });
                io.restart();
                io.run();
            }
        });
    for (std::thread& t : users)
        t.join();
    BOOST_TEST(over == 800);
}

BOOST_AUTO_TEST_SUITE_END()
