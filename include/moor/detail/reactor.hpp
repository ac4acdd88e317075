//
// moor/detail/reactor.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The only file of Moor that names boost::asio::detail, and the only one that differs by Boost
// version, reactor or build mode. What the rest of Moor asks of the ground it stands on is the
// interface of reactor_port and basic_waker below; see doc/design.adoc for why it stands there.
//

#ifndef MOOR_DETAIL_REACTOR_HPP
#define MOOR_DETAIL_REACTOR_HPP

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
#include <boost/asio/detail/reactor.hpp>
#include <boost/asio/detail/scheduler.hpp>
#include <boost/asio/detail/scheduler_operation.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/version.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
#include <boost/asio/detail/io_uring_operation.hpp>
#include <boost/asio/detail/io_uring_service.hpp>
#else
#include <boost/asio/detail/reactor_op.hpp>
#endif

#if defined(__linux__)
#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>
#endif

#if BOOST_ASIO_VERSION >= 102700 // Boost 1.82
#include <boost/asio/associated_immediate_executor.hpp>
#endif

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
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
enum channel : unsigned { read_channel = 0, write_channel = 1, priority_channel = 2 };

inline constexpr unsigned channel_count = 3;

//
// Immediate executors came with Boost 1.82.
//
#if BOOST_ASIO_VERSION >= 102700

template <class Handler, class IoExecutor, class = void>
struct has_immediate_executor : std::true_type {};

template <class Handler, class IoExecutor>
struct has_immediate_executor<
    Handler, IoExecutor,
    std::void_t<typename asio::associated_immediate_executor<
        Handler, IoExecutor>::asio_associated_immediate_executor_is_unspecialised>>
    : std::false_type {};

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

//
// A waker: an operation embedded in its owner, that the reactor holds while it is armed.
//
// The owner is told, through these members:
//   bool speculate<channel>(ec)          called with Asio's lock on the handle held, while arming
//                                        or for an event: fire? Must not take the owner's lock
//   void fired<channel>(ec)              on a thread of the scheduler, which takes back one unit of
//                                        work afterwards
//   void dropped(channel)                the reactor gave the waker back without running it
//   native_handle(), events_of(channel), data()
//                                        io_uring only: what to poll, and for what
//
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
using waker_base = boost::asio::detail::io_uring_operation;
#else
using waker_base = boost::asio::detail::reactor_op;
#endif

/// How a waker finds its owner, and comes home to it.
template <class Owner, channel Channel>
class waker_return {
protected:
    static Owner* owner_of(waker_base* base) {
        return static_cast<Owner*>(base->cancellation_key_);
    }

    static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t) {
        waker_base* base = static_cast<waker_base*>(item);
        if (BOOST_LIKELY(owner && !base->ec_))
            owner_of(base)->template fired<Channel>(error_code());
        else
            failed(owner, base);
    }

    BOOST_NOINLINE static void failed(void* owner, waker_base* base) {
        error_code ec = std::exchange(base->ec_, error_code()); // it is armed with none
        if (owner)
            owner_of(base)->template fired<Channel>(ec);
        else
            owner_of(base)->dropped(Channel);
    }
};

#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)

template <class Owner, channel Channel>
class basic_waker : public waker_base, private waker_return<Owner, Channel> {
public:
    explicit basic_waker(Owner* owner)
        : waker_base(error_code(), &basic_waker::do_prepare, &basic_waker::do_perform,
                     &basic_waker::do_complete) {
        cancellation_key_ = owner;
    }

private:
    using waker_return<Owner, Channel>::owner_of;

    static void do_prepare(waker_base* base, ::io_uring_sqe* sqe) {
        Owner* owner = owner_of(base);
        if (Channel == priority_channel ||
            (Channel == write_channel && owner->data().writes_through_set))
            ::io_uring_prep_poll_add(sqe, owner->data().priority_set, POLLIN);
        else
            ::io_uring_prep_poll_add(sqe, owner->native_handle(),
                                     static_cast<unsigned>(Owner::events_of(Channel)));
    }

    static bool do_perform(waker_base*, bool after_completion) { return after_completion; }
};

