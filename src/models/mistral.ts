import { configReader, refuseForeign } from "./config.ts";
import { everyLayer, readDecoder } from "./decoder.ts";
import { type LlamaConfig, llama } from "./llama.ts";
import type { Model, TokenInputs } from "./model.ts";
import { ropeOptions } from "./rope-config.ts";

/** Mistral: Llama whose queries see a sliding window. Jiang et al., 2023. https://arxiv.org/abs/2310.06825 */
export const mistral: Model<LlamaConfig, TokenInputs> = {
  ...llama,
  type: "mistral",
  className: "Mistral",

  config(json) {
    const read = configReader("mistral", json);
    refuseForeign(read);
    if (read.has("layer_types")) read.refuse("layer_types", "none: all layers see the same window");
    const shape = readDecoder(read, json, { rmsNormEps: 1e-6, tieWordEmbeddings: false });
    const window = read.nullable("sliding_window", 4096);
    const config = {
      ...shape,
      views: everyLayer(shape, { window, rope: ropeOptions(read, shape) }),
      hiddenAct: read.string("hidden_act", "silu"),
      attentionBias: false,
      outputBias: false,
      mlpBias: false,
    };
    read.finish();
    return config;
  },
};
