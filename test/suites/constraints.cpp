// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Whether an initiating function takes a token can be asked without an error, as of Asio's. (What
// the compiler says of those that don't fit is in test/fail.)

#include "support/context.hpp"
#include "support/handles.hpp"

#include <moor.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

// The preprocessor can compare versions. (That CMake's package has the same version is tested in
// test/consumer.)
#if MOOR_VERSION < 100
#error "0.1.0 was the first version"
#endif
static_assert(std::is_same<decltype(MOOR_VERSION), int>::value, "");

BOOST_AUTO_TEST_SUITE(constraints)

namespace {

namespace asio = boost::asio;
using moor::error_code;
using moor::interest;

template <class... Args>
struct handler {
    void operator()(Args...) {}
};
using of_ec = handler<error_code>;
using of_event = handler<error_code, moor::ready_event>;
using of_int = handler<error_code, int>;
using of_size = handler<error_code, std::size_t>;
struct move_only : of_ec {
    move_only() = default;
    move_only(move_only&&) = default;
};

struct gives_int {
    int operator()(error_code&) { return 0; }
};
struct gives_nothing {
    void operator()(error_code&) {}
};
struct takes_nothing {
    int operator()() { return 0; }
};

// Each of these asks whether a call compiles.
template <class T>
using readable =
    decltype(std::declval<moor::registration&>().async_wait_readable(std::declval<T>()));
template <class T>
using writable =
    decltype(std::declval<moor::registration&>().async_wait_writable(std::declval<T>()));
template <class T>
using wait =
    decltype(std::declval<moor::registration&>().async_wait(interest::readable, std::declval<T>()));
template <class F, class T>
using io = decltype(std::declval<moor::registration&>().async_io(
    interest::readable, std::declval<F>(), std::declval<T>()));
template <class T>
using io_int = io<gives_int, T>;
template <class T>
using io_void = io<gives_nothing, T>;
template <class T>
using io_bad = io<takes_nothing, T>;
template <class T>
using descriptor_wait = decltype(std::declval<moor::descriptor&>().async_wait(
    moor::descriptor::wait_read, std::declval<T>()));
template <class T>
using read_some = decltype(std::declval<moor::stream_descriptor&>().async_read_some(
    std::declval<asio::mutable_buffer>(), std::declval<T>()));
template <class T>
using write_some = decltype(std::declval<moor::stream_descriptor&>().async_write_some(
    std::declval<asio::const_buffer>(), std::declval<T>()));

template <template <class> class Call, class Token, class = void>
struct compiles : std::false_type {};
template <template <class> class Call, class Token>
struct compiles<Call, Token, std::void_t<Call<Token>>> : std::true_type {};

/// A call takes `Good` and what adapts to any signature, and takes nothing else.
template <template <class> class Call, class Good, class... Bad>
constexpr bool takes_only() {
    static_assert(compiles<Call, Good>::value && compiles<Call, Good&>::value, "");
    static_assert(compiles<Call, asio::use_future_t<>>::value, "");
    static_assert(compiles<Call, asio::deferred_t>::value, "");
    static_assert(compiles<Call, asio::detached_t>::value, "");
    static_assert(compiles<Call, asio::as_tuple_t<asio::deferred_t>>::value, "");
    static_assert(compiles<Call, asio::executor_binder<Good, asio::any_io_executor>>::value, "");
    static_assert(!compiles<Call, int>::value && !compiles<Call, std::string>::value, "");
    static_assert(!compiles<Call, handler<>>::value, "");
    static_assert(!compiles<Call, handler<int>>::value, "");
    static_assert((!compiles<Call, Bad>::value && ...), "");
    return true;
}

static_assert(takes_only<readable, of_ec, of_event, of_int>(), "");
static_assert(takes_only<writable, of_ec, of_event, of_int>(), "");
static_assert(takes_only<wait, of_event, of_ec, of_int>(), "");
static_assert(takes_only<io_int, of_int, of_ec, of_event>(), "");
static_assert(takes_only<io_void, of_ec, of_event, of_int>(), "");
static_assert(takes_only<descriptor_wait, of_ec, of_event>(), "");
static_assert(takes_only<read_some, of_size, of_ec, of_event>(), "");
static_assert(takes_only<write_some, of_size, of_ec, of_event>(), "");
static_assert(!compiles<io_bad, of_int>::value && !compiles<io_bad, asio::use_future_t<>>::value,
              "");
static_assert(compiles<readable, move_only>::value, "");

// What is returned: nothing, or what the token says.
static_assert(std::is_void<readable<of_ec>>::value, "");
static_assert(std::is_same<io_int<asio::use_future_t<>>, std::future<int>>::value, "");
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
static_assert(
    std::is_same<wait<asio::use_awaitable_t<>>, asio::awaitable<moor::ready_event>>::value, "");
#endif
#if defined(__cpp_concepts)
template <class R, class T>
concept waits_readable = requires(R& r, T&& t) {
    r.async_wait_readable(std::forward<T>(t));
};
static_assert(waits_readable<moor::registration, of_ec>);
static_assert(!waits_readable<moor::registration, of_event>);
#endif

} // namespace

BOOST_FIXTURE_TEST_CASE(a_deferred_operation_starts_when_it_is_asked_to, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    auto wait = reg.async_wait(interest::readable, asio::deferred);
    auto call = reg.async_io(interest::readable, gives_int(), asio::deferred);
    test::run_ready(io);
    BOOST_TEST(moor::use_registration_service(io).metrics().waits_started == 0u);
    test::called waited, called;
    std::move(wait)(waited.handler());
    std::move(call)(called.handler());
    test::put(p.b, "x");
    test::run_until(io, [&] { return waited && called; });
    BOOST_TEST((!waited.ec && !called.ec));
}

BOOST_AUTO_TEST_CASE(an_event_answers_for_its_flags_and_an_interest_may_be_none) {
    static_assert(interest::none == interest() && interest::none.empty(), "");
    static_assert((interest::none | interest::error) == interest::error, "");
    constexpr moor::ready_event e;
    static_assert(e.empty() && !e.is_readable() && !e.is_writable() && !e.is_priority() &&
                      !e.is_error() && !e.is_read_closed() && !e.is_write_closed(),
                  "");
    asio::io_context io;
    test::fd_pair p = test::make_pipe();
    p.b.close();
    moor::registration reg(io, p.a.get());
    moor::ready_event seen;
    reg.async_wait(interest::readable | interest::read_closed | interest::writable,
                   [&](error_code, moor::ready_event r) { seen = r; });
    test::run_until(io, [&] { return !seen.empty(); });
    BOOST_TEST(seen.is_read_closed());
    BOOST_TEST(seen.is_readable() == seen.ready().is_readable());
    BOOST_TEST(seen.is_writable() == seen.ready().is_writable());
    BOOST_TEST((!seen.is_error() && !seen.is_priority() && !seen.is_write_closed()));
}

BOOST_AUTO_TEST_SUITE_END()
