// Elements. Text only ever enters as text nodes: nothing here parses markup.

import { moment, printable, runs } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false) element.append(child);
  }
}

/** An element with attributes, listeners (`onclick`) and children. */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Puts what somebody else has chosen into an element that isolates its direction. */
export function setText(element, value) {
  const text = String(value ?? "");
  const pieces = runs(text);
  if (pieces.length <= 1 && !pieces[0]?.[1]) {
    // A text that only changes is written without making another node.
    if (element.firstChild?.nodeType === Node.TEXT_NODE && element.childNodes.length === 1) element.firstChild.data = text;
    else element.textContent = text;
    return;
  }
  element.replaceChildren(
    ...pieces.map(([piece, strange]) => (strange ? h("span", { class: "esc" }, piece) : piece)),
  );
}

/** Such a text as an element of its own. */
export function text(value, name = "") {
  const element = h("bdi", { class: name || undefined });
  setText(element, value);
  return element;
}

/** A moment, with the exact time in UTC beside it. */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return moment(seconds);
  const exact = new Date(seconds * 1000).toISOString();
  return h("time", { datetime: exact, title: exact }, moment(seconds));
}

/** How bad something is, always in a word as well. */
export function severity(name) {
  return h("span", { class: `sev sev-${printable(name)}` }, printable(name));
}

export function button(label, onclick, properties) {
  return h("button", { type: "button", onclick, ...properties }, label);
}

export function field(label, control) {
  return h("label", { class: "field" }, h("span", null, label), control);
}

export function select(label, options, value, onchange) {
  const control = h(
    "select",
    { onchange: () => onchange(control.value) },
    options.map(([key, name]) => h("option", { value: key, selected: key === value }, name)),
  );
  return field(label, control);
}

/** Terms and what they mean; pairs without a meaning are left out. */
export function facts(pairs, name = "facts") {
  return h(
    "dl",
    { class: name },
    pairs
      .filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== "")
      .map(([term, meaning]) => h("div", null, h("dt", null, term), h("dd", null, meaning))),
  );
}

/** A table; a column is `[heading, cell(row), classes]`. The first cell of a row names it.
 * One of many columns becomes a list where there is no room for it. */
export function table(label, columns, rows, kind) {
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { "aria-label": label, class: columns.length > 3 ? "many" : kind },
      h("thead", null, h("tr", null, columns.map(([name, , kind]) => h("th", { scope: "col", class: kind }, name)))),
      h(
        "tbody",
        null,
        rows.map((row) =>
          h(
            "tr",
            { class: row.rowClass },
            columns.map(([name, cell, kind], index) =>
              h(index ? "td" : "th", { class: kind, scope: index ? undefined : "row", "data-label": name }, cell(row)),
            ),
          ),
        ),
      ),
    ),
  );
}

export function section(title, ...children) {
  return h("section", { class: "panel" }, h("h2", null, title), children);
}

export function empty(sentence, more) {
  return h("p", { class: "empty" }, sentence, more && h("span", null, more));
}

/** What went wrong, the next step, and a way to try again. */
export function failure(error, again) {
  return h(
    "div",
    { class: "failure", role: "alert" },
    h("p", null, text(error.message)),
    error.hint && h("p", { class: "muted" }, text(error.hint)),
    again && button("Try again", again),
  );
}
