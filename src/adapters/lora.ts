import { add, matMul } from "../graph/ops.ts";
import type { LinearAdapter } from "../nn/scope.ts";
import { leadingSvd } from "../tensor/linalg.ts";
import { matrixOf, tensorOf } from "../tensor/matrix.ts";
import type { Params } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import { float32, type Tensor, zeros } from "../tensor/tensor.ts";
import type { Adapter, AdapterBase, AdapterParameter, Start } from "./adapter.ts";
import { denseCopy, moduleOf, modulesAbove, pick } from "./dense-subset.ts";
import { addLowRank } from "./merge.ts";
import { type Candidate, chooseModules, matches, patternValue, type Target } from "./target.ts";

export interface LoraOptions {
  readonly rank: number;
  readonly alpha: number;
  readonly target: Target;
  /** Modules that the target chooses and that stay as they are: suffixes or a regular expression. Default: none. */
  readonly exclude?: Target;
  /** Scales by alpha / sqrt(rank) instead of alpha / rank. Default: false. */
  readonly rsLora?: boolean;
  /**
   * How A starts: uniform in ±1/sqrt(in), or normal with deviation 1/rank; B starts at 0. Or "principal": both from the
   * leading singular triplets of the weight, which whoever trains has to take out of the base. Default: "kaiming-uniform".
   */
  readonly init?: "kaiming-uniform" | "gaussian" | "principal";
  /** Ranks of single modules, by regular expressions of suffixes. */
  readonly rankPattern?: Readonly<Record<string, number>>;
  /** Alphas of single modules, by regular expressions of suffixes. */
  readonly alphaPattern?: Readonly<Record<string, number>>;
  /** Modules that are trained as dense copies, by suffix; names that the model does not have are passed over. */
  readonly modulesToSave?: readonly string[];
}

/** Names of the two factors of a module in files: A [rank, in] and B [out, rank]. */
export const loraNames = (module: string): { readonly loraA: string; readonly loraB: string } => ({
  loraA: `${module}.lora_A.weight`,
  loraB: `${module}.lora_B.weight`,
});

/** The factor of `B A`: alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski, 2023, arXiv 2312.03732). */
export function loraScaling(rank: number, alpha: number, rsLora = false): number {
  return alpha / (rsLora ? Math.sqrt(rank) : rank);
}

/** A module that carries factors. */
export interface LoraModule {
  readonly module: string;
  readonly rank: number;
  readonly scaling: number;
  readonly shape: readonly [out: number, from: number];
}

/**
 * LoRA: `y = W x + scaling * B A x` with W frozen. Hu et al., ICLR 2022, section 4.1. https://arxiv.org/abs/2106.09685
 */
export function lora(options: LoraOptions): Adapter {
  const { init = "kaiming-uniform", modulesToSave = [] } = options;
  return {
    name: "lora",
    attach(base) {
      const saved = savedTensors(base, modulesToSave);
      const adapted = loraModules(base, options);
      const parameters = new Map<string, AdapterParameter>();
      for (const { module, rank, scaling, shape } of adapted) {
        const [out, from] = shape;
        const { loraA, loraB } = loraNames(module);
        const principal = (start: Start) => principalPair(module, start, rank, scaling);
        parameters.set(loraA, {
          shape: [rank, from],
          trainable: true,
          start: (start) =>
            init === "principal" ? principal(start).a : startA(loraA, rank, from, init, start.seed),
        });
        parameters.set(loraB, {
          shape: [out, rank],
          trainable: true,
          start: (start) => (init === "principal" ? principal(start).b : zeros("float32", [out, rank])),
        });
      }
      for (const name of saved) parameters.set(name, denseCopy(base, name));
      return {
        parameters,
        linear: new Map(adapted.map(({ module, scaling }) => [module, loraLinear(scaling)])),
        merge(weights, params) {
          const changed = pick(params, saved);
          for (const { module, scaling } of adapted)
            changed.set(...mergedModule(base, weights, params, module, scaling));
          return changed;
        },
      };
    },
  };
}

/** The modules that a choice of options adapts, with their ranks and scalings. */
export function loraModules(base: AdapterBase, options: LoraOptions): LoraModule[] {
  const {
    rank,
    alpha,
    target,
    exclude = [],
    rsLora = false,
    rankPattern = {},
    alphaPattern = {},
    modulesToSave = [],
  } = options;
  const shapes = modulesOf(base);
  const saved = new Set(savedTensors(base, modulesToSave));
  return chooseModules(shapes, target)
    .filter((module) => !saved.has(`${module}.weight`) && !matches(module, exclude))
    .map((module) => {
      const { linear, shape } = shapes.get(module) ?? { linear: false, shape: [] };
      const [out, from] = shape;
      if (!linear || out === undefined || from === undefined) {
        throw new RangeError(
          `lora: target ${JSON.stringify(target)} chooses "${module}", which is not a linear layer`,
        );
      }
      const moduleRank = patternValue(rankPattern, module, rank);
      if (!Number.isInteger(moduleRank) || moduleRank < 1) {
        throw new RangeError(
          `lora: got rank ${moduleRank} for "${module}", expected an integer of at least 1`,
        );
      }
      const moduleAlpha = patternValue(alphaPattern, module, alpha);
      return {
        module,
        rank: moduleRank,
        scaling: loraScaling(moduleRank, moduleAlpha, rsLora),
        shape: [out, from],
      };
    });
}

