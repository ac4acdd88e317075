#!/usr/bin/env python3
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Counts vague pronouns (it, its, that, those, what) per 100 words of README.md and of the pages in doc.

Prints a table, and the worst sentences of a page that has 3 or more; exit 1 if there is such a page. Code, addresses,
headings of blocks and comments do not count. A page of fewer than 150 words has too few to be measured.
"""
import re
import sys
from pathlib import Path

VAGUE = {"it", "its", "that", "those", "what"}
LIMIT = 3.0


def prose(text, name):
    if name.suffix == ".md":
        text = re.sub(r"```.*?```|<!--.*?-->|<[a-z/][^>]*>", " ", text, flags=re.S)
    else:
        text = re.sub(r"^(----|\.\.\.\.|\+\+\+\+|////)$.*?^\1$", " ", text, flags=re.S | re.M)
        text = re.sub(r"^(//.*|\[.*\]|:[\w-]+:.*|image::.*)$", " ", text, flags=re.M)
        text = re.sub(r"(?:link|xref):[^\[\s]*\[", " ", text)
    text = re.sub(r"`[^`]*`", " X ", text)
    return re.sub(r"https?://\S+", " ", text)


def words(text):
    return re.findall(r"[A-Za-z']+", text.lower())


def count(text):
    return sum(word in VAGUE for word in words(text))


def main():
    root = Path(__file__).resolve().parents[1]
    failed = False
    for name in [root / "README.md", *sorted((root / "doc").glob("*.adoc")), *sorted((root / "doc").glob("*.md"))]:
        text = prose(name.read_text(encoding="utf8"), name)
        total = len(words(text))
        if total < 150:
            continue
        rate = 100 * count(text) / total
        print(f"{rate:5.1f}  {total:6} words  {name.relative_to(root)}")
        if rate >= LIMIT:
            failed = True
            sentences = re.split(r"(?<=[.!?:])\s+|\n\n", text)
            for sentence in sorted(sentences, key=count, reverse=True)[:3]:
                print(f"       {count(sentence)} in: {re.sub(chr(10), ' ', sentence.strip())[:120]}")
    return failed


sys.exit(main())
