// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The bounds of one run of the model, with their defaults, and the vocabulary. run.sh sets the
// bounds, and at most one MUTANT_..., by -D.

// ---- bounds -------------------------------------------------------------------------------------

#ifndef LEVELS
#define LEVELS 0 // 1: the reactor reports levels: levels.pml
#endif
#ifndef URING
#define URING 0 // 1: io_uring, not select
#endif
#ifndef EDGE
#define EDGE 0 // 1: trigger::edge
#endif
#ifndef TOLD_ONCE
#define TOLD_ONCE 0 // 1: the files tell a change to one poll(2) only
#endif
#ifndef LOOP_THREADS
#define LOOP_THREADS 1 // how many threads run the scheduler
#endif
#ifndef FIRST_LOOP_THREAD
#define FIRST_LOOP_THREAD nobody // which threads have handled an event before the program begins
#endif
#ifndef WAITS
#define WAITS 2 // operations that may be under way together
#endif
#ifndef STATES
#define STATES 1 // scheduled states; two where a number is registered again
#endif
#ifndef FILES
#define FILES 1 // files that have the number, one after the other
#endif
#ifndef LOOP_JOBS
#define LOOP_JOBS 0 // what handlers may do, altogether
#endif
#ifndef OUTSIDE_JOBS
#define OUTSIDE_JOBS 0 // what a thread outside of the loop may do
#endif
#ifndef JOBS
#define JOBS job_wait
#endif
#ifndef NEXT_JOBS
#define NEXT_JOBS JOBS // of them, what may come next: where a program has an order
#endif
#ifndef INTERESTS
#define INTERESTS want_read
#endif
#ifndef RAISES
#define RAISES 1 // events that come
#endif
#ifndef RAISED
#define RAISED raise_in
#endif
#ifndef RENAMES
#define RENAMES 0 // 1: the number may become the first file's again
#endif
#ifndef BEGINS_WITH
#define BEGINS_WITH 0 // events of the first file
#endif
#ifndef IDLE_LIMIT
#define IDLE_LIMIT 2 // 8 in the headers
#endif

// Set for programs in which somebody compares ticks. Without, nobody reads them.
#ifndef TICKS
#define TICKS 0
#endif
#ifndef DEFERS
#define DEFERS 0
#endif
#ifndef HAS_PRIORITY
#define HAS_PRIORITY 0 // whether an operation may be for priority events
#endif

#ifndef IS_FIFO
#define IS_FIFO 0 // 1: an error is the end of a FIFO's readers
#endif
#ifndef ERROR_QUEUE
#define ERROR_QUEUE 0 // 1: a call may block although there is an error
#endif
#ifndef DRAINS
#define DRAINS 0 // 1: a handler drains the handle
#endif
#ifndef CONFORMS
#define CONFORMS 0 // 1: the steps are written to a file, for test/conformance
#endif
#ifndef ENDS_CONTEXT
#define ENDS_CONTEXT 0 // 1: the program ends with the execution context, at any moment
#endif

// JOBS: what a program may consist of.
#define job_wait 1
#define job_call 2          // async_io
#define job_try 4           // try_io
#define job_clear 8         // clear(), of the event of an earlier wait
#define job_cancel 16       // cancel() of the registration
#define job_slot 32         // a cancellation slot is emitted
#define job_read 64         // the owner reads without Moor
#define job_reset 128       // the registration ends; the number is registered again
#define job_close 256       // registration_service::close()
#define job_poll 512        // poll_read_ready() or poll_write_ready()
#define job_other 1024      // another handle enters or leaves the reactor
#define job_close_number 2048 // the owner closes the number, and nobody takes it
#define job_short 4096      // a transfer was cut short: the hang-up is watched for
#define job_poll_io 8192    // poll_read_io() or poll_write_io()
#define job_no_data 16384   // note_no_data(), after an earlier wait

// INTERESTS: what operations may be for.
#define want_read 1
#define want_write 2
#define want_both 4
#define want_priority 8
#define want_closed 16
#define want_read_or_closed 32
#define want_error 64

// RAISED: what may happen to a file.
#define raise_in 1
#define raise_out 2
#define raise_pri 4
#define raise_end 8     // end of file: the other side has shut down its sending
#define raise_hup 16    // hang-up
#define raise_drain 32  // somebody else reads everything, takes the error or the room
#define raise_err 64
#define raise_change 128 // as most files do that tell a change once

// ---- poll(2), as bits ---------------------------------------------------------------------------

#define pollin 1
#define pollout 2
#define pollpri 4
#define pollerr 8
#define pollhup 16
#define pollrdhup 32

// ---- moor::interest and moor::readiness, as bits ------------------------------------------------

#define readable 1
#define writable 2
#define priority 4
#define error 8
#define read_closed 16
#define write_closed 32

#define pollable (readable | writable)
#define sticky (read_closed | write_closed)
#define closing (sticky | error)
#define beyond (priority | closing)
#define read_stream (readable | read_closed)
#define write_stream (writable | write_closed)

// kernel.hpp: to_poll_events(), from_poll_events()
#define to_poll_events(i) (((i) & 7) | ((((i) & read_closed) != 0) -> pollrdhup : 0))
#define from_poll_events(e)                                                                        \
    (((e) & 7) | ((((e) & pollerr) != 0) -> error : 0) |                                           \
     ((IS_FIFO && ((e) & pollerr) != 0) -> write_closed : 0) |                                     \
     ((((e) & pollrdhup) != 0) -> read_closed : 0) |                                               \
     ((((e) & pollhup) != 0) -> (read_closed | write_closed) : 0))

// readiness_word::match()
#define match(f, want)                                                                             \
    (((((f) & (want)) != 0) || (((f) & closing) == 0)) ->                                          \
         ((f) & (want)) :                                                                          \
         (((((want) & readable) != 0) && (((f) & (error | read_closed)) != 0) -> readable : 0) |   \
          ((((want) & writable) != 0) && (((f) & (error | write_closed)) != 0) -> writable : 0)))

// Whether poll(2) tells something that completes a wait: the table of readiness.hpp.
#define is_due(want, e) (match(from_poll_events(e), want) != 0)

// ---- channels and threads -----------------------------------------------------------------------

#define read_channel 0
#define write_channel 1
#define edge_channel 2
#define bit(c) (1 << (c))
#define all_channels 7
#define interest_of(c) bit(c) // readable, writable, priority

#define nobody 254
#define several 255
#define none 255
#define failed 254
#define no_file 2 // what a number stands for that is not open

// What an operation completes with.
#define ok 0
#define aborted 1
#define gone 2
#define bad_descriptor 3
#define registered_elsewhere 4 // EEXIST

// Why a state is closed.
#define still_open 0
#define deregistered 1
#define service_closed 2

// ---- the scheduler's queue -----------------------------------------------------------------------

// Its items, a byte each.
#define task_item 1     // the scheduler's own turn at the reactor
#define object_item 2   // the descriptor_state, for object_events
#define deferred_item 3 // Moor's deferred_checks
#define job_item 4      // a function that the program has posted
#define submit_item 5   // io_uring_service's submit_sqes_op
#define waker_item(s, c) (8 + 3 * (s) + (c))
#define operation_item(w) (32 + (w))

// Scratch of one d_step: not part of the model's state.
hidden int i;
hidden byte h_same;
hidden int h;
hidden int h_r;
hidden int h_told;
hidden int h_must;
hidden int h_wanted;
hidden int h_news;
