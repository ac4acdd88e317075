// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The promise, as a random program checks it: what poll(2) says of each file, and which waits have
// to complete for it, or may.
//
// The model asks poll(2) about every file before and after each step, each handler and each call of
// a callable.
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
// A file that tells each change to one poll(2) only: each change is news of priority and error, for
// both triggers, until a wait was told of one of them. Such a wait may complete without a change,
// and with several threads a change may be lost. Another open file is the oracle. All: a handler is
// invoked once; operation_aborted has a cause, and a cancelled wait ends; a wait whose slot was
// signalled before its handler is invoked is aborted (edge); query() agrees with poll(2); the loops
// come to rest.

#ifndef MOOR_TEST_SUPPORT_PROMISE_MODEL_HPP
#define MOOR_TEST_SUPPORT_PROMISE_MODEL_HPP

#include "support/context.hpp"
#include "support/promise_files.hpp"
#include "support/promise_steps.hpp"
#include "support/vocabulary.hpp"

#include <moor/readiness.hpp>
#include <moor/registration.hpp>

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>

namespace test {
namespace promise {

namespace asio = boost::asio;

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
    bool may_find_number_closed = false;
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

/// The files, registrations and waits of a program; what poll(2) says of them, and what follows.
class model {
public:
    using printer = std::function<void(const std::string&)>;

    /// Prints each step, if there is a printer.
    model(const settings& s, printer p) : settings_(s), printer_(std::move(p)) {}

    long waits_completed() const { return completed_; }

protected:
    using wait_ptr = std::shared_ptr<pending>;

    // ---- what is printed and found

    template <class... Parts>
    void print(int depth, const Parts&... parts) {
        if (!printer_ || ++printed_ > 2000)
            return;
        std::ostringstream os;
        os << std::string(static_cast<std::size_t>(2 * depth), ' ');
        (os << ... << parts);
        printer_(os.str());
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
            fds.push_back({f->tells_once() ? f->oracle : f->own, asked, 0});
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
        // Until the loops have run, a request of an earlier registration, which is cancelled there,
        // may take a change.
        auto hears = [&](const slot& s) {
            return s.about == &f && !(test::on_io_uring() && f.tells_once() && s.begun > rest_);
        };
        for (std::size_t i = 0; i != flag_count; ++i) {
            if (!(what & f.mask(flags[i].first)))
                continue;
            for (auto& s : slots_)
                if (s->reg && hears(*s))
                    s->flag[i].news = now_;
            for (auto& w : pending_)
                if (w->about == &f && !w->invoked && hears(*w->at))
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

    /// A wait was told.
    void consume(const pending& w, std::size_t i) {
        if (w.at->begun != w.registration)
            return;
        w.at->flag[i].news = 0;
        // It may have completed before those that began after it.
        for (auto& other : pending_)
            if (other->at == w.at && other->begun > w.begun && other->news[i] <= other->begun)
                other->news[i] = 0;
    }

    /// A cancelled wait may have completed before: what it was told is news again, whether others
    /// were told of it or not.
    void give_back(const pending& w) {
        w.at->touched = now_;
        for (std::size_t i = 0; w.is_edge && i != flag_count; ++i)
            if (w.want.contains(flags[i].first))
                w.at->flag[i].reported = static_cast<short>(w.at->flag[i].reported | w.reported[i]);
    }

    /// A change is a priority event and an error at once, and writers are told of an error.
    void consume_change(const pending& w, interest told) {
        for (std::size_t i = 0; i != flag_count; ++i) {
            interest flag = flags[i].first;
            if (told.contains(flag) ||
                (w.about->tells_once(flag) && (told.is_priority() || told.is_error())) ||
                (flag == interest::error && told.is_writable()))
                consume(w, i);
        }
    }

    /// Where reading makes room, the kernel may move on what was held back.
    void touch_by_own_read(file& f) {
        if (f.is_slow() || f.what == kind::eventfd || f.what == kind::queue)
            f.touched = now_;
    }

    template <class F>
    void for_waits_of(slot& s, F f) {
        for (auto& w : pending_)
            if (w->at == &s && w->registration == s.begun && !w->invoked)
                f(*w);
    }

    // ---- registrations

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

    void leave_rest() {
        for (auto& w : pending_)
            if (std::exchange(w->was_pending, false)) {
                w->earliest = now_;
                w->since = w->about ? w->about->now : short(0);
            }
    }

    // ---- checks

    void check_completion(pending& w, const error_code& ec, interest told) {
        if (++w.invoked != 1)
            return fail("a handler is invoked twice", describe(w));
        if (ec) {
            const bool is_closed = ec == test::bad_descriptor && w.may_find_number_closed;
            if (!is_closed && (ec != test::aborted || !w.may_abort))
                fail("an error without a cause: " + ec.message(), describe(w));
            else if (w.at->begun == w.registration)
                give_back(w);
            return;
        }
        ++completed_;
        if (!w.about) // its registration ended after it had completed
            return;
        // (On several threads the handler, which is invoked already, may have waited for the lock.)
        if (w.is_edge && w.signalled && settings_.threads == 1 && !is_left_out("late_cancel") &&
            w.what == call::wait)
            fail("edge: a wait succeeds although its slot was signalled before", describe(w));
        if (w.what != call::wait)
            return;
        if (told.empty() || !w.want.contains(told))
            fail("a wait is told of what it did not ask for", describe(w));
        if (w.about->tells_once()) // a wait may be told of more than there was
            return consume_change(w, told);
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
        consume(w, i);
        f.told = now_;
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
            if (!w.want.contains(flag))
                continue;
            if (w.about->tells_once(flag)) {
                // (A change that comes while another thread arms a waker may be lost. And where the
                // set tells something else of it, only who waits already is told of an error.)
                const bool is_sure =
                    flag != interest::error || test::on_epoll() || w.news[i] > w.begun;
                if (w.news[i] && is_sure && w.what == call::wait && settings_.threads == 1)
                    late |= flag;
                continue;
            }
            if (!there)
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

    bool is_anything_overdue() const {
        return std::any_of(pending_.begin(), pending_.end(), [&](const auto& w) {
            return !w->invoked && (w->must_end || !overdue(*w).empty());
        });
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

    settings settings_;
    // Handles are closed after the contexts and registrations that know them.
    std::vector<std::pair<unique_fd, unique_fd>> strays_;
    std::vector<std::unique_ptr<file>> files_;
    std::vector<std::unique_ptr<asio::io_context>> contexts_;
    std::vector<std::unique_ptr<slot>> slots_;
    std::vector<wait_ptr> pending_;
    long now_ = 0;
    long rest_ = 0;
    verdict verdict_;

private:
    printer printer_;
    int printed_ = 0;
    long completed_ = 0;
};

} // namespace promise
} // namespace test

#endif
