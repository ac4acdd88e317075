#!/usr/bin/env python3
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Runs the benchmark programs and prints what they showed, as Markdown.

Times are processor times, as ratios of medians within one run whose repetitions were interleaved at
random; ratios of different runs, and nanoseconds, say little on a shared machine. Instructions
(callgrind), system calls (strace) and bytes are exact: they are differences of two runs of
different length.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile

RINGS = ["2/1", "1000/1", "100/50"]
COUNTED_RINGS = ["2/1", "100/50"]
HOPS = (4000, 14000)
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

STREAM_CASES = [(2, 1), (100, 50)]
BLOCKS = (400, 1400)
STREAMS_BEGIN, STREAMS_END = "<!-- streams: begin -->", "<!-- streams: end -->"

PEERS = {
    "hand": "hand-written epoll, edge",
    "hand_drain": "hand-written epoll, edge, reads to would-block",
    "hand_level": "hand-written epoll, level",
    "libuv": "libuv `uv_poll`",
    "libevent": "libevent, level",
    "libevent_et": "libevent, `EV_ET`",
    "libevent_et_drain": "libevent, `EV_ET`, reads to would-block",
    "libev": "libev `ev_io`",
    "tokio": "Tokio `AsyncFd`, `clear_ready()`",
    "tokio_drain": "Tokio `AsyncFd`, reads to would-block",
    "asio_wait": "Asio `async_wait`, read",
    "asio_read_some": "Asio `async_read_some`",
    "asio_bare": "a bare operation of Asio's reactor",
    "moor_edge": "Moor edge, wait, read",
    "moor_edge_drain": "Moor edge, wait, reads to would-block",
    "moor_edge_io": "Moor edge, `async_io`, `drained()`",
    "moor_level": "Moor level, wait, read",
    "moor_level_io": "Moor level, `async_io`, `drained()`",
    "moor_level_io_drain": "Moor level, `async_io`, reads to would-block",
}
SUFFIXES = {
    "@ioc": "`io_context::executor_type`",
    "@1": "concurrency hint 1",
    "@unsafe": "`BOOST_ASIO_CONCURRENCY_HINT_UNSAFE`",
}
# What else is done, and what the number of it is.
WORKLOADS = {
    "pingpong": "ping-pong on a socketpair",
    "ready": "a wait on a ready handle",
    "churn": "register, wait on a ready handle, read, deregister",
    "churn_parked": "register, wait, become ready, read, deregister",
    "chatter": "ring 2/1, and each hop writes to a handle nobody waits for",
}
LOOPS = ["libuv", "libevent", "libevent_et", "libev"]

STREAM_KINDS = {"pipe": "pipes", "pty": "terminals (raw)", "socketpair": "Unix sockets",
                "tcp": "TCP sockets", "bulk": "bulk, a pipe, blocks of 64 KiB"}
STREAM_PEERS = {
    "hand": "hand-written epoll, edge-triggered",
    "asio": "Asio `posix::stream_descriptor`",
    "asio_socket": "Asio's socket",
    "moor": "Moor `stream_descriptor`",
}
STREAM_TARGETS = {"pipe": 0.90, "pty": 0.90, "socketpair": 1.00, "tcp": 1.00, "bulk": 1.00}


def run(*command):
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stderr}")
    return result


def note(text):
    print(text, file=sys.stderr, flush=True)


# ---- measuring ------------------------------------------------------------------------------------

def measure_times(program, repetitions, min_time, out):
    """{name: [ns an item, one a repetition]}"""
    run(program, "--benchmark_enable_random_interleaving=true",
        f"--benchmark_repetitions={repetitions}", f"--benchmark_min_time={min_time}",
        "--benchmark_out_format=json", f"--benchmark_out={out}")
    times = {}
    for b in json.loads(pathlib.Path(out).read_text())["benchmarks"]:
        if b["run_type"] == "iteration":
            times.setdefault(b["name"], []).append(
                1e9 / b["items_per_second"])
    return times


def instructions(program, peer, case, hops):
    with tempfile.TemporaryDirectory() as d:
        r = run("valgrind", "--tool=callgrind", f"--callgrind-out-file={d}/out", program, peer,
                *case, hops)
    return int(re.search(r"Collected : (\d+)", r.stderr)[1])


