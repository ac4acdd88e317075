//
// wrapping.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A C library in an io_context, in three steps: sd-bus of libsystemd on a registration, on a
// source, and with initiating functions. doc/wrapping.adoc explains the steps, and shows the parts
// between the markers. (To use sd-bus, there is an adapter: moor/adapt/sd_bus.hpp, and bus.cpp.)
// The program starts a bus of its own:
//
//     g++ -std=c++20 -I../include wrapping.cpp -pthread -lsystemd && ./a.out
//

#include <moor.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <functional>
#include <iostream>
#include <iterator>
#include <list>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

namespace asio = boost::asio;
using asio::use_awaitable;
using namespace std::chrono_literals;

namespace {

// ---- what the library's objects and errors become -----------------------------------------------

/// sd-bus returns a negative errno.
moor::error_code to_error_code(int result) {
    return moor::error_code(result < 0 ? -result : 0, boost::system::system_category());
}

void check(int result, const char* what) {
    if (result < 0)
        throw boost::system::system_error(to_error_code(result), what);
}

struct unref {
    void operator()(sd_bus* b) const { sd_bus_close_unref(b); }
    void operator()(sd_bus_slot* s) const { sd_bus_slot_unref(s); }
    void operator()(sd_bus_message* m) const { sd_bus_message_unref(m); }
};
using bus_ptr = std::unique_ptr<sd_bus, unref>;
using slot_ptr = std::unique_ptr<sd_bus_slot, unref>;
using message_ptr = std::unique_ptr<sd_bus_message, unref>;

/// Begins to connect, without blocking.
bus_ptr open_bus(const std::string& address) {
    sd_bus* b = nullptr;
    check(sd_bus_new(&b), "sd_bus_new");
    bus_ptr owner(b);
    check(sd_bus_set_address(b, address.c_str()), "sd_bus_set_address");
    check(sd_bus_set_bus_client(b, true), "sd_bus_set_bus_client");
    check(sd_bus_start(b), "sd_bus_start");
    return owner;
}

// ---- the first version --------------------------------------------------------------------------

//[first
class first_bus {
public:
    first_bus(asio::io_context& io, const std::string& address)
        : bus_(open_bus(address)), reg_(io, sd_bus_get_fd(bus_.get())) {
        wait();
    }

    sd_bus* native_handle() const { return bus_.get(); }

private:
    void wait() {
        reg_.async_wait_readable([this](moor::error_code ec) {
            if (ec)
                return;
            while (sd_bus_process(bus_.get(), nullptr) > 0) {}
            wait();
        });
    }

    bus_ptr bus_;
    moor::registration reg_;
};
//]

// ---- the version to copy ------------------------------------------------------------------------

class bus {
    using message_operation = moor::operation<void(moor::error_code, message_ptr)>;

    //[call
    /// A pending call.
    struct call {
        bus* self;
        std::list<call>::iterator position;
        message_operation operation;
        slot_ptr slot; // without the slot, the library does not call back
    };
    //]
    using call_position = std::list<call>::iterator;

public:
    //[source
    bus(asio::any_io_executor ex, const std::string& address)
        : bus_(open_bus(address)),
          source_(
              ex, [this] { return prepare(); },
              [this](moor::error_code ec, moor::readiness) { dispatch(ec); }) {
        source_.keeps_running(false); // the pending operations keep run() from returning
    }

    moor::wants prepare() const {
        moor::wants w;
        w.again = has_more_;
        w.fd = sd_bus_get_fd(bus_.get()); // negative if the connection is over
        if (w.fd < 0)
            return w;
        const int events = sd_bus_get_events(bus_.get());
        if (events & POLLIN)
            w.events |= moor::interest::readable;
        if (events & POLLOUT)
            w.events |= moor::interest::writable;
        std::uint64_t usec = UINT64_MAX; // of CLOCK_MONOTONIC, as steady_clock; UINT64_MAX: never
        if (sd_bus_get_timeout(bus_.get(), &usec) >= 0 && usec != UINT64_MAX)
            w.until.emplace(std::chrono::microseconds(usec));
        return w;
    }

    void dispatch(moor::error_code ec) {
        if (!ec || ec == asio::error::timed_out) { // the library looks after its deadlines itself
            const int result = sd_bus_process(bus_.get(), nullptr);
            has_more_ = result > 0; // then once more, after the other handlers of the loop
            ec = to_error_code(result);
        }
        if (ec)
            end(ec);
    }
    //]

