// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Moor on Asio's epoll reactor: threads that run the scheduler, a thread outside of the loop, and
// the outside world. A step is a lock region or a system call: an atomic or d_step block. Where a
// lock region has another one or a system call inside, it has several steps, and holds the lock in
// between. See README.md for what each part stands for.

#include "settings.pml"

#include "properties.pml"
#include "state.pml"
#include "kernel.pml"
#include "epoll_kernel.pml"
#include "asio.pml"
#include "epoll_asio.pml"
#include "published.pml"
#include "ghosts.pml"
#include "epoll_wakers.pml"
#include "program.pml"

proctype thread(byte me; bool is_loop) {
    byte item, s, c, w = none, ac, mask, found, want, r, items, told;
    byte others, threads, was_firing, result, arming_result;
    byte stamp_r, stamp_w, stamp_p, stamp_e; // of the event that try_io has
    byte private_work = 0;          // private_outstanding_work
    short units, balance;
    bool is_told, is_asking, is_foreign, is_left, arms_first, is_new, is_changed, is_checking, is_polling;
    bool had_reference;
    bool has_unit, is_restart, is_handled, is_unhandled, is_usual, was_attached, is_stopped, ours;

    if
    :: is_loop -> goto end_next_item
    :: else -> goto job
    fi;

    // ---- scheduler::do_run_one() ----------------------------------------------------------------

end_next_item:
    atomic {
#if ENDS_CONTEXT
        if
        :: queue?item
        :: is_stopped_loop -> loops_out++; goto ended_thread
        fi;
#else
        queue?item ->
#endif
        if
        :: item == task_item -> goto end_task
        :: item == object_item ->
            d_step {
                found = object_events;
                object_events = 0;
                is_object_queued = false;
                item = 0
            }
            goto handle_object
        :: item == deferred_item -> item = 0; goto deferred_turn
        :: item == job_item -> item = 0; goto job
        :: item >= operation_item(0) ->
            d_step {
                w = item - operation_item(0);
                s = state_of[w];
                item = 0
            }
            goto complete
        :: item >= waker_item(0, 0) && item < operation_item(0) ->
            d_step {
                s = (item - waker_item(0, 0)) / 3;
                c = (item - waker_item(0, 0)) % 3;
                item = 0
            }
            goto fired
        fi
    }

    // ---- epoll_reactor::run(), then task_cleanup ------------------------------------------------

end_task:
    atomic {
#if ENDS_CONTEXT
        is_any_ready || nempty(queue) || is_stopped_loop ->
#else
        is_any_ready || nempty(queue) -> // interrupted if something is queued
#endif
        d_step {
            item = 0;
            epoll_wait(found);
            if
            :: found != 0 -> note_fetched(found)
            :: else -> push_item(task_item)
            fi
        }
        if
        :: found == 0 -> goto end_next_item
        :: else
        fi
    }
    d_step { // the private queue goes behind the shared one
        object_events = found;
        is_object_queued = true;
        found = 0;
        push_item(object_item);
        push_item(task_item)
    }
    goto end_next_item;

    // ---- descriptor_state::do_complete() --------------------------------------------------------

handle_object:
    atomic {
        !is_object_locked ->
        d_step {
            perform_io(found, s, c, others);
            found = 0;
            if
            :: c == none -> private_work++; c = 0; s = 0; others = none
            :: else
            fi
        }
        if
        :: others == none -> others = 0; goto cleanup
        :: others == 0 -> goto fired
        :: else
        fi
    }
    d_step {
        post_wakers(s, others);
        others = 0
    }
    goto fired;

    // ---- waker_return::do_complete(), handle_wakers::fired() ------------------------------------

fired:
    atomic {
        require(no_use_after_free, is_alive[s]);
        if
        :: waker_result[at(s, c)] == ok &&
               (loop_thread == me || (EDGE && loop_thread == several)) ->
            skip
        :: else -> goto fired_unusually
        fi
    }
    atomic { // complete_usual()
        !is_locked[s] ->
        d_step {
            only_pending(s, w);
            is_usual = false;
            if
            :: w != none ->
                is_usual = is_attached[s] && !is_prepaid[at(s, c)] && !is_unverified(s, c) &&
                           c != edge_channel && is_idle(s, edge_channel) &&
                           want_of[w] == interest_of(c) && !must_check[w] && !TOLD_ONCE
            :: else
            fi;
            if
            :: is_usual -> // take_usual()
                is_locked[s] = true;
                word_set(s, interest_of(c));
                make_event(s, w, interest_of(c));
                note_success(s, w);
                if
                :: is_plain(w) -> note_told_of(s, interest_of(c), false)
                :: else
                fi;
#if EDGE
                if
                :: is_plain(w) -> word_consume(s, interest_of(c))
                :: else
                fi;
#endif
                items = 0;
                take(w, items);
                items = 0;
                waker[at(s, c)] = idle;
#if EDGE
                unfounded = unfounded & ~bit(c);
#endif
                idle_events[s] = 0
#ifdef MUTANT_REARMED_WITHOUT_THE_LOCK
                ;
                unlock(s)
#endif
            :: else -> w = none
            fi
        }
        if
        :: !is_usual -> goto fired_unusually
        :: else
        fi
    }
    arm_all(s, bit(c), true, false, units);
    d_step {
        if
        :: units != 0 -> work_finished() // the scheduler takes the operation's
        :: else
        fi;
        units = 0;
        c = 0;
        is_usual = false;
#ifndef MUTANT_REARMED_WITHOUT_THE_LOCK
        unlock(s)
#endif
    }
    goto complete;

fired_unusually:
    atomic {
        skip;
        d_step { // note_thread()
            if
            :: loop_thread == me -> threads = 0 // one
            :: loop_thread == nobody -> loop_thread = me; threads = 1 // not known so far
            :: loop_thread == several -> threads = 2
            :: else -> loop_thread = several; threads = 1
            fi
        }
    }
    // fired(c, ec, told), up to handle() and on_event()
    atomic {
        !is_locked[s] ->
        d_step {
            require(no_use_after_free, is_alive[s] && references[s] > 0);
            is_locked[s] = true;
            w = none;
            items = 0;
            result = waker_result[at(s, c)];
            waker_result[at(s, c)] = ok;
            if
            :: threads == 1 -> unverified_next[s] = unverified_next[s] | bit(c)
            :: else
            fi;
            come_back(s, c, balance); // what is owed
            is_held[s] = true;
            is_handled = false;
            is_unhandled = false;
            is_stopped = false; // no event to be noted
            if
            :: (latched[s] & bit(c)) != 0 ->
                latched[s] = latched[s] & ~bit(c);
                is_stopped = (result == ok)
            :: else
            fi;
            if
            :: is_stopped -> is_unhandled = true
            :: !is_stopped && closed[s] == still_open && result == ok ->
                // note_event(), must_check_event()
                h_must = TOLD_ONCE || c == edge_channel;
                h_told = 0; // whether a wait, not a call, is for it
                for (i : 0 .. WAITS - 1) {
                    if
                    :: is_pending_in(s, i) &&
                           ((channels_for(want_of[i]) & bit(c)) != 0 ||
                            match(interest_of(c), want_of[i]) != 0) ->
                        h_told = h_told | (is_call[i] -> 0 : 1);
                        h_must = h_must || must_check[i] || (want_of[i] & beyond) != 0 ||
                                 (is_exact(i) && (threads != 0 || balance == 0 ||
                                                  (channels_for(want_of[i]) & bit(c)) == 0))
                    :: else
                    fi
                }
                h_must = h_must || ((h_told != 0 || EDGE) && is_unverified(s, c));
#ifdef MUTANT_EVENTS_NOT_CHECKED
                h_must = false;
#endif
                if
                :: !h_must -> word_set(s, interest_of(c))
                :: else ->
                    // note_checked_event()
#if TOLD_ONCE
                    is_checking = true
#else
                    want_of_queue(s);
                    word_forget(s, interest_of(c) | closing);
                    h_wanted = (h_wanted & beyond) | interest_of(c);
#if EDGE
                    h_news = news & interest_of(c); // the answer is no event of its own
#endif
                    check(s, h_wanted, found, result);
#if EDGE
                    if
                    :: (unfounded & bit(c)) == 0 -> news = (news & ~interest_of(c)) | h_news
                    :: else
                    fi;
#endif
                    found = 0;
                    for (i : 0 .. WAITS - 1) {
                        if
                        :: is_pending_in(s, i) ->
                            must_check[i] = must_check[i] &&
                                            may_be_stale(s, channels_for(want_of[i]), me)
                        :: else
                        fi
                    }
                    if
                    :: result != ok -> result = ok; word_set(s, interest_of(c))
                    :: else
                    fi
#endif
                fi
#if !TOLD_ONCE
                ;
                take_satisfied(s, items, 0);
                is_handled = (items != 0);
                is_unhandled = (items == 0)
#endif
            :: !is_stopped && closed[s] == still_open && result != ok && result != aborted ->
                take_failed(s, bit(c), result, items)
            :: else
            fi
        }
    }
#if TOLD_ONCE
    if
    :: is_checking -> check_changes(s, found, result, is_changed)
    :: else
    fi;
    d_step {
        if
        :: is_checking ->
            is_checking = false;
            is_changed = false;
            for (i : 0 .. WAITS - 1) {
                if
                :: is_pending_in(s, i) ->
                    must_check[i] = must_check[i] &&
                                    may_be_stale(s, channels_for(want_of[i]), me)
                :: else
                fi
            }
#ifndef MUTANT_CHECK_DROPS_CHANGES
            want_of_queue(s);
            h = interest_of(c) |
                ((c == edge_channel && (h_wanted & (priority | error)) != priority) -> error : 0);
#ifdef MUTANT_CACHED_CHANGE_DROPPED
            h = h & ~unconsumed(s);
#endif
            word_set(s, h);
#endif
            result = ok;
            take_satisfied(s, items, 0);
            is_handled = (items != 0);
            is_unhandled = (items == 0)
        :: else
        fi
    }
#endif
    d_step {
        if
        :: !is_stopped -> verified(s, c)
        :: else
        fi;
#if EDGE
        unfounded = unfounded & ~bit(c);
#endif
        // The first operation completes in this call, the others through the scheduler.
        for (i : 0 .. WAITS - 1) {
            if
            :: (items & bit(i)) != 0 && w == none -> w = i; items = items & ~bit(i)
            :: else
            fi
        }
        post_operations(items);
        items = 0;
        result = 0;
        threads = 0;
        is_stopped = false;
        balance = (w == none -> 0 : 1) - balance;
        // keep_armed()
        mask = 0;
        if
        :: is_attached[s] ->
            for (i : 0 .. WAITS - 1) {
                if
                :: is_pending_in(s, i) -> mask = mask | channels_for(want_of[i])
                :: else
                fi
            }
            if
            :: is_handled -> idle_events[s] = 0; mask = mask | bit(c)
            :: is_unhandled && mask == 0 ->
                idle_events[s]++;
                if
                :: idle_events[s] == IDLE_LIMIT && !TOLD_ONCE -> // leave_reactor()
                    would_block[s] = 0;
                    is_left = true
                :: else -> mask = bit(c)
                fi
            :: else
            fi
#ifdef MUTANT_NOT_REARMED_AFTER_A_STALE_EVENT
            ;
            mask = (is_handled -> mask : (mask & ~bit(c)))
#endif
        :: else
        fi;
        c = 0;
        is_handled = false;
        is_unhandled = false
    }
    if
    :: is_left -> is_left = false; detach(s, true, is_alone(me))
    :: else
    fi;
    arm_all(s, mask, false, false, units);
    d_step {
        balance = balance + units;
        settle(balance, private_work);
        balance = 0;
        units = 0;
        mask = 0;
        is_held[s] = false;
        is_left = !is_attached[s] && are_idle(s); // the reactor's reference
        unlock(s);
        if
        :: is_left -> is_left = false; release(s)
        :: else
        fi
    }
    if
    :: w == none -> s = 0; goto cleanup
    :: else -> goto complete
    fi;

#include "operations.pml"

    // ---- scheduled_io::start() ------------------------------------------------------------------

start:
    atomic {
        !is_locked[s] ->
        is_locked[s] = true;
        result = ok;
#if TOLD_ONCE
        untold_of[w] = 0;
#endif
        if
#if EDGE
        :: is_plain(w) && is_one_way(want_of[w]) && is_attached[s] && (flags[s] & closing) == 0 &&
               !is_idle(s, direction_of(want_of[w])) && (unconsumed(s) & want_of[w]) == 0 ->
            d_step { // waits_at_once()
                work_started();
                stage[w] = pending;
                underway++;
                unlock(s)
            }
            goto job_done
#endif
#ifndef MUTANT_CLOSED_NOT_ASKED
        :: closed[s] != still_open ->
            result_of[w] = (closed[s] == service_closed -> gone : aborted);
            goto over_at_once
#endif
        :: else -> skip
        fi;
        // is_answered()
        if
        :: is_call[w] ->
            d_step { may_call(s, w, r, found, result) }
            if
            :: result != ok -> result_of[w] = result; r = 0; result = ok; goto over_at_once
            :: result == ok && r != 0 -> r = 0; goto over_at_once
            :: else -> goto pend
            fi
        :: else -> skip
        fi
#if !EDGE
        ;
        if // is_ready()
        :: is_one_way(want_of[w]) && !TOLD_ONCE && is_known_empty(s, want_of[w]) -> goto pend
#if DEFERS
        :: is_one_way(want_of[w]) && !TOLD_ONCE && !is_known_empty(s, want_of[w]) && is_loop &&
               is_attached[s] && (loop_thread == me || loop_thread == several) &&
               (flags[s] & closing) == 0 ->
            d_step { // deferred_checks::defer()
                if
                :: !is_listed[s] ->
                    is_listed[s] = true;
                    references[s]++;
                    deferred_list = deferred_list | bit(s)
                :: else
                fi;
                is_busy = true;
                if
                :: !is_check_queued -> is_check_queued = true; post_new(deferred_item)
                :: else
                fi;
                is_deferred[w] = true;
                word_forget(s, want_of[w]);
                would_block[s] = would_block[s] & ~bit(direction_of(want_of[w]))
            }
            goto pend
#endif
        :: true // the pacing may choose so, too
        fi
#endif
        ;
        d_step { // is_ready_now() and is_news(): poll(2), unless the cache is all that is asked
#if TOLD_ONCE && EDGE
            is_checking = (((want_of[w] | flags[s]) & closing) != 0)
#elif TOLD_ONCE
            is_checking = true
#elif EDGE
            if
            :: ((want_of[w] | flags[s]) & closing) != 0 ->
                check(s, want_of[w] & closing, found, result)
            :: else
            fi;
            found = 0
#else
            check(s, want_of[w], found, result);
            found = 0
#endif
        }
    }
#if TOLD_ONCE
    if
    :: is_checking -> check_changes(s, found, result, is_changed)
    :: else
    fi;
#endif
    d_step {
        r = 0;
        if
        :: result != ok -> result_of[w] = result
        :: else ->
#if EDGE
#if TOLD_ONCE
            if
            :: is_checking -> tell_others(s, items, 0); note_begun(w) // check_for_one()
            :: else
            fi;
#endif
            satisfied(s, w);
            r = h_r;
            if
            :: r != 0 && is_plain(w) && (to_be_told(s) & want_of[w]) != 0 ->
                other_news(s, w, found, result);
                r = h_r
            :: else
            fi;
#else
            r = match(flags[s], want_of[w]);
#if TOLD_ONCE
            told = (is_plain(w) -> r : 0);
            tell_others(s, items, told);
            told = 0;
#endif
#endif
            if
            :: r != 0 ->
                make_event(s, w, r);
                note_success(s, w);
#if EDGE || !TOLD_ONCE
                if
                :: is_plain(w) -> note_told(s, r, true)
                :: else
                fi
#endif
            :: else
            fi
        fi;
#if TOLD_ONCE
        is_checking = false;
        is_changed = false;
#endif
        result = ok
    }
#if EDGE
    if
    :: r != 0 && result_of[w] == ok && !is_slot[w] ->
        // forget_latched(): what the reactor remembers already is older than this wait
        mask = channels_of(r & pollable) & ~armed_channels(s) & ~unprimed[s];
        if
        :: mask != 0 && is_attached[s] ->
#ifndef MUTANT_LATCH_NOT_FORGOTTEN
            is_forgetting[s] = true;
            arm_all(s, mask, false, false, units);
            d_step {
                is_forgetting[s] = false;
                has_unit = (units != 0);
                if
                :: units > 1 -> work = work - (units - 1)
                :: else
                fi;
                units = 0
            }
#else
            skip
#endif
        :: else
        fi;
        mask = 0
    :: else
    fi;
#endif
    if
    :: r != 0 || result_of[w] != ok -> r = 0; goto over_at_once
    :: else -> goto pend
    fi;

over_at_once:
    atomic {
        skip;
        d_step { // its completion is posted, after the lock is released
            stage[w] = taken;
            is_running[w] = is_call[w] || has_slot[w];
            underway++;
            unlock(s);
            if
            :: has_unit -> post_counted(operation_item(w))
            :: else -> post_new(operation_item(w))
            fi;
            has_unit = false;
            users--;
            w = none;
            s = 0
        }
    }
    goto job;

    // ---- scheduled_io::pend() -------------------------------------------------------------------

pend:
    atomic {
        d_step {
            must_check[w] = is_exact(w) && may_be_stale(s, channels_for(want_of[w]), me);
            result = ok;
            was_attached = is_attached[s];
            mask = channels_for(want_of[w])
        }
        if
        :: was_attached && are_armed(s, mask) ->
            d_step {
                work_started();
                push(s, w);
                unlock(s);
                mask = 0;
                was_attached = false
            }
            goto pended
        :: else
        fi
    }
    // start_waking(), activate()
    d_step { forget_to_be_told(s) }
#if TOLD_ONCE
    check_changes(s, found, result, is_changed);
    d_step {
        is_changed = false;
        r = 0;
        if
        :: result == ok -> satisfied(s, w); r = h_r
        :: else
        fi;
        told = (is_plain(w) -> r : 0);
        tell_others(s, items, told);
        told = 0;
        if
        :: r != 0 ->
            make_event(s, w, r);
            note_success(s, w);
            mask = 0;
            was_attached = false;
            if
            :: is_restart -> is_running[w] = true; unlock(s)
            :: else
            fi
        :: else
        fi
    }
    if
    :: r != 0 && is_restart -> goto call_again
    :: r != 0 && !is_restart -> r = 0; goto over_at_once
    :: else
    fi;
#endif
    if
    :: result == ok && !was_attached ->
#ifdef MUTANT_PRIORITY_ARMED_AFTER_ADD
        attach(s, read_channel, result, is_alone(me))
#else
        attach(s, ((mask & bit(edge_channel)) != 0 -> edge_channel : read_channel), result,
               is_alone(me))
#endif
    :: else
    fi;
    if
    :: result != ok ->
        d_step {
            result_of[w] = result;
            result = 0;
            mask = 0;
            was_attached = false
        }
        if
        :: is_restart -> goto refused_again
        :: else -> goto over_at_once
        fi
    :: else
    fi;
    d_step {
        is_new = !was_attached;
        mask = mask | (is_new -> channels_to_attach : 0)
    }
    arm_all(s, mask, false, is_new, units);
    d_step {
        is_new = false;
        was_attached = false;
        if
        :: units == 0 -> work_started()
        :: else ->
#ifdef MUTANT_WORK_COUNTED_TWICE
            work_started()
#else
            work = work - (units - 1)
#endif
        fi;
        units = 0;
        mask = 0;
        push(s, w);
        unlock(s)
    }
    goto pended;

pended:
    w = none;
    if
    :: is_restart -> is_restart = false; s = 0; goto cleanup
    :: else -> goto job_done
    fi;

refused_again:
    atomic {
        skip;
        d_step {
            is_restart = false;
            is_running[w] = true;
            unlock(s)
        }
    }
    goto finish_call;

    // ---- deferred_checks::run() -----------------------------------------------------------------

deferred_turn:
#if DEFERS
    atomic { // one state at most, since one registration is open at a time
        d_step {
            mask = deferred_list;
            deferred_list = 0;
            s = 0;
            is_told = is_busy;
            is_busy = false;
            r = 0
        }
        if
        :: is_told -> goto keep_deferred // they are young
        :: true
        fi
    }
    if
    :: mask != 0 ->
        atomic { // take_deferred()
            !is_locked[s] ->
            d_step {
                is_asking = is_told && loop_thread == me && is_attached[s] && may_be_stale(s, 0, me);
                if
                :: !is_asking ->
                    is_listed[s] = false;
                    for (i : 0 .. WAITS - 1) {
                        if
                        :: is_pending_in(s, i) && is_deferred[i] ->
                            is_deferred[i] = false;
                            r = r | want_of[i]
                        :: else
                        fi
                    }
                :: else
                fi
            }
            if
            :: is_asking -> goto keep_deferred // the event comes first
            :: else
            fi
        }
        if
        :: r != 0 ->
            d_step { // poll(2) of the whole list, without a lock
                poll_now(to_poll_events(r), found, result);
#ifdef MUTANT_DEFERRED_CHECK_DROPPED
                found = 0;
                result = ok;
#endif
                r = 0
            }
            if
            :: found != 0 || result != ok ->
                atomic { // check_pending()
                    !is_locked[s] ->
                    d_step {
                        is_locked[s] = true;
                        items = 0;
                        result = ok;
                        if
                        :: closed[s] == still_open ->
                            want_of_queue(s);
                            check(s, h_wanted, found, result);
                            if
                            :: result != ok -> take_failed(s, all_channels, result, items)
                            :: else -> take_satisfied(s, items, 0)
                            fi
                        :: else
                        fi;
                        found = 0;
                        result = ok;
                        unlock(s)
                    }
                }
                d_step {
                    post_operations(items);
                    items = 0
                }
            :: else
            fi
        :: else
        fi;
        d_step {
            mask = 0;
            release(s)
        }
    :: else
    fi;
keep_deferred:
    atomic {
        skip;
        d_step {
            deferred_list = deferred_list | mask;
            mask = 0;
            is_told = false;
            is_asking = false;
            is_check_queued = (deferred_list != 0);
            if
            :: is_check_queued -> post_new(deferred_item)
            :: else
            fi
        }
    }
    goto cleanup;
#endif

#include "calls.pml"

#if ENDS_CONTEXT
#include "context_end.pml"

ended_thread:
    skip
#endif
}

#include "outside.pml"
