// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Registrations and descriptors that outlive their execution context, with each kind of executor:
// once the context is gone, nothing uses or destroys an executor that refers to it. One executor of
// the tests notices that by itself; of the others AddressSanitizer tells.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/tracker.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/execution.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/require.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <array>
#include <future>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

BOOST_AUTO_TEST_SUITE(outliving)

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::aborted;
using test::error_code;
using test::gone;

// ---- executors ----------------------------------------------------------------------------------

/// Whether a context lives, and what was done with its executors when it did not.
struct life {
    bool ended = false;
    int late_uses = 0;
};

/// An executor of an `io_context` that may not be copied, used or destroyed once the context is
/// gone, as the executors of strands and those that count work may not.
class mortal_executor {
public:
    mortal_executor(std::shared_ptr<life> l, asio::any_io_executor inner)
        : life_(std::move(l)), inner_(std::move(inner)) {}
    mortal_executor(const mortal_executor& other) noexcept
        : life_(other.life_), inner_(other.inner_) {
        use();
    }
    mortal_executor(mortal_executor&& other) noexcept
        : life_(std::move(other.life_)), inner_(other.inner_) {
        use();
    }
    mortal_executor& operator=(const mortal_executor& other) noexcept {
        use();
        life_ = other.life_;
        inner_ = other.inner_;
        use();
        return *this;
    }
    ~mortal_executor() { use(); }

    template <class Property, class = std::enable_if_t<
                                  asio::can_query<const asio::any_io_executor&, Property>::value>>
    decltype(auto) query(const Property& p) const {
        use();
        return asio::query(inner_, p);
    }
    template <class Property, class = std::enable_if_t<
                                  asio::can_require<const asio::any_io_executor&, Property>::value>>
    mortal_executor require(const Property& p) const {
        use();
        return mortal_executor(life_, asio::require(inner_, p));
    }
    template <
        class Property,
        class = std::enable_if_t<asio::can_prefer<const asio::any_io_executor&, Property>::value>,
        class = void>
    mortal_executor prefer(const Property& p) const {
        use();
        return mortal_executor(life_, asio::prefer(inner_, p));
    }
    template <class F>
    void execute(F&& f) const {
        use();
        inner_.execute(std::forward<F>(f));
    }
    friend bool operator==(const mortal_executor& a, const mortal_executor& b) noexcept {
        a.use();
        return a.life_ == b.life_;
    }
    [[maybe_unused]] friend bool operator!=(const mortal_executor& a,
                                            const mortal_executor& b) noexcept {
        return !(a == b);
    }

private:
    // (One that was moved from holds nothing of the context.)
    void use() const noexcept {
        if (life_ && life_->ended)
            ++life_->late_uses;
    }

    std::shared_ptr<life> life_;
    asio::any_io_executor inner_;
};

// ---- what outlives ------------------------------------------------------------------------------

/// What an object has been through when its context goes.
enum class history { nothing, waited, pending, closed, moved };

constexpr history histories[] = {history::nothing, history::waited, history::pending,
                                 history::closed, history::moved};

const char* name_of(history h) {
    switch (h) {
    case history::nothing:
        return "never waited for";
    case history::waited:
        return "waited for";
    case history::pending:
        return "with waits pending";
    case history::closed:
        return "with its registration ended";
    case history::moved:
        return "moved";
    }
    return "";
}

/// Runs what is ready, on this thread if the context has none.
void run_ready(asio::io_context& io) { test::run_ready(io); }
void run_ready(asio::thread_pool&) {}

