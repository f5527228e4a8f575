import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { stream } from "../../src/tensor/random.ts";
import { problemsOf } from "../../test/processes/kept.ts";
import { type Program, programs } from "../../test/processes/programs.ts";
import { processRun } from "../../test/processes/run.ts";
import type { Setting } from "../../test/processes/setting.ts";

/** How a soak is run. */
export interface SoakOptions {
  /** Rounds in all. */
  readonly rounds: number;
  /** Draws the moments of kills. */
  readonly seed: number;
  readonly say: (line: string) => void;
  /** Rounds of one life of the coordinator, on average. Default: 1,500. */
  readonly life?: number;
}

/** What one process holds. */
interface Sample {
  readonly rss: number;
  readonly descriptors: number;
}

/** Rounds in which a process takes what it needs once: compiled code, its heap, buffers. */
const WARM_UP = 300;

/** Largest growth between the second tenth of a life after that and its last. */
const MOST_GROWTH = 0.05;

/**
 * One run of many tiny rounds whose coordinator and clients are killed now and then. What grows within a life, and what is left
 * behind at the end, are problems; so is anything else in which the run differs from what it promises.
 */
export async function soak({ rounds, seed, say, life: usual = 1500 }: SoakOptions): Promise<string[]> {
  const random = stream({ seed, purpose: "soak" });
  const setting: Setting = { clients: 2, rounds, length: 64, tensors: 1, seed };
  const bundled = await programs(["coordinator", "silo"]);
  const run = await processRun({ programs: bundled, setting });
  const problems: string[] = [];
  const said: Program["said"][] = [];
  const silo = (client: string): Program => {
    const program = run.silo({ clients: [client] });
    said.push(program.said);
    return program;
  };
  let life = await run.coordinator();
  let silos = [silo("c000"), silo("c001")] as const;
  let next = 1;
  const began = performance.now();
  try {
    for (let number = 1; next <= rounds; number++) {
      const length = Math.round(usual * (0.5 + random.uniform()));
      const end = rounds - next < usual ? rounds : next + length;
      const where = `life ${number}, rounds ${next} to ${end}`;
      const first = next + WARM_UP;
      const step = Math.max(1, Math.floor((end - first) / 100));
      const samples: Sample[] = [];
      for (let round = first; round <= end; round += step) {
        await life.heard("round", (line) => Number(line.number) >= round);
        samples.push(sampleOf(life));
      }
      await life.heard("round", (line) => Number(line.number) >= end);
      if (end - first >= WARM_UP) problems.push(...grown(samples, where, say));
      else say(`${where}: too short to see what grows`);
      next = end + 1;
      if (next > rounds) break;
      life.kill();
      silos[0].kill();
      await Promise.all([life.ended, silos[0].ended]);
      life = await run.coordinator();
      silos = [silo("c000"), silos[1]];
    }
    await life.heard("done");
    for (const { ended } of silos) {
      const { code } = await ended;
      if (code !== 0) problems.push(`a client ended with code ${code}`);
    }
    life.kill("SIGTERM");
    await life.ended;
    const folder = join(run.folder, "coordinator");
    problems.push(...(await problemsOf({ setting, folder, said: said.flat() })));
    const left = readdirSync(join(run.folder, "silos"), { recursive: true }).filter((name) =>
      String(name).includes(".tmp-"),
    );
    if (left.length > 0) problems.push(`clients left ${left.length} temporaries behind: ${left.slice(0, 3)}`);
  } finally {
    await bundled.close();
    await run.close();
  }
  for (const problem of problems) say(problem);
  const minutes = (performance.now() - began) / 60_000;
  say(`soak: ${rounds} rounds in ${minutes.toFixed(1)} min, ${problems.length} problems`);
  return problems;
}

function sampleOf({ pid }: Program): Sample {
  const status = `/proc/${pid}/status`;
  const rss = existsSync(status) ? /VmRSS:\s+(\d+) kB/.exec(readFileSync(status, "utf8")) : null;
  const descriptors = existsSync(`/proc/${pid}/fd`) ? readdirSync(`/proc/${pid}/fd`).length : 0;
  return { rss: Number(rss?.[1] ?? 0) / 1000, descriptors };
}

/** What the last tenth of a life holds more than its second. */
function grown(samples: readonly Sample[], where: string, say: SoakOptions["say"]): string[] {
  const tenth = Math.max(1, Math.floor(samples.length / 10));
  const problems: string[] = [];
  const told: string[] = [];
  for (const what of ["rss", "descriptors"] as const) {
    const mean = (some: readonly Sample[]): number =>
      some.reduce((sum, sample) => sum + sample[what], 0) / some.length;
    const early = mean(samples.slice(tenth, 2 * tenth));
    const late = mean(samples.slice(-tenth));
    told.push(`${what} ${early.toFixed(1)} to ${late.toFixed(1)}`);
    if (late > early * (1 + MOST_GROWTH))
      problems.push(`${where}: ${what} grew from ${early.toFixed(1)} to ${late.toFixed(1)}`);
  }
  say(`${where}: ${told.join(", ")}`);
  return problems;
}
