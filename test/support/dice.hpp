// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Where random programs take their choices from.

#ifndef MOOR_TEST_SUPPORT_DICE_HPP
#define MOOR_TEST_SUPPORT_DICE_HPP

#include "support/random.hpp"

#include <cstddef>
#include <cstdint>

namespace test {

class dice {
public:
    explicit dice(std::uint64_t seed) : words_(seed) {}

    std::uint32_t roll() { return static_cast<std::uint32_t>(words_.next() >> 16); }
    std::uint32_t below(std::size_t n) { return roll() % static_cast<std::uint32_t>(n); }
    bool one_in(std::size_t n) { return below(n) == 0; }

private:
    test::random_words words_;
};

} // namespace test

#endif
