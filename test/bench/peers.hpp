//
// test/bench/peers.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Everyone who can hand bytes round a ring of pipes in an io_context.
//

#ifndef MOOR_BENCH_PEERS_HPP
#define MOOR_BENCH_PEERS_HPP

#include "ring.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/detail/concurrency_hint.hpp>
#include <boost/asio/detail/epoll_reactor.hpp>
#include <boost/asio/detail/reactor_op.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <boost/asio/posix/descriptor_base.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <unistd.h>

namespace bench {

namespace asio = boost::asio;
using boost::system::error_code;

// ---- those who run in an io_context

/// What they have in common. Every handle is always waited for, so the context never runs out of
/// work; the last hop stops it. `Hint`: the context's concurrency hint.
template <int Hint>
class asio_peer : public peer {
public:
    explicit asio_peer(const workload& w) : ring_(w), threads_(w.threads) {}

    /// What the other hints promise.
    static constexpr bool one_thread = Hint != BOOST_ASIO_CONCURRENCY_HINT_SAFE;

    void run(std::uint64_t hops) override {
        ring_.start(hops);
        context_.restart();
        std::vector<std::thread> others;
        for (unsigned t = 1; t < threads_; ++t)
            others.emplace_back([this] { context_.run(); });
        context_.run();
        for (std::thread& t : others)
            t.join();
        expect(ring_.done(), "the ring has stopped");
    }

    std::vector<double> latencies() override { return ring_.latencies(); }

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
    unsigned threads_;
    asio::io_context context_{Hint};
};

/// A descriptor of Asio's for a handle that stays its owner's.
template <class Executor>
class lent_descriptor : public asio::posix::basic_stream_descriptor<Executor> {
    using base = asio::posix::basic_stream_descriptor<Executor>;

public:
    using base::base;
    lent_descriptor(lent_descriptor&&) = default;
    ~lent_descriptor() {
        if (this->is_open())
            this->release();
    }
};

/// posix::descriptor::async_wait, then a read.
template <class Executor, int Hint>
class asio_wait final : public asio_peer<Hint> {
public:
    explicit asio_wait(const workload& w) : asio_peer<Hint>(w) {
        descriptors_.reserve(ring_.size());
        for (unsigned i = 0; i != ring_.size(); ++i)
            descriptors_.emplace_back(context_.get_executor(), ring_.handle(i));
        for (unsigned i = 0; i != ring_.size(); ++i)
            wait(i);
        if (ring_.chatter() != -1) {
            chatter_.assign(ring_.chatter());
            chatter_.async_wait(asio::posix::descriptor_base::wait_read, &this->check);
        }
        this->settle();
    }

private:
    using asio_peer<Hint>::context_;
    using asio_peer<Hint>::ring_;
    using descriptor = lent_descriptor<Executor>;

    struct on_ready {
        asio_wait* self;
        unsigned i;

        void operator()(const error_code& ec) const {
            self->check(ec);
            if (self->ring_.try_take(i)) // with several threads, it may have been an old event
                self->pass_on(i);
            self->wait(i);
        }
    };

    void wait(unsigned i) {
        descriptors_[i].async_wait(asio::posix::descriptor_base::wait_read, on_ready{this, i});
    }

    std::vector<descriptor> descriptors_;
    descriptor chatter_{context_.get_executor()};
};

/// posix::stream_descriptor::async_read_some.
template <class Executor, int Hint>
class asio_read_some final : public asio_peer<Hint> {
public:
    explicit asio_read_some(const workload& w) : asio_peer<Hint>(w) {
        descriptors_.reserve(ring_.size());
        for (unsigned i = 0; i != ring_.size(); ++i)
            descriptors_.emplace_back(context_.get_executor(), ring_.handle(i));
        for (unsigned i = 0; i != ring_.size(); ++i)
            read(i);
        if (ring_.chatter() != -1) {
            chatter_.assign(ring_.chatter());
            chatter_.async_wait(asio::posix::descriptor_base::wait_read, &this->check);
        }
        this->settle();
    }

private:
    using asio_peer<Hint>::context_;
    using asio_peer<Hint>::ring_;
    using descriptor = lent_descriptor<Executor>;

    struct on_read {
        asio_read_some* self;
        unsigned i;

