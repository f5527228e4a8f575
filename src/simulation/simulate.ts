import { TributaryError } from "../errors.ts";
import { type VirtualEnv, virtualEnv } from "../federation/env.ts";
import type { JournalEvent } from "../federation/journal.ts";
import { openState } from "../federation/manifest.ts";
import type { Receipt } from "../federation/message.ts";
import type { Strategy } from "../federation/strategy.ts";
import { diskBlobs } from "../storage/disk.ts";
import { nodeEnv } from "../storage/node-env.ts";
import { stream } from "../tensor/random.ts";
import { newClientKey } from "../transports/http/signature.ts";
import { type CoordinatorOptions, coordinate, type Mutation, RUN_FOLDER } from "./coordinator.ts";
import { type Crash, drawFaults, type Faults, type Machine, type Size } from "./faults.ts";
import { type Life, newLife } from "./life.ts";
import { takePart } from "./silo.ts";
import { type DiskTrouble, isDiskFailure, type SimDisk, type SimFiles, simDisk } from "./sim-disk.ts";
import { openSimJournal } from "./sim-journal.ts";
import { type Listener, type NetTrouble, simNet } from "./sim-net.ts";
import { toyAdapter, toyClients } from "./toy-training.ts";

/** One run to simulate. */
export interface SimulationOptions extends Size {
  readonly seed: number;
  /** The seed chooses one of them. */
  readonly strategies: readonly Strategy[];
  readonly mutation?: Mutation;
  /** Hears of everything that happens. */
  readonly onTrace?: (line: string) => void;
}

/** A receipt that a client saw. */
export interface SeenReceipt {
  readonly client: string;
  readonly round: number;
  readonly assignment: string;
  readonly manifest: string;
  readonly receipt: Receipt;
}

/** What became of a run. */
export interface History {
  readonly faults: Faults;
  readonly strategy: Strategy;
  /** What the coordinator's disk holds at the end. */
  readonly events: readonly JournalEvent[];
  /** Why the state of the last checkpoint cannot be read; undefined where it can. */
  readonly lastState: string | undefined;
  readonly receipts: readonly SeenReceipt[];
  /** What went wrong that no fault explains. */
  readonly problems: readonly string[];
  readonly counts: Counts;
}

/** How much happened. */
export interface Counts {
  readonly steps: number;
  readonly requests: number;
  /** Lives of the coordinator and of all clients. */
  readonly coordinators: number;
  readonly silos: number;
  readonly virtualMs: number;
}

/** Longest time, in virtual milliseconds, that a run may take once nothing goes wrong any more. */
const PATIENCE = 3_600_000;

/** The options of the federation, the same under faults and without. */
export function runOptions(faults: Faults, strategy: Strategy): CoordinatorOptions["run"] {
  const { seed, rounds, participation, spare, deadlineMs, leaseMs, updateMemory, keepRounds, evaluates } =
    faults;
  return {
    strategy,
    initial: toyAdapter(),
    clients: toyClients(faults.clients),
    rounds,
    seed,
    participation,
    spare,
    leaseMs,
    ...(deadlineMs !== undefined && { deadlineMs }),
    ...(updateMemory !== undefined && { updateMemory }),
    ...(keepRounds !== undefined && { keepRounds }),
    ...(evaluates && { evaluate: async ({ round }) => ({ round }) }),
  };
}

/** Whether a fault may end a process, or a request, in this way. */
function isExplained(error: unknown, { all, keepRounds }: Faults): boolean {
  if (isDiskFailure(error)) return true;
  if (!(error instanceof TributaryError)) return false;
  // A sweep may take the chunks of a late update while it is looked at; its client is told to send it again.
  if (error.code === "blob-missing") return keepRounds !== undefined;
  return error.code === "round-failed" && !all;
}

function described(error: unknown): string {
  return error instanceof Error ? (error.stack ?? String(error)) : String(error);
}

