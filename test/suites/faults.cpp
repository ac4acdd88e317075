// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Every call fails. Each scenario below is run once to count the calls, and then once for each
// call, each error of the call's manual page, and each n: the n-th call fails. Allocations fail in
// the same way, and each handler, waker and callable throws. Afterwards nothing has leaked, nothing
// hangs, each operation has completed once or was destroyed, with the injected error or one that is
// documented, and all else works: the registration beside it, the same registration, and the same
// handle registered again.
//
// each_call() has the calls of Moor, and of Asio's reactors those whose result Asio checks. Not
// there, since Asio ignores the result:
//
//   call                            consequence of a failure
//   epoll_ctl(DEL)                  none: it fails if the number is not in the set, as was wanted
//   epoll_ctl(ADD) of the eventfd   a thread that sleeps in the loop is not woken by another one
//   and its MOD; write(2) to it
//   read(2) of the eventfd          the loop is woken once more
//   epoll_ctl(ADD) of the timerfd,  Asio's timers are late; Moor has none
//   timerfd_settime
//   io_uring_submit, for a          the request goes with the next one that is submitted, and run()
//   cancellation                    does not return before: so that is made in conclude()
//   io_uring_submit, in the         the destructor waits for the request for ever: left out
//   destructor of the context
//
// Asio also ignores the result of epoll_ctl(MOD) when a reader is started beside a priority
// operation. That call fails here: the reader misses nothing.
//
// Asio throws if the child of a fork can't be registered again: the context can be destroyed, and
// no more is checked. Asio answers a failing eventfd(2) with pipe(2), whose failure would be a
// second one. io_uring_get_sqe() is inline, and fails only with 16,384 requests in the ring.

#include "support/faults.hpp"

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/loop_thread.hpp"
#include "support/pty.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/system_error.hpp>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <exception>
#include <future>
#include <new>
#include <optional>
#include <ostream>
#include <thread>
#include <utility>
#include <vector>

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::call;
using test::error_code;
using test::fd_pair;
using test::own_calls;

// ---- what fails ---------------------------------------------------------------------------------

/// Of the manual page, what the kernel can answer to a call with valid pointers.
struct failing_call {
    call which;
    std::vector<int> errors;
};

const std::vector<failing_call>& each_call() {
    static const std::vector<failing_call> all = {
        {call::allocation, {ENOMEM}},
        {call::poll, {EINTR, EINVAL, ENOMEM}},
        {call::fstat, {EBADF, ENOMEM, EOVERFLOW}},
        {call::fstatfs, {EBADF, EINTR, EIO, ENOMEM, ENOSYS, EOVERFLOW}},
        {call::readlink, {EACCES, EINVAL, EIO, ELOOP, ENOENT, ENOMEM, ENOTDIR}},
        {call::isatty, {EBADF, EINVAL, EIO, ENOTTY}},
        {call::getsockopt, {EBADF, EINVAL, ENOPROTOOPT, ENOTSOCK}},
        {call::fcntl, {EBADF}},
        {call::fcntl_dup, {EBADF, EINVAL, EMFILE}},
        {call::ioctl, {EBADF, EINVAL, ENOTTY}},
        {call::open, {EACCES, EINTR, EMFILE, ENFILE, ENODEV, ENOENT, ENOMEM, ENXIO, EPERM}},
        {call::dup3, {EBADF, EBUSY, EINTR, EINVAL, EMFILE}},
        {call::close, {EDQUOT, EINTR, EIO, ENOSPC}},
        {call::epoll_create1, {EMFILE, ENFILE, ENOMEM}},
        {call::epoll_add, {EBADF, EEXIST, EINVAL, ELOOP, ENOMEM, ENOSPC, EPERM}},
        {call::epoll_mod, {EBADF, EINVAL, ENOENT, ENOMEM}},
        {call::epoll_wait, {EINTR}},
        {call::select, {EBADF, EINTR, EINVAL, ENOMEM}},
        {call::eventfd, {EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM}},
        {call::timerfd_create, {EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM, EPERM}},
        {call::read, {EAGAIN, EBADF, EINTR, EINVAL, EIO, EISDIR}},
        {call::readv, {EAGAIN, EBADF, EINTR, EINVAL, EIO, EISDIR}},
        {call::preadv2, {EAGAIN, EBADF, EINTR, EINVAL, EIO, EISDIR, ENOSYS, EOPNOTSUPP}},
        {call::recv, {EAGAIN, EBADF, ECONNREFUSED, EINTR, EINVAL, ENOMEM, ENOTCONN, ENOTSOCK}},
        {call::recvmsg, {EAGAIN, EBADF, ECONNREFUSED, EINTR, EINVAL, ENOMEM, ENOTCONN, ENOTSOCK}},
        {call::write, {EAGAIN, EBADF, EDQUOT, EFBIG, EINTR, EINVAL, EIO, ENOSPC, EPERM, EPIPE}},
        {call::writev, {EAGAIN, EBADF, EDQUOT, EFBIG, EINTR, EINVAL, EIO, ENOSPC, EPERM, EPIPE}},
        {call::pwritev2, {EAGAIN, EBADF, EFBIG, EINTR, EIO, ENOSPC, ENOSYS, EOPNOTSUPP, EPIPE}},
        {call::send, {EACCES, EAGAIN, EBADF, ECONNRESET, EINTR, EMSGSIZE, ENOBUFS, ENOMEM, EPIPE}},
        {call::sendmsg,
         {EACCES, EAGAIN, EBADF, ECONNRESET, EINTR, EMSGSIZE, ENOBUFS, ENOMEM, EPIPE}},
        {call::uring_queue_init, {EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM}},
        {call::uring_submit, {EAGAIN, EBUSY, EINTR}},
        {call::uring_get_cqe, {EAGAIN, EINTR}},
        {call::uring_poll, {EBADF, EINVAL}},
    };
    return all;
}

