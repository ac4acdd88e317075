//
// moor/detail/poll_list.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The descriptors of a poll_set, and the operation that waits for them, without its handler type.
// poll(2) alone decides what an operation reports. The waits of the registrations say only when to
// call poll(2) again. Nothing is lost:
//   - The operation begins with poll(2). After poll(2) found nothing, each descriptor has a pending
//     wait, and whatever becomes ready later is news to this wait: an edge-triggered wait is told
//     of every event since the last event that a wait of the same state was told of, and a state
//     that the reactor gets to know now is told of what is there. A level-triggered wait checks.
//   - A wait that completes has taken the news, so poll(2) is called once more after each wait that
//     completes during an operation, also between the first poll(2) and the start of the waits.
//   - Nothing of what completes between two operations has to be kept: the next operation begins
//     with poll(2). (Not so for a file that tells each change to one poll(2) only: see `told`.)
// Edge-triggered waits begin without a call of poll(2), which the operation has just made, and do
// not complete again and again where an event means less than poll(2) was asked for.
//

#ifndef MOOR_DETAIL_POLL_LIST_HPP
#define MOOR_DETAIL_POLL_LIST_HPP

#include <moor/detail/mutex.hpp>
#include <moor/detail/poll_copy.hpp>
#include <moor/detail/poll_entry.hpp>
#include <moor/detail/reactor.hpp>
#include <moor/detail/service_core.hpp>
#include <moor/detail/use_checks.hpp>
#include <moor/detail/waiter.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <poll.h>

namespace moor {
namespace detail {

/// An operation without its handler.
class poll_op : public scheduler_item {
public:
    error_code ec;
    std::size_t ready = 0;
    bool is_followed_by_task = false;

    virtual void stop_timer() noexcept = 0;

protected:
    explicit poll_op(func_type do_complete) noexcept : scheduler_item(do_complete) {}
    ~poll_op() = default;
};

/// The registrations, and the operation.
/**
 * `mutex_` guards all of it. It is taken before the service's lock. Without it, operations are
 * completed, timers destroyed, and mistakes reported.
 */
class poll_list final : private shutdown_listener {
public:
    /// `is_kept`: the registrations stay when an operation is over.
    poll_list(service_core_ptr core, bool is_kept) noexcept
        : shutdown_listener(&poll_list::shut_down, &poll_list::add_reference,
                            &poll_list::service_closed),
          core_(std::move(core)), is_kept_(is_kept) {}
    poll_list(const poll_list&) = delete;
    poll_list& operator=(const poll_list&) = delete;

    ~poll_list() { drop_all(); }

