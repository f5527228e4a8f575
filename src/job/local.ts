import { moduleOf } from "../adapters/dense-subset.ts";
import { matches } from "../adapters/target.ts";
import type { LocalOptions } from "../federation/trainer.ts";
import { adam, adamw } from "../optim/adam.ts";
import { type GaloreOptions, galoreAdamW, galoreSgd } from "../optim/galore.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import { constant, cosine, linear, type Schedule } from "../optim/schedules.ts";
import { sgd } from "../optim/sgd.ts";
import type { GaloreJob, LocalJob, OptimizerJob } from "./job.ts";

/** Local training as a job describes it. */
export function localOptions({
  optimizer,
  schedule,
  epochs,
  steps,
  batchSize,
  accumulate,
  clipNorm = 0,
  order,
  recompute,
}: LocalJob): LocalOptions {
  return {
    optimizer: ({ stepsInRound }) =>
      optimizerOf(optimizer, scheduleOf(optimizer.learningRate, schedule, stepsInRound)),
    length: steps === undefined ? { epochs: epochs ?? 1 } : { steps },
    batchSize,
    accumulate,
    clipNorm,
    order,
    recompute,
  };
}

function optimizerOf(job: OptimizerJob, learningRate: Schedule): Optimizer {
  switch (job.name) {
    case "sgd":
      return sgd({ ...job, learningRate });
    case "adam":
      return adam({ ...job, learningRate });
    case "adamw":
      return adamw({ ...job, learningRate });
    case "galore-adamw":
      return galoreAdamW({ ...galoreOptions(job), betas: job.betas, epsilon: job.epsilon, learningRate });
    case "galore-sgd":
      return galoreSgd({ ...galoreOptions(job), learningRate });
  }
}

function galoreOptions({
  rank,
  gap,
  scale,
  side,
  decomposition,
  weightDecay,
  target,
}: GaloreJob): Omit<GaloreOptions, "learningRate"> {
  const projects = (name: string): boolean =>
    target === undefined || matches(name, target) || matches(moduleOf(name), target);
  return { rank, gap, scale, side, decomposition, weightDecay, projects };
}

/** The course of one round, which each round repeats, also where the optimizer counts its steps on. */
function scheduleOf(
  learningRate: number,
  { kind, warmupSteps }: LocalJob["schedule"],
  stepsInRound: number,
): Schedule {
  const make = { constant, linear, cosine }[kind];
  const options = {
    learningRate,
    warmupSteps: Math.min(warmupSteps, stepsInRound - 1),
    totalSteps: stepsInRound,
  };
  const inRound = make(options);
  return (step) => inRound(((step - 1) % stepsInRound) + 1);
}
