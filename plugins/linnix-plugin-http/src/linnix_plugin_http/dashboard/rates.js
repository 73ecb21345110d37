// How much happened lately, kept while this page is open, whichever view is shown.

import { get } from "./api.js";
import { live } from "./live.js";

const EVERY_MS = 2_000;
/** Ten minutes. */
const KEPT_S = 600;
/** Whoever was away for longer leaves a gap and no line. */
const GAP_S = 10;

/** Dispatches `change` after each look at the agent. */
class Rates extends EventTarget {
  /** `{at, events, lost, cpu, memory, psi}`: per second, in percent; null is a gap. */
  points = [];
  status = null;
  system = null;
  /** Why the latest look failed. */
  error = null;
  #run = "";

  start() {
    live.addEventListener("fresh", () => this.look());
    live.addEventListener("record", ({ detail }) => {
      if (detail.type === "incident") this.look();
    });
    const tick = async () => {
      if (live.state === "live") await this.look();
      setTimeout(tick, EVERY_MS);
    };
    tick();
  }

  async look() {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const [status, system, past] = await Promise.all([
        get("/status"),
        get("/system"),
        this.points.length ? null : get("/system/history"),
      ]);
      if (past) this.points = pointsOf(past);
      this.#take(status, system);
      this.error = null;
    } catch (error) {
      this.error = error;
    } finally {
      this.#looking = false;
    }
    this.dispatchEvent(new Event("change"));
  }
  #looking = false;

  #take(status, system) {
    const before = this.status;
    const at = Date.now() / 1000;
    const passed = before && this.#run === status.run_id ? status.uptime_s - before.uptime_s : 0;
    if (passed > 0 && passed < 1) return;
    const rate = (name) => (passed > 0 ? Math.max(0, status[name] - before[name]) / passed : null);
    // What there is when the page is opened is continued.
    if (before || !this.points.length) {
      if (before && (passed <= 0 || passed > GAP_S)) this.points.push({ at, gap: true });
      this.points.push({
        at,
        events: rate("events_total"),
        lost: rate("dropped_events_total"),
        cpu: system.cpu_percent,
        memory: system.mem_percent,
        psi: system.psi_cpu_some_avg10,
      });
      this.points = this.points.filter((each) => each.at > at - KEPT_S);
    }
    this.#run = status.run_id;
    this.status = status;
    this.system = system;
  }

  latest(name) {
    return this.points.at(-1)?.[name] ?? null;
  }
}

/** What `/system/history` answers, on the clock of this page. */
function pointsOf({ timestamp, points }) {
  const found = [];
  const late = Date.now() / 1000 - timestamp;
  let before = null;
  for (const each of points) {
    const at = each.at + late;
    const passed = before ? each.at - before.at : 0;
    const rate = (name) => (passed > 0 ? (each[name] - before[name]) / passed : null);
    if (passed > GAP_S) found.push({ at, gap: true });
    found.push({
      at,
      events: rate("events_total"),
      lost: rate("lost_total"),
      cpu: each.cpu_percent,
      memory: each.mem_percent,
      psi: each.psi_cpu_some_avg10,
    });
    before = each;
  }
  if (before && timestamp - before.at > GAP_S) found.push({ at: Date.now() / 1000, gap: true });
  return found;
}

export const rates = new Rates();
