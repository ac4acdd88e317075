//
// moor/detail/use_checks.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What a program is told of its mistakes if it is compiled with MOOR_CHECK_USE; see misuse.hpp.
// Without the macro, all of it is empty. Mistakes that take time, a wait that is not told and a
// call that does not return, are found by a thread of Moor's own, since the loop may be blocked.
//

#ifndef MOOR_DETAIL_USE_CHECKS_HPP
#define MOOR_DETAIL_USE_CHECKS_HPP

#include <moor/detail/config.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/reactor_base.hpp>
#include <moor/detail/readiness_word.hpp>
#include <moor/detail/scheduled_io_host.hpp>
#include <moor/misuse.hpp>
#include <moor/readiness.hpp>

#include <boost/assert.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>

#if defined(MOOR_DETAIL_DEFINES)
#include <sstream>
#endif
#if defined(MOOR_CHECK_USE)
#include <algorithm>
#include <map>
#include <mutex>
#include <thread>

#include <pthread.h>
#include <signal.h>
#endif

namespace moor {
namespace detail {

#if defined(MOOR_CHECK_USE)
inline constexpr bool checks_use = true;
#else
inline constexpr bool checks_use = false;
#endif

/// A mistake that was found, with its texts.
struct misuse_report {
    misuse::kind what;
    int handle;
    std::string name;
    std::string message;

    /// Not under a lock, except within a `deferred_reports`.
    void deliver() const noexcept;
    void deliver_now() const noexcept {
        current_misuse_handler.load()(misuse{what, handle, name.c_str(), message.c_str()});
    }
};

/// Keeps the reports of this thread until its scope ends: constructed before a lock is taken, under
/// which states are registered.
template <bool Checks>
class deferred_reports {};

#if defined(MOOR_CHECK_USE) || defined(MOOR_DETAIL_DEFINES) // it costs time to compile

template <>
class deferred_reports<true> {
public:
    deferred_reports() noexcept : outer_(std::exchange(current(), this)) {}
    deferred_reports(const deferred_reports&) = delete;
    deferred_reports& operator=(const deferred_reports&) = delete;
    ~deferred_reports() {
        current() = outer_;
        for (const misuse_report& r : reports_)
            r.deliver();
    }

    static deferred_reports*& current() noexcept {
        thread_local deferred_reports* d = nullptr;
        return d;
    }
    void keep(const misuse_report& r) { reports_.push_back(r); }

private:
    deferred_reports* outer_;
    std::vector<misuse_report> reports_;
};

#endif

std::string text_of(interest i);

/// Delivers the report that `make` returns, if there is memory for it.
template <class F>
void report_misuse(F make) noexcept {
    BOOST_TRY { make().deliver(); }
    BOOST_CATCH(...) {}
    BOOST_CATCH_END
}

#if defined(MOOR_CHECK_USE)

inline std::string text_of_limit() {
    const auto limit = std::chrono::milliseconds(1);
    return std::to_string(misuse_limit.load() / limit) + " ms";
}

/// What is watched for mistakes that take time.
class watched {
public:
    /// Under the watch's lock.
    virtual void look(std::vector<misuse_report>& reports) = 0;

protected:
    ~watched() = default;
};

/// The thread that looks at everything that is watched, four times within the time limit.
class use_watch {
public:
    /// Never destroyed: contexts may be, behind main().
    static use_watch& instance() {
        static use_watch* watch = new use_watch;
        return *watch;
    }

    void add_service(watched& w) { add(services_, w); }
    void add_call(watched& w) { add(calls_, w); }

    /// Nobody looks at it any more.
    void remove_service(watched& w) noexcept { remove(services_, w); }
    void remove_call(watched& w) noexcept { remove(calls_, w); }

private:
    using list = std::vector<watched*>;

    use_watch() {
        ::pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                         [] {
                             instance().is_running_ = false;
                             instance().calls_.clear();    // of threads that are not here
                             instance().services_.clear(); // their locks may be held; see forked()
                             instance().mutex_.unlock();
                         });
    }

    void add(list& l, watched& w) {
        std::lock_guard<std::mutex> lock(mutex_);
        l.push_back(&w);
        start();
    }
    void remove(list& l, watched& w) noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        l.erase(std::remove(l.begin(), l.end(), &w), l.end());
    }

    void start() {
        if (std::exchange(is_running_, true))
            return;
        ::sigset_t all, before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before); // signals are the program's
        BOOST_TRY {
            std::thread([this] { run(); }).detach();
        }
        BOOST_CATCH(...) { is_running_ = false; } // without it, then
        BOOST_CATCH_END
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void run() {
        for (;;) {
            std::this_thread::sleep_for(
                std::min<std::chrono::nanoseconds>(misuse_limit.load() / 4, longest_pause));
            std::vector<misuse_report> reports;
            BOOST_TRY {
                std::lock_guard<std::mutex> lock(mutex_);
                for (const list* l : {&services_, &calls_})
                    for (watched* w : *l)
                        w->look(reports);
            }
            BOOST_CATCH(...) {} // without memory, later
            BOOST_CATCH_END
            for (const misuse_report& r : reports)
                r.deliver();
        }
    }

