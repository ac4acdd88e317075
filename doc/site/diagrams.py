#!/usr/bin/env python3
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Draws the diagrams: diagrams.py SOURCES TARGET turns each SOURCES/*.msc and *.dot into an SVG, with mscgen and Graphviz.

Both draw in black and white. Here the colours follow the theme: of the page that shows the image, or of the system.
"""
import re
import subprocess
import sys
from pathlib import Path

STYLE = """<style>
svg { --paper: #ffffff; --ink: #1b2026; --text: #1b2026; --shade: #dde2e8 }
@media (prefers-color-scheme: dark) { svg { --paper: #14181d; --ink: #a0abb7; --text: #e3e8ee; --shade: #36404b } }
text { font: 12px system-ui, "DejaVu Sans", sans-serif; text-anchor: middle; fill: var(--text);
  paint-order: stroke; stroke: var(--paper); stroke-width: 4px }
</style>
"""

PLAIN_STYLE = re.sub(r"text-anchor[^;]*; |;\s*paint-order[^}]*", "", STYLE)


def draw_graph(source):
    svg = subprocess.run(["dot", "-T", "svg", source], check=True, capture_output=True, text=True).stdout
    svg = svg[svg.index("<svg"):]
    svg = svg.replace(">", ">\n" + PLAIN_STYLE, 1)
    for attribute in ("fill", "stroke"):
        for name, colour in (("black", "var(--ink)"), ("white", "var(--paper)"), ("gray", "var(--shade)")):
            svg = svg.replace(f'{attribute}="{name}"', f'{attribute}="{colour}"')
    return svg


def draw(source):
    svg = subprocess.run(["mscgen", "-T", "svg", "-i", source, "-o", "-"], check=True, capture_output=True, text=True).stdout
    svg = svg[svg.index("<svg"):]
    svg = svg.replace(">", ">\n" + STYLE, 1)
    svg = svg.replace('"black"', '"var(--ink)"').replace('"white"', '"var(--paper)"')
    arrows = set(re.findall(r'<line [^>]*y1="(\d+)"[^>]*y2="\1"', svg))

    def text(match):
        """Centres a text without stretching it, and lifts the text of an arrow off the line."""
        x, y, length, anchor = int(match[1]), int(match[2]), int(match[3]), match[4]
        x += 0 if "middle" in anchor else length // 2
        y -= 4 if str(y + 1) in arrows else 0
        return f'<text x="{x}" y="{y}">'

    svg = re.sub(r'<text x="(\d+)" y="(\d+)" textLength="(\d+)" [^>]*?fill="[^"]*"([^>]*)>', text, svg)
    return svg


def main():
    sources = sorted(path for path in Path(sys.argv[1]).iterdir() if path.suffix in (".dot", ".msc"))
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    for source in sources:
        (target / source.with_suffix(".svg").name).write_text((draw_graph if source.suffix == ".dot" else draw)(source), encoding="utf8")
    print(f"{len(sources)} diagrams: " + ", ".join(source.stem for source in sources))
    return not sources


sys.exit(main())
