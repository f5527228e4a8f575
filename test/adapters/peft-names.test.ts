import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { adapterBase, startParams } from "../../src/adapters/adapter.ts";
import { type LoraOptions, lora, loraModules } from "../../src/adapters/lora.ts";
import { loraOptionsOf, peftConfigOf } from "../../src/adapters/peft.ts";
import { inCheckpointNames, inPeftNames } from "../../src/adapters/peft-names.ts";
import { openFolder } from "../../src/formats/files.node.ts";
import { readPeftAdapter } from "../../src/formats/peft.ts";
import { loadModel } from "../../src/models/load.ts";
import { familyJsons, tinyModel } from "../models/tiny.ts";
import { shared } from "../shared.ts";

const vit = tinyModel(familyJsons.vit ?? {});
const base = adapterBase(vit.taskModel);

describe("adapters in PEFT's names", () => {
  const options: LoraOptions = {
    rank: 2,
    alpha: 4,
    target: ["query", "output.dense"],
    exclude: ["layer.0.output.dense"],
    rankPattern: { "layer.1.attention.attention.query": 3 },
    modulesToSave: ["classifier", "layer.0.layernorm_after"],
  };
  const attached = lora(options).attach(base);
  const params = startParams([attached], { seed: 1, base: vit.weights });
  const adapter = { config: peftConfigOf(base, options), params };
  const named = inPeftNames(base, adapter);

  it("name the modules as Transformers 5 holds them", () => {
    expect([...named.params.keys()].filter((name) => !name.includes("lora_B"))).toEqual([
      "vit.layers.0.attention.q_proj.lora_A.weight",
      "vit.layers.0.attention.o_proj.lora_A.weight",
      "vit.layers.1.attention.q_proj.lora_A.weight",
      "vit.layers.1.attention.o_proj.lora_A.weight",
      "vit.layers.1.mlp.fc2.lora_A.weight",
      "vit.layers.0.layernorm_after.weight",
      "vit.layers.0.layernorm_after.bias",
      "classifier.weight",
      "classifier.bias",
    ]);
    expect(named.config.modulesToSave).toEqual(["classifier", "vit.layers.0.layernorm_after"]);
    expect([...named.config.rankPattern.values()]).toEqual([3]);
  });

  it("are read back under the names of the checkpoint, on the same modules with the same ranks", () => {
    const back = inCheckpointNames(base, named);
    expect(back.params).toEqual(params);
    expect(loraModules(base, loraOptionsOf(back.config))).toEqual(loraModules(base, options));
    expect(inCheckpointNames(base, adapter)).toBe(adapter);
  });

  it("are those of the checkpoint in families that Transformers holds so", () => {
    const llama = adapterBase(tinyModel(familyJsons.llama ?? {}).taskModel);
    expect(inPeftNames(llama, adapter)).toBe(adapter);
    expect(inCheckpointNames(llama, adapter)).toBe(adapter);
  });

  it.skipIf(shared === undefined || !existsSync(`${shared}/goldens/models/vit`))(
    "are the keys that PEFT wrote (skipped without the goldens)",
    async () => {
      const folder = `${shared}/goldens/models/vit`;
      const theirs = adapterBase(await loadModel(await openFolder(folder)));
      for (const name of ["lora", "lora-all"]) {
        const stored = await readPeftAdapter(await openFolder(`${folder}/${name}`));
        const again = inPeftNames(theirs, inCheckpointNames(theirs, stored));
        expect(new Set(again.params.keys())).toEqual(new Set(stored.params.keys()));
      }
    },
  );
});

describe("saved modules", () => {
  it("are saved with all that lies in them", () => {
    const roberta = adapterBase(tinyModel(familyJsons.roberta ?? {}).taskModel);
    const options = { rank: 2, alpha: 2, target: "all-linear", modulesToSave: ["classifier"] };
    const { parameters } = lora(options).attach(roberta);
    expect([...parameters.keys()].filter((name) => !name.includes("lora"))).toEqual([
      "classifier.dense.weight",
      "classifier.dense.bias",
      "classifier.out_proj.weight",
      "classifier.out_proj.bias",
    ]);
  });
});

it("a configuration says where matrices are stored as [in, out]", () => {
  const options = { rank: 2, alpha: 2, target: ["c_attn"] };
  const gpt2 = adapterBase(tinyModel(familyJsons.gpt2 ?? {}).taskModel);
  expect(peftConfigOf(gpt2, options).fanInFanOut).toBe(true);
  expect(peftConfigOf(base, { ...options, target: ["query"] }).fanInFanOut).toBe(false);
});
