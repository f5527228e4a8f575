import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bytesSource, type Folder } from "../../src/formats/byte-source.ts";
import { openFolder, writeFileAtomic } from "../../src/formats/files.node.ts";
import { type JsonObject, parseJsonObject } from "../../src/formats/json.ts";
import {
  formatLoraConfig,
  type LoraConfigFile,
  type PeftAdapter,
  parseLoraConfig,
  rankOf,
  readPeftAdapter,
  scalingOf,
  writePeftAdapter,
} from "../../src/formats/peft.ts";
import { parseSafetensors, writeSafetensors } from "../../src/formats/safetensors.ts";
import type { Params } from "../../src/tensor/params.ts";
import { zeros } from "../../src/tensor/tensor.ts";
import { shared } from "../shared.ts";

const config: LoraConfigFile = {
  rank: 2,
  alpha: 8,
  useRslora: false,
  dropout: 0.1,
  target: ["q_proj", "v_proj"],
  modulesToSave: ["classifier", "score"],
  rankPattern: new Map([["layers.1.v_proj", 3]]),
  alphaPattern: new Map([[".*1\\.v_proj", 12]]),
  taskType: "SEQ_CLS",
  baseModel: "some/base",
  fanInFanOut: false,
};

const pair = (module: string, rank: number): [string, ReturnType<typeof zeros>][] => [
  [`${module}.lora_A.weight`, zeros("float32", [rank, 5])],
  [`${module}.lora_B.weight`, zeros("float32", [4, rank])],
];

const params: Params = new Map([
  ...pair("model.layers.0.q_proj", 2),
  ...pair("model.layers.1.v_proj", 3),
  ["classifier.weight", zeros("float32", [2, 5])],
  ["classifier.bias", zeros("float32", [2])],
]);

const open = (files: ReadonlyMap<string, Uint8Array>): Folder =>
  new Map([...files].map(([name, bytes]) => [name, bytesSource(bytes)]));

const sorted = ({ config: settings, params: tensors }: PeftAdapter): unknown => [
  settings,
  new Map([...tensors].sort()),
];

/** The adapter above with other tensors, or other keys in its configuration file. */
function altered(change: { params?: Params; config?: JsonObject }): Folder {
  const files = new Map(writePeftAdapter({ config, params }));
  if (change.params !== undefined) {
    const prefixed = new Map(
      [...change.params].map(([name, tensor]) => [`base_model.model.${name}`, tensor]),
    );
    files.set("adapter_model.safetensors", writeSafetensors(prefixed));
  }
  if (change.config !== undefined) {
    const json = { ...formatLoraConfig(config), ...change.config };
    files.set("adapter_config.json", new TextEncoder().encode(JSON.stringify(json)));
  }
  return open(files);
}

