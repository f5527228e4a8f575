import type { PeftAdapter } from "../formats/peft.ts";
import type { AdapterBase } from "./adapter.ts";
import { moduleOf, modulesAbove } from "./dense-subset.ts";
import { matches, patternValue, type Target } from "./target.ts";

/** New names of modules by their old ones. */
type Names = ReadonlyMap<string, string>;

/** An adapter as PEFT names it: by the modules that Transformers 5 holds. */
export function inPeftNames(base: AdapterBase, adapter: PeftAdapter): PeftAdapter {
  return base.loadedName === undefined ? adapter : renamed(adapter, loadedModules(base));
}

/** The name of an adapter's parameter in PEFT's files, without their prefix. */
export function peftName({ loadedName = (name) => name }: AdapterBase, key: string): string {
  const { module, part } = splitKey(key);
  return part === "" ? key : `${moduleOf(loadedName(`${module}.weight`))}${part}`;
}

/** An adapter as the checkpoint names it, from a file in those names or in PEFT's. */
export function inCheckpointNames(base: AdapterBase, adapter: PeftAdapter): PeftAdapter {
  if (base.loadedName === undefined) return adapter;
  const loaded = loadedModules(base);
  const names = new Map([...loaded].map(([stored, name]) => [name, stored] as const));
  const foreign = [...adapter.params.keys()].some((key) => {
    const module = splitKey(key).module;
    return names.has(module) && !loaded.has(module);
  });
  return foreign ? renamed(adapter, names) : adapter;
}

function loadedModules({ parameters, loadedName = (name) => name }: AdapterBase): Names {
  const weights = [...parameters.keys()].filter((name) => name.endsWith(".weight"));
  return new Map(weights.map((name) => [moduleOf(name), moduleOf(loadedName(name))]));
}

/** Choices are written out as the modules that they stand for. */
function renamed({ config, params }: PeftAdapter, names: Names): PeftAdapter {
  const chosen = (target: Target): Target =>
    target === "all-linear"
      ? target
      : [...names].filter(([old]) => matches(old, target)).map(([, name]) => name);
  const patterns = (values: ReadonlyMap<string, number>): ReadonlyMap<string, number> =>
    new Map(
      [...names].flatMap(([old, name]) => {
        const value = patternValue(Object.fromEntries(values), old, Number.NaN);
        return Number.isNaN(value) ? [] : [[name.replaceAll(".", "\\."), value] as const];
      }),
    );
  return {
    config: {
      ...config,
      target: chosen(config.target),
      ...(config.exclude === undefined ? {} : { exclude: chosen(config.exclude) }),
      modulesToSave: config.modulesToSave.flatMap((saved) => savedNames(saved, names)),
      rankPattern: patterns(config.rankPattern),
      alphaPattern: patterns(config.alphaPattern),
    },
    params: new Map(
      [...params].map(([key, value]) => {
        const { module, part } = splitKey(key);
        return [`${names.get(module) ?? module}${part}`, value];
      }),
    ),
  };
}

/** A saved module keeps its name unless a module in it changes its own. */
function savedNames(saved: string, names: Names): readonly string[] {
  const within = [...names].filter(([old]) => modulesAbove(old).some((module) => matches(module, [saved])));
  return within.every(([old, name]) => old === name) ? [saved] : within.map(([, name]) => name);
}

function splitKey(key: string): { readonly module: string; readonly part: string } {
  const part = /(\.lora_[AB]\.weight|\.lora_magnitude_vector|\.weight|\.bias)$/.exec(key)?.[0] ?? "";
  return { module: key.slice(0, key.length - part.length), part };
}
