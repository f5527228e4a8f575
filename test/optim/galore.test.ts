import { describe, expect, it } from "vitest";
import { mul } from "../../src/graph/ops.ts";
import { type GaloreOptions, galoreAdamW, galoreSgd } from "../../src/optim/galore.ts";
import type { Optimizer } from "../../src/optim/optimizer.ts";
import { refreshedProjectors } from "../../src/optim/projector.ts";
import { svd } from "../../src/tensor/linalg.ts";
import { type Matrix, matmul, matrixOf } from "../../src/tensor/matrix.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { type Tensor, zeros } from "../../src/tensor/tensor.ts";
import { GivenGradients } from "./given-gradients.ts";

/** Float64 steps through a graph, a decomposition and back. */
const ROUNDING = 1e-12;

const shapes: readonly (readonly [number, number])[] = [
  [7, 4],
  [4, 9],
  [5, 5],
  [6, 1],
];

function draw(shape: readonly number[], purpose: string): Tensor {
  const data = new Float64Array(shape.reduce((a, b) => a * b, 1));
  stream({ seed: 3, purpose }).fillNormal(data, 0, 1);
  return { dtype: "float64", shape, data };
}

const only = (value: Tensor): Params => new Map([["w", value]]);
const gradientsOf = (shape: readonly number[], steps: number): Params[] =>
  Array.from({ length: steps }, (_, t) => only(draw(shape, `g${t}`)));

async function path(optimizer: Optimizer, start: Params, steps: readonly (Params | readonly Params[])[]) {
  const training = new GivenGradients(optimizer, start);
  const after = await training.run(start, steps);
  await training.dispose();
  return after;
}

const valuesOf = (params: Params, name = "w"): number[] => [...(params.get(name)?.data ?? [])].map(Number);

const apart = (a: readonly number[], b: readonly number[]): number =>
  a.length === b.length
    ? Math.max(...a.map((x, i) => Math.abs(x - (b[i] ?? Number.NaN))))
    : Number.POSITIVE_INFINITY;

function moved(start: Params, params: Params): Matrix {
  const [from, to] = [matrixOf(start.get("w") ?? zeros("float64", [])), valuesOf(params)];
  return { ...from, data: from.data.map((x, i) => x - (to[i] ?? Number.NaN)) };
}

const rankOf = (x: Matrix): number => svd(x).singularValues.filter((sigma) => sigma > 1e-10).length;

function gram(x: Tensor, transposeA: boolean): Matrix {
  const m = matrixOf(x);
  return matmul(m, m, { transposeA, transposeB: !transposeA });
}

function fromIdentity({ rows, data }: Matrix): number {
  return apart(
    [...data],
    Array.from({ length: data.length }, (_, i) => (i % (rows + 1) === 0 ? 1 : 0)),
  );
}

