// Alerts over time: a lane for each rule, and the list.

import { get, url } from "../api.js";
import { button, empty, failure, h, replace, section, select, severity, svg, table, text, time } from "../dom.js";
import { live } from "../live.js";
import { count, moment, plural, printable } from "../text.js";

const RANGES = [
  ["900", "15 minutes"],
  ["3600", "1 hour"],
  ["21600", "6 hours"],
  ["86400", "24 hours"],
  ["604800", "7 days"],
];
const SEVERITIES = ["info", "low", "medium", "high", "critical"];
const LIMIT = 1000;
const MAX_LANES = 16;
const MAX_LISTED = 200;
const LANE = 26;
const MARK = 6;

const choices = { range: "3600", severity: "", rule: "" };

export function show(page) {
  page.title("Alerts");
  let found = null;
  let incidents = [];
  let listed = MAX_LISTED;
  const lanes = h("div", { class: "lanes" });
  const list = h("div");
  const total = h("span", { class: "muted count", role: "status" });
  const rules = h("span");

  replace(
    page.root,
    h("h1", { class: "away" }, "Alerts"),
    h(
      "div",
      { class: "bar" },
      select("Last", RANGES, choices.range, (value) => {
        choices.range = value;
        load();
      }),
      select("Severity", [["", "All"], ...SEVERITIES.map((name) => [name, name])], choices.severity, (value) => {
        choices.severity = value;
        load();
      }),
      rules,
      total,
    ),
    section("Timeline", lanes),
    section("Alerts", list),
  );

  async function load() {
    const since = Date.now() / 1000 - Number(choices.range);
    try {
      [found, incidents] = await Promise.all([
        get(url("/timeline", { start: Math.floor(since), severity: choices.severity, limit: LIMIT }), { signal: page.signal }),
        get(url("/incidents", { since: Math.floor(since), limit: 500 }), { signal: page.signal }),
      ]);
    } catch (error) {
      if (error.name !== "AbortError" && !found) {
        replace(lanes);
        replace(list, failure(error, load));
      }
      return;
    }
    draw();
  }

  function draw() {
    const names = [...new Set(found.map(({ rule }) => rule))].sort();
    if (choices.rule && !names.includes(choices.rule)) names.push(choices.rule);
    // An open list of choices is not taken away under somebody's hands.
    if (!rules.contains(document.activeElement)) {
      const options = [["", "All"], ...names.map((name) => [name, printable(name)])];
      replace(
        rules,
        select("Rule", options, choices.rule, (value) => {
          choices.rule = value;
          draw();
        }),
      );
    }
    const shown = found.filter(({ rule }) => !choices.rule || rule === choices.rule);
    total.textContent = found.length === LIMIT ? `the latest ${count(LIMIT)}` : plural(shown.length, "alert");
    if (!shown.length) {
      const range = RANGES.find(([key]) => key === choices.range)[1];
      replace(lanes, empty(`No alert in the last ${range}.`));
      replace(list, empty("Nothing to list."));
      return;
    }
    drawLanes(lanes, shown, Number(choices.range));
    replace(
      list,
      table(
        "Alerts",
        [
          ["Time", (row) => time(row.timestamp), "nowrap"],
          ["Severity", (row) => severity(row.severity)],
          ["Rule", (row) => text(row.rule)],
          ["What", (row) => text(row.message), "wide"],
          ["Process", (row) => processOf(row)],
          ["Incident", (row) => incidentOf(row, incidents)],
        ],
        shown.slice(0, listed),
      ),
      shown.length > listed && button(`Show ${count(Math.min(shown.length - listed, MAX_LISTED))} more`, () => {
        listed += MAX_LISTED;
        draw();
      }),
    );
  }

  const observer = new ResizeObserver(() => found?.length && draw());
  observer.observe(lanes);
  page.atEnd(() => observer.disconnect());
  page.on(live, "fresh", load);
  page.on(live, "record", ({ detail }) => {
    if (detail.type === "alert" || detail.type === "incident") page.soon(load);
  });
  page.every(15_000, load);
  load();
}