    friend void intrusive_ptr_add_ref(poll_list* l) noexcept {
        l->references_.fetch_add(1, std::memory_order_relaxed);
    }
    friend void intrusive_ptr_release(poll_list* l) noexcept {
        if (l->references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            delete l;
    }

    service_core& core() const noexcept { return *core_; }

    // ---- the operation --------------------------------------------------------------------------

    /// Begins an operation, with poll(2). Zero: it is over. Otherwise its number; wait() is next.
    std::uint64_t begin(poll_op& op, ::pollfd* fds, std::size_t n, bool may_wait) {
        list_lock lock(*this);
        if (core_->is_closed())
            op.ec = error::gone;
        else if (op_)
            op.ec = asio::error::already_started;
        else if (poll_copy::is_too_long(n))
            op.ec = asio::error::invalid_argument;
        if (op.ec)
            return 0;
        polls_.assign(fds, n);
        ++number_;
        must_poll_ = false;
        op.ready = poll(op.ec);
        if (op.ready != 0 || op.ec || !may_wait) {
            if (!op.ec)
                polls_.tell();
            return 0;
        }
        op_ = &op;
        is_starting_ = true;
        return number_;
    }

    /// The operation can't wait after all: it is not known here any more.
    void withdraw() noexcept {
        list_lock lock(*this);
        op_ = nullptr;
        is_starting_ = is_over_ = false;
        if (is_kept_)
            poll_soon(); // whose task ends the waits of earlier operations
    }

    /// Has the operation wait, unless it is over already.
    void wait() {
        poll_op* over;
        {
            list_lock lock(*this);
            core_->port.work_started();
            core_->add_listener(*this);
            is_starting_ = false;
            if (is_over_)
                over = take();
            else if (core_->is_closed()) // since begin(); later, the listener is told
                over = finish(error::gone);
            else
                over = guarded([this] { return wait_for_all(true); });
        }
        complete(over);
    }

    /// Ends the operation of this number, or any. The caller's list is left alone.
    void cancel(std::uint64_t number = 0) {
        poll_op* over = nullptr;
        {
            list_lock lock(*this);
            if (is_pending(number))
                over = finish(asio::error::operation_aborted);
        }
        complete(over);
    }

    /// The time is over. As poll(2) does, asks once more.
    void expire(std::uint64_t number) {
        poll_op* over = nullptr;
        {
            list_lock lock(*this);
            if (is_pending(number)) {
                error_code ec;
                const std::size_t ready = poll(ec);
                over = finish(core_->is_closed() ? make_error_code(error::gone) : ec, ready);
            }
        }
        complete(over);
    }

    void close() {
        poll_op* over = nullptr;
        {
            list_lock lock(*this);
            drop_all();
            is_kept_ = false;
            if (is_pending(0))
                over = finish(asio::error::operation_aborted);
        }
        complete(over);
    }

    /// A number stands for another file, or is about to.
    void forget(int number) {
        list_lock lock(*this);
        if (number < 0 || static_cast<std::size_t>(number) >= entries_.size())
            return;
        std::unique_ptr<poll_entry>& e = entries_[static_cast<std::size_t>(number)];
        if (!e)
            return;
        drop(e, false);
        if (op_) {
            must_register_ = true;
            poll_soon();
        }
    }

private:
    friend class poll_entry;

    /// What a registration finds to report is told when the lock has been given back.
    class list_lock {
    public:
        explicit list_lock(poll_list& l) : lock_(l.mutex_) {}

    private:
        [[maybe_unused]] deferred_reports<checks_use> reports_; // the first: destroyed last
        state_lock lock_;
    };

    /// What has to be done in the loop: to call poll(2) again, or to end the waits of a set without
    /// an operation, which keep the loop running.
    class task final : public scheduler_item {
    public:
        task() noexcept : scheduler_item(&task::do_complete) {}

        poll_list_ptr keep; // while it is queued

    private:
        static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t) {
            task* t = static_cast<task*>(item);
            poll_list_ptr list = std::move(t->keep);
            if (owner)
                list->run_task();
        }
    };

    std::size_t poll(error_code& ec) noexcept {
        must_poll_ = false;
        const std::size_t n = polls_.poll(ec);
        return n + (has_changes_ && !ec ? add_changes() : 0);
    }

    /// Some files tell a change to one poll(2) only, which was the reactor's.
    std::size_t add_changes() noexcept {
        std::size_t n = 0;
        for (::pollfd& p : polls_)
            if (const poll_entry* e = find(p.fd);
                e && p.revents == 0 && !e->told.empty() && e->io && e->is_same_file()) {
                p.revents = e->told_events(p.events);
                n += p.revents != 0;
            }
        for (const std::unique_ptr<poll_entry>& e : entries_)
            if (e)
                e->told = readiness();
        has_changes_ = false;
        return n;
    }

    // ---- the end of an operation ----------------------------------------------------------------

    bool is_pending(std::uint64_t number) const noexcept {
        return op_ && !is_over_ && (number == 0 || number == number_);
    }

    /// Returns the operation, for complete(); null while it is being started.
    poll_op* finish(const error_code& ec, std::size_t ready = 0) noexcept {
        op_->ec = ec;
        op_->ready = ec ? 0 : ready;
        if (!ec)
            polls_.tell();
        is_over_ = true;
        return is_starting_ ? nullptr : take();
    }

    poll_op* take() noexcept {
        is_over_ = false;
        core_->remove_listener(*this);
        if (!is_kept_)
            drop_all();
        else if (!is_task_queued_)
            op_->is_followed_by_task = keep_task();
        return std::exchange(op_, nullptr);
    }

    void complete(poll_op* op) {
        if (!op)
            return;
        const bool has_task = op->is_followed_by_task;
        if (has_task) // before the handler can be the last thing to do
            core_->port.work_started();
        op->stop_timer();
        core_->port.post_counted(op);
        if (has_task)
            core_->port.post_counted(&task_);
    }

    static void shut_down(shutdown_listener& l) noexcept {
        poll_list& list = static_cast<poll_list&>(l);
        const poll_list_ptr keep(&list);
        poll_op* op;
        {
            list_lock lock(list);
            op = std::exchange(list.op_, nullptr);
        }
        if (op)
            op->destroy();
    }

    static void add_reference(shutdown_listener& l) noexcept {
        intrusive_ptr_add_ref(&static_cast<poll_list&>(l));
    }

