// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Programs of two to four threads, in every interleaving of the state's code with up to two
// preemptions (three in one test, and in all tests if MOOR_TEST_SECONDS is set). A thread can be
// preempted before each access to a lock, an atomic, the simulated kernel or the scheduler's queue.
// Under AddressSanitizer, one preemption less, unless MOOR_TEST_SECONDS is set.
//
// A program is a text. Threads are divided by '|'. A thread "loop" runs the scheduler. The steps of
// others:
//   r w p b   a wait begins: for readable, writable, priority events, both directions
//   R D       a wait for readable, whose handler begins another wait, or ends the registration
//   N         one for both directions, whose handler notes that there are no data, and then waits
//   i         an operation begins that reads
//   I         one begins whose call uses room, and then says that the next one waits for data
//   T W B     a transfer begins: reads all data, fills the room, reads with a call that may block
//   q         the polling interface asks for readable, and keeps a waker if nothing is there
//   x s       all operations are cancelled; the first one is
//   t         try_io, which reads; c: the event of the first wait is cleared
//   e o u h   an event comes: data, room, urgent data, a hang-up; d: somebody reads all data
//   z         the registration ends; n: it ends, and the next begins with another file
//   y         the number is closed, and is another file's; the registration is abandoned, and the
//             next one begins
//   a         the registration is abandoned, and the next one begins with the same file, which the
//             reactor refuses, since epoll still has the file under this number

#include "support/context.hpp"
#include "support/interleaving.hpp"
#include "support/kinds.hpp"
#include "support/sanitizers.hpp"
#include "support/simulated.hpp"
#include "support/vocabulary.hpp"

#include <moor/readiness.hpp>

#include <boost/test/unit_test.hpp>

#include <cstddef>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>

namespace {

namespace sim = test::simulated;
using moor::interest;
using moor::readiness;
using moor::trigger;

/// An open file, and what happened to it.
struct noted_file : sim::file {
    using sim::file::file;
    int untold = 0;           ///< events of which no wait was told
    bool is_replaced = false; ///< its number is another file's
};

/// A wait or an operation with a call, and what it may be told.
struct noted {
    noted(sim::state_ptr s, noted_file& f, interest w) : on(&f), want(w), op(s, w), state(s) {}
    noted(sim::state_ptr s, noted_file& f, interest w, moor::detail::purpose why)
        : on(&f), want(w), op(s, w, why), state(s), is_slot(true) {}
    template <class Call>
    noted(sim::state_ptr s, noted_file& f, interest w, Call c)
        : on(&f), want(w), op(s, w, std::move(c)), state(s), is_call(true) {}

    noted_file* on;
    interest want;
    sim::operation op;
    sim::state_ptr state;
    bool is_call = false;
    bool is_slot = false;
    bool is_changing = false;
    bool is_begun = false;
    bool began_late = false; ///< behind the end of its registration
    int seen = 0;            ///< since it began
    int raised = 0;          ///< the same, of events
    int raised_since_call = 0;
};

class program final : public sim::threads {
public:
    program(const std::string& text, trigger mode, bool tells_state, bool defers,
            moor::detail::pipe_end end)
        : text_(text), mode_(mode), tells_state_(tells_state), end_(end) {
        if (defers)
            host_.defer_in_loop();
        new_file(3);
        state_ = host_.open(*files_.back(), mode_);
        host_.port.queue_turn();
    }

    std::vector<std::function<void()>> bodies() override {
        std::vector<std::function<void()>> all;
        std::size_t begin = 0;
        while (begin <= text_.size()) {
            std::size_t end = std::min(text_.find('|', begin), text_.size());
            std::string steps = text_.substr(begin, end - begin);
            begin = end + 1;
            if (steps == "loop")
                all.push_back([this] { loop(); });
            else
                all.push_back([this, steps] {
                    for (char c : steps)
                        take(c);
                });
        }
        return all;
    }

    bool is_quiet() override {
        if (std::exchange(is_over_, true))
            return false;
        note_lost();
        return true;
    }

