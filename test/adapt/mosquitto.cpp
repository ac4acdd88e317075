// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for libmosquitto against a real broker, which servers.sh starts, and against one of
// the tests' own, which says what the real one does not. Without the real broker, each case that
// needs it fails.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/quiet.hpp"
#include "support/servers.hpp"
#include "support/vocabulary.hpp"

#include <moor/adapt/mosquitto.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

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
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <netdb.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- lookups that wait, and other functions that the tests replace ------------------------------

namespace {

/// While it is closed, lookups of "slow.test" wait; the name is that of 127.0.0.1.
class lookup_gate {
public:
    void pass() {
        std::unique_lock<std::mutex> lock(mutex_);
        ++waiting_;
        changed_.notify_all();
        changed_.wait(lock, [this] { return is_open_; });
        --waiting_;
        changed_.notify_all();
    }
    void close() {
        std::lock_guard<std::mutex> lock(mutex_);
        is_open_ = false;
    }
    void open() {
        std::lock_guard<std::mutex> lock(mutex_);
        is_open_ = true;
        changed_.notify_all();
    }
    bool has_waiting() {
        std::lock_guard<std::mutex> lock(mutex_);
        return waiting_ != 0;
    }
    void wait_until_entered() {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return waiting_ != 0; });
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool is_open_ = true;
    int waiting_ = 0;
};

lookup_gate gate;
std::atomic<int> reads_during_a_lookup{0};
std::atomic<bool> has_memory_for_properties{true};

template <class Function>
Function next_of(Function, const char* name) {
    return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

} // namespace

// libmosquitto's calls come here.
extern "C" int getaddrinfo(const char* name, const char* service, const addrinfo* hints,
                           addrinfo** result) {
    static const auto next = next_of(&getaddrinfo, "getaddrinfo");
    if (name && std::string(name) == "slow.test") {
        gate.pass();
        name = "127.0.0.1";
    }
    return next(name, service, hints, result);
}

// The adapter's calls come here.
extern "C" int mosquitto_loop_read(::mosquitto* m, int most) {
    static const auto next = next_of(&mosquitto_loop_read, "mosquitto_loop_read");
    reads_during_a_lookup += gate.has_waiting();
    return next(m, most);
}

extern "C" int mosquitto_property_copy_all(mosquitto_property** to,
                                           const mosquitto_property* from) {
    static const auto next = next_of(&mosquitto_property_copy_all, "mosquitto_property_copy_all");
    return has_memory_for_properties ? next(to, from) : MOSQ_ERR_NOMEM;
}

BOOST_AUTO_TEST_SUITE(mosquitto_client_of_a_broker)

namespace {

namespace asio = boost::asio;
using moor::adapt::mosquitto_client;
using moor::adapt::mosquitto_error;
using moor::adapt::mqtt_message;
using test::control_server;
using test::error_code;
using test::variable;
using tcp = asio::ip::tcp;
using namespace std::chrono_literals;

const error_code not_connected(asio::error::not_connected);
const error_code connection_lost(mosquitto_error::connection_lost);
const error_code not_authorized(mosquitto_error::not_authorized);
const error_code invalid(mosquitto_error::invalid_argument);
constexpr int keep_alive = 60;

/// While it exists, the broker does nothing.
class paused_broker {
public:
    paused_broker() {
        std::ifstream file(variable("MOOR_SERVERS_MQTT_PID"));
        file >> pid_;
        BOOST_REQUIRE(pid_ > 0);
        BOOST_REQUIRE(::kill(pid_, SIGSTOP) == 0);
    }
    ~paused_broker() { ::kill(pid_, SIGCONT); }
    paused_broker(const paused_broker&) = delete;
    paused_broker& operator=(const paused_broker&) = delete;

private:
    ::pid_t pid_ = 0;
};

struct address {
    std::string host;
    int port;
    bool has_tls = false;
};

address here() { return {"127.0.0.1", std::stoi(variable("MOOR_SERVERS_MQTT_PORT"))}; }
address by_name() { return {"localhost", here().port}; }
address with_tls() {
    return {"localhost", std::stoi(variable("MOOR_SERVERS_MQTT_TLS_PORT")), true};
}
address on_unix_socket() { return {variable("MOOR_SERVERS_MQTT_SOCKET"), 0}; }

template <class Client>
void use_tls(Client& c) {
    BOOST_REQUIRE(mosquitto_tls_set(c.native_handle(),
                                    variable("MOOR_SERVERS_MQTT_CERTIFICATE").c_str(), nullptr,
                                    nullptr, nullptr, nullptr) == MOSQ_ERR_SUCCESS);
}

/// Without this, a message waits for the kernel's acknowledgement of the one before: 40 ms.
template <class Client>
void use_no_delay(Client& c) {
    mosquitto_int_option(c.native_handle(), MOSQ_OPT_TCP_NODELAY, 1);
}

template <class Client>
void use_mqtt5(Client& c) {
    BOOST_REQUIRE(mosquitto_int_option(c.native_handle(), MOSQ_OPT_PROTOCOL_VERSION,
                                       MQTT_PROTOCOL_V5) == MOSQ_ERR_SUCCESS);
}

template <class Value>
using outcome = test::called_with<Value>;
using message_outcome = outcome<mqtt_message>;

/// A context, and calls that run it until an operation is over.
struct loop : test::context_fixture {
    template <class Start>
    error_code run_ec(Start start) {
        test::called done;
        start(done.handler());
        BOOST_TEST(done.times == 0); // not from within the initiating function
        test::run_until(io, [&] { return bool(done); });
        BOOST_TEST(done.times == 1);
        return done.ec;
    }
    template <class Client>
    error_code connect(Client& c, const address& to = here(), int seconds = keep_alive) {
        use_no_delay(c);
        return run_ec([&](auto h) { c.async_connect(to.host, to.port, seconds, std::move(h)); });
    }
    template <class Client>
    error_code disconnect(Client& c) {
        return run_ec([&](auto h) { c.async_disconnect(std::move(h)); });
    }
    template <class Client>
    error_code publish(Client& c, const std::string& topic, const std::string& payload, int qos = 1,
                       bool retain = false) {
        return run_ec([&](auto h) { c.async_publish(topic, payload, qos, retain, std::move(h)); });
    }
    template <class Client>
    outcome<int> subscribe(Client& c, const std::string& pattern, int qos = 2) {
        outcome<int> o;
        c.async_subscribe(pattern, qos, o.handler());
        BOOST_TEST(o.times == 0);
        test::run_until(io, [&] { return bool(o); });
        return o;
    }
    template <class Client>
    message_outcome receive(Client& c) {
        message_outcome o;
        c.async_receive(o.handler());
        BOOST_TEST(o.times == 0);
        test::run_until(io, [&] { return bool(o); });
        return o;
    }
    /// A topic that no other case uses.
    static std::string topic() {
        static int n = 0;
        return "test/" + std::to_string(++n);
    }
    template <class Client>
    void check_works(Client& c) {
        const std::string t = topic();
        BOOST_CHECK_EQUAL(subscribe(c, t).ec, error_code());
        BOOST_CHECK_EQUAL(publish(c, t, "works"), error_code());
        message_outcome o = receive(c);
        BOOST_CHECK_EQUAL(o.ec, error_code());
        BOOST_TEST(o.value.topic == t);
        BOOST_TEST(o.value.payload == "works");
        BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_unsubscribe(t, std::move(h)); }),
                          error_code());
    }
    /// Runs until the broker has answered, and so has sent the messages before.
    template <class Client>
    void serve(Client& c) {
        BOOST_CHECK_EQUAL(subscribe(c, "none").ec, error_code());
    }
    /// The reactor's descriptors belong to the context.
    void prepare_reactor() {
        mosquitto_client first(io);
        BOOST_REQUIRE_EQUAL(connect(first), error_code());
    }
};

/// A loop whose end leaves no descriptor behind.
struct counted_loop : loop {
    long descriptors = (prepare_reactor(), test::open_descriptors());

    /// The thread of a lookup may close its end a little later, and io_uring ends a cancelled wait
    /// in a turn of the loop.
    void check_descriptors() {
        test::run_ready(io);
        BOOST_TEST(test::wait_for([&] { return test::open_descriptors() <= descriptors; }));
    }
};

