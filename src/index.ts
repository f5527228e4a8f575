export { runtime } from "#ort";
export { batches } from "./data/batches.ts";
export {
  type CausalOptions,
  causalExamples,
  classificationExamples,
  type Example,
  packedExamples,
  regressionExamples,
} from "./data/examples.ts";
export { readJsonl } from "./data/jsonl.ts";
export { dirichlet } from "./data/partition/dirichlet.ts";
export { iid } from "./data/partition/iid.ts";
export { natural } from "./data/partition/natural.ts";
export { alpaca, chat, plainText, promptCompletion, questionAnswer } from "./data/templates.ts";
export { loadTokenizer, type Tokenizer } from "./data/tokenizer.ts";
export { TributaryError } from "./errors.ts";
export type { RunEvent } from "./federation/events.ts";
export { type FederateOptions, federate, type RunStore } from "./federation/federate.ts";
export type { Round } from "./federation/round.ts";
export type {
  Aggregate,
  ClientRef,
  Declarations,
  LocalRule,
  Payload,
  Strategy,
  Update,
} from "./federation/strategy.ts";
export { batchFeeds, type LocalOptions, type LocalTrainer, localTrainer } from "./federation/trainer.ts";
export { readPeftAdapter, writePeftAdapter } from "./formats/peft.ts";
export { parseSafetensors, writeSafetensors } from "./formats/safetensors.ts";
export { checkJob } from "./job/check.ts";
export type { Job } from "./job/job.ts";
export { sampleText } from "./job/sample.ts";
export { loadModel } from "./models/load.ts";
export { addScaled, mapParams, type Params, sub, weightedMean } from "./tensor/params.ts";
export { float32, type Tensor, tensor } from "./tensor/tensor.ts";
export { runLocal } from "./train/local.ts";
export { initialState, traceStep } from "./train/step.ts";
