import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Program, type Programs, programs } from "../test/processes/programs.ts";
import { type ProcessRun, processRun } from "../test/processes/run.ts";
import { clientsOf, type Setting, updateBytes } from "../test/processes/setting.ts";

/** One measured exchange. */
export interface ExchangeFigures {
  readonly bench: "exchange";
  readonly what: string;
  readonly [figure: string]: number | string | readonly number[];
}

/** What is measured, and how large. */
export interface ExchangeOptions {
  /** Small sizes, to see that it runs. */
  readonly quick?: boolean;
  /** Names of the measurements. Default: all. */
  readonly only?: readonly string[];
  /** A Python that has Flower: measured beside us where the work is the same. Default: its recorded figures are shown. */
  readonly flower?: string;
  onFigures(figures: ExchangeFigures): void;
}

/** Recorded rows of the peer, Flower 1.41.0 deployed on a machine of the same size; absent where it has none. */
const FLOWER: Readonly<Record<string, string>> = {
  "one tensor": "15.8 s a round, 0.70 GB",
  "128 tensors": "57.5 s a round, 0.35 GB",
  "many clients": "20.1 s a round in simulation, 3.8 GB",
  delay: "50 to 59 s",
};

/** Measures what passes between a coordinator and its clients, all processes of their own over loopback. */
export async function benchExchange({
  quick = false,
  only,
  flower,
  onFigures,
}: ExchangeOptions): Promise<void> {
  const toy = await programs(["coordinator", "silo"]);
  const own = await programs(
    ["exchange-upload", "exchange-idle"],
    fileURLToPath(new URL(".", import.meta.url)),
  );
  const tell = (what: string, figures: Figures): void =>
    onFigures({
      bench: "exchange",
      what,
      ...figures,
      ...(FLOWER[what] !== undefined && !("flowerSecondsPerRound" in figures) && { flower: FLOWER[what] }),
    });
  const bytes = quick ? 1_000_000 : 16_800_000;
  const small = quick ? 50_000 : 1_000_000;
  const many = quick ? 20 : 1000;
  const few = quick ? 2 : 10;
  const beside = async (tensors: number): Promise<Figures> => ({
    ...(await rounds(toy, flat({ clients: few, bytes, tensors }), few)),
    ...(flower !== undefined && (await inFlower(flower, { clients: few, bytes, tensors }))),
  });
  const measurements: Readonly<Record<string, () => Promise<Figures>>> = {
    "one tensor": () => beside(1),
    "128 tensors": () => beside(128),
    "ten clients": () => rounds(toy, pairs({ clients: 10, bytes: small }), 2),
    "a hundred clients": () => rounds(toy, pairs({ clients: many / 10, bytes: small }), 2),
    "many clients": () => rounds(toy, pairs({ clients: many, bytes: small }), 2),
    upload: () => upload({ toy, own }, quick ? 64 * 2 ** 20 : 4 * 2 ** 30),
    recovery: () => recovery(toy, many),
    idle: () => idle({ toy, own }, quick ? 100 : 4000),
    delay: () => delay(toy),
  };
  try {
    for (const [what, measure] of Object.entries(measurements))
      if (!only || only.includes(what)) tell(what, await measure());
  } finally {
    await toy.close();
    await own.close();
  }
}

function flat({ clients, bytes, tensors }: { clients: number; bytes: number; tensors: number }): Setting {
  const length = Math.floor(bytes / 4 / tensors);
  return { clients, rounds: 3, length, tensors, seed: 1, updateMemory: 0, light: true };
}

type Figures = Readonly<Record<string, number | string | readonly number[]>>;

/** The same rounds in Flower, deployed on this machine. */
async function inFlower(
  python: string,
  work: { readonly clients: number; readonly bytes: number; readonly tensors: number },
): Promise<Figures> {
  const script = fileURLToPath(new URL("peers/flower.py", import.meta.url));
  const args = Object.entries(work).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const { stdout } = await promisify(execFile)(python, [script, ...args]);
  const { secondsPerRound, serverMegabytes } = JSON.parse(stdout) as Record<string, number>;
  return {
    flowerSecondsPerRound: secondsPerRound ?? Number.NaN,
    flowerMegabytes: serverMegabytes ?? Number.NaN,
  };
}

/** FedIT over four pairs of factors. */
function pairs(size: { readonly clients: number; readonly bytes: number }): Setting {
  return { ...flat({ ...size, tensors: 8 }), lowRank: true };
}

/** Where clients keep their updates: in memory where the system has a file system in it, for each would have a disk of its own. */
function silosFolder(): string {
  return mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "tributary-silos-"));
}

/** Seconds of each round, from its opening to the committed mean. */
async function rounds(
  toy: Programs,
  setting: Setting,
  processes: number,
): Promise<Record<string, number | readonly number[]>> {
  const silosAt = silosFolder();
  const run = await processRun({ programs: toy, setting, silosAt });
  const life = await run.coordinator();
  const ids = clientsOf(setting).map(({ id }) => id);
  const silos = Array.from({ length: processes }, (_, i) =>
    run.silo({ clients: ids.filter((_, n) => n % processes === i) }),
  );
  await life.heard("done");
  const seconds = spans(life, "round-opened", "round-committed");
  const figures = {
    clients: setting.clients,
    processes,
    bytes: updateBytes(setting),
    tensors: setting.tensors,
    seconds,
    // The first waits for clients that start.
    secondsPerRound: median(seconds.slice(1)),
    serverMegabytes: peak(life),
  };
  await end(run, life, silos);
  rmSync(silosAt, { recursive: true, force: true });
  return figures;
}

