import type { ClientRef, RoundContext, Update } from "../../src/federation/strategy.ts";
import type { Params } from "../../src/tensor/params.ts";
import { float32 } from "../../src/tensor/tensor.ts";

export const context: RoundContext = { round: 1, seed: 1, numClients: 2 };

export const client = (id: string): ClientRef => ({ id, rank: 0, scaling: 1 });

export const weights = (...values: number[]): Params =>
  new Map([["dense.weight", float32([1, values.length], values)]]);

export const update = (id: string, numExamples: number, ...values: number[]): Update => ({
  client: client(id),
  numExamples,
  params: weights(...values),
});

export const valuesOf = (params: Params): number[] =>
  [...(params.get("dense.weight")?.data ?? [])].map(Number);
