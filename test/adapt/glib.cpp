// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for GLib: sources, GIO, and GDBus with a private dbus-daemon, which servers.sh
// starts.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/quiet.hpp"
#include "support/servers.hpp"
#include "support/vocabulary.hpp"

#include <moor/adapt/glib.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/descriptor_base.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gio/gio.h>
#include <gio/gunixinputstream.h>
#include <gio/gunixoutputstream.h>
#include <glib-unix.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(glib)

namespace {

namespace asio = boost::asio;
using moor::adapt::basic_glib_guest;
using moor::adapt::glib_acquire;
using moor::adapt::glib_guest;
using test::control_server;
using test::error_code;
using test::variable;
using namespace std::chrono_literals;

const error_code is_busy = make_error_code(boost::system::errc::device_or_resource_busy);

struct unref {
    void operator()(GSource* s) const { g_source_unref(s); }
    void operator()(GMainContext* c) const { g_main_context_unref(c); }
    void operator()(GMainLoop* l) const { g_main_loop_unref(l); }
    void operator()(GVariant* v) const { g_variant_unref(v); }
    void operator()(void* object) const { g_object_unref(object); }
};
template <class T>
using handle = std::unique_ptr<T, unref>;

/// The callback of a source: whether the source stays.
using callback = std::function<bool()>;

gboolean call(gpointer p) { return (*static_cast<callback*>(p))() ? TRUE : FALSE; }
gboolean call_fd(gint, GIOCondition, gpointer p) { return call(p); }
void forget(gpointer p) { delete static_cast<callback*>(p); }

/// Attaches a source.
handle<GSource> attach(GMainContext* c, GSource* s, callback f, int priority = G_PRIORITY_DEFAULT) {
    g_source_set_callback(s, &call, new callback(std::move(f)), &forget);
    g_source_set_priority(s, priority);
    g_source_attach(s, c);
    return handle<GSource>(s);
}
handle<GSource> attach_idle(GMainContext* c, callback f, int priority = G_PRIORITY_DEFAULT_IDLE) {
    return attach(c, g_idle_source_new(), std::move(f), priority);
}
handle<GSource> attach_timeout(GMainContext* c, guint ms, callback f) {
    return attach(c, g_timeout_source_new(ms), std::move(f));
}
handle<GSource> attach_fd(GMainContext* c, int fd, GIOCondition events, callback f,
                          int priority = G_PRIORITY_DEFAULT) {
    GSource* s = g_unix_fd_source_new(fd, events);
    g_source_set_callback(s, reinterpret_cast<GSourceFunc>(reinterpret_cast<void (*)()>(&call_fd)),
                          new callback(std::move(f)), &forget);
    g_source_set_priority(s, priority);
    g_source_attach(s, c);
    return handle<GSource>(s);
}
callback once(std::function<void()> f) {
    return [f = std::move(f)] {
        f();
        return false;
    };
}

handle<GMainContext> make_ownerless() {
    return handle<GMainContext>(
        g_main_context_new_with_flags(G_MAIN_CONTEXT_FLAGS_OWNERLESS_POLLING));
}

/// As test::run_until() and test::run_all(), but without run_one_until() and run_for(): on io_uring
/// with Boost 1.81, many calls of these corrupt memory (see also test::watchdog).
template <class Done>
void drive_until(asio::io_context& io, Done done) {
    const test::watchdog dog(io, 60s);
    while (!done()) {
        if (io.stopped())
            io.restart();
        const bool has_run = io.run_one() != 0 || done();
        BOOST_REQUIRE_MESSAGE(!dog.has_bitten(), "the cap was reached");
        BOOST_REQUIRE_MESSAGE(has_run, "the context ran out of work");
    }
}
void drive(asio::io_context& io) {
    const test::watchdog dog(io, 60s);
    io.restart();
    io.run();
    BOOST_REQUIRE_MESSAGE(!dog.has_bitten(), "the cap was reached");
}

/// A loop whose end leaves no descriptor behind.
struct counted_loop : test::context_fixture {
    counted_loop() { // the reactor's belong to the context
        moor::watcher w(io);
        asio::steady_timer t(io, 0s);
        t.async_wait([](error_code) {});
        drive(io);
        io.restart();
        g_main_context_default();
        g_object_unref(g_task_new(nullptr, nullptr, nullptr, nullptr)); // GLib's own thread
        descriptors = test::open_descriptors();
    }
    long descriptors;
};

/// A loop with a guest that runs.
struct running : counted_loop {
    std::optional<glib_guest> owner;
    glib_guest& guest;
    GMainContext* c;
    test::called done;

    running() : running(nullptr) {}
    explicit running(GMainContext* shared)
        : guest(shared ? owner.emplace(io, shared) : owner.emplace(io)), c(guest.native_handle()) {
        guest.async_run(done.handler());
    }
    ~running() {
        guest.stop();
        drive(io);
        BOOST_TEST(done.times == 1);
        BOOST_CHECK_EQUAL(done.ec, error_code());
        owner.reset();
        BOOST_TEST(test::open_descriptors() == descriptors);
    }

    template <class Done>
    void run_until(Done f) {
        drive_until(io, f);
    }
};

struct running_default : running {
    running_default() : running(g_main_context_default()) {}
};

} // namespace

// ---- running ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(sources_are_dispatched_until_the_guest_is_stopped, test::context_fixture) {
    glib_guest guest(io);
    BOOST_TEST(!guest.is_running());
    test::called done;
    test::fd_pair p = test::make_socketpair();
    int idles = 0, timeouts = 0, events = 0;
    attach_idle(guest.native_handle(), [&] { return ++idles != 3; });
    attach_timeout(guest.native_handle(), 2, [&] {
        test::put(p.b, "x");
        return ++timeouts != 3;
    });
    auto s = attach_fd(guest.native_handle(), p.a, G_IO_IN, [&] {
        BOOST_TEST(test::get(p.a) == "x");
        if (++events == 3)
            guest.stop();
        return true;
    });
    guest.async_run(done.handler());
    BOOST_TEST(guest.is_running());
    BOOST_TEST(idles == 0);
    drive(io); // returns, as the guest was stopped
    BOOST_TEST(!guest.is_running());
    BOOST_TEST(done.times == 1);
    BOOST_CHECK_EQUAL(done.ec, error_code());
    BOOST_TEST(idles == 3);
    BOOST_TEST(timeouts == 3);
    BOOST_TEST(events == 3);
    g_source_destroy(s.get());
    BOOST_TEST(!g_main_context_is_owner(guest.native_handle()));
}

BOOST_FIXTURE_TEST_CASE(a_guest_runs_again, test::context_fixture) {
    glib_guest guest(io);
    int n = 0;
    auto s = attach_timeout(guest.native_handle(), 1, [&] {
        ++n;
        guest.stop();
        return true;
    });
    for (int i = 1; i != 4; ++i) {
        test::called done;
        guest.async_run(done.handler());
        drive(io);
        BOOST_CHECK_EQUAL(done.ec, error_code());
        BOOST_TEST(n == i);
    }
    g_source_destroy(s.get());
    guest.stop(); // does nothing
}

