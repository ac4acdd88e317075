// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A part of the threads: what the program calls but for operations, and its end.

    // ---- try_io ---------------------------------------------------------------------------------

try_io:
    atomic { // ready_now()
        !is_locked[s] ->
        d_step {
            r = 0;
            result = ok;
            if
            :: closed[s] == still_open ->
                r = match(flags[s], want);
                if
                :: r == 0 && (!is_attached[s] || !are_armed(s, channels_of(want)) ||
                              !knows_empty(s, want)) ->
#if TOLD_ONCE
                    is_checking = true;
                    is_locked[s] = true
#else
                    // to_ask(): an edge-triggered wait is not told again of known emptiness
                    h_wanted = ((EDGE && knows_empty(s, want & pollable)) -> pollable : 0);
                    h_wanted = want & ~h_wanted;
                    check(s, h_wanted, found, result);
                    r = (result == ok -> match(flags[s], want) : 0);
                    found = 0;
                    result = ok
#endif
                :: else
                fi
            :: else
            fi
#if !TOLD_ONCE
            ;
            check_invariants(s)
#else
        }
    }
    if
    :: is_checking -> check_changes(s, found, result, is_changed)
    :: else
    fi;
    atomic {
        skip;
        d_step {
            if
            :: is_checking ->
                is_checking = false;
                is_changed = false;
                r = (result == ok -> match(flags[s], want) : 0);
                tell_others(s, items, 0);
                result = ok;
                unlock(s)
            :: else
            fi
#endif
            ;
            stamp_r = tick_read[s];
            stamp_w = tick_write[s];
            stamp_p = tick_priority[s];
            stamp_e = tick_error[s]
        }
        if
#if JOBS & job_poll_io
        :: r == 0 && is_polling && !has_room_for_operation ->
            want = 0; stamp_r = 0; stamp_w = 0; stamp_p = 0; stamp_e = 0;
            is_polling = false;
            goto job_done
        :: r == 0 && is_polling && has_room_for_operation ->
            d_step {
                stamp_r = 0;
                stamp_w = 0;
                stamp_p = 0;
                stamp_e = 0;
                is_polling = false;
                users--
            }
            begin_operation(w, false, true);
            goto start
#endif
        :: r == 0 && !is_polling -> want = 0; stamp_r = 0; stamp_w = 0; stamp_p = 0; stamp_e = 0; goto job_done
        :: else
        fi
    }
the_call:
    atomic {
        note_call(want);
        if
#if TOLD_ONCE
        :: r = 0
        :: true
#else
        :: number == no_file -> r = 0
        :: number != no_file && is_due(want, events[number]) ->
            r = 0;
            drain(number, want)
        :: number != no_file && !is_due(want, events[number]) -> skip
#if ERROR_QUEUE
        :: number != no_file && (events[number] & (pollerr | want)) == pollerr -> skip
#endif
#endif
        fi
    }
#if JOBS & job_poll_io
    if
    :: is_polling && r != 0 -> goto keep_waker
    :: else
    fi;
#endif
    atomic { // note_call_would_block()
        r == 0 || !is_locked[s] ->
        d_step {
            if
            :: r != 0 && closed[s] == still_open ->
                note_would_block(s, r, stamp_r, stamp_w, stamp_p, stamp_e, want);
                check_invariants(s)
            :: else
            fi;
            r = 0;
            want = 0;
            stamp_r = 0;
            stamp_w = 0;
            stamp_p = 0;
            stamp_e = 0;
            is_polling = false
        }
    }
    goto job_done;

#if JOBS & job_poll_io
    // ---- restart(), for a call of the polling interface that would have blocked --------------------

keep_waker:
    atomic {
        !is_locked[s] ->
        is_polling = false;
        if
        :: closed[s] != still_open || !has_room_for_operation ->
            want = 0; r = 0; stamp_r = 0; stamp_w = 0; stamp_p = 0; stamp_e = 0;
            goto job_done
        :: else -> users--
        fi;
        begin_operation(w, false, true);
        d_step {
            is_locked[s] = true;
            event_of[w] = r;
            stamp_read[w] = stamp_r;
            stamp_write[w] = stamp_w;
            stamp_priority[w] = stamp_p;
            stamp_error[w] = stamp_e;
            r = 0;
            stamp_r = 0;
            stamp_w = 0;
            stamp_p = 0;
            stamp_e = 0;
#if LEVELS
            note_refused(s, w);
#endif
            is_refused[w] = true;
            note_would_block(s, event_of[w], stamp_read[w], stamp_write[w], stamp_priority[w],
                             stamp_error[w], want_of[w]);
            satisfied(s, w);
            r = h_r;
            if
            :: r != 0 -> // something newer has come: the call is made again
                require(calls_for_news_only, is_newer(s, w, news_for(w)));
                want = want_of[w];
                stamp_r = tick_read[s];
                stamp_w = tick_write[s];
                stamp_p = tick_priority[s];
                stamp_e = tick_error[s];
                forget_operation(w);
                unlock(s);
                w = none
            :: else
            fi
        }
        if
        :: r != 0 -> is_polling = true; goto the_call
        :: else -> goto pend
        fi
    }
#endif

#if JOBS & job_short
    // ---- starts_watching_hang_up() ----------------------------------------------------------------

