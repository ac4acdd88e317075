// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The steps of the random programs, and how dice choose them.

#ifndef MOOR_TEST_SUPPORT_PROMISE_STEPS_HPP
#define MOOR_TEST_SUPPORT_PROMISE_STEPS_HPP

#include "support/context.hpp"
#include "support/dice.hpp"
#include "support/promise_files.hpp"

#include <moor/registration.hpp>

#include <boost/asio/version.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace test {
namespace promise {

using moor::trigger;

enum class act {
    peer_send,
    peer_read,
    peer_drain,
    peer_half_close,
    peer_close,
    peer_reset,
    peer_urgent,
    peer_return,
    read_some,
    drain_all,
    fill_up,
    own_shutdown,
    wait,
    wait_readable,
    wait_writable,
    io_read,
    io_write,
    try_read,
    try_write,
    query,
    clear,
    cancel,
    cancel_direction,
    cancel_slot,
    reregister,
    renumber,
    duplicate,
    run_idle,
    run_some,
    count
};
inline constexpr const char* act_names[] = {
    "peer_send",  "peer_read",     "peer_drain",       "peer_half_close",
    "peer_close", "peer_reset",    "peer_urgent",      "peer_return",
    "read_some",  "drain_all",     "fill_up",          "shutdown",
    "wait",       "wait_readable", "wait_writable",    "io_read",
    "io_write",   "try_read",      "try_write",        "query",
    "clear",      "cancel",        "cancel_direction", "cancel_slot",
    "reregister", "renumber",      "duplicate",        "run_idle",
    "run_some"};
inline constexpr std::size_t act_count = static_cast<std::size_t>(act::count);
static_assert(std::size(act_names) == act_count, "each has a name");
/// How often each is drawn, before a program's own preferences.
inline constexpr unsigned char act_weights[act_count] = {
    12, 6, 3, 2, 3, 1, 2, 2, 8, 6, 3, 1, 14, 6, 5, 4, 3, 8, 4, 2, 4, 2, 2, 3, 2, 2, 2, 12, 6};
struct step {
    act what;
    std::uint32_t slot;
    std::uint32_t choice;
    std::uint32_t script;   ///< what the handler does, if one comes of this; 0: nothing
    bool is_beside = false; ///< the other threads run the loops meanwhile
};

/// What MOOR_TEST_WITHOUT leaves out.
inline bool is_left_out(const std::string& name) {
    static const std::string all = [] {
        const char* s = std::getenv("MOOR_TEST_WITHOUT");
        return "," + std::string(s ? s : "") + ",";
    }();
    return all.find("," + name + ",") != std::string::npos;
}

/// How a program is to be made: each program prefers some steps, so that all programs together
/// reach more than a single mixture would.
struct settings {
    unsigned threads = 1; ///< that run the loops
    bool handlers_act = true;
    std::array<unsigned, act_count> weights{};
    std::vector<kind> kinds;
    std::vector<interest> interests;
    std::vector<trigger> triggers;
    std::size_t contexts = 1;
};

/// `threads`: 0 if the dice choose.
inline settings make_settings(dice& d, unsigned threads) {
    settings s;
    s.threads = threads ? threads : std::max(3u, 1 + d.below(5)) - 2; // most often one
    s.handlers_act = !d.one_in(4) && !is_left_out("handlers");
    for (std::size_t i = 0; i != act_count; ++i) {
        constexpr unsigned factors[] = {0, 0, 1, 2, 4};
        // (A fuzzer keeps what reaches something new. It needs no mixtures.)
        unsigned w = act_weights[i] * (d.has_end() ? 1 : factors[d.below(std::size(factors))]);
        s.weights[i] = is_left_out(act_names[i]) ? 0 : w;
    }
    // Nothing would happen without these.
    for (act a : {act::wait, act::run_idle, act::peer_send})
        if (!is_left_out(act_names[static_cast<std::size_t>(a)]))
            s.weights[static_cast<std::size_t>(a)] += act_weights[static_cast<std::size_t>(a)];
    if (test::on_io_uring() && BOOST_ASIO_VERSION < 102700)
        // Asio gives results of cancelled operations to others there.
        for (act a : {act::renumber, act::reregister})
            s.weights[static_cast<std::size_t>(a)] /= 4;
    // Not all one-time changes reach a wait: doc/design.adoc has the limits, which these find.
    static const bool has_all = std::getenv("MOOR_TEST_ALL_KINDS");
    for (std::size_t i = 0; i != std::size(kind_names); ++i) {
        const auto k = static_cast<kind>(i);
        if (!is_left_out(kind_names[i]) && (k != kind::mounts || has_all))
            s.kinds.push_back(k);
    }
    if (d.one_in(2))
        s.kinds = {s.kinds[d.below(s.kinds.size())]};
    for (auto& [flag, name] : flags)
        if (!is_left_out(name))
            s.interests.push_back(flag);
    if (!is_left_out("level"))
        s.triggers.push_back(trigger::level);
    if (!is_left_out("edge"))
        s.triggers.push_back(trigger::edge);
    if (d.one_in(2))
        s.triggers = {s.triggers[d.below(s.triggers.size())]};
    s.contexts = is_left_out("contexts") ? 1 : 1 + d.below(2);
    return s;
}

inline step make_step(dice& d, const settings& s) {
    unsigned total = 0;
    for (unsigned w : s.weights)
        total += w;
    unsigned n = d.below(total);
    std::size_t i = 0;
    while (n >= s.weights[i])
        n -= s.weights[i++];
    step made{static_cast<act>(i), d.below(60), d.roll(), d.roll()};
    if (!s.handlers_act || d.one_in(2))
        made.script = 0;
    made.is_beside = s.threads > 1 && d.one_in(3);
    return made;
}

} // namespace promise
} // namespace test

#endif
