// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Level-triggered waits that are looked at later, together: what they save, and that nothing is
// missed for it. (Elsewhere than on epoll each wait looks at once; the same must hold.)

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/pty.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>
#include <moor/detail/late_looks.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

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

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using moor::registration;
using moor::detail::look_pacing;
using test::aborted;
using test::bad_descriptor;
using test::error_code;

/// A pipe whose reader takes one byte, and waits again.
struct source {
    test::fd_pair pipe = test::make_pipe();
    registration reg;
    std::function<void()> then = [] {}; // once it waits again
    std::size_t bytes = 0;
    bool at_end = false;
    error_code ec; // of a wait that failed, and was not begun again

    explicit source(asio::io_context& io) : reg(io, pipe.a.get()) {}

    void wait() {
        reg.async_wait_readable([this](error_code e) {
            char c;
            ::ssize_t n = e ? -1 : ::read(pipe.a, &c, 1);
            if (e || n == 0) {
                ec = e;
                at_end = !e;
                return;
            }
            bytes += n == 1;
            wait();
            then();
        });
    }
};

/// Many of them.
struct crowd {
    asio::io_context& io;
    std::vector<std::unique_ptr<source>> all;

    crowd(asio::io_context& context, std::size_t n) : io(context) {
        for (std::size_t i = 0; i != n; ++i) {
            all.push_back(std::make_unique<source>(io));
            all.back()->wait();
        }
    }

    source& operator[](std::size_t i) { return *all[i]; }

    void put_everywhere() {
        for (auto& s : all)
            test::put(s->pipe.b, "x");
    }

    /// All become readable, and are read.
    test::call_counts turn() {
        put_everywhere();
        test::call_counts before = test::counts();
        test::run_ready(io);
        return test::counts() - before;
    }

    /// Until waits are looked at later.
    void warm_up() {
        for (std::size_t i = 0; i * all.size() <= 3 * look_pacing::first_interval; ++i)
            turn();
    }

    std::size_t bytes() const {
        std::size_t n = 0;
        for (auto& s : all)
            n += s->bytes;
        return n;
    }

    /// Ends every wait, so that the context runs out of work.
    void end() {
        for (auto& s : all)
            s->reg.cancel();
        test::run_ready(io);
    }
};

struct late_fixture : test::context_fixture {
    std::optional<crowd> many;

    late_fixture() {
        many.emplace(io, 20);
        many->warm_up();
    }
    ~late_fixture() {
        if (many)
            many->end();
    }
    source& operator[](std::size_t i) { return (*many)[i]; }
};

/// A stream that is read on and on, with room for more than there is, or for just that.
struct eager {
    moor::stream_descriptor in;
    test::unique_fd out;
    std::string text;
    error_code ec;
    std::array<char, 64> room;
    std::size_t limit;

    eager(asio::io_context& io, test::fd_pair p, std::size_t n = 64)
        : in(io, p.a.release()), out(std::move(p.b)), limit(n) {}

    void read() {
        in.async_read_some(asio::buffer(room, limit), [this](error_code e, std::size_t n) {
            text.append(room.data(), n);
            ec = e;
            if (!e)
                read();
        });
    }
};

/// Many of them, of which reads that are cut short are followed by a late look.
struct eager_crowd {
    asio::io_context& io;
    std::vector<std::unique_ptr<eager>> all;

    template <class Make>
    eager_crowd(asio::io_context& context, std::size_t n, Make make, std::size_t limit = 64)
        : io(context) {
        for (std::size_t i = 0; i != n; ++i) {
            all.push_back(std::make_unique<eager>(io, make(), limit));
            all.back()->read();
        }
        for (std::size_t i = 0; i * n <= 3 * look_pacing::first_interval; ++i)
            turn();
    }

    eager& operator[](std::size_t i) { return *all[i]; }

    void turn() {
        for (auto& e : all) {
            e->text.clear();
            test::put(e->out, "abc");
        }
        test::run_until(io, [&] {
            return std::all_of(all.begin(), all.end(), [](auto& e) { return e->text == "abc"; });
        });
        test::run_ready(io);
    }

    void end() {
        for (auto& e : all)
            e->in.close();
        test::run_ready(io);
    }
};

/// Sets how many bytes poll(2) calls "readable".
void readable_from(int fd, int least) {
    ::termios t;
    if (::tcgetattr(fd, &t) == 0) {
        t.c_cc[VMIN] = static_cast<::cc_t>(least);
        t.c_cc[VTIME] = 0;
        BOOST_REQUIRE(::tcsetattr(fd, TCSANOW, &t) == 0);
    } else {
        BOOST_REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least)) == 0);
    }
}

int available(int fd) {
    int n = -1;
    return ::ioctl(fd, FIONREAD, &n) == 0 ? n : -1;
}

/// A kind of handle of which a short read proves nothing, and what its end is.
struct doubtful_kind {
    const char* name;
    test::fd_pair (*make)();
    error_code end;
};

std::vector<doubtful_kind> doubtful_kinds() {
    const error_code eof = asio::error::eof;
    return {
        {"a Unix socket", [] { return test::make_socketpair(); }, eof},
        {"TCP", &test::make_tcp_pair, eof},
        {"a terminal", &test::make_raw_pty, error_code(EIO, asio::error::get_system_category())}};
}

struct stream_kind {
    const char* name;
    test::fd_pair (*make)();
};

std::vector<stream_kind> stream_kinds() {
    return {{"a pipe", &test::make_pipe},
            {"a Unix socket", [] { return test::make_socketpair(); }},
            {"TCP", &test::make_tcp_pair}};
}

} // namespace

BOOST_AUTO_TEST_SUITE(late_looks)

