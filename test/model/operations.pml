// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A part of the threads: an operation that has its event or error comes back, and its handler runs.
// Then what a thread does next.

    // ---- an operation comes back: wait_op::do_complete(), io_op::do_complete() --------------------

complete:
    atomic {
        require(completes_once, stage[w] == taken);
        if
        :: is_call[w] -> goto make_call
        :: !is_call[w] && has_slot[w] -> skip
        :: else -> goto handler
        fi
    }
    atomic { // finish_wait()
        !is_locked[s] ->
        d_step {
            is_locked[s] = true;
            is_running[w] = false;
            items = 0;
            if
            :: is_cancelled[w] ->
                if
                :: closed[s] == still_open && event_of[w] != 0 ->
                    note_given_back(event_of[w]);
#ifndef MUTANT_NEWS_NOT_GIVEN_BACK
                    word_give_back(s, w);
#endif
                    take_satisfied(s, items, 0)
                :: else
                fi;
                result_of[w] = aborted;
                event_of[w] = 0
            :: else
            fi;
            unlock(s)
        }
    }
    d_step {
        post_operations(items);
        items = 0
    }
    goto handler;

make_call:
    atomic { // may_run()
        !is_locked[s] ->
        d_step {
            if
            :: result_of[w] != ok -> skip
            :: result_of[w] == ok && is_cancelled[w] -> result_of[w] = aborted
            :: result_of[w] == ok && !is_cancelled[w] && closed[s] != still_open ->
                result_of[w] = (closed[s] == service_closed -> gone : aborted)
            :: else
            fi
        }
        if
        :: result_of[w] != ok -> goto finish_call
        :: else
        fi
    }
    atomic { // the call itself, on the number
        d_step {
            note_call(want_of[w]);
#if TOLD_ONCE
            untold_of[w] = 0
#endif
        }
        if
#if TOLD_ONCE
        :: goto finish_call // it takes no change away from poll(2)
        :: true -> skip
#else
        :: number == no_file -> goto finish_call
        :: number != no_file && !is_due(want_of[w], events[number]) -> skip // would block
        :: number != no_file && want_of[w] == pollable -> skip // only one of the two may move data
        :: number != no_file && want_of[w] == error -> skip // which it may not see
        :: number != no_file && is_due(want_of[w], events[number]) ->
            drain(number, want_of[w]);
            goto finish_call
#endif
        fi
    }
    atomic { // restart()
        !is_locked[s] ->
        d_step {
            is_locked[s] = true;
            is_running[w] = false;
            is_restart = true;
            r = 0;
            if
            :: is_cancelled[w] -> result_of[w] = aborted
            :: !is_cancelled[w] && closed[s] != still_open ->
                result_of[w] = (closed[s] == service_closed -> gone : aborted)
            :: else ->
                is_deferred[w] = false;
#ifndef MUTANT_REFUSED_CALL_REPEATED
#if LEVELS
                note_refused(s, w);
#endif
                is_refused[w] = true;
                note_would_block(s, event_of[w], stamp_read[w], stamp_write[w], stamp_priority[w],
                                 stamp_error[w], want_of[w]);
#endif
                satisfied(s, w);
                r = h_r;
                if
                :: r != 0 ->
                    require(calls_for_news_only, is_newer(s, w, news_for(w)));
                    make_event(s, w, r)
                :: else
                fi
            fi;
            if
            :: result_of[w] != ok || r != 0 ->
                is_running[w] = true;
                unlock(s)
            :: else
            fi
        }
        if
        :: result_of[w] != ok -> is_restart = false; r = 0; goto finish_call
        :: result_of[w] == ok && r != 0 -> goto call_again
        :: else -> goto pend
        fi
    }

call_again: // something newer has come: others first, then again
    atomic {
        skip;
        d_step {
            r = 0;
            is_restart = false;
            post_new(operation_item(w));
            w = none;
            s = 0
        }
    }
    goto cleanup;

finish_call:
    atomic { // finish()
        !is_locked[s] ->
        is_running[w] = false
    }
    goto handler;

handler:
    atomic {
        skip;
        d_step {
            require(completes_once, stage[w] == taken);
            require(shutdown_is_sticky, !begun_after_close[w] || result_of[w] == gone);
            if
            :: is_call[w] -> release(s)
            :: else
            fi;
            if
            :: result_of[w] == ok -> note_handled(w)
            :: else
            fi;
            if
            :: result_of[w] == ok && !is_call[w] &&
                   ((JOBS & job_clear) != 0 ||
                    ((JOBS & job_no_data) != 0 && (want_of[w] & ~event_of[w] & readable) != 0)) ->
                kept_event = event_of[w];
                kept_read = stamp_read[w];
                kept_write = stamp_write[w];
                kept_priority = stamp_priority[w];
                kept_error = stamp_error[w]
            :: else
            fi;
            forget_operation(w);
            underway--;
            w = none;
            s = 0
        }
    }
    goto job;

    // ---- scheduler: work_cleanup ----------------------------------------------------------------