/// A client with a connection.
struct connected : counted_loop {
    std::optional<mosquitto_client> client{std::in_place, io};
    mosquitto_client& c = *client;

    connected() { BOOST_REQUIRE_EQUAL(connect(c), error_code()); }
    ~connected() {
        client.reset();
        check_descriptors();
    }
};

/// A broker of the test's own, for one client: sends what it is told to, and knows nothing.
struct own_broker : loop {
    tcp::acceptor acceptor{io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
    tcp::socket socket{io};
    std::string received;
    std::string answer;      // to the first bytes
    std::string ping_answer; // to each PINGREQ
    int pings = 0;
    bool reads = true;

    address here() const { return {"127.0.0.1", acceptor.local_endpoint().port()}; }

    void accept() {
        socket = tcp::socket(io);
        received.clear();
        acceptor.async_accept(socket, [this](error_code ec) {
            if (!ec)
                read();
        });
    }
    void send(const std::string& bytes) { asio::write(socket, asio::buffer(bytes)); }
    ~own_broker() { end(); }
    void end() {
        error_code ignored;
        acceptor.close(ignored);
        socket.close(ignored);
        test::run_ready(io);
    }

private:
    void read() {
        socket.async_read_some(asio::buffer(buffer_), [this](error_code ec, std::size_t n) {
            if (ec)
                return;
            if (received.empty() && !answer.empty())
                send(answer);
            const std::string bytes(buffer_, n);
            received += bytes;
            for (std::size_t at = 0; (at = bytes.find('\xc0', at)) != std::string::npos; ++at) {
                ++pings;
                if (!ping_answer.empty())
                    send(ping_answer);
            }
            if (reads)
                read();
        });
    }

    char buffer_[4096];
};

const std::string accepted("\x20\x02\x00\x00", 4);                     // CONNACK of MQTT 3.1.1
const std::string accepted5("\x20\x03\x00\x00\x00", 5);                // of MQTT 5
const std::string accepted5_1s("\x20\x06\x00\x00\x03\x13\x00\x01", 8); // with a keep-alive of 1 s

} // namespace

// ---- connecting ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(connects_by_address_by_name_on_a_unix_socket_and_with_tls, counted_loop) {
    for (const address& to : {here(), by_name(), on_unix_socket(), with_tls()})
        for (int version : {MQTT_PROTOCOL_V31, MQTT_PROTOCOL_V311, MQTT_PROTOCOL_V5})
            BOOST_TEST_CONTEXT(to.host << ' ' << to.port << ", MQTT " << version) {
                mosquitto_client c(io);
                BOOST_TEST(!c.is_open());
                mosquitto_int_option(c.native_handle(), MOSQ_OPT_PROTOCOL_VERSION, version);
                if (to.has_tls)
                    use_tls(c);
                BOOST_CHECK_EQUAL(connect(c, to), error_code());
                BOOST_TEST(c.is_open());
                BOOST_TEST(!c.is_session_present());
                BOOST_TEST((mosquitto_ssl_get(c.native_handle()) != nullptr) == to.has_tls);
                check_works(c);
                BOOST_CHECK_EQUAL(disconnect(c), error_code());
                BOOST_TEST(!c.is_open());
                BOOST_CHECK_EQUAL(connect(c, to), error_code());
                check_works(c);
            }
    check_descriptors();
    int major = 0, minor = 0, revision = 0;
    mosquitto_lib_version(&major, &minor, &revision);
    BOOST_TEST_MESSAGE("libmosquitto " << major << '.' << minor << '.' << revision);
}

BOOST_FIXTURE_TEST_CASE(a_connection_that_fails_says_why, counted_loop) {
    {
        mosquitto_client c(io);
        BOOST_CHECK_EQUAL(connect(c, {"127.0.0.1", 1}),
                          error_code(asio::error::connection_refused));
        BOOST_CHECK_EQUAL(connect(c, {"localhost", 1}),
                          error_code(asio::error::connection_refused));
        BOOST_CHECK_EQUAL(connect(c, {"/there/is/no/socket", 0}),
                          error_code(boost::system::errc::no_such_file_or_directory,
                                     boost::system::system_category()));
        const error_code ec = connect(c, {"moor.invalid", 1883});
        BOOST_TEST(
            (ec == asio::error::host_not_found || ec == asio::error::host_not_found_try_again));
        BOOST_CHECK_EQUAL(connect(c, {std::string("local\0host", 10), here().port}), invalid);
        BOOST_CHECK_EQUAL(connect(c, {"127.0.0.1", 70000}), invalid);
        BOOST_CHECK_EQUAL(connect(c, {"localhost", -1}), invalid);
        BOOST_CHECK_EQUAL(connect(c, here(), 3), invalid); // seconds: too short for libmosquitto
        BOOST_TEST((connect(c, here(), 3) == boost::system::errc::invalid_argument));

        for (bool is_newer : {false, true}) {
            mosquitto_client wrong(io);
            if (is_newer)
                use_mqtt5(wrong);
            mosquitto_username_pw_set(wrong.native_handle(), "moor", "wrong");
            BOOST_CHECK_EQUAL(connect(wrong), not_authorized);
            BOOST_TEST(!wrong.is_open());
            BOOST_TEST((connect(wrong) == boost::system::errc::permission_denied));
            mosquitto_username_pw_set(wrong.native_handle(), "moor", "key");
            BOOST_CHECK_EQUAL(connect(wrong), error_code());
        }

        mosquitto_client no_id(io, "", false), cut(io, std::string("a\0b", 3), true);
        BOOST_CHECK_EQUAL(connect(no_id), invalid);
        BOOST_CHECK_EQUAL(connect(cut), invalid);
        BOOST_CHECK_EQUAL(connect(c), error_code());
        check_works(c);
    }
    check_descriptors();
}

