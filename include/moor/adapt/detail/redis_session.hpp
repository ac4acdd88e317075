//
// moor/adapt/detail/redis_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A connection of hiredis in a loop: what is pending, and what hiredis answers.
//
//   connect_   waits for the connection
//   commands_  wait for a reply each, in the order in which the server replies
//   changes_   wait for the server to confirm that subscriptions began or ended, also in order
//   receives_  wait for a message each; messages_ are those for which nobody waits yet
//
// Invariants
//   1. hiredis' context points to the session by its member `data`, for as long as the session
//      points to the context. A callback that comes when the two are apart does nothing: hiredis
//      calls all callbacks once more when it frees the context, before or after the hook `cleanup`.
//   2. The end of a context, whatever the cause, is noticed in the hook `cleanup`, and there only.
//   3. A command that is cancelled stays in its list, without an operation, until its reply comes.
//   4. hiredis is given each channel in a command of its own, and is never asked to end a
//      subscription that does not exist: hiredis 0.14 counts several channels of one command
//      wrongly, and calls a wrong callback, or ends the program, for a channel that it does not
//      know.
//   5. No handler is invoked within a member: completing an operation queues its handler.
//

#ifndef MOOR_ADAPT_DETAIL_REDIS_SESSION_HPP
#define MOOR_ADAPT_DETAIL_REDIS_SESSION_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/detail/redis_events.hpp>
#include <moor/adapt/detail/redis_guard.hpp>
#include <moor/adapt/hiredis_types.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/basic_resolver.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <list>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <sys/un.h>

namespace moor {
namespace adapt {
namespace detail {

/// Whether two words are the same to the server; the second one is in lower case.
inline bool is_same_word(std::string_view word, std::string_view lower) noexcept {
    if (word.size() != lower.size())
        return false;
    for (std::size_t i = 0; i != word.size(); ++i)
        if ((word[i] >= 'A' && word[i] <= 'Z' ? word[i] - 'A' + 'a' : word[i]) != lower[i])
            return false;
    return true;
}

/// What hiredis takes a command for.
enum class redis_command_kind {
    plain,
    subscribe,
    unsubscribe,
    unsupported, // there are more replies than commands, or fewer
    invalid
};

inline redis_command_kind kind_of(const std::vector<std::string>& words) noexcept {
    using kind = redis_command_kind;
    if (words.empty())
        return kind::invalid;
    std::string_view name = words[0];
    if (name.find('\r') != name.npos) // hiredis takes only the part before as the name
        return kind::invalid;
    for (const char* other : {"ssubscribe", "sunsubscribe"})
        if (is_same_word(name, other))
            return kind::unsupported;
    if (is_same_word(name, "client") && words.size() > 1 && is_same_word(words[1], "reply"))
        return kind::unsupported;
    if (!name.empty() && (name[0] == 'p' || name[0] == 'P')) // as hiredis does
        name.remove_prefix(1);
    for (const char* other : {"monitor", "sync"})
        if (is_same_word(name, other))
            return kind::unsupported;
    if (is_same_word(name, "subscribe"))
        return words.size() > 1 ? kind::subscribe : kind::invalid;
    return is_same_word(name, "unsubscribe") ? kind::unsubscribe : kind::plain;
}

/// Looks up the addresses of a host. Owned by its pending operation.
template <class Executor, class Session>
class redis_lookup : public std::enable_shared_from_this<redis_lookup<Executor, Session>> {
    using resolver = boost::asio::ip::basic_resolver<boost::asio::ip::tcp, Executor>;

public:
    redis_lookup(const Executor& ex, Session* target) : resolver_(ex), target_(target) {}

    void start(const std::string& host) {
        resolver_.async_resolve(host, std::string(), typename resolver::flags(),
                                [self = this->shared_from_this()](
                                    error_code ec, const typename resolver::results_type& found) {
                                    self->end(ec, found);
                                });
    }

