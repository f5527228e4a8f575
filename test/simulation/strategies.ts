import type { Strategy } from "../../src/federation/strategy.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { remembering } from "../federation/toy.ts";

/** A weighted sum, one that changes the base, and one whose clients remember; each run uses one by itself. */
export const simulated: readonly Strategy[] = [
  fedAvg() as Strategy,
  fedexLora() as Strategy,
  remembering() as Strategy,
];
