/**
 * Images from a file, a sample or the camera: the file to send and the bitmap to draw.
 *
 * The server takes JPEG, PNG and WebP of any size up to a number of pixels and bytes, and brings them
 * to the sizes that it computes at. Everything else that the browser can decode is sent as a JPEG.
 */

const SENT_AS_IS = new Set(["image/jpeg", "image/png", "image/webp"]);

const LONGEST_PICTURE_MS = 100;

/**
 * @typedef {object} SourceImage
 * @property {ImageBitmap} bitmap upright
 * @property {ArrayBuffer} file
 * @property {string} mediaType
 * @property {string} name
 */

/**
 * @param {Blob} blob
 * @param {string} name
 * @param {{max_pixels: number, max_payload_bytes: number}} limits
 * @returns {Promise<SourceImage>}
 */
export async function imageFromBlob(blob, name, limits) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    throw new Error(`${name} is not an image that this browser can show.`);
  }
  const pixels = bitmap.width * bitmap.height;
  if (pixels > limits.max_pixels) {
    const found = `${bitmap.width} x ${bitmap.height} px`;
    bitmap.close();
    throw new Error(`${name} has ${found}, the server takes ${millions(limits.max_pixels)} million: make it smaller.`);
  }
  if (blob.size <= limits.max_payload_bytes && SENT_AS_IS.has(blob.type)) {
    return { bitmap, file: await blob.arrayBuffer(), mediaType: blob.type, name };
  }
  return encodeJpeg(bitmap, name, 0.92);
}

/**
 * The frame that a video shows now.
 *
 * @param {HTMLVideoElement} video that plays
 * @param {string} name
 * @returns {Promise<SourceImage>}
 */
export async function imageFromVideo(video, name) {
  return encodeJpeg(await createImageBitmap(video), name, 0.85);
}

/** Waits until a video shows another picture, or a while where the browser does not tell. */
export function nextPicture(video) {
  return new Promise((resolve) => {
    setTimeout(resolve, LONGEST_PICTURE_MS);
    video.requestVideoFrameCallback?.(resolve);
  });
}

async function encodeJpeg(bitmap, name, quality) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality });
  return { bitmap, file: await blob.arrayBuffer(), mediaType: "image/jpeg", name };
}

const millions = (pixels) => (pixels / 1e6).toFixed(1);
