// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Random I/O where the programs of promise.cpp do not go: level-triggered waits among many handles
// that are busy, so that their readiness checks are deferred; two threads whose handlers share no
// lock; and streams, of which every byte has to arrive, in order, and the end after it.

#include "support/context.hpp"
#include "support/crowd.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/pty.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::error_code;

/// What is sent, from the byte with this number on.
std::string text(std::size_t from, std::size_t n) {
    std::string s(n, '\0');
    for (char& c : s)
        c = static_cast<char>(from++ % 251);
    return s;
}

// ---- waits among many that are busy -------------------------------------------------------------

/// A wait never completes unless its handle was ready at some time since the wait began, and never
/// stays if its handle is ready. All that is done to the handles is done by this thread, and the
/// model asks poll(2) after each step. In handlers, outside of them, and in runs of the loop inside
/// of handlers.
class waits_in_a_crowd {
public:
    explicit waits_in_a_crowd(std::uint32_t seed) : random_(seed) {}
    ~waits_in_a_crowd() {
        acts_ = false;
        for (object& o : objects_)
            o.reg.cancel();
        test::run_ready(io_);
    }

    void run(int steps) {
        for (int i = 0; i != steps; ++i) {
            if (i % 50 == 0)
                crowd_.put_everywhere();
            act(any());
            io_.restart();
            if (one_in(4))
                poll(200);
            else if (one_in(3))
                poll(below(10));
            if (i % 20 == 0)
                check_that_none_is_forgotten();
        }
    }

    long begun = 0;
    long completed = 0;
    long of_the_past = 0; ///< completed although their handle was never ready
    long forgotten = 0;   ///< not completed although it is

private:
    struct wait {
        long number;
        int event;
        bool was_ready = false;
    };
    struct object {
        explicit object(asio::io_context& io) : reg(io, sockets.a.get()) {}

        test::fd_pair sockets = test::small(test::make_socketpair());
        moor::registration reg;
        std::vector<wait> waits;

        bool is_ready(const wait& w) const { return (test::poll_bits(sockets.a) & w.event) != 0; }
        /// After each step that may have made it ready.
        void note() {
            for (wait& w : waits)
                w.was_ready = w.was_ready || is_ready(w);
        }
    };

    std::size_t below(std::size_t n) { return random_() % n; }
    bool one_in(std::size_t n) { return below(n) == 0; }
    object& any() { return objects_[below(objects_.size())]; }

    void begin(object& o, int event) {
        if (o.waits.size() >= 6)
            return;
        const long number = ++begun;
        o.waits.push_back({number, event});
        o.note();
        auto handler = [this, &o, number](error_code ec) {
            auto mine = std::find_if(o.waits.begin(), o.waits.end(),
                                     [&](wait& w) { return w.number == number; });
            const bool was_ready = mine->was_ready;
            o.waits.erase(mine);
            if (ec)
                return;
            ++completed;
            of_the_past += !was_ready;
            for (std::size_t n = acts_ ? below(5) : 0; n != 0; --n)
                act_inside(o);
        };
        if (event == POLLOUT)
            o.reg.async_wait_writable(handler);
        else
            o.reg.async_wait_readable(handler);
    }

    void act(object& o) {
        static const std::array<char, 8192> much{};
        char some[3];
        switch (below(13)) {
        case 0:
        case 1:
        case 2:
            (void)!::read(o.sockets.a, some, 1 + below(3));
            break;
        case 3:
            test::drain(o.sockets.a);
            break;
        case 4:
        case 5:
        case 6:
            begin(o, one_in(3) ? POLLOUT : POLLIN);
            break;
        case 7:
        case 8:
            (void)!::send(o.sockets.b, much.data(), 1 + below(3), MSG_NOSIGNAL);
            break;
        case 9:
            while (::send(o.sockets.a, much.data(), much.size(), MSG_NOSIGNAL) > 0) {}
            break;
        case 10:
            test::drain(o.sockets.b);
            break;
        case 11:
            if (one_in(3))
                o.reg.cancel();
            break;
        default:
            if (one_in(40))
                ::shutdown(o.sockets.b, SHUT_WR);
            break;
        }
        o.note();
    }

    void act_inside(object& o) {
        act(one_in(3) ? any() : o);
        if (one_in(5))
            begin(o, POLLIN);
        if (depth_ < 2 && one_in(90)) {
            ++depth_;
            poll(below(8));
            --depth_;
        }
    }

