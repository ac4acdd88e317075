//
// moor/detail/held_executor.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The I/O executor of a registration, which may outlive the execution context. An executor may not:
// the destructor of a strand, for example, uses a service of the context. So the executor is
// destroyed when the context shuts down.
//

#ifndef MOOR_DETAIL_HELD_EXECUTOR_HPP
#define MOOR_DETAIL_HELD_EXECUTOR_HPP

#include <moor/detail/reactor.hpp>
#include <moor/detail/service_core.hpp>

#include <boost/assert.hpp>

#include <optional>
#include <type_traits>

namespace moor {
namespace detail {

/// An executor that is destroyed with its owner or at the context's shutdown, whichever comes
/// first. Neither `service_core` is owned: the registration owns it, and for longer.
template <class Executor>
class held_executor final : private shutdown_listener {
public:
    held_executor(const Executor& ex, service_core& core)
        : shutdown_listener(&held_executor::drop), core_(&core) {
        if (!core_->context_exists())
            return; // none is copied any more
        value_.emplace(io_executor<Executor>{ex});
        attend();
    }

    /// Copies the executor of another registration with the same core.
    template <class OtherExecutor>
    held_executor(const held_executor<OtherExecutor>& other, service_core& core)
        : shutdown_listener(&held_executor::drop), core_(&core) {
        if (!other.is_held())
            return;
        value_.emplace(io_executor<Executor>{Executor(other.get().value)});
        attend();
    }

    held_executor(const held_executor&) = delete;
    held_executor& operator=(const held_executor&) = delete;

    ~held_executor() { leave(); }

    /// The same as destroying and constructing.
    void assign(const held_executor& other, service_core& core) {
        leave();
        value_.reset();
        core_ = &core;
        if (!other.is_held())
            return;
        value_.emplace(*other.value_);
        attend();
    }

    bool is_held() const noexcept { return value_.has_value(); }

    /// Precondition: the context was not shut down.
    const io_executor<Executor>& get() const noexcept {
        BOOST_ASSERT(is_held());
        return *value_;
    }

    /// Whether it is the io_context's own: then it may be destroyed at any time, and the scheduler
    /// is where its functions run. Precondition: the context was not shut down.
    bool is_plain() const noexcept {
        if constexpr (std::is_same<Executor, asio::any_io_executor>::value)
            return get().is_plain;
        else
            return std::is_same<Executor, asio::io_context::executor_type>::value;
    }

    /// What a user sees: after the shutdown an empty executor, if the type has that.
    const Executor& value() const noexcept {
        if constexpr (std::is_same<Executor, asio::any_io_executor>::value) {
            static const asio::any_io_executor none;
            return is_held() ? value_->value : none;
        } else {
            return get().value;
        }
    }

private:
    void attend() {
        if (!is_plain())
            core_->add_listener(*this);
    }
    void leave() noexcept {
        if (is_held() && !is_plain())
            core_->remove_listener(*this);
    }

    static void drop(shutdown_listener& l) noexcept {
        static_cast<held_executor&>(l).value_.reset();
    }

    service_core* core_;
    std::optional<io_executor<Executor>> value_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_HELD_EXECUTOR_HPP
