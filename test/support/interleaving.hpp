// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Every interleaving of a few threads, up to a number of preemptions: the threads are fibers, which
// give way before each access to what they share. All schedules are run, depth first, each from the
// beginning.
//
// Two beginnings of schedules are equivalent if each thread has made the same accesses, and all
// accesses to one thing came in the same order: the same can follow. So a beginning is continued in
// every way only if no equivalent one, which ended in the same thread, had as few preemptions.
// (Equivalent beginnings have one hash: the sum of the hashes of the accesses, each of which covers
// the accesses before it of the same thread, and of the same thing.)

#ifndef MOOR_TEST_SUPPORT_INTERLEAVING_HPP
#define MOOR_TEST_SUPPORT_INTERLEAVING_HPP

#include "support/sanitizers.hpp"
#include "support/simulated_kernel.hpp"

#include <boost/context/fiber.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#if MOOR_TEST_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif

namespace test {
namespace simulated {

/// Some threads that are run once.
class threads {
public:
    virtual ~threads() = default;
    virtual std::vector<std::function<void()>> bodies() = 0;
    /// Called when no thread can go on. Returns whether the call has let one go on.
    virtual bool is_quiet() = 0;
    /// All threads are over: what is wrong.
    virtual std::string judge() = 0;
};

class explorer final : private interleaver {
public:
    /// Schedules with up to so many switches away from a thread that could go on.
    explicit explorer(unsigned preemptions) : bound_(preemptions) {}

    /// Runs the threads that `make` makes in each schedule: the first one with which something is
    /// wrong, and what.
    template <class Make>
    std::string explore(Make make) {
        path_.clear();
        visited_.clear();
        schedules_ = 0;
        std::string wrong;
        do {
            wrong = run(*make());
            ++schedules_;
        } while (wrong.empty() && go_to_next());
        return wrong.empty() ? wrong : schedule() + ": " + wrong;
    }

    /// Runs one schedule again, as explore() has printed it, and prints the accesses.
    template <class Make>
    std::string replay(Make make, const std::string& schedule, std::ostream& os) {
        path_.clear();
        visited_.clear();
        for (char c : schedule)
            path_.push_back({static_cast<unsigned>(c - '0'), 0});
        trace_ = &os;
        std::string wrong = run(*make());
        trace_ = nullptr;
        return wrong;
    }

    std::size_t schedules() const { return schedules_; }

private:
    static constexpr std::size_t stack_size = 256 * 1024;
    static constexpr unsigned most_steps = 20000;

    struct choice {
        unsigned taken, count;
    };

    struct fiber_stack {
        boost::context::stack_context allocate() {
            boost::context::stack_context c;
            c.size = stack_size;
            c.sp = memory + stack_size;
            return c;
        }
        void deallocate(boost::context::stack_context&) {}
        char* memory;
    };

    struct runner {
        simulated::thread self;
        boost::context::fiber fiber;
        std::unique_ptr<char[]> stack;
        const void* shared = nullptr; // what it is about to access
        const char* what = nullptr;   // and how
        const std::function<bool()>* condition = nullptr;
        std::uint64_t hash = 0;
        bool is_over = false;

        bool can_go_on() const { return !is_over && (!condition || (*condition)()); }
    };

    void access(const void* shared, const char* what) override { give_way(shared, what, nullptr); }
    void access_when(const void* shared, const char* what,
                     const std::function<bool()>& condition) override {
        give_way(shared, what, &condition);
    }

    void give_way(const void* shared, const char* what, const std::function<bool()>* condition) {
        runner& me = *running_;
        me.shared = shared;
        me.what = what;
        me.condition = condition;
        leave(me, false);
        me.condition = nullptr;
    }

    // ---- switching ------------------------------------------------------------------------------

    void leave(runner& me, bool for_good) {
#if MOOR_TEST_ADDRESS_SANITIZER
        void* fake = nullptr;
        __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, main_stack_, main_size_);
#endif
        main_ = std::move(main_).resume();
#if MOOR_TEST_ADDRESS_SANITIZER
        __sanitizer_finish_switch_fiber(fake, &main_stack_, &main_size_);
#endif
        (void)for_good;
        (void)me;
    }

    void enter(runner& r) {
        running_ = &r;
        on_thread current(r.self);
#if MOOR_TEST_ADDRESS_SANITIZER
        void* fake = nullptr;
        __sanitizer_start_switch_fiber(&fake, r.stack.get(), stack_size);
#endif
        r.fiber = std::move(r.fiber).resume();
#if MOOR_TEST_ADDRESS_SANITIZER
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    }

    void begin(runner& r, std::function<void()> body) {
        r.fiber = boost::context::fiber(
            std::allocator_arg, fiber_stack{r.stack.get()},
            [this, &r, body = std::move(body)](boost::context::fiber&& main) mutable {
#if MOOR_TEST_ADDRESS_SANITIZER
                __sanitizer_finish_switch_fiber(nullptr, &main_stack_, &main_size_);
#endif
                main_ = std::move(main);
                give_way(&r, "begin", nullptr); // the body begins when it is chosen
                body();
                body = nullptr;
                r.is_over = true;
#if MOOR_TEST_ADDRESS_SANITIZER
                __sanitizer_start_switch_fiber(nullptr, main_stack_, main_size_);
#endif
                return std::move(main_);
            });
        enter(r);
    }