        void operator()(const error_code& ec, std::size_t n) const {
            self->check(ec);
            self->ring_.arrived(static_cast<std::ptrdiff_t>(n));
            self->pass_on(i);
            self->read(i);
        }
    };

    void read(unsigned i) {
        descriptors_[i].async_read_some(asio::buffer(ring_.buffer(i), ring::buffer_size),
                                        on_read{this, i});
    }

    std::vector<descriptor> descriptors_;
    descriptor chatter_{context_.get_executor()};
};

/// What nobody who builds on Asio's epoll reactor can do without: its own operation, embedded in
/// its owner, which is started again after every event. No handler, executor, lock, cache or count.
template <int Hint>
class bare_operation final : public asio_peer<Hint> {
    using reactor = asio::detail::epoll_reactor;

public:
    explicit bare_operation(const workload& w)
        : asio_peer<Hint>(w), reactor_(asio::use_service<reactor>(context_)) {
        reactor_.init_task();
        for (unsigned i = 0; i != ring_.size(); ++i) {
            station& s = stations_.emplace_back(*this, i);
            expect(reactor_.register_descriptor(ring_.handle(i), s.data) == 0, "epoll_ctl");
            s.start();
        }
        if (ring_.chatter() != -1)
            expect(reactor_.register_descriptor(ring_.chatter(), chatter_) == 0, "epoll_ctl");
        this->settle();
    }
    ~bare_operation() override {
        for (station& s : stations_)
            leave(ring_.handle(s.i), s.data);
        if (ring_.chatter() != -1)
            leave(ring_.chatter(), chatter_);
    }

private:
    using asio_peer<Hint>::context_;
    using asio_peer<Hint>::ring_;

    struct station final : asio::detail::reactor_op {
        bare_operation& self;
        unsigned i;
        reactor::per_descriptor_data data{};
        bool is_new = true; // the reactor asks at once whether a new handle is ready

        station(bare_operation& owner, unsigned index)
            : reactor_op(error_code(), &station::perform, &station::complete), self(owner),
              i(index) {}

        void start() {
            self.reactor_.start_op(reactor::read_op, self.ring_.handle(i), data, this, false, true);
        }

        static status perform(reactor_op* op) {
            return std::exchange(static_cast<station*>(op)->is_new, false) ? not_done
                                                                           : done_and_exhausted;
        }

        static void complete(void* owner, asio::detail::scheduler_operation* op, const error_code&,
                             std::size_t) {
            if (!owner)
                return;
            station* s = static_cast<station*>(op);
            s->self.ring_.take(s->i);
            s->self.pass_on(s->i);
            s->start();
        }
    };

    /// Drops the operation.
    void leave(int fd, reactor::per_descriptor_data& data) {
        reactor_.deregister_internal_descriptor(fd, data);
        reactor_.cleanup_descriptor_data(data);
    }

    reactor& reactor_;
    std::deque<station> stations_;
    reactor::per_descriptor_data chatter_{};
};

/// moor::registration::async_wait_readable, then a read.
template <class Executor, int Hint, moor::trigger Trigger, second_read Second>
class moor_wait final : public asio_peer<Hint> {
public:
    explicit moor_wait(const workload& w) : asio_peer<Hint>(w) {
        registrations_.reserve(ring_.size());
        for (unsigned i = 0; i != ring_.size(); ++i)
            registrations_.emplace_back(context_.get_executor(), ring_.handle(i), Trigger);
        for (unsigned i = 0; i != ring_.size(); ++i)
            wait(i);
        if (ring_.chatter() != -1) {
            chatter_.register_handle(ring_.chatter(), Trigger);
            chatter_.async_wait_readable(&this->check);
        }
        this->settle();
    }

private:
    using asio_peer<Hint>::context_;
    using asio_peer<Hint>::ring_;
    using registration = moor::basic_registration<Executor>;

    struct on_ready {
        moor_wait* self;
        unsigned i;

        void operator()(const error_code& ec) const {
            self->check(ec);
            self->ring_.take(i);
            if (Second == second_read::yes)
                self->ring_.drain(i);
            self->pass_on(i);
            self->wait(i);
        }
    };

    void wait(unsigned i) { registrations_[i].async_wait_readable(on_ready{this, i}); }

