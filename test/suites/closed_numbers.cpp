// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A number that is closed behind Moor's back while waits for it are pending: every other handle of
// the context goes on, Asio's own too, the loop does not spin, and where the reactor stumbles over
// the number (select) its waits end with bad_descriptor. Where the reactor does not notice, a
// cancellation ends them.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/quiet.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

BOOST_AUTO_TEST_SUITE(closed_numbers)

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::aborted;
using test::bad_descriptor;
using test::error_code;

/// Runs the loop for a fixed number of turns, whether there is work or not. Returns the number of
/// handlers.
std::size_t turn(asio::io_context& io) {
    auto work = asio::make_work_guard(io);
    std::size_t handlers = 0;
    for (int i = 0; i != 300; ++i) {
        if (io.stopped())
            io.restart();
        handlers += io.poll_one();
    }
    return handlers;
}

/// A pending operation on a number that is then closed.
struct operation {
    std::string name;
    std::function<void(moor::registration&, test::called&)> start;
};

const std::vector<operation>& operations() {
    static const std::vector<operation> all{
        {"a wait for reading",
         [](moor::registration& r, test::called& c) { r.async_wait_readable(c.handler()); }},
        {"a wait for writing",
         [](moor::registration& r, test::called& c) { r.async_wait_writable(c.handler()); }},
        {"a wait for urgent data",
         [](moor::registration& r, test::called& c) {
             r.async_wait(interest::priority, c.handler());
         }},
        {"a wait for an end",
         [](moor::registration& r, test::called& c) {
             r.async_wait(interest::read_closed | interest::write_closed, c.handler());
         }},
        {"a call", [](moor::registration& r, test::called& c) {
             r.async_io(
                 interest::readable,
                 [fd = r.native_handle()](error_code& ec) {
                     char byte;
                     if (::read(fd, &byte, 1) < 0)
                         ec = test::last_error();
                 },
                 c.handler());
         }}};
    return all;
}

/// What else the context does: a registration, a descriptor of Moor's, one of Asio's, a socket of
/// Asio's, and a timer.
class others {
public:
    explicit others(asio::io_context& io)
        : registered_(test::make_pipe()), ours_(test::make_pipe()), theirs_(test::make_pipe()),
          registration_(io, registered_.a), our_stream_(io, moor::borrow(ours_.a.get())),
          their_stream_(io, theirs_.a.release()), near_(io), far_(io), timer_(io) {
        test::fd_pair s = test::make_socketpair();
        near_.assign(asio::local::stream_protocol(), s.a.release());
        far_.assign(asio::local::stream_protocol(), s.b.release());
    }

    void start() {
        done_ = {};
        registration_.async_wait_readable(done_[0].handler());
        our_stream_.async_read_some(asio::buffer(bytes_[0]), done_[1].handler());
        their_stream_.async_read_some(asio::buffer(bytes_[1]), done_[2].handler());
        near_.async_read_some(asio::buffer(bytes_[2]), done_[3].handler());
        timer_.expires_after(std::chrono::seconds(0));
    }
    void happen() {
        test::put(registered_.b, "x");
        test::put(ours_.b, "x");
        test::put(theirs_.b, "x");
        BOOST_TEST(far_.write_some(asio::buffer("x", 1)) == 1u);
        timer_.async_wait(done_[4].handler());
    }
    void check() {
        const char* names[] = {"a registration", "a descriptor", "Asio's descriptor",
                               "Asio's socket", "a timer"};
        for (std::size_t i = 0; i != done_.size(); ++i) {
            BOOST_TEST(done_[i].times == 1, names[i] << " was not told");
            BOOST_TEST(!done_[i].ec);
        }
        test::drain(registered_.a);
    }
    bool are_done() const {
        for (const test::called& c : done_)
            if (c.times == 0)
                return false;
        return true;
    }
    void cancel() {
        registration_.cancel();
        our_stream_.cancel();
        their_stream_.cancel();
        near_.cancel();
    }

private:
    test::fd_pair registered_, ours_, theirs_;
    moor::registration registration_;
    moor::stream_descriptor our_stream_;
    asio::posix::stream_descriptor their_stream_;
    asio::local::stream_protocol::socket near_, far_;
    asio::steady_timer timer_;
    std::array<std::array<char, 4>, 3> bytes_{};
    std::array<test::called, 5> done_;
};

/// Calls `f` for each operation and each trigger, with both named in a failure.
template <class F>
void for_each(F f) {
    for (const operation& o : operations())
        for (trigger t : test::both_triggers)
            BOOST_TEST_CONTEXT(o.name << (t == trigger::edge ? ", edge" : ", level")) { f(o, t); }
}

/// Starts an operation of which nothing is there yet.
test::fd_pair start_pending(const operation& o, moor::registration& r, trigger t, test::called& c) {
    test::fd_pair p = test::make_socketpair();
    test::fill(p.a);
    r.register_handle(p.a, t);
    o.start(r, c);
    return p;
}

} // namespace