    std::string judge() override {
        if (wrong_.empty() && host_.port.work() != host_.port.operations)
            wrong_ = "there is other work than operations";
        end();
        for (int steps = 0; host_.port.queued() > 1 || host_.port.fetch(); ++steps) {
            if (steps == 1000)
                return "it does not end";
            sim::port::taken t = host_.port.take();
            t.what ? host_.port.run(t) : host_.port.queue_turn();
        }
        for (noted& n : operations_) {
            if (n.op.is_pending() && wrong_.empty())
                wrong_ = "an operation is pending at the end";
            if (!host_.has(n.state.get())) {
                n.state.detach();
                wrong_ = "a state was recycled while it was referred to";
            }
        }
        operations_.clear();
        if (wrong_.empty() && host_.port.defect())
            wrong_ = host_.port.defect();
        if (wrong_.empty() && host_.port.work() != 0)
            wrong_ = "work is left";
        if (wrong_.empty() && host_.recycled != opened_)
            wrong_ = "a reference is left";
        return wrong_;
    }

    sim::port& port() { return host_.port; }

private:
    void loop() {
        sim::port::taken t;
        while (host_.port.take_next(t, is_over_))
            t.what ? host_.port.run(t) : host_.port.run_turn(is_over_);
    }

    void take(char step) {
        switch (step) {
        case 'r':
            return wait(interest::readable);
        case 'w':
            return wait(interest::writable);
        case 'p':
            return wait(interest::priority);
        case 'b':
            return wait(interest::readable | interest::writable);
        case 'R':
            return wait(interest::readable, [this] { take('r'); });
        case 'D':
            return wait(interest::readable, [this] { end(); });
        case 'N':
            return wait(interest::readable | interest::writable,
                        [this, index = operations_.size()] { note_and_wait(operations_[index]); });
        case 'i':
            return begin_call();
        case 'I':
            return begin_changing_call();
        case 'T':
            return transfer(interest::readable, false);
        case 'W':
            return transfer(interest::writable, false);
        case 'B':
            return transfer(interest::readable, true);
        case 'q':
            return poll();
        case 'x':
            if (sim::state_ptr s = state())
                s->cancel(interest());
            return;
        case 's':
            if (!operations_.empty())
                operations_.front().op.cancel();
            return;
        case 't':
            return try_io();
        case 'c':
            if (sim::state_ptr s = state())
                if (!operations_.empty() && operations_.front().op.is_over())
                    s->clear(operations_.front().op.event());
            return;
        case 'e':
            return raise(POLLIN);
        case 'o':
            return raise(POLLOUT);
        case 'u':
            return raise(POLLPRI);
        case 'h':
            return raise(POLLIN | POLLRDHUP | POLLHUP);
        case 'd':
            return file().lower(POLLIN);
        case 'z':
            return end();
        case 'n':
            end();
            new_file(file().number + 1);
            return begin_next();
        case 'y': {
            noted_file& old = file();
            old.is_replaced = true; // from here on, what begins on another thread may meet either
            old.close(true);
            new_file(old.number);
            if (sim::state_ptr s = take_state())
                s->close(sim::state::deregistered, false);
            return begin_next();
        }
        case 'a':
            if (sim::state_ptr s = take_state())
                s->close(sim::state::deregistered, false);
            return begin_next();
        }
    }

    noted_file& file() { return *files_.back(); }
    void new_file(int number) {
        files_.push_back(std::make_unique<noted_file>(number, short(0), tells_state_));
        if (end_ != moor::detail::pipe_end::none)
            files_.back()->become(end_);
    }
    void begin_next() {
        sim::uninterrupted step;
        ++opened_;
        state_ = host_.open(file(), mode_);
    }

    // (A registration must not end beside its other functions: so the state is there meanwhile.)
    sim::state_ptr state() {
        sim::uninterrupted step;
        return state_;
    }
    sim::state_ptr take_state() {
        sim::uninterrupted step;
        return std::exchange(state_, nullptr);
    }
    void end() {
        if (sim::state_ptr s = take_state())
            s->close(sim::state::deregistered, true);
    }

    void raise(int events) {
        noted_file& f = file();
        f.raise(events);
        f.untold |= events;
        for (noted& n : operations_)
            if (n.on == &f && n.op.is_pending()) {
                n.seen |= events;
                n.raised |= events;
                n.raised_since_call |= events;
            }
    }