// ---- when ---------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(it_is_tried_after_some_looks_and_given_up_where_it_does_not_pay) {
    look_pacing p;
    auto looks_until_tried = [&] {
        std::uint32_t n = 1;
        while (!p.should_wait())
            ++n;
        return n;
    };
    std::uint32_t expected = look_pacing::first_interval;
    BOOST_TEST(looks_until_tried() == expected);
    for (int i = 0; i != 10; ++i) {
        for (unsigned k = 0; k != look_pacing::patience; ++k) {
            BOOST_TEST(p.should_wait());
            p.note(1, 0, 1, 0);
        }
        BOOST_TEST(looks_until_tried() == expected);
        expected = std::min(2 * expected, look_pacing::last_interval);
    }
    BOOST_TEST(expected == look_pacing::last_interval);
    // What pays once begins anew.
    p.note(look_pacing::worthwhile, 0, 1, 0);
    for (unsigned k = 0; k != look_pacing::patience; ++k)
        p.note(look_pacing::worthwhile - 1, 0, look_pacing::most_turns - 1, 0);
    BOOST_TEST(looks_until_tried() == look_pacing::first_interval);
}

BOOST_AUTO_TEST_CASE(what_pays) {
    auto pays = [](std::size_t looked, std::size_t found, unsigned turns, std::size_t let_go = 0) {
        look_pacing p;
        while (!p.should_wait()) {}
        for (unsigned k = 0; k != look_pacing::patience; ++k)
            p.note(looked, found, turns, let_go);
        return p.should_wait();
    };
    BOOST_TEST(pays(look_pacing::worthwhile, 0, 1));
    BOOST_TEST(pays(100, 25, 1));
    BOOST_TEST(!pays(100, 26, 1)); // it came late for too many
    BOOST_TEST(!pays(look_pacing::worthwhile - 1, 0, 1));
    BOOST_TEST(pays(1, 0, look_pacing::most_turns)); // the loop was busy
    BOOST_TEST(!pays(1, 1, look_pacing::most_turns));
    BOOST_TEST(pays(0, 0, 1));     // their events came
    BOOST_TEST(!pays(0, 0, 1, 1)); // a call was put off for nothing
    BOOST_TEST(pays(0, 0, look_pacing::most_turns, 1));
}

// ---- what it saves ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(many_waits_of_one_turn_are_looked_at_in_one_call, late_fixture) {
    if (!test::on_epoll())
        return;
    auto before = moor::use_registration_service(io).metrics().readiness_checks;
    constexpr long turns = 100;
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
    // Each handle was looked at all the same.
    auto looks = moor::use_registration_service(io).metrics().readiness_checks - before;
    BOOST_TEST(looks == static_cast<std::uint64_t>(turns) * many->all.size());
}

BOOST_AUTO_TEST_CASE(more_handles_than_fit_into_one_call, *boost::unit_test::timeout(60)) {
    test::context_fixture f;
    crowd many(f.io, 150);
    many.warm_up();
    for (int i = 0; i != 10; ++i) {
        test::call_counts c = many.turn();
        if (test::on_epoll())
            BOOST_TEST(c.poll <= 6); // 3, and as many if the reactor took the events in two parts
    }
    many[149].then = [] {};
    test::put(many[149].pipe.b, "ab");
    std::size_t before = many.bytes();
    test::run_ready(f.io);
    BOOST_TEST(many.bytes() == before + 2);
    many.end();
}

/// A byte goes round two pipes for so many hops, in a loop that never blocks.
struct spinning {
    source& a;
    source& b;
    int hops = 0;

    spinning(
        source& one, source& other, int limit, std::function<void()> each = [] {})
        : a(one), b(other) {
        auto pass_on = [this, limit, each](int out) {
            each();
            if (++hops < limit)
                test::put(out, "x");
        };
        a.then = [this, pass_on] { pass_on(b.pipe.b); };
        b.then = [this, pass_on] { pass_on(a.pipe.b); };
        test::put(a.pipe.b, "x");
    }
};

BOOST_AUTO_TEST_CASE(a_busy_loop_looks_less_than_once_a_wait) {
    test::context_fixture f;
    crowd two(f.io, 2);
    constexpr int hops = 20000;
    test::call_counts before = test::counts();
    spinning s(two[0], two[1], hops);
    test::run_ready(f.io);
    test::call_counts c = test::counts() - before;
    BOOST_TEST(s.hops == hops);
    if (test::on_epoll()) {
        BOOST_TEST(c.poll < hops / 3);
        BOOST_TEST(c.epoll_wait < hops + hops / 10); // and has no turns in vain
    }
    two.end();
}

BOOST_AUTO_TEST_CASE(a_wait_in_a_loop_that_blocks_is_looked_at_at_once) {
    test::context_fixture f;
    crowd one(f.io, 1);
    constexpr int rounds = 5000;
    test::call_counts before = test::counts();
    for (std::size_t i = 0; i != rounds; ++i) {
        test::put(one[0].pipe.b, "x");
        test::run_until(f.io, [&] { return one[0].bytes == i + 1; });
    }
    test::call_counts c = test::counts() - before;
    if (test::on_epoll()) {
        BOOST_TEST(c.poll <= rounds);
        BOOST_TEST(c.epoll_wait < rounds + rounds / 10);
    }
    one.end();
}

// ---- that nothing is missed --------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(what_is_left_unread_is_found, late_fixture) {
    for (std::size_t n : {2u, 3u, 30u}) {
        std::size_t before = (*this)[7].bytes;
        test::put((*this)[7].pipe.b, std::string(n, 'x'));
        many->turn();
        BOOST_TEST((*this)[7].bytes == before + n + 1);
    }
}

BOOST_FIXTURE_TEST_CASE(what_all_leave_unread_is_found, late_fixture) {
    for (int i = 0; i != 50; ++i) {
        std::size_t before = many->bytes();
        many->put_everywhere();
        many->put_everywhere();
        many->turn();
        BOOST_TEST(many->bytes() == before + 3 * many->all.size());
    }
}

BOOST_FIXTURE_TEST_CASE(a_hang_up_with_the_last_data_is_found, late_fixture) {
    for (std::size_t i : {3u, 7u}) {
        test::put((*this)[i].pipe.b, "x");
        (*this)[i].pipe.b.close();
        test::run_ready(io);
        BOOST_TEST((*this)[i].at_end);
    }
}

