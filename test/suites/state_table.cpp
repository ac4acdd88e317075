// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The table of states, with states that are none.

#include "support/context.hpp"

#include <moor/detail/state_table.hpp>

#include <string>
#include <vector>

BOOST_AUTO_TEST_SUITE(state_table)

namespace {

struct state {
    int number;
};

struct fixture {
    moor::detail::state_table<state> table;

    state* add(state& s) {
        table.reserve(s.number);
        return table.insert(s.number, s);
    }
    std::vector<int> numbers() const {
        std::vector<int> all;
        table.for_each([&](const state& s) { all.push_back(s.number); });
        return all;
    }
};

} // namespace

BOOST_FIXTURE_TEST_CASE(a_state_is_found_by_its_number_until_it_is_erased, fixture) {
    state a{3}, b{0};
    BOOST_TEST(!table.find(0));
    BOOST_TEST(!table.find(100));
    BOOST_TEST(!add(a));
    BOOST_TEST(!add(b));
    BOOST_TEST(table.find(3) == &a);
    BOOST_TEST(table.find(0) == &b);
    BOOST_TEST(!table.find(1));
    BOOST_TEST(table.size() == 2u);
    BOOST_TEST((numbers() == std::vector<int>{0, 3}));
    BOOST_TEST(table.erase(3, a));
    BOOST_TEST(!table.find(3));
    BOOST_TEST(table.size() == 1u);
    BOOST_TEST(!table.erase(3, a)); // again
    BOOST_TEST(!table.erase(100, a));
}

BOOST_FIXTURE_TEST_CASE(a_state_that_was_replaced_erases_nobody_else, fixture) {
    state earlier{5}, later{5};
    add(earlier);
    table.set_name(5, earlier, "earlier");
    BOOST_TEST(add(later) == &earlier);
    BOOST_TEST(table.size() == 1u);
    BOOST_TEST(!table.erase(5, earlier));
    BOOST_TEST(table.name_of(earlier) == "earlier");
    table.forget_name(earlier);
    BOOST_TEST(table.name_of(earlier).empty());
    BOOST_TEST(table.find(5) == &later);
}

BOOST_FIXTURE_TEST_CASE(a_name_lasts_as_long_as_its_state_is_in_the_table, fixture) {
    state a{2}, stranger{2};
    table.set_name(2, a, "too early");
    BOOST_TEST(table.name_of(a).empty());
    add(a);
    BOOST_TEST(table.name_of(a).empty());
    table.set_name(2, stranger, "another's");
    table.set_name(2, a, "mine");
    BOOST_TEST(table.name_of(a) == "mine");
    table.set_name(2, a, "renamed");
    BOOST_TEST(table.name_of(a) == "renamed");
    table.erase(2, a);
    add(a);
    BOOST_TEST(table.name_of(a).empty());
}

BOOST_FIXTURE_TEST_CASE(all_states_are_taken_once, fixture) {
    state a{1}, b{7};
    add(a);
    add(b);
    table.set_name(7, b, "b");
    std::vector<const state*> taken;
    table.take_all([&](state& s) { taken.push_back(&s); });
    BOOST_TEST((taken == std::vector<const state*>{&a, &b}));
    BOOST_TEST(table.size() == 0u);
    BOOST_TEST(!table.find(7));
    BOOST_TEST(table.name_of(b).empty());
    table.take_all([&](state&) { BOOST_ERROR("there is none left"); });
}

BOOST_AUTO_TEST_SUITE_END()
