// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// All short schedules of two operations and two events, of a handle's state on a simulated reactor.

#include "support/simulated.hpp"

#include <moor/detail/kernel.hpp>
#include <moor/readiness.hpp>

#include <boost/test/unit_test.hpp>

#include <cstddef>
#include <string>
#include <utility>

#include <poll.h>

namespace sim = test::simulated;
using moor::interest;
using moor::trigger;
using moor::detail::to_poll_events;
using sim::handle;

BOOST_AUTO_TEST_SUITE(schedules)

constexpr interest readable = interest::readable, writable = interest::writable,
                   priority = interest::priority;

/// What the schedules are of: two operations, two events, and a wait at the end.
struct setup {
    trigger mode;
    interest wants[2];
    short events[2];
    bool is_call = false;
    bool tells_state = true;
    bool forgets_events = false;
    bool begins_outside = false; ///< one thread runs the scheduler, another one has the operations
};

/// One schedule, an action a letter. Two threads run the scheduler.
/**
 * a b: an operation begins. 1 2: an event comes. i: the second one comes, and is handled, just
 * before a reader is armed again. d: somebody reads all data. c: the first operation is cancelled.
 * f: the reactor fetches. r: a thread runs the next item. t u: the other thread takes the next
 * item, and runs the item.
 */
class trial {
public:
    trial(const setup& s, const std::string& actions) : setup_(s), h_(s.mode, 0, s.tells_state) {
        h_.host.port.forgets_events = s.forgets_events;
        for (interest want : s.wants)
            s.is_call ? h_.make_operation(want, [this, want] { return transfers(want); })
                      : h_.make_operation(want);
        for (char action : actions)
            take(action);
    }

    /// The actions that are possible now.
    std::string possible() const {
        std::string all;
        for (const char* a : {"a", "ba", "1", "21", "d1", "ca"}) // the second one behind the first
            if (!has_done(a[0]) && (a[1] == 0 || has_done(a[1])) &&
                (a[0] != 'd' || setup_.tells_state))
                all += a[0];
        // (A writer's event would have to wait for the lock.)
        if (has_done('1') && !has_done('2') && (setup_.events[0] | setup_.events[1]) == POLLIN)
            all += 'i';
        if (sim::kernel::get().has_ready())
            all += 'f';
        if (h_.host.port.queued() != 0)
            all += !held_.what ? "rt" : setup_.begins_outside ? "" : "r";
        return held_.what ? all + 'u' : all;
    }

    /// Runs until nothing is left to do, and says what is wrong then.
    std::string settle() {
        run();
        for (unsigned i : {0u, 1u})
            if (h_.operations[i].is_pending() && is_due(setup_.wants[i], was_raised_[i]))
                return "an operation has missed an event";
        const bool has_news = is_due(setup_.wants[1], is_untold_);
        sim::operation& last = h_.make_operation(setup_.wants[1]);
        last.start();
        run();
        if (last.is_pending() && has_news)
            return "the last wait has missed an event";
        return end(true);
    }
    /// The registration ends.
    std::string end(bool ours) {
        h_.deregister(ours);
        run();
        return is_early_        ? "a wait was told of the past"
               : is_miscounted_ ? "there is other work than operations"
                                : h_.end();
    }

private:
    bool has_done(char action) const { return done_.find(action) != std::string::npos; }
    bool is_there(interest want) const { return is_for(want, h_.on.events()); }
    static bool is_for(interest want, int events) {
        return (events & (to_poll_events(want) | POLLERR | POLLHUP)) != 0;
    }
    bool transfers(interest want) {
        const bool is_ready = is_there(want);
        h_.on.lower(to_poll_events(want));
        return is_ready;
    }
    /// Level: what poll(2) tells. Edge: that, if an event came after which nobody was told.
    bool is_due(interest want, bool is_news) const {
        if (!setup_.tells_state) // somebody has to be told
            return is_news && is_untold_;
        return is_there(want) && (is_news || setup_.mode == trigger::level);
    }

    void run() {
        if (held_.what && setup_.begins_outside)
            take('u');
        sim::on_thread current(setup_.begins_outside ? second_thread_ : first_thread_);
        h_.run();
        if (held_.what)
            take('u');
        h_.run();
        note();
    }

