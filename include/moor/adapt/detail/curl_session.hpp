//
// moor/adapt/detail/curl_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A multi handle of libcurl in a loop.
//
//   transfers_   the pending operations, each with its easy handle
//   watchers_    the sockets that libcurl wants to have watched now
//   timer_       libcurl's one timer
//   soon_        the same for a time of zero, without a system call
//   deferred_    the easy handles whose transfers are to be started or ended when libcurl returns
//
// Invariants
//   1. Each call of libcurl that may run callbacks is made within enter(). Within, is_inside_ is
//      set: members only note what they are asked for, since libcurl refuses to be called from its
//      callbacks. enter() does what was noted when libcurl has returned.
//   2. The results of transfers are taken before enter() returns.
//   3. No handler is invoked within a member: completing an operation queues its handler.
//   4. An operation may become empty at any time: the context's end destroys handlers. An easy
//      handle whose operation is empty may be freed already, and is not touched. (libcurl takes an
//      easy handle out of the multi handle when it frees the easy handle.)
//   5. Watchers and timer count as no outstanding work: the operations do.
//

#ifndef MOOR_ADAPT_DETAIL_CURL_SESSION_HPP
#define MOOR_ADAPT_DETAIL_CURL_SESSION_HPP

#include <moor/adapt/curl_types.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/source.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/throw_exception.hpp>

#include <chrono>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <curl/curl.h>

namespace moor {
namespace adapt {
namespace detail {

template <class Executor>
class curl_session : public std::enable_shared_from_this<curl_session<Executor>> {
    using ec_operation = operation<void(error_code)>;

    struct transfer {
        ec_operation op;
        bool is_added = false; // to the multi handle
        error_code end{};      // with which the transfer is to be ended
    };
    using position = typename std::map<CURL*, transfer>::iterator; // valid in libcurl's callbacks

public:
    explicit curl_session(const Executor& ex)
        : timer_(ex, [this](error_code, readiness) { act(CURL_SOCKET_TIMEOUT, 0); }),
          multi_(curl_multi_init()) {
        if (!multi_)
            boost::throw_exception(std::bad_alloc());
        timer_.keeps_running(false);
        curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &curl_session::on_socket);
        curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
        curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &curl_session::on_timer);
        curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
    }
    curl_session(const curl_session&) = delete;
    curl_session& operator=(const curl_session&) = delete;
    ~curl_session() { close(); }

    const Executor& executor() const noexcept { return timer_.get_executor(); }
    CURLM* native_handle() const noexcept { return multi_; }

    template <class Handler>
    void perform(Handler&& handler, CURL* easy) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        if (!multi_ || must_close_)
            return op.complete(curl_error(CURLM_BAD_HANDLE));
        if (!easy)
            return op.complete(curl_error(CURLM_BAD_EASY_HANDLE));
        const auto [t, is_new] = transfers_.try_emplace(easy);
        if (!is_new)
            return op.complete(curl_error(CURLM_ADDED_ALREADY));
        t->second.op = std::move(op);
        t->second.op.on_cancel([this, easy](boost::asio::cancellation_type_t) {
            end(transfers_.find(easy), boost::asio::error::operation_aborted);
            enter([] {});
        });
        deferred_.push_back(easy);
        enter([] {});
    }

    /// Ends all transfers with `operation_aborted`.
    void cancel() {
        end_all(boost::asio::error::operation_aborted);
        enter([] {});
    }

    CURLcode pause(CURL* easy, int what) {
        CURLcode result = CURLE_OK;
        const auto call = [&] {
            result = curl_easy_pause(easy, what);
            if (result != CURLE_OK && result != CURLE_BAD_FUNCTION_ARGUMENT)
                end(transfers_.find(easy), curl_error(result)); // libcurl does not end the transfer
        };
        if (is_inside_)
            call();
        else
            enter(call);
        return result;
    }

    void close() {
        if (!multi_)
            return;
        must_close_ = true;
        if (!is_inside_)
            close_now();
    }

    /// libcurl wants a socket to be watched for something else.
    /**
     * Nothing is said when libcurl closes a kept socket. So the number may come again for another
     * file, with or without CURL_POLL_REMOVE.
     */
    void watch(CURL* easy, curl_socket_t s, int what) {
        if (what == CURL_POLL_REMOVE) {
            watchers_.erase(s);
            return;
        }
        auto w = watchers_.find(s);
        if (w == watchers_.end()) {
            w = watchers_.try_emplace(s, executor()).first;
            w->second.keeps_running(false);
            w->second.on_event([this, easy, s](error_code ec, readiness r) {
                const int in = r.is_readable() ? CURL_CSELECT_IN : 0;
                const int out = r.is_writable() ? CURL_CSELECT_OUT : 0;
                if (ec && ec != boost::asio::error::timed_out)
                    end(transfers_.find(easy), ec);
                act(s, ec ? CURL_CSELECT_ERR : in | out);
            });
        }
        interest want;
        if (what & CURL_POLL_IN)
            want |= interest::readable;
        if (what & CURL_POLL_OUT)
            want |= interest::writable;
        error_code ec;
        w->second.renew(s, ec);
        w->second.set_interest(want);
        if (!ec)
            return;
        // While libcurl connects, an event with an error does not end the transfer, so end() does.
        // Other transfers on the socket end by the event, since libcurl can't be called now.
        end(transfers_.find(easy), ec);
        w->second.expires_after(std::chrono::seconds(0));
    }

private:
    // ---- calling libcurl ------------------------------------------------------------------------

