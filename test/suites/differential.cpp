// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Compares the simulated kernel and reactor with Linux and Asio's epoll reactor: after each step of
// a random program, the same operations must be over, with the same results. A step of the loop is
// one item of the scheduler. The file is a Unix socket.
//
// MOOR_TEST_SEED begins with another program; MOOR_TEST_SECONDS goes on for so long.

// The checks of MOOR_CHECK_USE take turns of the loop.
#undef MOOR_CHECK_USE

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/random.hpp"
#include "support/simulated.hpp"
#include "support/vocabulary.hpp"

#include <moor/readiness.hpp>
#include <moor/registration.hpp>

#include <boost/asio/error.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/test/unit_test.hpp>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <utility>

#include <poll.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
namespace sim = test::simulated;
using moor::interest;
using moor::trigger;

/// How an operation is: pending, or over. (async_io does not say for what.)
std::string text_of(bool is_over, bool is_call, const moor::error_code& ec,
                    const moor::ready_event& e) {
    std::ostringstream os;
    if (!is_over)
        os << "pending";
    else if (ec)
        os << ec.message();
    else if (!is_call)
        os << e;
    return os.str();
}

/// A program on Linux and Asio.
class real {
public:
    explicit real(trigger mode) : pair_(test::small(test::make_socketpair())) {
        registration_.register_handle(pair_.a.get(), mode);
    }

    void data_come() { (void)!::write(pair_.b, "x", 1); }
    void read_all() { test::drain(pair_.a); }
    void fill() {
        if (pair_.b >= 0)
            test::fill(pair_.a);
    }
    void make_room() { test::drain(pair_.b); }
    void hang_up() {
        make_room(); // what is unread would make it a reset
        pair_.b.close();
    }

    void wait(interest want) { registration_.async_wait(want, add(false).handler()); }
    void begin_to_read() {
        registration_.async_io(interest::readable, test::reader{pair_.a.get()},
                               add(true).handler());
    }
    void cancel() { registration_.cancel(); }
    void try_to_read() {
        (void)registration_.try_io(interest::readable, test::reader{pair_.a.get()});
    }
    void clear_first() {
        if (!outcomes_.empty() && outcomes_.front())
            registration_.clear(outcomes_.front().event());
    }
    void end() { registration_.deregister(); }

    void run_one() { io_.poll_one(); }
    void run() {
        while (io_.poll() != 0) {}
    }

    std::string state() const {
        std::string s;
        for (std::size_t i = 0; i != outcomes_.size(); ++i) {
            const test::outcome& o = outcomes_[i];
            s += text_of(bool(o), are_calls_[i], o.ec(), o.event()) + "; ";
        }
        return s;
    }

private:
    const test::outcome& add(bool is_call) {
        are_calls_.push_back(is_call);
        return outcomes_.emplace_back();
    }

    asio::io_context io_;
    asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
    test::fd_pair pair_;
    moor::registration registration_{io_};
    std::deque<test::outcome> outcomes_;
    std::deque<bool> are_calls_;
};

/// The same, simulated.
class simulated {
public:
    explicit simulated(trigger mode) : file_(3, POLLOUT), state_(host_.open(file_, mode)) {
        host_.port.queue_turn();
    }
    ~simulated() {
        end();
        run();
    }

