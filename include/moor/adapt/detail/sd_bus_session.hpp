//
// moor/adapt/detail/sd_bus_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A connection of sd-bus in a loop: what is pending, and what the library waits for.
//
//   calls_    wait for a reply each; the library has a pointer to the element
//   waits_    wait for a state of the connection: established, everything sent, over
//   matches_  rules whose signals are kept; the library has a pointer to the element
//
// Invariants
//   1. The library is asked what it waits for before each wait: prepare() is called after each
//      dispatch, and after each call of the library that does not come from one (touch).
//   2. The library's callbacks run within dispatch(). They may close, replace or destroy the
//      connection: dispatch() has a reference to the session, and one to the bus.
//   3. No handler is invoked within a member or a callback: completing an operation queues it.
//   4. The source does not keep run() from returning; the pending operations do.
//

#ifndef MOOR_ADAPT_DETAIL_SD_BUS_SESSION_HPP
#define MOOR_ADAPT_DETAIL_SD_BUS_SESSION_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/sd_bus_types.hpp>
#include <moor/detail/adapted_handler.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/registration.hpp>
#include <moor/source.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include <poll.h>
#include <systemd/sd-bus.h>

namespace moor {
namespace adapt {

template <class Executor>
class basic_sd_bus_match;

namespace detail {

template <class T>
using sd_bus_list = std::list<T, boost::asio::recycling_allocator<T>>;

template <class Executor>
class sd_bus_session;

/// Calls a handler with a message that is read from the beginning: other matches, and callbacks of
/// the program, may have read the same message.
struct sd_bus_rewinding {
    template <class Handler>
    void operator()(Handler&& handler, const error_code& ec, sd_bus_message_handle m) const {
        if (m)
            sd_bus_message_rewind(m.get(), 1);
        std::forward<Handler>(handler)(ec, std::move(m));
    }
};

/// A pending operation whose result is a message.
using sd_bus_operation = operation<void(error_code, sd_bus_message_handle)>;

template <class Handler, class Executor>
sd_bus_operation start_sd_bus_operation(Handler&& handler, const Executor& ex) {
    return sd_bus_operation::start(
        moor::detail::adapted_handler<std::decay_t<Handler>, sd_bus_rewinding>{
            std::forward<Handler>(handler), {}},
        ex);
}

// ---- a match ------------------------------------------------------------------------------------

/// A rule, the signals that nobody has received yet, and those who wait for one.
template <class Executor>
class sd_bus_match_state {
    using session = sd_bus_session<Executor>;
    using match_operation = operation<void(error_code, basic_sd_bus_match<Executor>)>;

public:
    explicit sd_bus_match_state(std::shared_ptr<session> s) noexcept : session_(std::move(s)) {}
    sd_bus_match_state(const sd_bus_match_state&) = delete;
    sd_bus_match_state& operator=(const sd_bus_match_state&) = delete;

    const Executor& executor() const noexcept { return session_->executor(); }
    std::size_t queued() const noexcept { return signals_.size(); }
    void set_limit(std::size_t n) noexcept { limit_ = n; }

    template <class Handler>
    void receive(Handler&& handler) {
        sd_bus_operation op = start_sd_bus_operation(std::forward<Handler>(handler), executor());
        if (!signals_.empty()) {
            sd_bus_message_handle m = std::move(signals_.front());
            signals_.pop_front();
            return pass(op, std::move(m));
        }
        if (end_)
            return op.complete(end_, nullptr);
        const auto r = receivers_.insert(receivers_.end(), std::move(op));
        r->on_cancel([this, r](boost::asio::cancellation_type_t) {
            take(r).complete(boost::asio::error::operation_aborted, nullptr);
        });
    }

    /// The rule holds no more. What is queued can still be received, unless the queue is dropped.
    void end(error_code ec, bool drops_queue) noexcept {
        if (drops_queue)
            signals_.clear();
        if (end_)
            return;
        end_ = ec;
        slot_.reset(); // removes the rule
        complete_installed(ec, nullptr);
        while (!receivers_.empty())
            take(receivers_.begin()).complete(ec, nullptr);
    }