BOOST_AUTO_TEST_CASE(a_wait_behind_one_that_asked_nothing_finds_that_its_number_is_closed) {
    // That a call would have blocked holds for the first wait alone.
    asio::io_context io;
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::called warm, first, second;
    reg.async_wait_readable(warm.handler());
    test::put(p.b, "x");
    test::run_all(io);
    const auto result = reg.try_io(interest::readable, [&](error_code& ec) {
        test::drain(p.a);
        ec = asio::error::would_block;
    });
    BOOST_TEST((result.error() == asio::error::would_block));
    reg.async_wait_readable(first.handler());
    reg.cancel();
    p.a.close();
    reg.async_wait_readable(second.handler());
    reg.cancel(); // ends a wait that hangs
    test::run_all(io);
    BOOST_TEST((first.ec == aborted));
    BOOST_TEST((second.ec == bad_descriptor));
    reg.abandon();
}

BOOST_AUTO_TEST_CASE(every_other_handle_of_the_context_goes_on) {
    for_each([](const operation& o, trigger t) {
        asio::io_context io;
        others rest(io);
        moor::registration r(io);
        test::called done;
        test::fd_pair p = start_pending(o, r, t, done);
        rest.start();
        turn(io);
        BOOST_TEST(!done);
        p.a.close();
        rest.happen();
        turn(io);
        rest.check();
        rest.start(); // and again
        turn(io);
        rest.happen();
        turn(io);
        rest.check();
        rest.cancel();
        r.abandon();
        turn(io);
        BOOST_TEST(done.times == 1);
    });
}

BOOST_AUTO_TEST_CASE(its_own_waits_end_with_bad_descriptor) {
    for_each([](const operation& o, trigger t) {
        asio::io_context io;
        moor::registration r(io);
        test::called done, second;
        test::fd_pair p = start_pending(o, r, t, done);
        o.start(r, second);
        turn(io);
        BOOST_TEST(!done);
        p.a.close();
        turn(io);
        // epoll and io_uring forget the number, and say nothing; so does the set that tells of news
        // and of ends on select.
        const bool is_noticed = test::on_select() && t == trigger::level &&
                                o.name != "a wait for urgent data" && o.name != "a wait for an end";
        if (is_noticed) {
            BOOST_TEST((done.ec == bad_descriptor), done.ec.message());
            BOOST_TEST((second.ec == bad_descriptor), second.ec.message());
        }
        if (is_noticed) {
            test::called later;
            o.start(r, later);
            turn(io);
            BOOST_TEST((later.ec == bad_descriptor), later.ec.message());
        }
        r.cancel();
        turn(io);
        BOOST_TEST(done.times == 1);
        BOOST_TEST(second.times == 1);

        // The registration is good for another file.
        r.abandon();
        test::fd_pair q = test::make_socketpair();
        r.register_handle(q.a, t);
        test::called fresh;
        r.async_wait_readable(fresh.handler());
        turn(io);
        BOOST_TEST(!fresh);
        test::put(q.b, "x");
        turn(io);
        BOOST_TEST(fresh.times == 1);
        BOOST_TEST(!fresh.ec);
    });
}

/// On select, the set of the file that is gone tells nothing, and must not be waited for.
BOOST_AUTO_TEST_CASE(a_wait_that_begins_after_it_was_noticed_ends_with_bad_descriptor) {
    asio::io_context io;
    test::fd_pair p = test::make_tcp_pair();
    moor::registration r(io, p.a.get(), trigger::edge);
    test::called urgent, later;
    // After some waits that find the handle drained, select(2) has its number.
    for (int i = 0; i != 8; ++i) {
        r.async_wait_readable([](error_code) {});
        test::put(p.b, "x");
        turn(io);
        test::drain(p.a);
    }
    r.async_wait_readable([](error_code) {});
    r.async_wait(interest::priority, urgent.handler());
    turn(io);
    BOOST_TEST(!urgent);
    p.a.close();
    turn(io);
    if (test::on_select()) {
        BOOST_TEST((urgent.ec == bad_descriptor), urgent.ec.message());
        r.async_wait(interest::priority, later.handler());
        turn(io);
        BOOST_TEST((later.ec == bad_descriptor), later.ec.message());
    }
    r.abandon();
    turn(io);
    BOOST_TEST(urgent.times == 1);
}

BOOST_AUTO_TEST_CASE(the_loop_does_not_spin) {
    for_each([](const operation& o, trigger t) {
        asio::io_context io;
        moor::registration r(io);
        test::called done;
        test::fd_pair p = start_pending(o, r, t, done);
        turn(io);
        p.a.close();
        turn(io);
        test::check_is_quiet(io);
        r.abandon();
        turn(io);
        BOOST_TEST(done.times == 1);
    });
}

