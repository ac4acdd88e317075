// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A part of the threads: the execution context ends, when no thread runs the loop any more.

    // ---- the end of the execution context, when no thread runs the loop any more ------------------

end_of_context:
    is_stopped_loop = true;
    atomic {
        loops_out == LOOP_THREADS ->
        d_step { // service_core::shutdown(): abandon()
            for (c : 0 .. STATES - 1) {
                if
                :: registration == c && closed[c] == still_open -> // in states_
                    items = 0;
                    shut_down(c, service_closed, items);
                    destroy_operations(items);
                    // abandon_reactor()
#ifndef MUTANT_SHUTDOWN_KEEPS_THE_REACTORS_REFERENCE
                    if
                    :: is_attached[c] && are_idle(c) -> release(c)
                    :: else
                    fi;
#endif
                    skip
#ifndef MUTANT_SHUTDOWN_LEAVES_THE_HANDLE_ATTACHED
                    ;
                    is_attached[c] = false
#endif
                :: else
                fi
            }
            is_service_closed = true;
            c = 0
        }
    }
    d_step { // the reactor's shutdown(): what is armed is dropped
        shut_down_reactor(c);
        c = 0
    }
    d_step { // scheduler::shutdown(): what is queued is destroyed
        do
        :: nempty(queue) ->
            queue?item;
            if
            :: item >= operation_item(0) ->
                items = bit(item - operation_item(0));
                destroy_operations(items)
            :: item >= waker_item(0, 0) && item < operation_item(0) ->
#if URING
                skip // it is an io_queue, whose operation the reactor has dropped
#else
                s = (item - waker_item(0, 0)) / 3;
                c = (item - waker_item(0, 0)) % 3;
                dropped(s, c)
#endif
            :: item == deferred_item -> // deferred_checks::drop()
                for (c : 0 .. STATES - 1) {
                    if
                    :: (deferred_list & bit(c)) != 0 -> release(c)
                    :: else
                    fi
                }
                deferred_list = 0
            :: else
            fi
        :: else -> break
        od;
        item = 0;
        s = 0;
        c = 0;
        if
        :: registration != none -> release(registration); registration = none
        :: else
        fi;
        work = 0; // of a scheduler that is gone
        check_end()
    }
