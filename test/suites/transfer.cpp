// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Many bytes through each kind of handle, in pieces of random sizes: every one arrives, once, and
// in its place. MOOR_TEST_BYTES says how many bytes a case moves, MOOR_TEST_SEED which ones.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/programs.hpp"
#include "support/pty.hpp"
#include "support/random.hpp"
#include "support/streams.hpp"
#include "support/tracker.hpp"
#include "support/transferred.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(transfer)

namespace asio = boost::asio;
using namespace test;

// ---- how much, and which bytes -----------------------------------------------------------------

std::uint64_t bytes_per_case() {
#if defined(MOOR_TEST_SANITIZED_NEW)
    constexpr std::uint64_t otherwise = 1 << 20;
#else
    constexpr std::uint64_t otherwise = 8 << 20;
#endif
    return test::from_environment("MOOR_TEST_BYTES", otherwise);
}

std::uint64_t seed() { return test::from_environment("MOOR_TEST_SEED", 20'251'125); }

/// The bytes of a stream, from the first one on. The sender and the receiver have one each: a byte
/// that is lost, doubled or moved does not fit the receiver's.
class generator {
public:
    explicit generator(std::uint64_t s) : words_(s) {}

    void fill(char* p, std::size_t n) {
        while (n != 0) {
            if (used_ == word_.size()) {
                const std::uint64_t word = words_.next();
                std::memcpy(word_.data(), &word, word_.size());
                used_ = 0;
            }
            const std::size_t some = std::min(n, word_.size() - used_);
            std::memcpy(p, word_.data() + used_, some);
            p += some;
            n -= some;
            used_ += some;
        }
    }

private:
    test::random_words words_;
    std::array<char, sizeof(std::uint64_t)> word_{};
    std::size_t used_ = word_.size();
};

// ---- one direction -----------------------------------------------------------------------------

constexpr unsigned log2_most = 16;
constexpr std::size_t most = std::size_t{1} << log2_most;

/// Up to three pieces, the first the last in memory; empty ones are allowed, and happen.
std::array<asio::mutable_buffer, 3> split(char* memory, std::size_t n, test::random_words& random) {
    std::size_t first = random.next() % (n + 1);
    std::size_t second = random.next() % (n - first + 1);
    return {asio::buffer(memory + 2 * most, first), asio::buffer(memory + most, second),
            asio::buffer(memory, n - first - second)};
}

template <class Stream>
class sender {
public:
    sender(Stream& stream, std::uint64_t bytes, std::uint64_t s)
        : stream_(stream), left_(bytes), bytes_(s), random_(s + 1), memory_(3 * most) {}

    /// `over` is called when all is written, `failed` when a write fails.
    void start(std::function<void()> over, std::function<void()> failed) {
        over_ = std::move(over);
        failed_ = std::move(failed);
        next();
    }
    error_code failure() const { return failure_; }
    std::uint64_t left() const { return left_ + pending_.size(); }

private:
    void next() {
        if (pending_.empty()) {
            if (left_ == 0)
                return over_();
            pending_.resize(
                static_cast<std::size_t>(std::min<std::uint64_t>(left_, random_.size(log2_most))));
            left_ -= pending_.size();
            bytes_.fill(&pending_[0], pending_.size());
        }
        if (random_.next() % 2 == 0)
            return write(asio::const_buffer(pending_.data(), pending_.size()));
        auto pieces = split(memory_.data(), pending_.size(), random_);
        asio::buffer_copy(pieces, asio::buffer(pending_));
        write(pieces);
    }
    template <class Buffers>
    void write(const Buffers& buffers) {
        stream_.async_write_some(buffers, [this](error_code ec, std::size_t n) {
            failure_ = ec;
            pending_.erase(0, n);
            ec ? failed_() : next();
        });
    }

    Stream& stream_;
    std::uint64_t left_;
    generator bytes_;
    test::random_words random_;
    std::string pending_; ///< of a write, and what one leaves for the next
    std::vector<char> memory_;
    error_code failure_;
    std::function<void()> over_, failed_;
};

