//
// moor/adapt/detail/kafka_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A client of librdkafka in a loop. The threads of librdkafka wake the loop with an eventfd.
//
// Invariants
//   1. librdkafka writes to the eventfd when an empty queue receives an entry. The session reads
//      the eventfd first, and then takes the entries out of the queue. So if a queue is not empty
//      and an operation is pending, the eventfd is readable, or a call of serve() is posted.
//   2. The session closes the eventfd after librdkafka has stopped writing there.
//   3. While no operation is pending, the eventfd is not watched.
//   4. The callbacks of the program that librdkafka does not call on its own threads run in serve()
//      only, which no initiating function calls. (The destructor of a consumer that is being closed
//      may call the callback for throttling.) A callback may use and destroy the consumer or the
//      producer, so serve() checks the state again after each call of librdkafka.
//

#ifndef MOOR_ADAPT_DETAIL_KAFKA_SESSION_HPP
#define MOOR_ADAPT_DETAIL_KAFKA_SESSION_HPP

#include <moor/adapt/rdkafka_types.hpp>
#include <moor/detail/throw_if.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>

#include <librdkafka/rdkafka.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace moor {
namespace adapt {
namespace detail {

struct kafka_queue_deleter {
    void operator()(rd_kafka_queue_t* q) const noexcept {
        rd_kafka_queue_io_event_enable(q, -1, nullptr, 0); // under the lock of those who write
        rd_kafka_queue_destroy(q);
    }
};
using kafka_queue = std::unique_ptr<rd_kafka_queue_t, kafka_queue_deleter>;

class kafka_event {
public:
    kafka_event() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
        if (fd_ < 0)
            moor::detail::throw_if(error_code(errno, boost::system::system_category()),
                                   "moor::adapt::kafka: eventfd", fd_);
    }
    kafka_event(const kafka_event&) = delete;
    kafka_event& operator=(const kafka_event&) = delete;
    ~kafka_event() { ::close(fd_); }

    int native_handle() const noexcept { return fd_; }

    void clear() noexcept {
        std::uint64_t n;
        while (::read(fd_, &n, sizeof(n)) < 0 && errno == EINTR) {}
    }

private:
    const int fd_;
};

/// Uses any_io_executor, so that an object can be moved to one with another type of executor.
class kafka_session : public std::enable_shared_from_this<kafka_session> {
public:
    using executor_type = boost::asio::any_io_executor;

    kafka_session(const kafka_session&) = delete;
    kafka_session& operator=(const kafka_session&) = delete;
    virtual ~kafka_session() = default;

    const executor_type& executor() const noexcept { return watcher_.get_executor(); }
    rd_kafka_t* native_handle() const noexcept { return client_.get(); }

    /// Completes all operations.
    virtual void end_all(error_code ec) = 0;

    /// The object was destroyed; a callback of librdkafka's may be running.
    void close() {
        is_open_ = false;
        watcher_.stop();
        end_all(boost::asio::error::operation_aborted);
    }

    /// Makes a client.
    static kafka_client make(rd_kafka_type_t type, kafka_conf conf) {
        char text[512] = "";
        rd_kafka_t* client = rd_kafka_new(type, conf.get(), text, sizeof(text));
        if (!client)
            boost::throw_exception(
                boost::system::system_error(kafka_error_code(rd_kafka_last_error()), text));
        conf.release(); // which librdkafka has taken
        // Only async_close leaves a group, since leaving a group may block for long.
        return kafka_client(client, [](rd_kafka_t* c) {
            rd_kafka_destroy_flags(c, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        });
    }

protected:
    kafka_session(const executor_type& ex, kafka_client client)
        : client_(std::move(client)),
          watcher_(ex, event_.native_handle(), [this](error_code ec, readiness) {
              const auto keep = shared_from_this();
              if (ec)
                  return end_all(ec);
              event_.clear();
              serve();
          }) {}

    /// Takes over a reference to a queue, and lets the queue wake the loop from now on.
    kafka_queue attach(rd_kafka_queue_t* q) {
        const std::uint64_t one = 1;
        rd_kafka_queue_io_event_enable(q, event_.native_handle(), &one, sizeof(one));
        return kafka_queue(q);
    }

    void serve_soon() {
        if (is_posted_)
            return;
        boost::asio::post(executor(), [weak = weak_from_this()] {
            if (const auto self = weak.lock()) {
                self->is_posted_ = false;
                if (self->is_open_)
                    self->serve();
            }
        });
        is_posted_ = true;
    }

    /// Takes the entries out of the queues, and completes operations.
    virtual void serve() = 0;

    /// Starts or stops to wait for events. A callback may have left entries in the queue
    /// (`rd_kafka_yield`).
    void watch(bool is_wanted, const kafka_queue& served) {
        if (!is_open_)
            return;
        watcher_.set_interest(is_wanted ? interest::readable : interest::none);
        if (is_wanted && rd_kafka_queue_length(served.get()) != 0)
            serve_soon();
    }

    bool is_open() const noexcept { return is_open_; }
    const kafka_client& client() const noexcept { return client_; }
    void destroy_client() noexcept { client_.reset(); }

private:
    kafka_client client_;
    kafka_event event_;
    moor::watcher watcher_;
    bool is_posted_ = false;
    bool is_open_ = true;
};

/// How a consumer or a producer holds its session.
struct kafka_session_closer {
    std::shared_ptr<kafka_session> session{};

    void operator()(kafka_session*) noexcept {
        session->close();
        session.reset();
    }
};
template <class Session>
using kafka_session_ptr = std::unique_ptr<Session, kafka_session_closer>;

template <class Session, class... Args>
kafka_session_ptr<Session> make_kafka_session(Args&&... args) {
    auto session = std::make_shared<Session>(std::forward<Args>(args)...);
    Session* const target = session.get();
    return kafka_session_ptr<Session>(target, kafka_session_closer{std::move(session)});
}

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_KAFKA_SESSION_HPP