#else

template <class Owner, channel Channel>
class basic_waker : public waker_base, private waker_return<Owner, Channel> {
public:
    explicit basic_waker(Owner* owner)
        : waker_base(error_code(), &basic_waker::do_perform, &basic_waker::do_complete) {
        cancellation_key_ = owner;
    }

private:
    using waker_return<Owner, Channel>::owner_of;

    static status do_perform(waker_base* base) {
        // "Exhausted" makes Asio forget that there was an event: its try_speculative_ flag is then
        // the latch that remembers the next one until the waker is armed again.
        return owner_of(base)->template speculate<Channel>(base->ec_) ? done_and_exhausted
                                                                      : not_done;
    }
};

#endif

//
// The port: one execution context's reactor and scheduler.
//
class reactor_port {
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
    using reactor = boost::asio::detail::io_uring_service;
#else
    using reactor = boost::asio::detail::reactor;
#endif
    using scheduler = boost::asio::detail::scheduler;

public:
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
    static constexpr const char* name = "io_uring";
#elif defined(BOOST_ASIO_HAS_EPOLL)
    static constexpr const char* name = "epoll";
#elif defined(BOOST_ASIO_HAS_KQUEUE)
    static constexpr const char* name = "kqueue";
#elif defined(BOOST_ASIO_HAS_DEV_POLL)
    static constexpr const char* name = "dev_poll";
#else
    static constexpr const char* name = "select";
#endif

    /// Whether an event that finds no waker armed is remembered until one is, and never forgotten
    /// or made up. Elsewhere arming itself looks at the handle, or speculate() must.
#if !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT) && defined(BOOST_ASIO_HAS_EPOLL)
    static constexpr bool latches_events = true;
#else
    static constexpr bool latches_events = false;
#endif

    /// Whether Asio keeps an object for each attached handle, which has to be given back.
#if !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT) &&                                                \
    (defined(BOOST_ASIO_HAS_EPOLL) || defined(BOOST_ASIO_HAS_KQUEUE))
    static constexpr bool keeps_objects = true;
#else
    static constexpr bool keeps_objects = false;
#endif

    /// Whether arm() may throw: Asio's epoll reactor allocates nothing in start_op().
    static constexpr bool arming_may_throw = !latches_events;

    /// Whether speculate() is asked before a waker fires for an event. A poll request is not: it
    /// completes by itself, and with what woke it, which is more than what is there (out-of-band
    /// data wakes it for POLLIN), so that its events have to be verified.
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
    static constexpr bool announces_firing = false;
#else
    static constexpr bool announces_firing = true;
#endif

    /// Whether the priority channel takes a mask of events, so that closing events (RDHUP, HUP,
    /// ERR) can be waited for there, without being woken for data; otherwise they come with the
    /// read channel. select(2) and poll requests have no such channel, and would spin for as long
    /// as data is left unread, or a hang-up lasts: there it is an edge-triggered epoll set of its
    /// own, made for a handle that is first waited for in this way.
#if defined(__linux__) &&                                                                          \
    (defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT) || !defined(BOOST_ASIO_HAS_EPOLL))
    static constexpr bool masks_priority = true;
#else
    static constexpr bool masks_priority = false;
#endif

    /// Whether arming a reader beside a priority waker has what is unread reported again. (Asio's
    /// epoll reactor does that by EPOLL_CTL_MOD.)
#if !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT) && defined(BOOST_ASIO_HAS_EPOLL)
    static constexpr bool reports_again_beside_priority = true;
#else
    static constexpr bool reports_again_beside_priority = false;
#endif

    /// What is kept for an attached handle.
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
    struct registration_data {
        reactor::per_io_object_data object = nullptr;
        int priority_set = -1;
        bool writes_through_set = false;
        unsigned refusals = 0; // of poll requests, in a row
    };
#elif defined(__linux__) && !defined(BOOST_ASIO_HAS_EPOLL)
    struct registration_data {
        reactor::per_descriptor_data object{};
        reactor::per_descriptor_data priority_object{};
        int priority_set = -1;
    };
#else
    struct registration_data {
        reactor::per_descriptor_data object{};
    };
