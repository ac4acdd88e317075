// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The wakers on epoll: armed, attached and detached.

/// channels_to_attach()
#if !TOLD_ONCE || defined(MUTANT_EDGE_WAKER_ARMED_LATER)
#define channels_to_attach bit(read_channel)
#else
#define channels_to_attach bit(edge_channel)
#endif

/// arm_all(). Two steps a waker, or more: start_op(), in it poll(2) if the waker asks, and
/// finish_arming(). Sets `units`, and uses `ac`, `is_told` and `arming_result`. `is_new`: the handle
/// was attached just now.
inline arm_all(s, mask, at_once, is_new, units) {
    d_step {
        units = 0;
        ac = 0;
        find_idle(s, mask, ac)
    }
    do
    :: atomic {
           ac < 3 && !is_object_locked ->
           d_step {
               require(no_use_after_free, is_alive[s]);
               is_told = false;
               is_asking = false;
#if HAS_PRIORITY || TOLD_ONCE
               // arm_reader(): the waker for priority events comes back first
               if
               :: ac == read_channel && !(is_new) && (waker[at(s, edge_channel)] == armed ||
                                                      waker[at(s, edge_channel)] == armed_asked) ->
                   prepay(s, edge_channel);
                   abort_wakers(s, bit(edge_channel))
               :: else
               fi;
#endif
               // begin_arming()
               is_prepaid[at(s, ac)] = false;
               waker[at(s, ac)] =
                   ((!(at_once) && (is_forgetting[s] || (unprimed[s] & bit(ac)) != 0)) ->
                        armed_asked :
                        armed);
               // start_op(): if the latch is set, perform() calls speculate()
               require(armed_once, (object_queues & bit(ac)) == 0);
               if
#ifndef MUTANT_LATCH_IGNORED_AT_ARM
               :: (object_try & bit(ac)) != 0 &&
                      (ac != read_channel || (object_queues & bit(edge_channel)) == 0) ->
                   if
                   :: waker[at(s, ac)] == armed -> is_told = true
                   :: else -> // is_told_while_arming()
                       if
                       :: (unprimed[s] & bit(ac)) == 0 ->
                           is_told = true;
                           if
                           :: is_forgetting[s] -> latched[s] = latched[s] | bit(ac)
                           :: else
                           fi
                       :: else ->
#ifdef MUTANT_NOT_ASKED_WHILE_ARMING
                           skip
#else
                           is_asking = (ac != write_channel || TOLD_ONCE)
#endif
#ifdef MUTANT_PRIORITY_ARMED_AFTER_ADD
                           ;
                           is_asking = is_asking && !(is_new) // the event of EPOLL_CTL_ADD is due
#endif
                       fi
                   fi
#endif
               :: else
               fi;
               if
               :: waker[at(s, ac)] == armed_asked -> unprimed[s] = unprimed[s] & ~bit(ac)
               :: else
               fi;
               if
               :: is_told -> fire_at_once(s, ac)
               :: !is_told && is_asking -> is_object_locked = true
               :: else -> queue_waker(s, ac, arming_result)
               fi
           }
       }
       if
       :: is_asking ->
#if TOLD_ONCE
           check_changes(s, found, arming_result, is_changed); // is_due()
#endif
           d_step {
#if TOLD_ONCE
               found = ((ac != write_channel && match(flags[s], interest_of(ac)) != 0) ||
                        is_changed -> 1 : 0);
               is_changed = false;
#else
               poll_now(interest_of(ac), found, arming_result); // is_due(), with POLLIN or POLLPRI
#endif
               if
               :: found != 0 || arming_result != ok ->
                   note_found(interest_of(ac));
                   waker_result[at(s, ac)] = arming_result;
                   fire_at_once(s, ac)
               :: else -> queue_waker(s, ac, arming_result)
               fi;
               found = 0;
#ifdef MUTANT_REACTOR_LOCK_KEPT
               is_object_locked = (waker[at(s, ac)] == firing)
#else
               is_object_locked = false
#endif
           }
       :: else
       fi;
       d_step { // finish_arming()
           is_prepaid[at(s, ac)] = (waker[at(s, ac)] == firing);
#ifdef MUTANT_UNIT_OF_FIRED_WAKER_SPENT
           units++;
#else
           units = units + (is_prepaid[at(s, ac)] -> 0 : 1);
#endif
           is_asking = false;
           is_told = false;
           arming_result = ok;
           ac++;
           find_idle(s, mask, ac)
       }
    :: ac == 3 -> break
    od;
    ac = 0 // (Spin lets no loop end at a d_step)
}

