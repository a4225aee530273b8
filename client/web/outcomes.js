/**
 * What became of requests, in words: ends, errors and what would help, and counts while one is
 * repeated. Nothing here touches the page.
 */

const REASONS = {
  complete: "all exits done",
  deadline: "stopped by the deadline",
  budget: "stopped by the budget",
  satisfied: "good enough",
  cancelled: "cancelled",
  draining: "the server is shutting down",
};

/** Errors that a later frame may escape, as they are about a moment and not about the request. */
const PASSING = new Set(["deadline-exceeded", "overloaded", "too-many-requests", "not-ready", "draining"]);
const TOO_LATE = new Set(["deadline-exceeded", "overloaded"]);

const SHORTEST_PAUSE_MS = 100; // before the next frame after one that failed
const LONGEST_PAUSE_MS = 2000;
const RATE_MS = 3000; // over which frames a second are counted

export const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
export const capitalised = (text) => text[0].toUpperCase() + text.slice(1);
export const asSentence = (text) => `${capitalised(text)}.`.replace(/\.\.$/, ".");
export const reasonOf = (final) => REASONS[final.reason] ?? final.reason;

/**
 * The end of a request as text.
 *
 * @param {object} end a `final`, a stream's `closed`, an `error`, or `{type: "lost"}`
 * @param {(exit: number) => string} exitName
 * @returns {{text: string, isError: boolean, neededMs: number|null}} `neededMs` is the deadline that
 *   would do now, where one was too tight
 */
export function describeEnd(end, exitName) {
  if (end.type === "final") {
    const text = end.exit === 0
      ? `${capitalised(reasonOf(end))} before the first map, after ${milliseconds(end.total_ms)}.`
      : `${capitalised(exitName(end.exit))} in ${milliseconds(end.total_ms)}: ${reasonOf(end)}.`;
    return { text, isError: false, neededMs: null };
  }
  if (end.type === "closed") {
    const frames = `${end.frames} frame${end.frames === 1 ? "" : "s"}`;
    return { text: `Stopped after ${frames}; ${end.skipped || "none"} skipped.`, isError: false, neededMs: null };
  }
  return { text: describeError(end), isError: true, neededMs: end.needed_ms ?? null };
}

function describeError(end) {
  if (end.type === "lost") return "The connection was lost while the request ran.";
  const needed = end.needed_ms === undefined ? null : `a first map takes about ${Math.ceil(end.needed_ms)} ms now`;
  if (end.code === "deadline-exceeded") {
    return needed ? `The deadline is too tight: ${needed}.` : "The deadline is too tight for a first map.";
  }
  if (end.code === "overloaded") {
    if (needed) return `The server is busy: ${needed}.`;
    const after = end.retry_after_ms === undefined ? "" : ` Try again in ${milliseconds(end.retry_after_ms)}.`;
    return `The server is busy.${after}`;
  }
  return asSentence(end.detail);
}

/**
 * The end of a frame as that of a request: a `final` or an `error`.
 *
 * @param {object} end a `frame_end`
 */
export function endOfFrame({ error, ...end }) {
  return error ? { ...error, type: "error" } : { ...end, type: "final" };
}

/**
 * How long to wait before the next frame; null if there is to be none, as it would fail, too.
 *
 * @param {object} end of the frame before
 */
export function pauseBeforeNext(end) {
  if (end.type === "final") return 0;
  if (!PASSING.has(end.code)) return null;
  return Math.min(Math.max(end.retry_after_ms ?? 0, SHORTEST_PAUSE_MS), LONGEST_PAUSE_MS);
}

/** Counts the frames of one source, or of one image that is sent over and over. */
export class Tally {
  #moments = []; // ms at which the latest frames were done
  answered = 0;
  late = 0;
  lateInARow = 0;
  #stream = null; // frames skipped in all, and the share of the last one that was reused

  /**
   * @param {object} end a `frame_end`
   * @param {number} now ms
   */
  addFrame(end, now) {
    this.add(endOfFrame(end), now);
    this.#stream = { skipped: (this.#stream?.skipped ?? 0) + end.skipped, reused: end.reused_share };
  }

  /**
   * @param {object} end of a frame
   * @param {number} now ms
   */
  add(end, now) {
    if (end.type === "final" && end.exit > 0) {
      this.answered += 1;
      this.lateInARow = 0;
      this.#moments.push(now);
    } else if (TOO_LATE.has(end.code)) {
      this.late += 1;
      this.lateInARow += 1;
    }
    this.#moments = this.#moments.filter((moment) => now - moment < RATE_MS);
  }

  /** Such as `12.0 a second; 3 of 90 frames too late; 4 skipped; 71 % reused`; empty before the first frame. */
  get text() {
    const frames = this.answered + this.late;
    if (frames === 0) return "";
    const [first] = this.#moments;
    const seconds = (this.#moments.at(-1) - first) / 1000;
    const rate = this.#moments.length > 1 ? `${((this.#moments.length - 1) / seconds).toFixed(1)} a second; ` : "";
    const late = `${this.late || "none"} of ${frames} frame${frames === 1 ? "" : "s"} too late`;
    if (this.#stream === null) return `${rate}${late}`;
    const { skipped, reused } = this.#stream;
    return `${rate}${late}; ${skipped || "none"} skipped; ${Math.round(100 * reused)} % reused`;
  }
}
