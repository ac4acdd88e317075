// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for c-ares against dns_server.py, which servers.sh starts. The names say what the
// server does: see there. Without it, each case fails.

#define CARES_NO_DEPRECATED // newer versions have other parsers, too

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/quiet.hpp"
#include "support/servers.hpp"
#include "support/vocabulary.hpp"

#include <moor/adapt/c_ares.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
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

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <arpa/nameser.h>

BOOST_AUTO_TEST_SUITE(c_ares)

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using asio::ip::udp;
using moor::adapt::basic_c_ares_resolver;
using moor::adapt::c_ares_answer;
using moor::adapt::c_ares_error;
using moor::adapt::c_ares_options;
using moor::adapt::c_ares_resolver;
using moor::adapt::c_ares_udp_resolver;
using test::called_with;
using test::control_server;
using test::error_code;
using test::variable;
using namespace std::chrono_literals;
using results = tcp::resolver::results_type;
using flags = asio::ip::resolver_base::flags;

static_assert(std::is_same<c_ares_resolver::results_type, tcp::resolver::results_type>::value);
static_assert(std::is_same<c_ares_resolver::flags, tcp::resolver::flags>::value);

const error_code host_not_found(asio::error::host_not_found);
const error_code no_data(asio::error::no_data);
const error_code service_not_found(asio::error::service_not_found);
const error_code timeout(c_ares_error::timeout);
const error_code no_server(c_ares_error::no_server);
const error_code bad_name(c_ares_error::bad_name);
const error_code invalid_argument(asio::error::invalid_argument);

/// The server, with a timeout that no busy machine reaches.
c_ares_options here(std::chrono::milliseconds first_timeout = 60s) {
    c_ares_options o;
    o.servers = variable("MOOR_SERVERS_DNS");
    o.timeout = first_timeout;
#if defined(ARES_OPT_QUERY_CACHE)
    o.native_mask = ARES_OPT_QUERY_CACHE; // no cache: queries are counted
#endif
    return o;
}
c_ares_options with_flags(int f, c_ares_options o = here()) {
    o.native.flags = f;
    o.native_mask |= ARES_OPT_FLAGS;
    return o;
}
/// Each try with its own timeout: what is not answered is over after a short while.
c_ares_options impatient() {
    c_ares_options o = here(100ms);
    o.tries = 2;
    return o;
}

template <class Protocol>
std::string text(const asio::ip::basic_resolver_results<Protocol>& r) {
    std::ostringstream out;
    for (const auto& e : r)
        out << e.endpoint() << ' ' << e.host_name() << ' ' << e.service_name() << '\n';
    return out.str();
}

/// The strings of TXT records.
std::vector<std::string> strings(const c_ares_answer& a) {
    std::vector<std::string> found;
    ares_txt_reply* list = nullptr;
    BOOST_REQUIRE(ares_parse_txt_reply(a.data(), static_cast<int>(a.size()), &list) == 0);
    for (const ares_txt_reply* t = list; t; t = t->next)
        found.emplace_back(reinterpret_cast<const char*>(t->txt), t->length);
    ares_free_data(list);
    return found;
}

using lookup = called_with<results>;
using query = called_with<c_ares_answer>;

/// A context, and calls that run it until an operation is over.
struct loop : test::context_fixture {
    template <class Value, class Start>
    called_with<Value> run(Start start) {
        called_with<Value> o;
        start(o.handler());
        BOOST_TEST(o.times == 0); // not from within the initiating function
        test::run_until(io, [&] { return bool(o); });
        BOOST_TEST(o.times == 1);
        return o;
    }
    template <class Resolver, class... Args>
    auto resolve(Resolver& r, const Args&... args) {
        return run<typename Resolver::results_type>(
            [&](auto h) { r.async_resolve(args..., std::move(h)); });
    }
    template <class Resolver>
    query ask(Resolver& r, const std::string& name, int type) {
        return run<c_ares_answer>(
            [&](auto h) { r.async_query(name, ns_c_in, type, std::move(h)); });
    }
    template <class Resolver>
    void check_works(Resolver& r) {
        const lookup o = resolve(r, "n258.test", "80");
        BOOST_CHECK_EQUAL(o.ec, error_code());
        BOOST_TEST(text(o.value) == "10.0.1.2:80 n258.test 80\n");
    }

    /// Has the server send the answers that it holds back; returns how many.
    int release() {
        c_ares_resolver control(io, here());
        const query o = ask(control, "release.control.test", ns_t_txt);
        BOOST_REQUIRE_EQUAL(o.ec, error_code());
        return std::stoi(strings(o.value).at(0));
    }
    /// How many queries the server has received so far.
    int queries(bool by_tcp = false) {
        c_ares_resolver control(io, here());
        const query o = ask(control, "count.control.test", ns_t_txt);
        BOOST_REQUIRE_EQUAL(o.ec, error_code());
        return std::stoi(strings(o.value).at(by_tcp));
    }
};

/// A loop whose end leaves no descriptor behind, with a resolver.
struct resolver_fixture : loop {
    long descriptors;
    c_ares_options options;
    std::optional<c_ares_resolver> resolver;
    c_ares_resolver& r;