def allocations(program, peer, case, hops):
    return int(re.search(r"allocations (\d+)", run(program, peer, *case, hops).stdout)[1])


def system_calls(program, peer, case, hops):
    with tempfile.NamedTemporaryFile("r") as f:
        run("strace", "-c", "-f", "-o", f.name, program, peer, *case, hops)
        counts = {}
        for line in f:
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                counts[fields[-1]] = int(fields[3])
    return counts


def per_hop(counter, program, peer, case, hops=HOPS):
    few, many = (counter(program, peer, case, h) for h in hops)
    n = hops[1] - hops[0]
    if isinstance(few, int):
        return (many - few) / n
    rates = {k: (many[k] - few.get(k, 0)) / n for k in many}
    return {k: v for k, v in rates.items() if round(v, 2) != 0}


def measure_counts(program, wanted):
    """{(counter, peer, workload): what it says}, for such keys"""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {k: pool.submit(per_hop, k[0], program, k[1], (k[2],)) for k in wanted}
        return {k: j.result() for k, j in jobs.items()}


def measure_streams(programs, repetitions, min_time, out):
    """(times, {(counter, KIND/PEER, case): what the counter says})"""
    times = Times(measure_times(programs / "streams", repetitions, min_time, out))
    jobs = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name in times.samples:
            kind, peer, *case = name.split("/")
            case = tuple(map(int, case)) or STREAM_CASES[0]
            hops = BLOCKS if kind == "bulk" else HOPS
            for counter in (system_calls, allocations, instructions):
                jobs[counter, f"{kind}/{peer}", case] = pool.submit(
                    per_hop, counter, programs / "stream_hops", f"{kind}/{peer}", case, hops)
        counts = {k: j.result() for k, j in jobs.items()}
    return times, counts


def measure_memory(program):
    return {k: float(v) for k, v in (l.split() for l in run(program).stdout.splitlines())}


# ---- printing -------------------------------------------------------------------------------------

class Times:
    def __init__(self, samples):
        self.samples = samples

    def __contains__(self, name):
        return name in self.samples

    def median(self, name):
        return statistics.median(self.samples[name])

    def ratio(self, name, base):
        return self.median(name) / self.median(base)

    def spread(self, name):
        """Interquartile range over the median."""
        if len(self.samples[name]) < 2:
            return 0.0
        q = statistics.quantiles(self.samples[name], n=4)
        return (q[2] - q[0]) / self.median(name)


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    lines += ["| " + " | ".join(r) + " |" for r in rows]
    return "\n".join(lines)


def title(case):
    handles, active, *idle = case if isinstance(case, tuple) else map(int, case.split("/"))
    return (f"{handles:,} handle{'s' * (handles > 1)}, {active:,} active"
            + (f", {idle[0]:,} idle beside" if idle else ""))


def describe(peer):
    name, at, suffix = peer.partition("@")
    return PEERS[name] + (f" ({SUFFIXES[at + suffix]})" if suffix else "")


class Sides:
    """What was measured of everybody."""

    def __init__(self, times, counts, threads, wakes, memory, idle):
        self.times, self.counts, self.threads = times, counts, threads
        self.wakes, self.memory, self.idle = wakes, memory, idle

    def has(self, workload, peer):
        return self.times is not None and f"{workload}:{peer}" in self.times

    def ns(self, workload, peer):
        return self.times.median(f"{workload}:{peer}")

    def ratio(self, workload, peer, base):
        return self.ns(workload, peer) / self.ns(workload, base)

    def ratios(self, workload, peer, base):
        """The same as text, or nothing."""
        return (f"{self.ratio(workload, peer, base):.2f}"
                if self.has(workload, peer) and self.has(workload, base) else "")

    def instructions(self, peer, workload):
        return self.counts.get((instructions, peer, workload))

    def calls(self, peer, workload):
        found = self.counts.get((system_calls, peer, workload))
        if found is None:
            return ""
        return ", ".join(f"{v:.2g} {k}" for k, v in sorted(found.items())) or "none"

    def allocations(self, peer, workload):
        found = self.counts.get((allocations, peer, workload))
        return "" if found is None else f"{found:.3g}"