BOOST_AUTO_TEST_CASE(what_is_left_unread_is_found_while_the_loop_is_busy) {
    test::context_fixture f;
    crowd four(f.io, 4);
    int left_at = 0;
    std::vector<int> found_after;
    std::size_t seen = 0;
    spinning* spinner = nullptr;
    auto each = [&] {
        if (four[2].bytes != seen && (four[2].bytes & 1u) == 0) {
            found_after.push_back(spinner->hops - left_at);
            seen = four[2].bytes;
        }
        if (spinner->hops % 100 == 50) {
            left_at = spinner->hops;
            test::put(four[2].pipe.b, "ab");
        }
    };
    spinning s(four[0], four[1], 10000, [&] { each(); });
    spinner = &s;
    test::run_ready(f.io);
    BOOST_TEST(found_after.size() == 100u);
    for (int n : found_after) // a hop is a turn: for the event, the look, the completion
        BOOST_TEST(n <= static_cast<int>(look_pacing::most_turns) + 4);
    four.end();
}

BOOST_AUTO_TEST_CASE(what_is_left_unread_at_the_end_of_a_busy_loop_is_found) {
    for (int last = 1000; last != 1020; ++last) {
        test::context_fixture f;
        crowd two(f.io, 2);
        spinning* spinner = nullptr;
        spinning s(two[0], two[1], last, [&] {
            if (spinner->hops == last - 2)
                test::put(two[0].pipe.b, "a"), test::put(two[1].pipe.b, "b");
        });
        spinner = &s;
        test::run_ready(f.io);
        BOOST_TEST(two.bytes() == static_cast<std::size_t>(last) + 2);
        two.end();
    }
}

BOOST_FIXTURE_TEST_CASE(what_is_left_unread_is_found_by_a_loop_inside_of_the_handler,
                        late_fixture) {
    source& s = (*this)[7];
    bool is_inside = false;
    std::size_t inside = 0;
    s.then = [&] {
        if (std::exchange(is_inside, true))
            return;
        std::size_t before = s.bytes;
        test::run_until(io, [&] { return s.bytes == before + 2; });
        inside = s.bytes - before;
    };
    test::put(s.pipe.b, "ab");
    many->turn();
    BOOST_TEST(inside == 2u);
}

BOOST_AUTO_TEST_CASE(what_is_left_unread_is_found_by_another_thread) {
    test::context_fixture f;
    crowd many(f.io, 20);
    many.warm_up();
    const test::watchdog dog(f.io);
    source& s = many[7];
    std::promise<void> found;
    std::optional<std::thread> other;
    int times = 0;
    bool in_time = false;
    s.then = [&] {
        if (++times == 1) { // blocks until the other one has handled what is left
            other.emplace([&] { f.io.run(); });
            in_time = found.get_future().wait_for(test::cap / 2) == std::future_status::ready;
        } else if (times == 2) {
            found.set_value();
            f.io.stop();
        }
    };
    test::put(s.pipe.b, "ab");
    f.io.restart();
    f.io.run();
    BOOST_REQUIRE(other);
    other->join();
    BOOST_TEST(in_time);
    BOOST_TEST(!dog.has_bitten());
    f.io.restart();
    many.end();
}

BOOST_FIXTURE_TEST_CASE(what_was_read_is_not_cached_until_the_look, late_fixture) {
    bool is_cached = true;
    source& s = (*this)[7];
    s.then = [&] { is_cached = !s.reg.ready(moor::interest::readable).ready().empty(); };
    many->turn();
    BOOST_TEST(!is_cached);
}

BOOST_FIXTURE_TEST_CASE(what_is_gone_before_the_look_completes_nothing, late_fixture) {
    // Another handler of the same turn takes what the first one left.
    source& s = (*this)[7];
    std::string taken;
    std::size_t before = s.bytes;
    bool is_first = true;
    s.then = [&] {
        if (std::exchange(is_first, false))
            asio::post(io, [&] { taken = test::get(s.pipe.a); });
    };
    test::put(s.pipe.b, "ab");
    many->turn(); // which adds an x
    if (test::on_epoll())
        BOOST_TEST(taken == "bx");
    BOOST_TEST(s.bytes + taken.size() == before + 3);
    BOOST_TEST(s.ec == error_code());
    before = s.bytes;
    test::put(s.pipe.b, "c");
    test::run_ready(io);
    BOOST_TEST(s.bytes == before + 1);
}

BOOST_FIXTURE_TEST_CASE(a_waker_that_fired_when_it_was_armed_is_of_the_past, late_fixture) {
    // In one event: a wait for room, which there is, is cancelled; the room is used up; and the
    // next one begins. The first one's waker is still on its way home.
    for (int i = 0; i != 50; ++i) {
        test::fd_pair p = test::make_socketpair();
        registration reg(io, p.a.get());
        bool is_over = false, was_true = true;
        reg.async_wait_readable([&](error_code ec) {
            if (ec)
                return;
            test::drain(p.a);
            reg.async_wait_writable([](error_code) {});
            reg.cancel();
            test::fill(p.a);
            reg.async_wait_writable([&](error_code e) {
                is_over = !e;
                ::pollfd q = {p.a, POLLOUT, 0};
                was_true = ::poll(&q, 1, 0) == 1;
            });
        });
        test::run_ready(io);
        test::put(p.b, "x");
        test::run_ready(io);
        BOOST_TEST(was_true);
        test::drain(p.b);
        test::run_ready(io);
        BOOST_TEST(is_over);
        if (i % 10 == 0)
            many->warm_up();
    }
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_is_closed_before_the_look_is_reported, late_fixture) {
    (*this)[7].then = [&] { (*this)[7].pipe.a.close(); };
    many->turn();
    BOOST_TEST(((*this)[7].ec == bad_descriptor || !test::on_epoll()));
    (*this)[7].reg.deregister();
    test::run_ready(io);
    BOOST_TEST(!!(*this)[7].ec);
}

