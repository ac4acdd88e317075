// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Asio's epoll reactor and its scheduler, simulated.

#ifndef MOOR_TEST_SUPPORT_SIMULATED_REACTOR_HPP
#define MOOR_TEST_SUPPORT_SIMULATED_REACTOR_HPP

#include "support/simulated_kernel.hpp"

#include <moor/detail/mutex.hpp>
#include <moor/detail/reactor_base.hpp>
#include <moor/error.hpp>

#include <boost/asio/execution_context.hpp>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <functional>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include <poll.h>

namespace test {
namespace simulated {

using moor::error_code;

/// What Asio's reactor queues for a handle, as its reactor_op.
struct reactor_op : detail::scheduler_item {
    using perform_type = bool (*)(reactor_op*);

    reactor_op(perform_type p, func_type f) : scheduler_operation(f), perform(p) {}

    error_code ec_;
    void* cancellation_key_ = nullptr;
    const perform_type perform;
};

/// The simulated reactor and scheduler.
class port {
    using item = detail::scheduler_item;
    using item_queue = detail::item_queue;
    using channel = detail::channel;

    /// Asio's object for a handle.
    struct object : item {
        explicit object(port& p)
            : boost::asio::detail::scheduler_operation(&object::do_complete), owner(p) {}

        static void do_complete(void* scheduler, item* i, const error_code&, std::size_t events) {
            object* o = static_cast<object*>(i);
            if (scheduler)
                o->owner.perform_io(*o, static_cast<int>(events));
        }

        port& owner;
        simulated::mutex mutex;
        boost::asio::detail::op_queue<reactor_op> queues[3];
        bool try_speculative[3] = {};
        short events = 0;
        bool is_shut_down = false;
        bool has_left_file = false;
        bool has_left_event = false;
    };

public:
    static constexpr const char* name = "simulated epoll";
    static constexpr bool reports_levels = false;
    static constexpr bool latches_events = true;
    static constexpr bool arming_may_throw = false;
    static constexpr bool tells_events = false;
    static constexpr bool completes_for_more = false;
    static constexpr bool reports_hang_ups_to_writers = true;
    static constexpr bool read_closed_wakes_writers = false;
    static constexpr bool reports_again_beside_priority = true;
    static constexpr bool attach_arms_waker = true;
    static constexpr bool has_edge_set = false;

    struct registration_data {
        object* of{};
    };

    explicit port(boost::asio::execution_context& c) : context_(c) {}
    port(const port&) = delete;
    port& operator=(const port&) = delete;

    // ---- what a test does and sees --------------------------------------------------------------

    /// An item, and the events of a handle's object. No item: it is the reactor's turn.
    struct taken {
        item* what = nullptr;
        short events = 0;
    };

    /// The reactor's turn: queues the objects of the handles that have events.
    bool fetch() {
        auto found = kernel::get().wait();
        access(&queue_, "queue");
        for (auto [data, events] : found) {
            object* o = static_cast<object*>(data);
            auto queued = find(o);
            if (queued != queue_.end())
                queued->events = joined(queued->events, events);
            else
                queue_.push_back({o, events});
        }
        return !found.empty();
    }

    // As Asio has it, for a thread of a loop: the reactor's turn is an item among the others.

    void queue_turn() { queue_.push_back({}); }
    /// Whether the thread that takes the next item would not have to wait in the kernel.
    bool has_next() const {
        return !queue_.empty() &&
               (queue_.front().what || queue_.size() != 1 || kernel::get().has_ready());
    }
    /// Takes the next item as soon as there is one, or the loop is over.
    bool take_next(taken& t, const bool& is_over) {
        interleaver::current()->access_when(&queue_, "take an item",
                                            [&] { return is_over || has_next(); });
        if (is_over)
            return false;
        t = queue_.front();
        queue_.pop_front();
        return true;
    }

    /// A turn that was taken: returns as soon as there is an event, an item, or the loop is over.
    void run_turn(const bool& is_over) {
        interleaver::current()->access_when(&kernel::get(), "wait in the kernel", [&] {
            return is_over || !queue_.empty() || kernel::get().has_ready();
        });
        fetch();
        queue_turn();
    }
    std::size_t queued() const { return queue_.size(); }

    /// The current thread takes an item out of the queue, and runs the item.
    taken take() {
        access(&queue_, "queue");
        taken t = queue_.front();
        queue_.pop_front();
        return t;
    }
    taken take_newest() {
        taken t = queue_.back();
        queue_.pop_back();
        return t;
    }
    void run(taken t) {
        thread& me = *thread::current();
        int units = 0;
        int* outer = std::exchange(me.innermost, &units);
        t.what->complete(this, error_code(), static_cast<std::size_t>(t.events));
        me.innermost = outer;
        if (units == 0)
            work_finished();
        else if (units != 1)
            add_work(units - 1);
    }
    void run_one() { run(take()); }

