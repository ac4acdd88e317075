// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for libcurl against a real server, which servers.sh starts. Without it, each case
// fails.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/full_server.hpp"
#include "support/quiet.hpp"
#include "support/servers.hpp"
#include "support/vocabulary.hpp"

#include <moor/adapt/curl.hpp>
#include <moor/registration.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
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
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <netdb.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

/// Lookups of the name "held.invalid" last until they are released, or for five seconds.
std::atomic<int> lookups_begun{0}, lookups_over{0};
std::atomic<bool> are_lookups_held{false};

} // namespace

/// libcurl's threads call this function instead of the one of the C library.
extern "C" int getaddrinfo(const char* name, const char* service, const addrinfo* hints,
                           addrinfo** result) {
    using function = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
    static const auto real = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "getaddrinfo"));
    if (!name || std::strcmp(name, "held.invalid") != 0)
        return real(name, service, hints, result);
    ++lookups_begun;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (are_lookups_held && std::chrono::steady_clock::now() < limit)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++lookups_over;
    return EAI_NONAME;
}

BOOST_AUTO_TEST_SUITE(curl)

namespace {

namespace asio = boost::asio;
using moor::adapt::curl_error;
using moor::adapt::curl_handle;
using moor::adapt::curl_list;
using moor::adapt::curl_multi;
using test::control_server;
using test::error_code;
using test::variable;
using namespace std::chrono_literals;

const error_code success;

std::string http(const std::string& path) { return variable("MOOR_SERVERS_HTTP") + path; }
std::string https(const std::string& path) { return variable("MOOR_SERVERS_HTTPS") + path; }

/// An easy handle, and what becomes of its transfer.
struct request : test::called {
    curl_handle owner{curl_easy_init()};
    CURL* const easy = owner.get();
    std::string body;
    std::function<void()> on_data;
    bool must_pause = false, must_fail = false;

    explicit request(const std::string& url) {
        static const std::string certificate = variable("MOOR_SERVERS_CERTIFICATE");
        BOOST_REQUIRE(easy);
        set(CURLOPT_URL, url.c_str());
        set(CURLOPT_CAINFO, certificate.c_str());
        set(CURLOPT_NOSIGNAL, 1L);
        set(CURLOPT_WRITEDATA, this);
        set(
            CURLOPT_WRITEFUNCTION, +[](char* p, std::size_t size, std::size_t n, void* self) {
                auto& r = *static_cast<request*>(self);
                if (std::exchange(r.must_pause, false))
                    return std::size_t(CURL_WRITEFUNC_PAUSE);
                if (r.must_fail)
                    return std::size_t(0);
                r.body.append(p, size * n);
                if (r.on_data)
                    r.on_data();
                return size * n;
            });
    }

    /// On any thread: so it is no check of Boost.Test.
    static void called(CURLcode result) {
        if (result != CURLE_OK)
            throw std::runtime_error(curl_easy_strerror(result));
    }
    template <class Value>
    request& set(CURLoption option, Value value) {
        called(curl_easy_setopt(easy, option, value));
        return *this;
    }
    template <class Value>
    Value get(CURLINFO info) const {
        Value value{};
        called(curl_easy_getinfo(easy, info, &value));
        return value;
    }
    long status() const { return get<long>(CURLINFO_RESPONSE_CODE); }
};

/// A context, and calls that run it until a transfer is over.
struct loop : test::context_fixture {
    template <class Multi>
    error_code perform(Multi& m, request& r) {
        r.times = 0;
        r.body.clear();
        m.async_perform(r.easy, r.handler());
        BOOST_TEST(r.times == 0); // not from within the initiating function
        test::run_until(io, [&] { return bool(r); });
        BOOST_TEST(r.times == 1);
        return r.ec;
    }
    template <class Multi>
    void check_works(Multi& m) {
        request r(http("/echo/works"));
        BOOST_CHECK_EQUAL(perform(m, r), success);
        BOOST_TEST(r.body == "/echo/works");
    }
};

/// A multi handle, whose end leaves no descriptor behind.
struct with_multi : loop {
    long descriptors = (prepare_reactor(), test::open_descriptors());
    std::optional<curl_multi> multi{std::in_place, io};
    curl_multi& m = *multi;

    ~with_multi() {
        multi.reset();
        test::run_all(io);
        BOOST_TEST(test::open_descriptors() == descriptors);
    }

private:
    /// The reactor's descriptors belong to the context; libcurl keeps some, too.
    void prepare_reactor() {
        moor::watcher w(io);
        asio::steady_timer t(io, 0s);
        t.async_wait([](error_code) {});
        test::run_all(io);
        curl_multi first(io);
        request r(https("/echo/first"));
        BOOST_REQUIRE_EQUAL(perform(first, r), success);
    }
};

/// A server that accepts connections, by the kernel, and says nothing.
struct silent_server {
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor{io, {asio::ip::address_v4::loopback(), 0}};
    std::string url() const {
        return "http://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()) + "/";
    }
};

/// A TCP connection.
struct connection {
    asio::io_context io;
    asio::ip::tcp::socket client{io}, server{io};

    connection() {
        asio::ip::tcp::acceptor a(io, {asio::ip::address_v4::loopback(), 0});
        client.connect(a.local_endpoint());
        a.accept(server);
    }
};

} // namespace