    std::vector<registration> registrations_;
    registration chatter_{context_.get_executor()};
};

/// moor::registration::async_io.
template <class Executor, int Hint, moor::trigger Trigger, second_read Second>
class moor_io final : public asio_peer<Hint> {
public:
    explicit moor_io(const workload& w) : asio_peer<Hint>(w) {
        registrations_.reserve(ring_.size());
        for (unsigned i = 0; i != ring_.size(); ++i)
            registrations_.emplace_back(context_.get_executor(), ring_.handle(i), Trigger);
        for (unsigned i = 0; i != ring_.size(); ++i)
            read(i);
        if (ring_.chatter() != -1) {
            chatter_.register_handle(ring_.chatter(), Trigger);
            chatter_.async_wait_readable(&this->check);
        }
        this->settle();
    }

private:
    using asio_peer<Hint>::context_;
    using asio_peer<Hint>::ring_;
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
            self->check(ec);
            self->ring_.arrived(n);
            self->pass_on(i);
            self->read(i);
        }
    };

    void read(unsigned i) {
        registrations_[i].async_io(moor::interest::readable,
                                   reader{ring_.handle(i), ring_.buffer(i)}, on_read{this, i});
    }

    std::vector<registration> registrations_;
    registration chatter_{context_.get_executor()};
};

// ---- a wait on a handle that is ready already

/// `Repeater`: starts a wait on the handle that it was given.
template <class Repeater>
class ready final : public peer {
public:
    ready() { pipe_.put(); }

    void run(std::uint64_t times) override {
        left_ = times;
        context_.restart();
        again();
        context_.run();
        expect(left_ == 0, "the waits have stopped");
    }

private:
    struct on_ready {
        ready* self;

        template <class... Ignored>
        void operator()(const error_code& ec, const Ignored&...) const {
            expect(!ec, "wait");
            if (--self->left_ != 0)
                self->again();
        }
    };

    void again() { repeater_.start(on_ready{this}); }

    pipe_pair pipe_;
    asio::io_context context_;
    Repeater repeater_{context_, pipe_.in};
    std::uint64_t left_ = 0;
};

template <class Executor>
struct asio_repeater {
    lent_descriptor<Executor> d;

    asio_repeater(asio::io_context& context, int fd) : d(context.get_executor(), fd) {}
    template <class Handler>
    void start(Handler handler) {
        d.async_wait(asio::posix::descriptor_base::wait_read, std::move(handler));
    }
};

/// A level-triggered wait: asks the kernel each time.
template <class Executor>
struct moor_repeater {
    moor::basic_registration<Executor> r;

    moor_repeater(asio::io_context& context, int fd) : r(context.get_executor(), fd) {}
    template <class Handler>
    void start(Handler handler) {
        r.async_wait_readable(std::move(handler));
    }
};

/// An async_io whose callable makes no call: what the cache answers by itself.
template <class Executor>
struct moor_cached_repeater {
    moor::basic_registration<Executor> r;

    moor_cached_repeater(asio::io_context& context, int fd) : r(context.get_executor(), fd) {}
    template <class Handler>
    void start(Handler handler) {
        r.async_io(
            moor::interest::readable, [](error_code&) {}, std::move(handler));
    }
};

// ---- register, wait once, deregister

/// One read and one write a turn, whether the byte comes before the wait or after it.
template <class Churner>
class churn final : public peer {
public:
    explicit churn(bool parked) : parked_(parked) {}

    void run(std::uint64_t times) override {
        left_ = times;
        context_.restart();
        turn();
        context_.run();
        expect(left_ == 0, "the churn has stopped");
    }

private:
    struct on_ready {
        churn* self;

        void operator()(const error_code& ec) const {
            expect(!ec, "wait");
            self->pipe_.take();
            self->churner_.close();
            if (--self->left_ != 0)
                self->turn();
        }
    };

    void turn() {
        if (!parked_)
            pipe_.put();
        churner_.open(pipe_.in);
        churner_.wait(on_ready{this});
        if (parked_)
            pipe_.put();
    }

    pipe_pair pipe_;
    bool parked_;
    asio::io_context context_;
    Churner churner_{context_};
    std::uint64_t left_ = 0;
};