BOOST_FIXTURE_TEST_CASE(a_callback_stops_the_guest_and_runs_it_again, test::context_fixture) {
    glib_guest guest(io);
    test::called first, second;
    int turns = 0, idles = 0;
    guest.async_run(first.handler());
    attach_idle(guest.native_handle(), [&] {
        if (++idles == 1) {
            guest.stop();
            guest.async_run(second.handler());
        }
        ++turns;
        return idles != 100;
    });
    // One dispatch a turn still: there is one chain of turns.
    int between = 0;
    std::function<void()> post = [&] {
        asio::post(io, [&] {
            ++between;
            if (idles != 100)
                post();
        });
    };
    post();
    drive_until(io, [&] { return idles == 100; });
    BOOST_TEST(between >= 95);
    BOOST_TEST(first.times == 1);
    BOOST_CHECK_EQUAL(first.ec, error_code());
    BOOST_TEST(second.times == 0);
    guest.stop();
    drive(io);
    BOOST_CHECK_EQUAL(second.ec, error_code());
}

BOOST_FIXTURE_TEST_CASE(a_run_is_cancelled, running) {
    glib_guest other(io);
    for (auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                      asio::cancellation_type::total})
        for (bool is_waiting : {false, true}) {
            asio::cancellation_signal signal;
            test::called cancelled;
            other.async_run(asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
            if (is_waiting)
                test::run_ready(io);
            signal.emit(type);
            BOOST_TEST(!other.is_running());
            run_until([&] { return bool(cancelled); });
            BOOST_CHECK_EQUAL(cancelled.ec, test::aborted);
        }
}

BOOST_FIXTURE_TEST_CASE(a_second_run_is_refused, running) {
    test::called second;
    guest.async_run(second.handler());
    BOOST_TEST(second.times == 0);
    run_until([&] { return bool(second); });
    BOOST_CHECK_EQUAL(second.ec, error_code(asio::error::already_started));
    BOOST_TEST(done.times == 0);
}

BOOST_FIXTURE_TEST_CASE(a_context_of_another_thread_is_refused, test::context_fixture) {
    for (auto how : {glib_acquire::while_running, glib_acquire::each_turn}) {
        const handle<GMainContext> c = make_ownerless();
        glib_guest guest(io, c.get(), how);
        std::promise<void> acquired, release;
        std::thread other([&] {
            g_main_context_acquire(c.get());
            acquired.set_value();
            release.get_future().wait();
            g_main_context_release(c.get());
        });
        acquired.get_future().wait();
        test::called done;
        guest.async_run(done.handler());
        drive(io);
        BOOST_CHECK_EQUAL(done.ec, is_busy);
        BOOST_CHECK_EXCEPTION(guest.call([] {}), boost::system::system_error,
                              [](const auto& e) { return e.code() == is_busy; });
        release.set_value();
        other.join();
        BOOST_TEST(guest.call([] { return 7; }) == 7);
        test::called again;
        attach_idle(c.get(), once([&] { guest.stop(); }));
        guest.async_run(again.handler());
        drive(io);
        BOOST_CHECK_EQUAL(again.ec, error_code());
    }
}

BOOST_FIXTURE_TEST_CASE(a_guest_that_keeps_its_context_has_one_thread, test::context_fixture) {
    glib_guest guest(io, nullptr);
    test::called done;
    guest.async_run(done.handler());
    std::thread([&] { test::run_ready(io); }).join();
    BOOST_TEST(done.times == 0);
    guest.touch();
    drive(io);
    BOOST_CHECK_EQUAL(done.ec, is_busy);
    test::called again;
    guest.async_run(again.handler());
    test::run_ready(io);
    BOOST_TEST(again.times == 0);
    guest.stop();
    drive(io);
}

// ---- the order of dispatch ----------------------------------------------------------------------

namespace {

/// Sources that log their dispatches, and change one another, always in the same way for a seed.
class world {
public:
    world(GMainContext* c, unsigned seed) : context_(c), random_(seed) {
        for (test::fd_pair& p : pairs_)
            p = test::make_socketpair();
        const unsigned n = 2 + below(10);
        for (unsigned i = 0; i != n; ++i)
            add();
    }
    world(const world&) = delete;
    world& operator=(const world&) = delete;
    ~world() {
        for (auto& s : sources_)
            g_source_destroy(s.get());
    }

    std::vector<int> log;

private:
    unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }

    void add() {
        const int id = static_cast<int>(sources_.size());
        const int priority = static_cast<int>(below(5)) * 50 - 100;
        const unsigned times = 1 + below(4);
        callback f = [this, id, n = times]() mutable {
            log.push_back(id);
            act();
            return --n != 0;
        };
        const std::size_t pair = below(4);
        switch (below(4)) {
        case 0:
            sources_.push_back(attach_idle(context_, std::move(f), priority));
            break;
        case 1:
            sources_.push_back(attach(context_, g_timeout_source_new(0), std::move(f), priority));
            break;
        case 2:
            sources_.push_back(
                attach_fd(context_, pairs_[pair].a, G_IO_IN, std::move(f), priority));
            break;
        default:
            sources_.push_back(attach_fd(context_, pairs_[pair].a, GIOCondition(G_IO_OUT | G_IO_IN),
                                         std::move(f), priority));
        }
        if (below(3) == 0)
            g_source_set_can_recurse(sources_.back().get(), TRUE);
    }

    GSource* any() { return sources_[below(static_cast<unsigned>(sources_.size()))].get(); }

    void act() {
        switch (below(8)) {
        case 0:
            test::put(pairs_[below(4)].b, "x");
            break;
        case 1: {
            char c;
            [[maybe_unused]] auto n = ::recv(pairs_[below(4)].a, &c, 1, MSG_DONTWAIT);
            break;
        }
        case 2:
            g_source_destroy(any());
            break;
        case 3: {
            GSource* const s = any();
            const int priority = static_cast<int>(below(5)) * 50 - 100;
            if (!g_source_is_destroyed(s))
                g_source_set_priority(s, priority);
            break;
        }
        case 4:
            if (sources_.size() < 40)
                add();
            break;
        case 5: {
            GSource* const s = any();
            if (!g_source_is_destroyed(s))
                g_source_set_ready_time(s, 0);
            break;
        }
        case 6:
            g_main_context_iteration(context_, FALSE); // nested
            break;
        default:
            break;
        }
    }

    GMainContext* context_;
    std::minstd_rand random_;
    std::array<test::fd_pair, 4> pairs_;
    std::vector<handle<GSource>> sources_;
};

} // namespace

BOOST_FIXTURE_TEST_CASE(the_order_of_dispatch_is_that_of_an_iteration, test::context_fixture) {
    std::size_t dispatched = 0;
    for (unsigned seed = 1; seed != 400; ++seed) {
        const handle<GMainContext> c(seed % 2 == 0 ? g_main_context_new()
                                                   : make_ownerless().release());
        std::vector<int> expected;
        bool is_at_rest = false;
        {
            const handle<GMainContext> alone(g_main_context_new());
            world w(alone.get(), seed);
            g_main_context_push_thread_default(alone.get());
            for (int i = 0; i != 200 && !is_at_rest; ++i)
                is_at_rest = !g_main_context_iteration(alone.get(), FALSE);
            g_main_context_pop_thread_default(alone.get());
            BOOST_REQUIRE(is_at_rest);
            expected = w.log;
        }
        glib_guest guest(io, c.get());
        world w(c.get(), seed);
        test::called done;
        guest.async_run(done.handler());
        BOOST_TEST_CONTEXT("seed " << seed) {
            drive_until(io, [&] { return w.log.size() >= expected.size(); });
            test::run_ready(io); // and no more
            BOOST_TEST(w.log == expected, boost::test_tools::per_element());
        }
        dispatched += expected.size();
        guest.stop();
        drive(io);
    }
    BOOST_TEST_MESSAGE(dispatched << " dispatches");
    BOOST_TEST(dispatched > 4000u);
}

