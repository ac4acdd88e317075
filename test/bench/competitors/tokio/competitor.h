/*
 * test/bench/competitors/tokio/competitor.h
 *
 * Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
 * (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
 *
 * What src/lib.rs gives to C++.
 */

#ifndef MOOR_BENCH_COMPETITORS_TOKIO_COMPETITOR_H
#define MOOR_BENCH_COMPETITORS_TOKIO_COMPETITOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum moor_tokio_kind {
    moor_tokio_ring,
    moor_tokio_ready,
    moor_tokio_churn,
    moor_tokio_churn_pending
};

/* The handles stay the caller's. The functions are called from the runtime's threads. */
typedef struct moor_tokio_spec {
    int32_t kind;
    const int* handles; /* all but a ring have one */
    size_t count;
    int chatter;      /* another one, which is readable and will not be waited for again, or -1 */
    uint32_t threads; /* 1: a current-thread runtime */
    int32_t drains;   /* whether take() is called a second time, which finds nothing */
    void* context;
    /* Reads from handle i; for the second time, `again` is 1. Returns whether there was anything. */
    int32_t (*take)(void* context, uint32_t i, int32_t again);
    /* For a ring: writes towards the next one. Returns whether the work is done. */
    int32_t (*pass_on)(void* context, uint32_t i);
    /* For the others: makes the handle readable. */
    void (*put)(void* context);
} moor_tokio_spec;

typedef struct moor_tokio_competitor moor_tokio_competitor;

/* NULL if there is no runtime to be had. */
moor_tokio_competitor* moor_tokio_new(const moor_tokio_spec* spec);

/* A ring: until pass_on() says that it is done. The others: so many waits. */
void moor_tokio_run(moor_tokio_competitor* competitor, uint64_t times);

void moor_tokio_free(moor_tokio_competitor* competitor);

#ifdef __cplusplus
}
#endif

#endif
