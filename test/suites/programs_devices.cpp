// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Whole programs of the kind that people write with posix::stream_descriptor. Each is a template
// over the stream, and runs with Asio's own and with Moor's: nothing but the alias changes. What
// they say is shown by --log_level=message, and in doc/programs.adoc.
//
// Here: child processes, devices, and libraries that do their own input and output.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/programs.hpp"
#include "support/pty.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/descriptor_base.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(programs_devices)

namespace asio = boost::asio;
using test::context_fixture;
using test::eof;
using test::error_code;
using test::long_text;
using test::never;
using test::streams;
using test::terminal_gone;
using test::terminal_streams;

// ---- a child process behind pipes ---------------------------------------------------------------

namespace child {

/// A child that ends early must not end us.
struct no_sigpipe {
    no_sigpipe() : old_(::signal(SIGPIPE, SIG_IGN)) {}
    ~no_sigpipe() { ::signal(SIGPIPE, old_); }
    no_sigpipe(const no_sigpipe&) = delete;
    no_sigpipe& operator=(const no_sigpipe&) = delete;

private:
    void (*old_)(int);
};

/// A program with its standard input and output at our end.
template <class Stream>
class process {
public:
    process(asio::io_context& io, std::vector<std::string> command) : in_(io), out_(io) {
        int to[2];
        int from[2];
        BOOST_REQUIRE_EQUAL(::pipe2(to, O_CLOEXEC), 0);
        BOOST_REQUIRE_EQUAL(::pipe2(from, O_CLOEXEC), 0);
        in_.assign(to[1]);
        out_.assign(from[0]);
        ::posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
        ::posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
        std::vector<char*> arguments;
        for (std::string& s : command)
            arguments.push_back(&s[0]);
        arguments.push_back(nullptr);
        char locale[] = "LC_ALL=C";
        char* environment[] = {locale, nullptr};
        int result =
            ::posix_spawnp(&pid_, arguments[0], &actions, nullptr, arguments.data(), environment);
        ::posix_spawn_file_actions_destroy(&actions);
        ::close(to[0]);
        ::close(from[1]);
        BOOST_REQUIRE_EQUAL(result, 0);
    }
    ~process() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            ::waitpid(pid_, nullptr, 0);
        }
    }
    process(const process&) = delete;
    process& operator=(const process&) = delete;

    Stream& in() { return in_; }
    Stream& out() { return out_; }

    /// The exit code; -1 if it was killed.
    int wait() {
        int status = 0;
        ::pid_t pid = std::exchange(pid_, 0);
        BOOST_REQUIRE_EQUAL(::waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

private:
    Stream in_;
    Stream out_;
    ::pid_t pid_ = 0;
};

} // namespace child

