// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Runs a random program: its steps, loops and handlers.

#ifndef MOOR_TEST_SUPPORT_PROMISE_PROGRAM_HPP
#define MOOR_TEST_SUPPORT_PROMISE_PROGRAM_HPP

#include "support/context.hpp"
#include "support/dice.hpp"
#include "support/handles.hpp"
#include "support/promise_model.hpp"

#include <moor/registration.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

namespace test {
namespace promise {

using clock_type = std::chrono::steady_clock;

/// A random program, which dice make and run.
class program : public model {
public:
    /// Prints each step, if there is a printer.
    program(dice d, unsigned threads, printer p = nullptr)
        : model(make_settings(d, threads), std::move(p)), dice_(d) {
        (void)is_available(kind::mounts); // makes a process, and had better do so on this thread
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
        std::size_t n = dice_.has_end() ? 200 : 20 + dice_.below(181);
        for (; n != 0 && !dice_.is_at_end(); --n)
            steps.push_back(make_step(dice_, settings_));
        return steps;
    }

    verdict run(const std::vector<step>& steps) {
        observe();
        for (auto& s : slots_)
            begin(*s);
        for (const step& s : steps) {
            if (verdict_ || turns_ > most_turns)
                break;
            ++steps_run_;
            auto make = [&] {
                std::lock_guard<std::recursive_mutex> lock(mutex_);
                perform(s, 0);
            };
            if (s.is_beside && !runs_loops(s))
                make_beside(make);
            else
                make();
        }
        finish();
        return verdict_;
    }

    long steps_run() const { return steps_run_; }
    /// From now on, what is late is soon given up: for many programs that are expected to fail.
    void be_impatient() { patience_ = std::chrono::milliseconds(100); }

private:
    // ---- running

    /// Runs until nothing moves any more.
    void run_to_rest() {
        long turns = 0;
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
                    ++turns;
                    if (turns_by_itself_ && turns >= 200)
                        return;
                    if (turns == 5000)
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
    void poll_some(asio::io_context& io) {
        int n = 0;
        while (n != 200 && io.poll_one() != 0)
            ++n;
        turns_ += n;
    }

    void run_loops() {
        for (int i = 0; i != 20; ++i)
            for (auto& io : contexts_) {
                auto work = asio::make_work_guard(*io);
                poll_some(*io);
            }
    }

    /// Calls `f` while the other threads run the loops; all of them end before the next step. (The
    /// model has a lock, which every handler and callable takes.)
    template <class F>
    void run_on_all_threads(F f) {
        for (auto& io : contexts_)
            if (io->stopped())
                io->restart();
        std::vector<std::thread> others;
        while (others.size() + 1 < settings_.threads)
            others.emplace_back([this] { run_loops(); });
        f();
        for (std::thread& other : others)
            other.join();
    }

    template <class F>
    void make_beside(F make) {
        observe();
        leave_rest();
        run_on_all_threads(make);
    }

    static bool runs_loops(const step& s) {
        return s.what == act::run_idle || s.what == act::run_some;
    }

    /// Runs until nothing is left to do, and checks that nothing was left out.
    void settle() {
        observe();
        leave_rest();
        if (settings_.threads > 1) {
            mutex_.unlock();
            run_on_all_threads([this] { run_loops(); });
            mutex_.lock();
        }
        run_to_rest();
        observe();
        // The kernel's own threads may take a while, io_uring's and terminals' above all.
        auto deadline = clock_type::now() + patience_;
        while (!verdict_ && !turns_by_itself_ && is_anything_overdue() &&
               clock_type::now() < deadline) {
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
                poll_some(*io);
            }
    }

    // ---- steps

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
                // On several threads the callable may have waited for the lock meanwhile.
                if (settings_.threads == 1)
                    fail("a callable is called after its registration has ended", "");
                ec = test::aborted;
                return {};
            }
            observe();
            file& f = *at->about;
            dice d(choice);
            std::size_t n = 8 + (d.one_in(3) ? d.below(12) : d.below(8000));
            if (f.is_counter())
                n = 8;
            ::ssize_t r = writes ? put_some(f.own, f.what, n) : get_some(f.own, f.what, n);
            if (r > 0)
                witness(f, writes ? POLLOUT : POLLIN);
            if (!writes && r > 0 && d.one_in(3) && !f.is_counter()) // on to would-block
                while (r > 0)
                    r = get_some(f.own, f.what, n);
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
            if (r > 0 && d.one_in(2) && !f.is_counter() && !is_left_out("short_transfer"))
                return moor::short_transfer(value, writes ? std::min<std::size_t>(n, 4096) : n);
            return {value, false, false};
        };
    }

