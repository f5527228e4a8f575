import { lora } from "../adapters/lora.ts";
import { privatePair } from "../adapters/private-pair.ts";
import type { Strategy } from "../federation/strategy.ts";
import { type Params, select } from "../tensor/params.ts";
import { type FedLoruOptions, type FedLoruState, fedLoru } from "./fedloru.ts";

/** Options of pFedLoRU. */
export interface PFedLoruOptions extends FedLoruOptions {
  /** Factor s_p of the private product. Default: that of the shared one, s. */
  readonly privateScaling?: number;
}

/**
 * pFedLoRU: FedLoRU beside a second pair L_k, U_k that every client keeps to itself, `W + s B A + s_p L_k U_k`. Each round
 * trains the private pair first, with the shared one fixed, and then the shared one. The private factors L [out, r] and
 * U [r, in] are the parameters `….private_B.weight` and `….private_A.weight`.
 *
 * Park and Klabjan, 2024, section 4.2. https://arxiv.org/abs/2409.12371
 */
export function pFedLoru({ privateScaling, ...options }: PFedLoruOptions = {}): Strategy<FedLoruState> {
  const shared = fedLoru(options);
  const scaled = privateScaling === undefined ? {} : { privateScaling };
  return {
    ...shared,
    name: "pFedLoRU",
    paper: "Park and Klabjan, 2024, section 4.2, https://arxiv.org/abs/2409.12371",
    declares: { ...shared.declares, personal: true, clientState: true },
    adapters: (pair) => [lora(pair), privatePair({ ...pair, ...scaled })],
    broadcast: (state, client, context) => ({
      params: sharedOf(shared.broadcast(state, client, context).params),
    }),
    local: {
      phases: 2,
      trainable: (name, phase) => isPrivate(name) === (phase === 0), // (L, U), then (B, A)
      remember: (_, initial) => privateOf(initial),
      start: (local) => ({
        params: new Map([
          ...sharedOf(shared.local?.start?.(local).params ?? local.received.params),
          ...local.memory, // L_k, U_k
        ]),
      }),
      upload: ({ params }) => ({ params: sharedOf(params), memory: privateOf(params) }),
    },
    aggregate(state, updates, context) {
      const before = { ...state, params: sharedOf(state.params) };
      const { state: after, ...rest } = shared.aggregate(before, updates, context);
      // The pair before round 1, which has no effect, completes the global model.
      return { ...rest, state: { ...after, params: new Map([...after.params, ...privateOf(state.params)]) } };
    },
  };
}

function isPrivate(name: string): boolean {
  return /\.private_[AB]\.weight$/.test(name);
}

function sharedOf(params: Params): Params {
  return select(params, (name) => !isPrivate(name));
}

function privateOf(params: Params): Params {
  return select(params, isPrivate);
}
