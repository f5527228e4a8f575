import { stream } from "../../src/tensor/random.ts";

export interface MutationOptions {
  readonly seed: number;
  readonly times: number;
  /** Changes stay within the first or the last so many bytes. Default: anywhere. */
  readonly first?: number;
  readonly last?: number;
}

/** Damaged copies of a sound file: bytes changed, set to extremes, swapped, cut out or put in, the end cut off. */
export function* mutations(
  sound: Uint8Array,
  { seed, times, first = sound.length, last = sound.length }: MutationOptions,
): Generator<Uint8Array> {
  for (let i = 0; i < times; i++) {
    const random = stream({ seed, round: i, purpose: "mutations" });
    let bytes = sound.slice();
    const changes = 1 + Math.floor(random.uniform() * 4);
    for (let change = 0; change < changes; change++) {
      const low = Math.max(0, bytes.length - last);
      const high = Math.min(bytes.length, first);
      const at = low + Math.floor(random.uniform() * Math.max(1, high - low));
      const value = Math.floor(random.uniform() * 256);
      switch (Math.floor(random.uniform() * 6)) {
        case 0:
          bytes[at] = value;
          break;
        case 1:
          bytes[at] = [0, 1, 127, 128, 255][value % 5] ?? 0;
          break;
        case 2:
          bytes[at] = (bytes[at] ?? 0) ^ (1 << (value % 8));
          break;
        case 3:
          bytes.fill(255, at, at + 1 + (value % 8));
          break;
        case 4:
          bytes = Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + 1 + (value % 16))]);
          break;
        default:
          bytes =
            value < 64
              ? bytes.slice(0, at)
              : Uint8Array.from([...bytes.subarray(0, at), value, ...bytes.subarray(at)]);
      }
    }
    yield bytes;
  }
}