short_call:
    atomic {
        !is_locked[s] ->
        is_locked[s] = true;
        mask = ((closed[s] == still_open && is_attached[s] && is_idle(s, write_channel)) ->
                    bit(write_channel) :
                    0)
    }
    arm_all(s, mask, false, false, units);
    d_step {
        settle(units, private_work);
        units = 0;
        if
        :: closed[s] == still_open && is_attached[s] ->
            check(s, writable, found, result);
            found = 0;
            result = ok
        :: else
        fi;
        mask = 0;
        unlock(s)
    }
    goto job_done;
#endif

    // ---- clear(), cancel(), a slot ----------------------------------------------------------------

clear_event:
    atomic {
        !is_locked[s] ->
        d_step {
            if
            :: closed[s] == still_open ->
                drop(s, kept_event, kept_read, kept_write, kept_priority, kept_error);
                would_block[s] = would_block[s] & ~channels_of(kept_event);
                check_invariants(s)
            :: else
#ifdef MUTANT_CLEAR_WIPES_THE_SHUTDOWN
                -> closed[s] = still_open
#endif
            fi;
            kept_event = 0;
            kept_read = 0;
            kept_write = 0;
            kept_priority = 0;
            kept_error = 0
        }
    }
    goto job_done;

#if JOBS & job_no_data
#ifdef MUTANT_NO_DATA_DESPITE_EVENTS
#define no_event_for_readers(s) true
#else
#define no_event_for_readers(s)                                                                    \
    ((unchanged(s, kept_read, kept_write, kept_priority, kept_error) & (readable | error)) ==      \
     (readable | error))
#endif
note_no_data:
    atomic {
        !is_locked[s] ->
        d_step {
            if // unless an event has come since
            :: no_event_for_readers(s) -> would_block[s] = would_block[s] | bit(read_channel)
            :: else
            fi;
            check_invariants(s);
            kept_event = 0;
            kept_read = 0;
            kept_write = 0;
            kept_priority = 0;
            kept_error = 0
        }
    }
    goto job_done;
#endif

cancel_all:
    atomic {
        !is_locked[s] ->
        d_step {
            items = 0;
            if
            :: closed[s] == still_open ->
                for (i : 0 .. WAITS - 1) {
                    if
#ifdef MUTANT_CANCEL_TAKES_WHAT_IS_TAKEN
                    :: stage[i] == taken && state_of[i] == s -> items = items | bit(i)
#endif
                    :: is_pending_in(s, i) -> fail_pending(i, aborted, items)
                    :: !is_pending_in(s, i) && is_running[i] && is_call[i] && state_of[i] == s ->
                        is_cancelled[i] = true
                    :: else
                    fi
                }
            :: else
            fi;
            check_invariants(s)
        }
    }
    d_step {
        post_operations(items);
        items = 0
    }
    goto job_done;

cancel_one:
    atomic {
        !is_locked[s] ->
        d_step {
            items = 0;
            if
            :: closed[s] == still_open && state_of[w] == s ->
                if
                :: is_pending_in(s, w) -> fail_pending(w, aborted, items)
                :: !is_pending_in(s, w) && is_running[w] -> is_cancelled[w] = true
                :: else
                fi
            :: else
            fi;
            check_invariants(s)
        }
    }
    d_step {
        post_operations(items);
        items = 0
    }
    goto job_done;

    // ---- the end of a registration ----------------------------------------------------------------

reset:
    atomic {
        r = deregistered;
        ours = true;
        if
        :: true
        :: FILES > 1 && number == 0 -> // the number is closed first, behind Moor's back: abandon()
            ours = false;
            if
            :: true -> close_number(false)
            :: true -> close_number(true)
            fi;
            name_second_file()
#if RENAMES
        :: number == 1 && (named & bit(0)) != 0 -> ours = false; name_first_file()
#endif
        fi
    }
    goto close_state;

close_state:
    atomic { // close()
        !is_locked[s] ->
        d_step {
            items = 0;
            is_stopped = (closed[s] != still_open);
            if
            :: !is_stopped -> is_locked[s] = true; shut_down(s, r, items)
            :: else
            fi
        }
        if
        :: is_stopped -> is_stopped = false; goto closed_state
        :: else
        fi
    }
#ifndef MUTANT_CLOSE_LEAVES_THE_HANDLE_ATTACHED
    detach(s, (r == service_closed || ours), is_alone(me));
#endif
    d_step {
        unlock(s);
        post_operations(items);
        items = 0
    }

closed_state:
    if
    :: r == service_closed -> r = 0; goto job_done
    :: else
    fi;
    d_step {
        r = 0;
        release(s); // the registration's reference
        s = 0;
        w = none
    }
    if
    :: is_ending -> goto ended
    :: else
    fi;
    atomic {
        if
        :: true
        :: ours && FILES > 1 && number == 0 -> close_number(false); name_second_file()
        fi;
        ours = false
    }
    d_step {
        if
        :: !is_service_closed && number != no_file -> open_registration()
        :: else
        fi
    }
    goto job;

    // ---- when nothing is left to do ---------------------------------------------------------------

quiet:
    timeout ->
    d_step { check_quiet() }
    if
    :: registration != none ->
        d_step {
            is_ending = true;
            s = registration;
            registration = none;
            r = deregistered;
            ours = true
        }
        goto close_state
    :: else
    fi;
ended:
    timeout ->
    d_step { check_end() }
