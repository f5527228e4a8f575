import type { Tensor } from "./tensor.ts";

/** A named set of tensors. A Map, so that no name from a file can reach a prototype. */
export type Params = ReadonlyMap<string, Tensor>;
