//
// moor/adapt/inotify_types.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The values of the adapter for inotify: events, changes of a tree, errors.
//

#ifndef MOOR_ADAPT_INOTIFY_TYPES_HPP
#define MOOR_ADAPT_INOTIFY_TYPES_HPP

#if !defined(__linux__)
#error "moor/adapt/inotify.hpp needs Linux: other systems have no inotify"
#endif

#include <moor/error.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>

namespace moor {
/// Adapters of foreign libraries: one optional header for each library.
namespace adapt {

/// An event of the kernel, decoded.
/**
 * @par Example
 * @code
 * if (e.mask & IN_Q_OVERFLOW)
 *     read_everything_again();
 * else if (e.watch == settings && (e.mask & IN_CLOSE_WRITE))
 *     std::cout << e.name << " was written\n";
 * @endcode
 */
struct inotify_event {
    /// The watch, as `basic_inotify::add` returned it; -1 if `mask` has `IN_Q_OVERFLOW`.
    int watch = -1;
    /// What happened: `IN_CREATE` and so on, perhaps with `IN_ISDIR`.
    std::uint32_t mask = 0;
    /// The same number in the two events of one move; otherwise 0.
    std::uint32_t cookie = 0;
    /// The name within the watched directory; empty if the event is about the watched file itself.
    std::string name{};
};

/// The kind of a change of a tree.
enum class inotify_kind {
    /// The entry is there: a reading at the start, or after `overflow`, has found it.
    found,
    /// The entry has come: it was made, or moved into the tree.
    created,
    /// The entry has gone, with everything below it: it was deleted, or moved out of the tree.
    removed,
    /// The entry has moved within the tree, with everything below, and replaces an entry there.
    moved,
    /// A file that was open for writing was closed (`IN_CLOSE_WRITE`).
    written,
    /// A file was written to, or truncated (`IN_MODIFY`).
    modified,
    /// The mode, the owner, the times or other attributes have changed (`IN_ATTRIB`).
    attributes,
    /// The directory can't be watched, for the reason in `error`. Forget all entries below it.
    unwatched,
    /// Events were lost. Forget all entries: everything is read, and reported as `found`, again.
    overflow,
    /// The tree was read. All entries were reported, and each later change will be.
    ready
};

/// A change of a tree.
/**
 * @par Example
 * @code
 * if (c.kind == moor::adapt::inotify_kind::moved)
 *     std::cout << c.from << " is " << c.path << " now\n";
 * @endcode
 */
struct inotify_change {
    /// What has happened.
    inotify_kind kind = inotify_kind::ready;
    /// Where, relative to the root; empty for `overflow` and `ready`.
    std::filesystem::path path{};
    /// Where the entry was before it was `moved`; otherwise empty.
    std::filesystem::path from{};
    /// Whether the entry is a directory. A symbolic link is not a directory.
    bool is_directory = false;
    /// Why a directory is `unwatched`.
    error_code error{};
};

// ---- errors -------------------------------------------------------------------------------------

/// Errors of inotify for which the system's error codes are not precise.
/**
 * | value           | compares equal to                 |
 * | --------------- | --------------------------------- |
 * | `watch_limit`   | `errc::no_space_on_device`        |
 * | `root_gone`     | `errc::no_such_file_or_directory` |
 * | `no_proc`       | `errc::function_not_supported`    |
 * | `bad_event`     | `errc::bad_message`               |
 */
enum class inotify_error {
    /// The user has as many watches as the kernel allows (`fs.inotify.max_user_watches`).
    watch_limit = 1,
    /// The root of the tree was deleted, moved or unmounted, or is not where it was.
    root_gone,
    /// A tree needs `/proc`, which is not mounted.
    no_proc,
    /// The bytes that the kernel returned are not events.
    bad_event
};

namespace detail {

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

class inotify_category_impl final : public boost::system::error_category {
public:
    constexpr inotify_category_impl() noexcept : error_category(0x5be1f60d92c7a348ull) {}

    const char* name() const noexcept override { return "inotify"; }

    std::string message(int value) const override {
        return this->message(value, nullptr, std::size_t());
    }

    const char* message(int value, char*, std::size_t) const noexcept override {
        switch (static_cast<inotify_error>(value)) {
        case inotify_error::watch_limit:
            return "the user's limit of inotify watches is reached (fs.inotify.max_user_watches)";
        case inotify_error::root_gone:
            return "the root of the watched tree was deleted, moved or unmounted";
        case inotify_error::no_proc:
            return "/proc is not mounted, which watching a tree needs";
        case inotify_error::bad_event:
            return "the inotify descriptor gave bytes that are no events";
        }
        return "unknown inotify error";
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        switch (static_cast<inotify_error>(value)) {
        case inotify_error::watch_limit:
            return errc::make_error_condition(errc::no_space_on_device);
        case inotify_error::root_gone:
            return errc::make_error_condition(errc::no_such_file_or_directory);
        case inotify_error::no_proc:
            return errc::make_error_condition(errc::function_not_supported);
        case inotify_error::bad_event:
            return errc::make_error_condition(errc::bad_message);
        }
        return boost::system::error_condition(value, *this);
    }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

} // namespace detail

/// The category of the adapter's errors; its name is "inotify".
inline const boost::system::error_category& inotify_category() noexcept {
    static const detail::inotify_category_impl instance;
    return instance;
}

/// Makes an `error_code` of an `inotify_error`; this is how an `inotify_error` converts.
/**
 * @param e The error.
 * @returns An error code of `inotify_category()`.
 */
inline error_code make_error_code(inotify_error e) noexcept {
    return error_code(static_cast<int>(e), inotify_category());
}

} // namespace adapt
} // namespace moor

namespace boost {
namespace system {

template <>
struct is_error_code_enum<moor::adapt::inotify_error> : std::true_type {};

} // namespace system
} // namespace boost

#endif // MOOR_ADAPT_INOTIFY_TYPES_HPP
