import { readFile } from "node:fs/promises";
import { z } from "zod";
import type { TrainingPart, TrainingParts } from "../federation/training-parts.ts";
import { writeFileAtomic } from "../formats/files.node.ts";
import { parseSafetensors, writeSafetensors } from "../formats/safetensors.ts";
import type { Params } from "../tensor/params.ts";
import { nodeEnv } from "./node-env.ts";

const place = z.object({
  assignment: z.string(),
  phase: z.int().min(0),
  step: z.int().min(0),
  sums: z.object({ loss: z.number(), norm: z.number(), labels: z.number() }),
});

/** The groups of tensors of a part, by the prefix of their names in the file. */
const groups = ["params", "optimizerState", "phaseState"] as const;

/** Keeps how far a client has come in one file: the last part of its last assignment. */
export function trainingPartFile(path: string, everyMs = 30_000): TrainingParts {
  return {
    everyMs,
    env: nodeEnv(),
    async load(assignment) {
      const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return undefined;
        throw error;
      });
      if (!bytes) return undefined;
      const { params, metadata } = parseSafetensors(bytes, path);
      const found = place.parse(JSON.parse(metadata.get("place") ?? "{}"));
      if (found.assignment !== assignment) return undefined;
      const group = (name: string): Params =>
        new Map(
          [...params].flatMap(([key, value]) =>
            key.startsWith(`${name}/`) ? [[key.slice(name.length + 1), value] as const] : [],
          ),
        );
      const [all, optimizerState, phaseState] = groups.map(group);
      return {
        ...found,
        params: all ?? new Map(),
        optimizerState: optimizerState ?? new Map(),
        phaseState: phaseState ?? new Map(),
      };
    },
    async save(part: TrainingPart) {
      const { assignment, phase, step, sums } = part;
      const tensors = new Map(
        groups.flatMap((name) => [...part[name]].map(([key, value]) => [`${name}/${key}`, value] as const)),
      );
      const metadata = new Map([["place", JSON.stringify({ assignment, phase, step, sums })]]);
      await writeFileAtomic(path, writeSafetensors(tensors, metadata), { mode: 0o600 });
    },
  };
}
