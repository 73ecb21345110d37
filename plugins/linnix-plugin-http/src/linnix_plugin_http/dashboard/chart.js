// Lines over time, as SVG: drawn for the width that there is.

import { h, svg } from "./dom.js";

/** The next of 1, 2, 5 times a power of ten. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/** The path of a line through `[x, y]`; a null between two of them interrupts it. */
function path(points) {
  let drawing = false;
  let found = "";
  for (const point of points) {
    if (point === null) drawing = false;
    else {
      found += `${drawing ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
      drawing = true;
    }
  }
  return found;
}

/**
 * A chart of `series`: `{name, label, kind, values}` with the values `[at, value | null]`, over `seconds`
 * up to `until`. `most` is the top of the scale, `format` writes its marks.
 */
export function chart({ label, series, seconds, until, most, format, height = 126 }) {
  const element = h("div", { class: "chart" });
  const draw = (state) => {
    const width = element.clientWidth;
    if (!width) return;
    const top = 16;
    const bottom = height - 18;
    const left = until - seconds;
    const x = (at) => ((at - left) / seconds) * width;
    const y = (value) => bottom - (Math.min(value, state.most) / state.most) * (bottom - top);
    const lines = [0, 0.5, 1].map((share) => {
      const at = bottom - share * (bottom - top);
      return [
        svg("line", { class: "grid", x1: 0, x2: width, y1: at, y2: at }),
        share > 0 && svg("text", { class: "mark", x: 0, y: at - 3 }, format(state.most * share)),
      ];
    });
    const minutes = [];
    const step = width < 500 ? 300 : 120;
    for (let back = step; back < seconds; back += step) {
      minutes.push(
        svg("text", { class: "mark middle", x: x(until - back), y: height - 4 }, `−${back / 60} min`),
      );
    }
    const drawn = state.series.map(({ kind, values }) => {
      const points = values
        .filter(([at]) => at >= left)
        .map(([at, value]) => (value === null || value === undefined ? null : [x(at), y(value)]));
      return svg("path", { class: `line ${kind}`, d: path(points) });
    });
    element.replaceChildren(
      svg(
        "svg",
        { width, height, role: "img", "aria-label": state.label },
        lines.flat().filter(Boolean),
        minutes,
        svg("text", { class: "mark end", x: width, y: height - 4 }, "now"),
        drawn,
      ),
    );
  };
  let state = { label, series, most };
  const observer = new ResizeObserver(() => draw(state));
  observer.observe(element);
  return {
    element,
    update(next) {
      until = next.until;
      state = next;
      draw(state);
    },
    end: () => observer.disconnect(),
  };
}
