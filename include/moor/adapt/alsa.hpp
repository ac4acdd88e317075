//
// moor/adapt/alsa.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// ALSA's handles in an execution context: wait for the events of a PCM, a control, a MIDI port or
// the sequencer; write, read and drain a PCM. Needs libasound.
//
// The library's contract, as the adapter keeps it:
//
// - A handle has a list of descriptors for poll(2), which a plugin chooses. The list may change, so
//   the adapter asks for the list before each wait.
// - The results of poll(2) are not the events of the handle: a PCM that plays may wait with POLLIN,
//   and an event may have to be consumed. The adapter passes the results to ALSA
//   (snd_pcm_poll_descriptors_revents), which returns the events, or none.
// - A plugin may leave an event that means nothing in place. Then the adapter pauses before the
// next
//   wait, for 1 ms at first and for 16 ms at most, and does not spin.
// - In the non-blocking mode, snd_pcm_drain fails with EAGAIN, and has to be called again after an
//   event. In the blocking mode, most functions block: the adapter sets the non-blocking mode.
// - Opening a handle reads files. Without SND_PCM_NONBLOCK, opening also waits for the device.
//
// Threads: all members have to be called, and cancellation signals emitted, on the executor, which
// has to be a strand if several threads run the context. The adapter starts no thread.
//
// Lifetimes: an object owns a handle, or borrows a handle. The object may outlive the execution
// context. The destructor and close() complete a pending operation with operation_aborted.
//
// An example: example/sound.cpp.
//

#ifndef MOOR_ADAPT_ALSA_HPP
#define MOOR_ADAPT_ALSA_HPP

#include <moor/adapt/detail/alsa_functions.hpp>
#include <moor/adapt/detail/alsa_session.hpp>
#include <moor/adapt/detail/initiation.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/detail/throw_if.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>

#include <cerrno>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include <alsa/asoundlib.h>
#include <poll.h>

namespace moor {
namespace adapt {

/// The functions of a kind of handle: specialized for the handles that an object may have.
/**
 * There are specializations for `snd_pcm_t`, `snd_ctl_t`, `snd_rawmidi_t`, and `snd_seq_t` (which
 * is waited for to read events). A program may add others, with the same five functions.
 *
 * @tparam Handle The type of the handle.
 *
 * @par Example
 * @code
 * template <>
 * struct moor::adapt::alsa_functions<snd_mixer_t> {
 *     static int set_nonblock(snd_mixer_t*) { return 0; }
 *     static int count(snd_mixer_t* m) { return snd_mixer_poll_descriptors_count(m); }
 *     static int fill(snd_mixer_t* m, pollfd* fds, unsigned n) {
 *         return snd_mixer_poll_descriptors(m, fds, n);
 *     }
 *     static int translate(snd_mixer_t* m, pollfd* fds, unsigned n, unsigned short* events) {
 *         return snd_mixer_poll_descriptors_revents(m, fds, n, events);
 *     }
 *     static void close(snd_mixer_t* m) { snd_mixer_close(m); }
 * };
 * @endcode
 */
template <class Handle>
struct alsa_functions;

/// Closes a handle.
/**
 * @par Example
 * @code
 * std::unique_ptr<snd_pcm_t, moor::adapt::alsa_close> pcm(opened); // the same as an alsa_ptr
 * @endcode
 */
struct alsa_close {
    /// Closes the handle.
    template <class Handle>
    void operator()(Handle* h) const {
        alsa_functions<Handle>::close(h);
    }
};

/// Owns a handle.
template <class Handle>
using alsa_ptr = std::unique_ptr<Handle, alsa_close>;

/// Makes an `error_code` of a negative result of ALSA's functions.
/**
 * ALSA's errors are those of the system, so the category is the system's: `errc::broken_pipe` means
 * that a PCM was too late (xrun).
 *
 * @param result The result.
 */
inline error_code alsa_error_code(long result) noexcept { return detail::alsa_error(result); }

/// Waits for the events of a handle of ALSA.
/**
 * The object owns the handle, or borrows it, and sets its non-blocking mode. One operation may be
 * pending at a time.
 *
 * @par Cancellation
 * A cancelled operation completes with `operation_aborted`. The next operation may begin at once.
 *
 * @par Errors
 * `operation_aborted` if the operation was cancelled, or the object closed, released or destroyed;
 * @n
 * `asio::error::already_started` if another operation is pending; @n
 * `asio::error::bad_descriptor` after `close` or `release`; @n
 * `asio::error::operation_not_supported` if the handle has no descriptors; @n
 * `asio::error::no_memory`; @n
 * an error of ALSA, in the system's category, or of `basic_poll_set::async_wait`.
 *
 * @tparam Handle The type of the handle: `snd_pcm_t`, `snd_ctl_t`, `snd_rawmidi_t`, `snd_seq_t`, or
 * another one with `alsa_functions`.
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * A pending operation keeps `run()` from returning. Between operations, the object costs nothing.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called, and cancellation signals emitted, on
 * the executor, which has to be a strand if several threads run the execution context.
 *
 * @par Lifetimes
 * An object may outlive its execution context, and be destroyed then. An operation goes on when its
 * object is moved. An object that was moved from can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<void> show_changes(moor::adapt::alsa_ctl& ctl, snd_ctl_event_t* event) {
 *     snd_ctl_subscribe_events(ctl.native_handle(), 1);
 *     for (;;) {
 *         co_await ctl.async_wait(asio::use_awaitable);
 *         while (snd_ctl_read(ctl.native_handle(), event) > 0)
 *             std::cout << snd_ctl_event_elem_get_name(event) << '\n';
 *     }
 * }
 * @endcode
 */
template <class Handle, class Executor = boost::asio::any_io_executor>
class basic_alsa {
protected:
    /// @cond
    using session = detail::alsa_session<Handle, Executor>;
    using default_token = boost::asio::default_completion_token_t<Executor>;