BOOST_FIXTURE_TEST_CASE(a_handshake_of_tls_that_fails_says_so_and_does_not_spin, own_broker) {
    const error_code tls_failed(mosquitto_error::tls_failed);
    mosquitto_client c(io);
    use_tls(c);
    // The certificate is for the name.
    BOOST_CHECK_EQUAL(connect(c, {"127.0.0.1", with_tls().port}), tls_failed);
    BOOST_CHECK_EQUAL(connect(c, {"127.0.0.1", 1}), error_code(asio::error::connection_refused));
    // Others than TLS answer.
    accept();
    answer = "220 hello\r\n";
    BOOST_CHECK_EQUAL(connect(c, own_broker::here()), tls_failed);
    // Silence, and then a reset or an end.
    answer.clear();
    for (bool is_reset : {true, false}) {
        accept();
        test::called done;
        const address to = own_broker::here();
        c.async_connect(to.host, to.port, keep_alive, done.handler());
        test::run_until(io, [&] { return !received.empty(); });
        test::run_ready(io);
        test::check_is_quiet(io);
        BOOST_TEST(done.times == 0);
        socket.set_option(asio::socket_base::linger(is_reset, 0));
        socket.close();
        test::run_until(io, [&] { return bool(done); });
        BOOST_TEST(done.ec.failed());
        BOOST_TEST_MESSAGE(done.ec.message());
    }
    BOOST_CHECK_EQUAL(connect(c, with_tls()), error_code());
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(the_broker_says_why_it_refuses, own_broker) {
    const mosquitto_error expected[] = {
        mosquitto_error::unsupported_protocol_version, mosquitto_error::client_id_not_valid,
        mosquitto_error::server_unavailable, mosquitto_error::bad_user_name_or_password,
        mosquitto_error::not_authorized};
    for (char code = 1; code != 6; ++code) {
        mosquitto_client c(io);
        answer = std::string("\x20\x02\x00", 3) + code;
        accept();
        message_outcome o;
        test::called done;
        c.async_connect(own_broker::here().host, own_broker::here().port, keep_alive,
                        done.handler());
        c.async_receive(o.handler());
        test::run_until(io, [&] { return done && o; });
        BOOST_CHECK_EQUAL(done.ec, error_code(expected[code - 1]));
        BOOST_CHECK_EQUAL(o.ec, done.ec);
        BOOST_TEST(!c.is_open());
    }
    mosquitto_client c(io);
    for (char code : {'\x06', '\x7f'}) { // which are not defined
        answer = std::string("\x20\x02\x00", 3) + code;
        accept();
        BOOST_CHECK_EQUAL(connect(c, own_broker::here()),
                          error_code(mosquitto_error::protocol_error));
        BOOST_TEST(!c.is_open());
    }
    use_mqtt5(c);
    answer = std::string("\x20\x03\x00\x8a\x00", 5);
    accept();
    const error_code banned = connect(c, own_broker::here());
    BOOST_TEST(banned.value() == MQTT_RC_BANNED);
    BOOST_TEST(banned.message() == mosquitto_reason_string(MQTT_RC_BANNED));
    BOOST_TEST(banned.category().name() == std::string("libmosquitto"));

    answer = accepted5;
    const std::pair<char, error_code> ends[] = {{'\x8e', mosquitto_error::session_taken_over},
                                                {'\0', connection_lost}}; // not an abort
    for (const auto& [reason, expected_ec] : ends) {
        accept();
        BOOST_CHECK_EQUAL(connect(c, own_broker::here()), error_code());
        message_outcome o;
        c.async_receive(o.handler());
        send(std::string("\xe0\x02", 2) + reason + '\0'); // DISCONNECT
        test::run_until(io, [&] { return bool(o); });
        BOOST_CHECK_EQUAL(o.ec, expected_ec);
    }

    // The end without a word.
    answer.clear();
    accept();
    test::called done;
    const address to = own_broker::here();
    c.async_connect(to.host, to.port, keep_alive, done.handler());
    test::run_until(io, [&] { return !received.empty(); });
    socket.close();
    test::run_until(io, [&] { return bool(done); });
    BOOST_CHECK_EQUAL(done.ec, connection_lost);
    BOOST_TEST((done.ec == boost::system::errc::connection_reset));
}

BOOST_FIXTURE_TEST_CASE(connecting_is_cancelled_at_once, counted_loop) {
    for (const address& to : {here(), by_name(), with_tls()}) {
        mosquitto_client c(io);
        if (to.has_tls)
            use_tls(c);
        for (std::size_t turns : {0u, 1u, 2u, 3u, 4u, 5u}) {
            io.restart();
            test::called done;
            message_outcome o;
            asio::cancellation_signal signal;
            c.async_connect(to.host, to.port, keep_alive,
                            asio::bind_cancellation_slot(signal.slot(), done.handler()));
            c.async_receive(o.handler());
            for (std::size_t i = 0; i != turns && !done; ++i)
                io.run_one_for(test::cap);
            signal.emit(asio::cancellation_type::total);
            const bool is_open = c.is_open();
            c.close();
            test::run_all(io);
            BOOST_TEST((done.ec == test::aborted || !done.ec));
            BOOST_TEST(done.times == 1);
            BOOST_CHECK_EQUAL(o.ec, test::aborted);
            BOOST_TEST((is_open == !done.ec || turns == 5));
        }
        while (!c.native_handle()) // a lookup goes on
            io.restart(), io.poll();
        if (to.has_tls)
            use_tls(c);
        BOOST_CHECK_EQUAL(connect(c, to), error_code());
        check_works(c);
    }
    check_descriptors();
}

BOOST_FIXTURE_TEST_CASE(a_lookup_holds_nothing_up, counted_loop) {
    gate.close();
    {
        const address slow{"slow.test", here().port};
        mosquitto_client c(io);
        test::called first, second, again;
        asio::cancellation_signal signal;
        c.async_connect(slow.host, slow.port, keep_alive,
                        asio::bind_cancellation_slot(signal.slot(), first.handler()));
        gate.wait_until_entered();
        BOOST_TEST(!c.native_handle()); // the thread has it
        test::run_ready(io);            // and does not stop the loop
        BOOST_TEST(first.times == 0);
        BOOST_CHECK_EQUAL(publish(c, "a", "b"), not_connected);
        BOOST_CHECK_EQUAL(subscribe(c, "a").ec, not_connected);
        signal.emit(asio::cancellation_type::terminal);
        test::run_all(io); // returns although the thread waits
        BOOST_CHECK_EQUAL(first.ec, test::aborted);
        // The next one waits for the thread.
        c.async_connect(here().host, here().port, keep_alive, second.handler());
        message_outcome o;
        c.async_receive(o.handler());
        test::run_ready(io);
        BOOST_TEST(second.times == 0);
        c.async_connect(slow.host, slow.port, keep_alive, again.handler());
        test::run_ready(io);
        BOOST_CHECK_EQUAL(second.ec, test::aborted);
        BOOST_CHECK_EQUAL(o.ec, test::aborted);
        gate.open();
        test::run_until(io, [&] { return bool(again); });
        BOOST_CHECK_EQUAL(again.ec, error_code());
        check_works(c);

        // A disconnect, and the destruction, do not wait either.
        gate.close();
        test::called third, end;
        c.async_connect(slow.host, slow.port, keep_alive, third.handler());
        gate.wait_until_entered();
        c.async_disconnect(end.handler());
        test::run_ready(io);
        BOOST_CHECK_EQUAL(third.ec, test::aborted);
        BOOST_CHECK_EQUAL(end.ec, error_code());
        BOOST_TEST(third.times + end.times == 2);
    }
    gate.open();
    check_descriptors();
}

BOOST_AUTO_TEST_CASE(a_lookup_that_goes_on_after_the_end_of_the_service_keeps_the_handle) {
    for (bool is_cancelled : {false, true}) {
        counted_loop l;
        gate.close();
        {
            mosquitto_client c(l.io);
            test::called first, second;
            asio::cancellation_signal signal;
            c.async_connect("slow.test", here().port, keep_alive,
                            asio::bind_cancellation_slot(signal.slot(), first.handler()));
            gate.wait_until_entered();
            if (is_cancelled) {
                signal.emit(asio::cancellation_type::terminal);
                c.async_connect(here().host, here().port, keep_alive, second.handler());
            }
            moor::use_registration_service(l.io).close();
            test::run_until(l.io, [&] { return first && (second || !is_cancelled); });
            BOOST_CHECK_EQUAL(first.ec, is_cancelled ? test::aborted : test::gone);
            if (is_cancelled)
                BOOST_CHECK_EQUAL(second.ec, test::gone);
            BOOST_TEST(!c.native_handle()); // the thread has it
            BOOST_CHECK_EQUAL(l.connect(c), test::gone);
            BOOST_TEST(!c.native_handle());
        }
        gate.open();
        l.check_descriptors();
    }
}

BOOST_FIXTURE_TEST_CASE(a_process_that_is_forked_during_a_lookup_holds_nothing_up, counted_loop) {
    int ends[2];
    BOOST_REQUIRE(::pipe(ends) == 0);
    gate.close();
    {
        mosquitto_client c(io);
        test::called done;
        c.async_connect("slow.test", here().port, keep_alive, done.handler());
        gate.wait_until_entered();
        const ::pid_t child = ::fork();
        if (child == 0) { // lives as long as the parent wants
            ::close(ends[1]);
            char byte;
            static_cast<void>(!::read(ends[0], &byte, 1));
            ::_exit(0);
        }
        gate.open();
        test::run_until(io, [&] { return bool(done); });
        BOOST_CHECK_EQUAL(done.ec, error_code());
        check_works(c);
        ::close(ends[0]);
        ::close(ends[1]);
        BOOST_TEST(::waitpid(child, nullptr, 0) == child);
    }
    check_descriptors();
}

BOOST_FIXTURE_TEST_CASE(an_event_of_the_old_connection_leaves_a_lookup_alone, own_broker) {
    answer = accepted;
    accept();
    mosquitto_client c(asio::make_strand(io));
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
    test::run_ready(io);
    const int before = reads_during_a_lookup;
    test::called end, next;
    const auto connect_again = [&] {
        const std::string large(1 << 16, 'x');
        while (!mosquitto_want_write(c.native_handle()))
            c.async_publish("a", large, 0, false, [](error_code) {});
        error_code ec;
        char bytes[4096];
        socket.non_blocking(true);
        while (!ec) // so that DISCONNECT is written at once
            socket.read_some(asio::buffer(bytes), ec);
        c.async_disconnect(end.handler());
        gate.close();
        c.async_connect("slow.test", own_broker::here().port, keep_alive, next.handler());
        gate.wait_until_entered();
    };
    // The loop finds the event, then the strand gets its work, and then the event behind this.
    send(std::string("\xd0\x00", 2));
    asio::post(io, [&] { asio::post(c.get_executor(), connect_again); });
    test::run_ready(io);
    BOOST_CHECK_EQUAL(end.ec, error_code());
    BOOST_TEST(end.times == 1);
    BOOST_TEST(reads_during_a_lookup == before);
    c.close();
    gate.open();
    test::run_ready(io);
    BOOST_CHECK_EQUAL(next.ec, test::aborted);
}

BOOST_FIXTURE_TEST_CASE(a_disconnect_that_was_not_sent_fails, own_broker) {
    answer = accepted;
    for (bool is_reset : {true, false}) {
        reads = true;
        accept();
        mosquitto_client c(io);
        BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
        reads = false;
        test::called published, end;
        message_outcome o;
        c.async_receive(o.handler());
        c.async_publish("a", std::string(32 << 20, 'x'), 0, false, published.handler());
        c.async_disconnect(end.handler());
        test::run_ready(io);
        BOOST_TEST(end.times == 0);
        if (is_reset)
            socket.close(); // with data that was not read
        else
            socket.shutdown(tcp::socket::shutdown_send);
        test::run_until(io, [&] { return end && published && o; });
        BOOST_TEST((end.ec == boost::system::errc::connection_reset), end.ec.message());
        BOOST_CHECK_EQUAL(published.ec, end.ec);
        BOOST_CHECK_EQUAL(o.ec, end.ec);
        BOOST_TEST(!c.is_open());
    }
}

BOOST_FIXTURE_TEST_CASE(a_disconnect_says_farewell_and_a_close_does_not, connected) {
    const std::string t = topic();
    BOOST_CHECK_EQUAL(subscribe(c, t).ec, error_code());
    for (bool is_farewell : {true, false}) {
        mosquitto_client other(io);
        mosquitto_will_set(other.native_handle(), t.c_str(), 4, "will", 1, false);
        BOOST_CHECK_EQUAL(disconnect(other), not_connected);
        BOOST_REQUIRE_EQUAL(connect(other), error_code());
        message_outcome pending;
        test::called zero, one, end, twice;
        other.async_receive(pending.handler());
        other.async_publish(t, "0", 0, false, zero.handler());
        other.async_publish(t, "1", 1, false, one.handler());
        if (is_farewell) {
            other.async_disconnect(end.handler());
            other.async_disconnect(twice.handler());
        } else {
            other.close();
        }
        BOOST_TEST(!other.is_open());
        test::run_all(io);
        BOOST_CHECK_EQUAL(pending.ec, test::aborted);
        BOOST_CHECK_EQUAL(zero.ec, error_code());
        BOOST_CHECK_EQUAL(one.ec, test::aborted);
        BOOST_TEST(end.times == (is_farewell ? 1 : 0));
        BOOST_CHECK_EQUAL(end.ec, error_code());
        BOOST_TEST(twice.ec.failed() == is_farewell);
        BOOST_CHECK_EQUAL(publish(other, t, "late"), not_connected);
        BOOST_CHECK_EQUAL(receive(other).ec, not_connected);
        for (const char* payload : {"0", "1"})
            BOOST_TEST(receive(c).value.payload == payload);
        if (is_farewell)
            BOOST_CHECK_EQUAL(publish(c, t, "none"), error_code());
        BOOST_TEST(receive(c).value.payload == (is_farewell ? "none" : "will"));
    }
}

// ---- messages -----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(messages_of_each_quality_arrive, connected) {
    mosquitto_client other(io);
    BOOST_REQUIRE_EQUAL(connect(other, on_unix_socket()), error_code());
    const std::string t = topic();
    BOOST_TEST(subscribe(c, t + "/#", 2).value == 2);
    for (int qos : {0, 1, 2})
        for (const std::string& payload : {std::string("text"), std::string("a\0b", 3),
                                           std::string(), std::string(5 << 20, 'x')}) {
            BOOST_CHECK_EQUAL(publish(other, t + "/deep", payload, qos), error_code());
            message_outcome o = receive(c);
            BOOST_CHECK_EQUAL(o.ec, error_code());
            BOOST_TEST(o.value.topic == t + "/deep");
            BOOST_TEST((o.value.payload == payload));
            BOOST_TEST(o.value.qos == qos);
            BOOST_TEST(!o.value.retain);
        }
    BOOST_CHECK_EQUAL(publish(c, t + "/#", "no pattern"), invalid);
    BOOST_CHECK_EQUAL(publish(c, "", "no topic"), invalid);
    BOOST_CHECK_EQUAL(publish(c, std::string("a\0b", 3), ""), invalid);
    BOOST_CHECK_EQUAL(publish(c, t, "", 3), invalid);
    BOOST_CHECK_EQUAL(publish(c, "\xff", ""), error_code(mosquitto_error::malformed_utf8));
    BOOST_CHECK_EQUAL(subscribe(c, "a/#/b").ec, invalid);
    BOOST_CHECK_EQUAL(subscribe(c, "a", 3).ec, invalid);
    BOOST_CHECK_EQUAL(subscribe(c, std::string("a\0b", 3)).ec, invalid);
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_unsubscribe("a/#/b", std::move(h)); }), invalid);

    BOOST_CHECK_EQUAL(publish(other, t + "/kept", "kept", 1, true), error_code());
    BOOST_TEST(!receive(c).value.retain);
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_unsubscribe(t + "/#", std::move(h)); }),
                      error_code());
    BOOST_CHECK_EQUAL(publish(other, t, "unheard"), error_code());
    BOOST_TEST(subscribe(c, t + "/kept", 0).value == 0);
    message_outcome o = receive(c);
    BOOST_TEST(o.value.payload == "kept");
    BOOST_TEST(o.value.retain);
    BOOST_TEST(o.value.qos == 0);
    BOOST_CHECK_EQUAL(publish(other, t + "/kept", "", 1, true), error_code()); // forgotten
}

