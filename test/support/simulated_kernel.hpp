// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A simulated kernel: files, one epoll set, and threads.

#ifndef MOOR_TEST_SUPPORT_SIMULATED_KERNEL_HPP
#define MOOR_TEST_SUPPORT_SIMULATED_KERNEL_HPP

#include <moor/detail/kernel.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/stat.h>

namespace test {
namespace simulated {

namespace detail = moor::detail;

constexpr short joined(int a, int b = 0) { return static_cast<short>(a | b); }

class file;

/// Decides which thread goes on, where the steps of several threads are interleaved: see
/// interleaving.hpp.
class interleaver {
public:
    /// None where a step runs without an interruption.
    static interleaver*& current() {
        static interleaver* i = nullptr;
        return i;
    }

    /// The current thread is about to access something that threads share: to do `what`, for
    /// readers of a schedule.
    virtual void access(const void* shared, const char* what) = 0;
    /// It is about to do so, and can't go on before.
    virtual void access_when(const void* shared, const char* what,
                             const std::function<bool()>& condition) = 0;

protected:
    ~interleaver() = default;
};

/// A step that nobody interrupts.
struct uninterrupted {
    uninterrupted() : outer(std::exchange(interleaver::current(), nullptr)) {}
    uninterrupted(const uninterrupted&) = delete;
    uninterrupted& operator=(const uninterrupted&) = delete;
    ~uninterrupted() { interleaver::current() = outer; }

    interleaver* outer;
};

inline void access(const void* shared, const char* what) {
    if (interleaver* i = interleaver::current())
        i->access(shared, what);
}

/// Without an interleaver, nobody has to wait for it.
class mutex {
public:
    void lock() {
        if (interleaver* i = interleaver::current())
            i->access_when(this, "lock", [this] { return !is_locked_; });
        if (std::exchange(is_locked_, true))
            BOOST_ERROR("locked twice");
    }
    void unlock() { is_locked_ = false; }

private:
    bool is_locked_ = false;
};

/// What the state uses of std::atomic.
template <class T>
class atomic {
public:
    constexpr atomic(T value) : value_(value) {}

    T load(std::memory_order = std::memory_order_seq_cst) const { return value(); }
    void store(T t, std::memory_order = std::memory_order_seq_cst) { value() = t; }
    T exchange(T t, std::memory_order = std::memory_order_seq_cst) {
        return std::exchange(value(), t);
    }
    template <class Number>
    T fetch_add(Number n, std::memory_order = std::memory_order_seq_cst) {
        T& v = value();
        return std::exchange(v, static_cast<T>(v + static_cast<T>(n)));
    }
    template <class Number>
    T fetch_sub(Number n, std::memory_order = std::memory_order_seq_cst) {
        T& v = value();
        return std::exchange(v, static_cast<T>(v - static_cast<T>(n)));
    }
    bool compare_exchange_strong(T& expected, T desired,
                                 std::memory_order = std::memory_order_seq_cst) {
        T& v = value();
        const bool is_equal = v == expected;
        (is_equal ? v : expected) = is_equal ? desired : v;
        return is_equal;
    }

private:
    T& value() {
        access(this, "atomic");
        return value_;
    }
    const T& value() const {
        access(this, "atomic");
        return value_;
    }

    T value_;
};

/// The open files by number, and one epoll set.
class kernel {
public:
    static kernel& get() {
        static kernel k;
        return k;
    }

    file* find(int number) const;

    // epoll_ctl(2) and epoll_wait(2), of edge-triggered entries. The results are values of errno.
    int add(int number, short events, void* data);
    int modify(int number, short events);
    int remove(int number);
    std::vector<std::pair<void*, short>> wait();

    /// poll(2), of one number. The result is false if the number is not open.
    bool poll(int number, short asked, short& found);
    /// fstat(2). The same.
    bool identify(int number, detail::file_identity& id);
    bool has_ready() const {
        return std::any_of(set_.begin(), set_.end(), [](const entry& e) { return e.is_ready; });
    }
    void empty_set() { set_.clear(); }

private:
    friend file;

    struct entry {
        file* of;
        int number;
        short events;
        void* data;
        bool is_ready;
    };

    std::vector<entry>::iterator entry_of(int number) {
        const file* f = find(number);
        return std::find_if(set_.begin(), set_.end(),
                            [&](const entry& e) { return e.of == f && e.number == number; });
    }
    void poll_entry(entry& e);
    void wake(const file* f, short events);
    void forget(const file* f) {
        set_.erase(std::remove_if(set_.begin(), set_.end(), [=](auto& e) { return e.of == f; }),
                   set_.end());
    }

