import { appendFile, mkdir, readdir, readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";
import type { Round } from "../federation/round.ts";
import { eventFileHead, lastStep, scalarRecord } from "../formats/tfevents.ts";

/** Event files of a run for TensorBoard. */
export interface TensorBoardLog {
  /** Appends the rounds that the folder does not have yet; step 0 holds the measurements before round 1. */
  write(rounds: readonly Round[], initial?: Readonly<Record<string, number>>): Promise<void>;
}

const prefix = "events.out.tfevents.";

/**
 * Opens a folder of event files. What goes on writes a new file, named by the seconds since 1970, which starts after the
 * last whole step of those that are there: TensorBoard reads the files in order of their names, sees no step twice, and
 * a reader that is under way goes on.
 */
export async function openTensorBoard(folder: string, wall: () => number): Promise<TensorBoardLog> {
  const files = (await readdir(folder).catch(() => [])).filter((name) => name.startsWith(prefix));
  let written = -1;
  let newest = 0;
  for (const name of files) {
    written = Math.max(written, lastStep(await readFile(join(folder, name))) ?? -1);
    newest = Math.max(newest, Number.parseInt(name.slice(prefix.length), 10) || 0);
  }
  let path: string | undefined;

  async function append(bytes: readonly Uint8Array[]): Promise<void> {
    try {
      if (path === undefined) {
        await mkdir(folder, { recursive: true });
        const seconds = Math.max(Math.floor(wall() / 1000), newest + 1);
        path = join(folder, `${prefix}${seconds}.${hostname().replaceAll(/[^\w.-]/g, "-") || "host"}`);
        await appendFile(path, Buffer.concat([eventFileHead(wall() / 1000), ...bytes]));
      } else await appendFile(path, Buffer.concat(bytes));
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new TributaryError("disk-write", `${path ?? folder}: was not written: ${why}`, { cause });
    }
  }

  return {
    async write(rounds, initial = {}) {
      const steps =
        written < 0 && Object.keys(initial).length > 0 ? [{ step: 0, values: heldOut(initial) }] : [];
      let bytes = 0;
      for (const round of rounds) {
        bytes += round.bytesDown + round.bytesUp;
        if (round.number > written) steps.push({ step: round.number, values: scalarsOf(round, bytes) });
      }
      if (steps.length === 0) return;
      const wallTime = wall() / 1000;
      await append(steps.map((step) => scalarRecord({ ...step, wallTime })));
      written = Math.max(...steps.map(({ step }) => step));
    },
  };
}

/** The scalars of a round by tag; `bytes` are those of all rounds so far. */
function scalarsOf(round: Round, bytes: number): Record<string, number> {
  return {
    "train/loss": round.loss,
    ...prefixed("train", round.metrics),
    ...heldOut(round.evaluation),
    "bytes/down": round.bytesDown,
    "bytes/up": round.bytesUp,
    "bytes/total": bytes,
    "seconds/round": round.seconds,
    ...prefixed("seconds", round.phases),
    "clients/accepted": round.accepted.length,
    "clients/dropped": round.rejected.length,
    ...measurementsOf(round.measurements),
  };
}

function heldOut(metrics: Readonly<Record<string, number>>): Record<string, number> {
  return prefixed("held-out", metrics);
}

function prefixed(group: string, values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, number]) => [`${group}/${name}`, number]));
}

/** What is measured in every module as the mean over modules; other measurements as they are. */
function measurementsOf(measurements: Readonly<Record<string, number>>): Record<string, number> {
  const groups = new Map<string, number[]>();
  for (const [name, number] of Object.entries(measurements)) {
    const [group = "", module] = name.split(/\/(.*)/s);
    const tag = module === undefined ? `measured/${group}` : `${group}/mean`;
    groups.set(tag, [...(groups.get(tag) ?? []), number]);
  }
  return Object.fromEntries(
    [...groups].map(([tag, numbers]) => [tag, numbers.reduce((a, b) => a + b, 0) / numbers.length]),
  );
}
