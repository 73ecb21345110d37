// The one stream of this page: server-sent events read with fetch, since EventSource cannot
// send a token. It comes back by itself, and rests while nobody looks at the page.

import { request } from "./api.js";

/** Records that are always read; a view may want more for as long as it is shown. */
const ALWAYS = ["system", "loss", "alert", "incident", "insight", "feedback"];

const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 15_000;
/** A stream that says nothing, not even that it is alive, is none any more. */
const SILENCE_MS = 60_000;

/**
 * Dispatches `state` (see `state` and `retryAt`), `fresh` when everything that was fetched
 * before may be stale, `record` with each record, and `processes` with what is new of processes,
 * many at a time: `{events, samples}`, these packed (see samples.js).
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
    let worker = null;
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
      const reader = response.body.getReader();
      worker = new Worker(new URL("./reader.js", import.meta.url), { type: "module" });
      for (;;) {
        alive();
        const { value, done } = await reader.read();
        if (done || mine !== this.#generation) break;
        const { others, samples } = await read(worker, value);
        if (mine !== this.#generation) break;
        const events = [];
        for (const [event, record] of others) {
          if (event === "bye") bye = true;
          else if (record.type === "event") events.push(record);
          else this.#take(event, record);
        }
        if (events.length || samples.length) this.dispatchEvent(new CustomEvent("processes", { detail: { events, samples } }));
        if (bye) break;
      }
    } catch (error) {
      said = error;
    } finally {
      clearTimeout(silence);
      cancel.abort();
      worker?.terminate();
    }
    if (mine === this.#generation) this.#again(bye, said);
  }

  #take(event, record) {
    if (event === "hello") {
      this.#attempt = 0;
      this.runId = record.run_id;
      this.host = record.host;
      this.#set("live");
      this.dispatchEvent(new Event("fresh"));
    } else if (event === "lost") {
      this.dispatchEvent(new Event("fresh"));
    } else {
      this.dispatchEvent(new CustomEvent("record", { detail: record }));
    }
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

/** What the worker finds in a piece of the stream. */
function read(worker, piece) {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = () => reject(new Error("The stream cannot be read: assets/reader.js does not start."));
    worker.postMessage(piece, [piece.buffer]);
  });
}

export const live = new Live();
