//
// test/bench/ring.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What is to be done, the handles to do it with, and the loop written by hand.
//
// A ring: N handles, all of them waited for; A bytes under way, each round a ring of its own of N/A
// handles, so that no two ever meet. A hop reads the byte from one handle and writes it towards the
// next. Everybody makes exactly one write a hop and the same first read; what else is called is
// what is being compared.
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
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>
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

/// What is done, so many times. As text:
/**
 * - HANDLES/ACTIVE, HANDLES/ACTIVE/IDLE: rings of pipes, and idle pipes beside them that are waited
 *   for as well; followed by `*THREADS`, with so many threads;
 * - pingpong: the two ends of a socketpair answer each other;
 * - wake: another thread makes a handle readable whenever the loop sleeps;
 * - chatter: the ring 2/1; each hop also writes to a handle that was waited for once, before;
 * - ready: a wait on a handle that is ready already;
 * - churn, churn_parked: register, wait, read, deregister; the byte comes before the wait, or
 * after.
 */
struct workload {
    enum class kind { ring, pingpong, wake, chatter, ready, churn, churn_parked };

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
        else if (text == "churn_parked")
            w.what = kind::churn_parked;
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

    /// How many handles are to be waited for.
    unsigned size() const noexcept { return static_cast<unsigned>(stations_.size()); }
    int handle(unsigned i) const noexcept { return stations_[i].in; }

    /// The handle to be registered that nobody will wait for, or -1. It is readable.
    int chatter() const noexcept { return chatter_; }

    char* buffer(unsigned i) noexcept { return tracks_[stations_[i].track].buffer; }
    static constexpr std::size_t buffer_size = 64;

    /// Sets the bytes off. There will be `hops` writes, these included, and as many reads.
    void start(std::uint64_t hops) {
        std::uint64_t each = hops / tracks_.size();
        expect(each != 0 && each * tracks_.size() == hops, "not the same for each ring");
        for (track& t : tracks_)
            t.left = each;
        tracks_left_ = tracks_.size();
        if (waker_) {
            waker_->start(hops);
            return;
        }
        for (std::size_t k = 0; k != tracks_.size(); ++k)
            put(pipes_[k * length_].out);
    }

    bool done() const noexcept { return tracks_left_.load(std::memory_order_relaxed) == 0; }

    /// Reads the byte that is there.
    void take(unsigned i) { arrived(::read(stations_[i].in, buffer(i), buffer_size)); }

    /// The same for those who may be told of a byte that is not there. False: it is not.
    bool try_take(unsigned i) {
        std::ptrdiff_t n = ::read(stations_[i].in, buffer(i), buffer_size);
        if (n == -1 && errno == EAGAIN)
            return false;
        arrived(n);
        return true;
    }

    /// Finds that nothing more is there.
    void drain(unsigned i) {
        if (::read(stations_[i].in, buffer(i), buffer_size) != -1 || errno != EAGAIN)
            fail("more than one byte");
    }

    /// Somebody else read it.
    void arrived(std::ptrdiff_t n) {
        if (n != 1)
            fail("not one byte");
        if (waker_)
            waker_->arrived();
    }

    /// Hands it on. True: that was the last hop of all.
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

    /// One byte's way. Only whoever has the byte touches it.
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

/// Somebody who does a workload.
class peer {
public:
    virtual ~peer() = default;
    virtual void run(std::uint64_t times) = 0;

    /// For `wake`: see ring.
    virtual std::vector<double> latencies() { return {}; }
};

/// `make` returns null if that is not what this one does.
struct peer_entry {
    std::string name;
    std::unique_ptr<peer> (*make)(const workload& w);
};

/// Whether a reader goes on to the would-block that proves that a handle is drained.
enum class second_read { no, yes };

// ---- the loop written by hand

/// `Trigger`: 0 for level, or EPOLLET.
template <std::uint32_t Trigger, second_read Second>
class hand_written final : public peer {
public:
    explicit hand_written(const workload& w)
        : ring_(w), threads_(w.threads), epoll_(::epoll_create1(EPOLL_CLOEXEC)),
          stop_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
        expect(epoll_ != -1 && stop_ != -1, "epoll_create1");
        for (unsigned i = 0; i != ring_.size(); ++i)
            add(ring_.handle(i), i);
        // With a level trigger, what nobody waits for can't stay.
        if (ring_.chatter() != -1 && Trigger != 0)
            add(ring_.chatter(), nobody);
        if (threads_ > 1)
            add(stop_, last);
    }
    ~hand_written() override {
        ::close(epoll_);
        ::close(stop_);
    }

