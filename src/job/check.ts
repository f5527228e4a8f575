import type { z } from "zod";
import { crossProblems } from "./cross-checks.ts";
import type { Job } from "./job.ts";
import { nearest } from "./nearest.ts";
import { withPreset } from "./presets.ts";
import { described, JobError, type PlaceOf, type Problem } from "./problem.ts";
import { renamedTo } from "./renamed.ts";
import { jobJsonSchema, jobSchema, partSchemas } from "./schema.ts";
import {
  constantsOf,
  expectation,
  keysAt,
  nodesAt,
  type PathKey,
  type SchemaNode,
  valueAt,
  variants,
} from "./schema-node.ts";

/** A job with every default filled in. Throws JobError that lists everything that is wrong, at once. */
export function checkJob(given: unknown, placeOf?: PlaceOf): Job {
  const raw = withPreset(given);
  const parsed = jobSchema.safeParse(raw);
  const problems = parsed.success
    ? crossProblems(parsed.data)
    : [
        ...parsed.error.issues.flatMap((issue) => problemsOf(issue, raw, jobJsonSchema())),
        ...crossProblems(soundParts(raw)),
      ];
  if (problems.length > 0) throw new JobError(problems, placeOf);
  if (!parsed.success) throw new JobError([{ path: "", got: described(raw), expected: "a job" }], placeOf);
  return parsed.data;
}

/** A path as people write it. */
export function pathText(path: readonly PropertyKey[]): string {
  return path.map(String).join(".");
}

/** Every top-level section that is sound by itself. */
function soundParts(raw: unknown): Partial<Job> {
  const parts: Record<string, unknown> = {};
  for (const [key, schema] of Object.entries(partSchemas)) {
    const parsed = schema.safeParse(valueAt(raw, [key]));
    if (parsed.success && parsed.data !== undefined) parts[key] = parsed.data;
  }
  // A faulty optimizer does not hide that a round has two lengths.
  const [epochs, steps] = [valueAt(raw, ["local", "epochs"]), valueAt(raw, ["local", "steps"])];
  if (parts.local === undefined && typeof epochs === "number" && typeof steps === "number")
    parts.local = { epochs, steps };
  return parts;
}

/** What an issue of zod says of a raw value, in the words of the JSON Schema of its format. */
export function problemsOf(issue: z.core.$ZodIssue, raw: unknown, root: SchemaNode): Problem[] {
  const path = issue.path.map((key): PathKey => (typeof key === "number" ? key : String(key)));
  if (issue.code === "unrecognized_keys") return issue.keys.map((key) => unknownKey(root, path, key, raw));
  // The keys of a mapping with free names fail through their own issues.
  const value = valueAt(raw, path);
  const nodes = nodesAt(root, path, raw);
  const expected = nodes.length > 0 ? expectation(nodes) : issue.message;
  const meant =
    typeof value === "string" ? nearest(value, nodes.flatMap(variants).flatMap(constantsOf)) : undefined;
  return [
    {
      path: pathText(path),
      got: described(value),
      expected,
      ...(meant === undefined ? missingHint(value, nodes) : { next: `did you mean ${meant}?` }),
    },
  ];
}

function missingHint(value: unknown, nodes: readonly SchemaNode[]): { next?: string } {
  if (value !== undefined) return {};
  const description = nodes.find((node) => node.description !== undefined)?.description;
  return {
    next: description === undefined ? "add it" : `add it: ${lowerFirst(description.replace(/\.$/, ""))}`,
  };
}

function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}

function unknownKey(root: SchemaNode, path: readonly PathKey[], key: string, raw: unknown): Problem {
  const known = keysAt(root, path, raw);
  const full = pathText([...path, key]);
  const got = described(valueAt(raw, [...path, key]));
  const renamed = renamedTo(key);
  if (renamed !== undefined) {
    return {
      path: full,
      got: `the key ${key}`,
      expected: `its name here, ${renamed}`,
      next: `write ${renamed}`,
    };
  }
  const meant = nearest(key, known);
  const elsewhere = meant === undefined ? nearestPath(root, key) : undefined;
  const next =
    meant !== undefined
      ? `did you mean ${pathText([...path, meant])}?`
      : elsewhere === undefined
        ? undefined
        : elsewhere === full
          ? "it is an option of another choice here"
          : `it belongs to ${elsewhere}`;
  return {
    path: full,
    got: `an unknown key with ${got}`,
    expected: meant === undefined ? `one of ${known.join(", ")}` : "a known key",
    ...(next === undefined ? {} : { next }),
  };
}

/** A key of this very name in another section. */
function nearestPath(root: SchemaNode, key: string): string | undefined {
  const walk = (node: SchemaNode, path: readonly string[]): string | undefined => {
    for (const variant of variants(node)) {
      for (const [name, next] of Object.entries(variant.properties ?? {})) {
        if (name === key) return [...path, name].join(".");
        const found = walk(next, [...path, name]);
        if (found !== undefined) return found;
      }
    }
    return undefined;
  };
  return walk(root, []);
}