    void take(char action) {
        done_ += action;
        switch (action) {
        case 'a':
        case 'b':
            h_.operations[action == 'b'].start();
            was_raised_[action == 'b'] = false;
            break;
        case '1':
        case '2':
            h_.on.raise(setup_.events[action == '2']);
            note_raised(setup_.events[action == '2']);
            break;
        case 'i':
            done_ += '2';
            h_.host.port.before_arming = [this] {
                h_.raise_and_handle(second_thread_, setup_.events[1]);
                note_raised(setup_.events[1]);
            };
            break;
        case 'd':
            h_.on.lower(POLLIN);
            break;
        case 'c':
            h_.operations[0].cancel();
            break;
        case 'f':
            h_.host.port.fetch();
            break;
        case 'r': {
            sim::on_thread current(setup_.begins_outside ? second_thread_ : first_thread_);
            h_.host.port.run_one();
            break;
        }
        case 't':
            held_ = h_.host.port.take();
            break;
        case 'u':
            sim::on_thread other(second_thread_);
            h_.host.port.run(std::exchange(held_, {}));
        }
        note();
    }

    void note_raised(short events) {
        is_untold_ = is_untold_ || is_for(setup_.wants[1], events);
        for (unsigned i : {0u, 1u})
            was_raised_[i] = was_raised_[i] || is_for(setup_.wants[i], events);
    }

    /// What the last step has shown.
    void note() {
        const sim::port& port = h_.host.port;
        const bool is_quiet = port.queued() == 0 && !held_.what;
        is_miscounted_ = is_miscounted_ || (is_quiet ? port.work() != port.operations
                                                     : port.work() < port.operations);
        for (unsigned i : {0u, 1u}) {
            const sim::operation& op = h_.operations[i];
            if (op.is_pending())
                was_ready_[i] = was_ready_[i] || is_there(setup_.wants[i]);
            if (!op.is_over() || std::exchange(is_noted_[i], true) || op.ec() || setup_.is_call)
                continue;
            is_early_ = is_early_ || (setup_.mode == trigger::level && setup_.tells_state &&
                                      !was_ready_[i] && !is_there(setup_.wants[i]));
            is_untold_ = is_untold_ && setup_.wants[i] != setup_.wants[1];
        }
    }

    const setup& setup_;
    handle h_;
    sim::thread& first_thread_ = *sim::thread::current();
    sim::thread second_thread_;
    sim::port::taken held_;
    std::string done_;
    bool was_raised_[2] = {}; // since the operation began
    bool was_ready_[2] = {};  // while the operation was pending
    bool is_noted_[2] = {};
    bool is_untold_ = false; // of the second operation's interest
    bool is_early_ = false;
    bool is_miscounted_ = false;
};

/// All schedules of up to so many actions: the first one with which something is wrong.
std::string find_wrong(const setup& s, unsigned left, const std::string& actions) {
    std::string wrong, possible;
    for (int ending = 0; ending != 3 && wrong.empty(); ++ending) {
        trial t(s, actions);
        possible = t.possible();
        wrong = ending == 0 ? t.settle() : t.end(ending == 1);
    }
    if (!wrong.empty())
        return actions + ": " + wrong;
    for (std::size_t i = 0; left != 0 && i != possible.size() && wrong.empty(); ++i)
        wrong = find_wrong(s, left - 1, actions + possible[i]);
    return wrong;
}

constexpr short in = POLLIN, out = POLLOUT, both = POLLIN | POLLOUT, pri = POLLPRI;

BOOST_AUTO_TEST_CASE(nothing_is_lost_nor_left_in_any_short_schedule) {
    for (trigger mode : {trigger::level, trigger::edge})
        for (bool is_call : {false, true})
            for (setup s : {setup{mode, {readable, readable}, {in, in}, is_call},
                            setup{mode, {writable, readable}, {in, in}, is_call},
                            setup{mode, {readable, writable}, {in, out}, is_call},
                            setup{mode, {writable, readable}, {both, in}, is_call},
                            setup{mode, {writable, readable}, {in, POLLHUP}, is_call},
                            setup{mode, {priority, priority}, {pri, pri}, false, is_call}})
                for (bool begins_outside : {false, true})
                    for (const char* beginning : {"", "a1fr"}) {
                        s.begins_outside = begins_outside;
                        BOOST_TEST_CONTEXT((mode == trigger::edge ? "edge" : "level")
                                           << (s.is_call ? ", calls for " : ", waits for ")
                                           << s.wants[0] << ", " << s.wants[1] << ", events "
                                           << s.events[0] << ", " << s.events[1]
                                           << (s.tells_state ? "" : ", told once")
                                           << (begins_outside ? ", begun outside" : ""))
                        BOOST_TEST(find_wrong(s, 5, beginning) == "");
                    }
}

BOOST_AUTO_TEST_CASE(the_schedules_find_a_reactor_that_forgets_events) {
    const setup s{trigger::level, {writable, readable}, {in, in}, false, true, true};
    BOOST_TEST(find_wrong(s, 7, "") != "");
}

BOOST_AUTO_TEST_SUITE_END()
