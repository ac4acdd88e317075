//
// test/bench/peers.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The ring of pipes, and everyone who can hand bytes round it. N pipes, all of them waited for; A
// bytes under way. A hop reads the byte from one pipe and writes it to the next. Every peer makes
// exactly one write a hop and the same first read; what else it calls is what is being compared.
//

#ifndef MOOR_BENCH_PEERS_HPP
#define MOOR_BENCH_PEERS_HPP

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <boost/asio/posix/descriptor_base.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

namespace bench {

namespace asio = boost::asio;
using boost::system::error_code;

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

/// A non-blocking pipe.
struct pipe_pair {
    int in;
    int out;

    pipe_pair() {
        int fds[2];
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
};

/// The pipes, the buffer that all reads go to, and how much is left to do.
class ring {
public:
    ring(unsigned handles, unsigned active) : active_(active) {
        need_handles(2 * handles);
        for (unsigned i = 0; i != handles; ++i)
            pipes_.emplace_back();
        for (unsigned i = 0; i != handles; ++i)
            stations_.push_back({pipes_[i].in, pipes_[(i + 1) % handles].out});
    }

    unsigned size() const noexcept { return static_cast<unsigned>(stations_.size()); }
    int handle(unsigned i) const noexcept { return stations_[i].in; }
    char* buffer() noexcept { return buffer_; }
    static constexpr std::size_t buffer_size = 64;

    /// Sets the bytes off. There will be `hops` writes, these included, and as many reads.
    void start(std::uint64_t hops) {
        expect(hops >= active_, "too few hops");
        to_write_ = hops - active_;
        to_read_ = hops;
        for (unsigned i = 0; i != active_; ++i)
            put(pipes_[std::size_t{i} * pipes_.size() / active_].out);
    }

    bool done() const noexcept { return to_read_ == 0; }

    /// Reads the byte that is there.
    void take(unsigned i) { arrived(::read(stations_[i].in, buffer_, buffer_size)); }

    /// Finds that nothing more is there.
    void drain(unsigned i) {
        if (::read(stations_[i].in, buffer_, buffer_size) != -1 || errno != EAGAIN)
            fail("more than one byte in a pipe");
    }

    /// Somebody else read it.
    void arrived(std::ptrdiff_t n) const {
        if (n != 1)
            fail("not one byte in a pipe");
    }

    /// Hands it on. True: that was the last hop.
    bool pass_on(unsigned i) {
        if (to_write_ != 0) {
            --to_write_;
            put(stations_[i].out);
        }
        return --to_read_ == 0;
    }

private:
    struct station {
        int in;
        int out;
    };

    void put(int fd) {
        if (::write(fd, "x", 1) != 1)
            fail("write");
    }

    std::uint64_t to_write_ = 0;
    std::uint64_t to_read_ = 0;
    std::vector<station> stations_;
    char buffer_[buffer_size];
    unsigned active_;
    std::deque<pipe_pair> pipes_;
};

/// Somebody who moves the bytes of a ring.
class peer {
public:
    virtual ~peer() = default;
    virtual void run(std::uint64_t hops) = 0;
};

// ---- the hand-written loop
// ------------------------------------------------------------------------

class hand_written final : public peer {
public:
    hand_written(unsigned handles, unsigned active)
        : ring_(handles, active), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
        expect(epoll_ != -1, "epoll_create1");
        for (unsigned i = 0; i != handles; ++i) {
            ::epoll_event e{};
            e.events = EPOLLIN | EPOLLET;
            e.data.u32 = i;
            expect(::epoll_ctl(epoll_, EPOLL_CTL_ADD, ring_.handle(i), &e) == 0, "epoll_ctl");
        }
    }
    ~hand_written() override { ::close(epoll_); }

