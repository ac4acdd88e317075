#!/usr/bin/env python3
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Measures the adapters beside the own use of their libraries, and prints a table for each adapter.

The ways of one adapter are measured in turns, in random order. Compare times within one table only. System calls
are those of the thread that runs the loop or blocks (strace), and counted: the difference of two runs of different length.

Example:
  test/bench/adapters/run.sh --write doc/performance-adapters.adoc
      measures everything, and puts the tables into the documentation
"""

import argparse
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import measuring

# What the tables say; the way of the library itself is the base of the ratios.
WAYS = {
    "libpq": {
        "one:libpq": "one query at a time: `PQexec`",
        "one:moor": "one query at a time: `async_exec`",
        "pipeline:libpq": "100 in a pipeline: `PQsendQueryParams`, `PQpipelineSync`, a `PQgetResult` that blocks",
        "pipeline:moor": "100 in a pipeline: `async_exec`, `async_pipeline_sync`",
    },
    "curl": {
        "one:curl": "one transfer at a time: `curl_easy_perform`",
        "one:moor": "one transfer at a time: `async_perform`",
        "fifty:curl": "50 transfers at once: `curl_multi_perform`, `curl_multi_poll`",
        "fifty:moor": "50 transfers at once: `async_perform`",
    },
    "zmq": {f"{workload}-{transport}:{way}": f"{transport}, {what}: {how[way]}"
            for transport in ("tcp", "inproc")
            for workload, what, how in (
                ("push", "PUSH", {"zmq": "`zmq_send`", "moor": "`async_send`"}),
                ("pull", "PULL", {"zmq": "`zmq_recv`", "moor": "`async_receive`"}),
                ("req", "REQ, a round trip",
                 {"zmq": "`zmq_send`, `zmq_recv`", "moor": "`async_send`, `async_receive`"}))
            for way in ("zmq", "moor")},
}


def command_line():
    parser = argparse.ArgumentParser(prog="test/bench/adapters/run.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    a = parser.add_argument
    a("programs", nargs="*", type=pathlib.Path, help=argparse.SUPPRESS)
    a("--repetitions", type=int, default=9, metavar="N", help="repeat each measurement (default: %(default)s)")
    a("--min-time", type=float, default=0.2, metavar="SECONDS",
      help="measure at least this long in each repetition (default: %(default)s)")
    a("--operations", type=int, default=2000, metavar="N",
      help="count the system calls of this many operations (default: %(default)s)")
    a("--write", type=pathlib.Path, metavar="FILE", help="put each table between its two comments in this file")
    return parser.parse_args()


def calls_text(calls):
    often = [f"{v:.2f} {k}" for k, v in sorted(calls.items(), key=lambda c: -c[1]) if v >= 0.005]
    return ", ".join(often) or "fewer than 0.005"


def table(name, times, counts):
    lines = ['[cols="4,>1,>1,3"]', "|===",
             "| Way | Operations a second | Time, as a ratio to the library's own use | System calls an operation"]
    for way, text in WAYS[name].items():
        ratio = times.ratio(way, f"{way.split(':')[0]}:{name}")
        lines += ["", f"| {text}", f"| {1e9 / times.median(way):,.0f} | {ratio:.2f} | {calls_text(counts[way])}"]
    return "\n".join(lines + ["|==="])


def measure(args, program):
    name = program.name
    key = ("this", "epoll")
    found = measuring.measure_times({key: program.parent}, name, args.repetitions, args.min_time, {"epoll": "."})[key]
    times = measuring.Times({n.replace("/real_time", ""): v for n, v in found.samples.items()})
    counts = {}
    for way in WAYS[name]:
        workload, _, competitor = way.partition(":")
        counts[way] = measuring.difference("system_calls_of_first_thread", program, competitor, workload,
                                           [args.operations, 2 * args.operations])
    return table(name, times, counts)


def put(path, name, text):
    begin, end = f"// {name}: begin\n", f"// {name}: end\n"
    old = path.read_text()
    if begin not in old or end not in old:
        sys.exit(f"{path} has no place for the table {name}")
    path.write_text(old.split(begin)[0] + begin + text + "\n" + end + old.split(end)[1])


def main():
    args = command_line()
    load = os.getloadavg()[0]
    tables = {p.name: measure(args, p) for p in args.programs}
    command = "test/bench/adapters/run.sh" + "".join(f" {a}" for a in sys.argv[1:] if pathlib.Path(a) not in args.programs)
    busy = f"The machine was busy with other work: its load was {load:.0f}. " if load > 1 else ""
    machine = measuring.machine().replace("++", "{plus}{plus}")  # of the compiler, in AsciiDoc
    tables["measured"] = (f"Measured by `{command}` on {machine}. {busy}Medians of {args.repetitions} "
                          "repetitions in random order.")
    for name, text in tables.items():
        print(text + "\n")
        if args.write:
            put(args.write, name, text)


if __name__ == "__main__":
    main()
