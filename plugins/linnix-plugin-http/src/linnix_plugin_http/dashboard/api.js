// Requests to the agent. The token lives in this tab's session storage and nowhere else.

const KEY = "linnix.token";
const PATIENCE_MS = 20_000;

export class ApiError extends Error {
  constructor(message, { status = 0, hint = "" } = {}) {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

let asking = null;
let ask = async () => false;

/** `ask(error)` is called when a token is needed; it resolves to whether there is one now. */
export function onUnauthorized(callback) {
  ask = callback;
}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** A response that is 2xx; a token is asked for once where one is needed. */
export async function request(path, { method = "GET", body, signal, headers = {}, patience = PATIENCE_MS } = {}) {
  const used = token.get();
  const sent = { ...headers };
  if (used) sent.Authorization = `Bearer ${used}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const cancel = new AbortController();
  const relay = () => cancel.abort();
  signal?.addEventListener("abort", relay, { once: true });
  if (signal?.aborted) cancel.abort();
  const timer = setTimeout(relay, patience);
  let response;
  try {
    response = await fetch(address(path), {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: cancel.signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch {
    if (signal?.aborted) throw new DOMException("no longer wanted", "AbortError");
    throw new ApiError("The agent does not answer.", {
      hint: "Is it running, and is this page still served by it?",
    });
  } finally {
    clearTimeout(timer);
  }
  if (response.ok) return response;
  const error = await refusal(response);
  if (response.status !== 401) throw error;
  if (used && token.get() === used) token.forget();
  const retry = token.get() !== "" && token.get() !== used;
  if (!retry) {
    asking ??= ask(error, used !== "").finally(() => (asking = null));
    if (!(await asking)) throw error;
  }
  if (signal?.aborted) throw new DOMException("no longer wanted", "AbortError");
  return request(path, { method, body, signal, headers, patience });
}

/** The JSON of an answer. */
export async function get(path, options) {
  return (await request(path, options)).json();
}

export async function post(path, body) {
  return (await request(path, { method: "POST", body })).json();
}

/** Where a path of the agent is: beside the page, which a proxy may serve below a path of its own. */
export function address(path) {
  return new URL(`.${path}`, document.baseURI).href;
}

/** A path with a query; what is empty is left out. */
export function url(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

async function refusal(response) {
  try {
    const { error, hint } = await response.json();
    return new ApiError(String(error), { status: response.status, hint: hint ? String(hint) : "" });
  } catch {
    return new ApiError(`The agent answered ${response.status}.`, { status: response.status });
  }
}
