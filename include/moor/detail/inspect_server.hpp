//
// moor/detail/inspect_server.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What an inspector owns: a thread with an io_context, in which a timer takes samples of the
// registrations, and connections are served. All of it but the constructor, start() and the
// destructor runs on that thread.
//

#ifndef MOOR_DETAIL_INSPECT_SERVER_HPP
#define MOOR_DETAIL_INSPECT_SERVER_HPP

#include <moor/detail/inspect_page.hpp>
#include <moor/detail/json_writer.hpp>
#include <moor/detail/poll_op.hpp>
#include <moor/detail/service_core.hpp>
#include <moor/error.hpp>
#include <moor/inspector_options.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/error.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace moor {

namespace detail {

namespace beast = boost::beast;

/// An empty item that is posted to a loop, to see that the loop turns. Posting keeps a reference.
class loop_probe : private scheduler_item {
public:
    loop_probe() noexcept : scheduler_item(&loop_probe::do_complete) {}

    bool is_queued() const noexcept { return is_queued_.load(std::memory_order_acquire); }

    static void post(const std::shared_ptr<loop_probe>& p, scheduler_port& port) {
        p->self_ = p;
        p->is_queued_.store(true, std::memory_order_relaxed);
        port.post_new(p.get());
    }

private:
    /// (Called where the scheduler is destroyed, too.)
    static void do_complete(void*, scheduler_item* item, const error_code&, std::size_t) {
        const std::shared_ptr<loop_probe> p = std::move(static_cast<loop_probe*>(item)->self_);
        p->is_queued_.store(false, std::memory_order_release);
    }

    std::shared_ptr<loop_probe> self_; // while it is queued
    std::atomic<bool> is_queued_{false};
};

/// For how long the loop of a context has not turned.
class loop_watch final : private shutdown_listener {
    using clock = std::chrono::steady_clock;

public:
    explicit loop_watch(service_core& core)
        : shutdown_listener(&loop_watch::context_shuts_down), core_(core),
          is_over_(!core.port.is_locked()) {
        core_.add_listener(*this);
    }
    ~loop_watch() { core_.remove_listener(*this); }

    /// Asks the loop for its next turn, unless it has not made the one that it was asked for.
    void ask() {
        if (probe_->is_queued())
            return;
        std::lock_guard<std::mutex> lock(mutex_);
        if (is_over_)
            return;
        asked_ = clock::now();
        loop_probe::post(probe_, core_.port);
    }

    /// Nothing if the context is going, or has a scheduler without locks, which can't be asked.
    std::optional<clock::duration> stands_still_for() {
        std::lock_guard<std::mutex> lock(mutex_);
        if (is_over_)
            return std::nullopt;
        return probe_->is_queued() ? clock::now() - asked_ : clock::duration(0);
    }

private:
    static void context_shuts_down(shutdown_listener& l) noexcept {
        auto& self = static_cast<loop_watch&>(l);
        std::lock_guard<std::mutex> lock(self.mutex_);
        self.is_over_ = true;
    }

    service_core& core_;
    std::shared_ptr<loop_probe> probe_ = std::make_shared<loop_probe>();
    std::mutex mutex_;
    clock::time_point asked_{};
    bool is_over_;
};

/// The latest sample of a context's registrations, and the events a second of each.
class inspect_sample {
    using clock = std::chrono::steady_clock;

public:
    inspect_sample(service_core_ptr core, const inspector_options& options)
        : core_(std::move(core)), loop_(*core_), options_(options) {}

    void take() {
        loop_.ask();
        registrations_ = snapshot_of(*core_);
        const clock::time_point now = clock::now();
        std::map<int, rate> rates;
        for (const registration_info& i : registrations_) {
            const std::uint64_t events = i.events_delivered + i.events_unhandled;
            auto before = rates_.find(i.native_handle);
            rate r{events, now, 0};
            if (before != rates_.end() && events >= before->second.events) {
                const std::chrono::duration<double> passed = now - before->second.since;
                if (passed < std::chrono::seconds(1))
                    r = before->second;
                else
                    r.per_second =
                        static_cast<double>(events - before->second.events) / passed.count();
            }
            rates[i.native_handle] = r;
        }
        rates_.swap(rates);
    }

    std::string json() {
        json_writer out;
        out.begin_object();
        out.member("pid", static_cast<std::int64_t>(::getpid()));
        out.member("program", program_);
        out.member("reactor", std::string(reactor_port::name));
        out.member("stuck_after_ms", std::int64_t{options_.stuck_after.count()});
        out.key("loop_ms");
        if (auto still = loop_.stands_still_for())
            out.value(std::int64_t{*still / std::chrono::milliseconds(1)});
        else
            out.null();
        out.key("metrics");
        write(out, metrics_of(*core_));
        out.key("registrations");
        out.begin_array();
        for (const registration_info& i : registrations_)
            write(out, i);
        out.end_array();
        out.end_object();
        return out.take();
    }

private:
    struct rate {
        std::uint64_t events;
        clock::time_point since;
        double per_second;
    };