BOOST_FIXTURE_TEST_CASE(the_broker_refuses_what_is_not_allowed, own_broker) {
    // Mosquitto refuses messages only, and ends the connection then.
    for (bool is_newer : {false, true}) {
        mosquitto_client c(io);
        if (is_newer)
            use_mqtt5(c);
        mosquitto_username_pw_set(c.native_handle(), "moor", "key");
        BOOST_REQUIRE_EQUAL(connect(c), error_code());
        BOOST_TEST(subscribe(c, "public/a", 1).value == 1);
        BOOST_CHECK_EQUAL(publish(c, "public/a", "yes"), error_code());
        BOOST_TEST(receive(c).value.payload == "yes");
        // Before MQTT 5, the broker has no way to refuse a message.
        BOOST_CHECK_EQUAL(publish(c, "private/a", "no"), is_newer ? not_authorized : error_code());
    }
    mosquitto_client c(io);
    answer = accepted;
    accept();
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
    outcome<int> s;
    c.async_subscribe("a", 1, s.handler());
    send(std::string("\x90\x03\x00\x01\x80", 5)); // SUBACK: a failure
    test::run_until(io, [&] { return bool(s); });
    BOOST_CHECK_EQUAL(s.ec, error_code(mosquitto_error::unspecified));

    use_mqtt5(c);
    answer = accepted5;
    accept();
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
    test::called once, twice, unheard;
    c.async_publish("a", "2", 2, false, twice.handler());
    c.async_publish("a", "1", 1, false, once.handler());
    c.async_publish("a", "1", 1, false, unheard.handler());
    send(std::string("\x50\x03\x00\x02\x87", 5)); // PUBREC: not authorized
    send(std::string("\x40\x03\x00\x03\x97", 5)); // PUBACK: quota exceeded
    send(std::string("\x40\x03\x00\x04\x10", 5)); // PUBACK: no subscribers
    send(std::string("\x40\x03\x00\x63\x10", 5)); // for a message that there is not
    test::run_until(io, [&] { return once && twice && unheard; });
    BOOST_CHECK_EQUAL(twice.ec, not_authorized);
    BOOST_TEST(once.ec.value() == MQTT_RC_QUOTA_EXCEEDED);
    BOOST_CHECK_EQUAL(unheard.ec, error_code());
    BOOST_TEST(c.is_open());
}

