//
// moor/stream_descriptor.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_STREAM_DESCRIPTOR_HPP
#define MOOR_STREAM_DESCRIPTOR_HPP

#include <moor/descriptor.hpp>
#include <moor/detail/transfer.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace moor {

/// A stream of bytes behind a POSIX descriptor, in place of
/// `boost::asio::posix::basic_stream_descriptor`.
/**
 * It models AsyncReadStream, AsyncWriteStream, SyncReadStream and SyncWriteStream: `asio::read`,
 * `asio::async_write`, `asio::ssl::stream` and their like take it. What `basic_descriptor` says of
 * owning and borrowing, threads, lifetimes and errors is true here.
 *
 * A transfer with empty buffers completes with 0 and no error, without a system call. Writing to a
 * socket whose peer is gone is `broken_pipe`, and raises no `SIGPIPE`; writing to a pipe raises it.
 *
 * Handles that `epoll` refuses are always ready: regular files, directories, `/dev/null`.
 * Operations on them are made at once, also when that takes the disk's time.
 *
 * @tparam Executor The I/O executor's type.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe, except that transfers and waits, `cancel`, and the synchronous
 * transfers may run concurrently with each other.
 */
template <class Executor = boost::asio::any_io_executor>
class basic_stream_descriptor : public basic_descriptor<Executor> {
    template <class Call>
    class initiate_transfer;
    using initiate_read = initiate_transfer<detail::read_call>;
    using initiate_write = initiate_transfer<detail::write_call>;
    using base = basic_descriptor<Executor>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = typename base::native_handle_type;

    /// The same on another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The descriptor's type.
        using other = basic_stream_descriptor<OtherExecutor>;
    };

    /// Without a handle.
    explicit basic_stream_descriptor(const executor_type& ex) : base(ex) {}

    /// Without a handle.
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    explicit basic_stream_descriptor(Context& context) : base(context) {}

    /// Owns a handle. @throws boost::system::system_error as `assign` does; then it still belongs
    /// to the caller.
    basic_stream_descriptor(const executor_type& ex, const native_handle_type& handle)
        : base(ex, handle) {}

    /// Owns a handle. @throws boost::system::system_error as `assign` does; then it still belongs
    /// to the caller.
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    basic_stream_descriptor(Context& context, const native_handle_type& handle)
        : base(context, handle) {}

    /// Borrows a handle. @throws boost::system::system_error as `assign` does.
    basic_stream_descriptor(const executor_type& ex, borrowed_handle handle) : base(ex, handle) {}

    /// Borrows a handle. @throws boost::system::system_error as `assign` does.
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    basic_stream_descriptor(Context& context, borrowed_handle handle) : base(context, handle) {}

    /// Moves the handle with its pending operations; `other` is not open afterwards.
    basic_stream_descriptor(basic_stream_descriptor&& other) noexcept = default;

    /// Moves from a stream descriptor on another executor.
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_stream_descriptor(basic_stream_descriptor<OtherExecutor>&& other)
        : base(std::move(other)) {}

    /// Ends with its own handle as the destructor does, and moves.
    basic_stream_descriptor& operator=(basic_stream_descriptor&& other) noexcept = default;

    /// Ends with its own handle as the destructor does, and moves.
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_stream_descriptor& operator=(basic_stream_descriptor<OtherExecutor>&& other) {
        base::operator=(std::move(other));
        return *this;
    }

    /// Reads some bytes; blocks until there are some, unless `non_blocking()` is set.
    /**
     * @returns The number of bytes, 0 on an error.
     * @par Errors
     * `eof` at the end; `would_block` if `non_blocking()` is set; what `read(2)` reports.
     */
    template <class MutableBufferSequence>
    std::size_t read_some(const MutableBufferSequence& buffers, error_code& ec) {
        return this->template transfer<detail::read_call>(buffers, ec);
    }
    /// @copydoc read_some @throws boost::system::system_error
    template <class MutableBufferSequence>
    std::size_t read_some(const MutableBufferSequence& buffers) {
        error_code ec;
        std::size_t n = read_some(buffers, ec);
        detail::throw_if(ec, "read_some");
        return n;
    }

    /// Writes some bytes; blocks until there is room, unless `non_blocking()` is set.
    /**
     * @returns The number of bytes, 0 on an error.
     * @par Errors
     * `broken_pipe` if the peer is gone; `would_block` if `non_blocking()` is set; what `write(2)`
     * reports.
     */
    template <class ConstBufferSequence>
    std::size_t write_some(const ConstBufferSequence& buffers, error_code& ec) {
        return this->template transfer<detail::write_call>(buffers, ec);
    }
    /// @copydoc write_some @throws boost::system::system_error
    template <class ConstBufferSequence>
    std::size_t write_some(const ConstBufferSequence& buffers) {
        error_code ec;
        std::size_t n = write_some(buffers, ec);
        detail::throw_if(ec, "write_some");
        return n;
    }

    /// Reads some bytes when there are some.
    /**
     * The buffers must stay valid until the handler is invoked; the descriptor may move meanwhile.
     * The errors are those of `read_some`, and `operation_aborted`. If a cancellation comes when
     * bytes have been read, they are delivered.
     *
     * @par Completion Signature
     * @code void(error_code, std::size_t) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`.
     */
    template <class MutableBufferSequence,
              class Token = boost::asio::default_completion_token_t<executor_type>>
    auto async_read_some(const MutableBufferSequence& buffers,
                         Token&& token = boost::asio::default_completion_token_t<executor_type>())
        -> decltype(boost::asio::async_initiate<Token, void(error_code, std::size_t)>(
            std::declval<initiate_read>(), token, buffers)) {
        return boost::asio::async_initiate<Token, void(error_code, std::size_t)>(
            initiate_read(this, interest::readable), token, buffers);
    }

    /// Writes some bytes when there is room.
    /**
     * The buffers must stay valid until the handler is invoked; the descriptor may move meanwhile.
     * The errors are those of `write_some`, and `operation_aborted`. If a cancellation comes when
     * bytes have been written, their number is delivered.
     *
     * @par Completion Signature
     * @code void(error_code, std::size_t) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`.
     */
    template <class ConstBufferSequence,
              class Token = boost::asio::default_completion_token_t<executor_type>>
    auto async_write_some(const ConstBufferSequence& buffers,
                          Token&& token = boost::asio::default_completion_token_t<executor_type>())
        -> decltype(boost::asio::async_initiate<Token, void(error_code, std::size_t)>(
            std::declval<initiate_write>(), token, buffers)) {
        return boost::asio::async_initiate<Token, void(error_code, std::size_t)>(
            initiate_write(this, interest::writable), token, buffers);
    }

private:
    /// Starts a transfer when its token says so.
    template <class Call>
    class initiate_transfer {
    public:
        using executor_type = Executor;

        initiate_transfer(basic_stream_descriptor* self, interest want) noexcept
            : self_(self), want_(want) {}

        const executor_type& get_executor() const noexcept { return self_->get_executor(); }

        template <class Handler, class Buffers>
        void operator()(Handler&& handler, const Buffers& buffers) const {
            self_->template start_transfer<Call>(want_, std::forward<Handler>(handler), buffers);
        }

    private:
        basic_stream_descriptor* self_;
        interest want_;
    };
};

/// A stream descriptor on any executor.
using stream_descriptor = basic_stream_descriptor<>;

} // namespace moor

#endif // MOOR_STREAM_DESCRIPTOR_HPP
