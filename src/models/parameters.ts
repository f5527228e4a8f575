import type { PatchConfig } from "./image-config.ts";
import type { ModelParameter } from "./model.ts";

/** Tensors of a part of a model, by name. */
export type Tensors = readonly (readonly [name: string, parameter: ModelParameter])[];

/** What a linear layer's tensors have beside their shapes. */
export interface LinearTraits extends Pick<ModelParameter, "head" | "fresh" | "transposed"> {
  /** Default: true. */
  readonly bias?: boolean;
}

/** A matrix [out, in] and its bias. */
export function linearTensors(
  name: string,
  out: number,
  from: number,
  { bias = true, transposed, ...traits }: LinearTraits = {},
): Tensors {
  const stored = transposed === undefined ? {} : { transposed };
  const weight: ModelParameter = { shape: [out, from], kind: "linear", ...traits, ...stored };
  return [
    [`${name}.weight`, weight],
    ...(bias ? [[`${name}.bias`, { shape: [out], kind: "bias", ...traits }] as const] : []),
  ];
}

/** A table of rows. */
export function embeddingTensors(name: string, rows: number, width: number): Tensors {
  return [[`${name}.weight`, { shape: [rows, width], kind: "embedding" }]];
}

/** The weight of an RMS norm. */
export function rmsNormTensors(name: string, width: number): Tensors {
  return [[`${name}.weight`, { shape: [width], kind: "norm-weight" }]];
}

/** The weight of an RMS norm that adds 1 to it. */
export function offsetRmsNormTensors(name: string, width: number): Tensors {
  return [[`${name}.weight`, { shape: [width], kind: "norm-offset" }]];
}

/** Weight and bias of a layer norm. */
export function layerNormTensors(name: string, width: number): Tensors {
  return [
    [`${name}.weight`, { shape: [width], kind: "norm-weight" }],
    [`${name}.bias`, { shape: [width], kind: "norm-bias" }],
  ];
}

/** The convolution that embeds patches. */
export function patchTensors(name: string, { image, patch }: PatchConfig, width: number): Tensors {
  return [
    [`${name}.weight`, { shape: [width, image.channels, ...patch], kind: "convolution" }],
    [`${name}.bias`, { shape: [width], kind: "bias" }],
  ];
}

/** Learned rows that are one tensor [1, rows, width]. */
export function tokenTensors(name: string, rows: number, width: number): Tensors {
  return [[name, { shape: [1, rows, width], kind: "embedding" }]];
}
