import { describe, expect, it } from "vitest";
import type { Strategy } from "../../src/federation/strategy.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { fedBuff } from "../../src/strategies/fedbuff.ts";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { fedIt } from "../../src/strategies/fedit.ts";
import { fedAdam } from "../../src/strategies/fedopt.ts";
import { fedProx } from "../../src/strategies/fedprox.ts";
import { ffaLora } from "../../src/strategies/ffa-lora.ts";
import { flexLora } from "../../src/strategies/flexlora.ts";
import { krum } from "../../src/strategies/krum.ts";
import { localOnly } from "../../src/strategies/local-only.ts";
import { scaffold } from "../../src/strategies/scaffold.ts";
import { assertBufferable, buffered } from "../../src/wrappers/buffered.ts";
import { fingerprint, memoryStore, runToy } from "../federation/toy.ts";
import { client, context, update, valuesOf, weights } from "../strategies/dense.ts";

describe("buffered rounds", () => {
  it("add the changes of late clients to the current model, less the later they are", () => {
    const strategy = fedBuff({ serverLearningRate: 0.5 });
    const late = { ...update("b", 1, 14, 8), received: weights(10, 10), staleness: 3 };
    const state = { current: weights(1, 2), earlier: [] };
    const { state: next, measurements } = strategy.aggregate(state, [update("a", 99, 3, 2), late], context);
    // Δ = (2, 0) at s = 1 and (4, −2) at s = 1/2, halved by η and by K.
    expect(valuesOf(strategy.global(next))).toEqual([1 + 0.25 * (2 + 2), 2 + 0.25 * (0 - 1)]);
    expect(measurements?.staleness).toBe(1.5);
  });

  it("are the inner strategy's rounds where nobody is late", async () => {
    for (const inner of [fedAvg(), fedProx({ mu: 0.1 }), fedIt(), fedAdam({ serverLearningRate: 0.1 })]) {
      const [plain, policy] = [
        await runToy(inner as Strategy),
        await runToy(buffered(inner as Strategy) as Strategy),
      ];
      expect(policy.map(({ accepted, loss }) => [accepted, loss])).toEqual(
        plain.map(({ accepted, loss }) => [accepted, loss]),
      );
    }
  });

  it("hand a simulated client an older model, the same one for the same seed, round and client", () => {
    const strategy = fedBuff({ maxStaleness: 2 });
    const state = { current: weights(3), earlier: [weights(2), weights(1)] };
    const sent = Array.from({ length: 40 }, (_, k) =>
      valuesOf(strategy.broadcast(state, client(`c${k}`), context).params).at(0),
    );
    expect([...new Set(sent)].sort()).toEqual([1, 2, 3]);
    expect(valuesOf(strategy.broadcast(state, client("c0"), context).params)).toEqual([sent[0]]);
  });

  it("remember no more models than a client may be late, and go on after a stop", async () => {
    const strategy = buffered(fedIt(), { maxStaleness: 2 });
    const whole = await runToy(strategy, { rounds: 5 });
    const store = memoryStore();
    await runToy(strategy, { rounds: 2, store });
    const rest = await runToy(strategy, { rounds: 5, store });
    expect(fingerprint(rest)).toEqual(fingerprint(whole.slice(2)));
    expect(whole.some(({ measurements }) => (measurements.staleness ?? 0) > 0)).toBe(true);
  });

  it("say early, and why, which strategies cannot take late updates", () => {
    const refused: readonly (readonly [Pick<Strategy, "name" | "declares" | "stages">, RegExp])[] = [
      [fedexLora(), /changes the base/],
      [scaffold(), /remember/],
      [localOnly(), /exchange nothing/],
      [flexLora(), /updates of one round/],
      [krum(), /updates of one round/],
    ];
    for (const [strategy, reason] of refused) {
      expect(() => assertBufferable(strategy), strategy.name).toThrow(reason);
    }
    for (const strategy of [fedAvg(), fedProx(), fedIt(), ffaLora(), fedAdam()]) assertBufferable(strategy);
  });
});