    void cancel() {
        target_ = nullptr;
        resolver_.cancel();
    }

private:
    void end(const error_code& ec, const typename resolver::results_type& found) {
        if (!target_)
            return;
        std::deque<std::string> addresses;
        for (const auto& entry : found)
            addresses.push_back(entry.endpoint().address().to_string());
        target_->try_addresses(std::move(addresses), ec);
    }

    resolver resolver_;
    Session* target_;
};

template <class Executor>
class redis_session {
    using ec_operation = operation<void(error_code)>;
    using reply_operation = operation<void(error_code, redis_reply)>;
    using events = redis_events<Executor>;
    using lookup = redis_lookup<Executor, redis_session>;
    using kind = redis_command_kind;
    template <class T>
    using list_of = std::list<T, boost::asio::recycling_allocator<T>>;

    /// The beginning or the end of subscriptions.
    struct change {
        reply_operation done;
        std::size_t missing; // confirmations
    };
    struct message {
        error_code ec;
        redis_reply value;
    };

public:
    /// With more messages for which nobody waits, nothing is read.
    static constexpr std::size_t most_messages = 1000;

    explicit redis_session(const Executor& ex) : executor_(ex) {}
    redis_session(const redis_session&) = delete;
    redis_session& operator=(const redis_session&) = delete;
    ~redis_session() { close(); }

    const Executor& executor() const noexcept { return executor_.get_executor(); }
    redisAsyncContext* native_handle() const noexcept { return context_; }
    bool is_open() const noexcept { return is_open_; }
    const std::string& text_of_error() const noexcept { return text_; }

    void close() { end(); }

    // ---- connecting -----------------------------------------------------------------------------

    template <class Handler>
    void connect(Handler&& handler, const std::string& host, std::uint16_t port) {
        const redis_handle old = begin_connect(std::forward<Handler>(handler));
        port_ = port;
        error_code ec;
        if (has_null(host))
            return complete(connect_, boost::asio::error::invalid_argument);
        boost::asio::ip::make_address(host, ec);
        if (!ec)
            return try_addresses({host}, ec);
        const auto l = std::make_shared<lookup>(executor(), this);
        lookup_ = l;
        l->start(host);
    }

    template <class Handler>
    void connect_unix(Handler&& handler, const std::string& path) {
        const redis_handle old = begin_connect(std::forward<Handler>(handler));
        error_code ec = boost::asio::error::invalid_argument;
        // hiredis cuts a path that is longer, and 0.14 puts no null character behind it.
        const bool is_path = path.size() < sizeof(sockaddr_un::sun_path) - 1 && !has_null(path);
        if (!is_path || !open(redisAsyncConnectUnix(path.c_str()), ec))
            complete(connect_, ec);
    }

    template <class Handler>
    void connect_context(Handler&& handler, redis_handle c) {
        const redis_handle old = begin_connect(std::forward<Handler>(handler));
        errno = 0; // of which nothing is known any more
        error_code ec;
        if (!open(c.release(), ec))
            return complete(connect_, ec);
        if ((context_->c.flags & REDIS_CONNECTED) != 0)
            note_connected();
    }

    /// Tries the addresses that are left. `ec` is the error of the last attempt.
    void try_addresses(std::deque<std::string> addresses, error_code ec) {
        addresses_ = std::move(addresses);
        while (!addresses_.empty()) {
            const std::string address = std::move(addresses_.front());
            addresses_.pop_front();
            if (open(redisAsyncConnect(address.c_str(), port_), ec))
                return;
        }
        complete(connect_, ec);
    }

    // ---- commands and messages ------------------------------------------------------------------

