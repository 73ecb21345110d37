// The one stream of this page: server-sent events read with fetch, since EventSource cannot
// send a token. It comes back by itself, and rests while nobody looks at the page.

import { request } from "./api.js";

/** Records that are always read; a view may want more for as long as it is shown. */
const ALWAYS = ["system", "loss", "alert", "incident", "insight", "feedback"];

const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 15_000;
/** A stream that says nothing, not even that it is alive, is none any more. */
const SILENCE_MS = 60_000;
/** So long at a time: what comes by the thousand must not keep the page from being drawn. */
const SLICE_MS = 8;

/** Splits what comes into events `{event, data}`. */
export class Parser {
  #rest = "";

  push(chunk) {
    const found = [];
    const parts = (this.#rest + chunk).split("\n\n");
    this.#rest = parts.pop();
    for (const part of parts) {
      let event = "message";
      let data = "";
      for (const line of part.split("\n")) {
        if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (line.startsWith("data:")) data += line.slice(5);
      }
      if (data) found.push({ event, data });
    }
    return found;
  }
}

/**
 * Dispatches `state` (see `state` and `retryAt`), `fresh` when everything that was fetched
 * before may be stale, `record` with each record, and `processes` with events and samples of
 * processes, many at a time.
 */
class Live extends EventTarget {
  state = "connecting";
  retryAt = 0;
  runId = "";
  /** Why it is not connected. */
  error = null;
  #wanted = new Map();
  #attempt = 0;
  #cancel = null;
  #timer = 0;
  #generation = 0;
  #processes = [];

  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#rest() : this.connect()));
    this.connect();
  }

  /** Read these types too, until the function that is returned is called. */
  want(...types) {
    const key = {};
    this.#wanted.set(key, types);
    this.connect();
    return () => {
      this.#wanted.delete(key);
      this.connect();
    };
  }

  /** Connect now, whatever was. */
  connect() {
    this.#end();
    this.#run(this.#generation);
  }

  #rest() {
    this.#end();
    this.#set("paused");
  }

  #end() {
    this.#generation += 1;
    clearTimeout(this.#timer);
    this.#cancel?.abort();
    this.#cancel = null;
  }

  #set(state, error = null) {
    this.state = state;
    this.error = error;
    this.dispatchEvent(new Event("state"));
  }

  async #run(mine) {
    if (document.hidden) return this.#set("paused");
    if (this.state !== "live") this.#set(this.state === "bye" || this.state === "lost" ? this.state : "connecting");
    const cancel = (this.#cancel = new AbortController());
    const types = [...new Set([...ALWAYS, ...[...this.#wanted.values()].flat()])];
    let said = null;
    let bye = false;
    let silence = 0;
    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(() => cancel.abort(), SILENCE_MS);
    };
    try {
      const response = await request(`/stream?type=${types.join(",")}`, {
        signal: cancel.signal,
        headers: { Accept: "text/event-stream" },
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new Parser();
      for (;;) {
        alive();
        const { value, done } = await reader.read();
        if (done || mine !== this.#generation) break;
        let due = performance.now() + SLICE_MS;
        for (const { event, data } of parser.push(value)) {
          if (event === "bye") bye = true;
          else this.#take(event, data);
          if (performance.now() < due) continue;
          this.#flush();
          await new Promise((resume) => setTimeout(resume));
          if (mine !== this.#generation) break;
          due = performance.now() + SLICE_MS;
        }
        this.#flush();
        if (bye || mine !== this.#generation) break;
      }
    } catch (error) {
      said = error;
    } finally {
      clearTimeout(silence);
      cancel.abort();
    }
    if (mine === this.#generation) this.#again(bye, said);
  }

  #take(event, data) {
    let record;
    try {
      record = JSON.parse(data);
    } catch {
      return;
    }
    if (event === "hello") {
      this.#attempt = 0;
      this.runId = record.run_id;
      this.host = record.host;
      this.#processes = [];
      this.#set("live");
      this.dispatchEvent(new Event("fresh"));
    } else if (event === "lost") {
      this.dispatchEvent(new Event("fresh"));
    } else if (record.type === "event" || record.type === "sample") {
      this.#processes.push(record);
    } else {
      this.dispatchEvent(new CustomEvent("record", { detail: record }));
    }
  }

  #flush() {
    if (!this.#processes.length) return;
    const detail = this.#processes;
    this.#processes = [];
    this.dispatchEvent(new CustomEvent("processes", { detail }));
  }

  #again(bye, error) {
    const wait = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempt);
    this.#attempt += 1;
    this.retryAt = Date.now() + wait;
    if (error?.status === 401) return this.#set("denied", error);
    this.#set(bye || (this.state === "bye" && !error?.status) ? "bye" : "lost", error);
    const mine = this.#generation;
    this.#timer = setTimeout(() => mine === this.#generation && this.connect(), wait);
  }
}

export const live = new Live();
