//
// moor/detail/loop_executor.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_LOOP_EXECUTOR_HPP
#define MOOR_DETAIL_LOOP_EXECUTOR_HPP

#include <boost/asio/execution/context.hpp>
#include <boost/asio/execution_context.hpp>

#include <type_traits>
#include <utility>

namespace moor {
namespace detail {

/// The I/O executor of Moor's own operations: runs their handlers inline, on the thread on which
/// the scheduler completes the operation. It tracks no work: the scheduler counts each operation.
class loop_executor {
public:
    explicit loop_executor(boost::asio::execution_context& context) noexcept : context_(&context) {}

    boost::asio::execution_context& query(boost::asio::execution::context_t) const noexcept {
        return *context_;
    }

    template <class F>
    void execute(F&& f) const {
        std::decay_t<F> function(std::forward<F>(f));
        function();
    }

    friend bool operator==(const loop_executor& a, const loop_executor& b) noexcept {
        return a.context_ == b.context_;
    }
    friend bool operator!=(const loop_executor& a, const loop_executor& b) noexcept {
        return !(a == b);
    }

private:
    boost::asio::execution_context* context_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_LOOP_EXECUTOR_HPP
