//
// moor/adapt/detail/ares_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A channel of c-ares in a loop: what is pending, and what c-ares waits for.
//
//   waiting_   requests behind the limit
//   sent_      requests that c-ares has; also those that were cancelled since
//   sockets_   what c-ares wants to know of its sockets
//
// Invariants
//   1. c-ares calls back once for each request in sent_, perhaps from within the call that sends
//      it. The callbacks call neither c-ares nor user code: completing an operation queues its
//      handler. (From 1.34 on, c-ares holds the channel's lock then.)
//   2. A socket leaves sockets_ before c-ares closes it.
//   3. After each call of c-ares, update() arms the watchers and the deadline anew.
//   4. Without a request in sent_, nothing is watched, and there is no deadline.
//   5. There is a request in sent_ whose operation is pending, or sent_ is empty.
//

#ifndef MOOR_ADAPT_DETAIL_ARES_SESSION_HPP
#define MOOR_ADAPT_DETAIL_ARES_SESSION_HPP

#include <moor/adapt/c_ares_types.hpp>
#include <moor/adapt/detail/has_null.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include <ares.h>
#include <sys/time.h>

// From 1.28 and 1.34 on, c-ares has new names for the functions that all versions have.
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif

namespace moor {
namespace adapt {
namespace detail {

struct ares_channel_deleter {
    void operator()(ares_channel c) const noexcept { ares_destroy(c); }
};

/// On any executor, so that a resolver can be moved to one with another type of executor.
class ares_session {
public:
    using executor_type = boost::asio::any_io_executor;

    /// What c-ares is asked for.
    class request {
    public:
        request() = default;
        request(const request&) = delete;
        request& operator=(const request&) = delete;
        virtual ~request() = default;

        /// Completes the operation without a result.
        virtual void end(error_code ec) = 0;

    protected:
        /// c-ares has called back: destroys this.
        void leave() { session_->leave(position_); }

    private:
        friend class ares_session;
        virtual void send(ares_channel channel) = 0;

        ares_session* session_ = nullptr;
        std::list<std::unique_ptr<request>>::iterator position_;
        bool is_sent_ = false;
        bool is_live_ = true; // nobody has cancelled it
    };

    ares_session(const executor_type& ex, const c_ares_options& options)
        : limit_((std::max)(options.max_in_flight, std::size_t(1))),
          deadline_(ex, [this](error_code, readiness) {
              ares_process_fd(channel_.get(), ARES_SOCKET_BAD, ARES_SOCKET_BAD);
              go_on();
          }) {
        static const int is_ready = ares_library_init(ARES_LIB_INIT_ALL);
        check(is_ready);
        ares_options native = options.native;
        int mask = options.native_mask | ARES_OPT_SOCK_STATE_CB;
        native.sock_state_cb = &on_socket;
        native.sock_state_cb_data = this;
        if (options.timeout.count() > 0) {
            constexpr std::chrono::milliseconds most((std::numeric_limits<int>::max)());
            native.timeout = static_cast<int>((std::min)(options.timeout, most).count());
            mask |= ARES_OPT_TIMEOUTMS;
        }
        if (options.tries > 0) {
            native.tries = options.tries;
            mask |= ARES_OPT_TRIES;
        }
        ares_channel channel = nullptr;
        check(ares_init_options(&channel, &native, mask));
        channel_.reset(channel);
        if (!options.servers.empty())
            check(ares_set_servers_ports_csv(channel, options.servers.c_str()));
    }
    ares_session(const ares_session&) = delete;
    ares_session& operator=(const ares_session&) = delete;
    ~ares_session() { end_all(boost::asio::error::operation_aborted); }

    const executor_type& executor() const noexcept { return deadline_.get_executor(); }
    ares_channel native_handle() const noexcept { return channel_.get(); }