/// The end of start_op() after a speculative perform(): post_immediate_completion().
inline fire_at_once(s, c) {
    waker[at(s, c)] = firing;
#if EDGE
    unfounded = unfounded | (bit(c) & ~remembered);
    remembered = remembered & ~bit(c);
#endif
    object_try = object_try & ~bit(c);
    post_new(waker_item(s, c))
}

/// detach(), in one step or three: fstat(2) and, if the number is not ours, prepay(); then Asio's
/// lock region with epoll_ctl(2). `is_alone`: no other thread runs the loop.
inline detach(s, ours, is_alone) {
    if
    :: is_attached[s] ->
        d_step {
            is_foreign = !(ours) || (number != no_file && number != file_of[s]);
            is_left = is_foreign || number == no_file;
            if
            :: is_foreign ->
                prepay(s, read_channel);
                prepay(s, write_channel);
                prepay(s, edge_channel)
            :: else
            fi;
            has_left_event = has_left_event || !(is_alone)
        }
        atomic {
            !is_object_locked ->
            d_step {
#ifndef MUTANT_LEFT_FILE_FORGOTTEN
                has_left_file = has_left_file || is_left;
#endif
#ifndef MUTANT_ABANDONED_ENTRY_FORGOTTEN
                abandoned = (is_left -> file_of[s] : abandoned);
#endif
                if
                :: !is_foreign -> epoll_del(); drop_wakers(s)
                :: else -> abort_wakers(s, all_channels)
                fi;
                is_object_free = true;
                object_out = false;
                is_attached[s] = false;
#ifdef MUTANT_REFERENCE_DROPPED_EARLY
                if
                :: !is_held[s] -> release(s)
                :: else
                fi;
#else
                if
                :: !is_held[s] && are_idle(s) -> release(s)
                :: else
                fi;
#endif
                is_foreign = false;
                is_left = false
            }
        }
    :: else
    fi
}

/// attach(): queues the waker of `first` in a new object of Asio's, then EPOLL_CTL_ADD: two steps.
/// One more if the kernel refuses the number. On EEXIST, delete_abandoned() is the step after that,
/// and attach() begins again.
inline attach(s, first, result, is_alone) {
    do
    :: atomic {
           !is_object_locked ->
           d_step {
               require(no_use_after_free, is_alive[s]);
               assert(is_object_free);
               had_reference = (result == ok -> armed_channels(s) != 0 : had_reference);
               was_firing = armed_channels(s);
               result = ok;
               arms_first = is_idle(s, first);
               is_object_free = false;
               object_owner = s;
               object_try = all_channels;
#if EDGE
               remembered = 0;
#endif
               object_out = false;
               object_queues = 0;
               if
               :: arms_first ->
                   is_prepaid[at(s, first)] = false;
                   waker[at(s, first)] = armed;
                   object_queues = bit(first)
               :: else
               fi
           }
       }
       d_step {
           epoll_add(result);
           if
           :: result == ok ->
#ifndef MUTANT_NO_REFERENCE_OF_THE_REACTOR
               if
               :: !had_reference -> references[s]++
               :: else
               fi;
#endif
               is_attached[s] = true;
               unprimed[s] = all_channels & ~(arms_first -> bit(first) : 0);
               idle_events[s] = 0;
               latched[s] = 0;
               // unverified_events::attached(), and may_tell_of_older()
               h = (has_left_event || !(is_alone) || is_object_queued -> 1 : 0);
               has_left_event = false;
#if defined(MUTANT_OLDER_EVENTS_TRUSTED) || defined(MUTANT_EVENT_OF_ANOTHER_HANDLE_TRUSTED)
               h = 0;
#endif
               unverified_next[s] = (has_left_file -> always : (h != 0 -> always - 1 : was_firing));
               unverified_second[s] = ((has_left_file || h != 0) -> was_firing : 0)
           :: else
           fi
       }
       if
       :: result == ok -> break
       :: else ->
           atomic {
               !is_object_locked ->
               d_step {
#ifndef MUTANT_REFUSED_WAKER_KEPT
                   drop_wakers(s);
#endif
                   is_object_free = true
               }
           }
       fi;
       if
       :: result == registered_elsewhere && abandoned == file_of[s] ->
           d_step {
               abandoned = none;
               epoll_del()
           };
           skip
       :: else ->
           d_step {
               require(entry_is_free, result != registered_elsewhere);
               if
               :: !had_reference && !are_idle(s) -> references[s]++
               :: else
               fi
           }
           break
       fi
    od;
    was_firing = 0;
    had_reference = false;
    arms_first = false
}