    void poll(std::size_t handlers) {
        while (handlers-- != 0 && io_.poll_one() != 0) {}
    }

    void check_that_none_is_forgotten() {
        acts_ = false; // or the loop might not come to rest
        long count = 1;
        for (int i = 0; i != 100 && count != 0; ++i) { // io_uring's results may take a while
            test::run_ready(io_);
            count = 0;
            for (object& o : objects_)
                count += std::count_if(o.waits.begin(), o.waits.end(),
                                       [&](wait& w) { return o.is_ready(w); });
        }
        forgotten += count;
        acts_ = true;
    }

    asio::io_context io_;
    test::crowd crowd_{io_};
    std::array<object, 6> objects_{object(io_), object(io_), object(io_),
                                   object(io_), object(io_), object(io_)};
    std::mt19937 random_;
    int depth_ = 0;
    bool acts_ = true;
};

// ---- two threads --------------------------------------------------------------------------------

/// One end of a connection: waits for some of what there is to do, and does it by one call, until
/// the calls would block, or not at all. It has one wait at a time, so it needs no lock.
class random_end {
public:
    random_end(asio::io_context& io, int fd, trigger mode, std::uint32_t seed, std::size_t to_send)
        : io_(io), fd_(fd), mode_(mode), reg_(io, fd, mode), random_(seed), to_send_(to_send) {}

    void turn() {
        if (!has_shut_ && sent_ == to_send_) {
            ::shutdown(fd_, SHUT_WR);
            has_shut_ = true;
        }
        if (is_over() || wrong_ != 0)
            return;
        const bool pauses = random_() % 4 == 0;
        interest want;
        if (!at_end_ && (!pauses || random_() % 2 == 0))
            want |= interest::readable;
        if (!has_shut_ && (!pauses || !want.is_readable()))
            want |= interest::writable;
        if (random_() % 8 == 0)
            want |= interest::priority; // will never come
        if (want.empty())
            return asio::post(io_, [this] { turn(); });
        reg_.async_wait(want, [this, want](error_code ec, moor::ready_event e) {
            completed(want, ec, e.ready());
        });
        if (pauses) // the pause ends by itself, also if this wait does not
            asio::post(io_, [this] { reg_.cancel(); });
    }

    bool is_over() const { return has_shut_ && at_end_; }
    std::size_t sent() const { return sent_; }
    std::size_t received() const { return received_; }
    /// What was not asked for, out of order, or failed.
    long wrong() const { return wrong_; }
    /// Readable events with nothing to read.
    long spurious() const { return spurious_; }

private:
    void completed(interest want, error_code ec, interest got) {
        if (ec) {
            wrong_ += ec != test::aborted;
        } else {
            wrong_ += got.empty() || !want.contains(got) || got.is_priority();
            // An edge-triggered end has to drain.
            const auto action = mode_ == trigger::edge ? 2u : random_() % 6;
            for (bool is_first = true; got.is_readable() && action != 0 && read(is_first);
                 is_first = false)
                if (action == 1)
                    break;
            while (got.is_writable() && action != 0 && write())
                if (action == 1)
                    break;
        }
        turn();
    }

    bool read(bool is_first) {
        char buffer[2048];
        ::ssize_t n = ::read(fd_, buffer, 1 + random_() % sizeof(buffer));
        at_end_ = at_end_ || n == 0;
        if (n < 0) {
            wrong_ += errno != EAGAIN;
            spurious_ += is_first;
        }
        if (n <= 0)
            return false;
        std::string got(buffer, static_cast<std::size_t>(n));
        wrong_ += got != text(received_, got.size());
        received_ += got.size();
        return true;
    }

    bool write() {
        const std::size_t n = std::min<std::size_t>(1 + random_() % 2048, to_send_ - sent_);
        ::ssize_t r = n == 0 ? 0 : ::send(fd_, text(sent_, n).data(), n, MSG_NOSIGNAL);
        wrong_ += r < 0 && errno != EAGAIN;
        sent_ += r > 0 ? static_cast<std::size_t>(r) : 0;
        return r > 0;
    }

    asio::io_context& io_;
    int fd_;
    trigger mode_;
    moor::registration reg_;
    std::minstd_rand random_;
    std::size_t to_send_, sent_ = 0, received_ = 0;
    bool has_shut_ = false, at_end_ = false;
    long wrong_ = 0, spurious_ = 0;
};

