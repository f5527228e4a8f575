import { linkSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";

/** The right to write to a run folder. */
export interface RunLock {
  release(): void;
}

interface Holder {
  readonly pid: number;
  /** What tells this process from a later one of the same pid; empty where the system does not say. */
  readonly start: string;
  readonly since: string;
}

/**
 * Takes the lock of a run folder: a file that only one process can create, naming it. The lock of a process that is gone is
 * removed. Throws TributaryError `run-locked` where the holder is alive.
 */
export function lockRun(folder: string): RunLock {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, "lock");
  const mine: Holder = { pid: process.pid, start: startOf(process.pid), since: new Date().toISOString() };
  while (!create(path, JSON.stringify(mine))) {
    const holder = readHolder(path);
    if (holder && alive(holder)) throw inUse(folder, holder);
    discard(folder, path);
  }
  removeDrafts(folder);
  return { release: () => rmSync(path, { force: true }) };
}

/** Removes a stale lock. Of several processes that found it stale one moves it; a lock that is alive goes back. */
function discard(folder: string, path: string): void {
  const moved = `${path}.stale-${process.pid}`;
  try {
    renameSync(path, moved);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return;
    throw error;
  }
  const holder = readHolder(moved);
  if (holder && alive(holder)) {
    renameSync(moved, path);
    throw inUse(folder, holder);
  }
  rmSync(moved, { force: true });
}

/** Deletes what processes that are gone left on their way to the lock. */
function removeDrafts(folder: string): void {
  for (const name of readdirSync(folder)) {
    const pid = /^lock\.(?:new|stale)-(\d+)$/.exec(name)?.[1];
    if (pid !== undefined && !exists(Number(pid))) rmSync(join(folder, name), { force: true });
  }
}

function inUse(folder: string, { pid, since }: Holder): TributaryError {
  return new TributaryError(
    "run-locked",
    `${folder} is in use by process ${pid} since ${since}; wait for it, stop it, or write to another folder`,
  );
}

/** Creates the lock with its content in one step, so that no other process ever reads half of it; false if there is one. */
function create(path: string, text: string): boolean {
  const draft = `${path}.new-${process.pid}`;
  try {
    writeFileSync(draft, text, { mode: 0o600, flush: true });
    linkSync(draft, path);
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    const why = error instanceof Error ? error.message : String(error);
    throw new TributaryError("disk-write", `the lock ${path} was not written: ${why}`, { cause: error });
  } finally {
    rmSync(draft, { force: true });
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

/** The holder that the lock names; undefined where the file is gone or was cut short by a crash. */
function readHolder(path: string): Holder | undefined {
  try {
    const { pid, start, since } = JSON.parse(readFileSync(path, "utf8"));
    return { pid: Number(pid), start: String(start), since: String(since) };
  } catch {
    return undefined;
  }
}

function alive({ pid, start }: Holder): boolean {
  return exists(pid) && startOf(pid) === start;
}

/** Whether there is a process of this number, ours or another user's. */
function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return codeOf(error) === "EPERM";
  }
}

/** Start time of a process in ticks since boot, on systems with /proc: field 22, counted after the name in parentheses. */
function startOf(pid: number): string {
  try {
    const line = readFileSync(`/proc/${pid}/stat`, "utf8");
    return line.slice(line.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
}
