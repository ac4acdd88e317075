// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for sd-bus against a real dbus-daemon, which servers.sh starts. Without it, each case
// fails.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/quiet.hpp"
#include "support/servers.hpp"
#include "support/vocabulary.hpp"

#include <moor/adapt/sd_bus.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/system/system_error.hpp>

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(sd_bus_adapter)

namespace {

namespace asio = boost::asio;
namespace errc = boost::system::errc;
using moor::adapt::sd_bus_connection;
using moor::adapt::sd_bus_handle;
using moor::adapt::sd_bus_match;
using moor::adapt::sd_bus_message_handle;
using moor::adapt::sd_bus_slot_handle;
using test::called_with;
using test::control_server;
using test::error_code;
using test::variable;
using namespace std::chrono_literals;

const error_code not_connected(asio::error::not_connected);
const error_code connection_reset(asio::error::connection_reset);
error_code sd_bus_code(int value) { return error_code(value, moor::adapt::sd_bus_category()); }

std::string here() { return variable("DBUS_SESSION_BUS_ADDRESS"); }

void check(int result) {
    BOOST_REQUIRE_MESSAGE(result >= 0, "sd-bus: " << moor::adapt::sd_bus_error_of(result));
}

std::string text(const sd_bus_message_handle& m) {
    BOOST_REQUIRE(m);
    const char* s = nullptr;
    check(sd_bus_message_rewind(m.get(), 1));
    check(sd_bus_message_read(m.get(), "s", &s));
    return s;
}

int number(const sd_bus_message_handle& m) {
    BOOST_REQUIRE(m);
    int n = 0;
    check(sd_bus_message_read(m.get(), "i", &n));
    return n;
}

// ---- a service ----------------------------------------------------------------------------------

const char* const path = "/org/moor/Test";
const char* const interface = "org.moor.Test";

/// What the callbacks of sd-bus find.
struct service_data {
    int calls = 0;
    int level = 7; // a property
    std::vector<sd_bus_message_handle> kept{};
    std::function<void()> on_act{};
};

service_data& data_of(void* p) {
    service_data& d = *static_cast<service_data*>(p);
    ++d.calls;
    return d;
}

int on_echo(sd_bus_message* m, void* data, sd_bus_error*) {
    data_of(data);
    const char* s = nullptr;
    const int result = sd_bus_message_read(m, "s", &s);
    return result < 0 ? result : sd_bus_reply_method_return(m, "s", s);
}
int on_add(sd_bus_message* m, void* data, sd_bus_error*) {
    data_of(data);
    int a = 0, b = 0;
    const int result = sd_bus_message_read(m, "ii", &a, &b);
    return result < 0 ? result : sd_bus_reply_method_return(m, "i", a + b);
}
int on_fail(sd_bus_message*, void* data, sd_bus_error* error) {
    data_of(data);
    return sd_bus_error_set(error, "org.moor.Error.Broken", "it is broken");
}
/// Does not reply.
int on_keep(sd_bus_message* m, void* data, sd_bus_error*) {
    data_of(data).kept.emplace_back(sd_bus_message_ref(m));
    return 1;
}
int on_act(sd_bus_message* m, void* data, sd_bus_error*) {
    const std::function<void()> act = data_of(data).on_act; // which may destroy the data
    const sd_bus_message_handle call(sd_bus_message_ref(m));
    act();
    return sd_bus_reply_method_return(call.get(), "");
}

int on_level(::sd_bus*, const char*, const char*, const char*, sd_bus_message* reply, void* data,
             sd_bus_error*) {
    return sd_bus_message_append(reply, "i", data_of(data).level);
}

const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Echo", "s", "s", on_echo, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Add", "ii", "i", on_add, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Fail", "", "", on_fail, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Keep", "", "", on_keep, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Act", "", "", on_act, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_SIGNAL("Tick", "i", 0),
    SD_BUS_PROPERTY("Level", "i", on_level, 0, 0),
    SD_BUS_VTABLE_END};

void serve(sd_bus* b, service_data& d) {
    check(sd_bus_add_object_vtable(b, nullptr, path, interface, vtable, &d));
}

void emit(sd_bus* b, int n) { check(sd_bus_emit_signal(b, path, interface, "Tick", "i", n)); }
const std::string tick_rule = "type='signal',interface='org.moor.Test',member='Tick'";

std::string name_of(sd_bus* b) {
    const char* name = nullptr;
    check(sd_bus_get_unique_name(b, &name)); // blocks, before the name is known
    return name;
}

/// A connection without an adapter, which is processed by hand: silent unless told to work.
struct raw_peer {
    sd_bus_handle bus;
    service_data data;
    std::string name;

    raw_peer() {
        sd_bus* b = nullptr;
        check(sd_bus_open_user(&b));
        bus.reset(b);
        serve(b, data);
        name = name_of(b);
    }
    /// Blocks until so many calls were served.
    void work(int calls) {
        while (data.calls < calls) {
            const int result = sd_bus_process(bus.get(), nullptr);
            check(result);
            if (result == 0)
                check(sd_bus_wait(bus.get(), UINT64_MAX));
        }
        check(sd_bus_flush(bus.get()));
    }
};

// ---- a loop -------------------------------------------------------------------------------------

using reply_outcome = called_with<sd_bus_message_handle>;
using match_outcome = called_with<sd_bus_match>;

/// Runs to the end, in many turns: for run_for() see watchdog.
void run_long(asio::io_context& io) {
    const test::watchdog dog(io, 60s);
    io.restart();
    io.run();
    BOOST_REQUIRE_MESSAGE(!dog.has_bitten(), "the cap was reached");
}

/// A context, and calls that run it until an operation is over.
struct loop : test::context_fixture {
    /// On io_uring, a wait that was cancelled ends a little later.
    ~loop() {
        if (io.stopped())
            io.restart();
        io.run_for(test::cap);
    }

    template <class Start>
    error_code run_ec(Start start) {
        test::called done;
        start(done.handler());
        BOOST_TEST(done.times == 0); // not from within the initiating function
        test::run_until(io, [&] { return bool(done); });
        BOOST_TEST(done.times == 1);
        return done.ec;
    }
    template <class Value, class Start>
    called_with<Value> run(Start start) {
        called_with<Value> o;
        start(o.handler());
        BOOST_TEST(o.times == 0);
        test::run_until(io, [&] { return bool(o); });
        BOOST_TEST(o.times == 1);
        return o;
    }
    template <class Connection>
    error_code open(Connection& c, const std::string& address = here()) {
        return run_ec([&](auto h) { c.async_open(address, std::move(h)); });
    }
    reply_outcome call(sd_bus_connection& c, sd_bus_message_handle m) {
        return run<sd_bus_message_handle>(
            [&](auto h) { c.async_call(std::move(m), std::move(h)); });
    }
    sd_bus_match match(sd_bus_connection& c, const std::string& rule) {
        match_outcome o = run<sd_bus_match>([&](auto h) { c.async_match(rule, std::move(h)); });
        BOOST_CHECK_EQUAL(o.ec, error_code());
        return std::move(o.value);
    }
    reply_outcome receive(sd_bus_match& m) {
        return run<sd_bus_message_handle>([&](auto h) { m.async_receive(std::move(h)); });
    }
    /// Runs, although nothing may be pending, until something is there.
    template <class Done>
    void run_with(sd_bus_connection& c, Done done) {
        test::called over;
        asio::cancellation_signal signal;
        c.async_run(asio::bind_cancellation_slot(signal.slot(), over.handler()));
        test::run_until(io, done);
        signal.emit(asio::cancellation_type::total);
        test::run_until(io, [&] { return bool(over); });
        BOOST_CHECK_EQUAL(over.ec, test::aborted);
    }
    void check_works(sd_bus_connection& c) {
        reply_outcome o = call(c, ask_daemon(c));
        BOOST_CHECK_EQUAL(o.ec, error_code());
        BOOST_TEST(text(o.value).size() == 32u);
    }
    static sd_bus_message_handle ask_daemon(const sd_bus_connection& c) {
        return c.new_call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                          "GetId");
    }
};

