//
// test/bench/competitors/asio.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The competitors that run in an io_context: Asio's and Moor's operations, on the backend that this
// file is compiled for.
//

#include "../ring.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/detail/concurrency_hint.hpp>
#include <boost/asio/detail/config.hpp>
#include <boost/asio/detail/reactor.hpp>
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

#include <poll.h>
#include <unistd.h>

#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
#include <boost/asio/detail/io_uring_operation.hpp>
#include <boost/asio/detail/io_uring_service.hpp>
#endif

namespace bench {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// ---- a ring in an io_context

/// The common part. A wait is pending on each handle, so the context never runs out of work; the
/// last round trip stops it. `Hint`: the context's concurrency hint.
template <int Hint>
class asio_competitor : public competitor {
public:
    explicit asio_competitor(const workload& w) : ring_(w), threads_(w.threads) {}

    /// The other hints promise a single thread.
    static constexpr bool one_thread = Hint != BOOST_ASIO_CONCURRENCY_HINT_SAFE;

    void run(std::uint64_t round_trips) override {
        ring_.start(round_trips);
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

    /// Each wait is pending before the bytes are sent off.
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

/// A descriptor of Asio's that does not own its handle.
template <class Executor>
class non_owning_descriptor : public asio::posix::basic_stream_descriptor<Executor> {
    using base = asio::posix::basic_stream_descriptor<Executor>;

public:
    using base::base;
    non_owning_descriptor(non_owning_descriptor&&) = default;
    ~non_owning_descriptor() {
        if (this->is_open())
            this->release();
    }
};

/// posix::descriptor::async_wait, then a read.
template <class Executor, int Hint, second_read Second>
class asio_wait final : public asio_competitor<Hint> {
public:
    explicit asio_wait(const workload& w) : asio_competitor<Hint>(w) {
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
    using asio_competitor<Hint>::context_;
    using asio_competitor<Hint>::ring_;
    using descriptor = non_owning_descriptor<Executor>;

    struct on_ready {
        asio_wait* self;
        unsigned i;

        void operator()(const error_code& ec) const {
            self->check(ec);
            if (self->ring_.try_take(i)) { // with several threads, the event may be a stale one
                if (Second == second_read::yes)
                    self->ring_.drain(i);
                self->pass_on(i);
            }
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
class asio_read_some final : public asio_competitor<Hint> {
public:
    explicit asio_read_some(const workload& w) : asio_competitor<Hint>(w) {
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
    using asio_competitor<Hint>::context_;
    using asio_competitor<Hint>::ring_;
    using descriptor = non_owning_descriptor<Executor>;

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

/// Asio's own operation, embedded in its owner, and started again after each event: the least that
/// a wait in Asio's reactor costs. No handler, executor, lock, cache or count.
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)

struct bare_io : asio::detail::io_uring_operation {
    using service = asio::detail::io_uring_service;

    bare_io(int fd, func_type on_event)
        : io_uring_operation(error_code(), &bare_io::prepare, &bare_io::perform, on_event),
          handle(fd) {}

    void open(service& s) { s.register_io_object(data); }
    void start(service& s) { s.start_op(service::read_op, data, this, false); }

    static void prepare(io_uring_operation* op, ::io_uring_sqe* sqe) {
        ::io_uring_prep_poll_add(sqe, static_cast<bare_io*>(op)->handle, POLLIN);
    }
    static bool perform(io_uring_operation*, bool after_completion) { return after_completion; }

    int handle;
    service::per_io_object_data data{};
};

#else

struct bare_io : asio::detail::reactor_op {
    using service = asio::detail::reactor;

    bare_io(int fd, func_type on_event)
        : reactor_op(error_code(), &bare_io::perform, on_event), handle(fd) {}

    void open(service& s) { expect(s.register_descriptor(handle, data) == 0, "registration"); }
    void start(service& s) { s.start_op(service::read_op, handle, data, this, false, true); }

    static status perform(reactor_op* op) {
        return std::exchange(static_cast<bare_io*>(op)->is_new, false) ? not_done
                                                                       : done_and_exhausted;
    }

    int handle;
    service::per_descriptor_data data{};
#if defined(BOOST_ASIO_HAS_EPOLL)
    bool is_new = true; // the reactor asks at once whether a new handle is ready
#else
    bool is_new = false;
#endif
};

#endif

struct bare_station final : bare_io {
    template <class OnEvent>
    bare_station(void* self, unsigned index, int fd, OnEvent on_event)
        : bare_io(fd, on_event), owner(self), i(index) {}

    void* owner;
    unsigned i;
};

/// The context destroys pending operations, so the operations are destroyed after the context.
struct bare_stations {
    std::deque<bare_station> stations;
};

template <int Hint>
class bare_operation final : bare_stations, public asio_competitor<Hint> {
    using service = bare_io::service;

public:
    explicit bare_operation(const workload& w)
        : asio_competitor<Hint>(w), service_(asio::use_service<service>(context_)) {
        service_.init_task();
        for (unsigned i = 0; i != ring_.size(); ++i)
            add(i, ring_.handle(i)).start(service_);
        if (ring_.chatter() != -1)
            add(ring_.size(), ring_.chatter());
        this->settle();
    }

private:
    using asio_competitor<Hint>::context_;
    using asio_competitor<Hint>::ring_;

    bare_station& add(unsigned i, int fd) {
        bare_station& s = stations.emplace_back(this, i, fd, &complete);
        s.open(service_);
        return s;
    }

    static void complete(void* owner, asio::detail::scheduler_operation* op, const error_code&,
                         std::size_t) {
        if (!owner)
            return;
        auto* s = static_cast<bare_station*>(op);
        auto* self = static_cast<bare_operation*>(s->owner);
        self->ring_.take(s->i);
        self->pass_on(s->i);
        s->start(self->service_);
    }

    service& service_;
};

/// moor::registration::async_wait_readable, then a read.
template <class Executor, int Hint, moor::trigger Trigger, second_read Second>
class moor_wait final : public asio_competitor<Hint> {
public:
    explicit moor_wait(const workload& w) : asio_competitor<Hint>(w) {
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
    using asio_competitor<Hint>::context_;
    using asio_competitor<Hint>::ring_;
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
class moor_io final : public asio_competitor<Hint> {
public:
    explicit moor_io(const workload& w) : asio_competitor<Hint>(w) {
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
    using asio_competitor<Hint>::context_;
    using asio_competitor<Hint>::ring_;
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
class ready final : public competitor {
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
    non_owning_descriptor<Executor> d;

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

/// An async_io whose callable makes no call: the cache alone answers.
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
class churn final : public competitor {
public:
    explicit churn(bool pending) : pending_(pending) {}

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
        if (!pending_)
            pipe_.put();
        churner_.open(pipe_.in);
        churner_.wait(on_ready{this});
        if (pending_)
            pipe_.put();
    }

    pipe_pair pipe_;
    bool pending_;
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

/// The ring, and (void: not) the repeated wait and the churn.
template <class Ring, class Repeater = void, class Churner = void>
std::unique_ptr<competitor> make(const workload& w) {
    if (w.is_ring())
        return w.threads > 1 && Ring::one_thread ? nullptr : std::make_unique<Ring>(w);
    if (w.what == workload::kind::ready) {
        if constexpr (!std::is_void<Repeater>::value)
            return std::make_unique<ready<Repeater>>();
    } else if constexpr (!std::is_void<Churner>::value) {
        return std::make_unique<churn<Churner>>(w.what == workload::kind::churn_pending);
    }
    return nullptr;
}

template <class Executor, int Hint>
std::vector<entry> waits(const std::string& suffix) {
    using moor::trigger;
    constexpr second_read once = second_read::no;
    return {
        {"asio_wait" + suffix,
         &make<asio_wait<Executor, Hint, once>, asio_repeater<Executor>, asio_churner<Executor>>},
        {"moor_edge" + suffix,
         &make<moor_wait<Executor, Hint, trigger::edge, once>, moor_cached_repeater<Executor>,
               moor_churner<Executor, trigger::edge>>},
        {"moor_level" + suffix,
         &make<moor_wait<Executor, Hint, trigger::level, once>, moor_repeater<Executor>,
               moor_churner<Executor, trigger::level>>}};
}

template <class Executor, int Hint>
std::vector<entry> others() {
    using moor::trigger;
    constexpr second_read once = second_read::no, twice = second_read::yes;
    return {{"asio_bare", &make<bare_operation<Hint>>},
            {"asio_wait_drain", &make<asio_wait<Executor, Hint, twice>>},
            {"asio_read_some", &make<asio_read_some<Executor, Hint>>},
            {"moor_edge_drain", &make<moor_wait<Executor, Hint, trigger::edge, twice>>},
            {"moor_edge_io", &make<moor_io<Executor, Hint, trigger::edge, once>>},
            {"moor_level_io", &make<moor_io<Executor, Hint, trigger::level, once>>},
            {"moor_level_io_drain", &make<moor_io<Executor, Hint, trigger::level, twice>>}};
}

using any = asio::any_io_executor;
constexpr int safe = BOOST_ASIO_CONCURRENCY_HINT_SAFE;

const added default_waits(waits<any, safe>(""));
const added default_others(others<any, safe>());

// "@ioc": io_context::executor_type takes the place of the default, any_io_executor. "@1" and
// "@unsafe" are concurrency hints. The backend makes no difference to these.
#if defined(BOOST_ASIO_HAS_EPOLL)
const added ioc_waits(waits<asio::io_context::executor_type, safe>("@ioc"));
const added hint_1(waits<any, 1>("@1"));
const added hint_unsafe(waits<any, BOOST_ASIO_CONCURRENCY_HINT_UNSAFE>("@unsafe"));
#endif

} // namespace
} // namespace bench
