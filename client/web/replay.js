/**
 * Shows the exits of a request once more, slowed down, so that a map is seen to sharpen.
 */

const LASTS_MS = 4000; // of the whole replay, where it is slowed at all
const END_MS = 1200; // for which the last exit stays before the replay is over

export class Replay {
  #timers = [];
  #finish = null;

  get runs() {
    return this.#finish !== null;
  }

  /**
   * @param {number[]} times ms at which each exit was there, rising
   * @param {(index: number, slowness: number) => void} show -1 is the image before its first map
   * @param {() => void} finish called at the end, and when it is stopped
   */
  start(times, show, finish) {
    this.stop();
    this.#finish = finish;
    const slowness = Math.max(1, LASTS_MS / times.at(-1));
    show(-1, slowness);
    times.forEach((time, index) => {
      this.#timers.push(setTimeout(() => show(index, slowness), time * slowness));
    });
    this.#timers.push(setTimeout(() => this.stop(), times.at(-1) * slowness + END_MS));
  }

  stop() {
    this.#timers.forEach(clearTimeout);
    this.#timers = [];
    const finish = this.#finish;
    this.#finish = null;
    finish?.();
  }
}
