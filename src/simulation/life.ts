import type { Env, VirtualEnv } from "../federation/env.ts";

/** One process between its start and its end. Once it is killed, nothing that it waits for settles any more. */
export interface Life {
  readonly env: Env;
  readonly alive: boolean;
  kill(): void;
  /** Calls `hear` when it is killed; the function that is returned takes that back. */
  onKill(hear: () => void): () => void;
  /** What a piece of work of the outside world comes to, as long as there is somebody to hear of it. */
  hears<T>(work: Promise<T>): Promise<T>;
}

/** A new process on a machine whose clocks differ from others' by `skewMs`. */
export function newLife(clock: VirtualEnv, skewMs: number): Life {
  const born = clock.monotonic();
  const mourners = new Set<() => void>();
  let alive = true;
  return {
    env: {
      hash: clock.hash,
      monotonic: () => clock.monotonic() - born,
      wall: () => clock.wall() + skewMs,
      sleep: (ms, signal) =>
        new Promise((resolve, reject) => {
          if (!alive) return;
          if (signal?.aborted) return reject(signal.reason);
          const cancel = clock.after(ms, () => {
            signal?.removeEventListener("abort", stop);
            if (alive) resolve();
          });
          const stop = (): void => {
            cancel();
            if (alive) reject(signal?.reason);
          };
          signal?.addEventListener("abort", stop, { once: true });
        }),
    },
    get alive() {
      return alive;
    },
    kill() {
      if (!alive) return;
      alive = false;
      for (const hear of mourners) hear();
      mourners.clear();
    },
    onKill(hear) {
      mourners.add(hear);
      return () => mourners.delete(hear);
    },
    hears: (work) =>
      new Promise((resolve, reject) => {
        work.then(
          (value) => alive && resolve(value),
          (error: unknown) => alive && reject(error),
        );
      }),
  };
}