bool is_transfer(call c) { return c >= call::read && c <= call::sendmsg; }

/// What goes wrong in a run.
struct mishap {
    call which = call::count;
    int error = 0;
    long n = 0;             // from 1
    std::size_t throws = 0; // which handler, from 1

    friend std::ostream& operator<<(std::ostream& os, const mishap& m) {
        if (m.throws != 0)
            return os << "handler " << m.throws << " throws";
        if (m.n == 0)
            return os << "nothing fails";
        return os << test::name_of(m.which) << " no. " << m.n << " fails with "
                  << error_code(m.error, asio::error::get_system_category()).message();
    }
};

/// What a handler throws.
struct thrown {};

// ---- a run of a scenario ------------------------------------------------------------------------

class stage;

struct scenario {
    const char* name;
    fd_pair (*make)();
    void (*play)(stage&);
    bool is_open = true;     // the context is there, and the handle registered
    bool has_trigger = true; // it matters which
    void (*prepare)(stage&) = nullptr;
};

/// An operation: how it ended, perhaps on another thread.
struct record {
    std::atomic<int> times{0};
    std::atomic<int> alive{0}; // copies of its handler
    std::atomic<bool> threw{false};
    error_code ec; // once it is over

    bool is_over() const { return times != 0 || alive == 0; }
};

class stage {
public:
    stage(test::tally& t, const scenario& s, moor::trigger m, const mishap& what)
        : mode(m), tally_(t), scenario_(s), mishap_(what), p(s.make()), q(test::make_socketpair()) {
    }

    const moor::trigger mode;

private:
    test::tally& tally_;
    const scenario& scenario_;
    const mishap& mishap_;

public:
    fd_pair p, q;           // p.a is waited for
    test::unique_fd source; // from which what p.b writes is read, if not from p.a
    std::optional<asio::io_context> io;
    std::optional<moor::registration> reg, other; // of p.a and q.a
    std::optional<moor::stream_descriptor> stream;
    std::optional<test::loop_thread> thread; // which runs the loop
    std::optional<test::fault> fails;
    error_code documented; // what an operation of the scenario may be told anyway

    template <class... Parts>
    bool check(bool holds, const Parts&... parts) {
        own_calls mine;
        return tally_.check(holds, scenario_.name, ", ", test::name_of(mode), ", ", mishap_, ": ",
                            parts...);
    }

    // ---- steps of a scenario --------------------------------------------------------------------

    /// What the test does itself.
    template <class F>
    void own(F f) {
        own_calls mine;
        f();
    }

    /// What may throw. False: it did.
    template <class F>
    bool does(F f) {
        try {
            f();
            return true;
        } catch (const boost::system::system_error& e) {
            check(is_right(e.code()), "throws ", e.code());
        } catch (const std::bad_alloc&) {
            check(lacks_memory(), "throws bad_alloc");
        } catch (const thrown&) {}
        return false;
    }

    /// Starts an operation.
    template <class F>
    record& start(F f) {
        record& r = records_.at(used_++);
        r.threw = !does([&] { f(handler(*this, r)); });
        return r;
    }
    record& wait(interest want) {
        return start([&](auto h) { registration().async_wait(want, h); });
    }

    /// Nothing is there. (If a wait has failed at its event, the event is news to the next
    /// edge-triggered wait. A wait on a file that tells changes once may complete without one.)
    void pends(const record& r) {
        run();
        const bool has_news = (has_failed_ && mode == moor::trigger::edge) || source >= 0;
        check(r.times == 0 || r.ec || has_news || is_said_to_be_ready(), "completes for nothing");
    }

    /// Something is there now. (If a call was made to say that it would block, it comes again: the
    /// call's lie hides the first event.)
    template <class Cause, class Again>
    void ends(const record& r, Cause cause, Again again) {
        own(cause);
        if (fails && is_transfer(mishap_.which) && mishap_.error == EAGAIN) {
            comes([&] { return r.is_over() || fails->happened() != 0; });
            own(again);
        }
        ends(r);
    }
    template <class Cause>
    void ends(const record& r, Cause cause) {
        ends(r, cause, cause);
    }
    void ends(const record& r) {
        check(comes([&] { return r.is_over(); }), "hangs");
    }
    template <class Done>
    bool comes(Done done) {
        return tally_.comes_by([&] { run(); }, done);
    }

    /// Runs what is ready.
    void run() {
        const long failed = tally_.failed();
        for (;;)
            try {
                tally_.run_ready(*io);
                check(tally_.failed() == failed, "fails in the loop");
                return;
            } catch (const thrown&) {
            } catch (const std::exception& e) {
                check(false, e.what(), " comes out of the loop");
            }
    }

