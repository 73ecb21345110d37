// The frame around the views: navigation, the state of the connection, the token.

import { get, onUnauthorized, token } from "./api.js";
import { button, failure, h, replace, setText, text } from "./dom.js";
import { live } from "./live.js";
import { rates } from "./rates.js";
import { printable } from "./text.js";
import * as alerts from "./views/alerts.js";
import * as components from "./views/components.js";
import * as incident from "./views/incident.js";
import * as incidents from "./views/incidents.js";
import * as offered from "./views/offered.js";
import * as overview from "./views/overview.js";
import * as processes from "./views/processes.js";

/** `[pattern of the hash, view, name in the navigation]`; groups become parameters. */
const ROUTES = [
  [/^\/?$/, overview, "Overview"],
  [/^\/processes$/, processes, "Processes"],
  [/^\/alerts$/, alerts, "Alerts"],
  [/^\/incidents$/, incidents, "Incidents"],
  [/^\/incidents\/(?<id>[^/]+)$/, incident, null],
  [/^\/components$/, components, "Components"],
  [/^\/offered(?<path>\/.+)$/, offered, null],
];

const LINKS = [
  ["#/", "Overview"],
  ["#/processes", "Processes"],
  ["#/alerts", "Alerts"],
  ["#/incidents", "Incidents"],
  ["#/components", "Components"],
];

/** Between news and the look at what has become of them. */
const SOON_MS = 300;

const content = document.getElementById("content");
const nav = document.getElementById("nav");
const link = document.getElementById("link");
const host = document.getElementById("host");
const notice = document.getElementById("notice");

// --- views --------------------------------------------------------------------------------

let leave = () => {};
let shown = null;

function route() {
  const [path, query = ""] = location.hash.slice(1).split("?", 2);
  for (const [pattern, view] of ROUTES) {
    const match = pattern.exec(path);
    if (match) {
      const parameters = Object.fromEntries(new URLSearchParams(query));
      for (const [name, value] of Object.entries(match.groups ?? {})) parameters[name] = decoded(value);
      return { view, parameters, path };
    }
  }
  return null;
}

function decoded(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

function show() {
  const found = route();
  const moved = shown !== null && shown !== location.hash;
  shown = location.hash;
  leave();
  leave = () => {};
  content.className = "";
  content.replaceChildren();
  markCurrent(found?.path ?? "");
  if (!found) {
    document.title = "Not found – Linnix";
    replace(content, failure({ message: "There is no such page.", hint: "The navigation lists those there are." }));
    return;
  }
  const cleanups = [];
  let soon = 0;
  const stay = new AbortController();
  const page = {
    root: content,
    parameters: found.parameters,
    signal: stay.signal,
    title: (words) => (document.title = `${printable(words)} – Linnix`),
    /** Listens until the view is left. */
    on: (target, name, listener) => target.addEventListener(name, listener, { signal: stay.signal }),
    every: (ms, action) => {
      const timer = setInterval(() => live.state === "live" && action(), ms);
      cleanups.push(() => clearInterval(timer));
    },
    /** Once for all that comes until then, however much it is. */
    soon: (action) => {
      soon ||= setTimeout(() => {
        soon = 0;
        action();
      }, SOON_MS);
    },
    atEnd: (action) => cleanups.push(action),
  };
  leave = () => {
    stay.abort();
    clearTimeout(soon);
    for (const action of cleanups) action();
  };
  found.view.show(page);
  if (moved) {
    window.scrollTo(0, 0);
    content.focus({ preventScroll: true });
  }
}

function markCurrent(path) {
  for (const each of nav.querySelectorAll("a")) {
    const target = each.getAttribute("href").slice(1);
    const current = target === "/" ? path === "/" || path === "" : path === target || path.startsWith(`${target}/`);
    if (current) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
}

// --- navigation ---------------------------------------------------------------------------

let mounts = [];

function showNavigation() {
  const open = rates.status?.incidents_open ?? 0;
  replace(
    nav,
    LINKS.map(([href, name]) =>
      h("a", { href }, name, name === "Incidents" && open > 0 && h("span", { class: "badge", title: "open" }, open)),
    ),
    mounts.map(({ path, title }) => h("a", { href: `#/offered${encodeURI(path)}` }, text(title))),
  );
  markCurrent(route()?.path ?? "");
}

async function findMounts() {
  try {
    mounts = (await get("/mounts")).filter(({ title, path }) => title && path.startsWith("/"));
  } catch {
    mounts = [];
  }
  showNavigation();
}

// --- the connection -----------------------------------------------------------------------

const STATES = {
  connecting: "Connecting",
  live: "Live",
  lost: "Disconnected",
  bye: "Agent stopped",
  paused: "Paused",
  denied: "Token needed",
};

function showConnection() {
  const { state } = live;
  link.dataset.state = state;
  if (link.textContent !== STATES[state]) link.textContent = STATES[state];
  document.documentElement.classList.toggle("stale", ["lost", "bye", "denied"].includes(state));
  if (live.host) setText(host, live.host);
  if (state === "live" || state === "paused" || state === "connecting") {
    notice.hidden = true;
    return;
  }
  const said = {
    bye: "The agent has said good-bye: it was stopped. What you see is the last that was known; this page comes back with it.",
    lost: "The agent cannot be reached. What you see is the last that was known; this page keeps trying.",
    denied: "The agent asks for a token.",
  }[state];
  const reason = state === "lost" && live.error?.status ? ` It answered: ${printable(live.error.message)}` : "";
  const label = state === "denied" ? "Enter token" : "Try now";
  if (notice.dataset.state !== state || notice.hidden) {
    notice.dataset.state = state;
    replace(notice, h("span", null, said, reason), button(label, () => live.connect()));
  }
  notice.hidden = false;
}

// --- the token ----------------------------------------------------------------------------

function askForToken(error, wasRefused) {
  const input = h("input", {
    type: "password",
    name: "token",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    // Nothing else can be sent in a header.
    pattern: "\\s*[!-~]+\\s*",
    title: "A token is one word of plain letters, digits and signs.",
    "aria-describedby": "token-help",
  });
  const dialog = h(
    "dialog",
    { class: "token", "aria-labelledby": "token-title" },
    h(
      "form",
      {
        method: "dialog",
        onsubmit: (event) => {
          event.preventDefault();
          token.set(input.value.trim());
          dialog.close("given");
        },
      },
      h("h2", { id: "token-title" }, "This agent asks for a token"),
      wasRefused && h("p", { class: "wrong", role: "alert" }, "That token is not known to the agent."),
      h("label", { class: "field" }, h("span", null, "Token"), input),
      h(
        "p",
        { class: "muted", id: "token-help" },
        "It is kept in this tab until the tab is closed. ",
        h("code", null, "linnix http token new --scope act"),
        " makes one on the host.",
      ),
      h("div", { class: "buttons" }, button("Cancel", () => dialog.close()), h("button", { class: "primary" }, "Use token")),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "given");
      if (dialog.returnValue === "given" && live.state === "denied") live.connect();
    });
  });
}

// --- beginning ----------------------------------------------------------------------------

onUnauthorized(askForToken);
window.addEventListener("hashchange", show);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  content.focus();
});
live.addEventListener("state", showConnection);
live.addEventListener("fresh", findMounts);
rates.addEventListener("change", () => {
  const badge = nav.querySelector(".badge")?.textContent ?? "0";
  if (badge !== String(rates.status?.incidents_open ?? 0)) showNavigation();
});
showNavigation();
show();
live.start();
rates.start();
