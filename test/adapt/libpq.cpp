// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for libpq against a real server, which servers.sh starts. Without it, each case
// fails.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/quiet.hpp"
#include "support/servers.hpp"
#include "support/vocabulary.hpp"

#include <moor/adapt/libpq.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

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
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <limits>
#include <locale>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(libpq)

namespace {

namespace asio = boost::asio;
using moor::adapt::pq_connection;
using moor::adapt::pq_error;
using moor::adapt::pq_handle;
using moor::adapt::pq_notification;
using moor::adapt::pq_params;
using moor::adapt::pq_result;
using moor::adapt::pq_sqlstate;
using test::called_with;
using test::control_server;
using test::error_code;
using test::variable;
using namespace std::chrono_literals;

const error_code not_connected(asio::error::not_connected);
const error_code cancelled = pq_sqlstate("57014");
const error_code connection_failed(pq_error::connection_failed);
const error_code connection_lost(pq_error::connection_lost);
const error_code request_refused(pq_error::request_refused);
const error_code pipeline_aborted(pq_error::pipeline_aborted);

::pid_t server_process() {
    std::ifstream file(variable("MOOR_SERVERS_DIR") + "/postgres/postmaster.pid");
    ::pid_t pid = 0;
    file >> pid;
    BOOST_REQUIRE(pid > 0);
    return pid;
}

/// What libpq's environment says suffices.
std::string here() {
    variable("MOOR_SERVERS");
    return "sslmode=disable";
}
std::string with_tls() {
    return "host=localhost sslmode=verify-full sslrootcert=" +
           variable("MOOR_SERVERS_PG_CERTIFICATE");
}
std::string on_unix_socket() { return "host=" + variable("MOOR_SERVERS_PG_SOCKET"); }

using result_outcome = called_with<pq_result>;

std::string text(const pq_result& r, int row = 0, int column = 0) {
    BOOST_REQUIRE(r);
    BOOST_REQUIRE_LT(row, PQntuples(r.get()));
    return PQgetvalue(r.get(), row, column);
}

/// A context, and calls that run it until an operation is over.
struct loop : test::context_fixture {
    template <class Connection>
    error_code connect(Connection& c, const std::string& info = here()) {
        test::called done;
        c.async_connect(info, done.handler());
        test::run_until(io, [&] { return bool(done); });
        return done.ec;
    }

    template <class Value, class Start>
    called_with<Value> run(Start start) {
        called_with<Value> o;
        start(o.handler());
        BOOST_TEST(o.times == 0); // not from within the initiating function
        test::run_until(io, [&] { return bool(o); });
        BOOST_TEST(o.times == 1);
        return o;
    }
    template <class Connection>
    result_outcome exec(Connection& c, const std::string& sql) {
        return run<pq_result>([&](auto h) { c.async_exec(sql, std::move(h)); });
    }
    template <class Connection>
    void check_works(Connection& c) {
        result_outcome o = exec(c, "select 40 + 2");
        BOOST_CHECK_EQUAL(o.ec, error_code());
        BOOST_TEST(text(o.value) == "42");
    }
    /// A copy whose first row comes with the begin of the second one, and is received here.
    template <class Connection>
    void begin_slow_copy(Connection& c) {
        const char* const sql = "copy (select repeat('x', 50000), pg_sleep(n) from (values (0), "
                                "(0), (600)) v(n)) to stdout";
        BOOST_REQUIRE_EQUAL(exec(c, sql).ec, error_code());
        auto row = run<std::string>([&](auto h) { c.async_get_copy(std::move(h)); });
        BOOST_REQUIRE_EQUAL(row.ec, error_code());
    }
    template <class Start>
    error_code run_ec(Start start) {
        test::called done;
        start(done.handler());
        BOOST_TEST(done.times == 0);
        test::run_until(io, [&] { return bool(done); });
        return done.ec;
    }
};

/// While it exists, no descriptor can be opened.
class no_more_descriptors {
public:
    no_more_descriptors() {
        BOOST_REQUIRE(::getrlimit(RLIMIT_NOFILE, &before_) == 0);
        ::rlimit now = before_;
        const int next = ::dup(0);
        BOOST_REQUIRE(next > 0);
        ::close(next);
        now.rlim_cur = static_cast<::rlim_t>(next);
        BOOST_REQUIRE(::setrlimit(RLIMIT_NOFILE, &now) == 0);
    }
    ~no_more_descriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
    no_more_descriptors(const no_more_descriptors&) = delete;
    no_more_descriptors& operator=(const no_more_descriptors&) = delete;

private:
    ::rlimit before_;
};

/// A loop whose end leaves no descriptor behind.
struct counted_loop : loop {
    long descriptors = test::open_descriptors();

    /// The thread of a cancel request may close its end a little later; one of an earlier case,
    /// too.
    void check_descriptors() {
        BOOST_TEST(test::wait_for([&] { return test::open_descriptors() <= descriptors; }));
    }
};

/// Breaks a connection, as a network does.
template <class Connection>
void break_off(Connection& c) {
    BOOST_REQUIRE(::shutdown(PQsocket(c.native_handle()), SHUT_RDWR) == 0);
}

/// A connection.
struct connected : counted_loop {
    std::optional<pq_connection> connection{std::in_place, (prepare_reactor(), io)};
    pq_connection& c = *connection;

    connected() { BOOST_REQUIRE_EQUAL(connect(c), error_code()); }
    ~connected() {
        connection.reset();
        check_descriptors();
    }

private:
    /// The reactor's descriptors belong to the context.
    void prepare_reactor() {
        moor::watcher w(io);
        asio::steady_timer t(io, 0s);
        t.async_wait([](error_code) {});
        test::run_all(io);
        descriptors = test::open_descriptors();
    }
};

} // namespace

// ---- connecting ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(connects_on_tcp_with_tls_and_on_a_unix_socket, loop) {
    pq_connection c(io);
    BOOST_TEST(!c.is_open());
    BOOST_TEST(!c.native_handle());
    for (const std::string& info :
         {here(), with_tls(), on_unix_socket(), std::string("postgresql://localhost/postgres")}) {
        BOOST_TEST_CONTEXT(info) {
            BOOST_CHECK_EQUAL(connect(c, info), error_code());
            BOOST_TEST_MESSAGE(c.error_message());
            BOOST_TEST(c.is_open());
            BOOST_TEST(PQsslInUse(c.native_handle()) == (info == with_tls() || info[0] == 'p'));
            check_works(c);
        }
    }
    BOOST_TEST_MESSAGE("PostgreSQL " << PQparameterStatus(c.native_handle(), "server_version")
                                     << ", libpq " << PQlibVersion());
}

BOOST_AUTO_TEST_CASE(an_sqlstate_is_an_error_code) {
    using boost::system::errc::connection_reset;
    BOOST_TEST(pq_sqlstate("23505").message() ==
               "SQLSTATE 23505: a unique constraint was violated");
    for (const char* invalid : {"", "2350", "235055", "2350a", "23-05"})
        BOOST_CHECK_EQUAL(pq_sqlstate(invalid), error_code(pq_error::command_failed));
    for (const char* end : {"57P01", "57P02", "57P04", "57P05", "08006", "08P01"})
        BOOST_TEST((pq_sqlstate(end) == connection_reset), end);
    for (const char* other : {"57014", "57000", "07000", "09000", "58P01"})
        BOOST_TEST((pq_sqlstate(other) != connection_reset), other);
    BOOST_TEST(moor::adapt::pq_sqlstate_of(pq_sqlstate("XX000")) == "XX000");
    BOOST_TEST(moor::adapt::pq_sqlstate_of(connection_lost).empty());
}

BOOST_FIXTURE_TEST_CASE(the_next_host_is_tried_on_another_socket, loop) {
    pq_connection c(io);
    const std::string port = variable("PGPORT");
    for (const char* hosts : {"127.0.0.1,localhost", "localhost,127.0.0.1", "/nowhere,localhost",
                              "moor.invalid,127.0.0.1"}) {
        BOOST_TEST_CONTEXT(hosts) {
            BOOST_CHECK_EQUAL(connect(c, std::string("host=") + hosts + " port=1," + port),
                              error_code());
            BOOST_TEST(PQport(c.native_handle()) == port);
            check_works(c);
        }
    }
    BOOST_CHECK_EQUAL(connect(c, "host=127.0.0.1,127.0.0.1,127.0.0.1 target_session_attrs=standby"),
                      connection_failed);
}

