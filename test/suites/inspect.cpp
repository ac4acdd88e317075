// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The inspector: what it serves, whom it refuses, and that it outlives what it looks at.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>
#include <moor/inspect.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/write.hpp>

#include <chrono>
#include <cstddef>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(inspect)

namespace asio = boost::asio;
using asio::ip::tcp;
using moor::interest;
using test::error_code;

using namespace std::chrono_literals;

/// A client that sends what it is told to, and reads until the other side closes.
struct client {
    asio::io_context io;
    tcp::socket socket{io};

    explicit client(const tcp::endpoint& to) { socket.connect(to); }

    std::string exchange(const std::string& request) {
        asio::write(socket, asio::buffer(request));
        return rest();
    }
    std::string rest() {
        std::string answer;
        error_code ec;
        asio::read(socket, asio::dynamic_buffer(answer), ec);
        return answer;
    }
};

std::string ask(const moor::inspector& i, const std::string& line, const std::string& host) {
    const tcp::endpoint to(asio::ip::address_v4::loopback(), i.local_endpoint().port());
    return client(to).exchange(line + " HTTP/1.1\r\nHost: " + host +
                               "\r\nConnection: close\r\n\r\n");
}

std::string ask(const moor::inspector& i, const std::string& line) {
    return ask(i, line, "localhost:" + std::to_string(i.local_endpoint().port()));
}

std::string status_of(const std::string& answer) { return answer.substr(9, 3); }

std::string json(const moor::inspector& i) { return ask(i, "GET /registrations.json"); }

/// Whether the inspector comes to say so.
bool comes_to_say(const moor::inspector& i, const std::string& text) {
    return test::wait_for([&] { return json(i).find(text) != std::string::npos; });
}
bool says(const moor::inspector& i, const std::string& text) {
    return json(i).find(text) != std::string::npos;
}

/// A number of the answer, of the first key of this name.
long number(const std::string& answer, const std::string& key) {
    const std::size_t at = answer.find('"' + key + "\":");
    BOOST_REQUIRE(at != std::string::npos);
    return std::stol(answer.substr(at + key.size() + 3));
}

moor::inspector_options quick() {
    moor::inspector_options options;
    options.interval = 1ms;
    return options;
}

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_pipe();
    moor::registration reg{io, p.a.get()};
};

// ---- what is served ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_registration_is_shown_with_its_name_and_what_it_is, fixture) {
    moor::inspector i(io, quick());
    reg.name("the pipe");
    test::called done;
    reg.async_wait(interest::readable | interest::read_closed, done.handler());
    BOOST_TEST(comes_to_say(i, "\"waiting_for\":\"readable|read_closed\""));
    const std::string answer = json(i);
    BOOST_TEST_MESSAGE(answer);
    BOOST_TEST(status_of(answer) == "200");
    BOOST_TEST(answer.find("Content-Type: application/json\r\n") != std::string::npos);
    BOOST_TEST(number(answer, "handle") == p.a.get());
    BOOST_TEST(number(answer, "pid") == ::getpid());
    BOOST_TEST(number(answer, "waiters") == 1);
    BOOST_TEST(answer.find("\"path\":\"pipe:[") != std::string::npos);
    BOOST_TEST(answer.find("\"name\":\"the pipe\"") != std::string::npos);
    BOOST_TEST(answer.find(std::string("\"reactor\":\"") + test::backend() + "\"") !=
               std::string::npos);
    reg.cancel();
    test::run_all(io);
    BOOST_TEST(comes_to_say(i, "\"waiters\":0"));
    BOOST_TEST(comes_to_say(i, "\"waits_cancelled\":1"));
}

BOOST_FIXTURE_TEST_CASE(events_and_checks_are_counted_for_each_registration, fixture) {
    moor::inspector i(io, quick());
    test::put(p.b, "x");
    for (int n = 0; n != 3; ++n)
        test::check_readable(io, reg);
    BOOST_TEST(comes_to_say(i, "\"waits_started\":3,\"events_delivered\""));
}

BOOST_FIXTURE_TEST_CASE(a_wait_that_pends_for_long_is_marked_until_it_is_over, fixture) {
    moor::inspector_options options = quick();
    options.stuck_after = 1ms;
    moor::inspector i(io, options);
    test::called done;
    reg.async_wait_readable(done.handler());
    BOOST_TEST(says(i, "\"stuck\":false"));
    BOOST_TEST(comes_to_say(i, "\"stuck\":true"));
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(comes_to_say(i, "\"stuck\":false"));
}