    void wait(interest want, std::function<void()> handler = nullptr) {
        if (sim::state_ptr s = state())
            begin(add(s, want), std::move(handler));
    }
    void note_and_wait(const noted& both) {
        if (both.state == state() && !both.op.ec() && !both.op.event().is_readable())
            both.state->note_no_data(both.op.event());
        take('r');
    }
    template <class... Call>
    noted& add(const sim::state_ptr& s, interest want, Call... call) {
        sim::uninterrupted step;
        return operations_.emplace_back(s, file(), want, std::move(call)...);
    }
    void begin_call() {
        sim::state_ptr s = state();
        if (!s)
            return;
        noted_file* f = &file();
        const std::size_t index = operations_.size();
        begin(add(s, interest::readable,
                  [this, f, index] {
                      operations_[index].raised_since_call = 0;
                      return takes(*f, POLLIN);
                  }),
              nullptr);
    }
    /// (The last call did not try to read: data that are there already have to be found.)
    void begin_changing_call() {
        sim::state_ptr s = state();
        if (!s)
            return;
        noted_file* f = &file();
        const std::size_t index = operations_.size();
        auto call = [this, f, index] {
            noted& n = operations_[index];
            const bool is_done = takes(*f, n.want == interest::writable ? POLLOUT : POLLIN);
            if (is_done && n.want == interest::readable)
                return interest();
            if (is_done)
                n.want = interest::readable;
            return n.want;
        };
        noted& n = add(s, interest::writable, std::move(call));
        n.is_changing = true;
        begin(n, nullptr);
    }
    void transfer(interest want, bool may_block) {
        using moor::detail::transferred;
        sim::state_ptr s = state();
        if (!s)
            return;
        noted_file* f = &file();
        const std::size_t index = operations_.size();
        begin(add(s, want,
                  [this, f, index, want, may_block](bool is_locked) {
                      if (may_block && is_locked)
                          return transferred::not_made;
                      operations_[index].raised_since_call = 0;
                      if (takes(*f, want == interest::readable ? POLLIN : POLLOUT))
                          return transferred::part;
                      return (f->events() & POLLHUP) != 0 ? transferred::nothing
                                                          : transferred::would_block;
                  }),
              nullptr);
    }
    void begin(noted& n, std::function<void()> handler) {
        n.began_late = n.state->closed() != sim::state::still_open;
        n.seen = n.on->events();
        n.is_begun = true;
        n.op.when_over = [this, &n, handler = std::move(handler)] {
            note_over(n);
            if (handler)
                handler();
        };
        n.op.start();
    }

    /// As the polling interface does.
    void poll() {
        sim::state_ptr s = state();
        if (!s)
            return;
        moor::error_code ec;
        if (s->ready_now(interest::readable, true, ec).empty() && !ec)
            begin(add(s, interest::readable, moor::detail::purpose::read_slot), nullptr);
    }

    /// read(2) takes all data, write(2) all the room.
    bool takes(noted_file& f, int event) {
        sim::access(&sim::kernel::get(), event == POLLIN ? "read" : "write");
        const bool is_there = (f.events() & event) != 0;
        if (is_there) {
            f.untold &= ~event;
            sim::uninterrupted step;
            f.lower(event);
        }
        return is_there;
    }
    void try_io() {
        sim::state_ptr s = state();
        if (!s)
            return;
        moor::error_code ec;
        moor::ready_event e = s->ready_now(interest::readable, false, ec);
        if (!e.empty() && !takes(file(), POLLIN))
            s->note_call_would_block(e, interest::readable);
    }

    // ---- what must hold -------------------------------------------------------------------------

    void note_over(noted& n) {
        if (n.op.ec() || n.on->is_replaced)
            return;
        if (n.began_late)
            wrong_ = "an operation that began after the end had success";
        int told = 0;
        for (interest i : {interest(interest::readable), interest(interest::writable),
                           interest(interest::priority)})
            if (n.op.event().ready().contains(i)) {
                told |= test::poll_mask(i, false);
                if ((n.seen & test::poll_mask(i, false)) == 0 && mode_ == trigger::level &&
                    tells_state_ && !n.is_call)
                    wrong_ = "a wait was told of the past";
            }
        if (!n.is_call && !n.is_slot)
            n.on->untold &= ~told;
    }

