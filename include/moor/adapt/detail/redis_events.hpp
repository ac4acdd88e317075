//
// moor/adapt/detail/redis_events.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The hooks of an asynchronous context of hiredis, over a watcher. The context owns the object, and
// deletes it by the hook `cleanup`, which comes before the descriptor is closed.
//

#ifndef MOOR_ADAPT_DETAIL_REDIS_EVENTS_HPP
#define MOOR_ADAPT_DETAIL_REDIS_EVENTS_HPP

#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/error.hpp>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <memory>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <sys/time.h>

namespace moor {
namespace adapt {
namespace detail {

template <class Executor>
class redis_events {
public:
    redis_events(const Executor& ex, redisAsyncContext* c)
        : context_(c), watcher_(ex, [this](error_code ec, readiness r) { on_event(ec, r); }) {}
    redis_events(const redis_events&) = delete;
    redis_events& operator=(const redis_events&) = delete;

    static redis_events* of(redisAsyncContext* c) noexcept {
        return static_cast<redis_events*>(c->ev.data);
    }

    static void attach(const Executor& ex, redisAsyncContext* c, error_code& ec) {
        ec = error_code();
        if (!c || c->err != 0 || c->ev.data) {
            ec = boost::asio::error::invalid_argument;
            return;
        }
        auto e = std::make_unique<redis_events>(ex, c);
        e->watcher_.reset(c->c.fd, ec);
        if (ec)
            return;
        // To write, although nothing was sent yet: so hiredis learns that it is connected, and
        // begins to read, whether its callbacks were set before or will be set after this.
        e->want_ = interest::writable;
        e->settle();
        // C calls these: an exception would end in std::terminate.
        c->ev.addRead = [](void* p) noexcept { want(p, interest::readable, true); };
        c->ev.delRead = [](void* p) noexcept { want(p, interest::readable, false); };
        c->ev.addWrite = [](void* p) noexcept { want(p, interest::writable, true); };
        c->ev.delWrite = [](void* p) noexcept { want(p, interest::writable, false); };
        c->ev.cleanup = &redis_events::cleanup;
#if HIREDIS_MAJOR >= 1
        c->ev.scheduleTimer = [](void* p, timeval t) noexcept {
            static_cast<redis_events*>(p)->watcher_.expires_after(
                std::chrono::seconds(t.tv_sec) + std::chrono::microseconds(t.tv_usec));
        };
        // hiredis sets this timer when the program sets a callback for the connection, which may
        // have been before.
        if (const timeval* t = c->c.connect_timeout; t && (t->tv_sec != 0 || t->tv_usec != 0))
            c->ev.scheduleTimer(e.get(), *t);
#endif
        c->ev.data = e.release();
    }

    /// Ends the watch. The context goes on to its end without it.
    static void cleanup(void* p) noexcept {
        const std::unique_ptr<redis_events> e(static_cast<redis_events*>(p));
        if (e->running_)
            e->running_->is_over = true;
        e->context_->ev = {};
    }

    redisAsyncContext* context() const noexcept { return context_; }

    /// Without this, an open connection keeps run() from returning.
    void keep_running(bool keeps) { watcher_.keeps_running(keeps); }

    /// Nothing is read meanwhile.
    void pause(bool is_paused) {
        if (is_paused_ != is_paused) {
            is_paused_ = is_paused;
            settle();
        }
    }

private:
    /// A call of the handler, which cleanup() may be a part of.
    struct call {
        redis_events& events;
        bool is_over = false;

        explicit call(redis_events& e) noexcept : events(e) { e.running_ = this; }
        call(const call&) = delete;
        call& operator=(const call&) = delete;
        ~call() {
            if (!is_over)
                events.running_ = nullptr;
        }
    };

    static void want(void* p, interest i, bool is_wanted) noexcept {
        auto* const e = static_cast<redis_events*>(p);
        e->want_ = is_wanted ? e->want_ | i : e->want_ - i;
        e->settle();
    }

    void settle() { watcher_.set_interest(is_paused_ ? want_ - interest::readable : want_); }

    /// Each call of hiredis may free the context, which deletes this object.
    void on_event(const error_code& ec, readiness r) {
        redisAsyncContext* const c = context_;
#if HIREDIS_MAJOR >= 1
        if (ec == boost::asio::error::timed_out)
            return redisAsyncHandleTimeout(c);
#endif
        if (ec)
            return fail(ec);
        const call running(*this);
        // Reading comes first: it finds the end of the connection, for which writing would get
        // SIGPIPE.
        if (r.is_readable())
            redisAsyncHandleRead(c);
        if (!running.is_over && r.is_writable())
            redisAsyncHandleWrite(c);
    }

    /// The descriptor can't be watched. The callbacks find the error in the context.
    void fail(const error_code& ec) {
        redisAsyncContext* const c = context_;
        c->c.err = c->err = REDIS_ERR_IO;
        std::snprintf(c->c.errstr, sizeof(c->c.errstr), "%s", ec.message().c_str());
        c->errstr = c->c.errstr;
        if (ec == boost::asio::error::bad_descriptor)
            c->c.fd = -1; // another owner may have the number soon
        errno = ec.value();
        redisAsyncFree(c);
    }

    redisAsyncContext* context_;
    interest want_;
    bool is_paused_ = false;
    call* running_ = nullptr;
    basic_watcher<Executor> watcher_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_REDIS_EVENTS_HPP
