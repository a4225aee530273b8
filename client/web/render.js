/**
 * Draws an image and an exit's map, mask, confidence or keypoints over it on a canvas.
 *
 * The canvas has the image's size, a multiple of it where that is small, or less where it is large.
 */

const MIN_SIDE = 640; // px of the canvas's longer side, so that lines over a small image are fine
const MAX_SIDE = 1920; // px of the same, so that a photo of many megapixels is drawn at once
const MIN_SCORE = 0.2; // from which a keypoint is drawn
const JOINT_COLOR = [255, 209, 102]; // where the model names none
const BONE_COLOR = [53, 195, 232];
const NEAR = 0.06; // of the image's longer side: from so far a joint is meant
const SETTLED_COLOR = [16, 20, 26, 205];

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ImageBitmap} image
 * @param {object|null} update with `arrays`, or null for the image alone
 * @param {object} model of `ready`
 * @param {{view: "map"|"settled"|"confidence", opacity: number, side?: number}} options `side` is the
 *   canvas's longer side in px, by default that of a canvas to be looked at
 */
export function render(canvas, image, update, model, options) {
  const side = Math.max(image.width, image.height);
  const zoom = options.side
    ? options.side / side
    : Math.min(Math.max(1, Math.ceil(MIN_SIDE / side)), MAX_SIDE / side);
  const width = Math.max(1, Math.round(zoom * image.width));
  const height = Math.max(1, Math.round(zoom * image.height));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  context.globalAlpha = 1;
  context.imageSmoothingEnabled = true;
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (update === null) return;
  const { map, active, confidence } = update.arrays;
  if (options.view === "settled" && active) {
    drawArray(context, active, 1, (value) => (value ? [0, 0, 0, 0] : SETTLED_COLOR));
  } else if (options.view === "confidence" && confidence) {
    drawArray(context, confidence, Math.max(options.opacity, 0.35), (value) => [...confidenceColor(value / 255), 255]);
  } else if (map) {
    const colors = palette(model);
    drawArray(context, map, options.opacity, (value) => colors[value]);
  }
  if (update.keypoints) drawSkeleton(context, update, model);
}

/** The colour of a joint as CSS. */
export function jointColor(model, joint) {
  return css(model.keypoint_colors?.[joint] ?? JOINT_COLOR);
}

const css = (color) => `rgb(${color.join(" ")})`;

/**
 * What is at a place of the image: a class and its confidence, or the nearest joint.
 *
 * @param {object} update
 * @param {object} model
 * @param {number} x from 0, left, to 1
 * @param {number} y from 0, top, to 1
 * @returns {{name: string, confidence: number|null, color: string}|null}
 */
export function lookUp(update, model, x, y) {
  const { map, confidence } = update.arrays;
  if (map) {
    const id = valueAt(map, x, y);
    const found = (model.classes ?? []).find((each) => each.id === id);
    const sure = confidence ? valueAt(confidence, x, y) / 255 : null;
    return { name: found?.name ?? `class ${id}`, confidence: sure, color: css(found?.color ?? [0, 0, 0]) };
  }
  let best = null;
  let nearest = NEAR * Math.max(update.width, update.height);
  (update.keypoints ?? []).forEach(([jointX, jointY, score], joint) => {
    const distance = Math.hypot(jointX - x * update.width, jointY - y * update.height);
    if (score >= MIN_SCORE && distance < nearest) {
      nearest = distance;
      best = { name: model.keypoints[joint] ?? `joint ${joint}`, confidence: score, color: jointColor(model, joint) };
    }
  });
  return best;
}

function valueAt(array, x, y) {
  const [height, width] = array.shape;
  const row = Math.min(height - 1, Math.floor(y * height));
  return array.data[row * width + Math.min(width - 1, Math.floor(x * width))];
}

/** The colours of class ids 0 to 255, as [red, green, blue, alpha]. */
export function palette(model) {
  const colors = Array.from({ length: 256 }, () => [0, 0, 0, 255]);
  for (const { id, color } of model.classes ?? []) colors[id] = [...color, 255];
  return colors;
}

/** Share of each class id in a map, as a Map from id to 0..1. */
export function shares(map) {
  const counts = new Uint32Array(256);
  for (const value of map.data) counts[value] += 1;
  const found = new Map();
  counts.forEach((count, id) => count && found.set(id, count / map.data.length));
  return found;
}

/** Share of pixels that differ between two maps of one shape, or null. */
export function changedShare(previous, map) {
  if (!previous || !map || previous.data.length !== map.data.length) return null;
  let changed = 0;
  for (let i = 0; i < map.data.length; i += 1) changed += previous.data[i] !== map.data[i];
  return changed / map.data.length;
}

/** Draws an array over the canvas, each value in its colour, without smoothing. */
function drawArray(context, array, opacity, colorOf) {
  const [height, width] = array.shape;
  const table = new Uint32Array(256);
  const bytes = new Uint8ClampedArray(table.buffer);
  for (let value = 0; value < 256; value += 1) bytes.set(colorOf(value), 4 * value);
  const layer = new ImageData(width, height);
  const pixels = new Uint32Array(layer.data.buffer);
  for (let i = 0; i < pixels.length; i += 1) pixels[i] = table[array.data[i]];
  const scratch = new OffscreenCanvas(width, height);
  scratch.getContext("2d").putImageData(layer, 0, 0);
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = false;
  context.drawImage(scratch, 0, 0, context.canvas.width, context.canvas.height);
  context.globalAlpha = 1;
}

/** From dark violet over teal to light yellow: lightness rises evenly with the value. */
function confidenceColor(value) {
  const stops = [
    [48, 18, 84],
    [38, 84, 130],
    [32, 144, 140],
    [112, 200, 98],
    [250, 232, 92],
  ];
  const position = value * (stops.length - 1);
  const low = Math.min(Math.floor(position), stops.length - 2);
  const weight = position - low;
  return stops[low].map((start, i) => Math.round(start + weight * (stops[low + 1][i] - start)));
}

function drawSkeleton(context, update, model) {
  const skeleton = model.skeleton ?? [];
  const { width, height } = context.canvas;
  const thick = Math.max(2, Math.round(Math.max(width, height) / 110));
  const points = update.keypoints.map(([x, y, score]) =>
    score < MIN_SCORE ? null : { x: (x * width) / update.width, y: (y * height) / update.height },
  );
  context.lineCap = "round";
  for (const [outline, extra] of [["rgba(10, 14, 18, 0.7)", 2], [null, 0]]) {
    context.lineWidth = thick + extra;
    for (const [a, b] of skeleton) {
      if (!points[a] || !points[b]) continue;
      context.strokeStyle = outline ?? css(model.keypoint_colors?.[b] ?? BONE_COLOR);
      context.beginPath();
      context.moveTo(points[a].x, points[a].y);
      context.lineTo(points[b].x, points[b].y);
      context.stroke();
    }
  }
  points.forEach((point, joint) => {
    if (!point) return;
    context.beginPath();
    context.arc(point.x, point.y, 0.9 * thick, 0, 2 * Math.PI);
    context.fillStyle = jointColor(model, joint);
    context.fill();
    context.lineWidth = 1;
    context.strokeStyle = "rgba(10, 14, 18, 0.8)";
    context.stroke();
  });
}
