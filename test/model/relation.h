// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The steps that a run of the model took, for published.pml: written to the file `relation` at the end
// of the run, a line each.

#include <stdio.h>
#include <stdlib.h>

#define KINDS 16
#define VIEWS 256

static unsigned char has_step[KINDS][VIEWS][VIEWS];

static void write_steps(void) {
    FILE *file = fopen("relation", "w");
    int kind, before, after;
    if (!file)
        abort();
    for (kind = 0; kind != KINDS; ++kind)
        for (before = 0; before != VIEWS; ++before)
            for (after = 0; after != VIEWS; ++after)
                if (has_step[kind][before][after])
                    fprintf(file, "%d %d %d\n", kind, before, after);
    fclose(file);
}

static void note_step(int kind, int before, int after) {
    static int is_registered = 0;
    if (before == after)
        return;
    if (!is_registered) {
        is_registered = 1;
        atexit(write_steps);
    }
    has_step[kind][before][after] = 1;
}
