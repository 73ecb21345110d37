// What this host does now, what was lost, and what needs somebody.

import { get } from "../api.js";
import { ceiling, chart } from "../chart.js";
import { empty, failure, h, replace, section, severity, table, text, time } from "../dom.js";
import { live } from "../live.js";
import { rates } from "../rates.js";
import { UNKNOWN, ago, bytes, count, duration, number, percent, plural, printable } from "../text.js";

const MINUTES = 10;

const CHARTS = [
  {
    title: "Events and losses per second",
    series: [
      ["events", "events", "a"],
      ["lost", "lost", "bad"],
    ],
    format: number,
  },
  {
    title: "CPU, memory, CPU pressure",
    series: [
      ["cpu", "CPU", "a"],
      ["memory", "memory", "b"],
      ["psi", "pressure", "c"],
    ],
    most: 100,
    format: (value) => `${value} %`,
  },
];

export function show(page) {
  page.title("Overview");
  const tiles = h("div", { class: "tiles" });
  const charts = CHARTS.map(drawn);
  const attention = h("div", { class: "stack" }, empty("Loading"));
  const losses = h("div", null, empty("Loading"));
  const tops = h("div", { class: "columns" });
  let report = null;
  let open = null;
  let error = null;

  replace(
    page.root,
    h("h1", { class: "away" }, "Overview"),
    tiles,
    h("div", { class: "columns" }, charts.map(({ element }) => element)),
    h("div", { class: "columns" }, section("Open incidents", attention), section("Losses", losses)),
    tops,
  );
  for (const { end } of charts) page.atEnd(end);

  async function load() {
    try {
      [report, open] = await Promise.all([
        get("/loss", { signal: page.signal }),
        get("/incidents?open=true&limit=20", { signal: page.signal }),
      ]);
      error = null;
    } catch (failed) {
      if (failed.name === "AbortError") return;
      error = failed;
    }
    showFindings();
  }

  function showFindings() {
    if (error && !open) {
      replace(attention, failure(error, load));
      replace(losses, failure(error, load));
      return;
    }
    replace(attention, open.length ? open.map(card) : empty("No incident is open."));
    replace(losses, lossesOf(report));
  }

  function showNumbers() {
    const { status, system } = rates;
    if (!status) {
      if (rates.error) replace(tiles, failure(rates.error, () => rates.look()));
      return;
    }
    replace(tiles, tilesOf(status, system));
    for (const each of charts) each.update();
    replace(tops, topsOf(status));
  }

  page.on(rates, "change", showNumbers);
  page.on(live, "fresh", load);
  page.on(live, "record", ({ detail }) => {
    if (detail.type === "incident" || (detail.type === "loss" && detail.lost)) load();
  });
  page.every(10_000, load);
  showNumbers();
  load();
}

function drawn({ title, series, most, format }) {
  const values = (name) => rates.points.map((point) => [point.at, point.gap ? null : point[name]]);
  const state = () => {
    const all = series.map(([name, label, kind]) => ({ label, kind, values: values(name) }));
    const highest = Math.max(...all.flatMap((each) => each.values.map(([, value]) => value ?? 0)), 0);
    const now = series.map(([name, label]) => `${label} ${number(rates.latest(name))}`).join(", ");
    return { series: all, most: most ?? ceiling(highest), until: Date.now() / 1000, label: `${title}: now ${now}` };
  };
  const lines = chart({ ...state(), seconds: MINUTES * 60, format });
  const legend = h(
    "span",
    { class: "legend", "aria-hidden": "true" },
    series.map(([, label, kind]) => h("span", { class: `key ${kind}` }, label)),
  );
  const element = h("section", { class: "panel" }, h("h2", null, title, legend), lines.element);
  return { element, update: () => lines.update(state()), end: lines.end };
}

function tile(label, value, { note, kind, href } = {}) {
  const inside = [h("span", { class: "label" }, label), h("strong", null, value), h("small", null, note ?? "\u00a0")];
  const name = kind ? `tile ${kind}` : "tile";
  return href ? h("a", { class: name, href }, inside) : h("div", { class: name }, inside);
}

