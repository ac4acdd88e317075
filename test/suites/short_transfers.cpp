// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Short transfers. On a pipe they save the call that ends in would-block; on no kind of handle do
// they lose what came with the data: the end, or more data behind a boundary.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/streams.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <csignal>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>

BOOST_AUTO_TEST_SUITE(short_transfers)

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using namespace test;

/// Reads to the end, with a buffer that every read leaves partly empty.
class greedy {
public:
    greedy(asio::io_context& io, int fd, trigger t) : fd_(fd), reg_(io, fd, t) {}

    void start() {
        reg_.async_io(
            interest::readable, [this](error_code& ec) { return read(ec); },
            [this](error_code ec, ::ssize_t n) {
                if (ec || n <= 0) {
                    error_ = ec;
                    is_over_ = true;
                    return;
                }
                start();
            });
    }

    const std::string& text() const { return text_; }
    bool is_over() const { return is_over_; }
    const error_code& error() const { return error_; }
    int reads() const { return reads_; }
    int would_blocks() const { return would_blocks_; }
    moor::registration& registration() { return reg_; }

private:
    moor::drainable<::ssize_t> read(error_code& ec) {
        char buffer[4096];
        ++reads_;
        ::ssize_t n = ::read(fd_, buffer, sizeof(buffer));
        if (n < 0)
            ec = test::last_error();
        else
            text_.append(buffer, static_cast<std::size_t>(n));
        would_blocks_ += ec == asio::error::would_block;
        return moor::short_transfer(n, sizeof(buffer));
    }

    int fd_;
    moor::registration reg_;
    std::string text_;
    error_code error_;
    bool is_over_ = false;
    int reads_ = 0;
    int would_blocks_ = 0;
};

/// Writes until that fails, more at a time than fits.
class eager {
public:
    eager(asio::io_context& io, int fd, trigger t) : fd_(fd), reg_(io, fd, t) {}

    void start() {
        reg_.async_io(
            interest::writable, [this](error_code& ec) { return write(ec); },
            [this](error_code ec, ::ssize_t) {
                ++completions_;
                error_ = ec;
                if (!ec)
                    start();
            });
    }

    /// Makes room, and waits until it was used.
    void see_drained(asio::io_context& io, int peer) {
        test::run_ready(io);
        int now = completions_;
        test::drain(peer);
        test::run_until(io, [&] { return completions_ != now; });
        test::run_ready(io);
    }

    const error_code& error() const { return error_; }
    int completions() const { return completions_; }
    int writes() const { return writes_; }
    int would_blocks() const { return would_blocks_; }

private:
    moor::drainable<::ssize_t> write(error_code& ec) {
        ++writes_;
        ::ssize_t n = ::write(fd_, much_.data(), much_.size());
        if (n < 0)
            ec = test::last_error();
        would_blocks_ += ec == asio::error::would_block;
        return moor::short_transfer(n, much_.size());
    }

    int fd_;
    moor::registration reg_;
    const std::string much_ = std::string(1 << 20, 'x');
    error_code error_;
    int completions_ = 0;
    int writes_ = 0;
    int would_blocks_ = 0;
};

/// A round trip: the reader is pending again, and has seen all.
void pass(asio::io_context& io, greedy& g, int peer, const std::string& s) {
    std::string expected = g.text() + s;
    test::put(peer, s);
    test::run_until(io, [&] { return g.text() == expected; });
    test::run_ready(io);
}

} // namespace

BOOST_FIXTURE_TEST_CASE(data_and_the_end_in_one_event, test::context_fixture) {
    for (const byte_kind& k : test::byte_kinds())
        for (trigger t : both_triggers)
            for (int before = 0; before != 4; ++before)
                BOOST_TEST_CONTEXT(k.name << ", " << test::name_of(t) << " after " << before) {
                    test::fd_pair p = k.make();
                    greedy g(io, p.a, t);
                    g.start();
                    for (int i = 0; i != before; ++i)
                        pass(io, g, p.b, "before ");
                    std::string expected = g.text() + "last";
                    test::put(p.b, "last");
                    k.end(p);
                    test::run_until(io, [&] { return g.is_over(); });
                    if (!k.loses_data)
                        BOOST_TEST(g.text() == expected);
                }
}

