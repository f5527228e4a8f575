import { applyOp, type Value } from "../value.ts";

/**
 * `x`, which whatever reads it sees no earlier than `cause` is computed. What is made of weights alone could be computed at
 * any time, and its room would be taken from then on; this says when.
 */
export function after(x: Value, cause: Value): Value {
  const [value] = applyOp("After", {}, [x, cause], [x]);
  if (value === undefined) throw new Error("graph: an op without outputs");
  return value;
}