BOOST_AUTO_TEST_CASE_TEMPLATE(a_child_sorts_lines_once_its_input_ends, Stream, streams) {
    context_fixture context;
    child::process<Stream> sort(context.io, {"sort"});
    const std::string unsorted = "pear\napple\nquince\nfig\n";
    asio::async_write(sort.in(), asio::buffer(unsorted), [&](error_code ec, std::size_t n) {
        BOOST_TEST(!ec);
        BOOST_TEST(n == unsorted.size());
        sort.in().close(); // our half; the other stays
    });
    std::string sorted;
    test::called done;
    asio::async_read(sort.out(), asio::dynamic_buffer(sorted), done.handler());
    test::run_all(context.io);
    BOOST_TEST((done.ec == eof));
    BOOST_TEST(sorted == "apple\nfig\npear\nquince\n");
    BOOST_TEST(sort.wait() == 0);
    BOOST_TEST_MESSAGE("sort says:\n" << sorted);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_child_is_written_to_and_read_from_at_once, Stream, streams) {
    // Much more than the pipes hold: either alone would come to a halt.
    context_fixture context;
    child::process<Stream> cat(context.io, {"cat"});
    const std::string sent = long_text(1 << 20);
    asio::async_write(cat.in(), asio::buffer(sent), [&](error_code ec, std::size_t n) {
        BOOST_TEST(!ec);
        BOOST_TEST(n == sent.size());
        cat.in().close();
    });
    std::string received;
    test::called done;
    asio::async_read(cat.out(), asio::dynamic_buffer(received), done.handler());
    test::run_all(context.io);
    BOOST_TEST((done.ec == eof));
    BOOST_TEST(received.size() == sent.size());
    BOOST_TEST((received == sent));
    BOOST_TEST(cat.wait() == 0);
    BOOST_TEST_MESSAGE("cat returned " << received.size() << " bytes");
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_child_that_has_read_enough_ends_the_write, Stream, streams) {
    child::no_sigpipe guard;
    context_fixture context;
    child::process<Stream> head(context.io, {"head", "-n", "1"});
    const std::string sent = long_text(1 << 20);
    test::called written;
    asio::async_write(head.in(), asio::buffer(sent), written.handler());
    std::string received;
    test::called done;
    asio::async_read(head.out(), asio::dynamic_buffer(received), done.handler());
    test::run_all(context.io);
    BOOST_TEST((written.ec == asio::error::broken_pipe));
    BOOST_TEST((done.ec == eof));
    BOOST_TEST(received == "line 0\n");
    BOOST_TEST(head.wait() == 0);
    BOOST_TEST_MESSAGE("head says: " << received << "the write: " << written.ec.message());
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_conversation_with_a_child, Stream, streams) {
    // One question after the other, each with the answer to the last: nothing may be held back.
    context_fixture context;
    child::process<Stream> shell(context.io,
                                 {"sh", "-c", "while read n; do echo $((n + n)); done; echo over"});
    std::string number = "1";
    std::string answers;
    std::string tail;
    std::string log;
    std::function<void()> ask = [&] {
        number += '\n';
        asio::async_write(shell.in(), asio::buffer(number), [&](error_code ec, std::size_t) {
            BOOST_TEST(!ec);
            asio::async_read_until(shell.out(), asio::dynamic_buffer(answers), '\n',
                                   [&](error_code e, std::size_t n) {
                                       BOOST_TEST(!e);
                                       number = answers.substr(0, n - 1);
                                       answers.erase(0, n);
                                       log += number + ' ';
                                       if (number.size() < 4)
                                           return ask();
                                       shell.in().close();
                                       asio::async_read(shell.out(), asio::dynamic_buffer(tail),
                                                        [&](error_code end, std::size_t) {
                                                            BOOST_TEST((end == eof));
                                                        });
                                   });
        });
    };
    ask();
    test::run_all(context.io);
    BOOST_TEST(log == "2 4 8 16 32 64 128 256 512 1024 ");
    BOOST_TEST(tail == "over\n");
    BOOST_TEST(shell.wait() == 0);
    BOOST_TEST_MESSAGE("the shell says: " << log << tail);
}

// ---- a device on a serial line ------------------------------------------------------------------

namespace serial {

/// What is done with a serial port before it is used.
void configure(int tty) {
    ::termios t{};
    BOOST_REQUIRE_EQUAL(::tcgetattr(tty, &t), 0);
    ::cfmakeraw(&t);
    BOOST_REQUIRE_EQUAL(::cfsetspeed(&t, B115200), 0);
    t.c_cflag |= CLOCAL | CREAD;
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    BOOST_REQUIRE_EQUAL(::tcsetattr(tty, TCSANOW, &t), 0);
}

/// Our side: a request, then the reply or a timeout.
template <class Stream>
class instrument {
public:
    instrument(asio::io_context& io, test::unique_fd tty) : port_(io, tty.release()), timer_(io) {
        configure(port_.native_handle());
    }

    /// The handler gets an error, and the reply.
    void request(std::string command, std::chrono::milliseconds timeout,
                 std::function<void(error_code, std::string)> handler) {
        handler_ = std::move(handler);
        command_ = std::move(command) + '\r';
        // What came too late for the last request is not the reply to this one.
        BOOST_REQUIRE_EQUAL(::tcflush(port_.native_handle(), TCIFLUSH), 0);
        received_.clear();
        expired_ = false;
        over_ = false;
        timer_.expires_after(timeout);
        timer_.async_wait([this](error_code ec) {
            if (ec || over_)
                return;
            expired_ = true;
            port_.cancel();
        });
        asio::async_write(port_, asio::buffer(command_), [this](error_code ec, std::size_t) {
            if (!ec && expired_) // in between: there was nothing to cancel
                ec = asio::error::operation_aborted;
            if (ec)
                return complete(ec, 0);
            asio::async_read_until(port_, asio::dynamic_buffer(received_), '\r',
                                   [this](error_code e, std::size_t n) { complete(e, n); });
        });
    }

    Stream& port() { return port_; }

private:
    void complete(error_code ec, std::size_t n) {
        over_ = true;
        timer_.cancel();
        if (ec == asio::error::operation_aborted && expired_)
            ec = asio::error::timed_out;
        handler_(ec, n == 0 ? std::string() : received_.substr(0, n - 1));
    }

    Stream port_;
    asio::steady_timer timer_;
    std::string command_;
    std::string received_;
    std::function<void(error_code, std::string)> handler_;
    bool expired_ = false;
    bool over_ = true;
};

/// The other side: replies to what it knows, in pieces, and to nothing else.
template <class Stream>
class device {
public:
    device(asio::io_context& io, test::unique_fd line) : line_(io, line.release()) { listen(); }

