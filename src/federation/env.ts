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
  /** Moves both clocks and wakes, in order of time, every sleeper that is due; lets what woke run before the next. */
  advance(ms: number): Promise<void>;
}

interface Sleeper {
  readonly at: number;
  readonly order: number;
  wake(): void;
}

/** A virtual clock for simulations and tests. */
export function virtualEnv(): VirtualEnv {
  let now = 0;
  let order = 0;
  const sleepers = new Set<Sleeper>();
  return {
    hash: webHash,
    monotonic: () => now,
    wall: () => now,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        const sleeper: Sleeper = {
          at: now + ms,
          order: order++,
          wake() {
            sleepers.delete(sleeper);
            signal?.removeEventListener("abort", stop);
            resolve();
          },
        };
        const stop = (): void => {
          sleepers.delete(sleeper);
          reject(signal?.reason);
        };
        sleepers.add(sleeper);
        signal?.addEventListener("abort", stop, { once: true });
      }),
    async advance(ms) {
      const end = now + ms;
      for (;;) {
        const due = [...sleepers]
          .filter(({ at }) => at <= end)
          .sort((a, b) => a.at - b.at || a.order - b.order)[0];
        if (!due) break;
        now = Math.max(now, due.at);
        due.wake();
        await settled();
      }
      now = end;
    },
  };
}

/** Lets every promise that is ready run, by one turn of the event loop. */
function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