    /// Runs `f` as an item of the scheduler.
    template <class F>
    void run_in_loop(F f) {
        struct function : item {
            explicit function(F& g) : scheduler_operation(&function::do_complete), f(g) {}
            static void do_complete(void*, item* i, const error_code&, std::size_t) {
                static_cast<function*>(i)->f();
            }
            F& f;
        } task(f);
        work_started();
        run({&task});
    }

    int work() const { return work_.load(); }

    int operations = 0;                  ///< those of the test that are not over
    std::function<void()> before_arming; ///< what others do just before a reader is armed, once
    bool forgets_events = false; ///< a defect: an event that finds no waker is not remembered

    /// The first thing that must not happen, and did.
    const char* defect() const { return defect_; }
    void note(const char* d) noexcept { defect_ = defect_ ? defect_ : d; }

    /// The context shuts down.
    void abandon() {
        for (auto& o : objects_)
            for (auto& ops : o->queues)
                while (reactor_op* op = ops.front()) {
                    ops.pop();
                    queue_.push_back({op});
                }
        while (queue_.size() != 0) {
            taken t = take();
            if (t.what && t.events == 0) // no object
                t.what->destroy();
        }
        kernel::get().empty_set();
    }

    // ---- the scheduler, as scheduler_port -------------------------------------------------------

    boost::asio::execution_context& context() const noexcept { return context_; }

    void post_new(item* i) {
        work_started();
        push(i);
    }
    void post_counted(item* i) {
        post_new(i);
        work_finished();
    }
    void post_counted(item_queue& items) {
        while (item* i = items.front()) {
            items.pop();
            post_counted(i);
        }
    }
    bool runs_here() { return thread::current()->innermost != nullptr; }
    void work_started() { add_work(1); }
    void work_finished() {
        const int left = work_.fetch_sub(1) - 1;
        if (left < 0)
            note("outstanding work is below zero");
        if (left == 0 && operations > 0) // one that is just starting is not counted yet
            note("the scheduler stops before an operation is over");
    }
    void compensate() {
        if (runs_here())
            ++*thread::current()->innermost;
        else
            note("compensated outside of the loop");
    }

    // ---- the reactor, as reactor_port -----------------------------------------------------------

    static void watch_closed_numbers(void (*)(void*), void*) noexcept {}
    static void shut_down() noexcept {}
    static error_code watch_edges(int, registration_data&, short) noexcept { return error_code(); }
    static bool watches_edges(const registration_data&, short) noexcept { return true; }
    static short take_edges(registration_data&) noexcept { return 0; }
    static void renew_edges(int, registration_data&) noexcept {}
    static bool says_nothing(registration_data&, const error_code&) noexcept { return false; }
    static void release(registration_data& data, bool) { data = registration_data(); }
    static constexpr bool detaches_at_once(detail::number n) noexcept {
        return n != detail::number::foreign;
    }

    template <class Waker>
    error_code attach(int handle, registration_data& data, channel c, Waker* waker) {
        data.of = allocate();
        {
            detail::basic_lock<simulated::mutex> lock(data.of->mutex);
            data.of->is_shut_down = false;
            if (waker)
                data.of->queues[c].push(waker);
            std::fill(std::begin(data.of->try_speculative), std::end(data.of->try_speculative),
                      true);
            data.of->events = POLLIN | POLLPRI;
        }
        int result = kernel::get().add(handle, data.of->events, data.of);
        if (result != 0) {
            {
                detail::basic_lock<simulated::mutex> lock(data.of->mutex);
                drop(*data.of);
                data.of->is_shut_down = true;
            }
            free(data);
        }
        return error_code(result, boost::asio::error::get_system_category());
    }

    template <class Read, class Write, class Edge>
    void detach(int handle, const detail::file_identity&, registration_data& data, detail::number n,
                Read&, Write&, Edge*) {
        data.of->has_left_file = data.of->has_left_file || n != detail::number::ours;
        item_queue aborted;
        {
            detail::basic_lock<simulated::mutex> lock(data.of->mutex);
            if (n != detail::number::foreign) { // deregister_internal_descriptor()
                kernel::get().remove(handle);
                drop(*data.of);
            } else { // deregister_descriptor()
                for (auto& ops : data.of->queues)
                    abort(ops, aborted, [](reactor_op*) { return true; });
            }
            data.of->is_shut_down = true;
        }
        push(aborted);
        free(data); // and may be used again at once
    }

    static bool delete_abandoned(int, const detail::file_identity&) noexcept { return false; }
    bool may_tell_of_others(const registration_data& data) { return data.of->has_left_file; }
    void note_older_event(const registration_data& data) noexcept {
        data.of->has_left_event = true;
    }
    bool may_tell_of_older(const registration_data& data, bool is_alone) {
        return std::exchange(data.of->has_left_event, false) || !is_alone || has_queued_event(data);
    }
    bool has_queued_event(const registration_data& data) const {
        access(&queue_, "queue");
        auto is_it = [&](const taken& t) { return t.what == data.of; };
        return std::any_of(queue_.begin(), queue_.end(), is_it);
    }

