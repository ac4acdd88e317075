// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What Moor's states do while a suite runs: each step from what one section under the lock of a
// state has left to what the next one leaves, in views of a few bits. At exit, each step goes once
// to the file that MOOR_TEST_STEPS names: the kind, the view before, the view after, the function
// that took the step first. compare.py says which of them the model of the core does not take.
//
// A kind is 0 to 3, plus 4 for trigger::edge, plus 8 for a file that may tell a change once only.
// The bits of its view:
//
//   all            1 the state is closed; left out of a step from a closed state to an open one,
//                    which is another registration
//                  2 the handle is in the reactor
//   0, a waker     4 armed, 8 firing, 16 prepaid, 32 a pending operation needs it
//                  64 what is latched is no news, 128 it was not armed yet: in the reactor only
//   1, a cache     4 a direction is cached, 8 and an edge-triggered wait was told of it
//                  16 a call would have blocked
//   2, operations  4 the waker of the direction is not idle, 8 news is cached
//                  32 a wait is pending, 64 a call is, 128 a waker of the polling interface
//   3, ends        4 the receiving side is closed, 8 the sending side, 16 an error: as cached
//
// Of a closed state, 1 and 3 have nothing else, and 2 has what is pending.
//
// Nothing is allocated, and no system call made, before the exit: some suites count them.

#include <moor/detail/scheduled_io.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include <sys/types.h>
#include <unistd.h>

