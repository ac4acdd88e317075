//
// test/bench/ring.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The workloads, and the handles that they are done with.
//
// A ring has N handles, and a wait is pending on each of them. A bytes are under way, each in a
// ring of its own of N/A handles, so no two bytes meet. A round trip is a wait, the read of the
// byte from one handle, and the write of the byte towards the next. Each competitor makes one write
// a round trip and the same first read; the other calls are the subject of the comparison.
//

#ifndef MOOR_BENCH_RING_HPP
#define MOOR_BENCH_RING_HPP

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

namespace bench {

[[noreturn]] inline void fail(const char* what) {
    std::perror(what);
    std::abort();
}

inline void expect(bool ok, const char* what) {
    if (!ok)
        fail(what);
}

/// Lets this process have `n` handles more than a few.
inline void need_handles(std::size_t n) {
    ::rlimit limit;
    expect(::getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    rlim_t wanted = n + 64;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted;
        limit.rlim_max = std::max(limit.rlim_max, wanted);
        expect(::setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit(RLIMIT_NOFILE)");
    }
}

/// Two ends that do not block: of a pipe, or of a Unix stream socket.
struct pipe_pair {
    int in;
    int out;

    explicit pipe_pair(bool is_socket = false) {
        int fds[2];
        if (is_socket)
            expect(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0,
                   "socketpair");
        else
            expect(::pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0, "pipe2");
        in = fds[0];
        out = fds[1];
    }
    ~pipe_pair() {
        ::close(in);
        ::close(out);
    }
    pipe_pair(const pipe_pair&) = delete;
    pipe_pair& operator=(const pipe_pair&) = delete;

    /// Makes it readable.
    void put() {
        if (::write(out, "x", 1) != 1)
            fail("write");
    }

    /// Reads the byte that is there.
    void take() {
        char c;
        if (::read(in, &c, 1) != 1)
            fail("read");
    }
};

/// One kind of work. As text:
/**
 * - HANDLES/ACTIVE, HANDLES/ACTIVE/IDLE: rings of pipes, and idle pipes with a pending wait each;
 *   followed by `*THREADS`, with that number of threads in the loop;
 * - pingpong: the two ends of a socketpair answer each other;
 * - wake: another thread makes a handle readable whenever the loop sleeps;
 * - chatter: the ring 2/1; each round trip also writes to a handle on which a single wait completed
 *   before;
 * - ready: a wait on a handle that is ready already;
 * - churn, churn_pending: register, wait, read, deregister; the byte comes before the wait, or
 *   while the wait is pending.
 */
struct workload {
    enum class kind { ring, pingpong, wake, chatter, ready, churn, churn_pending };

    kind what = kind::ring;
    unsigned handles = 2;
    unsigned active = 1;
    unsigned idle = 0;
    unsigned threads = 1;

    bool is_ring() const noexcept { return what <= kind::chatter; }

    static workload parse(const std::string& text) {
        workload w;
        if (text == "pingpong")
            w.what = kind::pingpong;
        else if (text == "wake")
            w.what = kind::wake;
        else if (text == "chatter")
            w.what = kind::chatter;
        else if (text == "ready")
            w.what = kind::ready;
        else if (text == "churn")
            w.what = kind::churn;
        else if (text == "churn_pending")
            w.what = kind::churn_pending;
        else if (std::sscanf(text.c_str(), "%u/%u*%u", &w.handles, &w.active, &w.threads) < 2 ||
                 (std::sscanf(text.c_str(), "%u/%u/%u", &w.handles, &w.active, &w.idle), false)) {
            std::fprintf(stderr, "Not a workload: %s\n", text.c_str());
            std::exit(2);
        }
        return w;
    }
};

/// The handles, the buffers that are read to, and how much is left to do.
class ring {
public:
    explicit ring(const workload& w)
        : length_(w.handles / w.active), tracks_(w.active),
          chatter_(w.what == workload::kind::chatter ? ::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC)
                                                     : -1) {
        expect(length_ * w.active == w.handles, "rings of different lengths");
        unsigned n = w.handles + w.idle;
        need_handles(std::size_t{2} * n);
        if (w.what == workload::kind::pingpong) {
            pipes_.emplace_back(true);
            stations_ = {{pipes_[0].in, pipes_[0].in, 0}, {pipes_[0].out, pipes_[0].out, 0}};
            return;
        }
        if (w.what == workload::kind::wake) {
            waker_ = std::make_unique<waker>();
            stations_ = {{waker_->there.in, waker_->back.out, 0}};
            return;
        }
        for (unsigned i = 0; i != n; ++i)
            pipes_.emplace_back();
        for (unsigned i = 0; i != w.handles; ++i)
            stations_.push_back({pipes_[i].in,
                                 pipes_[(i + 1) % length_ ? i + 1 : i + 1 - length_].out,
                                 i / length_});
        for (unsigned i = w.handles; i != n; ++i)
            stations_.push_back({pipes_[i].in, -1, 0});
    }
    ~ring() {
        if (chatter_ != -1)
            ::close(chatter_);
    }
    ring(const ring&) = delete;
    ring& operator=(const ring&) = delete;

    /// The number of handles with a pending wait.
    unsigned size() const noexcept { return static_cast<unsigned>(stations_.size()); }
    int handle(unsigned i) const noexcept { return stations_[i].in; }

    /// The readable handle to be registered without a second wait, or -1.
    int chatter() const noexcept { return chatter_; }

    char* buffer(unsigned i) noexcept { return tracks_[stations_[i].track].buffer; }
    static constexpr std::size_t buffer_size = 64;

    /// Sends the bytes off. There will be `round_trips` writes, these included, and as many reads.
    void start(std::uint64_t round_trips) {
        std::uint64_t each = round_trips / tracks_.size();
        expect(each != 0 && each * tracks_.size() == round_trips, "not the same for each ring");
        for (track& t : tracks_)
            t.left = each;
        tracks_left_ = tracks_.size();
        if (waker_) {
            waker_->start(round_trips);
            return;
        }
        for (std::size_t k = 0; k != tracks_.size(); ++k)
            put(pipes_[k * length_].out);
    }

    bool done() const noexcept { return tracks_left_.load(std::memory_order_relaxed) == 0; }

    /// Reads the byte that is there.
    void take(unsigned i) { arrived(::read(stations_[i].in, buffer(i), buffer_size)); }

    /// The same for competitors whose wait may have been spurious. False: nothing was there.
    bool try_take(unsigned i) {
        std::ptrdiff_t n = ::read(stations_[i].in, buffer(i), buffer_size);
        if (n == -1 && errno == EAGAIN)
            return false;
        arrived(n);
        return true;
    }

    /// Makes the read that would block.
    void drain(unsigned i) {
        if (::read(stations_[i].in, buffer(i), buffer_size) != -1 || errno != EAGAIN)
            fail("more than one byte");
    }

    /// The competitor has read the byte.
    void arrived(std::ptrdiff_t n) {
        if (n != 1)
            fail("not one byte");
        if (waker_)
            waker_->arrived();
    }

    /// Writes the byte towards the next handle. True: the work is done.
    bool pass_on(unsigned i) {
        if (chatter_ != -1)
            expect(::eventfd_write(chatter_, 1) == 0, "eventfd_write");
        if (--tracks_[stations_[i].track].left != 0) {
            put(stations_[i].out);
            return false;
        }
        return tracks_left_.fetch_sub(1, std::memory_order_acq_rel) == 1;
    }

    /// For `wake`: the nanoseconds from before each write to after its read.
    std::vector<double> latencies() { return std::exchange(waker_->latencies, {}); }

private:
    struct station {
        int in;
        int out;
        unsigned track;
    };

    /// The other thread of `wake`.
    struct waker {
        using clock = std::chrono::steady_clock;

        pipe_pair there;
        pipe_pair back;
        clock::time_point sent;
        std::vector<double> latencies;
        std::thread thread;

        waker() { expect(::fcntl(back.in, F_SETFL, 0) == 0, "fcntl"); }
        ~waker() { join(); }

        void join() {
            if (thread.joinable())
                thread.join();
        }

        void start(std::uint64_t times) {
            join();
            latencies.reserve(latencies.size() + times);
            thread = std::thread([this, times] {
                for (std::uint64_t i = 0; i != times; ++i) {
                    if (i != 0)
                        back.take();
                    // The loop goes to sleep meanwhile.
                    std::this_thread::sleep_for(std::chrono::microseconds(50));
                    sent = clock::now();
                    there.put();
                }
            });
        }

        void arrived() {
            latencies.push_back(
                std::chrono::duration<double, std::nano>(clock::now() - sent).count());
        }
    };

    /// The way of one byte. Only the thread that has the byte uses it.
    struct alignas(128) track {
        std::uint64_t left;
        char buffer[buffer_size];
    };

    void put(int fd) {
        if (::write(fd, "x", 1) != 1)
            fail("write");
    }

    unsigned length_;
    std::vector<track> tracks_;
    std::atomic<std::size_t> tracks_left_{0};
    std::vector<station> stations_;
    int chatter_;
    std::unique_ptr<waker> waker_;
    std::deque<pipe_pair> pipes_;
};

/// One way to wait, doing one workload.
class competitor {
public:
    virtual ~competitor() = default;
    virtual void run(std::uint64_t times) = 0;

    /// For `wake`: see ring.
    virtual std::vector<double> latencies() { return {}; }
};

/// A competitor by name. `make` returns null for a workload that the competitor does not do.
struct entry {
    std::string name;
    std::unique_ptr<competitor> (*make)(const workload& w);
};

/// Whether the reader reads until the read would block.
enum class second_read { no, yes };

/// The competitors that are linked into this program. Each source file of competitors adds its own
/// when the program starts.
inline std::vector<entry>& competitors() {
    static std::vector<entry> all;
    return all;
}

struct added {
    explicit added(std::vector<entry> v) {
        std::move(v.begin(), v.end(), std::back_inserter(competitors()));
    }
};

/// Null if no competitor has that name.
inline const entry* find_competitor(const std::string& name) {
    for (const entry& e : competitors())
        if (e.name == name)
            return &e;
    return nullptr;
}

} // namespace bench

#endif // MOOR_BENCH_RING_HPP