BOOST_FIXTURE_TEST_CASE(properties_of_mqtt_5_come_with_a_message, loop) {
    mosquitto_client c(io);
    use_mqtt5(c);
    BOOST_REQUIRE_EQUAL(connect(c), error_code());
    const std::string t = topic();
    BOOST_REQUIRE_EQUAL(subscribe(c, t).ec, error_code());
    mosquitto_property* list = nullptr;
    BOOST_REQUIRE(mosquitto_property_add_string(&list, MQTT_PROP_CONTENT_TYPE, "text/plain") ==
                  MOSQ_ERR_SUCCESS);
    moor::adapt::mosquitto_properties properties(list);
    BOOST_REQUIRE(mosquitto_publish_v5(c.native_handle(), nullptr, t.c_str(), 3, "own", 1, false,
                                       properties.get()) == MOSQ_ERR_SUCCESS);
    c.touch();
    message_outcome o = receive(c);
    BOOST_REQUIRE(o.value.properties);
    char* type = nullptr;
    BOOST_REQUIRE(mosquitto_property_read_string(o.value.properties.get(), MQTT_PROP_CONTENT_TYPE,
                                                 &type, false));
    BOOST_TEST(type == std::string("text/plain"));
    std::free(type);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(ten_thousand_messages_in_a_row_are_published_and_received, connected) {
    const std::string t = topic();
    BOOST_REQUIRE_EQUAL(subscribe(c, t).ec, error_code());
    for (int qos : {0, 1, 2}) {
        const long most = qos == 2 ? 2000 : 10000;
        long published = 0, received = 0, wrong = 0;
        std::function<void()> publish_next = [&] {
            c.async_publish(t, std::to_string(published), qos, false, [&](error_code ec) {
                wrong += ec.failed();
                if (++published != most)
                    publish_next();
            });
        };
        std::function<void()> receive_next = [&] {
            c.async_receive([&](error_code ec, mqtt_message m) {
                wrong += ec || m.payload != std::to_string(received);
                if (++received != most)
                    receive_next();
            });
        };
        publish_next();
        receive_next();
        const auto before = test::counts();
        {
            const test::watchdog dog(io, 120s); // run_for(): see there
            io.restart();
            io.run();
            BOOST_REQUIRE(!dog.has_bitten());
        }
        BOOST_TEST(published == most);
        BOOST_TEST(received == most);
        BOOST_TEST(wrong == 0);
        const auto used = test::counts() - before;
        BOOST_TEST_MESSAGE("QoS " << qos << ", a message there and back: "
                                  << double(used.turns()) / double(most) << " turns, "
                                  << double(used.poll) / double(most) << " poll, "
                                  << double(used.epoll_ctl) / double(most) << " epoll_ctl, "
                                  << double(used.fstat) / double(most) << " fstat");
    }
}

BOOST_FIXTURE_TEST_CASE(two_hundred_messages_and_clients_at_once, connected) {
    const std::string t = topic();
    BOOST_REQUIRE_EQUAL(subscribe(c, t + "/+").ec, error_code());
    int good = 0;
    for (int i = 0; i != 200; ++i)
        c.async_publish(t + "/a", std::to_string(i), i % 3, false,
                        [&](error_code ec) { good += !ec; });
    test::run_until(io, [&] { return good == 200; });
    std::vector<bool> seen(200);
    for (int i = 0; i != 200; ++i)
        seen[static_cast<std::size_t>(std::stoi(receive(c).value.payload))] = true;
    BOOST_TEST(std::count(seen.begin(), seen.end(), true) == 200);

    std::deque<mosquitto_client> clients;
    int ended = 0, received = 0;
    for (int i = 0; i != 200; ++i) {
        mosquitto_client& each = clients.emplace_back(io);
        each.async_connect(here().host, here().port, keep_alive, [&, i](error_code ec) {
            BOOST_TEST(!ec, ec.message());
            each.async_publish(t + "/b", std::to_string(i), 1, false, [&](error_code e) {
                BOOST_TEST(!e, e.message());
                each.async_disconnect([&](error_code e2) { ended += !e2; });
            });
        });
        c.async_receive([&](error_code ec, mqtt_message) { received += !ec; });
    }
    test::run_until(io, [&] { return ended == 200 && received == 200; });
}

BOOST_FIXTURE_TEST_CASE(messages_that_nobody_waits_for_are_queued_up_to_a_limit, connected) {
    const std::string t = topic();
    BOOST_REQUIRE_EQUAL(subscribe(c, t).ec, error_code());
    c.max_queued(5);
    for (int round = 0; round != 2; ++round) {
        for (int i = 0; i != 10; ++i)
            BOOST_REQUIRE_EQUAL(publish(c, t, std::to_string(i)), error_code());
        serve(c);
        for (int i = 0; i != 5; ++i)
            BOOST_TEST(receive(c).value.payload == std::to_string(i));
        message_outcome o = receive(c);
        BOOST_CHECK_EQUAL(o.ec, error_code(mosquitto_error::messages_dropped));
        BOOST_TEST((o.ec == boost::system::errc::no_buffer_space));
        BOOST_TEST(!o.ec.message().empty());
        BOOST_CHECK_EQUAL(publish(c, t, "next"), error_code());
        BOOST_TEST(receive(c).value.payload == "next");
    }
    // What is queued outlives the connection.
    BOOST_CHECK_EQUAL(publish(c, t, "last"), error_code());
    serve(c);
    BOOST_CHECK_EQUAL(disconnect(c), error_code());
    BOOST_TEST(receive(c).value.payload == "last");
    BOOST_CHECK_EQUAL(receive(c).ec, not_connected);
}

BOOST_FIXTURE_TEST_CASE(a_callback_of_libmosquitto_may_publish, connected) {
    // Which is only queued: without another event, it is sent all the same.
    const std::string t = topic();
    BOOST_REQUIRE_EQUAL(subscribe(c, t + "/#").ec, error_code());
    static std::string answer_topic;
    answer_topic = t + "/answer";
    mosquitto_message_callback_set(
        c.native_handle(), [](::mosquitto* m, void*, const mosquitto_message* message) {
            if (message->topic != answer_topic)
                mosquitto_publish(m, nullptr, answer_topic.c_str(), 4, "done", 0, false);
        });
    BOOST_CHECK_EQUAL(publish(c, t + "/question", "?", 0), error_code());
    BOOST_TEST(receive(c).value.payload == "?");
    BOOST_TEST(receive(c).value.payload == "done");
}

BOOST_FIXTURE_TEST_CASE(a_callback_within_a_publication_may_publish, connected) {
    // libmosquitto calls it for a message of the quality of service 0, before it returns.
    const std::string t = topic();
    BOOST_REQUIRE_EQUAL(subscribe(c, t).ec, error_code());
    static std::function<void()> publish_inner;
    test::called outer, inner;
    publish_inner = [&] { c.async_publish(t, "inner", 0, false, inner.handler()); };
    mosquitto_publish_callback_set(c.native_handle(), [](::mosquitto*, void*, int) {
        if (const auto once = std::exchange(publish_inner, nullptr))
            once();
    });
    c.async_publish(t, "outer", 0, false, outer.handler());
    test::run_until(io, [&] { return outer && inner; });
    BOOST_CHECK_EQUAL(outer.ec, error_code());
    BOOST_CHECK_EQUAL(inner.ec, error_code());
    BOOST_TEST(receive(c).value.payload == "outer");
    BOOST_TEST(receive(c).value.payload == "inner");
}

BOOST_FIXTURE_TEST_CASE(packets_behind_a_callback_that_publishes_are_read_from_one_record_of_tls,
                        loop) {
    // When a callback publishes, libmosquitto also writes to a pipe of its own, which nobody
    // empties. Full, it leaves EAGAIN in errno, although OpenSSL has more to read, and the socket
    // has not.
    const std::string dir = variable("MOOR_SERVERS_DIR") + "/mosquitto/";
    asio::io_context other;
    tcp::acceptor acceptor(other, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    constexpr int most = 1000;
    std::thread broker([&] {
        asio::ssl::context tls(asio::ssl::context::tls_server);
        tls.use_certificate_file(dir + "server.crt", asio::ssl::context::pem);
        tls.use_private_key_file(dir + "server.key", asio::ssl::context::pem);
        asio::ssl::stream<tcp::socket> s(other, tls);
        error_code ec;
        acceptor.accept(s.next_layer(), ec);
        s.handshake(asio::ssl::stream_base::server, ec);
        char bytes[4096];
        s.read_some(asio::buffer(bytes), ec);
        asio::write(s, asio::buffer(accepted), ec);
        for (std::size_t n = 0; !ec && n < most * 6;) // "a": 6 bytes a message
            n += s.read_some(asio::buffer(bytes), ec);
        const std::string one("\x30\x04\x00\x01t1", 6), two("\x30\x04\x00\x01t2", 6);
        asio::write(s, asio::buffer(one + two), ec);
        while (!ec)
            s.read_some(asio::buffer(bytes), ec);
    });
    mosquitto_client c(io);
    use_tls(c);
    mosquitto_message_callback_set(c.native_handle(),
                                   [](::mosquitto* m, void*, const mosquitto_message*) {
                                       mosquitto_publish(m, nullptr, "t", 1, "a", 0, false);
                                   });
    const error_code ec = connect(c, {"localhost", acceptor.local_endpoint().port(), true});
    int published = 0;
    message_outcome one, two;
    if (!ec) {
        c.async_receive(one.handler());
        c.async_receive(two.handler());
        for (int i = 0; i != most; ++i)
            c.async_publish("t", "a", 0, false, [&](error_code e) { published += !e; });
        const auto deadline = std::chrono::steady_clock::now() + test::cap;
        while (!two && std::chrono::steady_clock::now() < deadline)
            io.restart(), io.run_one_until(deadline);
    }
    acceptor.close();
    c.close();
    broker.join();
    test::run_all(io);
    BOOST_CHECK_EQUAL(ec, error_code());
    BOOST_TEST(published == most);
    BOOST_TEST(one.value.payload == "1");
    BOOST_TEST(two.value.payload == "2");
}

BOOST_FIXTURE_TEST_CASE(an_id_that_comes_round_again_completes_the_right_publication, own_broker) {
    answer = accepted;
    accept();
    mosquitto_client c(io);
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
    test::called one;
    c.async_publish("a", "b", 1, false, one.handler()); // which is not acknowledged
    int good = 0;
    constexpr int ids = 65535;
    for (int i = 0; i != ids; ++i) {
        c.async_publish("a", "b", 0, false, [&](error_code ec) { good += !ec; });
        if (i % 1000 == 0 || i == ids - 1)
            test::run_ready(io);
    }
    BOOST_TEST(good == ids);
    BOOST_TEST(one.times == 0);
    c.close();
    test::run_ready(io);
    BOOST_CHECK_EQUAL(one.ec, test::aborted);
}

BOOST_FIXTURE_TEST_CASE(a_turn_of_the_loop_reads_a_limited_number_of_messages, own_broker) {
    answer = accepted;
    accept();
    mosquitto_client c(io);
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
    for (int i = 0; i != 10; ++i) // so that libmosquitto reads ten packets in a call
        c.async_publish("a", "b", 1, false, [](error_code) {});
    test::run_ready(io);
    constexpr int most = 2000;
    std::string messages;
    int arrived = 0, first = 0;
    for (int i = 0; i != most; ++i) {
        messages += std::string("\x30\x03\x00\x01t", 5); // PUBLISH
        c.async_receive([&](error_code, mqtt_message) {
            if (arrived++ == 0)
                asio::post(io, [&] { first = arrived; });
        });
    }
    send(messages);
    test::run_until(io, [&] { return arrived == most; });
    BOOST_TEST(first > 0);
    BOOST_TEST(first < 100);
    c.close();
    test::run_ready(io);
}

BOOST_FIXTURE_TEST_CASE(a_publication_without_memory_harms_no_other, connected,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    bool has_failed = true;
    for (long n = 0; has_failed; ++n)
        BOOST_TEST_CONTEXT("allocation " << n) {
            test::called done;
            {
                test::fault none(test::call::allocation, ENOMEM, n + 1, 1);
                try {
                    c.async_publish("a", "b", 0, false, done.handler());
                } catch (const std::bad_alloc&) {}
                has_failed = none.happened() != 0;
            }
            test::run_ready(io);
            BOOST_CHECK_EQUAL(done.ec, error_code());
            BOOST_TEST((has_failed || done.times == 1));
            check_works(c);
        }
}

BOOST_FIXTURE_TEST_CASE(a_message_without_memory_for_its_properties_is_dropped, own_broker) {
    answer = accepted5;
    accept();
    mosquitto_client c(io);
    use_mqtt5(c);
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
    const std::string bytes("\x30\x07\x00\x01t\x02\x01\x01x", 9); // PUBLISH, with a property
    for (bool has_memory : {false, true}) {
        has_memory_for_properties = has_memory;
        send(bytes);
        message_outcome o = receive(c);
        BOOST_CHECK_EQUAL(o.ec, has_memory ? error_code()
                                           : error_code(mosquitto_error::messages_dropped));
        BOOST_TEST(bool(o.value.properties) == has_memory);
        BOOST_TEST((o.value.payload == "x") == has_memory);
    }
}

BOOST_FIXTURE_TEST_CASE(a_message_without_memory_is_dropped, own_broker,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    answer = accepted;
    accept();
    mosquitto_client c(io);
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
    const std::string topic(20, 't'), payload(20, 'p');
    const std::string bytes = std::string("\x30\x2a\x00\x14", 4) + topic + payload; // PUBLISH
    for (bool is_waiting : {false, true}) {
        bool has_failed = true;
        for (long n = 0; has_failed; ++n)
            BOOST_TEST_CONTEXT("allocation " << n << ", " << is_waiting) {
                message_outcome o;
                if (is_waiting)
                    c.async_receive(o.handler());
                send(bytes);
                {
                    test::fault none(test::call::allocation, ENOMEM, n + 1, 1);
                    test::run_ready(io);
                    has_failed = none.happened() != 0;
                }
                if (!is_waiting)
                    c.async_receive(o.handler());
                test::run_until(io, [&] { return bool(o); });
                if (o.ec != error_code(mosquitto_error::messages_dropped)) {
                    BOOST_CHECK_EQUAL(o.ec, error_code());
                    BOOST_TEST(o.value.payload == payload);
                }
            }
    }
    BOOST_TEST(c.is_open());
}

BOOST_FIXTURE_TEST_CASE(a_wait_that_is_cancelled_loses_no_message, connected) {
    const std::string t = topic();
    asio::cancellation_signal signal;
    message_outcome dropped, last;
    outcome<int> subscribed;
    test::called unsubscribed;
    c.async_subscribe(t, 1, asio::bind_cancellation_slot(signal.slot(), subscribed.handler()));
    signal.emit(asio::cancellation_type::total);
    c.async_receive(asio::bind_cancellation_slot(signal.slot(), dropped.handler()));
    c.async_receive(last.handler());
    signal.emit(asio::cancellation_type::partial);
    BOOST_CHECK_EQUAL(publish(c, t, "one"), error_code()); // the subscription was made
    test::run_until(io, [&] { return bool(last); });
    BOOST_CHECK_EQUAL(subscribed.ec, test::aborted);
    BOOST_CHECK_EQUAL(dropped.ec, test::aborted);
    BOOST_TEST(last.value.payload == "one");
    c.async_unsubscribe(t, asio::bind_cancellation_slot(signal.slot(), unsubscribed.handler()));
    signal.emit(asio::cancellation_type::terminal);
    check_works(c);
    BOOST_CHECK_EQUAL(unsubscribed.ec, test::aborted);
}

// ---- a slow broker ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_slow_broker_meets_a_deadline, connected) {
    const std::string t = topic();
    BOOST_REQUIRE_EQUAL(subscribe(c, t).ec, error_code());
    test::called zero, one, connected_late;
    {
        paused_broker pause;
        asio::cancellation_signal signals[3];
        const std::string large(32 << 20, 'x'); // more than the kernel takes
        mosquitto_client other(io);
        c.async_publish(t, large, 0, false,
                        asio::bind_cancellation_slot(signals[0].slot(), zero.handler()));
        c.async_publish(t, "after", 1, false,
                        asio::bind_cancellation_slot(signals[1].slot(), one.handler()));
        other.async_connect(
            here().host, here().port, keep_alive,
            asio::bind_cancellation_slot(signals[2].slot(), connected_late.handler()));
        asio::steady_timer deadline(io, 20ms);
        deadline.async_wait([&](error_code) {
            BOOST_TEST(zero.times + one.times + connected_late.times == 0);
            for (auto& s : signals)
                s.emit(asio::cancellation_type::terminal);
        });
        test::run_all(io);
    }
    for (const test::called* each : {&zero, &one, &connected_late}) {
        BOOST_TEST(each->times == 1);
        BOOST_CHECK_EQUAL(each->ec, test::aborted);
    }
    // The messages went all the same.
    BOOST_TEST(receive(c).value.payload.size() == 32u << 20);
    BOOST_TEST(receive(c).value.payload == "after");
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_silent_broker_is_found_by_its_missing_answers, own_broker) {
    mosquitto_client c(io);
    use_mqtt5(c);
    answer = accepted5_1s; // the broker's time counts
    accept();
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here(), 0), error_code());
    message_outcome o;
    test::called p;
    c.async_receive(o.handler());
    c.async_publish("a", "b", 1, false, p.handler());
    test::run_until(io, [&] { return o && p; });
    BOOST_CHECK_EQUAL(o.ec, error_code(mosquitto_error::keep_alive_timeout));
    BOOST_CHECK_EQUAL(p.ec, error_code(mosquitto_error::keep_alive_timeout));
    BOOST_TEST((o.ec == boost::system::errc::timed_out));
    BOOST_TEST(pings == 1);
    BOOST_TEST(!c.is_open());

    pings = 0;
    ping_answer = std::string("\xd0\x00", 2);
    accept();
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here(), 0), error_code());
    test::run_until(io, [&] { return pings == 2 || !c.is_open(); });
    BOOST_TEST(c.is_open());
}