    explicit resolver_fixture(c_ares_options o = here())
        : descriptors(prepare_reactor()), options(std::move(o)),
          resolver(std::in_place, io, options), r(*resolver) {}
    ~resolver_fixture() {
        resolver.reset();
        BOOST_TEST(test::open_descriptors() == descriptors);
    }

private:
    /// The reactor's descriptors belong to the context.
    long prepare_reactor() {
        moor::watcher w(io);
        asio::steady_timer t(io, 0s);
        t.async_wait([](error_code) {});
        test::run_all(io);
        return test::open_descriptors();
    }
};
struct impatient_fixture : resolver_fixture {
    impatient_fixture() : resolver_fixture(impatient()) {}
};

} // namespace

// ---- names --------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_name_gives_its_addresses_with_host_and_service, resolver_fixture) {
    BOOST_TEST_MESSAGE("c-ares " << ares_version(nullptr));
    BOOST_TEST(text(resolve(r, "four.test", "http").value) ==
               "10.0.0.1:80 four.test http\n10.0.0.2:80 four.test http\n");
    BOOST_TEST(text(resolve(r, "six.test", "8080").value) == "[::1]:8080 six.test 8080\n");
    BOOST_TEST(text(resolve(r, tcp::v4(), "both.test", "").value) == "127.0.0.1:0 both.test \n");
    BOOST_TEST(text(resolve(r, tcp::v6(), "both.test", "1").value) == "[::1]:1 both.test 1\n");
    BOOST_TEST(text(resolve(r, "alias.test", "1").value) ==
               "10.0.0.1:1 alias.test 1\n10.0.0.2:1 alias.test 1\n");
    BOOST_TEST(text(resolve(r, "alias.test", "1", r.canonical_name).value) ==
               "10.0.0.1:1 four.test 1\n10.0.0.2:1 four.test 1\n");
    BOOST_TEST(text(resolve(r, "foreign.test", "1").value) == "10.0.0.1:1 foreign.test 1\n");
    // IPv6 first, as by getaddrinfo.
    BOOST_TEST(text(resolve(r, "both.test", "1").value) ==
               "[::1]:1 both.test 1\n127.0.0.1:1 both.test 1\n");

    BOOST_TEST(text(resolve(r, tcp::v6(), "four.test", "1", r.v4_mapped).value) ==
               "[::ffff:10.0.0.1]:1 four.test 1\n[::ffff:10.0.0.2]:1 four.test 1\n");
    BOOST_TEST(text(resolve(r, tcp::v6(), "both.test", "1", r.v4_mapped).value) ==
               "[::1]:1 both.test 1\n");
    BOOST_TEST(resolve(r, tcp::v6(), "both.test", "1", r.v4_mapped | r.all_matching).value.size() ==
               2);
    BOOST_TEST(resolve(r, "four.test", "1", r.address_configured).value.size() <= 2);
}

BOOST_FIXTURE_TEST_CASE(what_needs_no_server_is_as_by_the_resolver_of_asio, resolver_fixture) {
    tcp::resolver asio_resolver(io);
    const int before = queries();
    struct row {
        const char *host, *service;
        flags f;
    };
    const row rows[] = {
        {"127.0.0.1", "80", {}},
        {"127.1", "http", {}},
        {"::1", "https", {}},
        {"::ffff:1.2.3.4", "1", {}},
        {"fe80::1%1", "1", {}},
        {"localhost", "http", {}},
        {"localhost", "80", r.address_configured},
        {"", "80", {}},
        {"", "80", r.passive},
        {"", "", {}},
        {"127.0.0.1", "nonsense", {}},
        {"four.test", "nonsense", {}},
        {"four.test", "http", r.numeric_service},
        {"four.test", "http", r.numeric_host},
        {"127.0.0.1", "0", r.numeric_host | r.numeric_service},
        {"127.0.0.1", "99999999", {}},
        {"", "80", r.canonical_name},
    };
    for (const row& each : rows)
        for (int family = 0; family != 3; ++family)
            BOOST_TEST_CONTEXT(each.host << ' ' << each.service << ' ' << family) {
                if (family != 1 && each.host == std::string("localhost"))
                    continue; // /etc/hosts may have IPv4 only
                error_code ec;
                results expected;
                lookup o;
                if (family == 0) {
                    expected = asio_resolver.resolve(each.host, each.service, each.f, ec);
                    o = resolve(r, each.host, each.service, each.f);
                } else {
                    const tcp protocol = family == 1 ? tcp::v4() : tcp::v6();
                    if (protocol == tcp::v6() && each.host == std::string("127.1"))
                        continue; // for c-ares a name
                    expected = asio_resolver.resolve(protocol, each.host, each.service, each.f, ec);
                    o = resolve(r, protocol, each.host, each.service, each.f);
                }
                BOOST_CHECK_EQUAL(o.ec, ec);
                BOOST_TEST(text(o.value) == text(expected));
            }
    BOOST_TEST(queries() == before);
    BOOST_CHECK_EQUAL(resolve(r, "four.test", "nonsense").ec, service_not_found);

    c_ares_udp_resolver u(io, options);
    BOOST_TEST(text(resolve(u, "four.test", "domain").value) ==
               "10.0.0.1:53 four.test domain\n10.0.0.2:53 four.test domain\n");
}