// ---- transfers ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(transfers_by_each_protocol_of_the_server, with_multi) {
    BOOST_TEST_MESSAGE(curl_version());
    request plain(http("/files/100000")), tls(https("/files/1000000"));
    BOOST_CHECK_EQUAL(perform(m, plain), success);
    BOOST_TEST(plain.body == std::string(100000, 'x'));
    BOOST_TEST(plain.get<long>(CURLINFO_HTTP_VERSION) == long(CURL_HTTP_VERSION_1_1));
    BOOST_CHECK_EQUAL(perform(m, tls), success);
    BOOST_TEST(tls.body == std::string(1000000, 'x'));
    BOOST_TEST(tls.get<long>(CURLINFO_HTTP_VERSION) == long(CURL_HTTP_VERSION_2_0));

    request moved(http("/moved"));
    BOOST_CHECK_EQUAL(perform(m, moved), success);
    BOOST_TEST(moved.status() == 302);
    moved.set(CURLOPT_FOLLOWLOCATION, 1L);
    BOOST_CHECK_EQUAL(perform(m, moved), success);
    BOOST_TEST(moved.body == "/echo/there");

    request missing(http("/missing"));
    BOOST_CHECK_EQUAL(perform(m, missing), success);
    BOOST_TEST(missing.status() == 404);
    missing.set(CURLOPT_FAILONERROR, 1L);
    BOOST_CHECK_EQUAL(perform(m, missing), curl_error(CURLE_HTTP_RETURNED_ERROR));

    request file("file:///etc/hostname"); // without a socket
    BOOST_CHECK_EQUAL(perform(m, file), success);
    BOOST_TEST(!file.body.empty());
}

BOOST_FIXTURE_TEST_CASE(uploads_come_back_as_they_were, with_multi) {
    struct upload {
        std::string data;
        std::size_t sent = 0;
    };
    for (const std::string& url : {http("/uploads/http"), https("/uploads/https")}) {
        upload u{std::string(8 << 20, 'x'), 0};
        for (std::size_t i = 0; i < u.data.size(); i += 997)
            u.data[i] = static_cast<char>('a' + i % 26);
        request put(url), get(url);
        put.set(CURLOPT_UPLOAD, 1L).set(CURLOPT_READDATA, &u);
        put.set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(u.data.size()));
        put.set(
            CURLOPT_READFUNCTION, +[](char* p, std::size_t size, std::size_t n, void* self) {
                auto& from = *static_cast<upload*>(self);
                const std::size_t part = (std::min)(size * n, from.data.size() - from.sent);
                std::memcpy(p, from.data.data() + from.sent, part);
                from.sent += part;
                return part;
            });
        curl_list headers(curl_slist_append(nullptr, "Expect:"));
        put.set(CURLOPT_HTTPHEADER, headers.get());
        BOOST_CHECK_EQUAL(perform(m, put), success);
        BOOST_TEST(put.status() == 201);
        BOOST_CHECK_EQUAL(perform(m, get), success);
        BOOST_TEST((get.body == u.data));
    }
}

BOOST_FIXTURE_TEST_CASE(a_transfer_that_fails_says_why, with_multi) {
    request refused("http://127.0.0.1:1/"), malformed("http:///"), unknown("colour://blue/"),
        untrusted(https("/echo/x"));
    BOOST_CHECK_EQUAL(perform(m, refused), curl_error(CURLE_COULDNT_CONNECT));
    BOOST_TEST((refused.ec == boost::system::errc::connection_refused));
    BOOST_TEST(refused.ec.category().name() == std::string("libcurl"));
    BOOST_TEST(refused.ec.message() == curl_easy_strerror(CURLE_COULDNT_CONNECT));
    BOOST_CHECK_EQUAL(perform(m, malformed), curl_error(CURLE_URL_MALFORMAT));
    BOOST_TEST((malformed.ec == boost::system::errc::invalid_argument));
    BOOST_CHECK_EQUAL(perform(m, unknown), curl_error(CURLE_UNSUPPORTED_PROTOCOL));
    BOOST_TEST((unknown.ec != boost::system::errc::invalid_argument));
    untrusted.set(CURLOPT_CAINFO, "/dev/null");
    BOOST_CHECK_EQUAL(perform(m, untrusted), curl_error(CURLE_SSL_CACERT_BADFILE));

    test::called none;
    m.async_perform(nullptr, none.handler());
    BOOST_TEST(none.times == 0);
    test::run_all(io);
    BOOST_CHECK_EQUAL(none.ec, curl_error(CURLM_BAD_EASY_HANDLE));
    BOOST_TEST((none.ec == boost::system::errc::invalid_argument));
    check_works(m);
}

BOOST_FIXTURE_TEST_CASE(an_easy_handle_has_one_transfer_at_a_time, with_multi) {
    curl_multi other(io);
    request r(http("/echo/once"));
    test::called again, elsewhere;
    m.async_perform(r.easy, r.handler());
    m.async_perform(r.easy, again.handler());
    other.async_perform(r.easy, elsewhere.handler());
    test::run_all(io);
    BOOST_CHECK_EQUAL(again.ec, curl_error(CURLM_ADDED_ALREADY));
    BOOST_CHECK_EQUAL(elsewhere.ec, curl_error(CURLM_ADDED_ALREADY));
    BOOST_TEST((again.ec == boost::system::errc::device_or_resource_busy));
    BOOST_TEST(again.ec.category().name() == std::string("libcurl multi"));
    BOOST_TEST(again.ec.message() == curl_multi_strerror(CURLM_ADDED_ALREADY));
    BOOST_CHECK_EQUAL(r.ec, success);
    BOOST_TEST(r.body == "/echo/once");
    BOOST_CHECK_EQUAL(perform(other, r), success);
}

BOOST_FIXTURE_TEST_CASE(ten_thousand_transfers_in_a_row_give_their_results, with_multi) {
    const long most = 10000;
    long n = 0, wrong = 0, connects = 0;
    request r(http("/echo/0"));
    std::function<void()> next = [&] {
        const std::string path = "/echo/" + std::to_string(n);
        r.body.clear();
        r.set(CURLOPT_URL, http(path).c_str());
        m.async_perform(r.easy, [&, path](error_code ec) {
            wrong += ec || r.body != path;
            connects += r.get<long>(CURLINFO_NUM_CONNECTS);
            if (++n != most)
                next();
        });
    };
    next();
    const auto before = test::counts();
    {
        const test::watchdog dog(io, 120s); // run_for(): see there
        io.restart();
        io.run();
        BOOST_REQUIRE(!dog.has_bitten());
    }
    BOOST_TEST(n == most);
    BOOST_TEST(wrong == 0);
    BOOST_TEST(connects <= most / 1000 + 1); // the server closes after 1,000 requests
    const auto used = test::counts() - before;
    BOOST_TEST_MESSAGE("a transfer: " << double(used.turns()) / double(most) << " turns, "
                                      << double(used.poll) / double(most) << " poll, "
                                      << double(used.epoll_ctl) / double(most) << " epoll_ctl, "
                                      << double(used.fstat) / double(most) << " fstat");
}

