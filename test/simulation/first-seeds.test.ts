import { it } from "vitest";
import { expectPromisesKept } from "./seeds.ts";

it("federations under faults keep every promise: seeds 1 to 500", async () => {
  await expectPromisesKept(1, 500);
}, 600_000);
