// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Calls that may block: try_io, which does not wait, and async_io, which does.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/tracker.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(io)

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::error_code;

struct fixture {
    test::context_fixture context;
    asio::io_context& io = context.io;
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get()};

    /// Lets a wait see what is there, so that the cache knows. (A test that needs the cache to
    /// follow what comes after it waits: only epoll leaves a waker armed when nobody does.)
    void see() {
        test::called done;
        reg.async_wait_readable(done.handler());
        test::run_until(io, [&] { return bool(done); });
    }

    bool is_cached_readable() { return reg.ready(interest::readable).ready().is_readable(); }

    /// The peer writes, and the cache knows.
    void put_and_see(const char* bytes) {
        test::put(p.b, bytes);
        see();
        BOOST_TEST(is_cached_readable());
    }

    /// What came late is found by a wait; then nothing pends, and all is read.
    void check_late_is_found() {
        test::called done;
        reg.async_wait_readable(done.handler());
        test::run_ready(io);
        BOOST_TEST(done.times == 1);
        BOOST_TEST(test::get(p.a) == "late");
        end();
    }
    void end() {
        reg.cancel();
        test::run_all(io);
        test::drain(p.a);
    }

    /// Arms the read waker, and sees would-block.
    void prime() {
        test::called done;
        reg.async_wait_readable(done.handler());
        test::run_ready(io);
        if (!done) {
            test::put(p.b, "x");
            test::run_until(io, [&] { return bool(done); });
        }
        test::drain(p.a);
        auto r = reg.try_io(interest::readable, test::reader{p.a.get()});
        BOOST_REQUIRE(r.error() == asio::error::would_block);
    }
};

// ---- try_io ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(try_io_calls_only_when_the_handle_is_ready, fixture) {
    int calls = 0;
    auto r = reg.try_io(interest::readable, [&](error_code&) { return ++calls; });
    BOOST_TEST((r.error() == asio::error::would_block));
    BOOST_TEST(calls == 0);
    BOOST_TEST(reg.try_io(interest::writable, [&](error_code&) { return ++calls; }).value() == 1);
    test::put(p.b, "hello");
    BOOST_TEST(reg.try_io(interest::readable, test::reader{p.a.get()}).value() == "hello");
}

BOOST_FIXTURE_TEST_CASE(success_keeps_readiness, fixture) {
    prime();
    put_and_see("ab");
    for (const char* expected : {"a", "b"}) {
        auto r = reg.try_io(interest::readable, test::reader{p.a.get(), 1});
        BOOST_REQUIRE(r.has_value());
        BOOST_TEST(*r == expected);
        BOOST_TEST(is_cached_readable());
    }
}

BOOST_FIXTURE_TEST_CASE(would_block_clears_readiness_until_a_new_event, fixture) {
    prime();
    put_and_see("a");
    test::drain(p.a);
    int calls = 0;
    auto callable = [&](error_code& ec) {
        ++calls;
        return test::reader{p.a.get()}(ec);
    };
    BOOST_TEST((reg.try_io(interest::readable, callable).error() == asio::error::would_block));
    BOOST_TEST(calls == 1);
    BOOST_TEST(!is_cached_readable());
    BOOST_TEST((reg.try_io(interest::readable, callable).error() == asio::error::would_block));
    BOOST_TEST(calls == 1);
    test::put(p.b, "b");
    test::run_ready(io);
    auto r = reg.try_io(interest::readable, callable);
    BOOST_REQUIRE(r.has_value());
    BOOST_TEST(*r == "b");
    BOOST_TEST(calls == 2);
}

BOOST_FIXTURE_TEST_CASE(a_would_block_is_believed_although_the_kernel_knows_better, fixture) {
    // A callable whose would-block is not the handle's own (a record that is not complete, say) is
    // not called again before something new came.
    prime();
    put_and_see("a");
    int calls = 0;
    auto incomplete = [&](error_code& ec) {
        ++calls;
        ec = asio::error::would_block;
    };
    BOOST_TEST((reg.try_io(interest::readable, incomplete).error() == asio::error::would_block));
    BOOST_TEST(calls == 1);
    for (int i = 0; i != 3; ++i) {
        test::run_ready(io);
        BOOST_TEST(
            (reg.try_io(interest::readable, incomplete).error() == asio::error::would_block));
    }
    // Where no waker is left armed, it is the kernel that says what is new.
    BOOST_TEST(calls <= (test::on_epoll() ? 2 : 4));
    calls = 0;
    test::put(p.b, "b");
    test::run_ready(io);
    BOOST_TEST((reg.try_io(interest::readable, incomplete).error() == asio::error::would_block));
    BOOST_TEST(calls == 1);
}