    void unplug() { line_.close(); }
    const std::vector<std::string>& heard() const { return heard_; }

private:
    void listen() {
        asio::async_read_until(line_, asio::dynamic_buffer(received_), '\r',
                               [this](error_code ec, std::size_t n) {
                                   if (ec)
                                       return;
                                   heard_.push_back(received_.substr(0, n - 1));
                                   received_.erase(0, n);
                                   reply();
                               });
    }
    void reply() {
        if (heard_.back() == "*IDN?")
            reply_ = "Moor,pty,0\r";
        else if (heard_.back() == "MEAS?")
            reply_ = std::to_string(20 + heard_.size()) + ".5\r";
        else
            return listen();
        send(0);
    }
    void send(std::size_t from) {
        if (from >= reply_.size())
            return listen();
        line_.async_write_some(
            asio::buffer(reply_.data() + from, std::min<std::size_t>(3, reply_.size() - from)),
            [this, from](error_code ec, std::size_t n) {
                if (!ec)
                    send(from + n);
            });
    }

    Stream line_;
    std::string received_;
    std::string reply_;
    std::vector<std::string> heard_;
};

} // namespace serial

BOOST_AUTO_TEST_CASE_TEMPLATE(a_device_replies_or_the_request_times_out, Stream, terminal_streams) {
    context_fixture context;
    test::fd_pair line = test::make_pty();
    serial::instrument<Stream> instrument(context.io, std::move(line.b));
    serial::device<Stream> device(context.io, std::move(line.a));
    using std::chrono::milliseconds;
    std::string log;
    struct step {
        std::string command;
        milliseconds timeout;
        std::string reply; // none: it times out
    };
    const std::vector<step> steps = {{"*IDN?", never, "Moor,pty,0"},
                                     {"MEAS?", never, "22.5"},
                                     {"BEEP!", milliseconds(5), ""},
                                     {"MEAS?", never, "24.5"},
                                     {"MEAS?", never, "25.5"}};
    for (const step& s : steps) {
        bool over = false;
        instrument.request(s.command, s.timeout, [&](error_code ec, const std::string& reply) {
            if (s.reply.empty())
                BOOST_TEST((ec == asio::error::timed_out), ec.message());
            else
                BOOST_TEST(!ec, ec.message());
            BOOST_TEST(reply == s.reply);
            log += s.command + " -> " + (ec ? ec.message() : reply) + '\n';
            over = true;
        });
        test::run_until(context.io, [&] { return over; });
    }
    test::run_until(context.io, [&] { return device.heard().size() == steps.size(); });

    // The cable is pulled while a request is under way.
    bool over = false;
    instrument.request("BEEP!", never, [&](error_code ec, const std::string& reply) {
        BOOST_TEST((ec == eof || ec == terminal_gone), ec.message());
        BOOST_TEST(reply.empty());
        log += "BEEP! -> " + ec.message() + '\n';
        over = true;
    });
    test::run_until(context.io, [&] { return device.heard().size() == steps.size() + 1; });
    BOOST_TEST(!over);
    device.unplug();
    test::run_all(context.io);
    BOOST_TEST(over);
    BOOST_TEST_MESSAGE("the requests:\n" << log);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_serial_line_carries_every_byte_value, Stream, terminal_streams) {
    context_fixture context;
    test::fd_pair line = test::make_pty();
    Stream port(context.io, line.b.release());
    serial::configure(port.native_handle());
    Stream far(context.io, line.a.release());
    std::string sent(256, '\0');
    for (std::size_t i = 0; i != sent.size(); ++i)
        sent[i] = static_cast<char>(i);
    std::string there(sent.size(), '\0');
    std::string back(sent.size(), '\0');
    test::called done;
    asio::async_write(port, asio::buffer(sent),
                      [](error_code ec, std::size_t) { BOOST_TEST(!ec); });
    asio::async_read(far, asio::buffer(there), [&](error_code ec, std::size_t) {
        BOOST_TEST(!ec);
        asio::async_write(far, asio::buffer(there),
                          [](error_code e, std::size_t) { BOOST_TEST(!e); });
    });
    asio::async_read(port, asio::buffer(back), done.handler());
    test::run_all(context.io);
    BOOST_TEST(!done.ec);
    BOOST_TEST((there == sent));
    BOOST_TEST((back == sent));
    // Nothing was echoed or added: the line is empty now.
    asio::posix::descriptor_base::bytes_readable left;
    port.io_control(left);
    BOOST_TEST(left.get() == 0u);
    BOOST_TEST_MESSAGE(back.size() << " bytes there and back, " << left.get() << " left over");
}

// ---- a library that does its own input and output -----------------------------------------------

