import { TributaryError } from "../errors.ts";
import { listNames } from "../tensor/matching.ts";
import { type Params, sortedNames } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Folder, readAll } from "./byte-source.ts";
import { isObject, type Json, type JsonObject, parseJsonObject, quote } from "./json.ts";
import { parseSafetensors, writeSafetensors } from "./safetensors.ts";

/** What `adapter_config.json` says of a LoRA adapter. */
export interface LoraConfigFile {
  readonly rank: number;
  readonly alpha: number;
  /** Scaling alpha / sqrt(rank) in place of alpha / rank. */
  readonly useRslora: boolean;
  readonly dropout: number;
  /** A list matches module paths by suffix; a string is a regular expression of whole paths, or "all-linear". */
  readonly target: string | readonly string[];
  /** Modules that match the target and are left out all the same; in the same two forms. */
  readonly exclude?: string | readonly string[];
  /** DoRA: each module has a magnitude of its rows beside its pair. */
  readonly useDora?: boolean;
  /** Modules that are trained and saved whole. */
  readonly modulesToSave: readonly string[];
  /** Ranks of modules that differ from `rank`; keys are regular expressions of path ends. */
  readonly rankPattern: ReadonlyMap<string, number>;
  /** The same for alpha. */
  readonly alphaPattern: ReadonlyMap<string, number>;
  /** "CAUSAL_LM", "SEQ_CLS", ... */
  readonly taskType?: string;
  readonly baseModel?: string;
  /** Whether base weights are stored [in, out], as in GPT-2. */
  readonly fanInFanOut: boolean;
}

/**
 * An adapter: `<module>.lora_A.weight` [rank, in], `<module>.lora_B.weight` [out, rank], with DoRA
 * `<module>.lora_magnitude_vector` [out], and whole saved modules.
 */
export interface PeftAdapter {
  readonly config: LoraConfigFile;
  readonly params: Params;
}

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";
const PREFIX = "base_model.model.";
const A = ".lora_A.weight";
const B = ".lora_B.weight";
const M = ".lora_magnitude_vector";

/** Keys that change nothing here, whatever their value. */
const INERT: ReadonlySet<string> = new Set([
  "auto_mapping",
  "peft_version",
  "revision",
  "inference_mode",
  "megatron_core",
  "qalora_group_size",
  "runtime_config",
  "ensure_weight_tying",
  "eva_config",
]);

/** Initializations that leave the base weights as they are. */
const PLAIN_INITIALIZATIONS: ReadonlySet<Json> = new Set([true, false, "gaussian", "orthogonal", "eva"]);

/** Reads the adapter of a folder; names lose PEFT's prefix and are the module paths of the checkpoint. */
export async function readPeftAdapter(folder: Folder): Promise<PeftAdapter> {
  const configFile = folder.get(CONFIG);
  const weightsFile = folder.get(WEIGHTS);
  if (configFile === undefined || weightsFile === undefined) {
    const absent = configFile === undefined ? CONFIG : WEIGHTS;
    const hint = folder.has("adapter_model.bin")
      ? "; adapter_model.bin is a pickle, save it again as safetensors"
      : "";
    throw new TributaryError("missing-file", `the adapter folder has no ${absent}${hint}`);
  }
  const config = parseLoraConfig(parseJsonObject(await readAll(configFile), CONFIG));
  const stored = parseSafetensors(await readAll(weightsFile), WEIGHTS).params;
  const params = new Map<string, Tensor>();
  const foreign: string[] = [];
  for (const [key, tensor] of stored) {
    if (key.startsWith(PREFIX)) params.set(key.slice(PREFIX.length), tensor);
    else foreign.push(key);
  }
  if (foreign.length > 0) {
    throw refuse("peft-keys", `${WEIGHTS}: keys without the prefix ${PREFIX}: ${listNames(foreign)}`);
  }
  assertAdapter(config, params, WEIGHTS);
  return { config, params };
}

/** The files of an adapter folder, by name, as PEFT reads them. */
export function writePeftAdapter({ config, params }: PeftAdapter): ReadonlyMap<string, Uint8Array> {
  assertAdapter(config, params, "adapter");
  const prefixed = new Map<string, Tensor>();
  for (const name of sortedNames(params)) {
    const tensor = params.get(name);
    if (tensor !== undefined) prefixed.set(PREFIX + name, tensor);
  }
  const json = `${JSON.stringify(formatLoraConfig(config), undefined, 2)}\n`;
  return new Map([
    [CONFIG, new TextEncoder().encode(json)],
    [WEIGHTS, writeSafetensors(prefixed, new Map([["format", "pt"]]))],
  ]);
}

