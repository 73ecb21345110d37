// One incident: what happened, why, who, and what people say of it.

import { get, post } from "../api.js";
import { button, empty, facts, failure, h, replace, section, severity, table, text, time } from "../dom.js";
import { command, heatOf } from "../grid.js";
import { live } from "../live.js";
import { bare, bytes, count, percent, plural, printable, quantity } from "../text.js";
import { isEarlier, isOpen, lasted, stateOf } from "./incidents.js";

const VERDICTS = [
  ["useful", "Useful", "It was worth telling."],
  ["noise", "Noise", "Nobody needs to know."],
  ["wrong", "Wrong", "It happened, but the cause is another one."],
];

export function show(page) {
  const { id } = page.parameters;
  const path = `/incidents/${encodeURIComponent(id)}`;
  page.title("Incident");
  let incident = null;
  let note = "";
  let said = "";

  const main = h("div", { class: "stack" });
  replace(page.root, h("p", { class: "crumb" }, h("a", { href: "#/incidents" }, "Incidents")), main);

  async function load() {
    try {
      incident = await get(path, { signal: page.signal });
    } catch (error) {
      if (error.name !== "AbortError" && (!incident || error.status === 404)) replace(main, failure(error, load));
      return;
    }
    page.title(incident.summary);
    draw();
  }

  function draw() {
    const typing = document.activeElement?.name === "note";
    replace(
      main,
      head(incident),
      h(
        "div",
        { class: "columns lead" },
        h("div", { class: "stack" }, insightSection(), evidenceSection(incident)),
        h("div", { class: "stack" }, feedbackSection(), originSection(incident), machineSection(incident)),
      ),
      treeSection(incident),
    );
    if (typing) main.querySelector("[name=note]")?.focus();
  }

  function insightSection() {
    const again = button("Explain again", async () => {
      again.disabled = true;
      try {
        await post(`${path}/explain`);
        said = "Queued: the insight appears here when it is there.";
      } catch (error) {
        said = [error.message, error.hint].filter(Boolean).join(" ");
      }
      draw();
    });
    const known = incident.investigation;
    return section(
      "Insight",
      known
        ? insight(known)
        : empty(incident.class_ ?? incident.class ? "It has not been explained yet." : "Its rule has no class, so nothing explains it: the evidence is all there is."),
      incident.insights.length > 1 &&
        h("details", null, h("summary", null, `${plural(incident.insights.length - 1, "earlier insight")}`), incident.insights.slice(1).map(insight)),
      h("div", { class: "buttons" }, !isEarlier(incident) && again, said && h("span", { class: "muted", role: "status" }, text(said))),
    );
  }

  function feedbackSection() {
    const result = h("p", { class: "muted", role: "status" }, incident.feedback ? `Said last: ${incident.feedback}.` : "Nobody has said anything yet.");
    const input = h("input", { name: "note", maxlength: 1000, value: note, oninput: () => (note = input.value) });
    const buttons = VERDICTS.map(([verdict, label, meaning]) =>
      button(
        label,
        async () => {
          for (const each of buttons) each.disabled = true;
          try {
            await post(`${path}/feedback`, { feedback: verdict, note, by: "dashboard" });
            note = "";
            await load();
          } catch (error) {
            replace(result, h("span", { class: "wrong" }, text([error.message, error.hint].filter(Boolean).join(" "))));
            for (const each of buttons) each.disabled = false;
          }
        },
        { title: meaning, "aria-pressed": String(incident.feedback === verdict) },
      ),
    );
    return section(
      "Feedback",
      h("div", { class: "buttons", role: "group", "aria-label": "What was this incident?" }, buttons),
      h("label", { class: "field tall" }, h("span", null, "Note, if you like (before you choose)"), input),
      result,
    );
  }

  page.on(live, "fresh", load);
  page.on(live, "record", ({ detail }) => {
    if ((detail.type === "incident" ? detail.id : detail.incident) === id) load();
  });
  load();
}

function head(incident) {
  return h(
    "header",
    { class: "incident" },
    h("p", { class: "row" }, severity(incident.severity), stateOf(incident), h("span", { class: "muted" }, text(incident.event_type))),
    h("h1", null, text(incident.summary)),
    facts(
      [
        ["Opened", time(incident.opened_ns / 1e9)],
        ["Last alert", time(incident.updated_ns / 1e9)],
        ["Closed", incident.closed_ns === null ? null : time(incident.closed_ns / 1e9)],
        [isOpen(incident) ? "Open for" : "Lasted", lasted(incident)],
        ["Alerts", count(incident.alerts)],
        ["Came back", incident.reopened ? `${incident.reopened} times` : null],
        ["Rules", incident.rules.length ? text(incident.rules.join(", ")) : null],
        ["Host", text(incident.host)],
        ["Id", text(incident.id, "mono")],
      ],
      "facts across",
    ),
  );
}