#endif

    /// What is known of the number when its handle leaves the reactor.
    enum class number {
        ours,   ///< it is still the file that was attached
        closed, ///< it is not open
        foreign ///< it is another file, or may be: it must not be passed to the kernel
    };

    explicit reactor_port(asio::execution_context& context)
        : context_(context), reactor_(asio::use_service<reactor>(context)),
          scheduler_(asio::use_service<scheduler>(context)) {
        reactor_.init_task();
    }

    asio::execution_context& context() const noexcept { return context_; }

    /// Whether attach() can arm the read waker on the way (and counts no work for it).
    static constexpr bool attach_arms_reader = latches_events;

    /// Tells the reactor of a handle. EPERM: it can't be polled, and is not attached.
    template <class Read>
    error_code attach(int handle, registration_data& data, Read* read) {
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
        (void)handle, (void)read;
        reactor_.register_io_object(data.object);
        return error_code();
#else
        int result = 0;
        if (attach_arms_reader && read) {
            // register_descriptor() would hide EPERM, and a fork would then throw in the child.
            // With the waker queued before the handle is added, its present readiness is an event
            // that can't be missed.
            result =
                reactor_.register_internal_descriptor(reactor::read_op, handle, data.object, read);
            if (result != 0)
                reactor_.deregister_internal_descriptor(-1, data.object); // drops the waker
        } else {
            result = reactor_.register_descriptor(handle, data.object);
        }
        if (result != 0)
            reactor_.cleanup_descriptor_data(data.object);
        return system_error(result);
#endif
    }

    /// Whether detach() drops the armed wakers before it returns. Otherwise they come back by
    /// firing with operation_aborted, for which the caller counts one unit of work each.
    static constexpr bool detaches_at_once(number n) noexcept {
        return keeps_objects && n != number::foreign;
    }

    /// Takes a handle out of the reactor.
    /**
     * epoll keeps the file of a handle that was closed first for as long as a duplicate of it
     * lives, and goes on to report its events to the object that Asio made for it, which Asio
     * hands to the next handle. `is_suspect()` tells of such an object; events for it have to be
     * verified.
     */
    template <class Read, class Write, class Priority>
    void detach(int handle, registration_data& data, number n, Read& read, Write& write,
                Priority* priority) {
#if !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT) &&                                                \
    (defined(BOOST_ASIO_HAS_EPOLL) || defined(BOOST_ASIO_HAS_KQUEUE))
        (void)read, (void)write, (void)priority;
        if (n != number::ours)
            suspect(data);
        if (n != number::foreign)
            reactor_.deregister_internal_descriptor(handle, data.object);
        else
            reactor_.deregister_descriptor(handle, data.object, true);
        reactor_.cleanup_descriptor_data(data.object);
#else
        // By key, so that nobody else's operations on the same number are hit.
        (void)n;
        disarm(read_channel, read, handle, data);
        disarm(write_channel, write, handle, data);
        if (priority)
            disarm(priority_channel, *priority, handle, data);
#endif
    }

    /// Whether an attached handle may be told of another file's events.
    bool is_suspect(const registration_data& data) {
#if !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT) &&                                                \
    (defined(BOOST_ASIO_HAS_EPOLL) || defined(BOOST_ASIO_HAS_KQUEUE))
        if (!any_suspects_.load(std::memory_order_acquire))
            return false;
        std::lock_guard<std::mutex> lock(suspects_mutex_);
        return all_suspect_ || suspects_.count(data.object) != 0;
#else
        (void)data;
        return false;
#endif
    }

    /// Gives back what is kept for a handle, once every waker has come home. The reactor may have
    /// been shut down, and has forgotten everything then.
    void release(registration_data& data, bool reactor_alive) {
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
        if (reactor_alive) {
            reactor_.deregister_io_object(data.object);
            reactor_.cleanup_io_object(data.object);
        }
#else
        (void)reactor_alive;
#endif
        if constexpr (masks_priority)
            close_priority_set(data);
        data = registration_data();
    }

    /// Whether a poll request completes at once for POLLRDHUP, whatever it asked for: a writer on a
    /// socket whose peer only has nothing more to say would be woken again and again. (The kernel
    /// lets that flag through beside POLLERR and POLLHUP: IO_POLL_UNMASK in its io_uring/poll.c.)
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
    static constexpr bool read_closed_wakes_writers = true;