// ---- fairness and wake-ups ----------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_idle_source_that_is_always_ready_leaves_the_loop_its_turns, running) {
    long idles = 0, handlers = 0, idles_then = 0;
    auto s = attach_idle(c, [&] {
        ++idles;
        return true;
    });
    std::function<void()> post = [&] {
        if (++handlers != 1000)
            asio::post(io, post);
        else
            idles_then = idles;
    };
    asio::post(io, post);
    test::called timer;
    asio::steady_timer t(io, 1ms);
    t.async_wait(timer.handler());
    test::fd_pair p = test::make_socketpair();
    moor::watcher w(io, p.a, [&](error_code, moor::readiness) { w.set_interest({}); });
    w.set_interest(moor::interest::readable);
    test::put(p.b, "x");
    run_until([&] { return timer && handlers == 1000 && w.get_interest().empty(); });
    BOOST_TEST(idles_then >= 900); // one for one
    BOOST_TEST(idles_then <= 1100);
    g_source_destroy(s.get());
}

BOOST_FIXTURE_TEST_CASE(sources_of_other_threads_wake_the_guest, test::context_fixture) {
    const handle<GMainContext> plain(g_main_context_new());
    for (GMainContext* shared :
         {static_cast<GMainContext*>(nullptr), plain.get(), g_main_context_default()}) {
        std::optional<glib_guest> guest;
        if (shared)
            guest.emplace(io, shared);
        else
            guest.emplace(io);
        GMainContext* const c = guest->native_handle();
        test::called done;
        guest->async_run(done.handler());
        for (int i = 0; i != 20; ++i) {
            test::run_ready(io); // the guest waits
            std::atomic<bool> is_called{false};
            handle<GSource> s;
            std::thread other([&] {
                s = i % 2 ? attach_idle(c, once([&] { is_called = true; }))
                          : attach_timeout(c, 1, once([&] { is_called = true; }));
            });
            drive_until(io, [&] { return bool(is_called); });
            other.join();
            // A time that another thread changes.
            std::atomic<bool> is_late{false};
            s = attach_timeout(c, 600000, once([&] { is_late = true; }));
            guest->touch();
            test::run_ready(io);
            std::thread changer([&] { g_source_set_ready_time(s.get(), 0); });
            drive_until(io, [&] { return bool(is_late); });
            changer.join();
        }
        guest->stop();
        drive(io);
        BOOST_TEST(done.times == 1);
        BOOST_TEST(!g_main_context_is_owner(c));
    }
}

// GLib's own thread tells of signals.
BOOST_FIXTURE_TEST_CASE(signals_and_ends_of_children_are_dispatched, test::context_fixture) {
    for (bool is_shared : {false, true}) {
        std::optional<glib_guest> guest;
        if (is_shared)
            guest.emplace(io, nullptr);
        else
            guest.emplace(io);
        GMainContext* const c = guest->native_handle();
        test::called done;
        guest->async_run(done.handler());
        int signals = 0, status = -1;
        handle<GSource> signal;
        guest->call([&] {
            signal = attach(c, g_unix_signal_source_new(SIGUSR1), [&] { return ++signals != 0; });
        });
        for (int i = 1; i != 4; ++i) {
            test::run_ready(io); // the guest waits
            BOOST_REQUIRE(::raise(SIGUSR1) == 0);
            drive_until(io, [&] { return signals == i; });
        }
        g_source_destroy(signal.get());
        const ::pid_t child = ::fork();
        BOOST_REQUIRE(child >= 0);
        if (child == 0)
            ::_exit(7);
        guest->call([&] {
            GSource* const s = g_child_watch_source_new(child);
            const auto on_end =
                +[](GPid, gint ended, gpointer to) { *static_cast<int*>(to) = ended; };
            g_source_set_callback(
                s, reinterpret_cast<GSourceFunc>(reinterpret_cast<void (*)()>(on_end)), &status,
                nullptr);
            g_source_attach(s, c);
            g_source_unref(s);
        });
        drive_until(io, [&] { return status != -1; });
        BOOST_TEST(WEXITSTATUS(status) == 7);
        guest->stop();
        drive(io);
    }
}

BOOST_FIXTURE_TEST_CASE(sources_of_a_handler_wake_the_guest_of_a_context_of_its_own, running) {
    for (int i = 0; i != 20; ++i) {
        test::run_ready(io);
        int calls = 0;
        attach_idle(c, once([&] { ++calls; }));
        run_until([&] { return calls == 1; });
        test::run_ready(io);
        attach_timeout(c, 1, once([&] { ++calls; }));
        run_until([&] { return calls == 2; });
        test::run_ready(io);
        test::fd_pair p = test::make_socketpair();
        auto s = attach_fd(c, p.a, G_IO_IN, once([&] { ++calls; }));
        test::run_ready(io);
        test::put(p.b, "x");
        run_until([&] { return calls == 3; });
    }
}

BOOST_FIXTURE_TEST_CASE(the_default_context_is_told_of_sources_of_a_handler, running_default) {
    test::run_ready(io);
    int calls = 0;
    callback f = once([&] { ++calls; });
    g_idle_add(&call, &f);
    test::run_ready(io);
    BOOST_TEST(calls == 0); // GLib's contract
    guest.touch();
    run_until([&] { return calls == 1; });
    test::run_ready(io);
    guest.call([&] {
        BOOST_TEST(!g_main_context_get_thread_default());
        g_timeout_add(1, &call, &f);
    });
    run_until([&] { return calls == 2; });
    test::run_ready(io);
    BOOST_TEST(calls == 2);
}

BOOST_FIXTURE_TEST_CASE(the_context_is_the_thread_default_one_in_callbacks_and_calls, running) {
    BOOST_TEST(!g_main_context_get_thread_default());
    bool is_default = false;
    attach_idle(c, once([&] { is_default = g_main_context_get_thread_default() == c; }));
    run_until([&] { return is_default; });
    guest.call([&] { BOOST_TEST(g_main_context_get_thread_default() == c); });
    BOOST_TEST(!g_main_context_get_thread_default());
    BOOST_CHECK_THROW(guest.call([] { throw 1; }), int);
    BOOST_TEST(!g_main_context_get_thread_default());
    BOOST_TEST(!g_main_context_is_owner(c));
    // The default context is that within a turn, too, whatever the program has set.
    guest.call([&] {
        glib_guest other(io, nullptr);
        test::called over;
        other.async_run(over.handler());
        bool is_null = false;
        callback f = once([&] { is_null = !g_main_context_get_thread_default(); });
        g_idle_add(&call, &f);
        run_until([&] { return is_null; });
        other.stop();
        run_until([&] { return bool(over); });
    });
}