// ---- the broker goes ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_broker_that_is_killed_and_started_again_is_used_again, counted_loop) {
    {
        mosquitto_client c(io, "moor-resends", false), tls(io), other(io);
        use_tls(tls);
        for (const char* how : {"immediate", "normal"}) {
            BOOST_REQUIRE_EQUAL(connect(c), error_code());
            BOOST_TEST(!c.is_session_present());
            BOOST_REQUIRE_EQUAL(connect(tls, with_tls()), error_code());
            const std::string t = topic();
            message_outcome o, p;
            test::called one, two;
            outcome<int> s;
            c.async_receive(o.handler());
            tls.async_receive(p.handler());
            test::run_ready(io);
            {
                paused_broker pause;
                c.async_publish(t, "one", 1, false, one.handler());
                c.async_publish(t, "two", 2, false, two.handler());
                c.async_subscribe(t, 1, s.handler());
                test::run_ready(io);
                if (how == std::string("immediate"))
                    control_server("stop mosquitto immediate");
            }
            if (how == std::string("normal"))
                control_server("stop mosquitto");
            test::run_all(io);
            BOOST_TEST((o.ec == boost::system::errc::connection_reset), o.ec.message());
            BOOST_TEST((p.ec == boost::system::errc::connection_reset ||
                        p.ec == error_code(mosquitto_error::tls_failed)),
                       p.ec.message());
            BOOST_TEST(o.times + p.times + one.times + two.times + s.times == 5);
            if (how == std::string("immediate")) {
                BOOST_CHECK_EQUAL(one.ec, o.ec);
                BOOST_CHECK_EQUAL(two.ec, o.ec);
                BOOST_CHECK_EQUAL(s.ec, o.ec);
            }
            BOOST_TEST(!c.is_open());
            BOOST_CHECK_EQUAL(publish(c, t, "never"), not_connected);
            BOOST_CHECK_EQUAL(connect(c), error_code(asio::error::connection_refused));
            BOOST_CHECK_EQUAL(connect(tls, with_tls()),
                              error_code(asio::error::connection_refused));
            control_server("start mosquitto");
            if (how == std::string("immediate")) {
                // libmosquitto sends what was not acknowledged; what was refused it does not have.
                BOOST_REQUIRE_EQUAL(connect(other), error_code());
                BOOST_REQUIRE_EQUAL(subscribe(other, t).ec, error_code());
                BOOST_CHECK_EQUAL(connect(c), error_code());
                BOOST_TEST(receive(other).value.payload == "one");
                BOOST_TEST(receive(other).value.payload == "two");
                BOOST_CHECK_EQUAL(publish(c, t, "three"), error_code());
                BOOST_TEST(receive(other).value.payload == "three");
            }
            BOOST_CHECK_EQUAL(connect(c), error_code());
            check_works(c);
            BOOST_CHECK_EQUAL(connect(tls, with_tls()), error_code());
            check_works(tls);
            control_server("stop mosquitto");
            test::run_all(io);
            control_server("start mosquitto");
        }
    }
    check_descriptors();
}