    void run(std::uint64_t hops) override {
        ring_.start(hops);
        while (!ring_.done()) {
            ::epoll_event events[128]; // as many as Asio asks for
            int n = ::epoll_wait(epoll_, events, 128, -1);
            for (int k = 0; k < n; ++k) {
                unsigned i = events[k].data.u32;
                ring_.take(i);
                ring_.pass_on(i);
            }
        }
    }

private:
    ring ring_;
    int epoll_;
};

// ---- those who run in an io_context
// ---------------------------------------------------------------

/// What they have in common. Every handle is always waited for, so the context never runs out of
/// work; the last hop stops it.
class asio_peer : public peer {
public:
    asio_peer(unsigned handles, unsigned active) : ring_(handles, active) {}

    void run(std::uint64_t hops) override {
        ring_.start(hops);
        context_.restart();
        context_.run();
        expect(ring_.done(), "the ring has stopped");
    }

protected:
    void pass_on(unsigned i) {
        if (ring_.pass_on(i))
            context_.stop();
    }

    /// What was started is to be parked before the bytes set off.
    void settle() {
        context_.poll();
        context_.restart();
    }

    static void check(const error_code& ec) {
        if (ec) {
            std::fprintf(stderr, "%s\n", ec.message().c_str());
            std::abort();
        }
    }

    ring ring_;
    asio::io_context context_;
};

/// posix::descriptor::async_wait, then a read.
template <class Executor>
class asio_wait final : public asio_peer {
public:
    asio_wait(unsigned handles, unsigned active) : asio_peer(handles, active) {
        descriptors_.reserve(handles);
        for (unsigned i = 0; i != handles; ++i)
            descriptors_.emplace_back(context_.get_executor(), ring_.handle(i));
        for (unsigned i = 0; i != handles; ++i)
            wait(i);
        settle();
    }
    ~asio_wait() override {
        for (auto& d : descriptors_)
            d.release(); // it is the ring's
    }

private:
    using descriptor = asio::posix::basic_stream_descriptor<Executor>;

    struct on_ready {
        asio_wait* self;
        unsigned i;

        void operator()(const error_code& ec) const {
            check(ec);
            self->ring_.take(i);
            self->pass_on(i);
            self->wait(i);
        }
    };

    void wait(unsigned i) {
        descriptors_[i].async_wait(asio::posix::descriptor_base::wait_read, on_ready{this, i});
    }

    std::vector<descriptor> descriptors_;
};

/// posix::stream_descriptor::async_read_some.
template <class Executor>
class asio_read_some final : public asio_peer {
public:
    asio_read_some(unsigned handles, unsigned active) : asio_peer(handles, active) {
        descriptors_.reserve(handles);
        for (unsigned i = 0; i != handles; ++i)
            descriptors_.emplace_back(context_.get_executor(), ring_.handle(i));
        for (unsigned i = 0; i != handles; ++i)
            read(i);
        settle();
    }
    ~asio_read_some() override {
        for (auto& d : descriptors_)
            d.release();
    }

private:
    using descriptor = asio::posix::basic_stream_descriptor<Executor>;

    struct on_read {
        asio_read_some* self;
        unsigned i;

        void operator()(const error_code& ec, std::size_t n) const {
            check(ec);
            self->ring_.arrived(static_cast<std::ptrdiff_t>(n));
            self->pass_on(i);
            self->read(i);
        }
    };

    void read(unsigned i) {
        descriptors_[i].async_read_some(asio::buffer(ring_.buffer(), ring::buffer_size),
                                        on_read{this, i});
    }

    std::vector<descriptor> descriptors_;
};

/// Whether a reader goes on to the would-block that proves that a handle is drained.
enum class second_read { no, yes };

/// moor::registration::async_wait_readable, then a read.
template <class Executor, moor::trigger Trigger, second_read Second>
class moor_wait final : public asio_peer {
public:
    moor_wait(unsigned handles, unsigned active) : asio_peer(handles, active) {
        registrations_.reserve(handles);
        for (unsigned i = 0; i != handles; ++i)
            registrations_.emplace_back(context_.get_executor(), ring_.handle(i), Trigger);
        for (unsigned i = 0; i != handles; ++i)
            wait(i);
        settle();
    }

private:
    using registration = moor::basic_registration<Executor>;

