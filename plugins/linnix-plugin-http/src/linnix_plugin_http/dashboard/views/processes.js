// Every process of the host, live, or as it was at a moment.

import { get, url } from "../api.js";
import { button, empty, facts, failure, field, h, replace, select, text, time } from "../dom.js";
import { Grid, ageOf } from "../grid.js";
import { live } from "../live.js";
import { bytes, count, moment, percent, plural, printable } from "../text.js";
import { ProcessTree, matcher, rowsOf } from "../tree.js";

/** Choices of people, for as long as the page is open. */
const choices = { by: "cpu", flat: false, ended: true, folded: new Set(), words: "" };

/** What the stream brings within this time is shown at once. */
const REDRAW_MS = 400;

/** Nothing changes places below somebody who scrolls, for so long. */
const PATIENCE_MS = 1_500;

/** Where there are so many that showing them takes long, it is done so much more seldom. */
const REDRAW_SHARE = 0.04;

/** The agent may answer with a look at the table that is a quarter of a second old. */
const SETTLE_MS = 300;

export function show(page) {
  const { at, pid } = page.parameters;
  page.title("Processes");
  page.root.classList.add("full");
  const tree = new ProcessTree();
  let complete = null;
  let wanted = pid ? Number(pid) : null;
  let seen = -1;
  let dirty = true;
  let due = 0;

  const grid = new Grid({
    label: "Processes",
    onfold: (node, open) => {
      if (open) choices.folded.delete(node.key);
      else choices.folded.add(node.key);
      redraw();
    },
    onselect: (node, how) => {
      if (how === "open") openDetails();
      showDetails(node);
    },
  });
  grid.by = choices.by;
  page.atEnd(() => grid.end());

  const search = h("input", {
    type: "search",
    placeholder: "Name, argument, pid, cgroup",
    value: choices.words,
    "aria-label": "Search processes",
    spellcheck: "false",
    autocomplete: "off",
    oninput: () => {
      choices.words = search.value;
      redraw();
      grid.element.scrollTop = 0;
    },
    onkeydown: (event) => {
      if (event.key === "ArrowDown" && grid.rows.length) {
        event.preventDefault();
        grid.select(0);
        grid.element.focus();
      }
    },
  });
  const endedBox = h("input", {
    type: "checkbox",
    checked: choices.ended,
    onchange: () => {
      choices.ended = endedBox.checked;
      redraw();
    },
  });
  const total = h("span", { class: "muted count", role: "status" });
  const note = h("div", { class: "note", hidden: true });
  const message = h("div", { class: "message", hidden: true });
  const details = h("aside", { class: "details", "aria-label": "Process", hidden: true });
  const when = h("input", { type: "datetime-local", step: 1, value: at ? localTime(Number(at)) : "", "aria-label": "Moment" });

  replace(
    page.root,
    h("h1", { class: "away" }, "Processes"),
    h(
      "div",
      { class: "bar" },
      search,
      select("Colour", [["cpu", "CPU"], ["rss", "Memory"]], choices.by, (value) => {
        choices.by = grid.by = value;
        redraw();
      }),
      select("Show", [["tree", "Tree"], ["flat", "List"]], choices.flat ? "flat" : "tree", (value) => {
        choices.flat = value === "flat";
        redraw();
        grid.element.scrollTop = 0;
      }),
      h("label", { class: "check" }, endedBox, "Ended"),
      h(
        "span",
        { class: "buttons" },
        button("Fold all", () => {
          for (const node of tree.nodes.values()) if (node.parent && node.children.length) choices.folded.add(node.key);
          redraw();
        }),
        button("Unfold all", () => {
          choices.folded.clear();
          redraw();
        }),
      ),
      h(
        "form",
        {
          class: "moment",
          onsubmit: (event) => {
            event.preventDefault();
            if (when.value) location.hash = `#/processes?at=${new Date(when.value).getTime() / 1000}`;
          },
        },
        field("At", when),
        h("button", null, "Go"),
      ),
      total,
    ),
    note,
    h("div", { class: "split" }, h("div", { class: "pane" }, grid.element, message), details),
  );

  function redraw() {
    const began = performance.now();
    const matches = matcher(choices.words);
    const rows = rowsOf(tree, { ...choices, matches });
    grid.steady = !choices.flat;
    grid.set(rows);
    seen = tree.version;
    dirty = false;
    const living = count(tree.living);
    const found = matches ? rows.filter((node) => node.matched).length : 0;
    due = performance.now() + (performance.now() - began) / REDRAW_SHARE;
    const said = matches ? `${count(found)} of ${count(tree.size)} match` : `${living} running`;
    if (total.textContent !== said) total.textContent = said;
    if (!complete) return;
    message.hidden = rows.length > 0;
    if (rows.length === 0) {
      replace(message, matches ? empty("No process matches.", " Every word has to be somewhere in its name, arguments, pid or cgroup.") : empty("No process is known."));
    }
  }

  async function load() {
    try {
      complete = await get(url("/tree", { at }), { signal: page.signal });
    } catch (error) {
      waiting = null;
      if (error.name === "AbortError") return;
      if (!complete) {
        message.hidden = false;
        replace(message, failure(error, load));
      }
      return;
    }
    tree.reset(complete.processes);
    for (const each of waiting ?? []) take(each);
    waiting = null;
    message.hidden = true;
    // The same process is another object now.
    grid.selected = tree.nodes.get(grid.selected?.key) ?? null;
    showNote();
    redraw();
    if (wanted !== null) reveal(wanted);
    else if (grid.selected) showDetails(grid.selected);
  }

  function take({ events, samples }) {
    for (const record of events) tree.apply(record);
    tree.measure(samples);
  }

  function showNote() {
    const said = [];
    if (at) {
      said.push(h("strong", null, "As it was at ", time(Number(at))));
      said.push(h("a", { href: "#/processes" }, "Back to now"));
    }
    if (!complete.complete) said.push(h("span", null, "Not everybody may be here: ", text(complete.why_incomplete)));
    if (at && complete.changed.length) {
      said.push(h("span", null, `${plural(complete.changed.length, "process has", "processes have")} executed something else since and ${complete.changed.length === 1 ? "is" : "are"} shown with the later name.`));
    }
    replace(note, said);
    note.hidden = said.length === 0;
  }

  function reveal(of) {
    const node = tree.find(of);
    wanted = null;
    if (!node) {
      note.hidden = false;
      note.append(h("span", null, `There is no process ${of} any more.`));
      return;
    }
    for (let above = node.parent; above; above = above.parent) choices.folded.delete(above.key);
    if (!grid.rows.includes(node)) {
      choices.words = search.value = "";
      redraw();
    }
    openDetails();
    grid.select(grid.rows.indexOf(node), "open", "middle");
    grid.element.focus({ preventScroll: true });
  }

  function openDetails() {
    details.hidden = false;
  }

  function showDetails(node) {
    if (details.hidden) return;
    replace(details, detailsOf(node, () => {
      details.hidden = true;
      grid.element.focus();
    }));
  }

  // Whoever is born while the answer is on its way is applied to it afterwards.
  let waiting = null;
  if (!at) {
    page.on(live, "processes", ({ detail }) => {
      if (waiting) waiting.push(detail);
      else if (complete) {
        take(detail);
        dirty = true;
      }
    });
    page.on(live, "fresh", () => {
      waiting = [];
      setTimeout(() => !page.signal.aborted && load(), SETTLE_MS);
    });
    page.atEnd(live.want("event", "sample"));
    page.every(REDRAW_MS, () => {
      const late = performance.now() - due;
      if ((dirty || seen !== tree.version) && late >= (grid.moving ? PATIENCE_MS : 0)) redraw();
    });
    page.every(2_000, () => {
      tree.sweep();
      dirty = true;
      if (grid.selected) showDetails(grid.selected);
    });
  }
  page.on(document, "keydown", (event) => {
    if (event.key === "Escape" && !details.hidden) {
      details.hidden = true;
      grid.element.focus();
    } else if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      search.focus();
    }
  });
  if (at || live.state !== "live") load();
}

