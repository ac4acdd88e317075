// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Every completion token of C++17, on every initiating function; the coroutines are in coro.cpp.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/tracker.hpp"

#include <moor.hpp>

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/append.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/consign.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/prepend.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/spawn.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#if __has_include(<boost/asio/cancel_after.hpp>) // from Boost 1.86 on
#include <boost/asio/cancel_after.hpp>
#endif

#include <array>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

BOOST_AUTO_TEST_SUITE(tokens)

namespace asio = boost::asio;
using moor::interest;
using test::error_code;

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get()};
};

// ---- the initiating functions ------------------------------------------------------------------

struct readable {
    template <class Registration, class... Token>
    static auto start(Registration& r, Token&&... token) {
        return r.async_wait_readable(std::forward<Token>(token)...);
    }
    static void pend(fixture&) {}
    static void wake(fixture& f) { test::put(f.p.b, "x"); }
    static void check() {}
    using value = void;
    using handler_type = asio::any_completion_handler<void(error_code)>;
};

struct writable {
    template <class Registration, class... Token>
    static auto start(Registration& r, Token&&... token) {
        return r.async_wait_writable(std::forward<Token>(token)...);
    }
    static void pend(fixture& f) { test::fill(f.p.a); }
    static void wake(fixture& f) { test::drain(f.p.b); }
    static void check() {}
    using value = void;
    using handler_type = asio::any_completion_handler<void(error_code)>;
};

struct either {
    template <class Registration, class... Token>
    static auto start(Registration& r, Token&&... token) {
        return r.async_wait(interest::readable | interest::priority, std::forward<Token>(token)...);
    }
    static void pend(fixture&) {}
    static void wake(fixture& f) { test::put(f.p.b, "x"); }
    static void check(const moor::ready_event& e) { BOOST_TEST(e.ready() == interest::readable); }
    using value = moor::ready_event;
    using handler_type = asio::any_completion_handler<void(error_code, moor::ready_event)>;
};

struct reading {
    template <class Registration, class... Token>
    static auto start(Registration& r, Token&&... token) {
        return r.async_io(interest::readable, test::reader{r.native_handle()},
                          std::forward<Token>(token)...);
    }
    static void pend(fixture&) {}
    static void wake(fixture& f) { test::put(f.p.b, "x"); }
    static void check(const std::string& s) { BOOST_TEST(s == "x"); }
    using value = std::string;
    using handler_type = asio::any_completion_handler<void(error_code, std::string)>;
};

struct writing {
    template <class Registration, class... Token>
    static auto start(Registration& r, Token&&... token) {
        return r.async_io(
            interest::writable,
            [fd = r.native_handle()](error_code& ec) {
                if (::send(fd, "y", 1, MSG_NOSIGNAL) < 0)
                    ec = test::last_error();
            },
            std::forward<Token>(token)...);
    }
    static void pend(fixture& f) { test::fill(f.p.a); }
    static void wake(fixture& f) { test::drain(f.p.b); }
    static void check() {}
    using value = void;
    using handler_type = asio::any_completion_handler<void(error_code)>;
};

using all_operations = std::tuple<readable, writable, either, reading, writing>;

/// Runs `start` with the operation pending, and once more with the operation ready; `done` is
/// asked for after each.
template <class Op, class Start>
void pending_and_ready(fixture& f, Start start) {
    {
        BOOST_TEST_CONTEXT("pending") {
            Op::pend(f);
            int times = 0;
            start(times);
            test::run_ready(f.io);
            BOOST_TEST(times == 0);
            Op::wake(f);
            test::run_until(f.io, [&] { return times != 0; });
            test::run_ready(f.io);
            BOOST_TEST(times == 1);
        }
        test::drain(f.p.a);
        test::drain(f.p.b);
    }
    BOOST_TEST_CONTEXT("ready") {
        Op::wake(f);
        int times = 0;
        start(times);
        BOOST_TEST(times == 0);
        test::run_until(f.io, [&] { return times != 0; });
        test::run_ready(f.io);
        BOOST_TEST(times == 1);
    }
}

