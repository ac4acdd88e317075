//
// moor/adapt/inotify.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Linux's inotify in an execution context: events of files and directories, and the changes of a
// whole tree, as operations with completion tokens. Needs no library, but Linux.
//
// The kernel's contract, as the adapter keeps it:
//
// - A watch covers one file or directory, and nothing below it. A program that
//   makes a directory and files in the directory is faster than the watch of the new directory. So
//   a tree reads each directory after the directory's watch was added, and drops duplicates.
// - A move gives two events, one after the other, if both directories are
//   watched; otherwise one.
// - An exchange (RENAME_EXCHANGE) gives the events of two moves. So a tree asks
//   the disk after each move.
// - When the queue is full (fs.inotify.max_queued_events), the kernel drops events, and reports an
//   overflow once. A tree reports the overflow, too, and reads everything again.
// - Reading a directory blocks until the disk has answered: Linux has no other
//   call. A tree reads for a millisecond in each turn of the loop.
//
// Threads: all members have to be called on the executor, which has to be a strand if several
// threads run the context. The adapter starts no thread.
//
// Lifetimes: the objects own the descriptor of inotify, which is non-blocking and closed by exec.
// The objects may outlive the execution context. The destructors and close() complete pending
// operations with operation_aborted.
//
// An example: example/tree.cpp.
//

#ifndef MOOR_ADAPT_INOTIFY_HPP
#define MOOR_ADAPT_INOTIFY_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/detail/initiation.hpp>
#include <moor/adapt/detail/inotify_descriptor.hpp>
#include <moor/adapt/detail/inotify_model.hpp>
#include <moor/adapt/detail/inotify_session.hpp>
#include <moor/adapt/inotify_types.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/detail/throw_if.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/error.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/inotify.h>

namespace moor {
namespace adapt {

namespace detail {

/// What the initiating functions do, once their tokens say so.
struct inotify_read {
    template <class Session, class Handler>
    void operator()(Session& s, Handler&& handler) const {
        s.read(std::forward<Handler>(handler));
    }
};

} // namespace detail

/// The events of files and directories, by Linux's inotify.
/**
 * The object owns a descriptor of inotify, which is non-blocking and closed by exec. For all of a
 * directory's subdirectories, use `inotify_tree`.
 *
 * @par Cancellation
 * A cancelled operation completes with `operation_aborted`, and loses no event: the next operation
 * receives it. Events which come while no operation is pending stay in the kernel's queue. When the
 * queue is full, the kernel drops events, and adds an event with `IN_Q_OVERFLOW` and without a
 * watch.
 *
 * @par Errors
 * An operation completes with `operation_aborted` if it was cancelled, or if the object was closed,
 * released or destroyed; with `bad_descriptor` if the object had no descriptor when the operation
 * began; with `no_memory`, after which events may be missing; with `inotify_error::bad_event`; or
 * with an error of the wait or of `read(2)`. The watches stay.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. Watches alone do not, and cause no system call.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called on the executor, which has to be a
 * strand if several threads run the execution context.
 *
 * @par Lifetimes
 * An object may outlive its execution context, and be destroyed then. An operation goes on when its
 * object is moved. An object that was moved from can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<void> reload_when_written(asio::io_context& io) {
 *     moor::adapt::inotify files(io);
 *     files.add("/etc/program", IN_CLOSE_WRITE | IN_MOVED_TO);
 *     for (;;)
 *         for (const moor::adapt::inotify_event& e :
 *              co_await files.async_read_events(asio::use_awaitable))
 *             if (e.name == "settings" || (e.mask & IN_Q_OVERFLOW))
 *                 reload();
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_inotify {
    using session = detail::inotify_session<Executor, detail::inotify_descriptor>;
    using initiation = detail::initiation<session, detail::inotify_read>;
    using default_token = boost::asio::default_completion_token_t<Executor>;
    using events_signature = void(error_code, std::vector<inotify_event>);

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = int;

    /// The object's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The object's type.
        using other = basic_inotify<OtherExecutor>;
    };

    /// Opens a descriptor of inotify, without watches.
    /**
     * @param ex The I/O executor.
     * @param ec Set to the error, if any, as by the overload that throws.
     */
    basic_inotify(const executor_type& ex, error_code& ec)
        : session_(std::make_unique<session>(ex)) {
        session_->work().open(ec);
    }
    /// Opens a descriptor of inotify, without watches.
    /**
     * @param ex The I/O executor.
     * @throws boost::system::system_error With the errors of `inotify_init1(2)`: `EMFILE` means
     * that the process has too many descriptors, or the user too many of inotify
     * (`fs.inotify.max_user_instances`).
     */
    explicit basic_inotify(const executor_type& ex) : session_(std::make_unique<session>(ex)) {
        error_code ec;
        session_->work().open(ec);
        moor::detail::throw_if(ec, "moor::adapt::inotify", -1);
    }
    /// Opens a descriptor of inotify, without watches.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param ec Set to the error, if any, as by the overload that throws.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_inotify(Context& context, error_code& ec)
        : basic_inotify(executor_type(context.get_executor()), ec) {}
    /// Opens a descriptor of inotify, without watches.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @throws boost::system::system_error With the errors of `inotify_init1(2)`.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    explicit basic_inotify(Context& context)
        : basic_inotify(executor_type(context.get_executor())) {}