/** What a disk holds after power was lost: the events of the journal, and whether the last state can be read. */
async function remains(disk: SimDisk, clock: VirtualEnv): Promise<Pick<History, "events" | "lastState">> {
  const files = disk.mount({
    life: newLife(clock, 0),
    trouble: {
      room: () => Number.POSITIVE_INFINITY,
      failsWrite: () => false,
      failsSync: () => false,
      syncMs: () => 0,
      readMs: () => 0,
    },
    committed() {},
  });
  const events: JournalEvent[] = [];
  const journal = await openSimJournal(files, { folder: RUN_FOLDER, hash: clock.hash });
  for await (const event of journal.read(1)) events.push(event);
  const blobs = diskBlobs(`${RUN_FOLDER}/blobs`, { files, hash: clock.hash });
  const committed = events.findLast(({ body }) => body.type === "checkpoint-committed")?.body;
  const lastState = await openState(
    blobs,
    committed?.type === "checkpoint-committed" ? committed.state : "",
  ).then(
    () => undefined,
    (error: unknown) => String(error),
  );
  return { events, lastState };
}

/** Runs a federation under the faults of a seed, on a virtual clock, until it and its clients are done. */
export async function simulate(options: SimulationOptions): Promise<History> {
  const { seed, strategies, mutation = {}, onTrace } = options;
  const { hash } = nodeEnv();
  const settled = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));
  const clock = virtualEnv({ hash, settled });
  const faults = drawFaults(seed, { ...options, strategies: strategies.length });
  const strategy = strategies[faults.strategy];
  if (!strategy) throw new RangeError("simulate: there are no strategies");
  const run = runOptions(faults, strategy);
  const draw = stream({ seed, purpose: "net and disks" });
  const problems: string[] = [];
  const receipts: SeenReceipt[] = [];
  const key = newClientKey();
  let listener: Listener | undefined;
  let requests = 0;
  let coordinators = 0;
  let silos = 0;
  let coordinatorDone = false;
  let silosDone = 0;

  const trace = (what: () => string): void => onTrace?.(`${clock.monotonic().toFixed(3)} ${what()}`);
  const healed = (): boolean => clock.monotonic() >= faults.healed;
  const during = ({ from, to }: { readonly from: number; readonly to: number }): boolean =>
    clock.monotonic() >= from && clock.monotonic() < to && !healed();

  const trouble: NetTrouble = {
    loses(client, way) {
      if (healed()) return false;
      const number = Number(client.slice(1));
      const cut = faults.partitions.some(
        (one) => one[way] && number >= one.clients[0] && number < one.clients[1] && during(one),
      );
      return cut || (faults.net.drops > 0 && draw.uniform() < faults.net.drops);
    },
    duplicates: () => faults.net.duplicates > 0 && !healed() && draw.uniform() < faults.net.duplicates,
    corrupts: () => faults.net.corrupts > 0 && !healed() && draw.uniform() < faults.net.corrupts,
    delayMs: () =>
      draw.uniform() < faults.net.slow ? draw.uniformRange(1, faults.net.slowMs) : draw.uniformRange(1, 10),
  };
  const net = simNet({ clock, draw, trouble, listener: () => listener, trace });

  function diskTrouble({ illnesses, syncMs }: Machine): DiskTrouble {
    const suffers = (kind: "full" | "write" | "sync"): boolean =>
      illnesses.some((one) => one.kind === kind && during(one));
    return {
      room: () => (suffers("full") ? Math.max(0, draw.integer(200) - 100) : Number.POSITIVE_INFINITY),
      failsWrite: () => suffers("write") && draw.integer(3) === 0,
      failsSync: () => suffers("sync") && draw.integer(3) === 0,
      syncMs: () => (syncMs > 0 && !healed() ? draw.uniformRange(0, syncMs) : 0),
      readMs: () => (syncMs > 0 && !healed() ? draw.uniformRange(0, syncMs) : 0),
    };
  }

  interface Running {
    readonly life: Life;
    readonly files: SimFiles;
    /** Counts something that the next crash may come behind. */
    count(what: Crash["of"]): void;
  }

  /** A machine on which one process after the other lives, until one of them is done. */
  function machine(
    name: string,
    plan: Machine,
    live: (running: Running) => Promise<void>,
    done: () => void,
  ): { readonly disk: SimDisk; kill(): void } {
    let current: Life | undefined;
    const disk: SimDisk = simDisk(() => clock.wall());
    const crashes = [...plan.crashes];
    const ills = diskTrouble(plan);
    const restart = (ms: number): void => void clock.after(ms, start);

    function start(): void {
      const life = newLife(clock, plan.skewMs);
      current = life;
      const crash = healed() ? undefined : crashes.shift();
      let left = crash?.after ?? 0;

      function crashNow(): void {
        if (!life.alive || !crash) return;
        trace(() => `${name}: ${crash.power ? "loses power" : "is killed"}`);
        life.kill();
        if (crash.power) disk.losePower(draw);
        restart(crash.downMs);
      }
      function count(what: Crash["of"]): void {
        if (crash?.of === what && --left <= 0) crashNow();
      }

      if (crash?.of === "milliseconds") clock.after(crash.after, crashNow);
      const files = disk.mount({
        life,
        trouble: ills,
        committed(what) {
          trace(() => `${name}: ${what}`);
          count("effects");
        },
      });
      live({ life, files, count }).then(
        () => {
          if (!life.alive) return;
          trace(() => `${name}: is done`);
          done();
        },
        (error: unknown) => {
          if (!life.alive) return;
          trace(() => `${name}: ends with ${String(error)}`);
          if (!isExplained(error, faults)) problems.push(`${name} ended with ${described(error)}`);
          life.kill();
          restart(draw.uniformRange(100, 3000));
        },
      );
    }

    start();
    return { disk, kill: () => current?.kill() };
  }

  const kept = machine(
    "coordinator",
    faults.coordinator,
    ({ life, files }) => {
      coordinators++;
      return coordinate({
        life,
        files,
        run,
        graceMs: faults.graceMs,
        chunkBytes: faults.chunkBytes,
        mutation,
        listen(next) {
          listener = next;
          life.onKill(() => {
            listener = undefined;
          });
        },
        onEvent: (event) =>
          trace(
            () =>
              `coordinator: ${event.type} ${"round" in event ? JSON.stringify(event.round).slice(0, 8) : ""}`,
          ),
        onError(error) {
          trace(() => `coordinator: fails inside: ${String(error)}`);
          if (!isExplained(error, faults))
            problems.push(`the coordinator failed inside: ${described(error)}`);
        },
      });
    },
    () => {
      coordinatorDone = true;
    },
  );
  for (const [i, plan] of faults.silos.entries()) {
    const client = run.clients[i]?.id ?? "";
    const failing = stream({ seed, client, purpose: "failing" });
    machine(
      client,
      plan,
      ({ life, files, count }) => {
        silos++;
        const send = net(client, life);
        return takePart({
          signer: { client, key },
          life,
          files,
          strategy,
          initial: run.initial,
          send(request) {
            requests++;
            count("requests");
            return send(request);
          },
          onStep({ assignment }) {
            count("steps");
            if (life.alive && faults.fails > 0 && !healed() && failing.uniform() < faults.fails)
              throw new Error(`training of ${client} fails in round ${assignment.round}`);
          },
          onReceipt(receipt, { submission: { assignment, manifest } }) {
            trace(() => `${client}: ${receipt.status} in round ${assignment.round}`);
            receipts.push({ client, round: assignment.round, assignment: assignment.id, manifest, receipt });
            count("receipts");
          },
        });
      },
      () => {
        silosDone++;
      },
    );
  }

  await settled();
  let steps = 0;
  const isOver = (): boolean => coordinatorDone && silosDone === faults.clients;
  const latest = faults.healed + PATIENCE;
  while (!isOver() && clock.monotonic() < latest && (await clock.step())) steps++;
  if (!coordinatorDone)
    problems.push(`the run has not ended after ${Math.round(clock.monotonic() / 1000)} s`);
  else if (!isOver())
    problems.push(`${faults.clients - silosDone} clients have not heard that the run is over`);
  kept.kill();
  kept.disk.losePower(draw);
  return {
    faults,
    strategy,
    ...(await remains(kept.disk, clock)),
    receipts,
    problems,
    counts: { steps, requests, coordinators, silos, virtualMs: clock.monotonic() },
  };
}
