import { applyChanges, countScalars } from "../../src/federation/base-chain.ts";
import { type ClientHalf, clientHalf } from "../../src/federation/local-rule.ts";
import type { Aggregate, ClientRef, StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { combination, type Dense, denseOf, drawPair, pairProduct, type Shape } from "./algebra.ts";

/** A client of a rehearsal: how it counts, and its part in it. */
export interface Member extends ClientRef {
  readonly numExamples: number;
}

/** Members of given ranks, with unequal numbers of examples; scaling alpha / rank. */
export const membersOf = (ranks: readonly number[], alpha = 3): Member[] =>
  ranks.map((rank, k) => ({
    id: `c${k}`,
    rank,
    scaling: alpha / rank,
    numExamples: 10 * (k + 1) + 7 * (k % 2),
  }));

/** A pair with normal A and with B = 0, or normal too. */
export function startPair(module: string, shape: Shape, rank: number, b: "zero" | "normal" = "zero"): Params {
  const drawn = new Map(drawPair(module, shape, rank, `start ${rank}`));
  const zero = new Float64Array(shape.out * rank);
  if (b === "zero")
    drawn.set(`${module}.lora_B.weight`, { dtype: "float64", shape: [shape.out, rank], data: zero });
  return drawn;
}

/** What happened in a round: the updates, the step of the server, and the mean of the trained clients' weights. */
export interface RehearsedRound<State extends StateTree> {
  readonly updates: readonly Update[];
  readonly result: Aggregate<State>;
  readonly ideal: Dense;
  /** Scalars that went down to each member present, and up from it, base changes of this round included. */
  readonly traffic: ReadonlyMap<string, { readonly down: number; readonly up: number }>;
}

/** A federation under way. */
export interface Rehearsal<State extends StateTree> {
  state(): State;
  /** The offset of the shared base. */
  base(): Dense;
  /** What a member makes of what it would receive in a round. */
  halfOf(member: Member, round: number): ClientHalf;
  /** The weight that a member holds when a round begins. */
  held(member: Member, round: number): Dense;
  /** Runs a round with the members of these places; all of them if none are named. */
  round(round: number, present?: readonly number[]): RehearsedRound<State>;
}

/** A federation of one module in float64, whose clients move by keyed noise; its weights are updates of a zero base. */
export function rehearsal<State extends StateTree>({
  strategy,
  module,
  shape,
  members,
  initial,
  step = 0.4,
  seed = 9,
}: {
  readonly strategy: Strategy<State>;
  readonly module: string;
  readonly shape: Shape;
  readonly members: readonly Member[];
  readonly initial: Params;
  readonly step?: number;
  readonly seed?: number;
}): Rehearsal<State> {
  const name = `${module}.weight`;
  const zero: Dense = Array.from({ length: shape.out }, () => new Array<number>(shape.width).fill(0));
  const memories = new Map<string, Params>();
  let state = strategy.init(initial, members);
  let offset: Params = new Map();

  const contextOf = (round: number) => ({ round, seed, numClients: members.length });

  const halfOf = (member: Member, round: number): ClientHalf => {
    const context = contextOf(round);
    return clientHalf(strategy, {
      client: member,
      received: strategy.broadcast(state, member, context),
      memory: memories.get(member.id),
      initial,
      context,
    });
  };

  const baseWith = (half: ClientHalf): Dense => {
    const changed = applyChanges(offset, half.personalBase).get(name);
    return changed ? denseOf(changed) : zero;
  };

  const effective = (member: Member, half: ClientHalf, params: Params): Dense =>
    combination([1, member.scaling], [baseWith(half), pairProduct(params, module)]);

  return {
    state: (): State => state,
    base: (): Dense => (offset.has(name) ? denseOf(offset.get(name)) : zero),
    halfOf,
    held: (member: Member, round: number): Dense => {
      const half = halfOf(member, round);
      return effective(member, half, half.start.params);
    },
    round(round, present = members.map((_, k) => k)) {
      const updates: Update[] = [];
      const weights: Dense[] = [];
      const traffic = new Map<string, { down: number; up: number }>();
      for (const member of members.filter((_, k) => present.includes(k))) {
        const half = halfOf(member, round);
        const params = new Map(
          [...half.start.params].map(([tensor, x]) => [
            tensor,
            (half.rule.trainable?.(tensor, 0) ?? true)
              ? nudged(x, step, `${seed}/${round}/${member.id}/${tensor}`)
              : x,
          ]),
        );
        const { numExamples } = member;
        const { memory, ...up } = half.upload({ params, numExamples, steps: 4, learningRate: 0.1 });
        memories.set(member.id, memory);
        updates.push({ client: member, numExamples, ...up });
        weights.push(effective(member, half, params));
        const { received } = half.local;
        traffic.set(member.id, {
          down: scalars(received.params) + scalars(received.extra),
          up: scalars(up.params) + scalars(up.extra),
        });
      }
      const result = strategy.aggregate(state, updates, contextOf(round));
      state = result.state;
      offset = applyChanges(offset, result.base ?? []);
      const shared = countScalars(result.base ?? []);
      const counts = updates.map(({ numExamples }) => (strategy.declares.uniformWeights ? 1 : numExamples));
      const total = counts.reduce((a, b) => a + b, 0);
      return {
        updates,
        result,
        ideal: combination(
          counts.map((count) => count / total),
          weights,
        ),
        traffic: new Map([...traffic].map(([id, { down, up }]) => [id, { down: down + shared, up }])),
      };
    },
  };
}

/** Number of scalars of a set of tensors. */
export const scalars = (params: Params = new Map()): number =>
  [...params.values()].reduce((sum, { data }) => sum + data.length, 0);

function nudged({ shape, data }: Tensor, step: number, purpose: string): Tensor {
  const random = stream({ seed: 2, purpose });
  const values = Float64Array.from([...data].map((x) => Number(x) + step * random.normal()));
  return { dtype: "float64", shape, data: values };
}
