// What another plugin offers below a path: JSON and text are shown here, a page of its own is opened.

import { address, request, url } from "../api.js";
import { failure, field, h, replace, text } from "../dom.js";
import { printable } from "../text.js";

const MAX_SHOWN = 200_000;

export function show(page) {
  const { path, ...query } = page.parameters;
  const target = url(path, query);
  page.title(path);
  const input = h("input", { value: new URLSearchParams(query).toString(), spellcheck: "false", autocomplete: "off" });
  const ask = (event) => {
    event.preventDefault();
    const next = `#/offered${encodeURI(path)}${input.value ? `?${input.value}` : ""}`;
    if (location.hash === next) load();
    else location.hash = next;
  };
  const body = h("div", { class: "panel" });
  replace(
    page.root,
    h("h1", null, text(path, "mono")),
    h("form", { class: "bar", onsubmit: ask }, field("Query", input), h("button", null, "Ask")),
    body,
  );

  async function load() {
    if (new URL(target, location.origin).origin !== location.origin) {
      replace(body, failure({ message: "That is not on this agent." }));
      return;
    }
    replace(body, h("p", { class: "muted" }, "Loading"));
    try {
      const response = await request(target, { signal: page.signal, headers: { Accept: "application/json, text/html;q=0.9, text/plain;q=0.8" } });
      const type = response.headers.get("content-type") ?? "";
      if (type.startsWith("text/html")) {
        replace(body, h("p", null, "This plugin brings a page of its own: ", h("a", { href: address(target) }, "open it"), "."));
        return;
      }
      const said = await response.text();
      replace(body, h("pre", null, shown(said, type)));
    } catch (error) {
      if (error.name !== "AbortError") replace(body, failure(error, load));
    }
  }
  load();
}

function shown(said, type) {
  let whole = said;
  if (type.includes("json")) {
    try {
      whole = JSON.stringify(JSON.parse(said), null, 2);
    } catch {
      // Then as it came.
    }
  }
  const cut = whole.length > MAX_SHOWN ? `${whole.slice(0, MAX_SHOWN)}\n…` : whole;
  return cut.split("\n").map((line) => `${printable(line)}\n`).join("");
}