BOOST_FIXTURE_TEST_CASE(an_address_gives_its_name_and_service, resolver_fixture) {
    auto names = [&](const char* address, unsigned short port) {
        return text(resolve(r, tcp::endpoint(asio::ip::make_address(address), port)).value);
    };
    BOOST_TEST(names("192.0.2.7", 80) == "192.0.2.7:80 seven.test http\n");
    BOOST_TEST(names("192.0.2.8", 0) == "192.0.2.8:0 192.0.2.8 0\n");         // without a name
    BOOST_TEST(names("192.0.2.10", 80) == "192.0.2.10:80 192.0.2.10 http\n"); // an alias of nothing
    BOOST_TEST(names("127.0.0.1", 80).find("localhost http") != std::string::npos);
    BOOST_TEST(names("2001:db8::1", 54321) == "[2001:db8::1]:54321 2001:db8::1 54321\n");
    c_ares_udp_resolver u(io, options);
    BOOST_TEST(text(resolve(u, udp::endpoint(asio::ip::make_address("192.0.2.7"), 69)).value) ==
               "192.0.2.7:69 seven.test tftp\n");
    // c-ares does not say that no server has answered.
    c_ares_resolver hasty(io, impatient());
    const lookup o = resolve(hasty, tcp::endpoint(asio::ip::make_address("192.0.2.11"), 1));
    BOOST_CHECK_EQUAL(o.ec, error_code());
    BOOST_TEST(text(o.value) == "192.0.2.11:1 192.0.2.11 tcpmux\n");
}

BOOST_FIXTURE_TEST_CASE(errors_are_those_of_asio_or_of_c_ares, impatient_fixture) {
    BOOST_CHECK_EQUAL(resolve(r, "nothing.test", "80").ec, host_not_found);
    BOOST_CHECK_EQUAL(resolve(r, "empty.test", "80").ec, host_not_found);
    BOOST_CHECK_EQUAL(resolve(r, tcp::v6(), "four.test", "80").ec, host_not_found);
    BOOST_CHECK_EQUAL(resolve(r, "garbage.test", "80").ec, error_code(c_ares_error::bad_answer));
    BOOST_CHECK_EQUAL(resolve(r, "two..dots", "80").ec, bad_name);
    BOOST_CHECK_EQUAL(resolve(r, std::string(64, 'x') + ".test", "80").ec, bad_name);
    BOOST_CHECK_EQUAL(resolve(r, std::string("four.test\0.example", 18), "80").ec, bad_name);
    BOOST_CHECK_EQUAL(resolve(r, "four.test", std::string("80\0", 3)).ec, bad_name);
    BOOST_CHECK_EQUAL(resolve(r, "drop.test", "80").ec, timeout);
    const error_code failed = resolve(r, "fails.test", "80").ec;
    BOOST_TEST((failed == no_server || failed == c_ares_error::server_failed), failed.message());

    BOOST_CHECK_EQUAL(ask(r, "nothing.test", ns_t_a).ec, host_not_found);
    BOOST_CHECK_EQUAL(ask(r, "empty.test", ns_t_a).ec, no_data);
    BOOST_CHECK_EQUAL(ask(r, "two..dots", ns_t_a).ec, bad_name);
    BOOST_CHECK_EQUAL(ask(r, std::string("four.test\0.example", 18), ns_t_a).ec, bad_name);
    for (int none : {-1, 0x10000 + ns_t_a}) {
        BOOST_CHECK_EQUAL(ask(r, "four.test", none).ec, invalid_argument);
        const query other_class = run<c_ares_answer>(
            [&](auto h) { r.async_query("four.test", none, ns_t_a, std::move(h)); });
        BOOST_CHECK_EQUAL(other_class.ec, invalid_argument);
    }
    c_ares_resolver raw(io, with_flags(ARES_FLAG_NOCHECKRESP));
    BOOST_CHECK_EQUAL(ask(raw, "fails.test", ns_t_a).ec, error_code(c_ares_error::server_failed));
    BOOST_CHECK_EQUAL(ask(raw, "refuses.test", ns_t_a).ec, error_code(c_ares_error::refused));

    namespace errc = boost::system::errc;
    BOOST_TEST((timeout == errc::timed_out));
    BOOST_TEST((no_server == errc::connection_refused));
    BOOST_TEST((bad_name == errc::invalid_argument));
    BOOST_TEST(timeout.message() == ares_strerror(ARES_ETIMEOUT));
    BOOST_TEST(std::string(timeout.category().name()) == "c-ares");
    BOOST_CHECK_EQUAL(moor::adapt::c_ares_error_code(ARES_ENODATA), no_data);
    BOOST_CHECK_EQUAL(moor::adapt::c_ares_error_code(ARES_SUCCESS), error_code());
}

BOOST_FIXTURE_TEST_CASE(options_that_are_no_options_are_refused, loop) {
    c_ares_options o = here();
    o.servers = "no address";
    try {
        c_ares_resolver r(io, o);
        BOOST_ERROR("no exception");
    } catch (const boost::system::system_error& e) {
        BOOST_TEST(e.code().category().name() == std::string("c-ares"));
    }
    o = here();
    o.max_in_flight = 0;
    c_ares_resolver r(io, o);
    check_works(r);
    ares_set_local_ip4(r.native_handle(), 0x7f000001);
    check_works(r);
}

BOOST_FIXTURE_TEST_CASE(a_timeout_that_is_too_long_for_c_ares_is_the_longest, loop) {
    for (auto first_timeout : {std::chrono::milliseconds((1ll << 32) + 1), -1ms}) {
        c_ares_resolver r(io, here(first_timeout));
        BOOST_CHECK_EQUAL(resolve(r, tcp::v4(), "delay.test", "1").ec, error_code());
    }
}

