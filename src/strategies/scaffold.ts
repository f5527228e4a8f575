import { deviationOfMean } from "../federation/deviation.ts";
import type { Strategy, Values } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { add, sub } from "../graph/ops.ts";
import {
  addScaled,
  sub as minus,
  type Params,
  add as plus,
  scale,
  weightedMean,
  zerosLike,
} from "../tensor/params.ts";

/** Options of SCAFFOLD. */
export interface ScaffoldOptions {
  /** η_g. Default: 1. */
  readonly serverLearningRate?: number;
}

/** State of SCAFFOLD. */
export interface ScaffoldState {
  readonly [key: string]: Params;
  /** x */
  readonly params: Params;
  /** c, the mean of the c_i of all enrolled clients, absent ones too */
  readonly control: Params;
}

/**
 * SCAFFOLD, option II: client i descends along ∇ − c_i + c, c_i being the mean gradient of its last round, so that steps
 * drift no longer towards its own optimum. The mean gradient is read off the distance that it went, so the local
 * optimizer has to be plain SGD.
 *
 * Karimireddy et al., ICML 2020, Algorithm 1. https://arxiv.org/abs/1910.06378
 */
export function scaffold({ serverLearningRate = 1 }: ScaffoldOptions = {}): Strategy<ScaffoldState> {
  return {
    name: "SCAFFOLD",
    paper: "Karimireddy et al., ICML 2020, Algorithm 1, option II, https://arxiv.org/abs/1910.06378",
    declares: { weightedSum: true, uniformWeights: true, clientState: true, needsPlainSgd: true },
    init: (params) => ({ params, control: zerosLike(params) }),
    broadcast: ({ params, control }) => ({ params, extra: control }),
    local: {
      remember: (_, initial) => zerosLike(initial), // c_i
      correct: (gradients, control, own) =>
        new Map([...gradients].map(([name, g]) => [name, add(sub(g, at(own, name)), at(control, name))])),
      upload({ received, params: y, memory: own, steps, learningRate }) {
        const meanGradient = scale(minus(received.params, y), 1 / (steps * learningRate)); // (x − y) / (K η_l)
        const change = minus(meanGradient, received.extra ?? zerosLike(y)); // c_i⁺ − c_i
        return { params: y, extra: change, memory: plus(own, change) };
      },
    },
    aggregate({ params: x, control: c }, updates, { numClients }) {
      const weights = weightsOf("SCAFFOLD", updates, "uniform");
      const participants = weights.reduce((sum, weight) => sum + weight, 0); // |S|
      const mean = weightedMean(
        updates.map(({ params }) => params),
        weights,
      );
      const change = weightedMean(
        updates.map(({ extra }) => extra ?? new Map()),
        weights,
      );
      const params = serverLearningRate === 1 ? mean : addScaled(x, serverLearningRate, minus(mean, x));
      return {
        state: { params, control: addScaled(c, participants / numClients, change) },
        measurements: deviationOfMean({ who: "SCAFFOLD", updates, weights, before: x, after: params }),
      };
    },
    global: ({ params }) => params,
  };
}

function at(values: Values, name: string) {
  const value = values.get(name);
  if (!value)
    throw new RangeError(`scaffold: the client trains ${name}, for which it has no control variate`);
  return value;
}
