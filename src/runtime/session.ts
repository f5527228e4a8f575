import type { Params } from "../tensor/params.ts";

/** Where a session computes. */
export type Device = "cpu" | "wasm" | "webgpu" | "cuda";

export interface SessionOptions {
  /** Default: the processor ("cpu" in Node.js, "wasm" in a browser). */
  readonly device?: Device;
  /** Threads inside one operator. Default 1, which makes results independent of the machine's load. */
  readonly threads?: number;
  /**
   * Whether the memory of one run is kept for the next. Default: true, which is faster. Without it a session that rests takes
   * no room beside another that works.
   */
  readonly keepsMemory?: boolean;
  /** Bytes of the constants that the graph leaves out, by their places. The session copies them. Default: none. */
  readonly constants?: ReadonlyMap<string, Uint8Array>;
}

/** A compiled graph. It owns its buffers; `dispose` frees them. */
export interface Session {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly device: Device;
  readonly threads: number;
  /**
   * Computes all outputs. Surplus feeds are ignored, so that one set of feeds can serve several sessions; a missing
   * one is an error that names it. Blocks the thread on the CPU: run it in a worker where others wait.
   */
  run(feeds: Params): Promise<Params>;
  dispose(): Promise<void>;
}

/** What `#ort` provides on each platform. */
export interface Runtime {
  readonly name: string;
  readonly version: string;
  readonly devices: readonly Device[];
  /** Compiles ONNX bytes. Throws TributaryError "device-absent" for a device that this platform does not have. */
  openSession(graph: Uint8Array, options?: SessionOptions): Promise<Session>;
}
