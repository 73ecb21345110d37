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
 * Shows what `rowsOf` finds. Calls `onfold(node, open)` when a row is to be folded or unfolded, and
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
  #made = 0;

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
    const anchor = top > 0 ? this.rows[Math.floor(top / this.#height)] : null;
    const before = Math.floor(top / this.#height);
    this.rows = rows;
    this.element.setAttribute("aria-rowcount", rows.length + 1);
    this.body.style.height = `${rows.length * this.#height}px`;
    // Who is born above what people read does not push it away.
    const after = anchor && this.steady ? rows.indexOf(anchor) : -1;
    if (after >= 0 && after !== before) this.element.scrollTop = top + (after - before) * this.#height;
    this.draw();
  }

  index() {
    return this.selected ? this.rows.indexOf(this.selected) : -1;
  }

  /** Choose a row and bring it into view. */
  select(index, how = "move", where = "nearest") {
    const node = this.rows[Math.max(0, Math.min(index, this.rows.length - 1))];
    if (!node) return;
    this.selected = node;
    this.reveal(where);
    this.onselect(node, how);
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
    // What was chosen before anything could be measured could not be brought into view.
    if (!before && this.selected) this.reveal("middle");
    else this.draw();
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
    const element = h("div", { class: "tr", role: "row", id: `row-${(this.#made += 1)}` }, cells);
    return { element, cells, twisty, indent, name, hidden, args, written: {} };
  }

  draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (!this.#height) return;
    const room = Math.ceil(this.element.clientHeight / this.#height);
    const first = Math.max(0, Math.floor(this.element.scrollTop / this.#height) - SPARE);
    const last = Math.min(this.rows.length, first + room + 2 * SPARE);
    const needed = Math.max(0, last - first);
    this.#turn(first - this.#first);
    while (this.#slots.length < needed) {
      const slot = this.#slot();
      this.#slots.push(slot);
      this.body.append(slot.element);
    }
    while (this.#slots.length > needed) this.#slots.pop().element.remove();
    this.#first = first;
    let active = "";
    for (let offset = 0; offset < needed; offset += 1) {
      const node = this.rows[first + offset];
      const slot = this.#slots[offset];
      this.#fill(slot, node, first + offset);
      if (node === this.selected) active = slot.element.id;
    }
    if (active) this.element.setAttribute("aria-activedescendant", active);
    else this.element.removeAttribute("aria-activedescendant");
  }

  /** Rows that stay in view keep their element, so that scrolling writes only what comes into it. */
  #turn(rows) {
    if (rows === 0 || Math.abs(rows) >= this.#slots.length) return;
    const gone = rows > 0 ? this.#slots.splice(0, rows) : this.#slots.splice(rows);
    const elements = gone.map(({ element }) => element);
    if (rows > 0) {
      this.#slots.push(...gone);
      this.body.append(...elements);
    } else {
      this.#slots.unshift(...gone);
      this.body.prepend(...elements);
    }
  }

  #fill(slot, node, index) {
    const { cells } = slot;
    const value = this.by === "cpu" ? node.cpu : node.rss;
    const selected = node === this.selected;
    let name = `tr heat-${node.endedAt ? 0 : heatOf(this.by, value ?? 0)}`;
    if (selected) name += " selected";
    if (node.endedAt) name += " ended";
    if (!node.matched) name += " context";
    mark(slot, "class", name);
    if (changed(slot, "top", index * this.#height)) slot.element.style.transform = `translateY(${index * this.#height}px)`;
    mark(slot, "aria-rowindex", index + 2);
    mark(slot, "aria-level", node.depth + 1);
    mark(slot, "aria-posinset", node.position);
    mark(slot, "aria-setsize", node.size);
    mark(slot, "aria-selected", selected);
    mark(slot, "aria-expanded", node.parental ? node.open : null);
    // Only so deep that the name still has room.
    const depth = Math.min(node.depth, 24);
    if (changed(slot, "depth", depth)) slot.indent.style.width = `calc(${depth} * var(--step))`;
    const twisty = node.parental ? (node.open ? "▾" : "▸") : "";
    if (changed(slot, "twisty", twisty)) slot.twisty.textContent = twisty;
    const comm = node.comm || "?";
    if (changed(slot, "comm", comm)) {
      setText(slot.name, comm);
      slot.name.title = printable(comm);
      slot.written.args = null;
    }
    if (changed(slot, "args", node.args ?? "")) setText(slot.args, command(node));
    write(slot, "hidden", slot.hidden, node.hidden ? `+${node.hidden}` : "");
    const moved = (node.read_bytes ?? 0) + (node.write_bytes ?? 0);
    const alive = !node.endedAt;
    const zero = !(node.cpu >= 0.05);
    if (changed(slot, "zero", zero)) cells[2].classList.toggle("zero", zero);
    write(slot, "pid", cells[1], node.pid);
    write(slot, "cpu", cells[2], alive ? bare(node.cpu) : "");
    write(slot, "rss", cells[3], alive && typeof node.rss === "number" ? bytes(node.rss) : "");
    write(slot, "threads", cells[4], alive ? (node.threads ?? "") : "");
    write(slot, "io", cells[5], alive && moved ? bytes(moved) : "");
    write(slot, "uid", cells[6], node.uid ?? "");
    write(slot, "age", cells[7], alive ? ageOf(node) : outcome(node));
  }

  #click(event) {
    const element = event.target.closest(".tr");
    const offset = this.#slots.findIndex((slot) => slot.element === element);
    const row = this.rows[this.#first + offset];
    if (offset < 0 || !row) return;
    if (event.target.classList.contains("twisty") && row.parental) this.onfold(row, !row.open);
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
      if (row.parental && !row.open) this.onfold(row, true);
      else if (row.open) this.select(index + 1);
    } else if (event.key === "ArrowLeft" && row) {
      if (row.open && !event.shiftKey) this.onfold(row, false);
      else if (row.parent) {
        const above = this.rows.indexOf(row.parent);
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

/** Whether a part of a row is to be written: most of what is in view is what was there before. */
function changed(slot, part, value) {
  if (slot.written[part] === value) return false;
  slot.written[part] = value;
  return true;
}

function write(slot, part, element, value) {
  if (changed(slot, part, value)) element.textContent = value;
}

function mark(slot, name, value) {
  if (!changed(slot, name, value)) return;
  if (value === null) slot.element.removeAttribute(name);
  else slot.element.setAttribute(name, value);
}