    template <class Handler>
    void command(Handler&& handler, const redis_command& command) {
        reply_operation op = reply_operation::start(std::forward<Handler>(handler), executor());
        const std::vector<std::string>& words = command.words();
        const kind k = kind_of(words);
        if (k == kind::invalid)
            return op.complete(boost::asio::error::invalid_argument, redis_reply());
        if (k == kind::unsupported)
            return op.complete(redis_error::unsupported_command, redis_reply());
        if (!is_open_)
            return op.complete(boost::asio::error::not_connected, redis_reply());
        if (k == kind::subscribe || k == kind::unsubscribe)
            return change_subscriptions(std::move(op), words, k == kind::subscribe);
        // hiredis would take an error for the end of the connection, and 0.14 loses other replies.
        if ((context_->c.flags & REDIS_SUBSCRIBED) != 0)
            return op.complete(redis_error::subscribed, redis_reply());
        if (const error_code ec = send(words, &redis_session::on_reply))
            return op.complete(ec, redis_reply());
        commands_.push_back(std::move(op));
        drop_on_cancel(commands_.back());
        settle();
    }

    template <class Handler>
    void receive(Handler&& handler) {
        reply_operation op = reply_operation::start(std::forward<Handler>(handler), executor());
        if (!messages_.empty()) {
            message m = std::move(messages_.front());
            messages_.pop_front();
            settle();
            return op.complete(m.ec, std::move(m.value));
        }
        if (!is_open_)
            return op.complete(boost::asio::error::not_connected, redis_reply());
        const auto r = receives_.insert(receives_.end(), std::move(op));
        r->on_cancel([this, r](boost::asio::cancellation_type_t) {
            reply_operation done = std::move(*r);
            receives_.erase(r);
            done.complete(boost::asio::error::operation_aborted, redis_reply());
        });
    }

private:
    // ---- the context ----------------------------------------------------------------------------

    static redis_session* of(const redisAsyncContext* c) noexcept {
        return static_cast<redis_session*>(c->data);
    }

    /// Ends everything but the context, which the caller frees as the last step: hiredis then calls
    /// callbacks of the program, which may connect again, or destroy the session.
    redis_handle end() {
        if (const std::shared_ptr<lookup> l = lookup_.lock())
            l->cancel();
        redis_handle c(leave());
        addresses_.clear();
        messages_.clear();
        complete_all(boost::asio::error::operation_aborted);
        return c;
    }

    template <class Handler>
    [[nodiscard]] redis_handle begin_connect(Handler&& handler) {
        redis_handle old = end();
        text_.clear();
        connect_ = ec_operation::start(std::forward<Handler>(handler), executor());
        connect_.on_cancel([this](boost::asio::cancellation_type_t) { close(); });
        return old;
    }

    /// Takes over a context that connects. False: the attempt has failed already.
    bool open(redisAsyncContext* c, error_code& ec) {
        if (!c) {
            ec = redis_error::out_of_memory;
            return false;
        }
        ec = error_in(*c);
        if (ec)
            text_ = c->c.errstr;
        else
            events::attach(executor(), c, ec);
        if (!ec && redisAsyncSetConnectCallback(c, &redis_session::on_connect) != REDIS_OK)
            ec = boost::asio::error::invalid_argument; // it has a callback already
        if (ec) {
            redisAsyncFree(c);
            return false;
        }
        events::of(c)->keep_running(false); // the pending operations do
        c->ev.cleanup = &redis_session::on_cleanup;
        redis_guard<redis_session>::install(*c);
#if HIREDIS_MAJOR >= 1
        redisAsyncSetPushCallback(c, &redis_session::on_push);
        c->c.flags &= ~REDIS_NO_AUTO_FREE;
#endif
#ifdef REDIS_NO_AUTO_FREE_REPLIES
        c->c.flags &= ~REDIS_NO_AUTO_FREE_REPLIES;
#endif
        c->data = this;
        context_ = c;
        return true;
    }

    /// The context is another's from now on.
    redisAsyncContext* leave() noexcept {
        redisAsyncContext* const c = std::exchange(context_, nullptr);
        if (c)
            c->data = nullptr;
        is_open_ = false;
        failure_ = error_code();
        channels_.clear();
        patterns_.clear();
        return c;
    }

