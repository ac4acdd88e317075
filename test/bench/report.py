#!/usr/bin/env python3
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Builds and runs the benchmark, and prints the results as Markdown.

Times are ratios within one run, in which the repetitions of all programs are made in random order.
Do not compare the ratios or the nanoseconds of different runs. Instructions (callgrind), system calls
(strace) and allocations are exact. The whole benchmark takes about half an hour on two cores that
have nothing else to do, and --quick about five minutes.

Examples:
  test/bench/run.sh --write doc/performance.md
      measures everything and puts the tables and charts into the documentation
  test/bench/run.sh --quick --only=waits,counts --backend=epoll
      measures the waits on epoll, with Asio's and Moor's operations only
  test/bench/run.sh --quick --backend=io_uring --asio=../boost_1_84_0 --before=HEAD~1
      compares the headers of the last commit but one with those here, on another Asio
"""

import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import charts
import measuring
import sections
from measuring import BACKENDS, note

GROUPS = ["waits", "counts", "threads", "streams", "poll", "echo", "wake_ups", "memory"]
EPOLL_ONLY = ["wake_ups", "memory"]

# Without other loops, and without what the goals do not need
QUICK = ["asio_wait", "asio_wait_drain", "asio_read_some", "asio_bare", "moor_edge", "moor_edge_io",
         "moor_level", "moor_level_io", "moor_level_io_drain"]
QUICK_COUNTED = ["asio_wait", "asio_bare", "moor_edge", "moor_level", "moor_level_io_drain"]
TWO_WAYS = ["asio_wait", "moor_edge", "moor_level"]


def command_line():
    parser = argparse.ArgumentParser(prog="test/bench/run.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    a = parser.add_argument
    a("--quick", action="store_true",
      help="measure Asio's and Moor's operations only, in the cases that the goals name")
    a("--only", default=",".join(GROUPS), metavar="LIST",
      help="measure these groups (of %(default)s)")
    a("--backend", default=",".join(BACKENDS), metavar="LIST",
      help="measure these backends (of %(default)s)")
    a("--include", metavar="DIR", help="build against the headers of Moor in this directory")
    a("--before", metavar="DIR|COMMIT",
      help="also build against the headers in this directory, or of this commit, measure both in "
      "one interleaved run, and print a comparison")
    a("--asio", metavar="DIR",
      help="build against the Boost.Asio in this directory: an unpacked Boost, or a directory with "
      "boost/asio.hpp")
    a("--repetitions", type=int, metavar="N", help="repeat each measurement (default: 9; quick: 7)")
    a("--min-time", type=float, default=0.02, metavar="SECONDS",
      help="measure at least this long in each repetition (default: %(default)s)")
    a("--requests", type=int, default=20000, metavar="N",
      help="make this many requests in each repetition of the echo server (default: %(default)s)")
    a("--write", metavar="FILE",
      help="put each measured section between its two comments in this file, and draw the charts in "
      "the directory of the same name")
    a("--json", metavar="FILE", default="build/bench.json",
      help="write all samples to this file (default: %(default)s)")
    a("--from", dest="samples", metavar="FILE",
      help="measure nothing, and report the samples of a file that --json wrote")
    a("--check", action="store_true", help="fail if a goal is missed")
    a("--build-only", action="store_true", help="build the programs, and stop")
    args = parser.parse_args()
    args.only = args.only.replace("-", "_").split(",")
    args.backend = args.backend.split(",")
    args.repetitions = args.repetitions or (7 if args.quick else 9)
    for given, known in ((args.only, GROUPS), (args.backend, BACKENDS)):
        if set(given) - set(known):
            parser.error(f"unknown: {', '.join(set(given) - set(known))}; known: {', '.join(known)}")
    if args.write and (args.quick or args.before):
        parser.error("--write needs the whole benchmark, without --quick and --before")
    return args


# ---- building

def headers_of(before):
    """The include directory of --before."""
    if (pathlib.Path(before) / "moor.hpp").exists():
        return pathlib.Path(before).resolve()
    commit = measuring.run("git", "rev-parse", "--verify", f"{before}^{{commit}}").stdout.strip()
    directory = pathlib.Path("build/bench-headers").resolve() / commit
    if not (directory / "include/moor.hpp").exists():
        directory.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", commit, "include"], stdout=subprocess.PIPE,
                                 check=True)
        subprocess.run(["tar", "-x", "-C", str(directory)], input=archive.stdout, check=True)
    return directory / "include"


def asio_directory(given):
    for directory in (pathlib.Path(given), pathlib.Path(given) / "include"):
        if (directory / "boost/asio.hpp").exists():
            return directory.resolve()
    sys.exit(f"{given} has no boost/asio.hpp")


def build(args):
    """{(variant, backend): the directory of its programs}, and the version of Asio"""
    name = "build/bench"
    asio = asio_directory(args.asio) if args.asio else None
    if asio:
        name += "-" + hashlib.sha1(str(asio).encode()).hexdigest()[:8]
    text = ((asio or pathlib.Path("/usr/include")) / "boost/asio/version.hpp").read_text()
    n = int(re.search(r"BOOST_ASIO_VERSION (\d+)", text)[1])
    directory = pathlib.Path(name).resolve()
    before = headers_of(args.before) if args.before else None
    variants = ["this"] + ["before"] * bool(before)
    note(f"building {', '.join(args.backend)} (log: {name}.log)")
    directory.parent.mkdir(exist_ok=True)
    with open(f"{directory}.log", "w", encoding="utf8") as log:
        def step(*command):
            if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode:
                print(pathlib.Path(log.name).read_text()[-20000:], file=sys.stderr)
                sys.exit("The build failed")
        step("cmake", "-S", ".", "-B", str(directory), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
             "-DMOOR_BUILD_BENCH=ON", "-DMOOR_BUILD_TESTS=OFF", "-DMOOR_BUILD_EXAMPLES=OFF",
             f"-DMOOR_BENCH_LOOPS={'OFF' if args.quick else 'ON'}",
             f"-DMOOR_BENCH_ASIO={asio or ''}", f"-DMOOR_BENCH_BEFORE={before or ''}",
             f"-DMOOR_BENCH_INCLUDE={pathlib.Path(args.include).resolve() if args.include else ''}")
        for v in variants:
            for b in args.backend:
                note(f"building {b}" + (", before" if v == "before" else ""))
                step("cmake", "--build", str(directory), "--target", f"moor_bench_{v}_{b}_programs")
    programs = {(v, b): directory / "test/bench" / v / b for v in variants for b in args.backend}
    return programs, f"Asio {n // 100000}.{n // 100 % 1000}.{n % 100}"


# ---- the cases of each group

def either(names):
    return "(" + "|".join(map(re.escape, names)) + ")"


def wanted_waits(args, backend):
    if not args.quick:
        return "."
    return f"^{either(sections.RINGS[backend] + ['ready', 'churn', 'churn_pending'])}:{either(QUICK)}$"


def wanted_threads(args, backend):
    return f"^{either(sections.THREADS[:2])}:{either(QUICK)}/real_time$" if args.quick else "."


def wanted_streams(args, backend):
    return "^(pipe|socketpair|tcp|bulk)/(asio|moor)(/|$)" if args.quick else "."


def wanted_poll(args, backend):
    return "." if not args.quick else "/10:"


def wanted_counts(args, backend):
    names, wanted = list(sections.COMPETITORS), []
    if backend != "epoll":
        names = [c for c in names if c.startswith(("asio", "moor"))]
    if args.quick:
        names = QUICK_COUNTED
    for c in names:
        for w in sections.COUNTED_RINGS:
            wanted += [("instructions", c, w), ("system_calls", c, w)]
        wanted.append(("allocations", c, "2/1"))
    counters = [c for c in measuring.COUNTERS if c != "allocations" or not args.quick]
    for w in ("ready", "churn", "churn_pending"):
        wanted += [(k, c, w) for c in names if does(c, w) for k in counters]
    if backend == "epoll" and not args.quick:
        wanted += [("instructions", c + s, w) for c in TWO_WAYS for s in sections.SUFFIXES
                   for w in sections.COUNTED_RINGS]
        wanted += [(k, c, w) for w in ("pingpong", "chatter") for c in names
                   for k in measuring.COUNTERS]
    if "streams" in args.only:
        for kind in sections.STREAM_KINDS:
            if args.quick and kind == "pty":
                continue
            for c in sections.STREAM_COMPETITORS:
                if c not in ("asio", "moor") and (args.quick or (c, kind) not in (
                        ("hand", "pipe"), ("asio_socket", "socketpair"), ("asio_socket", "tcp"))):
                    continue
                for w in sections.STREAM_CASES[:1] if kind == "bulk" else sections.STREAM_CASES:
                    wanted += [(k, f"{kind}/{c}", w) for k in counters]
    return wanted


def does(competitor, workload):
    """Each ring is for all; a case that would be the same twice is measured once."""
    common = ["libuv", "libevent", "libev", "tokio"] + TWO_WAYS
    return competitor in common + ["hand_level" if workload == "ready" else "hand"]


def wanted_echo(args, backend):
    servers = list(sections.ECHO_SERVERS)
    if backend != "epoll" or args.quick:
        servers.remove("libuv")
    if args.quick:
        servers.remove("asio_socket")
    return [(kind, n, size, server, args.requests if size < 1000 else args.requests // 2)
            for kind in sections.ECHO_KINDS
            for n in sections.ECHO_CONNECTIONS[backend] if n < 1000 or not args.quick
            for size in sections.ECHO_BYTES if size < 1000 or not args.quick
            for server in servers]


def measure(args, programs):
    """{variant: Results}"""
    n = args.repetitions
    case = lambda wanted: {b: wanted(args, b) for b in args.backend}
    found = {}
    for group, wanted in (("waits", wanted_waits), ("threads", wanted_threads),
                          ("streams", wanted_streams), ("poll", wanted_poll)):
        found[group] = (measuring.measure_times(programs, group, n, args.min_time, case(wanted))
                        if group in args.only else {})
    found["echo"] = (measuring.measure_echo(programs, n, case(wanted_echo))
                     if "echo" in args.only else {})
    found["counts"] = (measuring.measure_counts(programs, case(wanted_counts),
                                                 (1000, 3000) if args.quick else (1000, 5000))
                       if "counts" in args.only else {})
    results = {}
    for v in {v for v, _ in programs}:
        here = programs.get((v, "epoll"))
        wake_ups, idle, waiting = {}, {}, {}
        if here and "wake_ups" in args.only and not args.quick:
            note("wake-ups")
            wake_ups = measuring.read_lines(here / "wake_ups", n, 400)
        if here and "memory" in args.only:
            note("memory")
            idle = measuring.first_of(measuring.read_lines(here / "idle_memory"))
            waiting = measuring.first_of(measuring.read_lines(here / "waiting_memory"))
        mine = {g: {b: x for (w, b), x in xs.items() if w == v} for g, xs in found.items()}
        results[v] = sections.Results(**mine, wake_ups=wake_ups, idle=idle, waiting=waiting)
    return results


# ---- writing

def put(path, name, text):
    """Puts a section between its two comments in the file."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text()
    if begin not in old or end not in old:
        sys.exit(f"{path} has no place for the section {name}: {begin} {end}")
    head, rest = old.split(begin, 1)
    path.write_text(head + begin + "\n\n" + text + "\n\n" + end + rest.split(end, 1)[1])