/// A loop whose end leaves no descriptor behind.
struct counted_loop : loop {
    long descriptors;

    counted_loop() {
        moor::watcher w(io); // the reactor's descriptors belong to the context
        asio::steady_timer t(io, 0s);
        t.async_wait([](error_code) {});
        test::run_all(io);
        descriptors = test::open_descriptors();
    }
    ~counted_loop() { BOOST_TEST(test::open_descriptors() == descriptors); }
};

/// A connection.
struct connected : counted_loop {
    std::optional<sd_bus_connection> connection{std::in_place, io};
    sd_bus_connection& c = *connection;

    connected() { BOOST_REQUIRE_EQUAL(open(c), error_code()); }
    ~connected() { connection.reset(); }

    template <class... Args>
    sd_bus_message_handle to(const std::string& destination, const char* member,
                             const char* types = "", Args... args) {
        return c.new_call(destination, path, interface, member, types, args...);
    }
};

/// And a service in the same loop.
struct served : connected {
    std::optional<sd_bus_connection> server{std::in_place, io};
    service_data data;
    std::string name;

    served() {
        BOOST_REQUIRE_EQUAL(open(*server), error_code());
        serve(server->native_handle(), data);
        name = name_of(server->native_handle());
    }
    ~served() {
        data.kept.clear();
        server.reset();
    }
};

/// A Unix socket that listens, or not, and does what a test says.
struct false_daemon {
    int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    std::string name;

    explicit false_daemon(bool listens = true) {
        char directory[] = "/tmp/moor-dbus.XXXXXX";
        BOOST_REQUIRE(::mkdtemp(directory));
        name = std::string(directory) + "/socket";
        ::sockaddr_un address{};
        address.sun_family = AF_UNIX;
        name.copy(address.sun_path, sizeof(address.sun_path) - 1);
        BOOST_REQUIRE(::bind(fd, reinterpret_cast<const ::sockaddr*>(&address), sizeof(address)) ==
                      0);
        BOOST_REQUIRE((!listens || ::listen(fd, 10) == 0));
    }
    ~false_daemon() {
        ::close(fd);
        ::unlink(name.c_str());
        ::rmdir(name.substr(0, name.rfind('/')).c_str());
    }
    false_daemon(const false_daemon&) = delete;
    false_daemon& operator=(const false_daemon&) = delete;

    std::string address() const { return "unix:path=" + name; }
    int accept() const { return ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC); }
};

/// A connection without a daemon: two ends, of which the second one is processed by hand.
struct direct_pair {
    sd_bus_handle ends[2];

    direct_pair() {
        int fds[2];
        BOOST_REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) ==
                      0);
        for (int i = 0; i != 2; ++i) {
            sd_bus* b = nullptr;
            check(sd_bus_new(&b));
            ends[i].reset(b);
            check(sd_bus_set_fd(b, fds[i], fds[i]));
            if (i == 1)
                check(sd_bus_set_server(b, 1, sd_id128_t{{1}}));
            check(sd_bus_set_anonymous(b, 1));
            check(sd_bus_start(b));
        }
    }
    void process_second() {
        int result = 1;
        while (result > 0)
            check(result = sd_bus_process(ends[1].get(), nullptr));
    }
};

} // namespace

// ---- connecting ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(connects_by_an_address_and_by_a_function_of_sd_bus, counted_loop) {
    sd_bus_connection c(io);
    BOOST_TEST(!c.is_open());
    BOOST_TEST(!c.native_handle());
    for (const std::string& address : {here(), "unix:path=/nowhere;" + here()}) {
        BOOST_CHECK_EQUAL(open(c, address), error_code());
        BOOST_TEST(c.is_open());
        check_works(c);
    }
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_open(sd_bus_open_user, std::move(h)); }),
                      error_code());
    check_works(c);
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_wait_ready(std::move(h)); }), error_code());
    c.close();
    BOOST_TEST(!c.is_open());
    BOOST_TEST(!c.native_handle());
}

BOOST_FIXTURE_TEST_CASE(calls_may_be_made_before_the_connection_is_established, counted_loop) {
    sd_bus_connection c(io);
    test::called opened;
    reply_outcome o;
    match_outcome m;
    c.async_open(here(), opened.handler());
    BOOST_TEST(!c.is_open());
    c.async_call(ask_daemon(c), o.handler());
    c.async_match(tick_rule, m.handler());
    test::run_all(io);
    BOOST_CHECK_EQUAL(opened.ec, error_code());
    BOOST_TEST(text(o.value).size() == 32u);
    BOOST_TEST(m.times == 1);
    BOOST_CHECK_EQUAL(m.ec, error_code());
}

BOOST_FIXTURE_TEST_CASE(a_connection_that_fails_says_why, counted_loop) {
    sd_bus_connection c(io);
    BOOST_CHECK_EQUAL(open(c, "unix:path=/nowhere"), sd_bus_code(ENOENT));
    BOOST_CHECK_EQUAL(open(c, "unix:nonsense"), sd_bus_code(EINVAL));
    BOOST_CHECK_EQUAL(open(c, "nonsense"), sd_bus_code(ECONNREFUSED)); // of no kind that is known
    BOOST_CHECK_EQUAL(open(c, ""), sd_bus_code(ECONNREFUSED));
    BOOST_TEST((open(c, false_daemon(false).address()) == errc::connection_refused));
    BOOST_CHECK_EQUAL(
        run_ec([&](auto h) { c.async_open([](sd_bus**) { return -EACCES; }, std::move(h)); }),
        sd_bus_code(EACCES));
    BOOST_CHECK_EQUAL(
        run_ec([&](auto h) { c.async_open(std::function<int(sd_bus**)>(), std::move(h)); }),
        sd_bus_code(EINVAL));
    BOOST_TEST(!c.native_handle());
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_wait_ready(std::move(h)); }), not_connected);

    for (const std::string words : {"", "REJECTED\r\n", "nonsense\r\n"}) {
        BOOST_TEST_CONTEXT(words) {
            false_daemon daemon;
            test::called opened;
            reply_outcome o;
            c.async_open(daemon.address(), opened.handler());
            c.async_call(ask_daemon(c), o.handler());
            const int fd = daemon.accept();
            BOOST_REQUIRE(fd >= 0);
            BOOST_TEST(::write(fd, words.data(), words.size()) ==
                       static_cast<::ssize_t>(words.size()));
            ::close(fd);
            test::run_all(io);
            BOOST_TEST_MESSAGE(opened.ec.message());
            BOOST_TEST((opened.ec == connection_reset || opened.ec == sd_bus_code(EPERM) ||
                        opened.ec == sd_bus_code(EINVAL)),
                       opened.ec);
            BOOST_TEST(o.ec.failed());
            BOOST_TEST(opened.times + o.times == 2);
            BOOST_TEST(!c.is_open());
        }
    }
    BOOST_CHECK_EQUAL(open(c), error_code());
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_daemon_that_does_not_answer_meets_a_deadline, counted_loop) {
    false_daemon daemon;
    sd_bus_connection c(io);
    test::called opened, ready;
    reply_outcome o;
    asio::cancellation_signal signal;
    asio::steady_timer deadline(io, 10ms);
    c.async_open(daemon.address(), asio::bind_cancellation_slot(signal.slot(), opened.handler()));
    c.async_call(ask_daemon(c), o.handler());
    c.async_wait_ready(ready.handler());
    deadline.async_wait([&](error_code) { signal.emit(asio::cancellation_type::terminal); });
    test::run_all(io);
    BOOST_CHECK_EQUAL(opened.ec, test::aborted);
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
    BOOST_CHECK_EQUAL(ready.ec, test::aborted);
    BOOST_TEST(!c.native_handle());
}

