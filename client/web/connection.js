/**
 * One websocket to the server, opened anew when it breaks, and one request or stream of frames at a time on it.
 *
 * A browser does not tell a page why a websocket was refused. So the page asks for `v1/models` first, which has
 * a status: 401 for a token that is missing or wrong.
 *
 * Events are reported through callbacks.
 */

import { PROTOCOL, ProtocolError, decodeArrays, decodeFrame, encodeInfer } from "./protocol.js";

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 8000;
const PROBE_MS = 5000;

/** Close codes after which the same connection would be refused again. */
const FATAL_CLOSE_CODES = new Set([4401, 4403]);

/**
 * @typedef {object} Callbacks
 * @property {(state: "connecting"|"open"|"waiting"|"refused", detail: object) => void} onState
 *   `waiting` has `delay_ms` and `blocked` (the server is there, but no websocket gets through);
 *   `refused` has `hasToken` (one was given, so it is wrong) and `code`
 * @property {(ready: object) => void} onReady
 * @property {(accepted: object) => void} onAccepted
 * @property {(update: object) => void} onUpdate with `arrays` decoded
 * @property {(applied: object) => void} onApplied
 * @property {(end: object) => void} onFrameEnd a `frame_end`
 * @property {(end: object) => void} onEnd a `final`, `closed` or `error`, or `{type: "lost"}`
 */

export class Connection {
  #callbacks;
  #socket = null;
  #delay = FIRST_DELAY_MS;
  #timer = 0;
  #attempt = 0;
  #token = "";
  #count = 0;
  #request = null; // {id, rev, last, frame, isStream}; frame: the last one sent

  /** @param {Callbacks} callbacks */
  constructor(callbacks) {
    this.#callbacks = callbacks;
  }

  /** Whether a request or a stream runs. */
  get busy() {
    return this.#request !== null;
  }

  /** Whether a request can be sent. */
  get open() {
    return this.#socket?.readyState === WebSocket.OPEN && this.#socket.ready === true;
  }

  /** Connects, now and with this token; a connection that stands is closed first. */
  connect(token = this.#token) {
    this.#token = token;
    clearTimeout(this.#timer);
    this.#disconnect();
    this.#attempt += 1;
    this.#open(this.#attempt, token);
  }

  async #open(attempt, token) {
    this.#callbacks.onState("connecting", {});
    const status = await probe(token);
    if (attempt !== this.#attempt) return;
    if (status === 401 || status === 403) {
      this.#callbacks.onState("refused", { code: status, hasToken: token !== "" });
      return;
    }
    if (status !== 200) {
      this.#wait(false);
      return;
    }
    const url = new URL("v1/stream", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const offered = token ? [PROTOCOL, `anytime.token.${base64url(token)}`] : [PROTOCOL];
    const socket = new WebSocket(url, offered);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => this.#receive(socket, event.data);
    socket.onclose = (event) => this.#closed(socket, event);
    this.#socket = socket;
  }

  /**
   * Sends an image; a request that still runs is cancelled first.
   *
   * @param {{model: string, media_type: string, budget: object, want: object}} request
   * @param {ArrayBuffer} image
   */
  infer(request, image) {
    const id = this.#begin(false);
    this.#socket.send(encodeInfer({ type: "infer", id, ...request }, image));
  }

  /**
   * Opens a stream of frames; what still runs is cancelled first.
   *
   * @param {{model: string, budget: object, want: object, reuse: object}} stream
   */
  openStream(stream) {
    const id = this.#begin(true);
    this.#send({ type: "open", id, ...stream });
  }

  /** Whether a stream is open and the frame before has left this machine. */
  get takesFrames() {
    return this.busy && this.#request.isStream && this.open && this.#socket.bufferedAmount === 0;
  }

  /**
   * Sends a frame of the stream.
   *
   * @param {string} mediaType
   * @param {ArrayBuffer} image
   * @returns {number} of the frame; 0 if none can be sent
   */
  sendFrame(mediaType, image) {
    if (!this.takesFrames) return 0;
    this.#request.frame += 1;
    const { id, frame } = this.#request;
    this.#socket.send(encodeInfer({ type: "frame", id, frame, media_type: mediaType }, image));
    return frame;
  }

  /** Replaces the budget of the running request, or of the stream's frames. */
  setBudget(budget) {
    if (!this.busy || !this.open) return;
    this.#request.rev += 1;
    this.#send({ type: "budget", id: this.#request.id, rev: this.#request.rev, budget });
  }

  /** Tells the server to stop at once. */
  cancel() {
    if (!this.busy || !this.open) return;
    this.#send({ type: "cancel", id: this.#request.id });
    this.#request.isStream = false; // no frame may follow
  }

  /** Takes the place of what still runs; returns the id of the new request or stream. */
  #begin(isStream) {
    if (this.busy) this.cancel();
    this.#count += 1;
    const id = `page-${this.#count}`;
    this.#request = { id, rev: 0, last: null, frame: 0, isStream };
    return id;
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #receive(socket, data) {
    if (socket !== this.#socket) return;
    try {
      const { header, payload } = decodeFrame(data);
      if (header.type === "ready") {
        socket.ready = true;
        this.#delay = FIRST_DELAY_MS;
        this.#callbacks.onState("open", {});
        this.#callbacks.onReady(header);
      } else if (header.id !== undefined && header.id === this.#request?.id) {
        this.#handle(header, payload);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError || error instanceof SyntaxError)) throw error;
      socket.close(4400, String(error.message).slice(0, 100));
    }
  }

  #handle(header, payload) {
    const request = this.#request;
    switch (header.type) {
      case "accepted":
        this.#callbacks.onAccepted(header);
        break;
      case "update": {
        const arrays = decodeArrays(header, payload, request.last);
        request.last = { exit: header.exit, frame: header.frame, arrays };
        this.#callbacks.onUpdate({ ...header, arrays });
        break;
      }
      case "budget_applied":
        this.#callbacks.onApplied(header);
        break;
      case "frame_end":
        this.#callbacks.onFrameEnd(header);
        break;
      case "final":
      case "closed":
      case "error":
        this.#request = null;
        this.#callbacks.onEnd(header);
        break;
      default: // of a later server
    }
  }

  #closed(socket, event) {
    if (socket !== this.#socket) return;
    this.#failRequest();
    if (FATAL_CLOSE_CODES.has(event.code)) {
      this.#callbacks.onState("refused", { code: event.code, hasToken: this.#token !== "" });
    } else {
      this.#wait(socket.ready !== true);
    }
  }

  #wait(blocked) {
    this.#callbacks.onState("waiting", { delay_ms: this.#delay, blocked });
    this.#timer = setTimeout(() => this.connect(), this.#delay);
    this.#delay = Math.min(2 * this.#delay, LONGEST_DELAY_MS);
  }

  #disconnect() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
    this.#failRequest();
  }

  #failRequest() {
    if (!this.busy) return;
    this.#request = null;
    this.#callbacks.onEnd({ type: "lost" });
  }
}

/** The status of a request with this token; 0 if the server does not answer. */
async function probe(token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const options = { headers, cache: "no-store", signal: AbortSignal.timeout(PROBE_MS) };
    return (await fetch("v1/models", options)).status;
  } catch {
    return 0;
  }
}

function base64url(text) {
  const bytes = new TextEncoder().encode(text);
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
