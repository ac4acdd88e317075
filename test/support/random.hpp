// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What random tests have in common: a sequence that a seed makes, the same on every machine, and
// settings that come from the environment.

#ifndef MOOR_TEST_SUPPORT_RANDOM_HPP
#define MOOR_TEST_SUPPORT_RANDOM_HPP

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace test {

inline std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* value = std::getenv(name);
    return value && *value ? std::strtoull(value, nullptr, 0) : otherwise;
}

/// A sequence that depends on the seed alone (splitmix64).
class random_words {
public:
    explicit random_words(std::uint64_t s) : state_(s) {}

    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
        return z ^ (z >> 31);
    }
    /// At least 1, at most n; as often small as large.
    std::size_t size(unsigned log2) {
        std::uint64_t limit = std::uint64_t{1} << (next() % (log2 + 1));
        return static_cast<std::size_t>(1 + next() % limit);
    }

private:
    std::uint64_t state_;
};

} // namespace test

#endif
