import { applyChanges, effectiveWeight } from "../../src/federation/base-chain.ts";
import { type ClientHalf, clientHalf } from "../../src/federation/local-rule.ts";
import type { Aggregate, ClientRef, StateTree, Strategy, Update } from "../../src/federation/strategy.ts";
import type { DataSketch } from "../../src/strategies/ce-lora.ts";
import { residual } from "../../src/strategies/fedex-lora.ts";
import { type LowRankTerm, type Svd, svd, svdOfSum } from "../../src/tensor/linalg.ts";
import { type Matrix, matmul, matrixOf } from "../../src/tensor/matrix.ts";
import { type Params, weightedMean } from "../../src/tensor/params.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { ParityLine } from "./line.ts";

export type Precision = "float64" | "float32";

export type Nested = number | readonly Nested[];

export type TensorSet = Readonly<Record<string, Nested>>;

export interface GoldenRound {
  readonly round: number;
  readonly participants: readonly string[];
  readonly trained: Readonly<Record<string, TensorSet>>;
  readonly indices?: Readonly<Record<string, readonly number[]>>;
  readonly fresh?: Readonly<Record<string, unknown>>;
  readonly expect: Readonly<Record<string, unknown>>;
}

export interface Golden {
  readonly method: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly modules: Readonly<Record<string, { readonly out: number; readonly in: number }>>;
  readonly clients: Readonly<
    Record<
      string,
      {
        readonly numExamples: number;
        readonly rank?: number;
        readonly scaling?: number;
        readonly sketch?: number;
        readonly ratio?: number;
        readonly innerRank?: number;
      }
    >
  >;
  readonly initial: {
    readonly base?: TensorSet;
    readonly pretrained?: TensorSet;
    readonly server?: TensorSet;
    readonly clients?: Readonly<Record<string, TensorSet>>;
    readonly trained?: Readonly<Record<string, TensorSet>>;
    readonly shared?: TensorSet;
    readonly mask?: TensorSet;
    readonly adapter?: TensorSet;
    readonly submissions?: readonly string[];
    readonly warmup?: Readonly<Record<string, TensorSet>>;
    readonly router?: TensorSet;
    readonly mixtures?: Readonly<Record<string, DataSketch>>;
    readonly weight?: Nested;
    readonly G?: Nested;
  };
  readonly rounds: readonly GoldenRound[];
  readonly expect?: Readonly<Record<string, unknown>>;
  readonly compare: { readonly unique: readonly string[] };
  readonly local?: FedProxLocal;
  readonly regulariser?: {
    readonly params: TensorSet;
    readonly expect: { readonly value: number; readonly gradient: TensorSet };
  };
  readonly expectBeforeRounds?: Readonly<Record<string, unknown>>;
  readonly tokens?: Readonly<Record<string, readonly (readonly number[])[]>>;
  readonly cases?: Readonly<Record<string, AdapterCase>>;
  readonly topKCases?: readonly { readonly vector: Nested; readonly k: number; readonly expect: Nested }[];
}

/** One parametrisation of a layer. */
export interface AdapterCase {
  readonly given: Readonly<Record<string, Nested>>;
  readonly expect: {
    readonly effective: Nested;
    readonly gradient?: Readonly<Record<string, Nested>>;
  };
}

export interface FedProxLocal {
  readonly lr: number;
  readonly steps: number;
  readonly objectives: Readonly<
    Record<string, { readonly curvature: TensorSet; readonly center: TensorSet }>
  >;
}

/** Keys of `expect` that a method's own observations answer, beside those that `Replay` answers for all. */
export type Observe<State extends StateTree> = (
  replay: Replay<State>,
  round: GoldenRound,
  step: Step<State>,
) => Record<string, unknown>;

/** What a golden round is compared with after it was replayed. */
export interface Step<State extends StateTree> {
  readonly updates: readonly Update[];
  readonly weights: readonly number[];
  readonly before: State;
  readonly result: Aggregate<State>;
  /** The effective weights of each participant after training, and their weighted mean. */
  readonly trained: ReadonlyMap<string, Weights>;
  readonly ideal: Weights;
}

/** Dense weights by module. */
export type Weights = ReadonlyMap<string, Float64Array>;

