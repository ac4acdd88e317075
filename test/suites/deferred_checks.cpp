// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Readiness checks that are made later, together: what they save, and that nothing is missed for
// it. (Elsewhere than on epoll each wait checks when it begins; the same must hold.)

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/crowd.hpp"
#include "support/handles.hpp"
#include "support/pty.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using moor::registration;
using test::aborted;
using test::bad_descriptor;
using test::crowd;
using test::eager;
using test::error_code;
using test::source;
using test::spinning;

struct fixture : test::context_fixture {
    std::optional<crowd> many{std::in_place, io};

    ~fixture() { many.reset(); }
    source& operator[](std::size_t i) { return (*many)[i]; }
};

struct stream_kind {
    const char* name;
    test::fd_pair (*make)();
    error_code end; // none: the end takes the last data away
};

std::vector<stream_kind> stream_kinds() {
    const error_code eof = asio::error::eof;
    const error_code hang_up(EIO, asio::error::get_system_category());
    auto lines = [] {
        test::fd_pair p = test::make_pty();
        return test::fd_pair{std::move(p.b), std::move(p.a)};
    };
    return {{"a pipe", &test::make_pipe, eof},
            {"a Unix socket", [] { return test::make_socketpair(); }, eof},
            {"packets", [] { return test::make_socketpair(SOCK_SEQPACKET); }, eof},
            {"TCP", &test::make_tcp_pair, eof},
            {"a raw terminal", &test::make_raw_pty, hang_up},
            {"lines of a terminal", lines, error_code()}};
}

/// Sets how many bytes poll(2) calls "readable".
void set_low_water(int fd, int least) {
    ::termios t;
    if (::tcgetattr(fd, &t) == 0) {
        t.c_cc[VMIN] = static_cast<::cc_t>(least);
        t.c_cc[VTIME] = 0;
        BOOST_REQUIRE(::tcsetattr(fd, TCSANOW, &t) == 0);
    } else {
        BOOST_REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least)) == 0);
    }
}

} // namespace

BOOST_AUTO_TEST_SUITE(deferred_checks)

// ---- what they save -----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(many_waits_of_one_turn_are_checked_in_one_call, fixture) {
    if (!test::on_epoll())
        return;
    auto checks = [&] { return moor::use_registration_service(io).metrics().readiness_checks; };
    constexpr long turns = 100;
    const auto before = checks();
    test::call_counts total;
    for (long i = 0; i != turns; ++i) {
        test::call_counts c = many->turn();
        total.poll += c.poll;
        total.epoll_ctl += c.epoll_ctl;
        total.allocations += c.allocations;
    }
    BOOST_TEST(total.poll == turns);
    BOOST_TEST(total.epoll_ctl == 0);
    BOOST_TEST(total.allocations == 0);
    // Each handle was checked all the same.
    BOOST_TEST(checks() - before == static_cast<std::uint64_t>(turns) * many->all.size());
}

BOOST_FIXTURE_TEST_CASE(more_handles_are_checked_than_fit_into_one_poll, test::context_fixture) {
    crowd more(io, 150);
    for (int i = 0; i != 10; ++i) {
        test::call_counts c = more.turn();
        if (test::on_epoll())
            BOOST_TEST(c.poll <= 6); // 3, and as many if the reactor took the events in two parts
    }
    std::size_t before = more.bytes();
    more.put_everywhere();
    more.turn();
    BOOST_TEST(more.bytes() == before + 300);
}

BOOST_FIXTURE_TEST_CASE(a_busy_loop_checks_less_than_once_a_wait, test::context_fixture) {
    crowd two(io, 2);
    constexpr int trips = 20000;
    test::call_counts before = test::counts();
    spinning s(two[0], two[1], trips);
    test::run_ready(io);
    test::call_counts c = test::counts() - before;
    BOOST_TEST(s.trips == trips);
    if (test::on_epoll()) {
        BOOST_TEST(c.poll < trips / 3);
        BOOST_TEST(c.epoll_wait < trips + trips / 10); // and does not turn for nothing
    }
}