BOOST_FIXTURE_TEST_CASE(a_guest_that_waits_costs_nothing, running_default) {
    struct counted : GSource {
        int prepared;
    };
    static GSourceFuncs functions{};
    functions.prepare = [](GSource* s, gint* timeout) -> gboolean {
        *timeout = -1;
        ++static_cast<counted*>(s)->prepared;
        return FALSE;
    };
    counted* const s = static_cast<counted*>(g_source_new(&functions, sizeof(counted)));
    s->prepared = 0;
    g_source_attach(s, c);
    guest.touch();
    test::fd_pair p = test::make_socketpair();
    int events = 0;
    auto fd = attach_fd(c, p.a, G_IO_IN, [&] {
        test::get(p.a);
        ++events;
        return true;
    });
    auto timeout = attach_timeout(c, 3600000, [] { return true; });
    for (int i = 1; i != 4; ++i) {
        test::put(p.b, "x");
        run_until([&] { return events == i; });
        test::run_ready(io);
        const int prepared = s->prepared;
        BOOST_TEST(prepared > 0);
        test::check_costs_nothing(io);
        BOOST_TEST(s->prepared == prepared);
    }
    g_source_destroy(fd.get());
    g_source_destroy(timeout.get());
    g_source_destroy(s);
    g_source_unref(s);
}

BOOST_FIXTURE_TEST_CASE(a_guest_alone_does_not_keep_the_loop_running, test::context_fixture) {
    glib_guest guest(io);
    int calls = 0;
    auto s = attach_idle(guest.native_handle(), [&] { return ++calls != 0; });
    drive(io);
    BOOST_TEST(calls == 0);
    test::called done;
    guest.async_run(done.handler());
    io.restart();
    for (int i = 0; i != 10; ++i)
        io.poll_one();
    BOOST_TEST(!io.stopped());
    guest.stop();
    drive(io);
    BOOST_TEST(calls > 0);
    g_source_destroy(s.get());
}

// ---- descriptors --------------------------------------------------------------------------------

namespace {

int make_eventfd() {
    const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    BOOST_REQUIRE(fd >= 0);
    return fd;
}
void signal_eventfd(int fd) {
    const std::uint64_t one = 1;
    BOOST_REQUIRE_EQUAL(::write(fd, &one, sizeof(one)), 8);
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_number_that_a_callback_closes_may_be_another_file_at_once, running) {
    // No fstat(2) tells one eventfd from the next.
    int number = make_eventfd(), events = 0;
    handle<GSource> s;
    callback on_event = [&] {
        ++events;
        const int before = number;
        ::close(number);
        number = make_eventfd();
        BOOST_REQUIRE_EQUAL(number, before);
        s = attach_fd(c, number, G_IO_IN, [&] { return on_event(); });
        return false;
    };
    s = attach_fd(c, number, G_IO_IN, [&] { return on_event(); });
    for (int i = 1; i != 100; ++i) {
        test::run_ready(io);
        BOOST_TEST(events == i - 1);
        signal_eventfd(number);
        run_until([&] { return events == i; });
    }
    g_source_destroy(s.get());
    ::close(number);
}

BOOST_FIXTURE_TEST_CASE(a_callback_gives_its_number_to_an_object_of_the_loop, running) {
    for (int i = 0; i != 20; ++i) {
        int number = make_eventfd(), events = 0;
        std::optional<moor::watcher> w;
        attach_fd(c, number, G_IO_IN, once([&] {
                      ::close(number);
                      BOOST_REQUIRE_EQUAL(make_eventfd(), number);
                      w.emplace(io, number, [&](error_code ec, moor::readiness) {
                          BOOST_CHECK_EQUAL(ec, error_code());
                          ++events;
                          w.reset();
                      });
                      w->set_interest(moor::interest::readable);
                  }));
        test::run_ready(io);
        signal_eventfd(number);
        run_until([&] { return w.has_value(); });
        test::run_ready(io);
        BOOST_TEST(events == 0);
        signal_eventfd(number);
        run_until([&] { return events == 1; });
        ::close(number);
    }
}

BOOST_FIXTURE_TEST_CASE(a_handler_closes_the_descriptor_of_a_source_that_is_waited_for, running) {
    for (int i = 0; i != 20; ++i) {
        int number = make_eventfd(), events = 0;
        auto s = attach_fd(c, number, G_IO_IN, [&] { return ++events != 0; });
        test::run_ready(io);
        g_source_destroy(s.get());
        ::close(number);
        BOOST_REQUIRE_EQUAL(make_eventfd(), number);
        s = attach_fd(c, number, G_IO_IN, once([&] { ++events; }));
        test::run_ready(io);
        BOOST_TEST(events == 0);
        signal_eventfd(number);
        run_until([&] { return events == 1; });
        ::close(number);
    }
}

// The end of the guest's registration must not be that of the object: both files are eventfds.
BOOST_FIXTURE_TEST_CASE(a_call_closes_a_descriptor_and_gives_its_number_to_an_object, running) {
    for (int i = 0; i != 20; ++i) {
        int number = make_eventfd();
        auto s = attach_fd(c, number, G_IO_IN, [] { return true; });
        test::run_ready(io);
        std::optional<asio::posix::stream_descriptor> d;
        guest.call([&] {
            g_source_destroy(s.get());
            ::close(number);
            BOOST_REQUIRE_EQUAL(make_eventfd(), number);
            d.emplace(io, number);
        });
        test::called ready;
        d->async_wait(asio::posix::descriptor_base::wait_read, ready.handler());
        test::run_ready(io);
        BOOST_TEST(!ready);
        signal_eventfd(number);
        run_until([&] { return bool(ready); });
        BOOST_CHECK_EQUAL(ready.ec, error_code());
    }
}

BOOST_FIXTURE_TEST_CASE(a_descriptor_in_several_sources_has_the_events_of_all, running) {
    test::fd_pair p = test::make_socketpair();
    std::string log;
    auto in = attach_fd(c, p.a, G_IO_IN, [&] {
        log += 'i';
        test::get(p.a);
        return true;
    });
    auto out = attach_fd(c, p.a, G_IO_OUT, [&] {
        log += 'o';
        return false;
    });
    auto both = attach_fd(
        c, p.a, GIOCondition(G_IO_IN | G_IO_HUP),
        [&] {
            log += 'b';
            return true;
        },
        -10);
    run_until([&] { return log == "o"; });
    test::run_ready(io);
    test::put(p.b, "x");
    run_until([&] { return log.size() >= 3; });
    BOOST_TEST(log.substr(0, 3) == "obb"); // until "in" has its turn, "both" is first: as in GLib
    g_source_destroy(both.get());
    run_until([&] { return log.back() == 'i'; });
    log.clear();
    for (int i = 0; i != 10; ++i) {
        test::put(p.b, "x");
        run_until([&] { return log.size() == std::size_t(i + 1); });
    }
    BOOST_TEST(log == "iiiiiiiiii");
    g_source_destroy(in.get());
}

BOOST_FIXTURE_TEST_CASE(regular_files_are_always_ready_and_closed_numbers_are_reported, running) {
    const test::unique_fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    int calls = 0;
    attach_fd(c, file, G_IO_IN, [&] { return ++calls != 3; });
    run_until([&] { return calls == 3; });
    // One whose events are empty is never ready, and no reason to turn again and again.
    auto none = attach_fd(c, file, GIOCondition(0), [&] { return ++calls != 0; });
    test::run_ready(io);
    test::check_is_quiet(io);
    BOOST_TEST(calls == 3);
    // Events arrive beside it.
    test::fd_pair p = test::make_socketpair();
    attach_fd(c, p.a, G_IO_IN, once([&] { calls = 0; }));
    test::run_ready(io);
    test::put(p.b, "x");
    run_until([&] { return calls == 0; });
    g_source_destroy(none.get());

    GIOCondition seen = GIOCondition(0);
    GSource* s = g_unix_fd_source_new(test::closed_number(), G_IO_IN);
    const auto note = +[](gint, GIOCondition events, gpointer to) -> gboolean {
        *static_cast<GIOCondition*>(to) = events;
        return FALSE;
    };
    g_source_set_callback(s, reinterpret_cast<GSourceFunc>(reinterpret_cast<void (*)()>(note)),
                          &seen, nullptr);
    g_source_attach(s, c);
    g_source_unref(s);
    run_until([&] { return seen != 0; });
    BOOST_TEST(seen == G_IO_NVAL);
}

BOOST_FIXTURE_TEST_CASE(a_hang_up_is_reported, running) {
    test::fd_pair p = test::make_pipe();
    int calls = 0;
    attach_fd(c, p.a, G_IO_HUP, once([&] { ++calls; }));
    test::run_ready(io);
    p.b.close();
    run_until([&] { return calls == 1; });
}

// ---- nested loops -------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_source_runs_a_nested_loop, running) {
    std::string log;
    auto ticks = attach_timeout(c, 1, [&] {
        if (log.size() < 3)
            log += 't';
        return true;
    });
    attach_idle(c, once([&] {
                    const handle<GMainLoop> loop(g_main_loop_new(c, FALSE));
                    attach_idle(c, [&] {
                        if (log.size() < 3)
                            return true;
                        g_main_loop_quit(loop.get());
                        return false;
                    });
                    g_main_loop_run(loop.get());
                    log += 'q';
                }));
    run_until([&] { return log.size() == 4; });
    BOOST_TEST(log == "tttq");
    g_source_destroy(ticks.get());
}