#else
    static constexpr bool read_closed_wakes_writers = false;
#endif

    /// Has the write waker, which is at home, look at the priority channel's set in place of the
    /// handle from now on, or no longer. The set has to watch for POLLOUT then.
    static void write_through_set(registration_data& data, bool on) noexcept {
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
        data.writes_through_set = on;
#else
        (void)data, (void)on;
#endif
    }
    static bool writes_through_set(const registration_data& data) noexcept {
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
        return data.writes_through_set;
#else
        return (void)data, false;
#endif
    }

    /// Has the priority channel report these events, and what is there of them already.
    error_code watch_priority(int handle, registration_data& data, short events) {
        if constexpr (masks_priority)
            return system_error(watch(handle, data, events));
        else
            return (void)handle, (void)data, (void)events, error_code();
    }

    /// The same in the child of a fork, which has the parent's set so far. (Its number stays: Asio
    /// knows it.) Throws if the kernel refuses, as Asio does.
    void renew_priority(int handle, registration_data& data, short events) {
        if constexpr (masks_priority)
            if (error_code ec = system_error(renew(handle, data, events)))
                boost::throw_exception(boost::system::system_error(ec, "notify_fork"));
        (void)handle, (void)data, (void)events;
    }

    /// A waker that looks at the set has fired; before the handle is looked at.
    void acknowledge_priority(registration_data& data) {
        if constexpr (masks_priority)
            fetch_priority(data);
        else
            (void)data;
    }

    /// Puts a waker into the reactor, and counts one unit of work.
    template <class Waker>
    void arm(channel c, Waker& waker, int handle, registration_data& data) {
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
        (void)handle; // the waker asks for it when it is submitted
        reactor_.start_op(static_cast<int>(c), data.object, &waker, false);
#else
#if defined(__linux__) && !defined(BOOST_ASIO_HAS_EPOLL)
        if (c == priority_channel)
            return reactor_.start_op(reactor::read_op, data.priority_set, data.priority_object,
                                     &waker, false, true);
#endif
        reactor_.start_op(op_type(c), handle, data.object, &waker, false, true);
#endif
    }

    /// Takes a waker back out; it fires with operation_aborted, if it is in the reactor at all.
    template <class Waker>
    void disarm(channel c, Waker& waker, int handle, registration_data& data) {
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
        (void)handle;
        reactor_.cancel_ops_by_key(data.object, static_cast<int>(c), waker.cancellation_key_);
#else
#if defined(__linux__) && !defined(BOOST_ASIO_HAS_EPOLL)
        if (c == priority_channel)
            return reactor_.cancel_ops_by_key(data.priority_set, data.priority_object,
                                              reactor::read_op, waker.cancellation_key_);
#endif
        reactor_.cancel_ops_by_key(handle, data.object, op_type(c), waker.cancellation_key_);
#endif
    }

    /// Queues an item that no work was counted for.
    void post_new(scheduler_item* item) { scheduler_.post_immediate_completion(item, false); }

    /// The same, cheaper, for the last thing that an item does in the loop: nobody sees it before.
    void post_later(scheduler_item* item) { scheduler_.post_immediate_completion(item, true); }

    /// Whether this thread is in the loop.
    bool runs_here() { return scheduler_.can_dispatch(); }

    /// Queues items whose work was counted.
    void post_counted(scheduler_item* item) { scheduler_.post_deferred_completion(item); }
    void post_counted(item_queue& items) { scheduler_.post_deferred_completions(items); }

    void work_started() { scheduler_.work_started(); }
    void work_finished() { scheduler_.work_finished(); }

    /// Whether what a waker was given says nothing of its handle, so that it is to be armed again:
    /// the result of a cancellation that was not its own, which Asio's io_uring service gives
    /// before Boost 1.82 (chriskohlhoff/asio, pull request 1215); or EINVAL, which the kernel
    /// (6.18) answers to some poll requests on a terminal that it takes when they are made again.
    static bool says_nothing(registration_data& data, const error_code& ec) noexcept {
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
        bool is_refused = ec == boost::system::errc::invalid_argument;
        if (is_refused && ++data.refusals != most_refusals)
            return true;
        data.refusals = 0;
        return ec == boost::system::errc::no_such_file_or_directory;
#else
        return (void)data, (void)ec, false;
#endif
    }
    static constexpr unsigned most_refusals = 8;

    /// Whether an event that was fetched for a handle is still in the scheduler's queue. For a
    /// thread beside which no other one runs the scheduler; beside one that has handled no event of
    /// Moor's yet, which nobody here can know of, it is a race whose answer may be wrong.
    /**
     * epoll's events are queued in one batch, and behind them goes the scheduler's own turn at the
     * reactor: an operation that is queued has a successor.
     */
    bool has_queued_event(const registration_data& data) const noexcept {
#if !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT) && defined(BOOST_ASIO_HAS_EPOLL)
        // A C-style cast, since Asio keeps the base private.
        return boost::asio::detail::op_queue<scheduler_item>().is_enqueued(
            (scheduler_item*)data.object);
#else
        return (void)data, false;
#endif
    }

    /// Makes up for the unit of work that the scheduler takes back after fired(). There only.
    void compensate() { scheduler_.compensating_work_started(); }