/** The rank of a module under a configuration. */
export function rankOf({ rank, rankPattern }: LoraConfigFile, module: string): number {
  return byPattern(rankPattern, module) ?? rank;
}

/** The factor of `B A` for a module: alpha / rank, or alpha / sqrt(rank) with rsLoRA. */
export function scalingOf(config: LoraConfigFile, module: string): number {
  const rank = rankOf(config, module);
  const alpha = byPattern(config.alphaPattern, module) ?? config.alpha;
  return alpha / (config.useRslora ? Math.sqrt(rank) : rank);
}

/** Reads the keys of `adapter_config.json`; an option that this engine does not support is refused by name. */
export function parseLoraConfig(json: JsonObject): LoraConfigFile {
  const keys = new Map(Object.entries(json));
  const take = (key: string): Json => {
    const value = keys.get(key) ?? null;
    keys.delete(key);
    return value;
  };
  const type = take("peft_type");
  if (type !== "LORA")
    throw refuse("peft-unsupported", `${CONFIG}: peft_type is ${show(type)}, expected "LORA"`);
  const bias = take("bias") ?? "none";
  if (bias !== "none")
    throw refuse("peft-unsupported", `${CONFIG}: bias ${show(bias)} is not supported, only "none"`);
  const initialization = take("init_lora_weights") ?? true;
  if (!PLAIN_INITIALIZATIONS.has(initialization)) {
    throw refuse(
      "peft-unsupported",
      `${CONFIG}: init_lora_weights ${show(initialization)} is not supported: it changes the base weights; convert the adapter with PEFT's path_initial_model_for_weight_conversion`,
    );
  }
  const rank = count("r", take("r"));
  const exclude = modules("exclude_modules", take("exclude_modules"));
  const target = modules("target_modules", take("target_modules"));
  if (target === undefined) throw refuse("peft-config", `${CONFIG}: target_modules is absent`);
  const saved = take("modules_to_save") ?? [];
  if (!isStrings(saved))
    throw refuse("peft-config", `${CONFIG}: modules_to_save is ${show(saved)}, expected a list of names`);
  const taskType = text("task_type", take("task_type"));
  const baseModel = text("base_model_name_or_path", take("base_model_name_or_path"));
  const config: LoraConfigFile = {
    rank,
    alpha: number("lora_alpha", take("lora_alpha")),
    useRslora: flag("use_rslora", take("use_rslora")),
    ...(flag("use_dora", take("use_dora")) && { useDora: true }),
    dropout: number("lora_dropout", take("lora_dropout") ?? 0),
    target,
    ...(exclude === undefined ? {} : { exclude }),
    modulesToSave: [...new Set(saved)],
    rankPattern: pattern("rank_pattern", take("rank_pattern"), count),
    alphaPattern: pattern("alpha_pattern", take("alpha_pattern"), number),
    ...(taskType === undefined ? {} : { taskType }),
    ...(baseModel === undefined ? {} : { baseModel }),
    fanInFanOut: flag("fan_in_fan_out", take("fan_in_fan_out")),
  };
  const active = [...keys].filter(([key, value]) => !INERT.has(key) && !isOff(value)).map(([key]) => key);
  if (active.length > 0) {
    throw refuse(
      "peft-unsupported",
      `${CONFIG}: not supported: ${active.map((key) => `${key} = ${show(keys.get(key) ?? null)}`).join(", ")}`,
    );
  }
  return config;
}

/** The keys of `adapter_config.json`, in PEFT's spelling. */
export function formatLoraConfig(config: LoraConfigFile): JsonObject {
  return {
    alpha_pattern: Object.fromEntries(config.alphaPattern),
    auto_mapping: null,
    base_model_name_or_path: config.baseModel ?? null,
    bias: "none",
    exclude_modules: config.exclude ?? null,
    fan_in_fan_out: config.fanInFanOut,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: config.alpha,
    lora_dropout: config.dropout,
    modules_to_save: config.modulesToSave.length > 0 ? config.modulesToSave : null,
    peft_type: "LORA",
    r: config.rank,
    rank_pattern: Object.fromEntries(config.rankPattern),
    revision: null,
    target_modules: config.target,
    task_type: config.taskType ?? null,
    use_dora: config.useDora ?? false,
    use_rslora: config.useRslora,
  };
}

