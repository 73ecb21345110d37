// The process tree on the page: a tree grid (ARIA) of which only the rows in view exist.

import { h, setText } from "./dom.js";
import { ago, bare, bytes, duration, printable } from "./text.js";

const SPARE = 8;

/** What a value of the measure is in steps of heat; the last one is open. */
const HEAT = {
  cpu: [1, 10, 40, 80, 150],
  rss: [64 * 2 ** 20, 256 * 2 ** 20, 2 ** 30, 4 * 2 ** 30, 16 * 2 ** 30],
};

const COLUMNS = [
  ["name", "Process"],
  ["pid", "PID"],
  ["cpu", "CPU %"],
  ["rss", "RSS"],
  ["threads", "Threads"],
  ["io", "I/O"],
  ["uid", "UID"],
  ["age", "Age"],
];

export function heatOf(by, value) {
  return HEAT[by].filter((limit) => value >= limit).length;
}

/**
 * Shows rows of `rowsOf`. Calls `onfold(node, open)` when a row is to be folded or unfolded, and
 * `onselect(node, how)` when one is chosen; `how` is "open" where its details are wanted.
 */
export class Grid {
  rows = [];
  by = "cpu";
  selected = null;
  /** Whether rows stay where they are when others come and go; not so where the order is the point. */
  steady = true;
  #slots = [];
  #first = 0;
  #height = 0;

