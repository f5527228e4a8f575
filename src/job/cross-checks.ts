import { TributaryError } from "../errors.ts";
import type { Strategy } from "../federation/strategy.ts";
import { metricNames } from "../metrics/table.ts";
import { strategiesWhere, strategyOf } from "../strategies/catalogue/entries.ts";
import { assertBufferable } from "../wrappers/buffered.ts";
import type { DataJob, Job } from "./job.ts";
import { described, either, type Problem } from "./problem.ts";
import { hasClasses } from "./task.ts";
import { needsOfTask } from "./task-metrics.ts";
import { jobStrategy } from "./updates.ts";

/** What is wrong between the keys of a job; a section that is absent is not looked at. */
export function crossProblems(job: Partial<Job>): Problem[] {
  return [
    ...lengthProblems(job),
    ...budgetProblems(job),
    ...cohortProblems(job),
    ...dataProblems(job),
    ...partitionProblems(job),
    ...strategyProblems(job),
    ...weightsProblems(job),
    ...precisionProblems(job),
    ...updateProblems(job),
    ...taskProblems(job),
    ...metricProblems(job),
  ];
}

function lengthProblems({ local }: { readonly local?: Pick<Job["local"], "epochs" | "steps"> }): Problem[] {
  if (local?.epochs === undefined || local.steps === undefined) return [];
  return [
    {
      path: "local.steps",
      got: `${local.steps} steps beside ${local.epochs} epochs`,
      expected: "one of the two",
      next: "remove local.epochs or local.steps",
    },
  ];
}

function budgetProblems({ budget }: Partial<Job>): Problem[] {
  if (budget === undefined || (budget.bytes === undefined) !== (budget.steps === undefined)) return [];
  return [{ path: "budget", got: described(budget), expected: "one of bytes and steps" }];
}

function cohortProblems({ participation, clientsPerRound, quorum, partition }: Partial<Job>): Problem[] {
  const problems: Problem[] = [];
  if (clientsPerRound !== undefined && participation !== undefined && participation < 1) {
    problems.push({
      path: "clientsPerRound",
      got: `${clientsPerRound} clients beside participation ${participation}`,
      expected: "one of the two",
      next: "remove participation or clientsPerRound",
    });
  }
  const clients = partition !== undefined && "clients" in partition ? partition.clients : undefined;
  if (clients !== undefined && clientsPerRound !== undefined && clientsPerRound > clients) {
    problems.push({
      path: "clientsPerRound",
      got: String(clientsPerRound),
      expected: `at most the ${clients} silos of partition.clients`,
    });
  }
  const asked = clientsPerRound ?? clients;
  if (quorum !== undefined && asked !== undefined && quorum > asked) {
    problems.push({
      path: "quorum",
      got: String(quorum),
      expected: `at most the ${asked} clients of a round`,
    });
  }
  return problems;
}

function dataProblems({ data, evaluation }: Partial<Job>): Problem[] {
  if (data === undefined) return [];
  const { validation = 0, test = 0, field } = data.splits;
  const problems: Problem[] = [];
  if (data.pack && data.packing) {
    problems.push({
      path: "data.packing",
      got: "true beside pack",
      expected: "one of the two",
      next: "pack joins texts into blocks of one length; packing keeps examples apart",
    });
  }
  if (field !== undefined && (data.splits.validation !== undefined || data.splits.test !== undefined)) {
    problems.push({
      path: "data.splits.field",
      got: `${described(field)} beside validation or test`,
      expected: "one of the two",
      next: "let the field say what is held out, or remove it",
    });
  }
  const shares = (typeof validation === "number" ? validation : 0) + (typeof test === "number" ? test : 0);
  if (shares >= 1) {
    problems.push({
      path: "data.splits",
      got: `shares that add up to ${shares}`,
      expected: "less than 1, so that something is left to train on",
    });
  }
  const split = evaluation?.split;
  const other = split === "validation" ? "test" : "validation";
  // Whoever holds nothing out wants no measurement; the default split is then no wish.
  const unmeasured = split === "validation" && !isHeldOut(data, other);
  if (split !== undefined && field === undefined && !unmeasured && !isHeldOut(data, split)) {
    problems.push({
      path: "evaluation.split",
      got: split,
      expected: "a part that data.splits holds out",
      next: isHeldOut(data, other) ? `write ${other}` : `add data.splits.${split}, such as 0.1`,
    });
  }
  return problems;
}

function isHeldOut({ splits }: DataJob, split: "validation" | "test"): boolean {
  const part = splits[split];
  return part !== undefined && part !== 0;
}

