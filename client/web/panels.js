/**
 * Timeline, time breakdown, legend and server panel: figures as elements of the page.
 *
 * Text from the server is only ever set as text.
 */

import { describeBudget } from "./budget.js";
import { milliseconds } from "./outcomes.js";
import { jointColor, palette, render, shares } from "./render.js";

const TIMES = [
  ["queue", "Waiting"],
  ["decode", "Decoding"],
  ["compute", "Computing"],
  ["encode", "Encoding"],
  ["rest", "Sending and the rest"],
];
const THUMBNAIL_SIDE = 320; // px

/** @param {string} tag @param {object} properties @param {...(Node|string)} children */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

/**
 * All exits of a model as rows on one scale of time, those that have come as buttons that show
 * them again.
 *
 * @param {HTMLElement} list
 * @param {object[]} exits of the model's description
 * @param {object[]} updates of the request, each with `changed`; exits between may have none
 * @param {{total: number, shown: number, final: object|null}} state
 * @param {(index: number) => void} choose
 */
export function renderTimeline(list, exits, updates, state, choose) {
  const rows = exits.map((info, at) => {
    const index = updates.findIndex(({ exit }) => exit === at + 1);
    const row = index < 0
      ? element("div", { className: "exit-idle" })
      : element("button", { type: "button", className: "exit-row", onclick: () => choose(index) });
    row.append(
      element("span", { className: "exit-name" }, `Exit ${at + 1}`),
      element("span", { className: "exit-side" }, info.side ? `${info.side} px` : ""),
      element("span", { className: "exit-quality" }, info.quality === undefined ? "" : `${(100 * info.quality).toFixed(1)} %`),
    );
    if (index < 0) {
      const expected = info.expected_ms !== undefined && state.final === null && !(updates.at(-1)?.exit > at);
      row.append(
        element("span", { className: "exit-fate" }, fateOf(at + 1, updates, state.final)),
        element("span", { className: "exit-time" }, expected ? `~${milliseconds(info.expected_ms)}` : ""),
      );
    } else {
      const update = updates[index];
      row.append(
        timeBar(update, updates[index - 1], state.total),
        element("span", { className: "exit-time" }, milliseconds(update.elapsed_ms)),
        element("span", { className: "exit-facts" }, factsOf(update)),
      );
      row.setAttribute("aria-pressed", String(index === state.shown));
    }
    return element("li", {}, row);
  });
  const focused = [...list.children].findIndex((row) => row.contains(document.activeElement));
  list.replaceChildren(...rows);
  if (focused >= 0) list.children[focused]?.firstElementChild.focus();
}

/**
 * The maps of all exits side by side, each with its time.
 *
 * @param {HTMLElement} list
 * @param {ImageBitmap} image
 * @param {object[]} updates
 * @param {object} model
 * @param {{view: string, opacity: number}} options of the main canvas
 * @param {(index: number) => void} choose called when one is clicked; the timeline is its equal for keyboards
 */
