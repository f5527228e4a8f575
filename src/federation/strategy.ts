import type { Value } from "../graph/value.ts";
import type { Params } from "../tensor/params.ts";

/** Symbolic parameters inside a traced step, by name. */
export type Values = ReadonlyMap<string, Value>;

/**
 * Anything a strategy keeps between rounds: tensors, named sets, numbers and text, nested in arrays and plain
 * objects. `packState`/`unpackState` (state.ts) carry it through safetensors and JSON.
 */
export type StateTree =
  | Params
  | number
  | string
  | boolean
  | null
  | readonly StateTree[]
  | { readonly [key: string]: StateTree };

/** What the server knows of a client when it addresses it. */
export interface ClientRef {
  readonly id: string;
  /** Adapter rank of this client; 0 where no low-rank adapter is trained. */
  readonly rank: number;
  /** LoRA scaling of this client (alpha/rank, or alpha/sqrt(rank) for rsLoRA); 1 where there is none. */
  readonly scaling: number;
}

/**
 * A change of a frozen base weight, [out, in]: `W + scale * left @ right` in factors (left [out, q], right [q, in]),
 * or a dense difference. Never formed densely before somebody needs it so.
 */
export type BaseChange =
  | { readonly kind: "factors"; readonly left: Params; readonly right: Params; readonly scale: number }
  | { readonly kind: "dense"; readonly difference: Params };

/** Server to client. Keys are tensor names as in PEFT files; keys of base changes are base weight names. */
export interface Payload {
  /** The trainable parameters the client starts from. */
  readonly params: Params;
  /** Anything else the algorithm sends along, such as a control variate. */
  readonly extra?: Params;
  /**
   * A change of the frozen base that belongs to this client alone; it replaces the one of the round before.
   * Changes that all clients share are declared by `Aggregate.base` and reach clients through the base version chain.
   */
  readonly personalBase?: readonly BaseChange[];
}

/** Client to server. `params` are the trained parameters, never a delta: deltas are the wire codec's business. */
export interface Update {
  readonly client: ClientRef;
  readonly numExamples: number;
  readonly params: Params;
  readonly extra?: Params;
}

/** Facts of the round that an aggregation may need. Randomness is keyed, never drawn from a global source. */
export interface RoundContext {
  readonly round: number;
  readonly seed: number;
  /** Number of clients enrolled in the run (N), participants or not. */
  readonly numClients: number;
}

/** What an aggregation returns. */
export interface Aggregate<State> {
  readonly state: State;
  /** Changes of the base that all clients apply, in order. They extend the base version chain. */
  readonly base?: readonly BaseChange[];
  /** Measurements for the round record, e.g. `deviation/<module>`. */
  readonly measurements?: Readonly<Record<string, number>>;
}

/** What shared code may know about an algorithm. It never asks which strategy it has. What is absent is false. */
export interface Declarations {
  /** Needs only the weighted sum of the updates: may be streamed, masked, split over machines. */
  readonly weightedSum?: boolean;
  /** Changes the frozen base weights. */
  readonly changesBase?: boolean;
  /** Leaves each client with a model of its own: `global(state, client)` differs between clients. */
  readonly personal?: boolean;
  /** Accepts clients of unequal rank. */
  readonly unequalRanks?: boolean;
  /** Keeps client state between rounds (`LocalRule.remember`). */
  readonly clientState?: boolean;
  /** Weights clients equally, as its paper does, instead of by examples. */
  readonly uniformWeights?: boolean;
  /** Trains on the pooled data of all clients in one place: a baseline, not a federation. */
  readonly centralized?: boolean;
  /** Never exchanges parameters: each client trains alone. */
  readonly isolated?: boolean;
  /** Works only with low-rank adapters: refused at the door for dense training. */
  readonly needsLowRank?: boolean;
}

/** What the client half of an algorithm sees after local training. */
export interface LocalResult {
  readonly received: Payload;
  /** Trained parameters, the same names as `received.params`. */
  readonly params: Params;
  readonly numExamples: number;
  readonly steps: number;
  readonly learningRate: number;
  readonly memory: Params;
}

/** The client half. Everything absent means plain local training and the upload of all trained parameters. */
export interface LocalRule {
  /** Which parameters the local optimizer may move. Default: all. */
  trainable?(name: string): boolean;
  /** A scalar added to the task loss, in graph ops. `received` holds this round's start values. */
  penalty?(params: Values, received: Values): Value;
  /** Changes each gradient before clipping and the optimizer see it. `extra` and `memory` are graph inputs. */
  correct?(grads: Values, extra: Values, memory: Values): Values;
  /** Client memory before its first round. It stays on the client. */
  remember?(received: Payload): Params;
  /** What leaves the client, and what it keeps. Default: the trained parameters; memory unchanged. */
  upload?(local: LocalResult): { readonly params: Params; readonly extra?: Params; readonly memory?: Params };
  /** What the client starts training from. Default: `received.params`. */
  start?(received: Payload, memory: Params): Params;
}

/** One federated algorithm: both halves, in one file. Every method is pure. */
export interface Strategy<State extends StateTree = StateTree> {
  readonly name: string;
  /** Paper: authors, venue, section or algorithm, link. */
  readonly paper: string;
  readonly declares: Declarations;
  /** Server state before round 1. `initial` is drawn at the largest rank of the run. */
  init(initial: Params, clients: readonly ClientRef[]): State;
  /** Server to client, at the start of a round. */
  broadcast(state: State, client: ClientRef): Payload;
  /** How the client trains. Default: plain local training. */
  readonly local?: LocalRule;
  /** The server step: updates in (sorted by client id), next state out. Throws EmptyRoundError on no updates. */
  aggregate(state: State, updates: readonly Update[], context: RoundContext): Aggregate<State>;
  /** The parameters to evaluate and save; of one client where `declares.personal`. */
  global(state: State, client?: ClientRef): Params;
}