    static std::string program_name() {
        char found[4096];
        const ::ssize_t n = ::readlink("/proc/self/exe", found, sizeof(found));
        return n > 0 ? std::string(found, static_cast<std::size_t>(n)) : std::string();
    }

    static void write(json_writer& out, const registration_metrics& m) {
        out.begin_object();
        out.member("registered", m.registered);
        out.member("deregistered", m.deregistered);
        out.member("waits_started", m.waits_started);
        out.member("waits_completed_at_once", m.waits_completed_at_once);
        out.member("waits_pended", m.waits_pended);
        out.member("waits_cancelled", m.waits_cancelled);
        out.member("events_delivered", m.events_delivered);
        out.member("events_unhandled", m.events_unhandled);
        out.member("readiness_checks", m.readiness_checks);
        out.end_object();
    }

    void write(json_writer& out, const registration_info& i) const {
        out.begin_object();
        out.member("handle", std::int64_t{i.native_handle});
        out.member("path", i.path);
        out.member("name", i.name);
        out.member("trigger", std::string(i.mode == trigger::edge ? "edge" : "level"));
        out.member("waiters", std::uint64_t{i.waiters});
        out.member("waiting_for", i.waiters != 0 ? text_of(i.waited_for) : std::string());
        out.member("pending_ms", std::int64_t{i.pending_for.count()});
        out.member("stuck", i.pending_for > options_.stuck_after);
        out.member("cached", text_of(i.cached));
        out.member("in_reactor", std::string(i.always_ready ? "always ready"
                                             : i.attached   ? "yes"
                                                            : "no"));
        out.key("ticks");
        out.begin_array();
        for (std::uint32_t tick : {i.read_tick, i.write_tick, i.priority_tick, i.error_tick})
            out.value(std::uint64_t{tick});
        out.end_array();
        auto r = rates_.find(i.native_handle);
        out.member("events_per_second", r != rates_.end() ? r->second.per_second : 0.0);
        out.member("waits_started", i.waits_started);
        out.member("events_delivered", i.events_delivered);
        out.member("events_unhandled", i.events_unhandled);
        out.member("readiness_checks", i.readiness_checks);
        out.end_object();
    }

    service_core_ptr core_;
    loop_watch loop_;
    inspector_options options_;
    std::string program_ = program_name();
    std::vector<registration_info> registrations_;
    std::map<int, rate> rates_;
};

/// One connection of a browser: reads a request, answers it, and reads the next one.
class inspect_connection : public std::enable_shared_from_this<inspect_connection> {
    using request_parser = beast::http::request_parser<beast::http::empty_body>;
    using response_type = beast::http::response<beast::http::string_body>;

public:
    /// `count`: of the connections. `checks_host`: a name that a page of somebody else has
    /// resolved to this address is refused.
    inspect_connection(boost::asio::ip::tcp::socket socket, inspect_sample& sample,
                       std::size_t& count, bool checks_host)
        : stream_(std::move(socket)), sample_(sample), count_(count), checks_host_(checks_host) {
        ++count_;
    }
    ~inspect_connection() { --count_; }

    void read() {
        parser_.emplace();
        parser_->header_limit(8192);
        parser_->body_limit(0);
        stream_.expires_after(std::chrono::seconds(10));
        beast::http::async_read(stream_, buffer_, *parser_,
                                [self = shared_from_this()](error_code ec, std::size_t) {
                                    if (!ec)
                                        self->answer();
                                });
    }

private:
    void answer() {
        namespace http = beast::http;
        const http::request<http::empty_body>& request = parser_->get();
        response_ = response_type(http::status::ok, request.version());
        response_.set(http::field::server, "Moor");
        response_.set(http::field::cache_control, "no-store");
        response_.set("X-Content-Type-Options", "nosniff");
        response_.set("Content-Security-Policy", inspect_page_policy);
        const bool has_host = !checks_host_ || is_loopback_name(request[http::field::host]);
        const bool is_read =
            request.method() == http::verb::get || request.method() == http::verb::head;
        if (!has_host)
            refuse(http::status::forbidden, "This host name is not a loopback address.\n");
        else if (!is_read)
            refuse(http::status::method_not_allowed, "The inspector only shows.\n");
        else if (request.target() == "/")
            set("text/html; charset=utf-8", inspect_page);
        else if (request.target() == "/registrations.json")
            set("application/json", sample_.json());
        else
            refuse(http::status::not_found, "There are / and /registrations.json.\n");
        response_.keep_alive(request.keep_alive());
        response_.prepare_payload();
        if (request.method() == http::verb::head)
            response_.body().clear();
        stream_.expires_after(std::chrono::seconds(10));
        http::async_write(stream_, response_,
                          [self = shared_from_this()](error_code ec, std::size_t) {
                              if (!ec && self->response_.keep_alive())
                                  self->read();
                          });
    }