// ---- that nothing is missed ---------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(data_that_is_left_unread_is_found_and_a_hang_up_behind_it, fixture) {
    for (int round = 0; round != 50; ++round) {
        std::size_t before = many->bytes();
        test::put((*this)[7].pipe.b, std::string(30, 'x'));
        for (int times = round % 3; times != 0; --times)
            many->put_everywhere();
        many->turn();
        const std::size_t each = static_cast<std::size_t>(round % 3 + 1);
        BOOST_TEST(many->bytes() == before + 30 + each * many->all.size());
    }
    for (std::size_t i : {3u, 7u}) {
        test::put((*this)[i].pipe.b, "x");
        (*this)[i].pipe.b.close();
        test::run_ready(io);
        BOOST_TEST((*this)[i].at_end);
    }
}

BOOST_FIXTURE_TEST_CASE(data_that_is_left_unread_is_found_while_the_loop_is_busy,
                        test::context_fixture) {
    crowd four(io, 4);
    int put_at = 0, found = 0, worst = 0;
    std::size_t seen = four[2].bytes;
    spinning s(four[0], four[1], 10000, [&](int trips) {
        if (four[2].bytes == seen + 2) {
            worst = std::max(worst, trips - put_at);
            ++found;
            seen += 2;
        }
        if (trips % 100 == 50) {
            put_at = trips;
            test::put(four[2].pipe.b, "ab");
        }
    });
    test::run_ready(io);
    BOOST_TEST(found == 100);
    BOOST_TEST(worst <= 8); // turns of the loop: for the event, the check, the completion
    // Checks that were left to an event, which was queued, are made once it has come.
    const std::size_t before = four.bytes();
    four.put_everywhere();
    four.put_everywhere();
    four.turn();
    BOOST_TEST(four.bytes() == before + 12);
}

BOOST_AUTO_TEST_CASE(data_that_is_left_unread_at_the_end_of_a_busy_loop_is_found) {
    for (int last = 1000; last != 1020; ++last) {
        test::context_fixture f;
        crowd two(f.io, 2);
        const std::size_t before = two.bytes();
        spinning s(two[0], two[1], last, [&](int trips) {
            if (trips == last - 2)
                test::put(two[0].pipe.b, "a"), test::put(two[1].pipe.b, "b");
        });
        test::run_ready(f.io);
        BOOST_TEST(two.bytes() == before + static_cast<std::size_t>(last) + 2);
    }
}

BOOST_FIXTURE_TEST_CASE(data_that_is_left_unread_is_found_by_another_thread, fixture) {
    const test::watchdog dog(io);
    std::promise<void> found;
    std::optional<std::thread> other;
    int times = 0;
    bool in_time = false;
    (*this)[7].then = [&] {
        if (++times == 1) { // blocks until the other one has handled what is left
            other.emplace([&] { io.run(); });
            in_time = found.get_future().wait_for(test::cap / 2) == std::future_status::ready;
        } else if (times == 2) {
            found.set_value();
            io.stop();
        }
    };
    test::put((*this)[7].pipe.b, "ab");
    io.restart();
    io.run();
    BOOST_REQUIRE(other);
    other->join();
    BOOST_TEST(in_time);
    BOOST_TEST(!dog.has_bitten());
    io.restart();
}

BOOST_FIXTURE_TEST_CASE(data_that_came_after_a_call_would_have_blocked_are_found, fixture) {
    // Between the call and the note of it, the loop handles the event, and a wait begins, whose
    // deferred check forgets the event.
    test::fd_pair p = test::make_pipe();
    registration reg(io, p.a.get());
    test::called first, second, third;
    reg.async_wait_readable(first.handler());
    test::run_ready(io);
    asio::post(io, [&] {
        test::put(p.b, "x");
        const auto result = reg.try_io(moor::interest::readable, [&](error_code& ec) {
            test::drain(p.a);
            ec = asio::error::would_block;
            test::put(p.b, "y");
            io.poll();
            reg.async_wait_readable(second.handler());
            reg.cancel();
        });
        BOOST_TEST((result.error() == asio::error::would_block));
        reg.async_wait_readable(third.handler());
    });
    test::run_ready(io);
    BOOST_TEST(!first.ec);
    BOOST_TEST((second.ec == aborted));
    BOOST_TEST(third.times == 1);
    BOOST_TEST(!third.ec);
    reg.cancel();
    test::run_ready(io);
}