/** Where a golden is not the plain case: the shared state that every client holds, factors A and B. */
export interface Variant {
  /** Ranks and scalings, where those of the golden's clients are not what a strategy is given. */
  readonly clients?: readonly ClientRef[];
  /** The parameters before round 1, where they are not `initial.server` or `initial.clients`. */
  readonly initial?: TensorSet;
  /** What a client holds of the given trained parameters. Default: all of it. */
  readonly held?: (params: Params, client: ClientRef, round: number) => Params;
  /** The update of a module's weight by other parameters than A and B. */
  readonly change?: (params: Params, module: string, client: ClientRef) => Float64Array | undefined;
  /** Whether the strategy reports its deviation from the mean of the trained weights. Default: true. */
  readonly measured?: boolean;
}

/** A client's frozen weights, those with its adapter, and what it was sent. */
export interface Held {
  readonly base: ReadonlyMap<string, Float64Array>;
  readonly effective: ReadonlyMap<string, Float64Array>;
  readonly received: Params;
  /** Scalars of the payload. */
  readonly sent: number;
}

/** A golden federation run through a strategy's own functions, local training replaced by the given result. */
export class Replay<State extends StateTree> {
  readonly golden: Golden;
  readonly precision: Precision;
  readonly strategy: Strategy<State>;
  readonly clients: readonly ClientRef[];
  readonly initial: Params;
  readonly base: Params;
  readonly memories: Map<string, Params> = new Map();
  readonly variant: Variant;
  state: State;
  offset: Params = new Map();

  constructor(golden: Golden, precision: Precision, strategy: Strategy<State>, variant: Variant = {}) {
    this.golden = golden;
    this.variant = variant;
    this.precision = precision;
    this.strategy = strategy;
    this.clients =
      variant.clients ??
      Object.entries(golden.clients).map(([id, { rank = 0, scaling = 1 }]) => ({ id, rank, scaling }));
    const largest = this.clients.reduce((a, b) => (b.rank > a.rank ? b : a));
    const { server, clients = {}, base = server ?? {} } = golden.initial;
    this.initial = this.params(variant.initial ?? server ?? clients[largest.id] ?? clients["*"] ?? {});
    this.base = this.params(base);
    this.state = strategy.init(this.initial, this.clients);
  }

  params(set: TensorSet): Params {
    return new Map(
      Object.entries(set).map(([name, values]) => {
        const shape = shapeOf(values);
        const data = flat(values);
        const ours = oursOf(name);
        const tensor: Tensor =
          this.precision === "float64"
            ? { dtype: "float64", shape, data: Float64Array.from(data) }
            : { dtype: "float32", shape, data: Float32Array.from(data) };
        return [ours, tensor];
      }),
    );
  }

  half(client: ClientRef, round: number): ClientHalf {
    const context = { round, seed: 1, numClients: this.clients.length };
    const received = this.strategy.broadcast(this.state, client, context);
    return clientHalf(this.strategy, {
      client,
      received,
      memory: this.memories.get(client.id),
      initial: this.initial,
      context,
    });
  }

  /** Runs one round and leaves the federation after it. */
  run({ round, participants, trained }: GoldenRound): Step<State> {
    const effective = new Map<string, Weights>();
    const updates = participants.map((id): Update => {
      const client = this.client(id);
      const half = this.half(client, round);
      const { held = (params: Params) => params } = this.variant;
      const given = held(this.params(trained[id] ?? {}), client, round);
      const params = new Map([...half.start.params].map(([name, start]) => [name, given.get(name) ?? start]));
      const numExamples = this.golden.clients[id]?.numExamples ?? 0;
      const { steps = 1, lr: learningRate = 1 } = this.golden.local ?? {};
      const { memory, ...up } = half.upload({ params, numExamples, steps, learningRate });
      effective.set(id, this.effective(params, client, applyChanges(this.offset, half.personalBase)));
      this.memories.set(id, memory);
      return { client, numExamples, ...up };
    });
    const before = this.state;
    const result = this.strategy.aggregate(before, updates, {
      round,
      seed: 1,
      numClients: this.clients.length,
    });
    this.state = result.state;
    this.offset = applyChanges(this.offset, result.base ?? []);
    const weights = updates.map(({ numExamples }) =>
      this.strategy.declares.uniformWeights ? 1 : numExamples,
    );
    const ideal = meanWeights([...effective.values()], weights);
    return { updates, weights, before, result, trained: effective, ideal };
  }