BOOST_FIXTURE_TEST_CASE(a_nested_loop_takes_what_the_guest_was_told_of, running_default) {
    for (int turns = 0; turns != 7; ++turns) {
        test::run_ready(io);
        int calls = 0;
        const handle<GMainLoop> loop(g_main_loop_new(c, FALSE));
        test::fd_pair p = test::make_socketpair();
        auto s = attach_fd(c, p.a, G_IO_IN, [&] {
            ++calls;
            BOOST_TEST(test::get(p.a) == "x"); // the guest passes nothing on that is old
            // The nested loop iterates once more, and so asks for the descriptors again.
            attach_idle(c, once([&] { g_main_loop_quit(loop.get()); }));
            return true;
        });
        guest.touch();
        test::run_ready(io);
        test::put(p.b, "x");
        for (int i = 0; i != turns && calls == 0; ++i)
            io.poll_one(); // the wait is over, and the turn is queued
        if (calls == 0)
            g_main_loop_run(loop.get());
        test::run_ready(io);
        BOOST_TEST(calls == 1);
        g_source_destroy(s.get());
    }
}

// The iterations take the wake-up, and what the guest waits for is old then.
BOOST_FIXTURE_TEST_CASE(sources_of_iterations_in_a_handler_are_noticed, counted_loop) {
    for (bool is_shared : {false, true}) {
        std::optional<glib_guest> guest;
        if (is_shared)
            guest.emplace(io, nullptr);
        else
            guest.emplace(io);
        GMainContext* const c = guest->native_handle();
        test::called done;
        guest->async_run(done.handler());
        test::run_ready(io); // the guest waits
        int calls = 0;
        guest->call([&] {
            bool is_over = false;
            attach_idle(c, once([&] {
                            attach_timeout(c, 100, once([&] { ++calls; }));
                            attach_idle(c, once([&] { is_over = true; }));
                        }));
            while (!is_over)
                g_main_context_iteration(c, FALSE);
        });
        drive_until(io, [&] { return calls == 1; });
        guest->stop();
        drive(io);
    }
}

BOOST_FIXTURE_TEST_CASE(a_source_runs_the_loop_of_the_guest, running) {
    int handlers = 0, idles = 0;
    attach_idle(c, once([&] {
                    attach_idle(c, once([&] { ++idles; }));
                    asio::post(io, [&] { ++handlers; });
                    io.poll();
                    guest.touch();
                    io.poll();
                    BOOST_TEST(handlers == 1);
                    BOOST_TEST(idles == 0); // the turn goes on
                }));
    run_until([&] { return idles == 1; });
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_guest_is_destroyed_in_a_callback, counted_loop) {
    for (bool is_nested : {false, true})
        for (bool is_shared : {false, true}) {
            test::called done;
            std::optional<glib_guest> guest;
            if (is_shared)
                guest.emplace(io, nullptr);
            else
                guest.emplace(io);
            GMainContext* const c = guest->native_handle();
            int calls = 0;
            callback destroy = once([&] {
                ++calls;
                guest.reset();
                BOOST_TEST(g_main_context_is_owner(c)); // until the turn is over
            });
            attach_idle(c, [&] {
                if (!is_nested)
                    return destroy();
                const handle<GMainLoop> loop(g_main_loop_new(c, FALSE));
                attach_idle(c, [&] {
                    destroy();
                    g_main_loop_quit(loop.get());
                    return false;
                });
                g_main_loop_run(loop.get());
                return false;
            });
            guest->async_run(done.handler());
            drive(io);
            BOOST_TEST(calls == 1);
            BOOST_TEST(done.times == 1);
            BOOST_CHECK_EQUAL(done.ec, test::aborted);
            BOOST_TEST(!g_main_context_is_owner(g_main_context_default()));
        }
    BOOST_TEST(test::open_descriptors() == descriptors);
}

BOOST_FIXTURE_TEST_CASE(a_guest_is_destroyed_after_any_turn_of_the_loop, counted_loop) {
    for (bool is_shared : {false, true})
        for (int turns = 0; turns != 60; ++turns) {
            io.restart();
            test::called done;
            std::optional<glib_guest> guest;
            if (is_shared)
                guest.emplace(io, nullptr);
            else
                guest.emplace(io);
            GMainContext* const c = guest->native_handle();
            test::fd_pair p = test::make_socketpair();
            int events = 0;
            std::array<handle<GSource>, 3> sources{attach_fd(c, p.a, G_IO_IN,
                                                             [&] {
                                                                 test::get(p.a);
                                                                 ++events;
                                                                 return true;
                                                             }),
                                                   attach_timeout(c, 1,
                                                                  [&] {
                                                                      test::put(p.b, "x");
                                                                      return true;
                                                                  }),
                                                   attach_idle(c, [&] { return events % 2 != 0; })};
            guest->async_run(done.handler());
            for (int i = 0; i != turns; ++i)
                io.run_one();
            guest.reset();
            for (auto& s : sources)
                g_source_destroy(s.get());
            drive(io);
            BOOST_TEST(done.times == 1);
            BOOST_CHECK_EQUAL(done.ec, test::aborted);
        }
    BOOST_TEST(test::open_descriptors() == descriptors);
}