    /// Begins an operation, which is queued, or over already. After an exception, nothing has
    /// begun.
    template <class Request, class Handler, class... Args>
    void start(Handler&& handler, Args&&... args) {
        auto started = std::make_unique<Request>(std::forward<Args>(args)...);
        Request& r = *started;
        r.begin(std::forward<Handler>(handler), executor());
        if (!r.operation_ || r.is_answered_at_once(executor()))
            return;
        r.session_ = this;
        std::list<std::unique_ptr<request>> one;
        const position p = r.position_ = one.insert(one.end(), std::move(started));
        r.operation_.on_cancel([this, p](boost::asio::cancellation_type_t) { cancel(p); });
        waiting_.splice(waiting_.end(), one);
        go_on();
    }

    void cancel() {
        end_all(boost::asio::error::operation_aborted);
        update();
    }

private:
    using position = std::list<std::unique_ptr<request>>::iterator;

    struct watched_socket {
        interest wanted;
        std::optional<moor::watcher> watcher{};
    };

    static void check(int status) {
        if (status != ARES_SUCCESS)
            boost::throw_exception(boost::system::system_error(c_ares_error_code(status),
                                                               "moor::adapt::c_ares_resolver"));
    }

    // ---- requests -------------------------------------------------------------------------------

    /// c-ares can't cancel a single request. The answer of a cancelled one is dropped when it
    /// comes, but nobody waits for the answers of cancelled requests only.
    void go_on() {
        for (;;) {
            if (live_ == 0 && !sent_.empty())
                ares_cancel(channel_.get());
            if (waiting_.empty() || sent_.size() >= limit_)
                break;
            sent_.splice(sent_.end(), waiting_, waiting_.begin());
            request& r = *sent_.back();
            r.is_sent_ = true;
            ++live_;
            r.send(channel_.get());
        }
        update();
    }

    void leave(position p) {
        live_ -= (*p)->is_live_;
        sent_.erase(p);
    }

    void cancel(position p) {
        (*p)->end(boost::asio::error::operation_aborted);
        if (!(*p)->is_sent_) {
            waiting_.erase(p);
            return;
        }
        (*p)->is_live_ = false;
        --live_;
        go_on();
    }

    void end_all(error_code ec) {
        for (const std::unique_ptr<request>& r : waiting_)
            r->end(ec);
        waiting_.clear();
        for (const std::unique_ptr<request>& r : sent_) {
            r->end(ec);
            r->is_live_ = false;
        }
        live_ = 0;
        if (!sent_.empty())
            ares_cancel(channel_.get());
    }

    // ---- sockets --------------------------------------------------------------------------------

    /// Called by c-ares, from within any call.
    static void on_socket(void* session, ares_socket_t fd, int readable, int writable) {
        auto& self = *static_cast<ares_session*>(session);
        if (!readable && !writable) {
            self.sockets_.erase(fd); // perhaps in the watcher's own handler
            return;
        }
        BOOST_TRY {
            self.sockets_[fd].wanted = (readable ? interest::readable : interest::none) |
                                       (writable ? interest::writable : interest::none);
        }
        BOOST_CATCH(...) { self.is_out_of_memory_ = true; } // for arm()
        BOOST_CATCH_END
    }

    void on_event(ares_socket_t fd, error_code ec, readiness ready) {
        if (ec) {
            end_all(ec);
            return update();
        }
        // Reading first: it notices the end of a connection, to which c-ares up to 1.33 writes
        // without MSG_NOSIGNAL.
        if (ready.is_readable())
            ares_process_fd(channel_.get(), fd, ARES_SOCKET_BAD);
        if (ready.is_writable() && sockets_.count(fd) != 0)
            ares_process_fd(channel_.get(), ARES_SOCKET_BAD, fd);
        go_on();
    }

    /// Does not throw, so no exception leaves a function in which an operation is pending already.
    void update() {
        error_code ec;
        BOOST_TRY { ec = arm(); }
        BOOST_CATCH(...) { ec = boost::asio::error::no_memory; }
        BOOST_CATCH_END
        if (ec) {
            end_all(ec);
            arm(); // disarms, which does not fail
        }
    }

