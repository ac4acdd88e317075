// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Operations without a handler, to drive the queues of a handle's state alone.

#ifndef MOOR_TEST_SUPPORT_PROBE_HPP
#define MOOR_TEST_SUPPORT_PROBE_HPP

#include <moor/detail/waiter.hpp>

#include <cstddef>
#include <string>

namespace test {

struct no_policy;

} // namespace test

namespace moor {
namespace detail {

// The marks of a waiter are for its state only: the tests read them as a state of their own.
template <class Policy>
class basic_scheduled_io;
template <>
class basic_scheduled_io<test::no_policy> {
public:
    static bool is_running(const waiter& w) { return w.is_running_; }
    static bool is_cancelled(const waiter& w) { return w.is_cancelled_; }
};

} // namespace detail
} // namespace moor

namespace test {

using moor::detail::waiter;
using marks = moor::detail::basic_scheduled_io<no_policy>;

/// An operation that has a name.
struct probe : waiter {
    explicit probe(char n, moor::interest want = moor::interest::readable,
                   moor::detail::purpose why = moor::detail::purpose::wait)
        : waiter(&probe::do_nothing, want, why), name(n) {}

    char name;

private:
    static void do_nothing(void*, moor::detail::scheduler_item*, const moor::error_code&,
                           std::size_t) {}
};

struct four_probes {
    probe a{'a'}, b{'b', moor::interest::writable}, c{'c'}, d{'d', moor::interest::priority};
    probe* const all[4] = {&a, &b, &c, &d};

    /// The names of those with a mark.
    std::string marked(bool (*has)(const waiter&)) const {
        std::string names;
        for (const probe* w : all)
            if (has(*w))
                names += w->name;
        return names;
    }
};

/// Which of the four are taken out of a queue: the first, the last, some, all, none.
inline const char* const choices[] = {"a", "b", "d", "ab", "bc", "cd", "ad", "acd", "abcd", ""};

/// The four without these.
inline std::string others(const std::string& names) {
    std::string rest;
    for (char n : std::string("abcd"))
        if (names.find(n) == std::string::npos)
            rest += n;
    return rest;
}

inline char name_of(const waiter* w) { return w ? static_cast<const probe*>(w)->name : '-'; }

/// The names in a list or queue, in its order.
template <class List>
std::string names_in(const List& list) {
    std::string names;
    list.for_each([&](const waiter& w) { names += name_of(&w); });
    return names;
}

inline auto is_one_of(const std::string& names) {
    return [names](const waiter& w) { return names.find(name_of(&w)) != std::string::npos; };
}

} // namespace test

#endif