BOOST_FIXTURE_TEST_CASE(two_hundred_transfers_at_once_give_their_results, with_multi) {
    struct way {
        std::function<std::string(const std::string&)> url;
        long most_connections;
    };
    for (const way& w : {way{http, 0}, way{http, 6}, way{https, 0}, way{https, 6}}) {
        curl_multi other(io);
        curl_multi_setopt(other.native_handle(), CURLMOPT_MAX_HOST_CONNECTIONS, w.most_connections);
        std::deque<request> requests;
        for (int i = 0; i != 200; ++i) {
            request& r = requests.emplace_back(w.url("/echo/" + std::to_string(i)));
            r.set(CURLOPT_PIPEWAIT, 1L); // HTTP/2: streams of one connection
            other.async_perform(r.easy, r.handler());
        }
        test::run_all(io);
        long connects = 0;
        for (std::size_t i = 0; i != requests.size(); ++i) {
            BOOST_CHECK_EQUAL(requests[i].ec, success);
            BOOST_TEST(requests[i].times == 1);
            BOOST_TEST(requests[i].body == "/echo/" + std::to_string(i));
            connects += requests[i].get<long>(CURLINFO_NUM_CONNECTS);
        }
        BOOST_TEST_MESSAGE(connects << " connections");
        if (w.most_connections != 0)
            BOOST_TEST(connects <= w.most_connections);
    }
}

BOOST_FIXTURE_TEST_CASE(connections_that_the_server_closes_are_replaced, with_multi) {
    // Numbers of sockets are used again at once, by libcurl and by others.
    std::deque<request> requests;
    int good = 0, left = 300;
    std::function<void(request&)> start = [&](request& r) {
        r.body.clear();
        const std::string path = (left % 2 ? "/close/" : "/echo/") + std::to_string(left);
        --left;
        r.set(CURLOPT_URL, http(path).c_str());
        m.async_perform(r.easy, [&, path](error_code ec) {
            good += !ec && r.body == path;
            const connection c; // takes numbers, and gives them back
            if (left > 0)
                start(r);
        });
    };
    for (int i = 0; i != 10; ++i)
        start(requests.emplace_back(http("/")));
    test::run_all(io);
    BOOST_TEST(good == 300);
}

// ---- cancellation, deadlines, pauses ------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_transfer_is_cancelled_at_any_turn, with_multi) {
    request other(http("/slow/1000000"));
    m.async_perform(other.easy, other.handler());
    for (const std::string& url : {http("/never/100000"), https("/never/100000"), http("/echo/x")})
        for (auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                          asio::cancellation_type::total})
            for (std::size_t turns : {0u, 1u, 2u, 3u, 4u, 5u, 8u, 12u}) {
                request r(url);
                asio::cancellation_signal signal;
                m.async_perform(r.easy, asio::bind_cancellation_slot(signal.slot(), r.handler()));
                for (std::size_t i = 0; i != turns && !r; ++i)
                    io.poll_one();
                const bool was_over = bool(r);
                signal.emit(type);
                signal.emit(type);
                BOOST_TEST(bool(r) == was_over);
                test::run_until(io, [&] { return bool(r); });
                BOOST_TEST((r.ec == test::aborted || !r.ec));
                BOOST_TEST(r.times == 1);
                signal.emit(type);
            }
    BOOST_TEST(other.times == 0);
    m.cancel();
    test::run_all(io);
    BOOST_CHECK_EQUAL(other.ec, test::aborted);
    BOOST_TEST(other.times == 1);
    m.cancel();
    check_works(m);
}

BOOST_FIXTURE_TEST_CASE(a_stream_is_cancelled_and_the_others_of_its_connection_go_on, with_multi) {
    request first(https("/files/1000"));
    BOOST_CHECK_EQUAL(perform(m, first), success); // makes the connection
    request slow(https("/slow/100000")), never(https("/never/100000"));
    asio::cancellation_signal signal;
    m.async_perform(slow.easy, slow.handler());
    m.async_perform(never.easy, asio::bind_cancellation_slot(signal.slot(), never.handler()));
    slow.on_data = [&] { signal.emit(asio::cancellation_type::total); };
    test::run_all(io);
    BOOST_CHECK_EQUAL(never.ec, test::aborted);
    BOOST_CHECK_EQUAL(slow.ec, success);
    BOOST_TEST(slow.body.size() == 100000u);
    BOOST_TEST(slow.get<long>(CURLINFO_NUM_CONNECTS) == 0);
    BOOST_TEST(never.get<long>(CURLINFO_NUM_CONNECTS) == 0);
}

BOOST_FIXTURE_TEST_CASE(a_slow_server_meets_a_deadline, with_multi) {
    const silent_server silent;
    for (const std::string& url : {silent.url(), http("/never/100000"), https("/never/100000")}) {
        request r(url);
        r.set(CURLOPT_TIMEOUT_MS, 50L);
        BOOST_CHECK_EQUAL(perform(m, r), curl_error(CURLE_OPERATION_TIMEDOUT));
        BOOST_TEST((r.ec == boost::system::errc::timed_out));
        r.set(CURLOPT_TIMEOUT_MS, 0L);

        asio::cancellation_signal signal;
        asio::steady_timer timer(io, 50ms);
        timer.async_wait([&](error_code) { signal.emit(asio::cancellation_type::terminal); });
        r.times = 0;
        m.async_perform(r.easy, asio::bind_cancellation_slot(signal.slot(), r.handler()));
        test::run_all(io);
        BOOST_CHECK_EQUAL(r.ec, test::aborted);
    }
    check_works(m);
}

