//
// moor/adapt/detail/inotify_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The operations that wait for events, in the order of their initiation, and the watcher of the
// descriptor. `Work` is an inotify_descriptor or an inotify_model:
//
//   value_type               an operation completes with a vector of these
//   int native_handle()      the descriptor; -1 if there is none yet
//   bool has_more()          there is work without an event
//   error_code turn(values)  one turn of work, which is short
//   void fail()              an error was told: the next turn may begin anew
//   void close()             closes the descriptor
//
// Invariants
//   1. Events are taken from the kernel only while an operation is pending, and the first operation
//      receives all of them. So a cancelled operation loses none: they stay in the kernel's queue.
//   2. The watcher is detached before the descriptor is closed.
//

#ifndef MOOR_ADAPT_DETAIL_INOTIFY_SESSION_HPP
#define MOOR_ADAPT_DETAIL_INOTIFY_SESSION_HPP

#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <chrono>
#include <list>
#include <utility>
#include <vector>

namespace moor {
namespace adapt {
namespace detail {

template <class Executor, class Work>
class inotify_session {
public:
    using values = std::vector<typename Work::value_type>;

    template <class... Args>
    explicit inotify_session(const Executor& ex, Args&&... args)
        : work_(std::forward<Args>(args)...), watcher_(ex) {
        watcher_.on_event([this](error_code ec, readiness) { act(ec); });
    }
    inotify_session(const inotify_session&) = delete;
    inotify_session& operator=(const inotify_session&) = delete;
    ~inotify_session() { close(); }

    const Executor& executor() const noexcept { return watcher_.get_executor(); }
    Work& work() noexcept { return work_; }
    const Work& work() const noexcept { return work_; }

    void close() {
        stop();
        work_.close();
    }

    /// Ends what is pending, for good, and leaves the descriptor open.
    void stop() {
        watcher_.stop(); // first: the descriptor may be another's from now on
        is_closed_ = true;
        complete_all(boost::asio::error::operation_aborted);
    }

    template <class Handler>
    void read(Handler&& handler) {
        const position at = pending_.insert(
            pending_.end(), values_operation::start(std::forward<Handler>(handler), executor()));
        if (is_closed_)
            return complete(at, boost::asio::error::bad_descriptor, values());
        BOOST_TRY {
            at->on_cancel([this, at](boost::asio::cancellation_type_t) {
                complete(at, boost::asio::error::operation_aborted, values());
                if (pending_.empty())
                    arm();
            });
            arm();
        }
        BOOST_CATCH(...) { complete(at, boost::asio::error::no_memory, values()); }
        BOOST_CATCH_END
    }

private:
    using values_operation = operation<void(error_code, values)>;
    using operations =
        std::list<values_operation, boost::asio::recycling_allocator<values_operation>>;
    using position = typename operations::iterator;

    void arm() {
        if (pending_.empty()) {
            watcher_.set_interest(interest());
            return watcher_.expires_never();
        }
        const int fd = work_.native_handle();
        error_code ec;
        if (fd != watcher_.native_handle())
            watcher_.reset(fd, ec);
        if (ec)
            failure_ = ec;
        watcher_.set_interest(interest::readable);
        if (failure_ || work_.has_more())
            watcher_.expires_after(std::chrono::steady_clock::duration());
    }

    void act(const error_code& ec) {
        BOOST_TRY {
            if (!pending_.empty())
                take(ec);
            arm();
        }
        BOOST_CATCH(...) { fail(boost::asio::error::no_memory); }
        BOOST_CATCH_END
    }

    void take(const error_code& ec) {
        values taken;
        if (ec && ec != boost::asio::error::timed_out)
            failure_ = ec;
        else if (!failure_)
            failure_ = work_.turn(taken);
        if (!taken.empty())
            complete(pending_.begin(), error_code(), std::move(taken));
        if (!failure_ || pending_.empty())
            return; // the next operation is told
        fail(std::exchange(failure_, error_code()));
    }

    void fail(const error_code& ec) {
        watcher_.detach();
        work_.fail();
        complete_all(ec);
    }

    void complete(position at, error_code ec, values v) {
        values_operation done = std::move(*at);
        pending_.erase(at);
        done.complete(ec, std::move(v));
    }

    void complete_all(error_code ec) {
        while (!pending_.empty())
            complete(pending_.begin(), ec, values());
    }

    Work work_;
    operations pending_;
    error_code failure_; // which the next operation is to be told
    bool is_closed_ = false;
    basic_watcher<Executor> watcher_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_INOTIFY_SESSION_HPP