BOOST_AUTO_TEST_CASE(a_guest_outlives_its_context) {
    for (bool is_strand : {false, true})
        for (bool is_shared : {false, true})
            for (int turns = 0; turns != 6; ++turns) {
                auto alive = std::make_shared<int>(0);
                std::optional<glib_guest> guest;
                auto io = std::make_unique<asio::io_context>();
                const asio::any_io_executor ex = [&]() -> asio::any_io_executor {
                    if (is_strand)
                        return asio::make_strand(*io);
                    return io->get_executor();
                }();
                if (is_shared)
                    guest.emplace(ex, nullptr);
                else
                    guest.emplace(ex);
                GMainContext* const c = guest->native_handle();
                int calls = 0;
                auto s = attach_timeout(c, 1, [&] { return ++calls != 0; });
                guest->async_run([alive](error_code) {});
                for (int i = 0; i != turns; ++i)
                    io->run_one();
                const_cast<asio::any_io_executor&>(ex) = asio::any_io_executor();
                io.reset();
                BOOST_TEST(alive.use_count() == 1);
                BOOST_TEST(!guest->is_running());
                guest->touch();
                guest->call([] {});
                guest->stop();
                BOOST_TEST(!g_main_context_is_owner(c));
                g_source_destroy(s.get());
                glib_guest moved(std::move(*guest));
                guest.reset();
            }
}

