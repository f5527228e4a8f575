import { offsetOf } from "../federation/base-chain.ts";
import { sha256, sha256Text } from "../federation/digest.ts";
import type { RunEvent } from "../federation/events.ts";
import { type Committed, federate } from "../federation/federate.ts";
import { loraModules } from "../federation/low-rank.ts";
import { VERSIONS } from "../federation/manifest.ts";
import type { Round } from "../federation/round.ts";
import type { Json } from "../federation/state.ts";
import { repositoryOf } from "../hub/reference.ts";
import { nodeEnv } from "../storage/node-env.ts";
import { openRunFolder } from "../storage/run-folder.ts";
import { withOffset } from "./adapter.ts";
import { type Assembly, assemble, measure, openTraining } from "./assemble.ts";
import { isSpent } from "./budget.ts";
import { resultKeys } from "./differences.ts";
import type { JobEvent, RunSummary } from "./events.ts";
import { type HubProgress, pinnedJob } from "./hub.node.ts";
import type { Job } from "./job.ts";
import { peakMemory } from "./memory.node.ts";
import { modelCard } from "./model-card.ts";
import {
  keepJob,
  keepManifest,
  prepareRunFolder,
  type RunManifest,
  readSummary,
  readTrained,
  refuseServed,
  runFiles,
  sweepRunFolder,
  type Trained,
  writeAdapter,
  writeJson,
  writeParams,
  writeRounds,
} from "./run-files.node.ts";
import { sampleText } from "./sample.ts";
import { openTensorBoard } from "./tensorboard.node.ts";

export interface RunJobOptions {
  /** Start anew where the run folder holds a run. */
  readonly fresh?: boolean;
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: JobEvent) => void;
}

/** A job whose run folder is known. */
export type PlacedJob = Job & { readonly out: string };

/**
 * Runs a job in its run folder, or goes on with the run that is there. Throws before anything is written where the job does
 * not fit its model, its data or the run.
 */
export async function runJob(
  given: PlacedJob,
  { fresh = false, signal, onEvent = () => {} }: RunJobOptions = {},
): Promise<RunSummary> {
  const pinned = await pinnedJob(given, {
    fresh,
    ...(signal === undefined ? {} : { signal }),
    onProgress: byPercent((progress) => onEvent({ type: "fetching", ...progress })),
  });
  await refuseServed(given.out);
  const assembly = await assemble(pinned);
  const job = await prepareRunFolder(given.out, pinned, assembly.plan.threads, { fresh });
  const plan = { ...assembly.plan, threads: job.threads === "auto" ? assembly.plan.threads : job.threads };
  const folder = job.out;
  const store = await openRunFolder(folder);
  const rounds = new Map<number, Round>();
  const evaluations = new Map<number, Readonly<Record<string, number>>>();
  try {
    await sweepRunFolder(folder);
    await keepJob(folder, job);
    const header = { ...assembly.header, threads: plan.threads };
    await writeJson(folder, runFiles.header, header);
    onEvent({ type: "started", header });
    const env = nodeEnv();
    const board = await openTensorBoard(`${folder}/${runFiles.tensorboard}`, env.wall);
    const { pool, trainer } = await openTraining(job, { ...assembly, plan });
    try {
      const manifest: RunManifest = {
        versions: { ...VERSIONS, runtime: pool.runtime },
        seed: job.seed,
        base: assembly.base.root,
        clients: assembly.clients,
      };
      await keepManifest(folder, manifest);
      const before = await sample(assembly, job, { params: assembly.initial, offset: new Map() }, signal);
      if (before !== undefined)
        onEvent({ type: "sample", when: "before", prompt: job.generate?.prompt ?? "", text: before });
      let last: Committed | undefined;
      const note = (event: RunEvent): void => {
        if (event.type === "resumed") {
          for (const round of event.rounds) {
            rounds.set(round.number, round);
            evaluations.set(round.number, round.evaluation);
          }
          if (event.evaluation !== undefined) evaluations.set(0, event.evaluation);
        } else if (event.type === "evaluated") evaluations.set(event.round, event.metrics);
        else if (event.type === "round-committed") rounds.set(event.round.number, event.round);
        onEvent(event);
      };
      const made = federate({
        strategy: assembly.strategy,
        initial: assembly.initial,
        clients: assembly.clients,
        trainer,
        rounds: job.rounds,
        until: (made) => isSpent(job.budget, made),
        seed: job.seed,
        config: await descriptionOf(job, assembly),
        base: assembly.base,
        participation: assembly.participation,
        spare: job.spare,
        ...(job.quorum === undefined ? {} : { quorum: job.quorum }),
        ...(job.deadline === undefined ? {} : { deadlineMs: 1000 * job.deadline }),
        concurrency: plan.workers,
        store,
        env,
        ...(signal === undefined ? {} : { signal }),
        onEvent: note,
        async evaluate(state, stop) {
          last = state;
          await writeTrained(folder, state, assembly, job);
          return isDue(state.round, job, inOrder(rounds)) ? measure(state, assembly, trainer, job, stop) : {};
        },
      });
      for await (const round of made) {
        rounds.set(round.number, round);
        await writeRounds(folder, inOrder(rounds));
        await board.write(inOrder(rounds), evaluations.get(0));
      }
      await writeRounds(folder, inOrder(rounds));
      await board.write(inOrder(rounds), evaluations.get(0));
      const trained = await trainedBy(folder, assembly, last);
      const after = await sample(assembly, job, trained, signal);
      if (after !== undefined)
        onEvent({ type: "sample", when: "after", prompt: job.generate?.prompt ?? "", text: after });
      const adapted = loraModules(trained.params).length > 0;
      const { peakBytes = 0 } = (await readSummary(folder)) ?? {};
      const summary = summaryOf(job, assembly, {
        rounds: inOrder(rounds),
        evaluations,
        before,
        after,
        adapted,
        peakBytes: Math.max(peakBytes, peakMemory()),
      });
      await writeJson(folder, runFiles.summary, summary);
      onEvent({ type: "finished", summary });
      return summary;
    } finally {
      await pool.close();
    }
  } finally {
    store.close();
  }
}