BOOST_FIXTURE_TEST_CASE(a_bus_that_waits_for_its_socket_changes_its_descriptor, counted_loop) {
    control_server("stop dbus term");
    sd_bus* b = nullptr;
    check(sd_bus_new(&b));
    sd_bus_handle owner(b);
    check(sd_bus_set_address(b, here().c_str()));
    check(sd_bus_set_bus_client(b, 1));
    check(sd_bus_set_watch_bind(b, 1));
    check(sd_bus_start(b));
    sd_bus_connection c(io, std::move(owner));
    test::called ready, cancelled;
    asio::cancellation_signal signal;
    c.async_wait_ready(ready.handler());
    c.async_wait_ready(asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
    test::run_ready(io);
    BOOST_TEST(ready.times == 0);
    const int before = sd_bus_get_fd(b);
    signal.emit(asio::cancellation_type::total);
    control_server("start dbus");
    test::run_until(io, [&] { return bool(ready); });
    BOOST_CHECK_EQUAL(ready.ec, error_code());
    BOOST_CHECK_EQUAL(cancelled.ec, test::aborted);
    BOOST_TEST_MESSAGE("descriptor " << before << ", then " << sd_bus_get_fd(b));
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_call_with_a_descriptor_does_not_block_until_there_is_a_connection,
                        counted_loop) {
    false_daemon daemon; // which does not answer
    sd_bus_connection c(io);
    test::called opened;
    c.async_open(daemon.address(), opened.handler());
    const auto before = std::chrono::steady_clock::now();
    BOOST_CHECK_EQUAL(
        call(c, c.new_call("org.moor.Nobody", path, interface, "Keep", "h", STDIN_FILENO)).ec,
        not_connected);
    BOOST_TEST((std::chrono::steady_clock::now() - before < 20s)); // sd-bus gives up after 25 s
    BOOST_TEST(opened.times == 0);
    c.close();
    test::run_all(io);
    BOOST_CHECK_EQUAL(open(c), error_code());
    BOOST_TEST(
        (call(c, c.new_call("org.moor.Nobody", path, interface, "Keep", "h", STDIN_FILENO)).ec ==
         errc::host_unreachable));
}

// ---- calls --------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(calls_give_replies_and_errors_with_names_and_texts, served) {
    BOOST_TEST(text(call(c, to(name, "Echo", "s", "hello")).value) == "hello");
    BOOST_TEST(number(call(c, to(name, "Add", "ii", 40, 2)).value) == 42);

    reply_outcome o = call(c, to(name, "Fail"));
    BOOST_CHECK_EQUAL(o.ec, sd_bus_code(EIO));
    BOOST_TEST((o.ec == errc::io_error));
    BOOST_TEST(c.error_name() == "org.moor.Error.Broken");
    BOOST_TEST(c.error_message() == "it is broken");
    const sd_bus_error* e = sd_bus_message_get_error(o.value.get());
    BOOST_REQUIRE(e);
    BOOST_TEST(e->name == std::string("org.moor.Error.Broken"));

    BOOST_CHECK_EQUAL(call(c, to(name, "Nothing")).ec, sd_bus_code(EBADR));
    BOOST_TEST(c.error_name() == SD_BUS_ERROR_UNKNOWN_METHOD);
    o = call(c, to("org.moor.Nobody", "Echo", "s", "hello"));
    BOOST_TEST((o.ec == errc::host_unreachable));
    BOOST_TEST(o.ec.message().find("no such service") != std::string::npos);
    BOOST_TEST(c.error_name() == SD_BUS_ERROR_SERVICE_UNKNOWN);
    BOOST_CHECK_EQUAL(call(c, nullptr).ec, sd_bus_code(EINVAL)); // not an error of the service
    BOOST_TEST(c.error_name() == "");
    BOOST_TEST(c.error_message() == "");
    o = call(c, to(name, "Echo", "i", 7));
    BOOST_TEST((o.ec == errc::invalid_argument));
    o = call(c, c.new_call(name, path, "org.freedesktop.DBus.Properties", "Get", "ss", interface,
                           "Level"));
    int level = 0;
    check(sd_bus_message_read(o.value.get(), "v", "i", &level));
    BOOST_TEST(level == data.level);
    BOOST_TEST(sd_bus_code(ENOENT).message() == std::generic_category().message(ENOENT));
    BOOST_TEST(sd_bus_code(EIO).category().name() == std::string("sd-bus"));
}

BOOST_FIXTURE_TEST_CASE(bad_input_is_an_error_at_once, served) {
    BOOST_CHECK_EQUAL(call(c, nullptr).ec, sd_bus_code(EINVAL));
    sd_bus_message* signal = nullptr;
    check(sd_bus_message_new_signal(c.native_handle(), &signal, path, interface, "Tick"));
    BOOST_CHECK_EQUAL(call(c, sd_bus_message_handle(signal)).ec, sd_bus_code(EINVAL));
    for (const char* rule : {"type='nonsense'", "nonsense", "type="}) {
        match_outcome o = run<sd_bus_match>([&](auto h) { c.async_match(rule, std::move(h)); });
        BOOST_CHECK_EQUAL(o.ec, sd_bus_code(EINVAL));
    }
    const auto code_of = [&](auto f) {
        try {
            f();
        } catch (const boost::system::system_error& e) {
            return e.code();
        }
        return error_code();
    };
    BOOST_CHECK_EQUAL(code_of([&] { c.new_call(name, "no path", interface, "Echo"); }),
                      sd_bus_code(EINVAL));
    BOOST_CHECK_EQUAL(code_of([&] { c.new_call(name, path, interface, "Echo", "?", 1); }),
                      sd_bus_code(EINVAL));
    c.close();
    BOOST_CHECK_EQUAL(code_of([&] { c.new_call(name, path, interface, "Echo"); }), not_connected);
    BOOST_CHECK_EQUAL(
        call(c, server->new_call(name, path, interface, "Echo", "s", "of another bus")).ec,
        not_connected);
    match_outcome m = run<sd_bus_match>([&](auto h) { c.async_match(tick_rule, std::move(h)); });
    BOOST_CHECK_EQUAL(m.ec, not_connected);
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_flush(std::move(h)); }), not_connected);
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_run(std::move(h)); }), not_connected);
}

