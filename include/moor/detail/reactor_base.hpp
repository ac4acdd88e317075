//
// moor/detail/reactor_base.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What the reactors of all backends have in common: the scheduler, executors, handler tracking, and
// the way of a waker back to its owner. With the other reactor*.hpp, the only files that name
// boost::asio::detail, or differ by Boost version, backend or build mode.
//

#ifndef MOOR_DETAIL_REACTOR_BASE_HPP
#define MOOR_DETAIL_REACTOR_BASE_HPP

#include <moor/error.hpp>

// clang-format off
// First: in Boost 1.90 the reactor's header can't be the one that brings in the scheduler's.
#include <boost/asio/io_context.hpp>
// clang-format on
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/detail/config.hpp>
#include <boost/asio/detail/handler_tracking.hpp>
#include <boost/asio/detail/handler_work.hpp>
#include <boost/asio/detail/op_queue.hpp>
#include <boost/asio/detail/scheduler.hpp>
#include <boost/asio/detail/scheduler_operation.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/version.hpp>
#include <boost/config.hpp>

#if BOOST_ASIO_VERSION >= 103400 // Boost 1.87
#include <boost/asio/config.hpp>
#endif
#if BOOST_ASIO_VERSION >= 102700 // Boost 1.82
#include <boost/asio/associated_immediate_executor.hpp>
#endif

#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

#if BOOST_ASIO_VERSION < 102600
#error "Moor needs Boost 1.81 or newer"
#endif
#if defined(BOOST_ASIO_HAS_IOCP) || defined(BOOST_ASIO_WINDOWS_RUNTIME)
#error                                                                                             \
    "Moor needs a reactor: epoll, kqueue, /dev/poll, select or io_uring; Windows has none of them"
#endif

namespace moor {
namespace detail {

namespace asio = boost::asio;

/// What the scheduler can queue and run: the base of every waiter.
using scheduler_item = boost::asio::detail::scheduler_operation;

/// A queue of them, which destroys what is left in it.
using item_queue = boost::asio::detail::op_queue<scheduler_item>;

/// Whether a handler has an executor of its own, and so may run outside the I/O executor.
template <class Handler, class IoExecutor, class = void>
struct has_own_executor : std::true_type {};

template <class Handler, class IoExecutor>
struct has_own_executor<Handler, IoExecutor,
                        std::void_t<typename asio::associated_executor<
                            Handler, IoExecutor>::asio_associated_executor_is_unspecialised>>
    : std::false_type {};

/// The I/O executor, and what is asked of it at every wait.
template <class Executor>
struct io_executor {
    Executor value;
};

template <>
struct io_executor<asio::any_io_executor> {
    asio::any_io_executor value;
    /// Whether it is the io_context's own executor.
    bool is_plain;

    explicit io_executor(asio::any_io_executor ex)
        : value(std::move(ex)),
          is_plain(value.target<asio::io_context::executor_type>() != nullptr) {}
};

/// Keeps the handler's executors busy, and runs a completion on the right one of them.
/**
 * As Asio's, where it has something to do. It has not if the I/O executor is the io_context's own
 * and the handler has none: the scheduler counts that work, and runs that completion.
 */
template <class Handler, class IoExecutor,
          bool HasOwn = has_own_executor<Handler, IoExecutor>::value>
class handler_work : public boost::asio::detail::handler_work<Handler, IoExecutor> {

public:
    handler_work(Handler& handler, const io_executor<IoExecutor>& ex) noexcept
        : boost::asio::detail::handler_work<Handler, IoExecutor>(handler, ex.value) {}

    /// Whether there is nothing to keep busy, and a completion may simply be called.
    static constexpr bool is_none() noexcept { return false; }
};

/// The io_context's own executor.
template <class Handler>
class handler_work<Handler, asio::io_context::executor_type, false> {
public:
    handler_work(Handler&, const io_executor<asio::io_context::executor_type>&) noexcept {}

