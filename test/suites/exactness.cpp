// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Level-triggered waits against a model: one never completes unless its handle was ready at some
// time since it began, and never stays if its handle is ready. All that is done to the handles is
// done by this thread, at random, and the model asks poll(2) after each step. In handlers, outside
// of them, and in runs of the loop inside of handlers.
//
// And streams, at random: whatever was sent is received, in order, and the end after it, however
// messages and buffers fit together, and whatever a transfer was taken to show.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/pty.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/version.hpp>

#include <algorithm>
#include <array>
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
using test::error_code;

bool is_ready(int fd, short events) {
    ::pollfd p = {fd, events, 0};
    return ::poll(&p, 1, 0) == 1;
}

class model {
public:
    struct results {
        long begun = 0;
        long completed = 0;
        long of_the_past = 0; ///< completed although their handle was never ready
        long forgotten = 0;   ///< not completed although it is
    };

    model(std::uint32_t seed, bool nests) : random_(seed), nests_(nests) {
        // Some of many that are busy, so that waits are looked at in all ways.
        for (std::size_t i = 0; i != busy_count; ++i) {
            busy_.push_back(test::make_pipe());
            busy_regs_.push_back(std::make_unique<moor::registration>(io_, busy_.back().a.get()));
            keep_busy(i);
        }
        for (std::size_t i = 0; i != 6; ++i) {
            objects_.push_back(std::make_unique<object>());
            open(*objects_.back());
        }
    }

    ~model() {
        is_over_ = true;
        for (auto& o : objects_)
            o->reg.reset();
        busy_regs_.clear();
        test::run_ready(io_);
    }

    results run(int steps) {
        for (int i = 0; i != steps; ++i) {
            if (i % 50 == 0)
                for (auto& p : busy_)
                    test::put(p.b, "x");
            act_outside(*objects_[below(objects_.size())]);
            io_.restart();
            switch (below(4)) {
            case 0:
                poll(200);
                break;
            case 1:
                poll(below(10));
                break;
            default: // nothing
                break;
            }
            if (i % 20 == 0)
                check_that_none_is_forgotten();
        }
        return results_;
    }

private:
    static constexpr std::size_t busy_count = 20;
    static constexpr std::size_t most_waits = 6;

    struct wait {
        long number;
        bool writes;
        bool was_ready = false;
    };

    struct object {
        test::fd_pair sockets;
        std::unique_ptr<moor::registration> reg;
        std::vector<wait> waits;

        bool is_ready(const wait& w) const {
            return ::is_ready(sockets.a, w.writes ? POLLOUT : POLLIN);
        }
        /// After each step that may have made it ready.
        void note() {
            for (wait& w : waits)
                w.was_ready = w.was_ready || is_ready(w);
        }
    };

    std::size_t below(std::size_t n) {
        return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_);
    }
    bool one_in(std::size_t n) { return below(n) == 0; }

    void keep_busy(std::size_t i) {
        busy_regs_[i]->async_wait_readable([this, i](error_code ec) {
            if (ec || is_over_)
                return;
            test::drain(busy_[i].a);
            keep_busy(i);
        });
    }

    void open(object& o) {
        o.sockets = test::make_socketpair();
        int size = 4608;
        ::setsockopt(o.sockets.a, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        o.reg = std::make_unique<moor::registration>(io_, o.sockets.a.get());
    }

    void reopen(object& o) {
        o.waits.clear();
        if (one_in(2))
            o.reg->deregister();
        o.reg.reset();
        open(o);
    }

    void begin(object& o, bool writes) {
        if (o.waits.size() >= most_waits)
            return;
        ++results_.begun;
        const long number = results_.begun;
        o.waits.push_back({number, writes});
        o.note();
        // Those of an earlier registration end with an error, and are in no list any more.
        auto handler = [this, &o, number](error_code ec) {
            auto mine = std::find_if(o.waits.begin(), o.waits.end(),
                                     [&](wait& w) { return w.number == number; });
            if (is_over_ || mine == o.waits.end())
                return;
            bool was_ready = mine->was_ready;
            o.waits.erase(mine);
            if (ec)
                return;
            ++results_.completed;
            results_.of_the_past += !was_ready;
            act_inside(o);
        };
        if (writes)
            o.reg->async_wait_writable(handler);
        else
            o.reg->async_wait_readable(handler);
    }

    /// What can be done anywhere.
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
            begin(o, one_in(3));
            break;
        case 7:
        case 8:
            (void)!::send(o.sockets.b, much.data(), 1 + below(3), MSG_NOSIGNAL);
            o.note();
            break;
        case 9:
            while (::send(o.sockets.a, much.data(), much.size(), MSG_NOSIGNAL) > 0) {}
            break;
        case 10:
            test::drain(o.sockets.b);
            o.note();
            break;
        case 11:
            if (one_in(3))
                o.reg->cancel();
            break;
        default:
            if (one_in(40)) {
                ::shutdown(o.sockets.b, SHUT_WR);
                o.note();
            }
            break;
        }
    }

    void act_outside(object& o) {
        // Asio's io_uring service loses results when operations are cancelled, before Boost 1.82.
        static const bool may_reopen = !test::on_io_uring() || BOOST_ASIO_VERSION >= 102700;
        if (may_reopen && one_in(300))
            reopen(o);
        else
            act(o);
    }

    void act_inside(object& o) {
        for (std::size_t n = below(5); n != 0; --n) {
            act(one_in(3) ? *objects_[below(objects_.size())] : o);
            if (one_in(5))
                begin(o, false);
            if (nests_ && depth_ < 2 && one_in(90)) {
                ++depth_;
                poll(below(8));
                --depth_;
            }
        }
    }

    void poll(std::size_t handlers) {
        while (handlers-- != 0 && io_.poll_one() != 0) {}
    }

    /// Once nothing moves any more. (Handlers act, so that may take long: then it is not checked.)
    void check_that_none_is_forgotten() {
        long completed = -1;
        for (int i = 0; i != 60 && completed != results_.completed; ++i) {
            completed = results_.completed;
            io_.restart();
            poll(300);
        }
        if (completed != results_.completed)
            return;
        // io_uring's results may take a while.
        for (int i = 0; i != 100 && completed == results_.completed; ++i) {
            forgotten_ = 0;
            for (auto& o : objects_)
                forgotten_ += std::count_if(o->waits.begin(), o->waits.end(),
                                            [&](wait& w) { return o->is_ready(w); });
            if (forgotten_ == 0)
                return;
            std::this_thread::yield();
            io_.restart();
            poll(300);
        }
        if (completed == results_.completed)
            results_.forgotten += forgotten_;
    }

    asio::io_context io_;
    std::mt19937 random_;
    bool nests_;
    int depth_ = 0;
    bool is_over_ = false;
    results results_;
    long forgotten_ = 0;
    std::vector<test::fd_pair> busy_;
    std::vector<std::unique_ptr<moor::registration>> busy_regs_;
    std::vector<std::unique_ptr<object>> objects_;
};

