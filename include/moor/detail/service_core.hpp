//
// moor/detail/service_core.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What registration_service, its registrations and their states share. It is reference-counted,
// and so outlives the service for as long as anything refers to it: a registration that is left
// over can still ask whether its execution context lives.
//
// One lock, mutex_, guards everything here but checks_ and wait_watch_, which have their own; a
// state's lock may be taken under it, and it under wait_watch_'s, never the other way round.
// Nothing is completed or destroyed under it.
//

#ifndef MOOR_DETAIL_SERVICE_CORE_HPP
#define MOOR_DETAIL_SERVICE_CORE_HPP

#include <moor/detail/config.hpp>
#include <moor/detail/deferred_checks.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/scheduled_io.hpp>
#include <moor/detail/state_table.hpp>
#include <moor/detail/use_checks.hpp>
#include <moor/error.hpp>

#include <boost/core/no_exceptions_support.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>

namespace moor {
namespace detail {

/// What is told that the execution context shuts down, once, outside of every lock.
class shutdown_listener {
protected:
    using callback = void (*)(shutdown_listener&) noexcept;

    explicit shutdown_listener(callback on_shutdown) noexcept : on_shutdown_(on_shutdown) {}
    /// For a listener with references that is told of `service_core::close()`, too: `add_reference`
    /// is called under the service's lock, and then `on_close`, which gives the reference back,
    /// without the lock. Such a listener does not listen any more.
    shutdown_listener(callback on_shutdown, callback add_reference, callback on_close) noexcept
        : on_shutdown_(on_shutdown), add_reference_(add_reference), on_close_(on_close) {}
    ~shutdown_listener() = default;

private:
    friend class service_core;

    callback on_shutdown_;
    callback add_reference_ = nullptr;
    callback on_close_ = nullptr;
    shutdown_listener* next_ = nullptr;
    shutdown_listener** link_ = nullptr; // what points to this one, while it listens
};

class service_core final : public scheduled_io_host {
public:
    explicit service_core(asio::execution_context& context);

    ~service_core();

    friend void intrusive_ptr_add_ref(service_core* c) noexcept {
        c->references_.fetch_add(1, std::memory_order_relaxed);
    }
    friend void intrusive_ptr_release(service_core* c) noexcept {
        if (c->references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            delete c;
    }

    /// The execution context is still there, so its scheduler and executors may be used.
    bool context_exists() const noexcept override {
        return life_.load(std::memory_order_acquire) != dead;
    }

    bool defer(scheduled_io& state, bool is_listed) noexcept override;

    /// For the deferred checks.
    static int poll(::pollfd* polls, ::nfds_t n) noexcept { return ::poll(polls, n, 0); }

    bool is_closed() const noexcept { return closed_.load(std::memory_order_acquire); }

    /// Registers a duplicate of a handle, which is closed when the registration ends.
    scheduled_io_ptr open_duplicate(int handle, trigger mode, error_code& ec);

    /// Registers a handle. On an error nothing has happened to it.
    scheduled_io_ptr open(int handle, trigger mode, error_code& ec, int duplicate_of = -1);

    /// Ends a registration: its waits complete with operation_aborted. `ours`: the number may be
    /// passed to the kernel.
    void end(scheduled_io& state, bool ours);

    /// Ends every registration with `gone`.
    void close();

    /// The execution context is shutting down: handlers are destroyed, not invoked.
    void shutdown();

    /// Ends the operations on numbers that were closed behind their registrations' backs. (In the
    /// loop, which must not throw.)
    void find_closed_numbers();

    void add_listener(shutdown_listener& l) noexcept;
    void remove_listener(shutdown_listener& l) noexcept;

    /// This process is the child of a fork.
    void forked();

    /// The execution context is gone.
    void destroyed() noexcept { life_.store(dead, std::memory_order_release); }

    struct totals {
        wait_counts waits;
        std::uint64_t registered = 0;
        std::uint64_t deregistered = 0;
    };

    totals sum() const;

    /// `asks`: what was not told, too.
    std::vector<scheduled_io_info> infos(bool asks = false) const;

    std::string name_of(const scheduled_io& state) const;

    /// Names a registration until it ends. Without memory, it goes without a name.
    void set_name(const scheduled_io& state, const std::string& name) noexcept;

    std::atomic<unsigned> inline_budget{128};

private:
    enum life : std::uint8_t { alive, shutting_down, dead };

    void recycle(scheduled_io& state) noexcept override;

    /// Not before the first registration: of two threads that use the context for the first time,
    /// each makes a service, and Asio destroys one of the two without a shutdown.
    void watch_closed_numbers();

    /// The registration has ended. (The state may be referred to for long.)
    void keep_counts(scheduled_io& state) noexcept;

    shutdown_listener* take_listener() noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        shutdown_listener* l = listeners_;
        if (l)
            unlink(*l);
        return l;
    }

    /// A listener that is told of close(), with a reference.
    shutdown_listener* take_closed() noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        shutdown_listener* l = listeners_;
        while (l && !l->on_close_)
            l = l->next_;
        if (l) {
            unlink(*l);
            l->add_reference_(*l);
        }
        return l;
    }