    /// All is quiet: no operation is pending whose event holds.
    void note_lost() {
        for (noted& n : operations_) {
            if (!n.op.is_pending() || n.on->is_replaced)
                continue;
            const int bits = test::poll_mask(n.want, false), there = n.on->events() & bits;
            const bool is_due = n.is_changing ? there != 0
                                : n.is_call   ? (n.raised_since_call & there) != 0
                                : !tells_state_
                                    ? (n.on->untold & ~n.on->taken() & n.raised & bits) != 0
                                : mode_ == trigger::level ? there != 0
                                : n.is_slot               ? (n.raised & there) != 0
                                                          : (n.on->untold & there) != 0;
            if (is_due && wrong_.empty())
                wrong_ = "an operation has missed an event";
        }
    }

    const std::string text_;
    const trigger mode_;
    const bool tells_state_;
    const moor::detail::pipe_end end_;
    std::vector<std::unique_ptr<noted_file>> files_;
    sim::host host_;
    int opened_ = 1;
    sim::state_ptr state_;
    std::deque<noted> operations_;
    std::string wrong_;
    bool is_over_ = false;
};

/// Explores programs, and sums what it took.
class exploration {
public:
    /// Under AddressSanitizer, each switch of threads is told to it, and costs six times as much.
    explicit exploration(unsigned least_preemptions = 2)
        : preemptions_(std::getenv("MOOR_TEST_SECONDS")
                           ? 3
                           : least_preemptions - MOOR_TEST_ADDRESS_SANITIZER) {}
    ~exploration() {
        BOOST_TEST_MESSAGE(programs_ << " programs, " << schedules_ << " schedules, "
                                     << preemptions_ << " preemptions");
    }

    void explore(const std::string& text, trigger mode, bool tells_state = true,
                 bool defers = false, moor::detail::pipe_end end = moor::detail::pipe_end::none) {
        sim::explorer e(preemptions_);
        auto make = [&] { return std::make_unique<program>(text, mode, tells_state, defers, end); };
        std::string wrong = e.explore(make);
        ++programs_;
        schedules_ += e.schedules();
        if (wrong.empty())
            return;
        std::ostringstream trace;
        e.replay(make, wrong.substr(0, wrong.find(':')), trace);
        BOOST_ERROR((mode == trigger::edge ? "edge, " : "level, ")
                    << text << (tells_state ? ", " : ", told once, ")
                    << (defers ? "deferred checks, " : "")
                    << (end != moor::detail::pipe_end::none ? "pipe, " : "") << preemptions_
                    << " preemptions, schedule " << wrong << '\n'
                    << trace.str());
    }

private:
    const unsigned preemptions_; // three in a long run
    std::size_t programs_ = 0, schedules_ = 0;
};

/// What a thread does beside others. A registration does not begin on two threads at a time.
const std::string steps = "rRwpDiTqxstceouhdzny";
bool may_meet(char a, char b) {
    const std::string begin = "ny";
    return begin.find(a) == std::string::npos || begin.find(b) == std::string::npos;
}

/// Once is enough. ThreadSanitizer can't follow fibers, and there is one thread.
boost::test_tools::assertion_result is_wanted(boost::unit_test::test_unit_id) {
    return test::on_epoll() && !MOOR_TEST_THREAD_SANITIZER;
}

/// Threads that are functions.
struct functions final : sim::threads {
    functions(std::vector<std::function<void()>> b, std::function<bool()> h)
        : all(std::move(b)), holds(std::move(h)) {}
    std::vector<std::function<void()>> bodies() override { return all; }
    bool is_quiet() override { return false; }
    std::string judge() override { return holds() ? "" : "wrong"; }

    std::vector<std::function<void()>> all;
    std::function<bool()> holds;
};

} // namespace

BOOST_AUTO_TEST_SUITE(interleavings, *boost::unit_test::precondition(is_wanted))