function insight(known) {
  return h(
    "article",
    { class: "insight" },
    h("p", { class: "why" }, text(known.why)),
    h(
      "p",
      { class: "muted row" },
      h("span", null, text(known.class)),
      h("span", null, `confidence ${percent(known.confidence * 100, 0)}`),
      h("meter", { min: 0, max: 1, value: known.confidence, "aria-label": "confidence" }),
      h("span", null, "by ", text(known.reasoner)),
      time(known.ts_ns / 1e9),
    ),
    known.primary_process && facts([["Process", text(known.primary_process, "mono")]]),
    known.facts.length > 0 &&
      table(
        "Facts that support it",
        [
          ["Fact", (row) => text(row.name)],
          ["Value", (row) => text(quantity(row.value, row.unit, row.name)), "num"],
        ],
        known.facts,
        "fit",
      ),
    known.actions.length > 0 && [h("h3", null, "Proposed"), h("ul", { class: "actions" }, known.actions.map((action) => h("li", null, text(action))))],
  );
}

function evidenceSection(incident) {
  const peaks = new Map(incident.peak.map((each) => [each.name, each]));
  return section(
    "Evidence",
    incident.evidence.length
      ? table(
          "Evidence",
          [
            ["What", (row) => text(row.name)],
            ["Last", (row) => text(quantity(row.value, row.unit, row.name)), "num"],
            ["Peak", (row) => (peaks.has(row.name) ? text(quantity(peaks.get(row.name).value, row.unit, row.name)) : ""), "num"],
          ],
          incident.evidence,
          "fit",
        )
      : empty("There is none."),
    incident.actions.length > 0 && [h("h3", null, "What to do"), h("ul", { class: "actions" }, incident.actions.map((action) => h("li", null, text(action))))],
  );
}

const ORIGINS = { cron: "started by cron", ssh: "over SSH", container: "in a container", service: "a service", session: "a session" };

function originSection(incident) {
  const { origin, subject } = incident;
  return section(
    "Origin",
    facts([
      ["Came from", origin ? [`${ORIGINS[origin.kind] ?? printable(origin.kind)}: `, text(origin.name, "mono wrap")] : "not known"],
      ["Process", subject.comm && text(subject.comm, "mono")],
      ["PID", subject.key ? h("a", { href: `#/processes?pid=${subject.key.pid}` }, String(subject.key.pid)) : null],
      ["Executable", subject.exe && text(subject.exe, "mono wrap")],
      ["Cgroup", subject.cgroup && text(subject.cgroup, "mono wrap")],
      ["Then", h("a", { href: `#/processes?at=${Math.floor(incident.opened_ns / 1e9)}` }, "All processes when it opened")],
    ]),
  );
}

function machineSection(incident) {
  const measured = [
    ["CPU", incident.cpu_percent === null ? null : percent(incident.cpu_percent)],
    ["Load", incident.load_avg?.replaceAll(",", " ")],
    ["CPU pressure", incident.psi_cpu === null ? null : percent(incident.psi_cpu)],
    ["Memory pressure", incident.psi_memory === null ? null : percent(incident.psi_memory)],
  ].filter(([, value]) => value !== null && value !== undefined);
  const unknown = isEarlier(incident) ? "Only the run that saw it knew." : "It was not measured.";
  return section("The machine then", measured.length ? facts(measured) : empty(unknown));
}

function treeSection(incident) {
  const depths = new Map();
  const keyOf = (key) => key && `${key.pid}:${key.start_ns}`;
  const children = Map.groupBy?.(incident.tree, (each) => keyOf(each.parent)) ?? new Map();
  const known = new Set(incident.tree.map((each) => keyOf(each.key)));
  const order = [];
  const visit = (each, depth) => {
    if (depths.has(each)) return;
    depths.set(each, depth);
    order.push(each);
    for (const child of children.get(keyOf(each.key)) ?? []) visit(child, depth + 1);
  };
  for (const each of incident.tree) if (!known.has(keyOf(each.parent))) visit(each, 0);
  for (const each of incident.tree) visit(each, 0);
  const name = (each) => {
    const indent = h("span", { class: "indent" });
    indent.style.width = `calc(${Math.min(depths.get(each), 24)} * var(--step))`;
    const args = command(each);
    return h("span", { class: "slice" }, indent, h("span", null, text(each.comm || "?", "comm"), " ", args && text(args, "args")));
  };
  return section(
    "Processes around it",
    order.length
      ? table(
          "Processes around it",
          [
            ["Process", name, "wide"],
            ["PID", (each) => h("a", { href: `#/processes?pid=${each.key.pid}` }, String(each.key.pid)), "num"],
            ["CPU %", (each) => (each.cpu_percent === null ? "" : h("span", { class: `hot heat-${heatOf("cpu", each.cpu_percent)}` }, bare(each.cpu_percent))), "num"],
            ["RSS", (each) => (each.rss_bytes === null ? "" : bytes(each.rss_bytes)), "num"],
            ["UID", (each) => each.uid ?? "", "num"],
            ["", (each) => (each.relation === "subject" ? "subject" : each.ended_ns ? "ended" : ""), "muted"],
          ],
          order.map((each) => Object.assign(each, { rowClass: [each.relation === "subject" && "subject", each.ended_ns && "ended"].filter(Boolean).join(" ") || undefined })),
        )
      : empty("No processes were recorded with it."),
  );
}
