import { gather } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import type { Scope } from "./scope.ts";

/** Rows of the table `weight` [rows, D] at int64 indices [...]: [..., D]. */
export function embedding(w: Scope, indices: Value): Value {
  return gather(w.get("weight"), indices);
}