    /// Nobody has the match any more.
    void leave() noexcept {
        if (end_)
            signals_.clear();
        else
            session_->remove(*this, boost::asio::error::operation_aborted);
    }

private:
    friend session;
    using position = typename sd_bus_list<sd_bus_operation>::iterator;

    sd_bus_operation take(position r) noexcept {
        sd_bus_operation op = std::move(*r);
        receivers_.erase(r);
        return op;
    }

    void complete_installed(error_code ec, std::shared_ptr<sd_bus_match_state> self) noexcept {
        match_operation op = std::move(installed_);
        if (op) // or else nobody takes the match, whose end would be the end of the rule
            op.complete(ec, basic_sd_bus_match<Executor>(std::move(self)));
    }

    /// A null pointer stands for signals that were lost.
    static void pass(sd_bus_operation& op, sd_bus_message_handle m) {
        const error_code ec = m ? error_code() : sd_bus_error_of(-ENOBUFS);
        op.complete(ec, std::move(m));
    }

    void add(sd_bus_message_handle m) {
        if (!receivers_.empty()) {
            sd_bus_operation op = take(receivers_.begin());
            return pass(op, std::move(m));
        }
        if (signals_.size() < limit_)
            signals_.push_back(std::move(m));
        else if (signals_.empty() || signals_.back())
            signals_.push_back(nullptr);
    }

    static int on_signal(sd_bus_message* m, void* data, sd_bus_error*) noexcept {
        BOOST_TRY {
            static_cast<sd_bus_match_state*>(data)->add(
                sd_bus_message_handle(sd_bus_message_ref(m)));
        }
        BOOST_CATCH(...) { return -ENOMEM; }
        BOOST_CATCH_END
        return 0; // other callbacks may be interested, too
    }

    const std::shared_ptr<session> session_;
    typename sd_bus_list<std::shared_ptr<sd_bus_match_state>>::iterator position_; // in the session
    match_operation installed_;
    std::deque<sd_bus_message_handle> signals_;
    sd_bus_list<sd_bus_operation> receivers_; // only if there are no signals
    std::size_t limit_ = 1024;
    error_code end_;
    sd_bus_slot_handle slot_;
};

// ---- a connection -------------------------------------------------------------------------------

template <class Executor>
class sd_bus_session : public std::enable_shared_from_this<sd_bus_session<Executor>> {
    using ec_operation = operation<void(error_code)>;
    using match_state = sd_bus_match_state<Executor>;
    using match_operation = operation<void(error_code, basic_sd_bus_match<Executor>)>;

    /// A call without a reply so far. Without the slot, the library does not call back.
    struct call {
        sd_bus_session* session;
        sd_bus_operation operation;
        sd_bus_slot_handle slot{};
        typename sd_bus_list<call>::iterator position{};
    };

    static constexpr int budget = 64; // messages, before the other handlers of the loop run

public:
    /// What waits_ wait for.
    enum class condition { ready, flushed, over };

    explicit sd_bus_session(const Executor& ex) : home_(ex) {}
    sd_bus_session(const sd_bus_session&) = delete;
    sd_bus_session& operator=(const sd_bus_session&) = delete;
    ~sd_bus_session() { close(); }

    const Executor& executor() const noexcept { return home_.get_executor(); }
    sd_bus* native_handle() const noexcept { return bus_; }
    bool is_ready() const noexcept { return is_usable() && sd_bus_is_ready(bus_) > 0; }
    bool is_usable() const noexcept { return bus_ && !is_over_; }
    const sd_bus_error* last_error() const noexcept {
        return sd_bus_message_get_error(last_error_.get());
    }

    /// The library was called, and may wait for something else now.
    void touch() {
        if (source_ && !is_dispatching_) // prepare() follows
            source_->touch();
    }