BOOST_FIXTURE_TEST_CASE(a_connection_that_is_rejected_with_tls_is_made_without, loop) {
    pq_connection c(io);
    BOOST_CHECK_EQUAL(connect(c, "user=plain sslmode=require"), connection_failed);
    BOOST_TEST(!c.is_open());
    BOOST_CHECK_EQUAL(connect(c, "user=plain sslmode=prefer"), error_code());
    BOOST_TEST(!PQsslInUse(c.native_handle()));
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_connection_that_fails_says_why, loop) {
    pq_connection c(io);
    BOOST_CHECK_EQUAL(connect(c, "user=locked password=wrong"), connection_failed);
    BOOST_TEST(c.error_message().find("password") != std::string::npos);
    BOOST_CHECK_EQUAL(connect(c, "user=locked password=key"), error_code());
    check_works(c);
    BOOST_CHECK_EQUAL(connect(c, "colour=blue"), connection_failed);
    BOOST_TEST(c.error_message().find("colour") != std::string::npos);
    BOOST_CHECK_EQUAL(connect(c, "host=127.0.0.1 port=1"), connection_failed);
    BOOST_TEST(c.error_message().find("refused") != std::string::npos);
    const error_code ec = connect(c, "host=moor.invalid");
    BOOST_TEST((ec == asio::error::host_not_found || ec == asio::error::host_not_found_try_again));
    BOOST_TEST(!c.is_open());
    BOOST_CHECK_EQUAL(exec(c, "select 1").ec, not_connected);
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_reset(std::move(h)); }), not_connected);
}

BOOST_FIXTURE_TEST_CASE(connecting_is_cancelled_at_once, counted_loop) {
    pq_connection c(io);
    BOOST_REQUIRE_EQUAL(connect(c), error_code());
    const long open = test::open_descriptors();
    for (const std::string& info : {here(), with_tls()})
        for (std::size_t turns : {0u, 1u, 2u, 3u, 4u}) {
            io.restart();
            test::called done;
            asio::cancellation_signal signal;
            c.async_connect(info, asio::bind_cancellation_slot(signal.slot(), done.handler()));
            for (std::size_t i = 0; i != turns && !done; ++i)
                io.run_one_for(test::cap);
            signal.emit(asio::cancellation_type::terminal);
            test::run_until(io, [&] { return bool(done); });
            BOOST_TEST((done.ec == test::aborted || !done.ec));
            BOOST_TEST(done.times == 1);
            c.close();
            BOOST_TEST(!c.native_handle());
            test::run_all(io);
        }
    BOOST_TEST(test::open_descriptors() == open - 1);
}

BOOST_FIXTURE_TEST_CASE(a_reset_while_names_are_looked_up_fails_and_disturbs_nothing, loop) {
    pq_connection c(io);
    test::called connects, reset, goes_on;
    c.async_connect(with_tls(), connects.handler());
    c.async_reset(reset.handler());
    c.async_continue_connect(goes_on.handler());
    test::run_all(io);
    BOOST_TEST(connects.times == 1);
    BOOST_CHECK_EQUAL(connects.ec, error_code());
    BOOST_CHECK_EQUAL(reset.ec, not_connected);
    BOOST_CHECK_EQUAL(goes_on.ec, not_connected);
    check_works(c);
    // The text of an error is not one of an earlier error.
    BOOST_CHECK_EQUAL(connect(c, "host=127.0.0.1 port=1"), connection_failed);
    BOOST_TEST(connect(c, "host=moor.invalid").failed());
    BOOST_TEST(c.error_message().find("refused") == std::string::npos, c.error_message());
    BOOST_TEST(!c.error_message().empty());
    BOOST_CHECK_EQUAL(connect(c, std::string("dbname=postgres\0 user=x", 23)), connection_failed);
}

// ---- commands -----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(commands_give_the_last_result_or_the_first_error, connected) {
    check_works(c);
    BOOST_TEST(text(exec(c, "select 1; select 2").value) == "2");
    result_outcome o = exec(c, "select 1; nonsense");
    BOOST_CHECK_EQUAL(o.ec, pq_sqlstate("42601"));
    BOOST_TEST(o.ec.message().find("42601") != std::string::npos);
    BOOST_TEST(moor::adapt::pq_sqlstate_of(o.ec) == "42601");
    BOOST_TEST(PQresultStatus(o.value.get()) == PGRES_FATAL_ERROR);
    BOOST_TEST(c.error_message().find("nonsense") != std::string::npos);
    o = exec(c, "select 1 / 0; select 1");
    BOOST_CHECK_EQUAL(o.ec, pq_sqlstate("22012"));
    o = exec(c, "");
    BOOST_CHECK_EQUAL(o.ec, error_code());
    BOOST_TEST(PQresultStatus(o.value.get()) == PGRES_EMPTY_QUERY);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(parameters_are_text_binary_or_null, connected) {
    auto exec_params = [&](const char* sql, const pq_params& p) {
        return run<pq_result>([&](auto h) { c.async_exec_params(sql, p, std::move(h)); });
    };
    result_outcome o = exec_params(
        "select $1::int, $2::text, $3::text, $4::float8, $5::bool, $6::int, $7::text",
        pq_params(7, "it's", nullptr, 0.1, true, std::optional<int>(), std::string("last")));
    BOOST_REQUIRE_EQUAL(o.ec, error_code());
    BOOST_TEST(text(o.value, 0, 0) == "7");
    BOOST_TEST(text(o.value, 0, 1) == "it's");
    BOOST_TEST(PQgetisnull(o.value.get(), 0, 2) == 1);
    BOOST_TEST(text(o.value, 0, 3) == "0.1");
    BOOST_TEST(text(o.value, 0, 4) == "t");
    BOOST_TEST(PQgetisnull(o.value.get(), 0, 5) == 1);
    BOOST_TEST(text(o.value, 0, 6) == "last");
    const std::string bytes("a\0b", 3);
    o = exec_params("select $1", pq_params().add_binary(bytes, 17).request_binary());
    BOOST_REQUIRE_EQUAL(o.ec, error_code());
    BOOST_TEST(PQgetlength(o.value.get(), 0, 0) == 3);
    BOOST_TEST(std::string(PQgetvalue(o.value.get(), 0, 0), 3) == bytes);
    BOOST_CHECK_EQUAL(exec_params("select $1::int", pq_params("seven")).ec, pq_sqlstate("22P02"));

    o = run<pq_result>(
        [&](auto h) { c.async_prepare("sum", "select $1::int + $2::int", std::move(h)); });
    BOOST_CHECK_EQUAL(o.ec, error_code());
    o = run<pq_result>(
        [&](auto h) { c.async_exec_prepared("sum", pq_params(40, 2), std::move(h)); });
    BOOST_TEST(text(o.value) == "42");
    o = run<pq_result>(
        [&](auto h) { c.async_exec_prepared("product", pq_params(), std::move(h)); });
    BOOST_CHECK_EQUAL(o.ec, pq_sqlstate("26000"));
}

BOOST_FIXTURE_TEST_CASE(numbers_do_not_depend_on_the_locale_of_the_program, connected) {
    struct strange : std::numpunct<char> {
        char do_decimal_point() const override { return ','; }
        char do_thousands_sep() const override { return '.'; }
        std::string do_grouping() const override { return "\3"; }
    };
    const std::locale before = std::locale::global(std::locale(std::locale(), new strange));
    const pq_params numbers(1234567.5, 0.1f, -std::numeric_limits<double>::quiet_NaN(),
                            -std::numeric_limits<double>::infinity(),
                            std::numeric_limits<unsigned long long>::max(),
                            std::numeric_limits<long long>::min(), static_cast<signed char>(-7),
                            static_cast<unsigned char>(200), 'c');
    std::locale::global(before);
    result_outcome o = run<pq_result>([&](auto h) {
        c.async_exec_params("select $1::numeric, $2::float4, $3::numeric, $4::float8, "
                            "$5::numeric, $6::int8, $7::int2, $8::int2, $9::text",
                            numbers, std::move(h));
    });
    BOOST_REQUIRE_EQUAL(o.ec, error_code());
    const char* const expected[] = {
        "1234567.5", "0.1", "NaN", "-Infinity", "18446744073709551615", "-9223372036854775808",
        "-7",        "200", "c"};
    for (int i = 0; i != 9; ++i)
        BOOST_TEST(text(o.value, 0, i) == expected[i]);
    o = run<pq_result>([&](auto h) {
        c.async_exec_params("select $1::float8 = float8 '0.1' and $2::float8 = '1e300'",
                            pq_params(0.1, 1e300), std::move(h));
    });
    BOOST_TEST(text(o.value) == "t");
}

