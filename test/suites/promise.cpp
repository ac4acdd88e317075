// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Random programs that check one promise, with poll(2) as the oracle.
//
// A program is a list of steps that a seed makes: the peer, the other end of a file, writes, reads,
// closes or resets; registrations wait, try, clear, cancel, end and begin again;
// numbers are closed and reused; loops run, also inside handlers. The engine asks poll(2) about
// every file before and after each step, each handler and each call of a callable.
//
// trigger::level
//   may:  each flag that a wait completes with was reported for the file at some time since the
//         wait began.
//   must: when the loops have nothing left to do, no pending wait has an interest that poll(2)
//         reports. For async_io the same, since its callable would not block then.
// trigger::edge, for each flag of a registration. News is a bit that poll(2) begins to report, the
// bits that it reports when the handle is registered, and, on epoll, what is sent while earlier
// data is unread.
//   may:  poll(2) reported the flag since the last wait that completed with the flag (since the
//         handle was registered, if there was none), or since this wait began. And a wait that
//         begins after another one was told of a flag is not told again, unless something was done
//         to the file, or to the registration, since the other one could have completed.
//   must: when the loops have nothing left to do, no pending wait has a flag that poll(2) reports
//         and for which there was news since the wait began, or since the flag was last consumed:
//         by a wait that succeeded with the flag, a call of a callable, or a clear of a later
//         event. Ends are permanent: read_closed and write_closed are always news.
// Both: a handler is invoked once; operation_aborted has a cause, and a cancelled wait ends; a wait
// whose slot was signalled before its handler is invoked is aborted (edge); query() agrees with
// poll(2); the loops come to rest.
//
// The environment:
//
// - MOOR_TEST_SEED=n runs one program, and prints each step.
// - MOOR_TEST_SECONDS=n runs programs for so long, different ones each time, and lists all kinds of
//   failures. Without it: two seconds, always the same programs, up to the first failure.
// - MOOR_TEST_FAILURES=n ends the run after so many kinds of failures.
// - MOOR_TEST_WITHOUT=a,b leaves out steps, kinds of files, interests, triggers and checks.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/pty.hpp"
#include "support/random.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/version.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::error_code;
using test::unique_fd;
using clock_type = std::chrono::steady_clock;

class dice {
public:
    explicit dice(std::uint64_t seed) : words_(seed) {}

    std::uint32_t roll() { return static_cast<std::uint32_t>(words_.next() >> 16); }
    std::uint32_t below(std::size_t n) { return roll() % static_cast<std::uint32_t>(n); }
    bool one_in(std::size_t n) { return below(n) == 0; }

private:
    test::random_words words_;
};

// ---- what programs are made of ------------------------------------------------------------------

enum class kind { unix_socket, tcp, pipe_reader, pipe_writer, fifo, pty, terminal, eventfd };
constexpr const char* kind_names[] = {"unix_socket", "tcp", "pipe_reader", "pipe_writer",
                                      "fifo",        "pty", "terminal",    "eventfd"};

enum class act {
    peer_send,
    peer_read,
    peer_drain,
    peer_half_close,
    peer_close,
    peer_reset,
    peer_urgent,
    peer_return,
    read_some,
    drain_all,
    fill_up,
    own_shutdown,
    wait,
    wait_readable,
    wait_writable,
    io_read,
    io_write,
    try_read,
    try_write,
    query,
    clear,
    cancel,
    cancel_direction,
    cancel_slot,
    reregister,
    renumber,
    duplicate,
    run_idle,
    run_some,
    count
};
constexpr const char* act_names[] = {
    "peer_send",  "peer_read",     "peer_drain",       "peer_half_close",
    "peer_close", "peer_reset",    "peer_urgent",      "peer_return",
    "read_some",  "drain_all",     "fill_up",          "shutdown",
    "wait",       "wait_readable", "wait_writable",    "io_read",
    "io_write",   "try_read",      "try_write",        "query",
    "clear",      "cancel",        "cancel_direction", "cancel_slot",
    "reregister", "renumber",      "duplicate",        "run_idle",
    "run_some"};
constexpr std::size_t act_count = static_cast<std::size_t>(act::count);
static_assert(std::size(act_names) == act_count, "each has a name");
/// How often each is drawn, before a program's own preferences.
constexpr unsigned char act_weights[act_count] = {12, 6, 3, 2, 3, 1, 2, 2, 8, 6, 3, 1, 14, 6, 5,
                                                  4,  3, 8, 4, 2, 4, 2, 2, 3, 2, 2, 2, 12, 6};

constexpr std::pair<interest, const char*> flags[] = {
    {interest::readable, "readable"},       {interest::writable, "writable"},
    {interest::priority, "priority"},       {interest::error, "error"},
    {interest::read_closed, "read_closed"}, {interest::write_closed, "write_closed"}};
constexpr std::size_t flag_count = std::size(flags);

struct step {
    act what;
    std::uint32_t slot;
    std::uint32_t choice;
    std::uint32_t script; ///< what the handler does, if one comes of this; 0: nothing
};

/// What MOOR_TEST_WITHOUT leaves out.
bool is_left_out(const std::string& name) {
    static const std::string all = [] {
        const char* s = std::getenv("MOOR_TEST_WITHOUT");
        return "," + std::string(s ? s : "") + ",";
    }();
    return all.find("," + name + ",") != std::string::npos;
}

/// How a program is to be made: each program prefers some steps, so that all programs together
/// reach more than a single mixture would.
struct settings {
    bool threads = false;
    bool handlers_act = true;
    std::array<unsigned, act_count> weights{};
    std::vector<kind> kinds;
    std::vector<interest> interests;
    std::vector<trigger> triggers;
    std::size_t contexts = 1;
};