    /// start_op()
    void arm(channel c, reactor_op& op, int handle, registration_data& data) {
        if (c == detail::read_channel && before_arming)
            std::exchange(before_arming, nullptr)();
        if (!data.of) {
            op.ec_ = boost::asio::error::bad_descriptor;
            return post_new(&op);
        }
        object& o = *data.of;
        {
            detail::basic_lock<simulated::mutex> lock(o.mutex);
            if (!o.is_shut_down && !is_due(c, op, handle, o)) {
                o.queues[c].push(&op);
                return work_started();
            }
        }
        post_new(&op);
    }

    /// cancel_ops_by_key()
    void disarm(channel c, reactor_op& op, int, registration_data& data) {
        item_queue aborted;
        {
            detail::basic_lock<simulated::mutex> lock(data.of->mutex);
            abort(data.of->queues[c], aborted, [&](reactor_op* other) {
                return other->cancellation_key_ == op.cancellation_key_;
            });
        }
        push(aborted);
    }

private:
    /// Whether a waker fires at once.
    bool is_due(channel c, reactor_op& op, int handle, object& o) {
        if (o.queues[c].empty()) {
            short needed = c == detail::write_channel ? joined(o.events, POLLOUT) : o.events;
            if (c != detail::read_channel || o.queues[detail::edge_channel].empty()) {
                if (o.try_speculative[c] && op.perform(&op)) {
                    o.try_speculative[c] = false;
                    return true;
                }
                if (needed != o.events) {
                    if (int error = kernel::get().modify(handle, needed)) {
                        op.ec_ = error_code(error, boost::asio::error::get_system_category());
                        return true;
                    }
                    o.events = needed;
                }
            } else {
                kernel::get().modify(handle, o.events);
            }
        }
        return false;
    }

    void push(item* i) {
        access(&queue_, "queue");
        queue_.push_back({i});
    }
    void push(item_queue& items) {
        while (item* i = items.front()) {
            items.pop();
            push(i);
        }
    }
    void add_work(int n) { work_.fetch_add(n); }

    std::deque<taken>::iterator find(const item* i) {
        return std::find_if(queue_.begin(), queue_.end(),
                            [=](const taken& t) { return t.what == i; });
    }

    /// From Asio's pool, where the object that was freed last comes first.
    object* allocate() {
        access(&free_, "pool");
        if (free_.empty()) {
            objects_.push_back(std::make_unique<object>(*this));
            free_.push_back(objects_.back().get());
        }
        object* o = free_.back();
        free_.pop_back();
        return o;
    }
    void free(registration_data& data) {
        access(&free_, "pool");
        free_.push_back(std::exchange(data.of, nullptr));
    }

    void drop(object& o) {
        item_queue dropped;
        for (auto& ops : o.queues)
            dropped.push(ops);
    }

    /// Their units of work were counted.
    template <class Predicate>
    void abort(boost::asio::detail::op_queue<reactor_op>& ops, item_queue& aborted,
               Predicate is_meant) {
        boost::asio::detail::op_queue<reactor_op> others;
        while (reactor_op* op = ops.front()) {
            ops.pop();
            if (is_meant(op)) {
                op->ec_ = boost::asio::error::operation_aborted;
                aborted.push(op);
            } else {
                others.push(op);
            }
        }
        ops.push(others);
    }

    void perform_io(object& o, int events) {
        item_queue fired;
        {
            detail::basic_lock<simulated::mutex> lock(o.mutex);
            fire(o, events, fired);
        }
        if (item* first = fired.front()) {
            fired.pop();
            push(fired);
            first->complete(this, error_code(), 0);
        } else {
            compensate();
        }
    }

    void fire(object& o, int events, item_queue& fired) {
        static constexpr short flags[] = {POLLIN, POLLOUT, POLLPRI};
        for (int c : {2, 1, 0}) {
            if ((events & (flags[c] | POLLERR | POLLHUP)) == 0)
                continue;
            o.try_speculative[c] = !forgets_events || o.try_speculative[c];
            reactor_op* op = o.queues[c].front();
            if (!op || !op->perform(op))
                continue;
            o.queues[c].pop();
            o.try_speculative[c] = false; // done_and_exhausted
            fired.push(op);
        }
    }

    boost::asio::execution_context& context_;
    simulated::atomic<int> work_{0};
    const char* defect_ = nullptr;
    std::deque<taken> queue_;
    std::vector<std::unique_ptr<object>> objects_;
    std::vector<object*> free_;
};

} // namespace simulated
} // namespace test

#endif
