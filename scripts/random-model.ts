import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeFileAtomic } from "../src/formats/files.node.ts";
import { safetensorsPieces } from "../src/formats/safetensors.ts";
import { describeModel } from "../src/models/load.ts";
import { freshTensor } from "../src/models/random-weights.ts";
import { convert } from "../src/tensor/convert.ts";
import { byteSize } from "../src/tensor/dtype.ts";
import type { Params } from "../src/tensor/params.ts";
import { sizeOf, type Tensor } from "../src/tensor/tensor.ts";

/** The configuration of TinyLlama-1.1B. */
const tinyLlama = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 32000,
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 22,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  hidden_act: "silu",
  initializer_range: 0.02,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
};

/** Bytes of a shard at which the next one begins. */
const SHARD = 256 * 2 ** 20;
const tokenizerFiles = ["tokenizer.json", "tokenizer_config.json"];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dtype: { type: "string", default: "bfloat16" },
    layers: { type: "string", default: String(tinyLlama.num_hidden_layers) },
    vocabulary: { type: "string", default: String(tinyLlama.vocab_size) },
    seed: { type: "string", default: "0" },
    tokenizer: {
      type: "string",
      default: fileURLToPath(new URL("../examples/presidents/base", import.meta.url)),
    },
  },
});
const [folder] = positionals;
const { dtype } = values;
if (folder === undefined || (dtype !== "bfloat16" && dtype !== "float16" && dtype !== "float32")) {
  throw new Error(
    "usage: random-model FOLDER [--dtype bfloat16|float16|float32] [--layers N] [--vocabulary N] [--seed N] [--tokenizer FOLDER]",
  );
}
await write(folder, dtype);

/** Writes a model of TinyLlama's layout with random weights, one shard in memory at a time. */
async function write(target: string, type: "bfloat16" | "float16" | "float32"): Promise<void> {
  const config = {
    ...tinyLlama,
    num_hidden_layers: Number(values.layers),
    vocab_size: Number(values.vocabulary),
    torch_dtype: type,
  };
  const { model, config: read, task } = describeModel(config);
  const parameters = [...model.parameters(read, task)];
  const shards: string[][] = [[]];
  let filled = 0;
  for (const [name, { shape }] of parameters) {
    const size = sizeOf(shape) * byteSize(type);
    if (filled > 0 && filled + size > SHARD) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)?.push(name);
    filled += size;
  }
  await mkdir(target, { recursive: true });
  const weightMap: Record<string, string> = {};
  const byName = new Map(parameters);
  const pad = (n: number): string => String(n).padStart(5, "0");
  for (const [i, names] of shards.entries()) {
    const file = `model-${pad(i + 1)}-of-${pad(shards.length)}.safetensors`;
    const params: Params = new Map(
      names.flatMap((name): [string, Tensor][] => {
        const parameter = byName.get(name);
        weightMap[name] = file;
        if (!parameter) return [];
        return [
          [name, convert(freshTensor(name, parameter, read.initializerRange, Number(values.seed)), type)],
        ];
      }),
    );
    await writeFileAtomic(join(target, file), pieces(params));
    process.stdout.write(`${file}\n`);
  }
  await writeJson(join(target, "model.safetensors.index.json"), { metadata: {}, weight_map: weightMap });
  await writeJson(join(target, "config.json"), config);
  for (const file of tokenizerFiles) await copyFile(join(values.tokenizer, file), join(target, file));
}

async function* pieces(params: Params): AsyncGenerator<Uint8Array> {
  yield* safetensorsPieces(params);
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFileAtomic(path, new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`));
}