    struct on_ready {
        moor_wait* self;
        unsigned i;

        void operator()(const error_code& ec) const {
            check(ec);
            self->ring_.take(i);
            if (Second == second_read::yes)
                self->ring_.drain(i);
            self->pass_on(i);
            self->wait(i);
        }
    };

    void wait(unsigned i) { registrations_[i].async_wait_readable(on_ready{this, i}); }

    std::vector<registration> registrations_;
};

/// moor::registration::async_io.
template <class Executor, moor::trigger Trigger, second_read Second>
class moor_io final : public asio_peer {
public:
    moor_io(unsigned handles, unsigned active) : asio_peer(handles, active) {
        registrations_.reserve(handles);
        for (unsigned i = 0; i != handles; ++i)
            registrations_.emplace_back(context_.get_executor(), ring_.handle(i), Trigger);
        for (unsigned i = 0; i != handles; ++i)
            read(i);
        settle();
    }

private:
    using registration = moor::basic_registration<Executor>;

    struct reader {
        int fd;
        char* buffer;

        moor::drainable<std::ptrdiff_t> operator()(error_code& ec) const {
            std::ptrdiff_t n = ::read(fd, buffer, ring::buffer_size);
            if (n < 0)
                ec.assign(errno, boost::system::system_category());
            return moor::drained_if(Second == second_read::no, n);
        }
    };

    struct on_read {
        moor_io* self;
        unsigned i;

        void operator()(const error_code& ec, std::ptrdiff_t n) const {
            check(ec);
            self->ring_.arrived(n);
            self->pass_on(i);
            self->read(i);
        }
    };

    void read(unsigned i) {
        registrations_[i].async_io(moor::interest::readable,
                                   reader{ring_.handle(i), ring_.buffer()}, on_read{this, i});
    }

    std::vector<registration> registrations_;
};

// ---- all of them
// ----------------------------------------------------------------------------------

struct peer_entry {
    std::string name;
    std::unique_ptr<peer> (*make)(unsigned handles, unsigned active);
};

namespace detail {

template <class Peer>
std::unique_ptr<peer> make(unsigned handles, unsigned active) {
    return std::make_unique<Peer>(handles, active);
}

template <class Executor>
void add_peers(std::vector<peer_entry>& v, const std::string& suffix) {
    using moor::trigger;
    constexpr second_read once = second_read::no, twice = second_read::yes;
    v.push_back({"asio_wait" + suffix, &make<asio_wait<Executor>>});
    v.push_back({"asio_read_some" + suffix, &make<asio_read_some<Executor>>});
    v.push_back({"moor_edge" + suffix, &make<moor_wait<Executor, trigger::edge, once>>});
    v.push_back({"moor_edge_drain" + suffix, &make<moor_wait<Executor, trigger::edge, twice>>});
    v.push_back({"moor_edge_io" + suffix, &make<moor_io<Executor, trigger::edge, once>>});
    v.push_back({"moor_level" + suffix, &make<moor_wait<Executor, trigger::level, once>>});
    v.push_back({"moor_level_io" + suffix, &make<moor_io<Executor, trigger::level, once>>});
    v.push_back({"moor_level_io_drain" + suffix, &make<moor_io<Executor, trigger::level, twice>>});
}

} // namespace detail

/// By name. The suffix "@ioc" says that io_context::executor_type takes the place of the default,
/// any_io_executor.
inline const std::vector<peer_entry>& peers() {
    static const std::vector<peer_entry> all = [] {
        std::vector<peer_entry> v;
        v.push_back({"hand", &detail::make<hand_written>});
        detail::add_peers<asio::any_io_executor>(v, "");
        detail::add_peers<asio::io_context::executor_type>(v, "@ioc");
        return v;
    }();
    return all;
}

} // namespace bench

#endif // MOOR_BENCH_PEERS_HPP