template <class Executor>
struct asio_churner {
    asio::posix::basic_stream_descriptor<Executor> d;

    explicit asio_churner(asio::io_context& context) : d(context.get_executor()) {}
    void open(int fd) { d.assign(fd); }
    void close() { d.release(); }
    template <class Handler>
    void wait(Handler handler) {
        d.async_wait(asio::posix::descriptor_base::wait_read, std::move(handler));
    }
};

template <class Executor, moor::trigger Trigger>
struct moor_churner {
    moor::basic_registration<Executor> r;

    explicit moor_churner(asio::io_context& context) : r(context.get_executor()) {}
    void open(int fd) { r.register_handle(fd, Trigger); }
    void close() { r.deregister(); }
    template <class Handler>
    void wait(Handler handler) {
        r.async_wait_readable(std::move(handler));
    }
};

// ---- by workload

namespace detail {

/// The ring, and perhaps (void: not) the repeated wait and the churn.
template <class Ring, class Repeater, class Churner>
std::unique_ptr<peer> make(const workload& w) {
    if (w.is_ring())
        return w.threads > 1 && Ring::one_thread ? nullptr : std::make_unique<Ring>(w);
    if (w.what == workload::kind::ready) {
        if constexpr (!std::is_void<Repeater>::value)
            return std::make_unique<ready<Repeater>>();
    } else if constexpr (!std::is_void<Churner>::value) {
        return std::make_unique<churn<Churner>>(w.what == workload::kind::churn_parked);
    }
    return nullptr;
}

template <class Executor, int Hint>
void add_waits(std::vector<peer_entry>& v, const std::string& suffix) {
    using moor::trigger;
    constexpr second_read once = second_read::no;
    v.push_back(
        {"asio_wait" + suffix,
         &make<asio_wait<Executor, Hint>, asio_repeater<Executor>, asio_churner<Executor>>});
    v.push_back({"moor_edge" + suffix,
                 &make<moor_wait<Executor, Hint, trigger::edge, once>,
                       moor_cached_repeater<Executor>, moor_churner<Executor, trigger::edge>>});
    v.push_back({"moor_level" + suffix,
                 &make<moor_wait<Executor, Hint, trigger::level, once>, moor_repeater<Executor>,
                       moor_churner<Executor, trigger::level>>});
}

template <class Executor, int Hint>
void add_others(std::vector<peer_entry>& v, const std::string& suffix) {
    using moor::trigger;
    constexpr second_read once = second_read::no, twice = second_read::yes;
    if (suffix.empty())
        v.push_back({"asio_bare", &make<bare_operation<Hint>, void, void>});
    v.push_back({"asio_read_some" + suffix, &make<asio_read_some<Executor, Hint>, void, void>});
    v.push_back({"moor_edge_drain" + suffix,
                 &make<moor_wait<Executor, Hint, trigger::edge, twice>, void, void>});
    v.push_back(
        {"moor_edge_io" + suffix, &make<moor_io<Executor, Hint, trigger::edge, once>, void, void>});
    v.push_back({"moor_level_io" + suffix,
                 &make<moor_io<Executor, Hint, trigger::level, once>, void, void>});
    v.push_back({"moor_level_io_drain" + suffix,
                 &make<moor_io<Executor, Hint, trigger::level, twice>, void, void>});
}

} // namespace detail

/// Those who run in an io_context. The suffixes: "@ioc" says that io_context::executor_type takes
/// the place of the default, any_io_executor; "@1" and "@unsafe" are concurrency hints.
inline void add_asio_peers(std::vector<peer_entry>& v) {
    using any = asio::any_io_executor;
    using ioc = asio::io_context::executor_type;
    constexpr int safe = BOOST_ASIO_CONCURRENCY_HINT_SAFE;
    detail::add_waits<any, safe>(v, "");
    detail::add_others<any, safe>(v, "");
    detail::add_waits<ioc, safe>(v, "@ioc");
    detail::add_others<ioc, safe>(v, "@ioc");
    detail::add_waits<any, 1>(v, "@1");
    detail::add_waits<any, BOOST_ASIO_CONCURRENCY_HINT_UNSAFE>(v, "@unsafe");
}

} // namespace bench

#endif // MOOR_BENCH_PEERS_HPP