BOOST_AUTO_TEST_CASE(a_handler_that_owns_the_guest_does_not_leak) {
    auto alive = std::make_shared<int>(0);
    for (int turns = 0; turns != 4; ++turns) {
        asio::io_context io;
        auto guest = std::make_shared<glib_guest>(io);
        guest->async_run([guest, alive](error_code) {});
        guest.reset();
        for (int i = 0; i != turns; ++i)
            io.poll_one();
    }
    BOOST_TEST(alive.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(a_guest_is_moved_while_it_runs, counted_loop) {
    test::called done, other;
    glib_guest first(io);
    first.async_run(done.handler());
    test::run_ready(io);
    glib_guest second(std::move(first));
    int calls = 0;
    attach_idle(second.native_handle(), once([&] { ++calls; }));
    drive_until(io, [&] { return calls == 1; });
    first = glib_guest(io);
    first.async_run(other.handler());
    test::run_ready(io);
    first = std::move(second);
    drive_until(io, [&] { return bool(other); });
    BOOST_CHECK_EQUAL(other.ec, test::aborted);
    BOOST_TEST(first.is_running());
    first.stop();
    drive(io);
    BOOST_CHECK_EQUAL(done.ec, error_code());
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_callback_ends_the_program) {
    const ::pid_t child = ::fork();
    BOOST_REQUIRE(child >= 0);
    if (child == 0) {
        std::set_terminate([] { ::_exit(42); });
        try {
            asio::io_context io;
            glib_guest guest(io);
            attach_idle(guest.native_handle(), []() -> bool { throw 1; });
            guest.async_run([](error_code) {});
            io.poll();
        } catch (...) {}
        ::_exit(1);
    }
    int status = 0;
    BOOST_REQUIRE(::waitpid(child, &status, 0) == child);
    BOOST_TEST(WIFEXITED(status));
    BOOST_TEST(WEXITSTATUS(status) == 42);
}

BOOST_FIXTURE_TEST_CASE(a_run_without_memory_is_over, counted_loop,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    glib_guest guest(io);
    test::fd_pair p = test::make_socketpair();
    auto s = attach_fd(guest.native_handle(), p.a, G_IO_IN, [] { return true; });
    int failed = 0;
    for (long n = 0; n != 16; ++n) {
        asio::cancellation_signal signal;
        test::called done;
        bool is_thrown = false;
        {
            test::out_of_memory none(n);
            try {
                guest.async_run(asio::bind_cancellation_slot(signal.slot(), done.handler()));
            } catch (const std::bad_alloc&) {
                is_thrown = true;
            }
            test::run_ready(io);
        }
        failed += is_thrown || done.ec == asio::error::no_memory;
        BOOST_TEST(guest.is_running() == (!is_thrown && !done));
        guest.stop();
        drive(io);
        BOOST_TEST(done.times == !is_thrown);
    }
    BOOST_TEST(failed > 1);
    g_source_destroy(s.get());
}

// ---- many ---------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(ten_thousand_sources_one_after_the_other, running) {
    int idles = 0, timeouts = 0;
    std::function<void()> idle = [&] {
        if (++idles != 10000)
            attach_idle(c, once(idle));
    };
    attach_idle(c, once(idle));
    run_until([&] { return idles == 10000; });
    auto s = attach_timeout(c, 0, [&] { return ++timeouts != 10000; });
    run_until([&] { return timeouts == 10000; });
    int last = -1;
    for (int i = 0; i != 200; ++i)
        attach_idle(c, once([&, i] {
                        BOOST_TEST(last == i - 1);
                        last = i;
                    }));
    run_until([&] { return last == 199; });
}

namespace {

/// Sends a number of bytes, and reads them behind an echo: GIO's asynchronous streams.
class round_trips {
public:
    round_trips(int fd, int n)
        : in_(g_unix_input_stream_new(fd, FALSE)), out_(g_unix_output_stream_new(fd, FALSE)),
          left_(n) {}

    void start() {
        sent_ = static_cast<char>('a' + left_ % 26);
        g_output_stream_write_async(out_.get(), &sent_, 1, G_PRIORITY_DEFAULT, nullptr,
                                    &round_trips::on_written, this);
    }
    bool is_over() const { return left_ == 0; }

private:
    static void on_written(GObject* o, GAsyncResult* r, gpointer p) {
        auto* self = static_cast<round_trips*>(p);
        BOOST_REQUIRE_EQUAL(g_output_stream_write_finish(G_OUTPUT_STREAM(o), r, nullptr), 1);
        g_input_stream_read_async(self->in_.get(), &self->received_, 1, G_PRIORITY_DEFAULT, nullptr,
                                  &round_trips::on_read, self);
    }
    static void on_read(GObject* o, GAsyncResult* r, gpointer p) {
        auto* self = static_cast<round_trips*>(p);
        BOOST_REQUIRE_EQUAL(g_input_stream_read_finish(G_INPUT_STREAM(o), r, nullptr), 1);
        BOOST_REQUIRE_EQUAL(self->received_, self->sent_);
        if (--self->left_ != 0)
            self->start();
    }

    handle<GInputStream> in_;
    handle<GOutputStream> out_;
    int left_;
    char sent_ = 0, received_ = 0;
};

} // namespace

BOOST_FIXTURE_TEST_CASE(ten_thousand_round_trips_of_gio_and_of_the_loop, running) {
    test::fd_pair p = test::make_socketpair();
    // The echo is an object of the loop.
    moor::watcher echo(io, p.b,
                       [&](error_code, moor::readiness) { test::put(p.b, test::get(p.b)); });
    echo.set_interest(moor::interest::readable);
    round_trips trips(p.a, 10000);
    guest.call([&] { trips.start(); });
    run_until([&] { return trips.is_over(); });
}

BOOST_FIXTURE_TEST_CASE(two_hundred_streams_at_once, running) {
    std::vector<test::fd_pair> pairs;
    std::vector<std::unique_ptr<round_trips>> trips;
    std::vector<handle<GSource>> echoes;
    for (int i = 0; i != 200; ++i) {
        pairs.push_back(test::make_socketpair());
        trips.push_back(std::make_unique<round_trips>(pairs.back().a, 10));
        const int fd = pairs.back().b;
        echoes.push_back(attach_fd(c, fd, G_IO_IN, [fd] {
            test::put(fd, test::get(fd));
            return true;
        }));
    }
    guest.call([&] {
        for (auto& t : trips)
            t->start();
    });
    run_until([&] {
        return std::all_of(trips.begin(), trips.end(), [](auto& t) { return t->is_over(); });
    });
    for (auto& s : echoes)
        g_source_destroy(s.get());
}

// ---- GDBus --------------------------------------------------------------------------------------

namespace {

/// How a call ended.
struct reply {
    int times = 0;
    std::string domain; // of the error, if any
    int code = 0;
    handle<GVariant> value;

    explicit operator bool() const { return times != 0; }
    void set(GVariant* v, GError* e) {
        ++times;
        value.reset(v);
        if (e) {
            domain = g_quark_to_string(e->domain);
            code = e->code;
            g_error_free(e);
        }
    }
    bool is_io_error(int expected) const {
        return domain == "g-io-error-quark" && code == expected;
    }
    std::string text() const {
        const gchar* s = nullptr;
        BOOST_REQUIRE(value);
        g_variant_get(value.get(), "(&s)", &s);
        return s;
    }
};

/// A connection to the private bus, which offers an object, too: "Echo" answers, "Silent" does not.
class bus {
public:
    explicit bus(glib_guest& guest) : guest_(guest) {
        guest.call([&] {
            g_dbus_connection_new_for_address(
                variable("DBUS_SESSION_BUS_ADDRESS").c_str(),
                GDBusConnectionFlags(G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                                     G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION),
                nullptr, nullptr, &bus::on_connected, this);
        });
    }
    bus(const bus&) = delete;
    bus& operator=(const bus&) = delete;
    ~bus() {
        for (GDBusMethodInvocation* i : silent)
            g_object_unref(i);
    }

    bool is_over() const { return connection || !error.empty(); }
    const char* name() const { return g_dbus_connection_get_unique_name(connection.get()); }

    void call(const char* to, const char* object, const char* interface, const char* method,
              GVariant* arguments, reply& r, int ms = -1, GCancellable* cancellable = nullptr) {
        const auto on_reply = +[](GObject* o, GAsyncResult* res, gpointer p) {
            GError* e = nullptr;
            GVariant* v = g_dbus_connection_call_finish(G_DBUS_CONNECTION(o), res, &e);
            static_cast<reply*>(p)->set(v, e);
        };
        guest_.call([&] {
            g_dbus_connection_call(connection.get(), to, object, interface, method, arguments,
                                   nullptr, G_DBUS_CALL_FLAGS_NONE, ms, cancellable, on_reply, &r);
        });
    }
    void echo(const char* to, const std::string& text, reply& r) {
        call(to, "/moor", "moor.Test", "Echo", g_variant_new("(s)", text.c_str()), r);
    }
    void get_id(reply& r) {
        call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId", nullptr, r);
    }

    handle<GDBusConnection> connection;
    std::string error;
    int closed = 0;
    std::vector<GDBusMethodInvocation*> silent; // that got no answer

private:
    static void on_connected(GObject*, GAsyncResult* r, gpointer p) {
        auto* self = static_cast<bus*>(p);
        GError* e = nullptr;
        self->connection.reset(g_dbus_connection_new_for_address_finish(r, &e));
        if (e) {
            self->error = e->message;
            g_error_free(e);
            return;
        }
        g_dbus_connection_set_exit_on_close(self->connection.get(), FALSE);
        g_signal_connect(self->connection.get(), "closed",
                         G_CALLBACK(+[](GDBusConnection*, gboolean, GError*, gpointer to) {
                             ++static_cast<bus*>(to)->closed;
                         }),
                         self);
        static GDBusNodeInfo* const info = g_dbus_node_info_new_for_xml(
            "<node><interface name='moor.Test'><method name='Echo'><arg type='s' direction='in'/>"
            "<arg type='s' direction='out'/></method><method name='Silent'/></interface></node>",
            nullptr);
        static const GDBusInterfaceVTable table{&bus::on_call, nullptr, nullptr, {}};
        g_dbus_connection_register_object(self->connection.get(), "/moor", info->interfaces[0],
                                          &table, self, nullptr, nullptr);
    }
    static void on_call(GDBusConnection*, const gchar*, const gchar*, const gchar*,
                        const gchar* method, GVariant* arguments, GDBusMethodInvocation* i,
                        gpointer p) {
        if (method == std::string("Echo"))
            g_dbus_method_invocation_return_value(i, arguments);
        else
            static_cast<bus*>(p)->silent.push_back(i);
    }

    glib_guest& guest_;
};

/// Two connections to the bus.
struct on_bus : test::context_fixture {
    explicit on_bus(GMainContext* shared = nullptr) {
        if (shared)
            owner.emplace(io, shared);
        else
            owner.emplace(io);
        owner->async_run(done.handler());
        connect();
    }
    ~on_bus() {
        for (std::optional<bus>* b : {&server, &client}) {
            if ((*b)->connection && !g_dbus_connection_is_closed((*b)->connection.get())) {
                owner->call([&] {
                    g_dbus_connection_close((*b)->connection.get(), nullptr, nullptr, nullptr);
                });
                drive_until(io, [&] { return (*b)->closed == 1; });
            }
            b->reset();
        }
        // What GDBus holds is released by its thread, and then by sources.
        test::run_ready(io);
        owner->stop();
        drive(io);
        BOOST_TEST(done.times == 1);
    }

    void connect() {
        server.emplace(*owner);
        client.emplace(*owner);
        drive_until(io, [&] { return server->is_over() && client->is_over(); });
        BOOST_REQUIRE_MESSAGE(client->error.empty(), client->error);
        BOOST_REQUIRE(server->connection);
    }
    void check_works() {
        reply r;
        client->echo(server->name(), "hello", r);
        drive_until(io, [&] { return bool(r); });
        BOOST_TEST(r.text() == "hello");
    }

    std::optional<glib_guest> owner;
    test::called done;
    std::optional<bus> server, client;
};
struct on_bus_default : on_bus {
    on_bus_default() : on_bus(g_main_context_default()) {}
};

} // namespace

BOOST_FIXTURE_TEST_CASE(gdbus_calls_and_serves, on_bus) {
    check_works();
    reply r;
    client->get_id(r);
    drive_until(io, [&] { return bool(r); });
    BOOST_TEST(r.text().size() == 32u);
    reply none;
    client->call(server->name(), "/moor", "moor.Test", "Nothing", nullptr, none);
    drive_until(io, [&] { return bool(none); });
    BOOST_TEST(none.domain == "g-dbus-error-quark");
    BOOST_TEST(none.code == G_DBUS_ERROR_UNKNOWN_METHOD);
}

BOOST_FIXTURE_TEST_CASE(gdbus_works_in_the_default_context, on_bus_default) {
    for (int i = 0; i != 100; ++i)
        check_works();
    // A call that waits, within a handler and within a callback.
    const auto call = [&] {
        handle<GVariant> v(g_dbus_connection_call_sync(
            client->connection.get(), "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId",
            nullptr, nullptr, G_DBUS_CALL_FLAGS_NONE, -1, nullptr, nullptr));
        BOOST_TEST(bool(v));
    };
    call();
    bool is_done = false;
    attach_idle(owner->native_handle(), once([&] {
                    call();
                    is_done = true;
                }));
    owner->touch();
    drive_until(io, [&] { return is_done; });
    check_works();
}

BOOST_FIXTURE_TEST_CASE(two_hundred_calls_at_once_and_two_thousand_in_a_row, on_bus) {
    std::vector<reply> replies(200);
    for (std::size_t i = 0; i != replies.size(); ++i)
        client->echo(server->name(), std::to_string(i), replies[i]);
    drive_until(io, [&] {
        return std::all_of(replies.begin(), replies.end(), [](auto& r) { return bool(r); });
    });
    for (std::size_t i = 0; i != replies.size(); ++i)
        BOOST_TEST(replies[i].text() == std::to_string(i));
    int n = 0;
    reply r;
    drive_until(io, [&] {
        if (n != 0 && !r)
            return false;
        if (n != 0)
            BOOST_REQUIRE_EQUAL(r.text(), std::to_string(n));
        if (n == 2000)
            return true;
        r = reply();
        client->echo(server->name(), std::to_string(++n), r);
        return false;
    });
}

BOOST_FIXTURE_TEST_CASE(a_call_is_cancelled_or_its_time_is_over, on_bus) {
    const handle<GCancellable> cancellable(g_cancellable_new());
    reply cancelled, late;
    client->call(server->name(), "/moor", "moor.Test", "Silent", nullptr, cancelled, 600000,
                 cancellable.get());
    client->call(server->name(), "/moor", "moor.Test", "Silent", nullptr, late, 100);
    drive_until(io, [&] { return server->silent.size() == 2; });
    test::run_ready(io);
    BOOST_TEST(!cancelled);
    g_cancellable_cancel(cancellable.get());
    drive_until(io, [&] { return cancelled && late; });
    BOOST_TEST(cancelled.is_io_error(G_IO_ERROR_CANCELLED));
    BOOST_TEST(late.is_io_error(G_IO_ERROR_TIMED_OUT));
    check_works();
}

BOOST_FIXTURE_TEST_CASE(an_idle_connection_to_the_bus_costs_no_turn, on_bus) {
    check_works();
    test::run_ready(io);
    test::check_costs_nothing(io);
    check_works();
}

BOOST_FIXTURE_TEST_CASE(the_daemon_ends_and_is_started_again, on_bus) {
    for (const char* how : {"kill", "term"}) {
        check_works();
        std::vector<reply> pending(20);
        for (reply& r : pending)
            client->call(server->name(), "/moor", "moor.Test", "Silent", nullptr, r, 600000);
        drive_until(io, [&] { return server->silent.size() == pending.size(); });
        control_server(std::string("stop dbus ") + how);
        drive_until(io, [&] {
            return client->closed == 1 && server->closed == 1 &&
                   std::all_of(pending.begin(), pending.end(), [](auto& r) { return bool(r); });
        });
        for (const reply& r : pending)
            BOOST_TEST(r.is_io_error(G_IO_ERROR_CLOSED), r.domain << ' ' << r.code);
        reply r;
        client->get_id(r);
        drive_until(io, [&] { return bool(r); });
        BOOST_TEST(r.is_io_error(G_IO_ERROR_CLOSED));
        bus refused(*owner);
        drive_until(io, [&] { return refused.is_over(); });
        BOOST_TEST(!refused.error.empty());
        control_server("start dbus");
        connect();
        check_works();
    }
}

// ---- executors and tokens -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_guest_runs_on_a_strand_of_a_thread_pool) {
    asio::thread_pool pool(3);
    using strand_type = asio::strand<asio::thread_pool::executor_type>;
    const strand_type strand = asio::make_strand(pool.get_executor());
    basic_glib_guest<strand_type> guest(strand);
    GMainContext* const c = guest.native_handle();
    int calls = 0; // on the strand
    std::atomic<int> outside{0};
    std::promise<void> over;
    asio::post(strand, [&] {
        guest.async_run([&](error_code ec) {
            outside += ec || !strand.running_in_this_thread();
            over.set_value();
        });
    });
    // From this thread, from the pool, and from the strand.
    const auto count = [&] {
        outside += !strand.running_in_this_thread();
        if (++calls == 3000)
            guest.stop();
    };
    for (int i = 0; i != 1000; ++i) {
        attach_idle(c, once(count));
        asio::post(pool, [&] { attach_timeout(c, 1, once(count)); });
        asio::post(strand, [&] { attach_idle(c, once(count)); });
    }
    BOOST_TEST((over.get_future().wait_for(60s) == std::future_status::ready));
    pool.join();
    BOOST_TEST(outside == 0);
    BOOST_TEST(calls == 3000);
}