BOOST_FIXTURE_TEST_CASE(search_domains_are_tried, loop) {
    c_ares_options o = here();
    char first[] = "nothing.test", second[] = "test";
    char* domains[] = {first, second};
    o.native.domains = domains;
    o.native.ndomains = 2;
    o.native_mask |= ARES_OPT_DOMAINS;
    c_ares_resolver r(io, o);
    BOOST_TEST(text(resolve(r, "four", "1", r.canonical_name).value) ==
               "10.0.0.1:1 four.test 1\n10.0.0.2:1 four.test 1\n");
}

// ---- records ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(records_of_any_type_are_there_for_the_parsers_of_c_ares, resolver_fixture) {
    const query text_of = ask(r, "text.test", ns_t_txt);
    BOOST_CHECK_EQUAL(text_of.ec, error_code());
    BOOST_TEST(strings(text_of.value) == (std::vector<std::string>{"one", "two", "three"}),
               boost::test_tools::per_element());

    const query srv = ask(r, "_sip._tcp.test", ns_t_srv);
    BOOST_REQUIRE_EQUAL(srv.ec, error_code());
    ares_srv_reply* services = nullptr;
    BOOST_REQUIRE(ares_parse_srv_reply(srv.value.data(), static_cast<int>(srv.value.size()),
                                       &services) == ARES_SUCCESS);
    BOOST_TEST(services->host == std::string("four.test"));
    BOOST_TEST(services->port == 5060);
    BOOST_TEST(services->next->priority == 2);
    ares_free_data(services);

    const query mx = ask(r, "mail.test", ns_t_mx);
    BOOST_REQUIRE_EQUAL(mx.ec, error_code());
    ares_mx_reply* hosts = nullptr;
    BOOST_REQUIRE(ares_parse_mx_reply(mx.value.data(), static_cast<int>(mx.value.size()), &hosts) ==
                  ARES_SUCCESS);
    BOOST_TEST(hosts->host == std::string("mx1.test"));
    BOOST_TEST(hosts->next->priority == 20);
    ares_free_data(hosts);

    BOOST_TEST(!ask(r, "nothing.test", ns_t_a).value.empty()); // with the error, too
}

BOOST_FIXTURE_TEST_CASE(what_is_too_long_for_udp_comes_by_tcp, resolver_fixture) {
    const int before = queries(true);
    for (int i = 0; i != 3; ++i) {
        const query o = ask(r, "long.test", ns_t_txt);
        BOOST_CHECK_EQUAL(o.ec, error_code());
        BOOST_TEST(strings(o.value).size() == 40u);
    }
    BOOST_TEST(queries(true) == before + 3);

    c_ares_resolver by_tcp(io, with_flags(ARES_FLAG_USEVC));
    std::deque<lookup> all(200);
    for (std::size_t i = 0; i != all.size(); ++i)
        by_tcp.async_resolve('n' + std::to_string(i) + ".test", "1", all[i].handler());
    test::run_all(io);
    for (std::size_t i = 0; i != all.size(); ++i)
        BOOST_TEST(text(all[i].value) ==
                   "10.0.0." + std::to_string(i) + ":1 n" + std::to_string(i) + ".test 1\n");
}