void exchange_with_two_threads(std::uint32_t seed, trigger mode, bool tcp) {
    constexpr std::size_t bytes = 100'000;
    asio::io_context io;
    std::vector<test::fd_pair> pairs;
    std::vector<std::unique_ptr<random_end>> ends;
    for (std::uint32_t i = 0; i != 4; ++i) {
        // Small buffers, so that both sides block often. (Not to receive: TCP would send what
        // little room is left by a timer.)
        pairs.push_back(tcp ? test::make_tcp_pair() : test::make_socketpair());
        int size = tcp ? 16384 : 4096;
        for (int fd : {pairs[i].a.get(), pairs[i].b.get()}) {
            ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
            ends.push_back(std::make_unique<random_end>(
                io, fd, mode, seed + static_cast<std::uint32_t>(ends.size()), bytes));
        }
    }
    // A level-triggered wait never lies once the service has seen every thread of the loop: the
    // threads meet in a handler each before anything else happens.
    std::atomic<unsigned> met{0};
    test::fd_pair pipes[] = {test::make_pipe(), test::make_pipe()};
    moor::registration meeting[] = {moor::registration(io, pipes[0].a.get()),
                                    moor::registration(io, pipes[1].a.get())};
    for (unsigned i : {0u, 1u}) {
        meeting[i].async_wait_readable([&](error_code) {
            if (++met == 2)
                for (auto& e : ends)
                    e->turn();
            while (met != 2)
                std::this_thread::yield();
        });
        test::put(pipes[i].b, "x");
    }
    const test::watchdog dog(io);
    std::thread other([&] { io.run(); });
    io.run();
    other.join();

    BOOST_TEST(!dog.has_bitten());
    for (auto& e : ends) {
        BOOST_TEST(e->is_over());
        BOOST_TEST(e->sent() == bytes);
        BOOST_TEST(e->received() == bytes);
        BOOST_TEST(e->wrong() == 0);
        // Nobody else reads, so a readable that a level-triggered wait reports is true. An edge may
        // be stale: what it announced was read with what came before it.
        if (mode == trigger::level)
            BOOST_TEST(e->spurious() == 0);
    }
}

// ---- streams ------------------------------------------------------------------------------------

/// A stream whose end here is read on and on, or written to on and on; a test has the other end.
class random_stream {
public:
    random_stream(asio::io_context& io, test::fd_pair p, bool writes, std::mt19937& random)
        : stream_(std::make_unique<moor::stream_descriptor>(io, p.a.release())),
          peer_(std::move(p.b)), writes_(writes), random_(random), usual_(1 + random() % 24) {
        if (writes_)
            usual_ *= 512;
        go_on();
    }

    /// The test's end: sends, or receives, a usual message, some of them, or anything.
    void move_something() {
        const auto choice = random_() % 8;
        const std::size_t n = choice == 0   ? 1 + random_() % (2 * usual_)
                              : choice == 1 ? usual_ * (2 + random_() % 6)
                                            : usual_;
        std::string message = text(sent_, n);
        ::ssize_t r = writes_ ? ::read(peer_, &message[0], n) : ::write(peer_, message.data(), n);
        if (r <= 0)
            return;
        if (writes_)
            check(message.data(), static_cast<std::size_t>(r));
        else
            sent_ += static_cast<std::size_t>(r);
    }

    /// Ends it. What the test sent is to be received, and then the end.
    void end() {
        if (writes_)
            return stream_->close();
        move_something();
        peer_.close();
    }

    /// Whether there is nothing more to do: all was received.
    bool is_settled() {
        if (writes_)
            return (test::poll_bits(stream_->native_handle()) & POLLOUT) == 0;
        return received_ == sent_ && (peer_.get() != -1 || !!ec_);
    }
    bool is_in_order() const { return in_order_; }
    bool writes() const { return writes_; }
    const error_code& ec() const { return ec_; }
    std::size_t moved() const { return received_; }
    long transfers() const { return transfers_; }

private:
    void go_on() {
        std::size_t n = random_() % 8 == 0 ? 1 + random_() % (2 * usual_) : usual_;
        buffer_ = text(sent_, n);
        auto handler = [this, n](error_code ec, std::size_t moved) {
            ++transfers_;
            if (writes_)
                sent_ += moved;
            else
                check(buffer_.data(), moved);
            ec_ = ec;
            in_order_ = in_order_ && moved <= n;
            if (!ec)
                go_on();
        };
        if (writes_)
            stream_->async_write_some(asio::buffer(buffer_), handler);
        else
            stream_->async_read_some(asio::buffer(buffer_), handler);
    }