cleanup:
    atomic {
        skip;
        d_step {
            if
            :: private_work == 0 -> work_finished()
            :: else -> work = work + private_work - 1
            fi;
            private_work = 0
        }
    }
    goto end_next_item;

    // ---- the program: what handlers and the thread outside do -----------------------------------

job:
    atomic {
        if
        :: is_loop && loop_jobs > 0 -> loop_jobs--
        :: is_loop -> goto cleanup
        :: !is_loop && outside_jobs > 0 -> outside_jobs--
        :: !is_loop ->
            outside_jobs = 0;
#if ENDS_CONTEXT
            goto end_of_context
#else
            goto quiet
#endif
        fi;
        if
        :: (NEXT_JOBS & job_wait) != 0 && registration != none && has_room_for_operation &&
               !is_object_others ->
            choose_interest();
            begin_operation(w, false, false);
            goto start
#if JOBS & job_other
        // Another handle, of which only Asio's object and its entry are modelled: detach(), of its
        // number or of one that was closed; attach().
        :: is_object_others && !is_object_locked ->
            is_object_free = true;
            is_object_others = false;
            has_left_event = has_left_event || !is_alone(me);
            if
            :: true -> in_set[1] = false; set_ready[1] = false
            :: true -> has_left_file = true // while a duplicate is open
            fi;
            goto job
        :: is_object_free && !is_object_locked && !in_set[1] && stage[0] == over &&
               stage[WAITS - 1] == over && users == 0 ->
            is_object_free = false;
            is_object_others = true;
            object_try = all_channels;
            object_out = false;
            has_left_event = false;
            in_set[1] = true;
            set_ready[1] = (events[1] != 0);
            goto job
#endif
        :: (NEXT_JOBS & job_poll) != 0 && registration != none && has_room_for_operation ->
            choose_interest();
            begin_operation(w, false, true);
            goto start
        :: (NEXT_JOBS & job_call) != 0 && registration != none && has_room_for_operation ->
            choose_interest();
            begin_operation(w, true, false);
            goto start
        :: (NEXT_JOBS & job_try) != 0 && registration != none ->
            if
            :: want = readable
            :: (INTERESTS & (want_write | want_both)) != 0 -> want = writable
            fi;
            s = registration;
            users++;
            goto try_io
        :: (NEXT_JOBS & job_clear) != 0 && registration != none && kept_event != 0 ->
            s = registration;
            users++;
            goto clear_event
#if JOBS & job_no_data
        :: registration != none && (kept_event & (readable | writable)) == writable ->
            s = registration;
            users++;
            goto note_no_data
#endif
        :: (NEXT_JOBS & job_cancel) != 0 && registration != none ->
            s = registration;
            users++;
            goto cancel_all
        :: (NEXT_JOBS & job_slot) != 0 && registration != none &&
               (stage[0] == pending || stage[0] == taken) ->
            s = registration;
            users++;
            w = 0;
            goto cancel_one
#if JOBS & job_poll_io
        :: (NEXT_JOBS & job_poll_io) != 0 && registration != none && has_room_for_operation ->
            choose_interest();
            s = registration;
            users++;
            is_polling = true;
            goto try_io
#endif
#if JOBS & job_short
        :: is_loop && registration != none ->
            s = registration;
            users++;
            goto short_call
#endif
        :: (NEXT_JOBS & job_read) != 0 && number != no_file ->
            drain(number, readable);
            goto job
        :: (NEXT_JOBS & job_close_number) != 0 && number != no_file ->
            close_number(false);
            goto job
        :: (NEXT_JOBS & job_reset) != 0 && registration != none && users == 0 ->
            s = registration;
            registration = none; // nobody else uses the registration meanwhile
            goto reset
        :: (NEXT_JOBS & job_close) != 0 && !is_service_closed ->
            is_service_closed = true;
            if
            :: registration != none -> s = registration; users++; r = service_closed; goto close_state
            :: else -> goto job
            fi
        :: else -> goto job
        fi
    }

job_done:
    atomic {
        skip;
        d_step {
            users--;
            w = none;
            s = 0
        }
    }
    goto job;