function metricProblems({ evaluation, task }: Partial<Job>): Problem[] {
  if (evaluation?.metrics === undefined || task === undefined) return [];
  const known = metricNames(needsOfTask[task]);
  return evaluation.metrics
    .filter((name) => !known.includes(name))
    .map((name) => ({
      path: "evaluation.metrics",
      got: name,
      expected: `metrics of ${task}: ${known.join(", ")}`,
    }));
}

function partitionProblems({ partition, data, task }: Partial<Job>): Problem[] {
  if (partition === undefined) return [];
  const problems: Problem[] = [];
  const skewed =
    partition.kind === "dirichlet" || partition.kind === "shards" || partition.kind === "pathological";
  if (skewed && partition.field === undefined && task !== undefined && !hasClasses(task)) {
    problems.push({
      path: "partition.field",
      got: "nothing",
      expected: `the field whose values the ${partition.kind} split goes by, since ${task} has no classes`,
      next: "add it, or take another partition.kind",
    });
  }
  if (partition.kind === "files" && data !== undefined && typeof data.path === "string") {
    problems.push({
      path: "data.path",
      got: "one path",
      expected: "a list of paths for partition.kind files, one for each silo",
    });
  }
  return problems;
}

function strategyProblems({ strategy, adapter, local }: Partial<Job>): Problem[] {
  if (strategy === undefined || adapter === undefined) return [];
  const { declares, adapters } = strategyOf(strategy);
  const problems: Problem[] = [];
  if (declares.needsDense === true && adapter.kind !== "dense") {
    problems.push({
      path: "adapter.kind",
      got: adapter.kind,
      expected: `dense for the strategy ${strategy.name}, which trains weights themselves`,
      next: "write dense with a target such as up_proj",
    });
  }
  const products = declares.changesBase || declares.unequalRanks;
  if (adapter.kind === "lora" && adapter.dora && (products || adapters !== undefined)) {
    problems.push({
      path: "adapter.dora",
      got: "true",
      expected: `false for the strategy ${strategy.name}, whose algebra is that of plain products B A`,
      next: `remove adapter.dora, or take a strategy such as ${suchAs(({ declares, adapters }) => !declares.changesBase && !declares.unequalRanks && !declares.needsDense && !adapters)}`,
    });
  }
  const optimizer = local?.optimizer;
  if (declares.needsProjection === true && optimizer !== undefined && !("gap" in optimizer)) {
    problems.push({
      path: "local.optimizer.name",
      got: optimizer.name,
      expected: `an optimizer that projects gradients, for the strategy ${strategy.name}`,
      next: "write galore-adamw",
    });
  }
  if (declares.needsPlainSgd === true && local !== undefined)
    problems.push(...plainSgdProblems(strategy.name, local));
  if (declares.needsLowRank === true && adapter.kind === "dense") {
    problems.push({
      path: "adapter.kind",
      got: "dense",
      expected: `lora for the strategy ${strategy.name}`,
      next: `write lora, or take a strategy such as ${suchAs(({ declares }) => !declares.needsLowRank && !declares.needsProjection)}`,
    });
  }
  if (adapters !== undefined && adapter.kind === "lora" && adapter.from !== undefined) {
    problems.push({
      path: "adapter.from",
      got: "an adapter to start from",
      expected: `none for the strategy ${strategy.name}, which has a start of its own`,
      next: `remove adapter.from, or take a strategy such as ${suchAs(({ declares, adapters }) => declares.needsLowRank === true && !adapters)}`,
    });
  }
  if (adapter.kind === "lora" && unequal(adapter.ranks, adapter.rank) && declares.unequalRanks !== true) {
    problems.push({
      path: "adapter.ranks",
      got: "unequal ranks",
      expected: `equal ranks for the strategy ${strategy.name}`,
      next: `remove adapter.ranks, or take a strategy such as ${suchAs(({ declares }) => declares.unequalRanks === true)}`,
    });
  }
  return problems;
}

/** Whether a strategy changes base weights, for all clients or for one at a time. */
export function changesWeights({ declares, local, stages = {} }: Strategy): boolean {
  const rules = [local, ...Object.values(stages)];
  return declares.changesBase === true || rules.some((rule) => rule?.personalBase !== undefined);
}

function weightsProblems({ weights, task }: Partial<Job>): Problem[] {
  if (weights !== "trunk" || task !== "causal-lm") return [];
  return [
    {
      path: "weights",
      got: "trunk",
      expected: `pretrained or random for the task ${task}, whose head belongs to the pretrained model`,
      next: "remove it",
    },
  ];
}