/// Waits until a wait is over, whoever runs the context.
template <class Context, class Start>
void wait_once(Context& context, Start start) {
    std::promise<error_code> promise;
    auto over = promise.get_future();
    start([&](error_code ec, auto&&...) { promise.set_value(ec); });
    while (over.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
        run_ready(context);
    BOOST_TEST(!over.get());
}

/// A registration on an executor that `make(context)` gives outlives the context.
template <class Context, class Make>
void check_registration(const Make& make, history h, trigger t) {
    using executor = decltype(make(std::declval<Context&>()));
    test::fd_pair p = test::make_socketpair();
    auto context = test::make_context<Context>();
    auto r = std::make_unique<moor::basic_registration<executor>>(make(*context), p.a, t);
    auto ignore = [](error_code, auto&&...) {};
    switch (h) {
    case history::nothing:
        break;
    case history::waited:
        wait_once(*context, [&](auto f) { r->async_wait_writable(f); });
        break;
    case history::pending:
        r->async_wait_readable(ignore);
        r->async_wait(interest::priority | interest::read_closed, ignore);
        r->async_io(
            interest::readable, [](error_code& ec) { ec = test::would_block; }, ignore);
        run_ready(*context);
        break;
    case history::closed:
        r->deregister();
        break;
    case history::moved:
        r->async_wait_readable(ignore);
        r = std::make_unique<moor::basic_registration<executor>>(std::move(*r));
        break;
    }
    context.reset();
    // What may be done with it now.
    BOOST_TEST((r->try_io(interest::readable, [](error_code&) {}).has_error()));
    r->cancel();
    if (h == history::moved) {
        moor::basic_registration<executor> other(std::move(*r));
        *r = std::move(other);
    }
    r.reset();
}

/// The same of a stream descriptor that owns its handle.
template <class Context, class Make>
void check_stream(const Make& make, history h) {
    using executor = decltype(make(std::declval<Context&>()));
    test::fd_pair p = test::make_socketpair();
    auto context = test::make_context<Context>();
    std::array<char, 16> bytes{};
    auto s =
        std::make_unique<moor::basic_stream_descriptor<executor>>(make(*context), p.a.release());
    auto ignore = [](error_code, auto&&...) {};
    switch (h) {
    case history::nothing:
        break;
    case history::waited:
        wait_once(*context, [&](auto f) { s->async_write_some(asio::buffer("x", 1), f); });
        break;
    case history::pending:
        s->async_read_some(asio::buffer(bytes), ignore);
        s->async_wait(moor::descriptor::wait_error, ignore);
        run_ready(*context);
        break;
    case history::closed:
        s->close();
        break;
    case history::moved:
        s->async_read_some(asio::buffer(bytes), ignore);
        s = std::make_unique<moor::basic_stream_descriptor<executor>>(std::move(*s));
        break;
    }
    context.reset();
    error_code ec;
    s->cancel(ec);
    if (h == history::moved) {
        moor::basic_stream_descriptor<executor> other(std::move(*s));
        *s = std::move(other);
    }
    s.reset();
}

template <class Context, class Make>
void check_outlives(const std::string& executor, const Make& make) {
    for (history h : histories) {
        for (trigger t : test::both_triggers)
            BOOST_TEST_CONTEXT("a registration on " << executor << ", " << name_of(h)) {
                check_registration<Context>(make, h, t);
            }
        BOOST_TEST_CONTEXT("a stream on " << executor << ", " << name_of(h)) {
            check_stream<Context>(make, h);
        }
    }
}

} // namespace

BOOST_AUTO_TEST_CASE(a_registration_on_a_strand_outlives_its_context) {
    check_outlives<asio::io_context>("a strand",
                                     [](asio::io_context& io) { return asio::make_strand(io); });
    check_outlives<asio::io_context>("a strand of a strand", [](asio::io_context& io) {
        return asio::make_strand(asio::make_strand(io));
    });
}

BOOST_AUTO_TEST_CASE(a_registration_on_an_erased_strand_outlives_its_context) {
    check_outlives<asio::io_context>("a strand in any_io_executor", [](asio::io_context& io) {
        return asio::any_io_executor(asio::make_strand(io));
    });
    check_outlives<asio::io_context>("a strand of any_io_executor", [](asio::io_context& io) {
        return asio::make_strand(asio::any_io_executor(io.get_executor()));
    });
}

