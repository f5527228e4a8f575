import type { Adapter } from "../adapters/adapter.ts";
import type { LoraOptions } from "../adapters/lora.ts";
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
  | {
      readonly kind: "factors";
      readonly left: Params;
      readonly right: Params;
      readonly scale: number;
      /**
       * Factors, as large, whose product is taken out again: `W + scale * (left @ right - known.left @ known.right)`. Every
       * client draws them from the seed, so they do not travel.
       */
      readonly known?: { readonly left: Params; readonly right: Params };
    }
  | { readonly kind: "dense"; readonly difference: Params };

/**
 * Server to client. Keys are tensor names as in PEFT files. Changes of the base that all clients share are declared by
 * `Aggregate.base` and reach clients through the base version chain, never through the payload.
 */
export interface Payload {
  /** The trainable parameters the client starts from. */
  readonly params: Params;
  /** Anything else the algorithm sends along, such as a control variate. */
  readonly extra?: Params;
  /** The stage of the algorithm this round belongs to: the client trains by `Strategy.stages[stage]`. */
  readonly stage?: string;
}

/** Client to server. `params` are the trained parameters; deltas only where the strategy declares `sendsDeltas`. */
export interface Update {
  readonly client: ClientRef;
  readonly numExamples: number;
  readonly params: Params;
  readonly extra?: Params;
  /** Aggregations between the model it was trained from and this one; 0 where absent (only buffered rounds have more). */
  readonly staleness?: number;
  /** What the client had received, where that is not this round's broadcast (buffered rounds). */
  readonly received?: Params;
  /** Number of clients whose weighted mean this update is, made by a streaming fold; absent for one client's own. */
  readonly folded?: number;
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
  /**
   * Aggregates every module apart from the others: one after the other from a store gives the bits of all at once, so no
   * more than one module of the clients' updates has to be held.
   */
  readonly moduleWise?: boolean;
  /** Changes the frozen base weights. */
  readonly changesBase?: boolean;
  /** Leaves each client with a model of its own: what `LocalRule.start` gives it, on the client. */
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
  /** Trains weights themselves: refused at the door for low-rank adapters. */
  readonly needsDense?: boolean;
  /** Needs an optimizer that projects gradients (`Optimizer.projection`). */
  readonly needsProjection?: boolean;
  /** Clients upload how far parameters moved, not where they are: what did not move is 0. */
  readonly sendsDeltas?: boolean;
  /** Reads mean gradients off the way that a client went: needs gradient descent without momentum, at one step size. */
  readonly needsPlainSgd?: boolean;
}

/** What a client holds when a round begins. */
export interface LocalStart {
  readonly client: ClientRef;
  readonly received: Payload;
  /** What `remember` or the last `upload` left on this client. */
  readonly memory: Params;
  /** The parameters before round 1, cut to this client's rank: every client draws them from the seed, they are not sent. */
  readonly initial: Params;
  readonly context: RoundContext;
}

/** What the client half of an algorithm sees after local training. */
export interface LocalResult extends LocalStart {
  /** Trained parameters, the same names as what `start` gave. */
  readonly params: Params;
  readonly numExamples: number;
  readonly steps: number;
  readonly learningRate: number;
}

/** The client half. Everything absent means plain local training and the upload of all trained parameters. */
export interface LocalRule {
  /** Which parameters the local optimizer may move (in a phase, from 0). Default: all. */
  trainable?(name: string, phase: number): boolean;
  /** Local training runs this many times in a row, `trainable` choosing what each run moves. Default: 1. */
  readonly phases?: number;
  /**
   * How much of the optimizer survives the round: nothing, the projectors of GaLore and the count that their refresh goes
   * by, or moments and counts too. Default: "fresh".
   */
  readonly optimizerState?: "fresh" | "projectors" | "kept";
  /** A scalar added to the task loss, in graph ops. `received` holds this round's start values. */
  penalty?(params: Values, received: Values): Value;
  /** Changes each gradient before clipping and the optimizer see it. `extra` and `memory` are graph inputs. */
  correct?(grads: Values, extra: Values, memory: Values): Values;
  /** Client memory before its first round. It stays on the client. */
  remember?(received: Payload, initial: Params): Params;
  /**
   * What the client starts training from; also its personal model, where it has one. A name of a base weight takes the
   * place of that weight. `extra` are the graph inputs of `correct`. Default: what was received.
   */
  start?(local: LocalStart): { readonly params: Params; readonly extra?: Params };
  /** A change of the base for this client and round only, on top of the shared base; it does not travel. */
  personalBase?(local: LocalStart): readonly BaseChange[];
  /** What leaves the client, and what it keeps once the update is accepted. Default: the trained parameters; memory unchanged. */
  upload?(local: LocalResult): { readonly params: Params; readonly extra?: Params; readonly memory?: Params };
}

/** One federated algorithm: both halves, in one file. Every method is pure. */
export interface Strategy<State extends StateTree = StateTree> {
  readonly name: string;
  /** Paper: authors, venue, section or algorithm, link. */
  readonly paper: string;
  readonly declares: Declarations;
  /** The adapters that the method trains where LoRA is asked for, on the same modules. Default: LoRA itself. */
  adapters?(options: LoraOptions): readonly Adapter[];
  /** Server state before round 1. `initial` is drawn at the largest rank of the run. */
  init(initial: Params, clients: readonly ClientRef[]): State;
  /** Server to client, at the start of a round. */
  broadcast(state: State, client: ClientRef, context: RoundContext): Payload;
  /** How the client trains. Default: plain local training. */
  readonly local?: LocalRule;
  /** How it trains in a stage that `Payload.stage` names, instead of `local`. */
  readonly stages?: Readonly<Record<string, LocalRule>>;
  /** The server step: updates in (sorted by client id), next state out. Throws EmptyRoundError on no updates. */
  aggregate(state: State, updates: readonly Update[], context: RoundContext): Aggregate<State>;
  /** The parameters to evaluate and save; cut for one client where `client` is given. */
  global(state: State, client?: ClientRef): Params;
}
