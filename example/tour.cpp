//
// tour.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// One io_context waits for a dozen kernel handles that it does not own, each in another style.
// Every section below stands alone: a handle, the registration declared after it (so that it goes
// first), and the wait. All sections first wait; then the tour prompts them, one after the other.
//
// The standard input may be anything: ./tour, ./tour < file, something | ./tour, ./tour < /dev/null
// Compiled with TOUR_IS_INSPECTED, the tour first shows in a browser what it waits for.
//

#include <moor.hpp>
#if defined(TOUR_IS_INSPECTED)
#include <moor/inspect.hpp>

#include <boost/asio/signal_set.hpp>
#endif

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/system/system_error.hpp>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <future>
#include <initializer_list>
#include <iomanip>
#include <iostream>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

namespace asio = boost::asio;
using asio::awaitable;
using asio::use_awaitable;
using moor::error_code;
using moor::interest;
using namespace std::chrono_literals;

namespace {

// ---- helpers ----------------------------------------------------------------------------------

/// The result of a system call, or its error as an exception.
template <class T>
T check(T result, const char* what) {
    error_code ec;
    moor::check_errno(result, ec);
    if (ec)
        throw boost::system::system_error(ec, what);
    return result;
}

/// Owns a file descriptor.
class unique_fd {
public:
    unique_fd() = default;
    explicit unique_fd(int fd) noexcept : fd_(fd) {}
    unique_fd(unique_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    unique_fd& operator=(unique_fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~unique_fd() { close(); }

    int get() const noexcept { return fd_; }
    void close() noexcept {
        if (fd_ >= 0)
            ::close(std::exchange(fd_, -1));
    }

private:
    int fd_ = -1;
};

/// read(2) in Asio's manner.
std::size_t read_some(int fd, void* data, std::size_t size, error_code& ec) {
    ssize_t n = moor::check_errno(::read(fd, data, size), ec);
    return n < 0 ? 0 : static_cast<std::size_t>(n);
}

/// Runs the sections, and keeps the account.
class tour {
public:
    asio::io_context io;

    /// Makes a section, which starts its waits and stays until the end. Each of the names is to
    /// appear in the account.
    template <class Section>
    void add(std::initializer_list<const char*> names) try {
        missing_.insert(names.begin(), names.end());
        sections_.push_back(std::make_shared<Section>(*this));
    } catch (const boost::system::system_error& e) {
        // Old kernels and tight containers do not have everything.
        bool unavailable = e.code() == boost::system::errc::function_not_supported ||
                           e.code() == boost::system::errc::address_family_not_supported;
        for (const char* name : names)
            unavailable ? skipped(name, e.what()) : failed(name, e.what());
    }

    /// Something to do once every section waits.
    void prompt(std::function<void()> f) { prompts_.push_back(std::move(f)); }

    /// An entry of the account: which handle, in which style it was waited for, and what came.
    void line(int handle, const char* name, const char* style, const std::string& what) {
        if (auto i = missing_.find(name); i != missing_.end())
            missing_.erase(i);
        std::ostringstream out;
        out << std::left << std::setw(8) << (handle < 0 ? "-" : std::to_string(handle))
            << std::setw(12) << name << std::setw(41) << style << what << '\n';
        account_ += out.str();
        if (started_)
            std::cout << std::exchange(account_, {}) << std::flush;
    }

    void skipped(const char* name, const std::string& why) {
        line(-1, name, "-", "not available here: " + why);
    }

    void failed(const char* name, const std::string& why) {
        ok_ = false;
        line(-1, name, "FAILED", why);
    }

    /// For a handler: true if there is no error.
    bool good(const char* name, const error_code& ec) {
        if (ec)
            failed(name, ec.message());
        return !ec;
    }

    /// For co_spawn: reports what a coroutine threw.
    auto guard(const char* name) {
        return [this, name](std::exception_ptr e) {
            try {
                if (e)
                    std::rethrow_exception(e);
            } catch (const std::exception& x) {
                failed(name, x.what());
            }
        };
    }

    int run() {
        moor::registration_service& service = moor::use_registration_service(io);

        asio::steady_timer start(io, 50ms);
        start.async_wait([&](error_code) {
            std::cout << "What is waited for\n\n";
            service.dump(std::cout);
            std::cout << "\nWhat came\n\n" << std::exchange(account_, {});
            started_ = true;
            for (auto& f : prompts_)
                f();
        });

        io.run_for(8s); // it takes less than one

        std::cout << "\nWhat is left\n\n";
        service.dump(std::cout);
        std::cout << '\n';
        for (const std::string& name : missing_)
            std::cout << "FAILED: something of " << name << " never came\n";
        ok_ = ok_ && missing_.empty();
        std::cout << (ok_ ? "All came as expected." : "The tour FAILED.") << std::endl;
        return ok_ ? EXIT_SUCCESS : EXIT_FAILURE;
    }

private:
    std::vector<std::shared_ptr<void>> sections_;
    std::vector<std::function<void()>> prompts_;
    std::multiset<std::string> missing_;
    std::string account_; // before the start
    bool started_ = false;
    bool ok_ = true;
};

// ---- inotify: a callback ----------------------------------------------------------------------

class temp_directory {
public:
    temp_directory() { check(::mkdtemp(path_.data()) ? 0 : -1, "mkdtemp"); }
    temp_directory(const temp_directory&) = delete;
    temp_directory& operator=(const temp_directory&) = delete;
    ~temp_directory() {
        ::unlink(file().c_str());
        ::rmdir(path_.c_str());
    }

    const std::string& path() const { return path_; }
    std::string file() const { return path_ + "/postcard"; }

private:
    std::string path_ = "/tmp/moor-tour-XXXXXX";
};

class inotify_section {
public:
    explicit inotify_section(tour& t) : tour_(t) {
        check(::inotify_add_watch(fd_.get(), directory_.path().c_str(), IN_CREATE),
              "inotify_add_watch");
        reg_.name("new files"); // for dump() and the inspector

        reg_.async_wait_readable([this](error_code ec) {
            if (tour_.good("inotify", ec))
                on_readable();
        });

        t.prompt([this] {
            unique_fd file(::open(directory_.file().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        });
    }

private:
    void on_readable() {
        alignas(inotify_event) std::array<char, 4096> buffer;
        error_code ec;
        read_some(fd_.get(), buffer.data(), buffer.size(), ec);
        if (!tour_.good("inotify", ec))
            return;
        const auto* event = reinterpret_cast<const inotify_event*>(buffer.data());
        tour_.line(fd_.get(), "inotify", "callback",
                   "\"" + std::string(event->name) + "\" was created in " + directory_.path());
    }

    tour& tour_;
    temp_directory directory_;
    unique_fd fd_{check(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify_init1")};
    moor::registration reg_{tour_.io, fd_.get()};
};

// ---- timerfd: a coroutine, edge-triggered -----------------------------------------------------

class timerfd_section {
public:
    explicit timerfd_section(tour& t) : tour_(t) {
        reg_.name("ticks");
        asio::co_spawn(t.io, tick(), t.guard("timerfd"));

        t.prompt([this] {
            itimerspec every_10ms = {{0, 10'000'000}, {0, 10'000'000}};
            ::timerfd_settime(fd_.get(), 0, &every_10ms, nullptr);
        });
    }

private:
    awaitable<void> tick() {
        std::uint64_t expirations = 0;
        int waits = 0;
        for (; expirations < 3; ++waits) {
            co_await reg_.async_wait_readable(use_awaitable);
            std::uint64_t n = 0;
            check(::read(fd_.get(), &n, sizeof(n)), "read"); // empties it, as edge demands
            expirations += n;
        }
        tour_.line(fd_.get(), "timerfd", "use_awaitable, trigger::edge",
                   std::to_string(expirations) + " expirations in " + std::to_string(waits) +
                       " waits");
    }

    tour& tour_;
    unique_fd fd_{
        check(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create")};
    moor::registration reg_{tour_.io, fd_.get(), moor::trigger::edge};
};

// ---- signalfd: a deferred operation -----------------------------------------------------------

class signalfd_section {
public:
    explicit signalfd_section(tour& t) : tour_(t) {
        // Nothing happens before the operation is called with a token.
        auto next_signal = reg_.async_wait_readable(asio::deferred([this](error_code ec) {
            signalfd_siginfo info = {};
            if (!ec)
                read_some(fd_.get(), &info, sizeof(info), ec);
            return asio::deferred.values(ec, static_cast<int>(info.ssi_signo));
        }));

        std::move(next_signal)([this](error_code ec, int number) {
            if (tour_.good("signalfd", ec))
                tour_.line(fd_.get(), "signalfd", "deferred", ::strsignal(number));
        });

        t.prompt([] { ::kill(::getpid(), SIGUSR1); });
    }

private:
    static int open() {
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGUSR1);
        ::pthread_sigmask(SIG_BLOCK, &set, nullptr); // before any other thread is started
        return ::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    }

    tour& tour_;
    unique_fd fd_{check(open(), "signalfd")};
    moor::registration reg_{tour_.io, fd_.get()};
};

// ---- a child's output and its pidfd: two awaitables, joined by && -----------------------------

/// A child process: its standard output can be read, and it is never left behind.
class child {
public:
    explicit child(const char* script) {
        int ends[2];
        check(::pipe2(ends, O_CLOEXEC), "pipe2");
        output = unique_fd(ends[0]);
        unique_fd input(ends[1]);
        ::fcntl(output.get(), F_SETFL, O_NONBLOCK);

        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        ::posix_spawn_file_actions_adddup2(&actions, input.get(), 1);
        posix_spawnattr_t attributes; // do not pass on the signals that are blocked here
        sigset_t none;
        ::sigemptyset(&none);
        ::posix_spawnattr_init(&attributes);
        ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
        ::posix_spawnattr_setsigmask(&attributes, &none);

        std::string sh = "sh", c = "-c", text = script;
        char* arguments[] = {sh.data(), c.data(), text.data(), nullptr};
        int error = ::posix_spawn(&pid, "/bin/sh", &actions, &attributes, arguments, environ);
        ::posix_spawnattr_destroy(&attributes);
        ::posix_spawn_file_actions_destroy(&actions);
        if (error != 0)
            throw boost::system::system_error(error, boost::system::system_category(),
                                              "posix_spawn");
    }
    child(const child&) = delete;
    child& operator=(const child&) = delete;
    ~child() {
        if (pid != -1) {
            ::kill(pid, SIGKILL);
            ::waitpid(pid, nullptr, 0);
        }
    }

    pid_t pid = -1;
    unique_fd output;
};

class child_section {
public:
    explicit child_section(tour& t) : tour_(t) { asio::co_spawn(t.io, follow(), t.guard("pidfd")); }

private:
    awaitable<void> follow() {
        using namespace asio::experimental::awaitable_operators;
        auto [output, status] = co_await (read_all() && exit_status());
        tour_.line(child_.output.get(), "pipe", "async_io, use_awaitable",
                   "\"" + output + "\" and end-of-file");
        tour_.line(pidfd_.get(), "pidfd", "awaitable && awaitable",
                   "exit status " + std::to_string(status));
        if (output != "greetings from the child" || status != 7)
            tour_.failed("pidfd", "the child should have said something else");
    }

    awaitable<std::string> read_all() {
        std::string text;
        std::array<char, 512> buffer;
        for (;;) {
            // Called when the pipe is readable, and again if it was not after all.
            std::size_t n = co_await pipe_.async_io(
                interest::readable,
                [&](error_code& ec) {
                    return read_some(child_.output.get(), buffer.data(), buffer.size(), ec);
                },
                use_awaitable);
            if (n == 0)
                co_return text;
            text.append(buffer.data(), n);
        }
    }

    awaitable<int> exit_status() {
        co_await exited_.async_wait_readable(use_awaitable);
        int status = 0;
        check(::waitpid(child_.pid, &status, WNOHANG), "waitpid");
        child_.pid = -1;
        co_return WEXITSTATUS(status);
    }

    tour& tour_;
    child child_{"sleep 0.1; printf 'greetings '; sleep 0.05; printf 'from the child'; exit 7"};
    unique_fd pidfd_{
        static_cast<int>(check(::syscall(SYS_pidfd_open, child_.pid, 0), "pidfd_open"))};
    moor::registration pipe_{tour_.io, child_.output.get()};
    moor::registration exited_{tour_.io, pidfd_.get()};
};

// ---- eventfd: a future, for a thread that blocks ----------------------------------------------

class eventfd_section {
public:
    explicit eventfd_section(tour& t) : tour_(t) {
        // Reading an eventfd takes all there is, so the next wait need not ask whether there is
        // more: drained() says so.
        total_ = reg_.async_io(
            interest::readable,
            [fd = fd_.get()](error_code& ec) {
                std::uint64_t n = 0;
                read_some(fd, &n, sizeof(n), ec);
                return moor::drained(n);
            },
            asio::use_future);

        t.prompt([this] {
            // io.run() goes on until the thread is done, even if nothing else is left to do.
            auto work = asio::make_work_guard(tour_.io);
            thread_ = std::jthread([this, work] {
                ::eventfd_write(fd_.get(), 42);
                std::string result = receive();
                asio::post(tour_.io, [this, result] { report(result); });
            });
        });
    }

private:
    std::string receive() try {
        if (total_.wait_for(5s) != std::future_status::ready)
            return "the thread received nothing within 5 s";
        return std::to_string(total_.get());
    } catch (const std::exception& e) {
        return e.what();
    }

    void report(const std::string& result) {
        if (result != "42")
            return tour_.failed("eventfd", result);
        tour_.line(fd_.get(), "eventfd", "async_io with drained(), use_future",
                   result + ", written and received by a thread");
    }

    tour& tour_;
    unique_fd fd_{check(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd")};
    moor::registration reg_{tour_.io, fd_.get()};
    std::future<std::uint64_t> total_;
    std::jthread thread_;
};

// ---- socketpair: cancelling one wait of two, and waiting for several events -------------------

class socketpair_section {
public:
    explicit socketpair_section(tour& t) : tour_(t) {
        int ends[2];
        check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends),
              "socketpair");
        mine_ = unique_fd(ends[0]);
        peer_ = unique_fd(ends[1]);
        reg_.register_handle(mine_.get());

        // Two waits on one direction. The signal cancels the first, and leaves the second alone.
        reg_.async_wait_readable(asio::bind_cancellation_slot(stop_.slot(), [this](error_code ec) {
            if (ec == asio::error::operation_aborted)
                tour_.line(mine_.get(), "socketpair", "cancellation slot", ec.message());
            else
                tour_.failed("socketpair", "the wait was not cancelled");
        }));

        wait();

        t.prompt([this] {
            stop_.emit(asio::cancellation_type::terminal);
            ::send(peer_.get(), "bye", 3, MSG_NOSIGNAL);
            peer_.close();
        });
    }

private:
    /// The event says which of the two came: one of them, or both.
    void wait() {
        reg_.async_wait(interest::readable | interest::read_closed,
                        [this](error_code ec, moor::ready_event event) {
                            if (tour_.good("socketpair", ec))
                                on_event(event.ready());
                        });
    }

    void on_event(moor::readiness ready) {
        // Whichever it was, there may be data: it comes before the end.
        std::array<char, 16> buffer;
        error_code ec;
        while (std::size_t n = read_some(mine_.get(), buffer.data(), buffer.size(), ec))
            text_.append(buffer.data(), n);
        if (!ready.is_read_closed())
            return wait();
        tour_.line(mine_.get(), "socketpair", "async_wait(readable | read_closed)",
                   "\"" + text_ + "\", and the peer has left");
    }

    tour& tour_;
    unique_fd mine_, peer_;
    moor::registration reg_{tour_.io};
    asio::cancellation_signal stop_;
    std::string text_;
};

// ---- netlink: the poll style, for state machines of one's own ---------------------------------

class netlink_section {
public:
    explicit netlink_section(tour& t) : tour_(t) {
        advance();
        t.prompt([this] { request(); });
    }

private:
    void request() {
        struct {
            nlmsghdr header;
            rtgenmsg body;
        } message = {};
        message.header.nlmsg_len = NLMSG_LENGTH(sizeof(message.body));
        message.header.nlmsg_type = RTM_GETLINK;
        message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        error_code ec;
        moor::check_errno(::send(fd_.get(), &message, message.header.nlmsg_len, 0), ec);
        if (ec)
            tour_.failed("netlink", ec.message());
    }

    /// Goes as far as it can without waiting; the waker calls it again.
    void advance() {
        for (;;) {
            auto received = reg_.poll_read_io([this] { advance(); },
                                              [this](error_code& ec) {
                                                  return read_some(fd_.get(), buffer_.data(),
                                                                   buffer_.size(), ec);
                                              });
            if (received.has_error()) {
                if (received.error() != asio::error::would_block)
                    tour_.failed("netlink", received.error().message());
                return;
            }
            if (parse(*received))
                return tour_.line(fd_.get(), "netlink", "poll_read_io, own state machine",
                                  std::to_string(links_) + " network interfaces");
        }
    }

    /// True at the end of the dump.
    bool parse(std::size_t n) {
        auto length = static_cast<unsigned>(n);
        for (auto* m = reinterpret_cast<nlmsghdr*>(buffer_.data()); NLMSG_OK(m, length);
             m = NLMSG_NEXT(m, length)) {
            if (m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR)
                return true;
            links_ += m->nlmsg_type == RTM_NEWLINK;
        }
        return false;
    }

    tour& tour_;
    unique_fd fd_{check(
        ::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE), "socket")};
    moor::registration reg_{tour_.io, fd_.get()};
    alignas(nlmsghdr) std::array<char, 32768> buffer_;
    int links_ = 0;
};

// ---- standard input: an awaitable, or a timer -------------------------------------------------

class stdin_section {
public:
    explicit stdin_section(tour& t) : tour_(t) {
        // Whatever it is. A regular file can't be polled, and is always ready.
        asio::co_spawn(t.io, read(), t.guard("stdin"));
    }

private:
    awaitable<void> read() {
        using namespace asio::experimental::awaitable_operators;
        asio::steady_timer patience(tour_.io, 300ms);
        auto first = co_await (reg_.async_wait_readable(use_awaitable) ||
                               patience.async_wait(use_awaitable));
        std::string what = kind();
        if (first.index() == 1) {
            what += "; nothing within 300 ms";
        } else {
            // It may be a blocking descriptor, whose flags are not ours to change. Moor has just
            // verified that it is readable, so one read does not block.
            std::array<char, 4096> buffer;
            error_code ec;
            std::size_t n = read_some(STDIN_FILENO, buffer.data(), buffer.size(), ec);
            what += ec       ? "; reading it fails: " + ec.message()
                    : n == 0 ? "; end-of-file"
                             : "; " + std::to_string(n) + " bytes at first";
        }
        tour_.line(STDIN_FILENO, "stdin", "awaitable || timer", what);
    }

    static std::string kind() {
        struct stat st = {};
        ::fstat(STDIN_FILENO, &st);
        return ::isatty(STDIN_FILENO) ? "a terminal"
               : S_ISREG(st.st_mode)  ? "a regular file"
               : S_ISDIR(st.st_mode)  ? "a directory"
               : S_ISFIFO(st.st_mode) ? "a pipe"
               : S_ISSOCK(st.st_mode) ? "a socket"
               : S_ISCHR(st.st_mode)  ? "a character device"
                                      : "something else";
    }

    tour& tour_;
    moor::registration reg_{tour_.io, STDIN_FILENO};
};

#if defined(TOUR_IS_INSPECTED)
/// Runs the loop until Ctrl-C is pressed. A browser shows what the loop waits for.
void run_inspected(asio::io_context& io) {
    moor::inspector inspector(io);
    std::cerr << "What the tour waits for: " << inspector.url() << "\nCtrl-C goes on with the tour."
              << std::endl;
    asio::signal_set interrupted(io, SIGINT, SIGTERM);
    interrupted.async_wait([&](moor::error_code, int) { io.stop(); });
    io.run();
}
#endif

} // namespace

int main() {
    // If the standard input is closed, the next descriptor to be opened would become it.
    bool has_stdin = ::fcntl(STDIN_FILENO, F_GETFD) != -1;
    unique_fd placeholder(has_stdin ? -1 : ::open("/dev/null", O_RDONLY | O_CLOEXEC));

    try {
        tour t;
        t.add<inotify_section>({"inotify"});
        t.add<timerfd_section>({"timerfd"});
        t.add<signalfd_section>({"signalfd"});
        t.add<child_section>({"pipe", "pidfd"});
        t.add<eventfd_section>({"eventfd"});
        t.add<socketpair_section>({"socketpair", "socketpair"});
        t.add<netlink_section>({"netlink"});
        if (has_stdin)
            t.add<stdin_section>({"stdin"});
        else
            t.line(-1, "stdin", "-", "closed: there is nothing to wait for");
#if defined(TOUR_IS_INSPECTED)
        run_inspected(t.io);
        t.io.restart();
#endif
        return t.run();
    } catch (const std::exception& e) {
        std::cerr << "The tour FAILED: " << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