private:
    static error_code system_error(int error) noexcept {
        return error_code(error, boost::asio::error::get_system_category());
    }

#if !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
    static constexpr int op_type(channel c) noexcept {
        return c == read_channel    ? static_cast<int>(reactor::read_op)
               : c == write_channel ? static_cast<int>(reactor::write_op)
                                    : static_cast<int>(reactor::except_op);
    }
#endif

#if defined(__linux__)
    template <class Data>
    static int watch(int handle, Data& data, short events) noexcept {
        bool is_new = data.priority_set < 0;
        if (is_new && (data.priority_set = ::epoll_create1(EPOLL_CLOEXEC)) < 0)
            return errno;
        ::epoll_event event{};
        // poll's flags have epoll's values.
        event.events = static_cast<unsigned short>(events) | static_cast<unsigned>(EPOLLET);
        if (::epoll_ctl(data.priority_set, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, handle,
                        &event) == 0)
            return 0;
        int error = errno;
        if (is_new)
            close_priority_set(data);
        return error;
    }

    template <class Data>
    static int renew(int handle, Data& data, short events) noexcept {
        if (data.priority_set < 0)
            return 0;
        int number = std::exchange(data.priority_set, -1);
        int error = watch(handle, data, events);
        if (error == 0 && ::dup3(data.priority_set, number, O_CLOEXEC) < 0)
            error = errno;
        close_priority_set(data);
        data.priority_set = number;
        return error;
    }

    template <class Data>
    static void fetch_priority(Data& data) noexcept {
        ::epoll_event event;
        ::epoll_wait(data.priority_set, &event, 1, 0);
    }

    template <class Data>
    static void close_priority_set(Data& data) noexcept {
        if (data.priority_set >= 0)
            ::close(data.priority_set);
        data.priority_set = -1;
    }
#endif

    asio::execution_context& context_;
    reactor& reactor_;
    scheduler& scheduler_;

#if !defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT) &&                                                \
    (defined(BOOST_ASIO_HAS_EPOLL) || defined(BOOST_ASIO_HAS_KQUEUE))
    void suspect(const registration_data& data) noexcept {
        std::lock_guard<std::mutex> lock(suspects_mutex_);
        BOOST_TRY { suspects_.insert(data.object); }
        BOOST_CATCH(...) {
            all_suspect_ = true; // out of memory: each event of all that is attached is looked up
        }
        BOOST_CATCH_END
        any_suspects_.store(true, std::memory_order_release);
    }

    // Bounded by the number of objects that Asio ever made.
    std::set<const void*> suspects_;
    bool all_suspect_ = false;
    std::mutex suspects_mutex_;
    std::atomic<bool> any_suspects_{false};
#endif
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_HPP