BOOST_FIXTURE_TEST_CASE(the_end_comes_while_the_data_is_handled, test::context_fixture) {
    for (const byte_kind& k : test::byte_kinds())
        for (trigger t : both_triggers)
            BOOST_TEST_CONTEXT(k.name << ", " << test::name_of(t)) {
                test::fd_pair p = k.make();
                greedy g(io, p.a, t);
                g.start();
                pass(io, g, p.b, "before ");
                // A wait beside it is completed by the same event, before or after the data is
                // read.
                g.registration().async_wait_readable([&](error_code) {
                    k.end(p);
                    test::run_ready(io);
                });
                test::put(p.b, "last");
                test::run_until(io, [&] { return g.is_over(); });
            }
}

BOOST_FIXTURE_TEST_CASE(a_pipe_is_read_once_an_event, test::context_fixture) {
    for (auto make : {&test::make_pipe, &test::make_fifo})
        for (trigger t : both_triggers) {
            test::fd_pair p = make();
            greedy g(io, p.a, t);
            g.start();
            for (int i = 0; i != 3; ++i)
                pass(io, g, p.b, "warm");
            int reads = g.reads(), blocks = g.would_blocks();
            test::call_counts before = test::counts();
            for (int i = 0; i != 100; ++i)
                pass(io, g, p.b, "x");
            test::call_counts c = test::counts() - before;
            BOOST_TEST(g.reads() - reads == 100);
            BOOST_TEST(g.would_blocks() == blocks);
            if (test::on_epoll()) {
                BOOST_TEST(c.poll == 0);
                BOOST_TEST(c.epoll_ctl == 0);
            }
            p.b.close();
            test::run_until(io, [&] { return g.is_over(); });
            BOOST_TEST(!g.error());
        }
}

BOOST_FIXTURE_TEST_CASE(a_writer_waits_after_a_short_write_and_is_told_of_a_hang_up,
                        test::context_fixture) {
    test::signal_action ignored(SIGPIPE, SIG_IGN);
    enum room { all, some, none }; // that comes with the hang-up
    for (trigger t : both_triggers)
        for (bool is_pipe : {true, false})
            for (room r : {all, some, none}) {
                test::fd_pair p = is_pipe ? test::make_pipe() : test::make_socketpair();
                eager w(io, p.b, t);
                w.start();
                test::run_ready(io);
                BOOST_REQUIRE(w.completions() > 0);
                int writes = w.writes(), would_blocks = w.would_blocks();
                int completions = w.completions(); // these found out for themselves
                for (int i = 0; i != 10; ++i)      // each write is cut short
                    w.see_drained(io, p.a);
                BOOST_TEST(!w.error());
                if (is_pipe) {
                    BOOST_TEST(w.writes() - writes == w.completions() - completions);
                    BOOST_TEST(w.would_blocks() == would_blocks);
                }
                if (r == all)
                    test::drain(p.a);
                else if (r == some)
                    test::get(p.a, 8192);
                p.a.close();
                test::run_until(io, [&] { return bool(w.error()); });
                BOOST_TEST((w.error() == asio::error::broken_pipe ||
                            (!is_pipe && w.error() == asio::error::connection_reset)));
            }
}

void put_beside_a_descriptor(int fd) {
    char one[] = "one";
    ::iovec v{one, 3};
    alignas(::cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    ::msghdr m{};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof(control);
    ::cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(c), &fd, sizeof(int));
    BOOST_REQUIRE_EQUAL(::sendmsg(fd, &m, 0), 3);
    test::put(fd, "two");
}

BOOST_FIXTURE_TEST_CASE(boundaries_inside_of_what_arrived_with_one_event, test::context_fixture) {
    std::vector<test::boundary> all = test::boundaries();
    all.push_back({"a descriptor that is passed", [] { return test::make_socketpair(); },
                   put_beside_a_descriptor, "onetwo"});
    for (const test::boundary& b : all)
        for (trigger t : both_triggers)
            BOOST_TEST_CONTEXT(b.name << ", " << test::name_of(t)) {
                test::fd_pair p = b.make();
                greedy g(io, p.a, t);
                g.start();
                for (int i = 0; i != 5; ++i) {
                    std::string expected = g.text() + b.text;
                    b.put(p.b);
                    test::run_until(io, [&] { return g.text() == expected; });
                }
                if (b.name == std::string("datagrams"))
                    g.registration().cancel(); // they have no end
                p.b.close();
                test::run_until(io, [&] { return g.is_over(); });
            }
}