describe("GaLore", () => {
  it.each(shapes)(
    "at full rank and scale 1 with gradient descent is gradient descent: %i x %i",
    async (...shape) => {
      const start = only(draw(shape, "w"));
      const gradients = gradientsOf(shape, 5);
      const after = await path(
        galoreSgd({ learningRate: 0.1, rank: 99, gap: 2, scale: 1 }),
        start,
        gradients,
      );
      const plain = valuesOf(start).map((w, i) =>
        gradients.reduce((x, g) => x - 0.1 * (valuesOf(g)[i] ?? Number.NaN), w),
      );
      expect(apart(valuesOf(after.params), plain)).toBeLessThan(ROUNDING);
    },
  );

  it.each(shapes.slice(0, 3))(
    "moves a weight by a rank of at most r for each refresh: %i x %i",
    async (...shape) => {
      const start = only(draw(shape, "w"));
      const optimizer = galoreSgd({ learningRate: 0.1, rank: 1, gap: 2 });
      for (const steps of [1, 2, 3, 5]) {
        const { params } = await path(optimizer, start, gradientsOf(shape, steps));
        expect(rankOf(moved(start, params)), `${steps} steps`).toBe(Math.min(Math.ceil(steps / 2), ...shape));
      }
    },
  );

  it("loses of the gradient the singular values that it cuts off", async () => {
    const shape = [7, 4];
    const start = only(draw(shape, "w"));
    const [gradient] = gradientsOf(shape, 1);
    if (!gradient) throw new Error("no gradient");
    const { params } = await path(galoreSgd({ learningRate: 1, rank: 2, scale: 1 }), start, [gradient]);
    const kept = moved(start, params);
    const lost = valuesOf(gradient).map((g, i) => g - (kept.data[i] ?? Number.NaN));
    const { singularValues } = svd(matrixOf(gradient.get("w") ?? zeros("float64", shape)));
    expect(Math.hypot(...lost)).toBeCloseTo(Math.hypot(...singularValues.slice(2)), 12);
  });

  it("projects on the side that its option names, with orthonormal projectors", async () => {
    const sides: readonly [NonNullable<GaloreOptions["side"]>, readonly number[], readonly string[]][] = [
      ["std", [7, 4], ["rightProjector"]],
      ["std", [4, 7], ["leftProjector"]],
      ["std", [5, 5], ["rightProjector"]],
      ["reverse-std", [7, 4], ["leftProjector"]],
      ["reverse-std", [4, 7], ["rightProjector"]],
      ["left", [7, 4], ["leftProjector"]],
      ["right", [4, 7], ["rightProjector"]],
      ["full", [7, 4], ["leftProjector", "rightProjector"]],
    ];
    for (const [side, shape, projectors] of sides) {
      const start = only(draw(shape, "w"));
      const optimizer = galoreAdamW({ learningRate: 0.1, rank: 3, side });
      const { state } = await path(optimizer, start, gradientsOf(shape, 2));
      expect(
        [...state.keys()].filter((name) => /Projector/.test(name)),
        `${side} [${shape}]`,
      ).toEqual(projectors.map((kind) => `optimizer/${kind}/w`));
      for (const kind of projectors) {
        const projector = state.get(`optimizer/${kind}/w`);
        if (!projector) throw new Error(kind);
        expect(fromIdentity(gram(projector, kind === "leftProjector"))).toBeLessThan(ROUNDING);
      }
    }
  });

  it("keeps r n + 2 m r numbers of a tall matrix and m r + 2 r n of a wide one, not 2 m n", () => {
    const size = (shape: readonly number[]): number =>
      Object.values(galoreAdamW({ learningRate: 1, rank: 3 }).state(shape, "w"))
        .map((spec) => spec.shape.reduce((a, b) => a * b, 1))
        .reduce((a, b) => a + b, 0);
    expect(size([40, 24])).toBe(3 * 24 + 2 * 40 * 3);
    expect(size([24, 40])).toBe(24 * 3 + 2 * 3 * 40);
  });

  it("gives numbers for a gradient of zeros", async () => {
    const start = only(draw([4, 6], "w"));
    const still = only(zeros("float64", [4, 6]));
    const { params } = await path(galoreAdamW({ learningRate: 0.1, rank: 2 }), start, [still, still]);
    expect(valuesOf(params)).toEqual(valuesOf(start));
  });

  it("takes the plain step for vectors and for matrices that it is told to leave", async () => {
    const start = new Map([
      ["w", draw([5, 3], "w")],
      ["head.weight", draw([2, 3], "h")],
      ["bias", draw([4], "b")],
    ]);
    const gradients = [0, 1, 2].map(
      (t) => new Map([...start].map(([name, { shape }]) => [name, draw(shape, `${name}${t}`)] as const)),
    );
    const optimizer = galoreAdamW({
      learningRate: 0.1,
      rank: 1,
      weightDecay: 0.2,
      projects: (name) => name === "w",
    });
    const { params } = await path(optimizer, start, gradients);
    for (const name of ["head.weight", "bias"]) {
      const byHand = valuesOf(start, name).map((w, i) => {
        let [x, m, v] = [w, 0, 0];
        gradients.forEach((set, t) => {
          const g = valuesOf(set, name)[i] ?? Number.NaN;
          m = 0.9 * m + 0.1 * g;
          v = 0.999 * v + 0.001 * g * g;
          x -= (0.1 * Math.sqrt(1 - 0.999 ** (t + 1)) * m) / (1 - 0.9 ** (t + 1)) / (Math.sqrt(v) + 1e-6);
          x *= 1 - 0.1 * 0.2;
        });
        return x;
      });
      expect(apart(valuesOf(params, name), byHand), name).toBeLessThan(ROUNDING);
    }
  });

  it("takes its subspace from the mean gradient of the micro-batches of a step", async () => {
    const shape = [6, 4];
    const start = only(draw(shape, "w"));
    const [a, b] = gradientsOf(shape, 2);
    if (!a || !b) throw new Error("two gradients");
    const mean = only({
      dtype: "float64",
      shape,
      data: Float64Array.from(valuesOf(a), (x, i) => (x + (valuesOf(b)[i] ?? 0)) / 2),
    });
    const optimizer = galoreAdamW({ learningRate: 0.1, rank: 2, gap: 1 });
    const split = await path(optimizer, start, [[a, b]]);
    const whole = await path(optimizer, start, [mean]);
    expect(apart(valuesOf(split.params), valuesOf(whole.params))).toBeLessThan(ROUNDING);
  });

  it("takes its subspace from the gradient as the algorithm has corrected it", async () => {
    const start = new Map([
      ["w", draw([6, 4], "w")],
      ["v", draw([6, 4], "v")],
    ]);
    const gradients = new Map([
      ["w", draw([6, 4], "gw")],
      ["v", draw([6, 4], "gv")],
    ]);
    const optimizer = galoreSgd({ learningRate: 0.1, rank: 2 });
    const swapped = new GivenGradients(optimizer, start, {
      correct: (g) =>
        new Map([...g].map(([name, value]) => [name, mul(g.get(name === "w" ? "v" : "w") ?? value, 1)])),
    });
    const got = await swapped.run(start, [gradients]);
    await swapped.dispose();
    const exchanged = new Map([
      ["w", draw([6, 4], "gv")],
      ["v", draw([6, 4], "gw")],
    ]);
    const want = await path(optimizer, start, [exchanged]);
    for (const name of start.keys())
      expect(apart(valuesOf(got.params, name), valuesOf(want.params, name)), name).toBeLessThan(ROUNDING);
  });

  it("goes on from a kept state as if it had not stopped, bit for bit", async () => {
    const start = only(draw([5, 8], "w"));
    const gradients = gradientsOf([5, 8], 7);
    const training = new GivenGradients(galoreAdamW({ learningRate: 0.1, rank: 2, gap: 3 }), start);
    const whole = await training.run(start, gradients);
    const first = await training.run(start, gradients.slice(0, 4));
    const second = await training.run(first.params, gradients.slice(4), first.kept);
    expect(second.params).toEqual(whole.params);
    expect(second.state).toEqual(whole.state);
    await training.dispose();
  });

  it("keeps the projectors and the turn of their refresh where only these are kept", async () => {
    const start = only(draw([5, 8], "w"));
    const gradients = gradientsOf([5, 8], 5);
    const training = new GivenGradients(galoreAdamW({ learningRate: 0.1, rank: 2, gap: 4 }), start);
    const projector = "optimizer/leftProjector/w";
    const first = await training.run(start, gradients.slice(0, 3), new Map(), "projectors");
    expect([...first.kept.keys()]).toEqual([projector, "optimizer/steps"]);
    const second = await training.run(first.params, gradients.slice(3, 4), first.kept, "projectors");
    expect(second.state.get(projector)).toEqual(first.state.get(projector));
    const third = await training.run(second.params, gradients.slice(4), second.kept, "projectors");
    expect(third.state.get(projector)).not.toEqual(first.state.get(projector));
    await training.dispose();
  });

  it("refuses ranks and gaps below 1", () => {
    expect(() => galoreSgd({ learningRate: 1, rank: 0 })).toThrow(/rank is 0/);
    expect(() => galoreAdamW({ learningRate: 1, gap: 1.5 })).toThrow(/gap is 1.5/);
  });
});