BOOST_AUTO_TEST_CASE(a_registration_on_a_thread_pool_outlives_it) {
    check_outlives<asio::thread_pool>("a thread pool",
                                      [](asio::thread_pool& pool) { return pool.get_executor(); });
    check_outlives<asio::thread_pool>(
        "a thread pool in any_io_executor",
        [](asio::thread_pool& pool) { return asio::any_io_executor(pool.get_executor()); });
    check_outlives<asio::thread_pool>("a strand on a thread pool", [](asio::thread_pool& pool) {
        return asio::any_io_executor(asio::make_strand(pool));
    });
}

BOOST_AUTO_TEST_CASE(a_registration_on_an_executor_of_the_users_outlives_its_context) {
    check_outlives<asio::io_context>(
        "an own executor that holds a strand",
        [](asio::io_context& io) { return test::tracker_executor(1, asio::make_strand(io)); });
    check_outlives<asio::io_context>(
        "an own executor that holds a strand, in any_io_executor", [](asio::io_context& io) {
            return asio::any_io_executor(test::tracker_executor(1, asio::make_strand(io)));
        });
}

BOOST_AUTO_TEST_CASE(no_executor_is_used_or_destroyed_after_its_context) {
    for (history h : histories)
        for (bool erased : {false, true})
            BOOST_TEST_CONTEXT(name_of(h) << (erased ? ", in any_io_executor" : "")) {
                // Whose context is reset tells the executors so: within the context's destructor
                // they may still be used.
                auto l = std::make_shared<life>();
                struct ends_life {
                    std::shared_ptr<life> l;
                    ~ends_life() {
                        if (l)
                            l->ended = true;
                    }
                };
                // A base is destroyed after the rest of the object.
                struct watched_context : ends_life, asio::io_context {
                    std::shared_ptr<life> shared() const { return ends_life::l; }
                };
                auto make = [&](watched_context& io) {
                    static_cast<ends_life&>(io).l = l;
                    return mortal_executor(l, io.get_executor());
                };
                if (erased) {
                    auto make_erased = [&](watched_context& io) {
                        return asio::any_io_executor(make(io));
                    };
                    check_registration<watched_context>(make_erased, h, trigger::level);
                    BOOST_TEST(std::exchange(l->late_uses, 0) == 0);
                    l = std::make_shared<life>();
                    check_stream<watched_context>(make_erased, h);
                } else {
                    check_registration<watched_context>(make, h, trigger::level);
                    BOOST_TEST(std::exchange(l->late_uses, 0) == 0);
                    l = std::make_shared<life>();
                    check_stream<watched_context>(make, h);
                }
                BOOST_TEST(l->ended);
                BOOST_TEST(l->late_uses == 0);
            }
}

BOOST_AUTO_TEST_CASE(an_executor_that_counts_work_does_not_keep_a_registration_from_outliving) {
    test::fd_pair p = test::make_socketpair();
    auto io = std::make_unique<asio::io_context>();
    auto counting = [&] {
        return asio::any_io_executor(
            asio::require(io->get_executor(), asio::execution::outstanding_work.tracked));
    };
    auto r = std::make_unique<moor::registration>(counting(), p.a);
    auto s = std::make_unique<moor::stream_descriptor>(counting());
    io->stop();
    io.reset();
    r.reset();
    s.reset();
}

BOOST_AUTO_TEST_CASE(an_operation_that_begins_after_a_strands_context_ends_with_gone) {
    // The handler belongs to another context, which is there.
    asio::io_context elsewhere;
    test::fd_pair p = test::make_socketpair();
    auto io = std::make_unique<asio::io_context>();
    moor::registration r(asio::any_io_executor(asio::make_strand(*io)), p.a);
    io.reset();
    test::called waited, done;
    r.async_wait_readable(asio::bind_executor(elsewhere, waited.handler()));
    r.async_io(
        interest::readable, [](error_code&) { BOOST_ERROR("called"); },
        asio::bind_executor(elsewhere, done.handler()));
    elsewhere.run();
    BOOST_TEST((waited.ec == gone));
    BOOST_TEST((done.ec == gone));
    r.deregister();
}

BOOST_AUTO_TEST_SUITE_END()