    /// Code of the user's is being run.
    void user_code(record& r) {
        if (++user_calls_ == mishap_.throws) {
            r.threw = true;
            throw thrown();
        }
    }
    std::size_t user_calls() const { return user_calls_; }

    /// epoll says that the file can't be polled.
    bool is_said_to_be_ready() const {
        return mishap_.which == call::epoll_add && mishap_.error == EPERM;
    }
    bool lacks_memory() const { return mishap_.which == call::allocation; }

    moor::registration& registration() { return stream ? stream->registration() : *reg; }

    // ---- the frame ------------------------------------------------------------------------------

    /// The registration beside it, and that of the scenario.
    void open() {
        io.emplace();
        other.emplace(*io, q.a.get());
        reg.emplace(*io, p.a.get(), mode);
        beside_ = &wait_beside();
        run();
    }

    void play() { scenario_.play(*this); }

    /// Afterwards, when nothing fails any more.
    void conclude() {
        thread.reset();
        if (io && documented != test::gone) {
            if (beside_) {
                ends(*beside_, [&] { test::put(q.b, "x"); });
                test::drain(q.a);
                record& again = wait_beside();
                ends(again, [&] { test::put(q.b, "x"); });
                check(!again.ec && again.times == 1, "the other registration ends with ", again.ec);
            }
            if (stream)
                close_stream();
            else if (reg)
                register_again();
        }
        stream.reset();
        if (is_owned)
            p.a.release();
        reg.reset();
        other.reset();
        if (io) {
            if (mishap_.which == call::uring_submit) { // takes what was left in the ring along
                asio::steady_timer timer(*io, std::chrono::seconds(0));
                timer.async_wait([](error_code) {});
                run();
            }
            run();
            check(has_no_work(), "work is left over");
        }
        io.reset();
        for (std::size_t i = 0; i != used_; ++i) {
            const record& r = records_[i];
            check(r.alive == 0, "a handler is left over");
            check(r.times == 1 || (r.times == 0 && (r.threw || is_destroyed)), "operation ", i,
                  " completes ", r.times, " times");
            check(is_right(r.ec), "operation ", i, " ends with ", r.ec);
        }
    }

    bool is_destroyed = false; // what was pending went with the context
    bool is_owned = false;     // the stream closes p.a

    int readable_end() const { return source < 0 ? p.a.get() : source.get(); }

private:
    class handler {
    public:
        handler(stage& s, record& r) : stage_(s), record_(r) { ++record_.alive; }
        handler(const handler& h) : stage_(h.stage_), record_(h.record_) { ++record_.alive; }
        ~handler() { --record_.alive; }
        handler& operator=(const handler&) = delete;

        template <class... More>
        void operator()(error_code ec, const More&...) const {
            record_.ec = ec;
            stage_.has_failed_ = stage_.has_failed_ || ec;
            ++record_.times;
            stage_.user_code(record_);
        }
        /// As a waker.
        void operator()() const { (*this)(error_code()); }
        /// Unless the waker was kept.
        template <class Answer>
        void polled(const Answer& answer) const {
            const error_code ec = answer.has_error() ? answer.error() : error_code();
            if (ec != test::would_block)
                (*this)(ec);
        }
        record& what() const { return record_; }

    private:
        stage& stage_;
        record& record_;
    };

    record& wait_beside() {
        return start([&](auto h) { other->async_wait_readable(h); });
    }

    bool is_right(const error_code& ec) const {
        const error_code injected(mishap_.error, asio::error::get_system_category());
        if (!ec || ec == test::aborted || ec == documented ||
            (mishap_.error != 0 && ec == injected))
            return true;
        switch (mishap_.error) {
        case EEXIST:
            return ec == test::registered_elsewhere;
        case ENOENT:
            return ec == test::bad_descriptor;
        case EINVAL: // the limit is lower than the lowest number that Moor asks for
            return mishap_.which == call::fcntl_dup &&
                   ec == error_code(asio::error::no_descriptors);
        case EPERM:
            return ec == error_code(asio::error::operation_not_supported);
        }
        return false;
    }

    bool has_no_work() {
        auto stops = [&] {
            io->restart();
            io->poll();
            return io->stopped();
        };
#if defined(MOOR_CHECK_USE) // its thread may just have asked for a turn of the loop
        return tally_.comes_by([] {}, stops);
#else
        return stops();
#endif
    }

    void works(const char* which) {
        test::drain(readable_end());
        const bool reads = test::can_be_read(p.a);
        record& r = wait(reads ? interest::readable : interest::writable);
        ends(r, [&] {
            if (!reads)
                test::drain(p.b);
            else if (p.b >= 0)
                (void)!::write(p.b, "x", 1); // unless it is at its end
        });
        check(r.times == 1 && !r.ec, which, " ends with ", r.ec);
    }

    void register_again() {
        error_code ec;
        if (reg->native_handle() != p.a)
            reg->reset(p.a, mode, ec);
        check(!ec, "can't be registered: ", ec);
        works("the registration");
        reg->deregister(ec);
        check(!ec, "can't be deregistered: ", ec);
        reg->register_handle(p.a, mode, ec);
        check(!ec, "can't be registered again: ", ec);
        works("the next registration");
    }