/// A handler that counts, and checks that the operation succeeded.
template <class Op>
auto success(int& times) {
    return [&times](error_code ec, auto... v) {
        ++times;
        BOOST_TEST(!ec);
        Op::check(v...);
    };
}

// ---- callbacks ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(callback, Op, all_operations, fixture) {
    pending_and_ready<Op>(*this, [&](int& times) { Op::start(reg, success<Op>(times)); });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(callback_is_passed_as_an_lvalue_and_copied, Op, all_operations,
                                 fixture) {
    std::shared_ptr<int> copies = std::make_shared<int>(0);
    pending_and_ready<Op>(*this, [&](int& times) {
        auto handler = [&times, copies](error_code ec, auto...) {
            ++times;
            BOOST_TEST(!ec);
        };
        Op::start(reg, handler);
        BOOST_TEST(copies.use_count() == 3); // mine, the handler here, its copy in the operation
    });
    BOOST_TEST(copies.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_move_only_handler_is_invoked_once_as_an_rvalue, Op,
                                 all_operations, fixture) {
    for (bool is_ready : {false, true}) {
        is_ready ? Op::wake(*this) : Op::pend(*this);
        test::once done;
        {
            test::initiation_guard guard;
            Op::start(reg, done.handler());
        }
        BOOST_TEST(done.times() == 0);
        if (!is_ready) {
            test::run_ready(io);
            BOOST_TEST(done.times() == 0);
            Op::wake(*this);
        }
        test::run_until(io, [&] { return bool(done); });
        BOOST_TEST(!done.ec);
    }
}

struct overload_recorder {
    int* rvalue_calls;
    template <class... A>
    void operator()(error_code, A&&...) & {
        BOOST_ERROR("invoked as an lvalue");
    }
    template <class... A>
    void operator()(error_code, A&&...) && {
        ++*rvalue_calls;
    }
    template <class... A>
    void operator()(error_code, A&&...) const& {
        BOOST_ERROR("invoked as a constant");
    }
};

BOOST_FIXTURE_TEST_CASE_TEMPLATE(the_rvalue_overload_of_a_handler_is_chosen, Op, all_operations,
                                 fixture) {
    pending_and_ready<Op>(*this, [&](int& times) { Op::start(reg, overload_recorder{&times}); });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(any_completion_handler, Op, all_operations, fixture) {
    pending_and_ready<Op>(*this, [&](int& times) {
        typename Op::handler_type handler = success<Op>(times);
        Op::start(reg, std::move(handler));
    });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(any_completion_handler_carries_a_cancellation_slot, Op,
                                 all_operations, fixture) {
    Op::pend(*this);
    asio::cancellation_signal signal;
    test::called done;
    typename Op::handler_type handler = asio::bind_cancellation_slot(signal.slot(), done.handler());
    Op::start(reg, std::move(handler));
    test::run_ready(io);
    BOOST_TEST(done.times == 0);
    signal.emit(asio::cancellation_type::total);
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(done.ec == asio::error::operation_aborted);
}

// ---- futures -----------------------------------------------------------------------------------

template <class Op>
void check_future(std::future<typename Op::value>& f) {
    if constexpr (std::is_void<typename Op::value>::value)
        f.get();
    else
        Op::check(f.get());
}

template <class T>
bool is_done(std::future<T>& f) {
    return f.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(use_future, Op, all_operations, fixture) {
    Op::pend(*this);
    std::future<typename Op::value> f = Op::start(reg, asio::use_future);
    test::run_ready(io);
    BOOST_TEST(!is_done(f));
    Op::wake(*this);
    test::run_until(io, [&] { return is_done(f); });
    check_future<Op>(f);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(use_future_throws_the_error, Op, all_operations, fixture) {
    Op::pend(*this);
    std::future<typename Op::value> f = Op::start(reg, asio::use_future);
    reg.cancel();
    test::run_until(io, [&] { return is_done(f); });
    BOOST_CHECK_EXCEPTION(f.get(), boost::system::system_error,
                          [](auto& e) { return e.code() == asio::error::operation_aborted; });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(use_future_is_waited_for_outside_a_thread_pool, Op, all_operations) {
    fixture f; // only its handles are used
    Op::pend(f);
    asio::thread_pool pool(1);
    f.reg.deregister();
    moor::registration reg(pool, f.p.a.get());
    std::future<typename Op::value> result = Op::start(reg, asio::use_future);
    Op::wake(f);
    BOOST_REQUIRE(result.wait_for(test::cap) == std::future_status::ready);
    check_future<Op>(result);
    reg.deregister();
    pool.join();
}

#if BOOST_ASIO_VERSION >= 103800 // known to work in Boost 1.90; does not compile in 1.81
BOOST_FIXTURE_TEST_CASE(as_tuple_of_use_future, fixture) {
    auto f = reg.async_wait_readable(asio::as_tuple(asio::use_future));
    test::run_ready(io);
    reg.cancel();
    test::run_until(io, [&] { return is_done(f); });
    BOOST_TEST(std::get<0>(f.get()) == asio::error::operation_aborted);
}
#endif

// ---- detached, deferred ------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(detached, Op, all_operations, fixture) {
    Op::pend(*this);
    Op::start(reg, asio::detached);
    test::run_ready(io);
    auto info = moor::use_registration_service(io).snapshot();
    BOOST_REQUIRE(info.size() == 1u);
    BOOST_TEST(info[0].waiters == 1u);
    Op::wake(*this);
    test::run_all(io); // runs out of work: the wait is over
    info = moor::use_registration_service(io).snapshot();
    BOOST_TEST(info[0].waiters == 0u);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(deferred_starts_nothing_until_it_is_invoked, Op, all_operations,
                                 fixture) {
    Op::pend(*this);
    auto& service = moor::use_registration_service(io);
    auto operation = Op::start(reg, asio::deferred);
    BOOST_TEST(service.metrics().waits_started == 0u);
    BOOST_TEST(test::run_ready(io) == 0u);
    int times = 0;
    std::move(operation)(success<Op>(times));
    BOOST_TEST(service.metrics().waits_started == 1u);
    Op::wake(*this);
    test::run_until(io, [&] { return times != 0; });
    BOOST_TEST(times == 1);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(deferred_that_is_dropped_leaves_nothing, Op, all_operations,
                                 fixture) {
    {
        auto operation = Op::start(reg, asio::deferred);
        (void)operation;
    }
    BOOST_TEST(moor::use_registration_service(io).metrics().waits_started == 0u);
}

BOOST_FIXTURE_TEST_CASE(deferred_decay_copies_its_arguments, fixture) {
    auto counted = std::make_shared<int>(0);
    std::weak_ptr<int> watch = counted;
    auto make = [&] {
        interest want = interest::readable; // both die before the operation starts
        auto callable = [counted, fd = p.a.get()](error_code& ec) { return test::reader{fd}(ec); };
        return reg.async_io(want, callable, asio::deferred);
    };
    auto operation = make();
    counted.reset();
    BOOST_TEST(!watch.expired());
    std::string got;
    std::move(operation)([&](error_code ec, std::string s) {
        BOOST_TEST(!ec);
        got = s;
    });
    test::put(p.b, "later");
    test::run_until(io, [&] { return !got.empty(); });
    BOOST_TEST(got == "later");
    BOOST_TEST(watch.expired());
}

BOOST_FIXTURE_TEST_CASE(deferred_chains, fixture) {
    test::put(p.b, "x");
    auto chain = reg.async_wait_readable(asio::deferred([&](error_code ec) {
        return asio::deferred.when(!ec)
            .then(reg.async_wait_writable(asio::deferred))
            .otherwise(asio::deferred.values(ec));
    }));
    test::called done;
    std::move(chain)(done.handler());
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
}

// ---- adapters ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(as_tuple, Op, all_operations, fixture) {
    pending_and_ready<Op>(*this, [&](int& times) {
        Op::start(reg, asio::as_tuple([&](auto t) { std::apply(success<Op>(times), t); }));
    });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(redirect_error, Op, all_operations, fixture) {
    error_code ec = asio::error::fault;
    pending_and_ready<Op>(*this, [&](int& times) {
        ec = asio::error::fault;
        Op::start(reg, asio::redirect_error(
                           [&](auto... v) {
                               ++times;
                               BOOST_TEST(!ec);
                               Op::check(v...);
                           },
                           ec));
    });
    ec = error_code();
    Op::pend(*this);
    test::drain(p.a);
    int times = 0;
    Op::start(reg, asio::redirect_error([&](auto...) { ++times; }, ec));
    reg.cancel();
    test::run_until(io, [&] { return times != 0; });
    BOOST_TEST(ec == asio::error::operation_aborted);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(redirect_error_of_use_future, Op, all_operations, fixture) {
    Op::pend(*this);
    error_code ec;
    auto f = Op::start(reg, asio::redirect_error(asio::use_future, ec));
    reg.cancel();
    test::run_until(io, [&] { return is_done(f); });
    f.get(); // does not throw
    BOOST_TEST(ec == asio::error::operation_aborted);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(append, Op, all_operations, fixture) {
    pending_and_ready<Op>(*this, [&](int& times) {
        Op::start(reg, asio::append(
                           [&](error_code ec, auto... v) {
                               ++times;
                               BOOST_TEST(!ec);
                               auto t = std::make_tuple(std::move(v)...);
                               BOOST_TEST(*std::get<sizeof...(v) - 1>(t) == 42);
                           },
                           std::make_shared<int>(42)));
    });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(prepend, Op, all_operations, fixture) {
    pending_and_ready<Op>(*this, [&](int& times) {
        Op::start(reg, asio::prepend(
                           [&](std::unique_ptr<int> mine, error_code ec, auto... v) {
                               BOOST_TEST(*mine == 7);
                               success<Op>(times)(ec, v...);
                           },
                           std::make_unique<int>(7)));
    });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(consign_keeps_an_object_until_the_handler_ran, Op, all_operations,
                                 fixture) {
    pending_and_ready<Op>(*this, [&](int& times) {
        auto object = std::make_shared<int>(1);
        std::weak_ptr<int> watch = object;
        Op::start(reg, asio::consign(success<Op>(times), std::move(object)));
        BOOST_TEST(!watch.expired());
    });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(bind_executor, Op, all_operations, fixture) {
    test::tracker_executor ex(1, io.get_executor());
    pending_and_ready<Op>(*this, [&](int& times) {
        Op::start(reg, asio::bind_executor(ex, [&](error_code ec, auto... v) {
                      BOOST_TEST(test::running_on(1));
                      success<Op>(times)(ec, v...);
                  }));
    });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(bind_executor_of_use_future, Op, all_operations, fixture) {
    test::tracker_executor ex(1, io.get_executor());
    Op::pend(*this);
    auto f = Op::start(reg, asio::bind_executor(ex, asio::use_future));
    Op::wake(*this);
    test::run_until(io, [&] { return is_done(f); });
    check_future<Op>(f);
    BOOST_TEST(ex.executed() > 0);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(bind_allocator, Op, all_operations, fixture) {
    test::allocation_counts memory;
    pending_and_ready<Op>(*this, [&](int& times) {
        Op::start(reg, asio::bind_allocator(test::counting_allocator<>(memory),
                                            [&](error_code ec, auto... v) {
                                                BOOST_TEST(memory.live == 0);
                                                success<Op>(times)(ec, v...);
                                            }));
        BOOST_TEST(memory.live > 0);
    });
    BOOST_TEST(memory.total >= 2);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(bind_cancellation_slot, Op, all_operations, fixture) {
    Op::pend(*this);
    for (auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                      asio::cancellation_type::total, asio::cancellation_type::all}) {
        asio::cancellation_signal signal;
        test::called done;
        Op::start(reg, asio::bind_cancellation_slot(signal.slot(), done.handler()));
        test::run_ready(io);
        BOOST_TEST(done.times == 0);
        signal.emit(type);
        BOOST_TEST(done.times == 0);
        test::run_all(io);
        BOOST_TEST(done.times == 1);
        BOOST_TEST(done.ec == asio::error::operation_aborted);
    }
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(adapters_nest, Op, all_operations, fixture) {
    test::tracker_executor ex(5, io.get_executor());
    test::allocation_counts memory;
    asio::cancellation_signal signal;
    Op::pend(*this);
    int times = 0;
    auto handler = asio::as_tuple(asio::prepend(
        [&](int tag, auto t) {
            ++times;
            BOOST_TEST(tag == 3);
            BOOST_TEST(std::get<0>(t) == asio::error::operation_aborted);
            BOOST_TEST(test::running_on(5));
            BOOST_TEST(memory.live == 0);
        },
        3));
    // (The allocator is outermost: Boost 1.84 compiles no other order.)
    Op::start(
        reg, asio::bind_allocator(test::counting_allocator<>(memory),
                                  asio::bind_cancellation_slot(
                                      signal.slot(), asio::bind_executor(ex, std::move(handler)))));
    BOOST_TEST(memory.live == 1);
    signal.emit(asio::cancellation_type::total);
    test::run_until(io, [&] { return times != 0; });
    BOOST_TEST(times == 1);
}

// ---- stackful coroutines ------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(spawn, Op, all_operations, fixture) {
    pending_and_ready<Op>(*this, [&](int& times) {
        asio::spawn(
            io,
            [&](asio::yield_context yield) {
                error_code ec = asio::error::fault;
                if constexpr (std::is_void<typename Op::value>::value)
                    Op::start(reg, yield[ec]);
                else
                    Op::check(Op::start(reg, yield[ec]));
                BOOST_TEST(!ec);
                ++times;
            },
            asio::detached);
    });
}

BOOST_FIXTURE_TEST_CASE(spawn_throws_the_error_and_is_cancelled_through_its_slot, fixture) {
    asio::cancellation_signal signal;
    error_code seen;
    bool over = false;
    asio::spawn(
        io,
        [&](asio::yield_context yield) {
            try {
                reg.async_wait_readable(yield);
            } catch (const boost::system::system_error& e) {
                seen = e.code();
            }
        },
        asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr) { over = true; }));
    test::run_ready(io);
    BOOST_TEST(!over);
    signal.emit(asio::cancellation_type::total);
    signal.emit(asio::cancellation_type::terminal);
    test::run_until(io, [&] { return over; });
    BOOST_TEST(seen == asio::error::operation_aborted);
}

// ---- groups ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(parallel_group_wait_for_one_cancels_the_other, fixture) {
    error_code read_ec, write_ec;
    std::array<std::size_t, 2> order{};
    bool over = false;
    asio::experimental::make_parallel_group(reg.async_wait_readable(asio::deferred),
                                            reg.async_wait_writable(asio::deferred))
        .async_wait(asio::experimental::wait_for_one(),
                    [&](std::array<std::size_t, 2> o, error_code r, error_code w) {
                        order = o;
                        read_ec = r;
                        write_ec = w;
                        over = true;
                    });
    test::run_until(io, [&] { return over; });
    BOOST_TEST(order[0] == 1u); // the socket is writable
    BOOST_TEST(!write_ec);
    BOOST_TEST(read_ec == asio::error::operation_aborted);
}

BOOST_FIXTURE_TEST_CASE(parallel_group_wait_for_all_takes_every_result, fixture) {
    bool over = false;
    asio::experimental::make_parallel_group(
        reg.async_wait_readable(asio::deferred), reg.async_wait(interest::readable, asio::deferred),
        reg.async_io(interest::readable, test::reader{p.a.get()}, asio::deferred))
        .async_wait(asio::experimental::wait_for_all(),
                    [&](std::array<std::size_t, 3>, error_code a, error_code b, moor::ready_event e,
                        error_code c, std::string s) {
                        BOOST_TEST(!a);
                        BOOST_TEST(!b);
                        BOOST_TEST(e.ready() == interest::readable);
                        BOOST_TEST(!c);
                        BOOST_TEST(s == "all");
                        over = true;
                    });
    test::run_ready(io);
    BOOST_TEST(!over);
    test::put(p.b, "all");
    test::run_until(io, [&] { return over; });
}

BOOST_FIXTURE_TEST_CASE(parallel_group_is_cancelled_as_a_whole, fixture) {
    asio::cancellation_signal signal;
    bool over = false;
    test::fill(p.a);
    asio::experimental::make_parallel_group(reg.async_wait_readable(asio::deferred),
                                            reg.async_wait_writable(asio::deferred))
        .async_wait(asio::experimental::wait_for_all(),
                    asio::bind_cancellation_slot(
                        signal.slot(), [&](std::array<std::size_t, 2>, error_code r, error_code w) {
                            BOOST_TEST(r == asio::error::operation_aborted);
                            BOOST_TEST(w == asio::error::operation_aborted);
                            over = true;
                        }));
    test::run_ready(io);
    BOOST_TEST(!over);
    signal.emit(asio::cancellation_type::all);
    test::run_until(io, [&] { return over; });
}

#if __has_include(<boost/asio/cancel_after.hpp>)
BOOST_FIXTURE_TEST_CASE_TEMPLATE(cancel_after, Op, all_operations, fixture) {
    Op::pend(*this);
    test::called done;
    Op::start(reg, asio::cancel_after(std::chrono::milliseconds(1), done.handler()));
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(done.ec == asio::error::operation_aborted);
    Op::wake(*this);
    test::called ready;
    Op::start(reg, asio::cancel_after(std::chrono::hours(1), ready.handler()));
    test::run_until(io, [&] { return bool(ready); });
    BOOST_TEST(!ready.ec);
}
#endif

// ---- default tokens ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(as_default_on, Op, all_operations, fixture) {
    auto defaulted = asio::deferred.as_default_on(std::move(reg));
    static_assert(
        std::is_same<asio::default_completion_token_t<typename decltype(defaulted)::executor_type>,
                     asio::deferred_t>::value,
        "the token is the default");
    BOOST_TEST(defaulted.native_handle() == p.a.get());
    auto operation = Op::start(defaulted);
    Op::wake(*this);
    int times = 0;
    std::move(operation)(success<Op>(times));
    test::run_until(io, [&] { return times != 0; });
    // Back again; the pending waits come along.
    test::drain(p.a);
    moor::registration back(std::move(defaulted).get_executor());
    back = std::move(defaulted);
    BOOST_TEST(back.native_handle() == p.a.get());
}

BOOST_FIXTURE_TEST_CASE(as_default_on_type_is_constructed_directly, fixture) {
    reg.deregister();
    using with_default = asio::detached_t::as_default_on_t<moor::registration>;
    with_default r(io, p.a.get());
    r.async_wait_readable();
    r.async_wait(interest::readable);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(moor::use_registration_service(io).metrics().waits_started == 2u);
}

BOOST_FIXTURE_TEST_CASE(a_registration_on_a_concrete_executor_takes_default_tokens, fixture) {
    reg.deregister();
    using concrete = moor::basic_registration<asio::io_context::executor_type>;
    concrete r(io, p.a.get());
    auto defaulted = asio::deferred.as_default_on(std::move(r));
    test::put(p.b, "x");
    test::called done;
    defaulted.async_wait_readable()(done.handler());
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
}

BOOST_AUTO_TEST_SUITE_END()