BOOST_FIXTURE_TEST_CASE(waits_that_end_before_the_look_end_once, late_fixture) {
    (*this)[3].then = [&] { (*this)[3].reg.cancel(); };
    (*this)[4].then = [&] { (*this)[4].reg.deregister(); };
    bool is_first = true;
    (*this)[5].then = [&] {
        if (std::exchange(is_first, false)) { // its next registration
            (*this)[5].reg.deregister();
            (*this)[5].reg = registration(io, (*this)[5].pipe.a.get());
            (*this)[5].wait();
        }
    };
    many->turn();
    BOOST_TEST(((*this)[3].ec == aborted));
    BOOST_TEST(((*this)[4].ec == aborted));
    BOOST_TEST(((*this)[5].ec == aborted)); // the first one's
    std::size_t before = (*this)[5].bytes;
    many->turn();
    BOOST_TEST((*this)[5].bytes == before + 1);

    (*this)[6].then = [&] { moor::use_registration_service(io).close(); };
    many->turn();
    for (std::size_t i : {5u, 6u, 7u})
        BOOST_TEST(!!(*this)[i].ec);
}

BOOST_AUTO_TEST_CASE(a_context_goes_before_the_look) {
    // The waits' handlers are destroyed, and the states with them.
    auto alive = std::make_shared<int>(0);
    for (bool keeps_registrations : {false, true}) {
        std::vector<test::fd_pair> pipes(20);
        std::vector<registration> regs;
        {
            asio::io_context io;
            {
                crowd many(io, 20);
                many.warm_up();
                many.end();
            }
            for (test::fd_pair& p : pipes) {
                p = test::make_pipe();
                regs.emplace_back(io, p.a.get());
                test::put(p.b, "ab");
            }
            for (std::size_t i = 0; i != pipes.size(); ++i)
                regs[i].async_wait_readable([&, i, alive](error_code) {
                    regs[i].async_wait_readable(
                        [alive](error_code) { BOOST_ERROR("invoked after the end"); });
                    if (i == 10)
                        io.stop();
                });
            io.restart();
            io.poll();
            if (!keeps_registrations)
                regs.clear();
        }
        BOOST_TEST(alive.use_count() == 1);
    }
}

BOOST_FIXTURE_TEST_CASE(without_memory_a_wait_is_looked_at_at_once, late_fixture,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    // More handles than ever begin to wait in one turn: the list of them can't grow.
    crowd more(io, 300);
    test::run_ready(io);
    auto fail = [&](source& s) {
        s.reg.cancel();
        test::run_ready(io);
        s.reg.async_wait_readable([&](error_code ec) {
            BOOST_TEST(!ec);
            char c;
            BOOST_TEST(::read(s.pipe.a, &c, 1) == 1);
            ++s.bytes;
            test::fail_allocations_after(0);
            s.wait();
            test::fail_allocations_after(-1);
        });
    };
    for (auto& s : more.all)
        fail(*s);
    more.put_everywhere();
    more.put_everywhere();
    test::run_ready(io);
    BOOST_TEST(more.bytes() == 2 * more.all.size());
    more.end();
}

// ---- reads that were cut short, of a stream ----------------------------------------------------

BOOST_AUTO_TEST_CASE(a_read_that_was_cut_short_is_not_made_again_in_vain) {
    for (const doubtful_kind& k : doubtful_kinds())
        BOOST_TEST_CONTEXT(k.name) {
            test::context_fixture f;
            eager_crowd many(f.io, 20, k.make);
            constexpr int turns = 20;
            long reads = 0, polls = 0;
            for (int i = 0; i != turns; ++i) {
                test::watched_transfers calls(many[7].in.native_handle());
                test::call_counts before = test::counts();
                many.turn();
                reads += calls.reads();
                polls += (test::counts() - before).poll;
            }
            // A terminal's data is handed on by a thread of the kernel, at any time and in parts;
            // if the loop blocks for each, it does not pay to look later.
            if (test::on_epoll() && k.end == asio::error::eof) {
                BOOST_TEST(reads == turns);
                BOOST_TEST(polls <= 5 * turns);
            }
            many.end();
        }
}

BOOST_AUTO_TEST_CASE(the_end_behind_a_read_that_was_cut_short_is_found) {
    for (const doubtful_kind& k : doubtful_kinds())
        for (bool in_one : {true, false})
            BOOST_TEST_CONTEXT(k.name << ", " << in_one) {
                test::context_fixture f;
                eager_crowd many(f.io, 10, k.make);
                many[7].text.clear();
                test::put(many[7].out, "the last");
                if (!in_one)
                    test::run_ready(f.io);
                many[7].out.close();
                test::run_until(f.io, [&] { return !!many[7].ec; });
                BOOST_TEST((many[7].ec == k.end));
                BOOST_TEST(many[7].text == "the last");
                many.end();
            }
}

BOOST_AUTO_TEST_CASE(lines_of_a_terminal_are_all_read) {
    // Each read ends with a line, although there are more; and no event tells of them.
    test::context_fixture f;
    eager_crowd many(f.io, 10, [] { return test::make_socketpair(); });
    test::fd_pair p = test::make_pty();
    eager lines(f.io, {std::move(p.b), std::move(p.a)});
    lines.read();
    std::string expected;
    for (int i = 0; i != 10; ++i) {
        test::put(lines.out, "one\ntwo\nthree\n");
        expected += "one\ntwo\nthree\n";
        many.turn();
        test::run_until(f.io, [&] { return lines.text.size() >= expected.size(); });
        BOOST_TEST(lines.text == expected);
    }
    lines.in.close();
    many.end();
}

