import { type RandomStream, stream } from "../tensor/random.ts";

/** A time in which something is wrong, in milliseconds of the virtual clock. */
export interface Spell {
  readonly from: number;
  readonly to: number;
}

/** Clients that do not reach the server for a while, or are not reached by it, or both. */
export interface Partition extends Spell {
  /** From the first of these numbers to the one before the second. */
  readonly clients: readonly [number, number];
  readonly up: boolean;
  readonly down: boolean;
}

/** A disk that is full, or fails to write or to sync. */
export interface Illness extends Spell {
  readonly kind: "full" | "write" | "sync";
}

/** When one process ends without a word, and how. */
export interface Crash {
  /** Behind so many effects on its disk, requests, steps of training or receipts, or after so many milliseconds. */
  readonly after: number;
  readonly of: "effects" | "requests" | "steps" | "receipts" | "milliseconds";
  /** Whether what was not synced is lost with it. */
  readonly power: boolean;
  /** Milliseconds until it is started again. */
  readonly downMs: number;
}

/** How large a simulated federation is. */
export interface Size {
  readonly clients: number;
  readonly rounds: number;
}

/** Everything that one seed decides before its run begins. */
export interface Faults extends Size {
  readonly seed: number;
  /** Whether nothing that happens may keep an update from counting. */
  readonly all: boolean;
  /** Place in the list of strategies. */
  readonly strategy: number;
  readonly participation: number;
  readonly spare: number;
  readonly deadlineMs: number | undefined;
  readonly leaseMs: number;
  readonly graceMs: number;
  readonly updateMemory: number | undefined;
  readonly keepRounds: number | undefined;
  readonly chunkBytes: number;
  readonly evaluates: boolean;
  /** Probability that training fails. */
  readonly fails: number;
  readonly net: {
    readonly drops: number;
    readonly duplicates: number;
    readonly corrupts: number;
    readonly slow: number;
    readonly slowMs: number;
  };
  readonly partitions: readonly Partition[];
  readonly coordinator: Machine;
  readonly silos: readonly Machine[];
  /** After this time nothing goes wrong any more. */
  readonly healed: number;
}

/** What happens to one machine. */
export interface Machine {
  readonly crashes: readonly Crash[];
  readonly illnesses: readonly Illness[];
  /** Longest time of a sync. */
  readonly syncMs: number;
  /** Milliseconds that its wall clock is ahead. */
  readonly skewMs: number;
}

/** Draws what happens to a federation. Every kind of fault is absent from some runs, so that others show by themselves. */
export function drawFaults(
  seed: number,
  { clients, rounds, strategies }: Size & { readonly strategies: number },
): Faults {
  const draw = stream({ seed, purpose: "faults" });
  const often = (share: number): boolean => draw.uniform() < share;
  const one = <T>(...choices: readonly [T, ...T[]]): T => choices[draw.integer(choices.length)] ?? choices[0];
  const all = often(0.5);
  const healed = draw.uniformRange(10_000, 60_000);
  const [drops, duplicates, corrupts] = [often(0.6), often(0.6), often(0.3)];
  const sick = often(0.4);
  const crashes = often(0.8);
  return {
    seed,
    clients,
    rounds,
    all,
    strategy: draw.integer(strategies),
    participation: one(0.1, 0.2, 0.3, 0.5, 1),
    spare: all ? 0 : one(0, 0.3),
    deadlineMs: all || often(0.3) ? undefined : draw.uniformRange(5000, 20_000),
    leaseMs: all ? Number.POSITIVE_INFINITY : draw.uniformRange(5000, 30_000),
    graceMs: all ? 1e12 : 2000,
    updateMemory: often(0.25) ? 0 : undefined,
    keepRounds: one(undefined, undefined, 0, 1),
    chunkBytes: often(0.2) ? 200 : 2 ** 22,
    evaluates: often(0.2),
    fails: all || often(0.5) ? 0 : 0.05,
    net: {
      drops: drops ? draw.uniformRange(0.01, 0.15) : 0,
      duplicates: duplicates ? draw.uniformRange(0.01, 0.2) : 0,
      corrupts: corrupts ? draw.uniformRange(0.01, 0.05) : 0,
      slow: draw.uniformRange(0, 0.1),
      slowMs: draw.uniformRange(100, 3000),
    },
    partitions: Array.from({ length: one(0, 0, 1, 2, 4) }, () => drawPartition(draw, clients, healed)),
    coordinator: {
      crashes: Array.from({ length: crashes ? draw.integer(7) : 0 }, () =>
        drawCrash(draw, ["effects", "effects", "effects", "milliseconds"], 400),
      ),
      illnesses: sick ? drawIllnesses(draw, draw.integer(3), healed) : [],
      syncMs: often(0.4) ? draw.uniformRange(1, 30) : 0,
      skewMs: draw.uniformRange(-3_600_000, 3_600_000),
    },
    silos: Array.from({ length: clients }, () => ({
      crashes:
        crashes && often(0.2)
          ? Array.from({ length: 1 + draw.integer(3) }, () =>
              drawCrash(draw, ["effects", "effects", "requests", "steps", "receipts", "milliseconds"], 40),
            )
          : [],
      illnesses: sick && often(0.1) ? drawIllnesses(draw, 1, healed) : [],
      syncMs: 0,
      skewMs: draw.uniformRange(-3_600_000, 3_600_000),
    })),
    healed,
  };
}

function drawPartition(draw: RandomStream, clients: number, healed: number): Partition {
  const first = draw.integer(clients);
  const [up, down] = [draw.integer(3) > 0, draw.integer(3) > 0];
  return {
    ...drawSpell(draw, healed),
    clients: draw.integer(3) === 0 ? [0, clients] : [first, first + 1 + draw.integer(clients)],
    up: up || !down,
    down,
  };
}

function drawSpell(draw: RandomStream, healed: number): Spell {
  const from = draw.uniformRange(0, healed);
  return { from, to: from + draw.uniformRange(500, 20_000) };
}

function drawIllnesses(draw: RandomStream, count: number, healed: number): Illness[] {
  return Array.from({ length: count }, () => ({
    ...drawSpell(draw, healed),
    kind: (["full", "write", "sync"] as const)[draw.integer(3)] ?? "full",
  }));
}

function drawCrash(draw: RandomStream, kinds: readonly Crash["of"][], effects: number): Crash {
  const of = kinds[draw.integer(kinds.length)] ?? "effects";
  const most = { effects, requests: 20, steps: 8, receipts: 3, milliseconds: 20_000 }[of];
  return {
    // Small counts are as likely as large ones: the first moments of a process hold as many places to crash at.
    after: Math.ceil(most ** draw.uniform()),
    of,
    power: draw.integer(2) === 0,
    downMs: draw.integer(4) === 0 ? draw.uniformRange(1000, 20_000) : draw.uniformRange(10, 1000),
  };
}