describe("PEFT adapters", () => {
  it("come back from their files as they were", async () => {
    const files = writePeftAdapter({ config, params });
    expect(sorted(await readPeftAdapter(open(files)))).toEqual(sorted({ config, params }));
    const { params: stored, metadata } = parseSafetensors(
      files.get("adapter_model.safetensors") ?? new Uint8Array(),
    );
    expect([...stored.keys()][0]).toBe("base_model.model.classifier.bias");
    expect(metadata.get("format")).toBe("pt");
  });

  it("take rank and alpha of a module from the first pattern that ends its path", () => {
    expect(rankOf(config, "model.layers.1.v_proj")).toBe(3);
    expect(scalingOf(config, "model.layers.1.v_proj")).toBe(4);
    expect(rankOf(config, "model.layers.11.v_proj")).toBe(2);
    expect(scalingOf(config, "model.layers.11.v_proj")).toBe(6);
    expect(scalingOf({ ...config, useRslora: true, rank: 4 }, "x.q_proj")).toBe(4);
  });

  it("name missing and surplus keys", async () => {
    const without = new Map([...params].filter(([name]) => name !== "model.layers.0.q_proj.lora_B.weight"));
    await expect(readPeftAdapter(altered({ params: without }))).rejects.toThrow(
      /missing model.layers.0.q_proj.lora_B.weight/,
    );
    const more = new Map([
      ...params,
      ...pair("model.layers.0.k_proj", 2),
      ["norm.weight", zeros("float32", [1])],
    ] as const);
    await expect(readPeftAdapter(altered({ params: more }))).rejects.toThrow(
      /surplus model.layers.0.k_proj.lora_A.weight, model.layers.0.k_proj.lora_B.weight, norm.weight/,
    );
    const foreign = open(
      new Map([
        ...writePeftAdapter({ config, params }),
        ["adapter_model.safetensors", writeSafetensors(new Map([["x", zeros("float32", [1])]]))],
      ] as const),
    );
    await expect(readPeftAdapter(foreign)).rejects.toThrow(/without the prefix base_model.model.: x/);
    expect(() => writePeftAdapter({ config, params: more })).toThrow(/surplus/);
    expect(() => writePeftAdapter({ config, params: new Map() })).toThrow(/no lora_A.weight/);
  });

  it("of DoRA hold a magnitude for every pair", async () => {
    const magnitudes: Params = new Map([
      ["model.layers.0.q_proj.lora_magnitude_vector", zeros("float32", [4])],
      ["model.layers.1.v_proj.lora_magnitude_vector", zeros("float32", [4])],
    ]);
    const dora = { config: { ...config, useDora: true }, params: new Map([...params, ...magnitudes]) };
    expect(sorted(await readPeftAdapter(open(writePeftAdapter(dora))))).toEqual(sorted(dora));
    expect(() => writePeftAdapter({ ...dora, config })).toThrow(/surplus .*lora_magnitude_vector/);
    expect(() => writePeftAdapter({ ...dora, params })).toThrow(/missing .*lora_magnitude_vector/);
  });

  it("name a tensor whose rank is not the configured one", async () => {
    await expect(readPeftAdapter(altered({ config: { r: 4 } }))).rejects.toThrow(
      /model.layers.0.q_proj.lora_A.weight has shape \[2,5\], expected \[4, in\]/,
    );
  });

  it.each([
    [{ peft_type: "IA3" }, /peft_type is "IA3", expected "LORA"/],
    [{ use_dora: true }, /missing model.layers.0.q_proj.lora_magnitude_vector/],
    [{ bias: "lora_only" }, /bias "lora_only" is not supported/],
    [{ layer_replication: [[0, 2]] }, /not supported: layer_replication = \[\[0,2\]\]/],
    [{ layers_to_transform: [1] }, /not supported: layers_to_transform/],
    [{ lora_bias: true, use_qalora: true }, /lora_bias = true, use_qalora = true/],
    [{ init_lora_weights: "pissa" }, /init_lora_weights "pissa" is not supported/],
    [{ an_option_of_tomorrow: 3 }, /not supported: an_option_of_tomorrow = 3/],
    [{ r: 0 }, /r is 0, expected an integer >= 1/],
    [{ lora_alpha: "16" }, /lora_alpha is "16", expected a number/],
    [{ use_rslora: 1 }, /use_rslora is 1, expected true or false/],
    [{ target_modules: null }, /target_modules is absent/],
    [{ target_modules: [1] }, /target_modules is \[1\]/],
    [{ modules_to_save: "classifier" }, /modules_to_save is "classifier", expected a list/],
    [{ rank_pattern: { "(": 3 } }, /rank_pattern has "\(", not a regular expression/],
    [{ rank_pattern: { a: 1.5 } }, /rank_pattern "a" is 1.5/],
  ] as [JsonObject, RegExp][])("refuse %j by name", async (change, message) => {
    await expect(readPeftAdapter(altered({ config: change }))).rejects.toThrow(message);
  });

  it("say which file a folder lacks, and that pickles are not read", async () => {
    const files = writePeftAdapter({ config, params });
    const only = (...names: string[]): Folder =>
      open(new Map([...files].filter(([name]) => names.includes(name))));
    await expect(readPeftAdapter(only("adapter_model.safetensors"))).rejects.toThrow(
      /no adapter_config.json/,
    );
    const pickled = new Map([
      ...only("adapter_config.json"),
      ["adapter_model.bin", bytesSource(new Uint8Array(1))] as const,
    ]);
    await expect(readPeftAdapter(pickled)).rejects.toThrow(
      /no adapter_model.safetensors; adapter_model.bin is a pickle/,
    );
  });

  it("keep targets as lists or patterns, without repeats in modules_to_save", () => {
    const base = formatLoraConfig(config);
    const read = parseLoraConfig({
      ...base,
      target_modules: ".*proj",
      exclude_modules: ["o_proj"],
      modules_to_save: ["a", "a"],
    });
    expect([read.target, read.exclude, read.modulesToSave]).toEqual([".*proj", ["o_proj"], ["a"]]);
    expect(parseLoraConfig(formatLoraConfig(read))).toEqual(read);
    expect(formatLoraConfig({ ...config, modulesToSave: [] }).modules_to_save).toBeNull();
  });
});

function adapterFolders(root: string): string[] {
  return ["goldens/models", "models"].flatMap((group) =>
    readdirSync(join(root, group)).flatMap((model) =>
      readdirSync(join(root, group, model))
        .map((name) => join(root, group, model, name))
        .filter((path) => existsSync(join(path, "adapter_config.json"))),
    ),
  );
}

describe.skipIf(shared === undefined)(
  "adapters that PEFT wrote (skipped where the reference files are absent)",
  () => {
    it.each(adapterFoldersOrNone())("%s is read, written and read again unchanged", async (path) => {
      const adapter = await readPeftAdapter(await openFolder(path));
      const folder = mkdtempSync(join(tmpdir(), "tributary-peft-"));
      try {
        for (const [name, bytes] of writePeftAdapter(adapter))
          await writeFileAtomic(join(folder, name), bytes);
        expect(sorted(await readPeftAdapter(await openFolder(folder)))).toEqual(sorted(adapter));
        const kept = parseJsonObject(readFileSync(join(folder, "adapter_config.json")), "written");
        const given = parseJsonObject(readFileSync(join(path, "adapter_config.json")), "given");
        for (const key of [
          "r",
          "lora_alpha",
          "use_rslora",
          "target_modules",
          "task_type",
          "fan_in_fan_out",
          "peft_type",
        ]) {
          expect(kept[key]).toEqual(given[key]);
        }
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
  },
);

function adapterFoldersOrNone(): string[] {
  return shared === undefined ? [] : adapterFolders(shared);
}