BOOST_FIXTURE_TEST_CASE(outside_of_an_operation_nothing_is_armed, test::context_fixture) {
    // There may be no work yet, and the context must not be stopped.
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::called done;
    reg.async_wait_readable(done.handler());
    test::put(p.b, "x");
    test::run_all(io);
    io.restart();
    auto read = [&](error_code& ec) {
        char buffer[64];
        ::ssize_t n = ::read(p.a, buffer, sizeof(buffer));
        if (n < 0)
            ec = test::last_error();
        return moor::short_transfer(n, sizeof(buffer));
    };
    auto r = reg.try_io(interest::readable, read);
    BOOST_REQUIRE(r);
    BOOST_TEST(*r == 1);
    BOOST_TEST(!io.stopped());
    BOOST_TEST(reg.try_io(interest::readable, read).error() == asio::error::would_block);
    test::put(p.b, "last");
    p.b.close();
    test::called again;
    reg.async_wait_readable(again.handler());
    test::run_all(io);
    BOOST_TEST(*reg.try_io(interest::readable, read) == 4);
    BOOST_TEST(*reg.try_io(interest::readable, read) == 0);
}

BOOST_FIXTURE_TEST_CASE(a_hang_up_that_can_not_be_watched_for, test::context_fixture) {
    if (!test::on_epoll())
        return;
    test::fd_pair p = test::make_pipe();
    greedy g(io, p.a, trigger::level);
    g.start();
    test::run_ready(io);
    {
        test::fault failing(test::call::epoll_mod, ENOSPC);
        test::put(p.b, "last");
        p.b.close();
        test::run_until(io, [&] { return g.is_over(); });
    }
    BOOST_TEST(g.text() == "last");
    BOOST_TEST(!g.error());
}

BOOST_FIXTURE_TEST_CASE(an_end_that_a_wait_for_both_directions_has_seen, test::context_fixture) {
    for (trigger t : both_triggers)
        for (auto make : {test::make_pipe, test::make_fifo}) {
            test::fd_pair p = make();
            greedy g(io, p.a, t);
            test::called both;
            g.registration().async_wait(interest::readable | interest::writable,
                                        [&](error_code ec, moor::ready_event) {
                                            both.handler()(ec);
                                            g.start();
                                        });
            test::run_ready(io);
            test::put(p.b, "last");
            p.b.close();
            test::run_until(io, [&] { return g.is_over(); });
            BOOST_TEST(g.text() == "last");
        }
}

BOOST_FIXTURE_TEST_CASE(an_end_after_others_that_waits_for_both_directions_have_seen,
                        test::context_fixture) {
    for (trigger t : both_triggers) {
        test::fd_pair p = test::make_fifo();
        auto reopen = [&] {
            // Through the reading end, since the writing one is closed each time.
            std::string name = "/proc/self/fd/" + std::to_string(p.a.get());
            p.b = test::unique_fd(::open(name.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
            BOOST_REQUIRE(p.b.get() != -1);
        };
        greedy g(io, p.a, t);
        for (int i = 0; i != 2; ++i) {
            test::called both;
            g.registration().async_wait(
                interest::readable | interest::writable,
                [&](error_code ec, moor::ready_event) { both.handler()(ec); });
            test::run_ready(io);
            p.b.close();
            test::run_until(io, [&] { return bool(both); });
            test::run_ready(io);
            reopen();
        }
        g.start();
        test::run_ready(io);
        test::put(p.b, "x");
        test::run_ready(io);
        test::put(p.b, "last");
        p.b.close();
        test::run_until(io, [&] { return g.is_over(); });
        BOOST_TEST(g.text() == "xlast");
    }
}

BOOST_AUTO_TEST_CASE(many_threads_and_an_end_at_any_time) {
    for (int round = 0; round != 200; ++round) {
        asio::io_context io;
        test::fd_pair p = test::make_pipe();
        greedy g(io, p.a, round % 2 ? trigger::level : trigger::edge);
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
        BOOST_REQUIRE(g.is_over());
        BOOST_TEST(g.text().size() == 4u + 5u * static_cast<unsigned>(round % 5));
    }
}

BOOST_AUTO_TEST_SUITE_END()
