import { add, cast, equal, lessOrEqual, matMul, mul, not, range, reshape, tanh } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";
import { linear } from "../nn/linear.ts";
import { unitRows } from "../nn/losses.ts";
import { firstState, meanState } from "../nn/pooling.ts";
import { type BertConfig, bert, bertStates, bertTensors, readBert, trunkPath } from "./bert.ts";
import { configReader } from "./config.ts";
import type { Model, TokenInputs } from "./model.ts";
import { linearTensors } from "./parameters.ts";

export interface RobertaConfig extends BertConfig {
  readonly padTokenId: number;
}

/** RoBERTa: BERT with positions that count tokens, and a head of its own. Liu et al., 2019. https://arxiv.org/abs/1907.11692 */
export const roberta: Model<RobertaConfig, TokenInputs> = {
  type: "roberta",
  className: "Roberta",
  tasks: ["embeddings", "sequence-classification", "regression"],
  reads: ["input_ids", "attention_mask", "position_ids"],
  prefix: "roberta",
  buffers: bert.buffers,

  config(json) {
    const read = configReader("roberta", json);
    const shape = readBert(read, json);
    const padTokenId = read.number("pad_token_id", 1);
    // The first token stands at pad + 1.
    const config = { ...shape, padTokenId, maxPositions: shape.maxPositions - padTokenId - 1 };
    if (config.maxPositions < 1) read.refuse("max_position_embeddings", `more than ${padTokenId + 1}`);
    read.finish();
    return config;
  },

  parameters(config, task) {
    const rows = config.maxPositions + config.padTokenId + 1;
    const trunk = bertTensors(trunkPath("roberta", task), config, rows);
    if (task === "embeddings") return new Map(trunk);
    const head = { head: true, fresh: true };
    return new Map([
      ...trunk,
      ...linearTensors("classifier.dense", config.hiddenSize, config.hiddenSize, head),
      ...linearTensors("classifier.out_proj", config.numLabels, config.hiddenSize, head),
    ]);
  },

  tied: bert.tied,

  hidden(root, inputs, config, task) {
    const positions = inputs.positionIds ?? countedPositions(inputs.inputIds, config.padTokenId);
    return {
      states: bertStates(root.at(trunkPath("roberta", task)), inputs, positions, config),
      present: [],
    };
  },

  head(root, states, { attentionMask }, _config, task) {
    if (task === "embeddings") return unitRows(meanState(states, attentionMask)); // [B, D]
    const w = root.at("classifier");
    return linear(w.at("out_proj"), tanh(linear(w.at("dense"), firstState(states)))); // [B, labels]
  },
};

/** pad + the number of tokens up to and with each that is not `pad`; pad elsewhere: int64 [B, T]. */
function countedPositions(ids: Value, pad: number): Value {
  const sequence = dimAt(ids.shape, 1);
  const tokens = cast(not(equal(ids, pad)), "float32"); // [B, T]
  const before = lessOrEqual(range(sequence), reshape(range(sequence), [sequence, 1])); // [t, j]: j <= t
  const counts = matMul(tokens, cast(before, "float32"), { transB: true }); // exact below 2^24
  return cast(add(mul(counts, tokens), pad), "int64");
}
