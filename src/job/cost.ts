import { TributaryError } from "../errors.ts";
import type { FederatedClient } from "../federation/door.ts";
import { isFactor, isLoraA } from "../federation/low-rank.ts";
import { drawCohort } from "../federation/sampling.ts";
import { packState } from "../federation/state.ts";
import type { Strategy } from "../federation/strategy.ts";
import type { LoadedModel } from "../models/load.ts";
import { type NamedStrategy, type StrategyEntry, strategyEntries } from "../strategies/catalogue/entries.ts";
import { besideScalars, pairScalars, type Sizes, weightScalars } from "../strategies/catalogue/traffic.ts";
import { initialParams, jobAdapter, rankOfClient } from "./adapter.ts";
import { crossProblems } from "./cross-checks.ts";
import type { AdapterJob, Job } from "./job.ts";
import { exampleOf } from "./methods.ts";
import { problemLine } from "./problem.ts";
import { rehearse, type Serialised, tensorBytes } from "./rehearsal.ts";

/** What costs are counted for. */
export interface CostOptions {
  readonly job: Pick<Job, "adapter" | "strategy" | "seed">;
  readonly model: LoadedModel;
  /** Every silo of the job. */
  readonly clients: readonly Pick<FederatedClient, "id" | "numExamples">[];
  /** K, clients of a round. */
  readonly perRound: number;
  /** Bytes of the whole model. */
  readonly fullBytes: number;
  /** The methods to count. Default: all. */
  readonly names?: readonly string[];
}

/** What was serialised beside its bytes by the closed form. */
export interface Counted extends Serialised {
  readonly closed: number;
}

/** What one client and one round cost. */
export interface ExchangeCost {
  readonly round: number;
  readonly client: string;
  readonly down: Counted;
  readonly up: Counted;
}

/** What a method costs. */
export interface MethodCost {
  readonly name: string;
  readonly title: string;
  readonly down: string;
  readonly up: string;
  readonly kept: string;
  /** The first round that costs as much as those after it. */
  readonly settles: number;
  /** Every rehearsed round up to that one, for every client. */
  readonly exchanges: readonly ExchangeCost[];
  /** Bytes to and from a client in that round, the mean over clients. */
  readonly bytesDown: number;
  readonly bytesUp: number;
  /** Down and up together as a share of full weights down and up. */
  readonly shareOfFull: number;
  /** Bytes on the server in closed form. */
  readonly server: {
    /** The state, once every client has taken part. */
    readonly kept: number;
    /** The state after the rehearsal: by the closed form, and of the tensors in it. */
    readonly state: Pick<Counted, "closed" | "sent">;
    /** The updates of a round, K times up. */
    readonly updates: number;
    /** The most that base changes and their history take: two dense differences. */
    readonly base: number;
    readonly total: number;
  };
  /** Whether every closed form is what was sent and kept, to the byte. */
  readonly agrees: boolean;
}

/** A method that the job cannot run, and why. */
export interface NoCost {
  readonly name: string;
  readonly reason: string;
}

/** The sizes that all costs of a job are made of, in scalars. */
export interface CostShapes {
  /** Adapted modules. */
  readonly modules: number;
  /** r */
  readonly rank: number;
  /** N */
  readonly clients: number;
  /** K */
  readonly perRound: number;
  /** L(r) */
  readonly pairs: number;
  /** F */
  readonly weights: number;
  /** H */
  readonly beside: number;
  readonly fullBytes: number;
}

const BYTES = 4; // float32

/** The sizes of a job. */
export function costShapes({ job, model, clients, perRound, fullBytes }: CostOptions): CostShapes {
  const { modules, beside } = shapesOf(job.adapter, model);
  const sizes = { modules: [...modules.values()], beside };
  const { rank } = jobAdapter(job.adapter, model);
  return {
    modules: modules.size,
    rank,
    clients: clients.length,
    perRound,
    pairs: pairScalars(sizes, rank),
    weights: weightScalars(sizes),
    beside: besideScalars(sizes),
    fullBytes,
  };
}

/**
 * What every method would send and keep for a job: by closed form, and by letting the strategy go through its rounds on the
 * job's shapes, moved by noise in place of training, and serialising what it sends. Packing of updates is left aside.
 */
export function* methodCosts(options: CostOptions): Generator<MethodCost | NoCost> {
  for (const entry of strategyEntries)
    if (options.names?.includes(entry.name) ?? true) yield costOf(entry, options);
}

function costOf(entry: StrategyEntry, options: CostOptions): MethodCost | NoCost {
  const { name } = entry;
  const asked = options.job.strategy.name === name ? options.job.strategy : exampleOf(entry);
  const strategy = entry.make(asked);
  const adapter = adapterFor(options.job.adapter, strategy, options.model);
  const [problem] = crossProblems({ strategy: asked, adapter });
  if (problem) return { name, reason: problemLine(problem) };
  try {
    return rehearsed(entry, asked, strategy, adapter, options);
  } catch (error) {
    if (!(error instanceof TributaryError || error instanceof RangeError)) throw error;
    return { name, reason: error.message };
  }
}

