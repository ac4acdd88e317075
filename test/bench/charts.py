# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
"""Draws bar charts as SVG: one chart a file, for a light and for a dark page.

A chart is 720 pixels wide, which code hosts show without scaling, so a label of 12 pixels has 12
pixels there.
"""

import html
import math

WIDTH, LABELS, RIGHT, ROW = 720, 300, 60, 24
THEMES = {
    "light": {"text": "#1f2328", "line": "#d1d9e0", "moor": "#0969da", "asio": "#bc4c00",
              "hand": "#1f2328", "other": "#818b98"},
    "dark": {"text": "#f0f6fc", "line": "#3d444d", "moor": "#4493f8", "asio": "#db6d28",
             "hand": "#f0f6fc", "other": "#9198a1"},
}


def step_for(most):
    """A round number, of which 4 to 10 reach as far as `most`."""
    power = 10 ** math.floor(math.log10(most / 4))
    return next(k * power for k in (1, 2, 5, 10) if most / (k * power) <= 10)


def draw(title, axis, bars, theme):
    """`bars`: (label, value, half of the interquartile range, family), the family a key of a theme."""
    colours = THEMES[theme]
    most = max(value + error for _, value, error, _ in bars)
    step = step_for(most)
    digits = 2 if most < 10 else 0
    scale = (WIDTH - LABELS - RIGHT) / most
    top, bottom = 40, 40 + ROW * len(bars)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 48}" '
           f'viewBox="0 0 {WIDTH} {bottom + 48}" font-family="sans-serif" font-size="12" '
           f'fill="{colours["text"]}">',
           f"<title>{html.escape(title)}</title>",
           f'<text x="8" y="22" font-size="15" font-weight="bold">{html.escape(title)}</text>']
    for k in range(int(most / step + 1e-9) + 1):
        x = LABELS + k * step * scale
        label = f"{k * step:,.{1 if step < 1 else 0}f}"
        out += [f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="{colours["line"]}"/>',
                f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>']
    out.append(f'<text x="{LABELS + (WIDTH - LABELS - RIGHT) / 2}" y="{bottom + 38}" '
               f'text-anchor="middle">{html.escape(axis)}</text>')
    for k, (label, value, error, family) in enumerate(bars):
        y = top + k * ROW
        middle, end = y + ROW / 2, LABELS + value * scale
        out += [f'<text x="{LABELS - 8}" y="{middle + 4}" text-anchor="end">{html.escape(label)}</text>',
                f'<rect x="{LABELS}" y="{y + 4}" width="{value * scale:.1f}" height="{ROW - 8}" '
                f'fill="{colours[family]}"/>',
                f'<line x1="{end - error * scale:.1f}" y1="{middle}" x2="{end + error * scale:.1f}" '
                f'y2="{middle}" stroke="{colours["text"]}"/>',
                f'<text x="{end + error * scale + 6:.1f}" y="{middle + 4}">{value:,.{digits}f}</text>']
    return "\n".join(out + ["</svg>"]) + "\n"


def write(directory, name, title, axis, bars):
    """Writes the files and returns the Markdown that shows them; nothing if there are no bars."""
    if not bars:
        return ""
    directory.mkdir(parents=True, exist_ok=True)
    for theme in THEMES:
        (directory / f"{name}-{theme}.svg").write_text(draw(title, axis, bars, theme))
    path = f"{directory.name}/{name}"
    return (f'<picture><source media="(prefers-color-scheme: dark)" srcset="{path}-dark.svg">'
            f'<img alt="{html.escape(title)}: {html.escape(axis)}" src="{path}-light.svg"></picture>')