    /// The waits have ended already, if there were any.
    static void service_closed(shutdown_listener& l) noexcept {
        const poll_list_ptr list(&static_cast<poll_list&>(l), false);
        poll_op* over = nullptr;
        {
            list_lock lock(*list);
            if (list->is_pending(0))
                over = list->finish(error::gone);
        }
        list->complete(over);
    }

    /// `f` returns an operation that is over, or null. Without memory, the operation is over.
    template <class F>
    poll_op* guarded(F f) noexcept {
        poll_op* over = nullptr;
        bool failed = false;
        BOOST_TRY { over = f(); }
        BOOST_CATCH(...) { failed = true; }
        BOOST_CATCH_END
        return failed && is_pending(0) ? finish(asio::error::no_memory) : over;
    }

    bool keep_task() noexcept {
        is_task_queued_ = true;
        task_number_ = number_;
        task_.keep.reset(this);
        return true;
    }

    void poll_soon() {
        must_poll_ = true;
        if (!is_task_queued_ && keep_task())
            core_->port.post_new(&task_);
    }

    void run_task() {
        poll_op* over = nullptr;
        {
            list_lock lock(*this);
            is_task_queued_ = false;
            if (op_) {
                if (must_poll_ && !is_starting_)
                    over = poll_again();
            } else if (task_number_ != number_) {
                keep_task(); // an operation was over at once: its handler is next
                core_->port.post_new(&task_);
            } else {
                for (int number : numbers_)
                    if (poll_entry* e = find(number); e && e->has_duplicate())
                        drop(entries_[static_cast<std::size_t>(number)], true); // keeps a file open
                    else if (e && e->waits)
                        e->io->cancel(interest());
            }
        }
        complete(over);
    }

    // ---- waiting --------------------------------------------------------------------------------

    /// A wait of `e` has come back.
    void came_back(poll_entry& e) {
        poll_op* over = nullptr;
        std::unique_ptr<poll_entry> dropped;
        {
            list_lock lock(*this);
            const error_code ec = e.waits->ec();
            const readiness r = e.waits->event().ready();
            e.waits.reset();
            if (e.is_dropped) {
                dropped.reset(&e);
            } else {
                note_change(e, r);
                if (is_starting_)
                    must_poll_ = must_poll_ || ec != asio::error::operation_aborted;
                else if (op_)
                    over = ec == asio::error::operation_aborted
                               ? guarded([&] { return start_wait(e); })
                               : poll_again(e, ec);
            }
        }
        complete(over);
    }

    /// The execution context is shutting down.
    void was_destroyed(poll_entry& e) noexcept {
        std::unique_ptr<poll_entry> dropped;
        list_lock lock(*this);
        e.waits.reset();
        if (e.is_dropped)
            dropped.reset(&e);
    }

    void note_change(poll_entry& e, readiness r) noexcept {
        r &= interest::priority | interest::error; // data and room are states
        if (e.tells_state || r.empty())
            return;
        e.told |= r;
        has_changes_ = true;
    }

    /// After a wait that was not cancelled.
    poll_op* poll_again(poll_entry& e, const error_code& ec) noexcept {
        if (ec == error::gone)
            return finish(ec);
        if (ec == asio::error::bad_descriptor) {
            e.end(*core_, true); // another one may be there by now
            must_register_ = true;
        } else if (ec) {
            error_code failed;
            const std::size_t ready = poll(failed);
            return ready != 0 && !failed ? finish(failed, ready) : finish(ec);
        }
        return poll_again();
    }

    poll_op* poll_again() noexcept {
        error_code ec;
        const std::size_t ready = poll(ec);
        if (ready != 0 || ec)
            return finish(ec, ready);
        return guarded([this] { return wait_for_all(must_register_); });
    }

    /// Returns the operation if it is over.
    poll_op* start_wait(poll_entry& e) {
        const error_code ec = wait_for(e);
        return ec ? finish(ec) : nullptr;
    }

    /// Has each number wait. `is_new`: the list, or what its numbers stand for, may have changed.
    poll_op* wait_for_all(bool is_new) {
        if (is_new)
            renew();
        must_register_ = false;
        for (int number : numbers_)
            if (poll_entry* e = find(number))
                if (poll_op* over = start_wait(*e))
                    return over;
        if (must_poll_) // a wait completed while the operation was being started
            poll_soon();
        return nullptr;
    }

