import { mkdtemp, readdir, readFile, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { lastStep } from "../../src/formats/tfevents.ts";
import { openTensorBoard } from "../../src/job/tensorboard.node.ts";
import { round } from "../report/folders.ts";

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "tensorboard-"));
});
afterAll(() => rm(root, { recursive: true }));

async function files(folder: string): Promise<{ readonly name: string; readonly bytes: Buffer }[]> {
  const names = (await readdir(folder)).sort();
  return Promise.all(names.map(async (name) => ({ name, bytes: await readFile(join(folder, name)) })));
}

const tags = (bytes: Buffer): string => bytes.toString("latin1");

it("a run that goes on writes a further file, which begins after the last step of those before", async () => {
  const folder = join(root, "resumed");
  const first = await openTensorBoard(folder, () => 100_500);
  await first.write([round(1)], { loss: 2.5 });
  await first.write([round(1), round(2)], { loss: 2.5 });
  const [one] = await files(folder);
  expect(one?.name).toMatch(/^events\.out\.tfevents\.100\.[\w.-]+$/);
  expect(lastStep(one?.bytes ?? new Uint8Array())).toBe(2);
  // The clock stands still, and the second step was cut while it was written.
  await truncate(join(folder, one?.name ?? ""), (one?.bytes.length ?? 0) - 3);
  const again = await openTensorBoard(folder, () => 100_500);
  await again.write([round(1), round(2), round(3)], { loss: 2.5 });
  const [kept, added, ...more] = await files(folder);
  expect(more).toEqual([]);
  expect(lastStep(kept?.bytes ?? new Uint8Array())).toBe(1);
  expect(added?.name).toMatch(/^events\.out\.tfevents\.101\./);
  expect(lastStep(added?.bytes ?? new Uint8Array())).toBe(3);
  // Two rounds, and not the measurements before round 1 again.
  expect(tags(added?.bytes ?? Buffer.of()).split("train/loss").length - 1).toBe(2);
});

it("a run that has all its rounds writes nothing", async () => {
  const folder = join(root, "finished");
  await (await openTensorBoard(folder, () => 5000)).write([round(1)]);
  await (await openTensorBoard(folder, () => 9000)).write([round(1)], { loss: 1 });
  expect(await files(folder)).toHaveLength(1);
});

it("a round is one record with losses, held-out measurements, bytes, seconds and the mean deviation", async () => {
  const folder = join(root, "tags");
  const measurements = { "deviation/a": 1, "deviation/b": 3, "relativeDeviation/a": 0.5 };
  await (await openTensorBoard(folder, () => 5000)).write([
    round(1, { measurements, metrics: { accuracy: 1 } }),
  ]);
  const [one] = await files(folder);
  for (const tag of [
    "train/loss",
    "train/accuracy",
    "held-out/loss",
    "held-out/accuracy",
    "bytes/down",
    "bytes/total",
    "seconds/round",
    "seconds/aggregate",
    "clients/accepted",
    "deviation/mean",
    "relativeDeviation/mean",
  ])
    expect(tags(one?.bytes ?? Buffer.of())).toContain(tag);
});
