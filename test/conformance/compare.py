#!/usr/bin/env python3
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Says which steps of Moor's states the model of the core does not take."""

import argparse
import sys

TRIGGERS = ["level-triggered", "edge-triggered"]
VIEWS = ["waker", "cache", "operations", "ends"]
NAMES = [
    {1: "closed", 2: "attached", 4: "armed", 8: "firing", 16: "prepaid", 32: "needed", 64: "latched", 128: "not armed yet"},
    {1: "closed", 2: "attached", 4: "cached", 8: "told", 16: "would block"},
    {1: "closed", 2: "attached", 4: "waker", 8: "news", 32: "wait", 64: "call", 128: "poll"},
    {1: "closed", 2: "attached", 4: "read closed", 8: "write closed", 16: "error"},
]


def is_compared(step):
    """The model's programs with files that may tell a change once are too few."""
    return step[0] & 8 == 0


def describe(kind, view):
    names = [name for bit, name in NAMES[kind & 3].items() if view & bit]
    return "{" + ", ".join(names) + "}"


def read_steps(paths):
    """Maps each step (kind, before, after) to the functions that took it, with the file."""
    steps = {}
    for path in paths:
        try:
            with open(path, encoding="ascii") as file:
                lines = file.readlines()
        except OSError as error:
            sys.exit(f"{path}: {error.strerror}; a suite that does not end by exit() writes nothing")
        for line in lines:
            words = line.split()
            if not words[0].isdigit():
                sys.exit(f"{path}: {line.strip()}")
            step = tuple(int(word) for word in words[:3])
            steps.setdefault(step, set()).add(" in ".join(words[3:] + [path.rsplit("/", 1)[-1]]))
    return steps


def is_of_reactor(step):
    """The reactor fires an armed waker while nobody has the lock."""
    kind, before, after = step
    return kind & 3 == 0 and before & 4 != 0 and before - 4 + 8 == after


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", metavar="FILE", nargs="+", required=True, help="the steps of the model")
    parser.add_argument("steps", nargs="+", help="what MOOR_TEST_STEPS names: the steps of a suite")
    arguments = parser.parse_args()
    model = read_steps(arguments.model)
    taken = read_steps(arguments.steps)
    compared = [step for step in taken if is_compared(step)]
    unknown = [step for step in compared if step not in model and not is_of_reactor(step)]
    for kind, before, after in sorted(unknown):
        trigger = TRIGGERS[kind >> 2 & 1] + (", told once" if kind & 8 else "")
        print(f"{VIEWS[kind & 3]}, {trigger}: {describe(kind, before)} -> {describe(kind, after)}:",
              *sorted(taken[kind, before, after])[:4])
    print(f"{len(compared)} steps of {len(arguments.steps)} suites, {len(unknown)} of which the model does not take;"
          f" {len(taken) - len(compared)} others are not compared; {len(model)} steps of the model")
    return 1 if unknown or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
