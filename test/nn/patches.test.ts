import { expect, it } from "vitest";
import { input } from "../../src/graph/value.ts";
import { patchEmbedding } from "../../src/nn/patches.ts";
import { rootScope } from "../../src/nn/scope.ts";
import { float32 } from "../../src/tensor/tensor.ts";
import { evaluate, farthest } from "./evaluate.ts";

it("embeds patches as a convolution whose stride is its kernel, whole patches only", async () => {
  const [B, C, height, width, D, p, q] = [2, 3, 7, 8, 4, 3, 2];
  const pixels = Array.from({ length: B * C * height * width }, (_, i) => Math.sin(i));
  const weight = Array.from({ length: D * C * p * q }, (_, i) => Math.cos(2 * i));
  const bias = [1, -1, 0.5, 2];
  const w = rootScope({
    weights: new Map([
      ["weight", { dtype: "float32", shape: [D, C, p, q] }],
      ["bias", { dtype: "float32", shape: [D] }],
    ] as const),
  });
  const output = patchEmbedding(w, input("pixels", "float32", ["batch", C, height, width]));
  const feeds = new Map([
    ["weight", float32([D, C, p, q], weight)],
    ["bias", float32([D], bias)],
    ["pixels", float32([B, C, height, width], pixels)],
  ]);
  const expected: number[] = [];
  for (let b = 0; b < B; b++)
    for (let row = 0; row < 2; row++)
      for (let column = 0; column < 4; column++)
        for (let d = 0; d < D; d++) {
          let sum = bias[d] ?? 0;
          for (let c = 0; c < C; c++)
            for (let y = 0; y < p; y++)
              for (let x = 0; x < q; x++) {
                const pixel = pixels[((b * C + c) * height + row * p + y) * width + column * q + x] ?? 0;
                sum += pixel * (weight[((d * C + c) * p + y) * q + x] ?? 0);
              }
          expected.push(sum);
        }
  expect(output.shape).toEqual(["batch", 8, D]);
  expect(farthest((await evaluate({ output }, feeds)).output ?? [], expected)).toBeLessThan(1e-5);
});