function precisionProblems({ basePrecision = "float32", strategy, device }: Partial<Job>): Problem[] {
  const problems: Problem[] = [];
  if (basePrecision === "float32") return problems;
  if (strategy !== undefined && changesWeights(strategyOf(strategy))) {
    problems.push({
      path: "basePrecision",
      got: basePrecision,
      expected: `float32 for the strategy ${strategy.name}, which changes the base (changesBase)`,
      next: `remove basePrecision, or take a strategy such as ${suchAs((one) => !changesWeights(one) && !one.declares.needsDense)}`,
    });
  }
  if (basePrecision === "4bit" && device !== undefined && device !== "cpu") {
    problems.push({
      path: "basePrecision",
      got: `4bit on ${device}`,
      expected: "float32 or stored there: products with blocks are computed on the processor",
    });
  }
  return problems;
}

function suchAs(fits: (strategy: Strategy) => boolean): string {
  return either(strategiesWhere(fits));
}

/** What keeps the way of a client from being its step size times the sum of its gradients. */
function plainSgdProblems(strategy: string, { optimizer, schedule }: Partial<Job["local"]>): Problem[] {
  const why = `for the strategy ${strategy}, which reads gradients off the way that a client went`;
  const problems: Problem[] = [];
  if (optimizer !== undefined && optimizer.name !== "sgd") {
    problems.push({
      path: "local.optimizer.name",
      got: optimizer.name,
      expected: `sgd ${why}`,
      next: "write sgd, and a learning rate for it",
    });
  } else if (optimizer?.name === "sgd" && optimizer.momentum > 0) {
    problems.push({
      path: "local.optimizer.momentum",
      got: String(optimizer.momentum),
      expected: `0 ${why}`,
      next: "remove it",
    });
  }
  if (schedule !== undefined && (schedule.kind !== "constant" || schedule.warmupSteps > 0)) {
    problems.push({
      path: "local.schedule",
      got: schedule.kind === "constant" ? `${schedule.warmupSteps} steps of growth` : schedule.kind,
      expected: `one step size ${why}`,
      next: "remove local.schedule",
    });
  }
  return problems;
}

function updateProblems({ strategy, updates }: Partial<Job>): Problem[] {
  if (strategy === undefined || updates === undefined) return [];
  const { packing, late } = updates;
  const problems: Problem[] = [];
  if (late !== undefined) {
    const reason = refusal(() => assertBufferable(strategyOf(strategy)));
    if (reason !== undefined) {
      problems.push({
        path: "updates.late",
        got: `late updates for the strategy ${strategy.name}`,
        expected: `rounds that wait, since ${reason}`,
        next: `remove updates.late, or take a strategy such as ${suchAs((one) => refusal(() => assertBufferable(one)) === undefined)}`,
      });
    }
  }
  if (packing.kind !== "none" && packing.errorFeedback) {
    const reason = refusal(() => jobStrategy({ strategy, updates: { packing, precision: "float32" } }));
    if (reason !== undefined) {
      problems.push({
        path: "updates.packing.errorFeedback",
        got: "true",
        expected: `false for the strategy ${strategy.name}: ${reason}`,
        next: "write updates.packing.errorFeedback: false",
      });
    }
  }
  return problems;
}

/** Why something is refused, after the name of who refuses. */
function refusal(attempt: () => unknown): string | undefined {
  try {
    attempt();
    return undefined;
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof TributaryError)) throw error;
    return error.message.replace(/^[^:]*: (?:[^:]*: )?/, "").replace(/;.*$/, "");
  }
}

function unequal(
  ranks: readonly number[] | Readonly<Record<string, number>> | undefined,
  rank: number,
): boolean {
  if (ranks === undefined) return false;
  return Array.isArray(ranks) ? new Set(ranks).size > 1 : Object.values(ranks).some((one) => one !== rank);
}

function taskProblems({ task, data, generate }: Partial<Job>): Problem[] {
  const problems: Problem[] = [];
  if (task !== undefined && task !== "causal-lm") {
    if (generate !== undefined) {
      problems.push({
        path: "generate",
        got: described(generate),
        expected: `nothing for the task ${task}, which makes no text`,
        next: "remove it",
      });
    }
    if (data?.packing === true) {
      problems.push({
        path: "data.packing",
        got: "true",
        expected: `false for the task ${task}`,
        next: "remove it",
      });
    }
    if (data?.pack === true) {
      problems.push({
        path: "data.pack",
        got: "true",
        expected: `false for the task ${task}`,
        next: "remove it",
      });
    }
  }
  if (hasClasses(task) && data !== undefined && data.classes === undefined) {
    problems.push({
      path: "data.classes",
      got: "nothing",
      expected: "the names of the classes, or how many there are",
      next: "add it, such as data.classes: 2",
    });
  }
  if (task !== undefined && !hasClasses(task) && data?.classes !== undefined) {
    problems.push({
      path: "data.classes",
      got: described(data.classes),
      expected: `nothing for the task ${task}`,
      next: "remove it, or write task: sequence-classification",
    });
  }
  return problems;
}