BOOST_FIXTURE_TEST_CASE(waits_that_end_before_the_check_end_once, fixture) {
    auto& s = *many;
    bool is_first = true;
    s[2].then = [&] { s[2].pipe.a.close(); };
    s[3].then = [&] { s[3].reg.cancel(); };
    s[4].then = [&] { s[4].reg.deregister(); };
    s[5].then = [&] {
        if (!std::exchange(is_first, false))
            return;
        s[5].reg.deregister();
        s[5].reg = registration(io, s[5].pipe.a.get());
        s[5].wait();
    };
    s.turn();
    BOOST_TEST((s[2].ec == bad_descriptor || !test::on_epoll()));
    s[2].reg.abandon();
    for (std::size_t i : {3u, 4u, 5u})
        BOOST_TEST((s[i].ec == aborted));
    s[6].then = [&] { moor::use_registration_service(io).close(); };
    for (std::size_t i : {5u, 6u}) {
        std::size_t before = s[i].bytes;
        test::put(s[i].pipe.b, "x");
        test::run_ready(io);
        BOOST_TEST(s[i].bytes == before + 1);
    }
    for (std::size_t i : {5u, 6u, 7u})
        BOOST_TEST((s[i].ec == test::gone));
}

BOOST_AUTO_TEST_CASE(a_context_goes_before_the_check) {
    // The handlers of the waits are destroyed, and the states with them.
    auto alive = std::make_shared<int>(0);
    for (bool keeps_registrations : {false, true}) {
        std::vector<test::fd_pair> pipes(20);
        std::vector<registration> regs;
        {
            asio::io_context io;
            { crowd many(io); }
            for (test::fd_pair& p : pipes) {
                p = test::make_pipe();
                regs.emplace_back(io, p.a.get());
                test::put(p.b, "ab");
                const std::size_t i = regs.size() - 1;
                regs[i].async_wait_readable([&regs, &io, i, alive](error_code) {
                    regs[i].async_wait_readable(
                        [alive](error_code) { BOOST_ERROR("invoked after the end"); });
                    if (i == 10)
                        io.stop();
                });
            }
            io.restart();
            io.poll();
            BOOST_TEST(alive.use_count() > 1);
            if (!keeps_registrations)
                regs.clear();
        }
        BOOST_TEST(alive.use_count() == 1);
    }
}

// ---- streams ------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(all_data_behind_a_read_is_found_and_so_is_the_end) {
    for (const stream_kind& k : stream_kinds())
        for (std::size_t size : {3u, 64u}) // of the buffer, which is filled or not
            for (bool end_is_late : {false, true})
                BOOST_TEST_CONTEXT(k.name << ", " << size << ", " << end_is_late) {
                    fixture f;
                    eager e(f.io, k.make(), size);
                    e.read();
                    std::string expected;
                    for (int messages : {1, 1, 1, 1, 40, 1, 3}) {
                        for (; messages != 0; --messages, expected += "ab\n")
                            test::put(e.out, "ab\n");
                        f.many->turn();
                        test::run_until(f.io, [&] { return e.text.size() >= expected.size(); });
                        BOOST_TEST(e.text == expected);
                    }
                    if (!k.end)
                        continue;
                    test::put(e.out, "end");
                    if (end_is_late)
                        f.many->turn();
                    e.out.close();
                    test::run_until(f.io, [&] { return !!e.ec; });
                    BOOST_TEST((e.ec == k.end));
                    BOOST_TEST(e.text == expected + "end");
                }
}