/** A large update, its sender killed at half; the chunks and nothing else, for a sum over it holds as much as the model. */
async function upload(
  { toy, own }: { readonly toy: Programs; readonly own: Programs },
  bytes: number,
): Promise<Record<string, number>> {
  const setting: Setting = { clients: 1, rounds: 1, length: 16, tensors: 1, seed: 1 };
  const run = await processRun({ programs: toy, setting });
  const life = await run.coordinator();
  const chunkBytes = 4 * 2 ** 20;
  const settings = {
    url: run.url(),
    client: "c000",
    key: run.keyOf("c000"),
    chunks: bytes / chunkBytes,
    chunkBytes,
  };
  const first = own.start({ name: "exchange-upload", settings });
  await first.heard("put", (_) => first.said.length > settings.chunks / 2);
  first.kill();
  await first.ended;
  const sent = first.said.filter(({ type }) => type === "put").length;
  const again = own.start({ name: "exchange-upload", settings });
  const { chunks, seconds } = await again.heard("uploaded");
  const figures = {
    bytes,
    megabytesPerSecond: (Number(chunks) * chunkBytes) / Number(seconds) / 1e6,
    // What was on its way when the sender was killed; the server may have it nevertheless.
    sentAgain: Math.max(0, sent + Number(chunks) - settings.chunks) / settings.chunks,
    serverMegabytes: peak(life),
  };
  await again.ended;
  await end(run, life, []);
  return figures;
}

/** A coordinator that is killed when half of its clients have delivered. */
async function recovery(toy: Programs, clients: number): Promise<Record<string, number>> {
  const setting = { ...flat({ clients, bytes: 16_000, tensors: 1 }), rounds: 1 };
  const silosAt = silosFolder();
  const run = await processRun({ programs: toy, setting, silosAt });
  const first = await run.coordinator();
  const ids = clientsOf(setting).map(({ id }) => id);
  const half = run.silo({ clients: ids.slice(0, clients / 2) });
  await first.heard("update-accepted", () => accepted(first) >= clients / 2);
  first.kill();
  await first.ended;
  const began = performance.now();
  const life = await run.coordinator();
  const listens = performance.now() - began;
  const rest = run.silo({ clients: ids.slice(clients / 2) });
  await life.heard("client-started");
  const figures = {
    clients,
    accepted: accepted(first),
    secondsToListen: listens / 1000,
    secondsToResume:
      (Number((await life.heard("resumed")).at) - (Date.now() - (performance.now() - began))) / 1000,
  };
  await life.heard("done");
  await end(run, life, [half, rest]);
  rmSync(silosAt, { recursive: true, force: true });
  return figures;
}

function accepted({ said }: Program): number {
  return said.filter(({ type }) => type === "update-accepted").length;
}

/** Memory of a server whose clients all wait. */
async function idle(
  { toy, own }: { readonly toy: Programs; readonly own: Programs },
  clients: number,
): Promise<Record<string, number>> {
  // Of all clients one has work, and never comes for it.
  const setting: Setting = {
    clients: clients + 1,
    rounds: 1,
    length: 16,
    tensors: 1,
    seed: 1,
    participation: 1 / (clients + 1),
  };
  const run = await processRun({ programs: toy, setting });
  const life = await run.coordinator();
  await life.heard("round-opened");
  const before = resident(life);
  const keys = Object.fromEntries(
    clientsOf(setting)
      .slice(0, clients)
      .map(({ id }) => [id, run.keyOf(id)]),
  );
  const waiting = own.start({ name: "exchange-idle", settings: { url: run.url(), keys } });
  await waiting.heard("waiting");
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const figures = { clients, serverMegabytes: resident(life), serverMegabytesBefore: before };
  waiting.kill();
  await waiting.ended;
  life.kill();
  await life.ended;
  await run.close();
  return figures;
}

/** How long a round with its quorum waits for a client that was killed. */
async function delay(toy: Programs): Promise<Record<string, number>> {
  const setting: Setting = { clients: 4, rounds: 1, length: 16, tensors: 1, seed: 1, quorum: 3 };
  const run = await processRun({ programs: toy, setting });
  const life = await run.coordinator();
  const lost = run.silo({ clients: ["c003"], setting: { ...setting, workMs: 600_000 } });
  await lost.heard("training");
  const rest = run.silo({ clients: ["c000", "c001", "c002"] });
  await rest.heard("receipt", () => rest.said.filter(({ type }) => type === "receipt").length === 3);
  const killed = Date.now();
  lost.kill();
  const { at } = await life.heard("round-closed");
  await life.heard("done");
  await end(run, life, [rest]);
  return { seconds: (Number(at) - killed) / 1000 };
}

async function end(run: ProcessRun, life: Program, silos: readonly Program[]): Promise<void> {
  await Promise.all(silos.map(({ ended }) => ended));
  life.kill("SIGTERM");
  await life.ended;
  await run.close();
}

/** Seconds between pairs of events. */
function spans({ said }: Program, from: string, to: string): number[] {
  const times = (type: string): number[] =>
    said.filter((line) => line.type === type).map(({ at }) => Number(at));
  const ends = times(to);
  return times(from).flatMap((began, i) => (ends[i] === undefined ? [] : [((ends[i] ?? 0) - began) / 1000]));
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** Largest resident set of a process so far, in MB of 10^6 bytes, on systems that tell. */
function peak(program: Program): number {
  return memoryOf(program, "VmHWM");
}

function resident(program: Program): number {
  return memoryOf(program, "VmRSS");
}

function memoryOf({ pid }: Program, field: string): number {
  const path = `/proc/${pid}/status`;
  const line = existsSync(path)
    ? new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync(path, "utf8"))
    : null;
  return line ? (Number(line[1]) * 1024) / 1e6 : Number.NaN;
}