    void data_come() {
        if (!is_hung_up_)
            file_.raise(POLLIN);
    }
    void read_all() {
        if (!is_hung_up_)
            file_.lower(POLLIN);
    }
    void fill() {
        if (!is_hung_up_)
            file_.lower(POLLOUT);
    }
    void make_room() {
        if (!is_hung_up_ && (file_.events() & POLLOUT) == 0)
            file_.raise(POLLOUT);
    }
    void hang_up() {
        if (!std::exchange(is_hung_up_, true))
            file_.raise(POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    }

    void wait(interest want) { operations_.emplace_back(state_, want).start(); }
    void begin_to_read() {
        operations_.emplace_back(state_, interest::readable, [this] { return reads(); }).start();
    }
    void cancel() { state_->cancel(interest()); }
    void try_to_read() {
        moor::error_code ec;
        moor::ready_event e = state_->ready_now(interest::readable, false, ec);
        if (!e.empty() && !reads())
            state_->note_call_would_block(e, interest::readable);
    }
    void clear_first() {
        if (!operations_.empty() && operations_.front().is_over() && !operations_.front().is_call())
            state_->clear(operations_.front().event());
    }
    void end() { state_->close(sim::state::deregistered, true); }

    /// As poll_one().
    bool run_one() {
        sim::port::taken t = host_.port.take();
        if (!t.what) {
            host_.port.fetch();
            host_.port.queue_turn();
            t = host_.port.take();
            if (!t.what) {
                host_.port.queue_turn();
                return false;
            }
        }
        host_.port.run(t);
        return true;
    }
    void run() {
        while (run_one()) {}
    }

    std::string state() const {
        std::string s;
        for (const sim::operation& o : operations_)
            s += text_of(o.is_over(), o.is_call(), o.ec(), o.event()) + "; ";
        return s;
    }

private:
    bool reads() {
        const bool is_there = (file_.events() & POLLIN) != 0;
        read_all();
        return is_there;
    }

    sim::file file_;
    bool is_hung_up_ = false;
    sim::host host_;
    sim::state_ptr state_;
    std::deque<sim::operation> operations_;
};

/// What a program does, a letter a step.
template <class Either>
void take(Either& e, char step) {
    switch (step) {
    case 'e':
        return e.data_come();
    case 'd':
        return e.read_all();
    case 'f':
        return e.fill();
    case 'o':
        return e.make_room();
    case 'h':
        return e.hang_up();
    case 'r':
        return e.wait(interest::readable);
    case 'w':
        return e.wait(interest::writable);
    case 'b':
        return e.wait(interest::readable | interest::writable);
    case 'i':
        return e.begin_to_read();
    case 'x':
        return e.cancel();
    case 't':
        return e.try_to_read();
    case 'c':
        return e.clear_first();
    case 'z':
        return e.end();
    case '1':
        e.run_one();
        return;
    case '.':
        e.run();
        return;
    }
}

std::string find_difference(const std::string& program, trigger mode) {
    real r(mode);
    simulated s(mode);
    std::string done;
    for (char step : program) {
        done += step;
        take(r, step);
        take(s, step);
        if (r.state() != s.state())
            return done + ": Asio: " + r.state() + " simulated: " + s.state();
    }
    return "";
}

} // namespace

BOOST_AUTO_TEST_SUITE(differential)

BOOST_AUTO_TEST_CASE(the_simulated_reactor_is_as_asios) {
    if (!test::on_epoll())
        return;
    // Where misuse is looked for, a handler of the check would come between the steps of the loop.
    moor::set_misuse_time_limit(std::chrono::hours(1));
    auto number =
        static_cast<unsigned>(test::from_environment("MOOR_TEST_SEED", std::random_device()()));
    auto end = std::chrono::steady_clock::now() +
               std::chrono::seconds(test::from_environment("MOOR_TEST_SECONDS", 1));
    // Steps of the loop are frequent; a hang-up is rare.
    const std::string steps = "eeedddffoorrrwwbiixttcc1111111....h";
    int programs = 0;
    for (; std::chrono::steady_clock::now() < end; ++number, ++programs) {
        std::mt19937 random(number);
        std::string program;
        for (int i = 0; i != 16; ++i)
            program += steps[random() % steps.size()];
        for (trigger mode : test::both_triggers) {
            const std::string difference = find_difference(program + ".z.", mode);
            BOOST_TEST(difference == "",
                       "seed " << number << ", " << test::name_of(mode) << ", " << difference);
            if (difference != "")
                return;
        }
    }
    BOOST_TEST_MESSAGE(programs << " programs");
}

BOOST_AUTO_TEST_SUITE_END()
