import { TributaryError } from "../errors.ts";
import type { Folder } from "../formats/byte-source.ts";
import { type LoraConfigFile, readPeftAdapter } from "../formats/peft.ts";
import { widen } from "../tensor/convert.ts";
import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { AdapterBase, AttachedAdapter } from "./adapter.ts";
import { dora } from "./dora.ts";
import { type LoraOptions, lora, loraModules } from "./lora.ts";
import { inCheckpointNames } from "./peft-names.ts";

/** The options of an adapter that PEFT has saved. */
export function loraOptionsOf(config: LoraConfigFile): LoraOptions {
  return {
    rank: config.rank,
    alpha: config.alpha,
    target: config.target,
    rsLora: config.useRslora,
    rankPattern: Object.fromEntries(config.rankPattern),
    alphaPattern: Object.fromEntries(config.alphaPattern),
    modulesToSave: config.modulesToSave,
    ...(config.exclude === undefined ? {} : { exclude: config.exclude }),
  };
}

export interface PeftLabels {
  /** "CAUSAL_LM", "SEQ_CLS", ... */
  readonly taskType?: string;
  /** Path or hub name of the base model. */
  readonly baseModel?: string;
}

/** What PEFT needs to know of an adapter; "all-linear" is written out as the paths it stands for, as PEFT does. */
export function peftConfigOf(
  base: AdapterBase,
  options: LoraOptions,
  labels: PeftLabels = {},
): LoraConfigFile {
  const { rank, alpha, target, exclude, rsLora = false, modulesToSave = [] } = options;
  const modules = loraModules(base, options).map(({ module }) => module);
  return {
    rank,
    alpha,
    useRslora: rsLora,
    dropout: 0,
    target: target === "all-linear" ? modules : target,
    modulesToSave,
    rankPattern: new Map(Object.entries(options.rankPattern ?? {})),
    alphaPattern: new Map(Object.entries(options.alphaPattern ?? {})),
    fanInFanOut: modules.some((module) => base.parameters.get(`${module}.weight`)?.transposed ?? false),
    ...labels,
    ...(exclude === undefined ? {} : { exclude }),
  };
}

/** An adapter read from a folder and attached to a model. */
export interface LoadedAdapter {
  readonly options: LoraOptions;
  readonly attached: AttachedAdapter;
  /** Its parameters in float32. */
  readonly params: Params;
}

/** Reads a PEFT folder for a model. Throws TributaryError `adapter-mismatch` where the two do not fit. */
export async function loadPeftAdapter(folder: Folder, base: AdapterBase): Promise<LoadedAdapter> {
  const { config, params: stored } = inCheckpointNames(base, await readPeftAdapter(folder));
  const options = loraOptionsOf(config);
  const attached = (config.useDora ? dora : lora)(options).attach(base);
  return { options, attached, params: fittingParams(attached, stored) };
}

/** The parameters of an attached adapter from a set of tensors that must hold them all and nothing else. */
export function fittingParams(attached: AttachedAdapter, stored: Params): Params {
  const params = new Map<string, Tensor>();
  const problems: string[] = [];
  for (const [name, { shape }] of attached.parameters) {
    const value = stored.get(name);
    if (!value) problems.push(`${name}: missing`);
    else if (value.shape.join() !== shape.join())
      problems.push(`${name}: got [${value.shape}], expected [${shape}]`);
    else params.set(name, widen(value));
  }
  for (const name of stored.keys()) {
    if (!attached.parameters.has(name)) problems.push(`${name}: not a parameter of this model's adapter`);
  }
  if (problems.length > 0) {
    const shown = problems.slice(0, 10).map((line) => `  ${line}`);
    const more = problems.length > 10 ? `\n  and ${problems.length - 10} more` : "";
    throw new TributaryError(
      "adapter-mismatch",
      `adapter: ${problems.length} tensors do not fit the model; was it trained on another one?\n${shown.join("\n")}${more}`,
    );
  }
  return params;
}
