import { it } from "vitest";
import { expectPromisesKept } from "./seeds.ts";

it("federations under faults keep every promise: seeds 501 to 1000", async () => {
  await expectPromisesKept(501, 500);
}, 600_000);
