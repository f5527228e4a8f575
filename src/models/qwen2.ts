import { configReader, refuseForeign } from "./config.ts";
import { readDecoder, windowedLayers } from "./decoder.ts";
import { type LlamaConfig, llama } from "./llama.ts";
import type { Model, TokenInputs } from "./model.ts";
import { ropeOptions } from "./rope-config.ts";

/** Qwen2 and 2.5: Llama with biases on queries, keys and values. Yang et al., 2024. https://arxiv.org/abs/2407.10671 */
export const qwen2: Model<LlamaConfig, TokenInputs> = {
  ...llama,
  type: "qwen2",
  className: "Qwen2",

  config(json) {
    const read = configReader("qwen2", json);
    refuseForeign(read);
    const shape = readDecoder(read, json, { rmsNormEps: 1e-6, tieWordEmbeddings: false });
    const rope = ropeOptions(read, shape);
    const used = read.boolean("use_sliding_window", false);
    const window = used ? read.nullable("sliding_window", 4096) : undefined;
    const first = read.number("max_window_layers", 28);
    const windowed = windowedLayers(read, shape, (layer) => layer >= first);
    const config = {
      ...shape,
      views: windowed.map((near) => ({ window: near ? window : undefined, rope })),
      hiddenAct: read.string("hidden_act", "silu"),
      attentionBias: true,
      outputBias: false,
      mlpBias: false,
    };
    read.finish();
    return config;
  },
};