    /// Calls libcurl, and then does what its callbacks have asked for.
    template <class F>
    void enter(F f) {
        if (is_inside_)
            return; // what was noted is done by the call that goes on
        const auto self = this->weak_from_this().lock(); // callbacks may destroy the owner
        is_inside_ = true;
        f();
        do {
            take_results();
            for (CURL* easy : std::exchange(deferred_, {}))
                start_or_end(transfers_.find(easy));
        } while (!deferred_.empty());
        is_inside_ = false;
        if (must_close_)
            close_now();
    }

    void act(curl_socket_t s, int events) {
        enter([&] {
            int running = 0;
            const CURLMcode result = curl_multi_socket_action(multi_, s, events, &running);
            if (result == CURLM_OK)
                return;
            take_results();
            end_all(curl_error(result)); // none of them can go on
        });
    }

    /// In the next turn of the loop.
    void act_soon() {
        if (soon_)
            return soon_->touch();
        soon_.emplace(
            executor(),
            [this] {
                if (std::exchange(is_due_, false))
                    act(CURL_SOCKET_TIMEOUT, 0); // which may destroy this object
                return wants();
            },
            [](error_code, readiness) {});
    }

    void take_results() {
        int left = 0;
        while (const CURLMsg* m = curl_multi_info_read(multi_, &left)) {
            if (m->msg != CURLMSG_DONE)
                continue;
            const error_code result = curl_error(m->data.result); // removing it frees the message
            if (const position t = transfers_.find(m->easy_handle); t != transfers_.end())
                finish(t, result);
        }
    }

    // ---- transfers ------------------------------------------------------------------------------

    /// Marks a transfer as over. The present or the next enter() completes the operation.
    void end(position t, error_code ec) {
        if (t == transfers_.end())
            return;
        t->second.end = ec;
        deferred_.push_back(t->first);
    }

    void end_all(error_code ec) {
        for (position t = transfers_.begin(); t != transfers_.end(); ++t)
            end(t, ec);
    }

    void start_or_end(position t) {
        if (t == transfers_.end()) // it is over
            return;
        if (t->second.end || !t->second.op)
            return finish(t, t->second.end);
        if (std::exchange(t->second.is_added, true))
            return;
#if LIBCURL_VERSION_NUM >= 0x075700
        // Otherwise the end of a transfer waits for the thread that looks up the name.
        curl_easy_setopt(t->first, CURLOPT_QUICK_EXIT, 1L);
#endif
        const CURLMcode result = curl_multi_add_handle(multi_, t->first);
        if (result == CURLM_OK)
            return;
        t->second.is_added = false;
        finish(t, curl_error(result));
    }

    void finish(position t, error_code ec) {
        remove(t);
        ec_operation op = std::move(t->second.op);
        transfers_.erase(t);
        op.complete(ec);
    }

    void remove(position t) {
        if (t->second.op && std::exchange(t->second.is_added, false))
            curl_multi_remove_handle(multi_, t->first);
    }

    void close_now() {
        const auto self = this->weak_from_this().lock(); // callbacks may destroy the owner
        // libcurl may call back until the end.
        is_inside_ = true;
        for (position t = transfers_.begin(); t != transfers_.end(); ++t)
            remove(t);
        curl_multi_cleanup(multi_);
        multi_ = nullptr;
        is_inside_ = false;
        timer_.stop();
        soon_.reset();
        watchers_.clear();
        deferred_.clear();
        while (!transfers_.empty())
            finish(transfers_.begin(), boost::asio::error::operation_aborted);
    }

    // ---- libcurl's callbacks --------------------------------------------------------------------

    static int on_socket(CURL* easy, curl_socket_t s, int what, void* self, void*) {
        BOOST_TRY { static_cast<curl_session*>(self)->watch(easy, s, what); }
        BOOST_CATCH(...) {
            return -1; // all transfers fail
        }
        BOOST_CATCH_END
        return 0;
    }

    static int on_timer(CURLM*, long milliseconds, void* self) {
        BOOST_TRY {
            auto& s = *static_cast<curl_session*>(self);
            s.is_due_ = milliseconds == 0;
            if (milliseconds > 0)
                s.timer_.expires_after(std::chrono::milliseconds(milliseconds));
            else
                s.timer_.expires_never();
            if (s.is_due_)
                s.act_soon();
        }
        BOOST_CATCH(...) { return -1; }
        BOOST_CATCH_END
        return 0;
    }

    basic_watcher<Executor> timer_;
    std::optional<basic_source<Executor>> soon_; // from the first time on: it calls back at once
    CURLM* multi_;
    std::unordered_map<curl_socket_t, basic_watcher<Executor>> watchers_;
    std::map<CURL*, transfer> transfers_;
    std::vector<CURL*> deferred_;
    bool is_inside_ = false;
    bool is_due_ = false;
    bool must_close_ = false;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_CURL_SESSION_HPP