    void refuse(beast::http::status status, const char* why) {
        response_.result(status);
        set("text/plain; charset=utf-8", why);
    }

    void set(const char* type, std::string body) {
        response_.set(beast::http::field::content_type, type);
        response_.body() = std::move(body);
    }

    /// Whether the Host field names this machine itself, with any port.
    static bool is_loopback_name(beast::string_view host) {
        const std::size_t colon = host.rfind(':');
        if (colon != beast::string_view::npos && (host.empty() || host.back() != ']'))
            host = host.substr(0, colon);
        if (host.size() > 2 && host.front() == '[')
            host = host.substr(1, host.size() - 2);
        if (host == "localhost")
            return true;
        error_code ec;
        const auto address =
            boost::asio::ip::make_address(std::string(host.data(), host.size()), ec);
        return !ec && address.is_loopback();
    }

    beast::tcp_stream stream_;
    beast::flat_buffer buffer_;
    std::optional<request_parser> parser_;
    response_type response_;
    inspect_sample& sample_;
    std::size_t& count_;
    bool checks_host_;
};

/// The thread of an inspector, its timer and its listening socket.
class inspect_server {
public:
    inspect_server(boost::asio::execution_context& context, const inspector_options& options)
        : options_(options), sample_(core_access::core_of(context), options) {}
    ~inspect_server() {
        io_.stop();
        if (thread_.joinable())
            thread_.join();
    }
    inspect_server(const inspect_server&) = delete;
    inspect_server& operator=(const inspect_server&) = delete;

    void start(error_code& ec) {
        listen(ec);
        if (ec)
            return;
        ::sigset_t all, before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before); // signals are the program's
        BOOST_TRY {
            sample();
            accept();
            thread_ = std::thread([this] { run(); });
        }
        BOOST_CATCH(const std::system_error& e) { ec = e.code(); }
        BOOST_CATCH_END
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    bool is_of_this_process() const noexcept { return process_ == ::getpid(); }

    boost::asio::ip::tcp::endpoint local_endpoint() const { return local_; }

    std::string url() const {
        std::string host = local_.address().to_string();
        if (local_.address().is_v6())
            host = '[' + host + ']';
        return "http://" + host + ':' + std::to_string(local_.port()) + '/';
    }

private:
    static constexpr std::size_t most_connections = 32;

    void listen(error_code& ec) {
        ec = error_code();
        if (!options_.allow_remote && !options_.endpoint.address().is_loopback())
            ec = boost::system::errc::make_error_code(boost::system::errc::operation_not_permitted);
        else if (options_.interval.count() <= 0 || options_.stuck_after.count() <= 0)
            ec = boost::asio::error::invalid_argument;
        if (!ec)
            acceptor_.open(options_.endpoint.protocol(), ec);
        if (!ec)
            acceptor_.set_option(boost::asio::socket_base::reuse_address(true), ec);
        if (!ec)
            acceptor_.bind(options_.endpoint, ec);
        if (!ec)
            acceptor_.listen(boost::asio::socket_base::max_listen_connections, ec);
        if (!ec)
            local_ = acceptor_.local_endpoint(ec);
    }

    void run() {
        for (;;) {
            BOOST_TRY {
                io_.run();
                return;
            }
            BOOST_CATCH(...) {} // without memory, the next sample or connection
            BOOST_CATCH_END
        }
    }

    void sample() {
        timer_.expires_after(options_.interval);
        timer_.async_wait([this](error_code ec) {
            if (!ec)
                sample();
        });
        sample_.take();
    }

    void accept() {
        acceptor_.async_accept([this](error_code ec, boost::asio::ip::tcp::socket socket) {
            accept();
            if (!ec && connections_ < most_connections)
                std::make_shared<inspect_connection>(std::move(socket), sample_, connections_,
                                                     !options_.allow_remote)
                    ->read();
        });
    }

    ::pid_t process_ = ::getpid();
    inspector_options options_;
    inspect_sample sample_;
    std::size_t connections_ = 0;
    boost::asio::ip::tcp::endpoint local_;
    boost::asio::io_context io_{1};
    boost::asio::steady_timer timer_{io_};
    boost::asio::ip::tcp::acceptor acceptor_{io_};
    std::thread thread_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_INSPECT_SERVER_HPP
