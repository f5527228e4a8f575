import { turnstile } from "./turnstile.ts";

/**
 * Lends one of `places` buffers of `bytes` to a piece of work, which may not keep it; the others wait in line. Buffers are
 * made when they are first needed and used again: fresh memory costs more than what is written into it.
 */
export function lentBuffers(
  places: number,
  bytes: number,
): <T>(work: (buffer: Buffer) => Promise<T>) => Promise<T> {
  const line = turnstile(places);
  const free: Buffer[] = [];
  return (work) =>
    line(async () => {
      const buffer = free.pop() ?? Buffer.allocUnsafeSlow(bytes);
      try {
        return await work(buffer);
      } finally {
        free.push(buffer);
      }
    });
}