  constructor({ label, onfold, onselect }) {
    this.onfold = onfold;
    this.onselect = onselect;
    this.head = h(
      "div",
      { class: "tr head", role: "row", "aria-rowindex": 1 },
      COLUMNS.map(([name, title]) => h("div", { class: `td ${name}`, role: "columnheader" }, title)),
    );
    this.body = h("div", { class: "rows", role: "rowgroup" });
    this.element = h(
      "div",
      { class: "tree", role: "treegrid", "aria-label": label, "aria-readonly": "true", tabindex: 0 },
      h("div", { role: "rowgroup", class: "heads" }, this.head),
      this.body,
    );
    this.element.addEventListener("scroll", () => this.#schedule(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focus", () => {
      if (!this.selected && this.rows.length) this.select(0);
    });
    this.body.addEventListener("click", (event) => this.#click(event));
    this.observer = new ResizeObserver(() => this.#measure());
    this.observer.observe(this.element);
  }

  end() {
    this.observer.disconnect();
  }

  /** Other rows; what was selected stays so, where it still is. */
  set(rows) {
    const top = this.element.scrollTop;
    const anchor = top > 0 ? this.rows[Math.floor(top / this.#height)]?.node : null;
    const before = Math.floor(top / this.#height);
    this.rows = rows;
    this.element.setAttribute("aria-rowcount", rows.length + 1);
    this.body.style.height = `${rows.length * this.#height}px`;
    // Who is born above what people read does not push it away.
    const after = anchor && this.steady ? rows.findIndex(({ node }) => node === anchor) : -1;
    if (after >= 0 && after !== before) this.element.scrollTop = top + (after - before) * this.#height;
    this.draw();
  }

  index() {
    return this.selected ? this.rows.findIndex((row) => row.node === this.selected) : -1;
  }

  /** Choose a row and bring it into view. */
  select(index, how = "move", where = "nearest") {
    const row = this.rows[Math.max(0, Math.min(index, this.rows.length - 1))];
    if (!row) return;
    this.selected = row.node;
    this.reveal(where);
    this.onselect(row.node, how);
  }

  reveal(where) {
    const index = this.index();
    if (index < 0) return;
    const head = this.head.offsetHeight;
    const top = index * this.#height;
    const room = this.element.clientHeight - head;
    if (where === "middle") this.element.scrollTop = top - room / 2;
    else if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + this.#height > this.element.scrollTop + room) this.element.scrollTop = top + this.#height - room;
    this.draw();
  }

  #measure() {
    const before = this.#height;
    const probe = this.#slot();
    this.body.append(probe.element);
    this.#height = probe.element.offsetHeight || 24;
    probe.element.remove();
    if (before !== this.#height) this.body.style.height = `${this.rows.length * this.#height}px`;
    this.draw();
  }

  #schedule() {
    this.#frame ||= requestAnimationFrame(() => this.draw());
  }
  #frame = 0;

  #slot() {
    const cells = COLUMNS.map(([name]) => h("div", { class: `td ${name}`, role: "gridcell" }));
    const twisty = h("span", { class: "twisty", "aria-hidden": "true" });
    const indent = h("span", { class: "indent", "aria-hidden": "true" });
    const name = h("bdi", { class: "comm" });
    const hidden = h("span", { class: "more" });
    const args = h("bdi", { class: "args" });
    cells[0].append(indent, twisty, name, hidden, args);
    return { element: h("div", { class: "tr", role: "row" }, cells), cells, twisty, indent, name, hidden, args };
  }

  draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (!this.#height) return;
    const room = Math.ceil(this.element.clientHeight / this.#height);
    const first = Math.max(0, Math.floor(this.element.scrollTop / this.#height) - SPARE);
    const last = Math.min(this.rows.length, first + room + 2 * SPARE);
    const needed = Math.max(0, last - first);
    while (this.#slots.length < needed) {
      const slot = this.#slot();
      slot.element.id = `row-${this.#slots.length}`;
      this.#slots.push(slot);
      this.body.append(slot.element);
    }
    while (this.#slots.length > needed) this.#slots.pop().element.remove();
    this.#first = first;
    let active = "";
    for (let offset = 0; offset < needed; offset += 1) {
      const row = this.rows[first + offset];
      const slot = this.#slots[offset];
      this.#fill(slot, row, first + offset);
      if (row.node === this.selected) active = slot.element.id;
    }
    if (active) this.element.setAttribute("aria-activedescendant", active);
    else this.element.removeAttribute("aria-activedescendant");
  }

  #fill(slot, row, index) {
    const { node } = row;
    const { element, cells } = slot;
    const value = this.by === "cpu" ? row.cpu : row.rss;
    const selected = node === this.selected;
    let name = `tr heat-${node.endedAt ? 0 : heatOf(this.by, value ?? 0)}`;
    if (selected) name += " selected";
    if (node.endedAt) name += " ended";
    if (!row.matched) name += " context";
    element.className = name;
    element.style.transform = `translateY(${index * this.#height}px)`;
    element.setAttribute("aria-rowindex", index + 2);
    element.setAttribute("aria-level", row.depth + 1);
    element.setAttribute("aria-posinset", row.position);
    element.setAttribute("aria-setsize", row.size);
    element.setAttribute("aria-selected", selected);
    if (row.parental) element.setAttribute("aria-expanded", row.open);
    else element.removeAttribute("aria-expanded");
    // Only so deep that the name still has room.
    slot.indent.style.width = `calc(${Math.min(row.depth, 24)} * var(--step))`;
    slot.twisty.textContent = row.parental ? (row.open ? "▾" : "▸") : "";
    put(slot, "name", node.comm || "?");
    put(slot, "args", command(node));
    put(slot, "hidden", row.hidden ? `+${row.hidden}` : "");
    write(cells[1], node.pid);
    write(cells[2], node.endedAt ? "" : bare(row.cpu));
    cells[2].classList.toggle("zero", !(row.cpu >= 0.05));
    write(cells[3], node.endedAt || row.rss === null || row.rss === undefined ? "" : bytes(row.rss));
    write(cells[4], node.endedAt ? "" : (node.threads ?? ""));
    const moved = (node.read_bytes ?? 0) + (node.write_bytes ?? 0);
    write(cells[5], moved && !node.endedAt ? bytes(moved) : "");
    write(cells[6], node.uid ?? "");
    write(cells[7], node.endedAt ? outcome(node) : ageOf(node));
  }

  #click(event) {
    const element = event.target.closest(".tr");
    const offset = this.#slots.findIndex((slot) => slot.element === element);
    const row = this.rows[this.#first + offset];
    if (offset < 0 || !row) return;
    if (event.target.classList.contains("twisty") && row.parental) this.onfold(row.node, !row.open);
    else this.select(this.#first + offset, "open");
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.rows.length) return;
    const index = this.index();
    const row = this.rows[index];
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.#height) - 2);
    const steps = { ArrowDown: index + 1, ArrowUp: index - 1, PageDown: index + page, PageUp: index - page, Home: 0, End: this.rows.length - 1 };
    if (event.key in steps) this.select(steps[event.key]);
    else if (event.key === "ArrowRight" && row) {
      if (row.parental && !row.open) this.onfold(row.node, true);
      else if (row.open) this.select(index + 1);
    } else if (event.key === "ArrowLeft" && row) {
      if (row.open && !event.shiftKey) this.onfold(row.node, false);
      else if (row.node.parent) {
        const above = this.rows.findIndex((each) => each.node === row.node.parent);
        if (above >= 0) this.select(above);
      }
    } else if ((event.key === "Enter" || event.key === " ") && row) this.select(index, "open");
    else return;
    event.preventDefault();
  }
}

/** The command line without the name that stands before it already. */
function command(node) {
  const [first, ...rest] = node.args ?? [];
  if (first === undefined) return "";
  const short = first.split("/").at(-1);
  return (short === node.comm ? rest : [first, ...rest]).join(" ").slice(0, 400);
}

function outcome(node) {
  if (node.oom) return "out of memory";
  if (node.signal) return `signal ${node.signal}`;
  if (node.exit_code) return `exit ${node.exit_code}`;
  return `ended ${ago(node.endedAt / 1000)}`;
}

export function ageOf(node) {
  if (node.bornAt) return duration((Date.now() - node.bornAt) / 1000);
  return duration(node.age_sec);
}

/** Writes only what has changed: most of what is in view is what was there before. */
function put(slot, part, value) {
  if (slot[`${part}Text`] === value) return;
  slot[`${part}Text`] = value;
  setText(slot[part], value);
  if (part === "name") slot.name.title = printable(value);
}

function write(cell, value) {
  const text = String(value);
  if (cell.textContent !== text) cell.textContent = text;
}