    void close_stream() {
        if (stream->is_open())
            works("the stream");
        error_code ec;
        stream->close(ec);
        check(!ec, "can't be closed: ", ec);
    }

    std::array<record, 24> records_;
    std::size_t used_ = 0;
    std::atomic<std::size_t> user_calls_{0};
    std::atomic<bool> has_failed_{false}; // some operation
    record* beside_ = nullptr;
};

struct result {
    long happened = 0; // how often the call failed
    std::size_t user_calls = 0;
};

/// Plays it. The first time, what is made once in a program is no leak.
result play(test::tally& t, const scenario& s, moor::trigger mode, const mishap& m,
            bool is_first = false) {
    std::optional<own_calls> mine(std::in_place);
    result r;
    const long descriptors = test::open_descriptors();
    const long live = test::live_allocations();
    const long failed = t.failed();
    {
        stage st(t, s, mode, m);
        if (s.is_open)
            st.open();
        if (s.prepare)
            s.prepare(st);
        if (m.n != 0)
            st.fails.emplace(m.which, m.error, m.n, 1);
        mine.reset();
        s.play(st);
        mine.emplace();
        r.happened = st.fails ? st.fails->happened() : 0;
        st.fails.reset();
        st.conclude();
        r.user_calls = st.user_calls();
    }
    t.check(test::open_descriptors() == descriptors, s.name, ", ", m,
            ": descriptors are left over");
    if (t.failed() == failed && !is_first)
        t.check(test::live_allocations() == live, s.name, ", ", m, ": memory is left over");
    return r;
}

// ---- the scenarios ------------------------------------------------------------------------------

fd_pair sockets() { return test::make_socketpair(); }
fd_pair full_sockets() {
    fd_pair p = test::make_socketpair();
    test::fill(p.a);
    return p;
}
fd_pair pipe_to_write() { return test::swapped(test::make_pipe()); }
fd_pair full_pipe() {
    fd_pair p = pipe_to_write();
    test::fill(p.a);
    return p;
}
fd_pair terminal() { return test::swapped(test::make_raw_pty()); }
fd_pair file() { return {test::unique_fd(::memfd_create("moor", MFD_CLOEXEC)), {}}; }
fd_pair mounts() {
    return {test::unique_fd(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)), {}};
}
fd_pair fifo_to_write() { return test::swapped(test::make_fifo()); }

struct put {
    stage& s;
    void operator()() const { test::put(s.p.b, "x"); }
};
struct drain {
    stage& s;
    void operator()() const { test::drain(s.p.b); }
};
/// An event of a handle that has room already.
struct drain_again {
    stage& s;
    void operator()() const {
        test::fill(s.p.a);
        test::drain(s.p.b);
    }
};

/// Two waits: the first one attaches the handle.
template <class Cause, class Undo>
void wait_twice(stage& s, interest want, Cause cause, Undo undo) {
    for (int round = 0; round != 2; ++round) {
        record& r = s.wait(want);
        s.pends(r);
        s.ends(r, cause);
        s.own(undo);
    }
}

void waits_to_read(stage& s) {
    wait_twice(s, interest::readable, put{s}, [&] { test::drain(s.readable_end()); });
}
void waits_to_write(stage& s) {
    wait_twice(s, interest::writable, drain{s}, [&] { test::fill(s.p.a); });
}
void waits_for_priority(stage& s) {
    wait_twice(
        s, interest::priority, [&] { (void)!::send(s.p.b, "!", 1, MSG_OOB); },
        [&] {
            char c;
            (void)!::recv(s.p.a, &c, 1, MSG_OOB);
            test::drain(s.p.a);
        });
}
template <class Cause>
void wait_for_end(stage& s, interest want, Cause cause) {
    record& r = s.wait(want);
    s.pends(r);
    s.ends(r, cause);
    s.ends(s.wait(want)); // a state, which is told again
}
void waits_for_read_closed(stage& s) {
    wait_for_end(s, interest::read_closed, [&] { ::shutdown(s.p.b, SHUT_WR); });
}
void waits_for_write_closed(stage& s) {
    wait_for_end(s, interest::write_closed, [&] { s.p.b.close(); });
}
void waits_for_error(stage& s) {
    wait_for_end(s, interest::error, [&] { s.p.b.close(); });
}
/// On io_uring, a writer's request would complete for the end of reading from then on: the writer
/// is told by the edge-triggered set, which is made at the event.
void waits_to_write_beside_the_end(stage& s) {
    record& write = s.wait(interest::writable);
    record& read = s.wait(interest::readable);
    s.pends(write);
    s.pends(read);
    s.ends(read, [&] { ::shutdown(s.p.b, SHUT_WR); });
    s.ends(write, drain{s});
}
void waits_for_several(stage& s) {
    wait_twice(s, interest::readable | interest::priority | interest::read_closed, put{s},
               [&] { test::drain(s.p.a); });
}

