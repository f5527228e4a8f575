import { join } from "node:path";
import { stream } from "../../src/tensor/random.ts";
import { type SmallJobOptions, writeSmallJob } from "./job.ts";
import { differences, type Outcome, outcomeOf } from "./outcome.ts";
import { type Life, lastPhase, live, type Moment, type Phase, phaseAfter } from "./process.ts";

export interface StormOptions extends SmallJobOptions {
  /** An empty folder for the runs. */
  readonly folder: string;
  /** The command line of the program, without its arguments. */
  readonly program: readonly string[];
  /** Kills in all. */
  readonly times: number;
  readonly seed: number;
  /** Hears of the undisturbed run, of every kill and of every run that came to its end. */
  readonly onLine?: (line: string) => void;
}

/** What the kills came to. */
export interface Storm {
  readonly kills: number;
  /** Runs that came to their end, the undisturbed one apart. */
  readonly runs: number;
  readonly byPhase: ReadonlyMap<Phase, number>;
  /** Everything that was not as in the undisturbed run. */
  readonly differs: readonly string[];
}

/**
 * Runs a job undisturbed; then runs the same job again and again, killing its process at moments drawn from the seed and
 * starting it again until it ends, and compares what each run came to.
 */
export async function storm({
  folder,
  program,
  times,
  seed,
  onLine = () => {},
  ...size
}: StormOptions): Promise<Storm> {
  writeSmallJob(folder, size);
  const start = (out: string, moment?: Moment): Promise<Life> =>
    live([...program, "run", "job.yaml", "--out", out, "--json"], { cwd: folder, ...(moment && { moment }) });
  const calm = await start("undisturbed");
  if (calm.code !== 0) throw new Error(`the undisturbed run ended with code ${calm.code}: ${calm.err}`);
  const expected = await outcomeOf(join(folder, "undisturbed"));
  onLine(
    `undisturbed: ${(calm.ms / 1000).toFixed(1)} s, adapter ${short(expected, "adapter/adapter_model.safetensors")}, state ${short(expected, "state")}`,
  );

  const draw = momentsOf(calm, seed);
  const byPhase = new Map<Phase, number>();
  const differs: string[] = [];
  let kills = 0;
  let runs = 0;
  while (kills < times || runs === 0) {
    const out = `run-${runs + 1}`;
    const lives: Life[] = [];
    for (let ended = false; !ended; ) {
      const life = await start(out, kills < times ? draw() : undefined);
      lives.push(life);
      if (life.killed) {
        kills++;
        const phase = lastPhase(life);
        byPhase.set(phase, (byPhase.get(phase) ?? 0) + 1);
        onLine(
          `kill ${kills}: ${out}, after ${(life.ms / 1000).toFixed(2)} s, ${phase}, last event ${described(life)}`,
        );
      } else if (life.code !== 0) {
        differs.push(`${out}: ended with code ${life.code}: ${life.err.trim()}`);
        return { kills, runs: runs + 1, byPhase, differs };
      } else ended = true;
    }
    runs++;
    const found = [...differences(expected, await outcomeOf(join(folder, out))), ...repeated(lives)];
    differs.push(...found.map((line) => `${out}: ${line}`));
    onLine(`${out}: ${lives.length} processes, ${found.length === 0 ? "identical" : found.join("; ")}`);
  }
  return { kills, runs, byPhase, differs };
}

/** Every other moment falls anywhere in a process; those between are aimed at one phase, all phases alike. */
function momentsOf(calm: Life, seed: number): () => Moment {
  const random = stream({ seed, purpose: "kills" });
  const spans = spansOf(calm);
  let drawn = 0;
  return () => {
    const phase = (["start", "training", "aggregation", "writing"] as const)[random.integer(4)] ?? "start";
    const where = random.uniform();
    const nth = 1 + random.integer(2);
    return drawn++ % 2 === 0 ? { ms: where * calm.ms } : { phase, nth, ms: where * (spans.get(phase) ?? 0) };
  };
}

/** Mean time that a process stays in each phase. */
function spansOf({ events, ms }: Life): Map<Phase, number> {
  const marks: { readonly phase: Phase; readonly at: number }[] = [{ phase: "start", at: 0 }];
  for (const { at, event } of events) {
    const phase = phaseAfter(event);
    if (phase !== undefined && phase !== marks.at(-1)?.phase) marks.push({ phase, at });
  }
  const totals = new Map<Phase, { readonly ms: number; readonly times: number }>();
  for (const [i, { phase, at }] of marks.entries()) {
    const { ms: sum, times } = totals.get(phase) ?? { ms: 0, times: 0 };
    totals.set(phase, { ms: sum + (marks[i + 1]?.at ?? ms) - at, times: times + 1 });
  }
  return new Map([...totals].map(([phase, total]) => [phase, total.ms / total.times]));
}

/** Updates and rounds that a run reported twice: what was reported has been durable, so no later process does it again. */
function repeated(lives: readonly Life[]): string[] {
  const seen = new Set<string>();
  const twice: string[] = [];
  for (const { event } of lives.flatMap(({ events }) => events)) {
    const key =
      event.type === "update-accepted"
        ? `update of ${event.client} in round ${event.round}`
        : event.type === "round-committed"
          ? `round ${event.round.number}`
          : undefined;
    if (key === undefined) continue;
    if (seen.has(key)) twice.push(`${key} was taken in twice`);
    seen.add(key);
  }
  return twice;
}

function described({ events }: Life): string {
  const last = events.at(-1)?.event;
  if (last === undefined) return "none";
  const round =
    "round" in last ? (typeof last.round === "number" ? last.round : last.round.number) : undefined;
  return `${last.type}${round === undefined ? "" : ` (round ${round})`}`;
}

function short(outcome: Outcome, name: string): string {
  return outcome.get(name)?.slice(0, 12) ?? "absent";
}