    static constexpr bool is_none() noexcept { return true; }

    template <class Function>
    void complete(Function& function, Handler&) {
        std::move(function)();
    }
};

/// The io_context's own executor, perhaps. Asio's finds out, too, but by way of an empty
/// any_io_executor, which is made, moved and destroyed.
template <class Handler>
class handler_work<Handler, asio::any_io_executor, false> {
    using full = boost::asio::detail::handler_work<Handler, asio::any_io_executor>;

public:
    handler_work(Handler& handler, const io_executor<asio::any_io_executor>& ex) {
        if (!ex.is_plain)
            work_.emplace(handler, ex.value);
    }

    bool is_none() const noexcept { return !work_; }

    template <class Function>
    void complete(Function& function, Handler& handler) {
        if (work_)
            work_->complete(function, handler);
        else
            std::move(function)();
    }

private:
    std::optional<full> work_;
};

/// The streams of events that a reactor keeps apart for one handle.
/**
 * The third carries priority events. Where the reactor reports levels it carries whatever has to be
 * reported once: news of any kind, from an `edge_set`.
 */
enum channel : unsigned { read_channel = 0, write_channel = 1, edge_channel = 2 };

inline constexpr unsigned channel_count = 3;

//
// Immediate executors came with Boost 1.82.
//
#if BOOST_ASIO_VERSION >= 102700

template <class Handler, class IoExecutor, class = void>
struct names_immediate_executor : std::true_type {};

template <class Handler, class IoExecutor>
struct names_immediate_executor<
    Handler, IoExecutor,
    std::void_t<typename asio::associated_immediate_executor<
        Handler, IoExecutor>::asio_associated_immediate_executor_is_unspecialised>>
    : std::false_type {};

class loop_executor;

/// The handlers of Moor's own waits name none. (Nor can Asio be asked: from Boost 1.86 on, it wants
/// every I/O executor to have a form that never blocks, and theirs runs handlers inline.)
template <class Handler, class IoExecutor>
struct has_immediate_executor
    : std::conjunction<std::negation<std::is_same<IoExecutor, loop_executor>>,
                       names_immediate_executor<Handler, IoExecutor>> {};

template <class Handler, class IoExecutor>
auto immediate_executor_of(const Handler& handler, const IoExecutor& ex) {
    return asio::get_associated_immediate_executor(handler, ex);
}

#else

template <class Handler, class IoExecutor>
struct has_immediate_executor : std::false_type {};

template <class Handler, class IoExecutor>
const IoExecutor& immediate_executor_of(const Handler&, const IoExecutor& ex) {
    return ex;
}

#endif

//
// Handler tracking: nothing at all unless BOOST_ASIO_ENABLE_HANDLER_TRACKING is defined.
//
#if defined(BOOST_ASIO_ENABLE_HANDLER_TRACKING)

using boost::asio::detail::handler_tracking;

inline void track_creation(asio::execution_context& context, scheduler_item& item, void* object,
                           int handle, const char* operation) {
    BOOST_ASIO_HANDLER_CREATION(
        (context, item, "registration", object, static_cast<std::uintmax_t>(handle), operation));
}

inline void track_operation(asio::execution_context& context, void* object, int handle,
                            const char* operation) {
    BOOST_ASIO_HANDLER_OPERATION(
        (context, "registration", object, static_cast<std::uintmax_t>(handle), operation));
}

class tracked_completion {
public:
    explicit tracked_completion(const scheduler_item& item) : completion_(item) {}
    void begin(const error_code& ec) { completion_.invocation_begin(ec); }
    void end() { completion_.invocation_end(); }

private:
    handler_tracking::completion completion_;
};

#else

inline void track_creation(asio::execution_context&, scheduler_item&, void*, int,
                           const char*) noexcept {}
inline void track_operation(asio::execution_context&, void*, int, const char*) noexcept {}

class tracked_completion {
public:
    explicit tracked_completion(const scheduler_item&) noexcept {}
    void begin(const error_code&) noexcept {}
    void end() noexcept {}
};

#endif

/// The scheduler of one execution context, which runs what wakers and operations queue.
class scheduler_port {
public:
    explicit scheduler_port(asio::execution_context& context)
        : context_(context), scheduler_(asio::use_service<scheduler>(context)) {}

