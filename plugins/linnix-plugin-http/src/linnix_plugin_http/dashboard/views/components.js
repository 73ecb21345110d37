// The parts of the run: how they are, what they took in, and what they lost.

import { get } from "../api.js";
import { empty, failure, h, replace, section, table, text, time } from "../dom.js";
import { live } from "../live.js";
import { count } from "../text.js";

const ORDER = ["failed", "unavailable", "degraded", "running", "available", "stopped"];

export function show(page) {
  page.title("Components");
  const states = h("div");
  const queues = h("div");
  const losses = h("div");
  const windows = h("div");
  let loaded = false;

  replace(
    page.root,
    h("h1", { class: "away" }, "Components"),
    section("Components", states),
    section("Records", queues),
    h("div", { class: "columns" }, section("Lost in this run", losses), section("Latest losses", windows)),
  );

  async function load() {
    let components;
    let report;
    try {
      [components, report] = await Promise.all([get("/plugins", { signal: page.signal }), get("/loss", { signal: page.signal })]);
    } catch (error) {
      if (error.name !== "AbortError" && !loaded) replace(states, failure(error, load));
      return;
    }
    loaded = true;
    components.sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.component.localeCompare(b.component));
    replace(states, statesOf(components));
    replace(queues, queuesOf(report));
    replace(losses, lossesOf(report));
    replace(windows, windowsOf(report));
  }

  page.on(live, "fresh", load);
  page.on(live, "record", ({ detail }) => detail.type === "loss" && detail.lost && load());
  page.every(5_000, load);
  load();
}

function statesOf(components) {
  if (!components.length) return empty("This run has no components.");
  const counters = (of) =>
    Object.entries(of)
      .filter(([name, value]) => value && !["received", "handled", "dropped", "queued"].includes(name))
      .map(([name, value]) => h("div", null, `${count(value)} `, text(name)));
  return table(
    "Components",
    [
      ["Component", (row) => text(row.component, "mono")],
      ["State", (row) => h("span", { class: `state ${row.state}` }, text(row.state))],
      [
        "Why, and what it cannot do",
        (row) => [row.reason && h("div", null, text(row.reason)), row.hint && h("div", { class: "muted" }, text(row.hint)), row.limits.map((limit) => h("div", { class: "muted" }, text(limit)))],
        "wide",
      ],
      components.some((row) => counters(row.counters).length) && ["Counted", (row) => counters(row.counters), "nowrap"],
      ["From", (row) => (row.distribution ? [text(row.distribution), " ", h("span", { class: "muted" }, text(row.version))] : ""), "nowrap"],
    ].filter(Boolean),
    components,
  );
}

function queuesOf({ queues, stream, evicted_processes: evicted }) {
  const balanced = (row) => row.received === row.handled + row.dropped + row.queued;
  return [
    queues.length
      ? table(
          "Records",
          [
            ["Component", (row) => text(row.component, "mono")],
            ["Received", (row) => count(row.received), "num"],
            ["Handled", (row) => count(row.handled), "num"],
            ["Dropped", (row) => h("span", { class: row.dropped ? "wrong" : "" }, count(row.dropped)), "num"],
            ["Waiting", (row) => count(row.queued), "num"],
            ["", (row) => (balanced(row) ? "" : h("span", { class: "muted" }, "in motion")), "nowrap"],
          ],
          queues,
        )
      : empty("No component takes in records."),
    h("p", { class: "muted" }, `Streams being read: ${count(stream.subscribers)}. Cut off because they were too slow: ${count(stream.dropped_subscribers)}, which missed ${count(stream.lost_records)} records. Processes given up for want of room: ${count(evicted)}.`),
  ];
}

function lossesOf({ by_component: by }) {
  const rows = Object.entries(by).flatMap(([component, reasons]) => Object.entries(reasons).map(([why, lost]) => ({ component, why, lost })));
  if (!rows.length) return empty("Nothing.");
  rows.sort((a, b) => b.lost - a.lost);
  return table(
    "Lost in this run",
    [
      ["Component", (row) => text(row.component, "mono")],
      ["Why", (row) => text(row.why)],
      ["Records", (row) => count(row.lost), "num"],
    ],
    rows,
  );
}

function windowsOf({ windows }) {
  if (!windows.length) return empty("No window with a loss.");
  return table(
    "Latest losses",
    [
      ["Until", (row) => time(row.ts_ns / 1e9), "nowrap"],
      ["Component", (row) => text(row.component, "mono")],
      ["Why", (row) => text(row.why)],
      ["Records", (row) => count(row.lost), "num"],
    ],
    windows.slice(0, 50),
  );
}
