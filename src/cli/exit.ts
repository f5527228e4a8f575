import { TributaryError } from "../errors.ts";

/** Exit codes: 0 success, 1 failure, 2 an error of the person who typed, 130 interrupted. */
export const exitCodes: {
  readonly success: 0;
  readonly failure: 1;
  readonly user: 2;
  readonly interrupted: 130;
} = {
  success: 0,
  failure: 1,
  user: 2,
  interrupted: 130,
};

/** An error in what was typed. */
export function usageError(message: string): TributaryError {
  return new TributaryError("usage", message);
}

/** A run that was stopped by Ctrl-C, with everything kept. */
export function interrupted(message: string): TributaryError {
  return new TributaryError("interrupted", message);
}

/** Codes of errors that no other input would have avoided. */
const failures: ReadonlySet<string> = new Set([
  "base-mismatch",
  "blob-damaged",
  "blob-missing",
  "disk-write",
  "empty-round",
  "journal-damaged",
  "journal-failed",
  "journal-fenced",
  "journal-open",
  "loss-not-finite",
  "not-finite",
  "round-failed",
  "run-damaged",
  "run-over",
  "runs-failed",
  "state-damaged",
  "verify-failed",
  "worker-lost",
]);

/** The exit code of an error. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof TributaryError)) return exitCodes.failure;
  if (error.code === "interrupted") return exitCodes.interrupted;
  return failures.has(error.code) ? exitCodes.failure : exitCodes.user;
}

/** An error as lines for people: one, or a headed list. */
export function errorLines(error: unknown): string[] {
  const message = error instanceof Error ? error.message : String(error);
  const parts = message.split("\n").filter((line) => line.trim() !== "");
  const code = error instanceof TributaryError ? error.code : undefined;
  if (code === "interrupted") return parts;
  const [first = "unknown failure", ...rest] = parts;
  if (code === "job-invalid" && rest.length > 0)
    return [`error: ${parts.length} things to correct`, ...parts.map((line) => `  ${line}`)];
  const internal = code === undefined ? ["set TRIBUTARY_DEBUG=1 for the place in the code"] : [];
  return [`error: ${first}`, ...rest, ...internal];
}

/** An error as an object for machines. */
export function errorRecord(error: unknown): object {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof TributaryError ? error.code : "internal";
  const problems = error instanceof Error && "problems" in error ? { problems: error.problems } : {};
  return { type: "error", code, message, ...problems };
}