  client(id: string): ClientRef {
    const client = this.clients.find((one) => one.id === id);
    if (!client) throw new RangeError(`golden: unknown client ${id}`);
    return client;
  }

  /** The weight of every module as a client holds it. */
  effective(params: Params, client: ClientRef, offset: Params): Weights {
    const { change = loraChange } = this.variant;
    return new Map(
      Object.keys(this.golden.modules).map((module): [string, Float64Array] => {
        const name = `${module}.weight`;
        const own = params.get(name);
        if (own) return [module, values(own)];
        const base = this.base.get(name);
        if (!base) throw new RangeError(`golden: no base weight ${name}`);
        const weight = values(effectiveWeight(base, offset.get(name)));
        change(params, module, client)?.forEach((x, i) => {
          weight[i] = (weight[i] ?? 0) + x;
        });
        return [module, weight];
      }),
    );
  }

  /** What each client holds when the round is over. */
  held(round: number): ReadonlyMap<string, Held> {
    return new Map(
      this.clients.map((client): [string, Held] => {
        const half = this.half(client, round + 1);
        const offset = applyChanges(this.offset, half.personalBase);
        return [
          client.id,
          {
            base: this.effective(new Map(), client, offset),
            effective: this.effective(half.start.params, client, offset),
            received: half.local.received.params,
            sent: scalars(half.local.received.params) + scalars(half.local.received.extra ?? new Map()),
          },
        ];
      }),
    );
  }
}

/** Runs a golden federation and compares what it expects, beside what `observe` adds or puts in its place. */
export function replay<State extends StateTree>(
  golden: Golden,
  precision: Precision,
  check: Check,
  strategy: Strategy<State>,
  observe: Observe<State> = () => ({}),
  variant: Variant = {},
): void {
  const federation = new Replay(golden, precision, strategy, variant);
  for (const round of golden.rounds) {
    const step = federation.run(round);
    const { updates, result, ideal } = step;
    const held = federation.held(round.round);
    const each = <T>(pick: (id: string) => T) =>
      Object.fromEntries(federation.clients.map(({ id }) => [id, pick(id)]));
    const analysis = analysisOf(
      federation,
      (id) => held.get(id)?.effective ?? new Map(),
      () => ideal,
    );
    const upCount = (update: Update) => scalars(update.params) + scalars(update.extra ?? new Map());
    const observed: Record<string, unknown> = {
      upload: Object.fromEntries(updates.map(({ client, params }) => [client.id, named(params)])),
      server: named(strategy.global(result.state)),
      head: values(strategy.global(result.state).get("head.weight")),
      broadcast: each((id) => named(held.get(id)?.received ?? new Map())),
      effective: each((id) => weightsOf(held.get(id)?.effective)),
      base: each((id) => weightsOf(held.get(id)?.base)),
      analysis,
      traffic: {
        up: Object.fromEntries(updates.map((update) => [update.client.id, upCount(update)])),
        down: each((id) => held.get(id)?.sent),
        downAsFactors: each((id) => (held.get(id)?.sent ?? 0) + factorScalars(golden, step)),
      },
      ...observe(federation, round, step),
    };
    const where = `round ${round.round}`;
    for (const [key, expected] of Object.entries(round.expect)) {
      const unique = golden.compare.unique.find((one) => one.split(" ")[0] === key);
      if (unique === undefined) continue;
      check.tree(`${where} ${key}`, observed[key], without(expected, / except (\w+)$/.exec(unique)?.[1]));
    }
    if (golden.compare.unique.includes("trained") && observed.trained)
      check.tree(`${where} trained`, observed.trained, round.trained);
    if (variant.measured === false) continue;
    // What the strategy measures itself, against the dense algebra of the golden.
    const largest = federation.clients.reduce((a, b) => (b.rank > a.rank ? b : a));
    for (const [module, x] of Object.entries(analysis.deviation[largest.id] ?? {})) {
      check.tree(`${where} measured deviation of ${module}`, result.measurements?.[`deviation/${module}`], x);
    }
  }
}

type PerModule<T> = Readonly<Record<string, T>>;

