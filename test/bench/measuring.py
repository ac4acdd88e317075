# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Runs the benchmark programs.

A variant is a set of Moor's headers: "this", or "before" where two are compared. A program exists for
each variant and backend.
"""

import concurrent.futures
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

BACKENDS = ["epoll", "select", "io_uring"]
START = time.monotonic()


def run(*command):
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stderr}")
    return result


def note(text):
    print(f"[{time.monotonic() - START:4.0f} s] {text}", file=sys.stderr, flush=True)


def rounds(what, jobs, repetitions, measure):
    """Calls measure(job) for each job, in random order, so many times."""
    jobs = list(jobs)
    for r in range(repetitions):
        random.shuffle(jobs)
        last = 0.0
        for k, job in enumerate(jobs):
            if time.monotonic() - last > 5:
                note(f"{what}: repetition {r + 1} of {repetitions}, program {k + 1} of {len(jobs)}")
                last = time.monotonic()
            measure(job)


class Times:
    """Nanoseconds (or another unit) of one variant and backend, by name, one a repetition."""

    def __init__(self, samples=None):
        self.samples = samples or {}

    def __contains__(self, name):
        return name in self.samples

    def __bool__(self):
        return bool(self.samples)

    def add(self, name, value):
        self.samples.setdefault(name, []).append(value)

    def median(self, name):
        return statistics.median(self.samples[name])

    def ratio(self, name, base):
        """None if one of them was not measured."""
        if name not in self or base not in self:
            return None
        return self.median(name) / self.median(base)

    def spread(self, name):
        return spread(self.samples[name])


def spread(values):
    """The interquartile range over the median."""
    if len(values) < 2:
        return 0.0
    q = statistics.quantiles(values, n=4)
    return (q[2] - q[0]) / statistics.median(values)


def measure_times(programs, name, repetitions, min_time, wanted):
    """{(variant, backend): Times} of a Google Benchmark program. `wanted`: a regular expression for
    each backend."""
    found = {key: Times() for key in programs}

    def measure(key):
        with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
            run(programs[key] / name, f"--benchmark_filter={wanted[key[1]]}",
                "--benchmark_enable_random_interleaving=true", f"--benchmark_min_time={min_time}",
                "--benchmark_out_format=json", f"--benchmark_out={f.name}")
            for b in json.load(f)["benchmarks"]:
                found[key].add(b["name"], 1e9 / b["items_per_second"])

    rounds(name, programs, repetitions, measure)
    return found


# ---- counts: differences between two runs of different length, divided

def instructions(program, competitor, workload, times):
    with tempfile.TemporaryDirectory() as d:
        r = run("valgrind", "--tool=callgrind", f"--callgrind-out-file={d}/out", program, competitor,
                workload, times)
    return int(re.search(r"Collected : (\d+)", r.stderr)[1])


def allocations(program, competitor, workload, times):
    return int(re.search(r"allocations (\d+)", run(program, competitor, workload, times).stdout)[1])


def system_calls(program, competitor, workload, times, options=("-f",)):
    with tempfile.NamedTemporaryFile("r") as f:
        run("strace", "-c", *options, "-o", f.name, program, competitor, workload, times)
        counts = {}
        for line in f:
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                counts[fields[-1]] = int(fields[3])
    return counts


def system_calls_of_first_thread(*arguments):
    return system_calls(*arguments, options=())


COUNTERS = {"instructions": instructions, "allocations": allocations, "system_calls": system_calls,
            "system_calls_of_first_thread": system_calls_of_first_thread}


def difference(counter, program, competitor, workload, times):
    few, many = (COUNTERS[counter](program, competitor, workload, t) for t in times)
    n = times[1] - times[0]
    if isinstance(few, int):
        return (many - few) / n
    return {k: (many[k] - few.get(k, 0)) / n for k in many}


def measure_counts(programs, wanted, times):
    """{(variant, backend): {(counter, competitor, workload): its count}}. `wanted`: such keys for
    each backend. `times`: two numbers of round trips."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {}
        for key, directory in programs.items():
            for counter, competitor, workload in wanted[key[1]]:
                part = 10 if competitor.startswith("bulk/") else 1
                jobs[pool.submit(difference, counter, directory / "counts", competitor, workload,
                                 [t // part for t in times])] = key, (counter, competitor, workload)
        found = {key: {} for key in programs}
        last = 0.0
        for n, job in enumerate(concurrent.futures.as_completed(jobs)):
            if time.monotonic() - last > 5:
                note(f"counts: {n + 1} of {len(jobs)}")
                last = time.monotonic()
            key, count = jobs[job]
            found[key][count] = job.result()
    return found


# ---- the rest

def measure_echo(programs, repetitions, wanted):
    """{(variant, backend): {what: Times}}, of "requests a second", "p50", "p99" (µs) and "processor"
    (ns). `wanted`: (kind, connections, bytes, server, requests) for each backend."""
    whats = ("requests a second", "p50", "p99", "processor")
    found = {key: {w: Times() for w in whats} for key in programs}

    def measure(job):
        key, (kind, connections, size, server, requests) = job
        values = run(programs[key] / "echo", kind, connections, size, server, requests).stdout
        for what, value in zip(whats, values.split()):
            found[key][what].add(f"{kind}/{connections}/{size}:{server}", float(value))

    rounds("echo", [(key, case) for key in programs for case in wanted[key[1]]], repetitions, measure)
    return found


def read_lines(program, *arguments):
    """{name: [number]}"""
    return {name: [float(v) for v in values] for name, *values in (
        line.split() for line in run(program, *arguments).stdout.splitlines())}


def first_of(lines):
    return {name: values[0] for name, values in lines.items()}


def machine():
    try:
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        cpu = "unknown processor"
    compiler = run(os.environ.get("CXX", "c++"), "--version").stdout.splitlines()[0]
    return f"{os.cpu_count()} × {cpu}, Linux {os.uname().release}, {compiler}"