BOOST_FIXTURE_TEST_CASE(timeouts_need_no_event_and_each_transfer_has_its_own, with_multi) {
    const silent_server silent;
    std::deque<request> requests;
    for (int i = 0; i != 20; ++i) {
        request& r = requests.emplace_back(silent.url());
        r.set(CURLOPT_TIMEOUT_MS, i % 2 ? 30L : 60L + i);
        m.async_perform(r.easy, r.handler());
    }
    test::run_all(io);
    for (const request& r : requests)
        BOOST_CHECK_EQUAL(r.ec, curl_error(CURLE_OPERATION_TIMEDOUT));
}

BOOST_FIXTURE_TEST_CASE(a_paused_transfer_costs_nothing_and_goes_on, with_multi) {
    for (const int way : {0, 1, 2, 3}) {
        const bool is_cancelled = way % 2 != 0;
        request r(way < 2 ? http("/files/1000000") : https("/files/1000000"));
        asio::cancellation_signal signal;
        r.must_pause = true;
        m.async_perform(r.easy, asio::bind_cancellation_slot(signal.slot(), r.handler()));
        test::run_until(io, [&] { return !r.must_pause; });
        test::run_ready(io);
        test::check_is_quiet(io);
        BOOST_TEST(r.times == 0);
        BOOST_TEST(r.body.empty());
        // libcurl calls the write function from within.
        r.on_data = [&] {
            BOOST_TEST(r.times == 0);
            if (is_cancelled)
                signal.emit(asio::cancellation_type::total);
        };
        BOOST_TEST(m.pause(r.easy, CURLPAUSE_CONT) == CURLE_OK);
        BOOST_TEST(!r.body.empty());
        test::run_all(io);
        BOOST_CHECK_EQUAL(r.ec, is_cancelled ? test::aborted : success);
        BOOST_TEST((r.body.size() == 1000000u) == !is_cancelled);
    }
    BOOST_TEST(m.pause(nullptr, CURLPAUSE_CONT) == CURLE_BAD_FUNCTION_ARGUMENT);
}

BOOST_FIXTURE_TEST_CASE(a_callback_that_fails_while_a_transfer_is_resumed_ends_it, with_multi) {
    for (const std::string& url : {http("/files/1000000"), https("/files/1000000")}) {
        request r(url);
        r.must_pause = true;
        m.async_perform(r.easy, r.handler());
        test::run_until(io, [&] { return !r.must_pause; });
        test::run_ready(io);
        r.must_fail = true;
        BOOST_TEST(m.pause(r.easy, CURLPAUSE_CONT) == CURLE_WRITE_ERROR);
        BOOST_TEST(r.times == 0);
        r.must_fail = false; // libcurl would go on without the data
        test::run_all(io);
        BOOST_CHECK_EQUAL(r.ec, curl_error(CURLE_WRITE_ERROR));
    }
}

// ---- within libcurl's callbacks -----------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(transfers_are_started_and_cancelled_within_callbacks, with_multi) {
    for (const std::string& url : {http("/slow/1000000"), https("/slow/1000000")}) {
        request r(url), next(http("/echo/next")), never(http("/never/100000"));
        asio::cancellation_signal own, others;
        int calls = 0;
        m.async_perform(never.easy, asio::bind_cancellation_slot(others.slot(), never.handler()));
        r.on_data = [&] {
            if (++calls != 1)
                return;
            m.async_perform(next.easy, next.handler());
            others.emit(asio::cancellation_type::terminal);
            own.emit(asio::cancellation_type::terminal);
            BOOST_TEST(r.times + next.times + never.times == 0);
        };
        m.async_perform(r.easy, asio::bind_cancellation_slot(own.slot(), r.handler()));
        test::run_all(io);
        BOOST_CHECK_EQUAL(r.ec, test::aborted);
        BOOST_CHECK_EQUAL(never.ec, test::aborted);
        BOOST_CHECK_EQUAL(next.ec, success);
        BOOST_TEST(next.body == "/echo/next");
        BOOST_TEST(r.times + next.times + never.times == 3);

        // Started and cancelled in the same callback.
        calls = 0;
        r.on_data = [&] {
            if (++calls != 1)
                return;
            m.async_perform(never.easy,
                            asio::bind_cancellation_slot(others.slot(), never.handler()));
            others.emit(asio::cancellation_type::terminal);
        };
        r.set(CURLOPT_URL, http("/files/100000").c_str());
        BOOST_CHECK_EQUAL(perform(m, r), success);
        test::run_all(io);
        BOOST_CHECK_EQUAL(never.ec, test::aborted);
        BOOST_TEST(never.times == 2);
    }
}

BOOST_FIXTURE_TEST_CASE(transfers_are_started_while_another_one_is_removed, with_multi) {
    std::deque<request> others;
    for (int i = 0; i != 100; ++i)
        others.emplace_back(http("/echo/" + std::to_string(i)));
    std::function<void()> start = [&] {
        for (request& r : others)
            m.async_perform(r.easy, r.handler());
    };
    request never(http("/never/100000"));
    never.set(CURLOPT_CLOSESOCKETDATA, &start);
    never.set(
        CURLOPT_CLOSESOCKETFUNCTION, +[](void* f, curl_socket_t s) {
            (*static_cast<std::function<void()>*>(f))();
            return ::close(s);
        });
    asio::cancellation_signal signal;
    m.async_perform(never.easy, asio::bind_cancellation_slot(signal.slot(), never.handler()));
    test::run_until(io, [&] { return !never.body.empty(); });
    signal.emit(asio::cancellation_type::total); // closes the connection
    test::run_all(io);
    BOOST_CHECK_EQUAL(never.ec, test::aborted);
    for (std::size_t i = 0; i != others.size(); ++i) {
        BOOST_CHECK_EQUAL(others[i].ec, success);
        BOOST_TEST(others[i].body == "/echo/" + std::to_string(i));
    }
}