BOOST_FIXTURE_TEST_CASE(would_block_of_a_combined_interest_clears_only_what_was_seen, fixture) {
    prime();
    test::called armed;
    reg.async_wait_writable(armed.handler());
    test::run_until(io, [&] { return bool(armed); });
    BOOST_TEST(reg.ready(interest::writable).ready() == interest::writable);
    // Reads: would block; writable was there too, and the callable said so of both.
    (void)reg.try_io(interest::readable | interest::writable,
                     [](error_code& ec) { ec = asio::error::would_block; });
    BOOST_TEST(reg.ready(interest::writable).ready().empty());
    // It is not known which of the two would block: a level-triggered wait asks, and completes.
    test::called again;
    reg.async_wait_writable(again.handler());
    test::run_until(io, [&] { return bool(again); });
    BOOST_TEST(again.times == 1);
    BOOST_TEST(!again.ec);
}

/// A call for both directions that would block says of neither that it would, also not of one that
/// an earlier call has said it of, and that an event has come for since.
enum class call_for_both { pends_before, pends_after, does_not_wait };
void check_after_a_call_for_both(trigger t, bool writes, call_for_both how) {
    constexpr const char* names[] = {"pends before the other", "pends after the other",
                                     "does not wait"};
    BOOST_TEST_CONTEXT(test::name_of(t) << (writes ? ", writes" : ", reads")
                                        << ", the call for both " << names[static_cast<int>(how)]) {
        test::context_fixture context;
        asio::io_context& io = context.io;
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get(), t);
        const interest one = writes ? interest::writable : interest::readable;
        const interest both = interest::readable | interest::writable;
        auto transfer = [&](error_code&) { return writes ? test::fill(p.a) : test::drain(p.a); };
        int refused = 0;
        auto refuse = [&](error_code& ec) {
            ++refused;
            ec = asio::error::would_block;
        };
        test::called pending, told, done;
        auto call_for_both_pends = [&] {
            reg.async_io(both, refuse, pending.handler());
            test::run_ready(io);
        };
        if (how == call_for_both::pends_before)
            call_for_both_pends();
        test::put(p.b, "x");
        auto first = reg.try_io(one, [&](error_code& ec) {
            transfer(ec);
            ec = asio::error::would_block;
        });
        BOOST_TEST((first.error() == asio::error::would_block));
        if (how == call_for_both::pends_after)
            call_for_both_pends();
        if (how == call_for_both::does_not_wait)
            reg.async_wait(one, told.handler());
        test::run_ready(io);
        refused = 0;
        if (writes)
            test::drain(p.b);
        else
            test::put(p.b, "y");
        test::run_until(io, [&] { return refused != 0 || told.times != 0; });
        if (how == call_for_both::does_not_wait)
            (void)reg.try_io(both, refuse);
        BOOST_TEST(refused >= 1);
        reg.async_io(one, transfer, done.handler());
        test::run_ready(io);
        BOOST_TEST(done.times == 1);
        BOOST_TEST(!done.ec);
        reg.deregister();
        test::run_all(io);
    }
}
BOOST_AUTO_TEST_CASE(would_block_of_a_call_for_both_directions_says_nothing_of_one) {
    for (trigger t : test::both_triggers)
        for (bool writes : {false, true})
            for (call_for_both how : {call_for_both::pends_before, call_for_both::pends_after,
                                      call_for_both::does_not_wait})
                check_after_a_call_for_both(t, writes, how);
}

/// A datagram socket without room for another message, which may have an error then.
class full_socket {
public:
    full_socket() {
        test::put(p_.a, "x"); // which raise_error() has dropped
        const std::string message(16 * 1024, 'x');
        for (pollfd now{p_.a.get(), POLLOUT, 0}; ::poll(&now, 1, 0) == 1;)
            BOOST_REQUIRE(::sendto(p_.a.get(), message.data(), message.size(), 0,
                                   reinterpret_cast<const sockaddr*>(&other_address_),
                                   other_size_) > 0);
    }

    int get() const { return p_.a.get(); }
    void send(const char* data) { test::put(p_.b, data); }

    /// The peer is not connected any more. What others have not received leaves no room.
    void raise_error() {
        BOOST_REQUIRE(test::disconnect(p_.b.get()));
        pollfd now{p_.a.get(), POLLOUT, 0};
        BOOST_REQUIRE(::poll(&now, 1, 0) == 1);
        BOOST_REQUIRE(now.revents == POLLERR);
    }

private:
    test::fd_pair p_ = test::make_socketpair(SOCK_DGRAM);
    test::unique_fd other_{::socket(AF_UNIX, SOCK_DGRAM, 0)};
    sockaddr_un other_address_{};
    socklen_t other_size_ = [this] {
        // The kernel chooses an abstract address.
        other_address_.sun_family = AF_UNIX;
        auto* address = reinterpret_cast<sockaddr*>(&other_address_);
        BOOST_REQUIRE(::bind(other_.get(), address, sizeof(sa_family_t)) == 0);
        socklen_t size = sizeof(other_address_);
        BOOST_REQUIRE(::getsockname(other_.get(), address, &size) == 0);
        return size;
    }();
};

enum class beside { nothing, writer, writer_before, error, two };