/** The adapter of the job as a method needs it: the weights themselves, or one rank, where it takes nothing else. */
function adapterFor(adapter: AdapterJob, { declares }: Strategy, model: LoadedModel): AdapterJob {
  if (adapter.kind === "dense") return adapter;
  if (declares.needsDense) {
    const { modules } = shapesOf(adapter, model);
    return { kind: "dense", target: [...modules.keys()].map((module) => `${module}.weight`) };
  }
  const { ranks, from: _, ...plain } = adapter;
  return declares.unequalRanks && ranks !== undefined ? { ...plain, ranks } : plain;
}

function rehearsed(
  { name, traffic: trafficOf }: StrategyEntry,
  asked: NamedStrategy,
  strategy: Strategy,
  adapterJob: AdapterJob,
  { job: { seed }, model, clients, perRound, fullBytes }: CostOptions,
): MethodCost {
  const traffic = trafficOf(asked);
  const { declares } = strategy;
  const adapter = jobAdapter(adapterJob, model, strategy);
  const enrolled = (declares.centralized ? pooled(clients) : clients).map((client, i): FederatedClient => {
    const rank = rankOfClient(adapterJob, client.id, i);
    return { ...client, rank, scaling: adapter.scaling(rank) };
  });
  const byId = new Map(enrolled.map((client) => [client.id, client]));
  const target = Math.min(perRound, enrolled.length);
  const cohort = drawCohort({ clients: [...byId.keys()], seed, round: 1, attempt: 1, target, spare: 0 });
  const present = cohort.flatMap((id) => byId.get(id) ?? []);
  const { modules, beside } = shapesOf(adapterJob, model);
  const settles = traffic.settles ?? 1;
  const offline = declares.centralized === true || declares.isolated === true;
  const initial = initialParams(adapter, model.weights, seed);
  const sent = rehearse({ strategy, initial, enrolled, present, rounds: settles, seed, offline });
  const sizes = (client: FederatedClient, drawn: Sizes["drawn"], seen = target): Sizes => ({
    modules: [...modules.values()],
    beside,
    clients: enrolled.map(({ id }) => id),
    client: client.id,
    rank: client.rank,
    largest: adapter.rank,
    ranks: present.map(({ rank }) => rank),
    seen,
    drawn,
  });
  const drawn = traffic.drawn?.(sent.states, sent.upload) ?? {};
  const exchanges = sent.exchanges.map(({ round, client, down, up }): ExchangeCost => {
    const own = sizes(client, drawn);
    return {
      round,
      client: client.id,
      down: { closed: BYTES * traffic.down.of(own, round), ...down },
      up: { closed: BYTES * traffic.up.of(own, round), ...up },
    };
  });
  const last = exchanges.filter(({ round }) => round === settles);
  const mean = (of: (exchange: ExchangeCost) => number): number =>
    last.reduce((sum, exchange) => sum + of(exchange), 0) / last.length;
  const [bytesDown, bytesUp] = [mean(({ down }) => down.closed), mean(({ up }) => up.closed)];
  const done = sent.states.length - 1;
  const one = present[0] ?? { id: "", rank: 0, scaling: 1, numExamples: 0 };
  const state = {
    closed: BYTES * traffic.kept.of(sizes(one, drawn), done),
    sent: tensorBytes(packState(sent.states[done] ?? null).params).sent,
  };
  const kept = BYTES * traffic.kept.of(sizes(one, drawn, enrolled.length), Number.MAX_SAFE_INTEGER);
  const updates = offline ? 0 : target * bytesUp;
  const base = declares.changesBase ? 2 * BYTES * weightScalars(sizes(one, drawn)) : 0;
  return {
    name,
    title: strategy.name,
    down: traffic.down.text,
    up: traffic.up.text,
    kept: traffic.kept.text,
    settles,
    exchanges,
    bytesDown,
    bytesUp,
    shareOfFull: (bytesDown + bytesUp) / (2 * fullBytes),
    server: { kept, state, updates, base, total: kept + updates + base },
    agrees:
      state.closed === state.sent &&
      exchanges.every(({ down, up }) => down.closed === down.sent && up.closed === up.sent),
  };
}

/** Shapes of the adapted modules, and of what is trained beside their factors. */
function shapesOf(
  adapter: AdapterJob,
  model: LoadedModel,
): {
  readonly modules: ReadonlyMap<string, readonly [out: number, width: number]>;
  readonly beside: ReadonlyMap<string, readonly number[]>;
} {
  const plain = jobAdapter(adapter, model);
  const modules = new Map<string, readonly [number, number]>();
  const beside = new Map<string, readonly number[]>();
  const parameters = plain.attach(plain.rank).flatMap((one) => [...one.parameters]);
  const shapes = new Map(parameters.map(([name, { shape }]) => [name, shape]));
  for (const [name, shape] of shapes) {
    if (!isFactor(name)) beside.set(name, shape);
    else if (isLoraA(name)) {
      const module = name.replace(/\.lora_A\.weight$/, "");
      const [out = 0] = shapes.get(`${module}.lora_B.weight`) ?? [];
      modules.set(module, [out, shape[1] ?? 0]);
    }
  }
  return { modules, beside };
}

/** One client in the place of all. */
function pooled(
  clients: readonly Pick<FederatedClient, "id" | "numExamples">[],
): Pick<FederatedClient, "id" | "numExamples">[] {
  return [{ id: "all", numExamples: clients.reduce((sum, { numExamples }) => sum + numExamples, 0) }];
}