namespace {

namespace detail = moor::detail;
using state = detail::reactor_policy::state;
using wakers_base = detail::handle_wakers<state, detail::reactor_policy>;
using readiness_base = detail::handle_readiness<state, detail::reactor_policy>;

// ---- the members that the views are made of -------------------------------------------------

/// An explicit instantiation may name private members: it gives get(Tag) to its argument.
template <class Tag, typename Tag::type Member>
struct named_member {
    friend typename Tag::type get(Tag) { return Member; }
};

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wnon-template-friend" // one get() for each tag is what is meant
#endif
template <class Tag, class Member>
struct member_tag {
    using type = Member;
    friend type get(Tag);
};

struct mutex_tag : member_tag<mutex_tag, detail::state_mutex wakers_base::*> {};
template struct named_member<mutex_tag, &wakers_base::mutex_>;
struct wakers_tag : member_tag<wakers_tag, detail::waker_state<detail::reactor_policy::atomic> (
                                               wakers_base::*)[detail::channel_count]> {};
template struct named_member<wakers_tag, &wakers_base::wakers_>;
struct unprimed_tag : member_tag<unprimed_tag, std::uint8_t wakers_base::*> {};
template struct named_member<unprimed_tag, &wakers_base::unprimed_>;
struct latched_tag : member_tag<latched_tag, std::uint8_t wakers_base::*> {};
template struct named_member<latched_tag, &wakers_base::latched_>;
struct attached_tag : member_tag<attached_tag, bool (wakers_base::*)() const noexcept> {};
template struct named_member<attached_tag, &wakers_base::is_attached>;
struct queue_tag : member_tag<queue_tag, detail::wait_queue readiness_base::*> {};
template struct named_member<queue_tag, &readiness_base::queue_>;
struct word_tag : member_tag<word_tag, detail::readiness_word readiness_base::*> {};
template struct named_member<word_tag, &readiness_base::word_>;
struct would_block_tag : member_tag<would_block_tag, std::uint8_t readiness_base::*> {};
template struct named_member<would_block_tag, &readiness_base::would_block_>;
struct always_ready_tag : member_tag<always_ready_tag, bool readiness_base::*> {};
template struct named_member<always_ready_tag, &readiness_base::always_ready_>;
struct tells_state_tag : member_tag<tells_state_tag, bool readiness_base::*> {};
template struct named_member<tells_state_tag, &readiness_base::tells_state_>;
struct channels_tag : member_tag<channels_tag, std::uint8_t detail::waiter::*> {};
template struct named_member<channels_tag, &detail::waiter::channels_>;
struct purpose_tag : member_tag<purpose_tag, detail::purpose detail::waiter::*> {};
template struct named_member<purpose_tag, &detail::waiter::purpose_>;

// ---- views ----------------------------------------------------------------------------------

constexpr unsigned kind_count = 16, view_limit = 256;
constexpr unsigned views_of_state = 3 + 2 + 2 + 1;

struct views {
    unsigned kinds[views_of_state];
    unsigned at[views_of_state];
};

constexpr bool latches_events = detail::reactor_policy::port::latches_events;

unsigned bit(detail::channel c) { return 1u << c; }
unsigned bit_of(detail::purpose p) {
    return p == detail::purpose::wait ? 32 : p == detail::purpose::io ? 64 : 128;
}

views views_of(const state& s) {
    const auto& wakers = s.*get(wakers_tag());
    const bool is_closed = !s.is_open(), is_attached = (s.*get(attached_tag()))();
    const auto& word = s.*get(word_tag());
    const unsigned latched = s.*get(latched_tag());
    const unsigned unprimed = latches_events ? s.*get(unprimed_tag()) : 0; // of no use otherwise
    const unsigned would_block = s.*get(would_block_tag());
    unsigned needed = 0, pending[2] = {};
    (s.*get(queue_tag())).for_each([&](const detail::waiter& w) {
        needed |= w.*get(channels_tag());
        for (auto c : {detail::read_channel, detail::write_channel})
            if (w.want().contains(detail::interest_of(c)))
                pending[c] |= bit_of(w.*get(purpose_tag()));
    });
    const unsigned kind =
        (s.mode() == moor::trigger::edge ? 4u : 0u) + (s.*get(tells_state_tag()) ? 0u : 8u);
    views v{};
    std::size_t n = 0;
    for (auto c : {detail::read_channel, detail::write_channel, detail::edge_channel}) {
        v.kinds[n] = kind;
        v.at[n++] = (is_closed ? 1u : 0u) + (is_attached ? 2u : 0u) +
                    (wakers[c].is_firing()  ? 8u
                     : !wakers[c].is_idle() ? 4u
                                            : 0u) +
                    (!wakers[c].is_idle() && wakers[c].is_prepaid() ? 16u : 0u) +
                    (needed & bit(c) ? 32u : 0u) + (is_attached && (latched & bit(c)) ? 64u : 0u) +
                    (is_attached && (unprimed & bit(c)) ? 128u : 0u);
    }
    for (auto c : {detail::read_channel, detail::write_channel}) {
        const auto i = detail::interest_of(c);
        const bool is_cached = !(word.flags() & i).empty();
        const bool is_news = !(word.unconsumed() & i).empty();
        v.kinds[n] = kind + 1;
        v.at[n++] = is_closed
                        ? 1u
                        : (is_attached ? 2u : 0u) + (is_cached ? 4u : 0u) +
                              (is_cached && !is_news ? 8u : 0u) + (would_block & bit(c) ? 16u : 0u);
        v.kinds[n] = kind + 2;
        v.at[n++] = (is_closed ? 1u
                               : (is_attached ? 2u : 0u) + (wakers[c].is_idle() ? 0u : 4u) +
                                     (is_news ? 8u : 0u)) +
                    pending[c];
    }
    const moor::readiness flags = word.flags();
    v.kinds[n] = kind + 3;
    v.at[n] = is_closed ? 1u
                        : (is_attached ? 2u : 0u) + (flags.is_read_closed() ? 4u : 0u) +
                              (flags.is_write_closed() ? 8u : 0u) + (flags.is_error() ? 16u : 0u);
    return v;
}

// ---- the steps ------------------------------------------------------------------------------

/// The function that took a step first.
const char* first_function[kind_count][view_limit][view_limit];

struct known_state {
    const state* address;
    views last;
};
constexpr std::size_t state_limit = std::size_t{1} << 17;
known_state known_states[state_limit];
bool is_full = false;
pid_t tested_process = 0; // its children write nothing

std::mutex steps_mutex; // guards all of it

const char* file_name() { return std::getenv("MOOR_TEST_STEPS"); }

/// The steps of an earlier run are gone, however this one ends.
[[maybe_unused]] const bool is_removed = file_name() && std::remove(file_name()) == 0;

void write_steps() {
    const char* name = file_name();
    std::FILE* file = name && ::getpid() == tested_process ? std::fopen(name, "w") : nullptr;
    if (!file)
        return;
    for (unsigned kind = 0; kind != kind_count; ++kind)
        for (unsigned before = 0; before != view_limit; ++before)
            for (unsigned after = 0; after != view_limit; ++after)
                if (const char* function = first_function[kind][before][after])
                    std::fprintf(file, "%u %u %u %.*s\n", kind, before, after,
                                 static_cast<int>(std::strcspn(function, "< ")), function);
    if (is_full)
        std::fprintf(file, "too many states\n");
    std::fclose(file);
}

/// Where a state was seen last, or null: there is no room for another one.
known_state* find(const state& s) {
    std::size_t i = reinterpret_cast<std::uintptr_t>(&s) * 0x9e3779b97f4a7c15u >> 40;
    for (std::size_t n = 0; n != 64; ++n, ++i) {
        known_state& k = known_states[i % state_limit];
        if (!k.address)
            k.address = &s;
        if (k.address == &s)
            return &k;
    }
    is_full = true;
    return nullptr;
}

/// The state with this mutex.
const state& owner(const void* mutex) {
    alignas(state) static unsigned char storage[sizeof(state)];
    const auto& nowhere = *std::launder(reinterpret_cast<const state*>(storage));
    static const std::ptrdiff_t offset =
        reinterpret_cast<const unsigned char*>(&(nowhere.*get(mutex_tag()))) - storage;
    return *reinterpret_cast<const state*>(static_cast<const unsigned char*>(mutex) - offset);
}

bool is_of_state(const char* file) {
    const char* slash = std::strrchr(file, '/');
    const char* name = slash ? slash + 1 : file;
    return std::strncmp(name, "handle_", 7) == 0 || std::strncmp(name, "scheduled_io", 12) == 0;
}

} // namespace

namespace test {

void note_section(const void* mutex, const char* file, const char* function) noexcept {
    if (!is_of_state(file))
        return;
    const state& s = owner(mutex);
    const std::lock_guard<std::mutex> lock(steps_mutex);
    if (tested_process == 0 && std::atexit(write_steps) == 0)
        tested_process = ::getpid();
    known_state* known = find(s);
    if (!known)
        return;
    if (s.*get(always_ready_tag())) { // not in the model
        known->last = views();
        return;
    }
    const views now = views_of(s);
    for (std::size_t i = 0; i != views_of_state; ++i) {
        const unsigned kind = now.kinds[i], after = now.at[i];
        unsigned before = known->last.at[i];
        if ((before & 1) != 0 && (after & 1) == 0)
            before = 0;
        if (before == after)
            continue;
        const char*& first = first_function[kind][before][after];
        if (!first)
            first = function;
    }
    known->last = now;
}

} // namespace test