export function renderStrip(list, image, updates, model, options, choose) {
  list.replaceChildren(...updates.map((update, index) => {
    const canvas = element("canvas", { onclick: () => choose(index) });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Exit ${update.exit} after ${milliseconds(update.elapsed_ms)}`);
    render(canvas, image, update, model, { ...options, side: THUMBNAIL_SIDE });
    const caption = element("span", {}, element("b", {}, `Exit ${update.exit}`), ` ${milliseconds(update.elapsed_ms)}`);
    return element("li", {}, canvas, caption);
  }));
}

function timeBar(update, previous, total) {
  const start = previous?.elapsed_ms ?? 0;
  const compute = update.compute_ms - (previous?.compute_ms ?? 0);
  const span = element("span", { className: "span" });
  const work = element("span", { className: "work" });
  setExtent(span, start, update.elapsed_ms, total);
  setExtent(work, update.elapsed_ms - Math.min(compute, update.elapsed_ms - start), update.elapsed_ms, total);
  return element("span", { className: "bar" }, span, work);
}

function factsOf(update) {
  const facts = [`${percent(update.confidence)} confident`];
  if (update.arrays.map) facts.push(`${percent(update.confident_share)} settled`);
  if (update.changed !== null) facts.push(`${percent(update.changed)} changed`);
  return facts.join(" · ");
}

/** Why there is no map of an exit: nothing while it may still come. */
function fateOf(exit, updates, final) {
  const next = updates.findIndex((update) => update.exit > exit);
  if (next < 0) {
    if (final === null) return "";
    return final.reason === "complete" ? "passed over" : "not computed";
  }
  const between = updates[next].exit - (updates[next - 1]?.exit ?? 0) - 1;
  const { skipped } = updates[next]; // made, and replaced by a later one before they could be sent
  if (skipped === 0) return "passed over";
  return skipped < between ? "passed over or not sent" : "not sent: a better one was ready";
}

/** Where the whole time went: a bar of parts, and the same as text. */
export function renderBreakdown(container, final) {
  if (final === null) {
    container.replaceChildren();
    return;
  }
  const known = final.queue_ms + final.decode_ms + final.compute_ms + final.encode_ms;
  const times = { ...final, rest_ms: Math.max(0, final.total_ms - known) };
  const bar = element("div", { className: "parts" });
  bar.setAttribute("aria-hidden", "true");
  const list = element("dl", { className: "parts-list" });
  for (const [name, label] of TIMES) {
    const ms = times[`${name}_ms`];
    const part = element("span", { className: `part part-${name}` });
    part.style.flexGrow = String(Math.max(ms, 0.001));
    bar.append(part);
    list.append(
      element("div", {},
        element("dt", {}, element("i", { className: `part-${name}` }), label),
        element("dd", {}, milliseconds(ms))),
    );
  }
  container.replaceChildren(bar, list);
}

/** Classes of the map, by the area that they take; or the keypoints with their scores. */
export function renderLegend(list, update, model) {
  const rows = [];
  if (update?.arrays.map) {
    const colors = palette(model);
    const names = new Map(model.classes.map(({ id, name }) => [id, name]));
    const found = [...shares(update.arrays.map)].sort((a, b) => b[1] - a[1]);
    for (const [id, share] of found) {
      const swatch = element("i", { className: "swatch" });
      swatch.style.backgroundColor = `rgb(${colors[id].slice(0, 3).join(" ")})`;
      rows.push(row(swatch, names.get(id) ?? `class ${id}`, percent(share)));
    }
  } else if (update?.keypoints) {
    update.keypoints.forEach(([, , score], joint) => {
      const swatch = element("i", { className: score < 0.2 ? "swatch joint unseen" : "swatch joint" });
      swatch.style.setProperty("--joint", jointColor(model, joint));
      rows.push(row(swatch, model.keypoints[joint] ?? `joint ${joint}`, percent(score)));
    });
  } else {
    for (const { name, color } of model?.classes ?? []) {
      const swatch = element("i", { className: "swatch" });
      swatch.style.backgroundColor = `rgb(${color.join(" ")})`;
      rows.push(row(swatch, name, ""));
    }
  }
  list.replaceChildren(...rows);
}

/** The server's load and budget. */
export function renderServer(container, status) {
  const facts = [
    ["Running", String(status.in_flight)],
    ["Waiting", String(status.queued)],
    ["Speed", describeSpeed(status.slowdown)],
    ["Limits set here", describeBudget(status.budget)],
    ["Limits in force now", describeBudget(status.effective)],
  ];
  container.replaceChildren(
    ...facts.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

function describeSpeed(slowdown) {
  if (slowdown > 1.1) return `${slowdown.toFixed(1)} times slower than at start`;
  return slowdown < 0.9 ? `${(1 / slowdown).toFixed(1)} times faster than at start` : "as at start";
}

function row(swatch, name, value) {
  swatch.setAttribute("aria-hidden", "true");
  return element("li", {}, swatch, element("span", { className: "legend-name", title: name }, name),
    element("span", { className: "legend-value" }, value));
}

function setExtent(bar, from, to, total) {
  bar.style.left = `${(100 * from) / total}%`;
  bar.style.width = `${Math.max(0.5, (100 * (to - from)) / total)}%`;
}
