import type { Params } from "../tensor/params.ts";
import { prefix } from "./low-rank.ts";
import { joinUpdate } from "./manifest.ts";
import { type PlanEntry, planOf } from "./plan.ts";
import type {
  BaseChange,
  ClientRef,
  LocalResult,
  LocalRule,
  LocalStart,
  Payload,
  RoundContext,
  StateTree,
  Strategy,
} from "./strategy.ts";

/** The client half of a strategy with every default filled in: what a client does with a payload, but for the training. */
export interface ClientHalf {
  readonly rule: LocalRule;
  readonly local: LocalStart;
  /** What training starts from. */
  readonly start: { readonly params: Params; readonly extra: Params };
  /** What is added to the shared base for this round. */
  readonly personalBase: readonly BaseChange[];
  /** What goes up and what stays, after training. */
  upload(trained: Pick<LocalResult, "params" | "numExamples" | "steps" | "learningRate">): {
    readonly params: Params;
    readonly extra?: Params;
    readonly memory: Params;
  };
}

/** What a client brings to a round. */
export interface ClientRound {
  readonly client: ClientRef;
  readonly received: Payload;
  /** What the client kept; undefined before its first round. */
  readonly memory: Params | undefined;
  /** The parameters before round 1, at the largest rank. */
  readonly initial: Params;
  readonly context: RoundContext;
}

/** Applies the client half of a strategy to a payload. */
export function clientHalf<State extends StateTree>(
  strategy: Strategy<State>,
  round: ClientRound,
): ClientHalf {
  const { client, received, context } = round;
  const rule =
    (received.stage !== undefined ? strategy.stages?.[received.stage] : undefined) ?? strategy.local ?? {};
  const initial = client.rank > 0 ? prefix(round.initial, client.rank) : round.initial;
  const memory = round.memory ?? rule.remember?.(received, initial) ?? new Map();
  const local: LocalStart = { client, received, memory, initial, context };
  const start = rule.start?.(local) ?? { params: received.params };
  return {
    rule,
    local,
    start: { params: start.params, extra: start.extra ?? received.extra ?? new Map() },
    personalBase: rule.personalBase?.(local) ?? [],
    upload: (trained) => ({
      memory,
      ...(rule.upload?.({ ...local, ...trained }) ?? { params: trained.params }),
    }),
  };
}

/** What the rule of a strategy uploads: found by applying it to the start as if it were the trained parameters. */
export function uploadPlan({ start, upload }: ClientHalf): PlanEntry[] {
  return planOf(joinUpdate(upload({ params: start.params, numExamples: 1, steps: 1, learningRate: 1 })));
}
