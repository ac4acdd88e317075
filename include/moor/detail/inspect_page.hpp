//
// moor/detail/inspect_page.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The page of an inspector. It shows texts of the program, such as names, as text only.
//

#ifndef MOOR_DETAIL_INSPECT_PAGE_HPP
#define MOOR_DETAIL_INSPECT_PAGE_HPP

namespace moor {
namespace detail {

/// What the page may load: itself, and its data.
inline constexpr char inspect_page_policy[] =
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src "
    "'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

inline constexpr char inspect_page[] = R"html(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Moor: registrations</title>
<style>
:root { color-scheme: light dark; --fg: #1b1f24; --bg: #fff; --soft: #57606a; --line: #d0d7de;
        --good: #116329; --bad: #a40e26; --mark: #ffebe9; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #e6edf3; --bg: #0d1117; --soft: #9198a1; --line: #30363d;
          --good: #56d364; --bad: #ff938a; --mark: #3c1618; }
}
body { margin: 1rem; font: 15px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); }
h1 { font-size: 1.25rem; margin: 0; }
p { margin: .3rem 0; color: var(--soft); overflow-wrap: anywhere; }
#loop.good { color: var(--good); } #loop.bad, #lost { color: var(--bad); font-weight: 600; }
div { overflow-x: auto; }
table { border-collapse: collapse; margin-top: .5rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
         white-space: nowrap; }
td.number, th.number { text-align: right; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " \25B2"; }
th[aria-sort=descending] button::after { content: " \25BC"; }
tr.stuck td { background: var(--mark); }
</style>
</head>
<body>
<h1>Registrations</h1>
<p id="program"></p>
<p id="loop" role="status"></p>
<p id="lost" role="alert"></p>
<div><table><thead><tr id="head"></tr></thead><tbody id="rows"></tbody></table></div>
<p id="counts"></p>
<script>
"use strict";
const columns = [
  ["Descriptor", r => r.handle],
  ["State", r => r.stuck ? "stuck" : ""],
  ["What it is", r => r.path],
  ["Name", r => r.name],
  ["Trigger", r => r.trigger],
  ["Waiting for", r => r.waiting_for],
  ["Operations", r => r.waiters],
  ["Pending, s", r => r.waiters ? r.pending_ms / 1000 : null, 1],
  ["Cached", r => r.cached],
  ["In the reactor", r => r.in_reactor],
  ["Events/s", r => r.events_per_second, 1],
  ["Events", r => r.events_delivered],
  ["Unhandled", r => r.events_unhandled],
  ["Checks", r => r.readiness_checks],
  ["Ticks r/w/p/e", r => r.ticks.join("/")],
];
const element = id => document.getElementById(id);
let sorted = 0, direction = 1, data = null;

columns.forEach(([title], i) => {
  const head = element("head").appendChild(document.createElement("th"));
  const button = head.appendChild(document.createElement("button"));
  button.textContent = title;
  button.addEventListener("click", () => {
    direction = sorted === i ? -direction : 1;
    sorted = i;
    show();
  });
});

function compare(a, b) {
  if (a === null || b === null)
    return (a !== null) - (b !== null);
  return typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
}

function show() {
  if (!data)
    return;
  [...element("head").children].forEach((head, i) => {
    if (i === sorted)
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    else
      head.removeAttribute("aria-sort");
  });
  const value = columns[sorted][1];
  const list = data.registrations.slice().sort((a, b) => direction * compare(value(a), value(b)));
  const rows = list.map(r => {
    const row = document.createElement("tr");
    row.className = r.stuck ? "stuck" : "";
    for (const [, value, digits] of columns) {
      const cell = row.appendChild(document.createElement("td"));
      const v = value(r);
      cell.className = typeof v === "number" ? "number" : "";
      cell.textContent = v === null ? "" : typeof v === "number" ? v.toFixed(digits || 0) : v;
    }
    return row;
  });
  [...element("head").children].forEach((head, i) => {
    head.className = list.length && typeof columns[i][1](list[0]) === "number" ? "number" : "";
  });
  element("rows").replaceChildren(...rows);
  element("program").textContent =
    `${data.program}, process ${data.pid}, ${data.reactor}: ${list.length} registered`;
  const still = data.loop_ms;
  element("loop").className = still === null ? "" : still < 1000 ? "good" : "bad";
  element("loop").textContent = still === null ? "The loop can't be asked whether it turns." :
    still < 1000 ? "The loop turns." : `The loop has not turned for ${(still / 1000).toFixed(1)} s.`;
  const m = data.metrics;
  element("counts").textContent = `Since the start: ${m.registered} registered, ` +
    `${m.deregistered} deregistered; ${m.waits_started} operations, of them ` +
    `${m.waits_completed_at_once} completed at once, ${m.waits_pended} had to wait, ` +
    `${m.waits_cancelled} cancelled; ${m.events_delivered} events delivered, ` +
    `${m.events_unhandled} unhandled; ${m.readiness_checks} readiness checks.`;
}

async function update() {
  try {
    const answer = await fetch("registrations.json", { cache: "no-store" });
    if (!answer.ok)
      throw new Error(answer.statusText);
    data = await answer.json();
    element("lost").textContent = "";
    show();
  } catch {
    element("loop").textContent = "";
    element("lost").textContent = "The program does not answer any more.";
  }
  setTimeout(update, 1000);
}
update();
</script>
</body>
</html>
)html";

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_INSPECT_PAGE_HPP