/** Distances from the ideal and ranks of updates, by client and module. */
export interface Analysis {
  readonly deviation: Readonly<Record<string, PerModule<number>>>;
  readonly relativeDeviation: Readonly<Record<string, PerModule<number>>>;
  readonly rank: {
    readonly idealUpdate: Readonly<Record<string, PerModule<number>>>;
    readonly effectiveUpdate: Readonly<Record<string, PerModule<number>>>;
  };
}

/** What a golden's `analysis` compares, by dense algebra: the weights that clients hold against an ideal. */
export function analysisOf<State extends StateTree>(
  federation: Replay<State>,
  effective: (client: string) => Weights,
  ideal: (client: string) => Weights,
): Analysis {
  const { golden, clients } = federation;
  const hasBase = golden.initial.base !== undefined;
  const pretrained = federation.effective(
    hasBase ? new Map() : federation.initial,
    { id: "", rank: 0, scaling: 1 },
    new Map(),
  );
  const each = <T>(pick: (id: string, module: string) => T) =>
    Object.fromEntries(
      clients.map(({ id }) => [id, perModule(golden, (module) => pick(id, module))] as const),
    );
  const off = (x: Weights, y: Weights, module: string) =>
    (x.get(module) ?? new Float64Array()).map((v, i) => v - (y.get(module)?.[i] ?? 0));
  const rank = (x: Weights, module: string) => rankOf(matrixLike(golden, module, off(x, pretrained, module)));
  const deviation = each((id, module) => length(off(effective(id), ideal(id), module)));
  return {
    deviation,
    relativeDeviation: each(
      (id, module) =>
        (deviation[id]?.[module] ?? Number.NaN) /
        Math.max(length(off(ideal(id), pretrained, module)), 1e-300),
    ),
    rank: {
      idealUpdate: each((id, module) => rank(ideal(id), module)),
      effectiveUpdate: each((id, module) => rank(effective(id), module)),
    },
  };
}

/** `sum p_k W_k` by module; the weights need not be normalized. */
export function meanWeights(list: readonly Weights[], weights: readonly number[]): Weights {
  const total = weights.reduce((a, b) => a + b, 0);
  return new Map(
    [...(list[0]?.keys() ?? [])].map((module): [string, Float64Array] => {
      const mean = new Float64Array(list[0]?.get(module)?.length ?? 0);
      list.forEach((one, k) => {
        one.get(module)?.forEach((x, i) => {
          mean[i] = (mean[i] ?? 0) + ((weights[k] ?? 0) / total) * x;
        });
      });
      return [module, mean];
    }),
  );
}

/** s B A of a module, where both factors are there. */
function loraChange(params: Params, module: string, { scaling }: ClientRef): Float64Array | undefined {
  const a = params.get(`${module}.lora_A.weight`);
  const b = params.get(`${module}.lora_B.weight`);
  return a && b ? matmul(matrixOf(b), matrixOf(a)).data.map((x) => scaling * x) : undefined;
}

function without(expected: unknown, field: string | undefined): unknown {
  if (field === undefined || expected === null || typeof expected !== "object") return expected;
  return Object.fromEntries(Object.entries(expected).filter(([key]) => key !== field));
}

/** How the clients of a golden count in its means. */
export function weighting({ config }: Golden): { weighting: "samples" | "uniform" } {
  return { weighting: config.weighting === "uniform" ? "uniform" : "samples" };
}

/** Collects the differences of one case. */
export class Check {
  readonly precision: Precision;
  maxAbs = 0;
  maxRel = 0;
  readonly compared: Set<string> = new Set();
  readonly failures: string[] = [];
  readonly skipped: Set<string> = new Set();

  constructor(precision: Precision) {
    this.precision = precision;
  }

  skip(what: string): void {
    this.skipped.add(what);
  }

