// The processes of a host as a forest, kept up to date by events and samples. Knows no page.

/** Ended processes are kept for a moment, so that people can see what there was. */
const KEEP_ENDED_MS = 20_000;
const MAX_ENDED = 500;

const keyOf = (pid, start) => `${pid}:${start}`;

class Node {
  constructor(key) {
    this.key = key;
    this.parent = null;
    this.children = [];
    this.sorted = true;
    this.endedAt = 0;
    this.depth = 0;
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

  /** Take in a record of the type event or sample. */
  apply(record) {
    if (record.type === "sample") return this.#sample(record);
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

  #sample(sample) {
    const node = this.nodes.get(keyOf(sample.pid, sample.start_ns));
    if (!node || node.endedAt) return;
    node.cpu_pct = sample.cpu_percent;
    node.rss_bytes = sample.rss_bytes;
    node.threads = sample.threads;
    node.fds = sample.fds;
    node.activity = sample.state;
    node.read_bytes = sample.read_bytes;
    node.write_bytes = sample.write_bytes;
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
 * The rows that are to be shown, from the top: `{node, depth, hidden, cpu, rss, matched}`.
 * A folded process stands for everybody below it: `hidden` of them, with what they use together.
 */
export function rowsOf(tree, { folded, matches, flat, by, ended }) {
  if (flat) {
    const measure = use[by];
    const nodes = [...tree.nodes.values()].filter((node) => (ended || !node.endedAt) && (!matches || matches(node)));
    nodes.sort((a, b) => measure(b) - measure(a) || byStart(a, b));
    return nodes.map((node, index) => row(node, 0, index + 1, nodes.length, true));
  }
  const rows = [];
  // Deep trees are made on purpose now and then: no recursion.
  const roots = tree.roots();
  const order = [];
  const stack = [...roots].reverse();
  while (stack.length) {
    const node = stack.pop();
    order.push(node);
    node.depth = node.parent ? node.parent.depth + 1 : 0;
    if (!node.sorted) {
      node.children.sort(byStart);
      node.sorted = true;
    }
    for (let index = node.children.length - 1; index >= 0; index -= 1) stack.push(node.children[index]);
  }
  for (let index = order.length - 1; index >= 0; index -= 1) sumUp(order[index], matches, ended);
  const levels = siblings(roots);
  while (levels.length) {
    const [node, position, size] = levels.pop();
    const { sum } = node;
    const closed = !matches && folded.has(node.key) && sum.below > 0;
    const made = row(node, node.depth, position, size, sum.matched);
    made.parental = sum.below > 0;
    made.open = made.parental && !closed;
    if (closed) Object.assign(made, { hidden: sum.below, cpu: sum.cpu, rss: sum.rss });
    rows.push(made);
    if (made.open) for (const each of siblings(node.children)) levels.push(each);
  }
  return rows;
}

/** Those who are shown, the last one first, each with its place among them and their number. */
function siblings(nodes) {
  const shown = nodes.filter((node) => node.sum.shown);
  return shown.map((node, index) => [node, index + 1, shown.length]).reverse();
}

/** What a process and those below it that are shown use; theirs is known already. */
function sumUp(node, matches, ended) {
  const matched = !matches || matches(node);
  // Whoever has somebody below that is shown is shown too, so that it hangs on something.
  let shown = matched && (ended || !node.endedAt);
  let below = 0;
  let cpu = Math.max(0, node.cpu_pct ?? 0);
  let rss = node.rss_bytes ?? 0;
  for (const { sum } of node.children) {
    if (!sum.shown) continue;
    below += sum.below + 1;
    cpu += sum.cpu;
    rss += sum.rss;
    shown = true;
  }
  node.sum = { matched, shown, below, cpu, rss };
}

function row(node, depth, position, size, matched) {
  return {
    node, depth, position, size, matched,
    hidden: 0, parental: false, open: false,
    cpu: node.cpu_pct, rss: node.rss_bytes,
  };
}