    void run(std::uint64_t hops) override {
        ring_.start(hops);
        std::vector<std::thread> others;
        for (unsigned t = 1; t < threads_; ++t)
            others.emplace_back([this] { loop(); });
        loop();
        for (std::thread& t : others)
            t.join();
    }

    std::vector<double> latencies() override { return ring_.latencies(); }

private:
    static constexpr std::uint32_t nobody = ~std::uint32_t{0};
    static constexpr std::uint32_t last = nobody - 1;

    void add(int fd, std::uint32_t i) {
        ::epoll_event e{};
        e.events = EPOLLIN | Trigger;
        e.data.u32 = i;
        expect(::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) == 0, "epoll_ctl");
    }

    void loop() {
        while (!ring_.done()) {
            ::epoll_event events[128]; // as many as Asio asks for
            int n = ::epoll_wait(epoll_, events, 128, -1);
            for (int k = 0; k < n; ++k) {
                unsigned i = events[k].data.u32;
                if (i >= last)
                    continue;
                ring_.take(i);
                if (Second == second_read::yes)
                    ring_.drain(i);
                if (ring_.pass_on(i) && threads_ > 1)
                    expect(::eventfd_write(stop_, 1) == 0, "eventfd_write");
            }
        }
        if (threads_ > 1) // the next one
            expect(::eventfd_write(stop_, 1) == 0, "eventfd_write");
    }

    ring ring_;
    unsigned threads_;
    int epoll_;
    int stop_;
};

/// A level-triggered epoll set, a handle that stays ready.
class hand_ready final : public peer {
public:
    hand_ready() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
        ::epoll_event e{};
        e.events = EPOLLIN;
        expect(::epoll_ctl(epoll_, EPOLL_CTL_ADD, pipe_.in, &e) == 0, "epoll_ctl");
        pipe_.put();
    }
    ~hand_ready() override { ::close(epoll_); }

    void run(std::uint64_t times) override {
        for (; times != 0; --times) {
            ::epoll_event events[128];
            expect(::epoll_wait(epoll_, events, 128, -1) == 1, "epoll_wait");
        }
    }

private:
    pipe_pair pipe_;
    int epoll_;
};

/// EPOLL_CTL_ADD, epoll_wait, read, EPOLL_CTL_DEL.
class hand_churn final : public peer {
public:
    explicit hand_churn(bool parked) : parked_(parked), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}
    ~hand_churn() override { ::close(epoll_); }

    void run(std::uint64_t times) override {
        for (; times != 0; --times) {
            if (!parked_)
                pipe_.put();
            ::epoll_event e{};
            e.events = EPOLLIN | EPOLLET;
            expect(::epoll_ctl(epoll_, EPOLL_CTL_ADD, pipe_.in, &e) == 0, "epoll_ctl");
            if (parked_)
                pipe_.put();
            ::epoll_event events[128];
            expect(::epoll_wait(epoll_, events, 128, -1) == 1, "epoll_wait");
            pipe_.take();
            expect(::epoll_ctl(epoll_, EPOLL_CTL_DEL, pipe_.in, nullptr) == 0, "epoll_ctl");
        }
    }

private:
    pipe_pair pipe_;
    bool parked_;
    int epoll_;
};

/// By workload.
template <std::uint32_t Trigger, second_read Second>
std::unique_ptr<peer> make_hand(const workload& w) {
    if (w.is_ring()) // with a level trigger, several threads would see the same event
        return w.threads > 1 && Trigger == 0 ? nullptr
                                             : std::make_unique<hand_written<Trigger, Second>>(w);
    if (w.what == workload::kind::ready)
        return Trigger == 0 ? std::make_unique<hand_ready>() : nullptr;
    if (Trigger == 0 || Second == second_read::yes)
        return nullptr;
    return std::make_unique<hand_churn>(w.what == workload::kind::churn_parked);
}

} // namespace bench

#endif // MOOR_BENCH_RING_HPP