BOOST_AUTO_TEST_CASE(what_was_found_late_is_read_on_at_once) {
    test::context_fixture f;
    eager_crowd many(f.io, 20, [] { return test::make_socketpair(); });
    test::fd_pair p = test::make_socketpair(SOCK_SEQPACKET);
    eager packets(f.io, std::move(p));
    packets.read();
    test::run_ready(f.io);
    for (int i = 0; i != 10; ++i) {
        std::string expected;
        for (int k = 0; k != 40; ++k) {
            test::put(packets.out, "packet");
            expected += "packet";
        }
        packets.text.clear();
        many.turn();
        BOOST_TEST(packets.text == expected);
        test::call_counts before = test::counts();
        for (int k = 0; k != 40; ++k)
            test::put(packets.out, "packet");
        test::run_until(f.io, [&] { return packets.text.size() == 2 * expected.size(); });
        test::call_counts c = test::counts() - before;
        BOOST_TEST(c.poll <= 2); // not one for each packet
    }
    packets.in.close();
    many.end();
}

BOOST_AUTO_TEST_CASE(reads_that_end_before_the_look_end_once) {
    for (const doubtful_kind& k : doubtful_kinds())
        BOOST_TEST_CONTEXT(k.name) {
            test::context_fixture f;
            eager_crowd many(f.io, 20, k.make);
            int times = 0;
            error_code ec;
            auto begin = [&](eager& e, auto then) {
                e.in.cancel(); // in place of its own
                test::run_ready(f.io);
                e.in.async_read_some(
                    asio::buffer(e.room), [&, then](error_code first, std::size_t n) {
                        BOOST_TEST(!first);
                        BOOST_TEST(n == 1u);
                        e.in.async_read_some(asio::buffer(e.room), [&](error_code second, auto) {
                            ++times;
                            ec = second;
                        });
                        then(e.in);
                    });
                test::put(e.out, "x");
            };
            int expected = 0;
            auto check = [&](std::size_t i, auto then) {
                begin(many[i], then);
                test::run_until(f.io, [&] { return times != expected; });
                test::run_ready(f.io);
                BOOST_TEST(times == ++expected);
                BOOST_TEST((ec == aborted));
            };
            check(3, [](auto& in) { in.cancel(); });
            check(4, [](auto& in) { in.close(); });
            check(5, [](auto& in) { test::unique_fd(in.release()); });
            check(6, [](auto& in) { moor::stream_descriptor moved(std::move(in)); });
            many.end();
        }
}

BOOST_AUTO_TEST_CASE(a_read_after_an_event_is_made_at_once) {
    test::context_fixture f;
    eager_crowd many(f.io, 20, [] { return test::make_socketpair(); });
    eager& e = many[7];
    e.in.cancel();
    test::run_ready(f.io);
    bool is_over = false;
    e.in.async_read_some(asio::buffer(e.room), [&](error_code, std::size_t) { is_over = true; });
    test::put(e.out, "x");
    test::run_ready(f.io);
    BOOST_TEST(is_over);
    test::put(e.out, "more");
    test::run_ready(f.io); // which brings the event
    asio::post(f.io, [&] {
        e.room[0] = '-';
        e.read();
        if (test::on_epoll()) // elsewhere nothing is known of a handle that nobody waits for
            BOOST_TEST(e.room[0] == 'm');
    });
    test::run_ready(f.io);
    many.end();
}

// ---- transfers after which another used to be in vain -------------------------------------------

BOOST_AUTO_TEST_CASE(a_read_that_used_to_be_in_vain_is_not_tried) {
    for (const stream_kind& k : stream_kinds())
        BOOST_TEST_CONTEXT(k.name) {
            test::context_fixture f;
            eager_crowd many(f.io, 20, k.make, 3);
            constexpr int turns = 40;
            test::watched_transfers calls(many[7].in.native_handle());
            for (int i = 0; i != turns; ++i)
                many.turn();
            if (test::on_epoll())
                BOOST_TEST(calls.reads() == turns);
            many.end();
        }
}

BOOST_AUTO_TEST_CASE(a_read_that_can_not_wait_for_a_look_is_tried_in_the_call) {
    // One with a slot, and any beside a wait with one: not put off, only to be tried a turn later.
    for (bool has_slot : {false, true})
        for (bool beside_a_write : {false, true})
            BOOST_TEST_CONTEXT("slot: " << has_slot << ", write: " << beside_a_write) {
                test::context_fixture f;
                crowd many(f.io, 20);
                many.warm_up();
                test::fd_pair p = test::make_socketpair();
                moor::stream_descriptor d(f.io, p.a.release());
                asio::cancellation_signal reads, writes;
                std::array<char, 64> room;
                auto read = [&](auto handler) {
                    if (has_slot)
                        d.async_read_some(asio::buffer(room),
                                          asio::bind_cancellation_slot(reads.slot(), handler));
                    else
                        d.async_read_some(asio::buffer(room), handler);
                };
                if (beside_a_write) {
                    test::fill(d.native_handle());
                    d.async_write_some(asio::buffer("x", 1),
                                       asio::bind_cancellation_slot(
                                           writes.slot(), [](error_code, std::size_t) {}));
                }
                constexpr std::size_t messages = 200;
                std::size_t received = 0;
                std::function<void()> go = [&] {
                    read([&](error_code ec, std::size_t) {
                        if (!ec && ++received < messages)
                            go();
                    });
                };
                go();
                std::size_t handlers = 0;
                for (std::size_t i = 1; i <= messages; ++i) {
                    test::put(p.b, "ab");
                    do
                        handlers += test::run_ready(f.io);
                    while (received < i);
                }
                if (test::on_epoll())
                    BOOST_TEST(handlers <= messages * 5 / 4);
                d.close();
                many.end();
            }
}

BOOST_AUTO_TEST_CASE(what_is_behind_a_read_that_used_to_be_the_last_is_found) {
    for (const stream_kind& k : stream_kinds())
        BOOST_TEST_CONTEXT(k.name) {
            test::context_fixture f;
            eager_crowd many(f.io, 20, k.make, 3);
            std::string expected;
            for (int i = 0; i != 100; ++i)
                expected += "def";
            for (int i = 0; i != 10; ++i) {
                many[7].text.clear();
                test::put(many[7].out, expected);
                test::call_counts before = test::counts();
                test::run_until(f.io, [&] { return many[7].text.size() == expected.size(); });
                BOOST_TEST(many[7].text == expected);
                BOOST_TEST((test::counts() - before).poll <= 5); // and not one for each
                many.turn();
            }
            many.end();
        }
}

