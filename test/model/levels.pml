// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Moor on Asio's reactors that report levels, select and io_uring: threads that run the scheduler, a
// thread outside of the loop, and the outside world. The steps are those of epoll.pml.

#define LEVELS 1
#include "settings.pml"

#include "properties.pml"
#define needs(w) channels_needed[w] // channels_
#include "state.pml"
#include "kernel.pml"
#include "asio.pml"
#include "levels_reactor.pml"
#include "published.pml"
#include "ghosts.pml"
#include "levels_wakers.pml"
#include "program.pml"

proctype thread(byte me; bool is_loop) {
    byte item, s, c, w = none, ac, mask, found, want, r, items, told, edges;
    byte threads, was_firing, result;
    byte stamp_r, stamp_w, stamp_p, stamp_e; // of the event that try_io has
    byte private_work = 0;          // private_outstanding_work
    short units, balance;
    bool is_told, is_checking, is_changed, has_unit, is_restart, is_handled, is_usual, is_stopped, is_polling;
    bool ours;

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
        :: item == job_item -> item = 0; goto job
#if URING
        :: item == submit_item -> // submit_sqes_op
            d_step {
                item = 0;
                is_submit_queued = false;
                for (i : 0 .. 3 * STATES - 1) {
                    request[i] = (request[i] == queued -> submitted : request[i])
                }
            }
            goto cleanup
#endif
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
                item = 0;
#if URING
                // io_queue::do_complete(), perform_io()
                request[at(s, c)] = out;
                told = request_result[at(s, c)];
                if
                :: told == none -> told = 0; waker_result[at(s, c)] = aborted
                :: told == failed -> told = 0; waker_result[at(s, c)] = bad_descriptor
                :: else
                fi;
                request_result[at(s, c)] = 0
#endif
            }
            goto fired
        fi
    }

    // ---- the reactor's run(), then task_cleanup --------------------------------------------------

end_task:
#if URING
    atomic {
#if ENDS_CONTEXT
        is_any_ready || nempty(queue) || is_stopped_loop ->
#else
        is_any_ready || nempty(queue) -> // interrupted if something is queued
#endif
        d_step {
            item = 0;
            for (i : 0 .. 3 * STATES - 1) {
                if
                :: request[i] == completed -> request[i] = fetched; push_item(waker_item(0, 0) + i)
                :: else
                fi
            }
            push_item(task_item)
        }
    }
#else
    selected = queued_bits; // the descriptor sets
end_select:
    atomic {
#if ENDS_CONTEXT
        (selected & ready_bits) != 0 || nempty(queue) || is_stopped_loop ||
                (queued_bits & ~selected) != 0 ->
#else
        (selected & ready_bits) != 0 || nempty(queue) || (queued_bits & ~selected) != 0 ->
#endif
        d_step { answer_select(selected, found) }
    }
    d_step {
        item = 0;
        selected = 0;
        perform_queued(found);
        found = 0;
        push_item(task_item)
    }