/// Several operations of each kind pend, and are cancelled.
void cancels(stage& s) {
    record& read = s.wait(interest::readable);
    record& write = s.wait(interest::writable);
    record& several = s.wait(interest::priority | interest::read_closed);
    record& call = s.start([&](auto h) {
        s.reg->async_io(
            interest::readable, [](error_code& ec) { ec = test::would_block; }, h);
    });
    s.run();
    s.reg->cancel(moor::direction::write);
    s.ends(write);
    s.reg->cancel();
    for (record* r : {&read, &several, &call})
        s.ends(*r);
}

void begin_all(stage& s, record* (&all)[3]) {
    all[0] = &s.wait(interest::readable);
    all[1] = &s.wait(interest::writable);
    all[2] = &s.wait(interest::priority | interest::readable);
    s.run();
}
template <class End>
void end_all(stage& s, End end) {
    record* all[3];
    begin_all(s, all);
    s.does(end);
    for (record* r : all)
        s.ends(*r);
}

void deregisters(stage& s) {
    end_all(s, [&] { s.reg->deregister(); });
}
void abandons(stage& s) {
    end_all(s, [&] { s.reg->abandon(); });
    s.does([&] { s.reg->register_handle(s.p.a, s.mode); }); // which epoll has still
    if (!s.reg->is_registered())
        return;
    record& r = s.wait(interest::writable);
    s.ends(r, drain{s});
    if (r.ec == test::registered_elsewhere && s.lacks_memory()) { // to note the number
        s.documented = r.ec;
        s.own([&] { s.p = full_sockets(); });
    }
}
void resets(stage& s) {
    fd_pair old;
    end_all(s, [&] {
        s.own([&] {
            old = std::move(s.p);
            s.p = full_sockets();
        });
        s.reg->reset(s.p.a, s.mode);
    });
    s.own([&] { old = fd_pair(); });
}
void renews(stage& s) {
    end_all(s, [&] {
        // The number is another file's.
        s.own([&] { s.p = test::reuse_number(s.p.a, test::make_socketpair()); });
        s.reg->renew(s.p.a, s.mode);
    });
}
void closes_number(stage& s) {
    record& first = s.wait(interest::readable);
    s.run();
    s.documented = test::bad_descriptor;
    s.own([&] { s.p.a.close(); });
    record& second = s.wait(interest::readable);
    s.run();
    s.reg->abandon();
    s.ends(first);
    s.ends(second);
    s.own([&] { s.p = test::make_socketpair(); });
}
void closes_service(stage& s) {
    end_all(s, [&] {
        s.documented = test::gone;
        moor::use_registration_service(*s.io).close();
    });
}
void destroys_context(stage& s) {
    record* all[3];
    begin_all(s, all);
    s.is_destroyed = true;
    s.io.reset();
    for (record* r : all)
        s.check(r->alive == 0, "a handler lives longer than the context");
    s.reg->deregister();
}

/// From Boost 1.87 on, the constructor of an io_context that fails leaves memory behind.
void makes_its_context(stage& s) {
    if (BOOST_ASIO_VERSION >= 103400)
        s.io.emplace();
}
/// The first registration of a context: the reactor is made.
void uses_a_new_context(stage& s) {
    auto registers = [&] { s.reg.emplace(*s.io, s.p.a.get(), s.mode); };
    if ((s.io || s.does([&] { s.io.emplace(); })) && (s.does(registers) || s.does(registers)))
        waits_to_read(s);
}

void registers(stage& s) {
    s.reg->deregister();
    if (s.does([&] { s.reg->register_handle(s.p.a, s.mode); }))
        waits_to_read(s);
}

void forks(stage& s) {
    if (test::on_io_uring())
        return; // the child hears nothing of what was pending
    record& several = s.wait(interest::priority | interest::read_closed);
    record& read = s.wait(interest::readable);
    s.run();
    // This process is its own child. A context that can't be forked can only be destroyed.
    if (!s.does([&] {
            s.io->notify_fork(asio::execution_context::fork_prepare);
            s.io->notify_fork(asio::execution_context::fork_child);
        })) {
        s.is_destroyed = true;
        s.io.reset();
        return;
    }
    s.ends(read, put{s});
    s.own([&] { test::drain(s.p.a); });
    s.ends(several, [&] { ::shutdown(s.p.b, SHUT_WR); });
}

// ---- calls and transfers ------------------------------------------------------------------------

/// A call of the user's, which does not fail.
auto peek(stage& s, record& r) {
    return [&s, &r](error_code& ec) {
        own_calls mine;
        s.user_code(r);
        char c;
        if (::recv(s.p.a, &c, 1, 0) < 0)
            ec = test::last_error();
        return 1;
    };
}

void calls(stage& s) {
    for (int round = 0; round != 2; ++round) {
        record none;
        s.does([&] { (void)s.reg->try_io(interest::readable, peek(s, none)); });
        record* own = nullptr;
        record& r = s.start([&](auto h) {
            own = &h.what();
            s.reg->async_io(interest::readable, peek(s, *own), h);
        });
        s.pends(r);
        s.ends(r, put{s});
        s.own([&] { test::drain(s.p.a); });
    }
}

