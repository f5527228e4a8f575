import {
  add,
  cast,
  concat,
  div,
  equal,
  less,
  matMul,
  mul,
  reduceSum,
  reshape,
  slice,
  softmax,
  vector,
} from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import type { LinearAdapter } from "../nn/scope.ts";
import type { Adapter } from "./adapter.ts";
import { type LoraOptions, lora, loraModules, loraNames } from "./lora.ts";

export type LoraMoeOptions = Omit<LoraOptions, "rankPattern">;

/** Name of a module's router in files: W_r [2M - 1, in] for M experts. */
export const routerName = (module: string): string => `${module}.lora_router.weight`;

/** The place of the m-th foreign expert of a module, from 1: its pair is named below it as the module's own is. */
export const expertPlace = (module: string, m: number): string => `${module}.expert_${m}`;

/**
 * A mixture of LoRA experts that a router weighs for each token, where a strategy starts a router; plain LoRA until then.
 * Of 2M - 1 slots the first M belong to the own expert, one to each foreign one, so that the M most likely slots always
 * hold the own expert: `y = W x + scaling * sum_e g_e(x) B_e A_e x`, with g the softmax over the slots, cut to those and
 * divided by their sum.
 *
 * Wang et al., NeurIPS 2025, section 3. https://arxiv.org/abs/2509.15087
 */
export function loraMoe(options: LoraMoeOptions): Adapter {
  return {
    name: "lora-moe",
    attach(base) {
      const pairs = lora(options).attach(base);
      const modules = loraModules(base, options);
      return {
        parameters: pairs.parameters,
        linear: new Map(
          modules.map(({ module, scaling }) => [
            module,
            mixture(scaling, pairs.linear.get(module) ?? ((_, __, y) => y)),
          ]),
        ),
        merge(weights, params) {
          const routed = modules.find(({ module }) => params.has(routerName(module)));
          if (routed) {
            throw new RangeError(
              `lora-moe: "${routed.module}" has a router, so its change depends on the token and cannot be merged`,
            );
          }
          return pairs.merge(weights, params);
        },
      };
    },
  };
}

/** The layer of a module: the mixture where its scope holds a router, else `alone`. */
export function mixture(scaling: number, alone: LinearAdapter): LinearAdapter {
  return (w, x, y) => {
    if (!w.has("lora_router.weight")) return alone(w, x, y);
    const router = w.get("lora_router.weight");
    const experts = (Number(router.shape[0]) + 1) / 2; // M
    const places = [w, ...Array.from({ length: experts - 1 }, (_, i) => w.at(`expert_${i + 1}`))];
    const a = concat(
      places.map((place) => place.get("lora_A.weight")),
      0,
    ); // [M rank, in]
    const b = concat(
      places.map((place) => place.get("lora_B.weight")),
      1,
    ); // [out, M rank]
    const shares = expertShares(softmax(matMul(x, router, { transB: true })), experts); // [..., M]
    const lead = x.shape.slice(0, -1);
    const width = Number(a.shape[0]);
    const inner = reshape(matMul(x, a, { transB: true }), [...lead, experts, width / experts]);
    const weighed = reshape(mul(inner, reshape(shares, [...lead, experts, 1])), [...lead, width]);
    return add(y, matMul(weighed, b, { transB: true, alpha: scaling }));
  };
}

/**
 * Shares [..., M] of the experts, the own one first, from the probabilities [..., 2M - 1] of the slots. A slot counts if
 * fewer than M are before it, by probability and then by number.
 */
function expertShares(slots: Value, experts: number): Value {
  const size = 2 * experts - 1;
  const last = slots.shape.length - 1;
  const one = reshape(slots, [...slots.shape.slice(0, -1), size, 1]);
  const other = reshape(slots, [...slots.shape.slice(0, -1), 1, size]);
  const earlier = Float32Array.from({ length: size * size }, (_, i) =>
    i % size < Math.floor(i / size) ? 1 : 0,
  );
  const ties = mul(cast(equal(one, other), slots.dtype), cast(vector(earlier, [size, size]), slots.dtype));
  const before = reduceSum(add(cast(less(one, other), slots.dtype), ties), { axes: [last + 1] }); // [..., 2M - 1]
  const chosen = mul(slots, cast(less(before, experts), slots.dtype));
  const shares = div(chosen, reduceSum(chosen, { axes: [last], keepDims: true }));
  const own = reduceSum(slice(shares, last, 0, experts), { axes: [last], keepDims: true });
  return experts === 1 ? own : concat([own, slice(shares, last, experts, size)], last);
}

/** Names of the own pair of a module at its plain place, or of a foreign expert's. */
export const expertNames = (module: string, m = 0): ReturnType<typeof loraNames> =>
  loraNames(m === 0 ? module : expertPlace(module, m));