    /// The error of a context. hiredis says only in words which error of the system it was; errno
    /// has it, if nothing has come in between.
    static error_code error_in(const redisAsyncContext& c) {
        const error_code system(errno, boost::system::system_category());
        if (c.c.err != REDIS_ERR_IO)
            return error_code(c.c.err, redis_category());
        const bool is_known =
            system && std::string_view(c.c.errstr).find(system.message()) != std::string_view::npos;
        return is_known ? system : redis_error::io_error;
    }

    /// Where hiredis tells of a failure first.
    void note_failure(const redisAsyncContext& c) {
        if (failure_ || c.c.err == 0)
            return;
        failure_ = error_in(c);
        text_ = c.c.errstr;
    }

    void note_connected() {
        is_open_ = true;
        addresses_.clear();
        complete(connect_, error_code());
    }

    /// Without an error, the program has called redisAsyncDisconnect or redisAsyncFree itself.
    void lose(error_code ec) {
        const bool was_open = is_open_;
        leave();
        if (!ec)
            ec = boost::asio::error::operation_aborted;
        if (was_open)
            complete_all(ec);
        else
            try_addresses(std::move(addresses_), ec);
    }

    friend redis_guard<redis_session>;

    // ---- what hiredis calls ---------------------------------------------------------------------
    // C calls these, so that an exception would end in std::terminate.

    static void on_connect(const redisAsyncContext* c, int status) noexcept {
        redis_session* const s = of(c);
        if (s && status == REDIS_OK)
            s->note_connected();
        else if (s)
            s->note_failure(*c);
    }

    /// Comes before hiredis' own error.
    static void on_unexpected(redisAsyncContext* c) noexcept {
        redis_session* const s = of(c);
        if (!s)
            return;
        s->failure_ = redis_error::protocol_error;
        s->text_ = "a reply without a command";
    }

    static void on_cleanup(void* p) noexcept {
        redisAsyncContext* const c = static_cast<events*>(p)->context();
        redis_session* const s = of(c);
        if (s)
            s->note_failure(*c);
        events::cleanup(p);
        if (s)
            s->lose(s->failure_);
    }

    static void on_reply(redisAsyncContext* c, void* reply, void*) noexcept {
        redis_session* const s = of(c);
        if (s && !reply)
            return s->note_failure(*c);
        if (!s || s->commands_.empty())
            return;
        reply_operation op = std::move(s->commands_.front());
        s->commands_.pop_front();
        s->settle();
        finish(std::move(op), reply);
    }

    static void on_subscription(redisAsyncContext* c, void* reply, void*) noexcept {
        redis_session* const s = of(c);
        if (s && !reply)
            return s->note_failure(*c);
        if (!s)
            return;
        const auto* const r = static_cast<const redisReply*>(reply);
        if (r->elements == 0 || !r->element[0]->str)
            return;
        const std::string_view what(r->element[0]->str, r->element[0]->len);
        if (what == "message" || what == "pmessage")
            return s->take_message(reply);
        if (s->changes_.empty() || --s->changes_.front().missing != 0)
            return;
        change done = std::move(s->changes_.front());
        s->changes_.pop_front();
        s->settle();
        finish(std::move(done.done), reply);
    }

#if HIREDIS_MAJOR >= 1
    static void on_push(redisAsyncContext* c, void* reply) noexcept {
        if (redis_session* const s = of(c))
            s->take_message(reply);
    }
#endif

    // ---- commands and messages ------------------------------------------------------------------