BOOST_AUTO_TEST_CASE(few_bytes_are_read_of_which_poll_says_nothing) {
    for (auto make : {&test::make_tcp_pair, &test::make_raw_pty}) {
        fixture f;
        eager e(f.io, make());
        set_low_water(e.in.native_handle(), 10);
        for (int i = 0; i != 5; ++i) {
            std::string text;
            e.text.clear();
            e.in.async_read_some(asio::buffer(e.room), [&](error_code, std::size_t n) {
                text.assign(e.room.data(), n);
                test::put(e.out, "xyz"); // behind it, in the same turn
                BOOST_TEST(test::wait_for([&] {
                    int there = 0;
                    return ::ioctl(e.in.native_handle(), FIONREAD, &there) == 0 && there == 3;
                }));
                e.in.async_read_some(asio::buffer(e.room), [&](error_code, std::size_t m) {
                    e.text.assign(e.room.data(), m);
                });
            });
            test::run_ready(f.io);
            test::put(e.out, "abcdefghijkl");
            test::run_until(f.io, [&] { return !e.text.empty(); });
            BOOST_TEST(text + e.text == "abcdefghijklxyz");
        }
    }
}

BOOST_FIXTURE_TEST_CASE(a_reader_that_gets_two_messages_with_each_event_keeps_up, fixture) {
    // Its event is always queued when the check is made, which leaves it out.
    eager e(io, test::make_socketpair(), 6);
    std::size_t sent = 0, worst = 0;
    int left = 4000;
    std::function<void()> tick = [&] {
        worst = std::max(worst, sent - e.text.size());
        if (left == 0)
            return;
        // One a time at first, so that the reader gets used to it.
        if (left-- % 2 == 0)
            for (int i = left > 3000 ? 1 : 2; i != 0; --i, sent += 6)
                test::put(e.out, "packet");
        asio::post(io, tick);
    };
    e.read();
    asio::post(io, tick);
    test::run_until(io, [&] { return left == 0 && e.text.size() == sent; });
    BOOST_TEST(worst <= 120u);
}

BOOST_FIXTURE_TEST_CASE(a_read_behind_another_one_is_made_although_the_handle_left_the_reactor,
                        fixture) {
    eager e(io, test::make_socketpair());
    test::called writable;
    e.in.async_wait(moor::stream_descriptor::wait_write, writable.handler());
    test::run_until(io, [&] { return bool(writable); });
    for (int i = 0; i != 7; ++i) { // events that nobody waits for: one more, and the handle leaves
        test::put(e.out, "x");
        test::drain(e.in.native_handle());
        test::run_ready(io);
    }
    std::array<test::called, 4> done;
    auto read = [&](
                    std::size_t i, std::function<void()> then = [] {}) {
        e.in.async_read_some(asio::buffer(e.room), [&, i, then](error_code ec, std::size_t) {
            done[i].handler()(ec);
            then();
        });
    };
    asio::post(io, [&] {
        test::put(e.out, "abc");
        read(0, [&] { asio::post(io, [&] { read(2), read(3); }); });
        read(1); // is cancelled while its check is due
        e.in.cancel();
    });
    test::run_until(io, [&] { return done[0] && done[1]; });
    for (std::size_t i : {2u, 3u}) {
        test::run_ready(io);
        test::put(e.out, "def");
        test::run_until(io, [&] { return bool(done[i]); });
        BOOST_TEST(!done[i].ec);
    }
}

// ---- threads ------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_second_thread_comes_while_checks_are_due) {
    for (int round = 0; round != 30; ++round) {
        asio::io_context io;
        const test::watchdog dog(io);
        {
            crowd many(io);
            constexpr std::size_t each = 60;
            const std::size_t before = many.bytes(), all = each * many.all.size();
            std::atomic<std::size_t> bytes{0};
            std::atomic<bool> is_alone{true};
            std::optional<std::thread> second;
            for (auto& s : many.all)
                s->then = [&] {
                    std::size_t now = ++bytes;
                    if (now == all)
                        io.stop();
                    else if (now > all / 3 && is_alone.exchange(false))
                        second.emplace([&] { io.run(); });
                };
            std::thread writer([&] {
                for (std::size_t k = 0; k != each; ++k)
                    for (auto& s : many.all)
                        if (::write(s->pipe.b, "x", 1) != 1)
                            return io.stop();
            });
            io.restart();
            io.run();
            writer.join();
            if (second)
                second->join();
            BOOST_REQUIRE(!dog.has_bitten());
            BOOST_TEST(many.bytes() == before + all);
        }
        test::run_all(io); // the unit of work of each is given back
    }
}

BOOST_AUTO_TEST_SUITE_END()