#endif
    goto end_next_item;

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
                           (!URING || told == bit(c)) && // (Its bits of poll(2) are the same.)
                           want_of[w] == interest_of(c) && !must_check[w] && !TOLD_ONCE
            :: else
            fi;
            if
            :: is_usual -> // take_usual()
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
                c = 0;
                told = 0;
                unlock(s)
            :: else -> w = none
            fi
        }
        if
        :: is_usual -> is_usual = false; goto complete
        :: else
        fi
    }

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
    atomic { // fired(c, ec, told), up to handle() and on_event()
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
            if
            :: result == ok && c == edge_channel -> take_set(s, told)
            :: else
            fi;
            if
            :: closed[s] == still_open && result == ok && c == edge_channel ->
                // note_event(), of the set
                h_told = from_poll_events(told);
#if TOLD_ONCE && !defined(MUTANT_CHANGE_OF_SET_DROPPED)
                want_of_queue(s);
#ifdef MUTANT_CHANGE_BESIDE_ANOTHER_DROPPED
                h = h_told & ~flags[s];
#else
                h = h_told & (priority | error);
#endif
                h_r = (told == 0 -> (pollable | error) : (h_wanted & error));
                h_told = h_told | (h == 0 -> (priority | h_r) : 0);
#endif
                word_set(s, h_told)
            :: closed[s] == still_open && result == ok && c != edge_channel ->
                // note_event(), must_check_event()
                h_must = (URING && told == 0);
                h_wanted = (told == 0 -> interest_of(c) : from_poll_events(told));
                h_told = 0; // whether a wait, not a call, is for it
                for (i : 0 .. WAITS - 1) {
                    if
                    :: is_pending_in(s, i) &&
                           ((needs(i) & bit(c)) != 0 || match(h_wanted, want_of[i]) != 0) ->
                        h_told = h_told | (is_call[i] -> 0 : 1);
                        h_must = h_must || must_check[i] ||
                                 (is_exact(i) && (threads != 0 || balance == 0 ||
                                                  (needs(i) & bit(c)) == 0))
                    :: else
                    fi
                }
                h_must = h_must || ((h_told != 0 || EDGE) && is_unverified(s, c));
#ifdef MUTANT_EVENTS_NOT_CHECKED
                h_must = false;
#endif
                if
                :: !h_must -> word_set(s, h_wanted)
                :: else -> // note_checked_event()
                    want_of_queue(s);
                    word_forget(s, interest_of(c) | closing);
                    h_wanted = (h_wanted & beyond) | interest_of(c);
                    check(s, h_wanted, found, result);
                    found = 0;
                    for (i : 0 .. WAITS - 1) {
                        if
                        :: is_pending_in(s, i) ->
                            must_check[i] = must_check[i] && may_be_stale(s, needs(i), me)
                        :: else
                        fi
                    }
                    if
                    :: result != ok -> result = ok; word_set(s, interest_of(c))
                    :: else
                    fi
                fi
            :: else
            fi;
            if
            :: closed[s] == still_open && result == ok ->
                take_satisfied(s, items, 0);
                is_handled = (items != 0)
            :: closed[s] == still_open && result != ok && result != aborted ->
                take_failed(s, bit(c), result, items);
                unasked_left[s] = 0
            :: else
            fi
        }
    }
    d_step {
        verified(s, c);
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
        told = 0;
        balance = (w == none -> 0 : 1) - balance;
        // keep_armed()
        mask = 0;
        edges = 0;
        if
        :: is_attached[s] ->
            for (i : 0 .. WAITS - 1) {
                if
                :: is_pending_in(s, i) ->
                    needs(i) = channels_for(s, i);
                    mask = mask | needs(i);
                    edges = edges | ((needs(i) & bit(edge_channel)) != 0 -> edges_for(i) : 0)
                :: else
                fi
            }
#ifdef MUTANT_NOT_REARMED_AFTER_A_STALE_EVENT
            mask = (is_handled -> mask : (mask & ~bit(c)));
#endif
        :: else
        fi;
        if
        :: (mask & bit(edge_channel)) != 0 -> watch_set(s, edges, result)
        :: else
        fi;
        if
        :: result != ok -> // the others stay as they are
            take_failed(s, mask & ~armed_channels(s), result, items);
            post_operations(items);
            items = 0;
            mask = 0;
            result = ok
        :: else
        fi;
        edges = 0;
        c = 0;
        is_handled = false
    }
    arm_all(s, mask, units);
    d_step {
        balance = balance + units;
        settle(balance, private_work);
        balance = 0;
        units = 0;
        mask = 0;
        is_held[s] = false;
        is_stopped = !is_attached[s] && are_idle(s); // the reactor's reference
        unlock(s);
        if
        :: is_stopped -> is_stopped = false; release(s)
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
        d_step { // waits_at_once(), is_asked_by_request()
            is_told = false;
            c = direction_of(want_of[w]);
            if
            :: is_plain(w) && is_one_way(want_of[w]) && is_attached[s] && (flags[s] & closing) == 0 &&
                   is_idle(s, c) && !TOLD_ONCE && (URING || c != write_channel) ->
#if EDGE
                if
                :: (unconsumed(s) & want_of[w]) == 0 && !source_is_set[source(s, c)] &&
                       source_left[source(s, c)] != 0 ->
                    source_left[source(s, c)]--;
                    is_told = true
                :: else
                fi
#else
                is_told = (unasked_left[s] != 0)
#endif
            :: else
            fi;
            mask = (is_told -> bit(c) : 0);
            c = 0
        }
        if
        :: is_told -> is_told = false; goto request_at_once
#ifndef MUTANT_CLOSED_NOT_ASKED
        :: !is_told && closed[s] != still_open ->
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
#if JOBS & job_poll_io
        ;
        slot_refused[s] = slot_refused[s] & ~(is_slot[w] -> want_of[w] : 0)
#endif
#if !EDGE
        ;
        if // is_ready()
        :: is_one_way(want_of[w]) && !TOLD_ONCE && is_known_empty(s, want_of[w]) -> goto pend
        :: else -> skip
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
            :: else ->
#if EDGE
                is_told = is_one_way(want_of[w]) && is_plain(w) && !TOLD_ONCE // watch_draining()
#else
                unasked_left[s] = MAX_UNASKED
#endif
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
    :: is_told ->
        d_step { // watch_draining()
            is_told = false;
            c = direction_of(want_of[w]);
            h = source(s, c);
            if
            :: source_is_set[h] && is_set_shared(s, c) -> skip
            :: !(source_is_set[h] && is_set_shared(s, c)) && source_left[h] != 0 -> source_left[h]--
            :: else ->
                poll_now(bit(c), found, result); // POLLIN or POLLOUT, which POLLERR and POLLHUP join
                h = source(s, c);
                h_told = (found == 0 && result == ok -> 1 : 0);
                source_checked(h, h_told != 0);
                found = 0;
                result = ok;
                if
                :: !source_is_set[h] && !is_set_shared(s, c) -> // leave_edges()
                    set_mask[s] = 0;
                    set_ready[s] = false
                :: else
                fi
            fi;
            c = 0
        }
    :: else
    fi;
#endif
    if
    :: r != 0 || result_of[w] != ok -> r = 0; goto over_at_once
    :: else -> goto pend
    fi;

request_at_once:
    skip;
    arm_all(s, mask, units); // arm_request()
    d_step {
        if
        :: units == 0 -> work_started()
        :: else
        fi;
        units = 0;
#if !EDGE
        unasked_left[s]--;
        word_forget(s, want_of[w]);
        would_block[s] = would_block[s] & ~mask;
#endif
        needs(w) = mask;
        mask = 0;
        stage[w] = pending;
        underway++;
        unlock(s)
    }
    goto job_done;

over_at_once:
    atomic {
        skip;
        d_step { // its completion is posted, after the lock is released
            stage[w] = taken;
            is_running[w] = is_call[w] || has_slot[w];
            underway++;
            unlock(s);
            post_new(operation_item(w));
            users--;
            w = none;
            s = 0
        }
    }
    goto job;

    // ---- scheduled_io::pend() -------------------------------------------------------------------

pend:
    atomic {
        skip;
        d_step {
            needs(w) = channels_for(s, w);
            must_check[w] = is_exact(w) && may_be_stale(s, needs(w), me);
            result = ok;
            mask = needs(w);
            edges = edges_for(w);
            is_told = is_attached[s] && are_armed(s, mask) &&
                      ((mask & bit(edge_channel)) == 0 || are_watched(s, edges));
            if
            :: is_told ->
                work_started();
                push(s, w);
                unlock(s);
                mask = 0;
                edges = 0
            :: else
            fi
        }
        if
        :: is_told -> is_told = false; goto pended
        :: else
        fi;
        if // activate_request()
        :: is_attached[s] && !are_any_armed(s, mask) && (mask == bit(read_channel) ||
                                                        mask == bit(write_channel)) ->
            goto arm_what_it_needs
        :: else
        fi
    }
    // start_waking()
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
        told = 0
    }
    if
    :: r != 0 -> goto told_at_pend
    :: else
    fi;
