# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Makes one mistake at a time in the headers, and says which suite finds it: see mutants.txt."""

import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEST = ROOT / "test"
HEADERS = "moor/detail"

# Without a kernel first, which takes seconds; then what is slower and sees more.
SUITES = ("interleavings machines simulated schedules differential exactness cleared news waits io two_threads told_once "
          "cancellation renewed closing idle deferred_checks kinds stale threads short_transfers stream counts "
          "closed_numbers given_back poll_style registration service shutdown outliving promise forking").split()
FLAGS = ["-std=c++20", "-w", "-pthread", "-DBOOST_TEST_DYN_LINK", f"-I{TEST}"]
BACKENDS = {"epoll": ['-DMOOR_TEST_BACKEND="epoll"'],
            "select": ['-DMOOR_TEST_BACKEND="select"', "-DBOOST_ASIO_DISABLE_EPOLL"]}
LIBRARIES = "-lboost_unit_test_framework -lboost_coroutine -lboost_context -lssl -lcrypto".split()
RUN_SECONDS = 120


class Mutant:
    def __init__(self, number, line):
        fields = [field.strip(" ").replace("\\n", "\n") for field in line.split(" ; ")]
        self.number, self.header, self.before, self.after = number, fields[0], fields[1], fields[2]
        self.first = fields[3].split() if len(fields) > 3 else []

    def __str__(self):
        before = " ".join(self.before.split())
        return f"{self.number:3} {self.header}: {before}  ->  {' '.join(self.after.split())}"

    def apply(self, include):
        path = include / HEADERS / self.header
        text = path.read_text()
        if text.count(self.before) != 1:
            return f"its text is there {text.count(self.before)} times"
        path.write_text(text.replace(self.before, self.after, 1))
        return None


def read_mutants():
    lines = (TEST / "mutation/mutants.txt").read_text().splitlines()
    lines = [line + " " for line in lines if line and not line.startswith("#")]
    return [Mutant(number, line) for number, line in enumerate(lines, 1)]


def run(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def build_common(directory, backend):
    """What all programs share: objects that see no header of the core, and a precompiled header."""
    directory.mkdir(parents=True)
    flags = FLAGS + BACKENDS[backend]
    (directory / "shared.hpp").write_text("#include <boost/asio.hpp>\n#include <boost/test/unit_test.hpp>\n")
    shared = str(directory / "shared.hpp")
    commands = [["g++", *flags, "-x", "c++-header", shared, "-o", shared + ".gch"]]
    objects = []
    for source in [TEST / "main.cpp", *sorted((TEST / "support").glob("*.cpp"))]:
        objects.append(str(directory / (source.stem + ".o")))
        commands.append(["g++", *flags, f"-I{ROOT / 'include'}", "-c", str(source), "-o", objects[-1]])
    for command in commands:
        result = run(command)
        if result.returncode != 0:
            sys.exit(result.stdout)
    return objects


def open_cases(suite, backend):
    options = []
    for line in (TEST / "open_cases.txt").read_text().splitlines():
        if line.startswith(suite + "/") and backend in line.split()[1].split(","):
            options.append("--run_test=!" + line.split()[0])
    return options


def program_fails(name, include, common, directory):
    """`name`: of a suite on epoll, or with another backend behind a point. `common`: by backend."""
    suite, _, backend = name.partition(".")
    backend = backend or "epoll"
    shared, objects = common[backend]
    program = directory / name
    # (Millions of steps, see ../CMakeLists.txt; the precompiled header is for the others.)
    how = ["-O2"] if suite == "interleavings" else ["-include", str(shared / "shared.hpp")]
    result = run(["g++", *FLAGS, *BACKENDS[backend], *how, f"-I{include}",
                  str(TEST / "suites" / (suite + ".cpp")), *objects, "-o", str(program),
                  f"-Wl,@{TEST / 'support/wrap.rsp'}", *LIBRARIES])
    if result.returncode != 0:
        return "does not compile"
    command = [str(program), "--catch_system_errors=no", "--log_level=error", *open_cases(suite, backend)]
    try:
        try:
            result = run(command, timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired: # or the machine was busy
            result = run(command, timeout=2 * RUN_SECONDS)
    except subprocess.TimeoutExpired:
        return "hangs"
    finally:
        program.unlink()
    return f"fails with {result.returncode}" if result.returncode != 0 else None


def find_killer(mutant, suites, common):
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        include = directory / "include"
        shutil.copytree(ROOT / "include", include)
        wrong = mutant.apply(include)
        if wrong:
            return "broken", wrong
        for suite in mutant.first + [s for s in suites if s not in mutant.first]:
            how = program_fails(suite, include, common, directory)
            if how == "does not compile":
                return "broken", how
            if how:
                return "killed", f"{suite} {how}"
    return "survives", "all suites pass"


def main():
    parser = argparse.ArgumentParser(
        prog="test/mutation/run.sh",
        description="Makes one mistake at a time in the headers of the core, builds suites, most of them on epoll, "
                    "until one fails, and prints the result of each. A minute each, or several where no suite fails.")
    parser.add_argument("--no-install", action="store_true", help="install no packages")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at the same time")
    parser.add_argument("--suites", help="these suites only, divided by commas")
    parser.add_argument("--list", action="store_true", help="list the mutants")
    parser.add_argument("numbers", nargs="*", type=int, help="these mutants only")
    options = parser.parse_args()
    mutants = [m for m in read_mutants() if not options.numbers or m.number in options.numbers]
    if options.list:
        print("\n".join(map(str, mutants)))
        return 0
    suites = options.suites.split(",") if options.suites else SUITES
    began = time.monotonic()
    counts = {"killed": 0, "survives": 0, "broken": 0}
    with tempfile.TemporaryDirectory() as name:
        top = pathlib.Path(name)
        common = {b: (top / b, build_common(top / b, b)) for b in BACKENDS}
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            # A suite that fails without a mistake would find them all.
            checks = {s: pool.submit(program_fails, s, ROOT / "include", common, top) for s in suites}
            failures = [f"{s} {check.result()}" for s, check in checks.items() if check.result()]
            if failures:
                sys.exit("Without a mistake: " + ", ".join(failures))
            results = {pool.submit(find_killer, m, suites, common): m for m in mutants}
            for future in concurrent.futures.as_completed(results):
                what, why = future.result()
                counts[what] += 1
                print(f"{what:8} {results[future]}  ({why})", flush=True)
    score = counts["killed"] / max(1, counts["killed"] + counts["survives"])
    print(f"{counts['killed']} killed, {counts['survives']} survive, {counts['broken']} broken: score {score:.2f}, "
          f"{time.monotonic() - began:.0f} s")
    return 0 if counts["broken"] == 0 and score >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