void check_that_an_error_is_told_to_a_writing_call(trigger t, beside what) {
    BOOST_TEST_CONTEXT("trigger " << int(t) << ", beside " << int(what)) {
        asio::io_context io;
        full_socket full;
        const int fd = full.get();
        moor::registration reg(io, fd, t);
        test::called call, waits[2];
        if (what == beside::writer_before)
            reg.async_wait_writable(waits[0].handler());
        test::run_ready(io);
        int refused = 0;
        reg.async_io(
            interest::writable,
            [fd, &refused](error_code& ec) {
                pollfd now{fd, POLLOUT, 0};
                ::poll(&now, 1, 0);
                if (now.revents == 0) {
                    ++refused;
                    ec = asio::error::would_block;
                }
            },
            call.handler());
        test::run_ready(io);
        BOOST_TEST(refused == 1);
        if (what == beside::writer || what == beside::two)
            reg.async_wait_writable(waits[0].handler());
        if (what == beside::error || what == beside::two)
            reg.async_wait(interest::error, waits[1].handler());
        test::run_ready(io);
        full.raise_error();
        test::run_until(io, [&] { return call.times == 1; });
        BOOST_TEST(!call.ec);
        reg.deregister();
        test::run_all(io);
    }
}
BOOST_AUTO_TEST_CASE(an_error_is_told_to_a_writing_call_whatever_waits_beside_it) {
    for (trigger t : test::both_triggers)
        for (beside what :
             {beside::nothing, beside::writer, beside::writer_before, beside::error, beside::two})
            check_that_an_error_is_told_to_a_writing_call(t, what);
}

enum class drops_by { clear, call, trying };

/// Somebody waits for an error and drops it. Readers and writers did not hear of it yet.
void check_that_a_dropped_error_is_told(trigger t, drops_by how, interest later, bool calls) {
    BOOST_TEST_CONTEXT("trigger " << int(t) << ", dropped by " << int(how) << ", then "
                                  << (calls ? "a call for " : "a wait for ") << later) {
        asio::io_context io;
        full_socket full;
        moor::registration reg(io, full.get(), t);
        test::called waits[2], dropped, done;
        if (t == trigger::edge) { // both directions have waited before
            reg.async_wait_writable(waits[0].handler());
            reg.async_wait_readable(waits[1].handler());
            test::run_ready(io);
            reg.cancel();
            test::run_ready(io);
        }
        const auto refuse = [](error_code& ec) { ec = asio::error::would_block; };
        if (calls) // a call of each direction has found nothing
            for (interest i : {interest::readable, interest::writable})
                (void)reg.try_io(i, refuse);
        if (how == drops_by::call)
            reg.async_io(interest::error, refuse, dropped.handler());
        else
            reg.async_wait(interest::error, [&](error_code, moor::ready_event e) {
                if (how == drops_by::clear)
                    reg.clear(e);
                else
                    (void)reg.try_io(interest::error, refuse);
                ++dropped.times;
            });
        test::run_ready(io);
        full.raise_error();
        if (how == drops_by::call)
            test::run_ready(io);
        else
            test::run_until(io, [&] { return dropped.times == 1; });
        if (calls)
            reg.async_io(
                later, [](error_code&) {}, done.handler());
        else
            reg.async_wait(later, done.handler());
        test::run_until(io, [&] { return done.times == 1; });
        BOOST_TEST(!done.ec);
        reg.deregister();
        test::run_all(io);
    }
}
BOOST_AUTO_TEST_CASE(an_error_that_lasts_is_told_to_readers_and_writers_whoever_drops_it) {
    for (trigger t : test::both_triggers)
        for (drops_by how : {drops_by::clear, drops_by::call, drops_by::trying})
            for (interest later : {interest::readable, interest::writable})
                for (bool calls : {false, true})
                    check_that_a_dropped_error_is_told(t, how, later, calls);
}

BOOST_AUTO_TEST_CASE(an_error_that_is_over_makes_nothing_ready) {
    for (bool clears : {true, false})
        for (bool writes : {false, true})
            BOOST_TEST_CONTEXT((clears ? "cleared, " : "") << (writes ? "writes" : "reads")) {
                asio::io_context io;
                full_socket full;
                moor::registration reg(io, full.get(), trigger::edge);
                test::called failed;
                reg.async_wait(interest::error, [&](error_code, moor::ready_event e) {
                    if (clears)
                        reg.clear(e);
                    ++failed.times;
                });
                test::run_ready(io);
                full.raise_error();
                test::run_until(io, [&] { return bool(failed); });
                BOOST_TEST(test::take_error(full.get()) == ECONNRESET);
                int answers = 0;
                for (; answers != 10; ++answers) {
                    auto r = writes ? reg.poll_write_ready([] {}) : reg.poll_read_ready([] {});
                    if (!r)
                        break;
                    reg.clear(*r); // the call would block
                }
                BOOST_TEST(answers <= 1);
                reg.deregister();
                test::run_all(io);
            }
}