    // ---- the bus --------------------------------------------------------------------------------

    /// Takes a reference over.
    void adopt(sd_bus* b, bool is_owned) {
        close();
        if (!b)
            return;
        bus_ = b;
        is_owned_ = is_owned;
        is_over_ = has_more_ = false;
        source_.emplace(
            executor(), [this] { return prepare(); },
            [this](const error_code& ec, readiness) { dispatch(ec); });
        source_->keeps_running(false);
    }

    /// Ends what is pending, and gives the reference away.
    sd_bus* release() noexcept {
        source_.reset(); // first: the descriptor is another's from now on
        complete_all(boost::asio::error::operation_aborted);
        last_error_.reset();
        return std::exchange(bus_, nullptr);
    }

    void close() noexcept {
        if (sd_bus* const b = release())
            is_owned_ ? sd_bus_close_unref(b) : sd_bus_unref(b);
    }

    /// `open(&bus)` makes a bus and begins to connect, as sd_bus_open_user does.
    template <class Handler>
    void open(Handler&& handler, const std::function<int(sd_bus**)>& open) {
        close();
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        sd_bus* b = nullptr;
        int result = open ? open(&b) : -EINVAL;
        if (result >= 0 && !b)
            result = -EINVAL;
        if (result < 0)
            return op.complete(sd_bus_error_of(result));
        adopt(b, true);
        add_wait(condition::ready, std::move(op))
            ->operation.on_cancel([this](boost::asio::cancellation_type_t) { close(); });
    }

    static int open_address(const std::string& address, sd_bus** ret) noexcept {
        sd_bus* b = nullptr;
        int result = sd_bus_new(&b);
        if (result < 0)
            return result;
        sd_bus_handle owner(b);
        if (has_null(address))
            return -EINVAL;
        if ((result = sd_bus_set_address(b, address.c_str())) < 0 ||
            (result = sd_bus_set_bus_client(b, 1)) < 0 || (result = sd_bus_start(b)) < 0)
            return result;
        *ret = owner.release();
        return 0;
    }

    // ---- operations -----------------------------------------------------------------------------

    template <class Handler>
    void wait(Handler&& handler, condition c) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        if (!is_usable())
            return op.complete(boost::asio::error::not_connected);
        const auto w = add_wait(c, std::move(op));
        w->operation.on_cancel([this, w](boost::asio::cancellation_type_t) {
            finish(w, boost::asio::error::operation_aborted);
        });
        touch();
    }

    template <class Handler>
    void send(Handler&& handler, sd_bus_message_handle m, std::chrono::microseconds limit) {
        const auto c = calls_.insert(
            calls_.end(),
            call{this, start_sd_bus_operation(std::forward<Handler>(handler), executor())});
        c->position = c;
        const std::uint64_t usec = limit == (std::chrono::microseconds::max)() ? UINT64_MAX
                                   : limit.count() < 0 // 0 is the library's own limit
                                       ? 1
                                       : static_cast<std::uint64_t>(limit.count());
        sd_bus_slot* slot = nullptr;
        int result = -ENOTCONN;
        if (is_usable() && sd_bus_message_get_expect_reply(m.get()) <= 0) // or no call at all
            result = -EINVAL;
        else if (is_ready() || (is_usable() && !has_descriptors(m.get())))
            result = sd_bus_call_async(bus_, &slot, m.get(), &on_reply, &*c, usec);
        c->slot.reset(slot);
        if (result < 0) {
            last_error_.reset();
            finish(c, sd_bus_error_of(result), nullptr);
        } else {
            c->operation.on_cancel([this, c](boost::asio::cancellation_type_t) {
                finish(c, boost::asio::error::operation_aborted, nullptr);
                touch();
            });
        }
        touch();
    }