/** Checks that the tensors are whole pairs of the configured rank on targeted modules, and saved modules. */
function assertAdapter(config: LoraConfigFile, params: Params, file: string): void {
  const paired = new Set<string>();
  const missing: string[] = [];
  const surplus: string[] = [];
  for (const [name, tensor] of params) {
    const suffix = [A, B].find((ending) => name.endsWith(ending));
    if (config.useDora && name.endsWith(M)) {
      if (!params.has(name.slice(0, -M.length) + A)) surplus.push(name);
      continue;
    }
    if (suffix === undefined) {
      if (!isSaved(config, name)) surplus.push(name);
      continue;
    }
    const module = name.slice(0, -suffix.length);
    if (!isTargeted(config, module)) surplus.push(name);
    const other = module + (suffix === A ? B : A);
    if (!params.has(other)) missing.push(other);
    if (config.useDora && suffix === A && !params.has(module + M)) missing.push(module + M);
    paired.add(module);
    const rank = rankOf(config, module);
    if (tensor.shape.length !== 2 || tensor.shape[suffix === A ? 0 : 1] !== rank) {
      const expected = suffix === A ? `[${rank}, in]` : `[out, ${rank}]`;
      throw refuse(
        "peft-shape",
        `${file}: ${name} has shape [${tensor.shape}], expected ${expected} by ${CONFIG}`,
      );
    }
  }
  if (missing.length > 0 || surplus.length > 0) {
    const parts: string[] = [];
    if (missing.length > 0) parts.push(`missing ${listNames(missing)}`);
    if (surplus.length > 0)
      parts.push(`surplus ${listNames(surplus)} (neither a target nor in modules_to_save)`);
    throw refuse("peft-keys", `${file}: ${parts.join("; ")}`);
  }
  if (paired.size === 0) throw refuse("peft-keys", `${file}: no ${A.slice(1)} of any module`);
}

/** Whether a list of targets names the module. A regular expression is left to the model, which knows its modules. */
function isTargeted({ target }: LoraConfigFile, module: string): boolean {
  if (typeof target === "string") return true;
  return target.some((suffix) => module === suffix || module.endsWith(`.${suffix}`));
}

/** Whether a tensor lies in a saved module: the module's name stands in its path as a whole segment or several. */
function isSaved({ modulesToSave }: LoraConfigFile, name: string): boolean {
  return modulesToSave.some((module) => `.${name}`.includes(`.${module}.`));
}

/** PEFT's rule: the first key that matches the end of the path, at a dot or as a whole. */
function byPattern(patterns: ReadonlyMap<string, number>, module: string): number | undefined {
  for (const [key, value] of patterns) {
    if (new RegExp(`^(.*\\.)?(${key})$`).test(module)) return value;
  }
  return undefined;
}

function isOff(value: Json): boolean {
  if (value === null || value === false) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

function modules(key: string, value: Json): string | readonly string[] | undefined {
  if (value === null) return undefined;
  if (typeof value === "string" || isStrings(value)) return value;
  throw refuse(
    "peft-config",
    `${CONFIG}: ${key} is ${show(value)}, expected a name pattern or a list of names`,
  );
}

function pattern(
  key: string,
  value: Json,
  read: (key: string, value: Json) => number,
): ReadonlyMap<string, number> {
  if (value === null) return new Map();
  if (!isObject(value))
    throw refuse("peft-config", `${CONFIG}: ${key} is ${show(value)}, expected an object`);
  const patterns = new Map<string, number>();
  for (const [name, entry] of Object.entries(value)) {
    try {
      new RegExp(name);
    } catch (cause) {
      throw new TributaryError(
        "peft-config",
        `${CONFIG}: ${key} has ${quote(name)}, not a regular expression`,
        { cause },
      );
    }
    patterns.set(name, read(`${key} ${quote(name)}`, entry));
  }
  return patterns;
}

function count(key: string, value: Json): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 1) return value;
  throw refuse("peft-config", `${CONFIG}: ${key} is ${show(value)}, expected an integer >= 1`);
}

function number(key: string, value: Json): number {
  if (typeof value === "number") return value;
  throw refuse("peft-config", `${CONFIG}: ${key} is ${show(value)}, expected a number`);
}

function flag(key: string, value: Json): boolean {
  if (value === null || typeof value === "boolean") return value ?? false;
  throw refuse("peft-config", `${CONFIG}: ${key} is ${show(value)}, expected true or false`);
}

function text(key: string, value: Json): string | undefined {
  if (value === null) return undefined;
  if (typeof value === "string") return value;
  throw refuse("peft-config", `${CONFIG}: ${key} is ${show(value)}, expected text`);
}

function isStrings(value: Json): value is readonly string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === "string");
}

function show(value: Json): string {
  return typeof value === "string" ? quote(value) : quote(JSON.stringify(value)).slice(1, -1);
}

function refuse(code: string, message: string): TributaryError {
  return new TributaryError(code, message);
}
