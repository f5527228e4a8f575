import type { LocalOptions } from "../federation/trainer.ts";
import { adam, adamw } from "../optim/adam.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import { constant, cosine, linear, type Schedule } from "../optim/schedules.ts";
import { sgd } from "../optim/sgd.ts";
import type { LocalJob, OptimizerJob } from "./job.ts";

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
}: LocalJob): LocalOptions {
  return {
    optimizer: ({ stepsInRound }) =>
      optimizerOf(optimizer, scheduleOf(optimizer.learningRate, schedule, stepsInRound)),
    length: steps === undefined ? { epochs: epochs ?? 1 } : { steps },
    batchSize,
    accumulate,
    clipNorm,
    order,
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
  }
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