BOOST_FIXTURE_TEST_CASE(a_call_that_asks_for_no_reply_is_refused, served) {
    sd_bus_message_handle m = to(name, "Echo", "s", "");
    check(sd_bus_message_set_expect_reply(m.get(), 0));
    BOOST_CHECK_EQUAL(call(c, std::move(m)).ec, sd_bus_code(EINVAL)); // or else no reply comes
    check_works(c);
    BOOST_TEST(data.calls == 0);
}

BOOST_FIXTURE_TEST_CASE(null_characters_and_missing_arguments_are_refused, served) {
    const std::string null("\0", 1);
    const auto code_of = [&](const std::string& destination, const std::string& object,
                             const std::string& of, const std::string& member, auto... args) {
        try {
            c.new_call(destination, object, of, member, args...);
        } catch (const boost::system::system_error& e) {
            return e.code();
        }
        return error_code();
    };
    BOOST_CHECK_EQUAL(code_of(name, path, interface, "Echo"), error_code());
    BOOST_CHECK_EQUAL(code_of(name + null, path, interface, "Echo"), sd_bus_code(EINVAL));
    BOOST_CHECK_EQUAL(code_of(name, path + null, interface, "Echo"), sd_bus_code(EINVAL));
    BOOST_CHECK_EQUAL(code_of(name, path, interface + null, "Echo"), sd_bus_code(EINVAL));
    BOOST_CHECK_EQUAL(code_of(name, path, interface, "Echo" + null + "x"), sd_bus_code(EINVAL));
    BOOST_CHECK_EQUAL(code_of(name, path, interface, "Echo", "s"), sd_bus_code(EINVAL));
    match_outcome o =
        run<sd_bus_match>([&](auto h) { c.async_match(tick_rule + null, std::move(h)); });
    BOOST_CHECK_EQUAL(o.ec, sd_bus_code(EINVAL));
    BOOST_CHECK_EQUAL(open(c, here() + null), sd_bus_code(EINVAL));
}

BOOST_FIXTURE_TEST_CASE(a_function_that_opens_no_bus_is_an_error, counted_loop) {
    sd_bus_connection c(io);
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_open([](sd_bus**) { return 0; }, h); }),
                      sd_bus_code(EINVAL));
    BOOST_CHECK_EQUAL(open(c), error_code());
}

// (Two cases: Asio before Boost 1.82 loses results of io_uring after 16,384 requests in a context.)

BOOST_FIXTURE_TEST_CASE(ten_thousand_calls_in_a_row_give_their_results, connected) {
    const std::string names[] = {name_of(c.native_handle()), "org.moor.Nobody"};
    int good = 0;
    std::function<void(std::size_t)> next = [&](std::size_t n) {
        if (n == 10000)
            return;
        c.async_call(c.new_call("org.freedesktop.DBus", "/org/freedesktop/DBus",
                                "org.freedesktop.DBus", "NameHasOwner", "s", names[n % 2].c_str()),
                     [&, n](error_code ec, sd_bus_message_handle m) {
                         int has_owner = -1;
                         good += !ec && sd_bus_message_read(m.get(), "b", &has_owner) > 0 &&
                                 has_owner == (n % 2 == 0);
                         next(n + 1);
                     });
    };
    next(0);
    run_long(io);
    BOOST_TEST(good == 10000);
}

BOOST_FIXTURE_TEST_CASE(two_hundred_calls_at_once_give_their_results, served) {
    int good = 0;
    for (int i = 0; i != 200; ++i)
        c.async_call(to(name, "Add", "ii", i, i), [&, i](error_code ec, sd_bus_message_handle m) {
            good += !ec && number(m) == 2 * i;
        });
    run_long(io);
    BOOST_TEST(good == 200);
    BOOST_TEST(data.calls == 200);
}

BOOST_FIXTURE_TEST_CASE(long_messages_wait_for_room_in_both_directions, served) {
    const std::string long_text(8 << 20, 'x');
    reply_outcome o[4];
    for (reply_outcome& each : o)
        c.async_call(to(name, "Echo", "s", long_text.c_str()), each.handler());
    run_long(io);
    for (reply_outcome& each : o) {
        BOOST_REQUIRE_EQUAL(each.ec, error_code());
        BOOST_TEST((text(each.value) == long_text));
        each.value.reset();
    }
}

// ---- time and cancellation ----------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_shortest_limit_counts_although_it_came_last, connected) {
    raw_peer silent;
    reply_outcome o[4];
    c.async_call(to(silent.name, "Echo", "s", ""), (std::chrono::microseconds::max)(),
                 o[0].handler());
    c.async_call(to(silent.name, "Echo", "s", ""), 600s, o[1].handler());
    c.async_call(to(silent.name, "Echo", "s", ""), 300s, o[2].handler());
    test::run_ready(io);
    c.async_call(to(silent.name, "Echo", "s", ""), 10ms, o[3].handler());
    const auto before = std::chrono::steady_clock::now();
    test::run_until(io, [&] { return bool(o[3]); });
    BOOST_TEST((std::chrono::steady_clock::now() - before >= 9ms));
    BOOST_CHECK_EQUAL(o[3].ec, sd_bus_code(ETIMEDOUT));
    BOOST_TEST((o[3].ec == errc::timed_out));
    BOOST_TEST(c.error_name() == SD_BUS_ERROR_NO_REPLY);
    BOOST_TEST(o[0].times + o[1].times + o[2].times == 0);
    check_works(c);
    c.close();
    test::run_all(io);
    for (int i = 0; i != 3; ++i)
        BOOST_CHECK_EQUAL(o[i].ec, test::aborted);
}

BOOST_FIXTURE_TEST_CASE(a_negative_limit_is_over_at_once, connected) {
    raw_peer silent;
    reply_outcome o = run<sd_bus_message_handle>(
        [&](auto h) { c.async_call(to(silent.name, "Keep"), -1ms, std::move(h)); });
    BOOST_CHECK_EQUAL(o.ec, sd_bus_code(ETIMEDOUT));
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_call_made_beside_the_adapter_times_out_too, connected) {
    raw_peer silent;
    test::run_all(io);
    test::called over, by_hand;
    auto count = [](sd_bus_message* m, void* p, sd_bus_error*) {
        static_cast<test::called*>(p)->handler()(moor::adapt::sd_bus_error_of(m));
        return 0;
    };
    asio::cancellation_signal signal;
    c.async_run(asio::bind_cancellation_slot(signal.slot(), over.handler()));
    test::run_ready(io);
    check(sd_bus_call_async(c.native_handle(), nullptr, to(silent.name, "Keep").get(), count,
                            &by_hand, 1000));
    c.touch();
    test::run_until(io, [&] { return bool(by_hand); });
    BOOST_TEST((by_hand.ec == errc::timed_out));
    BOOST_TEST(over.times == 0);
    signal.emit(asio::cancellation_type::total);
    test::run_all(io);
    BOOST_CHECK_EQUAL(over.ec, test::aborted);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_call_drops_its_reply, served) {
    for (auto type : {asio::cancellation_type::total, asio::cancellation_type::partial,
                      asio::cancellation_type::terminal}) {
        data.kept.clear();
        reply_outcome o;
        asio::cancellation_signal signal;
        c.async_call(to(name, "Keep"), asio::bind_cancellation_slot(signal.slot(), o.handler()));
        test::run_until(io, [&] { return !data.kept.empty(); });
        BOOST_TEST(o.times == 0);
        signal.emit(type);
        test::run_all(io);
        BOOST_CHECK_EQUAL(o.ec, test::aborted);
        check(sd_bus_reply_method_return(data.kept.front().get(), "")); // too late
        server->touch();
        BOOST_TEST(text(call(c, to(name, "Echo", "s", "next")).value) == "next");
        BOOST_TEST(o.times == 1);
    }
}

