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

CASES = [(2, 1), (1000, 1), (100, 50)]
COUNTED_CASES = [(2, 1), (100, 50)]
HOPS = (4000, 14000)
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

STREAM_CASES = [(2, 1), (100, 50)]
BLOCKS = (400, 1400)
STREAMS_BEGIN, STREAMS_END = "<!-- streams: begin -->", "<!-- streams: end -->"

PEERS = {
    "hand": "hand-written epoll, edge-triggered",
    "asio_wait": "Asio `async_wait`, read",
    "asio_read_some": "Asio `async_read_some`",
    "moor_edge": "Moor edge, wait, the one read known to drain",
    "moor_edge_drain": "Moor edge, wait, reads to would-block",
    "moor_edge_io": "Moor edge, `async_io`, `drained()`",
    "moor_level": "Moor level, wait, one read",
    "moor_level_io": "Moor level, `async_io`, `drained()`",
    "moor_level_io_drain": "Moor level, `async_io`, reads to would-block",
}

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


def measure_counts(counter, program, peers, cases):
    """{(peer, case): what the counter says}"""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {(p, c): pool.submit(per_hop, counter, program, p, c) for p in peers for c in cases}
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


def ring(peer, case):
    return f"ring/{peer}/{case[0]}/{case[1]}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    lines += ["| " + " | ".join(r) + " |" for r in rows]
    return "\n".join(lines)


def title(case):
    handles, active = case
    return f"{handles:,} handles, {active} active"


def describe(peer):
    name, _, suffix = peer.partition("@")
    return PEERS[name] + (" (`io_context::executor_type`)" if suffix else "")


def calls(counts):
    """A hop has one read and one write; the rest is what differs."""
    extra = dict(counts)
    for k in ("read", "write"):
        extra[k] = extra.get(k, 0) - 1
    return ", ".join(f"{v:.2g} {k}" for k, v in sorted(extra.items()) if round(v, 2) != 0) or "none"


def ring_table(times, instr, syscalls, peers):
    rows = []
    for p in peers:
        base = "asio_wait" + ("@ioc" if p.endswith("@ioc") else "")
        row = [describe(p)]
        row += [f"{times.ratio(ring(p, c), ring('hand', c)):.2f}" for c in CASES]
        row += ["" if p == "hand" else f"{times.ratio(ring(p, c), ring(base, c)):.2f}" for c in CASES]
        row += [" / ".join(f"{instr[p, c]:.0f}" for c in COUNTED_CASES)
                if (p, COUNTED_CASES[0]) in instr else ""]
        row += [calls(syscalls[p, (2, 1)]) if (p, (2, 1)) in syscalls else ""]
        rows.append(row)
    header = [""] + [title(c) for c in CASES] + [f"…, to `async_wait`: {c[0]:,}/{c[1]}" for c in CASES]
    header += ["instructions a hop, " + " and ".join(f"{c[0]}/{c[1]}" for c in COUNTED_CASES),
               "system calls a hop beyond one read, one write (2/1)"]
    return table(header, rows)


def other_table(times):
    rows = []
    for what, names in (
            ("wait on a ready handle", ["ready/moor_level", "ready/moor_cached"]),
            ("register, wait (ready before), deregister",
             ["churn/moor_level/ready", "churn/moor_edge/ready"]),
            ("register, wait (ready after), deregister",
             ["churn/moor_level/parked", "churn/moor_edge/parked"])):
        for name in names:
            parts = name.split("/")
            cells = []
            for suffix in ("", "@ioc"):
                mine = "/".join([parts[0], parts[1] + suffix] + parts[2:])
                asio = "/".join([parts[0], "asio_wait" + suffix] + parts[2:])
                cells.append(f"{times.ratio(mine, asio):.2f}")
            asio = "/".join([parts[0], "asio_wait"] + parts[2:])
            rows.append([f"{what}: {parts[1].replace('_', ' ')}", *cells,
                         f"{times.median(name):.0f} / {times.median(asio):.0f}"])
    return table(["ratio to Asio's `async_wait`", "`any_io_executor`", "`io_context::executor_type`",
                  "ns, Moor / Asio"], rows)


def targets(times, instr, memory):
    """(what, limit, obtained, its format)"""
    wait = lambda c: ring("asio_wait", c)
    hand = lambda c: ring("hand", c)
    edge = lambda c: ring("moor_edge", c)
    level = lambda c: ring("moor_level", c)
    rows = []
    if times:
        rows += [(f"edge, to hand-written, {title(c)}", limit, times.ratio(edge(c), hand(c)), ".2f")
                 for c, limit in (((2, 1), 1.12), ((100, 50), 1.20))]
        rows += [(f"edge, to `async_wait`, {title(c)}", 0.85, times.ratio(edge(c), wait(c)), ".2f")
                 for c in CASES]
        rows += [(f"level, to `async_wait`, {title(c)}", 1.0, times.ratio(level(c), wait(c)), ".2f")
                 for c in CASES]
        rows += [("ready wait, level, to `async_wait`", 0.65,
                  times.ratio("ready/moor_level", "ready/asio_wait"), ".2f")]
    for suffix in ("", "@ioc"):
        rows += [(f"instructions, edge, to `async_wait`, {title(c)}"
                  + (" (`io_context::executor_type`)" if suffix else ""), 1.0,
                  instr["moor_edge" + suffix, c] / instr["asio_wait" + suffix, c], ".3f")
                 for c in COUNTED_CASES if ("moor_edge" + suffix, c) in instr]
    if memory:
        rows += [("bytes an idle registration, before any wait", 384,
                  memory["moor_before_any_wait"], ".0f"),
                 ("bytes an idle registration, after a wait, beyond Asio's", 384,
                  memory["moor_beyond_asio"], ".0f")]
    return rows