def wanted_counts():
    """The keys of Sides.counts."""
    wanted = [(instructions, p, w) for p in PEERS for w in COUNTED_RINGS]
    wanted += [(instructions, p + s, w) for p in ("asio_wait", "moor_edge", "moor_level")
               for s in SUFFIXES for w in COUNTED_RINGS]
    wanted += [(c, p, "2/1") for p in PEERS for c in (system_calls, allocations)]
    for w in WORKLOADS:
        for p in PEERS:
            if w in ("pingpong", "chatter") or does(p, w):
                wanted += [(c, p, w) for c in (system_calls, allocations, instructions)]
    return wanted


def does(peer, workload):
    """As side_by_side.cpp: rings are for all; the rest is not made twice."""
    if workload == "ready":
        return peer in ("hand_level", "libuv", "libevent", "libev", "tokio", "asio_wait", "moor_edge",
                        "moor_level")
    return peer in ("hand", "libuv", "libevent", "libev", "tokio", "asio_wait", "moor_edge",
                    "moor_level")


def ring_table(sides):
    rows = []
    for p in PEERS:
        row = [describe(p)]
        row += [sides.ratios(w, p, "hand") for w in RINGS]
        row += ["" if p == "hand" else sides.ratios(w, p, "asio_wait") for w in RINGS]
        row += [" / ".join(f"{sides.instructions(p, w):.0f}" for w in COUNTED_RINGS)
                if sides.instructions(p, COUNTED_RINGS[0]) is not None else ""]
        row += [sides.calls(p, "2/1"), sides.allocations(p, "2/1")]
        rows.append(row)
    return table([""] + [f"{w}, to hand-written" for w in RINGS]
                 + [f"{w}, to `async_wait`" for w in RINGS]
                 + [f"instructions a hop, {' and '.join(COUNTED_RINGS)}",
                    "system calls a hop (2/1)", "allocations a hop (2/1)"], rows)


def growth_table(sides):
    workloads = ["1/1", "100/1", "100/100", "1000/100", "1000/1000", "9000/1", "9000/100",
                 "9000/1000", "100/50/9000"]
    peers = [p for p in PEERS if "drain" not in p]
    return table([""] + workloads, [
        [describe(p)] + [sides.ratios(w, p, "hand") for w in workloads] for p in peers])


def variant_table(sides):
    rows = []
    for s in SUFFIXES:
        for p in ("asio_wait", "moor_edge", "moor_level"):
            row = [describe(p + s)]
            row += [sides.ratios(w, p + s, "hand") for w in RINGS]
            row += ["" if p == "asio_wait" else sides.ratios(w, p + s, "asio_wait" + s)
                    for w in RINGS]
            row += [" / ".join(f"{sides.instructions(p + s, w):.0f}" for w in COUNTED_RINGS)
                    if sides.instructions(p + s, COUNTED_RINGS[0]) is not None else ""]
            rows.append(row)
    return table([""] + [f"{w}, to hand-written" for w in RINGS]
                 + [f"{w}, to the same `async_wait`" for w in RINGS]
                 + [f"instructions a hop, {' and '.join(COUNTED_RINGS)}"], rows)


def other_tables(sides):
    parts = []
    for w, what in WORKLOADS.items():
        peers = [p for p in PEERS if sides.has(w, p)]
        rows = []
        for p in peers:
            name = "Moor, what the cache answers" if (w, p) == ("ready", "moor_edge") else describe(p)
            found = sides.instructions(p, w)
            rows.append([name, f"{sides.ns(w, p):.0f}", sides.ratios(w, p, "asio_wait"),
                         "" if found is None else f"{found:.0f}", sides.calls(p, w),
                         sides.allocations(p, w)])
        parts.append(table([what, "ns", "to `async_wait`", "instructions", "system calls",
                            "allocations"], rows))
    return "\n\n".join(parts)