BOOST_FIXTURE_TEST_CASE(a_slow_service_meets_a_deadline, connected) {
    raw_peer silent;
    reply_outcome o;
    asio::cancellation_signal signal;
    asio::steady_timer deadline(io, 10ms);
    c.async_call(to(silent.name, "Keep"), asio::bind_cancellation_slot(signal.slot(), o.handler()));
    deadline.async_wait([&](error_code) { signal.emit(asio::cancellation_type::terminal); });
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_service_that_leaves_ends_the_call, connected) {
    std::optional<raw_peer> peer(std::in_place);
    reply_outcome o;
    c.async_call(to(peer->name, "Keep"), o.handler());
    test::run_ready(io);
    BOOST_TEST(o.times == 0);
    peer->work(1); // for the daemon may tell of a peer's end before a call that came earlier
    peer.reset();
    test::run_all(io);
    BOOST_TEST((o.ec == errc::timed_out), o.ec); // "NoReply"
    check_works(c);
}

// ---- beside the adapter -------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_reply_that_a_blocking_call_has_read_is_delivered, connected) {
    raw_peer peer;
    reply_outcome o;
    sd_bus_match ticks = match(c, tick_rule);
    c.async_call(to(peer.name, "Echo", "s", "kept"), o.handler());
    test::run_ready(io);
    peer.work(1);
    emit(peer.bus.get(), 1);
    sd_bus_message* reply = nullptr;
    for (::sd_bus* b : {peer.bus.get(), c.native_handle()}) { // the daemon has what the peer sent
        check(sd_bus_call_method(b, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                 "org.freedesktop.DBus", "GetId", nullptr, &reply, ""));
        sd_bus_message_unref(std::exchange(reply, nullptr));
    }
    std::uint64_t queued = 0;
    check(sd_bus_get_n_queued_read(c.native_handle(), &queued));
    BOOST_TEST(queued == 2u); // the descriptor says nothing of them any more
    c.touch();
    run_with(c, [&] { return bool(o) && ticks.queued() == 1; });
    BOOST_TEST(text(o.value) == "kept");
}

BOOST_FIXTURE_TEST_CASE(objects_are_served_while_the_context_runs, served) {
    // Another one asks from another thread, and blocks.
    std::promise<std::string> answer;
    std::thread client([&] {
        sd_bus* b = nullptr;
        sd_bus_message* reply = nullptr;
        const char* s = "nothing";
        if (sd_bus_open_user(&b) >= 0 &&
            sd_bus_call_method(b, name.c_str(), path, interface, "Echo", nullptr, &reply, "s",
                               "over there") >= 0)
            sd_bus_message_read(reply, "s", &s);
        const std::string copy = s;
        sd_bus_message_unref(reply);
        sd_bus_flush_close_unref(b);
        answer.set_value(copy);
    });
    auto future = answer.get_future();
    test::called over;
    asio::cancellation_signal signal;
    server->async_run(asio::bind_cancellation_slot(signal.slot(), over.handler()));
    test::run_until(io, [&] { return data.calls == 1; });
    while (future.wait_for(0s) != std::future_status::ready)
        io.poll();
    client.join();
    BOOST_TEST(future.get() == "over there");
    BOOST_TEST(over.times == 0);
    signal.emit(asio::cancellation_type::total);
    test::run_all(io);
    BOOST_CHECK_EQUAL(over.ec, test::aborted);

    // A name, by a call of the daemon.
    reply_outcome o =
        call(*server, server->new_call("org.freedesktop.DBus", "/", "org.freedesktop.DBus",
                                       "RequestName", "su", "org.moor.Test", 0u));
    unsigned owner = 0;
    check(sd_bus_message_read(o.value.get(), "u", &owner));
    BOOST_TEST(owner == 1u);
    BOOST_TEST(text(call(c, to("org.moor.Test", "Echo", "s", "name")).value) == "name");
}

BOOST_FIXTURE_TEST_CASE(a_callback_makes_calls_of_its_own, served) {
    reply_outcome inner;
    data.on_act = [&] {
        server->async_call(
            server->new_call(name_of(c.native_handle()), path, interface, "Echo", "s", "back"),
            inner.handler());
    };
    service_data own;
    serve(c.native_handle(), own);
    BOOST_CHECK_EQUAL(call(c, to(name, "Act")).ec, error_code());
    test::run_until(io, [&] { return bool(inner); });
    BOOST_TEST(text(inner.value) == "back");
}

BOOST_FIXTURE_TEST_CASE(a_callback_closes_destroys_or_replaces_its_connection, served) {
    for (int what = 0; what != 5; ++what) {
        BOOST_TEST_CONTEXT("what " << what) {
            server.emplace(io);
            BOOST_REQUIRE_EQUAL(open(*server), error_code());
            serve(server->native_handle(), data);
            name = name_of(server->native_handle());
            sd_bus_match ticks = match(*server, tick_rule);
            test::called over, again;
            reply_outcome tick, pending;
            server->async_run(over.handler());
            ticks.async_receive(tick.handler());
            server->async_call(
                server->new_call(name_of(c.native_handle()), path, interface, "Echo", "s", ""),
                (std::chrono::microseconds::max)(), pending.handler());
            data.on_act = [&] {
                switch (what) {
                case 0:
                    server->close();
                    break;
                case 1:
                    ticks = sd_bus_match(); // nothing keeps the adapter's memory
                    server.reset();
                    break;
                case 2:
                    *server = sd_bus_connection(io);
                    break;
                case 3:
                    server->async_open(here(), again.handler());
                    break;
                default:
                    sd_bus_close(server->native_handle());
                    break;
                }
            };
            reply_outcome o[70]; // more calls follow, which were read already
            for (reply_outcome& each : o)
                c.async_call(to(name, "Act"), each.handler());
            test::run_until(io, [&] {
                return over && tick && pending &&
                       std::all_of(std::begin(o), std::end(o), [](auto& r) { return bool(r); });
            });
            BOOST_CHECK_EQUAL(over.ec, what == 4 ? connection_reset : test::aborted);
            BOOST_TEST((tick.ec == over.ec && (pending.ec == over.ec || !pending.ec || what == 4)));
            for (reply_outcome& each : o)
                BOOST_TEST(each.ec.failed());
            BOOST_TEST(over.times + tick.times + pending.times == 3);
            if (what == 3) {
                test::run_until(io, [&] { return bool(again); });
                check_works(*server);
            }
        }
    }
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_bus_that_is_closed_beside_the_adapter_ends_what_is_pending, connected) {
    test::called over;
    reply_outcome o;
    c.async_run(over.handler());
    c.async_call(ask_daemon(c), o.handler());
    sd_bus_close(c.native_handle());
    c.touch();
    test::run_all(io);
    BOOST_CHECK_EQUAL(over.ec, connection_reset);
    BOOST_CHECK_EQUAL(o.ec, connection_reset);
    BOOST_TEST(!c.is_open());
    BOOST_CHECK_EQUAL(open(c), error_code());
    check_works(c);
}

