// The processes of a host as a forest, kept up to date by events and samples. Knows no page.

import { PLACES } from "./samples.js";

/** Ended processes are kept for a moment, so that people can see what there was. */
const KEEP_ENDED_MS = 20_000;
const MAX_ENDED = 500;

const known = (value) => (Number.isNaN(value) ? null : value);

const keyOf = (pid, start) => `${pid}:${start}`;

class Node {
  constructor(key) {
    this.key = key;
    this.parent = null;
    this.children = [];
    this.sorted = true;
    this.endedAt = 0;
    // What `rowsOf` finds.
    this.depth = this.position = this.size = this.below = this.hidden = 0;
    this.matched = this.shown = this.parental = this.open = false;
    this.cpu = this.rss = this.allCpu = this.allRss = this.rank = 0;
  }
}

/** What events and answers say of a process, under the same names. */
const FIELDS = [
  "pid", "start_ns", "ppid", "parent_start_ns", "comm", "exe", "args", "cwd", "cgroup", "uid", "gid",
  "labels", "exit_code", "signal", "cpu_pct", "mem_pct", "rss_bytes", "threads", "fds", "activity",
  "read_bytes", "write_bytes", "age_sec", "k8s",
];

export class ProcessTree {
  nodes = new Map();
  /** Grows with everything that changes who is there or what they are called. */
  version = 0;
  #ended = [];

  get size() {
    return this.nodes.size;
  }

  /** How many live. */
  get living() {
    return this.nodes.size - this.#ended.length;
  }

  /** Start again from what ``/tree`` answers. */
  reset(processes) {
    this.nodes.clear();
    this.#ended = [];
    const now = Date.now();
    for (const info of processes) {
      const node = this.#put(info);
      if (info.age_sec !== null) node.bornAt = now - info.age_sec * 1000;
      if (info.ended !== null) this.#end(node, info.ended * 1000);
    }
    for (const node of this.nodes.values()) this.#attach(node);
    this.version += 1;
  }

  /** Take in a record of the type event. */
  apply(record) {
    const key = keyOf(record.pid, record.start_ns);
    const known = this.nodes.get(key);
    if (record.kind === "exit") {
      if (!known || known.endedAt) return;
      known.exit_code = record.exit_code;
      known.signal = record.signal;
      if (record.duration_ns) known.age_sec = record.duration_ns / 1e9;
      known.cpu_pct = known.rss_bytes = null;
      this.#end(known, Date.now());
    } else if (record.kind === "oom") {
      if (!known) return;
      known.oom = true;
    } else {
      const node = this.#put(record);
      if (!known) {
        node.bornAt = record.kind === "seen" ? undefined : record.ts_ns / 1e6;
        this.#attach(node);
      }
    }
    this.version += 1;
  }

  /** Take in samples as samples.js packs them. */
  measure(samples) {
    for (let at = 0; at < samples.length; at += PLACES.length) {
      const node = this.nodes.get(keyOf(samples[at], samples[at + 1]));
      if (!node || node.endedAt) continue;
      node.cpu_pct = known(samples[at + 2]);
      node.rss_bytes = known(samples[at + 3]);
      node.threads = known(samples[at + 4]);
      node.fds = known(samples[at + 5]);
      node.read_bytes = known(samples[at + 6]);
      node.write_bytes = known(samples[at + 7]);
      node.activity = samples[at + 8] ? String.fromCodePoint(samples[at + 8]) : null;
    }
  }

  /** Drop those that ended a while ago and have nobody below them. */
  sweep(now = Date.now()) {
    const kept = [];
    let spare = this.#ended.length - MAX_ENDED;
    for (const node of this.#ended) {
      const due = spare > 0 || now - node.endedAt > KEEP_ENDED_MS;
      if (due && node.children.length === 0) {
        this.#remove(node);
        spare -= 1;
      } else kept.push(node);
    }
    if (kept.length !== this.#ended.length) this.version += 1;
    this.#ended = kept;
  }

  roots() {
    const found = [];
    for (const node of this.nodes.values()) if (!node.parent) found.push(node);
    return found.sort(byStart);
  }

  /** The latest process with that pid, a living one before one that has ended. */
  find(pid) {
    let found = null;
    for (const node of this.nodes.values()) {
      if (node.pid !== pid) continue;
      if (!found || (found.endedAt && !node.endedAt) || (!!found.endedAt === !!node.endedAt && node.start_ns > found.start_ns)) {
        found = node;
      }
    }
    return found;
  }

  #put(info) {
    const key = keyOf(info.pid, info.start_ns);
    let node = this.nodes.get(key);
    if (!node) this.nodes.set(key, (node = new Node(key)));
    for (const name of FIELDS) {
      const value = info[name];
      if (value !== undefined && (value !== null || node[name] === undefined)) node[name] = value;
    }
    return node;
  }