/** The layer of a module. */
export function loraLinear(scaling: number): LinearAdapter {
  return (w, x, y) => {
    const inner = matMul(x, w.get("lora_A.weight"), { transB: true }); // [..., rank]
    return add(y, matMul(inner, w.get("lora_B.weight"), { transB: true, alpha: scaling }));
  };
}

function startA(name: string, rank: number, from: number, init: LoraOptions["init"], seed: number): Tensor {
  const values = new Float32Array(rank * from);
  const random = stream({ seed, purpose: `init/${name}` });
  if (init === "gaussian") random.fillNormal(values, 0, 1 / rank);
  else random.fillUniform(values, -1 / Math.sqrt(from), 1 / Math.sqrt(from));
  return float32([rank, from], values);
}

/**
 * PiSSA's split of a weight: B = U (Σ/s)^½ and A = (Σ/s)^½ Vᵀ of its leading triplets, so that s B A is its best
 * approximation. Meng et al., NeurIPS 2024, section 3. https://arxiv.org/abs/2404.02948
 */
export function principalPair(
  module: string,
  { base, seed }: Start,
  rank: number,
  scaling: number,
): { readonly a: Tensor; readonly b: Tensor } {
  const weight = base.get(`${module}.weight`);
  if (!weight)
    throw new RangeError(`lora: the base holds no ${module}.weight to start a principal pair from`);
  const { u, singularValues, vt } = leadingSvd(
    matrixOf(weight),
    rank,
    stream({ seed, purpose: `principal/${module}` }),
  );
  const roots = singularValues.map((sigma) => Math.sqrt(sigma / scaling));
  if (roots.length < rank)
    throw new RangeError(
      `lora: ${module} is [${weight.shape}], so a principal pair has rank ${roots.length} at most; got ${rank}`,
    );
  return {
    a: tensorOf({ ...vt, data: vt.data.map((x, i) => x * (roots[Math.floor(i / vt.cols)] ?? 0)) }),
    b: tensorOf({ ...u, data: u.data.map((x, i) => x * (roots[i % u.cols] ?? 0)) }),
  };
}

interface Module extends Candidate {
  readonly shape: readonly number[];
}

/** Modules with a weight, by name; those that are tied to another tensor too. */
function modulesOf({ parameters, tied }: AdapterBase): Map<string, Module> {
  const modules = new Map<string, Module>();
  for (const [name, { shape, kind, head = false }] of parameters) {
    if (name.endsWith(".weight")) modules.set(moduleOf(name), { linear: kind === "linear", head, shape });
  }
  for (const [name, stored] of tied) {
    const shape = parameters.get(stored)?.shape;
    if (shape) modules.set(moduleOf(name), { linear: true, head: true, shape });
  }
  return modules;
}

/** Tensors of the modules that are trained as dense copies. */
function savedTensors(base: AdapterBase, modulesToSave: readonly string[]): string[] {
  if (modulesToSave.length === 0) return [];
  const names = [...base.parameters.keys(), ...base.tied.keys()];
  const saved = names.filter((name) => modulesAbove(name).some((module) => matches(module, modulesToSave)));
  if (saved.length === 0) {
    throw new RangeError(
      `lora: modulesToSave ${JSON.stringify(modulesToSave)} matches no module of the model`,
    );
  }
  return saved;
}

function mergedModule(
  { parameters }: AdapterBase,
  weights: Params,
  params: Params,
  module: string,
  scaling: number,
): [string, Tensor] {
  const name = `${module}.weight`;
  const weight = weights.get(name);
  if (!parameters.has(name)) {
    throw new RangeError(
      `lora: "${name}" is tied to another tensor, so it cannot be merged alone; leave it out of target`,
    );
  }
  const { loraA, loraB } = loraNames(module);
  const [a, b] = [params.get(loraA), params.get(loraB)];
  if (!weight || !a || !b)
    throw new RangeError(`lora: merging "${module}" needs ${name}, ${loraA} and ${loraB}`);
  return [name, addLowRank(weight, { left: b, right: a, scale: scaling })];
}