def thread_table(sides):
    if sides.threads is None:
        return ""
    workloads = ["100/50", "100/50*2", "100/50*4"]
    name = lambda w, p: f"{w}:{p}/real_time"
    rows = []
    for p in PEERS:
        if name(workloads[0], p) not in sides.threads:
            continue
        rows.append([describe(p)]
                    + [f"{sides.threads.median(name(w, p)):.0f}" for w in workloads]
                    + [f"{sides.threads.ratio(name(w, p), name(w, 'asio_wait')):.2f}"
                       for w in workloads])
    return table(["ring 100/50, by the clock"] + [f"ns, {n} thread{'s' * (n > 1)}" for n in (1, 2, 4)]
                 + [f"to `async_wait`, {n}" for n in (1, 2, 4)], rows)


def wake_table(sides):
    if not sides.wakes:
        return ""
    return table(["µs from a write in another thread to the handler", "median", "99 %", "99.9 %"],
                 [[describe(p)] + [f"{ns / 1000:.1f}" for ns in v] for p, v in sides.wakes.items()])


def memory_table(sides):
    parts = []
    if sides.idle:
        parts.append(table(
            ["bytes from `malloc` a handle that is waited for, of 9,000: the reactor's, the user's "
             "object, the operation", ""],
            [[describe(p), f"{max(v, 0):.0f}"] for p, v in sides.idle.items()
             if "drain" not in p]))
    if sides.memory:
        m = sides.memory
        parts.append(table(["bytes asked of `operator new` a handle, of 10,000", ""], [
            ["Asio's reactor, for its own descriptor", f"{m['asio_reactor']:.0f}"],
            ["Moor, registered, before any wait", f"{m['moor_before_any_wait']:.0f}"],
            ["Moor, after a wait, with what Asio's reactor keeps", f"{m['moor_after_a_wait']:.0f}"],
            ["the same, without", f"{m['moor_beyond_asio']:.0f}"],
            ["of it, the state and its wakers (`sizeof`)", f"{m['sizeof_moor_state']:.0f}"],
            ["`sizeof(moor::registration)` / `sizeof(posix::stream_descriptor)`",
             f"{m['sizeof_moor_registration']:.0f} / {m['sizeof_asio_descriptor']:.0f}"],
        ]))
    return "\n\n".join(parts)


def targets(sides):
    """(what, limit, obtained, its format, what a bare operation obtains)"""
    rows = []

    def add(what, limit, obtained, form=".2f", bare=None):
        rows.append((what, limit, obtained, form, bare))

    if sides.times:
        r = sides.ratio
        for w, limit in (("2/1", 1.08), ("1000/1", 1.08), ("100/50", 1.12)):
            add(f"edge, to hand-written, {title(w)}", limit, r(w, "moor_edge", "hand"),
                bare=r(w, "asio_bare", "hand"))
        for w in RINGS:
            add(f"edge, to `async_wait`, {title(w)}", 0.80, r(w, "moor_edge", "asio_wait"),
                bare=r(w, "asio_bare", "asio_wait"))
        for w, limit in (("2/1", 0.95), ("1000/1", 0.95), ("100/50", 0.85)):
            add(f"level, to `async_wait`, {title(w)}", limit, r(w, "moor_level", "asio_wait"))
        add("ready wait, level, to `async_wait`", 0.60, r("ready", "moor_level", "asio_wait"))
        add("ready wait, from the cache, to `async_wait`", 0.30, r("ready", "moor_edge", "asio_wait"))
        for w, limit in (("2/1", 1.00), ("100/50", 1.05)):
            add(f"edge, to the best of libuv, libevent, libev, {title(w)}", limit,
                max(r(w, "moor_edge", p) for p in LOOPS),
                bare=max(r(w, "asio_bare", p) for p in LOOPS))
        for w in ("2/1", "100/50"):
            add(f"edge, `async_io`, to Tokio, {title(w)}", 0.70, r(w, "moor_edge_io", "tokio"),
                bare=r(w, "asio_bare", "tokio"))
        for w in ("churn", "churn_parked"):
            add(f"{WORKLOADS[w]}, level, to `async_wait`", 1.00, r(w, "moor_level", "asio_wait"))
        add("growth, edge: 9,000 idle handles beside 100, 50 active, against none", 1.10,
            sides.ns("100/50/9000", "moor_edge") / sides.ns("100/50", "moor_edge"))
    if sides.threads:
        add("two threads, edge, to `async_wait`, 100 handles, 50 active", 0.75,
            sides.threads.ratio("100/50*2:moor_edge/real_time", "100/50*2:asio_wait/real_time"),
            bare=sides.threads.ratio("100/50*2:asio_bare/real_time",
                                     "100/50*2:asio_wait/real_time"))
    for s in ("", "@ioc"):
        for w in COUNTED_RINGS:
            mine, theirs = (sides.instructions(p + s, w) for p in ("moor_edge", "asio_wait"))
            if mine and theirs:
                add(f"instructions, edge, to `async_wait`, {title(w)}"
                    + (f" ({SUFFIXES[s]})" if s else ""), 0.95, mine / theirs, ".3f",
                    sides.instructions("asio_bare", w) / theirs)
    if sides.memory:
        add("bytes an idle registration, before any wait", 384,
            sides.memory["moor_before_any_wait"], ".0f")
        add("bytes an idle registration, after a wait, beyond Asio's", 384,
            sides.memory["moor_beyond_asio"], ".0f")
    return rows