// ---- signals ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(signals_are_kept_and_received_in_order, served) {
    sd_bus_match ticks = match(c, tick_rule);
    reply_outcome first, second;
    ticks.async_receive(first.handler());
    ticks.async_receive(second.handler());
    for (int i = 0; i != 100; ++i)
        emit(server->native_handle(), i);
    run_with(c, [&] { return ticks.queued() == 98; });
    BOOST_TEST(number(first.value) == 0);
    BOOST_TEST(number(second.value) == 1);
    for (int i = 2; i != 100; ++i)
        BOOST_REQUIRE_EQUAL(number(receive(ticks).value), i);

    reply_outcome o;
    asio::cancellation_signal signal;
    ticks.async_receive(asio::bind_cancellation_slot(signal.slot(), o.handler()));
    test::run_ready(io);
    signal.emit(asio::cancellation_type::total);
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
    emit(server->native_handle(), 100);
    BOOST_TEST(number(receive(ticks).value) == 100);

    // Two matches have the same signal.
    sd_bus_match also = match(c, "type='signal',sender='" + name + "'");
    emit(server->native_handle(), 101);
    BOOST_TEST(number(receive(also).value) == 101);
    BOOST_TEST(text(call(c, to(name, "Echo", "s", "")).value).empty()); // behind the signal
    BOOST_TEST(ticks.queued() == 1u);
}

BOOST_FIXTURE_TEST_CASE(each_handler_reads_its_message_from_the_beginning, served) {
    sd_bus_match first = match(c, tick_rule);
    sd_bus_match second = match(c, "type='signal',sender='" + name + "'");
    int sum = 0;
    const auto add = [&](error_code ec, sd_bus_message_handle m) { sum += ec ? 0 : number(m); };
    first.async_receive(add);
    second.async_receive(add);
    emit(server->native_handle(), 5);
    test::run_all(io);
    BOOST_TEST(sum == 10);

    emit(server->native_handle(), 7);
    BOOST_TEST(text(call(c, to(name, "Echo", "s", "")).value).empty()); // behind the signal
    for (sd_bus_match* m : {&first, &second}) {                         // both keep it
        m->async_receive(add);
        test::run_all(io);
    }
    BOOST_TEST(sum == 24);

    auto read = [](sd_bus_message* m, void*, sd_bus_error*) {
        int n = 0;
        sd_bus_message_read(m, "i", &n);
        return 0;
    };
    check(sd_bus_add_filter(c.native_handle(), nullptr, read, nullptr));
    c.async_call(to(name, "Add", "ii", 40, 2), add);
    test::run_all(io);
    BOOST_TEST(sum == 66);
}

BOOST_FIXTURE_TEST_CASE(a_rule_that_only_the_daemon_refuses_is_an_error, connected) {
    match_outcome o = run<sd_bus_match>([&](auto h) {
        c.async_match("type='signal',path='/a',path_namespace='/b'", std::move(h));
    });
    BOOST_CHECK_EQUAL(o.ec, sd_bus_code(EINVAL));
    BOOST_TEST(c.error_name() == SD_BUS_ERROR_MATCH_RULE_INVALID);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(signals_that_find_no_room_are_reported_where_they_were_lost, served) {
    sd_bus_match ticks = match(c, tick_rule);
    ticks.set_limit(3);
    const auto emit_all = [&](int from, int to_excluded) {
        for (int i = from; i != to_excluded; ++i)
            emit(server->native_handle(), i);
        check_works(*server);
        BOOST_TEST(text(call(c, to(name, "Echo", "s", "")).value).empty()); // behind the signals
    };
    emit_all(0, 10);
    BOOST_TEST(ticks.queued() == 4u);
    BOOST_TEST(number(receive(ticks).value) == 0);
    BOOST_TEST(number(receive(ticks).value) == 1);
    emit_all(10, 11);
    BOOST_TEST(number(receive(ticks).value) == 2);
    reply_outcome o = receive(ticks);
    BOOST_CHECK_EQUAL(o.ec, sd_bus_code(ENOBUFS));
    BOOST_TEST((o.ec == errc::no_buffer_space));
    BOOST_TEST(!o.value);
    BOOST_TEST(number(receive(ticks).value) == 10);
    ticks.set_limit(0);
    emit_all(11, 13);
    BOOST_CHECK_EQUAL(receive(ticks).ec, sd_bus_code(ENOBUFS));
    BOOST_TEST(ticks.queued() == 0u);
}

BOOST_FIXTURE_TEST_CASE(a_match_that_ends_removes_its_rule, served) {
    int seen = 0;
    auto count = [](sd_bus_message* m, void* p, sd_bus_error*) {
        *static_cast<int*>(p) += sd_bus_message_is_signal(m, interface, "Tick") > 0;
        return 0;
    };
    check(sd_bus_add_filter(c.native_handle(), nullptr, count, &seen));
    const auto emit_one = [&] {
        check_works(c); // the daemon has what was sent before
        emit(server->native_handle(), 1);
        BOOST_TEST(text(call(c, to(name, "Echo", "s", "")).value).empty());
    };
    {
        sd_bus_match ticks = match(c, tick_rule);
        emit_one();
        BOOST_TEST(seen == 1);
        reply_outcome o;
        ticks.async_receive([](auto&&...) {}); // has the signal
        ticks.async_receive(o.handler());
        ticks = sd_bus_match();
        test::run_all(io);
        BOOST_CHECK_EQUAL(o.ec, test::aborted);
    }
    emit_one();
    BOOST_TEST(seen == 1);

    // Cancelled, or with a handler that does not take the match.
    match_outcome o;
    asio::cancellation_signal signal;
    c.async_match(tick_rule, asio::bind_cancellation_slot(signal.slot(), o.handler()));
    signal.emit(asio::cancellation_type::total);
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_match(tick_rule, std::move(h)); }),
                      error_code());
    emit_one();
    BOOST_TEST(seen == 1);
}

BOOST_FIXTURE_TEST_CASE(signals_of_the_library_itself_are_received, connected) {
    // This one is not, although it names the library, and is confirmed by the daemon.
    const char* const local = "org.freedesktop.DBus.Local";
    sd_bus_match named = match(c, "type='signal',member='Named',arg0='" + std::string(local) + "'");
    check_works(c);
    check(sd_bus_emit_signal(c.native_handle(), path, interface, "Named", "s", local));
    BOOST_TEST(text(receive(named).value) == local);

    sd_bus_match end = match(c, "type='signal',sender='org.freedesktop.DBus.Local'");
    control_server("stop dbus kill");
    reply_outcome o = receive(end);
    BOOST_CHECK_EQUAL(o.ec, error_code());
    BOOST_TEST(sd_bus_message_is_signal(o.value.get(), nullptr, "Disconnected") > 0);
    BOOST_CHECK_EQUAL(receive(end).ec, connection_reset);
    control_server("start dbus");
}

BOOST_FIXTURE_TEST_CASE(a_flood_of_signals_does_not_starve_the_loop, connected) {
    constexpr int count = 20000;
    sd_bus_match ticks = match(c, tick_rule);
    ticks.set_limit(count);
    raw_peer peer;
    for (int i = 0; i != count; ++i)
        emit(peer.bus.get(), i);
    check(sd_bus_flush(peer.bus.get()));
    std::size_t most = 0, before = 0;
    std::function<void()> turn = [&] {
        most = (std::max)(most, ticks.queued() - before);
        before = ticks.queued();
        if (before != count)
            asio::post(io, turn);
    };
    turn();
    run_long(io);
    BOOST_TEST(most <= 256u); // 64, or a few times 64 if there was an event besides
    for (int i = 0; i != count; ++i)
        ticks.async_receive([i](error_code ec, sd_bus_message_handle m) {
            if (ec || number(m) != i)
                BOOST_ERROR("signal " << i);
        });
    run_long(io);
}

