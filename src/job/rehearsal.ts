import type { FederatedClient } from "../federation/door.ts";
import { type ClientHalf, clientHalf } from "../federation/local-rule.ts";
import { joinUpdate } from "../federation/manifest.ts";
import type { BaseChange, RoundContext, StateTree, Strategy, Update } from "../federation/strategy.ts";
import { safetensorsPieces } from "../formats/safetensors.ts";
import { mapParams, type Params } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** A serialised set of tensors. */
export interface Serialised {
  /** Bytes of the tensors. */
  readonly sent: number;
  /** Bytes of their names, shapes and dtypes. */
  readonly header: number;
}

/** What one client received and uploaded in one round. */
export interface Exchange {
  readonly round: number;
  readonly client: FederatedClient;
  /** The payload, and the base changes of the round before. */
  readonly down: Serialised;
  readonly up: Serialised;
}

export interface Rehearsal {
  readonly exchanges: readonly Exchange[];
  /** The server's state before round 1 and after each round but the last, whose updates are not aggregated. */
  readonly states: readonly StateTree[];
  /** What the first client uploaded first. */
  readonly upload: Params;
}

export interface RehearsalOptions {
  readonly strategy: Strategy;
  readonly initial: Params;
  readonly enrolled: readonly FederatedClient[];
  /** The clients of every round. */
  readonly present: readonly FederatedClient[];
  readonly rounds: number;
  readonly seed: number;
  /** Whether what is handed around stays in one place. */
  readonly offline: boolean;
}

/** Takes a strategy through some rounds, in which noise stands for training, and serialises what is sent. */
export function rehearse({
  strategy,
  initial,
  enrolled,
  present,
  rounds,
  seed,
  offline,
}: RehearsalOptions): Rehearsal {
  const states: StateTree[] = [strategy.init(initial, enrolled)];
  const memories = new Map<string, Params>();
  const exchanges: Exchange[] = [];
  let upload: Params | undefined;
  let changes: readonly BaseChange[] = [];
  for (let round = 1; round <= rounds; round++) {
    const context: RoundContext = { round, seed, numClients: enrolled.length };
    const state = states.at(-1) ?? null;
    const changed = tensorBytes(changeTensors(changes));
    const updates = present.map((client): Update => {
      const received = strategy.broadcast(state, client, context);
      const memory = memories.get(client.id);
      const half = clientHalf(strategy, { client, received, memory, initial, context });
      // The last round's updates are counted and not aggregated, so they need not differ from the start.
      const params = round < rounds ? moved(half, context, client.id) : half.start.params;
      const { numExamples } = client;
      const { memory: kept, ...up } = half.upload({ params, numExamples, steps: 1, learningRate: 1 });
      memories.set(client.id, kept);
      upload ??= up.params;
      exchanges.push({
        round,
        client,
        down: offline ? nothing : plus(tensorBytes(joinUpdate(received)), changed),
        up: offline ? nothing : tensorBytes(joinUpdate(up)),
      });
      return { client, numExamples, ...up };
    });
    if (round === rounds) break;
    const result = strategy.aggregate(state, updates, context);
    states.push(result.state);
    changes = result.base ?? [];
  }
  return { exchanges, states, upload: upload ?? new Map() };
}

/** Bytes of some tensors in a safetensors stream, its header apart. */
export function tensorBytes(params: Params): Serialised {
  if (params.size === 0) return nothing;
  const [header, ...tensors] = safetensorsPieces(params);
  return { sent: tensors.reduce((sum, { length }) => sum + length, 0), header: header?.length ?? 0 };
}

const nothing: Serialised = { sent: 0, header: 0 };

function plus(a: Serialised, b: Serialised): Serialised {
  return { sent: a.sent + b.sent, header: a.header + b.header };
}

/** The tensors of base changes that clients cannot draw themselves. */
function changeTensors(changes: readonly BaseChange[]): Params {
  const tensors = new Map<string, Tensor>();
  const put = (part: string, params: Params): void => {
    for (const [name, tensor] of params) tensors.set(`${part}/${name}`, tensor);
  };
  changes.forEach((change, k) => {
    if (change.kind === "dense") put(`${k}/difference`, change.difference);
    else {
      put(`${k}/left`, change.left);
      put(`${k}/right`, change.right);
    }
  });
  return tensors;
}

/** The start of a client with noise on every tensor that its rule may train. */
function moved({ rule, start }: ClientHalf, { seed, round }: RoundContext, client: string): Params {
  const phases = Array.from({ length: rule.phases ?? 1 }, (_, phase) => phase);
  return mapParams(start.params, (tensor, name) => {
    if (!phases.some((phase) => rule.trainable?.(name, phase) ?? true)) return tensor;
    const values = Float32Array.from(tensor.data, Number);
    const noise = new Float32Array(values.length);
    stream({ seed, round, client, purpose: `rehearsal ${name}` }).fillUniform(noise, -0.03, 0.03);
    return {
      dtype: "float32",
      shape: tensor.shape,
      data: values.map((value, i) => value + (noise[i] ?? 0)),
    };
  });
}
