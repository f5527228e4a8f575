import { TributaryError } from "../errors.ts";

/** One thing that is wrong with a job. */
export interface Problem {
  /** Key of the job, such as `local.optimizer.learningRate`; empty for the job as a whole. */
  readonly path: string;
  readonly got: string;
  readonly expected: string;
  /** What to do; where absent, the place to correct is named. */
  readonly next?: string;
}

/** Where a key stands, such as `job.yaml:12` or `--rounds`. */
export type PlaceOf = (path: string) => string | undefined;

/** A job that cannot run, with everything that is wrong with it. */
export class JobError extends TributaryError {
  readonly problems: readonly Problem[];
  constructor(problems: readonly Problem[], placeOf: PlaceOf = () => undefined) {
    const lines = problems.map((problem) => problemLine(problem, placeOf));
    super("job-invalid", lines.join("\n"));
    this.problems = problems;
  }
}

/** `path: got X, expected Y; next step`. */
export function problemLine(
  { path, got, expected, next }: Problem,
  placeOf: PlaceOf = () => undefined,
): string {
  const place = placeOf(path);
  const step = next ?? (place === undefined ? "correct it" : `correct ${place}`);
  const where = next !== undefined && place !== undefined ? ` (${place})` : "";
  return `${path === "" ? "job" : path}: got ${got}, expected ${expected}; ${step}${where}`;
}

/** A value in a few words. */
export function described(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : `a list of ${value.length}`;
  if (typeof value === "object") return `a section with ${Object.keys(value).join(", ") || "no keys"}`;
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** `a, b or c`. */
export function either(choices: readonly string[]): string {
  return choices.length < 2 ? choices.join("") : `${choices.slice(0, -1).join(", ")} or ${choices.at(-1)}`;
}
