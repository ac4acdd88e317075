//
// moor/detail/poll_copy.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_POLL_COPY_HPP
#define MOOR_DETAIL_POLL_COPY_HPP

#include <moor/error.hpp>

#include <boost/asio/error.hpp>

#include <cerrno>
#include <cstddef>
#include <limits>
#include <vector>

#include <poll.h>
#include <sys/resource.h>

namespace moor {
namespace detail {

/// A copy of the caller's list, which is left alone until there is a result.
class poll_copy {
public:
    /// poll(2) refuses such a list, before it reads the list.
    static bool is_too_long(std::size_t n) noexcept {
        if (n <= 64)
            return false;
        ::rlimit limit{};
        return n > (std::numeric_limits<unsigned>::max)() ||
               (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && n > limit.rlim_cur);
    }

    void assign(::pollfd* fds, std::size_t n) {
        polls_.assign(fds, fds + n);
        original_ = fds;
    }

    /// Fills in what poll(2) reports now; the number of places with a report.
    std::size_t poll(error_code& ec) noexcept {
        int n;
        do
            n = ::poll(polls_.data(), polls_.size(), 0);
        while (n < 0 && errno == EINTR);
        if (n >= 0)
            return static_cast<std::size_t>(n);
        ec = error_code(errno, boost::asio::error::get_system_category());
        return 0;
    }

    /// Gives the caller what was filled in.
    void tell() const noexcept {
        for (std::size_t i = 0; i != polls_.size(); ++i)
            original_[i].revents = polls_[i].revents;
    }

    auto begin() noexcept { return polls_.begin(); }
    auto end() noexcept { return polls_.end(); }

private:
    ::pollfd* original_ = nullptr;
    std::vector<::pollfd> polls_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_POLL_COPY_HPP
