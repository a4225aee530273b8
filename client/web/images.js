/**
 * Images from a file, a sample or the camera: the file to send and the bitmap to draw.
 *
 * The server takes JPEG, PNG and WebP up to a number of pixels and bytes; everything else that the
 * browser can decode is converted to a JPEG that fits.
 */

const SENT_AS_IS = new Set(["image/jpeg", "image/png", "image/webp"]);
const CAMERA_WIDTH = 640;

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
  const fits = pixels <= limits.max_pixels && blob.size <= limits.max_payload_bytes;
  if (fits && SENT_AS_IS.has(blob.type)) {
    return { bitmap, file: await blob.arrayBuffer(), mediaType: blob.type, name };
  }
  return encodeJpeg(bitmap, Math.min(1, Math.sqrt(limits.max_pixels / pixels)), name, 0.92);
}

/**
 * @param {HTMLVideoElement} video that plays
 * @returns {Promise<SourceImage>}
 */
export async function imageFromVideo(video) {
  const scale = Math.min(1, CAMERA_WIDTH / video.videoWidth);
  return encodeJpeg(await createImageBitmap(video), scale, "Camera", 0.85);
}

async function encodeJpeg(bitmap, scale, name, quality) {
  const width = Math.max(1, Math.floor(bitmap.width * scale));
  const height = Math.max(1, Math.floor(bitmap.height * scale));
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality });
  const file = await blob.arrayBuffer();
  return { bitmap: await createImageBitmap(canvas), file, mediaType: "image/jpeg", name };
}