def dump(results, measured):
    """Everything as JSON."""
    def plain(x):
        if isinstance(x, measuring.Times):
            return x.samples
        if isinstance(x, dict):
            return {k if isinstance(k, str) else " ".join(k): plain(v) for k, v in x.items()}
        return x
    return json.dumps({"measured": measured, **{v: plain(vars(r)) for v, r in results.items()}},
                      indent=1)


def load(text):
    """The counterpart of dump."""
    data = json.loads(text)
    measured = data.pop("measured")
    for r in data.values():
        for group in ("waits", "threads", "streams", "poll"):
            r[group] = {b: measuring.Times(x) for b, x in r.get(group, {}).items()}
        r["echo"] = {b: {w: measuring.Times(x) for w, x in whats.items()}
                     for b, whats in r["echo"].items()}
        r["counts"] = {b: {tuple(k.split(" ")): x for k, x in counts.items()}
                       for b, counts in r["counts"].items()}
    return {v: sections.Results(**r) for v, r in data.items()}, measured


def main():
    args = command_line()
    if args.samples:
        results, measured = load(pathlib.Path(args.samples).read_text())
    else:
        programs, asio = build(args)
        if args.build_only:
            return
        results = measure(args, programs)
        note("done")
        command = "test/bench/run.sh" + "".join(" " + a for a in sys.argv[1:])
        measured = f"Measured by `{command}` on {measuring.machine()}, {asio}."
        pathlib.Path(args.json).write_text(dump(results, measured))
    r = results["this"]

    with tempfile.TemporaryDirectory() as d:
        directory = pathlib.Path(args.write).with_suffix("") if args.write else pathlib.Path(d)
        found = {"measured": measured, **{name: f(r, lambda *a: charts.write(directory, *a))
                                          for name, f in sections.SECTIONS.items()}}
    if "before" in results:
        found = {"measured": measured, "compare": sections.compare(results["before"], r),
                 "goals": found["goals"]}
    for name, text in found.items():
        if text:
            print(re.sub(r"<picture>.*?</picture>\n*", "", text) + "\n")
            if args.write:
                put(pathlib.Path(args.write), name, text)
    if args.check and any(map(sections.missed, sections.goal_rows(r))):
        sys.exit("A goal is missed")


if __name__ == "__main__":
    main()
