//
// moor/detail/event_frame.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The event that a thread is handling. A handler that waits again, which is what nearly all of them
// do, finds here what it would otherwise have to ask for: the waker's reference to the state, and
// the memory of the operation that is just over.
//

#ifndef MOOR_DETAIL_EVENT_FRAME_HPP
#define MOOR_DETAIL_EVENT_FRAME_HPP

#include <boost/asio/recycling_allocator.hpp>
#include <boost/config.hpp>

#include <cstddef>
#include <utility>

namespace moor {
namespace detail {

class BOOST_SYMBOL_VISIBLE event_frame {
public:
    /// `source` identifies the channel.
    explicit event_frame(const void* source) noexcept
        : source_(source), outer_(std::exchange(current_, this)) {}

    ~event_frame() {
        current_ = outer_;
        if (memory_)
            give_back();
    }

    event_frame(const event_frame&) = delete;
    event_frame& operator=(const event_frame&) = delete;

    /// The innermost of this thread's, or null.
    static event_frame* current() noexcept { return current_; }

    /// Tells threads apart.
    static const void* thread_id() noexcept { return &current_; }

    /// The waker's reference to the state, for the waker itself, or at the end.
    BOOST_FORCEINLINE bool take_reference(const void* source) noexcept {
        if (source_ != source)
            return false;
        source_ = nullptr;
        return true;
    }
    bool has_reference() const noexcept { return source_ != nullptr; }

    /// Memory that `asio::recycling_allocator` gave for an object of this size.
    void* take_memory(std::size_t size) noexcept {
        return memory_ && size == size_ ? std::exchange(memory_, nullptr) : nullptr;
    }
    bool keep_memory(void* memory, std::size_t size) noexcept {
        if (memory_)
            return false;
        memory_ = memory;
        size_ = size;
        return true;
    }

private:
    [[gnu::noinline]] void give_back() noexcept {
        boost::asio::recycling_allocator<unsigned char>().deallocate(
            static_cast<unsigned char*>(memory_), size_);
    }

    static inline thread_local event_frame* current_ = nullptr;

    const void* source_; // null: the reference was taken
    event_frame* outer_;
    void* memory_ = nullptr;
    std::size_t size_; // of memory_
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_EVENT_FRAME_HPP
