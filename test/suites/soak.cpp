// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// As many handles as the descriptor limit allows, on four threads, for a long time: messages go to
// and fro, while operations are cancelled, registrations move, handles are duplicated, and closed
// and made again. Signals interrupt the threads.
//
// MOOR_TEST_SECONDS goes on for so long; MOOR_TEST_HANDLES is another number of handles.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/random.hpp"
#include "support/sanitizers.hpp"

#include <moor.hpp>

#include <boost/asio/strand.hpp>
#include <boost/asio/version.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::error_code;
using test::unique_fd;
using clock_type = std::chrono::steady_clock;

/// The open descriptors, with what they are.
std::map<std::string, std::string> open_descriptors() {
    std::map<std::string, std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code is_gone; // the directory itself
        found[entry.path()] = std::filesystem::read_symlink(entry.path(), is_gone);
    }
    return found;
}

/// Resident memory, in KiB.
std::size_t resident() {
    std::ifstream statm("/proc/self/statm");
    std::size_t size = 0, pages = 0;
    statm >> size >> pages;
    return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
}

/// How many handles may be open at a time.
std::size_t handle_limit() {
    ::rlimit limit{};
    BOOST_REQUIRE_EQUAL(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    BOOST_REQUIRE_EQUAL(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    std::size_t most = std::min<std::size_t>(limit.rlim_cur, 100'000);
    if (test::on_select())
        most = std::min<std::size_t>(most, FD_SETSIZE);
    return static_cast<std::size_t>(test::from_environment("MOOR_TEST_HANDLES", most));
}

/// What all sessions share.
struct totals {
    std::atomic<bool> is_over{false};
    std::atomic<std::uint64_t> sent{0}, answered{0}, bytes_sent{0}, bytes_received{0};
    std::atomic<std::uint64_t> begun{0}, ended{0}, cancelled{0}; // extra waits
    std::atomic<std::uint64_t> renewed{0}, duplicated{0}, moved{0};
    std::mutex mutex;
    std::string error; // the first

    void fail(const std::string& text) {
        std::lock_guard<std::mutex> lock(mutex);
        if (error.empty())
            error = text;
        is_over = true;
    }
};

/// One end of a connection: a handle and its registration.
struct end_point {
    unique_fd fd;
    std::unique_ptr<moor::registration> reg;

    void open(const asio::any_io_executor& ex, unique_fd handle, trigger t) {
        fd = std::move(handle);
        reg = std::make_unique<moor::registration>(ex, fd.get(), t);
    }
    void close() {
        reg.reset(); // in this order
        fd.close();
    }
};

/// A client and a server that answers with what it got. Both run on one strand: so one may cancel
/// what the other waits for, and move its own registration.
class session : public std::enable_shared_from_this<session> {
public:
    session(asio::io_context& io, totals& t, unsigned number)
        : strand_(asio::make_strand(io)), totals_(t), random_(number),
          trigger_(number % 2 ? trigger::edge : trigger::level) {}

    /// Opens the handles, of which `start` makes use.
    void open() {
        test::fd_pair p = test::make_socketpair();
        client_.open(strand_, std::move(p.a), trigger_);
        server_.open(strand_, std::move(p.b), trigger_);
    }

    void start() {
        asio::post(strand_, [self = shared_from_this()] {
            self->serve();
            self->send();
        });
    }

private:
    bool one_in(unsigned n) { return random_.next() % n == 0; }

    void serve() {
        auto call = [this](error_code& ec) {
            return moor::check_errno(::read(server_.fd, answer_.data(), answer_.size()), ec);
        };
        server_.reg->async_io(interest::readable, call,
                              [self = shared_from_this()](error_code ec, ::ssize_t n) {
                                  self->served(ec, static_cast<std::size_t>(ec ? 0 : n));
                              });
    }

    void served(error_code ec, std::size_t n) {
        if (ec == asio::error::operation_aborted) {
            ++totals_.cancelled;
            return serve(); // what it did not read is there still
        }
        if (ec)
            return totals_.fail("the server's read: " + ec.message());
        if (n == 0) { // the client has closed its end
            server_.close();
            if (!totals_.is_over)
                reopen();
            return;
        }
        if (::write(server_.fd, answer_.data(), n) != static_cast<::ssize_t>(n))
            return totals_.fail("an answer that was cut short");
        serve();
    }

    void reopen() {
        ++totals_.renewed;
        open();
        serve();
        send();
    }

    void send() {
        disturb();
        if (totals_.is_over || one_in(64))
            return client_.close(); // the server will see
        length_ = random_.size(12);
        received_ = 0;
        fill_ = static_cast<char>(random_.next());
        std::fill_n(message_.begin(), length_, fill_);
        if (::write(client_.fd, message_.data(), length_) != static_cast<::ssize_t>(length_))
            return totals_.fail("a message that was cut short");
        ++totals_.sent;
        totals_.bytes_sent += length_;
        receive();
    }

    /// Nothing is pending on the client's registration.
    void disturb() {
        if (one_in(8))
            server_.reg->cancel();
        if (one_in(16)) {
            client_.reg = std::make_unique<moor::registration>(std::move(*client_.reg));
            ++totals_.moved;
        }
        if (one_in(16)) {
            unique_fd old = std::move(client_.fd);
            client_.reg->deregister();
            client_.fd = unique_fd(::fcntl(old, F_DUPFD_CLOEXEC, 0));
            old.close();
            client_.reg->register_handle(client_.fd, trigger_);
            ++totals_.duplicated;
        }
    }

    void receive() {
        if (one_in(16)) { // a wait for what does not come, cancelled by the next one or the end
            ++totals_.begun;
            client_.reg->async_wait(interest::priority,
                                    [self = shared_from_this()](error_code, moor::ready_event) {
                                        ++self->totals_.ended;
                                    });
        }
        auto call = [this](error_code& ec) {
            return moor::check_errno(
                ::read(client_.fd, message_.data() + received_, length_ - received_), ec);
        };
        client_.reg->async_io(interest::readable, call,
                              [self = shared_from_this()](error_code ec, ::ssize_t n) {
                                  self->received(ec, static_cast<std::size_t>(ec ? 0 : n));
                              });
    }

    void received(error_code ec, std::size_t n) {
        if (ec || n == 0)
            return totals_.fail("an answer: " + ec.message());
        received_ += n;
        totals_.bytes_received += n;
        if (received_ != length_)
            return receive();
        if (std::count(message_.begin(), message_.begin() + static_cast<long>(length_), fill_) !=
            static_cast<long>(length_))
            return totals_.fail("an answer to something else");
        ++totals_.answered;
        client_.reg->cancel();
        // Behind the handlers that this has posted, since the registration may move.
        asio::post(strand_, [self = shared_from_this()] { self->send(); });
    }

    asio::strand<asio::io_context::executor_type> strand_;
    totals& totals_;
    test::random_words random_;
    trigger trigger_;
    end_point client_, server_;
    std::array<char, 4096> message_, answer_;
    std::size_t length_ = 0, received_ = 0;
    char fill_ = 0;
};

/// Asio before Boost 1.82 gives the results of cancellations to other requests on io_uring, which
/// are lost then, sooner or later.
boost::test_tools::assertion_result cancels_well(boost::unit_test::test_unit_id) {
    return !test::on_io_uring() || BOOST_ASIO_VERSION >= 102700;
}

} // namespace

BOOST_AUTO_TEST_SUITE(soak)

BOOST_AUTO_TEST_CASE(messages_are_answered_while_handles_come_and_go,
                     *boost::unit_test::precondition(cancels_well)) {
    const auto seconds = std::chrono::seconds(test::from_environment("MOOR_TEST_SECONDS", 2));
    const auto descriptors = open_descriptors();
    const std::size_t limit = handle_limit();
    struct ::sigaction interrupts {
    }, before{};
    interrupts.sa_handler = [](int) {}; // and no SA_RESTART
    ::sigaction(SIGUSR1, &interrupts, &before);
    totals t;
    std::size_t handles = 0, memory = 0, memory_at_the_end = 0;
    {
        asio::io_context io;
        std::vector<std::shared_ptr<session>> sessions;
        // But for epoll, an edge-triggered handle may have a set; and one duplicate exists at a
        // time.
        const std::size_t each = test::on_epoll() ? 2 : 4;
        for (std::size_t open = descriptors.size() + 100; open + each + 1 <= limit; open += each) {
            sessions.push_back(
                std::make_shared<session>(io, t, static_cast<unsigned>(sessions.size())));
            sessions.back()->open();
        }
        handles = sessions.size() * 2;
        for (auto& s : sessions)
            s->start();
        sessions.clear();
        std::vector<std::thread> threads;
        for (int i = 0; i != 4; ++i)
            threads.emplace_back([&io] { io.run(); });
        const auto end = clock_type::now() + seconds;
        std::uint64_t answered = 0;
        auto progress = clock_type::now();
        while (clock_type::now() < end && !t.is_over) {
            for (std::thread& thread : threads)
                ::pthread_kill(thread.native_handle(), SIGUSR1);
            std::this_thread::sleep_for(std::chrono::milliseconds(1)); // the rate of the signals
            if (memory == 0 && t.answered >= handles)                  // each session about twice
                memory = resident();
            if (t.answered != std::exchange(answered, t.answered))
                progress = clock_type::now();
            else if (clock_type::now() - progress > test::cap)
                t.fail("no message was answered for long");
        }
        memory_at_the_end = resident();
        t.is_over = true;
        {
            test::watchdog dog(io, 3 * test::cap);
            for (std::thread& thread : threads)
                thread.join();
            BOOST_TEST(!dog.has_bitten());
        }
        BOOST_TEST(moor::use_registration_service(io).snapshot().empty());
    }
    ::sigaction(SIGUSR1, &before, nullptr);
    BOOST_TEST_MESSAGE(
        handles << " handles, " << t.answered << " messages, " << t.bytes_received << " bytes; "
                << t.cancelled << " operations cancelled, " << t.moved << " registrations moved, "
                << t.duplicated << " handles duplicated, " << t.renewed
                << " connections closed and made again; resident memory " << memory
                << " KiB after warming up, " << memory_at_the_end << " KiB at the end");
    BOOST_TEST(t.error == "");
    BOOST_TEST(t.answered > 0u);
    BOOST_TEST(t.sent == t.answered);
    BOOST_TEST(t.bytes_sent == t.bytes_received);
    BOOST_TEST(t.begun == t.ended);
#if !MOOR_TEST_THREAD_SANITIZER // which keeps pipes to its symbolizer
    for (const auto& [number, what] : open_descriptors())
        BOOST_TEST(descriptors.count(number) == 1u, number << " is left over: " << what);
#endif
#if !MOOR_TEST_ADDRESS_SANITIZER && !MOOR_TEST_THREAD_SANITIZER
    if (memory != 0) // long enough to have warmed up
        BOOST_TEST(memory_at_the_end < memory + memory / 10 + 4096);
#endif
}

BOOST_AUTO_TEST_SUITE_END()