BOOST_FIXTURE_TEST_CASE(the_object_is_closed_or_destroyed_within_callbacks, with_multi) {
    for (const bool is_destroyed : {false, true})
        for (const std::string& url : {http("/slow/1000000"), https("/slow/1000000")})
            for (const bool is_progress : {false, true}) {
                std::optional<curl_multi> c(std::in_place, io);
                request r(url), other(http("/never/100000")), late(http("/echo/late"));
                std::function<void()> end = [&] {
                    if (!c || !c->native_handle() || r.body.empty())
                        return;
                    if (is_destroyed) {
                        c.reset();
                    } else if (!late) {
                        c->close();
                        c->close();
                        c->async_perform(late.easy, late.handler());
                        c->cancel();
                    }
                };
                if (is_progress) {
                    r.set(CURLOPT_NOPROGRESS, 0L).set(CURLOPT_XFERINFODATA, &end);
                    r.set(
                        CURLOPT_XFERINFOFUNCTION,
                        +[](void* f, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
                            (*static_cast<std::function<void()>*>(f))();
                            return 0;
                        });
                } else {
                    r.on_data = end;
                }
                c->async_perform(other.easy, other.handler());
                c->async_perform(r.easy, r.handler());
                test::run_all(io);
                BOOST_CHECK_EQUAL(r.ec, test::aborted);
                BOOST_CHECK_EQUAL(other.ec, test::aborted);
                BOOST_TEST(r.times + other.times == 2);
                BOOST_TEST(c.has_value() == !is_destroyed);
                if (c) {
                    BOOST_CHECK_EQUAL(late.ec, curl_error(CURLM_BAD_HANDLE));
                    BOOST_TEST(!c->native_handle());
                    BOOST_CHECK_EQUAL(perform(*c, other), curl_error(CURLM_BAD_HANDLE));
                }
            }
}

BOOST_FIXTURE_TEST_CASE(the_object_is_destroyed_while_it_is_closed, with_multi) {
    std::optional<curl_multi> c(std::in_place, io);
    std::function<void()> end = [&] { c.reset(); };
    request never(http("/never/100000"));
    never.set(CURLOPT_CLOSESOCKETDATA, &end);
    never.set(
        CURLOPT_CLOSESOCKETFUNCTION, +[](void* f, curl_socket_t s) {
            (*static_cast<std::function<void()>*>(f))();
            return ::close(s);
        });
    c->async_perform(never.easy, never.handler());
    test::run_until(io, [&] { return !never.body.empty(); });
    c->close(); // closes the connection
    BOOST_TEST(!c);
    test::run_all(io);
    BOOST_CHECK_EQUAL(never.ec, test::aborted);
}

BOOST_FIXTURE_TEST_CASE(progress_is_told_by_libcurl, with_multi) {
    struct progress {
        curl_off_t now = 0, total = 0;
        int calls = 0;
    } p;
    request r(http("/slow/100000"));
    r.set(CURLOPT_NOPROGRESS, 0L).set(CURLOPT_XFERINFODATA, &p);
    r.set(
        CURLOPT_XFERINFOFUNCTION,
        +[](void* self, curl_off_t total, curl_off_t now, curl_off_t, curl_off_t) {
            auto& to = *static_cast<progress*>(self);
            BOOST_TEST(now >= to.now);
            to.now = now;
            to.total = total;
            ++to.calls;
            return 0;
        });
    BOOST_CHECK_EQUAL(perform(m, r), success);
    BOOST_TEST(p.now == 100000);
    BOOST_TEST(p.total == 100000);
    BOOST_TEST(p.calls > 2);

    r.set(
        CURLOPT_XFERINFOFUNCTION,
        +[](void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return 1; });
    BOOST_CHECK_EQUAL(perform(m, r), curl_error(CURLE_ABORTED_BY_CALLBACK));
    BOOST_TEST((r.ec == boost::system::errc::operation_canceled));
}

BOOST_FIXTURE_TEST_CASE(an_error_of_the_multi_handle_ends_all_transfers, with_multi) {
    curl_multi other(io);
    curl_multi_setopt(
        other.native_handle(), CURLMOPT_SOCKETFUNCTION,
        +[](CURL*, curl_socket_t, int, void*, void*) { return -1; });
    request one(http("/echo/1")), two(http("/never/100000"));
    other.async_perform(one.easy, one.handler());
    other.async_perform(two.easy, two.handler());
    test::run_all(io);
    for (const request* r : {&one, &two}) {
        BOOST_TEST(r->times == 1);
        BOOST_TEST((r->ec == curl_error(CURLM_ABORTED_BY_CALLBACK) ||
                    r->ec == curl_error(CURLE_ABORTED_BY_CALLBACK)),
                   r->ec.message());
    }
}

