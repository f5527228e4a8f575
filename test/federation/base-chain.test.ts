import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  applyChanges,
  type BaseChain,
  baseChain,
  catchUp,
  countScalars,
  effectiveWeight,
  extendChain,
  offsetOf,
} from "../../src/federation/base-chain.ts";
import type { BaseChange } from "../../src/federation/strategy.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";

const OUT = 7;
const IN = 5;
const NAME = "q_proj.weight";
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

function draw(shape: readonly number[], purpose: string): Tensor {
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  stream({ seed: 3, purpose }).fillNormal(data, 0, 1);
  return { dtype: "float32", shape, data };
}

function factors(round: number, rank: number): BaseChange {
  return {
    kind: "factors",
    left: new Map([[NAME, draw([OUT, rank], `left ${round}`)]]),
    right: new Map([[NAME, draw([rank, IN], `right ${round}`)]]),
    scale: 1.5,
  };
}

async function chainOf(rounds: readonly BaseChange[][]): Promise<BaseChain[]> {
  const versions = [baseChain("root")];
  for (const changes of rounds)
    versions.push(await extendChain(versions.at(-1) ?? baseChain("root"), changes, sha256));
  return versions;
}

/** What a client does with a catch-up. */
function apply(held: Params, { from, changes }: ReturnType<typeof catchUp>): Params {
  return applyChanges(from === "held" ? held : new Map(), changes);
}

const bytes = (params: Params) => [...(params.get(NAME)?.data ?? [])];

describe("base chain", () => {
  it("adds scale * left @ right to the weight, on a matrix that is not square", () => {
    const change = factors(1, 2);
    const weight = draw([OUT, IN], "weight");
    const got = effectiveWeight(weight, applyChanges(new Map(), [change]).get(NAME));
    if (change.kind !== "factors") return;
    const left = change.left.get(NAME)?.data ?? [];
    const right = change.right.get(NAME)?.data ?? [];
    for (let i = 0; i < OUT; i++)
      for (let j = 0; j < IN; j++) {
        const sum = [0, 1].reduce((s, k) => s + Number(left[i * 2 + k]) * Number(right[k * IN + j]), 0);
        expect(Number(got.data[i * IN + j])).toBeCloseTo(Number(weight.data[i * IN + j]) + 1.5 * sum, 5);
      }
  });

  it("brings a client that was away to the same bits as one that was always there", async () => {
    const rounds = [1, 2, 3, 4, 5, 6].map((round) => [factors(round, 1)]);
    const versions = await chainOf(rounds);
    const last = versions.at(-1) ?? baseChain("root");
    let present: Params = new Map();
    const holdings: Params[] = [present];
    for (let t = 1; t < versions.length; t++) {
      present = apply(present, catchUp(versions[t] ?? last, versions[t - 1]?.version ?? ""));
      holdings.push(present);
    }
    expect(bytes(present)).toEqual(bytes(offsetOf(last)));
    versions.forEach(({ version }, t) => {
      const caughtUp = apply(holdings[t] ?? new Map(), catchUp(last, version));
      expect(bytes(caughtUp), `from version ${t}`).toEqual(bytes(present));
    });
  });

  it("sends factors while they are cheaper than the dense offset, and never more than that", async () => {
    const versions = await chainOf([1, 2, 3, 4, 5, 6].map((round) => [factors(round, 1)]));
    const last = versions.at(-1) ?? baseChain("root");
    const costs = versions.map(({ version }) => countScalars(catchUp(last, version).changes));
    expect(costs).toEqual([35, 35, 35, 35, 24, 12, 0]); // OUT + IN = 12 a round; dense 35
  });

  it("does not grow with the number of rounds", async () => {
    const versions = await chainOf(Array.from({ length: 40 }, (_, round) => [factors(round, 1)]));
    expect(versions.at(-1)?.links.length).toBeLessThanOrEqual(3);
  });

  it("takes a client with an unknown version from the pretrained weights", async () => {
    const last = (await chainOf([[factors(1, 1)], [factors(2, 1)]])).at(-1) ?? baseChain("root");
    const missed = catchUp(last, "never seen");
    expect(missed.from).toBe("pretrained");
    expect(bytes(apply(new Map(), missed))).toEqual(bytes(offsetOf(last)));
  });

  it("has a version that depends on every bit of its history and on nothing else", async () => {
    const one = await chainOf([[factors(1, 2)], [factors(2, 2)]]);
    const same = await chainOf([[factors(1, 2)], [factors(2, 2)]]);
    const other = await chainOf([[factors(2, 2)], [factors(1, 2)]]);
    expect(one.at(-1)?.version).toBe(same.at(-1)?.version);
    expect(one.at(-1)?.version).not.toBe(other.at(-1)?.version);
    expect((await extendChain(one[1] ?? baseChain("root"), [], sha256)).version).toBe(one[1]?.version);
  });

  it("leaves the offset that it was given as it was", () => {
    const offset = applyChanges(new Map(), [factors(1, 1)]);
    const before = bytes(offset);
    applyChanges(offset, [
      factors(2, 1),
      { kind: "dense", difference: new Map([[NAME, draw([OUT, IN], "dense")]]) },
    ]);
    expect(bytes(offset)).toEqual(before);
  });
});
