// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The outside world, and the beginning of a run.

#if URING
/// The kernel completes requests, at some time at which their condition holds.
proctype ring() {
end:
    do
    :: atomic { is_request_due(0, 0) -> d_step { complete_request(0, 0) } }
    :: atomic { is_request_due(0, 1) -> d_step { complete_request(0, 1) } }
    :: atomic { is_request_due(0, 2) -> d_step { complete_request(0, 2) } }
#if STATES > 1
    :: atomic { is_request_due(1, 0) -> d_step { complete_request(1, 0) } }
    :: atomic { is_request_due(1, 1) -> d_step { complete_request(1, 1) } }
    :: atomic { is_request_due(1, 2) -> d_step { complete_request(1, 2) } }
#endif
    od
}
#endif

/// The outside world.
proctype others_of_the_file() {
    do
    :: atomic {
           raises > 0 ->
           raises--;
           if
           :: (RAISED & raise_in) != 0 && (named & 1) != 0 -> d_step { raise(0, pollin) }
           :: (RAISED & raise_out) != 0 && (named & 1) != 0 -> d_step { raise(0, pollout) }
           :: (RAISED & raise_pri) != 0 && (named & 1) != 0 -> d_step { raise(0, pollpri) }
           :: (RAISED & raise_end) != 0 && (named & 1) != 0 -> d_step { raise(0, pollin | pollrdhup) }
           :: (RAISED & raise_change) != 0 && (named & 1) != 0 -> d_step { raise(0, pollpri | pollerr) }
           :: (RAISED & raise_err) != 0 && (named & 1) != 0 -> d_step { raise(0, pollerr) }
           :: (RAISED & raise_hup) != 0 && (named & 1) != 0 -> d_step { raise(0, pollhup) }
           :: (RAISED & raise_drain) != 0 && (named & 1) != 0 ->
               d_step { drain(0, readable); events[0] = events[0] & ~pollpri }
           :: (RAISED & raise_drain) != 0 && (RAISED & raise_out) != 0 && (named & 1) != 0 ->
               d_step { drain(0, writable) }
           :: (RAISED & raise_drain) != 0 && (RAISED & raise_err) != 0 && (named & 1) != 0 ->
               events[0] = events[0] & ~pollerr
#if FILES > 1
           :: (named & 2) != 0 -> d_step { raise(1, pollin) }
#endif
           :: raises = 0
           fi
       }
    :: raises == 0 -> break
    od
}

init {
    d_step {
        is_alive[0] = true;
        references[0] = 1;
        generation[0] = 1;
        restart_ticks(0);
#if LEVELS
        open_sources(0);
#endif
        events[0] = BEGINS_WITH;
#if JOBS & job_other
        named = 3;
#endif
        note_registered();
        queue!task_item;
        if
        :: LOOP_JOBS > 0 -> post_new(job_item)
        :: else
        fi
    }
    atomic {
        run thread(0, true);
#if LOOP_THREADS > 1
        run thread(1, true);
#endif
        run thread(LOOP_THREADS, false);
#if URING
        run ring();
#endif
        run others_of_the_file()
    }
}