    static void unlink(shutdown_listener& l) noexcept {
        if (!l.link_)
            return;
        *l.link_ = l.next_;
        if (l.next_)
            l.next_->link_ = l.link_;
        l.link_ = nullptr;
    }

    scheduled_io_ptr take_free();

    class taken_states;

    mutable state_mutex mutex_;
    state_table<scheduled_io> states_;
    scheduled_io* free_ = nullptr;
    shutdown_listener* listeners_ = nullptr;
    std::uint64_t registered_ = 0;
    std::uint64_t deregistered_ = 0;
    wait_counts ended_;
    bool is_watching_ = false; // closed numbers
    std::atomic<bool> closed_{false};
    std::atomic<life> life_{alive};
    std::atomic<std::uint32_t> references_{0};
    deferred_checks<service_core, scheduled_io> checks_;
    wait_watch<service_core, checks_use> wait_watch_; // the last: it looks at the others
};

#if defined(MOOR_DETAIL_DEFINES)

/// All states, taken out of the table, with a reference to each. They are linked by their
/// `next_free`: a destructor calls, so that no memory may be needed.
class service_core::taken_states {
public:
    explicit taken_states(service_core& core) noexcept {
        std::lock_guard<state_mutex> lock(core.mutex_);
        core.closed_.store(true, std::memory_order_release);
        core.deregistered_ += core.states_.size();
        scheduled_io** end = &first_;
        core.states_.take_all([&](scheduled_io& s) {
            intrusive_ptr_add_ref(&s);
            *end = &s;
            end = &s.next_free;
        });
        *end = nullptr;
    }
    ~taken_states() {
        while (scheduled_io* s = first_) {
            first_ = s->next_free;
            intrusive_ptr_release(s);
        }
    }
    taken_states(const taken_states&) = delete;
    taken_states& operator=(const taken_states&) = delete;

    template <class F>
    void for_each(F f) const {
        for (scheduled_io* s = first_; s; s = s->next_free)
            f(*s);
    }

private:
    scheduled_io* first_ = nullptr;
};

MOOR_DETAIL_DECL service_core::service_core(asio::execution_context& context)
    : scheduled_io_host(context), checks_(*this), wait_watch_(*this) {}

MOOR_DETAIL_DECL service_core::~service_core() {
    while (scheduled_io* s = free_) {
        free_ = s->next_free;
        delete s;
    }
}

MOOR_DETAIL_DECL bool service_core::defer(scheduled_io& state, bool is_listed) noexcept {
    return checks_.defer(state, is_listed);
}

MOOR_DETAIL_DECL scheduled_io_ptr service_core::open_duplicate(int handle, trigger mode,
                                                               error_code& ec) {
    duplicated_handle own;
    own.duplicate(handle);
    if ((ec = own.ec()))
        return nullptr;
    scheduled_io_ptr state = open(own.get(), mode, ec, handle);
    if (state)
        own.release();
    return state;
}

MOOR_DETAIL_DECL scheduled_io_ptr service_core::open(int handle, trigger mode, error_code& ec,
                                                     int duplicate_of) {
    ec = error_code();
    if (is_closed()) {
        ec = error::gone;
        return nullptr;
    }
    if (handle < 0) {
        ec = boost::asio::error::bad_descriptor;
        return nullptr;
    }
    file_identity id = identify(handle, ec);
    if (ec)
        return nullptr;
    scheduled_io_ptr stale;
    scheduled_io_ptr state;
    {
        std::lock_guard<state_mutex> lock(mutex_);
        if (is_closed()) {
            ec = error::gone;
            return nullptr;
        }
        // If it has one, the number was closed behind that registration's back, and is another
        // file now. (A duplicate's number has just been given out.)
        stale.reset(states_.find(handle));
        if (stale && duplicate_of < 0 && stale->identity() == id) {
            ec = error::already_registered;
            return nullptr;
        }
        watch_closed_numbers();
        states_.reserve(handle);
        state = take_free();
        states_.insert(handle, *state);
        state->open(handle, id, mode, duplicate_of);
        ++registered_;
        if (stale)
            ++deregistered_;
    }
    if (stale) {
        check_number(*this, *stale, "deregister it before its owner closes it");
        stale->close(scheduled_io::handle_closed, false);
        keep_counts(*stale);
    }
    return state;
}

MOOR_DETAIL_DECL void service_core::end(scheduled_io& state, bool ours) {
    {
        std::lock_guard<state_mutex> lock(mutex_);
        if (states_.erase(state.native_handle(), state))
            ++deregistered_;
    }
    state.close(scheduled_io::deregistered, ours || state.is_duplicate());
    keep_counts(state);
}

MOOR_DETAIL_DECL void service_core::close() {
    taken_states(*this).for_each([this](scheduled_io& s) {
        s.close(scheduled_io::service_closed, true);
        keep_counts(s);
    });
    while (shutdown_listener* l = take_closed())
        l->on_close_(*l);
}

MOOR_DETAIL_DECL void service_core::shutdown() {
    wait_watch_.stop();
    const taken_states states(*this);
    port.shut_down();
    life_.store(shutting_down, std::memory_order_release);
    item_queue items;
    states.for_each([&](scheduled_io& s) { s.abandon(items); });
    while (shutdown_listener* l = take_listener())
        l->on_shutdown_(*l);
    // `items` is destroyed first, then the references: both outside every lock.
}

MOOR_DETAIL_DECL void service_core::find_closed_numbers() {
    for (int from = 0;;) {
        scheduled_io_ptr closed;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            closed.reset(states_.find_from(
                from, [](const scheduled_io& s) { return is_closed_number(s.native_handle()); }));
        }
        if (!closed)
            return;
        from = closed->native_handle() + 1;
        closed->number_was_closed();
    }
}

