// The process tree on the page: a tree grid (ARIA) of which only the rows in view exist.

import { h, setText } from "./dom.js";
import { ago, bare, bytes, duration, printable } from "./text.js";

/** So many rows are written at once while scrolling, and at least as many beyond what is in view. */
const BLOCK = 12;

/** Letters that what stands beside a name and its arguments is as wide as. */
const AROUND = 12;

/** Whoever has not scrolled for so long has arrived. */
const REST_MS = 250;

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
  /** The elements of rows: that of row `n` is at `n % length`, wherever it was before. */
  #slots = [];
  #first = 0;
  #last = 0;
  #height = 0;
  /** How many letters there is room for in the first column. */
  #letters = 0;
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
    const scroll = () => {
      this.#moved = performance.now();
      this.#frame ||= requestAnimationFrame(() => this.#scroll());
    };
    this.element.addEventListener("scroll", scroll, { passive: true });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focus", () => {
      if (!this.selected && this.rows.length) this.select(0);
    });
    this.body.addEventListener("click", (event) => this.#click(event));
    this.observer = new ResizeObserver(() => this.#measure());
    this.observer.observe(this.element);
  }

  /** Whether somebody scrolls. */
  get moving() {
    return performance.now() - this.#moved < REST_MS;
  }
  #moved = -REST_MS;

  end() {
    this.observer.disconnect();
    clearTimeout(this.#rest);
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
    probe.name.textContent = "0".repeat(100);
    this.#letters = (this.head.firstChild.clientWidth / probe.name.offsetWidth) * 100;
    probe.element.remove();
    if (before !== this.#height) this.body.style.height = `${this.rows.length * this.#height}px`;
    // What was chosen before anything could be measured could not be brought into view.
    if (!before && this.selected) this.reveal("middle");
    else this.draw();
  }

  #slot() {
    const texts = {};
    const cells = COLUMNS.map(([name]) => h("div", { class: `td ${name}`, role: "gridcell" }, (texts[name] = new Text())));
    const name = h("bdi", { class: "comm" });
    const args = h("bdi", { class: "args" });
    texts.twisty = new Text();
    texts.hidden = new Text();
    cells[0].append(h("span", { class: "twisty", "aria-hidden": "true" }, texts.twisty), name, h("span", { class: "more" }, texts.hidden), args);
    const element = h("div", { class: "tr", role: "row", id: `row-${(this.#made += 1)}` }, cells);
    return { element, cells, name, args, texts, written: {} };
  }

  draw() {
    if (!this.#height) return;
    const room = Math.ceil(this.element.clientHeight / this.#height);
    const needed = Math.min(this.rows.length, room + 3 * BLOCK);
    while (this.#slots.length < needed) {
      const slot = this.#slot();
      this.#slots.push(slot);
      this.body.append(slot.element);
    }
    while (this.#slots.length > needed) this.#slots.pop().element.remove();
    // None of what there was stands any more.
    this.#first = this.#last = -1;
    this.#scroll();
  }

  /** Most frames of scrolling write nothing: the browser moves what there is. */
  #scroll() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const before = this.#first;
    const until = this.#last;
    const above = Math.floor(this.element.scrollTop / this.#height / BLOCK) - 1;
    this.#first = Math.max(0, Math.min(above * BLOCK, this.rows.length - this.#slots.length));
    this.#last = this.#first + this.#slots.length;
    if (this.#first === before && this.#last === until) return;
    for (let index = this.#first; index < this.#last; index += 1) {
      if (index < before || index >= until) this.#fill(this.#at(index), this.rows[index], index);
    }
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => this.#sort(), REST_MS);
    const selected = this.rows.indexOf(this.selected, this.#first);
    if (selected >= 0 && selected < this.#last) this.element.setAttribute("aria-activedescendant", this.#at(selected).element.id);
    else this.element.removeAttribute("aria-activedescendant");
  }
  #frame = 0;
  #rest = 0;

  #at(index) {
    return this.#slots[index % this.#slots.length];
  }

  /** Who has the page read out hears the rows in the order in which they are seen. */
  #sort() {
    const elements = [];
    for (let index = this.#first; index < this.#last; index += 1) elements.push(this.#at(index).element);
    if (elements.some((each, index) => each !== this.body.children[index])) this.body.append(...elements);
  }

  #fill(slot, node, index) {
    const { cells } = slot;
    const value = this.by === "cpu" ? node.cpu : node.rss;
    const selected = node === this.selected;
    let name = `tr heat-${node.endedAt ? 0 : heatOf(this.by, value ?? 0)}`;
    if (selected) name += " selected";
    if (node.endedAt) name += " ended";
    if (!node.matched) name += " context";
    if (changed(slot, "top", index * this.#height)) slot.element.style.top = `${index * this.#height}px`;
    mark(slot, "aria-rowindex", index + 2);
    mark(slot, "aria-level", node.depth + 1);
    mark(slot, "aria-posinset", node.position);
    mark(slot, "aria-setsize", node.size);
    mark(slot, "aria-selected", selected);
    mark(slot, "aria-expanded", node.parental ? node.open : null);
    // Only so deep that the name still has room.
    const depth = Math.min(node.depth, 24);
    if (changed(slot, "depth", depth)) cells[0].style.paddingLeft = `calc(${depth} * var(--step))`;
    write(slot, "twisty", node.parental ? (node.open ? "▾" : "▸") : "");
    const comm = node.comm || "?";
    if (changed(slot, "comm", comm)) {
      setText(slot.name, comm);
      slot.name.title = printable(comm);
      slot.written.args = null;
    }
    if (changed(slot, "args", node.args ?? "")) {
      setText(slot.args, command(node));
      slot.letters = lettersOf(slot.name.textContent + slot.args.textContent);
    }
    if (slot.letters + 2 * depth + AROUND > this.#letters) name += " long";
    mark(slot, "class", name);
    write(slot, "hidden", node.hidden ? ` +${node.hidden}` : "");
    const moved = (node.read_bytes ?? 0) + (node.write_bytes ?? 0);
    const alive = !node.endedAt;
    const zero = !(node.cpu >= 0.05);
    if (changed(slot, "zero", zero)) cells[2].classList.toggle("zero", zero);
    write(slot, "pid", node.pid);
    write(slot, "cpu", alive ? bare(node.cpu) : "");
    write(slot, "rss", alive && typeof node.rss === "number" ? bytes(node.rss) : "");
    write(slot, "threads", alive ? (node.threads ?? "") : "");
    write(slot, "io", alive && moved ? bytes(moved) : "");
    write(slot, "uid", node.uid ?? "");
    write(slot, "age", alive ? ageOf(node) : outcome(node));
  }

  #click(event) {
    const index = event.target.closest(".tr")?.ariaRowIndex - 2;
    const row = this.rows[index];
    if (!row) return;
    if (event.target.classList.contains("twisty") && row.parental) this.onfold(row, !row.open);
    else this.select(index, "open");
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

/** How wide a text may be; nobody knows that of what is not plain. */
function lettersOf(text) {
  return /^[ -~]*$/.test(text) ? text.length : Infinity;
}

/** The command line without the name that stands before it already. */
export function command(node) {
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

function write(slot, part, value) {
  if (changed(slot, part, value)) slot.texts[part].data = value;
}

function mark(slot, name, value) {
  if (!changed(slot, name, value)) return;
  if (value === null) slot.element.removeAttribute(name);
  else slot.element.setAttribute(name, value);
}