/// The polling interface: a waker is woken, and the call is made again.
void polls(stage& s) {
    for (int round = 0; round != 2; ++round) {
        record& ready = s.start([&](auto h) {
            auto answer = s.reg->poll_read_ready(h);
            h.polled(answer);
        });
        record& call = s.start([&](auto h) {
            auto answer = s.reg->poll_write_io(h, [](error_code& ec) { ec = test::would_block; });
            h.polled(answer);
        });
        s.run();
        s.ends(ready, put{s});
        s.ends(call, drain{s});
        s.own([&] {
            test::drain(s.p.a);
            test::fill(s.p.a);
        });
    }
}

/// The checks of a busy loop are deferred, and made together.
void defers(stage& s) {
    // Only a loop that has been busy defers.
    s.own([&] {
        for (int i = 0; i != 80; ++i) {
            asio::post(*s.io, [&] {
                s.reg->async_wait_readable([](error_code) {});
                s.reg->cancel();
            });
            s.run();
        }
    });
    record *a = nullptr, *b = nullptr;
    s.does([&] {
        asio::post(*s.io, [&] {
            a = &s.wait(interest::readable);
            b = &s.start([&](auto h) { s.reg->async_wait_writable(h); });
        });
    });
    s.run();
    if (a)
        s.ends(*a, put{s});
    if (b)
        s.ends(*b, drain{s});
}

void read_and_write(stage& s) {
    test::watched_transfers watched(s.p.a);
    char a[4], b[4];
    const std::array<asio::mutable_buffer, 2> two{asio::buffer(a), asio::buffer(b)};
    const std::array<asio::const_buffer, 2> parts{asio::buffer("a", 1), asio::buffer("b", 1)};
    bool reads = false, writes = false;
    s.own([&] {
        reads = test::can_be_read(s.p.a);
        writes = test::can_be_written(s.p.a);
    });
    if (reads) {
        record& one = s.start([&](auto h) { s.stream->async_read_some(asio::buffer(a), h); });
        s.pends(one);
        s.ends(one, put{s});
        s.own([&] { test::drain(s.p.a); });
        record& several = s.start([&](auto h) { s.stream->async_read_some(two, h); });
        s.pends(several);
        s.ends(several, put{s});
        s.own([&] { test::drain(s.p.a); });
    }
    if (writes) {
        record& one = s.start([&](auto h) { s.stream->async_write_some(asio::buffer("x", 1), h); });
        s.ends(one, drain{s}, drain_again{s});
        record& several = s.start([&](auto h) { s.stream->async_write_some(parts, h); });
        s.ends(several, drain{s}, drain_again{s});
    }
}

void own_stream(stage& s) {
    s.own([&] { s.reg->deregister(); });
    s.is_owned = s.does([&] { s.stream.emplace(*s.io, s.p.a.get()); });
}

void reads_and_writes(stage& s) {
    own_stream(s);
    if (s.stream)
        read_and_write(s);
}
void reads_and_writes_borrowed(stage& s) {
    s.own([&] { s.reg->deregister(); });
    if (s.does([&] { s.stream.emplace(*s.io, moor::borrow(s.p.a.get())); }))
        read_and_write(s);
}
template <class End>
void end_stream(stage& s, End end) {
    char c;
    own_stream(s);
    if (!s.stream)
        return;
    record& r = s.start([&](auto h) { s.stream->async_read_some(asio::buffer(&c, 1), h); });
    s.pends(r);
    s.does(end);
    s.ends(r);
}
void closes_stream(stage& s) {
    end_stream(s, [&] { s.stream->close(); });
}
void releases_stream(stage& s) {
    end_stream(s, [&] {
        s.is_owned = false;
        s.stream->release();
    });
    if (!s.is_owned)
        s.own([&] { s.stream.reset(); });
}

/// poll(2) tells each change of the file once, for all that Moor knows of an epoll set.
void waits_on_a_set(stage& s) {
    fd_pair old;
    s.own([&] {
        fd_pair in_set = test::make_pipe();
        ::epoll_event e{};
        e.events = EPOLLIN;
        test::unique_fd set(::epoll_create1(EPOLL_CLOEXEC));
        BOOST_REQUIRE_EQUAL(::epoll_ctl(set, EPOLL_CTL_ADD, in_set.a, &e), 0);
        old = std::move(s.p);
        s.source = std::move(in_set.a);
        s.p.a = std::move(set);
        s.p.b = std::move(in_set.b);
    });
    if (s.does([&] { s.reg->reset(s.p.a, s.mode); }))
        waits_to_read(s);
    s.own([&] { old = fd_pair(); });
}

/// A file that is always readable.
void waits_on_a_file(stage& s) {
    s.reg->deregister();
    if (!s.does([&] { s.reg->register_handle(s.p.a, s.mode); }))
        return;
    s.ends(s.wait(interest::readable));
    s.documented = asio::error::operation_not_supported; // by a file that can't be polled
    record& r = s.wait(interest::priority | interest::write_closed);
    s.run();
    s.reg->cancel();
    s.ends(r);
}