    slot& pick(const step& s) { return *slots_[s.slot % slots_.size()]; }

    void perform(const step& st, int depth) {
        observe();
        slot& s = pick(st);
        file& f = *s.about;
        dice d(st.choice);
        print(depth, act_names[static_cast<int>(st.what)], " on ", describe(s));
        short before = f.now;
        switch (st.what) {
        case act::peer_send:
            if (send_from_peer(f, d.one_in(4) ? 1 + d.below(3000) : 1 + d.below(12))) {
                f.touched = now_;
                observe();
                note_more(f, before);
            }
            break;
        case act::peer_read:
            get_some(f.peer, f.what, 1 + d.below(3000));
            f.touched = now_;
            break;
        case act::peer_drain:
            if (f.peer.get() != -1)
                drain(f.peer, f.what);
            f.touched = now_;
            break;
        case act::peer_half_close:
            if (f.is_socket())
                ::shutdown(f.peer, SHUT_WR);
            f.touched = now_;
            break;
        case act::peer_close:
            if (!f.is_counter())
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
            if (get_some(f.own, f.what, 1 + d.below(16)) > 0)
                witness(f, POLLIN);
            touch_by_own_read(f);
            break;
        case act::drain_all:
            if (drain(f.own, f.what))
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
            if (f.tells_once()) {
                (void)s.reg->query();
                if (!s.is_edge()) // a change is told to this call, and to those that wait already
                    consume(s, interest::priority | interest::error);
            } else {
                check_query(s);
            }
            break;
        case act::clear:
            if (!s.events.empty()) {
                auto& [event, when] = s.events[d.below(s.events.size())];
                print(depth + 1, "of ", event.ready());
                s.reg->clear(event);
                interest cleared = event.ready();
                if (cleared.is_error()) // which readers and writers are told of as well
                    cleared |= interest::readable | interest::writable;
                for (std::size_t i = 0; i != flag_count; ++i) {
                    if (!cleared.contains(flags[i].first))
                        continue;
                    auto forget = [when = when](long& news) { news = news <= when ? 0 : news; };
                    forget(s.flag[i].news);
                    // (One that pends has news if another wait gives back what it was told.)
                    for_waits_of(s, [&](pending& w) { forget(w.news[i]); });
                }
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
        if (!ec)
            last_call_.clear();
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
            if (settings_.threads > 1 && runs_loops(st))
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
        // (The entry of epoll that is abandoned would take the changes of the same file.)
        bool same_file = d.one_in(4) && !old.tells_once() && !is_left_out("same_file");
        bool keeps = same_file || d.one_in(3);
        bool abandons_first = d.one_in(2);
        bool deregisters = d.one_in(4) && !same_file && !old.has_no_identity() &&
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
        else if (same_file && settings_.threads > 1) // which may look while the number is closed
            for (slot* each : those)
                for_waits_of(*each, [](pending& w) { w.may_find_number_closed = true; });
        std::unique_ptr<file> next;
        if (same_file) {
            old.own.close();
            BOOST_REQUIRE_EQUAL(::dup3(kept, number, O_CLOEXEC), number);
            old.own = unique_fd(number);
            kept.close();
        } else {
            kind k = settings_.kinds[d.below(settings_.kinds.size())];
            if (k == kind::mounts && those.size() != 1)
                k = kind::eventfd; // registrations of one open file would take changes away
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
        if (slots_.size() >= 6 || s.about->tells_once())
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
    std::recursive_mutex mutex_;
    std::chrono::milliseconds patience_{2000};
    bool turns_by_itself_ = false;
    /// A call that the loop makes again and again, because `poll(2)` reports what is not so, may
    /// take thousands of turns in each step. A program of two hundred steps ends after this many.
    static constexpr long most_turns = 20000;
    std::atomic<long> turns_{0}; ///< of the loops that run beside the steps
    int number_ = 0;
    int nesting_ = 0;
    long steps_run_ = 0;
    std::string last_call_; ///< of a callable, since a wait completed
};

} // namespace promise
} // namespace test

#endif