    std::vector<file*> files_;
    std::vector<entry> set_; // those that became ready last are last
    std::uint64_t next_inode_ = 1;
};

/// An open file.
class file {
public:
    /// `tells_state`: poll(2) tells `events` for as long as they last, otherwise to one poll only.
    explicit file(int n, short events = 0, bool tells_state = true)
        : number(n), is_sticky(tells_state), events_(events) {
        BOOST_REQUIRE(!kernel::get().find(n));
        id.inode = kernel::get().next_inode_++;
        id.type = S_IFSOCK;
        kernel::get().files_.push_back(this);
    }
    file(const file&) = delete;
    file& operator=(const file&) = delete;
    ~file() {
        close();
        kernel::get().forget(this);
    }

    /// Something happened, also if the events were there before.
    void raise(int events) {
        access(&kernel::get(), "an event comes");
        events_ = joined(events_, events);
        kernel::get().wake(this, joined(events));
    }
    void lower(int events) {
        access(&kernel::get(), "an event is over");
        events_ = joined(events_ & ~events);
    }

    /// The number is closed; a duplicate keeps the file open, and in the epoll set.
    void close(bool is_duplicated = false) {
        access(&kernel::get(), "close");
        std::vector<file*>& all = kernel::get().files_;
        all.erase(std::remove(all.begin(), all.end(), this), all.end());
        if (!is_duplicated)
            kernel::get().forget(this);
    }

    short events() const { return events_; }
    short poll(short asked) {
        if (before_poll)
            before_poll();
        const short found = joined(events_ & (asked | POLLERR | POLLHUP));
        if (!is_sticky)
            events_ = 0;
        return found;
    }

    /// Events that epoll_ctl(2) took away, where each is told once.
    short taken() const { return taken_; }

    /// From here on, the file is an end of a pipe.
    void become(detail::pipe_end e) {
        end = e;
        id.type = S_IFIFO;
    }

    const int number;
    const bool is_sticky;
    std::function<void()> before_poll; ///< what happens just before each
    detail::file_identity id;
    detail::pipe_end end = detail::pipe_end::none;

private:
    friend kernel;

    short events_;
    short taken_ = 0;
};

inline file* kernel::find(int number) const {
    for (file* f : files_)
        if (f->number == number)
            return f;
    return nullptr;
}

inline void kernel::poll_entry(entry& e) {
    const short found = e.of->poll(e.events);
    e.is_ready = found != 0 || e.is_ready;
    if (!e.of->is_sticky)
        e.of->taken_ = joined(e.of->taken_, found);
}

inline bool kernel::poll(int number, short asked, short& found) {
    access(this, "poll");
    file* f = find(number);
    found = f ? f->poll(asked) : short(0);
    return f != nullptr;
}

inline bool kernel::identify(int number, detail::file_identity& id) {
    access(this, "fstat");
    file* f = find(number);
    id = f ? f->id : detail::file_identity();
    return f != nullptr;
}

inline int kernel::add(int number, short events, void* data) {
    access(this, "epoll_ctl ADD");
    if (!find(number))
        return EBADF;
    if (entry_of(number) != set_.end())
        return EEXIST;
    set_.push_back({find(number), number, events, data, false});
    poll_entry(set_.back());
    return 0;
}

inline int kernel::modify(int number, short events) {
    access(this, "epoll_ctl MOD");
    auto e = entry_of(number);
    if (e == set_.end())
        return find(number) ? ENOENT : EBADF;
    e->events = events;
    poll_entry(*e);
    return 0;
}

inline int kernel::remove(int number) {
    access(this, "epoll_ctl DEL");
    auto e = entry_of(number);
    if (e == set_.end())
        return find(number) ? ENOENT : EBADF;
    set_.erase(e);
    return 0;
}

inline void kernel::wake(const file* f, short events) {
    auto is_woken = [&](const entry& e) {
        return e.of == f && !e.is_ready && (events & (e.events | POLLERR | POLLHUP)) != 0;
    };
    auto woken = std::stable_partition(set_.begin(), set_.end(), std::not_fn(is_woken));
    for (; woken != set_.end(); ++woken)
        woken->is_ready = true;
}

inline std::vector<std::pair<void*, short>> kernel::wait() {
    access(this, "epoll_wait");
    std::vector<std::pair<void*, short>> found;
    for (entry& e : set_)
        if (std::exchange(e.is_ready, false))
            if (short events = e.of->poll(e.events))
                found.emplace_back(e.data, events);
    return found;
}

/// A thread, and the innermost item of the scheduler that the thread runs.
struct thread {
    int* innermost = nullptr;     ///< the units of work that the item has counted for later
    const void* arming = nullptr; ///< the waker that it is arming

    static thread*& current() {
        static thread first;
        static thread* t = &first;
        return t;
    }
};

/// The current thread is another one.
struct on_thread {
    explicit on_thread(thread& t) : before(std::exchange(thread::current(), &t)) {}
    on_thread(const on_thread&) = delete;
    on_thread& operator=(const on_thread&) = delete;
    ~on_thread() { thread::current() = before; }

    thread* before;
};

} // namespace simulated
} // namespace test

#endif