const std::vector<scenario>& each_scenario() {
    static const std::vector<scenario> all = {
        {"the first registration of a context", sockets, uses_a_new_context, false, true,
         makes_its_context},
        {"registering", sockets, registers},
        {"waits for reading", sockets, waits_to_read},
        {"waits for reading, TCP", test::make_tcp_pair, waits_to_read},
        {"waits for reading, pipe", test::make_pipe, waits_to_read},
        {"waits for reading, terminal", terminal, waits_to_read},
        {"waits for writing", full_sockets, waits_to_write},
        {"waits for writing, pipe", full_pipe, waits_to_write},
        {"waits for priority", test::make_tcp_pair, waits_for_priority},
        {"waits for an error", full_pipe, waits_for_error},
        {"waits for the end of reading", sockets, waits_for_read_closed},
        {"waits for the end of writing", sockets, waits_for_write_closed},
        {"waits for writing, beside the end of reading", full_sockets,
         waits_to_write_beside_the_end},
        {"waits for several events", test::make_tcp_pair, waits_for_several},
        {"waits on an epoll set", sockets, waits_on_a_set},
        {"waits on a file", file, waits_on_a_file},
        {"waits on a file of /proc", mounts, waits_on_a_file},
        {"calls", sockets, calls},
        {"the polling interface", full_sockets, polls},
        {"deferred checks", full_sockets, defers},
        {"cancelling", full_sockets, cancels},
        {"deregistering", full_sockets, deregisters},
        {"abandoning", full_sockets, abandons},
        {"resetting", full_sockets, resets},
        {"renewing", full_sockets, renews},
        {"a closed number", sockets, closes_number},
        {"closing the service", full_sockets, closes_service},
        {"destroying the context", full_sockets, destroys_context},
        {"a fork", sockets, forks},
        {"a stream", full_sockets, reads_and_writes, true, false},
        {"a stream, pipe to read", test::make_pipe, reads_and_writes, true, false},
        {"a stream, pipe to write", full_pipe, reads_and_writes, true, false},
        {"a stream, terminal", terminal, reads_and_writes, true, false},
        {"a borrowed stream", full_sockets, reads_and_writes_borrowed, true, false},
        {"a borrowed stream, pipe to read", test::make_pipe, reads_and_writes_borrowed, true,
         false},
        {"a borrowed stream, pipe to write", full_pipe, reads_and_writes_borrowed, true, false},
        {"a borrowed stream, named pipe to read", test::make_fifo, reads_and_writes_borrowed, true,
         false},
        {"a borrowed stream, named pipe to write", fifo_to_write, reads_and_writes_borrowed, true,
         false},
        {"a borrowed stream, terminal", terminal, reads_and_writes_borrowed, true, false},
        {"closing a stream", sockets, closes_stream, true, false},
        {"releasing a stream", sockets, releases_stream, true, false},
    };
    return all;
}

// ---- a second thread ----------------------------------------------------------------------------

/// The thread has fetched an event that a wait was pending for, and is held.
void hold_an_event(stage& s) {
    s.wait(interest::readable);
    s.run();
    s.thread.emplace(*s.io);
    s.check(s.thread->fetches([&] { test::put(s.p.b, "x"); }), "nothing is fetched");
}
/// Something is done meanwhile; then the thread goes on, and the last wait is for another byte.
template <class Do>
void do_meanwhile(stage& s, Do what) {
    s.does(what);
    s.own([&] { test::drain(s.p.a); });
    record* last = nullptr;
    s.does([&] {
        if (!s.reg->is_registered())
            s.reg->register_handle(s.p.a, s.mode);
        last = &s.wait(interest::readable);
    });
    s.own([&] {
        s.thread->let_go();
        s.thread->settles();
        if (last)
            s.check(last->times == 0 || last->ec || s.mode == moor::trigger::edge ||
                        s.is_said_to_be_ready(),
                    "is told of the past");
        test::put(s.p.b, "x");
        if (last)
            s.check(test::wait_for([&] { return last->is_over(); }), "hangs");
    });
}
void waits_meanwhile(stage& s) {
    do_meanwhile(s, [] {});
}
void cancels_meanwhile(stage& s) {
    do_meanwhile(s, [&] { s.reg->cancel(); });
}
void deregisters_meanwhile(stage& s) {
    do_meanwhile(s, [&] { s.reg->deregister(); });
}
void renews_meanwhile(stage& s) {
    do_meanwhile(s, [&] {
        s.own([&] { s.p = test::reuse_number(s.p.a, test::make_socketpair()); });
        s.reg->renew(s.p.a, s.mode);
    });
}

const std::vector<scenario>& each_scenario_with_a_thread() {
    static const std::vector<scenario> all = {
        {"a wait beside a held event", sockets, waits_meanwhile, true, true, hold_an_event},
        {"cancelling beside a held event", sockets, cancels_meanwhile, true, true, hold_an_event},
        {"deregistering beside a held event", sockets, deregisters_meanwhile, true, true,
         hold_an_event},
        {"renewing beside a held event", sockets, renews_meanwhile, true, true, hold_an_event},
    };
    return all;
}

template <class F>
void for_each_scenario(const std::vector<scenario>& all, F f) {
    for (const scenario& s : all)
        for (moor::trigger mode : test::both_triggers)
            if (s.has_trigger || mode == moor::trigger::level)
                f(s, mode);
}

