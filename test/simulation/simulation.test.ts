import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { campaign } from "../../src/simulation/campaign.ts";
import { problemsOf } from "../../src/simulation/checks.ts";
import type { Mutation } from "../../src/simulation/coordinator.ts";
import { simulate } from "../../src/simulation/simulate.ts";
import { simulated } from "./strategies.ts";

const size = { clients: 10, rounds: 3 } as const;

/** The digest of everything that happens under a seed. */
async function traced(seed: number): Promise<string> {
  const hash = createHash("sha256");
  const onTrace = (line: string): void => void hash.update(`${line}\n`);
  await simulate({ ...size, seed, strategies: simulated, onTrace });
  return hash.digest("hex");
}

describe("a simulated federation", () => {
  it("is a function of its seed", async () => {
    const first = [await traced(11), await traced(12), await traced(13)];
    expect([await traced(11), await traced(12), await traced(13)]).toEqual(first);
    expect(new Set(first).size).toBe(3);
  });

  it("crashes, loses, doubles and refuses, and clients see receipts of both kinds", async () => {
    const lines: string[] = [];
    const statuses = new Set<string>();
    for (let seed = 1; seed <= 40; seed++) {
      const onTrace = (line: string): void => void lines.push(line);
      const { receipts } = await simulate({ ...size, seed, strategies: simulated, onTrace });
      for (const { receipt } of receipts) statuses.add(receipt.status);
    }
    const said = lines.join("\n");
    for (const event of [
      "coordinator: is killed",
      "coordinator: loses power",
      /c00\d: is killed/,
      /c00\d: loses power/,
      "the request is lost",
      /its answer \d+ is lost/,
      "connection refused",
      "connection reset",
      "comes too late",
      "a bit turns",
      "EIO",
      "ENOSPC",
      "coordinator: resumed",
      "coordinator: round-failed",
    ])
      expect(said).toMatch(event);
    expect([...statuses].sort()).toEqual(["accepted", "rejected"]);
  });
});

/** The first of some seeds that shows a problem of this kind where the coordinator has a fault of its own. */
async function found(mutation: Mutation, problem: RegExp): Promise<number | undefined> {
  const seeds = Array.from({ length: 100 }, (_, i) => i + 1);
  for await (const { seed, problems } of campaign({ ...size, seeds, strategies: simulated, mutation }))
    if (problems.some((one) => problem.test(one))) return seed;
  return undefined;
}

describe("the checks find", () => {
  it("files that are not synced", async () => {
    const mutation: Mutation = {
      files: (files) => ({
        ...files,
        create: async (path) => ({ ...(await files.create(path)), sync: async () => undefined }),
        append: async (path) => ({ ...(await files.append(path)), sync: async () => undefined }),
      }),
    };
    expect(await found(mutation, /holds a receipt/)).toBeDefined();
  });

  it("folders that are not synced", async () => {
    const mutation: Mutation = {
      files: (files) => ({ ...files, syncFolder: async () => undefined }),
    };
    expect(await found(mutation, /holds a receipt|there is no blob/)).toBeDefined();
  });

  it("a store that answers before a blob is durable", async () => {
    const mutation: Mutation = {
      blobs: (blobs) => ({
        ...blobs,
        async put(id, bytes) {
          blobs.put(id, bytes).catch(() => undefined);
        },
        missing: async () => [],
      }),
    };
    expect(await found(mutation, /there is no blob/)).toBeDefined();
  });

  it("a journal that answers before an event is durable", async () => {
    const mutation: Mutation = {
      journal: (journal) => ({
        ...journal,
        async append(events, expected) {
          journal.append(events, expected).catch(() => undefined);
        },
      }),
    };
    expect(await found(mutation, /holds a receipt/)).toBeDefined();
  });

  it("a door that acknowledges an update without counting it", async () => {
    const mutation: Mutation = {
      hosted: (hosted) => ({
        ...hosted,
        door: {
          ...hosted.door,
          submitStored: async (assignment, update) =>
            assignment.client === "c003"
              ? { status: "accepted", submission: update.digest }
              : hosted.door.submitStored(assignment, update),
        },
      }),
    };
    expect(await found(mutation, /c003 holds a receipt/)).toBeDefined();
  });

  it("a door that refuses an update that it counts", async () => {
    const mutation: Mutation = {
      hosted: (hosted) => ({
        ...hosted,
        door: {
          ...hosted.door,
          async submitStored(assignment, update) {
            const answer = await hosted.door.submitStored(assignment, update);
            return assignment.client === "c003" && answer.status === "accepted"
              ? { status: "rejected", submission: answer.submission, code: "round-closed", reason: "late" }
              : answer;
          },
        },
      }),
    };
    expect(await found(mutation, /c003 was told "round-closed"/)).toBeDefined();
  });

  it("an update that counts twice", async () => {
    const mutation: Mutation = {
      strategy: (strategy) => ({
        ...strategy,
        aggregate: (state, updates, context) =>
          strategy.aggregate(state, [...updates, ...updates.slice(-1)], context),
      }),
    };
    expect(await found(mutation, /round \d ended in state/)).toBeDefined();
  });

  it("an event that is written twice, out of order or missing", async () => {
    const history = await simulate({ ...size, seed: 1, strategies: simulated });
    expect(await problemsOf(history)).toEqual([]);
    const at = history.events.findIndex(({ body }) => body.type === "update-accepted");
    const [before, event, after] = [
      history.events.slice(0, at),
      history.events.slice(at, at + 1),
      history.events.slice(at + 1),
    ];
    for (const events of [
      [...before, ...event, ...event, ...after],
      [...before, ...after],
      [...before, ...after, ...event],
    ])
      expect((await problemsOf({ ...history, events })).length).toBeGreaterThan(0);
  });
});
