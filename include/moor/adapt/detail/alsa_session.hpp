//
// moor/adapt/detail/alsa_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The one operation of a handle of ALSA, and the poll set that it waits with. A work is what an
// operation does:
//
//   signature                      of the completion: an error_code, and what result() returns
//   int advance(handle, events)    does what is possible now: 0 if the work is done, 1 if a part
//                                  was done, -EAGAIN if nothing, or another error of ALSA's
//   bool has_begun()               whether a part was done
//
// Invariants
//   1. ALSA is called on the I/O executor only, and not after the operation is over.
//   2. The list is not changed while the set waits.
//   3. The registrations end before the handle is closed.
//

#ifndef MOOR_ADAPT_DETAIL_ALSA_SESSION_HPP
#define MOOR_ADAPT_DETAIL_ALSA_SESSION_HPP

#include <moor/adapt/detail/alsa_functions.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/poll.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/system/error_code.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <alsa/asoundlib.h>
#include <poll.h>

namespace moor {
namespace adapt {

namespace detail {

/// ALSA's errors are negative numbers of the system.
inline error_code alsa_error(long result) noexcept {
    return error_code(static_cast<int>(-result), boost::system::system_category());
}

/// An operation that is pending.
template <class Handle>
class alsa_request {
public:
    alsa_request() = default;
    alsa_request(const alsa_request&) = delete;
    alsa_request& operator=(const alsa_request&) = delete;

    virtual int advance(Handle* handle, unsigned short events) = 0;
    virtual bool has_begun() const noexcept = 0;
    virtual void complete(const error_code& ec) = 0;

protected:
    ~alsa_request() = default;
};

template <class Signature>
struct alsa_completion;

template <class... Results>
struct alsa_completion<void(error_code, Results...)> {
    operation<void(error_code, Results...)> op;

    template <class Work>
    void complete(const error_code& ec, const Work& work) {
        if constexpr (sizeof...(Results) == 0)
            op.complete(ec);
        else
            op.complete(ec, work.result());
    }
};

template <class Handle, class Work>
class alsa_request_of final : public alsa_request<Handle> {
public:
    explicit alsa_request_of(const Work& work) : work_(work) {}

    template <class Handler, class Executor>
    void start(Handler&& handler, const Executor& ex) {
        completion_.op = completion_.op.start(std::forward<Handler>(handler), ex);
    }
    template <class F>
    void on_cancel(F f) {
        completion_.op.on_cancel(std::move(f));
    }

    int advance(Handle* handle, unsigned short events) override {
        return work_.advance(handle, events);
    }
    bool has_begun() const noexcept override { return work_.has_begun(); }
    void complete(const error_code& ec) override { completion_.complete(ec, work_); }

private:
    Work work_;
    alsa_completion<typename Work::signature> completion_;
};

template <class Handle, class Executor>
class alsa_session : public std::enable_shared_from_this<alsa_session<Handle, Executor>> {
    using functions = alsa_functions<Handle>;

public:
    alsa_session(const Executor& ex, Handle* handle) : set_(ex), handle_(handle) {}

    const Executor& executor() const noexcept { return set_.get_executor(); }
    Handle* handle() const noexcept { return handle_; }

    /// Ends what is pending, for good.
    Handle* release() {
        basic_poll_set<Executor> ended(std::move(set_));
        complete(boost::asio::error::operation_aborted);
        return std::exchange(handle_, nullptr);
    }

    void cancel() {
        complete(boost::asio::error::operation_aborted);
        set_.cancel();
    }

    template <class Handler, class Work>
    void start(Handler&& handler, const Work& work) {
        using request = alsa_request_of<Handle, Work>;
        auto r = std::allocate_shared<request>(boost::asio::recycling_allocator<request>(), work);
        r->start(std::forward<Handler>(handler), executor());
        if (!handle_)
            return r->complete(boost::asio::error::bad_descriptor);
        if (request_)
            return r->complete(boost::asio::error::already_started);
        r->on_cancel([this](boost::asio::cancellation_type_t type) { cancel(type); });
        request_ = std::move(r);
        pause_ = {};
        if (!is_waiting_)
            guarded([this] { advance(0, false); });
    }

private:
    static constexpr std::chrono::milliseconds shortest_pause{1};
    static constexpr std::chrono::milliseconds longest_pause{16};

    void cancel(boost::asio::cancellation_type_t type) {
        using boost::asio::cancellation_type;
        const bool may_have_begun =
            (type & (cancellation_type::terminal | cancellation_type::partial)) !=
            cancellation_type::none;
        if (request_ && (may_have_begun || !request_->has_begun()))
            cancel();
    }

    /// Calls `f`. Without memory, the operation is over.
    template <class F>
    void guarded(F f) {
        bool has_failed = false;
        BOOST_TRY { f(); }
        BOOST_CATCH(const std::bad_alloc&) { has_failed = true; }
        BOOST_CATCH_END
        if (has_failed)
            complete(boost::asio::error::no_memory);
    }