    /// Moves the descriptor, with the pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_inotify(basic_inotify&& other) noexcept = default;
    /// Closes the present descriptor, as the destructor does, and moves another one.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_inotify& operator=(basic_inotify&& other) noexcept = default;
    /// Completes pending operations with `operation_aborted`, and closes the descriptor.
    ~basic_inotify() = default;

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return session_->executor(); }

    /// Returns the descriptor of inotify, or -1.
    native_handle_type native_handle() const noexcept { return session_->work().native_handle(); }

    /// Completes pending operations with `operation_aborted`, and closes the descriptor for good.
    void close() { session_->close(); }

    /// Completes pending operations with `operation_aborted`, and returns the descriptor.
    /**
     * @returns The descriptor, which the caller has to close.
     */
    native_handle_type release() {
        session_->stop();
        return session_->work().release();
    }

    /// Watches a file or a directory, or changes the mask of its watch.
    /**
     * @param path The file or directory. If the file is watched already, even under another path,
     * this call changes the watch.
     * @param mask What to watch, and how: `IN_CREATE | IN_DONT_FOLLOW` and so on, see inotify(7).
     * @param ec Set to the error, if any: `inotify_error::watch_limit`, or an error of
     * `inotify_add_watch(2)`. A path with a null character is an `invalid_argument`.
     * @returns The watch; -1 with an error.
     */
    int add(const std::filesystem::path& path, std::uint32_t mask, error_code& ec) {
        if (detail::has_null(path.native())) {
            ec = boost::asio::error::invalid_argument;
            return -1;
        }
        return session_->work().add(path.c_str(), mask, ec);
    }
    /// Watches a file or a directory, or changes the mask of its watch.
    /**
     * @param path The file or directory.
     * @param mask What to watch, and how.
     * @returns The watch.
     * @throws boost::system::system_error With the errors of the other overload.
     *
     * @par Example
     * @code
     * int watch = files.add("/etc/program", IN_CLOSE_WRITE | IN_MOVED_TO);
     * @endcode
     */
    int add(const std::filesystem::path& path, std::uint32_t mask) {
        error_code ec;
        const int watch = add(path, mask, ec);
        moor::detail::throw_if(ec, "moor::adapt::inotify::add", native_handle());
        return watch;
    }

    /// Ends a watch. Its events that are in the queue still come, and an event `IN_IGNORED` last.
    /**
     * @param watch The watch.
     * @param ec Set to the error, if any: `invalid_argument` if there is no such watch. The kernel
     * also ends a watch when the file is deleted or unmounted.
     */
    void remove(int watch, error_code& ec) { session_->work().remove(watch, ec); }
    /// Ends a watch. Its events that are in the queue still come, and an event `IN_IGNORED` last.
    /**
     * @param watch The watch.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void remove(int watch) {
        error_code ec;
        remove(watch, ec);
        moor::detail::throw_if(ec, "moor::adapt::inotify::remove", native_handle());
    }

    /// Receives the events that are in the queue, or waits for the next ones.
    /**
     * The vector has at least one event, and as many as one read of 16 KB gives. Several operations
     * may be pending: each receives the events of one read.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, std::vector<inotify_event>) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: ends the wait; no event is lost.
     * @par Example
     * @code
     * files.async_read_events(
     *     [&](moor::error_code ec, std::vector<moor::adapt::inotify_event> events) { ... });
     * @endcode
     */
    template <class Token = default_token>
    auto async_read_events(Token&& token = default_token())
        -> moor::detail::initiated<events_signature, Token, initiation> {
        return moor::detail::initiate<events_signature, Token>(initiation{session_.get()}, token);
    }

private:
    std::unique_ptr<session> session_;
};

