// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Level-triggered waits against a model: one never completes unless its handle was ready at some
// time since it began, and never stays if its handle is ready. All that is done to the handles is
// done by this thread, at random, and the model asks poll(2) after each step. In handlers, outside
// of them, and in runs of the loop inside of handlers.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/version.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <poll.h>
#include <sys/socket.h>

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

} // namespace

BOOST_AUTO_TEST_SUITE(exactness)

BOOST_AUTO_TEST_CASE(random_waits) { check(false); }

BOOST_AUTO_TEST_CASE(random_waits_with_loops_inside_of_handlers) { check(true); }

BOOST_AUTO_TEST_SUITE_END()
