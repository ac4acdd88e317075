//
// moor/adapt/detail/inotify_descriptor.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The descriptor of inotify, and the decoder of what the kernel writes to its readers.
//

#ifndef MOOR_ADAPT_DETAIL_INOTIFY_DESCRIPTOR_HPP
#define MOOR_ADAPT_DETAIL_INOTIFY_DESCRIPTOR_HPP

#include <moor/adapt/inotify_types.hpp>
#include <moor/error.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <sys/inotify.h>
#include <unistd.h>

namespace moor {
namespace adapt {
namespace detail {

inline error_code system_error_of(int number) noexcept {
    return error_code(number, boost::system::system_category());
}

/// Owns a descriptor.
class file_descriptor {
public:
    explicit file_descriptor(int fd = -1) noexcept : fd_(fd) {}
    file_descriptor(file_descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    file_descriptor& operator=(file_descriptor&& other) noexcept {
        reset(std::exchange(other.fd_, -1));
        return *this;
    }
    file_descriptor(const file_descriptor&) = delete;
    file_descriptor& operator=(const file_descriptor&) = delete;
    ~file_descriptor() { reset(); }

    int get() const noexcept { return fd_; }
    int release() noexcept { return std::exchange(fd_, -1); }
    void reset(int fd = -1) noexcept {
        const int old = std::exchange(fd_, fd);
        if (old >= 0)
            ::close(old);
    }

private:
    int fd_;
};

/// Appends the events in a buffer that a read has filled. False: what is left is no whole event.
inline bool decode_inotify_events(const char* data, std::size_t size,
                                  std::vector<inotify_event>& events) {
    while (size != 0) {
        struct ::inotify_event head;
        if (size < sizeof(head))
            return false;
        std::memcpy(&head, data, sizeof(head));
        data += sizeof(head);
        size -= sizeof(head);
        if (size < head.len)
            return false;
        // The name ends with at least one NUL, unless it is empty.
        events.push_back(
            {head.wd, head.mask, head.cookie,
             head.len == 0 ? std::string() : std::string(data, ::strnlen(data, head.len))});
        data += head.len;
        size -= head.len;
    }
    return true;
}

/// The descriptor of inotify: non-blocking, and closed by exec.
class inotify_descriptor {
public:
    using value_type = inotify_event;

    int native_handle() const noexcept { return fd_.get(); }
    bool has_more() const noexcept { return fd_.get() < 0; } // the error of reading
    void fail() noexcept {}                                  // the watches stay
    void close() noexcept { fd_.reset(); }
    int release() noexcept { return fd_.release(); }

    void open(error_code& ec) noexcept {
        fd_.reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
        ec = fd_.get() < 0 ? system_error_of(errno) : error_code();
    }

    /// The watch, or -1.
    int add(const char* path, std::uint32_t mask, error_code& ec) noexcept {
        const int watch = ::inotify_add_watch(fd_.get(), path, mask);
        ec.clear();
        if (watch < 0 && errno == ENOSPC)
            ec = inotify_error::watch_limit;
        else if (watch < 0)
            ec = system_error_of(errno);
        return watch;
    }

    void remove(int watch, error_code& ec) noexcept {
        ec = ::inotify_rm_watch(fd_.get(), watch) < 0 ? system_error_of(errno) : error_code();
    }

    /// Reads once. Neither an event nor an error: the queue is empty.
    error_code turn(std::vector<inotify_event>& events) {
        alignas(struct ::inotify_event) char buffer[16 * 1024];
        ::ssize_t n;
        do
            n = ::read(fd_.get(), buffer, sizeof(buffer));
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return errno == EAGAIN ? error_code() : system_error_of(errno);
        if (!decode_inotify_events(buffer, static_cast<std::size_t>(n), events))
            return inotify_error::bad_event;
        return error_code();
    }

private:
    file_descriptor fd_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_INOTIFY_DESCRIPTOR_HPP