BOOST_AUTO_TEST_CASE(the_end_behind_a_read_that_used_to_be_the_last_is_found) {
    for (const stream_kind& k : stream_kinds())
        for (bool in_one : {true, false})
            BOOST_TEST_CONTEXT(k.name << ", " << in_one) {
                test::context_fixture f;
                eager_crowd many(f.io, 10, k.make, 3);
                many[7].text.clear();
                test::put(many[7].out, "def");
                if (!in_one)
                    test::run_ready(f.io);
                many[7].out.close();
                test::run_until(f.io, [&] { return !!many[7].ec; });
                BOOST_TEST((many[7].ec == asio::error::eof));
                BOOST_TEST(many[7].text == "def");
                many.end();
            }
}

BOOST_AUTO_TEST_CASE(a_reader_that_is_always_behind_catches_up) {
    // Two messages come with each of its events, while the loop is so busy that looks are put off.
    test::context_fixture f;
    eager_crowd many(
        f.io, 20, [] { return test::make_socketpair(); }, 3);
    eager& behind = many[7];
    behind.text.clear();
    eager clock(f.io, test::make_socketpair());
    std::size_t sent = 0, worst = 0;
    int ticks = 0;
    std::function<void()> tick = [&] {
        clock.in.async_read_some(asio::buffer(clock.room, 1), [&](error_code, std::size_t) {
            worst = std::max(worst, sent - behind.text.size());
            if (sent == 6000)
                return;
            if (++ticks % 4 == 0) {
                test::put(behind.out, "defdef");
                sent += 6;
            }
            test::put(clock.out, "x");
            tick();
        });
    };
    test::put(clock.out, "x");
    tick();
    test::run_until(f.io, [&] { return behind.text.size() == 6000; });
    BOOST_TEST(worst <= 60u);
    clock.in.close();
    many.end();
}

/// Blocks that fill a pipe go from one end to the other in one loop, which is busy with that.
struct bulk {
    moor::stream_descriptor in, out;
    std::vector<char> block, room;
    std::size_t left = 0, written = 0, received = 0;

    bulk(asio::io_context& io, test::fd_pair p)
        : in(io, p.a.release()), out(io, p.b.release()),
          block(static_cast<std::size_t>(::fcntl(out.native_handle(), F_SETPIPE_SZ, 16384)), 'x'),
          room(block.size()) {
        BOOST_REQUIRE(block.size() >= 16384u);
        read();
    }

    void read() {
        in.async_read_some(asio::buffer(room), [this](error_code ec, std::size_t n) {
            received += n;
            if (!ec)
                read();
        });
    }
    void write() {
        if (left == 0)
            return;
        --left;
        out.async_write_some(asio::buffer(block), [this](error_code ec, std::size_t n) {
            written += n;
            if (!ec)
                write();
        });
    }
};

BOOST_AUTO_TEST_CASE(transfers_that_used_to_be_in_vain_are_seldom_tried) {
    test::context_fixture f;
    crowd many(f.io, 20);
    many.warm_up();
    bulk b(f.io, test::make_pipe());
    for (int fd : {b.in.native_handle(), b.out.native_handle()}) {
        constexpr std::size_t blocks = 400;
        std::size_t expected = b.received + blocks * b.block.size();
        test::watched_transfers calls(fd);
        b.left = blocks;
        b.write();
        test::run_until(f.io, [&] { return b.received == expected; });
        BOOST_TEST(b.written == expected);
        if (test::on_epoll())
            BOOST_TEST(calls.reads() + calls.writes() <= static_cast<long>(blocks * 3 / 2));
    }
    b.in.close();
    b.out.close();
    many.end();
}