    static constexpr std::chrono::milliseconds longest_pause{250};

    std::mutex mutex_;
    list services_;
    list calls_;
    bool is_running_ = false;
};

/// Counts turns of a loop, when asked to.
class turn_counter : private scheduler_item {
public:
    turn_counter() noexcept : scheduler_item(&turn_counter::do_complete) {}

    unsigned count() const noexcept { return count_.load(); }

    /// Has the next turn counted.
    void ask(scheduler_port& port) {
        if (!is_queued_.exchange(true))
            port.post_new(this);
    }

private:
    static void do_complete(void*, scheduler_item* item, const error_code&, std::size_t) {
        auto* self = static_cast<turn_counter*>(item);
        ++self->count_;
        self->is_queued_ = false;
    }

    std::atomic<unsigned> count_{0};
    std::atomic<bool> is_queued_{false};
};

#endif // MOOR_CHECK_USE

/// Finds edge-triggered waits that are not told, although their event holds.
template <class Core, bool Checks>
class wait_watch {
public:
    explicit wait_watch(Core&) noexcept {}
    void forked() noexcept {}
    void stop() noexcept {}
};

#if defined(MOOR_CHECK_USE)

template <class Core>
class wait_watch<Core, true> final : private watched {
public:
    /// (A scheduler without locks can't be asked from another thread whether the loop turns.)
    explicit wait_watch(Core& core) : core_(core), is_stopped_(!core.port.is_locked()) {
        if (!is_stopped_)
            use_watch::instance().add_service(*this);
    }
    ~wait_watch() { stop(); }

    /// This process is the child of a fork.
    void forked() {
        if (!is_stopped_)
            use_watch::instance().add_service(*this);
    }

    /// The context is going.
    void stop() noexcept {
        if (!std::exchange(is_stopped_, true))
            use_watch::instance().remove_service(*this);
    }

private:
    /// Looks in a row, with a turn of the loop between each two.
    static constexpr unsigned enough = 4;

    struct stuck {
        ticks tick;
        unsigned turns;
        unsigned looks;
    };

    void look(std::vector<misuse_report>& reports) override {
        std::map<int, stuck> now;
        for (const scheduled_io_info& i : core_.infos(true)) {
            const readiness r = i.untold;
            if (r.empty())
                continue;
            stuck s{i.tick, turns_.count(), 0};
            auto before = stuck_.find(i.handle);
            if (before != stuck_.end() &&
                (r - readiness_word::unchanged(before->second.tick, i.tick)).empty()) {
                s.looks = before->second.looks + (before->second.turns != s.turns);
                if (s.looks == enough && before->second.looks != enough)
                    reports.push_back(
                        {misuse::kind::not_drained, i.caller_handle, i.name,
                         "an edge-triggered wait for " + text_of(i.waits) +
                             " has been pending for more than " + text_of_limit() +
                             " without an event, although poll(2) reports " + text_of(r) +
                             ": make calls until one would block before waiting, or use "
                             "moor::trigger::level"});
            }
            now[i.handle] = s;
        }
        stuck_.swap(now);
        if (!stuck_.empty())
            turns_.ask(core_.port);
    }

    Core& core_;
    bool is_stopped_;
    std::map<int, stuck> stuck_;
    turn_counter turns_;
};

#endif // MOOR_CHECK_USE

/// Surrounds a call of the user's, which must not block.
template <class Core, bool Checks>
class call_watch {
public:
    template <class State>
    explicit call_watch(State&) noexcept {}
};

#if defined(MOOR_CHECK_USE)

template <class Core>
class call_watch<Core, true> final : private watched {
public:
    template <class State>
    explicit call_watch(State& state) noexcept : handle_(state.caller_handle()) {
        BOOST_TRY {
            name_ = static_cast<Core&>(state.host()).name_of(state);
            use_watch::instance().add_call(*this);
        }
        BOOST_CATCH(...) {} // without memory, nobody looks at it
        BOOST_CATCH_END
    }
    ~call_watch() {
        use_watch::instance().remove_call(*this);
        if (is_late())
            report_misuse([this] { return report(); });
    }

private:
    using clock = std::chrono::steady_clock;

    void look(std::vector<misuse_report>& reports) override {
        if (is_late())
            reports.push_back(report());
    }

    bool is_late() const { return !is_reported_ && clock::now() - begun_ > misuse_limit.load(); }

    misuse_report report() {
        misuse_report r{misuse::kind::call_blocked, handle_, name_,
                        "a call has not returned for more than " + text_of_limit() +
                            ": it must not block (set O_NONBLOCK, or pass MSG_DONTWAIT)"};
        is_reported_ = true;
        return r;
    }

    int handle_;
    std::string name_;
    bool is_reported_ = false;
    clock::time_point begun_ = clock::now();
};

#endif // MOOR_CHECK_USE

/// `more()` is the end of the sentence.
template <class Core, class State, class F>
void report_misuse(misuse::kind what, Core& core, const State& state, const char* text,
                   F more) noexcept {
    report_misuse([&] {
        return misuse_report{what, state.caller_handle(), core.name_of(state),
                             std::string(text) + more()};
    });
}