BOOST_FIXTURE_TEST_CASE(a_text_with_a_null_character_is_refused_and_not_cut_off, connected) {
    const std::string cut("select 1\0; nonsense", 19);
    const std::string safe = "select $1::text";
    const auto check = [&](auto start) {
        BOOST_CHECK_EQUAL(run<pq_result>(start).ec, request_refused);
        BOOST_TEST(c.error_message().find("null character") != std::string::npos);
    };
    check([&](auto h) { c.async_exec(cut, std::move(h)); });
    check([&](auto h) { c.async_exec_params(cut, pq_params(), std::move(h)); });
    check([&](auto h) { c.async_exec_params(safe, pq_params(cut), std::move(h)); });
    check([&](auto h) { c.async_exec_params(safe, pq_params('\0'), std::move(h)); });
    check([&](auto h) { c.async_prepare(cut, safe, std::move(h)); });
    check([&](auto h) { c.async_prepare("", cut, std::move(h)); });
    check([&](auto h) { c.async_exec_prepared(cut, pq_params(), std::move(h)); });
    check([&](auto h) { c.async_exec_prepared("", pq_params(cut), std::move(h)); });
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_second_command_is_refused_and_does_not_disturb_the_first, connected) {
    result_outcome first, second;
    c.async_exec("select 1", first.handler());
    c.async_exec("select 2", second.handler());
    BOOST_TEST(c.error_message().find("in progress") != std::string::npos);
    test::run_all(io);
    BOOST_CHECK_EQUAL(second.ec, request_refused);
    BOOST_TEST((second.ec == boost::system::errc::invalid_argument));
    BOOST_TEST(text(first.value) == "1");
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(rows_come_one_by_one_in_single_row_mode, connected) {
    result_outcome none;
    c.async_get_result(none.handler()); // nothing was sent
    test::run_all(io);
    BOOST_TEST(none.times == 1);
    BOOST_TEST(!none.value);

    BOOST_TEST(PQsendQuery(c.native_handle(), "select generate_series(1, 5000)") == 1);
    BOOST_TEST(PQsetSingleRowMode(c.native_handle()) == 1);
    int rows = 0;
    bool has_end = false;
    for (;;) {
        result_outcome o = run<pq_result>([&](auto h) { c.async_get_result(std::move(h)); });
        BOOST_REQUIRE_EQUAL(o.ec, error_code());
        if (!o.value)
            break;
        if (PQresultStatus(o.value.get()) == PGRES_SINGLE_TUPLE)
            BOOST_REQUIRE_EQUAL(text(o.value), std::to_string(++rows));
        else
            has_end = PQresultStatus(o.value.get()) == PGRES_TUPLES_OK;
    }
    BOOST_TEST(rows == 5000);
    BOOST_TEST(has_end);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(several_waits_for_results_complete_in_order, connected) {
    BOOST_TEST(PQsendQuery(c.native_handle(), "select 1; select 2") == 1);
    result_outcome o[3];
    for (result_outcome& r : o)
        c.async_get_result(r.handler());
    test::run_all(io);
    BOOST_TEST(text(o[0].value) == "1");
    BOOST_TEST(text(o[1].value) == "2");
    BOOST_TEST(o[2].times == 1);
    BOOST_TEST(!o[2].value);
}

BOOST_FIXTURE_TEST_CASE(long_commands_with_long_answers_do_not_deadlock, connected) {
    const std::string eight_mb(8 << 20, 'x');
    for (const std::string& info : {here(), with_tls(), on_unix_socket()}) {
        BOOST_REQUIRE_EQUAL(connect(c, info), error_code());
        result_outcome o = run<pq_result>([&](auto h) {
            c.async_exec_params("select $1 || $1 || $1, $2::text", pq_params(eight_mb, eight_mb),
                                std::move(h));
        });
        BOOST_REQUIRE_EQUAL(o.ec, error_code());
        BOOST_TEST(PQgetlength(o.value.get(), 0, 0) == 3 * (8 << 20));
    }
    // The server answers before it has read all.
    std::string many;
    for (int i = 0; i != 20; ++i)
        many += "select repeat('y', 1000000), length('" + std::string(400000, 'z') + "');";
    result_outcome o = exec(c, many);
    BOOST_REQUIRE_EQUAL(o.ec, error_code());
    BOOST_TEST(text(o.value, 0, 1) == "400000");
}

BOOST_FIXTURE_TEST_CASE(ten_thousand_commands_in_a_row_give_their_results, connected) {
    const long most = 10000;
    long n = 0, wrong = 0;
    std::function<void()> next = [&] {
        c.async_exec_params("select $1::int * 2", pq_params(n), [&](error_code ec, pq_result r) {
            wrong +=
                ec || PQntuples(r.get()) != 1 || PQgetvalue(r.get(), 0, 0) != std::to_string(2 * n);
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
    const auto used = test::counts() - before;
    if (test::on_epoll()) { // a little more where an answer comes in two parts
        BOOST_TEST(used.turns() <= most * 22 / 10);
        BOOST_TEST(used.poll <= most * 11 / 10);
#if !defined(MOOR_CHECK_USE) // whose checks ask for the file, too
        BOOST_TEST(used.fstat <= most * 11 / 10);
#endif
        BOOST_TEST(used.epoll_ctl <= most / 10);
    }
    BOOST_TEST_MESSAGE("a command: " << double(used.turns()) / double(most) << " turns, "
                                     << double(used.poll) / double(most) << " poll, "
                                     << double(used.epoll_ctl) / double(most) << " epoll_ctl, "
                                     << double(used.fstat) / double(most) << " fstat");
}

BOOST_FIXTURE_TEST_CASE(two_hundred_connections_at_once_give_their_results, loop) {
    std::deque<pq_connection> connections;
    int good = 0;
    for (int i = 0; i != 200; ++i) {
        pq_connection& c = connections.emplace_back(io);
        c.async_connect(here(), [&, i](error_code ec) {
            if (ec)
                BOOST_TEST_MESSAGE(ec.message() << ": " << c.error_message());
            c.async_exec_params(
                "select $1::int, pg_sleep(0.01)", pq_params(i),
                [&, i](error_code e, pq_result r) { good += !e && text(r) == std::to_string(i); });
        });
    }
    {
        const test::watchdog dog(io, 60s);
        io.run();
        BOOST_REQUIRE(!dog.has_bitten());
    }
    BOOST_TEST(good == 200);
}

// ---- COPY ---------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(copy_transfers_rows_in_and_out, connected) {
    BOOST_CHECK_EQUAL(exec(c, "create temp table t (n int, s text)").ec, error_code());
    const std::string in = "copy t from stdin";
    result_outcome o = exec(c, in);
    BOOST_TEST(PQresultStatus(o.value.get()) == PGRES_COPY_IN);
    const int rows = 20000;
    const std::string filler(200, 'f');
    for (int i = 0; i != rows;) {
        std::string some;
        for (int j = 0; j != 500; ++j, ++i)
            some += std::to_string(i) + '\t' + filler + '\n';
        BOOST_REQUIRE_EQUAL(
            run_ec([&](auto h) { c.async_put_copy(asio::buffer(some), std::move(h)); }),
            error_code());
    }
    o = run<pq_result>([&](auto h) { c.async_end_copy(std::move(h)); });
    BOOST_CHECK_EQUAL(o.ec, error_code());
    BOOST_TEST(PQcmdTuples(o.value.get()) == std::to_string(rows));

    BOOST_CHECK_EQUAL(exec(c, in).ec, error_code());
    const std::string row = "1\tx\n";
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_put_copy(asio::buffer(row), std::move(h)); }),
                      error_code());
    o = run<pq_result>([&](auto h) { c.async_fail_copy("not so", std::move(h)); });
    BOOST_CHECK_EQUAL(o.ec, cancelled);
    BOOST_TEST(c.error_message().find("not so") != std::string::npos);

    BOOST_CHECK_EQUAL(exec(c, in).ec, error_code());
    const std::string bad = "no number\n";
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_put_copy(asio::buffer(bad), std::move(h)); }),
                      error_code());
    o = run<pq_result>([&](auto h) { c.async_end_copy(std::move(h)); });
    BOOST_CHECK_EQUAL(o.ec, pq_sqlstate("22P02"));

    BOOST_CHECK_EQUAL(exec(c, "copy t to stdout").ec, error_code());
    int received = 0;
    for (;; ++received) {
        auto r = run<std::string>([&](auto h) { c.async_get_copy(std::move(h)); });
        if (r.ec) {
            BOOST_CHECK_EQUAL(r.ec, error_code(asio::error::eof));
            break;
        }
        BOOST_REQUIRE_EQUAL(r.value, std::to_string(received) + '\t' + filler + '\n');
    }
    BOOST_TEST(received == rows);

    BOOST_CHECK_EQUAL(
        exec(c, "copy (select 1 / (3 - n) from generate_series(1, 5) n) to stdout").ec,
        error_code());
    error_code ec;
    while (!ec)
        ec = run<std::string>([&](auto h) { c.async_get_copy(std::move(h)); }).ec;
    BOOST_CHECK_EQUAL(ec, pq_sqlstate("22012"));
    ec = run<std::string>([&](auto h) { c.async_get_copy(std::move(h)); }).ec;
    BOOST_CHECK_EQUAL(ec, request_refused); // there is no copy
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_put_copy(asio::buffer(row), std::move(h)); }),
                      request_refused);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_row_is_not_waited_for_where_there_is_no_copy, connected) {
    BOOST_TEST(PQsendQuery(c.native_handle(), "select 1; select 2") == 1);
    auto row = run<std::string>([&](auto h) { c.async_get_copy(std::move(h)); });
    BOOST_CHECK_EQUAL(row.ec, request_refused);
    for (const char* expected : {"1", "2"}) { // it has taken no result
        result_outcome o = run<pq_result>([&](auto h) { c.async_get_result(std::move(h)); });
        BOOST_TEST(text(o.value) == expected);
    }
    BOOST_TEST(!run<pq_result>([&](auto h) { c.async_get_result(std::move(h)); }).value);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_large_copy_waits_for_a_slow_reader, connected) {
    pq_connection other(io);
    BOOST_REQUIRE_EQUAL(connect(other), error_code());
    for (const std::string& info : {here(), with_tls()}) {
        BOOST_REQUIRE_EQUAL(connect(c, info), error_code());
        const std::string state = "select wait_event from pg_stat_activity where pid = " +
                                  std::to_string(PQbackendPID(c.native_handle()));
        constexpr int rows = 10000, width = 5000; // 50 MB
        BOOST_CHECK_EQUAL(exec(c, "copy (select n, repeat('x', " + std::to_string(width) +
                                      ") from generate_series(1, " + std::to_string(rows) +
                                      ") n) to stdout")
                              .ec,
                          error_code());
        int received = 0, wrong = 0;
        auto receive = [&](int until) {
            while (received != until) {
                auto r = run<std::string>([&](auto h) { c.async_get_copy(std::move(h)); });
                BOOST_REQUIRE_EQUAL(r.ec, error_code());
                const std::string begin = std::to_string(++received) + "\tx";
                wrong += r.value.compare(0, begin.size(), begin) != 0 ||
                         r.value.size() != begin.size() + width;
            }
        };
        for (int part : {1, 2, 3}) {
            receive(part * 10);
            // The server waits until the reader goes on: nobody keeps the rows in memory.
            while (text(exec(other, state).value) != "ClientWrite") {}
            test::run_ready(io);
            BOOST_TEST(text(exec(other, state).value) == "ClientWrite");
        }
        receive(rows);
        BOOST_TEST(wrong == 0);
        auto r = run<std::string>([&](auto h) { c.async_get_copy(std::move(h)); });
        BOOST_CHECK_EQUAL(r.ec, error_code(asio::error::eof));
        check_works(c);
    }
}