  tree(path: string, got: unknown, expected: unknown): void {
    const label =
      path
        .replace(/^.*round \d+ /, "")
        .replace(/ of .*/, "")
        .split("/")[0] ?? path;
    if (/(^|\/| )(rank|rankOf\w+)(\/|$)/.test(path) && this.precision === "float32") {
      this.skip("ranks, which float32 noise hides");
      return;
    }
    this.compared.add(label);
    if (isNumeric(expected)) {
      const want = flat(expected);
      const have = isNumeric(got)
        ? flat(got)
        : ArrayBuffer.isView(got)
          ? Array.from(got as Float64Array)
          : undefined;
      if (!have || have.length !== want.length) {
        this.failures.push(
          `${path}: got ${have ? `${have.length} numbers` : "nothing"}, expected ${want.length}`,
        );
        return;
      }
      const largest = want.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
      const worst = want.reduce((a, x, i) => {
        const difference = Math.abs(x - (have[i] ?? Number.NaN));
        return Number.isNaN(difference) ? Number.NaN : Math.max(a, difference);
      }, 0);
      this.maxAbs = Math.max(this.maxAbs, worst);
      if (largest > 0) this.maxRel = Math.max(this.maxRel, worst / Math.max(1, largest));
      const limit = tolerances[this.precision] * (this.precision === "float32" ? Math.max(1, largest) : 1);
      if (!(worst <= limit)) this.failures.push(`${path}: off by ${worst.toExponential(2)}`);
    } else if (expected !== null && typeof expected === "object") {
      const fields = (got ?? {}) as Readonly<Record<string, unknown>>;
      const wanted = Object.entries(expected);
      if (wanted.length === 1 && wanted[0]?.[0] === "*") {
        for (const [who, field] of Object.entries(fields)) this.tree(`${path}/${who}`, field, wanted[0][1]);
        if (Object.keys(fields).length === 0) this.failures.push(`${path}: nothing to compare`);
        return;
      }
      for (const [key, field] of wanted) this.tree(`${path}/${key}`, fields[key], field);
      const surplus = Object.keys(fields).filter((key) => !(key in expected));
      if (surplus.length > 0 && /upload\/|broadcast\//.test(path))
        this.failures.push(`${path}: surplus ${surplus.join(", ")}`);
    } else if (got !== expected) {
      this.failures.push(`${path}: got ${String(got)}, expected ${String(expected)}`);
    }
  }
}

const tolerances: Readonly<Record<Precision, number>> = { float64: 1e-10, float32: 2e-5 };

export async function line(
  name: string,
  precision: Precision,
  compare: (check: Check) => void | Promise<void>,
): Promise<ParityLine> {
  const check = new Check(precision);
  try {
    await compare(check);
  } catch (error) {
    check.failures.push(error instanceof Error ? error.message : String(error));
  }
  const notes = [
    ...(check.failures.length > 0 ? [check.failures.slice(0, 3).join("; ")] : []),
    ...(check.skipped.size > 0 ? [`not compared: ${[...check.skipped].join(", ")}`] : []),
  ];
  return {
    name,
    what: [...check.compared].join(", "),
    maxAbs: check.maxAbs,
    maxRel: check.maxRel,
    tolerance: tolerances[precision],
    verdict: check.failures.length === 0 && check.compared.size > 0 ? "passed" : "failed",
    ...(notes.length > 0 && { note: notes.join("; ") }),
  };
}

/** Norm, share, rank and spectrum of R for every module. */
export function residualReport(
  golden: Golden,
  terms: (module: string) => {
    readonly residual: readonly LowRankTerm[];
    readonly ideal: readonly LowRankTerm[];
  },
): Readonly<Record<"norm" | "ratioToT" | "rank" | "singularValues", Readonly<Record<string, unknown>>>> {
  const of = (module: string) => {
    const { residual: r, ideal } = terms(module);
    const spectrum = r.length > 0 ? svdOfSum(r).singularValues : new Float64Array();
    return { spectrum: padded(spectrum, golden, module), ideal: length(svdOfSum(ideal).singularValues) };
  };
  return {
    norm: perModule(golden, (module) => length(of(module).spectrum)),
    ratioToT: perModule(golden, (module) => length(of(module).spectrum) / of(module).ideal),
    rank: perModule(golden, (module) => rankFrom(of(module).spectrum)),
    singularValues: perModule(golden, (module) => of(module).spectrum),
  };
}

/** The unscaled product that the round added to the base, for every module. */
export function sentProducts(
  golden: Golden,
  { base = [] }: Aggregate<StateTree>,
): Record<string, Float64Array> {
  const scaling = Number(golden.config.scaling);
  const change = applyChanges(new Map(), base);
  return perModule(golden, (module) => {
    const { out, in: width } = golden.modules[module] ?? { out: 0, in: 0 };
    const tensor = change.get(`${module}.weight`);
    return tensor ? values(tensor).map((x) => x / scaling) : new Float64Array(out * width);
  });
}

/** Scalars of the round's base changes if all of them travelled as factors; a dense one has the rank of its residual. */
function factorScalars<State extends StateTree>(
  golden: Golden,
  { updates, weights, result }: Step<State>,
): number {
  const { base = [] } = result;
  return base
    .flatMap((change) => {
      if (change.kind === "factors")
        return [...change.left.values(), ...change.right.values()].map(({ data }) => data.length);
      const mean = weightedMean(
        updates.map(({ params }) => params),
        weights,
      );
      return [...change.difference.keys()].map((name) => {
        const module = name.replace(/\.weight$/, "");
        const { out, in: width } = golden.modules[module] ?? { out: 0, in: 0 };
        const rank = rankFrom(svdOfSum(residual(updates, weights, module, mean)).singularValues);
        return Math.min(rank, Number(golden.config.residualRank ?? rank)) * (out + width);
      });
    })
    .reduce((a, b) => a + b, 0);
}

export function perModule<T>({ modules }: Golden, of: (module: string) => T): Record<string, T> {
  return Object.fromEntries(Object.keys(modules).map((module) => [module, of(module)]));
}

export function padded(spectrum: Float64Array, { modules }: Golden, module: string): Float64Array {
  const { out, in: width } = modules[module] ?? { out: 0, in: 0 };
  const full = new Float64Array(Math.min(out, width));
  full.set(spectrum.subarray(0, full.length));
  return full;
}

export function dense(decomposition: Svd | undefined): Float64Array {
  if (!decomposition) return new Float64Array();
  const { u, singularValues, vt } = decomposition;
  return matmul({ ...u, data: u.data.map((x, i) => x * (singularValues[i % u.cols] ?? 0)) }, vt).data;
}

function matrixLike({ modules }: Golden, module: string, data: Float64Array): Matrix {
  const { out, in: width } = modules[module] ?? { out: 0, in: 0 };
  return { rows: out, cols: width, data };
}

function rankOf(x: Matrix): number {
  return rankFrom(svd(x).singularValues);
}

/** The goldens' rule: singular values above 1e-9 * max(1, largest). */
export function rankFrom(singularValues: Float64Array): number {
  return singularValues.filter((sigma) => sigma > 1e-9 * Math.max(1, singularValues[0] ?? 0)).length;
}

export function weightsOf(
  modules: ReadonlyMap<string, Float64Array> | undefined,
): Record<string, Float64Array> {
  return Object.fromEntries([...(modules ?? [])].map(([module, x]) => [`${module}.weight`, x]));
}

const spellings: readonly (readonly [ours: string, theirs: string])[] = [
  [".lora_A.weight", ".loraA"],
  [".lora_B.weight", ".loraB"],
  [".lora_C.weight", ".loraC"],
  [".vera_lambda_d", ".lambdaD"],
  [".vera_lambda_b", ".lambdaB"],
  [".lora_router.weight", ".router"],
];

function oursOf(name: string): string {
  const spelling = spellings.find(([, theirs]) => name.endsWith(theirs));
  return spelling ? name.slice(0, -spelling[1].length) + spelling[0] : name;
}

/** Our tensors under the goldens' names. */
export function named(params: Params): Record<string, Float64Array> {
  return Object.fromEntries(
    [...params].map(([name, tensor]) => {
      const spelling = spellings.find(([ours]) => name.endsWith(ours));
      return [spelling ? name.slice(0, -spelling[0].length) + spelling[1] : name, values(tensor)];
    }),
  );
}

export function values(tensor: Tensor | undefined): Float64Array {
  return tensor ? Float64Array.from([...tensor.data].map(Number)) : new Float64Array();
}

export function scalars(params: Params): number {
  return [...params.values()].reduce((total, { data }) => total + data.length, 0);
}

export function length(x: Float64Array): number {
  return Math.sqrt(x.reduce((total, v) => total + v * v, 0));
}

export function isNumeric(value: unknown): value is Nested {
  return typeof value === "number" || (Array.isArray(value) && value.every(isNumeric));
}

export function flat(value: Nested): number[] {
  return typeof value === "number" ? [value] : value.flatMap(flat);
}

export function shapeOf(value: Nested): number[] {
  if (typeof value === "number") return [];
  return [value.length, ...(value[0] === undefined ? [] : shapeOf(value[0]))];
}
