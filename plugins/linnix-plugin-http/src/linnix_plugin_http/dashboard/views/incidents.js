// What people were told about.

import { get, url } from "../api.js";
import { empty, failure, h, replace, select, severity, table, text, time } from "../dom.js";
import { live } from "../live.js";
import { count, duration, plural } from "../text.js";

const LIMIT = 500;
const choices = { open: "", severity: "", analyzed: "" };

export function show(page) {
  page.title("Incidents");
  let found = null;
  const list = h("div", { class: "panel" });
  const total = h("span", { class: "muted count", role: "status" });
  const choose = (name, label, options) =>
    select(label, options, choices[name], (value) => {
      choices[name] = value;
      load();
    });

  replace(
    page.root,
    h("h1", { class: "away" }, "Incidents"),
    h(
      "div",
      { class: "bar" },
      choose("open", "State", [["", "All"], ["true", "Open"], ["false", "Closed"]]),
      choose("severity", "Severity", [["", "All"], ...["info", "low", "medium", "high", "critical"].map((name) => [name, name])]),
      choose("analyzed", "Insight", [["", "All"], ["true", "Explained"], ["false", "Not explained"]]),
      total,
    ),
    list,
  );

  async function load() {
    try {
      found = await get(url("/incidents", { limit: LIMIT, ...choices }), { signal: page.signal });
    } catch (error) {
      if (error.name !== "AbortError" && !found) replace(list, failure(error, load));
      return;
    }
    total.textContent = found.length === LIMIT ? `the latest ${count(LIMIT)}` : plural(found.length, "incident");
    if (!found.length) {
      const filtered = Object.values(choices).some(Boolean);
      replace(list, filtered ? empty("No incident is like that.") : empty("There has been no incident.", " One opens when a rule fires."));
      return;
    }
    replace(
      list,
      table(
        "Incidents",
        [
          ["Incident", (row) => h("a", { class: "block", href: `#/incidents/${encodeURIComponent(row.id)}` }, text(row.summary)), "wide"],
          ["Severity", (row) => severity(row.severity)],
          ["State", (row) => stateOf(row)],
          ["Opened", (row) => time(row.opened_ns / 1e9), "nowrap"],
          ["Lasted", lasted, "num nowrap"],
          ["Alerts", (row) => count(row.alerts), "num"],
          ["Why", (row) => (row.llm_analysis ? text(row.llm_analysis) : ""), "wide"],
          ["Feedback", (row) => row.feedback ?? ""],
        ],
        found,
      ),
    );
  }

  page.on(live, "fresh", load);
  page.on(live, "record", ({ detail }) => {
    if (["incident", "insight", "feedback"].includes(detail.type)) page.soon(load);
  });
  load();
}

/** Whether another run saw it: this one cannot explain it, and does not know how the machine was. */
export function isEarlier(incident) {
  return live.runId !== "" && incident.run_id !== live.runId;
}

/** Whether it goes on; one of an earlier run does not, whether that has said so or not. */
export function isOpen(incident) {
  return incident.closed_ns === null && !isEarlier(incident);
}

/** From its opening to its last alert, or to now; one alert alone is but a moment. */
export function lasted(incident) {
  const until = isOpen(incident) ? Date.now() / 1000 : incident.updated_ns / 1e9;
  const seconds = until - incident.opened_ns / 1e9;
  return seconds > 0 ? duration(seconds) : "";
}

export function stateOf(incident) {
  if (isOpen(incident)) return h("span", { class: "state open" }, "open");
  return h("span", { class: "state" }, incident.closed_ns === null ? "of an earlier run" : "closed");
}
