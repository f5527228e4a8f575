import { type Hash, webHash } from "./digest.ts";

/** The outside world as the coordinator sees it: clocks, timers, SHA-256. Deadlines and leases use the monotonic clock. */
export interface Env {
  readonly hash: Hash;
  /** Milliseconds since some fixed moment; never jumps. */
  monotonic(): number;
  /** Milliseconds since 1970, for people. */
  wall(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Resolves when what has arrived so far is taken up; what waits for a commit until then shares it. Default: at once. */
  turn?(): Promise<void>;
}

/** The clocks, timers and SHA-256 that every platform has. */
export function systemEnv(): Env {
  return {
    hash: webHash,
    monotonic: () => performance.now(),
    wall: () => Date.now(),
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        // Longer timers would fire at once.
        const timer = setTimeout(
          () => {
            signal?.removeEventListener("abort", stop);
            resolve();
          },
          Math.min(ms, 2 ** 31 - 1),
        );
        const stop = (): void => {
          clearTimeout(timer);
          reject(signal?.reason);
        };
        signal?.addEventListener("abort", stop, { once: true });
      }),
  };
}

/** An `Env` whose time stands still until it is moved. */
export interface VirtualEnv extends Env {
  /** Calls `wake` once in `ms`, unless what is returned is called before. */
  after(ms: number, wake: () => void): () => void;
  /** Moves both clocks to whoever is due next, wakes it and lets it run; false where nobody is. */
  step(): Promise<boolean>;
  /** Moves both clocks and wakes, in order of time, every sleeper that is due; lets what woke run before the next. */
  advance(ms: number): Promise<void>;
}

/** What a virtual clock stands on. */
export interface VirtualOptions {
  /** Default: that of every platform. */
  readonly hash?: Hash;
  /** Lets every promise that is ready run. Default: one turn of the event loop. */
  readonly settled?: () => Promise<void>;
}

interface Sleeper {
  readonly at: number;
  readonly order: number;
  wake: (() => void) | undefined;
}

/** A virtual clock for simulations and tests. */
export function virtualEnv({ hash = webHash, settled = turn }: VirtualOptions = {}): VirtualEnv {
  let now = 0;
  let order = 0;
  const sleepers: Sleeper[] = [];

  function after(ms: number, wake: () => void): () => void {
    if (ms === Number.POSITIVE_INFINITY) return () => {};
    // On a grid of powers of two sums are exact: nobody wakes a little before its time.
    const at = Math.ceil((now + Math.max(0, ms)) * 1024) / 1024;
    const sleeper: Sleeper = { at, order: order++, wake };
    push(sleepers, sleeper);
    return () => {
      sleeper.wake = undefined;
    };
  }

  /** The next to wake; those that are gone are dropped. */
  function next(): Sleeper | undefined {
    while (sleepers[0] && !sleepers[0].wake) pop(sleepers);
    return sleepers[0];
  }

  async function step(): Promise<boolean> {
    const due = next();
    if (!due?.wake) return false;
    pop(sleepers);
    now = due.at;
    due.wake();
    await settled();
    return true;
  }

  return {
    hash,
    monotonic: () => now,
    wall: () => now,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        const cancel = after(ms, () => {
          signal?.removeEventListener("abort", stop);
          resolve();
        });
        const stop = (): void => {
          cancel();
          reject(signal?.reason);
        };
        signal?.addEventListener("abort", stop, { once: true });
      }),
    after,
    step,
    async advance(ms) {
      const end = now + ms;
      while ((next()?.at ?? Number.POSITIVE_INFINITY) <= end) await step();
      now = end;
    },
  };
}

function isBefore(a: Sleeper, b: Sleeper): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Adds to a binary heap. */
function push(heap: Sleeper[], sleeper: Sleeper): void {
  let place = heap.length;
  heap.push(sleeper);
  while (place > 0) {
    const up = (place - 1) >> 1;
    const above = heap[up];
    if (!above || !isBefore(sleeper, above)) break;
    heap[place] = above;
    place = up;
  }
  heap[place] = sleeper;
}

/** Takes the first out of a binary heap. */
function pop(heap: Sleeper[]): void {
  const last = heap.pop();
  if (!last || heap.length === 0) return;
  let place = 0;
  for (;;) {
    const left = heap[2 * place + 1];
    const right = heap[2 * place + 2];
    const [child, at] =
      right && left && isBefore(right, left) ? [right, 2 * place + 2] : [left, 2 * place + 1];
    if (!child || isBefore(last, child)) break;
    heap[place] = child;
    place = at;
  }
  heap[place] = last;
}

/** Lets every promise that is ready run, by one turn of the event loop. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