/** Passes on what was fetched at each percent of it. */
function byPercent(show: (progress: HubProgress) => void): (progress: HubProgress) => void {
  let shown = "";
  return (progress) => {
    const step = `${progress.name} ${Math.floor((100 * progress.done) / Math.max(1, progress.total))}`;
    if (step !== shown) show(progress);
    shown = step;
  };
}

/** Whatever decides the result beside the strategy and the seed: a run goes on only under an equal description. */
async function descriptionOf(job: Job, { silos, base }: Assembly): Promise<Json> {
  const examples: string[] = [];
  for (const { name, examples: rows } of silos) {
    const text: string[] = [];
    for (const { inputIds, labels, label, image } of rows) {
      const pixels = image === undefined ? "" : `;${await sha256(image.pixels)}`;
      text.push(`${inputIds.join()};${labels?.join() ?? ""};${label ?? ""}${pixels}`);
    }
    examples.push(`${name} ${await sha256Text(text.join("\n"))}`);
  }
  return { job: resultKeys(job), model: base.root, examples };
}

/** Whether the state after a round is measured. */
export function isDue(
  round: number,
  { rounds, budget, evaluation: { every } }: Job,
  made: readonly Round[],
): boolean {
  const last = round === rounds || isSpent(budget, made);
  return round === 0 || last || (every > 0 && round % every === 0);
}

/** Writes what a committed state trained: the adapter, or the dense weights, and the offset of a changed base. */
export async function writeTrained(
  folder: string,
  state: Committed,
  { strategy, adapter }: Pick<Assembly, "strategy" | "adapter">,
  job: Job,
): Promise<void> {
  if (strategy.declares.personal === true) return;
  const params = state.global();
  const config = adapter.config(adapter.rank, repositoryOf(job.model));
  // Methods that train whole weights where LoRA is asked for have no adapter to write.
  if (config === undefined || loraModules(params).length === 0)
    await writeParams(folder, runFiles.trained, params);
  else await writeAdapter(folder, { config, params }, modelCard(job, strategy, state.round));
  if (strategy.declares.changesBase === true)
    await writeParams(folder, runFiles.offset, offsetOf(state.chain));
}

/** What a run trained: of its last state, or where no round was left of its files; nothing where each client has a model. */
async function trainedBy(
  folder: string,
  { strategy }: Assembly,
  last: Committed | undefined,
): Promise<Pick<Trained, "params" | "offset">> {
  if (strategy.declares.personal === true) return { params: new Map(), offset: new Map() };
  return last === undefined ? readTrained(folder) : { params: last.global(), offset: offsetOf(last.chain) };
}

async function sample(
  { model, weights: read, tokenizer, adapter, strategy, plan }: Assembly,
  { generate }: Job,
  { params, offset }: Pick<Trained, "params" | "offset">,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  if (generate === undefined || strategy.declares.personal === true) return undefined;
  const weights = new Map([...withOffset(await read(), offset), ...params]);
  const source = { model, tokenizer, attached: adapter.attach(adapter.rank), weights, threads: plan.threads };
  let text = "";
  for await (const piece of sampleText(source, signal === undefined ? generate : { ...generate, signal }))
    text += piece;
  return text;
}

function summaryOf(
  job: PlacedJob,
  { strategy }: Assembly,
  {
    rounds,
    evaluations,
    before,
    after,
    adapted,
    peakBytes,
  }: {
    readonly rounds: readonly Round[];
    readonly evaluations: ReadonlyMap<number, Readonly<Record<string, number>>>;
    readonly before: string | undefined;
    readonly after: string | undefined;
    readonly adapted: boolean;
    readonly peakBytes: number;
  },
): RunSummary {
  const sum = (value: (round: Round) => number): number =>
    rounds.reduce((total, round) => total + value(round), 0);
  const lora = adapted && job.adapter.kind === "lora" && strategy.declares.personal !== true;
  return {
    folder: job.out,
    task: job.task,
    ...(lora ? { adapter: `${job.out}/${runFiles.adapter}` } : {}),
    rounds: rounds.length,
    before: evaluations.get(0) ?? {},
    after: evaluations.get(rounds.at(-1)?.number ?? 0) ?? {},
    bytesDown: sum(({ bytesDown }) => bytesDown),
    bytesUp: sum(({ bytesUp }) => bytesUp),
    bytesFull: sum(({ bytesFull }) => bytesFull),
    seconds: sum(({ seconds }) => seconds),
    peakBytes,
    ...(before === undefined || after === undefined
      ? {}
      : { samples: { prompt: job.generate?.prompt ?? "", before, after } }),
  };
}

function inOrder(rounds: ReadonlyMap<number, Round>): Round[] {
  return [...rounds.values()].sort((a, b) => a.number - b.number);
}
