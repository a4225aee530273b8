/**
 * The protocol `anytime.v1` for JavaScript, in browsers and in Node 18 or later, without other packages.
 *
 * Over HTTP, `readMessages` reads the messages of an answer in `application/x-ndjson`; over a websocket,
 * `encodeInfer` (also of the frames of a stream) and `decodeFrame` make and read its frames. Either way `decodeArrays` gives the maps of an
 * update, and `paint` the colours of a map. docs/CLIENTS.md has an example of each, docs/PROTOCOL.md is the
 * definition. Every number is checked before it is used.
 */

export const PROTOCOL = "anytime.v1";

/** Kinds of binary frames. */
export const KIND = Object.freeze({ message: 0, infer: 1, update: 2, frame: 3 });

/** Something that the protocol does not allow. */
export class ProtocolError extends Error {}

/**
 * The messages of an answer in `application/x-ndjson`, as they come.
 *
 * @param {ReadableStream<Uint8Array>} body of a `fetch` response
 * @yields {{header: object, payload: Uint8Array}}
 */
export async function* readMessages(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const lines = (rest + (value ?? "")).split("\n");
      rest = done ? "" : lines.pop();
      for (const line of lines) if (line !== "") yield decodeText(line);
      if (done) return;
    }
  } finally {
    reader.cancel(); // who leaves the loop cancels the request
  }
}

/**
 * The colours of a map, to be put on a canvas as `new ImageData(paint(map, classes), width, height)`.
 *
 * @param {{data: Uint8Array, shape: number[]}} map class ids
 * @param {{id: number, color: number[]}[]} classes of the model's description
 * @returns {Uint8ClampedArray} red, green, blue, alpha of each pixel; ids of no class are transparent
 */
export function paint(map, classes) {
  const colors = new Uint8ClampedArray(4 * 256);
  for (const { id, color } of classes) colors.set([...color, 255], 4 * id);
  const table = new Uint32Array(colors.buffer);
  return new Uint8ClampedArray(Uint32Array.from(map.data, (id) => table[id]).buffer);
}

/**
 * @param {object} header a message of type `infer` or `frame`
 * @param {ArrayBuffer} payload the image file
 * @returns {Blob} a binary frame; a Blob, so that a large file is not copied
 */
export function encodeInfer(header, payload) {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const prefix = new DataView(new ArrayBuffer(8));
  prefix.setUint32(0, KIND[header.type]);
  prefix.setUint32(4, json.length);
  return new Blob([prefix.buffer, json, payload]);
}

/**
 * @param {ArrayBuffer|string} data a websocket message
 * @returns {{header: object, payload: Uint8Array}}
 */
export function decodeFrame(data) {
  if (typeof data === "string") return decodeText(data);
  if (data.byteLength < 8) throw new ProtocolError("a frame of less than 8 bytes");
  const size = new DataView(data).getUint32(4);
  if (8 + size > data.byteLength) throw new ProtocolError("a truncated frame");
  const json = new TextDecoder().decode(new Uint8Array(data, 8, size));
  return { header: JSON.parse(json), payload: new Uint8Array(data, 8 + size) };
}

/** A message in its text form, whose payload is base64. */
function decodeText(text) {
  const { payload = "", ...header } = JSON.parse(text);
  return { header, payload: Uint8Array.from(atob(payload), (character) => character.charCodeAt(0)) };
}

/**
 * The array that a delta makes of its base.
 *
 * @param {Uint8Array} base is left as it is
 * @param {Uint8Array} delta counters, then values
 * @returns {Uint8Array}
 */
export function applyDelta(base, delta) {
  if (delta.length < 4) throw new ProtocolError("a delta of less than 4 bytes");
  const view = new DataView(delta.buffer, delta.byteOffset, delta.byteLength);
  const runs = view.getUint32(0);
  let value = 4 + 8 * runs;
  if (value > delta.length) throw new ProtocolError("a delta shorter than its counters");
  const result = base.slice();
  let position = 0;
  for (let run = 0; run < runs; run += 1) {
    const start = position + view.getUint32(4 + 4 * run);
    const length = view.getUint32(4 + 4 * (runs + run));
    position = start + length;
    if (length === 0 || position > result.length || value + length > delta.length) {
      throw new ProtocolError(`run ${run} of a delta does not fit`);
    }
    result.set(delta.subarray(value, value + length), start);
    value += length;
  }
  if (value !== delta.length) throw new ProtocolError("a delta with values left over");
  return result;
}

/**
 * The arrays of an update by name, each with its shape.
 *
 * Encodings are those that can be undone here: `raw` and `delta`, not compressed.
 *
 * @param {object} update header
 * @param {Uint8Array} payload
 * @param {{exit: number, frame?: number, arrays: Object<string, {data: Uint8Array, shape: number[]}>}|null} previous
 *   the last update of the same request or stream, which deltas need; `frame` in streams only
 * @returns {Object<string, {data: Uint8Array, shape: number[]}>} such as `map`, `shape` is `[height, width]`
 */
export function decodeArrays(update, payload, previous) {
  const arrays = {};
  let position = 0;
  for (const segment of update.parts) {
    const data = payload.subarray(position, position + segment.bytes);
    position += segment.bytes;
    arrays[segment.name] = { data: decodeSegment(segment, data, previous), shape: segment.shape };
  }
  if (position !== payload.length) throw new ProtocolError("parts and payload differ in length");
  return arrays;
}

function decodeSegment(segment, data, previous) {
  const size = segment.shape.reduce((product, side) => product * side, 1);
  let array;
  if (segment.compression && segment.compression !== "none") {
    throw new ProtocolError(`${segment.name}: compressed, which was not asked for`);
  } else if (segment.encoding === "raw") {
    array = data.slice();
  } else if (segment.encoding === "delta") {
    const isBase = previous?.exit === segment.base && previous.frame === segment.base_frame;
    const base = isBase ? previous.arrays[segment.name] : undefined;
    if (base?.data.length !== size) throw new ProtocolError(`${segment.name}: a delta without base`);
    array = applyDelta(base.data, data);
  } else {
    throw new ProtocolError(`${segment.name}: ${segment.encoding}, which was not asked for`);
  }
  if (array.length !== size) throw new ProtocolError(`${segment.name}: not of the size announced`);
  return array;
}
