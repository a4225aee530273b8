/**
 * A label beside the pointer that names what is there. A finger's stays for a moment when it is lifted.
 */

import { element, percent } from "./panels.js";

const LIFTED_MS = 2500;
const BESIDE_PX = 14;
const ABOVE_PX = 10;
const EDGE_PX = 6;

/**
 * @param {HTMLCanvasElement} canvas that shows an image, perhaps with bars beside it
 * @param {HTMLElement} stage that holds canvas and label
 * @param {HTMLElement} label
 * @param {(x: number, y: number) => {name: string, confidence: number|null, color: string}|null} lookUp
 *   what is at a place of the image, 0 to 1 from its left and top
 */
export function followPointer(canvas, stage, label, lookUp) {
  let timer = 0;
  const show = (event) => {
    clearTimeout(timer);
    const place = placeInImage(canvas, event);
    const found = place && lookUp(place.x, place.y);
    label.hidden = !found;
    if (found) fill(label, stage, found, event);
  };
  canvas.addEventListener("pointermove", show);
  canvas.addEventListener("pointerdown", show);
  canvas.addEventListener("pointerleave", (event) => {
    timer = setTimeout(() => { label.hidden = true; }, event.pointerType === "mouse" ? 0 : LIFTED_MS);
  });
}

function fill(label, stage, { name, confidence, color }, event) {
  const swatch = element("i", { className: "swatch" });
  swatch.style.backgroundColor = color;
  label.replaceChildren(swatch, confidence === null ? name : `${name} ${percent(confidence)}`);
  const box = stage.getBoundingClientRect();
  const left = Math.min(event.clientX - box.left + BESIDE_PX, box.width - label.offsetWidth - EDGE_PX);
  const top = event.clientY - box.top - label.offsetHeight - ABOVE_PX;
  label.style.left = `${Math.max(EDGE_PX, left)}px`;
  label.style.top = `${Math.max(EDGE_PX, top)}px`;
}

/** Where in the image the pointer is; null beside it. */
function placeInImage(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  const x = 0.5 + (event.clientX - box.left - box.width / 2) / (scale * canvas.width);
  const y = 0.5 + (event.clientY - box.top - box.height / 2) / (scale * canvas.height);
  return x >= 0 && x < 1 && y >= 0 && y < 1 ? { x, y } : null;
}