#endif
    if
    :: result == ok && (mask & bit(edge_channel)) != 0 && !are_watched(s, edges) ->
        // is_told_by_set(), watch_more()
        d_step {
            if
            :: !is_attached[s] -> attach(s, is_alone(me))
            :: else
            fi;
#ifndef MUTANT_SET_NOT_WATCHED
            watch_set(s, edges, result)
#endif
        }
        if
        :: result == ok ->
            d_step {
                take_set(s, told);
                r = 0;
                if
#ifndef MUTANT_EVENT_OF_SET_DROPPED
                :: told != 0 ->
                    h_told = from_poll_events(told);
                    word_set(s, h_told);
                    satisfied(s, w);
                    r = h_r;
                    told = (is_plain(w) -> r : 0);
                    items = 0;
                    take_satisfied(s, items, told);
                    post_operations(items);
                    items = 0
#endif
                :: else
                fi;
                told = 0
            }
            if
            :: r != 0 -> goto told_at_pend
            :: else
            fi
        :: else
        fi
    :: else
    fi;
    if
    :: result == ok -> // activate()
        d_step {
            if
            :: !is_attached[s] -> attach(s, is_alone(me))
            :: else
            fi;
#ifndef MUTANT_SET_NOT_WATCHED
            if
            :: (mask & bit(edge_channel)) != 0 -> watch_set(s, edges, result)
            :: else
            fi
#endif
        }
    :: else
    fi;
    if
    :: result != ok ->
        d_step {
            result_of[w] = result;
            result = 0;
            edges = 0;
            mask = 0
        }
        if
        :: is_restart -> goto refused_again
        :: else -> goto over_at_once
        fi
    :: else
    fi;
arm_what_it_needs:
    skip;
    arm_all(s, mask, units);
    d_step {
        if
        :: units == 0 -> work_started()
        :: else -> work = work - (units - 1)
        fi;
        units = 0;
        mask = 0;
        edges = 0;
        push(s, w);
        unlock(s)
    }
    goto pended;

told_at_pend: // the operation need not wait
    atomic {
        skip;
        d_step {
            make_event(s, w, r);
            note_success(s, w);
            mask = 0;
            edges = 0;
            if
            :: is_restart -> is_running[w] = true; unlock(s)
            :: else
            fi
        }
    }
    if
    :: is_restart -> goto call_again
    :: else -> r = 0; goto over_at_once
    fi;

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

#include "calls.pml"

#if ENDS_CONTEXT
#include "context_end.pml"

ended_thread:
    skip
#endif
}

#include "outside.pml"