// ---- sockets ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_number_that_stands_for_another_socket_is_watched_anew, loop) {
    using session = moor::adapt::detail::curl_session<asio::any_io_executor>;
    const auto s = std::make_shared<session>(io.get_executor());
    auto& service = moor::use_registration_service(io);
    connection first, second, third;
    const int fd = ::dup(first.client.native_handle());
    s->watch(nullptr, fd, CURL_POLL_IN);
    test::run_all(io); // which returns: only operations are work
    // Closed, and another one under the number, without CURL_POLL_REMOVE.
    BOOST_REQUIRE(::dup2(second.client.native_handle(), fd) == fd);
    s->watch(nullptr, fd, CURL_POLL_IN);
    const auto before = service.metrics().events_delivered;
    asio::write(second.server, asio::buffer("x", 1));
    {
        auto work = asio::make_work_guard(io); // the watch is none
        test::run_until(io, [&] { return service.metrics().events_delivered != before; });
    }
    // Closed, and CURL_POLL_REMOVE afterwards, when the number is another's already.
    ::close(fd);
    const int reused = ::dup(third.client.native_handle());
    BOOST_REQUIRE(reused == fd);
    s->watch(nullptr, fd, CURL_POLL_REMOVE);
    test::called done;
    moor::registration another(io, reused);
    another.async_wait_readable(done.handler());
    s->watch(nullptr, fd + 1000, CURL_POLL_REMOVE); // never seen
    asio::write(third.server, asio::buffer("x", 1));
    test::run_until(io, [&] { return bool(done); });
    BOOST_CHECK_EQUAL(done.ec, success);
    another.deregister();
    ::close(fd);
    s->watch(nullptr, fd, CURL_POLL_IN); // a number that is closed is reported to libcurl, once
    test::run_ready(io);
    s->close();
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_socket_that_the_program_ends_or_replaces_does_no_harm, with_multi) {
    for (const bool is_replaced : {false, true})
        for (const std::string& url : {http("/never/100000"), https("/never/100000")}) {
            curl_socket_t s = CURL_SOCKET_BAD;
            request r(url);
            r.set(CURLOPT_SOCKOPTDATA, &s);
            r.set(
                CURLOPT_SOCKOPTFUNCTION, +[](void* to, curl_socket_t opened, curlsocktype) {
                    *static_cast<curl_socket_t*>(to) = opened;
                    return int(CURL_SOCKOPT_OK);
                });
            m.async_perform(r.easy, r.handler());
            test::run_until(io, [&] { return !r.body.empty(); });
            connection other;
            if (is_replaced) { // libcurl may not notice
                BOOST_REQUIRE(::dup2(other.client.native_handle(), s) == s);
                test::run_ready(io);
                m.cancel();
            } else {
                BOOST_REQUIRE(::shutdown(s, SHUT_RDWR) == 0);
            }
            test::run_all(io);
            BOOST_TEST(r.ec.failed());
            BOOST_TEST(r.times == 1);
            check_works(m);
        }
}

BOOST_FIXTURE_TEST_CASE(a_socket_that_cannot_be_watched_ends_its_transfer, with_multi) {
    // Another registration has the socket.
    struct opened {
        asio::io_context* io;
        std::optional<moor::registration> other;
    } o{&io, {}};
    request r(http("/echo/x"));
    r.set(CURLOPT_OPENSOCKETDATA, &o);
    r.set(
        CURLOPT_OPENSOCKETFUNCTION, +[](void* to, curlsocktype, curl_sockaddr* a) {
            auto& self = *static_cast<opened*>(to);
            const curl_socket_t s = ::socket(a->family, a->socktype, a->protocol);
            self.other.emplace(*self.io, s);
            return s;
        });
    r.set(CURLOPT_CLOSESOCKETDATA, &o);
    r.set(
        CURLOPT_CLOSESOCKETFUNCTION, +[](void* to, curl_socket_t s) {
            static_cast<opened*>(to)->other.reset();
            return ::close(s);
        });
    const error_code ec = perform(m, r);
    BOOST_TEST(ec.failed());
    BOOST_TEST_MESSAGE(ec.message());
    // libcurl does not learn of it while it connects.
    const test::full_server full;
    const std::string url = "http://127.0.0.1:" + std::to_string(full.port());
    r.set(CURLOPT_URL, url.c_str());
    BOOST_CHECK_EQUAL(perform(m, r), make_error_code(moor::error::already_registered));
    m.close();
}

BOOST_FIXTURE_TEST_CASE(a_name_that_is_being_looked_up_holds_nothing_up, loop) {
    BOOST_TEST((curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS) != 0);
    const bool is_threaded = !curl_version_info(CURLVERSION_NOW)->ares;
    for (const int way : {0, 1, 2}) {
        are_lookups_held = true;
        lookups_begun = lookups_over = 0;
        {
            std::optional<curl_multi> m(std::in_place, io);
            request r("http://held.invalid/");
            asio::cancellation_signal signal;
            if (way == 2)
                r.set(CURLOPT_TIMEOUT_MS, 50L);
            m->async_perform(r.easy, asio::bind_cancellation_slot(signal.slot(), r.handler()));
            test::run_ready(io);
            if (is_threaded)
                BOOST_TEST(test::wait_for([] { return lookups_begun != 0; }));
            check_works(*m); // meanwhile
            if (way == 0)
                signal.emit(asio::cancellation_type::total);
            if (way == 1)
                m.reset();
            test::run_until(io, [&] { return bool(r); });
            BOOST_CHECK_EQUAL(r.ec,
                              way == 2 ? curl_error(CURLE_OPERATION_TIMEDOUT) : test::aborted);
        }
        BOOST_TEST(lookups_over == 0); // the transfer did not wait
        are_lookups_held = false;
        if (is_threaded)
            BOOST_TEST(test::wait_for([] { return lookups_over == lookups_begun; }));
    }
    curl_multi m(io);
    request unknown("http://held.invalid/");
    BOOST_CHECK_EQUAL(perform(m, unknown), curl_error(CURLE_COULDNT_RESOLVE_HOST));
}

