// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What poll(2) says of a file, which waits that completes, and the ways in which each kind of file
// is closed. And a loop that is given up, for waits that may hang.

#ifndef MOOR_TEST_SUPPORT_KINDS_HPP
#define MOOR_TEST_SUPPORT_KINDS_HPP

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/pty.hpp"
#include "support/vocabulary.hpp"

#include <moor/readiness.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/system/error_code.hpp>
#include <boost/test/unit_test.hpp>

#include <chrono>
#include <memory>
#include <ostream>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace test {

// ---- poll(2) is the oracle --------------------------------------------------------------------

inline int poll_bits(int fd) {
    ::pollfd p = {fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
    return ::poll(&p, 1, 0) == 1 ? p.revents : 0;
}

inline bool can_be_read(int fd) { return (::fcntl(fd, F_GETFL) & O_ACCMODE) != O_WRONLY; }
inline bool can_be_written(int fd) { return (::fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY; }

/// The bits of poll(2) that complete a wait for any of these.
inline int poll_mask(moor::interest want, bool is_written_pipe) {
    int bits = 0;
    if (want.is_readable())
        bits |= POLLIN | POLLERR | POLLHUP;
    if (want.is_writable())
        bits |= POLLOUT | POLLERR | POLLHUP;
    if (want.is_priority())
        bits |= POLLPRI;
    if (want.is_error())
        bits |= POLLERR;
    if (want.is_read_closed())
        bits |= POLLRDHUP | POLLHUP;
    if (want.is_write_closed())
        bits |= is_written_pipe ? POLLHUP | POLLERR : POLLHUP;
    return bits;
}
inline int bits_of(moor::interest want, int fd) {
    struct ::stat st {};
    return poll_mask(want, ::fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) && !can_be_read(fd));
}

inline const std::vector<moor::interest>& each_interest() {
    static const std::vector<moor::interest> all = {
        moor::interest::readable, moor::interest::writable,    moor::interest::priority,
        moor::interest::error,    moor::interest::read_closed, moor::interest::write_closed};
    return all;
}

inline const char* name_of(moor::trigger t) { return t == moor::trigger::level ? "level" : "edge"; }

// ---- waits that may hang ----------------------------------------------------------------------

/// How a wait ended; for a handler that may outlive the test's patience.
class outcome {
public:
    explicit operator bool() const { return seen_->times != 0; }
    int times() const { return seen_->times; }
    boost::system::error_code ec() const { return seen_->ec; }
    moor::ready_event event() const { return seen_->event; }

    auto handler() const {
        return [seen = seen_](boost::system::error_code ec, auto&&... more) {
            ++seen->times;
            seen->ec = ec;
            seen->keep(more...);
        };
    }

    friend std::ostream& operator<<(std::ostream& os, const outcome& o) {
        return o ? os << o.times() << " times, with " << o.ec() : os << "pending";
    }

private:
    struct seen {
        int times = 0;
        boost::system::error_code ec;
        moor::ready_event event;

        void keep() {}
        void keep(const moor::ready_event& e) { event = e; }
        template <class Other>
        void keep(const Other&) {}
    };

    std::shared_ptr<seen> seen_ = std::make_shared<seen>();
};

/// Counts what a test with very many cases finds, and reports the first few that fail.
class tally {
public:
    tally() = default;
    tally(const tally&) = delete;
    tally& operator=(const tally&) = delete;
    ~tally() {
        BOOST_CHECK_MESSAGE(failed_ == 0, failed_ << " of " << checked_ << " fail:" << first_few_);
        BOOST_CHECK_GT(checked_, 0);
    }

    template <class... Parts>
    bool check(bool holds, const Parts&... parts) {
        ++checked_;
        if (holds)
            return true;
        ++failed_;
        std::ostringstream line;
        line << "\n    ";
        (line << ... << parts);
        if (first_few_.find(line.str()) == std::string::npos && ++shown_ <= 12)
            first_few_ += line.str();
        return false;
    }

    /// How long to wait for what may never come: not long any more once the test has failed.
    std::chrono::milliseconds patience() const {
        return std::chrono::milliseconds(failed_ == 0 ? 2000 : 10);
    }

    /// Runs what is ready now, as run_ready does; but notices a loop that turns for ever.
    void run_ready(boost::asio::io_context& io) {
        auto work = boost::asio::make_work_guard(io);
        int handlers = 0;
        for (int quiet = 0; quiet != 3;) {
            if (io.stopped())
                io.restart();
            quiet = io.poll_one() == 0 ? quiet + 1 : 0;
            if (++handlers == 1000) {
                check(false, "the loop turns for ever");
                return;
            }
        }
    }

    /// Runs until `done()`. False if everything is handled and it does not hold, not even a while
    /// later.
    template <class Done>
    bool comes(boost::asio::io_context& io, Done done) {
        return comes_by([&] { run_ready(io); }, done);
    }
    /// The same, where `run` runs what is ready.
    template <class Run, class Done>
    bool comes_by(Run run, Done done) {
        run();
        auto deadline = std::chrono::steady_clock::now() + patience();
        while (!done()) {
            if (std::chrono::steady_clock::now() >= deadline)
                return false;
            // (Not run_one_until(): see watchdog.)
            std::this_thread::yield();
            run();
        }
        return true;
    }

    long failed() const { return failed_; }

private:
    long checked_ = 0, failed_ = 0, shown_ = 0;
    std::string first_few_;
};

// ---- ways of closing --------------------------------------------------------------------------

inline fd_pair swapped(fd_pair p) {
    std::swap(p.a, p.b);
    return p;
}

/// Two UDP sockets on loopback, connected to each other.
inline fd_pair make_udp_pair() {
    unique_fd fds[2];
    ::sockaddr_in at[2]{};
    for (int i = 0; i != 2; ++i) {
        fds[i] = unique_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        at[i].sin_family = AF_INET;
        at[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ::socklen_t len = sizeof(at[i]);
        BOOST_REQUIRE_EQUAL(::bind(fds[i], reinterpret_cast<::sockaddr*>(&at[i]), len), 0);
        BOOST_REQUIRE_EQUAL(::getsockname(fds[i], reinterpret_cast<::sockaddr*>(&at[i]), &len), 0);
    }
    for (int i = 0; i != 2; ++i)
        BOOST_REQUIRE_EQUAL(
            ::connect(fds[i], reinterpret_cast<::sockaddr*>(&at[1 - i]), sizeof(at[i])), 0);
    return {std::move(fds[0]), std::move(fds[1])};
}

/// Small buffers, since some histories fill them.
inline fd_pair small(fd_pair p) {
    for (int fd : {p.a.get(), p.b.get()}) {
        int size = 4608;
        ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    return p;
}

/// How a file comes to its end. The tests wait for a.
struct ending {
    const char* name;
    fd_pair (*make)();
    void (*close)(fd_pair&);
    bool can_be_filled = true; ///< so that it stays full
};

inline void close_peer(fd_pair& p) { p.b.close(); }
inline void shut_peer(fd_pair& p) { ::shutdown(p.b, SHUT_WR); }
inline void shut_both(fd_pair& p) {
    ::shutdown(p.b, SHUT_WR);
    ::shutdown(p.a, SHUT_WR);
}
inline void reset_peer(fd_pair& p) {
    ::linger l = {1, 0};
    ::setsockopt(p.b, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
    p.b.close();
}
inline void leave_unread(fd_pair& p) {
    (void)!::send(p.a, "unread", 6, MSG_NOSIGNAL);
    p.b.close();
}
inline void refuse(fd_pair& p) {
    p.b.close();
    (void)!::send(p.a, "x", 1, MSG_NOSIGNAL);
}

inline const std::vector<ending>& each_ending() {
    static const std::vector<ending> all = {
        {"Unix: peer closes", [] { return small(make_socketpair()); }, close_peer},
        {"Unix: peer shuts down", [] { return small(make_socketpair()); }, shut_peer},
        {"Unix: both shut down", [] { return small(make_socketpair()); }, shut_both},
        {"Unix: own reading shut down", [] { return small(make_socketpair()); },
         [](fd_pair& p) { ::shutdown(p.a, SHUT_RD); }},
        {"Unix: peer closes with data unread", [] { return small(make_socketpair()); },
         leave_unread},
        {"Unix packets: peer closes", [] { return small(make_socketpair(SOCK_SEQPACKET)); },
         close_peer},
        {"Unix packets: peer shuts down", [] { return small(make_socketpair(SOCK_SEQPACKET)); },
         shut_peer},
        {"Unix datagrams: peer closes", [] { return make_socketpair(SOCK_DGRAM); }, close_peer},
        {"TCP: peer closes", [] { return small(make_tcp_pair()); }, close_peer},
        {"TCP: peer shuts down", [] { return small(make_tcp_pair()); }, shut_peer},
        {"TCP: both shut down", [] { return small(make_tcp_pair()); }, shut_both},
        {"TCP: peer resets", [] { return small(make_tcp_pair()); }, reset_peer},
        {"UDP: refused", [] { return make_udp_pair(); }, refuse, false},
        {"pipe: writer closes", [] { return make_pipe(); }, close_peer},
        {"pipe: reader closes", [] { return swapped(make_pipe()); }, close_peer},
        {"named pipe: writer closes", [] { return make_fifo(); }, close_peer},
        {"named pipe: reader closes", [] { return swapped(make_fifo()); }, close_peer},
        {"terminal: last program closes", [] { return make_raw_pty(); }, close_peer, false},
        {"terminal: hangs up", [] { return swapped(make_raw_pty()); }, close_peer, false},
    };
    return all;
}

} // namespace test

#endif