    /// What the initiating functions do, once their tokens say so.
    struct start_work {
        template <class Handler, class Work>
        void operator()(session& s, Handler&& handler, Work&& work) const {
            s.start(std::forward<Handler>(handler), work);
        }
    };
    using initiation = detail::initiation<session, start_work>;

    template <class Work, class Token>
    using initiated = moor::detail::initiated<typename Work::signature, Token, initiation, Work>;

    template <class Work, class Token>
    auto start(Work work, Token& token) -> initiated<Work, Token> {
        return moor::detail::initiate<typename Work::signature, Token>(initiation{session_.get()},
                                                                       token, std::move(work));
    }
    /// @endcond

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = Handle*;

    /// The object's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The object's type.
        using other = basic_alsa<Handle, OtherExecutor>;
    };

    /// Borrows a handle, which the caller has to close.
    /**
     * The non-blocking mode is set, and stays.
     *
     * @param ex The I/O executor.
     * @param borrowed The handle, which has to exist until `release`, `close` or the destructor.
     * @throws boost::system::system_error If the mode can't be set; `bad_descriptor` if the handle
     * is null.
     */
    basic_alsa(const executor_type& ex, native_handle_type borrowed)
        : session_(std::make_shared<session>(ex, borrowed)) {
        const int result = borrowed ? alsa_functions<Handle>::set_nonblock(borrowed) : -EBADF;
        moor::detail::throw_if(result < 0 ? alsa_error_code(result) : error_code(),
                               "moor::adapt::alsa", -1);
    }
    /// Borrows a handle, which the caller has to close.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param borrowed The handle, as for the other overload.
     * @throws boost::system::system_error If the mode can't be set.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_alsa(Context& context, native_handle_type borrowed)
        : basic_alsa(executor_type(context.get_executor()), borrowed) {}
    /// Owns a handle.
    /**
     * @param ex The I/O executor.
     * @param owned The handle.
     * @throws boost::system::system_error If the non-blocking mode can't be set; then the caller
     * has the handle still.
     */
    basic_alsa(const executor_type& ex, alsa_ptr<Handle>&& owned) : basic_alsa(ex, owned.get()) {
        owned_ = std::move(owned);
    }
    /// Owns a handle.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param owned The handle.
     * @throws boost::system::system_error If the non-blocking mode can't be set.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_alsa(Context& context, alsa_ptr<Handle>&& owned)
        : basic_alsa(executor_type(context.get_executor()), std::move(owned)) {}

    /// Moves an object, with the pending operation.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_alsa(basic_alsa&& other) noexcept = default;
    /// Closes, as the destructor does, and moves another object.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_alsa& operator=(basic_alsa&& other) noexcept {
        if (this != &other) {
            close();
            session_ = std::move(other.session_);
            owned_ = std::move(other.owned_);
        }
        return *this;
    }
    /// Completes a pending operation with `operation_aborted`, and closes a handle that is owned.
    ~basic_alsa() { close(); }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return session_->executor(); }

    /// Returns the handle, or null.
    native_handle_type native_handle() const noexcept { return session_->handle(); }

    /// Completes a pending operation with `operation_aborted`.
    void cancel() { session_->cancel(); }

    /// Completes a pending operation with `operation_aborted`, and closes a handle that is owned.
    void close() {
        if (session_)
            session_->release();
        owned_.reset();
    }

    /// Completes a pending operation with `operation_aborted`, and gives the handle to the caller.
    /**
     * @returns The handle, which the caller has to close.
     */
    native_handle_type release() {
        owned_.release();
        return session_->release();
    }

    /// Waits until ALSA reports an event.
    /**
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, unsigned short events) @endcode
     * `events` are the events that ALSA reports: `POLLIN`, `POLLOUT`, or `POLLERR`, whose error the
     * next call of ALSA returns.
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`.
     * @par Example
     * @code
     * pcm.async_wait([&](moor::error_code ec, unsigned short events) {
     *     if (!ec && (events & POLLOUT))
     *         snd_pcm_mmap_begin(pcm.native_handle(), &areas, &offset, &frames);
     * });
     * @endcode
     */
    template <class Token = default_token>
    auto async_wait(Token&& token = default_token()) -> initiated<detail::alsa_wait, Token> {
        return start(detail::alsa_wait(), token);
    }