// ---- pipelines ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(two_hundred_commands_of_a_pipeline_complete_in_order, connected) {
    BOOST_TEST(PQenterPipelineMode(c.native_handle()) == 1);
    int next = 0, good = 0;
    for (int i = 0; i != 200; ++i)
        c.async_exec_params("select $1::int", pq_params(i), [&, i](error_code ec, pq_result r) {
            good += !ec && next++ == i && text(r) == std::to_string(i);
        });
    test::run_all(io); // there is no synchronization yet
    BOOST_TEST(good == 200);
    BOOST_CHECK_EQUAL(exec(c, "select 1").ec, error_code());
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_pipeline_sync(std::move(h)); }), error_code());
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_pipeline_sync(std::move(h)); }), error_code());
    BOOST_TEST(PQexitPipelineMode(c.native_handle()) == 1);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(commands_of_a_turn_share_one_flush_request, connected) {
    struct closer {
        void operator()(std::FILE* f) const { std::fclose(f); }
    };
    const std::unique_ptr<std::FILE, closer> trace(std::tmpfile());
    BOOST_REQUIRE(trace);
    const auto requests = [&] { // since the last call
        std::fflush(trace.get());
        std::rewind(trace.get());
        int n = 0;
        for (char line[256]; std::fgets(line, sizeof(line), trace.get());)
            n += std::string(line).find("\tFlush") != std::string::npos;
        BOOST_REQUIRE(::ftruncate(::fileno(trace.get()), 0) == 0);
        std::rewind(trace.get());
        return n;
    };
    BOOST_TEST(PQenterPipelineMode(c.native_handle()) == 1);
    PQtrace(c.native_handle(), trace.get());
    int good = 0;
    const auto count = [&](error_code ec, pq_result r) { good += !ec && text(r) == "1"; };
    for (int turn = 1; turn <= 2; ++turn) {
        for (int i = 0; i != 100; ++i)
            c.async_exec("select 1", count);
        test::run_all(io); // there is no synchronization
        BOOST_TEST(good == 100 * turn);
        BOOST_TEST(requests() == 1);
    }
    // Where a command can be cancelled, also the ends of the commands before it are told.
    asio::cancellation_signal signal;
    for (int i = 0; i != 5; ++i)
        c.async_exec("select 1", count);
    c.async_exec("select 1", asio::bind_cancellation_slot(signal.slot(), count));
    for (int i = 0; i != 5; ++i)
        c.async_exec("select 1", count);
    test::run_all(io);
    BOOST_TEST(good == 211);
    BOOST_TEST(requests() == 3);
    PQuntrace(c.native_handle());
}

BOOST_FIXTURE_TEST_CASE(an_error_aborts_the_rest_of_its_segment_only, connected) {
    BOOST_TEST(PQenterPipelineMode(c.native_handle()) == 1);
    result_outcome o[5];
    test::called syncs[2];
    c.async_exec("select 1", o[0].handler());
    c.async_exec("select 1 / 0", o[1].handler());
    c.async_exec("select 2", o[2].handler());
    c.async_pipeline_sync(syncs[0].handler());
    c.async_exec("select 3", o[3].handler());
    BOOST_TEST(PQpipelineSync(c.native_handle()) == 1); // for which nobody waits
    c.async_exec("select 4", o[4].handler());
    c.async_pipeline_sync(syncs[1].handler());
    test::run_all(io);
    BOOST_TEST(text(o[0].value) == "1");
    BOOST_CHECK_EQUAL(o[1].ec, pq_sqlstate("22012"));
    BOOST_CHECK_EQUAL(o[2].ec, pipeline_aborted);
    BOOST_TEST((o[2].ec == boost::system::errc::operation_canceled));
    BOOST_TEST(text(o[3].value) == "3");
    BOOST_TEST(text(o[4].value) == "4");
    for (test::called& s : syncs) {
        BOOST_TEST(s.times == 1);
        BOOST_CHECK_EQUAL(s.ec, error_code());
    }
}

BOOST_FIXTURE_TEST_CASE(a_copy_in_a_pipeline_which_libpq_does_not_have_holds_nothing_up,
                        connected) {
    BOOST_CHECK_EQUAL(exec(c, "create temp table t (n int)").ec, error_code());
    BOOST_TEST(PQenterPipelineMode(c.native_handle()) == 1);
    result_outcome copy;
    test::called sync;
    c.async_exec("copy t from stdin", copy.handler());
    c.async_pipeline_sync(sync.handler());
    test::run_until(io, [&] { return copy && sync; });
    BOOST_TEST(PQresultStatus(copy.value.get()) == PGRES_COPY_IN);
    BOOST_CHECK_EQUAL(sync.ec, request_refused);
    BOOST_CHECK_EQUAL(connect(c), error_code());
    check_works(c);
}

// ---- notifications ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(notifications_arrive_alone_and_together_with_results, connected) {
    pq_connection other(io);
    BOOST_REQUIRE_EQUAL(connect(other), error_code());
    BOOST_CHECK_EQUAL(exec(c, "listen news").ec, error_code());

    called_with<pq_notification> first, second;
    c.async_notification(first.handler());
    c.async_notification(second.handler());
    test::run_ready(io);
    BOOST_TEST(first.times == 0);
    BOOST_CHECK_EQUAL(exec(other, "notify news, 'one'").ec, error_code());
    test::run_until(io, [&] { return bool(first); });
    BOOST_TEST(std::string(first.value->relname) == "news");
    BOOST_TEST(std::string(first.value->extra) == "one");
    BOOST_TEST(first.value->be_pid == PQbackendPID(other.native_handle()));
    // Beside a command, and in the same packet as its result.
    BOOST_CHECK_EQUAL(exec(c, "notify news, 'two'").ec, error_code());
    test::run_until(io, [&] { return bool(second); });
    BOOST_TEST(std::string(second.value->extra) == "two");
    // Before anybody waits.
    BOOST_CHECK_EQUAL(exec(c, "notify news, 'three'; notify news, 'four'").ec, error_code());
    for (const char* expected : {"three", "four"}) {
        auto o = run<pq_notification>([&](auto h) { c.async_notification(std::move(h)); });
        BOOST_TEST(std::string(o.value->extra) == expected);
    }
    // A wait that is cancelled takes nothing.
    called_with<pq_notification> dropped, last;
    asio::cancellation_signal signal;
    c.async_notification(asio::bind_cancellation_slot(signal.slot(), dropped.handler()));
    c.async_notification(last.handler());
    test::run_ready(io);
    signal.emit(asio::cancellation_type::total);
    BOOST_CHECK_EQUAL(exec(other, "notify news, 'five'").ec, error_code());
    test::run_all(io);
    BOOST_CHECK_EQUAL(dropped.ec, test::aborted);
    BOOST_REQUIRE(last);
    BOOST_TEST(std::string(last.value->extra) == "five");
}