template <class Stream>
class receiver {
public:
    receiver(Stream& stream, std::uint64_t bytes, std::uint64_t s)
        : stream_(stream), expected_(bytes), bytes_(s), random_(s + 2), memory_(3 * most) {}

    /// `over` is called when all is there, or not correct, or can't come. It goes on reading: there
    /// must be no more.
    void start(std::function<void()> over) {
        over_ = std::move(over);
        next();
    }
    bool correct() const { return correct_; }
    bool complete() const { return correct_ && received_ == expected_; }
    std::uint64_t received() const { return received_; }
    error_code end() const { return end_; }

private:
    void next() {
        std::size_t n = random_.size(log2_most);
        if (random_.next() % 2 == 0)
            read(std::array<asio::mutable_buffer, 1>{asio::buffer(memory_.data(), n)});
        else
            read(split(memory_.data(), n, random_));
    }
    template <class Buffers>
    void read(const Buffers& buffers) {
        stream_.async_read_some(buffers, [this, buffers](error_code ec, std::size_t n) {
            std::string got(n, '\0'), right(n, '\0');
            asio::buffer_copy(asio::buffer(got), buffers);
            bytes_.fill(&right[0], n);
            received_ += n;
            correct_ = correct_ && got == right && received_ <= expected_;
            end_ = ec;
            if (!correct_ || (ec && received_ != expected_) || (n != 0 && received_ == expected_))
                over_();
            if (!ec && correct_)
                next();
        });
    }

    Stream& stream_;
    std::uint64_t expected_;
    generator bytes_;
    test::random_words random_;
    std::vector<char> memory_;
    std::uint64_t received_ = 0;
    bool correct_ = true;
    error_code end_;
    std::function<void()> over_;
};

template <class Stream>
struct direction {
    direction(Stream& from, Stream& to, std::uint64_t bytes, std::uint64_t s)
        : out(from, bytes, s), in(to, bytes, s) {}

    sender<Stream> out;
    receiver<Stream> in;
};

// ---- a case ------------------------------------------------------------------------------------

enum class kind { pipe, socketpair, pty };

template <class Stream>
void move_bytes(kind k, unsigned threads) {
    const std::uint64_t total = bytes_per_case();
    const std::uint64_t s = seed() + 1000 * static_cast<unsigned>(k) + threads;
    BOOST_TEST_CONTEXT("MOOR_TEST_SEED=" << seed() << " MOOR_TEST_BYTES=" << total) {
        asio::io_context io(static_cast<int>(threads));
        test::fd_pair p = k == kind::pipe         ? test::make_pipe()
                          : k == kind::socketpair ? test::make_socketpair()
                                                  : test::make_raw_pty();
        // One thread at a time at each object; nothing more is asked for.
        auto strand_a = asio::make_strand(io), strand_b = asio::make_strand(io);
        Stream a(strand_a, p.a.release());
        Stream b(strand_b, p.b.release());
        const std::uint64_t each = k == kind::pipe ? total : total / 2;
        std::vector<std::unique_ptr<direction<Stream>>> directions;
        std::atomic<int> left{k == kind::pipe ? 1 : 2};
        auto start = [&](Stream& from, Stream& to, std::uint64_t its_seed) {
            directions.push_back(std::make_unique<direction<Stream>>(from, to, each, its_seed));
            direction<Stream>& d = *directions.back();
            // What ends the reader's side: a pipe is closed, a socket shut down, a terminal closed
            // when both directions are over.
            asio::post(from.get_executor(), [&, k] {
                d.out.start(
                    [&, k] {
                        if (k == kind::pipe)
                            from.close();
                        else if (k == kind::socketpair)
                            ::shutdown(from.native_handle(), SHUT_WR);
                    },
                    [&] { io.stop(); });
            });
            asio::post(to.get_executor(), [&, k] {
                d.in.start([&, k] {
                    if (!d.in.complete())
                        io.stop();
                    else if (--left == 0 && k == kind::pty)
                        asio::post(strand_b, [&] { b.close(); });
                });
            });
        };
        start(b, a, s);
        if (k != kind::pipe)
            start(a, b, s + 500);

        const test::watchdog dog(io, test::cap + std::chrono::seconds(total >> 20));
        std::thread other([&] {
            if (threads == 2)
                io.run();
        });
        io.run();
        other.join();
        BOOST_CHECK_MESSAGE(!dog.has_bitten(), "the cap was reached");
        for (auto& d : directions) {
            BOOST_TEST(!d->out.failure(), d->out.failure().message());
            BOOST_TEST(d->out.left() == 0u);
            BOOST_TEST(d->in.correct());
            BOOST_TEST(d->in.received() == each);
            if (k == kind::pty)
                BOOST_TEST((d->in.end() == test::terminal_gone || d->in.end() == test::aborted),
                           d->in.end().message());
            else
                BOOST_TEST((d->in.end() == test::eof), d->in.end().message());
        }
    }
    BOOST_TEST_MESSAGE("seed " << seed() << ": " << total << " bytes on " << threads << " threads");
}