/// A call is over. `hides_an_error`: it returned a negative number without an error.
template <class Core, class State>
void check_result(State& state, [[maybe_unused]] bool hides_an_error) noexcept {
    static constexpr const char* text =
        "the callable returned a negative number without an error: see check_errno";
    if constexpr (checks_use) {
        if (hides_an_error)
            report_misuse(misuse::kind::error_hidden, static_cast<Core&>(state.host()), state, text,
                          [] { return ""; });
    } else {
        BOOST_ASSERT_MSG(!hides_an_error, text);
    }
}

/// Whether the number still stands for the registered file; if not, the program is told.
template <class Core, class State>
bool check_number([[maybe_unused]] Core& core, [[maybe_unused]] const State& state,
                  [[maybe_unused]] const char* advice) noexcept {
    if constexpr (checks_use) {
        error_code ec;
        if (state.is_same_file(ec))
            return true;
        auto more = [advice] { return advice; };
        if (ec == boost::asio::error::bad_descriptor)
            report_misuse(misuse::kind::number_closed, core, state,
                          "the number was closed before its registration ended: ", more);
        else if (!ec)
            report_misuse(misuse::kind::number_reused, core, state,
                          "the number stands for another file than the registered one: ", more);
        return false;
    }
    return true;
}

/// The events that a file of this kind never has.
inline interest impossible_on(int handle, const file_identity& id) noexcept {
    if (id.is_fifo()) {
        switch (::fcntl(handle, F_GETFL) & O_ACCMODE) {
        case O_RDONLY:
            return interest::writable | interest::priority;
        case O_WRONLY:
            return interest::readable | interest::priority;
        default:
            return interest::priority;
        }
    }
#if defined(__linux__)
    if (is_anonymous(handle, "anon_inode:[eventfd]"))
        return interest::priority;
    for (const char* name : {"anon_inode:[timerfd]", "anon_inode:[signalfd]", "anon_inode:inotify",
                             "anon_inode:[pidfd]", "anon_inode:[eventpoll]"})
        if (is_anonymous(handle, name))
            return interest::writable | interest::priority;
#endif
    return interest::none;
}

/// A wait begins.
template <class Core, class State>
void check_wait([[maybe_unused]] Core& core, [[maybe_unused]] const State& state,
                [[maybe_unused]] interest want) noexcept {
    if constexpr (checks_use) {
        if (!check_number(
                core, state,
                "call renew() before each wait on a descriptor that a library may replace"))
            return;
        interest never = want & impossible_on(state.native_handle(), state.identity());
        if (!never.empty() && (want - never).empty())
            report_misuse(misuse::kind::impossible_interest, core, state,
                          "no file of this kind is ever ready for this wait: ", [want] {
                              return text_of(want);
                          });
    }
}

/// The base of a registration: finds a thread that uses one which another thread changes.
template <class Registration, bool Checks>
class use_guard {
protected:
    use_guard() = default;
    template <class OtherRegistration>
    explicit use_guard(use_guard<OtherRegistration, false>&&) noexcept {}

    struct frame {
        explicit frame(const use_guard&) noexcept {}
        void end() noexcept {}
    };

    void check_unused() const noexcept {}
};

template <class Registration>
class use_guard<Registration, true> {
protected:
    use_guard() noexcept : users_(0) {}
    template <class OtherRegistration>
    explicit use_guard(use_guard<OtherRegistration, true>&& other) noexcept : users_(0) {
        other.check_unused();
    }

    /// Surrounds a use that may run beside others.
    struct frame {
        explicit frame(const use_guard& g) noexcept : guard(&g) { ++guard->users_; }
        ~frame() { end(); }
        frame(const frame&) = delete;
        frame& operator=(const frame&) = delete;

        void end() noexcept {
            if (const use_guard* g = std::exchange(guard, nullptr))
                --g->users_;
        }

        const use_guard* guard;
    };

    void check_unused() const noexcept {
        if (users_ == 0)
            return;
        report_misuse([this] {
            auto& r = static_cast<const Registration&>(*this);
            return misuse_report{
                misuse::kind::used_while_changed, r.native_handle(), r.name(),
                "one thread changes or ends the registration that another one is using"};
        });
    }

private:
    template <class OtherRegistration, bool Checks>
    friend class use_guard;

    mutable std::atomic<unsigned> users_;
};

#if defined(MOOR_DETAIL_DEFINES)

MOOR_DETAIL_DECL void misuse_report::deliver() const noexcept {
    using deferred = deferred_reports<true>;
    if (!deferred::current())
        return deliver_now();
    BOOST_TRY { deferred::current()->keep(*this); }
    BOOST_CATCH(...) {} // without memory, it is not told
    BOOST_CATCH_END
}

MOOR_DETAIL_DECL std::string text_of(interest i) {
    std::ostringstream os;
    os << i;
    return os.str();
}

#endif // MOOR_DETAIL_DEFINES

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_USE_CHECKS_HPP