BOOST_FIXTURE_TEST_CASE(notifications_outlive_the_connection_that_received_them, connected) {
    BOOST_CHECK_EQUAL(exec(c, "listen news; notify news, 'one'; notify news, 'two'").ec,
                      error_code());
    check_works(c); // what comes before its result was received, too
    result_outcome o;
    c.async_exec("select pg_sleep(600)", o.handler());
    break_off(c);
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, connection_lost);
    for (const char* expected : {"one", "two"}) {
        auto n = run<pq_notification>([&](auto h) { c.async_notification(std::move(h)); });
        BOOST_REQUIRE_EQUAL(n.ec, error_code());
        BOOST_TEST(std::string(n.value->extra) == expected);
    }
    auto n = run<pq_notification>([&](auto h) { c.async_notification(std::move(h)); });
    BOOST_CHECK_EQUAL(n.ec, not_connected);
}

// ---- cancellation -------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_cancelled_command_ends_on_the_server_and_the_connection_goes_on,
                        connected) {
    pq_connection other(io);
    BOOST_REQUIRE_EQUAL(connect(other), error_code());
    const int pid = PQbackendPID(c.native_handle());
    const std::string state =
        "select state from pg_stat_activity where pid = " + std::to_string(pid);
    for (auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                      asio::cancellation_type::total})
        for (bool is_running : {true, false}) {
            result_outcome o;
            asio::cancellation_signal signal;
            c.async_exec("select pg_sleep(600)",
                         asio::bind_cancellation_slot(signal.slot(), o.handler()));
            while (is_running && text(exec(other, state).value) != "active") {}
            BOOST_TEST(o.times == 0);
            signal.emit(type); // perhaps before the server has the command
            test::run_until(io, [&] { return bool(o); });
            BOOST_CHECK_EQUAL(o.ec, cancelled);
            BOOST_TEST((o.ec == boost::system::errc::operation_canceled));
            BOOST_TEST(text(exec(other, state).value) == "idle");
            check_works(c);
            BOOST_TEST(PQbackendPID(c.native_handle()) == pid);
        }
}

BOOST_FIXTURE_TEST_CASE(a_late_cancel_hits_no_other_command, connected) {
    int hit = 0;
    for (int i = 0; i != 100; ++i) {
        result_outcome o;
        asio::cancellation_signal signal;
        c.async_exec("select 1", asio::bind_cancellation_slot(signal.slot(), o.handler()));
        for (int turns = i % 4; turns != 0 && !o; --turns)
            io.run_one_for(test::cap);
        signal.emit(asio::cancellation_type::total);
        test::run_until(io, [&] { return bool(o); });
        BOOST_TEST((!o.ec || o.ec == cancelled));
        hit += o.ec == cancelled;
        BOOST_REQUIRE_EQUAL(exec(c, "select pg_sleep(0.002)").ec, error_code());
    }
    BOOST_TEST_MESSAGE(hit << " of 100 commands were cancelled");
}

BOOST_FIXTURE_TEST_CASE(a_slow_server_meets_a_deadline, connected) {
    result_outcome o;
    asio::cancellation_signal signal;
    asio::steady_timer deadline(io, 20ms);
    c.async_exec("select pg_sleep(600)", asio::bind_cancellation_slot(signal.slot(), o.handler()));
    deadline.async_wait([&](error_code) { signal.emit(asio::cancellation_type::terminal); });
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, cancelled);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(rows_copies_and_results_are_cancelled_as_commands_are, connected) {
    asio::cancellation_signal signal;
    BOOST_TEST(PQsendQuery(c.native_handle(), "select 1; select pg_sleep(600)") == 1);
    result_outcome one, two, none;
    c.async_get_result(one.handler());
    c.async_get_result(asio::bind_cancellation_slot(signal.slot(), two.handler()));
    c.async_get_result(none.handler());
    test::run_ready(io);
    signal.emit(asio::cancellation_type::total);
    test::run_all(io);
    BOOST_CHECK_EQUAL(one.ec ? one.ec : two.ec, cancelled); // before the first result came
    BOOST_TEST(none.times == 1);

    BOOST_CHECK_EQUAL(
        exec(c, "copy (select repeat('x', 50000), pg_sleep(n) from (values (0), (600)) v(n)) "
                "to stdout")
            .ec,
        error_code());
    error_code ec;
    int rows = 0;
    for (; !ec; ++rows) {
        called_with<std::string> o;
        c.async_get_copy(asio::bind_cancellation_slot(signal.slot(), o.handler()));
        test::run_ready(io);
        if (!o)
            signal.emit(asio::cancellation_type::total);
        test::run_until(io, [&] { return bool(o); });
        ec = o.ec;
    }
    BOOST_CHECK_EQUAL(ec, cancelled);
    check_works(c);

    // Nobody reads the data.
    BOOST_CHECK_EQUAL(exec(c, "create temp table t (s text)").ec, error_code());
    BOOST_CHECK_EQUAL(exec(c, "copy t from stdin").ec, error_code());
    const std::string data(32 << 20, 'x');
    test::called put, refused;
    BOOST_REQUIRE(::kill(PQbackendPID(c.native_handle()), SIGSTOP) == 0);
    c.async_put_copy(asio::buffer(data),
                     asio::bind_cancellation_slot(signal.slot(), put.handler()));
    c.async_put_copy(asio::buffer(data), refused.handler());
    test::run_ready(io);
    BOOST_TEST(put.times == 0);
    BOOST_CHECK_EQUAL(refused.ec, request_refused);
    signal.emit(asio::cancellation_type::partial);
    test::run_all(io);
    BOOST_CHECK_EQUAL(put.ec, test::aborted);
    BOOST_REQUIRE(::kill(PQbackendPID(c.native_handle()), SIGCONT) == 0);
    result_outcome o = run<pq_result>([&](auto h) { c.async_fail_copy("enough", std::move(h)); });
    BOOST_CHECK_EQUAL(o.ec, cancelled);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_command_of_a_pipeline_is_cancelled_when_it_is_its_turn, connected) {
    BOOST_TEST(PQenterPipelineMode(c.native_handle()) == 1);
    asio::cancellation_signal signal;
    result_outcome first, second, third;
    test::called sync;
    c.async_exec("select pg_sleep(0.05)", first.handler());
    c.async_exec("select pg_sleep(600)",
                 asio::bind_cancellation_slot(signal.slot(), second.handler()));
    c.async_exec("select 3", third.handler());
    c.async_pipeline_sync(sync.handler());
    signal.emit(asio::cancellation_type::total);
    test::run_all(io);
    BOOST_CHECK_EQUAL(first.ec, error_code());
    BOOST_CHECK_EQUAL(second.ec, cancelled);
    BOOST_CHECK_EQUAL(third.ec, pipeline_aborted);
    BOOST_CHECK_EQUAL(sync.ec, error_code());
    BOOST_TEST(PQexitPipelineMode(c.native_handle()) == 1);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_result_is_sent_at_once_beside_a_slot_and_before_a_flush_request,
                        connected) {
    asio::cancellation_signal signal;
    enum { of_the_first, of_the_second, none };
    for (auto slot : {of_the_first, of_the_second, none}) {
        BOOST_TEST(PQenterPipelineMode(c.native_handle()) == 1);
        result_outcome first, second;
        const auto start = [&](bool has_slot, const char* sql, result_outcome& o) {
            if (has_slot)
                c.async_exec(sql, asio::bind_cancellation_slot(signal.slot(), o.handler()));
            else
                c.async_exec(sql, o.handler());
        };
        start(slot == of_the_first, "select 1", first);
        if (slot == none)
            BOOST_TEST(PQsendFlushRequest(c.native_handle()) == 1);
        start(slot == of_the_second, "select pg_sleep(600)", second);
        test::run_until(io, [&] { return bool(first); });
        BOOST_TEST(text(first.value) == "1");
        signal.emit(asio::cancellation_type::total); // for the first, which is over: does nothing
        test::run_ready(io);
        if (slot != of_the_second) {
            BOOST_TEST(second.times == 0);
            c.close();
        }
        test::run_all(io);
        BOOST_CHECK_EQUAL(second.ec, slot == of_the_second ? error_code(cancelled) : test::aborted);
        BOOST_CHECK_EQUAL(connect(c), error_code());
    }
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_request_that_does_not_arrive_holds_nothing_up, connected) {
    // Without its first process, the server accepts no connection.
    const ::pid_t pid = server_process();
    BOOST_REQUIRE(::kill(pid, SIGSTOP) == 0);
    result_outcome o;
    asio::cancellation_signal signal;
    c.async_exec("select pg_sleep(600)", asio::bind_cancellation_slot(signal.slot(), o.handler()));
    signal.emit(asio::cancellation_type::total);
    test::run_ready(io);
    BOOST_TEST(o.times == 0);
    c.close();
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
    BOOST_REQUIRE(::kill(pid, SIGCONT) == 0);
    BOOST_CHECK_EQUAL(connect(c), error_code());
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_cancel_of_a_later_wait_counts_when_the_earlier_one_is_over, connected) {
    // The first result is sent at once, since it is large.
    BOOST_TEST(PQsendQuery(c.native_handle(), "select repeat('x', 100000); select pg_sleep(600)"));
    asio::cancellation_signal signal;
    result_outcome one, two, none;
    c.async_get_result(one.handler());
    c.async_get_result(asio::bind_cancellation_slot(signal.slot(), two.handler()));
    c.async_get_result(none.handler());
    signal.emit(asio::cancellation_type::total);
    test::run_all(io);
    BOOST_TEST(one.times + two.times + none.times == 3);
    BOOST_CHECK_EQUAL(one.ec ? one.ec : two.ec, cancelled);
    while (exec(c, "select 1").ec == request_refused)
        run<pq_result>([&](auto h) { c.async_get_result(std::move(h)); });
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_request_that_cannot_be_sent_closes_for_terminal_only, connected) {
    result_outcome o;
    called_with<pq_notification> n;
    asio::cancellation_signal signal;
    c.async_exec("select pg_sleep(600)", asio::bind_cancellation_slot(signal.slot(), o.handler()));
    c.async_notification(n.handler());
    test::run_ready(io);
    {
        const no_more_descriptors limit;
        signal.emit(asio::cancellation_type::total);
        test::run_ready(io);
        BOOST_TEST(o.times == 0);
        BOOST_TEST(c.is_open());
        signal.emit(asio::cancellation_type::terminal);
        test::run_ready(io);
    }
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
    BOOST_CHECK_EQUAL(n.ec, test::aborted);
    BOOST_TEST(o.times + n.times == 2);
    BOOST_TEST(!c.is_open());
    BOOST_CHECK_EQUAL(connect(c), error_code());
    check_works(c);
}