    //[operation
    /// Calls a method: `void(error_code, message_ptr)`.
    template <class Token>
    auto async_call(message_ptr request, std::chrono::microseconds limit, Token&& token) {
        return asio::async_initiate<Token, void(moor::error_code, message_ptr)>(
            [this](auto handler, message_ptr m, std::chrono::microseconds usec) {
                calls_.push_back(
                    {this, calls_.end(),
                     message_operation::start(std::move(handler), source_.get_executor()),
                     nullptr});
                const call_position c = std::prev(calls_.end());
                c->position = c;
                c->operation.on_cancel([this, c](asio::cancellation_type) {
                    finish(c, asio::error::operation_aborted, nullptr);
                });
                sd_bus_slot* slot = nullptr;
                const int result = sd_bus_call_async(bus_.get(), &slot, m.get(), on_reply, &*c,
                                                     static_cast<std::uint64_t>(usec.count()));
                c->slot.reset(slot);
                if (result < 0)
                    finish(c, to_error_code(result), nullptr);
                source_.touch(); // the library waits for something else now
            },
            token, std::move(request), limit);
    }

    /// The library has an answer, or gives up: then it makes an error message itself.
    static int on_reply(sd_bus_message* reply, void* data, sd_bus_error*) {
        call* c = static_cast<call*>(data);
        c->self->finish(c->position, to_error_code(-sd_bus_message_get_errno(reply)),
                        message_ptr(sd_bus_message_ref(reply)));
        return 0;
    }

    void finish(call_position c, moor::error_code ec, message_ptr reply) {
        call finished = std::move(*c);
        calls_.erase(c);
        finished.operation.complete(ec, std::move(reply)); // queues the handler
    }
    //]

    /// Subscribes to signals, which async_signal passes on.
    void match(const char* rule) {
        check(sd_bus_add_match_async(bus_.get(), nullptr, rule, on_signal, nullptr, this),
              "sd_bus_add_match_async");
        source_.touch();
    }

    //[signal
    /// Takes the next signal, one at a time: `void(error_code, message_ptr)`.
    template <class Token>
    auto async_signal(Token&& token) {
        return asio::async_initiate<Token, void(moor::error_code, message_ptr)>(
            [this](auto handler) {
                receiver_ = message_operation::start(std::move(handler), source_.get_executor());
                receiver_.on_cancel([this](asio::cancellation_type) {
                    receiver_.complete(asio::error::operation_aborted, nullptr);
                });
                deliver();
            },
            token);
    }

    static int on_signal(sd_bus_message* signal, void* data, sd_bus_error*) {
        bus* self = static_cast<bus*>(data);
        self->signals_.emplace_back(sd_bus_message_ref(signal));
        self->deliver();
        return 0;
    }

    void deliver() {
        if (!receiver_)
            return;
        if (!signals_.empty()) {
            message_ptr signal = std::move(signals_.front());
            signals_.pop_front();
            receiver_.complete(moor::error_code(), std::move(signal));
        } else if (!sd_bus_is_open(bus_.get())) {
            receiver_.complete(asio::error::not_connected, nullptr);
        }
    }
    //]

    //[end
    ~bus() { end(asio::error::operation_aborted); }

    void end(moor::error_code ec) {
        source_.stop();           // first, the watch,
        sd_bus_close(bus_.get()); // then the library, which closes the descriptor,
        while (!calls_.empty())   // and then the operations
            finish(calls_.begin(), ec, nullptr);
        receiver_.complete(ec, nullptr);
    }
    //]

    sd_bus* native_handle() const { return bus_.get(); }

    bus(const bus&) = delete;
    bus& operator=(const bus&) = delete;

private:
    bus_ptr bus_;
    bool has_more_ = false;
    std::list<call> calls_;
    std::deque<message_ptr> signals_;
    message_operation receiver_;
    moor::source source_;
};

// ---- what the program talks to ------------------------------------------------------------------

/// A message bus of our own, which ends with the program.
class private_daemon {
public:
    private_daemon() {
        int ends[2];
        check(::pipe(ends) == 0 ? 0 : -errno, "pipe");
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        ::posix_spawn_file_actions_addclose(&actions, ends[0]);
        ::posix_spawn_file_actions_addclose(&actions, ends[1]);
        std::string words[] = {"dbus-daemon", "--session", "--nofork", "--nopidfile",
                               "--print-address"};
        char* arguments[] = {words[0].data(), words[1].data(), words[2].data(),
                             words[3].data(), words[4].data(), nullptr};
        int error = ::posix_spawnp(&pid_, arguments[0], &actions, nullptr, arguments, environ);
        ::posix_spawn_file_actions_destroy(&actions);
        ::close(ends[1]);
        std::FILE* out = ::fdopen(ends[0], "r");
        for (int c; error == 0 && (c = std::fgetc(out)) != EOF && c != '\n';)
            address_ += static_cast<char>(c);
        std::fclose(out);
        check(-error, "dbus-daemon");
        if (address_.empty())
            throw std::runtime_error("dbus-daemon printed no address");
    }
    private_daemon(const private_daemon&) = delete;
    private_daemon& operator=(const private_daemon&) = delete;
    ~private_daemon() {
        ::kill(pid_, SIGTERM);
        ::waitpid(pid_, nullptr, 0);
    }

