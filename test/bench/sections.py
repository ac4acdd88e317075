# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""The sections of the report, as Markdown. Each is a function of the results, and empty if nothing
was measured for it."""

import statistics

import charts
from measuring import BACKENDS, spread

RINGS = {"epoll": ["2/1", "1000/1", "100/50"], "io_uring": ["2/1", "1000/1", "100/50"],
         "select": ["2/1", "100/1", "100/50"]}
COUNTED_RINGS = ["2/1", "100/50"]
THREADS = ["100/50", "100/50*2", "100/50*4"]
COMPETITORS = {
    "hand": "epoll written by hand, edge",
    "hand_drain": "epoll written by hand, edge, reads to would-block",
    "hand_level": "epoll written by hand, level",
    "libuv": "libuv `uv_poll`",
    "libevent": "libevent, level",
    "libevent_et": "libevent, `EV_ET`",
    "libevent_et_drain": "libevent, `EV_ET`, reads to would-block",
    "libev": "libev `ev_io`",
    "tokio": "Tokio `AsyncFd`, `clear_ready()`",
    "tokio_drain": "Tokio `AsyncFd`, reads to would-block",
    "asio_wait": "Asio `async_wait`, read",
    "asio_wait_drain": "Asio `async_wait`, reads to would-block",
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
GROWTH = ["1/1", "100/1", "100/100", "1000/100", "1000/1000", "9000/1", "9000/100", "9000/1000",
          "100/50/9000"]
WORKLOADS = {
    "pingpong": "round trip on a socketpair",
    "ready": "wait on a ready handle",
    "churn": "register, wait on a ready handle, read, deregister",
    "churn_pending": "register, wait, become ready, read, deregister",
    "chatter": "round trip of 2/1 that also writes to a handle nobody waits for",
}
STREAM_KINDS = {"pipe": "pipes", "pty": "terminals (raw)", "socketpair": "Unix sockets",
                "tcp": "TCP sockets", "bulk": "bulk: a pipe, blocks of 64 KiB"}
STREAM_CASES = ["2/1", "100/50"]
STREAM_COMPETITORS = {
    "hand": "epoll written by hand, edge",
    "asio": "Asio `posix::stream_descriptor`",
    "asio_socket": "Asio's socket",
    "moor": "Moor `stream_descriptor`",
}
POLL_WORKLOADS = {
    "ready": "one is ready at once",
    "pending": "one becomes ready",
    "changed": "one becomes ready, the list changes",
}
POLL_COMPETITORS = {
    "moor_set": "Moor `poll_set`",
    "moor_once": "Moor `async_poll`",
    "thread": "`poll(2)` in a thread, `post`",
    "nested": "an epoll set, Moor `async_wait`",
}
ECHO_KINDS = {"unix": "Unix sockets", "tcp": "TCP, loopback"}
ECHO_CONNECTIONS = {"epoll": [1, 100, 1000], "io_uring": [1, 100, 1000], "select": [1, 100]}
ECHO_BYTES = {64: "64 bytes", 16384: "16 KiB"}
ECHO_SERVERS = {
    "libuv": "libuv `uv_tcp_t`, `uv_pipe_t`",
    "asio_socket": "Asio's socket",
    "asio": "Asio `posix::stream_descriptor`",
    "moor": "Moor `stream_descriptor`, owned",
    "moor_borrowed": "Moor `stream_descriptor`, borrowed",
}

# For users: the way to wait, and when to choose it
SUMMARY = {
    "hand": "",
    "libuv": "",
    "libevent": "",
    "libev": "",
    "tokio": "",
    "asio_wait": "",
    "asio_read_some": "",
    "moor_level": "A library has the handle, or your handler may leave something unread. The default.",
    "moor_edge": "Your handler always reads until nothing is left.",
    "moor_level_io": "Your callable makes the call, and knows when nothing is left.",
    "moor_level_io_drain": "Your callable makes the call, and does not know whether something is left.",
}


class Results:
    """Everything that was measured of one variant."""

    def __init__(self, waits, threads, streams, counts, echo, wake_ups, idle, waiting, poll=None):
        self.waits, self.threads, self.streams, self.poll = waits, threads, streams, poll or {}
        self.counts, self.echo = counts, echo
        self.wake_ups, self.idle, self.waiting = wake_ups, idle, waiting

    def ns(self, workload, competitor, backend="epoll"):
        return self.waits[backend].median(f"{workload}:{competitor}")

    def has(self, workload, competitor, backend="epoll"):
        return backend in self.waits and f"{workload}:{competitor}" in self.waits[backend]

    def ratio(self, workload, competitor, base, backend="epoll"):
        """None if one of them was not measured."""
        if backend not in self.waits:
            return None
        return self.waits[backend].ratio(f"{workload}:{competitor}", f"{workload}:{base}")

    def count(self, counter, competitor, workload, backend="epoll"):
        return self.counts.get(backend, {}).get((counter, competitor, workload))

    def polls(self, competitor, workload, backend="epoll"):
        calls = self.count("system_calls", competitor, workload, backend)
        return None if calls is None else calls.get("poll", 0.0)


def text(value, form=".2f"):
    return "" if value is None else f"{value:{form}}"


def both(values, form):
    return "" if any(v is None for v in values) else " / ".join(f"{v:{form}}" for v in values)


def calls_text(calls, without=()):
    if calls is None:
        return ""
    return ", ".join(f"{v:.2g} {k}" for k, v in sorted(calls.items())
                     if round(v, 2) > 0 and k not in without) or "none"


def table(header, rows):
    """Without the rows and columns that are empty. Numbers are aligned to the right; a column whose
    header ends in "if" has text."""
    rows = [r for r in rows if any(r[1:])]
    if not rows:
        return ""
    kept = [k for k in range(len(header)) if k == 0 or any(r[k] for r in rows)]
    line = lambda cells: "| " + " | ".join(cells[k] for k in kept) + " |"
    return "\n".join([line(header), "|" + "|".join(
        " --- " if k == 0 or header[k].endswith(" if") else " ---: " for k in kept) + "|"] + [line(r) for r in rows])


def title(workload):
    ring, _, threads = workload.partition("*")
    handles, active, *idle = map(int, ring.split("/"))
    return (f"{handles:,} handle{'s' * (handles > 1)}, {active:,} active"
            + (f", {idle[0]:,} idle" if idle else "") + (f", {threads} threads" if threads else ""))


def describe(competitor):
    name, at, suffix = competitor.partition("@")
    return COMPETITORS[name] + (f" ({SUFFIXES[at + suffix]})" if suffix else "")


def plain(markdown):
    return markdown.replace("`", "")


def parts(*found):
    return "\n\n".join(p for p in found if p)


# ---- sections

def summary(r, chart):
    rows = []
    for c, when in SUMMARY.items():
        row = [describe(c)] + [text(r.ratio(w, c, "asio_wait")) for w in RINGS["epoll"]]
        calls = r.count("system_calls", c, "2/1")
        if calls is not None:
            calls = {**calls, "read": calls.get("read", 0) - 1}
        row += [calls_text(calls, ("epoll_wait", "write"))]
        rows.append(row + [when] if any(row[1:]) else [""] * (len(row) + 1))
    return table(["way to wait"] + [f"time, {title(w)}" for w in RINGS["epoll"]]
                 + ["further system calls", "choose it if"], rows)


def how(r):
    """How the times were taken."""
    spreads = [t.spread(n) for t in r.waits.values() for n in t.samples]
    if not spreads:
        return ""
    n = max(len(v) for t in r.waits.values() for v in t.samples.values())
    if n < 2:
        return ""
    return (f"Medians of {n} repetitions in random order; the interquartile range was "
            f"{100 * statistics.median(spreads):.0f} % of the median (the widest: "
            f"{100 * max(spreads):.0f} %).")


def epoll(r, chart):
    if "epoll" not in r.waits:
        return ""
    rows = []
    for c in COMPETITORS:
        row = [describe(c)]
        row += [text(r.ratio(w, c, "hand")) for w in RINGS["epoll"]]
        row += [text(r.ratio(w, c, "asio_wait")) for w in RINGS["epoll"]]
        row += [both([r.count("instructions", c, w) for w in COUNTED_RINGS], ".0f"),
                calls_text(r.count("system_calls", c, "2/1")),
                text(r.count("allocations", c, "2/1"), ".3g")]
        rows.append(row)
    drawn = [chart(f"round-trip-{w.replace('/', '-')}", f"A round trip: {title(w)}",
                   "time, as a ratio to epoll written by hand; less is better",
                   [bar for bar in (wait_bar(r, w, c, "hand") for c in COMPETITORS
                                    if "drain" not in c) if bar])
             for w in RINGS["epoll"]]
    ns = ", ".join(f"{r.ns(w, 'hand'):.0f} ns for {w}" for w in RINGS["epoll"] if r.has(w, "hand"))
    return parts(
        *drawn,
        "Time as a ratio to the loop written by hand" + (f" ({ns})" if ns else "")
        + " and to Asio's `async_wait`. Workloads are HANDLES/ACTIVE; instructions, system calls and "
        f"allocations are counted for each round trip. {how(r)}",
        table(["epoll"] + [f"{w}, to the loop by hand" for w in RINGS["epoll"]]
              + [f"{w}, to `async_wait`" for w in RINGS["epoll"]]
              + [f"instructions, {' / '.join(COUNTED_RINGS)}", "system calls, 2/1",
                 "allocations, 2/1"], rows))


def family(competitor):
    name = competitor.partition("_")[0]
    return name if name in ("moor", "asio", "hand") else "other"


def wait_bar(r, workload, competitor, base, backend="epoll"):
    value = r.ratio(workload, competitor, base, backend)
    if value is None:
        return None
    error = r.waits[backend].spread(f"{workload}:{competitor}") * value / 2
    return plain(describe(competitor)), value, error, family(competitor)


def backends(r, chart):
    found = []
    for b in ("io_uring", "select"):
        rings = RINGS[b]
        others = ["ready", "churn", "churn_pending"]
        rows = []
        for c in COMPETITORS:
            if not c.startswith(("asio", "moor")):
                continue
            row = [describe(c)]
            row += [text(r.ratio(w, c, "asio_wait", b)) for w in rings + others]
            row += [both([r.count("instructions", c, w, b) for w in COUNTED_RINGS], ".0f"),
                    both([r.polls(c, w, b) for w in COUNTED_RINGS], ".2g")]
            rows.append(row)
        bars = [bar for bar in (wait_bar(r, "2/1", c, "asio_wait", b) for c in COMPETITORS
                                if "drain" not in c or c.startswith("moor")) if bar]
        found.append(chart(f"round-trip-{b}", f"A round trip on {b}: {title('2/1')}",
                           "time, as a ratio to Asio's async_wait on the same backend; less is "
                           "better", bars))
        found.append(table(
            [f"{b}, time to `async_wait`"] + rings
            + ["ready wait", "register, ready wait, deregister", "register, pending wait, deregister",
               f"instructions, {' / '.join(COUNTED_RINGS)}",
               f"`poll` a wait, {' / '.join(COUNTED_RINGS)}"], rows))
    return parts(*found)


def growth(r, chart):
    bars = [bar for bar in (wait_bar(r, "9000/1000", c, "hand") for c in COMPETITORS
                            if "drain" not in c) if bar]
    rows = [[describe(c)] + [text(r.ratio(w, c, "hand")) for w in GROWTH]
            for c in COMPETITORS if "drain" not in c]
    return parts(
        chart("growth", f"A round trip: {title('9000/1000')}",
              "time, as a ratio to epoll written by hand; less is better", bars),
        table(["epoll, time to the loop by hand"] + GROWTH, rows))


def variants(r, chart):
    rows = []
    for s in SUFFIXES:
        for c in ("asio_wait", "moor_edge", "moor_level"):
            row = [describe(c + s)]
            row += [text(r.ratio(w, c + s, "asio_wait" + s)) for w in RINGS["epoll"]]
            row += [both([r.count("instructions", c + s, w) for w in COUNTED_RINGS], ".0f")]
            rows.append(row)
    return table(["epoll"] + [f"{w}, to the same `async_wait`" for w in RINGS["epoll"]]
                 + [f"instructions, {' / '.join(COUNTED_RINGS)}"], rows)


def workloads(r, chart):
    found = []
    for w, what in WORKLOADS.items():
        rows = []
        for c in COMPETITORS:
            if not r.has(w, c):
                continue
            name = ("Moor, answered by the cache" if (w, c) == ("ready", "moor_edge")
                    else describe(c))
            rows.append([name, f"{r.ns(w, c):.0f}", text(r.ratio(w, c, "asio_wait")),
                         text(r.count("instructions", c, w), ".0f"),
                         calls_text(r.count("system_calls", c, w)),
                         text(r.count("allocations", c, w), ".3g")])
        found.append(table([f"epoll: {what}", "ns", "to `async_wait`", "instructions",
                            "system calls", "allocations"], rows))
    return parts(*found)


def threads(r, chart):
    found = []
    for b in BACKENDS:
        if b not in r.threads:
            continue
        t = r.threads[b]
        name = lambda w, c: f"{w}:{c}/real_time"
        rows = [[describe(c)]
                + [f"{t.median(name(w, c)):.0f}" if name(w, c) in t else "" for w in THREADS]
                + [text(t.ratio(name(w, c), name(w, "asio_wait"))) for w in THREADS]
                for c in COMPETITORS]
        found.append(table([f"{b}, 100/50, by the clock"]
                           + [f"ns, {n} thread{'s' * (n > 1)}" for n in (1, 2, 4)]
                           + [f"to `async_wait`, {n}" for n in (1, 2, 4)], rows))
    return parts(*found)


def wake_ups(r, chart):
    return table(["epoll: µs from a write in another thread to the handler", "median", "99 %", "99.9 %"],
                 [[describe(c)] + [f"{ns / 1000:.1f}" for ns in r.wake_ups[c]]
                  for c in COMPETITORS if c in r.wake_ups])


def stream(kind, competitor, case):
    return f"{kind}/{competitor}" if kind == "bulk" else f"{kind}/{competitor}/{case}"


def streams(r, chart):
    found = []
    for b in BACKENDS:
        if b not in r.streams:
            continue
        t, rows, bars = r.streams[b], [], []
        for kind, what in STREAM_KINDS.items():
            cases = STREAM_CASES[:1] if kind == "bulk" else STREAM_CASES
            for c, who in STREAM_COMPETITORS.items():
                if stream(kind, c, cases[0]) not in t:
                    continue
                ratios = [t.ratio(stream(kind, c, k), stream(kind, "asio", k)) for k in cases]
                row = [f"{what}: {who}"] + [f"{v:.2f}" for v in ratios]
                row += [""] * (len(STREAM_CASES) - len(cases))
                row += [" / ".join(f"{t.median(stream(kind, c, k)):.0f}" for k in cases)]
                counted = [(f"{kind}/{c}", k) for k in cases]
                row += [both([r.count("instructions", *k, b) for k in counted], ".0f"),
                        "<br>".join(filter(None, (calls_text(r.count("system_calls", *k, b))
                                                  for k in counted))),
                        both([r.count("allocations", *k, b) for k in counted], ".3g")]
                rows.append(row)
                if c != "asio" and kind != "pty":
                    bars.append((plain(f"{what.partition(':')[0]}: {who}"), ratios[0],
                                 t.spread(stream(kind, c, cases[0])) * ratios[0] / 2, family(c)))
        cases = " / ".join(STREAM_CASES)
        if b == "epoll":
            found.append(chart("streams", f"Streams: {title('2/1')}",
                               "time, as a ratio to Asio's posix::stream_descriptor; less is better",
                               bars))
        found.append(table([f"{b}, time to Asio's descriptor"] + STREAM_CASES
                           + [f"ns a round trip, {cases}", f"instructions, {cases}",
                              f"system calls, {cases}", f"allocations, {cases}"], rows))
    return parts(*found)


def poll(r, chart):
    found = []
    for b in BACKENDS:
        if b not in r.poll:
            continue
        t, rows = r.poll[b], []
        workloads = sorted({n.partition(":")[0] for n in t.samples},
                           key=lambda w: (list(POLL_WORKLOADS).index(w.partition("/")[0]),
                                          int(w.partition("/")[2])))
        for w in workloads:
            name = lambda c: f"{w}:{c}/real_time"
            what, _, n = w.partition("/")
            rows.append([f"{int(n):,} pipes: {POLL_WORKLOADS[what]}"]
                        + [f"{t.median(name(c)) / 1000:.1f}" if name(c) in t else ""
                           for c in POLL_COMPETITORS]
                        + [text(t.ratio(name(c), name("thread"))) for c in POLL_COMPETITORS
                           if c != "thread"])
        found.append(table([f"{b}, lists, by the clock"]
                           + [f"µs, {who}" for who in POLL_COMPETITORS.values()]
                           + [f"to a thread, {who}" for c, who in POLL_COMPETITORS.items()
                              if c != "thread"], rows))
    return parts(*found)


def echo(r, chart):
    found = []
    for b in BACKENDS:
        if b not in r.echo:
            continue
        e = r.echo[b]
        rates, late, used = (e[w] for w in ("requests a second", "p99", "processor"))
        for kind, what in ECHO_KINDS.items():
            rows, bars = [], []
            for size, bytes_text in ECHO_BYTES.items():
                for server, who in ECHO_SERVERS.items():
                    names = [f"{kind}/{n}/{size}:{server}" for n in ECHO_CONNECTIONS[b]]
                    if not any(n in rates for n in names):
                        continue
                    rows.append(
                        [f"{bytes_text}: {who}"]
                        + [f"{rates.median(n) / 1000:.1f}" if n in rates else "" for n in names]
                        + [f"{late.median(n):,.0f}" if n in late else "" for n in names]
                        + [f"{used.median(n) / 1000:.2f}" if n in used else "" for n in names])
                    n = f"{kind}/100/{size}:{server}"
                    if size == 64 and n in rates:
                        bars.append((plain(who), rates.median(n) / 1000,
                                     rates.spread(n) * rates.median(n) / 2000, family(server)))
            if b == "epoll":
                found.append(chart(f"echo-{kind}", f"An echo server: {what}, 100 connections, 64 bytes",
                                   "thousand requests a second; more is better", bars))
            header = [f"{b}, {what}"]
            for unit in ("1,000 requests/s", "99 %, µs", "processor, µs a request"):
                header += [f"{unit}, {n:,}" for n in ECHO_CONNECTIONS[b]]
            found.append(table(header, rows))
    return parts(*found)


def memory(r, chart):
    found = []
    if r.waiting:
        found.append(table(
            ["bytes from `malloc` for each handle with a pending wait (reactor, user's object, "
             "operation), of 9,000", ""],
            [[describe(c), f"{max(r.waiting[c], 0):.0f}"] for c in COMPETITORS
             if c in r.waiting and "drain" not in c]))
    if r.idle:
        m = r.idle
        found.append(table(["bytes asked of `operator new` for each idle handle, of 10,000", ""], [
            ["Asio's reactor, for its own descriptor", f"{m['asio_reactor']:.0f}"],
            ["Moor, registered, before the first wait", f"{m['moor_before_any_wait']:.0f}"],
            ["Moor, after a wait, with the memory of Asio's reactor", f"{m['moor_after_a_wait']:.0f}"],
            ["Moor, after a wait, without it", f"{m['moor_beyond_asio']:.0f}"],
            ["`sizeof(moor::registration)` / `sizeof(posix::stream_descriptor)`",
             f"{m['sizeof_moor_registration']:.0f} / {m['sizeof_asio_descriptor']:.0f}"],
        ]))
    return parts(*found)


# ---- the project's own goals

def goal_rows(r):
    """(what, limit, obtained, the bare operation's, its format). `obtained` is never None."""
    rows = []

    def add(what, limit, obtained, bare=None, form=".2f"):
        if obtained is not None:
            rows.append((what, limit, obtained, bare, form))

    def waits(b, c, name, limits):
        for w, limit in limits.items():
            add(f"{b}, {name}, {title(w)}", limit, r.ratio(w, c, "asio_wait", b),
                r.ratio(w, "asio_bare", "asio_wait", b))

    waits("epoll", "moor_edge", "edge", {"2/1": 0.80, "1000/1": 0.81, "100/50": 0.74})
    for w in COUNTED_RINGS:
        mine, theirs, bare = (r.count("instructions", c, w)
                              for c in ("moor_edge", "asio_wait", "asio_bare"))
        if mine and theirs:
            add(f"epoll, edge, instructions, {title(w)}", 1.00, mine / theirs,
                bare / theirs if bare else None, ".3f")
    waits("epoll", "moor_level", "level", {"2/1": 0.90, "1000/1": 0.95, "100/50": 0.80})
    if "epoll" in r.threads:
        t, base = r.threads["epoll"], "100/50*2:asio_wait/real_time"
        for c, limit in (("moor_level", 1.00), ("moor_edge", 0.85)):
            add(f"epoll, {c[5:]}, two threads, {title('100/50')}", limit,
                t.ratio(f"100/50*2:{c}/real_time", base),
                t.ratio("100/50*2:asio_bare/real_time", base))
    for w in RINGS["epoll"]:
        add(f"epoll, `async_io` that reads to would-block, {title(w)}", 1.00,
            r.ratio(w, "moor_level_io_drain", "asio_wait"))
    for w in RINGS["epoll"]:
        add(f"the same, to `async_wait` that reads to would-block, {title(w)}", 1.00,
            r.ratio(w, "moor_level_io_drain", "asio_wait_drain"))
    add(f"epoll, level, {WORKLOADS['churn_pending']}", 1.05,
        r.ratio("churn_pending", "moor_level", "asio_wait"))
    if "epoll" in r.streams:
        t = r.streams["epoll"]
        for kind, limit in (("pipe", 0.85), ("socketpair", 0.85), ("tcp", 0.92), ("bulk", 1.00)):
            for case in STREAM_CASES[:1] if kind == "bulk" else STREAM_CASES:
                add(f"epoll, streams, {STREAM_KINDS[kind]}"
                    + ("" if kind == "bulk" else f", {title(case)}"), limit,
                    t.ratio(stream(kind, "moor", case), stream(kind, "asio", case)))
    waits("io_uring", "moor_edge", "edge", {"2/1": 1.02, "100/50": 1.02})
    waits("io_uring", "moor_level", "level", {"2/1": 1.03, "100/50": 1.03})
    for c in ("moor_edge", "moor_level"):
        for w in COUNTED_RINGS:
            add(f"io_uring, {c[5:]}, calls of `poll` a wait, {title(w)}", 0.01,
                r.polls(c, w, "io_uring"), form=".3f")
    waits("select", "moor_edge", "edge", {"2/1": 1.00, "100/1": 1.00, "100/50": 1.00})
    waits("select", "moor_level", "level", {"2/1": 1.00, "100/1": 1.00, "100/50": 1.00})
    if r.idle:
        add("bytes a registration, before the first wait", 384, r.idle["moor_before_any_wait"],
            form=".0f")
        add("bytes a registration, after a wait, beyond Asio's", 384, r.idle["moor_beyond_asio"],
            form=".0f")
    return rows


def missed(row):
    _, limit, obtained, _, form = row
    return round(obtained, 0 if form == ".0f" else 3) > limit


def goals(r, chart):
    """A third digit where two would not show the side of the limit."""
    lines = []
    for row in goal_rows(r):
        what, limit, obtained, bare, form = row
        if form == ".2f" and f"{obtained:.2f}" == f"{limit:.2f}" and obtained > limit:
            form = ".3f"
        lines.append([what, f"{limit:.0f}" if form == ".0f" else f"{limit:.2f}", f"{obtained:{form}}",
                      "**missed**" if missed(row) else "reached", text(bare)])
    return table(["goal (time to Asio's own on the same backend, if nothing else is said)", "at most",
                  "obtained", "", "a bare operation of Asio's reactor"], lines)


SECTIONS = {f.__name__: f for f in (summary, epoll, backends, growth, variants, workloads, threads,
                                    wake_ups, streams, poll, echo, memory, goals)}


# ---- before and after

def paired(before, after):
    """The median and the spread of after/before, repetition by repetition."""
    ratios = [a / b for a, b in zip(after, before)]
    return statistics.median(ratios), spread(ratios)


def is_compared(group, name):
    """Moor's, and Asio's own operation, which should not change."""
    competitor = name.split("/")[1] if group == "streams" else name.partition(":")[2].split("/")[0]
    return competitor.startswith("moor") or competitor in ("asio", "asio_wait")


def asios(group, name):
    """The name of Asio's own operation in the same case."""
    if group == "streams":
        kind, _, *case = name.split("/")
        return "/".join([kind, "asio"] + case)
    workload, _, rest = name.partition(":")
    return f"{workload}:asio_wait" + ("/real_time" if group == "threads" else "")


def compared_times(before, after, b):
    rows = []
    for group in ("waits", "threads", "streams"):
        old, new = getattr(before, group).get(b), getattr(after, group).get(b)
        if not old or not new:
            continue
        for name in sorted(new.samples):
            if name not in old or not is_compared(group, name):
                continue
            median, wide = paired(old.samples[name], new.samples[name])
            base = asios(group, name)
            row = [f"{group} {name.replace('/real_time', '')}", f"{old.median(name):.0f}",
                   f"{new.median(name):.0f}", f"{median:.3f}", f"± {50 * wide:.0f} %"]
            row += [f"{paired(t.samples[base], t.samples[name])[0]:.2f}"
                    if base in t and base != name else "" for t in (old, new)]
            rows.append(row)
    return table([b, "ns before", "ns after", "after/before", "quartiles", "to Asio's, before",
                  "to Asio's, after"], rows)


def compared_echo(before, after, b):
    whats = {"requests a second": 1000, "p99": 1, "processor": 1000}
    rows = []
    for name in sorted(after.echo[b]["p99"].samples) if b in after.echo else []:
        row = [f"echo {name}"]
        for what, scale in whats.items():
            old, new = before.echo[b][what], after.echo[b][what]
            row += [f"{old.median(name) / scale:.2f}", f"{new.median(name) / scale:.2f}",
                    f"{paired(old.samples[name], new.samples[name])[0]:.3f}"]
        rows.append(row)
    return table([b] + [f"{w}, {x}" for w in ("1,000 requests/s", "99 % µs", "processor µs")
                        for x in ("before", "after", "after/before")], rows)


def compared_counts(before, after, b):
    rows, same = [], 0
    for (counter, c, w), new in after.counts.get(b, {}).items():
        old = before.counts[b].get((counter, c, w))
        if old is None:
            continue
        was, now = ((calls_text(x) if counter == "system_calls" else f"{x:.4g}") for x in (old, new))
        if was == now:
            same += 1
        elif counter == "system_calls":
            rows.append([f"system calls, {w}:{c}", was, now, ""])
        else:
            rows.append([f"{counter}, {w}:{c}", was, now, f"{new / old:.3f}" if old else ""])
    return parts(table([f"{b}, for each round trip", "before", "after", "after/before"], rows),
                 f"{b}: {same} other counts are equal." if same else "")


def compare(before, after):
    """Tables of two variants that were measured in one interleaved run."""
    return parts(*(f(before, after, b) for b in BACKENDS
                   for f in (compared_times, compared_echo, compared_counts)))