    error_code send(const std::vector<std::string>& words, redisCallbackFn* callback) {
        std::vector<const char*> values;
        std::vector<std::size_t> lengths;
        for (const std::string& w : words) {
            values.push_back(w.data());
            lengths.push_back(w.size());
        }
        if (redisAsyncCommandArgv(context_, callback, nullptr, static_cast<int>(words.size()),
                                  values.data(), lengths.data()) == REDIS_OK)
            return error_code();
        if (context_->c.err != 0)
            return error_code(context_->c.err, redis_category());
        return boost::asio::error::not_connected; // the program has called redisAsyncDisconnect
    }

    void change_subscriptions(reply_operation op, const std::vector<std::string>& words,
                              bool begins) {
        std::set<std::string>& names =
            words[0][0] == 'p' || words[0][0] == 'P' ? patterns_ : channels_;
        std::vector<std::string> targets(words.begin() + 1, words.end());
        if (!begins && targets.empty())
            targets.assign(names.begin(), names.end());
        std::size_t count = 0;
        for (std::string& name : targets) {
            if (!begins && names.erase(name) == 0)
                continue;
            if (begins)
                names.insert(name);
            if (const error_code ec = send({words[0], name}, &redis_session::on_subscription))
                return op.complete(ec, redis_reply());
            ++count;
        }
        if (count == 0)
            return op.complete(error_code(), redis_reply());
        changes_.push_back({std::move(op), count});
        drop_on_cancel(changes_.back().done);
        settle();
    }

    void take_message(const void* reply) {
        if (!receives_.empty()) {
            reply_operation op = std::move(receives_.front());
            receives_.pop_front();
            return finish(std::move(op), reply);
        }
        messages_.emplace_back();
        messages_.back().ec = copy(reply, messages_.back().value);
        settle();
    }

    /// Reads no more than somebody takes, but what commands wait for.
    void settle() {
        if (context_ && context_->ev.data)
            events::of(context_)->pause(messages_.size() >= most_messages && commands_.empty() &&
                                        changes_.empty());
    }

    // ---- completing -----------------------------------------------------------------------------

    static error_code copy(const void* reply, redis_reply& to) {
        BOOST_TRY { to = redis_reply(*static_cast<const redisReply*>(reply)); }
        BOOST_CATCH(const std::bad_alloc&) { return boost::asio::error::no_memory; }
        BOOST_CATCH_END
        return error_code();
    }

    static void finish(reply_operation op, const void* reply) {
        if (!op) // it was cancelled
            return;
        redis_reply value;
        error_code ec = copy(reply, value);
        if (value.is_error())
            ec = redis_error::reply_error;
        op.complete(ec, std::move(value));
    }

    /// The operation stays where it is, empty.
    static void drop_on_cancel(reply_operation& op) {
        op.on_cancel([&op](boost::asio::cancellation_type_t) {
            reply_operation done = std::move(op);
            done.complete(boost::asio::error::operation_aborted, redis_reply());
        });
    }

    static void complete(ec_operation& op, error_code ec) {
        ec_operation done = std::move(op);
        done.complete(ec);
    }

    void complete_all(error_code ec) {
        complete(connect_, ec);
        for (list_of<reply_operation>* each : {&commands_, &receives_})
            while (!each->empty()) {
                reply_operation done = std::move(each->front());
                each->pop_front();
                done.complete(ec, redis_reply());
            }
        while (!changes_.empty()) {
            change c = std::move(changes_.front());
            changes_.pop_front();
            c.done.complete(ec, redis_reply());
        }
    }

    redisAsyncContext* context_ = nullptr;
    bool is_open_ = false;
    std::uint16_t port_ = 0;
    error_code failure_; // of the context
    std::string text_;

    std::weak_ptr<lookup> lookup_;
    std::deque<std::string> addresses_; // which have not been tried
    ec_operation connect_;
    list_of<reply_operation> commands_, receives_;
    list_of<change> changes_;
    std::deque<message> messages_;
    std::set<std::string> channels_, patterns_; // by what was sent
    basic_watcher<Executor> executor_;          // which a watcher lets go before its context ends
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_REDIS_SESSION_HPP
