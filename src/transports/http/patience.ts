/** A signal for one request. */
export interface Patience {
  /** Aborts with the signal that was given, or after the time. */
  readonly signal: AbortSignal;
  /** The request is over: nothing is waited for any more. */
  end(): void;
}

/**
 * Waits for a request no longer than `ms`, and no longer than a signal. `fetch` holds its signal weakly: one made by
 * `AbortSignal.any` that nobody else holds may be collected before it fires (Node 20), and the request would wait for ever.
 */
export function patience(ms: number, signal?: AbortSignal): Patience {
  const controller = new AbortController();
  const stop = (): void => controller.abort(signal?.reason);
  const timer =
    ms === Number.POSITIVE_INFINITY
      ? undefined
      : setTimeout(
          () => controller.abort(new Error(`no answer within ${Math.round(ms / 1000)} s`)),
          Math.min(ms, 2 ** 31 - 1),
        );
  if (signal?.aborted) stop();
  else signal?.addEventListener("abort", stop, { once: true });
  return {
    signal: controller.signal,
    end() {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    },
  };
}