function localTime(seconds) {
  const at = new Date(seconds * 1000);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

function detailsOf(node, close) {
  const labels = Object.entries(node.labels ?? {});
  const state = node.endedAt ? `ended ${moment(node.endedAt / 1000)}` : "running";
  return [
    h("header", null, h("h2", null, text(node.comm || "?", "mono")), button("Close", close, { "aria-label": "Close details" })),
    facts([
      ["PID", String(node.pid)],
      ["State", `${state}${node.activity && !node.endedAt ? ` (${printable(node.activity)})` : ""}`],
      ["Exit", node.signal ? `signal ${node.signal}` : node.exit_code === null || node.exit_code === undefined ? null : `code ${node.exit_code}`],
      ["Parent", node.parent ? h("a", { href: `#/processes?pid=${node.parent.pid}` }, text(node.parent.comm, "mono"), ` ${node.parent.pid}`) : node.ppid ? `${node.ppid}, not known here` : null],
      ["Children", node.children.length ? count(node.children.length) : null],
      ["CPU", node.cpu_pct === null || node.cpu_pct === undefined ? null : `${percent(node.cpu_pct)} of a core`],
      ["RSS", node.rss_bytes === null || node.rss_bytes === undefined ? null : bytes(node.rss_bytes)],
      ["Threads", node.threads === null || node.threads === undefined ? null : count(node.threads)],
      ["Descriptors", node.fds === null || node.fds === undefined ? null : count(node.fds)],
      ["Read, written", node.read_bytes || node.write_bytes ? `${bytes(node.read_bytes ?? 0)}, ${bytes(node.write_bytes ?? 0)} since the sample before` : null],
      ["Age", ageOf(node)],
      ["User, group", node.uid === null || node.uid === undefined ? null : `${node.uid}, ${node.gid ?? "–"}`],
      ["Executable", node.exe && text(node.exe, "mono wrap")],
      ["Folder", node.cwd && text(node.cwd, "mono wrap")],
      ["Cgroup", node.cgroup && text(node.cgroup, "mono wrap")],
      ...labels.map(([name, value]) => [text(name), text(value, "mono wrap")]),
    ]),
    node.args?.length > 0 && [
      h("h3", null, "Arguments"),
      h("ol", { class: "args", start: 0 }, node.args.slice(0, 200).map((each) => h("li", null, text(each, "mono wrap")))),
    ],
  ];
}