function tilesOf(status, system) {
  const lost = status.dropped_events_total;
  const down = Object.entries(status.components).filter(([state]) => !["running", "available", "stopped"].includes(state));
  const kernel = status.kernel_instrumentation === "active";
  return [
    tile("Events", rates.latest("events") === null ? UNKNOWN : `${number(rates.latest("events"))} /s`, { note: `${count(status.events_total)} in this run` }),
    tile("Lost", count(lost), {
      note: lost ? `${number(rates.latest("lost") ?? 0)} /s now` : "nothing in this run",
      kind: lost ? "bad" : "",
      href: "#/components",
    }),
    tile("Incidents", count(status.incidents_open), {
      note: `open; ${count(status.incidents_last_1h)} in the last hour`,
      kind: status.incidents_open ? "warn" : "",
      href: "#/incidents",
    }),
    tile("Processes", count(status.processes), { note: `load ${load(system.load_avg)}`, href: "#/processes" }),
    tile("CPU", percent(system.cpu_percent), {
      note: `${system.cpus ? plural(system.cpus, "core") : "cores unknown"}; pressure ${percent(system.psi_cpu_some_avg10)}`,
    }),
    tile("Memory", percent(system.mem_percent), {
      note: `${bytes(system.memory_available_bytes)} free; pressure ${percent(system.psi_memory_some_avg10)}`,
    }),
    tile("Disk", `${bytes(sum(system.disk_read_bytes, system.disk_write_bytes))}/s`, {
      note: `pressure ${percent(system.psi_io_some_avg10)}`,
    }),
    tile("Network", `${bytes(sum(system.net_rx_bytes, system.net_tx_bytes))}/s`, { note: "in and out" }),
    tile("Agent", `${percent(status.cpu_pct)} CPU`, {
      note: `${status.rss_mb === null ? "–" : `${number(status.rss_mb)} MiB`}; up ${duration(status.uptime_s)}`,
    }),
    tile("Components", `${count(status.components.running ?? 0)} running`, {
      note: [...down.map(([state, amount]) => `${amount} ${state}`), kernel ? `kernel events by ${printable(status.transport)}` : "processes are polled"].join("; "),
      kind: down.some(([state]) => state === "failed") ? "bad" : down.length || !kernel ? "warn" : "",
      href: "#/components",
    }),
  ];
}

const sum = (a, b) => (a === null && b === null ? null : (a ?? 0) + (b ?? 0));
const load = (of) => of.map((value) => (value === null ? "–" : value.toFixed(2))).join(" ");

function card(incident) {
  return h(
    "a",
    { class: "card", href: `#/incidents/${encodeURIComponent(incident.id)}` },
    h("span", { class: "row" }, severity(incident.severity), h("span", { class: "muted" }, ago(incident.opened_ns / 1e9))),
    h("span", null, text(incident.summary)),
    incident.llm_analysis && h("span", { class: "muted" }, text(incident.llm_analysis)),
  );
}

function lossesOf(report) {
  const rows = Object.entries(report.by_component).flatMap(([component, reasons]) =>
    Object.entries(reasons).map(([why, lost]) => ({ component, why, lost })),
  );
  if (!rows.length) return empty("Nothing was lost in this run.");
  rows.sort((a, b) => b.lost - a.lost);
  const latest = report.windows[0];
  return [
    table(
      "Losses",
      [
        ["Component", (row) => text(row.component)],
        ["Why", (row) => text(row.why)],
        ["Records", (row) => count(row.lost), "num"],
      ],
      rows,
    ),
    latest && h("p", { class: "muted" }, "Last loss at ", time(latest.ts_ns / 1e9), "."),
  ];
}

function topsOf(status) {
  const process = (row) =>
    h("a", { href: `#/processes?pid=${row.pid}` }, text(row.comm, "mono"), h("span", { class: "muted" }, ` ${row.pid}`));
  return [
    section(
      "Most CPU",
      status.top_cpu.length
        ? table("Most CPU", [["Process", process], ["CPU % of a core", (row) => row.cpu_percent.toFixed(1), "num"]], status.top_cpu)
        : empty("Nothing has been measured yet."),
    ),
    section(
      "Most memory",
      status.top_rss.length
        ? table("Most memory", [["Process", process], ["RSS", (row) => bytes(row.rss_bytes), "num"], ["%", (row) => row.mem_percent.toFixed(1), "num"]], status.top_rss)
        : empty("Nothing has been measured yet."),
    ),
  ];
}