BOOST_AUTO_TEST_CASE(room_of_which_poll_says_nothing_is_found) {
    // The one page of a pipe is used, which is not writable for poll(2); but there is room in it.
    test::context_fixture f;
    eager_crowd many(f.io, 20, [] { return test::make_socketpair(); });
    test::fd_pair p = test::make_pipe();
    BOOST_REQUIRE(::fcntl(p.b, F_SETPIPE_SZ, 4096) == 4096);
    moor::stream_descriptor out(f.io, p.b.release());
    std::vector<char> block(4096, 'x');
    std::size_t written = 0;
    std::function<void(std::size_t)> write = [&](std::size_t n) {
        out.async_write_some(asio::buffer(block, n), [&](error_code, std::size_t k) {
            written += k;
            if (written < 40'960)
                write(4096); // another try is in vain
            else if (written < 40'970)
                write(1); // ten times
        });
    };
    write(4096);
    while (written < 40'960) {
        test::run_ready(f.io);
        test::drain(p.a);
        many.turn();
    }
    BOOST_TEST(written == 40'960u);
    char page[4096];
    BOOST_TEST(::read(p.a, page, sizeof(page)) == 4096);
    test::run_until(f.io, [&] { return written == 40'970; });
    out.close();
    many.end();
}

// ---- where poll(2) does not tell ---------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_socket_that_is_readable_for_many_bytes_is_read_for_few) {
    // What Asio's own reads, too: a body that came with its header, although it is not "readable".
    struct connection {
        moor::stream_descriptor d;
        test::unique_fd peer;
        std::array<char, 16> header;
        std::array<char, 5> body;
        int headers = 0, bodies = 0;

        connection(asio::io_context& io, test::fd_pair p)
            : d(io, p.a.release()), peer(std::move(p.b)) {}

        void read() {
            d.async_read_some(asio::buffer(header), [this](error_code ec, std::size_t) {
                if (ec)
                    return;
                ++headers;
                if (header[0] != 'b')
                    return read();
                d.async_read_some(asio::buffer(body), [this](error_code e, std::size_t) {
                    ++bodies;
                    if (!e)
                        read();
                });
            });
        }
    };
    test::context_fixture f;
    std::vector<std::unique_ptr<connection>> all;
    for (int i = 0; i != 20; ++i) {
        test::fd_pair p = test::make_tcp_pair();
        readable_from(p.a, 16);
        all.push_back(std::make_unique<connection>(f.io, std::move(p)));
        all.back()->read();
    }
    auto are_all = [&](int headers, int bodies) {
        return std::all_of(all.begin(), all.end(),
                           [&](auto& c) { return c->headers == headers && c->bodies == bodies; });
    };
    for (int i = 1; i <= 20; ++i) {
        for (auto& c : all)
            test::put(c->peer, "h23456789abcdefg");
        test::run_until(f.io, [&] { return are_all(i, 0); });
        test::run_ready(f.io);
    }
    for (auto& c : all)
        test::put(c->peer, "b23456789abcdefgBODY!");
    test::run_until(f.io, [&] { return are_all(21, 1); });
    for (auto& c : all)
        c->d.close();
    test::run_ready(f.io);
}

BOOST_AUTO_TEST_CASE(few_bytes_behind_a_read_that_was_cut_short_are_read) {
    const std::vector<stream_kind> kinds = {{"TCP",
                                             [] {
                                                 test::fd_pair p = test::make_tcp_pair();
                                                 readable_from(p.a, 10);
                                                 return p;
                                             }},
                                            {"a terminal", [] {
                                                 test::fd_pair p = test::make_raw_pty();
                                                 readable_from(p.a, 10);
                                                 return p;
                                             }}};
    for (const stream_kind& k : kinds)
        BOOST_TEST_CONTEXT(k.name) {
            test::context_fixture f;
            eager_crowd many(f.io, 20, [] { return test::make_socketpair(); });
            test::fd_pair p = k.make();
            moor::stream_descriptor d(f.io, p.a.release());
            std::array<char, 64> room;
            std::size_t first = 0, second = 0;
            d.async_read_some(asio::buffer(room), [&](error_code, std::size_t n) {
                first = n;
                test::put(p.b, "xyz");
                BOOST_TEST(test::wait_for([&] { return available(d.native_handle()) == 3; }));
                d.async_read_some(asio::buffer(room),
                                  [&](error_code, std::size_t m) { second = m; });
            });
            test::run_ready(f.io);
            test::put(p.b, "abcdefghijkl");
            test::run_until(f.io, [&] { return second != 0; });
            BOOST_TEST(first == 12u);
            BOOST_TEST(second == 3u);
            d.close();
            many.end();
        }
}

// ---- what is behind, and what is old -----------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_reader_that_gets_two_messages_with_each_event_keeps_up) {
    // Its event is always queued when the look is made, which leaves it out.
    test::context_fixture f;
    test::fd_pair p = test::make_socketpair();
    test::unique_fd peer = std::move(p.b);
    moor::stream_descriptor d(f.io, p.a.release());
    std::array<char, 6> room;
    long sent = 0, received = 0, worst = 0;
    std::function<void()> read = [&] {
        d.async_read_some(asio::buffer(room), [&](error_code ec, std::size_t) {
            if (ec)
                return;
            ++received;
            read();
        });
    };
    int left = 4000;
    std::function<void()> tick = [&] {
        worst = std::max(worst, sent - received);
        if (left == 0)
            return;
        // One a time at first, so that the reader gets used to it.
        if (left-- % 2 == 0)
            for (int i = left > 3000 ? 1 : 2; i != 0; --i)
                sent += ::write(peer, "packet", 6) == 6;
        asio::post(f.io, tick);
    };
    read();
    asio::post(f.io, tick);
    test::run_until(f.io, [&] { return left == 0 && received == sent; });
    BOOST_TEST(sent == 2 * 1500 + 500);
    BOOST_TEST(worst <= 20);
    d.close();
}

BOOST_AUTO_TEST_CASE(a_transfer_behind_another_one_is_looked_for_once_the_handle_left_the_reactor) {
    // The state is listed, but attached no more, and the second read waits for the first one's
    // turn.
    test::context_fixture f;
    eager_crowd many(f.io, 20, [] { return test::make_socketpair(); });
    test::fd_pair p = test::make_socketpair();
    const int handle = p.a.get();
    moor::stream_descriptor d(f.io, p.a.release());
    test::fill(handle);
    test::called written;
    d.async_wait(moor::stream_descriptor::wait_write, written.handler());
    test::run_ready(f.io);
    test::drain(p.b);
    test::run_until(f.io, [&] { return bool(written); });
    for (unsigned i = 1; i != moor::detail::scheduled_io::idle_limit; ++i) {
        test::put(p.b, "x");
        test::drain(handle);
        test::run_ready(f.io);
    }
    std::array<std::array<char, 64>, 4> room;
    std::array<std::size_t, 4> got{};
    std::array<bool, 4> done{};
    auto read = [&](std::size_t i, std::function<void()> then) {
        d.async_read_some(asio::buffer(room[i]), [&, i, then](error_code, std::size_t n) {
            got[i] = n;
            done[i] = true;
            then();
        });
    };
    auto nothing = [] {};
    many.turn();
    asio::post(f.io, [&] {
        test::put(p.b, "abc");
        read(0, [&] {
            asio::post(f.io, [&] {
                read(2, nothing);
                read(3, nothing);
            });
        });
        read(1, nothing);
        d.cancel();
    });
    test::run_until(f.io, [&] { return done[0] && done[1]; });
    test::run_ready(f.io);
    for (std::size_t i = 2; i != 4; ++i) {
        test::put(p.b, "def");
        test::run_until(f.io, [&] { return done[i]; });
        BOOST_TEST(got[i] == 3u);
    }
    BOOST_TEST(got[0] == 3u);
    d.close();
    many.end();
}

BOOST_AUTO_TEST_CASE(a_late_look_on_another_thread_does_not_hide_a_newer_event) {
    if (!test::on_epoll())
        return; // there is no late look
    // The other thread has asked, and was told of room but of no data; before it says so, an event
    // tells of data, and what that was is read. There is more: its event comes, too.
    test::context_fixture f;
    crowd many(f.io, 20);
    many.warm_up();
    test::fd_pair p = test::make_socketpair();
    registration reg(f.io, p.a.get());
    std::atomic<bool> is_held{false}, may_go{false};
    std::thread second;
    bool is_drained = false;
    test::called writable;
    auto work = asio::make_work_guard(f.io);
    reg.async_wait_readable([&](error_code) {
        test::drain(p.a);
        test::fill(p.a);
        reg.async_wait_readable([&](error_code ec) {
            BOOST_TEST(!ec);
            test::drain(p.a);
            auto r = reg.try_io(moor::interest::readable, test::reader{p.a});
            is_drained = r.has_error();
            test::put(p.b, "more");
        });
        reg.async_wait_writable(writable.handler());
        test::drain(p.b);
        second = std::thread([&] {
            test::after_poll_here([&] {
                is_held = true;
                test::wait_for([&] { return may_go.load(); });
            });
            f.io.run_one();
        });
        BOOST_TEST(test::wait_for([&] { return is_held.load(); }));
        test::put(p.b, "data");
    });
    test::put(p.b, "x");
    test::run_until(f.io, [&] { return is_drained; });
    test::run_ready(f.io); // the event of what came then, which nobody waits for
    may_go = true;
    second.join();
    test::called last;
    reg.async_wait_readable(last.handler());
    test::run_until(f.io, [&] { return bool(last); });
    BOOST_TEST(!last.ec);
    work.reset();
    reg.cancel();
    many.end();
}

// ---- callables ----------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_callable_that_is_cut_short_waits_for_the_look) {
    for (moor::trigger t : {moor::trigger::level, moor::trigger::edge}) {
        test::context_fixture f;
        crowd many(f.io, 20);
        many.warm_up();
        test::fd_pair p = test::make_socketpair();
        registration reg(f.io, p.a.get(), t);
        std::string text;
        std::string at_once;
        error_code end;
        int calls = 0;
        std::function<void()> read = [&] {
            reg.async_io(
                moor::interest::readable,
                [&](error_code& ec) {
                    ++calls;
                    char room[64];
                    ::ssize_t n = ::read(p.a, room, sizeof(room));
                    if (n < 0)
                        ec = test::last_error();
                    else
                        text.append(room, static_cast<std::size_t>(n));
                    return moor::short_transfer(n, sizeof(room));
                },
                [&](error_code ec, ::ssize_t n) {
                    end = n == 0 ? error_code(asio::error::eof) : ec;
                    if (end)
                        return;
                    if (text == "abc")
                        test::put(p.b, "d"); // its event is not here when the next one begins
                    read();
                    if (text == "abc")
                        if (auto r = reg.try_io(moor::interest::readable, test::reader{p.a}))
                            at_once = *r;
                });
        };
        read();
        for (const char* s : {"a", "b", "c"}) {
            test::put(p.b, s);
            many.turn();
        }
        BOOST_TEST(at_once == "d");
        test::put(p.b, "e");
        many.turn();
        BOOST_TEST(text == "abce");
        if (test::on_epoll())
            BOOST_TEST(calls <= 5); // and not twice for each
        test::put(p.b, "f");
        p.b.close();
        many.turn();
        BOOST_TEST(text == "abcef");
        BOOST_TEST((end == error_code(asio::error::eof)));
        many.end();
    }
}

BOOST_AUTO_TEST_CASE(a_call_before_the_look_does_not_believe_that_nothing_is_there) {
    test::context_fixture f;
    eager_crowd many(f.io, 20, [] { return test::make_socketpair(); });
    eager& e = many[7];
    e.in.cancel();
    test::run_ready(f.io);
    std::string rest;
    e.in.async_read_some(asio::buffer(e.room), [&](error_code, std::size_t) {
        test::put(e.out, "behind it"); // the event is not here yet
        e.read();
        auto r = e.in.registration().try_io(moor::interest::readable,
                                            test::reader{e.in.native_handle()});
        if (r)
            rest = *r;
    });
    e.text.clear();
    test::put(e.out, "x");
    test::run_ready(f.io);
    BOOST_TEST(rest + e.text == "behind it");
    if (test::on_epoll())
        BOOST_TEST(rest == "behind it");
    many.end();
}

// ---- threads -----------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_second_thread_comes_while_looks_are_due) {
    for (int round = 0; round != 30; ++round) {
        asio::io_context io;
        const test::watchdog dog(io);
        constexpr std::size_t handles = 20, each = 60;
        std::vector<test::fd_pair> pipes(handles);
        std::vector<std::unique_ptr<registration>> regs;
        std::atomic<std::size_t> bytes{0};
        std::vector<std::function<void()>> wait(handles);
        std::optional<std::thread> second;
        for (std::size_t i = 0; i != handles; ++i) {
            pipes[i] = test::make_pipe();
            regs.push_back(std::make_unique<registration>(io, pipes[i].a.get()));
            wait[i] = [&, i] {
                regs[i]->async_wait_readable([&, i](error_code ec) {
                    char c[3];
                    ::ssize_t n = ec ? -1 : ::read(pipes[i].a, c, 1 + i % 3);
                    if (n <= 0)
                        return;
                    std::size_t now = bytes += static_cast<std::size_t>(n);
                    if (now == handles * each)
                        return io.stop();
                    if (i == 0 && now > handles * each / 3 && !second)
                        second.emplace([&] { io.run(); });
                    wait[i]();
                });
            };
            wait[i]();
        }
        std::thread writer([&] {
            for (std::size_t k = 0; k != each; ++k)
                for (test::fd_pair& p : pipes)
                    if (::write(p.b, "x", 1) != 1)
                        return io.stop();
        });
        io.run();
        writer.join();
        if (second)
            second->join();
        BOOST_REQUIRE(bytes == handles * each);
    }
}

BOOST_AUTO_TEST_SUITE_END()
