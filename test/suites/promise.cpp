// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Random programs that check one promise, with poll(2) as the oracle: support/promise_model.hpp
// says which. A seed makes the choices of a program.
//
// The environment:
//
// - MOOR_TEST_SEED=n runs one program, and prints each step.
// - MOOR_TEST_SECONDS=n runs programs for so long, and lists all kinds of failures. Without it: two
//   seconds, up to the first failure.
// - MOOR_TEST_FIRST_SEED=n begins with that seed, 0 with a random one. Without it the programs are
//   always the same, so that a failure is due to a change.
// - MOOR_TEST_FAILURES=n ends the run after so many kinds of failures.
// - MOOR_TEST_WITHOUT=a,b leaves out steps, kinds of files, interests, triggers and checks.
// - MOOR_TEST_ALL_KINDS=1 adds files that tell each change once: see make_settings().

#include "support/context.hpp"
#include "support/dice.hpp"
#include "support/promise_program.hpp"
#include "support/random.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <signal.h>

namespace {

using test::dice;
using test::promise::program;
using test::promise::step;
using test::promise::verdict;
using clock_type = std::chrono::steady_clock;

void print(const std::string& line) { BOOST_TEST_MESSAGE(line); }

verdict run_steps(std::uint64_t seed, unsigned threads, const std::vector<step>& steps,
                  bool prints) {
    program p(dice(seed), threads, prints ? print : nullptr);
    p.be_impatient();
    return p.run(steps);
}

/// Leaves out steps as long as the program fails in the same way.
std::vector<step> shrink(std::uint64_t seed, unsigned threads, std::vector<step> steps,
                         const verdict& found) {
    auto deadline = clock_type::now() + std::chrono::seconds(10);
    auto still_fails = [&](const std::vector<step>& fewer) {
        return clock_type::now() < deadline &&
               run_steps(seed, threads, fewer, false).what == found.what;
    };
    for (std::size_t n = steps.size(); n != 0; n /= 2) // so many at a time
        for (std::size_t i = 0; i < steps.size();) {
            std::vector<step> fewer = steps;
            auto from = fewer.begin() + static_cast<std::ptrdiff_t>(i);
            fewer.erase(from,
                        fewer.begin() + static_cast<std::ptrdiff_t>(std::min(i + n, fewer.size())));
            if (still_fails(fewer))
                steps = fewer;
            else
                i += n;
        }
    for (step& s : steps)
        if (std::uint32_t script = std::exchange(s.script, 0); script && !still_fails(steps))
            s.script = script;
    return steps;
}

void run_programs(const char* name, unsigned threads) {
    ::signal(SIGPIPE, SIG_IGN);
    if (std::uint64_t seed = test::from_environment("MOOR_TEST_SEED", 0)) {
        program p(dice(seed), threads, print);
        verdict v = p.run(p.make_steps());
        BOOST_CHECK_MESSAGE(!v, v.what << ": " << v.details);
        return;
    }
    auto limit = std::chrono::seconds(test::from_environment("MOOR_TEST_SECONDS", 2));
    const std::uint64_t most =
        test::from_environment("MOOR_TEST_FAILURES", std::getenv("MOOR_TEST_SECONDS") ? 1000 : 1);
    const char* without = std::getenv("MOOR_TEST_WITHOUT");
    std::map<std::string, long> found;
    long programs = 0, steps_run = 0, completed = 0;
    auto begun = clock_type::now();
    auto shrinking = clock_type::duration::zero();
    std::uint64_t seed = test::from_environment("MOOR_TEST_FIRST_SEED", 1);
    if (seed == 0)
        seed = std::random_device()();
    for (; clock_type::now() - begun - shrinking < limit; ++seed) {
        program p(dice(seed), threads);
        std::vector<step> steps = p.make_steps();
        verdict v = p.run(steps);
        ++programs;
        steps_run += p.steps_run();
        completed += p.waits_completed();
        if (!v || ++found[v.what] != 1)
            continue;
        auto now = clock_type::now();
        BOOST_ERROR(
            v.what << "\n  " << v.details << "\n  seed " << seed << " on " << test::backend()
                   << ", after "
                   << std::chrono::duration_cast<std::chrono::milliseconds>(now - begun - shrinking)
                          .count()
                   << " ms; to see it again: " << (without ? "MOOR_TEST_WITHOUT=" : "")
                   << (without ? without : "") << (without ? " " : "") << "MOOR_TEST_SEED=" << seed
                   << " promise." << test::backend() << " --run_test=promise/" << name
                   << " --log_level=message");
        std::vector<step> fewer = shrink(seed, threads, std::move(steps), v);
        BOOST_TEST_MESSAGE("  shrunk to " << fewer.size() << " steps:");
        run_steps(seed, threads, fewer, true);
        shrinking += clock_type::now() - now;
        if (found.size() >= most)
            break;
    }
    for (auto& [what, times] : found)
        BOOST_TEST_MESSAGE("found " << times << " times: " << what);
    BOOST_TEST_MESSAGE(programs << " programs, " << steps_run << " steps, " << completed
                                << " waits completed");
    BOOST_TEST(completed > 0);
}

} // namespace

BOOST_AUTO_TEST_SUITE(promise)

BOOST_AUTO_TEST_CASE(random_programs) { run_programs("random_programs", 1); }

BOOST_AUTO_TEST_CASE(random_programs_on_two_threads) {
    run_programs("random_programs_on_two_threads", 2);
}

BOOST_AUTO_TEST_CASE(random_programs_on_three_threads) {
    run_programs("random_programs_on_three_threads", 3);
}

BOOST_AUTO_TEST_SUITE_END()