// ---- sending ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(flushing_waits_until_everything_is_sent, counted_loop) {
    direct_pair pair;
    sd_bus_connection c(io, std::move(pair.ends[0]));
    test::called ready, flushed, cancelled;
    asio::cancellation_signal signal;
    c.async_wait_ready(ready.handler());
    while (!ready) {
        test::run_ready(io);
        pair.process_second();
    }
    BOOST_CHECK_EQUAL(ready.ec, error_code());
    const std::string long_text(32 << 20, 'x');
    check(sd_bus_emit_signal(c.native_handle(), path, interface, "Long", "s", long_text.c_str()));
    c.async_flush(flushed.handler());
    c.async_flush(asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
    test::run_ready(io);
    BOOST_TEST(flushed.times == 0);
    signal.emit(asio::cancellation_type::total);
    while (!flushed) {
        test::run_ready(io);
        pair.process_second();
    }
    BOOST_CHECK_EQUAL(flushed.ec, error_code());
    BOOST_CHECK_EQUAL(cancelled.ec, test::aborted);
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_flush(std::move(h)); }), error_code());
}

BOOST_FIXTURE_TEST_CASE(two_connections_talk_without_a_daemon, counted_loop) {
    direct_pair pair;
    sd_bus_connection client(io, std::move(pair.ends[0])), server(io, std::move(pair.ends[1]));
    service_data data;
    serve(server.native_handle(), data);
    test::called ready;
    server.async_wait_ready(ready.handler());
    BOOST_TEST(
        text(call(client, client.new_call("", path, interface, "Echo", "s", "direct")).value) ==
        "direct");
    BOOST_CHECK_EQUAL(ready.ec, error_code());
    sd_bus_match ticks = match(client, tick_rule);
    emit(server.native_handle(), 5);
    server.touch();
    BOOST_TEST(number(receive(ticks).value) == 5);
    test::called over;
    client.async_run(over.handler());
    server.close();
    test::run_all(io);
    BOOST_CHECK_EQUAL(over.ec, connection_reset);
}

BOOST_FIXTURE_TEST_CASE(a_borrowed_bus_that_failed_is_not_watched_any_more, counted_loop) {
    direct_pair pair;
    sd_bus_connection c(io, pair.ends[0].get());
    test::called ready, over;
    c.async_wait_ready(ready.handler());
    while (!ready) {
        test::run_ready(io);
        pair.process_second();
    }
    c.async_run(over.handler());
    const std::string nonsense(100, 'x');
    BOOST_TEST(::write(sd_bus_get_fd(pair.ends[1].get()), nonsense.data(), nonsense.size()) == 100);
    test::run_all(io);
    BOOST_CHECK_EQUAL(over.ec, sd_bus_code(EBADMSG));
    asio::posix::stream_descriptor same(io);
    error_code ec;
    same.assign(sd_bus_get_fd(pair.ends[0].get()), ec); // "File exists", if epoll still has it
    BOOST_CHECK_EQUAL(ec, error_code());
    same.release();
}

BOOST_FIXTURE_TEST_CASE(a_bus_with_two_descriptors_is_refused, counted_loop) {
    int fds[2];
    BOOST_REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    sd_bus* b = nullptr;
    check(sd_bus_new(&b));
    sd_bus_handle owner(b);
    check(sd_bus_set_fd(b, fds[0], ::dup(fds[0])));
    check(sd_bus_start(b));
    sd_bus_connection c(io, std::move(owner));
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_wait_ready(std::move(h)); }),
                      sd_bus_code(EPERM));
    ::close(fds[1]);
}

// ---- the daemon goes ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_daemon_that_ends_and_starts_again_is_used_again, connected) {
    for (const char* how : {"kill", "term"}) {
        raw_peer silent;
        sd_bus_match ticks = match(c, tick_rule);
        emit(silent.bus.get(), 1);
        check(sd_bus_flush(silent.bus.get()));
        run_with(c, [&] { return ticks.queued() == 1; });
        reply_outcome o[3];
        match_outcome m;
        test::called over;
        for (reply_outcome& each : o)
            c.async_call(to(silent.name, "Keep"), each.handler());
        c.async_run(over.handler());
        test::run_ready(io);
        control_server(std::string("stop dbus ") + how);
        c.async_match(tick_rule + ",arg0='x'", m.handler());
        test::run_all(io);
        for (reply_outcome& each : o)
            BOOST_CHECK_EQUAL(each.ec, connection_reset);
        BOOST_CHECK_EQUAL(over.ec, connection_reset);
        BOOST_TEST((m.ec == connection_reset), m.ec);
        BOOST_TEST(m.times == 1);
        BOOST_TEST(number(receive(ticks).value) == 1); // was kept
        BOOST_CHECK_EQUAL(receive(ticks).ec, connection_reset);
        BOOST_TEST(!c.is_open());
        BOOST_CHECK_EQUAL(call(c, ask_daemon(c)).ec, not_connected);
        BOOST_TEST(open(c).failed());
        control_server("start dbus");
        BOOST_CHECK_EQUAL(receive(ticks).ec, connection_reset); // a match is of one connection
        BOOST_CHECK_EQUAL(open(c), error_code());
        check_works(c);
    }
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_connection_is_destroyed_after_any_turn_of_the_loop, served) {
    int ended = 0, started = 0;
    auto count = [&ended](auto&&...) { ++ended; };
    for (int turns = 0; turns < 200; ++turns) {
        io.restart();
        ended = 0;
        started = 1;
        bool is_done = false;
        std::optional<sd_bus_connection> other(std::in_place, io);
        std::optional<sd_bus_match> ticks;
        other->async_open(here(), [&](error_code ec) {
            ++ended;
            if (ec || !other)
                return;
            started += 3;
            other->async_match(tick_rule, [&](error_code e, sd_bus_match m) {
                ++ended;
                if (e || !other)
                    return;
                ++started;
                ticks = std::move(m);
                ticks->async_receive([&](auto&&...) {
                    ++ended;
                    is_done = true;
                });
                emit(server->native_handle(), 1);
                server->touch();
            });
            other->async_call(to(name, "Keep"), (std::chrono::microseconds::max)(), count);
            other->async_run(count);
        });
        for (int i = 0; i != turns && !is_done; ++i)
            io.run_one_for(test::cap);
        const bool was_done = is_done;
        if (turns % 2 == 0)
            ticks.reset();
        other.reset();
        test::run_all(io);
        BOOST_REQUIRE_EQUAL(ended, started);
        data.kept.clear();
        if (was_done && turns % 2 == 0)
            return;
    }
    BOOST_ERROR("it never came to the end");
}