    template <class Handler>
    void match(Handler&& handler, const std::string& rule) {
        match_operation op = match_operation::start(std::forward<Handler>(handler), executor());
        const auto m = std::make_shared<match_state>(this->shared_from_this());
        m->position_ = matches_.insert(matches_.end(), m);
        m->installed_ = std::move(op);
        sd_bus_slot* slot = nullptr;
        const int result = !is_usable()     ? -ENOTCONN
                           : has_null(rule) ? -EINVAL
                                            : sd_bus_add_match_async(bus_, &slot, rule.c_str(),
                                                                     &match_state::on_signal,
                                                                     &on_installed, m.get());
        m->slot_.reset(slot);
        if (result < 0) {
            last_error_.reset();
            remove(*m, sd_bus_error_of(result));
        } else if (is_local(rule)) {
            m->complete_installed(error_code(), m);
        } else {
            m->installed_.on_cancel([this, p = m.get()](boost::asio::cancellation_type_t) {
                remove(*p, boost::asio::error::operation_aborted);
            });
        }
        touch();
    }

    /// Ends a match.
    void remove(match_state& m, error_code ec) noexcept {
        const std::shared_ptr<match_state> last = std::move(*m.position_);
        matches_.erase(m.position_);
        last->end(ec, true);
        BOOST_TRY { touch(); }
        BOOST_CATCH(...) {} // without memory, the daemon learns of it with the next message
        BOOST_CATCH_END
    }

private:
    struct wait_entry {
        condition what;
        ec_operation operation;
    };
    using wait_position = typename sd_bus_list<wait_entry>::iterator;
    using call_position = typename sd_bus_list<call>::iterator;

    // ---- the source -----------------------------------------------------------------------------

    wants prepare() {
        wants w;
        w.fd = sd_bus_get_fd(bus_);
        if (w.fd < 0) { // closed, by the library or by the program
            lose(w.fd == -ENOTCONN ? error_code(boost::asio::error::connection_reset)
                                   : sd_bus_error_of(w.fd));
            return w;
        }
        complete_waits();
        std::uint64_t usec = 0; // of CLOCK_MONOTONIC, as steady_clock; 0: there is more to do
        const bool has_time = sd_bus_get_timeout(bus_, &usec) > 0;
        w.again = has_more_ || (has_time && usec == 0);
        if (w.again) // and no event beside it
            return w;
        const int events = sd_bus_get_events(bus_);
        if (events > 0 && (events & POLLIN))
            w.events |= interest::readable;
        if (events > 0 && (events & POLLOUT))
            w.events |= interest::writable;
        if (has_time && usec < static_cast<std::uint64_t>(INT64_MAX / 1000))
            w.until.emplace(std::chrono::microseconds(usec));
        return w;
    }

    void dispatch(const error_code& ec) {
        if (ec && ec != boost::asio::error::timed_out) // the library keeps its deadlines itself
            return lose(ec);
        const std::shared_ptr<sd_bus_session> self = this->shared_from_this();
        struct unref {
            void operator()(sd_bus* b) const noexcept { sd_bus_unref(b); }
        };
        const std::unique_ptr<sd_bus, unref> bus(sd_bus_ref(bus_));
        int result = 1;
        is_dispatching_ = true;
        for (int n = 0; result > 0 && n != budget && bus_ == bus.get(); ++n)
            result = sd_bus_process(bus.get(), nullptr);
        is_dispatching_ = false;
        if (bus_ != bus.get())
            return;
        has_more_ = result > 0;
        if (result < 0)
            lose(sd_bus_error_of(result));
    }

    // ---- what the library calls -----------------------------------------------------------------

    /// The library makes an error message, too, when the time is over or the connection broke.
    static int on_reply(sd_bus_message* m, void* data, sd_bus_error*) noexcept {
        call& c = *static_cast<call*>(data);
        sd_bus_session& s = *c.session;
        sd_bus_message_handle reply(sd_bus_message_ref(m));
        error_code ec = sd_bus_error_of(m);
        if (ec) {
            s.last_error_.reset(sd_bus_message_ref(m));
            if (sd_bus_is_open(s.bus_) <= 0)
                ec = boost::asio::error::connection_reset;
        }
        s.finish(c.position, ec, std::move(reply));
        return 0;
    }