    const std::string& address() const { return address_; }

private:
    ::pid_t pid_ = -1;
    std::string address_;
};

/// A name on the bus behind which nobody answers.
class silent_peer {
public:
    explicit silent_peer(const std::string& address) : bus_(open_bus(address)) {
        const char* name = nullptr;
        check(sd_bus_get_unique_name(bus_.get(), &name), "sd_bus_get_unique_name"); // blocks
        name_ = name;
    }

    const std::string& name() const { return name_; }
    void leave() { bus_.reset(); }

private:
    bus_ptr bus_;
    std::string name_;
};

message_ptr make_request(sd_bus* b, const std::string& destination, const char* member) {
    sd_bus_message* m = nullptr;
    check(sd_bus_message_new_method_call(b, &m, destination.c_str(), "/org/freedesktop/DBus",
                                         "org.freedesktop.DBus", member),
          "sd_bus_message_new_method_call");
    return message_ptr(m);
}

std::string first_string(const message_ptr& m) {
    const char* text = nullptr;
    check(sd_bus_message_read(m.get(), "s", &text), "sd_bus_message_read");
    return text;
}

const std::string the_daemon = "org.freedesktop.DBus";

// ---- the two versions at work -------------------------------------------------------------------

std::string ask_with_first_version(const std::string& address) {
    asio::io_context io;
    first_bus b(io, address);

    std::string id;
    std::function<void(sd_bus_message*)> answer = [&](sd_bus_message* m) {
        id = first_string(message_ptr(sd_bus_message_ref(m)));
        io.stop(); // the registration would wait for ever
    };
    auto on_reply = [](sd_bus_message* m, void* f, sd_bus_error*) {
        (*static_cast<std::function<void(sd_bus_message*)>*>(f))(m);
        return 0;
    };
    message_ptr request = make_request(b.native_handle(), the_daemon, "GetId");
    check(sd_bus_call_async(b.native_handle(), nullptr, request.get(), on_reply, &answer, 0),
          "sd_bus_call_async");
    io.run_for(30s);
    return id;
}

//[use
asio::awaitable<void> talk(bus& b, silent_peer& peer) {
    b.match("type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'");

    message_ptr id = co_await b.async_call(make_request(b.native_handle(), the_daemon, "GetId"),
                                           30s, use_awaitable);
    std::cout << "the bus is " << first_string(id) << '\n';

    auto [ec, none] = co_await b.async_call(make_request(b.native_handle(), peer.name(), "Ping"),
                                            50ms, asio::as_tuple(use_awaitable));
    if (ec != boost::system::errc::timed_out)
        throw std::runtime_error("the silent peer should not answer");

    peer.leave();
    for (std::string name; name != peer.name();)
        name = first_string(co_await b.async_signal(use_awaitable));
    std::cout << "the silent peer has left\n";
}
//]

/// A call that loses against another one is cancelled.
asio::awaitable<void> race(bus& b, silent_peer& peer) {
    using namespace asio::experimental::awaitable_operators;
    auto first = co_await (
        b.async_call(make_request(b.native_handle(), peer.name(), "Ping"), 30s, use_awaitable) ||
        b.async_call(make_request(b.native_handle(), the_daemon, "GetId"), 30s, use_awaitable));
    if (first.index() != 1)
        throw std::runtime_error("the silent peer should not answer first");
    std::cout << "the call of the silent peer was cancelled\n";
}

/// The bus goes away while an operation is pending.
asio::awaitable<void> lose(bus& b, std::unique_ptr<private_daemon>& daemon) {
    co_await b.async_call(make_request(b.native_handle(), the_daemon, "GetId"), 30s, use_awaitable);
    daemon.reset();
    moor::error_code ec;
    while (!ec)
        ec = std::get<0>(co_await b.async_signal(asio::as_tuple(use_awaitable)));
    std::cout << "without the daemon: " << ec.message() << '\n';
}

void run(asio::io_context& io, asio::awaitable<void> a) {
    asio::co_spawn(io, std::move(a), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    io.run();
    io.restart();
}

} // namespace

int main() {
    try {
        auto daemon = std::make_unique<private_daemon>();
        const std::string id = ask_with_first_version(daemon->address());
        std::cout << "the first version: the bus is " << id << '\n';
        if (id.empty())
            throw std::runtime_error("the first version should have an answer");

        asio::io_context io;
        bus b(io.get_executor(), daemon->address());
        silent_peer peer(daemon->address());
        silent_peer another(daemon->address());
        run(io, race(b, another));
        run(io, talk(b, peer));
        run(io, lose(b, daemon));
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