settings make_settings(dice& d, bool threads) {
    settings s;
    s.threads = threads;
    s.handlers_act = !d.one_in(4) && !is_left_out("handlers");
    for (std::size_t i = 0; i != act_count; ++i) {
        constexpr unsigned factors[] = {0, 0, 1, 2, 4};
        unsigned w = act_weights[i] * factors[d.below(std::size(factors))];
        s.weights[i] = is_left_out(act_names[i]) ? 0 : w;
    }
    // Nothing would happen without these.
    for (act a : {act::wait, act::run_idle, act::peer_send})
        if (!is_left_out(act_names[static_cast<std::size_t>(a)]))
            s.weights[static_cast<std::size_t>(a)] += act_weights[static_cast<std::size_t>(a)];
    if (test::on_io_uring() && BOOST_ASIO_VERSION < 102700)
        // Asio gives results of cancelled operations to others there.
        for (act a : {act::renumber, act::reregister})
            s.weights[static_cast<std::size_t>(a)] /= 4;
    for (std::size_t i = 0; i != std::size(kind_names); ++i)
        if (!is_left_out(kind_names[i]))
            s.kinds.push_back(static_cast<kind>(i));
    if (d.one_in(2))
        s.kinds = {s.kinds[d.below(s.kinds.size())]};
    for (auto& [flag, name] : flags)
        if (!is_left_out(name))
            s.interests.push_back(flag);
    if (!is_left_out("level"))
        s.triggers.push_back(trigger::level);
    if (!is_left_out("edge"))
        s.triggers.push_back(trigger::edge);
    if (d.one_in(2))
        s.triggers = {s.triggers[d.below(s.triggers.size())]};
    s.contexts = is_left_out("contexts") ? 1 : 1 + d.below(2);
    return s;
}

step make_step(dice& d, const settings& s) {
    unsigned total = 0;
    for (unsigned w : s.weights)
        total += w;
    unsigned n = d.below(total);
    std::size_t i = 0;
    while (n >= s.weights[i])
        n -= s.weights[i++];
    step made{static_cast<act>(i), d.roll(), d.roll(), d.roll()};
    if (!s.handlers_act || d.one_in(2))
        made.script = 0;
    return made;
}

// ---- files and what poll(2) says of them --------------------------------------------------------

constexpr short asked = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;

std::string bits(short events) {
    std::string s;
    for (auto [bit, name] : {std::pair<int, const char*>{POLLIN, "IN"},
                             {POLLOUT, "OUT"},
                             {POLLPRI, "PRI"},
                             {POLLERR, "ERR"},
                             {POLLHUP, "HUP"},
                             {POLLRDHUP, "RDHUP"},
                             {POLLNVAL, "NVAL"}})
        if (events & bit)
            s += (s.empty() ? "" : "|") + std::string(name);
    return s.empty() ? "-" : s;
}

struct file {
    kind what;
    std::string name;
    unique_fd own, peer;
    short now = 0;        ///< what poll(2) reported last
    short lately = 0;     ///< and since the loops were last at rest
    long touched = 0;     ///< when something was done that may be news
    bool wrote = false;   ///< this end has sent something
    bool differs = false; ///< a call would block although poll(2) says otherwise

    bool is_socket() const { return what == kind::unix_socket || what == kind::tcp; }
    bool is_terminal() const { return what == kind::pty || what == kind::terminal; }
    /// The kernel works on it in threads of its own, so news comes at any time.
    bool is_slow() const { return is_terminal() || (what == kind::tcp && wrote); }

    /// The bits that an interest stands for.
    short mask(interest flag) const {
        return static_cast<short>(test::poll_mask(flag, what == kind::pipe_writer));
    }
    /// Bits that are told again and again.
    short ends(interest flag) const {
        if (flag == interest::read_closed || flag == interest::write_closed)
            return mask(flag);
        return 0;
    }
};