def stream(kind, peer, case):
    return f"{kind}/{peer}" if kind == "bulk" else f"{kind}/{peer}/{case[0]}/{case[1]}"


def stream_targets(times):
    return [(f"{STREAM_KINDS[k]}{'' if k == 'bulk' else ', ' + title(c)}", STREAM_TARGETS[k],
             times.ratio(stream(k, "moor", c), stream(k, "asio", c)), ".2f")
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
    return table(["target", "at most", "obtained", ""],
                 [[what, f"{limit:{form}}", f"{got:{form}}",
                   "met" if round(got, 3) <= limit else "**missed**"]
                  for what, limit, got, form in rows])


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


def report(args, times, instr, syscalls, memory, found_targets):
    parts = []
    command = "test/bench/run.sh" + "".join(" " + a for a in args.quoted)
    parts.append(f"Made by `{command}` on {machine()}.")
    if found_targets:
        parts.append(target_table(found_targets))
    if times:
        n = len(next(iter(times.samples.values())))
        hand = " / ".join(f"{times.median(ring('hand', c)):.0f}" for c in CASES)
        spreads = [times.spread(s) for s in times.samples]
        parts.append(
            "The ring of pipes: ns a hop, as a ratio to the hand-written loop "
            f"({hand} ns); medians of {n} repetitions "
            f"interleaved at random, whose interquartile range was {100 * statistics.median(spreads):.0f} % "
            f"of the median (the worst: {100 * max(spreads):.0f} %). Peers are compared with "
            "`async_wait` on the same executor type.")
        peers = [p for p in PEERS] + [p + "@ioc" for p in PEERS if p != "hand"]
        parts.append(ring_table(times, instr, syscalls, peers))
        parts.append(other_table(times))
    elif instr:
        parts.append(table(["instructions a hop"] + [title(c) for c in COUNTED_CASES],
                           [[describe(p)] + [f"{instr[p, c]:.1f}" for c in COUNTED_CASES]
                            for p in dict.fromkeys(p for p, _ in instr)]))
    if memory:
        parts.append(table(["bytes asked of `operator new` a handle, of 10,000", ""], [
            ["Asio's reactor, for its own descriptor", f"{memory['asio_reactor']:.0f}"],
            ["Moor, registered, before any wait", f"{memory['moor_before_any_wait']:.0f}"],
            ["Moor, after a wait, with what Asio's reactor keeps", f"{memory['moor_after_a_wait']:.0f}"],
            ["the same, without", f"{memory['moor_beyond_asio']:.0f}"],
            ["of it, the state and its wakers (`sizeof`)", f"{memory['sizeof_moor_state']:.0f}"],
            ["`sizeof(moor::registration)` / `sizeof(posix::stream_descriptor)`",
             f"{memory['sizeof_moor_registration']:.0f} / {memory['sizeof_asio_descriptor']:.0f}"],
        ]))
    return "\n\n".join(parts) + "\n"


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
    parser.add_argument("--only", default="times,instructions,calls,memory,streams",
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

    counted = list(PEERS) + ["asio_wait@ioc", "moor_edge@ioc", "moor_level@ioc"]
    times, instr, syscalls, memory = None, {}, {}, {}
    if "times" in only:
        note("times")
        with tempfile.TemporaryDirectory() as d:
            times = Times(measure_times(programs / "ring", args.repetitions, args.min_time,
                                        f"{d}/ring.json"))
    if "instructions" in only:
        note("instructions")
        instr = measure_counts(instructions, programs / "hops", counted, COUNTED_CASES)
    if "calls" in only:
        note("system calls")
        syscalls = measure_counts(system_calls, programs / "hops", counted, [(2, 1)])
    if "memory" in only:
        note("memory")
        memory = measure_memory(programs / "idle")

    stream_times, stream_counts = None, {}
    if "streams" in only:
        note("streams")
        with tempfile.TemporaryDirectory() as d:
            stream_times, stream_counts = measure_streams(programs, args.repetitions, args.min_time,
                                                          f"{d}/streams.json")

    rows = targets(times, instr, memory)
    if set(only) - {"streams"}:
        text = report(args, times, instr, syscalls, memory, rows)
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
            "times": times.samples if times else {},
            "instructions": {f"{p}/{c[0]}/{c[1]}": v for (p, c), v in instr.items()},
            "calls": {p: v for (p, _), v in syscalls.items()},
            "memory": memory,
            "stream_times": stream_times.samples if stream_times else {},
            "stream_counts": {f"{f.__name__}/{p}/{c[0]}/{c[1]}": v
                              for (f, p, c), v in stream_counts.items()},
        }, indent=1))
    if args.check and any(round(got, 3) > limit for _, limit, got, _ in rows):
        sys.exit("A target was missed")


if __name__ == "__main__":
    main()