// ---- many ---------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(ten_thousand_lookups_in_a_row_give_their_addresses, resolver_fixture) {
    const unsigned most = 10000;
    unsigned n = 0, wrong = 0;
    std::function<void()> next = [&] {
        r.async_resolve(tcp::v4(), 'n' + std::to_string(n) + ".test", "80",
                        [&](error_code ec, const results& found) {
                            const tcp::endpoint expected(asio::ip::address_v4(0x0a000000u + n), 80);
                            wrong +=
                                ec || found.size() != 1 || found.begin()->endpoint() != expected;
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
    BOOST_TEST(wrong == 0u);
    const auto used = test::counts() - before;
    BOOST_TEST_MESSAGE("a lookup: " << double(used.turns()) / most << " turns, "
                                    << double(used.poll) / most << " poll, "
                                    << double(used.epoll_ctl) / most << " epoll_ctl, "
                                    << double(used.fstat) / most << " fstat");
}

BOOST_FIXTURE_TEST_CASE(two_thousand_lookups_at_once_lose_no_answer, resolver_fixture) {
    const int before = queries();
    const int most = 2000;
    int good = 0;
    for (int i = 0; i != most; ++i)
        r.async_resolve(
            'n' + std::to_string(i) + ".test", "80",
            [&](error_code ec, const results& found) { good += !ec && found.size() == 1; });
    test::run_all(io);
    BOOST_TEST(good == most);
    BOOST_TEST(queries() == before + 2 * most); // A and AAAA, and none a second time
}

BOOST_FIXTURE_TEST_CASE(no_more_than_the_limit_are_in_flight, loop) {
    c_ares_options o = here();
    o.max_in_flight = 2;
    c_ares_resolver r(io, o);
    const int before = queries();
    lookup first[4], second[4];
    asio::cancellation_signal signals[4];
    for (int i = 0; i != 4; ++i)
        r.async_resolve(tcp::v4(), "later" + std::to_string(i) + ".test", "1",
                        asio::bind_cancellation_slot(signals[i].slot(), first[i].handler()));
    for (lookup& each : second)
        r.async_resolve(tcp::v4(), "four.test", "1", each.handler());
    BOOST_REQUIRE(test::wait_for([&] { return queries() == before + 2; }));
    test::run_ready(io);
    BOOST_TEST(queries() == before + 2);
    // One that waits, and one that is in flight: c-ares keeps this one, so it counts.
    signals[2].emit(asio::cancellation_type::total);
    signals[0].emit(asio::cancellation_type::total);
    test::run_until(io, [&] { return first[2] && first[0]; });
    BOOST_CHECK_EQUAL(first[0].ec, test::aborted);
    BOOST_CHECK_EQUAL(first[2].ec, test::aborted);
    BOOST_TEST(queries() == before + 2);
    // Nobody waits for those in flight any more.
    signals[1].emit(asio::cancellation_type::total);
    test::run_until(io, [&] { return second[0] && second[1] && second[2] && second[3]; });
    for (const lookup& each : second)
        BOOST_CHECK_EQUAL(each.ec, error_code());
    BOOST_TEST(!first[3]);
    BOOST_TEST(release() == 3);
    test::run_all(io);
    BOOST_CHECK_EQUAL(first[3].ec, error_code());
    for (const lookup& each : first)
        BOOST_TEST(each.times == 1);
}

// ---- timeouts and cancellation ------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_lost_packet_is_asked_for_again_without_an_event) {
    resolver_fixture f(here(200ms));
    const int before = f.queries();
    const lookup o = f.resolve(f.r, tcp::v4(), "once1.test", "80");
    BOOST_CHECK_EQUAL(o.ec, error_code());
    BOOST_TEST(o.value.size() == 1u);
    BOOST_TEST(f.queries() >= before + 2);
}

BOOST_FIXTURE_TEST_CASE(a_timeout_wakes_the_loop_once, impatient_fixture) {
    query o;
    int handlers = 0;
    r.async_query("drop.test", ns_c_in, ns_t_a, o.handler());
    test::run_until(io, [&] {
        ++handlers;
        return bool(o);
    });
    BOOST_CHECK_EQUAL(o.ec, timeout);
    BOOST_TEST(handlers <= 16); // two timeouts; with io_uring, Asio has handlers of its own
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_operation_ends_at_once_and_its_answer_is_dropped,
                        resolver_fixture) {
    for (auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                      asio::cancellation_type::total}) {
        lookup cancelled, other;
        asio::cancellation_signal signal;
        const int before = queries();
        r.async_resolve(tcp::v4(), "later.test", "1",
                        asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
        r.async_resolve(tcp::v4(), "later2.test", "1", other.handler());
        BOOST_REQUIRE(test::wait_for([&] { return queries() == before + 2; }));
        signal.emit(type);
        BOOST_TEST(cancelled.times == 0); // not from within
        test::run_until(io, [&] { return bool(cancelled); });
        BOOST_CHECK_EQUAL(cancelled.ec, test::aborted);
        BOOST_TEST(!other);
        signal.emit(type); // for nobody
        BOOST_TEST(release() == 2);
        test::run_until(io, [&] { return bool(other); });
        BOOST_CHECK_EQUAL(other.ec, error_code());
        BOOST_TEST(cancelled.times == 1);
    }
}

BOOST_FIXTURE_TEST_CASE(the_loop_ends_when_the_last_operation_was_cancelled, resolver_fixture) {
    check_works(r); // whose end counts, too
    // Each kind of operation; without ares_cancel, the loop would go on for a minute.
    for (int kind = 0; kind != 4; ++kind)
        for (int turns : {0, 1, 2, 5}) {
            test::called done;
            asio::cancellation_signal signal;
            auto handler = asio::bind_cancellation_slot(signal.slot(), done.handler());
            if (kind == 0)
                r.async_resolve("drop.test", "1", handler);
            else if (kind == 1)
                r.async_query("drop.test", ns_c_in, ns_t_a, handler);
            else if (kind == 2)
                r.async_resolve(tcp::endpoint(asio::ip::make_address("192.0.2.9"), 1), handler);
            else
                r.async_query("cut.test", ns_c_in, ns_t_txt, handler);
            asio::steady_timer keep(io, 24h);
            keep.async_wait([](error_code) {});
            for (int i = 0; i != turns && !done; ++i)
                io.poll_one();
            keep.cancel();
            signal.emit(asio::cancellation_type::terminal);
            test::run_all(io);
            BOOST_TEST(done.times == 1);
            if (kind != 2 && kind != 3)
                BOOST_CHECK_EQUAL(done.ec, test::aborted);
        }
    lookup all[3];
    for (lookup& each : all)
        r.async_resolve("drop.test", "1", each.handler());
    r.cancel();
    test::run_all(io);
    for (const lookup& each : all)
        BOOST_CHECK_EQUAL(each.ec, test::aborted);
    check_works(r);
}

BOOST_FIXTURE_TEST_CASE(the_loop_ends_when_only_cancelled_operations_have_no_answer,
                        resolver_fixture) {
    lookup cancelled, other;
    asio::cancellation_signal signal;
    r.async_resolve(tcp::v4(), "drop.test", "1",
                    asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
    r.async_resolve(tcp::v4(), "four.test", "1", other.handler());
    signal.emit(asio::cancellation_type::total);
    test::run_all(io); // and not for a minute
    BOOST_CHECK_EQUAL(cancelled.ec, test::aborted);
    BOOST_CHECK_EQUAL(other.ec, error_code());
    check_works(r);
}

BOOST_FIXTURE_TEST_CASE(a_slow_server_meets_a_deadline, resolver_fixture) {
    lookup o;
    asio::cancellation_signal signal;
    asio::steady_timer deadline(io, 20ms);
    r.async_resolve("drop.test", "1", asio::bind_cancellation_slot(signal.slot(), o.handler()));
    deadline.async_wait([&](error_code) { signal.emit(asio::cancellation_type::terminal); });
    test::run_all(io);
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
    check_works(r);
    BOOST_CHECK_EQUAL(resolve(r, "delay.test", "1").ec, error_code());
}

// ---- the server goes ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_server_that_is_killed_and_started_again_is_used_again, loop) {
    c_ares_resolver r[] = {
        c_ares_resolver(io, impatient()),
        c_ares_resolver(io, with_flags(ARES_FLAG_USEVC, impatient())),
        c_ares_resolver(io, with_flags(ARES_FLAG_USEVC | ARES_FLAG_STAYOPEN, impatient()))};
    for (int round = 0; round != 2; ++round) {
        lookup pending[3];
        for (int i = 0; i != 3; ++i) {
            check_works(r[i]);
            r[i].async_resolve("later.test", "1", pending[i].handler());
        }
        test::run_ready(io);
        control_server("stop dns");
        test::run_all(io);
        for (const lookup& each : pending)
            BOOST_TEST((each.ec == timeout || each.ec == no_server), each.ec.message());
        for (c_ares_resolver& each : r) {
            const error_code ec = resolve(each, "four.test", "1").ec;
            BOOST_TEST((ec == timeout || ec == no_server), ec.message());
        }
        control_server("start dns");
        for (c_ares_resolver& each : r)
            check_works(each);
    }
}

BOOST_FIXTURE_TEST_CASE(a_connection_that_the_server_closes_is_an_error, loop) {
    c_ares_resolver r(io, with_flags(ARES_FLAG_USEVC, impatient()));
    for (int i = 0; i != 10; ++i) {
        const error_code ec = ask(r, "cut.test", ns_t_txt).ec;
        BOOST_TEST((ec == no_server || ec == timeout), ec.message());
        check_works(r);
    }
}

BOOST_FIXTURE_TEST_CASE(a_query_after_the_end_of_its_connection_raises_no_signal, loop) {
    // c-ares 1.18 writes without MSG_NOSIGNAL.
    loop control;
    c_ares_resolver r(io, with_flags(ARES_FLAG_USEVC));
    for (int i = 0; i != 5; ++i) {
        const int before = control.queries(true);
        query first, second;
        r.async_query("half.test", ns_c_in, ns_t_txt, first.handler());
        BOOST_REQUIRE(test::wait_for([&] {
            test::run_ready(io);
            return control.queries(true) != before;
        }));
        BOOST_TEST(control.release() == 1); // the end and the reset are there
        r.async_query("four.test", ns_c_in, ns_t_a, second.handler());
        test::run_until(io, [&] { return bool(second); });
        BOOST_CHECK_EQUAL(second.ec, error_code());
        r.cancel();
        test::run_all(io);
        BOOST_CHECK_EQUAL(first.ec, test::aborted);
        control.release();
    }
}

BOOST_FIXTURE_TEST_CASE(a_socket_that_cannot_be_watched_is_an_error, loop) {
    if (!test::on_epoll())
        return;
    for (int f : {0, ARES_FLAG_STAYOPEN}) {
        c_ares_resolver r(io, with_flags(f));
        lookup o[2];
        {
            const test::fault no_space(test::call::epoll_add, ENOSPC);
            for (lookup& each : o)
                r.async_resolve("delay.test", "1", each.handler());
            test::run_all(io);
            BOOST_TEST(no_space.happened() >= 1);
        }
        for (const lookup& each : o)
            BOOST_CHECK_EQUAL(each.ec, error_code(ENOSPC, boost::system::system_category()));
        check_works(r); // also if the socket has stayed open
    }
}

BOOST_FIXTURE_TEST_CASE(without_memory_an_operation_does_not_begin_or_it_completes,
                        resolver_fixture,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    for (bool is_answered : {false, true}) {
        bool has_failed = true;
        for (long n = 0; has_failed; ++n) {
            c_ares_resolver each(io, options);
            loop control;
            lookup o;
            asio::cancellation_signal signal;
            bool has_begun = false;
            auto begin = [&] {
                each.async_resolve(tcp::v4(), "four.test", "1",
                                   asio::bind_cancellation_slot(signal.slot(), o.handler()));
                has_begun = true;
            };
            auto act = [&] {
                if (!is_answered)
                    begin();
                for (int turns = 0; is_answered && turns != 10; ++turns)
                    io.poll_one();
            };
            if (is_answered) {
                begin();
                control.queries(); // whose answer comes later
            }
            {
                const test::out_of_memory none(n);
                try {
                    act();
                } catch (const std::bad_alloc&) {}
                has_failed = none.happened() != 0;
            }
            test::run_all(io);
            BOOST_TEST(o.times == has_begun);
            if (o && o.ec)
                BOOST_CHECK_EQUAL(o.ec, error_code(asio::error::no_memory));
            check_works(each);
        }
    }
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_resolver_is_destroyed_after_any_turn_of_the_loop, resolver_fixture) {
    for (int f : {0, ARES_FLAG_USEVC, ARES_FLAG_STAYOPEN}) {
        const c_ares_options o = with_flags(f, impatient());
        bool was_over = false;
        for (int turns = 0; !was_over; ++turns) {
            io.restart();
            int started = 0, ended = 0;
            std::optional<c_ares_resolver> each(std::in_place, io, o);
            auto count = [&](auto&&...) { ++ended; };
            started = 6;
            each->async_resolve("both.test", "80", [&](error_code, const results&) {
                ++ended;
                if (!each)
                    return;
                ++started;
                each->async_resolve("four.test", "80", count);
            });
            each->async_resolve("127.0.0.1", "80", count);
            each->async_query("long.test", ns_c_in, ns_t_txt, count);
            each->async_query("cut.test", ns_c_in, ns_t_txt, count);
            each->async_resolve(tcp::endpoint(asio::ip::make_address("192.0.2.7"), 1), count);
            each->async_resolve("drop.test", "80", count);
            for (int i = 0; i != turns && ended != started; ++i)
                io.run_one();
            was_over = ended == started;
            each.reset();
            test::run_all(io);
            BOOST_REQUIRE_EQUAL(ended, started);
        }
    }
}

BOOST_FIXTURE_TEST_CASE(a_handler_destroys_its_resolver, resolver_fixture) {
    for (const char* name : {"four.test", "localhost", "127.0.0.1", "nothing.test"}) {
        auto owned = std::make_unique<c_ares_resolver>(io, here());
        lookup other;
        int times = 0;
        owned->async_resolve(name, "80", [&](error_code, const results&) {
            ++times;
            owned.reset();
        });
        owned->async_resolve("drop.test", "80", other.handler());
        test::run_all(io);
        BOOST_TEST(times == 1);
        BOOST_CHECK_EQUAL(other.ec, test::aborted);
    }
}

BOOST_AUTO_TEST_CASE(a_resolver_outlives_its_context) {
    for (int stage = 0; stage != 6; ++stage) {
        std::optional<c_ares_resolver> r;
        auto alive = std::make_shared<int>(0);
        {
            asio::io_context io;
            r.emplace(io, with_flags(ARES_FLAG_STAYOPEN, here()));
            r->async_resolve("drop.test", "80", [alive](auto&&...) {});
            r->async_query("long.test", ns_c_in, ns_t_txt, [alive](auto&&...) {});
            r->async_resolve("127.0.0.1", "80", [alive](auto&&...) {});
            for (int i = 0; i != stage; ++i)
                io.run_one();
        }
        BOOST_TEST(alive.use_count() == 1);
        r->cancel();
        r.reset();
    }
}

namespace {

template <class Executor>
void check_outlives_its_context() {
    std::optional<basic_c_ares_resolver<tcp, Executor>> r, moved;
    {
        asio::io_context io;
        const Executor ex(asio::make_strand(io));
        r.emplace(ex, here());
        BOOST_TEST((r->get_executor() == ex));
        r->async_resolve("drop.test", "80", [](auto&&...) {});
    }
    moved.emplace(std::move(*r));
    *r = std::move(*moved);
    if constexpr (!std::is_same<Executor, asio::any_io_executor>::value)
        const c_ares_resolver other(std::move(*r));
}

} // namespace

BOOST_AUTO_TEST_CASE(a_resolver_on_a_strand_outlives_its_context) {
    // The destructor of a strand uses a service of the context.
    check_outlives_its_context<asio::strand<asio::io_context::executor_type>>();
    check_outlives_its_context<asio::any_io_executor>();
}

BOOST_AUTO_TEST_CASE(a_handler_that_owns_the_resolver_does_not_leak) {
    auto alive = std::make_shared<int>(0);
    for (int turns = 0; turns != 3; ++turns) {
        asio::io_context io;
        auto r = std::make_shared<c_ares_resolver>(io, here());
        c_ares_resolver& same = *r;
        same.async_resolve("drop.test", "80", [r, alive](auto&&...) {});
        same.async_resolve("four.test", "80", [r, alive](auto&&...) {});
        r.reset();
        for (int i = 0; i != turns; ++i)
            io.run_one();
    }
    BOOST_TEST(alive.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(the_end_of_the_service_ends_what_is_pending, resolver_fixture) {
    lookup pending, later;
    r.async_resolve("drop.test", "80", pending.handler());
    test::run_ready(io);
    asio::use_service<moor::registration_service>(io).close();
    test::run_all(io);
    BOOST_TEST((pending.ec == test::gone || pending.ec == test::aborted), pending.ec.message());
    r.async_resolve("drop.test", "80", later.handler());
    test::run_all(io);
    BOOST_CHECK_EQUAL(later.ec, test::gone);
    BOOST_CHECK_EQUAL(resolve(r, "127.0.0.1", "80").ec, error_code());
}

BOOST_FIXTURE_TEST_CASE(operations_go_on_when_the_resolver_is_moved, resolver_fixture) {
    lookup first, second;
    r.async_resolve("four.test", "1", first.handler());
    c_ares_resolver moved(std::move(r));
    moved.async_resolve("six.test", "1", second.handler());
    test::run_all(io);
    BOOST_TEST(first.value.size() == 2u);
    BOOST_TEST(second.value.size() == 1u);
    lookup aborted;
    moved.async_resolve("drop.test", "1", aborted.handler());
    moved = c_ares_resolver(io, options);
    test::run_all(io);
    BOOST_CHECK_EQUAL(aborted.ec, test::aborted);
    check_works(moved);
    r = std::move(moved);
    check_works(r);
}

// ---- nothing to do ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_idle_resolver_costs_nothing_and_lets_the_loop_end, loop) {
    for (int f : {0, ARES_FLAG_STAYOPEN, ARES_FLAG_STAYOPEN | ARES_FLAG_USEVC}) {
        c_ares_resolver r(io, with_flags(f));
        check_works(r);
        const long open = test::open_descriptors();
        test::run_all(io); // returns although a socket may be open
        test::check_costs_nothing(io);
        check_works(r);
        BOOST_TEST(test::open_descriptors() == open); // and is used again
        // Nor does a resolver that waits.
        lookup o;
        r.async_resolve("later.test", "1", o.handler());
        test::run_ready(io);
        test::check_costs_nothing(io);
        BOOST_TEST(!o);
        r.cancel();
        test::run_all(io);
        BOOST_CHECK_EQUAL(o.ec, test::aborted);
    }
    release();
}

BOOST_FIXTURE_TEST_CASE(a_connection_that_ends_while_idle_wakes_nobody, loop) {
    c_ares_resolver r(io, with_flags(ARES_FLAG_STAYOPEN | ARES_FLAG_USEVC, impatient()));
    check_works(r);
    control_server("stop dns");
    test::run_all(io);
    test::check_is_quiet(io);
    control_server("start dns");
    check_works(r);
}

// ---- executors and tokens -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_resolver_runs_on_a_strand_of_a_thread_pool) {
    asio::thread_pool pool(3);
    using strand_type = asio::strand<asio::thread_pool::executor_type>;
    strand_type strand = asio::make_strand(pool.get_executor());
    constexpr int count = 300;
    std::atomic<int> good{0}, outside{0};
    std::promise<void> over;
    basic_c_ares_resolver<tcp, strand_type> r(strand, here());
    asio::cancellation_signal signal;
    int n = 0;
    std::function<void()> next = [&] {
        outside += !strand.running_in_this_thread();
        if (n == count) {
            r.async_resolve(
                "drop.test", "1",
                asio::bind_cancellation_slot(signal.slot(), [&](error_code ec, const results&) {
                    outside += !strand.running_in_this_thread();
                    good += ec == test::aborted;
                    over.set_value();
                }));
            signal.emit(asio::cancellation_type::total);
            return;
        }
        r.async_resolve('n' + std::to_string(n) + ".test", "1",
                        [&](error_code ec, const results& found) {
                            good += !ec && found.size() == 1;
                            ++n;
                            next();
                        });
    };
    asio::post(strand, next);
    BOOST_TEST((over.get_future().wait_for(60s) == std::future_status::ready));
    pool.join();
    BOOST_TEST(good == count + 1);
    BOOST_TEST(outside == 0);
}

BOOST_AUTO_TEST_CASE(futures_are_completed_by_a_thread_of_the_context) {
    asio::thread_pool pool(1);
    auto there = [&](auto f) { return asio::post(pool, asio::use_future(f)).get(); };
    c_ares_resolver r(pool, here());
    auto found = there([&] { return r.async_resolve("four.test", "1", asio::use_future); });
    BOOST_TEST(found.get().size() == 2u);
    auto answer =
        there([&] { return r.async_query("text.test", ns_c_in, ns_t_txt, asio::use_future); });
    BOOST_TEST(strings(answer.get()).size() == 3u);
    there([&] { r.cancel(); });
    pool.join();
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace {

using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;

/// The same code with either resolver.
template <class Resolver>
asio::awaitable<std::size_t> count_addresses(Resolver& r) {
    auto endpoints = co_await r.async_resolve(tcp::v4(), "localhost", "http", use_awaitable);
    std::size_t n = 0;
    for (const typename Resolver::results_type::value_type& e : endpoints)
        n += e.endpoint().port() == 80;
    co_return n;
}

asio::awaitable<void> race(asio::io_context& io, int& good) {
    c_ares_resolver r(io, here());
    tcp::resolver of_asio(io);
    good += co_await count_addresses(r) == co_await count_addresses(of_asio);
    asio::steady_timer deadline(io, 20ms);
    auto first = co_await (r.async_resolve("drop.test", "1", asio::as_tuple(use_awaitable)) ||
                           deadline.async_wait(asio::as_tuple(use_awaitable)));
    good += first.index() == 1;
    try {
        co_await r.async_resolve("nothing.test", "1", use_awaitable);
    } catch (const boost::system::system_error& e) {
        good += e.code() == asio::error::host_not_found;
    }
    auto by_default = asio::use_awaitable_t<>::as_default_on(c_ares_resolver(io, here()));
    auto endpoints = co_await by_default.async_resolve("four.test", "1");
    good += endpoints.size() == 2;
    c_ares_answer a = co_await by_default.async_query("text.test", ns_c_in, ns_t_txt);
    good += strings(a).size() == 3;
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_coroutine_races_a_lookup_against_a_timer, loop) {
    int good = 0;
    asio::co_spawn(io, race(io, good), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    test::run_all(io);
    BOOST_TEST(good == 5);
}

#endif

BOOST_AUTO_TEST_SUITE_END()
