// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The only source of a random program's choices: a seed, or the bytes that a fuzzer makes.

#ifndef MOOR_TEST_SUPPORT_DICE_HPP
#define MOOR_TEST_SUPPORT_DICE_HPP

#include "support/random.hpp"

#include <cstddef>
#include <cstdint>

namespace test {

class dice {
public:
    /// Choices without an end.
    explicit dice(std::uint64_t seed) : words_(seed) {}
    /// A choice takes a byte, or two. After the last byte each choice is 0.
    dice(const unsigned char* bytes, std::size_t n) : words_(0), next_(bytes), end_(bytes + n) {}

    bool has_end() const { return end_ != nullptr; }
    bool is_at_end() const { return next_ == end_ && has_end(); }

    std::uint32_t roll() {
        if (!has_end())
            return static_cast<std::uint32_t>(words_.next() >> 16);
        std::uint32_t high = byte() << 8;
        return high | byte();
    }
    std::uint32_t below(std::size_t n) {
        return (has_end() && n <= 256 ? byte() : roll()) % static_cast<std::uint32_t>(n);
    }
    bool one_in(std::size_t n) { return below(n) == 0; }

private:
    std::uint32_t byte() { return next_ == end_ ? 0u : *next_++; }

    test::random_words words_;
    const unsigned char* next_ = nullptr;
    const unsigned char* end_ = nullptr;
};

} // namespace test

#endif