    /// Makes the entries what the list says.
    void renew() {
        ++pass_;
        std::size_t size = entries_.size();
        for (const ::pollfd& p : polls_)
            if (p.fd >= 0 && static_cast<std::size_t>(p.fd) >= size)
                size = static_cast<std::size_t>(p.fd) + 1;
        entries_.resize(size);
        next_.clear();
        for (const ::pollfd& p : polls_) {
            if (p.fd < 0)
                continue;
            std::unique_ptr<poll_entry>& e = entries_[static_cast<std::size_t>(p.fd)];
            if (e && e->pass != pass_ && e->io && !e->is_same_file())
                drop(e, true);
            if (!e)
                e = std::make_unique<poll_entry>(p.fd);
            if (std::exchange(e->pass, pass_) != pass_) {
                e->events = 0;
                next_.push_back(p.fd);
            }
            e->events = static_cast<short>(e->events | p.events);
        }
        numbers_.swap(next_);
        for (int number : next_)
            if (std::unique_ptr<poll_entry>& e = entries_[static_cast<std::size_t>(number)];
                e && e->pass != pass_)
                drop(e, true);
    }

    /// Has a number wait, unless it does already.
    error_code wait_for(poll_entry& e) {
        if (e.is_constant)
            return error_code();
        const interest want = e.want();
        if (e.waits) {
            if (!e.waits->want().contains(want))
                e.io->cancel(interest()); // waits for more when it has come back
            return error_code();
        }
        if (e.io && e.io->mode() != e.mode())
            e.end(*core_, true);
        error_code ec;
        for (;;) {
            ec = e.io ? error_code() : e.open(*core_);
            if (!ec && start(e, want, ec))
                return error_code();
            if (ec != error::registered_elsewhere || e.has_duplicate())
                break;
            e.end(*core_, true);
            if ((ec = e.open_duplicate(*core_)))
                break;
        }
        if (ec == asio::error::operation_not_supported)
            e.is_constant = true;
        else if (ec != asio::error::bad_descriptor)
            return ec;
        else { // which poll(2) reports, if it is still so
            e.end(*core_, true);
            must_register_ = true;
            poll_soon();
        }
        return error_code();
    }

    /// Starts the wait. False: it is over.
    bool start(poll_entry& e, interest want, error_code& ec) {
        e.waits.emplace(e, want);
        e.owner.reset(this);
        bool is_started = false;
        struct frame {
            poll_entry& e;
            bool& is_started;
            ~frame() {
                if (is_started)
                    return;
                e.waits.reset();
                e.owner.reset(); // not the last
            }
        } f{e, is_started};
        is_started = e.io->start(*e.waits);
        if (is_started)
            return true;
        ec = e.waits->ec();
        if (e.waits->has_unit())
            core_->port.work_finished();
        if (!ec) {
            note_change(e, e.waits->event().ready());
            e.is_constant = e.io->info().always_ready;
            if (!e.is_constant)
                poll_soon(); // the news may be old
        }
        return false;
    }

    void drop(std::unique_ptr<poll_entry>& e, bool ours) noexcept {
        e->end(*core_, ours);
        if (e->waits) {
            e->is_dropped = true;
            (void)e.release(); // came_back() deletes it
        }
        e.reset();
    }

    void drop_all() noexcept {
        for (std::unique_ptr<poll_entry>& e : entries_)
            if (e)
                drop(e, true);
    }

    poll_entry* find(int number) const noexcept {
        const auto index = static_cast<std::size_t>(number);
        return number >= 0 && index < entries_.size() ? entries_[index].get() : nullptr;
    }

    const service_core_ptr core_;
    state_mutex mutex_;
    std::atomic<std::uint32_t> references_{0};

    poll_op* op_ = nullptr;
    poll_copy polls_;
    std::uint64_t number_ = 0; // of the operation
    bool is_kept_;
    bool is_starting_ = false;   // begin() was called, and wait() is next
    bool is_over_ = false;       // meanwhile
    bool must_poll_ = false;     // a wait has completed since the last poll(2)
    bool must_register_ = false; // and a number has no registration any more
    bool has_changes_ = false;   // an entry was told of a change

    std::vector<std::unique_ptr<poll_entry>> entries_; // by number
    std::vector<int> numbers_;                         // that the last list had, each once
    std::vector<int> next_;
    std::uint64_t pass_ = 0;

    task task_;
    bool is_task_queued_ = false;
    std::uint64_t task_number_ = 0; // of the last operation when the task was queued
};

inline void poll_entry::wait::do_complete(void* owner, scheduler_item* item, const error_code&,
                                          std::size_t) {
    poll_entry& e = static_cast<wait*>(item)->entry_;
    const poll_list_ptr list = std::move(e.owner);
    if (owner)
        list->came_back(e);
    else
        list->was_destroyed(e);
}

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_POLL_LIST_HPP