// ---- the server goes ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_server_that_is_killed_and_started_again_is_used_again, with_multi) {
    for (const char* mode : {"immediate", "fast"}) {
        check_works(m); // keeps a connection
        request slow(http("/slow/1000000")), tls(https("/slow/1000000"));
        m.async_perform(slow.easy, slow.handler());
        m.async_perform(tls.easy, tls.handler());
        test::run_until(io, [&] { return !slow.body.empty() && !tls.body.empty(); });
        control_server(std::string("stop nginx ") + mode);
        test::run_all(io);
        for (const request* r : {&slow, &tls}) {
            BOOST_TEST((r->ec.category() == moor::adapt::curl_category()));
            BOOST_TEST(
                (r->ec == curl_error(CURLE_PARTIAL_FILE) || r->ec == curl_error(CURLE_RECV_ERROR) ||
                 r->ec == curl_error(CURLE_HTTP2_STREAM) || r->ec == curl_error(CURLE_HTTP2)),
                r->ec.message());
        }
        request refused(http("/echo/x"));
        BOOST_CHECK_EQUAL(perform(m, refused), curl_error(CURLE_COULDNT_CONNECT));
        control_server("start nginx");
        check_works(m);
        BOOST_CHECK_EQUAL(perform(m, refused), success);
    }
    // The server closes a kept connection while nobody looks.
    request r(https("/echo/kept"));
    BOOST_CHECK_EQUAL(perform(m, r), success);
    control_server("stop nginx immediate");
    control_server("start nginx");
    check_works(m);
    BOOST_CHECK_EQUAL(perform(m, r), success);
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_object_is_destroyed_after_any_turn_of_the_loop, with_multi) {
    const std::string urls[] = {http("/echo/x"), https("/files/1000"), http("/moved"),
                                "http://localhost:1/"};
    for (int turns = 0, left = 1; left != 0; ++turns) {
        std::deque<request> requests;
        for (const std::string& url : urls)
            requests.emplace_back(url).set(CURLOPT_FOLLOWLOCATION, 1L);
        std::optional<curl_multi> c(std::in_place, io);
        for (request& r : requests)
            c->async_perform(r.easy, r.handler());
        const auto count_left = [&] {
            return std::count_if(requests.begin(), requests.end(),
                                 [](const request& r) { return !r; });
        };
        for (int i = 0; i != turns && count_left() != 0; ++i) {
            io.restart();
            io.run_one_for(test::cap);
        }
        left = static_cast<int>(count_left());
        c.reset();
        test::run_all(io);
        for (const request& r : requests)
            BOOST_REQUIRE_EQUAL(r.times, 1);
    }
}

BOOST_AUTO_TEST_CASE(an_object_outlives_its_context) {
    // The handlers own the easy handles, or do not. (libcurl 7.88 leaks 256 bytes if an easy handle
    // is freed during a transfer by HTTP/2.)
    for (const bool is_owned : {false, true})
        for (int turns = 0; turns != 12; ++turns) {
            auto alive = std::make_shared<int>(0);
            std::deque<std::shared_ptr<request>> requests;
            std::optional<curl_multi> m;
            {
                asio::io_context io;
                m.emplace(io);
                for (const char* path : {"/never/100000", "/never/1000", "/never/1000000"}) {
                    auto r = std::make_shared<request>(is_owned ? http(path) : https(path));
                    m->async_perform(r->easy, [alive, r](error_code) {});
                    if (!is_owned)
                        requests.push_back(r);
                }
                for (int i = 0; i != turns; ++i)
                    io.poll_one();
            }
            BOOST_TEST(alive.use_count() == 1);
            if (turns % 2)
                m->close();
            m.reset();
        }
    // A strand is gone with its context.
    using strand_type = asio::strand<asio::io_context::executor_type>;
    std::optional<moor::adapt::basic_curl_multi<strand_type>> m;
    auto r = std::make_shared<request>(https("/never/100000"));
    {
        asio::io_context io;
        m.emplace(asio::make_strand(io));
        m->async_perform(r->easy, [r](error_code) {});
        r->on_data = [&] { io.stop(); };
        io.run_for(test::cap);
        r->on_data = nullptr;
    }
    m.reset();
}