BOOST_FIXTURE_TEST_CASE(names_that_are_no_text_are_shown_all_the_same, fixture) {
    moor::inspector i(io, quick());
    reg.name("a \"quoted\" \\ \n <b> \xc3\xa9 \xff \xe2\x82");
    BOOST_TEST(comes_to_say(i, "\"name\":\"a \\u0022quoted\\u0022 \\u005c \\u000a <b> \xc3\xa9 "
                               "\\ufffd \\ufffd\\ufffd\""));
}

BOOST_FIXTURE_TEST_CASE(a_loop_that_does_not_turn_is_seen, fixture) {
    moor::inspector i(io, quick());
    std::promise<void> go_on;
    std::thread loop([&] {
        auto work = asio::make_work_guard(io);
        asio::post(io, [&] {
            go_on.get_future().wait();
            asio::post(io, [&] { work.reset(); });
        });
        io.run();
    });
    BOOST_TEST(test::wait_for([&] { return number(json(i), "loop_ms") > 50; }));
    const long before = number(json(i), "loop_ms");
    BOOST_TEST(test::wait_for([&] { return number(json(i), "loop_ms") > before; }));
    go_on.set_value();
    loop.join();
}

BOOST_AUTO_TEST_CASE(a_loop_that_turns_is_seen_to) {
    asio::thread_pool pool(1);
    test::fd_pair p = test::make_pipe();
    moor::basic_registration<asio::thread_pool::executor_type> reg(pool, p.a.get());
    moor::inspector i(pool, quick());
    int turns = 0;
    BOOST_TEST(test::wait_for([&] { return number(json(i), "loop_ms") < 5 && ++turns == 20; }));
}

BOOST_AUTO_TEST_CASE(a_scheduler_without_locks_is_left_alone) {
    asio::io_context io(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    moor::inspector i(io, quick());
    BOOST_TEST(says(i, "\"loop_ms\":null"));
    BOOST_TEST(says(i, "\"handle\":" + std::to_string(p.a.get())));
}

BOOST_FIXTURE_TEST_CASE(the_page_is_served, fixture) {
    moor::inspector i(io);
    const std::string answer = ask(i, "GET /");
    BOOST_TEST(status_of(answer) == "200");
    BOOST_TEST(answer.find("Content-Type: text/html; charset=utf-8\r\n") != std::string::npos);
    BOOST_TEST(answer.find("</html>") != std::string::npos);
    const std::string head = ask(i, "HEAD /");
    BOOST_TEST(status_of(head) == "200");
    BOOST_TEST(head.find("<html") == std::string::npos);
}

BOOST_FIXTURE_TEST_CASE(one_connection_serves_several_requests, fixture) {
    moor::inspector i(io);
    const std::string request = "GET /registrations.json HTTP/1.1\r\nHost: localhost\r\n";
    client c(i.local_endpoint());
    const std::string answers =
        c.exchange(request + "\r\n" + request + "\r\n" + request + "Connection: close\r\n\r\n");
    std::size_t count = 0;
    for (std::size_t at = 0; (at = answers.find("HTTP/1.1 200", at)) != std::string::npos; ++at)
        ++count;
    BOOST_TEST(count == 3u);
}

// ---- who is refused ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(nothing_can_be_changed, fixture) {
    moor::inspector i(io);
    for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS"})
        BOOST_TEST(status_of(ask(i, method + std::string(" /"))) == "405");
    BOOST_TEST(status_of(ask(i, "GET /other")) == "404");
    BOOST_TEST(status_of(ask(i, "GET /../registrations.json")) == "404");
}

BOOST_FIXTURE_TEST_CASE(a_foreign_host_name_is_refused, fixture) {
    moor::inspector i(io);
    for (const char* host : {"127.0.0.1", "127.0.0.1:80", "localhost", "[::1]:8080", "[::1]"})
        BOOST_TEST(status_of(ask(i, "GET /", host)) == "200", host);
    for (const char* host :
         {"example.org", "localhost.example.org:80", "10.0.0.1", "", "::2", "[", "]"})
        BOOST_TEST(status_of(ask(i, "GET /", host)) == "403", host);
}