BOOST_AUTO_TEST_CASE(futures_are_completed_by_a_thread_of_the_context) {
    asio::thread_pool pool(1);
    const auto there = [&](auto f) { return asio::post(pool, asio::use_future(f)).get(); };
    glib_guest guest(pool, nullptr);
    std::future<void> run = there([&] { return guest.async_run(asio::use_future); });
    callback stop = once([&] { guest.stop(); });
    g_idle_add(&call, &stop);
    guest.touch(); // on this thread: the other one may not have acquired the context yet
    run.get();
    std::future<void> cancelled = there([&] { return guest.async_run(asio::use_future); });
    there([&] { guest = glib_guest(pool); });
    BOOST_CHECK_THROW(cancelled.get(), boost::system::system_error);
    pool.join();
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace {

using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;

asio::awaitable<void> wait_three_times(int& timeouts) {
    asio::steady_timer t(co_await asio::this_coro::executor);
    for (int i = 0; i != 3; ++i) {
        t.expires_after(1ms);
        co_await t.async_wait(use_awaitable);
    }
    while (timeouts < 3) {
        t.expires_after(1ms);
        co_await t.async_wait(use_awaitable);
    }
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_coroutine_runs_a_guest_for_as_long_as_another_one,
                        test::context_fixture) {
    glib_guest guest(io);
    int timeouts = 0;
    auto s = attach_timeout(guest.native_handle(), 1, [&] { return ++timeouts != 0; });
    bool is_over = false;
    asio::co_spawn(
        io,
        [&]() -> asio::awaitable<void> {
            const auto first =
                co_await (guest.async_run(use_awaitable) || wait_three_times(timeouts));
            is_over = first.index() == 1;
        },
        [](std::exception_ptr e) {
            if (e)
                std::rethrow_exception(e);
        });
    drive(io);
    BOOST_TEST(is_over);
    BOOST_TEST(!guest.is_running());
    g_source_destroy(s.get());
}

#endif

BOOST_AUTO_TEST_SUITE_END()