    /// Goes on: at the start, after a pause, or when the list was ready.
    void advance(unsigned short events, bool is_woken) {
        const int result = request_->advance(handle_, events);
        if (result != 1 && result != -EAGAIN)
            return complete(result < 0 ? alsa_error(result) : error_code());
        if (is_woken && result == -EAGAIN && ::poll(fds_.data(), fds_.size(), 0) > 0) {
            // The event has brought nothing, and is there still: do not spin.
            pause_ = std::min(std::max(2 * pause_, shortest_pause), longest_pause);
            return start_wait(0, pause_);
        }
        if (is_woken)
            pause_ = {};
        wait();
    }

    void wait() {
        const int size = functions::count(handle_);
        if (size < 0)
            return complete(alsa_error(size));
        fds_.resize(static_cast<std::size_t>(size));
        // ALSA refuses the list of no descriptors.
        const int filled =
            size == 0 ? 0 : functions::fill(handle_, fds_.data(), static_cast<unsigned>(size));
        if (filled < 0)
            return complete(alsa_error(filled));
        if (filled == 0)
            return complete(boost::asio::error::operation_not_supported);
        fds_.resize(static_cast<std::size_t>(filled));
        start_wait(fds_.size(), std::chrono::milliseconds(-1));
    }

    /// Waits for the list, or for the time alone.
    void start_wait(std::size_t size, std::chrono::milliseconds timeout) {
        set_.async_wait(fds_.data(), size, timeout,
                        [self = this->shared_from_this()](error_code ec, std::size_t ready) {
                            self->is_waiting_ = false;
                            if (self->request_)
                                self->guarded([&] { self->end_wait(ec, ready); });
                        });
        is_waiting_ = true;
    }

    void end_wait(const error_code& ec, std::size_t ready) {
        if (ec == boost::asio::error::operation_aborted || (!ec && ready == 0))
            return advance(0, false); // an earlier operation's wait, or a pause
        if (ec)
            return complete(ec);
        unsigned short events = 0;
        const int result =
            functions::translate(handle_, fds_.data(), static_cast<unsigned>(fds_.size()), &events);
        if (result < 0)
            return complete(alsa_error(result));
        advance(events, true);
    }

    void complete(const error_code& ec) {
        if (const auto r = std::move(request_))
            r->complete(ec);
    }

    basic_poll_set<Executor> set_;
    Handle* handle_;
    std::shared_ptr<alsa_request<Handle>> request_;
    std::vector<::pollfd> fds_;
    bool is_waiting_ = false;
    std::chrono::milliseconds pause_{};
};

// ---- works --------------------------------------------------------------------------------------

/// Waits for ALSA's events.
class alsa_wait {
public:
    using signature = void(error_code, unsigned short);

    template <class Handle>
    int advance(Handle*, unsigned short events) noexcept {
        events_ = events;
        return events ? 0 : -EAGAIN;
    }
    bool has_begun() const noexcept { return false; }
    unsigned short result() const noexcept { return events_; }

private:
    unsigned short events_ = 0;
};

/// Transfers frames: all of them, if there is no error.
template <class Pointer, class Byte,
          snd_pcm_sframes_t (*Transfer)(snd_pcm_t*, Pointer, snd_pcm_uframes_t)>
class alsa_transfer {
public:
    using signature = void(error_code, std::size_t);

    alsa_transfer(Pointer data, std::size_t frames) noexcept
        : next_(static_cast<Byte*>(data)), left_(frames) {}

    int advance(snd_pcm_t* pcm, unsigned short) {
        int result = -EAGAIN;
        while (left_ != 0) {
            const snd_pcm_sframes_t n = Transfer(pcm, next_, left_);
            if (n == -EINTR)
                continue;
            if (n < 0 && n != -EAGAIN)
                return static_cast<int>(n);
            if (n <= 0)
                return result;
            next_ += snd_pcm_frames_to_bytes(pcm, n);
            left_ -= static_cast<std::size_t>(n);
            done_ += static_cast<std::size_t>(n);
            result = 1;
        }
        return 0;
    }
    bool has_begun() const noexcept { return done_ != 0; }
    std::size_t result() const noexcept { return done_; }

private:
    Byte* next_;
    std::size_t left_;
    std::size_t done_ = 0;
};
using alsa_write = alsa_transfer<const void*, const char, &snd_pcm_writei>;
using alsa_read = alsa_transfer<void*, char, &snd_pcm_readi>;

/// Waits until all was played. In the non-blocking mode, each call asks again.
struct alsa_drain {
    using signature = void(error_code);

    static int advance(snd_pcm_t* pcm, unsigned short) {
        int result;
        do
            result = snd_pcm_drain(pcm);
        while (result == -EINTR);
        return result;
    }
    static bool has_begun() noexcept { return false; }
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_ALSA_SESSION_HPP