// ---- the server goes ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_connection_that_the_server_ends_says_so_and_is_reset, connected) {
    pq_connection other(io);
    BOOST_REQUIRE_EQUAL(connect(other), error_code());
    result_outcome o;
    called_with<pq_notification> n;
    c.async_exec("select pg_sleep(600)", o.handler());
    c.async_notification(n.handler());
    const std::string end =
        "select pg_terminate_backend(" + std::to_string(PQbackendPID(c.native_handle())) + ")";
    BOOST_CHECK_EQUAL(exec(other, end).ec, error_code());
    test::run_until(io, [&] { return o && n; });
    BOOST_CHECK_EQUAL(o.ec, pq_sqlstate("57P01"));
    BOOST_TEST((o.ec == boost::system::errc::connection_reset));
    BOOST_CHECK_EQUAL(n.ec, connection_lost);
    BOOST_TEST((n.ec == boost::system::errc::connection_reset));
    BOOST_TEST(!c.is_open());
    BOOST_CHECK_EQUAL(exec(c, "select 1").ec, not_connected);
    PGconn* const same = c.native_handle();
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_reset(std::move(h)); }), error_code());
    BOOST_TEST(c.native_handle() == same);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(the_next_command_learns_that_an_idle_connection_was_ended, connected) {
    pq_connection other(io);
    BOOST_REQUIRE_EQUAL(connect(other), error_code());
    const std::string pid = std::to_string(PQbackendPID(c.native_handle()));
    const std::string end = "select pg_terminate_backend(" + pid + ", 20000)"; // and waits
    BOOST_TEST(text(exec(other, end).value) == "t");
    test::run_all(io);
    BOOST_TEST(c.is_open()); // nobody has asked
    result_outcome o = exec(c, "select 1");
    BOOST_TEST((o.ec == connection_lost || o.ec == pq_sqlstate("57P01")), o.ec.message());
    BOOST_TEST(!c.error_message().empty());
    BOOST_TEST(!c.is_open());
    BOOST_CHECK_EQUAL(connect(c), error_code());
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(each_operation_says_that_the_connection_broke, connected) {
    auto check = [&](error_code ec) {
        BOOST_CHECK_EQUAL(ec, connection_lost);
        BOOST_TEST(c.error_message().find("closed") != std::string::npos, c.error_message());
        BOOST_TEST(!c.is_open());
        BOOST_REQUIRE_EQUAL(connect(c), error_code());
    };
    {
        BOOST_TEST(PQsendQuery(c.native_handle(), "select pg_sleep(600)") == 1);
        result_outcome o;
        c.async_get_result(o.handler());
        test::run_ready(io);
        break_off(c);
        test::run_all(io);
        check(o.ec);
    }
    {
        begin_slow_copy(c);
        called_with<std::string> o;
        c.async_get_copy(o.handler());
        test::run_ready(io);
        break_off(c);
        test::run_all(io);
        check(o.ec);
    }
    {
        BOOST_CHECK_EQUAL(exec(c, "create temp table t (s text)").ec, error_code());
        BOOST_CHECK_EQUAL(exec(c, "copy t from stdin").ec, error_code());
        const std::string data(32 << 20, 'x');
        const ::pid_t pid = PQbackendPID(c.native_handle());
        BOOST_REQUIRE(::kill(pid, SIGSTOP) == 0); // nobody reads the data
        test::called o;
        c.async_put_copy(asio::buffer(data), o.handler());
        test::run_ready(io);
        BOOST_TEST(o.times == 0);
        break_off(c);
        test::run_all(io);
        BOOST_REQUIRE(::kill(pid, SIGCONT) == 0);
        check(o.ec);
    }
    {
        BOOST_TEST(PQenterPipelineMode(c.native_handle()) == 1);
        BOOST_TEST(PQsendQueryParams(c.native_handle(), "select pg_sleep(600)", 0, nullptr, nullptr,
                                     nullptr, nullptr, 0) == 1);
        test::called o;
        c.async_pipeline_sync(o.handler());
        test::run_ready(io);
        break_off(c);
        test::run_all(io);
        check(o.ec);
    }
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_copy_to_a_server_that_is_gone_does_not_go_on, connected) {
    pq_connection other(io);
    BOOST_REQUIRE_EQUAL(connect(other), error_code());
    // Where the kernel refuses the data at once.
    BOOST_REQUIRE_EQUAL(connect(c, on_unix_socket()), error_code());
    BOOST_CHECK_EQUAL(exec(c, "create temp table t (s text)").ec, error_code());
    BOOST_CHECK_EQUAL(exec(c, "copy t from stdin").ec, error_code());
    const std::string pid = std::to_string(PQbackendPID(c.native_handle()));
    const std::string end = "select pg_terminate_backend(" + pid + ", 20000)"; // and waits
    BOOST_TEST(text(exec(other, end).value) == "t");
    const std::string row = "x\n";
    // Behind the last words of the server, libpq meets the end with the second attempt.
    error_code ec;
    for (int i = 0; i != 2 && !ec; ++i)
        ec = run_ec([&](auto h) { c.async_put_copy(asio::buffer(row), std::move(h)); });
    BOOST_CHECK_EQUAL(ec, connection_lost);
    BOOST_TEST(!c.is_open());
    BOOST_TEST(!c.error_message().empty());
}

BOOST_FIXTURE_TEST_CASE(a_connection_that_breaks_after_any_turn_of_the_loop_completes_everything,
                        connected) {
    BOOST_CHECK_EQUAL(exec(c, "create table if not exists moor_rows (n int)").ec, error_code());
    const std::string data(100000, '1');
    for (int turns = 0;; ++turns) {
        BOOST_TEST_CONTEXT(turns << " turns") {
            pq_connection d(io);
            int started = 0, ended = 0;
            bool is_done = false;
            // Each calls the next one, also after an error.
            auto go = [&](auto start, auto next) {
                ++started;
                start([&ended, next](error_code, auto&&...) {
                    ++ended;
                    next();
                });
            };
            auto listens = [&] {
                go([&](auto h) { d.async_exec("listen news; notify news", h); }, [] {});
                go([&](auto h) { d.async_notification(h); }, [&] { is_done = true; });
            };
            auto drops = [&] { go([&](auto h) { d.async_fail_copy("no", h); }, listens); };
            auto puts = [&] {
                go([&](auto h) { d.async_put_copy(asio::buffer(data), h); }, drops);
            };
            auto copies_in = [&] {
                go([&](auto h) { d.async_exec("copy moor_rows from stdin", h); }, puts);
            };
            auto gets_end = [&] { go([&](auto h) { d.async_get_copy(h); }, copies_in); };
            auto gets = [&] { go([&](auto h) { d.async_get_copy(h); }, gets_end); };
            auto copies_out = [&] {
                go([&](auto h) { d.async_exec("copy (select 1) to stdout", h); }, gets);
            };
            go([&](auto h) { d.async_connect(turns % 2 ? with_tls() : here(), h); },
               [&] {
                   if (d.is_open())
                       copies_out();
               });
            for (int i = 0; i != turns && !is_done; ++i)
                io.run_one_for(test::cap);
            const bool was_done = is_done;
            if (d.native_handle() && PQsocket(d.native_handle()) >= 0)
                break_off(d);
            test::run_all(io);
            BOOST_REQUIRE_EQUAL(ended, started);
            io.restart();
            if (was_done && turns % 2)
                break;
        }
    }
    BOOST_CHECK_EQUAL(exec(c, "drop table moor_rows").ec, error_code());
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_server_that_is_killed_in_a_copy_is_used_again, loop) {
    pq_connection c[3] = {pq_connection(io), pq_connection(io), pq_connection(io)};
    const auto is_end = [](error_code ec) {
        return ec == connection_lost || moor::adapt::pq_sqlstate_of(ec).substr(0, 3) == "57P";
    };
    for (pq_connection& each : c)
        BOOST_REQUIRE_EQUAL(connect(each), error_code());
    // A reader who waits for the next row.
    begin_slow_copy(c[0]);
    called_with<std::string> next;
    c[0].async_get_copy(next.handler());
    // A writer whose data nobody reads.
    BOOST_CHECK_EQUAL(exec(c[1], "create temp table t (s text)").ec, error_code());
    BOOST_CHECK_EQUAL(exec(c[1], "copy t from stdin").ec, error_code());
    const ::pid_t pid = PQbackendPID(c[1].native_handle());
    BOOST_REQUIRE(::kill(pid, SIGSTOP) == 0);
    const std::string data(32 << 20, 'x');
    test::called put;
    c[1].async_put_copy(asio::buffer(data), put.handler());
    // A writer who pauses.
    BOOST_CHECK_EQUAL(exec(c[2], "create temp table t (s text)").ec, error_code());
    BOOST_CHECK_EQUAL(exec(c[2], "copy t from stdin").ec, error_code());
    const std::string line = "x\n";
    BOOST_CHECK_EQUAL(
        run_ec([&](auto h) { c[2].async_put_copy(asio::buffer(line), std::move(h)); }),
        error_code());
    test::run_ready(io);
    BOOST_TEST(next.times + put.times == 0);

    BOOST_REQUIRE(::kill(pid, SIGKILL) == 0); // then the server ends the others, and starts anew
    control_server("stop postgres immediate");
    test::run_all(io);
    BOOST_TEST(is_end(put.ec), put.ec.message());
    error_code ec = next.ec; // of the rest of the second row, or of none
    while (!ec)
        ec = run<std::string>([&](auto h) { c[0].async_get_copy(std::move(h)); }).ec;
    BOOST_TEST(is_end(ec), ec.message());
    // The kernel may take the first data.
    ec = error_code();
    for (int i = 0; i != 3 && !ec; ++i)
        ec = run_ec([&](auto h) { c[2].async_put_copy(asio::buffer(data), std::move(h)); });
    BOOST_TEST(is_end(ec), ec.message());
    BOOST_CHECK_EQUAL(run<pq_result>([&](auto h) { c[2].async_end_copy(std::move(h)); }).ec,
                      not_connected);
    for (pq_connection& each : c) {
        BOOST_TEST(!each.is_open());
        BOOST_TEST(!each.error_message().empty());
        BOOST_CHECK_EQUAL(run_ec([&](auto h) { each.async_reset(std::move(h)); }),
                          connection_failed);
    }
    control_server("start postgres");
    for (pq_connection& each : c) {
        BOOST_CHECK_EQUAL(run_ec([&](auto h) { each.async_reset(std::move(h)); }), error_code());
        BOOST_CHECK_EQUAL(exec(each, "copy (select 42) to stdout").ec, error_code());
        auto row = run<std::string>([&](auto h) { each.async_get_copy(std::move(h)); });
        BOOST_TEST(row.value == "42\n");
        row = run<std::string>([&](auto h) { each.async_get_copy(std::move(h)); });
        BOOST_CHECK_EQUAL(row.ec, error_code(asio::error::eof));
        check_works(each);
    }
}

BOOST_FIXTURE_TEST_CASE(a_server_that_is_killed_and_started_again_is_used_again, loop) {
    pq_connection c[3] = {pq_connection(io), pq_connection(io), pq_connection(io)};
    for (const char* mode : {"immediate", "fast"}) {
        for (pq_connection& each : c)
            BOOST_REQUIRE_EQUAL(connect(each), error_code());
        result_outcome o, p[3];
        called_with<pq_notification> n;
        c[0].async_exec("select pg_sleep(600)", o.handler());
        BOOST_TEST(PQenterPipelineMode(c[1].native_handle()) == 1);
        c[1].async_exec("select pg_sleep(600)", p[0].handler());
        c[1].async_exec("select 1", p[1].handler());
        c[1].async_exec("select 2", p[2].handler());
        c[2].async_notification(n.handler());
        test::run_ready(io);
        control_server(std::string("stop postgres ") + mode);
        test::run_all(io);
        BOOST_TEST(
            (moor::adapt::pq_sqlstate_of(o.ec).substr(0, 3) == "57P" || o.ec == connection_lost),
            o.ec.message());
        BOOST_TEST(p[0].ec.failed());
        for (const result_outcome* each : {&p[1], &p[2]})
            BOOST_TEST((each->ec == connection_lost || each->ec == pipeline_aborted));
        BOOST_CHECK_EQUAL(n.ec, connection_lost);
        BOOST_CHECK_EQUAL(connect(c[0]), connection_failed);
        BOOST_CHECK_EQUAL(run_ec([&](auto h) { c[1].async_reset(std::move(h)); }),
                          connection_failed);
        control_server("start postgres");
        BOOST_CHECK_EQUAL(connect(c[0]), error_code());
        check_works(c[0]);
        BOOST_CHECK_EQUAL(run_ec([&](auto h) { c[1].async_reset(std::move(h)); }), error_code());
        check_works(c[1]);
    }
}

// ---- exceptions ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_handler_that_throws_does_not_disturb_the_connection, connected) {
    called_with<pq_notification> n;
    c.async_notification(n.handler());
    c.async_exec("listen news", [&](error_code, pq_result) {
        c.async_exec("notify news, 'one'", [](error_code, pq_result) { throw 2; });
        throw 1;
    });
    for (int expected : {1, 2}) {
        int thrown = 0;
        try {
            test::run_all(io);
        } catch (int i) {
            thrown = i;
        }
        BOOST_TEST(thrown == expected);
    }
    test::run_all(io);
    BOOST_TEST(n.times == 1);
    BOOST_REQUIRE(n.value);
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(without_memory_an_operation_throws_or_completes_once, connected,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    const std::string error = "select 'a text that is too long for the string itself'::int";
    const std::string row = "1\n";
    asio::cancellation_signal signal;
    int times = 0;
    const auto handler = [&] {
        return asio::bind_cancellation_slot(signal.slot(), [&](error_code, auto&&...) { ++times; });
    };
    const std::function<void()> starts[] = {
        [&] { c.async_exec(error, handler()); },
        [&] { c.async_exec_params("select $1::int", pq_params("x"), handler()); },
        [&] { c.async_get_result(handler()); },
        [&] { c.async_get_copy(handler()); },
        [&] { c.async_put_copy(asio::buffer(row), handler()); },
        [&] { c.async_notification(handler()); },
        [&] { c.async_pipeline_sync(handler()); },
        [&] { c.async_reset(handler()); },
        [&] { c.async_connect(here(), handler()); },
        [&] { c.async_connect(with_tls(), handler()); },
    };
    const auto try_at = [&](std::size_t i, long n, bool in_the_loop) {
        if (!c.is_open())
            BOOST_REQUIRE_EQUAL(connect(c), error_code());
        if (i == 4)
            exec(c, "create temp table if not exists t (n int); copy t from stdin");
        if (i == 5)
            BOOST_REQUIRE_EQUAL(exec(c, "listen news; notify news").ec, error_code());
        times = 0;
        int thrown = 0;
        if (in_the_loop)
            starts[i]();
        bool has_failed = false;
        {
            io.restart();
            test::fault none(test::call::allocation, ENOMEM, n + 1, in_the_loop ? 1 : none.always);
            try {
                if (in_the_loop)
                    io.run();
                else
                    starts[i]();
            } catch (const std::bad_alloc&) {
                ++thrown;
            }
            has_failed = none.happened() != 0;
        }
        test::run_all(io);
        BOOST_TEST(times + (in_the_loop ? 0 : thrown) == 1);
        signal.emit(asio::cancellation_type::terminal); // hits nothing
        if (i == 4)
            c.close();
        return has_failed;
    };
    for (bool in_the_loop : {false, true})
        for (std::size_t i = 0; i != std::size(starts) - in_the_loop; ++i) // Asio's resolver throws
            for (long n = 0;; ++n)
                BOOST_TEST_CONTEXT("operation " << i << ", allocation " << n << ", " << in_the_loop)
    if (!try_at(i, n, in_the_loop))
        break;
    BOOST_REQUIRE_EQUAL(connect(c), error_code());
    check_works(c);
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_connection_is_destroyed_after_any_turn_of_the_loop, counted_loop) {
    {
        pq_connection first(io);
        BOOST_REQUIRE_EQUAL(connect(first), error_code());
    }
    descriptors = test::open_descriptors();
    for (const std::string& info : {here(), with_tls(), on_unix_socket()}) {
        int ended = 0, started = 0;
        auto count = [&ended](auto&&...) { ++ended; };
        for (int turns = 0; ended < 4 * 3 || turns == 0; ++turns) {
            io.restart();
            ended = started = 0;
            std::optional<pq_connection> c(std::in_place, io);
            asio::cancellation_signal signal;
            bool is_done = false;
            c->async_connect(info, [&](error_code ec) {
                ++ended;
                if (ec || !c)
                    return;
                started = 3;
                c->async_exec("listen news; notify news", [&](error_code e, pq_result) {
                    ++ended;
                    if (e || !c)
                        return;
                    ++started;
                    c->async_exec("select pg_sleep(600)",
                                  asio::bind_cancellation_slot(signal.slot(), [&](auto&&...) {
                                      ++ended;
                                      is_done = true;
                                  }));
                    signal.emit(asio::cancellation_type::terminal);
                });
                c->async_notification(count);
                c->async_notification(count);
            });
            for (int i = 0; i != turns && !is_done; ++i)
                io.run_one_for(test::cap);
            const bool was_done = is_done;
            c.reset();
            test::run_all(io);
            BOOST_REQUIRE_EQUAL(ended, started + 1);
            if (was_done)
                break;
        }
    }
    check_descriptors();
}

BOOST_AUTO_TEST_CASE(a_connection_outlives_its_context) {
    for (int stage = 0; stage != 5; ++stage) {
        std::optional<pq_connection> c;
        auto alive = std::make_shared<int>(0);
        auto hold = [alive](auto&&...) {};
        {
            loop l;
            c.emplace(l.io);
            asio::cancellation_signal signal;
            if (stage == 0) {
                c->async_connect(with_tls(), hold); // looks up
            } else {
                BOOST_REQUIRE_EQUAL(l.connect(*c), error_code());
                c->async_notification(hold);
                if (stage >= 2)
                    c->async_exec("select pg_sleep(600)",
                                  asio::bind_cancellation_slot(signal.slot(), hold));
                if (stage >= 3)
                    test::run_ready(l.io);
                if (stage == 4) {
                    signal.emit(asio::cancellation_type::total);
                    l.io.poll();
                }
            }
            // The context has work, which its fixture would complain about.
            auto io = std::make_unique<asio::io_context>();
            c->close();
            l.io.restart();
            l.io.poll();
            c.emplace(*io);
            c->async_connect(stage == 0 ? with_tls() : here(), hold);
            for (int i = 0; i != stage; ++i)
                io->run_one_for(test::cap);
            io.reset();
            test::run_all(l.io);
        }
        BOOST_TEST(alive.use_count() == 2); // of `hold`
        c.reset();
    }
}

BOOST_FIXTURE_TEST_CASE(a_handler_that_owns_the_connection_does_not_leak, loop) {
    auto alive = std::make_shared<int>(0);
    {
        asio::io_context other;
        auto c = std::make_shared<pq_connection>(other);
        c->async_connect(here(), [c, alive](error_code) {
            c->async_notification([c, alive](error_code, pq_notification) {});
        });
        c.reset();
        for (int i = 0; i != 3; ++i)
            other.run_one_for(test::cap);
    }
    BOOST_TEST(alive.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(connections_are_moved_borrowed_and_released, connected) {
    result_outcome o;
    c.async_exec("select 7", o.handler());
    pq_connection moved(std::move(c));
    test::run_all(io);
    BOOST_TEST(text(o.value) == "7");
    PGconn* const p = moved.release();
    BOOST_TEST(!moved.is_open());
    BOOST_TEST(!PQisnonblocking(p));
    pq_handle owner(p);
    {
        pq_connection borrowed(io, p);
        BOOST_TEST(borrowed.is_open());
        check_works(borrowed);
        borrowed.async_notification([&](error_code ec, pq_notification) { o.ec = ec; });
    }
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
    const pq_result r(PQexec(p, "select 8"));
    BOOST_TEST(text(r) == "8");
    moved = pq_connection(io, std::move(owner));
    check_works(moved);
    moved = pq_connection(io);

    pq_connection started(io, pq_handle(PQconnectStart(here().c_str())));
    BOOST_TEST(!started.is_open());
    BOOST_CHECK_EQUAL(run_ec([&](auto h) { started.async_continue_connect(std::move(h)); }),
                      error_code());
    check_works(started);
}

// ---- nothing to do ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_idle_connection_costs_nothing_and_lets_the_loop_end, connected) {
    test::run_all(io); // returns although the connection is open
    check_works(c);
    test::run_all(io);
    test::check_costs_nothing(io);
    // Nor does a connection that listens.
    BOOST_CHECK_EQUAL(exec(c, "listen news").ec, error_code());
    called_with<pq_notification> n;
    c.async_notification(n.handler());
    test::run_ready(io);
    test::check_costs_nothing(io);
    BOOST_TEST(n.times == 0);
    c.close();
    test::run_all(io);
    BOOST_CHECK_EQUAL(n.ec, test::aborted);
}

// ---- executors and tokens -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_connection_runs_on_a_strand_of_a_thread_pool) {
    asio::thread_pool pool(3);
    using strand_type = asio::strand<asio::thread_pool::executor_type>;
    strand_type strand = asio::make_strand(pool.get_executor());
    constexpr int count = 200;
    std::atomic<int> good{0}, outside{0};
    std::promise<void> over;
    moor::adapt::basic_pq_connection<strand_type> c(strand);
    asio::cancellation_signal signal;
    int n = 0;
    std::function<void()> next = [&] {
        outside += !strand.running_in_this_thread();
        if (n == count) {
            c.async_exec("select pg_sleep(600)",
                         asio::bind_cancellation_slot(signal.slot(), [&](error_code ec, pq_result) {
                             outside += !strand.running_in_this_thread();
                             good += ec == cancelled;
                             c.close();
                             over.set_value();
                         }));
            signal.emit(asio::cancellation_type::total);
            return;
        }
        c.async_exec_params("select $1::int", pq_params(n), [&](error_code ec, pq_result r) {
            good += !ec && PQgetvalue(r.get(), 0, 0) == std::to_string(n);
            ++n;
            next();
        });
    };
    asio::post(strand, [&] {
        c.async_connect(with_tls(), [&](error_code ec) {
            if (!ec)
                return next();
            over.set_value();
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
    pq_connection c(pool);
    there([&] { return c.async_connect(here(), asio::use_future); }).get();
    std::future<pq_result> r = there([&] { return c.async_exec("select 9", asio::use_future); });
    BOOST_TEST(text(r.get()) == "9");
    there([&] { c.close(); });
    pool.join();
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace {

using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;

asio::awaitable<void> race(pq_connection& c, int& good) {
    co_await c.async_connect(with_tls(), use_awaitable);
    asio::steady_timer deadline(co_await asio::this_coro::executor, 20ms);
    auto first = co_await (c.async_exec("select pg_sleep(600)", asio::as_tuple(use_awaitable)) ||
                           deadline.async_wait(asio::as_tuple(use_awaitable)));
    good += first.index() == 1;
    pq_params params(40, 2);
    pq_result r = co_await c.async_exec_params("select $1::int + $2::int", params, use_awaitable);
    good += text(r) == "42";
    try {
        co_await c.async_exec("nonsense", use_awaitable);
    } catch (const boost::system::system_error& e) {
        good += e.code() == pq_sqlstate("42601");
    }
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_coroutine_races_a_command_against_a_timer, loop) {
    pq_connection c(io);
    int good = 0;
    asio::co_spawn(io, race(c, good), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    test::run_all(io);
    BOOST_TEST(good == 3);
}

#endif

BOOST_AUTO_TEST_SUITE_END()