# ---- charts ---------------------------------------------------------------------------------------

def draw(sides, directory):
    """Bars, a peer each: to the hand-written loop. Returns the files' names."""
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "moor"
    from matplotlib import pyplot

    def colour(p):
        return ("#1b6ca8" if p.startswith("moor") else "#d97b29" if p.startswith("asio")
                else "#444444" if p.startswith("hand") else "#9a9a9a")

    def bars(axes, workload, base, what):
        peers = [p for p in PEERS if sides.has(workload, p)
                 and (not p.endswith("drain") or workload == "pingpong")]
        values = [sides.ratio(workload, p, base) for p in peers]
        spreads = [sides.times.spread(f"{workload}:{p}") * v / 2 for p, v in zip(peers, values)]
        at = range(len(peers))
        axes.barh(at, values, color=[colour(p) for p in peers], xerr=spreads,
                  error_kw={"elinewidth": 0.8, "ecolor": "#000000"})
        for k, v in zip(at, values):
            axes.text(0.02, k, f"{v:.2f}", va="center", fontsize=7, color="white")
        axes.set_yticks(list(at), [describe(p).replace("`", "") for p in peers], fontsize=7)
        axes.invert_yaxis()
        axes.axvline(1, color="#000000", linewidth=0.6)
        axes.set_title(what, fontsize=9)
        axes.tick_params(axis="x", labelsize=7)

    names = []
    for name, columns, base_name, panels in (
            ("ring", 3, "time a hop, to the hand-written loop; lower is better",
             [(w, "hand", title(w)) for w in RINGS]),
            ("workloads", 3, "time, to Asio's async_wait; lower is better",
             [(w, "asio_wait", what) for w, what in WORKLOADS.items()]),
            ("growth", 3, "time a hop, to the hand-written loop; lower is better",
             [(w, "hand", title(w)) for w in ("9000/1", "9000/1000", "100/50/9000")])):
        rows = -(-len(panels) // columns)
        figure, axes = pyplot.subplots(rows, columns, figsize=(15, 3.6 * rows), squeeze=False,
                                       layout="constrained")
        for k, panel in enumerate(panels):
            bars(axes[k // columns][k % columns], *panel)
        for k in range(len(panels), rows * columns):
            axes[k // columns][k % columns].axis("off")
        figure.suptitle(base_name, fontsize=10)
        directory.mkdir(parents=True, exist_ok=True)
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
        names.append(f"{name}.svg")
    return names


def stream(kind, peer, case):
    return f"{kind}/{peer}" if kind == "bulk" else f"{kind}/{peer}/{case[0]}/{case[1]}"


def stream_targets(times):
    return [(f"{STREAM_KINDS[k]}{'' if k == 'bulk' else ', ' + title(c)}", STREAM_TARGETS[k],
             times.ratio(stream(k, "moor", c), stream(k, "asio", c)), ".2f", None)
            for k in STREAM_KINDS for c in STREAM_CASES if k != "bulk" or c == STREAM_CASES[0]]


def stream_table(times, counts):
    rows = []
    for kind, what in STREAM_KINDS.items():
        cases = STREAM_CASES[:1] if kind == "bulk" else STREAM_CASES
        for peer, who in STREAM_PEERS.items():
            if stream(kind, peer, cases[0]) not in times:
                continue
            row = [f"{what}: {who}"]
            row += [f"{times.ratio(stream(kind, peer, c), stream(kind, 'asio', c)):.2f}" for c in cases]
            row += [""] * (len(STREAM_CASES) - len(cases))
            row += [" / ".join(f"{times.median(stream(kind, peer, c)):.0f}" for c in cases)]
            row += [" / ".join(f"{counts[instructions, f'{kind}/{peer}', c]:.0f}" for c in cases)]
            row += ["<br>".join(", ".join(
                f"{v:.2g} {k}" for k, v in sorted(counts[system_calls, f"{kind}/{peer}", c].items()))
                for c in cases)]
            # 0 only if there was none at all
            row += [" / ".join(f"{counts[allocations, f'{kind}/{peer}', c]:.3g}" for c in cases)]
            rows.append(row)
    both = " / ".join(f"{h}/{a}" for h, a in STREAM_CASES)
    return table([""] + [title(c) for c in STREAM_CASES]
                 + [f"ns a hop, {both}", f"instructions a hop, {both}",
                    f"system calls a hop, {both}", f"allocations a hop, {both}"], rows)


def target_table(rows):
    """A third digit where two would not say which side of the limit it is on. The last column:
    nobody can obtain less who stands on Asio's reactor."""
    with_bare = any(bare is not None for *_, bare in rows)
    lines = []
    for what, limit, got, form, bare in rows:
        if form == ".2f" and f"{got:.2f}" == f"{limit:.2f}":
            form = ".3f"
        line = [what, f"{limit:.0f}" if form == ".0f" else f"{limit:.2f}", f"{got:{form}}",
                "met" if round(got, 3) <= limit else "**missed**"]
        lines.append(line + [f"{bare:.2f}" if bare is not None else ""] * with_bare)
    return table(["target", "at most", "obtained", ""]
                 + ["a bare operation of Asio's reactor"] * with_bare, lines)


def machine():
    try:
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        cpu = platform.machine()
    compiler = run("c++", "--version").stdout.splitlines()[0]
    return f"{os.cpu_count()} × {cpu}, Linux {platform.release()}, {compiler}"


def stream_report(args, times, counts, found_targets):
    command = "test/bench/run.sh" + "".join(" " + a for a in args.quoted)
    n = len(next(iter(times.samples.values())))
    spreads = [times.spread(s) for s in times.samples]
    return "\n\n".join([
        f"Made by `{command}` on {machine()}.",
        target_table(found_targets),
        "Streams that answer each other: a hop is one `async_read_some` and one `async_write_some` "
        "(of a byte; in bulk, of 64 KiB). Processor time, as a ratio to Asio's "
        f"`posix::stream_descriptor` on the same kind of handle; medians of {n} repetitions "
        f"interleaved at random, whose interquartile range was {100 * statistics.median(spreads):.0f} % "
        f"of the median (the worst: {100 * max(spreads):.0f} %).",
        stream_table(times, counts)]) + "\n"


def report(args, sides, found_targets, charts):
    command = "test/bench/run.sh" + "".join(" " + a for a in args.quoted)
    parts = [f"Made by `{command}` on {machine()}."]
    if found_targets:
        parts.append(target_table(found_targets))
    parts += [f"![{pathlib.Path(c).stem}]({c})" for c in charts]
    if sides.times:
        n = len(next(iter(sides.times.samples.values())))
        hand = ", ".join(f"{sides.ns(w, 'hand'):.0f} ns for {w}" for w in RINGS)
        spreads = [sides.times.spread(s) for s in sides.times.samples]
        parts += [
            "Rings of pipes (HANDLES/ACTIVE): a byte goes round each of ACTIVE rings, and a hop is a "
            "wait, a read and a write. Processor time, as a ratio to the hand-written loop "
            f"({hand}); medians of {n} repetitions interleaved at random, whose interquartile range "
            f"was {100 * statistics.median(spreads):.0f} % of the median (the worst: "
            f"{100 * max(spreads):.0f} %). Instructions are those of the user's space; all counts are "
            "exact.",
            ring_table(sides),
            "More handles, and idle ones beside (HANDLES/ACTIVE/IDLE), to the hand-written loop:",
            growth_table(sides),
            "Other executors and concurrency hints:", variant_table(sides),
            other_tables(sides)]
    parts += [thread_table(sides), wake_table(sides), memory_table(sides)]
    return "\n\n".join(p for p in parts if p) + "\n"


def write_section(path, begin, end, heading, text):
    """Puts the text between the two lines; under a new heading if they are not there yet."""
    path = pathlib.Path(path)
    old = path.read_text() if path.exists() else ""
    if begin not in old or end not in old:
        old += f"{chr(10) if old else ''}{heading}\n\n{begin}\n{end}\n"
    head, rest = old.split(begin, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + begin + "\n\n" + text + "\n" + end + rest.split(end, 1)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default="build/bench/test/bench", metavar="DIR",
                        help="where the programs are (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--min-time", type=float, default=0.02, metavar="SECONDS",
                        help="of one repetition (default: %(default)s)")
    parser.add_argument("--only", default="times,threads,wakes,counts,memory,streams",
                        help="comma-separated, of %(default)s")
    parser.add_argument("--json", metavar="FILE", help="keep what was measured")
    parser.add_argument("--write", metavar="FILE",
                        help=f"put the report between {BEGIN} and {END} of this file too, and that "
                        f"of the streams between {STREAMS_BEGIN} and {STREAMS_END}")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    args = parser.parse_args()
    args.quoted = [a for a in sys.argv[1:] if not a.startswith("--programs")]
    programs = pathlib.Path(args.programs)
    only = args.only.split(",")

    sides = Sides(None, {}, None, {}, {}, {})
    with tempfile.TemporaryDirectory() as d:
        if "times" in only:
            note("times")
            sides.times = Times(measure_times(programs / "side_by_side", args.repetitions,
                                              args.min_time, f"{d}/times.json"))
        if "threads" in only:
            note("threads")
            sides.threads = Times(measure_times(programs / "threads", args.repetitions,
                                                args.min_time, f"{d}/threads.json"))
    if "wakes" in only:
        note("wakes")
        sides.wakes = {p: tuple(map(float, v)) for p, *v in (
            l.split() for l in run(programs / "wake", args.repetitions, 400).stdout.splitlines())}
    if "counts" in only:
        note("counts")
        sides.counts = measure_counts(programs / "hops", wanted_counts())
    if "memory" in only:
        note("memory")
        sides.memory = measure_memory(programs / "idle")
        sides.idle = measure_memory(programs / "peers")

    stream_times, stream_counts = None, {}
    if "streams" in only:
        note("streams")
        with tempfile.TemporaryDirectory() as d:
            stream_times, stream_counts = measure_streams(programs, args.repetitions, args.min_time,
                                                          f"{d}/streams.json")

    rows = targets(sides)
    if set(only) - {"streams"}:
        charts = []
        if args.write and sides.times:
            directory = pathlib.Path(args.write).with_suffix("")
            charts = [f"{directory.name}/{c}" for c in draw(sides, directory)]
        text = report(args, sides, rows, charts)
        print(text)
        if args.write:
            write_section(args.write, BEGIN, END, "# Performance", text)
    if stream_times:
        stream_rows = stream_targets(stream_times)
        text = stream_report(args, stream_times, stream_counts, stream_rows)
        print("## Streams\n\n" + text)
        if args.write:
            write_section(args.write, STREAMS_BEGIN, STREAMS_END, "## Streams", text)
        rows += stream_rows
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({
            "times": sides.times.samples if sides.times else {},
            "threads": sides.threads.samples if sides.threads else {},
            "counts": {f"{f.__name__}/{w}:{p}": v for (f, p, w), v in sides.counts.items()},
            "wakes": sides.wakes,
            "memory": sides.memory,
            "idle": sides.idle,
            "stream_times": stream_times.samples if stream_times else {},
            "stream_counts": {f"{f.__name__}/{p}/{c[0]}/{c[1]}": v
                              for (f, p, c), v in stream_counts.items()},
        }, indent=1))
    if args.check and any(round(got, 3) > limit for _, limit, got, *_ in rows):
        sys.exit("A target was missed")


if __name__ == "__main__":
    main()
