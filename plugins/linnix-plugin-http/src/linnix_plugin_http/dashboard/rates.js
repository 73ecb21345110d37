// How much happened lately, kept while this page is open, whichever view is shown.

import { get } from "./api.js";
import { live } from "./live.js";

const EVERY_MS = 2_000;
/** Ten minutes. */
const KEPT = 300;

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
      const [status, system] = await Promise.all([get("/status"), get("/system")]);
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
    // A rest of the page, or another run, is a gap and no line.
    if (this.points.length && (passed <= 0 || passed > 10)) this.points.push({ at, gap: true });
    this.points.push({
      at,
      events: rate("events_total"),
      lost: rate("dropped_events_total"),
      cpu: system.cpu_percent,
      memory: system.mem_percent,
      psi: system.psi_cpu_some_avg10,
    });
    if (this.points.length > KEPT) this.points.splice(0, this.points.length - KEPT);
    this.#run = status.run_id;
    this.status = status;
    this.system = system;
  }

  latest(name) {
    return this.points.at(-1)?.[name] ?? null;
  }
}

export const rates = new Rates();
