/** Learning rate by step, counted from 1: the first step of a warm-up has rate 0. */
export type Schedule = (step: number) => number;

export interface ScheduleOptions {
  /** Highest rate. */
  readonly learningRate: number;
  /** Steps of linear growth from 0. */
  readonly warmupSteps?: number;
  /** Steps after which `linear` and `cosine` are at 0; of the whole run, warm-up included. */
  readonly totalSteps?: number;
}

function scheduled(
  shape: (progress: number) => number,
  { learningRate, warmupSteps = 0, totalSteps }: ScheduleOptions,
  needsTotal: boolean,
): Schedule {
  if (needsTotal && !(totalSteps !== undefined && totalSteps > warmupSteps)) {
    throw new RangeError(`schedule: totalSteps must exceed warmupSteps (${warmupSteps}), got ${totalSteps}`);
  }
  return (step) => {
    const done = step - 1;
    if (done < warmupSteps) return (learningRate * done) / warmupSteps;
    return (
      learningRate *
      Math.max(0, shape((done - warmupSteps) / ((totalSteps ?? Number.POSITIVE_INFINITY) - warmupSteps)))
    );
  };
}

/** The same rate after the warm-up. */
export const constant = (options: ScheduleOptions): Schedule => scheduled(() => 1, options, false);

/** Straight down to 0. */
export const linear = (options: ScheduleOptions): Schedule =>
  scheduled((progress) => 1 - progress, options, true);

/** Half a cosine down to 0. Loshchilov and Hutter, ICLR 2017, without restarts. */
export const cosine = (options: ScheduleOptions): Schedule =>
  scheduled((progress) => 0.5 * (1 + Math.cos(Math.PI * progress)), options, true);