    // ---- one schedule ---------------------------------------------------------------------------

    std::string run(threads& t) {
        std::vector<std::function<void()>> bodies = t.bodies();
        while (runners_.size() < bodies.size()) {
            runners_.emplace_back();
            runners_.back().stack.reset(new char[stack_size]);
        }
        things_.clear();
        hash_ = depth_ = 0;
        preemptions_ = 0;
        goes_known_ways_ = false;
        interleaver::current() = this;
        for (std::size_t i = 0; i != bodies.size(); ++i) {
            runner& r = runners_[i];
            r.self = simulated::thread();
            r.hash = i + 1;
            r.is_over = false;
            begin(r, std::move(bodies[i]));
        }
        count_ = static_cast<unsigned>(bodies.size());
        bool is_endless = true;
        last_ = count_;
        for (unsigned steps = 0; steps != most_steps; ++steps) {
            const unsigned next = choose();
            if (next == count_) {
                if (t.is_quiet())
                    continue;
                is_endless = false;
                break;
            }
            step(next);
        }
        interleaver::current() = nullptr;
        if (leave_unfinished())
            return is_endless ? "it does not end" : "a deadlock";
        return t.judge();
    }

    /// Keeps unfinished threads for ever: their stacks can't be unwound through noexcept functions.
    /// Returns whether there are any.
    bool leave_unfinished() {
        static std::deque<runner>& unfinished = *new std::deque<runner>;
        bool are_any = false;
        for (unsigned i = 0; i != count_; ++i)
            if (!runners_[i].is_over) {
                are_any = true;
                unfinished.push_back(std::move(runners_[i]));
                runners_[i].stack.reset(new char[stack_size]);
            }
        return are_any;
    }

    void step(unsigned next) {
        runner& r = runners_[next];
        std::uint64_t& thing = things_[r.shared];
        r.hash = thing = mixed(r.hash, thing);
        hash_ += thing;
        if (trace_)
            *trace_ << std::string(next * 24, ' ') << r.what << '\n';
        last_ = next;
        enter(r);
    }

    /// Which thread goes on, or count_.
    unsigned choose() {
        unsigned ways[8], count = 0;
        const bool can_stay = last_ != count_ && runners_[last_].can_go_on();
        if (can_stay)
            ways[count++] = last_;
        if (!can_stay || preemptions_ < bound_)
            for (unsigned i = 0; i != count_; ++i)
                if (i != last_ && runners_[i].can_go_on())
                    ways[count++] = i;
        if (count == 0)
            return count_;
        unsigned way = 0;
        if (count != 1)
            way = decide(count);
        preemptions_ += can_stay && way != 0 ? 1 : 0;
        return ways[way];
    }

    unsigned decide(unsigned count) {
        if (depth_ == path_.size()) {
            if (!goes_known_ways_) {
                auto [known, is_new] = visited_.try_emplace(mixed(hash_, last_ + 1), preemptions_);
                goes_known_ways_ = !is_new && known->second <= preemptions_;
                known->second = std::min(known->second, preemptions_);
            }
            path_.push_back({0, goes_known_ways_ ? 1 : count});
        }
        return path_[depth_++].taken;
    }

    bool go_to_next() {
        while (!path_.empty() && path_.back().taken + 1 >= path_.back().count)
            path_.pop_back();
        if (path_.empty())
            return false;
        ++path_.back().taken;
        return true;
    }

    std::string schedule() const {
        std::string s;
        for (const choice& c : path_)
            s += static_cast<char>('0' + c.taken);
        s.erase(s.find_last_not_of('0') + 1);
        return s;
    }

    static std::uint64_t mixed(std::uint64_t a, std::uint64_t b) {
        std::uint64_t h = a * 0x9e3779b97f4a7c15u + (b ^ (b >> 29)) * 0xbf58476d1ce4e5b9u;
        h = (h ^ (h >> 32)) * 0x94d049bb133111ebu;
        return h ^ (h >> 29);
    }

    const unsigned bound_;
    std::ostream* trace_ = nullptr;
    std::vector<choice> path_;
    std::unordered_map<std::uint64_t, unsigned> visited_; // with the fewest preemptions
    std::size_t schedules_ = 0;

    std::deque<runner> runners_;
    unsigned count_ = 0;
    unsigned last_ = 0;
    runner* running_ = nullptr;
    boost::context::fiber main_;
    std::unordered_map<const void*, std::uint64_t> things_;
    std::uint64_t hash_ = 0;
    std::size_t depth_ = 0;
    unsigned preemptions_ = 0;
    bool goes_known_ways_ = false;
#if MOOR_TEST_ADDRESS_SANITIZER
    const void* main_stack_ = nullptr;
    std::size_t main_size_ = 0;
#endif
};

} // namespace simulated
} // namespace test

#endif