    scheduler_port(const scheduler_port&) = delete;
    scheduler_port& operator=(const scheduler_port&) = delete;

    asio::execution_context& context() const noexcept { return context_; }

    /// Queues an item that no work was counted for.
    /**
     * The item goes to the queue that all runs of the loop share. With a concurrency hint of 1,
     * Asio's other functions would put it into the queue of the run that is under way, where a
     * nested run does not see it.
     */
    void post_new(scheduler_item* item) { scheduler_.do_dispatch(item); }

    /// Queues an item whose work was counted.
    void post_counted(scheduler_item* item) {
        scheduler_.do_dispatch(item); // as post_new()
        scheduler_.work_finished();
    }
    void post_counted(item_queue& items) {
        while (scheduler_item* item = items.front()) {
            items.pop();
            post_counted(item);
        }
    }

    /// Whether this thread is in the loop.
    bool runs_here() { return scheduler_.can_dispatch(); }

    void work_started() { scheduler_.work_started(); }
    void work_finished() { scheduler_.work_finished(); }

    /// Whether threads outside of the loop may queue items.
    bool is_locked() const {
#if !defined(BOOST_ASIO_HAS_THREADS)
        return false;
#elif BOOST_ASIO_VERSION >= 103400 // Boost 1.87
        return asio::config(context_).get("scheduler", "locking", true);
#else
        return BOOST_ASIO_CONCURRENCY_HINT_IS_LOCKING(SCHEDULER, scheduler_.concurrency_hint());
#endif
    }

    /// Makes up for the unit of work that the scheduler takes back after fired(). There only.
    void compensate() { scheduler_.compensating_work_started(); }

protected:
    ~scheduler_port() = default;

    static error_code system_error(int error) noexcept {
        return error_code(error, boost::asio::error::get_system_category());
    }

private:
    using scheduler = boost::asio::detail::scheduler;

    asio::execution_context& context_;
    scheduler& scheduler_;
};

/// What is known of the number when its handle leaves the reactor.
enum class number {
    ours,   ///< the number still stands for the file that was attached
    closed, ///< the number is not open
    foreign ///< the number stands for another file, or may: it must not be passed to the kernel
};

//
// A waker is an operation embedded in its owner, which the reactor holds while it is armed. The
// owner is told, through these members:
//   bool speculate<channel>(ec)          called with Asio's lock on the handle held, while arming
//                                        or for an event: fire? Must not take the owner's lock
//   void fired<channel>(told), failed(channel, ec)
//                                        on a thread of the scheduler, which takes back one unit of
//                                        work afterwards
//   void dropped(channel)                the reactor gave the waker back without running it
//   native_handle(), events_of(channel), data()
//                                        io_uring only: what to poll, and for what
//

/// How a waker finds its owner, and returns to it. `Base` is Asio's operation; `EventsTold` says
/// which events there were, or 0.
template <class Base, class Owner, channel Channel, short (*EventsTold)(Base&) noexcept>
class waker_return {
protected:
    static Owner* owner_of(Base* base) { return static_cast<Owner*>(base->cancellation_key_); }

    static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t) {
        Base* base = static_cast<Base*>(item);
        if (BOOST_LIKELY(owner && !base->ec_))
            owner_of(base)->template fired<Channel>(EventsTold(*base));
        else
            failed(owner, base);
    }

    BOOST_NOINLINE static void failed(void* owner, Base* base) {
        error_code ec = std::exchange(base->ec_, error_code()); // it is armed with none
        if (owner)
            owner_of(base)->failed(Channel, ec);
        else
            owner_of(base)->dropped(Channel);
    }
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_BASE_HPP