  #attach(node) {
    const parent = this.nodes.get(keyOf(node.ppid, node.parent_start_ns));
    if (!parent || parent === node || node.parent) return;
    node.parent = parent;
    const last = parent.children.at(-1);
    if (last && byStart(last, node) > 0) parent.sorted = false;
    parent.children.push(node);
  }

  #end(node, at) {
    node.endedAt = at;
    this.#ended.push(node);
  }

  #remove(node) {
    this.nodes.delete(node.key);
    if (!node.parent) return;
    node.parent.children = node.parent.children.filter((each) => each !== node);
  }
}

export const byStart = (a, b) => a.start_ns - b.start_ns || a.pid - b.pid;

/** What a process uses, as one number; nothing measured is less than zero. */
export const use = { cpu: (node) => node.cpu_pct ?? -1, rss: (node) => node.rss_bytes ?? -1 };

/** A test of whether a process has every word somewhere people would look for it. */
export function matcher(words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) return null;
  return (node) => {
    const text = [node.pid, node.comm, node.exe, node.args?.join(" "), node.cgroup, node.k8s?.pod_name]
      .filter((each) => each !== null && each !== undefined)
      .join(" ")
      .toLowerCase();
    return wanted.every((word) => text.includes(word));
  };
}

/**
 * The processes that are to be shown, from the top. Where each one stands is written on it: `depth`,
 * `position` among `size` siblings, `parental` and `open`, and what it uses, `cpu` and `rss`. A folded
 * one stands for everybody below it: `hidden` of them, with what they use together.
 *
 * It is called several times a second with thousands: so it makes no objects.
 */
export function rowsOf(tree, { folded, matches, flat, by, ended }) {
  const rows = [];
  if (flat) {
    for (const node of tree.nodes.values()) {
      node.matched = !matches || matches(node);
      if (node.matched && (ended || !node.endedAt)) rows.push(node);
    }
    const measure = use[by];
    for (const node of rows) node.rank = measure(node);
    rows.sort((a, b) => b.rank - a.rank || byStart(a, b));
    for (let index = 0; index < rows.length; index += 1) {
      const node = rows[index];
      node.depth = 0;
      node.position = index + 1;
      node.size = rows.length;
      node.parental = false;
      show(node, true);
    }
    return rows;
  }
  // Deep trees are made on purpose now and then: no recursion.
  const roots = tree.roots();
  const order = [];
  const stack = [...roots].reverse();
  while (stack.length) {
    const node = stack.pop();
    order.push(node);
    if (!node.sorted) {
      node.children.sort(byStart);
      node.sorted = true;
    }
    for (let index = node.children.length - 1; index >= 0; index -= 1) stack.push(node.children[index]);
  }
  for (let index = order.length - 1; index >= 0; index -= 1) sumUp(order[index], matches, ended);
  place(roots, 0, stack);
  while (stack.length) {
    const node = stack.pop();
    node.parental = node.below > 0;
    show(node, !node.parental || matches || !folded.has(node.key));
    rows.push(node);
    if (node.parental && node.open) place(node.children, node.depth + 1, stack);
  }
  return rows;
}

/** Puts those who are shown onto the stack, the last one first, each with its place among them. */
function place(nodes, depth, stack) {
  let size = 0;
  for (const node of nodes) if (node.shown) node.position = size += 1;
  for (let index = nodes.length - 1; index >= 0; index -= 1) {
    const node = nodes[index];
    if (!node.shown) continue;
    node.depth = depth;
    node.size = size;
    stack.push(node);
  }
}

/** What a process and those below it that are shown use; theirs is known already. */
function sumUp(node, matches, ended) {
  node.matched = !matches || matches(node);
  // Whoever has somebody below that is shown is shown too, so that it hangs on something.
  node.shown = node.matched && (ended || !node.endedAt);
  node.below = 0;
  node.allCpu = Math.max(0, node.cpu_pct ?? 0);
  node.allRss = node.rss_bytes ?? 0;
  for (const child of node.children) {
    if (!child.shown) continue;
    node.below += child.below + 1;
    node.allCpu += child.allCpu;
    node.allRss += child.allRss;
    node.shown = true;
  }
}

function show(node, alone) {
  node.open = node.parental && Boolean(alone);
  node.hidden = alone ? 0 : node.below;
  node.cpu = alone ? node.cpu_pct : node.allCpu;
  node.rss = alone ? node.rss_bytes : node.allRss;
}