private:
    std::shared_ptr<session> session_;
    alsa_ptr<Handle> owned_;
};

/// Plays or records with a PCM of ALSA.
/**
 * What `basic_alsa` says holds, too.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called on the executor, which has to be a
 * strand if several threads run the execution context.
 *
 * @par Example
 * @code
 * asio::awaitable<void> play(moor::adapt::alsa_pcm& pcm, std::vector<short> samples) {
 *     auto [ec, n] = co_await pcm.async_write(samples.data(), samples.size(),
 *                                             asio::as_tuple(asio::use_awaitable));
 *     if (ec == boost::system::errc::broken_pipe) // too late: frames 0 to n were written
 *         snd_pcm_recover(pcm.native_handle(), -EPIPE, 1);
 *     co_await pcm.async_drain(asio::use_awaitable);
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_alsa_pcm : public basic_alsa<snd_pcm_t, Executor> {
    using base = basic_alsa<snd_pcm_t, Executor>;
    using typename base::default_token;
    template <class Work, class Token>
    using initiated = typename base::template initiated<Work, Token>;

public:
    /// The object's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The object's type.
        using other = basic_alsa_pcm<OtherExecutor>;
    };

    using base::base;

    /// Writes interleaved frames (`snd_pcm_writei`).
    /**
     * The operation completes when all frames are in the buffer of the PCM, or with an error. The
     * PCM has to be started, or to start itself before the buffer is full (the start threshold).
     *
     * @param data The frames, which have to stay valid and unchanged until the operation is over.
     * @param frames How many.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, std::size_t frames) @endcode
     * `frames` is how many are in the buffer, with an error, too.
     * @par Per-Operation Cancellation
     * `terminal`, `partial`; `total` as long as no frame was written.
     * @par Errors
     * `errc::broken_pipe` if the PCM has run out of frames before; `snd_pcm_recover` helps, and is
     * up to the caller. Others as `basic_alsa`.
     * @par Example
     * @code
     * pcm.async_write(samples.data(), 480, [&](moor::error_code ec, std::size_t frames) { ... });
     * @endcode
     */
    template <class Token = default_token>
    auto async_write(const void* data, std::size_t frames, Token&& token = default_token())
        -> initiated<detail::alsa_write, Token> {
        return this->start(detail::alsa_write(data, frames), token);
    }

    /// Reads interleaved frames (`snd_pcm_readi`).
    /**
     * The operation completes when all frames were read, or with an error. As in ALSA, a read
     * starts a prepared PCM if the read asks for at least as many frames as the start threshold.
     * Otherwise call `snd_pcm_start`. (`snd_pcm_set_params` sets the threshold to nearly the whole
     * buffer.)
     *
     * @param data The memory for the frames, which has to stay valid until the operation is over.
     * @param frames How many.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, std::size_t frames) @endcode
     * `frames` is how many were read, with an error, too.
     * @par Per-Operation Cancellation
     * `terminal`, `partial`; `total` as long as no frame was read.
     * @par Errors
     * `errc::broken_pipe` if the buffer was full, and frames were lost. Others as `basic_alsa`.
     * @par Example
     * @code
     * pcm.async_read(samples.data(), 480, [&](moor::error_code ec, std::size_t frames) { ... });
     * @endcode
     */
    template <class Token = default_token>
    auto async_read(void* data, std::size_t frames, Token&& token = default_token())
        -> initiated<detail::alsa_read, Token> {
        return this->start(detail::alsa_read(data, frames), token);
    }

    /// Waits until all frames were played, and stops the PCM (`snd_pcm_drain`).
    /**
     * Some plugins, such as the plugin for PulseAudio, block in `snd_pcm_drain` in spite of the
     * non-blocking mode.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: ends the wait; the PCM goes on draining.
     * @par Errors
     * As `basic_alsa`.
     * @par Example
     * @code
     * co_await pcm.async_drain(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_drain(Token&& token = default_token()) -> initiated<detail::alsa_drain, Token> {
        return this->start(detail::alsa_drain(), token);
    }
};

/// A PCM, on any I/O executor.
using alsa_pcm = basic_alsa_pcm<>;

/// A control, on any I/O executor.
using alsa_ctl = basic_alsa<snd_ctl_t>;

/// One direction of a MIDI port, on any I/O executor.
using alsa_rawmidi = basic_alsa<snd_rawmidi_t>;

/// The sequencer, on any I/O executor.
using alsa_seq = basic_alsa<snd_seq_t>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_ALSA_HPP