BOOST_AUTO_TEST_CASE(the_loop_does_not_spin_after_a_handler_that_leaves_an_error) {
    asio::io_context io;
    test::fd_pair p = test::make_socketpair(), q = test::make_socketpair();
    moor::registration closed(io, p.a.get());
    moor::registration waits(io, q.a.get());
    test::called done;
    waits.async_wait_readable(done.handler());
    turn(io);
    p.a.close(); // nobody waits for it
    asio::post(io, [] { BOOST_TEST(::fcntl(-1, F_GETFD) == -1); });
    turn(io);
    BOOST_TEST(turn(io) == 0u);
    closed.abandon();
    waits.cancel();
    turn(io);
    BOOST_TEST(done.times == 1);
}

BOOST_AUTO_TEST_CASE(the_closed_numbers_are_found_without_memory,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    asio::io_context io;
    moor::registration r(io);
    test::called done;
    test::fd_pair p = start_pending(operations().front(), r, trigger::level, done);
    turn(io);
    p.a.close();
    {
        test::out_of_memory none;
        turn(io);
    }
    BOOST_TEST(done.times == (test::on_select() ? 1 : 0));
    r.abandon();
    turn(io);
    BOOST_TEST(done.times == 1);
}

BOOST_AUTO_TEST_CASE(many_numbers_may_be_closed_at_once) {
    asio::io_context io;
    others rest(io);
    constexpr std::size_t n = 20;
    std::vector<std::unique_ptr<moor::registration>> registrations;
    std::vector<test::fd_pair> pairs;
    std::array<test::called, n> done;
    for (std::size_t i = 0; i != n; ++i) {
        registrations.push_back(std::make_unique<moor::registration>(io));
        const operation& o = operations()[i % operations().size()];
        pairs.push_back(start_pending(o, *registrations.back(), trigger::level, done[i]));
    }
    rest.start();
    turn(io);
    for (std::size_t i = 0; i != n; i += 2)
        pairs[i].a.close();
    rest.happen();
    turn(io);
    rest.check();
    for (std::size_t i = 0; i != n; ++i) {
        if (i % 2 == 1) {
            BOOST_TEST(!done[i]);
            registrations[i]->cancel();
        } else {
            if (test::on_select())
                BOOST_TEST((done[i].ec == bad_descriptor));
            registrations[i]->abandon();
        }
    }
    turn(io);
    for (const test::called& c : done)
        BOOST_TEST(c.times == 1);
}

BOOST_AUTO_TEST_CASE(a_number_that_is_closed_while_the_loop_sleeps_stops_nobody) {
    for (trigger t : test::both_triggers) {
        asio::io_context io;
        others rest(io);
        moor::registration r(io);
        test::called done;
        test::fd_pair p = start_pending(operations()[0], r, t, done);
        rest.start();
        turn(io);
        bool reached = false, given_up = false;
        std::function<void()> poll = [&] {
            reached = rest.are_done();
            if (reached)
                io.stop();
            else if (!given_up)
                asio::post(io, poll);
        };
        {
            const test::watchdog dog(io, std::chrono::seconds(4));
            std::thread other([&] {
                auto work = asio::make_work_guard(io);
                if (io.stopped())
                    io.restart();
                io.run();
            });
            // The loop runs until this is posted, and sleeps then, or will soon.
            std::atomic<bool> runs{false};
            asio::post(io, [&] { runs = true; });
            test::wait_for([&] { return runs.load(); });
            p.a.close();
            asio::post(io, [&] { rest.happen(); });
            asio::post(io, poll);
            other.join();
        }
        given_up = true;
        BOOST_TEST(reached);
        rest.check();
        r.abandon();
        rest.cancel();
        turn(io);
        BOOST_TEST(done.times == 1);
    }
}

BOOST_AUTO_TEST_CASE(a_descriptor_whose_number_is_closed_stops_nobody) {
    asio::io_context io;
    others rest(io);
    test::fd_pair p = test::make_socketpair();
    moor::stream_descriptor d(io, moor::borrow(p.a.get()));
    std::array<char, 4> bytes{};
    test::called read, waited;
    d.async_read_some(asio::buffer(bytes), read.handler());
    d.async_wait(moor::descriptor::wait_error, waited.handler());
    rest.start();
    turn(io);
    p.a.close();
    rest.happen();
    turn(io);
    rest.check();
    if (test::on_select()) {
        BOOST_TEST((read.ec == bad_descriptor), read.ec.message());
        BOOST_TEST((waited.ec == bad_descriptor), waited.ec.message());
    }
    d.close();
    turn(io);
    BOOST_TEST(read.times == 1);
    BOOST_TEST(waited.times == 1);
}

BOOST_AUTO_TEST_SUITE_END()