void check(bool nests) {
    const std::uint32_t rounds = test::on_io_uring() ? 4 : 20; // which is slow at this
    constexpr int steps = 3000;
    model::results total;
    for (std::uint32_t seed = 1; seed <= rounds; ++seed)
        BOOST_TEST_CONTEXT("seed " << seed) {
            model::results r = model(seed, nests).run(steps);
            BOOST_TEST(r.of_the_past == 0);
            BOOST_TEST(r.forgotten == 0);
            total.begun += r.begun;
            total.completed += r.completed;
        }
    BOOST_TEST(total.begun > static_cast<long>(rounds) * steps / 4);
    BOOST_TEST(total.completed > total.begun / 4);
}

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
        std::size_t n = usual_;
        switch (random_() % 8) {
        case 0:
            n = 1 + random_() % (2 * usual_);
            break;
        case 1:
            n *= 2 + random_() % 6;
            break;
        default: // as usual
            break;
        }
        if (writes_)
            receive(n);
        else
            send(n);
    }

    /// The test's end goes; what it sent is to be received, and then the end.
    void close_peer() { peer_.close(); }

    void close() { stream_->close(); }

    /// Whether there is nothing more to do: all was received.
    bool is_settled() {
        if (writes_)
            return !is_ready(stream_->native_handle(), POLLOUT);
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
        buffer_.resize(n);
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
        if (writes_) {
            fill(sent_);
            stream_->async_write_some(asio::buffer(buffer_), handler);
        } else {
            stream_->async_read_some(asio::buffer(buffer_), handler);
        }
    }

    static char at(std::size_t i) { return static_cast<char>('a' + i % 23); }

    void fill(std::size_t from) {
        for (char& c : buffer_)
            c = at(from++);
    }
    void check(const char* data, std::size_t n) {
        for (std::size_t i = 0; i != n; ++i)
            in_order_ = in_order_ && data[i] == at(received_ + i);
        received_ += n;
    }

    void send(std::size_t n) {
        std::string message;
        for (std::size_t i = 0; i != n; ++i)
            message += at(sent_ + i);
        ::ssize_t r = ::write(peer_, message.data(), n);
        if (r > 0)
            sent_ += static_cast<std::size_t>(r);
    }
    void receive(std::size_t n) {
        std::vector<char> room(n);
        ::ssize_t r = ::read(peer_, room.data(), n);
        if (r > 0)
            check(room.data(), static_cast<std::size_t>(r));
    }

    std::unique_ptr<moor::stream_descriptor> stream_;
    test::unique_fd peer_;
    bool writes_;
    std::mt19937& random_;
    std::size_t usual_;
    std::vector<char> buffer_;
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
    test::fd_pair p;
    switch (random() % 5) {
    case 0:
        return std::make_unique<random_stream>(io, make_small_pipe(), false, random);
    case 1:
        p = make_small_pipe();
        std::swap(p.a, p.b);
        return std::make_unique<random_stream>(io, std::move(p), true, random);
    case 2:
        return std::make_unique<random_stream>(io, test::make_tcp_pair(), false, random);
    case 3:
        return std::make_unique<random_stream>(io, test::make_raw_pty(), false, random);
    default:
        return std::make_unique<random_stream>(io, test::make_socketpair(), false, random);
    }
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
    for (auto& s : streams) {
        if (s->writes()) {
            s->close();
        } else {
            s->move_something(); // and the end behind it
            s->close_peer();
        }
    }
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

BOOST_AUTO_TEST_CASE(random_waits) { check(false); }

BOOST_AUTO_TEST_CASE(random_waits_with_loops_inside_of_handlers) { check(true); }

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