// ---- the explorer itself ----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(the_explorer_finds_an_update_that_is_lost) {
    auto make = [] {
        auto n = std::make_shared<sim::atomic<int>>(0);
        auto add = [n] { n->store(n->load() + 1); };
        return std::make_unique<functions>(std::vector<std::function<void()>>{add, add},
                                           [n] { return n->load() == 2; });
    };
    BOOST_TEST(sim::explorer(0).explore(make) == "");
    sim::explorer e(1);
    const std::string wrong = e.explore(make);
    BOOST_TEST(wrong.find(": wrong") != std::string::npos);
    std::ostringstream trace;
    BOOST_TEST(e.replay(make, wrong.substr(0, wrong.find(':')), trace) == "wrong");
    BOOST_TEST(!trace.str().empty());
}

BOOST_AUTO_TEST_CASE(the_explorer_finds_a_deadlock) {
    auto make = [] {
        struct pair {
            sim::mutex a, b;
        };
        auto locks = std::make_shared<pair>();
        auto forth = [locks] { moor::detail::basic_lock<sim::mutex> a(locks->a), b(locks->b); };
        auto back = [locks] { moor::detail::basic_lock<sim::mutex> b(locks->b), a(locks->a); };
        return std::make_unique<functions>(std::vector<std::function<void()>>{forth, back},
                                           [] { return true; });
    };
    BOOST_TEST(sim::explorer(0).explore(make) == "");
    BOOST_TEST(sim::explorer(1).explore(make).find("a deadlock") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(each_order_of_accesses_to_one_thing_is_explored) {
    std::set<std::string> orders;
    auto make = [&orders](bool is_one_thing) {
        auto things = std::make_shared<std::string>("abc");
        auto order = std::make_shared<std::string>();
        std::vector<std::function<void()>> bodies;
        for (std::size_t name : {0u, 1u, 2u})
            bodies.push_back([=] {
                for (int i = 0; i != 2; ++i) {
                    sim::access(&(*things)[is_one_thing ? 0 : name], "name");
                    *order += (*things)[name];
                }
            });
        return std::make_unique<functions>(std::move(bodies), [order, &orders] {
            orders.insert(*order);
            return true;
        });
    };
    sim::explorer(6).explore([&] { return make(true); });
    BOOST_TEST(orders.size() == 90u); // 6! / (2! 2! 2!)
    sim::explorer independent(6);
    independent.explore([&] { return make(false); });
    BOOST_TEST(independent.schedules() < 1680u / 4); // 9! / (3! 3! 3!), with the beginnings
}

BOOST_AUTO_TEST_CASE(the_explorer_finds_a_reactor_that_forgets_events) {
    sim::explorer e(2);
    const std::string wrong = e.explore([] {
        auto p = std::make_unique<program>("loop|loop|rerd|e", trigger::level, true, false,
                                           moor::detail::pipe_end::none);
        p->port().forgets_events = true;
        return p;
    });
    BOOST_TEST(wrong.find("missed an event") != std::string::npos);
}

// ---- the state --------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(no_pair_of_steps_loses_a_wait) {
    exploration all;
    for (trigger mode : test::both_triggers)
        for (char a : steps)
            for (char b : steps)
                if (a <= b && may_meet(a, b))
                    all.explore(std::string("loop|r") + a + "e|" + b, mode);
}

BOOST_AUTO_TEST_CASE(no_step_beside_two_loops_loses_a_wait) {
    exploration all;
    for (trigger mode : test::both_triggers)
        for (char a : steps)
            for (std::string text : {"re_", "er_", "r_e", "pu_", "wo_"}) {
                text.replace(text.find('_'), 1, 1, a);
                all.explore("loop|loop|" + text, mode);
            }
}

BOOST_AUTO_TEST_CASE(no_wait_is_told_of_what_others_have_read_or_heard) {
    exploration all;
    for (trigger mode : test::both_triggers)
        for (const char* text :
             {"redr", "edr",   "erdr", "reder", "etr",    "ret",   "reitr", "eier",
              "qedq", "qeq",   "eqdq", "qre",   "req",    "qqe",   "qe|dq", "qed|q",
              "rese", "recer", "ecre", "rer",   "eret",   "wor",   "bor",   "boe",
              "pure", "repu",  "rhr",  "rhw",   "rerd|e", "rewd|e"}) {
            all.explore(std::string("loop|") + text, mode);
            all.explore(std::string("loop|loop|") + text, mode);
        }
}

BOOST_AUTO_TEST_CASE(no_wait_is_told_of_an_event_that_was_fetched_before) {
    // With two preemptions, the loop can't be left with the event that it has fetched.
    exploration all(3);
    for (trigger mode : test::both_triggers)
        for (const char* text : {"rededr", "rededer", "renr", "renre", "reyr", "iexe"})
            for (const char* loops : {"loop|", "loop|loop|"})
                all.explore(loops + std::string(text), mode);
}

BOOST_AUTO_TEST_CASE(no_event_that_comes_while_a_handle_is_refused_does_harm) {
    // The reactor uses the object of the abandoned handle again, and has a waker there already.
    exploration all;
    for (trigger mode : test::both_triggers)
        for (const char* text : {"rear", "readr", "rar|e", "readr|e", "rearr", "reari", "rearer",
                                 "rearn|e", "rearz", "rearar", "rwoaw", "rearw|o"})
            for (const char* loops : {"loop|", "loop|loop|"})
                all.explore(loops + std::string(text), mode);
}

BOOST_AUTO_TEST_CASE(no_check_that_is_deferred_loses_a_wait) {
    exploration all;
    for (char a : steps)
        for (char b : steps)
            if (a <= b && may_meet(a, b))
                for (const char* begin : {"loop|Re", "loop|eR"})
                    all.explore(std::string(begin) + a + "|" + b, trigger::level, true, true);
}

BOOST_AUTO_TEST_CASE(no_call_whose_direction_changes_misses_an_event) {
    exploration all;
    for (trigger mode : test::both_triggers) {
        for (char a : steps)
            for (const char* text : {"Ioe", "eIo", "oIe"})
                all.explore("loop|" + std::string(text) + "|" + a, mode);
        for (const char* text :
             {"Ioe", "eIo", "oIe", "oIde", "Io|e", "I|o|e", "IIoe", "Ireo", "rIoe"})
            all.explore("loop|loop|" + std::string(text), mode);
    }
}

BOOST_AUTO_TEST_CASE(no_wait_that_need_not_ask_is_lost) {
    exploration all;
    for (char a : steps)
        for (const char* text : {"oN", "oNe", "oNde", "oeN", "oNb", "oNr", "rNoe"})
            all.explore("loop|" + std::string(text) + "|" + a, trigger::level);
    for (const char* text :
         {"oN|e", "oNe", "oNd|e", "oN|x", "oNR|e", "oNi|e", "oNt|e", "N|o|e", "Nc|o|e", "NN|oe"})
        all.explore("loop|loop|" + std::string(text), trigger::level);
}

BOOST_AUTO_TEST_CASE(no_transfer_misses_its_turn_or_an_event) {
    using moor::detail::pipe_end;
    exploration all;
    for (trigger mode : test::both_triggers) {
        for (char a : std::string("TBieWordshxzny"))
            for (const char* text : {"TTe", "TBe", "TeT", "WWo"})
                all.explore("loop|" + std::string(text) + "|" + a, mode);
        for (const char* text : {"TTe", "TeT", "TBeT", "iTe", "WWo", "TTx", "TeTn"})
            all.explore("loop|loop|" + std::string(text), mode);
        // A hang-up may come with the last data of a pipe, and without an event of its own.
        for (const char* text :
             {"TeT|h", "TehT", "TeTh", "TeT|x", "TeTe|h", "TeT|eh", "BeT|h", "rTeT|h", "TeTd|h"})
            for (bool defers : {false, true})
                all.explore("loop|" + std::string(text), mode, true, defers, pipe_end::reading);
        for (const char* text : {"TehT", "TeTh"})
            all.explore("loop|loop|" + std::string(text), mode, true, false, pipe_end::reading);
        for (const char* text : {"WoW|o", "WoWo|h", "WWo|o", "wWoW|o"})
            all.explore("loop|" + std::string(text), mode, true, false, pipe_end::writing);
    }
}

BOOST_AUTO_TEST_CASE(no_change_that_is_told_once_is_lost) {
    exploration all;
    for (trigger mode : test::both_triggers)
        for (const char* text : {"pu|p", "pu|r", "pu|w", "up|p", "ppu|t", "pu|x", "ru|p", "pup|u"})
            for (const char* loops : {"loop|", "loop|loop|"})
                all.explore(loops + std::string(text), mode, false);
}

BOOST_AUTO_TEST_SUITE_END()
