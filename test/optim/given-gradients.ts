import { runtime } from "#ort";
import { add, mul, reduceSum } from "../../src/graph/ops.ts";
import { constant, input, type Value } from "../../src/graph/value.ts";
import type { Optimizer } from "../../src/optim/optimizer.ts";
import type { Session } from "../../src/runtime/session.ts";
import type { Params } from "../../src/tensor/params.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { runLocal } from "../../src/train/local.ts";
import { type OptimizerMemory, resumeOptimizer, suspendOptimizer } from "../../src/train/optimizer-state.ts";
import { type StepRule, traceStep } from "../../src/train/step.ts";

/** An optimizer whose gradients are given: the loss is their inner product with the parameters. */
export class GivenGradients {
  readonly optimizer: Optimizer;
  private readonly graphs: ReturnType<typeof traceStep>;
  private readonly open: Map<string, Promise<Session>> = new Map();

  constructor(optimizer: Optimizer, start: Params, rule: StepRule = {}) {
    this.optimizer = optimizer;
    const trainable = new Map(
      [...start].map(([name, { dtype, shape }]) => [name, input(name, dtype, shape)] as const),
    );
    const sum = [...trainable]
      .map(([name, value]): Value => reduceSum(mul(value, input(`given/${name}`, value.dtype, value.shape))))
      .reduce((a, b) => add(a, b));
    const count = constant(
      sum.dtype === "float64"
        ? tensor("float64", [], Float64Array.of(1))
        : tensor("float32", [], Float32Array.of(1)),
    );
    this.graphs = traceStep({ loss: { sum, count }, trainable, optimizer, rule });
  }

  private session(part: "step" | "accumulate" | "apply" | "projected"): Promise<Session> {
    const bytes = this.graphs[part];
    if (!bytes) throw new Error(`the step has no part ${part}`);
    const opened = this.open.get(part) ?? runtime.openSession(bytes);
    this.open.set(part, opened);
    return opened;
  }

  async dispose(): Promise<void> {
    for (const opened of this.open.values()) await (await opened).dispose();
  }

  /** Some steps, one for each list of micro-batches, of a client that kept `kept` of its optimizer. */
  async run(
    start: Params,
    gradients: readonly (Params | readonly Params[])[],
    kept: Params = new Map(),
    memory: OptimizerMemory = "kept",
  ): Promise<{ readonly params: Params; readonly state: Params; readonly kept: Params }> {
    const { state, stepsBefore, stepsInRun } = resumeOptimizer(this.optimizer, start, kept);
    const { projection } = this.optimizer;
    const outcome = await runLocal(
      {
        step: await this.session("step"),
        accumulate: () => this.session("accumulate"),
        apply: () => this.session("apply"),
        projected: () => this.session("projected"),
      },
      {
        base: new Map(),
        start,
        optimizerState: state,
        steps: gradients.map((batches) => (isSet(batches) ? [batches] : batches).map(given)),
        scalars: gradients.map((_, t) => this.optimizer.scalars(stepsBefore + t + 1)),
        ...(projection && { refresh: { ...projection, stepsBefore: stepsInRun, key: { seed: 1 } } }),
      },
    );
    return {
      params: outcome.params,
      state: outcome.optimizerState,
      kept: suspendOptimizer(outcome.optimizerState, stepsInRun + gradients.length, memory),
    };
  }
}

const given = (set: Params): Params =>
  new Map([...set].map(([name, value]) => [`given/${name}`, value] as const));

const isSet = (batches: Params | readonly Params[]): batches is Params => batches instanceof Map;