function processOf({ comm, pid }) {
  if (pid === null) return comm ? text(comm, "mono") : "";
  return h("a", { href: `#/processes?pid=${pid}` }, text(comm || "?", "mono"), h("span", { class: "muted" }, ` ${pid}`));
}

/** An alert does not name its incident: it is shown where only one can be meant. */
function incidentOf(alert, incidents) {
  const within = incidents.filter(
    (each) =>
      each.rules.includes(alert.rule) &&
      alert.timestamp >= each.opened_ns / 1e9 - 1 &&
      alert.timestamp <= each.updated_ns / 1e9 + 1,
  );
  const same = within.filter((each) => each.target_pid === alert.pid);
  const found = same.length === 1 ? same : within;
  return found.length === 1 ? h("a", { href: `#/incidents/${encodeURIComponent(found[0].id)}` }, "Open") : "";
}

function drawLanes(element, alerts, seconds) {
  const width = element.clientWidth;
  if (!width) return;
  const until = Date.now() / 1000;
  const byRule = Map.groupBy ? Map.groupBy(alerts, ({ rule }) => rule) : grouped(alerts);
  const rules = [...byRule].sort((a, b) => b[1].length - a[1].length).slice(0, MAX_LANES);
  const left = Math.min(180, Math.floor(width * 0.34));
  const room = width - left - MARK;
  const x = (at) => left + Math.max(0, 1 - (until - at) / seconds) * room;
  const height = rules.length * LANE + 20;
  const marks = rules.map(([rule, those], index) => {
    const y = index * LANE;
    const bins = new Map();
    for (const alert of those) {
      const place = Math.round(x(alert.timestamp) / MARK) * MARK;
      const bin = bins.get(place) ?? { amount: 0, worst: 0, at: alert.timestamp };
      bin.amount += 1;
      bin.worst = Math.max(bin.worst, SEVERITIES.indexOf(alert.severity));
      bins.set(place, bin);
    }
    const name = printable(rule);
    const fits = Math.floor(left / 7.4) - 1;
    return svg(
      "g",
      null,
      svg("line", { class: "grid", x1: left, x2: width, y1: y + LANE / 2, y2: y + LANE / 2 }),
      svg("text", { class: "lane", x: 0, y: y + LANE / 2 + 4 }, svg("title", null, name), name.length > fits ? `${name.slice(0, fits - 1)}…` : name),
      [...bins].map(([place, bin]) =>
        svg(
          "rect",
          { class: `mark-${SEVERITIES[bin.worst]}`, x: place - MARK / 2, y: y + 4, width: MARK - 1, height: LANE - 8, rx: 1 },
          svg("title", null, `${moment(bin.at)}: ${plural(bin.amount, "alert")}, ${SEVERITIES[bin.worst]}`),
        ),
      ),
    );
  });
  const steps = width < 500 ? [0, 1] : [0, 0.25, 0.5, 0.75, 1];
  const axis = steps.map((share) =>
    svg(
      "text",
      { class: `mark ${share === 0 ? "" : share === 1 ? "end" : "middle"}`, x: left + share * room + (share === 1 ? MARK : 0), y: height - 4 },
      share === 1 ? "now" : moment(until - (1 - share) * seconds),
    ),
  );
  const label = `${plural(alerts.length, "alert")} of ${plural(byRule.size, "rule")}; the list below has each`;
  element.replaceChildren(svg("svg", { width, height, role: "img", "aria-label": label }, marks, axis));
  if (byRule.size > MAX_LANES) element.append(h("p", { class: "muted" }, `${byRule.size - MAX_LANES} more rules are only in the list.`));
}

function grouped(alerts) {
  const found = new Map();
  for (const alert of alerts) found.set(alert.rule, [...(found.get(alert.rule) ?? []), alert]);
  return found;
}