BOOST_AUTO_TEST_CASE(a_call_for_data_or_an_error_does_not_hide_the_error) {
    asio::io_context io;
    full_socket full;
    moor::registration reg(io, full.get());
    test::called first, failed, again;
    reg.async_wait_readable(first.handler());
    test::run_ready(io);
    full.send("x"); // after an event the reactor is trusted
    test::run_until(io, [&] { return bool(first); });
    test::drain(full.get());
    (void)reg.try_io(interest::readable, test::reader{full.get()});
    reg.async_wait_readable(failed.handler());
    test::run_ready(io);
    full.raise_error();
    test::run_until(io, [&] { return bool(failed); });
    const auto refuse = [](error_code& ec) { ec = asio::error::would_block; };
    (void)reg.try_io(interest::readable | interest::error, refuse);
    reg.async_wait_readable(again.handler());
    test::run_until(io, [&] { return bool(again); });
}

BOOST_FIXTURE_TEST_CASE(try_io_reports_its_errors, fixture) {
    auto callable = [](error_code&) { BOOST_ERROR("called"); };
    BOOST_TEST((reg.try_io(interest(), callable).error() == asio::error::invalid_argument));
    BOOST_TEST((moor::registration(io).try_io(interest::readable, callable).error() ==
                moor::error::not_registered));
    auto r =
        reg.try_io(interest::writable, [](error_code& ec) { ec = asio::error::connection_reset; });
    BOOST_TEST((r.error() == asio::error::connection_reset)); // the callable's own
    moor::use_registration_service(io).close();
    BOOST_TEST((reg.try_io(interest::readable, callable).error() == moor::error::gone));
    reg.deregister();
    BOOST_TEST((reg.try_io(interest::readable, callable).error() == moor::error::gone));
}

BOOST_FIXTURE_TEST_CASE(try_io_passes_exceptions_on, fixture) {
    BOOST_CHECK_THROW(
        (void)reg.try_io(interest::writable, [](error_code&) { throw std::runtime_error("mine"); }),
        std::runtime_error);
    BOOST_TEST(reg.try_io(interest::writable, [](error_code&) {}).has_value());
}

BOOST_FIXTURE_TEST_CASE(the_callable_of_try_io_may_end_the_registration, fixture) {
    for (error_code result : {error_code(asio::error::would_block),
                              error_code(asio::error::interrupted), error_code()}) {
        test::fd_pair pair = test::make_socketpair();
        auto owned = std::make_unique<moor::registration>(io, pair.a.get());
        auto r = owned->try_io(interest::writable, [&](error_code& ec) {
            owned.reset();
            ec = result;
        });
        BOOST_TEST((r ? error_code() : r.error()) == result);
    }
}

BOOST_FIXTURE_TEST_CASE(the_callable_of_try_io_may_use_the_registration, fixture) {
    // Nothing is locked while it runs.
    test::called done;
    auto r = reg.try_io(interest::writable, [&](error_code&) {
        reg.async_wait_readable(done.handler());
        reg.cancel(moor::direction::write);
        return reg.try_io(interest::writable, [](error_code&) { return 5; }).value();
    });
    BOOST_TEST(r.value() == 5);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE(a_result_is_void_a_value_or_move_only, fixture) {
    auto nothing = reg.try_io(interest::writable, [](error_code&) {});
    static_assert(std::is_same<decltype(nothing), boost::system::result<void>>::value, "");
    BOOST_TEST(nothing.has_value());
    auto r = reg.try_io(interest::writable, [](error_code&) { return std::make_unique<int>(3); });
    BOOST_REQUIRE(r.has_value());
    BOOST_TEST(**r == 3);
    auto move_only_callable = [x = std::make_unique<int>(4)](error_code&) { return *x; };
    BOOST_TEST(reg.try_io(interest::writable, move_only_callable).value() == 4);
    BOOST_TEST(reg.try_io(interest::writable, std::move(move_only_callable)).value() == 4);
    // A reference that is returned becomes a value.
    std::string s = "copied";
    auto ref = reg.try_io(interest::writable, [&](error_code&) -> std::string& { return s; });
    static_assert(std::is_same<decltype(ref), boost::system::result<std::string>>::value, "");
    BOOST_TEST(*ref == "copied");
}

BOOST_FIXTURE_TEST_CASE(a_drained_result_is_unwrapped, fixture) {
    auto a = reg.try_io(interest::writable, [](error_code&) { return moor::drained(7); });
    static_assert(std::is_same<decltype(a), boost::system::result<int>>::value, "");
    BOOST_TEST(*a == 7);
    test::put(p.b, "x");
    auto b = reg.try_io(interest::readable, [](error_code&) { return moor::drained(); });
    static_assert(std::is_same<decltype(b), boost::system::result<void>>::value, "");
    BOOST_TEST(b.has_value());
    auto c = reg.try_io(interest::readable,
                        [](error_code&) { return moor::drained(std::make_unique<int>(3)); });
    if (c.has_value())
        BOOST_TEST(**c == 3);
}

// ---- async_io ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(async_io_calls_again_after_every_would_block, fixture) {
    int calls = 0;
    test::called done;
    reg.async_io(
        interest::readable,
        [&](error_code& ec) {
            ++calls;
            std::string s = test::reader{p.a.get(), 1}(ec);
            if (!ec && s != "3")
                ec = calls % 2 ? asio::error::would_block : asio::error::try_again;
        },
        done.handler());
    for (const char* s : {"1", "2", "3"}) {
        test::run_ready(io);
        BOOST_TEST(done.times == 0);
        test::put(p.b, s);
    }
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
    BOOST_TEST(calls >= 3);
}