BOOST_FIXTURE_TEST_CASE(a_handler_that_owns_the_object_does_not_leak, loop) {
    auto alive = std::make_shared<int>(0);
    {
        asio::io_context other;
        auto m = std::make_shared<curl_multi>(other);
        auto r = std::make_shared<request>(http("/never/100000"));
        m->async_perform(r->easy, [m, r, alive](error_code) {});
        m.reset();
        for (int i = 0; i != 5; ++i)
            other.poll_one();
    }
    BOOST_TEST(alive.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(an_object_is_destroyed_in_its_own_handler, loop) {
    auto m = std::make_unique<curl_multi>(io);
    request one(http("/echo/1")), two(http("/never/100000"));
    m->async_perform(two.easy, two.handler());
    m->async_perform(one.easy, [&](error_code ec) {
        one.ec = ec;
        m.reset();
    });
    test::run_all(io);
    BOOST_CHECK_EQUAL(one.ec, success);
    BOOST_CHECK_EQUAL(two.ec, test::aborted);
}

BOOST_FIXTURE_TEST_CASE(an_object_is_moved_with_its_transfers, with_multi) {
    request r(http("/files/1000000")), other(http("/never/100000"));
    asio::cancellation_signal signal;
    m.async_perform(r.easy, r.handler());
    m.async_perform(other.easy, asio::bind_cancellation_slot(signal.slot(), other.handler()));
    curl_multi moved(std::move(m));
    test::run_until(io, [&] { return bool(r); });
    BOOST_CHECK_EQUAL(r.ec, success);
    BOOST_TEST(r.body.size() == 1000000u);
    signal.emit(asio::cancellation_type::total);
    test::run_all(io);
    BOOST_CHECK_EQUAL(other.ec, test::aborted);
    moved.async_perform(other.easy, other.handler());
    test::run_ready(io);
    moved = curl_multi(io); // ends the transfer
    test::run_all(io);
    BOOST_TEST(other.times == 2);
    BOOST_CHECK_EQUAL(other.ec, test::aborted);
    check_works(moved);
    m = std::move(moved);
    check_works(m);
    m.close();
}

// ---- nothing to do ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_idle_object_costs_nothing_and_lets_the_loop_end, with_multi) {
    test::run_all(io);
    check_works(m);
    request r(https("/echo/x"));
    BOOST_CHECK_EQUAL(perform(m, r), success);
    test::run_all(io); // returns although connections are kept
    // libcurl closes a kept connection without a word, so nothing may refer to its number.
    BOOST_TEST(moor::use_registration_service(io).snapshot().empty());
    test::check_costs_nothing(io);
    check_works(m);
    BOOST_CHECK_EQUAL(perform(m, r), success);
    BOOST_TEST(r.get<long>(CURLINFO_NUM_CONNECTS) == 0); // the kept connection
}

BOOST_FIXTURE_TEST_CASE(a_timer_that_is_deleted_wakes_nobody, with_multi) {
    request r(http("/echo/x"));
    r.set(CURLOPT_TIMEOUT_MS, 100L);
    BOOST_CHECK_EQUAL(perform(m, r), success);
    test::run_ready(io);
    test::called timer;
    asio::steady_timer timeout(io, 150ms);
    timeout.async_wait(timer.handler());
    int handlers = -1;
    test::run_until(io, [&] {
        ++handlers;
        return bool(timer);
    });
    if (test::on_epoll()) // others have handlers of their own
        BOOST_TEST(handlers == 1);
}

BOOST_FIXTURE_TEST_CASE(a_service_that_is_closed_ends_transfers_with_an_error, loop) {
    {
        curl_multi m(io);
        request r(http("/never/100000"));
        m.async_perform(r.easy, r.handler());
        test::run_until(io, [&] { return !r.body.empty(); });
        moor::use_registration_service(io).close();
        test::run_all(io);
        BOOST_TEST(r.ec.failed());
        BOOST_TEST(r.times == 1);
        BOOST_TEST(perform(m, r).failed());
    }
}

BOOST_FIXTURE_TEST_CASE(a_service_that_is_closed_ends_transfers_that_connect, loop) {
    const test::full_server full;
    const std::string url = "http://127.0.0.1:" + std::to_string(full.port());
    curl_multi m(io);
    request r(url);
    m.async_perform(r.easy, r.handler());
    test::run_ready(io);
    BOOST_TEST(r.times == 0);
    moor::use_registration_service(io).close();
    test::run_all(io);
    BOOST_CHECK_EQUAL(r.ec, make_error_code(moor::error::gone));
}

// ---- executors and tokens -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(an_object_runs_on_a_strand_of_a_thread_pool) {
    asio::thread_pool pool(3);
    using strand_type = asio::strand<asio::thread_pool::executor_type>;
    strand_type strand = asio::make_strand(pool.get_executor());
    constexpr int count = 300;
    std::atomic<int> good{0}, outside{0};
    std::promise<void> over;
    moor::adapt::basic_curl_multi<strand_type> m(strand);
    std::deque<request> requests;
    for (int i = 0; i != 10; ++i)
        requests.emplace_back(http("/"));
    request never(https("/never/100000"));
    asio::cancellation_signal signal;
    int started = 0, ended = 0;
    std::function<void(request&)> next = [&](request& r) {
        if (started == count) {
            if (ended == count)
                signal.emit(asio::cancellation_type::terminal);
            return;
        }
        const std::string path = "/echo/" + std::to_string(started);
        r.body.clear();
        r.set(CURLOPT_URL, (started % 2 ? http(path) : https(path)).c_str());
        ++started;
        m.async_perform(r.easy, [&, path](error_code ec) {
            outside += !strand.running_in_this_thread();
            good += !ec && r.body == path;
            ++ended;
            next(r);
        });
    };
    asio::post(strand, [&] {
        m.async_perform(never.easy, asio::bind_cancellation_slot(signal.slot(), [&](error_code ec) {
                            outside += !strand.running_in_this_thread();
                            good += ec == test::aborted;
                            m.close();
                            over.set_value();
                        }));
        for (request& r : requests)
            next(r);
    });
    BOOST_TEST((over.get_future().wait_for(60s) == std::future_status::ready));
    pool.join();
    BOOST_TEST(good == count + 1);
    BOOST_TEST(outside == 0);
}

BOOST_AUTO_TEST_CASE(futures_are_completed_by_a_thread_of_the_context) {
    asio::thread_pool pool(1);
    auto there = [&](auto f) { return asio::post(pool, asio::use_future(f)).get(); };
    curl_multi m(pool);
    request good(http("/echo/x")), bad("http://127.0.0.1:1/");
    there([&] { return m.async_perform(good.easy, asio::use_future); }).get();
    BOOST_TEST(good.body == "/echo/x");
    std::future<void> f = there([&] { return m.async_perform(bad.easy, asio::use_future); });
    BOOST_CHECK_EXCEPTION(f.get(), boost::system::system_error,
                          [](const boost::system::system_error& e) {
                              return e.code() == curl_error(CURLE_COULDNT_CONNECT);
                          });
    there([&] { m.close(); });
    pool.join();
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace {

using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;

asio::awaitable<void> race(curl_multi& m, int& good) {
    request r(http("/echo/x")), never(https("/never/100000")), refused("http://127.0.0.1:1/");
    co_await m.async_perform(r.easy, use_awaitable);
    good += r.body == "/echo/x";
    asio::steady_timer deadline(co_await asio::this_coro::executor, 20ms);
    auto first = co_await (m.async_perform(never.easy, asio::as_tuple(use_awaitable)) ||
                           deadline.async_wait(asio::as_tuple(use_awaitable)));
    good += first.index() == 1;
    try {
        co_await m.async_perform(refused.easy, use_awaitable);
    } catch (const boost::system::system_error& e) {
        good += e.code() == curl_error(CURLE_COULDNT_CONNECT);
    }
    using with_default = asio::use_awaitable_t<>::as_default_on_t<curl_multi>;
    with_default n(co_await asio::this_coro::executor);
    co_await n.async_perform(r.easy);
    good += r.body == "/echo/x/echo/x";
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_coroutine_races_a_transfer_against_a_timer, loop) {
    curl_multi m(io);
    int good = 0;
    asio::co_spawn(io, race(m, good), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    test::run_all(io);
    BOOST_TEST(good == 4);
}

#endif

BOOST_AUTO_TEST_SUITE_END()
