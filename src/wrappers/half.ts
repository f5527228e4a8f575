import type { StateTree, Strategy } from "../federation/strategy.ts";
import { convert, widen } from "../tensor/convert.ts";
import { mapParams, type Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { packed } from "./packed.ts";

/** Options of half precision on the wire. */
export interface HalfOptions {
  /** Which 16 bits: finer steps, or the range of float32. Default: "float16". */
  readonly format?: "float16" | "bfloat16";
}

/**
 * Half precision on the wire: parameters go down, and changes come up, in 16 bits. The server keeps its own in full, adds
 * the changes to them, and so loses nothing that is small beside a parameter. What an algorithm sends along stays as it is.
 */
export function half<State extends StateTree>(
  inner: Strategy<State>,
  { format = "float16" }: HalfOptions = {},
): Strategy<State> {
  return packed(
    inner,
    {
      packsValues: true,
      pack: (change) => ({ values: convert(change, format) }),
      unpack: ({ values }) => Float64Array.from(values ? widen(values).data : [], Number),
      down: {
        pack: (params) =>
          each(params, (tensor) => (tensor.dtype === "float32" ? convert(tensor, format) : tensor)),
        unpack: (params) => each(params, (tensor) => (tensor.dtype === format ? widen(tensor) : tensor)),
      },
    },
    { tag: "half", suffix: `sent in ${format}`, errorFeedback: false },
  );
}

const each = (params: Params, change: (tensor: Tensor) => Tensor): Params => mapParams(params, change);
