import { alpacaSet } from "./alpaca.ts";
import { brainMri } from "./brain-mri.ts";
import { cifar10 } from "./cifar-10.ts";
import {
  arcChallenge,
  arcEasy,
  boolq,
  hellaswag,
  openbookqa,
  piqa,
  socialIqa,
  winogrande,
} from "./commonsense.ts";
import { dolly15k } from "./dolly-15k.ts";
import { e2eNlg } from "./e2e-nlg.ts";
import { fashionMnist } from "./fashion-mnist.ts";
import { cola, mrpc, qnli, rte, sst2, stsb } from "./glue.ts";
import { gsm8k } from "./gsm8k.ts";
import { math } from "./math.ts";
import { medquad } from "./medquad.ts";
import type { Preset } from "./preset.ts";

/** The public data sets that jobs know by name. */
export const presets: readonly Preset[] = [
  medquad,
  dolly15k,
  alpacaSet,
  cola,
  rte,
  sst2,
  mrpc,
  stsb,
  qnli,
  e2eNlg,
  boolq,
  piqa,
  socialIqa,
  hellaswag,
  winogrande,
  arcEasy,
  arcChallenge,
  openbookqa,
  gsm8k,
  math,
  brainMri,
  fashionMnist,
  cifar10,
];

/** A preset by its name; undefined for no preset. */
export function presetNamed(name: string): Preset | undefined {
  return presets.find((preset) => preset.name === name);
}