/// Has each of the n-th calls fail in turn; returns how many failed.
long fail_each(test::tally& t, const scenario& s, moor::trigger mode, const failing_call& f) {
    long failures = 0;
    if (f.which == call::uring_submit && s.play == destroys_context)
        return 0; // in its shutdown Asio waits for the results of requests that were not submitted
    for (int error : f.errors)
        for (long n = 1;; ++n) {
            if (play(t, s, mode, {f.which, error, n, 0}).happened == 0)
                break;
            ++failures;
            BOOST_REQUIRE_LT(n, 1000);
        }
    return failures;
}

/// Whether the scenarios lead to this call on this backend.
bool is_made(call c) {
    switch (c) {
    case call::allocation:
#if defined(MOOR_TEST_SANITIZED_NEW)
        return false;
#else
        return true;
#endif
    case call::getsockopt: // where Asio tells what completed a request
        return test::on_io_uring() && BOOST_ASIO_VERSION >= 102700;
    case call::timerfd_create:
        return test::on_epoll();
    case call::epoll_mod:
    case call::eventfd:
        return !test::on_io_uring();
    case call::dup3:
    case call::select:
        return test::on_select();
    default:
        return c < call::uring_queue_init || test::on_io_uring();
    }
}

/// Reports how often each call has failed.
void fail_all(const std::vector<scenario>& scenarios, bool has_all_calls) {
    test::tally t;
    std::vector<long> failures(each_call().size());
    for_each_scenario(scenarios, [&](const scenario& s, moor::trigger mode) {
        play(t, s, mode, {}, true);
        std::vector<long> before;
        for (const failing_call& f : each_call())
            before.push_back(test::calls_of(f.which));
        play(t, s, mode, {});
        std::vector<bool> is_called;
        for (std::size_t i = 0; i != before.size(); ++i)
            is_called.push_back(test::calls_of(each_call()[i].which) != before[i]);
        for (std::size_t i = 0; i != before.size(); ++i)
            if (is_called[i])
                failures[i] += fail_each(t, s, mode, each_call()[i]);
    });
    long total = 0;
    for (std::size_t i = 0; i != failures.size(); ++i) {
        const call c = each_call()[i].which;
        t.check(!has_all_calls || failures[i] != 0 || !is_made(c), test::name_of(c),
                " was not made");
        BOOST_TEST_MESSAGE(test::name_of(c) << ": " << failures[i] << " failures");
        total += failures[i];
    }
    BOOST_TEST_MESSAGE("all: " << total << " failures");
}

} // namespace

/// What is written to an end is an error.
struct no_signals {
    no_signals() { ::signal(SIGPIPE, SIG_IGN); }
    ~no_signals() { ::signal(SIGPIPE, SIG_DFL); }
};

BOOST_AUTO_TEST_SUITE(faults, *boost::unit_test::fixture<no_signals>())

BOOST_AUTO_TEST_CASE(each_call_fails_in_each_way) { fail_all(each_scenario(), true); }

BOOST_AUTO_TEST_CASE(each_call_fails_while_another_thread_holds_an_event) {
    fail_all(each_scenario_with_a_thread(), false);
}

BOOST_AUTO_TEST_CASE(each_handler_throws) {
    test::tally t;
    std::size_t total = 0;
    for_each_scenario(each_scenario(), [&](const scenario& s, moor::trigger mode) {
        std::size_t handlers = play(t, s, mode, {}, true).user_calls;
        for (std::size_t n = 1; n <= handlers; ++n)
            play(t, s, mode, {call::count, 0, 0, n});
        total += handlers;
    });
    BOOST_TEST_MESSAGE(total << " handlers throw");
}

/// On epoll, the first writer changes the handle's entry. While that fails, nothing is known of
/// room.
BOOST_AUTO_TEST_CASE(a_wait_after_one_that_could_not_be_armed_completes_for_its_event) {
    for (moor::trigger mode : test::both_triggers) {
        asio::io_context io;
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        moor::registration r(io, p.a, mode);
        test::outcome reader, failed, later;
        r.async_wait_readable(reader.handler());
        test::run_ready(io);
        {
            test::fault no_memory(call::epoll_mod, ENOMEM);
            r.async_wait_writable(failed.handler());
            test::run_ready(io);
            BOOST_TEST((failed.ec() == std::errc::not_enough_memory) ==
                       (no_memory.happened() != 0));
        }
        r.async_wait_writable(later.handler());
        test::run_ready(io);
        BOOST_TEST(later.times() == 0);
        test::drain(p.b);
        test::run_ready(io);
        BOOST_TEST(later.times() == 1);
        r.deregister();
        test::run_ready(io);
    }
}

BOOST_AUTO_TEST_CASE(a_lock_is_taken_although_waiting_for_it_fails) {
    for (int error : {EAGAIN, EINTR}) {
        moor::detail::state_mutex mutex;
        std::promise<void> is_locked;
        std::atomic<bool> has_lock{false};
        test::fault failing(call::futex, error, 1, 3);
        std::thread other([&] {
            is_locked.get_future().wait();
            mutex.lock();
            has_lock = true;
            mutex.unlock();
        });
        mutex.lock(); // not before there are two threads
        is_locked.set_value();
        BOOST_TEST(test::wait_for([&] { return failing.happened() == 3; }));
        BOOST_TEST(!has_lock);
        mutex.unlock();
        other.join();
        BOOST_TEST(has_lock);
    }
}

BOOST_AUTO_TEST_SUITE_END()