/// The changes of a directory and of everything below it, by Linux's inotify.
/**
 * The first operation begins to watch. The changes first report what is there as
 * `inotify_kind::found`, then `ready`, and after that each change. If a program keeps a list of
 * names, and applies each change to the list, the list is equal to the names on the disk as soon as
 * nothing changes any more. Each coming and each going of an entry is reported once. The object
 * keeps all names for this purpose.
 *
 * - A directory that is made in the tree, or moved into the tree, is watched first and read then.
 *   The entries that were made in the directory before are reported as `created`, once. If a
 *   program has written to such a file and closed the file before, no `written` is reported.
 * - A move within the tree is reported as `moved`, with the previous path. If other events come
 *   between the two events of the move, the move is reported as `removed` and `created`.
 * - A directory that was deleted or moved away is reported once, for all entries below.
 * - A symbolic link is an entry, and is not followed. Only the root may be a link.
 * - A directory that can't be watched or read is reported as `unwatched`, for example because of a
 *   missing permission or of `inotify_error::watch_limit`. Forget all entries below the directory.
 *   The object tries again when the directory's mode changes, or when the directory is moved. After
 *   a success, the object reports the entries as `created`.
 * - `overflow` is reported once for each overflow that the kernel reports. Forget all entries then:
 *   the object reads and reports everything again, up to another `ready`.
 *
 * When the object reads a directory, the kernel's queue may still have older events. So an entry
 * may be reported as `created`, `removed` and `created` again, although this happened before the
 * reading. The last change is right.
 *
 * @par Blocking
 * In one turn of the loop, the object reads directories for a millisecond, and until the present
 * call returns (one `openat(2)`, or one `getdents64(2)` of 16 KB). Other handlers run before the
 * next turn. Each call blocks for as long as the disk takes. Without a pending operation, nothing
 * is read.
 *
 * @par Cancellation
 * A cancelled operation completes with `operation_aborted`, and loses no change: the next operation
 * receives it.
 *
 * @par Errors
 * An operation completes with `inotify_error::root_gone` when the root was deleted, moved or
 * unmounted; with the error of `open(2)` or `inotify_error::watch_limit` if the root can't be
 * watched; with `EMFILE`, `ENFILE` or `ENOMEM` if the process, the user or the system has too many
 * descriptors or too little memory; with `inotify_error::no_proc`; with `invalid_argument` if the
 * root's path contains a null character; with `operation_aborted` if the operation was cancelled,
 * or the object closed or destroyed; with `bad_descriptor` after `close`. After an error of the
 * tree, the next operation reads the tree again, and reports the entries as `found`.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. While no operation is pending, the kernel keeps
 * the events.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called on the executor, which has to be a
 * strand if several threads run the execution context.
 *
 * @par Lifetimes
 * As `basic_inotify`.
 *
 * @par Example
 * @code
 * asio::awaitable<void> follow(asio::io_context& io, std::filesystem::path root) {
 *     moor::adapt::inotify_tree tree(io, root);
 *     for (;;)
 *         for (const moor::adapt::inotify_change& c :
 *              co_await tree.async_read_changes(asio::use_awaitable))
 *             if (c.kind == moor::adapt::inotify_kind::written)
 *                 std::cout << c.path.native() << '\n';
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_inotify_tree {
    using session = detail::inotify_session<Executor, detail::inotify_model>;
    using initiation = detail::initiation<session, detail::inotify_read>;
    using default_token = boost::asio::default_completion_token_t<Executor>;
    using changes_signature = void(error_code, std::vector<inotify_change>);

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The object's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The object's type.
        using other = basic_inotify_tree<OtherExecutor>;
    };

    /// Constructs an object that does nothing before the first operation.
    /**
     * @param ex The I/O executor.
     * @param root The directory, or a symbolic link to it. A relative path counts from the present
     * working directory.
     * @param also What is reported besides the coming, going and moving of entries: a combination
     * of `IN_CLOSE_WRITE` (`written`), `IN_MODIFY` (`modified`) and `IN_ATTRIB` (`attributes`).
     */
    basic_inotify_tree(const executor_type& ex, const std::filesystem::path& root,
                       std::uint32_t also = IN_CLOSE_WRITE)
        : session_(std::make_unique<session>(ex, root, also)) {}
    /// Constructs an object that does nothing before the first operation.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param root The directory, as for the other overload.
     * @param also What is reported besides the coming, going and moving of entries.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_inotify_tree(Context& context, const std::filesystem::path& root,
                       std::uint32_t also = IN_CLOSE_WRITE)
        : basic_inotify_tree(executor_type(context.get_executor()), root, also) {}

    /// Moves the object, with the pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_inotify_tree(basic_inotify_tree&& other) noexcept = default;
    /// Closes, as the destructor does, and moves another object.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_inotify_tree& operator=(basic_inotify_tree&& other) noexcept = default;
    /// Completes pending operations with `operation_aborted`, and ends all watches.
    ~basic_inotify_tree() = default;

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return session_->executor(); }

    /// Returns the absolute path of the root.
    const std::filesystem::path& root() const noexcept { return session_->work().root(); }

    /// Completes pending operations with `operation_aborted`, and ends all watches for good.
    void close() { session_->close(); }

    /// Receives the changes of the tree that are known already, or waits for the next ones.
    /**
     * The vector has at least one change. Several operations may be pending, and receive the
     * changes in the order of the operations.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, std::vector<inotify_change>) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: ends the wait; no change is lost.
     * @par Example
     * @code
     * tree.async_read_changes(
     *     [&](moor::error_code ec, std::vector<moor::adapt::inotify_change> changes) { ... });
     * @endcode
     */
    template <class Token = default_token>
    auto async_read_changes(Token&& token = default_token())
        -> moor::detail::initiated<changes_signature, Token, initiation> {
        return moor::detail::initiate<changes_signature, Token>(initiation{session_.get()}, token);
    }

private:
    std::unique_ptr<session> session_;
};

/// The events of files and directories, on any I/O executor.
using inotify = basic_inotify<>;

/// The changes of a tree, on any I/O executor.
using inotify_tree = basic_inotify_tree<>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_INOTIFY_HPP