BOOST_AUTO_TEST_CASE(a_connection_outlives_its_context) {
    const long descriptors = test::open_descriptors();
    for (int stage = 0; stage != 4; ++stage) {
        auto alive = std::make_shared<int>(0);
        auto hold = [alive](auto&&...) {};
        std::optional<sd_bus_connection> c;
        sd_bus_match ticks;
        {
            asio::io_context io;
            bool is_pending = false;
            c.emplace(io);
            c->async_open(here(), [&](error_code) {
                c->async_match(tick_rule, [&](error_code, sd_bus_match m) {
                    ticks = std::move(m);
                    ticks.async_receive(hold);
                    if (stage == 3)
                        c->async_match(tick_rule, hold);
                    is_pending = true;
                });
            });
            c->async_run(hold);
            c->async_call(loop::ask_daemon(*c), (std::chrono::microseconds::max)(), hold);
            while (stage >= 2 ? !is_pending : stage == 1 && !c->is_open())
                io.run_one_for(test::cap);
        }
        BOOST_TEST(alive.use_count() == 2); // of `hold`
        if (stage % 2 == 0)
            c.reset();
        ticks = sd_bus_match();
        c.reset();
    }
    BOOST_TEST(test::open_descriptors() == descriptors);
}

BOOST_FIXTURE_TEST_CASE(handlers_that_own_the_connection_do_not_leak, loop) {
    auto alive = std::make_shared<int>(0);
    {
        asio::io_context other;
        auto c = std::make_shared<sd_bus_connection>(other);
        bool is_pending = false;
        c->async_open(here(), [&, c, alive](error_code) {
            c->async_run([c, alive](error_code) {});
            c->async_match(tick_rule, [&, c, alive](error_code, sd_bus_match m) {
                auto match = std::make_shared<sd_bus_match>(std::move(m));
                match->async_receive([c, alive, match](auto&&...) {});
                is_pending = true;
            });
        });
        c.reset();
        while (!is_pending)
            other.run_one_for(test::cap);
    }
    BOOST_TEST(alive.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(connections_are_moved_borrowed_and_released, served) {
    reply_outcome o;
    test::called over;
    c.async_call(to(name, "Echo", "s", "moved"), o.handler());
    sd_bus_connection moved(std::move(c));
    test::run_all(io);
    BOOST_TEST(text(o.value) == "moved");
    o.value.reset();
    sd_bus_match ticks = match(moved, tick_rule);
    sd_bus_match moved_ticks(std::move(ticks));
    moved.async_run(over.handler());

    sd_bus* const b = moved.release();
    sd_bus_handle owner(b);
    test::run_all(io);
    BOOST_CHECK_EQUAL(over.ec, test::aborted);
    BOOST_CHECK_EQUAL(receive(moved_ticks).ec, test::aborted);
    BOOST_TEST(!moved.native_handle());
    BOOST_TEST(!moved.release());
    {
        sd_bus_connection borrowed(io, b);
        BOOST_TEST(borrowed.is_open());
        check_works(borrowed);
        borrowed.async_run(over.handler());
    }
    test::run_all(io);
    BOOST_CHECK_EQUAL(over.ec, test::aborted);
    BOOST_TEST(over.times == 2);
    BOOST_TEST(sd_bus_is_ready(b) > 0); // was not closed
    moved = sd_bus_connection(io, std::move(owner));
    check_works(moved);
    sd_bus_connection& same = moved;
    moved = std::move(same);
    check_works(moved);
    c = std::move(moved);
    check_works(c);
}

// ---- nothing to do ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_idle_connection_costs_nothing_and_lets_the_loop_end, served) {
    sd_bus_match ticks = match(c, tick_rule);
    test::run_all(io); // returns although the connections are open, and one serves an object
    test::check_costs_nothing(io);
    reply_outcome o;
    test::called over;
    ticks.async_receive(o.handler());
    c.async_run(over.handler());
    test::run_ready(io);
    test::check_costs_nothing(io);
    BOOST_TEST(o.times + over.times == 0);
    c.close();
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
    BOOST_CHECK_EQUAL(over.ec, test::aborted);
}

// ---- executors and tokens -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_connection_runs_on_a_strand_of_a_thread_pool) {
    asio::thread_pool pool(3);
    using strand_type = asio::strand<asio::thread_pool::executor_type>;
    strand_type strand = asio::make_strand(pool.get_executor());
    constexpr int count = 500;
    std::atomic<int> good{0}, outside{0};
    std::promise<void> over;
    moor::adapt::basic_sd_bus_connection<strand_type> c(strand);
    moor::adapt::basic_sd_bus_match<strand_type> ticks;
    service_data data;
    int n = 0;
    std::function<void()> next = [&] {
        outside += !strand.running_in_this_thread();
        if (n == count) {
            c.async_run([&](error_code ec) {
                outside += !strand.running_in_this_thread();
                good += ec == test::aborted;
                ticks = moor::adapt::basic_sd_bus_match<strand_type>();
                over.set_value();
            });
            return c.close();
        }
        sd_bus_emit_signal(c.native_handle(), path, interface, "Tick", "i", n);
        ticks.async_receive([&](error_code ec, sd_bus_message_handle m) {
            outside += !strand.running_in_this_thread();
            int value = -1;
            good += !ec && sd_bus_message_read(m.get(), "i", &value) > 0 && value == n;
            ++n;
            next();
        });
    };
    asio::post(strand, [&] {
        c.async_open(here(), [&](error_code) {
            c.async_match(tick_rule, [&](error_code ec, auto m) {
                ticks = std::move(m);
                if (!ec)
                    return next();
                over.set_value();
            });
        });
    });
    BOOST_TEST((over.get_future().wait_for(60s) == std::future_status::ready));
    pool.join();
    BOOST_TEST(good == count + 1);
    BOOST_TEST(outside == 0);
}

BOOST_AUTO_TEST_CASE(futures_are_completed_by_a_thread_of_the_context) {
    asio::thread_pool pool(1);
    auto there = [&](auto f) { return asio::post(pool, asio::use_future(f)).get(); };
    sd_bus_connection c(pool);
    there([&] { return c.async_open(here(), asio::use_future); }).get();
    std::future<sd_bus_message_handle> reply =
        there([&] { return c.async_call(loop::ask_daemon(c), asio::use_future); });
    sd_bus_message_handle m = reply.get();
    // The message belongs to the context's thread.
    BOOST_TEST(there([&] { return text(std::exchange(m, nullptr)).size(); }) == 32u);
    there([&] { c.close(); });
    pool.join();
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace {

using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;

asio::awaitable<void> race(sd_bus_connection& c, raw_peer& silent, int& good) {
    co_await c.async_open(sd_bus_open_user, use_awaitable);
    asio::steady_timer deadline(co_await asio::this_coro::executor, 10ms);
    auto first = co_await (c.async_call(c.new_call(silent.name, path, interface, "Keep"),
                                        asio::as_tuple(use_awaitable)) ||
                           deadline.async_wait(asio::as_tuple(use_awaitable)));
    good += first.index() == 1;
    sd_bus_match ticks = co_await c.async_match(tick_rule, use_awaitable);
    emit(c.native_handle(), 3);
    sd_bus_message_handle m = co_await ticks.async_receive(use_awaitable);
    good += number(m) == 3;
    try {
        co_await c.async_call(c.new_call("org.moor.Nobody", path, interface, "Echo"), 5s,
                              use_awaitable);
    } catch (const boost::system::system_error& e) {
        good += e.code() == errc::host_unreachable;
        good += c.error_name() == SD_BUS_ERROR_SERVICE_UNKNOWN;
    }
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_coroutine_races_a_call_against_a_timer, loop) {
    raw_peer silent;
    sd_bus_connection c(io);
    int good = 0;
    asio::co_spawn(io, race(c, silent, good), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    test::run_all(io);
    BOOST_TEST(good == 4);
}

#endif

BOOST_AUTO_TEST_SUITE_END()