    static int on_installed(sd_bus_message* reply, void* data, sd_bus_error*) noexcept {
        match_state& m = *static_cast<match_state*>(data);
        sd_bus_session& s = *m.session_;
        const error_code ec = sd_bus_error_of(reply);
        if (!ec) {
            m.complete_installed(error_code(), *m.position_);
        } else if (sd_bus_is_open(s.bus_) >
                   0) { // or else the end of the connection is about to come
            s.last_error_.reset(sd_bus_message_ref(reply));
            s.remove(m, ec);
        }
        return 0;
    }

    /// While there is no connection, sd-bus blocks to learn whether the daemon takes descriptors.
    static bool has_descriptors(sd_bus_message* m) noexcept {
        const char* const types = sd_bus_message_get_signature(m, 1);
        return types && std::strchr(types, SD_BUS_TYPE_UNIX_FD);
    }

    /// Such a rule is not sent to the daemon, so that there is no reply.
    bool is_local(const std::string& rule) const noexcept {
        return sd_bus_is_bus_client(bus_) <= 0 ||
               rule.find("org.freedesktop.DBus.Local") != std::string::npos ||
               rule.find("/org/freedesktop/DBus/Local") != std::string::npos;
    }

    // ---- completing -----------------------------------------------------------------------------

    wait_position add_wait(condition c, ec_operation op) {
        return waits_.insert(waits_.end(), wait_entry{c, std::move(op)});
    }

    void complete_waits() noexcept {
        std::uint64_t unsent = 1;
        const bool ready = sd_bus_is_ready(bus_) > 0;
        const bool flushed = ready && sd_bus_get_n_queued_write(bus_, &unsent) >= 0 && unsent == 0;
        for (wait_position w = waits_.begin(); w != waits_.end();) {
            const wait_position next = std::next(w);
            if (w->what == condition::ready ? ready : w->what == condition::flushed && flushed)
                finish(w, error_code());
            w = next;
        }
    }

    void finish(wait_position w, error_code ec) noexcept {
        ec_operation op = std::move(w->operation);
        waits_.erase(w);
        op.complete(ec);
    }

    void finish(call_position c, error_code ec, sd_bus_message_handle reply) noexcept {
        call done = std::move(*c);
        calls_.erase(c);
        done.operation.complete(ec, std::move(reply));
    }

    void complete_all(error_code ec) noexcept {
        while (!waits_.empty())
            finish(waits_.begin(), ec);
        while (!calls_.empty())
            finish(calls_.begin(), ec, nullptr);
        while (!matches_.empty())
            end_match(ec);
    }

    void end_match(error_code ec) noexcept {
        const std::shared_ptr<match_state> m = std::move(matches_.front());
        matches_.pop_front();
        m->end(ec, ec == boost::asio::error::operation_aborted);
    }

    /// The connection is over. The bus object stays, so that the program can still query it.
    void lose(error_code ec) noexcept {
        is_over_ = true;
        source_.reset();
        complete_all(ec);
        if (is_owned_)
            sd_bus_close(bus_); // unless it is closed already
    }

    sd_bus* bus_ = nullptr; // with a reference
    bool is_owned_ = false;
    bool is_over_ = false;
    bool has_more_ = false;
    bool is_dispatching_ = false;
    sd_bus_message_handle last_error_;
    sd_bus_list<wait_entry> waits_;
    sd_bus_list<call> calls_;
    sd_bus_list<std::shared_ptr<match_state>> matches_;
    basic_registration<Executor> home_;            // of no descriptor: keeps the executor
    std::optional<basic_source<Executor>> source_; // while there is a bus
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_SD_BUS_SESSION_HPP