    error_code arm() {
        const bool is_busy = !sent_.empty();
        if (std::exchange(is_out_of_memory_, false))
            return boost::asio::error::no_memory;
        for (auto& [fd, socket] : sockets_)
            if (const error_code ec = watch(fd, socket, is_busy))
                return ec;
        ::timeval left{};
        if (is_busy && ares_timeout(channel_.get(), nullptr, &left)) // 1.18: in whole milliseconds
            deadline_.expires_after(std::chrono::seconds(left.tv_sec) +
                                    std::chrono::microseconds(left.tv_usec) +
                                    std::chrono::milliseconds(1));
        else
            deadline_.expires_never();
        return error_code();
    }

    /// With ARES_FLAG_STAYOPEN, sockets stay open while there is nothing to do.
    error_code watch(ares_socket_t fd, watched_socket& s, bool is_busy) {
        error_code ec;
        if (!s.watcher && is_busy)
            s.watcher.emplace(
                executor(), fd,
                [this, fd](error_code e, readiness ready) { on_event(fd, e, ready); }, ec);
        if (ec)
            s.watcher.reset(); // the socket may stay open, for the next operation
        else if (s.watcher)
            s.watcher->set_interest(is_busy ? s.wanted : interest());
        return ec;
    }

    const std::size_t limit_;
    std::list<std::unique_ptr<request>> waiting_, sent_;
    std::size_t live_ = 0; // those in sent_ whose operation is pending
    std::map<ares_socket_t, watched_socket> sockets_;
    bool is_out_of_memory_ = false;
    moor::watcher deadline_;
    std::unique_ptr<std::remove_pointer_t<ares_channel>, ares_channel_deleter> channel_; // last
};

/// A request whose operation completes with an error and a result.
template <class Result>
class ares_request_for : public ares_session::request {
    using operation_type = operation<void(error_code, Result)>;

public:
    void end(error_code ec) override { complete(ec, Result()); }

protected:
    bool is_pending() const noexcept { return bool(operation_); }

    void complete(error_code ec, Result result) {
        operation_type done = std::move(operation_);
        done.complete(ec, std::move(result));
    }

    /// The end of each callback of c-ares; `make()` makes the result.
    template <class Make>
    void answer(error_code ec, Make make) {
        if (operation_) {
            BOOST_TRY { complete(ec, make()); }
            BOOST_CATCH(...) { end(boost::asio::error::no_memory); }
            BOOST_CATCH_END
        }
        this->leave();
    }

private:
    friend class ares_session;

    template <class Handler>
    void begin(Handler&& handler, const ares_session::executor_type& ex) {
        operation_ = operation_type::start(std::forward<Handler>(handler), ex);
    }

    operation_type operation_;
};

/// A query for records of any type.
class ares_query_request final : public ares_request_for<c_ares_answer> {
public:
    ares_query_request(std::string name, int dns_class, int type)
        : name_(std::move(name)), class_(dns_class), type_(type) {}

    bool is_answered_at_once(const ares_session::executor_type&) {
        constexpr int most = 0xffff; // c-ares would ask for other records
        if (has_null(name_))
            this->end(c_ares_error::bad_name);
        else if (class_ < 0 || class_ > most || type_ < 0 || type_ > most)
            this->end(boost::asio::error::invalid_argument);
        return !this->is_pending();
    }

private:
    void send(ares_channel channel) override {
        ares_query(channel, name_.c_str(), class_, type_, &on_answer, this);
    }

    static void on_answer(void* self, int status, int, unsigned char* bytes, int size) {
        static_cast<ares_query_request*>(self)->answer(c_ares_error_code(status), [&] {
            return bytes ? c_ares_answer(bytes, bytes + size) : c_ares_answer();
        });
    }

    const std::string name_;
    const int class_, type_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#endif // MOOR_ADAPT_DETAIL_ARES_SESSION_HPP