    void check(const char* data, std::size_t n) {
        in_order_ = in_order_ && std::string(data, n) == text(received_, n);
        received_ += n;
    }

    std::unique_ptr<moor::stream_descriptor> stream_;
    test::unique_fd peer_;
    bool writes_;
    std::mt19937& random_;
    std::size_t usual_;
    std::string buffer_;
    std::size_t sent_ = 0, received_ = 0;
    bool in_order_ = true;
    long transfers_ = 0;
    error_code ec_;
};

/// A pipe of four pages, so that it is often full.
test::fd_pair make_small_pipe() {
    test::fd_pair p = test::make_pipe();
    (void)::fcntl(p.b, F_SETPIPE_SZ, 4 * 4096);
    return p;
}

std::unique_ptr<random_stream> make_random_stream(asio::io_context& io, std::mt19937& random) {
    const auto choice = random() % 5;
    return std::make_unique<random_stream>(io,
                                           choice == 0   ? make_small_pipe()
                                           : choice == 1 ? test::swapped(make_small_pipe())
                                           : choice == 2 ? test::make_tcp_pair()
                                           : choice == 3 ? test::make_raw_pty()
                                                         : test::make_socketpair(),
                                           choice == 1, random);
}

/// Returns how many bytes were received, and in how many transfers.
std::pair<std::size_t, long> move_at_random(std::uint32_t seed, int steps) {
    asio::io_context io;
    std::mt19937 random(seed);
    std::vector<std::unique_ptr<random_stream>> streams;
    for (int i = 0; i != 12; ++i)
        streams.push_back(make_random_stream(io, random));
    auto settle = [&] {
        test::run_until(io, [&] {
            return std::all_of(streams.begin(), streams.end(),
                               [](auto& s) { return s->is_settled(); });
        });
        for (auto& s : streams) {
            BOOST_TEST(s->is_in_order());
            BOOST_TEST(!s->ec());
        }
    };
    for (int i = 0; i != steps; ++i) {
        streams[random() % streams.size()]->move_something();
        for (std::size_t n = random() % 6; n != 0 && io.poll_one() != 0; --n) {}
        if (random() % 16 == 0)
            settle();
    }
    settle();
    std::size_t moved = 0;
    long transfers = 0;
    for (auto& s : streams)
        s->end();
    test::run_until(io, [&] {
        return std::all_of(streams.begin(), streams.end(), [](auto& s) { return !!s->ec(); });
    });
    for (auto& s : streams) {
        BOOST_TEST(s->is_in_order());
        if (!s->writes())
            BOOST_TEST(s->is_settled());
        moved += s->moved();
        transfers += s->transfers();
    }
    return {moved, transfers};
}

} // namespace

BOOST_AUTO_TEST_SUITE(exactness)

BOOST_AUTO_TEST_CASE(random_waits_in_a_crowd) {
    const std::uint32_t rounds = test::on_io_uring() ? 4 : 20; // which is slow at this
    constexpr int steps = 3000;
    long begun = 0, completed = 0;
    for (std::uint32_t seed = 1; seed <= rounds; ++seed)
        BOOST_TEST_CONTEXT("seed " << seed) {
            waits_in_a_crowd w(seed);
            w.run(steps);
            BOOST_TEST(w.of_the_past == 0);
            BOOST_TEST(w.forgotten == 0);
            begun += w.begun;
            completed += w.completed;
        }
    BOOST_TEST(begun > static_cast<long>(rounds) * steps / 4);
    BOOST_TEST(completed > begun / 4);
}

BOOST_AUTO_TEST_CASE(random_exchanges_with_two_threads) {
    for (std::uint32_t seed : {1100u, 1200u})
        for (trigger mode : test::both_triggers)
            for (bool tcp : {false, true})
                BOOST_TEST_CONTEXT("seed " << seed << (tcp ? " tcp " : " unix ")
                                           << test::name_of(mode)) {
                    exchange_with_two_threads(seed, mode, tcp);
                }
}

BOOST_AUTO_TEST_CASE(random_streams) {
    for (std::uint32_t seed = 1; seed <= 20; ++seed)
        BOOST_TEST_CONTEXT("seed " << seed) {
            constexpr int steps = 3000;
            auto [moved, transfers] = move_at_random(seed, steps);
            BOOST_TEST(moved > std::size_t(steps));
            BOOST_TEST(transfers > steps / 2);
        }
}

BOOST_AUTO_TEST_SUITE_END()