BOOST_FIXTURE_TEST_CASE(a_session_that_the_broker_keeps_is_found_again, connected) {
    const std::string t = topic();
    {
        mosquitto_client kept(io, "moor-kept", false);
        BOOST_REQUIRE_EQUAL(connect(kept), error_code());
        BOOST_TEST(!kept.is_session_present());
        BOOST_REQUIRE_EQUAL(subscribe(kept, t).ec, error_code());
        kept.close();
        BOOST_CHECK_EQUAL(publish(c, t, "meanwhile"), error_code());
        BOOST_REQUIRE_EQUAL(connect(kept), error_code());
        BOOST_TEST(kept.is_session_present());
        BOOST_TEST(receive(kept).value.payload == "meanwhile");
    }
    mosquitto_client clean(io, "moor-kept", true); // the broker forgets
    BOOST_REQUIRE_EQUAL(connect(clean), error_code());
    BOOST_TEST(!clean.is_session_present());
}

BOOST_FIXTURE_TEST_CASE(a_file_under_the_number_of_a_lost_connection_is_left_alone, own_broker) {
    // libmosquitto closes its descriptor first, then tells the program, and then the adapter.
    answer = accepted;
    accept();
    mosquitto_client c(io);
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
    asio::local::stream_protocol::socket a(io), b(io);
    static std::function<void()> on_end;
    on_end = [&, number = mosquitto_socket(c.native_handle())] {
        asio::local::stream_protocol::socket first(io);
        asio::local::connect_pair(first, b);
        const int fd = ::dup(first.native_handle());
        first.close();
        if (fd != number && ::dup2(fd, number) == number)
            ::close(fd);
        a.assign(asio::local::stream_protocol(), number);
    };
    mosquitto_disconnect_callback_set(c.native_handle(),
                                      [](::mosquitto*, void*, int) { on_end(); });
    message_outcome o;
    c.async_receive(o.handler());
    socket.shutdown(tcp::socket::shutdown_send);
    test::run_until(io, [&] { return bool(o); });
    BOOST_CHECK_EQUAL(o.ec, connection_lost);
    BOOST_REQUIRE(a.is_open());
    test::called read;
    char byte = 0;
    a.async_read_some(asio::buffer(&byte, 1), read.handler());
    test::run_ready(io);
    asio::write(b, asio::buffer("x", 1));
    test::run_until(io, [&] { return bool(read); });
    BOOST_CHECK_EQUAL(read.ec, error_code());
    BOOST_TEST(byte == 'x');
    on_end = nullptr;
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_client_is_destroyed_after_any_turn_of_the_loop, counted_loop) {
    for (const address& to : {here(), by_name(), with_tls()})
        for (int turns = 0;; ++turns) {
            io.restart();
            int started = 1, ended = 0;
            bool is_done = false;
            const std::string t = topic();
            std::optional<mosquitto_client> c(std::in_place, io);
            if (to.has_tls)
                use_tls(*c);
            c->async_connect(to.host, to.port, keep_alive, [&](error_code ec) {
                ++ended;
                if (ec || !c)
                    return;
                started += 4;
                c->async_receive([&](auto&&...) { ++ended; });
                c->async_subscribe(t, 2, [&](error_code, int) { ++ended; });
                c->async_publish(t, "0", 0, false, [&](error_code) { ++ended; });
                c->async_publish(t, "2", 2, false, [&](error_code e) {
                    ++ended;
                    if (e || !c)
                        return;
                    started += 2;
                    c->async_unsubscribe(t, [&](error_code) { ++ended; });
                    c->async_disconnect([&](error_code) {
                        ++ended;
                        is_done = true;
                    });
                });
            });
            for (int i = 0; i != turns && !is_done; ++i)
                io.run_one_for(test::cap);
            const bool was_done = is_done;
            c.reset();
            test::run_all(io);
            BOOST_REQUIRE_EQUAL(ended, started);
            if (was_done)
                break;
        }
    check_descriptors();
}