describe("a refresh by the randomized decomposition", () => {
  /** A gradient with the spectrum of late training: a few strong directions over a tail of 1 %. */
  function gradient(rows: number, cols: number): Tensor {
    const strong = matmul(matrixOf(draw([rows, 3], "l")), matrixOf(draw([3, cols], "r")));
    const noise = draw([rows, cols], "n").data;
    return {
      dtype: "float64",
      shape: [rows, cols],
      data: strong.data.map((x, i) => x + 0.01 * Number(noise[i])),
    };
  }

  it("spans the subspace of the exact one", () => {
    for (const [rows, cols] of [
      [60, 35],
      [35, 60],
    ] as const) {
      const held = { leftProjector: zeros("float64", [rows, 3]) };
      const random = stream({ seed: 1, purpose: "test" });
      const exact = refreshedProjectors(gradient(rows, cols), held, "exact", random).leftProjector;
      const found = refreshedProjectors(gradient(rows, cols), held, "randomized", random).leftProjector;
      if (!exact || !found) throw new Error("no projector");
      const between = svd(matmul(matrixOf(exact), matrixOf(found), { transposeA: true })); // cosines of the angles
      for (const cosine of between.singularValues) expect(cosine).toBeGreaterThan(1 - 1e-6);
      expect(apart([...exact.data].map(Number), [...found.data].map(Number))).toBeLessThan(1e-3);
    }
  });

  it("is the same for the same key", () => {
    const held = { rightProjector: zeros("float32", [2, 35]) };
    const twice = [0, 1].map(() =>
      refreshedProjectors(gradient(60, 35), held, "randomized", stream({ seed: 9, purpose: "p" })),
    );
    expect(twice[0]).toEqual(twice[1]);
  });

  it("makes the largest entry of every kept vector positive", () => {
    const held = { rightProjector: zeros("float64", [3, 9]) };
    const { rightProjector } = refreshedProjectors(
      draw([4, 9], "signs"),
      held,
      "exact",
      stream({ seed: 1, purpose: "p" }),
    );
    for (let i = 0; i < 3; i++) {
      const row = [...(rightProjector?.data ?? [])].slice(9 * i, 9 * (i + 1)).map(Number);
      const largest = row.reduce((a, x) => (Math.abs(x) > Math.abs(a) ? x : a), 0);
      expect(largest).toBeGreaterThan(0);
    }
  });
});