BOOST_FIXTURE_TEST_CASE(async_io_does_not_spin_on_would_block, fixture) {
    int calls = 0;
    test::called done;
    reg.async_io(
        interest::readable,
        [&](error_code& ec) {
            ++calls;
            ec = asio::error::would_block;
        },
        done.handler());
    test::run_ready(io);
    BOOST_TEST(calls <= 2);
    reg.cancel();
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(async_io_ends_with_the_callables_error_and_a_value, fixture) {
    error_code seen;
    int value = -1;
    reg.async_io(
        interest::writable,
        [](error_code& ec) {
            ec = asio::error::connection_reset;
            return 12;
        },
        [&](error_code ec, int v) {
            seen = ec;
            value = v;
        });
    test::run_all(io);
    BOOST_TEST(seen == asio::error::connection_reset);
    BOOST_TEST(value == 12);
    // Without a call the value is a fresh one.
    reg.async_io(
        interest(), [](error_code&) { return 12; }, [&](error_code, int v) { value = v; });
    test::run_all(io);
    BOOST_TEST(value == 0);
}

BOOST_FIXTURE_TEST_CASE(async_io_takes_void_move_only_and_plain_results, fixture) {
    test::put(p.b, "x");
    int over = 0;
    reg.async_io(
        interest::readable, [](error_code&) {},
        [&](error_code ec) {
            BOOST_TEST(!ec);
            ++over;
        });
    reg.async_io(
        interest::readable, [](error_code&) { return std::make_unique<int>(5); },
        [&](error_code ec, std::unique_ptr<int> v) {
            BOOST_TEST(!ec);
            BOOST_TEST(*v == 5);
            ++over;
        });
    reg.async_io(
        interest::readable,
        [mine = std::make_unique<int>(6)](error_code&) mutable {
            return moor::drained_if(false, std::move(mine));
        },
        [&](error_code ec, std::unique_ptr<int> v) {
            BOOST_TEST(!ec);
            BOOST_TEST(*v == 6);
            ++over;
        });
    std::string s = "by reference";
    reg.async_io(
        interest::readable, [&](error_code&) -> const std::string& { return s; },
        [&](error_code, std::string v) {
            BOOST_TEST(v == "by reference");
            ++over;
        });
    test::run_all(io);
    BOOST_TEST(over == 4);
}

BOOST_FIXTURE_TEST_CASE(several_operations_on_one_direction_share_the_bytes, fixture) {
    std::string got;
    int over = 0;
    for (int i = 0; i != 10; ++i)
        reg.async_io(interest::readable, test::reader{p.a.get(), 1},
                     [&](error_code ec, std::string s) {
                         BOOST_TEST(!ec);
                         got += s;
                         ++over;
                     });
    test::run_ready(io);
    test::put(p.b, "abc");
    test::run_ready(io);
    BOOST_TEST(over == 3); // the others met would-block, and wait
    BOOST_TEST(got.size() == 3u);
    test::put(p.b, "defghij");
    test::run_until(io, [&] { return over == 10; });
    std::sort(got.begin(), got.end());
    BOOST_TEST(got == "abcdefghij");
}

BOOST_FIXTURE_TEST_CASE(async_io_of_a_combined_interest_is_called_for_either, fixture) {
    test::fill(p.a);
    int calls = 0;
    test::called done;
    reg.async_io(
        interest::readable | interest::writable,
        [&](error_code& ec) {
            ++calls;
            (void)test::reader{p.a.get()}(ec);
            if (ec && ::send(p.a, "y", 1, MSG_NOSIGNAL) == 1)
                ec = error_code();
        },
        done.handler());
    test::run_ready(io);
    BOOST_TEST(done.times == 0);
    test::drain(p.b); // writable
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE(a_callable_that_throws_leaves_run_and_destroys_the_handler, fixture) {
    test::allocation_counts memory;
    for (bool ready : {true, false}) {
        test::once h(test::expect::destroyed);
        if (ready)
            test::put(p.b, "x");
        int calls = 0;
        reg.async_io(
            interest::readable,
            [&](error_code& ec) {
                ++calls;
                (void)test::reader{p.a.get()}(ec);
                if (!ec)
                    throw std::runtime_error("mine");
            },
            asio::bind_allocator(test::counting_allocator<>(memory), h.handler()));
        if (!ready) {
            test::run_ready(io);
            test::put(p.b, "x");
        }
        BOOST_CHECK_THROW(test::run_all(io), std::runtime_error);
        BOOST_TEST(h.destroyed());
        BOOST_TEST(memory.live == 0);
        test::run_all(io); // no work is left
    }
    test::called done;
    reg.async_wait_readable(done.handler());
    test::put(p.b, "y");
    test::run_all(io);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE(the_callable_lives_until_the_operation_is_over, fixture) {
    auto owned = std::make_shared<int>(0);
    test::called done;
    bool gone_when_run = false;
    reg.async_io(
        interest::readable, [owned, this](error_code& ec) { return test::reader{p.a.get()}(ec); },
        [&, watch = std::weak_ptr<int>(owned)](error_code, std::string) {
            gone_when_run = watch.use_count() == 1; // the one here only
            ++done.times;
        });
    BOOST_TEST(owned.use_count() == 2);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST(gone_when_run); // like the operation's memory
    BOOST_TEST(owned.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(the_callable_may_start_other_operations, fixture) {
    test::called inner, outer;
    test::put(p.b, "x");
    bool first = true;
    reg.async_io(
        interest::readable,
        [&](error_code&) {
            if (std::exchange(first, false))
                reg.async_io(interest::readable, test::reader{p.a.get()}, inner.handler());
        },
        outer.handler());
    test::run_all(io);
    BOOST_TEST(!outer.ec);
    BOOST_TEST(!inner.ec);
    BOOST_TEST(inner.times == 1);
}

// ---- drained -----------------------------------------------------------------------------------
//
// After a callable said so, the next wait waits without asking: no poll(2). (select has no latch:
// there arming a waker costs nothing either, since the reactor itself looks at the handle.)

template <class F>
void read_by(fixture& f, F callable) {
    test::called done;
    f.reg.async_io(interest::readable, callable, done.handler());
    test::run_until(f.io, [&] { return bool(done); });
    BOOST_REQUIRE(!done.ec);
}

/// poll(2) calls of starting a wait.
long polls_of_a_wait(fixture& f) {
    test::called done;
    test::call_counts before = test::counts();
    f.reg.async_wait_readable(done.handler());
    long polls = (test::counts() - before).poll;
    f.reg.cancel();
    test::run_until(f.io, [&] { return bool(done); });
    return polls;
}

BOOST_FIXTURE_TEST_CASE(after_drained_the_next_wait_waits_without_a_call, fixture) {
    auto read = [&](error_code& ec) { return moor::drained(test::reader{p.a.get()}(ec)); };
    for (bool is_async : {true, false}) {
        prime();
        put_and_see("x");
        if (is_async)
            read_by(*this, read);
        else
            BOOST_TEST(reg.try_io(interest::readable, read).value() == "x");
        BOOST_TEST(!is_cached_readable());
        BOOST_TEST(polls_of_a_wait(*this) == 0);
    }
}

BOOST_FIXTURE_TEST_CASE(without_drained_the_next_wait_asks_once, fixture) {
    prime();
    put_and_see("x");
    read_by(*this, test::reader{p.a.get()});
    BOOST_TEST(is_cached_readable());
    BOOST_TEST(polls_of_a_wait(*this) == (test::on_epoll() ? 1 : 0)); // else the request asks
}

BOOST_FIXTURE_TEST_CASE(drained_if_false_keeps_readiness, fixture) {
    prime();
    put_and_see("xy");
    read_by(*this, [&](error_code& ec) {
        return moor::drained_if(false, test::reader{p.a.get(), 1}(ec));
    });
    BOOST_TEST(is_cached_readable());
    read_by(*this, [&](error_code& ec) {
        return moor::drained_if(true, test::reader{p.a.get(), 1}(ec));
    });
    BOOST_TEST(!is_cached_readable());
    BOOST_TEST(polls_of_a_wait(*this) == 0);
}

BOOST_FIXTURE_TEST_CASE(drained_does_not_hide_what_comes_after, fixture) {
    prime();
    for (int i = 0; i != 50; ++i) {
        test::put(p.b, "x");
        read_by(*this, [&](error_code& ec) {
            auto s = test::reader{p.a.get()}(ec);
            if (ec)
                return moor::drained_if(false, s);
            if (i % 2)
                test::put(p.b, "late"); // after the read, before the declaration
            return moor::drained(s);
        });
        if (i % 2) {
            // The event of the late bytes is still to come; it must find the next wait.
            test::called done;
            reg.async_wait_readable(done.handler());
            test::run_until(io, [&] { return bool(done); });
            BOOST_TEST(test::drain(p.a) == 4u);
        }
    }
}

BOOST_FIXTURE_TEST_CASE(an_error_beside_drained_clears_nothing, fixture) {
    prime();
    put_and_see("x");
    auto r = reg.try_io(interest::readable, [&](error_code& ec) {
        ec = asio::error::message_size;
        return moor::drained(1);
    });
    BOOST_TEST((r.error() == asio::error::message_size));
    BOOST_TEST(is_cached_readable());
}

// ---- short transfers: a hint that must never lose anything -------------------------------------

bool short_read_clears(asio::io_context& io, moor::registration& reg, int fd, std::size_t asked) {
    test::called woken;
    reg.async_wait_readable(woken.handler());
    test::run_until(io, [&] { return bool(woken); });
    auto r = reg.try_io(interest::readable, [&](error_code& ec) {
        std::string s = test::reader{fd, asked}(ec);
        return moor::short_transfer(s.size(), asked);
    });
    BOOST_REQUIRE(r.has_value());
    return reg.ready(interest::readable).ready().empty();
}

/// A wait is pending while `arrive` makes messages arrive. Then reads with short_transfer, as often
/// as expected or until a read does not complete although all is there already; the number of
/// reads.
template <class Arrive>
int reads_without_hanging(asio::io_context& io, int fd, std::size_t size, int expected,
                          Arrive arrive) {
    moor::registration reg(io, fd);
    test::called armed;
    reg.async_wait_readable(armed.handler());
    test::run_ready(io);
    arrive();
    test::run_all(io);
    int reads = 0;
    for (; reads != expected; ++reads) {
        test::called done;
        reg.async_io(
            interest::readable,
            [&](error_code& ec) {
                return moor::short_transfer(test::reader{fd, size}(ec).size(), size);
            },
            done.handler());
        test::run_ready(io);
        if (!done) {
            reg.cancel();
            test::run_all(io);
            break;
        }
    }
    return reads;
}

BOOST_FIXTURE_TEST_CASE(a_short_read_that_leaves_another_datagram_does_not_hang,
                        test::context_fixture) {
    // A datagram shorter than the buffer says nothing of the one behind it.
    test::fd_pair p = test::make_socketpair(SOCK_DGRAM);
    BOOST_TEST(reads_without_hanging(io, p.a, 16, 3, [&] {
                   for (const char* datagram : {"one", "two", "three"})
                       test::put(p.b, datagram);
               }) == 3);
}

BOOST_FIXTURE_TEST_CASE(a_short_read_of_a_semaphore_eventfd_does_not_hang, test::context_fixture) {
    test::unique_fd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE));
    BOOST_TEST(reads_without_hanging(io, fd, 16, 3, [&] {
                   std::uint64_t n = 3;
                   BOOST_REQUIRE(::write(fd, &n, sizeof(n)) == sizeof(n));
               }) == 3);
}

BOOST_FIXTURE_TEST_CASE(a_short_read_of_inotify_that_leaves_an_event_does_not_hang,
                        test::context_fixture) {
    // read(2) returns the events that fit, so that the next one makes a read short.
    test::unique_fd fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    char directory[] = "/tmp/moor-test-XXXXXX";
    BOOST_REQUIRE(::mkdtemp(directory));
    BOOST_REQUIRE(::inotify_add_watch(fd, directory, IN_CREATE) >= 0);
    // An event with a short name takes 32 bytes: one at a time fits into 40.
    BOOST_TEST(reads_without_hanging(io, fd, 40, 3, [&] {
                   for (const char* name : {"/a", "/b", "/c"}) {
                       std::string path = std::string(directory) + name;
                       test::unique_fd(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
                       ::unlink(path.c_str());
                   }
                   ::rmdir(directory);
               }) == 3);
}

BOOST_FIXTURE_TEST_CASE(a_short_read_of_a_signalfd_that_leaves_a_signal_does_not_hang,
                        test::context_fixture) {
    ::sigset_t set, old;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGUSR1);
    ::sigaddset(&set, SIGUSR2);
    BOOST_REQUIRE(::pthread_sigmask(SIG_BLOCK, &set, &old) == 0);
    {
        test::unique_fd fd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
        // One takes 128.
        BOOST_TEST(reads_without_hanging(io, fd, 200, 2, [&] {
                       ::pthread_kill(::pthread_self(), SIGUSR1);
                       ::pthread_kill(::pthread_self(), SIGUSR2);
                   }) == 2);
        test::drain(fd);
    }
    ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

BOOST_FIXTURE_TEST_CASE(a_short_read_proves_nothing, test::context_fixture) {
    // There may be another datagram, and the end of a stream could hide behind the data.
    test::fd_pair pairs[] = {test::make_socketpair(SOCK_DGRAM), test::make_socketpair(),
                             test::make_pipe(), test::make_tcp_pair()};
    for (test::fd_pair& p : pairs)
        for (std::size_t asked : {16u, 3u}) {
            moor::registration reg(io, p.a.get());
            test::put(p.b, "abc");
            BOOST_TEST(!short_read_clears(io, reg, p.a, asked));
        }
}

BOOST_FIXTURE_TEST_CASE(the_end_behind_a_short_read_is_seen, test::context_fixture) {
    for (trigger mode : test::both_triggers) {
        test::fd_pair pairs[] = {test::make_socketpair(), test::make_pipe(), test::make_tcp_pair()};
        for (test::fd_pair& p : pairs) {
            moor::registration reg(io, p.a.get(), mode);
            // Data and end as one edge.
            test::put(p.b, "abc");
            p.b.close();
            std::vector<std::string> got;
            for (int i = 0; i != 2; ++i)
                reg.async_io(
                    interest::readable,
                    [&](error_code& ec) {
                        std::string s = test::reader{p.a.get(), 16}(ec);
                        got.push_back(s);
                        return moor::short_transfer(s.size(), 16);
                    },
                    [](error_code ec, std::size_t) { BOOST_TEST(!ec); });
            test::run_all(io);
            while (!got.empty() && got.front() != "abc") // a first call may have blocked
                got.erase(got.begin());
            BOOST_TEST(got == (std::vector<std::string>{"abc", ""}),
                       boost::test_tools::per_element());
        }
    }
}

// ---- an event that comes while the callable runs -----------------------------------------------

/// Reads to would-block; then new bytes arrive, and the loop sees them, before the callable is
/// over.
struct overtaken_reader {
    fixture& f;
    int* calls;

    std::string operator()(error_code& ec) const {
        ++*calls;
        std::string s = test::reader{f.p.a.get()}(ec);
        while (!ec)
            s += test::reader{f.p.a.get()}(ec);
        if (*calls == 1) {
            test::put(f.p.b, "late");
            test::run_ready(f.io);
        } else if (!s.empty()) {
            ec = error_code();
        }
        return s;
    }
};

void readable_in_the_cache(fixture& f, trigger mode) {
    f.reg.reset(f.p.a.get(), mode);
    f.prime();
    test::put(f.p.b, "early");
    if (test::on_epoll())
        test::run_ready(f.io); // with the waker armed, and nobody waiting
    else
        f.see();
}

BOOST_FIXTURE_TEST_CASE(an_event_while_a_callable_runs_is_not_lost, fixture) {
    for (trigger mode : test::both_triggers)
        for (interest beside :
             {interest(), interest(interest::read_closed), interest(interest::write_closed),
              interest(interest::error), interest(interest::priority)}) {
            int calls = 0, woken = 0;
            auto begin = [&] {
                readable_in_the_cache(*this, mode);
                if (!beside.empty())
                    reg.async_wait(beside, [](error_code, moor::ready_event) {});
                test::run_ready(io);
                calls = 0;
            };
            overtaken_reader read{*this, &calls};
            begin();
            auto r = reg.try_io(interest::readable, read);
            BOOST_TEST((r.error() == asio::error::would_block));
            BOOST_TEST(calls == 1);
            check_late_is_found();

            begin();
            std::string got;
            reg.async_io(interest::readable, read, [&](error_code, std::string s) { got = s; });
            test::run_ready(io);
            BOOST_TEST(got == "late");
            end();

            begin();
            auto polled = reg.poll_read_io([&] { ++woken; }, read);
            if (!polled) { // kept, and woken at once
                test::run_ready(io);
                BOOST_TEST(woken == 1);
                polled = reg.poll_read_io([&] { ++woken; }, read);
            }
            BOOST_TEST((polled && *polled == "late"));
            end();
        }
}

BOOST_FIXTURE_TEST_CASE(an_event_between_a_wait_and_its_clear_is_not_lost, fixture) {
    for (trigger mode : test::both_triggers) {
        readable_in_the_cache(*this, mode);
        moor::ready_event e = reg.ready(interest::readable);
        test::drain(p.a);
        test::put(p.b, "late");
        test::run_ready(io);
        reg.clear(e);
        check_late_is_found();
    }
}

BOOST_FIXTURE_TEST_CASE(drained_that_was_overtaken_by_an_event_loses_nothing, fixture) {
    for (trigger mode : test::both_triggers) {
        readable_in_the_cache(*this, mode);
        auto r = reg.try_io(interest::readable, [&](error_code&) {
            test::drain(p.a);
            test::put(p.b, "late");
            test::run_ready(io);
            return moor::drained(); // it was
        });
        BOOST_TEST(r.has_value());
        check_late_is_found();
    }
}

// ---- edge --------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(edge_async_io_reads_every_byte, fixture) {
    reg.reset(p.a.get(), trigger::edge);
    std::string got;
    for (int i = 0; i != 100; ++i) {
        test::called done;
        std::size_t before = got.size();
        reg.async_io(
            interest::readable,
            [&](error_code& ec) { // drains
                for (;;) {
                    std::string s = test::reader{p.a.get(), 1}(ec);
                    if (ec)
                        break;
                    got += s;
                }
                if (got.size() != before)
                    ec = error_code();
                return moor::drained_if(true, 0);
            },
            done.handler());
        if (i % 3 == 0)
            test::run_ready(io);
        test::put(p.b, i % 2 ? "ab" : "c");
        test::run_until(io, [&] { return bool(done); });
        BOOST_REQUIRE(!done.ec);
    }
    BOOST_TEST(got.size() == 150u);
}

BOOST_AUTO_TEST_SUITE_END()
