// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#include "support/uring.hpp"

#include "support/counts.hpp"
#include "support/faults.hpp"

#include <atomic>

#if defined(BOOST_ASIO_HAS_IO_URING)
#include <liburing.h>
#include <signal.h>
#endif

namespace {

std::atomic<long> calls{0};

} // namespace

namespace test {

long uring_calls() { return calls; }

} // namespace test

#if defined(BOOST_ASIO_HAS_IO_URING)

extern "C" {

int __real_io_uring_submit(::io_uring* ring);
int __wrap_io_uring_submit(::io_uring* ring);
int __wrap_io_uring_submit(::io_uring* ring) {
    ++calls;
    for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; ++i) {
        ::io_uring_sqe& request = ring->sq.sqes[i & ring->sq.ring_mask];
        if (request.opcode != IORING_OP_POLL_ADD)
            continue;
        int error = test::failure_of(test::call::uring_poll);
        if (error == EINVAL)
            request.buf_index = 1; // which a poll request does not have
        else if (error == EBADF)
            request.fd = -1;
    }
    int error = test::failure_of(test::call::uring_submit);
    return error != 0 ? -error : __real_io_uring_submit(ring);
}

int __real_io_uring_queue_init(unsigned entries, ::io_uring* ring, unsigned flags);
int __wrap_io_uring_queue_init(unsigned entries, ::io_uring* ring, unsigned flags);
int __wrap_io_uring_queue_init(unsigned entries, ::io_uring* ring, unsigned flags) {
    int error = test::failure_of(test::call::uring_queue_init);
    return error != 0 ? -error : __real_io_uring_queue_init(entries, ring, flags);
}

// What a wait for a completion comes down to, unless one is there already.
int __real___io_uring_get_cqe(::io_uring*, ::io_uring_cqe**, unsigned, unsigned, ::sigset_t*);
int __wrap___io_uring_get_cqe(::io_uring*, ::io_uring_cqe**, unsigned, unsigned, ::sigset_t*);
int __wrap___io_uring_get_cqe(::io_uring* ring, ::io_uring_cqe** cqe, unsigned submit, unsigned n,
                              ::sigset_t* mask) {
    ++calls;
    if (int error = test::failure_of(test::call::uring_get_cqe))
        return -error;
    int r = __real___io_uring_get_cqe(ring, cqe, submit, n, mask);
    if (r == 0 && *cqe)
        test::events_were_fetched();
    return r;
}

} // extern "C"

#endif