BOOST_AUTO_TEST_CASE_TEMPLATE(through_a_pipe, Stream, streams) {
    for (unsigned threads : {1u, 2u})
        move_bytes<Stream>(kind::pipe, threads);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(both_ways_through_a_socketpair, Stream, streams) {
    for (unsigned threads : {1u, 2u})
        move_bytes<Stream>(kind::socketpair, threads);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(both_ways_through_a_terminal, Stream, terminal_streams) {
    for (unsigned threads : {1u, 2u})
        move_bytes<Stream>(kind::pty, threads);
}

BOOST_AUTO_TEST_CASE(through_files_that_are_borrowed_in_any_mode) {
    const struct {
        const char* name;
        test::fd_pair (*make)();
    } files[] = {{"terminal", test::make_raw_pty},
                 {"master", [] { return test::swapped(test::make_raw_pty()); }},
                 {"named pipe", test::make_fifo},
                 {"pipe", test::make_pipe}};
    for (auto& file : files)
        for (bool blocks : {true, false})
            BOOST_TEST_CONTEXT(file.name << (blocks ? ", blocking" : ", non-blocking")) {
                asio::io_context io;
                test::fd_pair p = file.make();
                if (blocks) {
                    test::set_blocking(p.a);
                    test::set_blocking(p.b);
                }
                moor::stream_descriptor in(io, moor::borrow(p.a.get()));
                moor::stream_descriptor out(io, moor::borrow(p.b.get()));
                direction<moor::stream_descriptor> d(out, in, 200'000, seed());
                // The reader may have everything before the writer is told of its last write.
                bool sent = false, received = false, failed = false;
                d.out.start([&] { sent = true; }, [&] { failed = true; });
                d.in.start([&] { received = true; });
                test::run_until(io, [&] { return failed || (sent && received); });
                BOOST_TEST(!d.out.failure(), d.out.failure().message());
                BOOST_TEST(d.out.left() == 0u);
                BOOST_TEST(d.in.complete());
                in.close();
                out.close();
                test::run_ready(io);
            }
}

// ---- in which order ----------------------------------------------------------------------------

#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
// Asio's own loses a write there.
using orderly_streams = std::tuple<moor::stream_descriptor>;
#else
using orderly_streams = streams;
#endif

BOOST_AUTO_TEST_CASE_TEMPLATE(a_read_does_not_overtake_one_that_waits, Stream, streams) {
    test::context_fixture context;
    test::fd_pair p = test::make_pipe();
    Stream in(context.io, p.a.release());
    std::array<char, 3> bytes{};
    std::size_t over = 0;
    auto read = [&](std::size_t i, auto then) {
        in.async_read_some(asio::buffer(&bytes[i], 1), [&, i, then](error_code ec, std::size_t n) {
            BOOST_TEST(!ec);
            BOOST_TEST(n == 1u);
            BOOST_TEST(over == i);
            ++over;
            then();
        });
    };
    auto nothing = [] {};
    read(0, [&] { read(2, nothing); }); // and the next one is already waiting then
    test::run_ready(context.io);
    test::put(p.b, "ab");
    read(1, nothing); // the event is not here yet
    test::run_ready(context.io);
    test::put(p.b, "c");
    test::run_all(context.io);
    BOOST_TEST(over == 3u);
    BOOST_TEST(std::string(bytes.data(), bytes.size()) == "abc");
}

BOOST_AUTO_TEST_CASE_TEMPLATE(reads_that_wait_get_what_comes_one_after_the_other, Stream, streams) {
    test::context_fixture context;
    for (auto make : {+[] { return test::make_pipe(); }, +[] { return test::make_socketpair(); }}) {
        test::fd_pair p = make();
        Stream in(context.io, p.a.release());
        std::array<std::array<char, 16>, 7> buffers{};
        std::string order;
        std::function<void(std::size_t, std::size_t)> read = [&](std::size_t i, std::size_t size) {
            auto handler = [&, i](error_code ec, std::size_t n) {
                BOOST_TEST(!ec);
                BOOST_TEST(n == 1u);
                order += std::to_string(i) + buffers[i][0];
                if (i == 0)
                    read(3, 16);
            };
            in.async_read_some(asio::buffer(buffers[i], size), handler);
        };
        // Each takes all that there is, which leaves nothing for the others.
        for (std::size_t i : {0u, 1u, 2u})
            read(i, 16);
        test::run_ready(context.io);
        for (const char* c : {"a", "b", "c", "d"}) {
            test::put(p.b, c);
            test::run_ready(context.io);
        }
        test::run_all(context.io);
        // Each takes a part of what comes at once.
        for (std::size_t i : {4u, 5u, 6u})
            read(i, 1);
        test::run_ready(context.io);
        test::put(p.b, "efg");
        test::run_all(context.io);
        BOOST_TEST(order == "0a1b2c3d4e5f6g");
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(reads_keep_their_order_with_two_threads, Stream, streams) {
    constexpr std::size_t total = 20'000;
    asio::io_context io(2);
    auto strand = asio::make_strand(io); // so that it is known which one was started first
    test::fd_pair p = test::make_pipe();
    Stream in(strand, p.a.release());
    std::vector<char> bytes(total);
    std::size_t started = 0;
    std::size_t over = 0;
    std::function<void()> read = [&] {
        if (started == total)
            return;
        in.async_read_some(asio::buffer(&bytes[started++], 1), [&](error_code ec, std::size_t n) {
            if (ec || n != 1)
                return io.stop();
            ++over;
            read();
        });
    };
    asio::post(strand, [&] {
        for (int i = 0; i != 3; ++i) // as many are pending at a time
            read();
    });
    const test::watchdog dog(io);
    std::thread other([&] { io.run(); });
    std::thread writer([&] {
        for (std::size_t i = 0; i != total; ++i) {
            char c = static_cast<char>(i % 251);
            while (::write(p.b, &c, 1) != 1 && !io.stopped())
                std::this_thread::yield(); // the pipe is full
        }
    });
    io.run();
    other.join();
    io.stop();
    writer.join();
    BOOST_TEST(over == total);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i != total; ++i)
        wrong += bytes[i] != static_cast<char>(i % 251);
    BOOST_TEST(wrong == 0u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_write_does_not_overtake_one_that_waits, Stream, orderly_streams) {
    test::context_fixture context;
    test::fd_pair p = test::make_pipe();
    test::fill(p.b);
    Stream out(context.io, p.b.release());
    const std::string first = "first", second = "second";
    std::string order;
    out.async_write_some(asio::buffer(first), [&](error_code, std::size_t) { order += '1'; });
    test::run_ready(context.io);
    BOOST_TEST(order.empty());
    test::drain(p.a);
    out.async_write_some(asio::buffer(second), [&](error_code, std::size_t) { order += '2'; });
    test::run_all(context.io);
    BOOST_TEST(order == "12");
    BOOST_TEST(test::get(p.a) == first + second);
}

// ---- how soon ----------------------------------------------------------------------------------

/// Whether a transfer is made as soon as it is started. What it leaves behind is taken away.
bool reads_at_once(asio::io_context& io, moor::stream_descriptor& in, int out) {
    char c = 0;
    bool over = false;
    test::put(out, "x");
    in.async_read_some(asio::buffer(&c, 1), [&](error_code ec, std::size_t n) {
        BOOST_TEST(!ec);
        BOOST_TEST(n == 1u);
        over = true;
    });
    bool taken = c == 'x';
    BOOST_TEST(!over); // never within the call
    test::run_until(io, [&] { return over; });
    BOOST_TEST(c == 'x');
    return taken;
}

BOOST_AUTO_TEST_CASE(a_transfer_that_need_not_wait_is_made_in_the_call) {
    test::context_fixture context;
    test::fd_pair p = test::make_pipe();
    moor::stream_descriptor in(context.io, p.a.release());
    BOOST_TEST(reads_at_once(context.io, in, p.b));
    BOOST_TEST(reads_at_once(context.io, in, p.b));

    moor::stream_descriptor out(context.io, p.b.release());
    const std::string text = "text";
    for (int i = 0; i != 3; ++i) {
        test::called done;
        out.async_write_some(asio::buffer(text), done.handler());
        BOOST_TEST(test::get(in.native_handle()) == text);
        BOOST_TEST(!done);
        test::run_all(context.io);
        BOOST_TEST(!done.ec);
        BOOST_TEST(done.times == 1);
    }
}

BOOST_AUTO_TEST_CASE(a_transfer_that_is_over_is_in_nobodys_way) {
    // However it ended: if its turn were not over, the next one would wait for an event.
    test::context_fixture context;
    test::fd_pair p = test::make_pipe();
    moor::stream_descriptor in(context.io, p.a.release());
    char c = 0;

    for (bool by_slot : {false, true}) {
        asio::cancellation_signal signal;
        test::called cancelled;
        in.async_read_some(asio::buffer(&c, 1),
                           asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
        test::run_ready(context.io);
        by_slot ? signal.emit(asio::cancellation_type::total) : in.cancel();
        test::run_all(context.io);
        BOOST_TEST((cancelled.ec == test::aborted));
        BOOST_TEST(reads_at_once(context.io, in, p.b));
    }

    test::called waited;
    in.async_read_some(asio::buffer(&c, 1), waited.handler());
    test::run_ready(context.io);
    test::put(p.b, "y");
    test::run_all(context.io);
    BOOST_TEST((waited.times == 1 && c == 'y'));
    BOOST_TEST(reads_at_once(context.io, in, p.b));

    test::allocation_counts none;
    none.left = 0;
    auto read_without_memory = [&] {
        in.async_read_some(
            asio::buffer(&c, 1),
            asio::bind_allocator(test::counting_allocator<>(none),
                                 [](error_code, std::size_t) { BOOST_ERROR("called"); }));
    };
    BOOST_CHECK_THROW(read_without_memory(), std::bad_alloc);
    BOOST_TEST(reads_at_once(context.io, in, p.b));
    test::put(p.b, "z"); // and nothing is lost
    BOOST_CHECK_THROW(read_without_memory(), std::bad_alloc);
    BOOST_TEST(test::get(in.native_handle()) == "z");
    BOOST_TEST(reads_at_once(context.io, in, p.b));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(what_is_over_at_once_waits_for_no_other_context, Stream, streams) {
    asio::io_context elsewhere;
    std::size_t over = 0;
    {
        asio::io_context io;
        test::fd_pair p = test::make_pipe();
        asio::strand<asio::io_context::executor_type> strand(io.get_executor());
        Stream in(strand, p.a.release());
        Stream nothing(strand);
        char c;
        auto handler = asio::bind_executor(elsewhere, [&](error_code, std::size_t) { ++over; });
        in.async_read_some(asio::buffer(&c, 0), handler);
        nothing.async_read_some(asio::buffer(&c, 1), handler);
        nothing.async_write_some(asio::buffer(&c, 1), handler);
        test::run_all(io); // which ends: nothing is left for it to do
    }
    elsewhere.run(); // although the strand is gone
    BOOST_TEST(over == 3u);
}

BOOST_AUTO_TEST_CASE(a_transfer_that_can_not_wait_again_fails,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    if (!test::on_select())
        return; // elsewhere nothing is allocated for it
    test::context_fixture context;
    test::fd_pair p = test::make_pipe(), q = test::make_pipe();
    moor::stream_descriptor in(context.io, p.a.release());
    moor::stream_descriptor other(context.io, q.a.release());
    char c = 0;
    test::called failed, cancelled, next;
    std::optional<test::out_of_memory> none;
    in.async_read_some(asio::buffer(&c, 1), failed.handler());
    test::put(p.b, "x");
    asio::post(context.io, [&] {
        // Its event is queued. Somebody takes the byte, and another handle the memory.
        BOOST_TEST(test::get(in.native_handle()) == "x");
        other.async_read_some(asio::buffer(&c, 1), cancelled.handler());
        none.emplace();
    });
    for (int i = 0; i != 20 && !failed; ++i)
        context.io.poll_one();
    none.reset();
    BOOST_TEST(failed.times == 1);
    BOOST_TEST((failed.ec == boost::asio::error::no_memory));
    other.cancel();
    in.async_read_some(asio::buffer(&c, 1), next.handler());
    test::put(p.b, "y");
    test::run_all(context.io);
    BOOST_TEST((next.times == 1 && c == 'y'));
}

// ---- whose number it is by now ------------------------------------------------------------------

/// A read and a write that are on their way when the descriptor is closed, and its number goes to
/// another file.
struct closed_on_its_way {
    asio::io_context io;
    test::fd_pair readable = test::make_socketpair();
    test::fd_pair writable = test::make_socketpair();
    test::fd_pair new_readable, new_writable;
    moor::stream_descriptor in{io, moor::borrow(readable.a.get())};
    moor::stream_descriptor out{io, moor::borrow(writable.a.get())};
    std::array<char, 16> bytes{};
    const std::string text = "old";
    test::transferred read, written;

    closed_on_its_way() { test::fill(writable.a); }

    template <class In, class Out>
    void start(const In& input, const Out& output) {
        in.async_read_some(input, read.handler());
        out.async_write_some(output, written.handler());
        test::run_ready(io);
        BOOST_TEST(!read);
        BOOST_TEST(!written);
        test::put(readable.b, "old");
        test::drain(writable.b);
    }
    void start() { start(asio::buffer(bytes), asio::buffer(text)); }

    void close_in() {
        in.close();
        new_readable = test::reuse_number(readable.a, test::make_socketpair());
        test::put(new_readable.b, "new");
    }
    void close_out() {
        out.close();
        new_writable = test::reuse_number(writable.a, test::make_socketpair());
    }

    /// Each transfer was made on the old file, or not at all.
    void check() {
        test::run_all(io);
        BOOST_TEST(read.times == 1);
        BOOST_TEST(written.times == 1);
        if (new_readable.a.get() >= 0)
            BOOST_TEST(test::get(new_readable.a) == "new");
        if (new_writable.a.get() >= 0)
            BOOST_TEST(test::get(new_writable.b) == "");
        if (read.ec)
            BOOST_TEST((read.ec == test::aborted), read.ec.message());
        else
            BOOST_TEST(std::string(bytes.data(), read.bytes) == "old");
        if (written.ec)
            BOOST_TEST((written.ec == test::aborted), written.ec.message());
    }
};

BOOST_AUTO_TEST_CASE(a_transfer_on_its_way_does_not_touch_a_number_that_is_anothers) {
    for (int steps = 0; steps != 10; ++steps)
        BOOST_TEST_CONTEXT("after " << steps << " steps") {
            closed_on_its_way c;
            c.start();
            for (int i = 0; i != steps; ++i)
                c.io.poll_one();
            c.close_in();
            c.close_out();
            c.check();
        }
}

/// A buffer sequence of one buffer that calls a function when it is iterated.
template <class Buffer>
class calling_buffers {
public:
    using value_type = Buffer;
    using const_iterator = const Buffer*;

    calling_buffers(Buffer b, const std::function<void()>& f) : buffer_(b), function_(&f) {}

    const_iterator begin() const {
        if (*function_)
            (*function_)();
        return &buffer_;
    }
    const_iterator end() const { return &buffer_ + 1; }

private:
    Buffer buffer_;
    const std::function<void()>* function_;
};

BOOST_AUTO_TEST_CASE(a_transfer_whose_buffers_close_the_descriptor_does_not_touch_the_number) {
    // The latest moment at which the user's code can end the registration.
    closed_on_its_way c;
    std::function<void()> close_in, close_out;
    c.start(calling_buffers<asio::mutable_buffer>(asio::buffer(c.bytes), close_in),
            calling_buffers<asio::const_buffer>(asio::buffer(c.text), close_out));
    close_in = [&] {
        close_in = nullptr;
        c.close_in();
    };
    close_out = [&] {
        close_out = nullptr;
        c.close_out();
    };
    c.check();
}

BOOST_AUTO_TEST_CASE(a_buffer_sequence_may_use_the_descriptor) {
    // No lock is held then, also if there is a second thread, so that locks are taken.
    std::promise<void> over;
    std::thread other([&] { over.get_future().wait(); });
    test::context_fixture context;
    test::fd_pair p = test::make_socketpair();
    moor::stream_descriptor d(context.io, p.a.release());
    std::array<char, 8> room;
    int calls = 0;
    const std::function<void()> call = [&] {
        ++calls;
        (void)d.registration().query();
        (void)moor::use_registration_service(context.io).metrics();
    };
    const calling_buffers<asio::mutable_buffer> buffers(asio::buffer(room), call);
    for (bool is_there : {true, false}) {
        test::transferred read;
        if (is_there)
            test::put(p.b, "abc");
        d.async_read_some(buffers, read.handler());
        if (!is_there) {
            test::run_ready(context.io);
            test::put(p.b, "abc");
        }
        test::run_until(context.io, [&] { return bool(read); });
        BOOST_TEST(read.bytes == 3u);
    }
    BOOST_TEST(calls != 0);
    over.set_value();
    other.join();
}

BOOST_AUTO_TEST_CASE(a_transfer_on_another_thread_does_not_touch_a_number_that_is_anothers) {
    for (int round = 0; round != 100; ++round) {
        closed_on_its_way c;
        c.start();
        std::atomic<bool> runs{false};
        std::thread other([&] {
            runs = true;
            c.io.run_for(test::cap);
        });
        while (!runs) {}
        for (int i = 0; i != round * 10; ++i)
            std::atomic_signal_fence(std::memory_order_seq_cst);
        c.close_in();
        c.close_out();
        other.join();
        if (c.io.stopped())
            c.io.restart();
        c.check();
    }
}

// ---- the checks themselves ---------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_lost_a_doubled_and_a_moved_byte_are_seen) {
    for (int damage = 0; damage != 4; ++damage) {
        asio::io_context io;
        test::fd_pair p = test::make_pipe();
        moor::stream_descriptor in(io, p.a.release());
        std::string bytes(5000, '\0');
        generator(seed()).fill(&bytes[0], bytes.size());
        std::size_t at = 1234;
        while (bytes[at] == bytes[at + 1])
            ++at;
        if (damage == 1)
            bytes.erase(at, 1);
        else if (damage == 2)
            bytes.insert(at, 1, bytes[at]);
        else if (damage == 3)
            std::swap(bytes[at], bytes[at + 1]);
        test::put(p.b, bytes);
        p.b.close();
        receiver<moor::stream_descriptor> r(in, 5000, seed());
        r.start([] {});
        test::run_all(io);
        BOOST_TEST(r.correct() == (damage == 0), "damage " << damage);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(writes_to_a_file_keep_the_order_of_each_thread, Stream,
                              orderly_streams) {
    constexpr std::uint32_t each = 20'000;
    struct record {
        std::uint32_t thread;
        std::uint32_t number;
    };
    char name[] = "/tmp/moor-file-XXXXXX";
    test::unique_fd file(::mkostemp(name, O_APPEND | O_CLOEXEC));
    BOOST_REQUIRE(file.get() != -1);
    test::unique_fd again(::open(name, O_RDONLY | O_CLOEXEC));
    ::unlink(name);
    std::array<std::vector<record>, 2> records;
    std::atomic<bool> failed{false};
    {
        asio::thread_pool io(2);
        Stream f(io.get_executor(), test::duplicate(file));
        auto work = [&](std::uint32_t thread) {
            records[thread].resize(each);
            for (std::uint32_t i = 0; i != each; ++i) {
                record& r = records[thread][i];
                r = {thread, i};
                f.async_write_some(asio::buffer(&r, sizeof(r)), [&](error_code ec, std::size_t n) {
                    if (ec || n != sizeof(record))
                        failed = true;
                });
            }
        };
        std::thread a(work, 0u);
        std::thread b(work, 1u);
        a.join();
        b.join();
        io.join();
    }
    BOOST_TEST(!failed);
    std::vector<record> written(2 * each);
    const std::size_t size = written.size() * sizeof(record);
    BOOST_REQUIRE(::read(again, written.data(), size) == static_cast<::ssize_t>(size));
    std::array<std::uint32_t, 2> next{};
    bool in_order = true;
    for (const record& r : written)
        in_order = in_order && r.thread < 2 && r.number == next[r.thread]++;
    BOOST_TEST(in_order);
}

// ---- whose handler belongs elsewhere ------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(a_read_does_not_wait_for_the_handler_of_another, Stream, streams) {
    test::context_fixture context;
    asio::io_context elsewhere; // does not run yet
    test::fd_pair p = test::make_pipe();
    Stream in(context.io, p.a.release());
    std::array<char, 2> bytes{};
    int first = 0;
    int second = 0;
    in.async_read_some(asio::buffer(&bytes[0], 1),
                       asio::bind_executor(elsewhere, [&](error_code ec, std::size_t) {
                           BOOST_TEST(!ec);
                           ++first;
                       }));
    in.async_read_some(asio::buffer(&bytes[1], 1), [&](error_code ec, std::size_t) {
        BOOST_TEST(!ec);
        ++second;
    });
    test::put(p.b, "12");
    test::run_until(context.io, [&] { return second == 1; });
    BOOST_TEST(first == 0);
    elsewhere.run();
    BOOST_TEST(first == 1);
    BOOST_TEST(std::string(bytes.data(), 2) == "12");
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_context_may_go_before_a_handler_that_belongs_elsewhere, Stream,
                              streams) {
    asio::io_context elsewhere;
    std::array<char, 4> bytes{};
    int handlers = 0;
    auto handler = asio::bind_executor(elsewhere, [&](error_code, std::size_t) { ++handlers; });
    test::fd_pair p = test::make_pipe();
    {
        asio::io_context io;
        Stream in(asio::any_io_executor(asio::make_strand(io)), p.a.release());
        in.async_read_some(asio::buffer(bytes), handler);
        in.async_read_some(asio::buffer(bytes), handler);
        test::put(p.b, "x");
        test::run_ready(io);
    }
    elsewhere.run();
    BOOST_TEST(handlers >= 1);
}

// ---- out of memory ------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_read_that_runs_out_of_memory_does_not_keep_its_turn,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    for (long n = 0; n != 4; ++n) {
        test::context_fixture context;
        test::fd_pair p = test::make_pipe();
        test::fd_pair q = test::make_pipe();
        moor::stream_descriptor in(context.io, p.a.release());
        moor::stream_descriptor other(context.io, q.a.release());
        std::array<char, 4> bytes{};
        auto ignore = [](error_code, std::size_t) {};
        in.async_read_some(asio::buffer(bytes), ignore);
        test::put(p.b, "x");
        test::run_ready(context.io);
        // What Asio has kept of the memory goes to another handle.
        other.async_read_some(asio::buffer(bytes), ignore);
        try {
            test::out_of_memory none(n);
            in.async_read_some(asio::buffer(bytes), ignore);
        } catch (const std::bad_alloc&) {}
        in.cancel();
        test::run_ready(context.io);
        BOOST_TEST_CONTEXT("with memory for " << n) {
            test::called again;
            in.async_read_some(asio::buffer(bytes), again.handler());
            test::put(p.b, "y");
            test::run_until(context.io, [&] { return bool(again); });
            BOOST_TEST(!again.ec);
        }
        other.cancel();
        test::run_all(context.io);
    }
}

BOOST_AUTO_TEST_SUITE_END()
