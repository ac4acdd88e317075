//
// moor/detail/hideable_work.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_HIDEABLE_WORK_HPP
#define MOOR_DETAIL_HIDEABLE_WORK_HPP

#include <moor/detail/reactor.hpp>

#include <mutex>

namespace moor {
namespace detail {

/// The outstanding work of pending operations, which can be taken back: then the loop may end
/// before they do.
class hideable_work {
public:
    explicit hideable_work(reactor_port& port) noexcept : port_(port) {}

    void started() noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        ++pending_;
    }

    /// In the loop, which takes one unit back afterwards.
    void completed() {
        std::lock_guard<std::mutex> lock(mutex_);
        --pending_;
        if (hidden_ > pending_) {
            --hidden_;
            port_.work_started();
        }
    }

    /// In the loop: elsewhere, the last unit might end a loop that has not begun.
    void hide() {
        std::lock_guard<std::mutex> lock(mutex_);
        for (; hidden_ < pending_; ++hidden_)
            port_.work_finished();
    }

    void show() {
        std::lock_guard<std::mutex> lock(mutex_);
        for (; hidden_ > 0; --hidden_)
            port_.work_started();
    }

private:
    reactor_port& port_;
    std::mutex mutex_;
    int pending_ = 0;
    int hidden_ = 0;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_HIDEABLE_WORK_HPP
