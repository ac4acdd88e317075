//
// moor/detail/watch_handler.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_WATCH_HANDLER_HPP
#define MOOR_DETAIL_WATCH_HANDLER_HPP

#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <chrono>
#include <cstddef>
#include <iterator>
#include <type_traits>
#include <utility>

namespace moor {
namespace detail {

/// The handler of a watcher. Any callable, also one that is only movable.
class watch_handler {
public:
    virtual ~watch_handler() = default;

    /// True: it has drained the handle.
    virtual bool call(const error_code& ec, readiness ready) = 0;
};

template <class F>
class any_watch_handler final : public watch_handler {
    using result = decltype(std::declval<F&>()(error_code(), readiness()));
    static_assert(std::is_void<result>::value || std::is_same<result, drainable<void>>::value,
                  "the handler of a watcher returns nothing, or moor::drained()");

public:
    explicit any_watch_handler(F&& f) : f_(std::move(f)) {}
    explicit any_watch_handler(const F& f) : f_(f) {}

    bool call(const error_code& ec, readiness ready) override {
        if constexpr (std::is_void<result>::value) {
            f_(ec, ready);
            return false;
        } else {
            return f_(ec, ready).is_drained;
        }
    }

private:
    F f_;
};

/// What the pending waits of a watcher ask for.
class asked_interests {
public:
    interest all() const noexcept { return all_; }

    void add(interest i) noexcept { count(i, 1); }
    void remove(interest i) noexcept { count(i, -1); }

private:
    static constexpr interest flags[] = {interest::readable,    interest::writable,
                                         interest::priority,    interest::error,
                                         interest::read_closed, interest::write_closed};

    void count(interest i, int difference) noexcept {
        all_ = interest();
        for (std::size_t f = 0; f != std::size(flags); ++f) {
            if (i.contains(flags[f]))
                counts_[f] += difference;
            if (counts_[f] != 0)
                all_ |= flags[f];
        }
    }

    interest all_;
    int counts_[std::size(flags)] = {};
};

inline std::chrono::steady_clock::time_point later(std::chrono::steady_clock::time_point t,
                                                   std::chrono::steady_clock::duration d) noexcept {
    return d > (std::chrono::steady_clock::time_point::max)() - t
               ? (std::chrono::steady_clock::time_point::max)()
               : t + d;
}

/// So many calls in an interval at most; any number by default.
class call_rate {
    using clock = std::chrono::steady_clock;

public:
    call_rate() = default;
    call_rate(std::size_t limit, clock::duration interval) noexcept
        : limit_(limit), interval_(interval) {}

    /// Counts a call. False: none may be made before `next`.
    bool count(clock::time_point& next) {
        if (limit_ == 0)
            return true;
        const clock::time_point now = clock::now();
        if (calls_ == 0 || now - begin_ >= interval_) {
            begin_ = now;
            calls_ = 0;
        }
        if (calls_ < limit_) {
            ++calls_;
            return true;
        }
        next = later(begin_, interval_);
        return false;
    }

    /// A new interval begins with the next call.
    void restart() noexcept { calls_ = 0; }

private:
    std::size_t limit_ = 0;
    clock::duration interval_{};
    std::size_t calls_ = 0; // in the interval
    clock::time_point begin_{};
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_WATCH_HANDLER_HPP