BOOST_FIXTURE_TEST_CASE(a_client_is_destroyed_in_its_own_handlers, counted_loop) {
    for (int which = 0; which != 6; ++which) {
        std::optional<mosquitto_client> c(std::in_place, io);
        int ended = 0;
        const std::string t = topic();
        const auto end = [&](int i) {
            return [&, i](error_code, auto&&...) {
                ++ended;
                if (i == which)
                    c.reset();
            };
        };
        BOOST_REQUIRE_EQUAL(connect(*c), error_code());
        if (which == 0) {
            c->async_connect(here().host, here().port, keep_alive, end(0));
        } else {
            c->async_subscribe(t, 1, end(1));
            c->async_receive(end(2));
            c->async_publish(t, "0", 0, false, end(3));
            c->async_publish(t, "1", 1, false, end(4));
            if (which == 5)
                c->async_disconnect(end(5));
        }
        test::run_until(io, [&] { return !c; });
        test::run_all(io);
        BOOST_TEST(ended == (which == 0 ? 1 : which == 5 ? 5 : 4));
    }
    check_descriptors();
}

BOOST_AUTO_TEST_CASE(a_client_outlives_its_context) {
    for (const address& to : {here(), by_name(), with_tls(), address{"slow.test", here().port}})
        for (int turns = 0; turns != 8; ++turns) {
            if (to.host == "slow.test")
                gate.close();
            const auto alive = std::make_shared<int>(0);
            auto io = std::make_unique<asio::io_context>();
            mosquitto_client c(*io);
            if (to.has_tls)
                use_tls(c);
            c.async_connect(to.host, to.port, keep_alive, [&, alive](error_code ec) {
                if (ec)
                    return;
                c.async_receive([alive](auto&&...) {});
                c.async_subscribe("a", 1, [alive](auto&&...) {});
                c.async_publish("a", "b", 1, false, [alive](auto&&...) {});
            });
            for (int i = 0; i != turns && to.host != "slow.test"; ++i)
                io->run_one_for(test::cap);
            io.reset();
            BOOST_TEST(alive.use_count() == 1);
            if (turns % 2 == 0)
                c.close();
            gate.open();
        }
}

BOOST_AUTO_TEST_CASE(a_handler_that_owns_the_client_does_not_leak) {
    const auto alive = std::make_shared<int>(0);
    {
        asio::io_context io;
        auto c = std::make_shared<mosquitto_client>(io);
        bool is_open = false;
        c->async_connect(here().host, here().port, keep_alive, [&, c, alive](error_code) {
            is_open = true;
            c->async_receive([c, alive](error_code, mqtt_message) {});
        });
        c.reset();
        test::run_until(io, [&] { return is_open; });
    }
    BOOST_TEST(alive.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(clients_are_moved_and_share_a_handle, connected) {
    const std::string t = topic();
    outcome<int> s;
    c.async_subscribe(t, 1, s.handler());
    mosquitto_client moved(std::move(c));
    message_outcome o;
    moved.async_receive(o.handler());
    mosquitto_client again(std::move(moved));
    moved = std::move(again);
    test::run_until(io, [&] { return bool(s); });
    BOOST_CHECK_EQUAL(s.ec, error_code());
    BOOST_CHECK_EQUAL(publish(moved, t, "moved"), error_code());
    test::run_until(io, [&] { return bool(o); });
    BOOST_TEST(o.value.payload == "moved");
    moved = mosquitto_client(io);
    BOOST_TEST(!moved.is_open());

    int own = 0;
    const std::shared_ptr<::mosquitto> shared(mosquitto_new(nullptr, true, &own),
                                              &mosquitto_destroy);
    {
        mosquitto_client one(io, shared);
        BOOST_TEST(one.native_handle() == shared.get());
        BOOST_REQUIRE_EQUAL(connect(one), error_code());
        check_works(one);
    }
    BOOST_TEST(mosquitto_userdata(shared.get()) == &own);
    BOOST_TEST(shared.use_count() == 1);
}

// ---- nothing to do ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_idle_connection_costs_nothing_and_lets_the_loop_end, connected) {
    test::run_all(io); // returns although the connection is open
    check_works(c);
    BOOST_REQUIRE_EQUAL(connect(c, here(), 0), error_code()); // without keep-alive
    message_outcome o;
    c.async_receive(o.handler());
    test::run_ready(io);
    test::check_costs_nothing(io);
    BOOST_TEST(o.times == 0);
    c.close();
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
}

BOOST_FIXTURE_TEST_CASE(the_end_is_noticed_while_nothing_is_pending, own_broker) {
    mosquitto_client c(io);
    answer = accepted;
    accept();
    BOOST_REQUIRE_EQUAL(connect(c, own_broker::here()), error_code());
    socket.close();
    auto work = asio::make_work_guard(io);
    test::run_until(io, [&] { return !c.is_open(); });
    work.reset();
    BOOST_CHECK_EQUAL(publish(c, "a", "b"), not_connected);
}

// ---- executors and tokens -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_client_runs_on_a_strand_of_a_thread_pool) {
    asio::thread_pool pool(3);
    using strand_type = asio::strand<asio::thread_pool::executor_type>;
    strand_type strand = asio::make_strand(pool.get_executor());
    constexpr int count = 200;
    std::atomic<int> good{0}, outside{0};
    std::promise<void> over;
    moor::adapt::basic_mosquitto_client<strand_type> c(strand);
    use_tls(c);
    use_no_delay(c);
    const std::string t = loop::topic();
    int n = 0;
    std::function<void()> next = [&] {
        outside += !strand.running_in_this_thread();
        if (n == count)
            return c.async_disconnect([&](error_code ec) {
                outside += !strand.running_in_this_thread();
                good += !ec;
                over.set_value();
            });
        c.async_publish(t, std::to_string(n), n % 3, false, [](error_code) {});
        c.async_receive([&](error_code ec, mqtt_message m) {
            good += !ec && m.payload == std::to_string(n);
            ++n;
            next();
        });
    };
    const address to = with_tls();
    asio::post(strand, [&] {
        c.async_connect(to.host, to.port, keep_alive, [&](error_code ec) {
            if (ec)
                return over.set_value();
            c.async_subscribe(t, 2, [&](error_code, int) { next(); });
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
    mosquitto_client c(pool);
    const address to = by_name();
    const std::string t = loop::topic();
    there([&] { return c.async_connect(to.host, to.port, keep_alive, asio::use_future); }).get();
    BOOST_TEST(there([&] { return c.async_subscribe(t, 1, asio::use_future); }).get() == 1);
    std::future<mqtt_message> m = there([&] { return c.async_receive(asio::use_future); });
    there([&] { return c.async_publish(t, "future", 1, false, asio::use_future); }).get();
    BOOST_TEST(m.get().payload == "future");
    there([&] { c.close(); });
    pool.join();
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace {

using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;

asio::awaitable<void> race(mosquitto_client& c, std::string topic, int& good) {
    co_await c.async_connect(by_name().host, by_name().port, keep_alive, use_awaitable);
    good += co_await c.async_subscribe(topic, 1, use_awaitable) == 1;
    asio::steady_timer deadline(co_await asio::this_coro::executor, 20ms);
    auto first = co_await (c.async_receive(asio::as_tuple(use_awaitable)) ||
                           deadline.async_wait(asio::as_tuple(use_awaitable)));
    good += first.index() == 1;
    co_await c.async_publish(topic, "after", 1, false, use_awaitable);
    const mqtt_message m = co_await c.async_receive(use_awaitable);
    good += m.payload == "after";
    try {
        co_await c.async_publish("#", "", 1, false, use_awaitable);
    } catch (const boost::system::system_error& e) {
        good += e.code() == invalid;
    }
    co_await c.async_unsubscribe(topic, use_awaitable);
    co_await c.async_disconnect(use_awaitable);
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_coroutine_races_a_message_against_a_timer, loop) {
    mosquitto_client c(io);
    int good = 0;
    asio::co_spawn(io, race(c, topic(), good), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    test::run_all(io);
    BOOST_TEST(good == 4);
}

#endif

BOOST_AUTO_TEST_SUITE_END()
