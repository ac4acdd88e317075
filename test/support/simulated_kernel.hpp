// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A simulated kernel: files, one epoll set, and threads.

#ifndef MOOR_TEST_SUPPORT_SIMULATED_KERNEL_HPP
#define MOOR_TEST_SUPPORT_SIMULATED_KERNEL_HPP

#include <moor/detail/kernel.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
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
        events_ = joined(events_, events);
        kernel::get().wake(this, joined(events));
    }
    void lower(int events) { events_ = joined(events_ & ~events); }

    /// The number is closed; a duplicate keeps the file open, and in the epoll set.
    void close(bool is_duplicated = false) {
        std::vector<file*>& all = kernel::get().files_;
        all.erase(std::remove(all.begin(), all.end(), this), all.end());
        if (!is_duplicated)
            kernel::get().forget(this);
    }

    short events() const { return events_; }
    short poll(short asked) {
        const short found = joined(events_ & (asked | POLLERR | POLLHUP));
        if (!is_sticky)
            events_ = 0;
        return found;
    }

    const int number;
    const bool is_sticky;
    detail::file_identity id;

private:
    short events_;
};

inline file* kernel::find(int number) const {
    for (file* f : files_)
        if (f->number == number)
            return f;
    return nullptr;
}

inline void kernel::poll_entry(entry& e) { e.is_ready = e.of->poll(e.events) != 0 || e.is_ready; }

inline int kernel::add(int number, short events, void* data) {
    if (!find(number))
        return EBADF;
    if (entry_of(number) != set_.end())
        return EEXIST;
    set_.push_back({find(number), number, events, data, false});
    poll_entry(set_.back());
    return 0;
}

inline int kernel::modify(int number, short events) {
    auto e = entry_of(number);
    if (e == set_.end())
        return find(number) ? ENOENT : EBADF;
    e->events = events;
    poll_entry(*e);
    return 0;
}

inline int kernel::remove(int number) {
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
    std::vector<std::pair<void*, short>> found;
    for (entry& e : set_)
        if (std::exchange(e.is_ready, false))
            if (short events = e.of->poll(e.events))
                found.emplace_back(e.data, events);
    return found;
}

/// A thread, and the innermost item of the scheduler that the thread runs.
struct thread {
    int* innermost = nullptr; ///< the units of work that the item has counted for later

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