BOOST_FIXTURE_TEST_CASE(only_a_loopback_address_is_served_unless_told_otherwise, fixture) {
    moor::inspector_options options;
    options.endpoint = tcp::endpoint(asio::ip::address_v4::any(), 0);
    error_code ec;
    moor::inspector refused(io, options, ec);
    BOOST_TEST(ec == boost::system::errc::operation_not_permitted);
    BOOST_TEST(refused.url().empty());
    BOOST_TEST(refused.local_endpoint().port() == 0u);
    BOOST_CHECK_THROW(moor::inspector(io, options), boost::system::system_error);
    options.allow_remote = true;
    moor::inspector i(io, options, ec);
    BOOST_CHECK_EQUAL(ec, error_code());
    BOOST_TEST(status_of(ask(i, "GET /", "example.org")) == "200");
}

BOOST_FIXTURE_TEST_CASE(what_it_can_not_do_is_an_error, fixture) {
    error_code ec;
    moor::inspector_options options;
    options.interval = 0ms;
    moor::inspector no_interval(io, options, ec);
    BOOST_TEST(ec == boost::system::errc::invalid_argument);
    options = moor::inspector_options();
    options.stuck_after = -1ms;
    moor::inspector no_limit(io, options, ec);
    BOOST_TEST(ec == boost::system::errc::invalid_argument);
    moor::inspector i(io);
    options = moor::inspector_options();
    options.endpoint = i.local_endpoint();
    moor::inspector second(io, options, ec);
    BOOST_TEST(ec == boost::system::errc::address_in_use);
    BOOST_TEST(i.url() == "http://127.0.0.1:" + std::to_string(i.local_endpoint().port()) + "/");
}

BOOST_FIXTURE_TEST_CASE(what_is_no_request_ends_the_connection, fixture) {
    moor::inspector i(io);
    const std::string half = "GET / HTTP/1.1\r\nHost: localhost\r\n";
    BOOST_TEST(client(i.local_endpoint()).exchange("\r\nnonsense\r\n\r\n").empty());
    BOOST_TEST(client(i.local_endpoint())
                   .exchange(half + "X: " + std::string(10'000, 'x') + "\r\n\r\n")
                   .empty());
    BOOST_TEST(
        client(i.local_endpoint()).exchange(half + "Content-Length: 5\r\n\r\nhello").empty());
    BOOST_TEST(status_of(ask(i, "GET /")) == "200");
}

BOOST_FIXTURE_TEST_CASE(connections_are_limited, fixture) {
    moor::inspector i(io);
    std::vector<std::unique_ptr<client>> clients;
    for (int n = 0; n != 32; ++n)
        clients.push_back(std::make_unique<client>(i.local_endpoint()));
    BOOST_TEST(client(i.local_endpoint()).rest().empty()); // is closed
    clients.clear();
    BOOST_TEST(test::wait_for([&] { return !ask(i, "GET /").empty(); }));
}

// ---- lifetimes ---------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(the_context_may_go_first) {
    auto io = std::make_unique<asio::io_context>();
    test::fd_pair p = test::make_pipe();
    auto reg = std::make_unique<moor::registration>(*io, p.a.get());
    test::called done;
    reg->async_wait_readable(done.handler());
    moor::inspector i(*io, quick());
    BOOST_TEST(comes_to_say(i, "\"waiters\":1"));
    io.reset();
    BOOST_TEST(comes_to_say(i, "\"registrations\":[]"));
    BOOST_TEST(says(i, "\"loop_ms\":null"));
    reg.reset();
    BOOST_TEST(done.times == 0);
}

BOOST_FIXTURE_TEST_CASE(it_may_go_while_browsers_are_connected, fixture) {
    std::optional<moor::inspector> i(std::in_place, io, quick());
    client silent(i->local_endpoint());
    client slow(i->local_endpoint());
    asio::write(slow.socket, asio::buffer("GET / HT", 8));
    BOOST_TEST(says(*i, "registrations"));
    moor::inspector moved(std::move(*i));
    BOOST_TEST(i->url().empty());
    BOOST_TEST(says(moved, "registrations"));
    moved = moor::inspector(io, quick());
    BOOST_TEST(silent.rest().empty());
    BOOST_TEST(slow.rest().empty());
    BOOST_TEST(says(moved, "registrations"));
    i.reset();
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_forked_child_leaves_the_inspector_to_its_parent, fixture) {
    auto i = std::make_unique<moor::inspector>(io, quick());
    const ::pid_t child = ::fork();
    if (child == 0) {
        i.reset();
        ::_exit(0);
    }
    int status = -1;
    BOOST_TEST(::waitpid(child, &status, 0) == child);
    BOOST_TEST(status == 0);
    BOOST_TEST(says(*i, "\"registrations\":[{"));
}

BOOST_AUTO_TEST_SUITE_END()