std::unique_ptr<file> make_file(kind what, std::string name) {
    auto f = std::make_unique<file>();
    f->what = what;
    f->name = std::move(name);
    test::fd_pair p;
    switch (what) {
    case kind::unix_socket:
        p = test::make_socketpair();
        break;
    case kind::tcp:
        p = test::make_tcp_pair();
        break;
    case kind::pipe_reader:
        p = test::make_pipe();
        break;
    case kind::pipe_writer:
        p = test::make_pipe();
        std::swap(p.a, p.b);
        (void)::fcntl(p.a, F_SETPIPE_SZ, 4096);
        break;
    case kind::fifo:
        p = test::make_fifo();
        break;
    case kind::pty:
        p = test::make_raw_pty();
        break;
    case kind::terminal:
        p = test::make_raw_pty();
        std::swap(p.a, p.b);
        break;
    case kind::eventfd:
        p.a = unique_fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        p.b = unique_fd(::fcntl(p.a, F_DUPFD_CLOEXEC, 0));
        break;
    }
    if (what == kind::unix_socket) {
        int size = 4608;
        ::setsockopt(p.a, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    f->own = std::move(p.a);
    f->peer = std::move(p.b);
    return f;
}

/// Sends without blocking and without a signal.
::ssize_t put_some(int fd, kind what, std::size_t n) {
    static const std::array<char, 4096> much{};
    if (what == kind::eventfd) {
        std::uint64_t add = n;
        return ::write(fd, &add, sizeof(add));
    }
    n = std::min(n, much.size());
    if (what == kind::unix_socket || what == kind::tcp)
        return ::send(fd, much.data(), n, MSG_NOSIGNAL | MSG_DONTWAIT);
    return ::write(fd, much.data(), n);
}

::ssize_t get_some(int fd, std::size_t n) {
    std::array<char, 16384> room;
    return ::read(fd, room.data(), std::clamp<std::size_t>(n, 8, room.size()));
}

// ---- registrations and waits --------------------------------------------------------------------

/// What the model knows of a flag of an edge-triggered registration.
struct flag_state {
    short reported = 0;    ///< since it was last consumed
    long news = 0;         ///< when there was news that is not consumed, or 0
    long told = 0;         ///< when a handler was told last, or 0
    long told_through = 0; ///< that wait may have completed as early as this
};

struct slot {
    std::unique_ptr<moor::registration> reg;
    std::size_t context = 0;
    trigger mode = trigger::level;
    file* about = nullptr;
    unique_fd duplicate; ///< its own number, or none
    long begun = 0;      ///< differs for each registration
    long touched = 0;    ///< when something was done that may make news of what was told
    interest used;       ///< what a wait was pending for: the reactor was asked for it
    std::array<flag_state, flag_count> flag{};
    std::vector<std::pair<moor::ready_event, long>> events; ///< for clear, and when they came

    bool is_edge() const { return mode == trigger::edge; }
    int number() const { return duplicate.get() != -1 ? duplicate.get() : about->own.get(); }

    void report(short bits) {
        for (flag_state& f : flag)
            f.reported = static_cast<short>(f.reported | bits);
    }
};

enum class call { wait, read, write };

struct pending {
    int number = 0;
    slot* at = nullptr;
    long registration = 0;
    file* about = nullptr; ///< null once its registration has ended
    interest want;
    call what = call::wait;
    bool is_edge = false;
    std::uint32_t script = 0;
    int depth = 0;
    long begun = 0;
    long earliest = 0; ///< it can't have completed before
    long rest =
        0; ///< when the loops were last at rest, before it began: they hear of the rest later
    bool was_pending = false;
    short seen = 0;
    short since = 0; ///< what poll(2) reported since `earliest`
    std::array<short, flag_count> reported{};
    std::array<long, flag_count> news{};
    bool may_abort = false, must_end = false, signalled = false;
    int invoked = 0;
    error_code own_error; ///< of its callable
    asio::cancellation_signal signal;

    void report(short bits) {
        seen = static_cast<short>(seen | bits);
        since = static_cast<short>(since | bits);
        for (short& r : reported)
            r = static_cast<short>(r | bits);
    }
};

/// What went wrong; the first thing only.
struct verdict {
    std::string what; ///< for telling failures apart
    std::string details;
    explicit operator bool() const { return !what.empty(); }
};

class program {
public:
    program(std::uint64_t seed, bool threads, bool prints)
        : dice_(seed), settings_(make_settings(dice_, threads)), prints_(prints) {
        for (std::size_t i = 0; i != settings_.contexts; ++i)
            contexts_.push_back(std::make_unique<asio::io_context>());
        std::size_t n = 1 + dice_.below(3);
        for (std::size_t i = 0; i != n; ++i) {
            kind k = settings_.kinds[dice_.below(settings_.kinds.size())];
            files_.push_back(
                make_file(k, kind_names[static_cast<int>(k)] + ("#" + std::to_string(i))));
            auto s = std::make_unique<slot>();
            s->context = dice_.below(settings_.contexts);
            s->mode = settings_.triggers[dice_.below(settings_.triggers.size())];
            s->about = files_.back().get();
            slots_.push_back(std::move(s));
        }
    }

    std::vector<step> make_steps() {
        std::vector<step> steps;
        for (std::size_t n = 20 + dice_.below(181); n != 0; --n)
            steps.push_back(make_step(dice_, settings_));
        return steps;
    }

    verdict run(const std::vector<step>& steps) {
        observe();
        for (auto& s : slots_)
            begin(*s);
        for (const step& s : steps) {
            if (verdict_)
                break;
            std::lock_guard<std::recursive_mutex> lock(mutex_);
            ++steps_run_;
            perform(s, 0);
        }
        finish();
        return verdict_;
    }

    long steps_run() const { return steps_run_; }
    long waits_completed() const { return completed_; }

private:
    // ---- what is printed and found

    template <class... Parts>
    void print(int depth, const Parts&... parts) {
        if (!prints_ || ++printed_ > 2000)
            return;
        std::ostringstream os;
        os << std::string(static_cast<std::size_t>(2 * depth), ' ');
        (os << ... << parts);
        BOOST_TEST_MESSAGE(os.str());
    }

    void fail(const std::string& what, const std::string& details) {
        if (!verdict_)
            verdict_ = {what, details};
        print(0, "FAILED: ", what, ": ", details);
    }

    std::string describe(const slot& s) const {
        std::ostringstream os;
        os << s.about->name << (s.duplicate.get() != -1 ? " (duplicate)" : "")
           << (s.is_edge() ? " edge" : " level") << ", context " << s.context;
        return os.str();
    }
    std::string describe(const pending& w) const {
        std::ostringstream os;
        os << "wait " << w.number << " ("
           << (w.what == call::wait   ? ""
               : w.what == call::read ? "async_io read, "
                                      : "async_io write, ")
           << (w.is_edge ? "edge, " : "level, ") << w.want << (w.about ? ", " + w.about->name : "")
           << ")";
        return os.str();
    }
    std::string class_of(const char* what, const pending& w, interest flag) const {
        std::ostringstream os;
        os << (w.is_edge ? "edge " : "level ") << what << ": "
           << (w.what == call::wait ? "" : "async_io ") << flag << " on "
           << kind_names[static_cast<int>(w.about->what)];
        return os.str();
    }

    // ---- the oracle

    /// Asks poll(2) about every file, and notes what it says for waits and registrations.
    void observe() {
        ++now_;
        std::vector<::pollfd> fds;
        for (auto& f : files_)
            fds.push_back({f->own, asked, 0});
        ::poll(fds.data(), static_cast<::nfds_t>(fds.size()), 0);
        for (std::size_t i = 0; i != fds.size(); ++i) {
            file& f = *files_[i];
            short was = std::exchange(f.now, fds[i].revents);
            if (f.own.get() == -1)
                f.now = 0;
            f.lately = static_cast<short>(f.lately | f.now);
            short rose = static_cast<short>(f.now & ~was);
            if (rose) {
                print(1, f.name, ": ", bits(f.now));
                note_news(f, rose);
            }
        }
        for (auto& w : pending_)
            if (w->about && !w->invoked)
                w->report(w->about->now);
        for (auto& s : slots_)
            if (s->reg)
                s->report(s->about->now);
    }

    /// A call that succeeded shows what was there, although it may have come and gone since poll(2)
    /// was asked.
    void witness(file& f, short what) {
        if (!f.is_slow())
            return;
        for (auto& w : pending_)
            if (w->about == &f && !w->invoked)
                w->report(what);
        for (auto& s : slots_)
            if (s->about == &f)
                s->report(what);
    }

    void note_news(file& f, short what) {
        f.touched = now_;
        for (std::size_t i = 0; i != flag_count; ++i) {
            if (!(what & f.mask(flags[i].first)))
                continue;
            for (auto& s : slots_)
                if (s->reg && s->about == &f)
                    s->flag[i].news = now_;
            for (auto& w : pending_)
                if (w->about == &f && !w->invoked)
                    w->news[i] = now_;
        }
    }

    /// Data came although there was some already. Only epoll can tell; and TCP may send it later.
    void note_more(file& f, short before) {
        if (test::on_epoll() && !f.is_terminal() && f.what != kind::tcp &&
            (before & f.now & POLLIN))
            note_news(f, POLLIN);
    }

    void consume(slot& s, interest which) {
        for (std::size_t i = 0; i != flag_count; ++i)
            if (which.contains(flags[i].first))
                s.flag[i].news = 0;
    }

    // ---- checks

    void check_completion(pending& w, const error_code& ec, interest told) {
        if (++w.invoked != 1)
            return fail("a handler is invoked twice", describe(w));
        if (ec) {
            if (ec != test::aborted || !w.may_abort)
                fail("an error without a cause: " + ec.message(), describe(w));
            else if (w.at->begun == w.registration)
                w.at->touched = now_; // what it was told is given back
            return;
        }
        ++completed_;
        last_call_.clear();
        if (!w.about) // its registration ended after it had completed
            return;
        // (On two threads the handler, which is invoked already, may have waited for the lock.)
        if (w.is_edge && w.signalled && !settings_.threads && !is_left_out("late_cancel") &&
            w.what == call::wait)
            fail("edge: a wait succeeds although its slot was signalled before", describe(w));
        if (w.what != call::wait)
            return;
        if (told.empty() || !w.want.contains(told))
            fail("a wait is told of what it did not ask for", describe(w));
        for (std::size_t i = 0; i != flag_count; ++i) {
            interest flag = flags[i].first;
            if (!told.contains(flag))
                continue;
            short seen = w.is_edge ? w.reported[i] : w.seen;
            // (A terminal's data come and go while nobody looks.)
            if (!(seen & w.about->mask(flag)) && !w.about->is_terminal())
                fail(class_of("false completion", w, flag),
                     describe(w) + " completes, but poll(2) reported only " + bits(seen));
            if (w.is_edge)
                check_is_news(w, i);
        }
    }

    void check_is_news(pending& w, std::size_t i) {
        slot& s = *w.at;
        flag_state& f = s.flag[i];
        if (s.begun != w.registration)
            return;
        interest flag = flags[i].first;
        bool is_end = w.about->now & (POLLHUP | POLLRDHUP | POLLERR);
        if (f.told && w.begun > f.told && w.about->touched <= f.told_through &&
            s.touched <= f.told_through && !is_end && test::on_epoll() && !w.about->is_slow() &&
            !is_left_out("retold"))
            fail(class_of("told twice", w, flag),
                 describe(w) + " completes, but nothing has happened since a wait was told");
        f.reported = w.since; // it may have completed then, and its handler waited
        f.news = 0;
        f.told = now_;
        // It may have completed before those that began after it.
        for (auto& other : pending_)
            if (other->at == &s && other->begun > w.begun && other->news[i] <= other->begun)
                other->news[i] = 0;
        f.told_through = std::min(w.earliest, w.rest);
    }

    /// The flags of a pending wait that it should have been told of by now.
    interest overdue(const pending& w) const {
        interest late;
        if (!w.about || w.invoked || w.about->differs)
            return late;
        for (std::size_t i = 0; i != flag_count; ++i) {
            interest flag = flags[i].first;
            short there = static_cast<short>(w.about->now & w.about->mask(flag));
            if (!there || !w.want.contains(flag))
                continue;
            // A callable reads or writes: anything else that is asked for may not be for it.
            if (w.what == call::read && flag != interest::readable)
                continue;
            if (w.what == call::write && flag != interest::writable)
                continue;
            // A terminal gets room while the other end reads, and wakes nobody until more is read.
            if (flag == interest::writable && w.about->is_terminal() && w.about->wrote)
                continue;
            if (w.is_edge && !w.news[i] && !(there & w.about->ends(flag)))
                continue;
            late |= flag;
        }
        return late;
    }

    // ---- running

    /// Runs until nothing moves any more.
    void run_to_rest() {
        long most = 5000;
        last_call_.clear();
        int quiet = 0;
        while (quiet != 3 && !verdict_) {
            std::size_t n = 0;
            for (auto& io : contexts_) {
                if (io->stopped())
                    io->restart();
                auto work = asio::make_work_guard(*io); // so that the reactor is polled
                while (io->poll_one() != 0) {
                    ++n;
                    if (--most == 0 && turns_by_itself_)
                        return;
                    if (most == 0)
                        return fail("the loop does not come to rest" +
                                        (last_call_.empty() ? "" : ": " + last_call_),
                                    spinning());
                    if (verdict_)
                        return;
                }
            }
            quiet = n == 0 ? quiet + 1 : 0;
        }
    }

    std::string spinning() const {
        std::string s = "pending:";
        for (auto& w : pending_)
            if (!w->invoked)
                s += " " + describe(*w);
        return s;
    }

    /// Runs what is ready, but not until nothing is left: see turns_by_itself_.
    static void poll_some(asio::io_context& io) {
        for (int n = 0; n != 200 && io.poll_one() != 0; ++n) {}
    }

    /// The same on two threads. (The model has a lock, which every handler and callable takes.)
    void run_on_two_threads() {
        auto run = [this] {
            for (int i = 0; i != 20; ++i)
                for (auto& io : contexts_) {
                    auto work = asio::make_work_guard(*io);
                    poll_some(*io);
                }
        };
        std::thread other(run);
        run();
        other.join();
    }

    void leave_rest() {
        for (auto& w : pending_)
            if (std::exchange(w->was_pending, false)) {
                w->earliest = now_;
                w->since = w->about ? w->about->now : short(0);
            }
    }

    bool is_anything_overdue() const {
        return std::any_of(pending_.begin(), pending_.end(), [&](const auto& w) {
            return !w->invoked && (w->must_end || !overdue(*w).empty());
        });
    }

    /// Runs until nothing is left to do, and checks that nothing was left out.
    void settle() {
        observe();
        leave_rest();
        if (settings_.threads) {
            for (auto& io : contexts_)
                if (io->stopped())
                    io->restart();
            mutex_.unlock();
            run_on_two_threads();
            mutex_.lock();
        }
        run_to_rest();
        observe();
        // The kernel's own threads may take a while, io_uring's and terminals' above all.
        auto deadline = clock_type::now() + std::chrono::milliseconds(test::on_epoll() ? 20 : 100);
        for (int i = 0; !verdict_ && is_anything_overdue(); ++i) {
            if (i > 20 && clock_type::now() > deadline)
                break;
            std::this_thread::yield();
            run_to_rest();
            observe();
        }
        for (auto& w : pending_) {
            if (verdict_ || turns_by_itself_)
                break;
            if (w->invoked)
                continue;
            interest late = overdue(*w);
            if (w->must_end)
                fail(std::string(w->is_edge ? "edge" : "level") + ": a cancelled wait does not end",
                     describe(*w));
            else if (!late.empty()) {
                interest first;
                for (auto& [flag, name] : flags)
                    if (first.empty() && late.contains(flag))
                        first = flag;
                fail(class_of("hangs", *w, first),
                     describe(*w) + " is pending, and poll(2) reports " + bits(w->about->now));
            }
            w->was_pending = true;
            if (w->at->begun == w->registration)
                w->at->used |= w->want;
        }
        rest_ = now_;
        for (auto& f : files_)
            f->lately = f->now;
        pending_.erase(std::remove_if(pending_.begin(), pending_.end(),
                                      [](auto& w) { return w->invoked != 0; }),
                       pending_.end());
    }

    /// Ends everything; every handler has to come.
    void finish() {
        std::lock_guard<std::recursive_mutex> lock(mutex_);
        if (!verdict_)
            settle();
        settings_.handlers_act = false;
        for (auto& s : slots_)
            if (s->reg) {
                end_waits(*s);
                s->reg.reset();
            }
        bool had_failed = bool(verdict_);
        if (!had_failed)
            settle();
        else
            for (auto& io : contexts_) {
                io->restart();
                for (int i = 0; i != 200 && io->poll_one() != 0; ++i) {}
            }
    }

    // ---- steps

    using wait_ptr = std::shared_ptr<pending>;

    auto handler(const wait_ptr& w) {
        struct completion {
            program* self;
            wait_ptr w;
            void operator()(error_code ec) { self->complete(*w, ec, w->want, nullptr); }
            void operator()(error_code ec, moor::ready_event e) {
                self->complete(*w, ec, e.ready(), &e);
            }
        };
        return asio::bind_cancellation_slot(w->signal.slot(), completion{this, w});
    }
    auto io_handler(const wait_ptr& w) {
        return asio::bind_cancellation_slot(w->signal.slot(), [this, w](error_code ec, int) {
            // A callable's own error is a result as any other.
            complete(*w, ec == w->own_error ? error_code() : ec, w->want, nullptr);
        });
    }

    /// A callable that reads or writes once or to the end, and says so in one of the ways there
    /// are. Nothing that it says is untrue.
    auto transfer(slot& s, interest want, int number, bool writes, std::uint32_t choice) {
        return [this, at = &s, registration = s.begun, want, number, writes,
                choice](error_code& ec) -> moor::drainable<int> {
            std::lock_guard<std::recursive_mutex> lock(mutex_);
            if (at->begun != registration) {
                // On two threads the callable may have waited for the lock meanwhile.
                if (!settings_.threads)
                    fail("a callable is called after its registration has ended", "");
                ec = test::aborted;
                return {};
            }
            observe();
            file& f = *at->about;
            dice d(choice);
            std::size_t n = 8 + (d.one_in(3) ? d.below(12) : d.below(8000));
            if (f.what == kind::eventfd)
                n = 8;
            ::ssize_t r = writes ? put_some(f.own, f.what, n) : get_some(f.own, n);
            if (r > 0)
                witness(f, writes ? POLLOUT : POLLIN);
            if (!writes && r > 0 && d.one_in(3) && f.what != kind::eventfd) // on to would-block
                while (r > 0)
                    r = get_some(f.own, n);
            if (r < 0)
                ec = test::last_error();
            if (writes) {
                f.wrote = true;
                f.touched = now_;
            } else {
                touch_by_own_read(f);
            }
            observe();
            short there = static_cast<short>(
                f.now & f.mask(writes ? interest::writable : interest::readable));
            bool blocks = ec == test::would_block;
            std::ostringstream called;
            called << "async_io " << want << " on " << kind_names[static_cast<int>(f.what)];
            last_call_ = called.str();
            if (blocks && there)
                f.differs = true;
            // A write to a full terminal whose other end has gone wakes the writer in vain.
            if (blocks && writes && f.is_terminal() && (f.now & POLLHUP))
                turns_by_itself_ = true;
            print(3, "callable of ", number ? "wait " + std::to_string(number) : "try_io", ": ",
                  r < 0 ? ec.message() : std::to_string(r));
            interest direction = writes ? interest::writable : interest::readable;
            consume(*at, want);
            for (auto& w : pending_)
                if (w->number == number) {
                    w->news = {};
                    w->own_error = ec;
                }
            bool is_clear = !(f.now & f.mask(direction)) && want == direction;
            int value = static_cast<int>(r);
            if (r > 0 && d.one_in(2) && is_clear && !is_left_out("drained"))
                return moor::drained(value);
            if (r > 0 && d.one_in(2) && f.what != kind::eventfd && !is_left_out("short_transfer"))
                return moor::short_transfer(value, writes ? std::min<std::size_t>(n, 4096) : n);
            return {value, false, false};
        };
    }

    slot& pick(const step& s) { return *slots_[s.slot % slots_.size()]; }

    void begin(slot& s) {
        error_code ec;
        s.reg = std::make_unique<moor::registration>(*contexts_[s.context]);
        s.reg->register_handle(s.number(), s.mode, ec);
        ++now_;
        s.begun = s.touched = now_;
        s.used = interest();
        s.events.clear();
        for (std::size_t i = 0; i != flag_count; ++i) {
            s.flag[i] = flag_state();
            s.flag[i].reported = s.about->now;
            if (s.about->now & s.about->mask(flags[i].first))
                s.flag[i].news = now_;
        }
        if (ec)
            fail("a handle can't be registered: " + ec.message(), describe(s));
    }

    /// Its waits end with the registration.
    void end_waits(slot& s) {
        for_waits_of(s, [](pending& w) {
            w.may_abort = w.must_end = true;
            w.about = nullptr;
        });
    }

    void perform(const step& st, int depth) {
        observe();
        slot& s = pick(st);
        file& f = *s.about;
        dice d(st.choice);
        print(depth, act_names[static_cast<int>(st.what)], " on ", describe(s));
        short before = f.now;
        switch (st.what) {
        case act::peer_send:
            if (f.peer.get() != -1 && f.what != kind::pipe_writer) {
                ::ssize_t sent =
                    put_some(f.peer, f.what, d.one_in(4) ? 1 + d.below(3000) : 1 + d.below(12));
                f.touched = now_;
                observe();
                if (sent > 0)
                    note_more(f, before);
            }
            break;
        case act::peer_read:
            get_some(f.peer, 1 + d.below(3000));
            f.touched = now_;
            break;
        case act::peer_drain:
            if (f.peer.get() != -1)
                test::drain(f.peer);
            f.touched = now_;
            break;
        case act::peer_half_close:
            if (f.is_socket())
                ::shutdown(f.peer, SHUT_WR);
            f.touched = now_;
            break;
        case act::peer_close:
            if (f.what != kind::eventfd)
                f.peer.close();
            f.touched = now_;
            break;
        case act::peer_reset:
            if (f.what == kind::tcp && f.peer.get() != -1) {
                ::linger hard{1, 0};
                ::setsockopt(f.peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
                f.peer.close();
            }
            f.touched = now_;
            break;
        case act::peer_urgent:
            if (f.what == kind::tcp && f.peer.get() != -1)
                ::send(f.peer, "!", 1, MSG_OOB | MSG_NOSIGNAL | MSG_DONTWAIT);
            f.touched = now_;
            break;
        case act::peer_return:
            // The way back in, although the name is gone.
            if (f.what == kind::fifo && f.peer.get() == -1)
                f.peer = unique_fd(::open(("/proc/self/fd/" + std::to_string(f.own.get())).c_str(),
                                          O_WRONLY | O_NONBLOCK | O_CLOEXEC));
            f.touched = now_;
            break;
        case act::read_some:
            if (get_some(f.own, 1 + d.below(16)) > 0)
                witness(f, POLLIN);
            touch_by_own_read(f);
            break;
        case act::drain_all:
            if (test::drain(f.own) != 0)
                witness(f, POLLIN);
            touch_by_own_read(f);
            break;
        case act::fill_up:
            if (f.what != kind::eventfd && f.what != kind::tcp) {
                for (int i = 0; i != 500 && put_some(f.own, f.what, 4096) > 0; ++i)
                    witness(f, POLLOUT);
                f.wrote = true;
                f.touched = now_;
            }
            break;
        case act::own_shutdown:
            if (f.is_socket() && d.one_in(3))
                ::shutdown(f.own, d.one_in(3) ? SHUT_RD : SHUT_WR);
            f.wrote = true;
            f.touched = now_;
            break;
        case act::wait: {
            interest want;
            for (std::uint32_t n = 1 + d.below(3); n != 0; --n)
                want |= settings_.interests[d.below(settings_.interests.size())];
            start(s, st, want, call::wait, depth,
                  [&](auto& w) { s.reg->async_wait(want, handler(w)); });
            break;
        }
        case act::wait_readable:
            if (!is_left_out("readable"))
                start(s, st, interest::readable, call::wait, depth,
                      [&](auto& w) { s.reg->async_wait_readable(handler(w)); });
            break;
        case act::wait_writable:
            if (!is_left_out("writable"))
                start(s, st, interest::writable, call::wait, depth,
                      [&](auto& w) { s.reg->async_wait_writable(handler(w)); });
            break;
        case act::io_read: {
            interest want = interest::readable;
            if (d.one_in(6) && !is_left_out("io_both"))
                want |= interest::writable;
            start(s, st, want, call::read, depth, [&](auto& w) {
                s.reg->async_io(want, transfer(s, want, w->number, false, d.roll()), io_handler(w));
            });
            break;
        }
        case act::io_write:
            start(s, st, interest::writable, call::write, depth, [&](auto& w) {
                s.reg->async_io(interest::writable,
                                transfer(s, interest::writable, w->number, true, d.roll()),
                                io_handler(w));
            });
            break;
        case act::try_read:
            (void)s.reg->try_io(interest::readable,
                                transfer(s, interest::readable, 0, false, d.roll()));
            break;
        case act::try_write:
            (void)s.reg->try_io(interest::writable,
                                transfer(s, interest::writable, 0, true, d.roll()));
            break;
        case act::query:
            check_query(s);
            break;
        case act::clear:
            if (!s.events.empty()) {
                auto& [event, when] = s.events[d.below(s.events.size())];
                print(depth + 1, "of ", event.ready());
                s.reg->clear(event);
                interest cleared = event.ready();
                if (cleared.is_error()) // which readers and writers are told of as well
                    cleared |= interest::readable | interest::writable;
                for (std::size_t i = 0; i != flag_count; ++i)
                    if (cleared.contains(flags[i].first) && s.flag[i].news <= when)
                        s.flag[i].news = 0;
            }
            break;
        case act::cancel:
            s.reg->cancel();
            s.touched = now_;
            for_waits_of(s, [](pending& w) { w.may_abort = w.must_end = true; });
            break;
        case act::cancel_direction: {
            bool reads = d.one_in(2);
            s.reg->cancel(reads ? moor::direction::read : moor::direction::write);
            s.touched = now_;
            interest sure = reads ? interest::readable : interest::writable;
            for_waits_of(s, [&](pending& w) {
                w.may_abort = true;
                w.must_end = w.must_end || w.want.contains(sure);
            });
            break;
        }
        case act::cancel_slot: {
            std::vector<pending*> those;
            for_waits_of(s, [&](pending& w) { those.push_back(&w); });
            if (those.empty())
                break;
            pending& w = *those[d.below(those.size())];
            print(depth + 1, describe(w));
            w.may_abort = w.must_end = w.signalled = true;
            s.touched = now_;
            w.signal.emit(asio::cancellation_type::total);
            break;
        }
        case act::reregister:
            end_waits(s);
            if (d.one_in(2))
                s.reg->deregister();
            else
                s.reg.reset();
            if (d.one_in(2))
                s.mode = settings_.triggers[d.below(settings_.triggers.size())];
            begin(s);
            break;
        case act::renumber:
            renumber(s, d);
            break;
        case act::duplicate:
            register_duplicate(s, d);
            break;
        case act::run_idle:
            if (depth == 0)
                settle();
            else if (nesting_ < 2) {
                ++nesting_;
                run_some(50);
                --nesting_;
            }
            break;
        case act::run_some:
            if (nesting_ < 2) {
                if (depth == 0)
                    leave_rest();
                ++nesting_;
                run_some(1 + d.below(6));
                --nesting_;
            }
            break;
        case act::count:
            break;
        }
        observe();
    }

    void run_some(std::uint32_t handlers) {
        for (auto& io : contexts_) {
            if (io->stopped())
                io->restart();
            auto work = asio::make_work_guard(*io);
            for (std::uint32_t i = 0; i != handlers && io->poll_one() != 0; ++i) {}
        }
    }

    /// Where reading makes room, the kernel may move on what was held back.
    void touch_by_own_read(file& f) {
        if (f.is_slow() || f.what == kind::eventfd)
            f.touched = now_;
    }

    template <class F>
    void for_waits_of(slot& s, F f) {
        for (auto& w : pending_)
            if (w->at == &s && w->registration == s.begun && !w->invoked)
                f(*w);
    }

    void check_query(slot& s) {
        error_code ec;
        short before = s.about->now;
        moor::readiness r = s.reg->query(ec);
        observe();
        short after = s.about->now;
        if (before != after || is_left_out("query"))
            return;
        if (ec)
            return fail("query fails: " + ec.message(), describe(s));
        bool agrees =
            r.is_readable() == bool(after & POLLIN) && r.is_writable() == bool(after & POLLOUT) &&
            r.is_priority() == bool(after & POLLPRI) && r.is_error() == bool(after & POLLERR) &&
            r.is_read_closed() >= bool(after & POLLRDHUP);
        if (!agrees) {
            std::ostringstream os;
            os << describe(s) << ": " << r << ", and poll(2) says " << bits(after);
            fail("query does not agree with poll(2)", os.str());
        }
    }

    /// Begins a wait, if there are not too many.
    template <class F>
    void start(slot& s, const step& st, interest want, call what, int depth, F initiate) {
        int there = 0;
        for_waits_of(s, [&](pending&) { ++there; });
        if (there >= 5)
            return;
        auto w = std::make_shared<pending>();
        w->number = ++number_;
        w->at = &s;
        w->registration = s.begun;
        w->about = s.about;
        w->want = want;
        w->what = what;
        w->is_edge = s.is_edge();
        w->script = st.script;
        w->depth = depth + 1;
        w->begun = w->earliest = ++now_;
        w->seen = s.about->now;
        w->since = s.about->lately;
        w->rest = rest_;
        if (!s.used.contains(want))
            s.touched = now_; // the reactor may be asked for more than before, and report again
        for (std::size_t i = 0; i != flag_count; ++i) {
            w->reported[i] = s.flag[i].reported;
            w->news[i] = s.flag[i].news;
        }
        pending_.push_back(w);
        print(depth + 1, describe(*w), " begins", w->script ? ", its handler acts" : "");
        initiate(w);
    }

    void complete(pending& w, error_code ec, interest told, const moor::ready_event* event) {
        std::lock_guard<std::recursive_mutex> lock(mutex_);
        observe();
        print(w.depth, describe(w), " completes: ", ec ? ec.message() : "success, ",
              ec ? interest() : told);
        slot& s = *w.at;
        check_completion(w, ec, told);
        if (!ec && event && w.about && s.begun == w.registration)
            s.events.emplace_back(*event, now_);
        observe(); // what is there still counts for the next wait
        if (!settings_.handlers_act || w.script == 0 || w.depth > 3 || verdict_)
            return;
        dice d(w.script);
        for (std::uint32_t n = 1 + d.below(4); n != 0 && !verdict_; --n) {
            step st = make_step(d, settings_);
            if (d.one_in(2)) // often about the same file
                for (std::size_t i = 0; i != slots_.size(); ++i)
                    if (slots_[i].get() == &s)
                        st.slot = static_cast<std::uint32_t>(i);
            if (settings_.threads && (st.what == act::run_idle || st.what == act::run_some))
                continue;
            perform(st, w.depth);
        }
    }

    /// The owner closes the number and has another file under it, in one of the orders that there
    /// are; or the same file again, of which there was a duplicate.
    void renumber(slot& s, dice& d) {
        if (s.duplicate.get() != -1)
            return;
        file& old = *s.about;
        std::vector<slot*> those;
        for (auto& other : slots_)
            if (other->about == &old) {
                if (other->duplicate.get() != -1)
                    return; // one that goes on with the old file: not of interest here
                those.push_back(other.get());
            }
        bool same_file = d.one_in(4) && !is_left_out("same_file");
        bool keeps = same_file || d.one_in(3);
        bool abandons_first = d.one_in(2);
        // Two eventfds can't be told apart, so their owners have to say.
        bool deregisters = d.one_in(4) && !same_file && old.what != kind::eventfd &&
                           !is_left_out("number_taken_over");
        int number = old.own.get();
        unique_fd kept;
        if (keeps)
            kept = unique_fd(::fcntl(old.own, F_DUPFD_CLOEXEC, 100));
        auto leave = [&] {
            for (slot* each : those) {
                end_waits(*each);
                if (deregisters)
                    each->reg->deregister();
                else
                    each->reg->abandon();
            }
        };
        print(2, same_file ? "the same file again" : "another file",
              keeps ? ", the old one is kept" : "",
              abandons_first ? ", abandoned before" : ", abandoned after",
              deregisters ? " (deregistered)" : "");
        if (abandons_first)
            leave();
        std::unique_ptr<file> next;
        if (same_file) {
            old.own.close();
            BOOST_REQUIRE_EQUAL(::dup3(kept, number, O_CLOEXEC), number);
            old.own = unique_fd(number);
            kept.close();
        } else {
            kind k = settings_.kinds[d.below(settings_.kinds.size())];
            next = make_file(k, kind_names[static_cast<int>(k)] +
                                    ("#" + std::to_string(files_.size())));
            BOOST_REQUIRE_EQUAL(::dup3(next->own, number, O_CLOEXEC), number);
            (void)old.own.release();
            next->own = unique_fd(number);
        }
        if (!abandons_first)
            leave();
        if (next) {
            if (keeps) // it goes on, and somebody may write to it
                strays_.emplace_back(std::move(kept), std::move(old.peer));
            else
                old.peer.close();
            for (slot* each : those)
                each->about = next.get();
            files_.push_back(std::move(next));
        }
        for (auto& [fd, peer] : strays_)
            if (peer.get() != -1 && d.one_in(2))
                (void)!::write(peer, "x", 1);
        observe();
        for (slot* each : those)
            begin(*each);
    }

    /// Another registration of the file: of the same number in another context, or of a duplicate.
    void register_duplicate(slot& s, dice& d) {
        if (slots_.size() >= 6)
            return;
        auto made = std::make_unique<slot>();
        made->about = s.about;
        made->context = d.below(settings_.contexts);
        made->mode = settings_.triggers[d.below(settings_.triggers.size())];
        bool is_taken = std::any_of(slots_.begin(), slots_.end(), [&](auto& o) {
            return o->context == made->context && o->number() == s.about->own.get();
        });
        if (is_taken && d.one_in(4)) {
            error_code ec;
            moor::registration second(*contexts_[made->context]);
            second.register_handle(s.about->own, made->mode, ec);
            if (ec != test::already_registered)
                fail("a number can be registered twice", describe(s));
            return;
        }
        if (is_taken || d.one_in(2))
            made->duplicate = unique_fd(::fcntl(s.about->own, F_DUPFD_CLOEXEC, 100));
        print(2, describe(*made));
        begin(*made);
        slots_.push_back(std::move(made));
    }

    dice dice_;
    settings settings_;
    bool prints_;
    int printed_ = 0;
    // Handles are closed after the contexts and registrations that know them.
    std::vector<std::pair<unique_fd, unique_fd>> strays_;
    std::vector<std::unique_ptr<file>> files_;
    std::vector<std::unique_ptr<asio::io_context>> contexts_;
    std::vector<std::unique_ptr<slot>> slots_;
    std::vector<wait_ptr> pending_;
    std::recursive_mutex mutex_;
    long now_ = 0;
    long rest_ = 0;
    bool turns_by_itself_ = false;
    int number_ = 0;
    int nesting_ = 0;
    long steps_run_ = 0;
    long completed_ = 0;
    std::string last_call_; ///< of a callable, since a wait completed
    verdict verdict_;
};

// ---- many programs ------------------------------------------------------------------------------

verdict run_steps(std::uint64_t seed, bool threads, const std::vector<step>& steps, bool prints) {
    program p(seed, threads, prints);
    (void)p.make_steps(); // which rolls the dice that what follows goes on with
    return p.run(steps);
}

/// Leaves out steps as long as the program fails in the same way.
std::vector<step> shrink(std::uint64_t seed, bool threads, std::vector<step> steps,
                         const verdict& found) {
    auto deadline = clock_type::now() + std::chrono::seconds(10);
    auto still_fails = [&](const std::vector<step>& fewer) {
        return clock_type::now() < deadline &&
               run_steps(seed, threads, fewer, false).what == found.what;
    };
    for (std::size_t n = steps.size(); n != 0; n /= 2) // so many at a time
        for (std::size_t i = 0; i < steps.size();) {
            std::vector<step> fewer = steps;
            auto from = fewer.begin() + static_cast<std::ptrdiff_t>(i);
            fewer.erase(from,
                        fewer.begin() + static_cast<std::ptrdiff_t>(std::min(i + n, fewer.size())));
            if (still_fails(fewer))
                steps = fewer;
            else
                i += n;
        }
    for (step& s : steps)
        if (std::uint32_t script = std::exchange(s.script, 0); script && !still_fails(steps))
            s.script = script;
    return steps;
}

void run_programs(const char* name, bool threads) {
    ::signal(SIGPIPE, SIG_IGN);
    if (std::uint64_t seed = test::from_environment("MOOR_TEST_SEED", 0)) {
        program p(seed, threads, true);
        verdict v = p.run(p.make_steps());
        BOOST_CHECK_MESSAGE(!v, v.what << ": " << v.details);
        return;
    }
    auto limit = std::chrono::seconds(test::from_environment("MOOR_TEST_SECONDS", 2));
    const std::uint64_t most =
        test::from_environment("MOOR_TEST_FAILURES", std::getenv("MOOR_TEST_SECONDS") ? 1000 : 1);
    const char* without = std::getenv("MOOR_TEST_WITHOUT");
    std::map<std::string, long> found;
    long programs = 0, steps_run = 0, completed = 0;
    auto begun = clock_type::now();
    auto shrinking = clock_type::duration::zero();
    // Always the same programs, unless a time is given.
    std::uint64_t seed = std::getenv("MOOR_TEST_SECONDS") ? std::random_device()() : 1;
    for (; clock_type::now() - begun - shrinking < limit; ++seed) {
        program p(seed, threads, false);
        std::vector<step> steps = p.make_steps();
        verdict v = p.run(steps);
        ++programs;
        steps_run += p.steps_run();
        completed += p.waits_completed();
        if (!v || ++found[v.what] != 1)
            continue;
        auto now = clock_type::now();
        BOOST_ERROR(
            v.what << "\n  " << v.details << "\n  seed " << seed << " on " << test::backend()
                   << ", after "
                   << std::chrono::duration_cast<std::chrono::milliseconds>(now - begun - shrinking)
                          .count()
                   << " ms; to see it again: " << (without ? "MOOR_TEST_WITHOUT=" : "")
                   << (without ? without : "") << (without ? " " : "") << "MOOR_TEST_SEED=" << seed
                   << " promise." << test::backend() << " --run_test=promise/" << name
                   << " --log_level=message");
        std::vector<step> fewer = shrink(seed, threads, std::move(steps), v);
        BOOST_TEST_MESSAGE("  shrunk to " << fewer.size() << " steps:");
        run_steps(seed, threads, fewer, true);
        shrinking += clock_type::now() - now;
        if (found.size() >= most)
            break;
    }
    for (auto& [what, times] : found)
        BOOST_TEST_MESSAGE("found " << times << " times: " << what);
    BOOST_TEST_MESSAGE(programs << " programs, " << steps_run << " steps, " << completed
                                << " waits completed");
    BOOST_TEST(completed > 0);
}

} // namespace

BOOST_AUTO_TEST_SUITE(promise)

BOOST_AUTO_TEST_CASE(random_programs) { run_programs("random_programs", false); }

BOOST_AUTO_TEST_CASE(random_programs_on_two_threads) {
    run_programs("random_programs_on_two_threads", true);
}

BOOST_AUTO_TEST_SUITE_END()
