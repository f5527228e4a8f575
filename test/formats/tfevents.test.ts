import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { eventFileHead, lastStep, scalarRecord } from "../../src/formats/tfevents.ts";

/** Written by tensorboard 2.21.0's RecordWriter from its own protobuf classes. */
const recorded =
  "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c" +
  "3200000000000000241956ec09000000000000044010ac022a240a110a0a747261696e2f6c6f7373" +
  "150000003f0a0f0a0862797465732f757015286b6e4e8337df81";

const written = Buffer.concat([
  eventFileHead(1.5),
  scalarRecord({ step: 300, wallTime: 2.5, values: { "train/loss": 0.5, "bytes/up": 1e9 } }),
]);

describe("event files", () => {
  it("are the bytes that TensorBoard's own writer makes", () => {
    expect(written.toString("hex")).toBe(recorded);
  });

  it("leave out values that are not finite, in float32 either", () => {
    const values = { a: Number.NaN, b: Number.POSITIVE_INFINITY, c: 1e300 };
    const without = scalarRecord({ step: 1, wallTime: 0, values: {} });
    expect(scalarRecord({ step: 1, wallTime: 0, values })).toEqual(without);
  });

  it("tell their last step, as far as their records are whole", () => {
    const next = scalarRecord({ step: 301, wallTime: 3, values: { x: 1 } });
    const both = Buffer.concat([written, next]);
    expect(lastStep(both)).toBe(301);
    for (let cut = 1; cut <= next.length; cut++)
      expect(lastStep(both.subarray(0, both.length - cut))).toBe(300);
    expect(lastStep(eventFileHead(1.5))).toBeUndefined();
    expect(lastStep(new Uint8Array())).toBeUndefined();
    const damaged = Uint8Array.from(both, (byte, i) => (i === both.length - 6 ? byte ^ 1 : byte));
    expect(lastStep(damaged)).toBe(300);
  });
});

const python = process.env.TRIBUTARY_PYTHON ?? "python3";
const probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('tensorboard') is None)";
const able = spawnSync(python, ["-c", probe]).status === 0;

const program = `
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(sys.argv[1])
found.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}))
`;

describe.skipIf(!able)(
  `TensorBoard's own reader${able ? "" : ` (skipped: ${python} has not tensorboard; TRIBUTARY_PYTHON names another)`}`,
  () => {
    it("reads every step of two files once, although the first was cut short", () => {
      const folder = mkdtempSync(join(tmpdir(), "event-files-"));
      try {
        const step = (number: number): Uint8Array =>
          scalarRecord({ step: number, wallTime: number, values: { "held-out/loss": number / 4 } });
        const cut = step(2).subarray(0, 20);
        writeFileSync(
          join(folder, "events.out.tfevents.1.a"),
          Buffer.concat([eventFileHead(0), step(0), step(1), cut]),
        );
        writeFileSync(
          join(folder, "events.out.tfevents.2.a"),
          Buffer.concat([eventFileHead(2), step(2), step(3)]),
        );
        const { stdout, stderr } = spawnSync(python, ["-c", program, folder], { encoding: "utf8" });
        expect(stdout, stderr).toContain("held-out/loss");
        expect(JSON.parse(stdout)).toEqual({ "held-out/loss": [0, 1, 2, 3].map((n) => [n, n / 4]) });
      } finally {
        rmSync(folder, { recursive: true });
      }
    }, 60_000);
  },
);