namespace foreign {

/// The library: owns a non-blocking socket, sends back what comes in, and has to be told when to
/// try. It takes a little at a time and does not say whether it has drained its socket.
class mirror {
public:
    explicit mirror(test::unique_fd fd) : fd_(std::move(fd)) {}

    int descriptor() const { return fd_; }
    bool want_read() const { return !ended_ && data_.size() < limit; }
    bool want_write() const { return !data_.empty(); }
    bool finished() const { return ended_ && data_.empty(); }
    int reads() const { return reads_; }
    int writes() const { return writes_; }

    /// False: it failed.
    bool do_read() {
        char buffer[1000];
        ::ssize_t n = ::read(fd_, buffer, sizeof(buffer));
        ++reads_;
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        ended_ = n == 0;
        data_.append(buffer, static_cast<std::size_t>(n));
        return true;
    }
    bool do_write() {
        ::ssize_t n =
            ::send(fd_, data_.data(), std::min<std::size_t>(data_.size(), 700), MSG_NOSIGNAL);
        ++writes_;
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        data_.erase(0, static_cast<std::size_t>(n));
        return true;
    }

private:
    static constexpr std::size_t limit = 8000;

    test::unique_fd fd_;
    std::string data_;
    bool ended_ = false;
    int reads_ = 0;
    int writes_ = 0;
};

/// What makes the library asynchronous.
template <class Stream>
class driver {
public:
    driver(mirror& library, Stream stream) : library_(library), stream_(std::move(stream)) {
        wait();
    }

    const error_code& failure() const { return failure_; }
    /// The library closes its socket itself.
    int release() { return stream_.release(); }

private:
    void wait() {
        if (library_.want_read() && !reading_) {
            reading_ = true;
            stream_.async_wait(Stream::wait_read, [this](error_code ec) {
                reading_ = false;
                proceed(ec, [this] { return library_.do_read(); });
            });
        }
        if (library_.want_write() && !writing_) {
            writing_ = true;
            stream_.async_wait(Stream::wait_write, [this](error_code ec) {
                writing_ = false;
                proceed(ec, [this] { return library_.do_write(); });
            });
        }
    }
    template <class Step>
    void proceed(error_code ec, Step step) {
        if (!ec && !step())
            ec = test::last_error();
        if (ec && !failure_)
            failure_ = ec;
        if (!ec && !library_.finished())
            wait();
    }

    mirror& library_;
    Stream stream_;
    bool reading_ = false;
    bool writing_ = false;
    error_code failure_;
};

/// Sends a text and expects it back.
template <class Stream>
void look_into_mirror(asio::io_context& io, mirror& library, driver<Stream>& d, Stream peer) {
    const std::string sent = long_text(1 << 18);
    std::string back;
    const int little = 8192;
    for (int fd : {library.descriptor(), peer.native_handle()})
        BOOST_REQUIRE_EQUAL(::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), 0);
    test::called done;
    asio::async_write(peer, asio::buffer(sent), [&](error_code ec, std::size_t) {
        BOOST_TEST(!ec);
        ::shutdown(peer.native_handle(), SHUT_WR);
    });
    // Not before the mirror is full, so that it must wait to write as well.
    test::run_ready(io);
    BOOST_TEST(!library.want_read());
    BOOST_TEST(library.want_write());
    back.resize(sent.size());
    asio::async_read(peer, asio::buffer(back), done.handler());
    test::run_all(io);
    BOOST_TEST(!done.ec);
    BOOST_TEST((back == sent));
    BOOST_TEST(library.finished());
    BOOST_TEST(!d.failure());
    BOOST_TEST_MESSAGE("the library sent back " << back.size() << " bytes in " << library.writes()
                                                << " writes");
}

} // namespace foreign

BOOST_AUTO_TEST_CASE_TEMPLATE(a_library_with_its_own_socket_is_driven_by_waits, Stream, streams) {
    context_fixture context;
    test::fd_pair p = test::make_socketpair();
    foreign::mirror library(std::move(p.a));
    foreign::driver<Stream> d(library, Stream(context.io, library.descriptor()));
    foreign::look_into_mirror(context.io, library, d, Stream(context.io, p.b.release()));
    BOOST_TEST(d.release() == library.descriptor());
}

BOOST_AUTO_TEST_CASE(a_library_keeps_its_socket_when_it_is_only_lent) {
    context_fixture context;
    test::fd_pair p = test::make_socketpair();
    foreign::mirror library(std::move(p.a));
    using Stream = moor::stream_descriptor;
    {
        foreign::driver<Stream> d(library, Stream(context.io, moor::borrow(library.descriptor())));
        foreign::look_into_mirror(context.io, library, d, Stream(context.io, p.b.release()));
    }
    BOOST_TEST(::fcntl(library.descriptor(), F_GETFD) >= 0); // still open
}

BOOST_AUTO_TEST_SUITE_END()
