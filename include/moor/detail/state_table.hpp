//
// moor/detail/state_table.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_STATE_TABLE_HPP
#define MOOR_DETAIL_STATE_TABLE_HPP

#include <boost/core/no_exceptions_support.hpp>

#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace moor {
namespace detail {

/// The states that stand for a registered handle, by its number. Owns none of them.
template <class State>
class state_table {
public:
    /// The state of a number, or null.
    State* find(int handle) const noexcept {
        const auto index = static_cast<std::size_t>(handle);
        return index < states_.size() ? states_[index] : nullptr;
    }

    /// Makes room for a number, so that `insert` does not throw.
    void reserve(int handle) {
        const auto index = static_cast<std::size_t>(handle);
        if (index >= states_.size())
            states_.resize(index + 1);
    }

    /// Returns the earlier state of the number, or null. It keeps its name for now.
    State* insert(int handle, State& state) noexcept {
        State* earlier = std::exchange(states_[static_cast<std::size_t>(handle)], &state);
        count_ += earlier ? 0 : 1;
        return earlier;
    }

    /// Whether the number was this state's. Then it is nobody's.
    bool erase(int handle, const State& state) noexcept {
        if (find(handle) != &state)
            return false;
        states_[static_cast<std::size_t>(handle)] = nullptr;
        forget_name(state);
        --count_;
        return true;
    }

    std::size_t size() const noexcept { return count_; }

    /// The first state from a number on for which `f` holds, or null.
    template <class F>
    State* find_from(int handle, F f) const {
        for (auto i = static_cast<std::size_t>(handle); i < states_.size(); ++i)
            if (states_[i] && f(*states_[i]))
                return states_[i];
        return nullptr;
    }

    /// In the order of the numbers.
    template <class F>
    void for_each(F f) const {
        for (State* s : states_)
            if (s)
                f(*s);
    }

    /// Erases all, after it has called `f` for each.
    template <class F>
    void take_all(F f) {
        for (State*& s : states_)
            if (s)
                f(*std::exchange(s, nullptr));
        names_.clear();
        count_ = 0;
    }

    /// Names a state until it is erased, or forget_name() is called. Without memory, it goes
    /// without a name.
    void set_name(int handle, const State& state, const std::string& name) noexcept {
        if (find(handle) != &state)
            return;
        BOOST_TRY { names_[&state] = name; }
        BOOST_CATCH(...) {}
        BOOST_CATCH_END
    }
    void forget_name(const State& state) noexcept {
        if (!names_.empty())
            names_.erase(&state);
    }
    std::string name_of(const State& state) const {
        auto named = names_.find(&state);
        return named == names_.end() ? std::string() : named->second;
    }

private:
    std::vector<State*> states_;
    std::unordered_map<const State*, std::string> names_; // of those that have one
    std::size_t count_ = 0;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_STATE_TABLE_HPP