MOOR_DETAIL_DECL void service_core::add_listener(shutdown_listener& l) noexcept {
    std::lock_guard<state_mutex> lock(mutex_);
    l.next_ = listeners_;
    l.link_ = &listeners_;
    if (listeners_)
        listeners_->link_ = &l.next_;
    listeners_ = &l;
}

MOOR_DETAIL_DECL void service_core::remove_listener(shutdown_listener& l) noexcept {
    std::lock_guard<state_mutex> lock(mutex_);
    unlink(l);
}

MOOR_DETAIL_DECL void service_core::forked() {
    wait_watch_.forked();
    std::lock_guard<state_mutex> lock(mutex_);
    states_.for_each([](scheduled_io& s) { s.forked(); });
}

MOOR_DETAIL_DECL service_core::totals service_core::sum() const {
    std::lock_guard<state_mutex> lock(mutex_);
    totals t{ended_, registered_, deregistered_};
    states_.for_each([&](const scheduled_io& s) { s.add_counts(t.waits); });
    return t;
}

MOOR_DETAIL_DECL std::vector<scheduled_io_info> service_core::infos(bool asks) const {
    std::lock_guard<state_mutex> lock(mutex_);
    // Under the lock, so that no two threads note a later time before an earlier one.
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    const auto now = static_cast<std::uint32_t>(time / std::chrono::milliseconds(1)) | 1;
    std::vector<scheduled_io_info> v;
    v.reserve(states_.size());
    states_.for_each([&](scheduled_io& s) {
        v.push_back(s.info(asks, now));
        v.back().name = states_.name_of(s);
    });
    return v;
}

MOOR_DETAIL_DECL std::string service_core::name_of(const scheduled_io& state) const {
    std::lock_guard<state_mutex> lock(mutex_);
    return states_.name_of(state);
}

MOOR_DETAIL_DECL void service_core::set_name(const scheduled_io& state,
                                             const std::string& name) noexcept {
    std::lock_guard<state_mutex> lock(mutex_);
    states_.set_name(state.native_handle(), state, name);
}

MOOR_DETAIL_DECL void service_core::recycle(scheduled_io& state) noexcept {
    state.release_data(life_.load(std::memory_order_acquire) == alive);
    {
        std::lock_guard<state_mutex> lock(mutex_);
        state.move_counts(ended_);
        state.next_free = free_;
        free_ = &state;
    }
    intrusive_ptr_release(this);
}

MOOR_DETAIL_DECL void service_core::watch_closed_numbers() {
    if (!std::exchange(is_watching_, true))
        port.watch_closed_numbers(
            [](void* self) { static_cast<service_core*>(self)->find_closed_numbers(); }, this);
}

MOOR_DETAIL_DECL void service_core::keep_counts(scheduled_io& state) noexcept {
    std::lock_guard<state_mutex> lock(mutex_);
    state.move_counts(ended_);
    states_.forget_name(state);
}

MOOR_DETAIL_DECL scheduled_io_ptr service_core::take_free() {
    scheduled_io* s = free_;
    if (s)
        free_ = s->next_free;
    else
        s = new scheduled_io(*this);
    intrusive_ptr_add_ref(this); // recycle() gives it back
    return s;
}

#endif // MOOR_DETAIL_DEFINES

using service_core_ptr = boost::intrusive_ptr<service_core>;

/// How often completions ran inline on this thread since one last came through the scheduler.
class inline_run {
public:
    /// Whether one more may run inline.
    static bool allow(unsigned budget) noexcept {
        counters& c = mine();
        if (c.length < budget)
            return true;
        if (c.depth == 0)
            c.length = 0; // posting ends this run, if no frame of it is left on the stack
        return false;
    }

    /// Surrounds an inline completion.
    inline_run() noexcept {
        ++mine().length;
        ++mine().depth;
    }
    ~inline_run() { --mine().depth; }

    inline_run(const inline_run&) = delete;
    inline_run& operator=(const inline_run&) = delete;

    /// A completion came through the scheduler.
    static void reset() noexcept {
        if (mine().depth == 0)
            mine().length = 0;
    }

private:
    struct counters {
        unsigned length = 0;
        unsigned depth = 0;
    };

    static counters& mine() noexcept {
        thread_local counters c;
        return c;
    }
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_SERVICE_CORE_HPP
