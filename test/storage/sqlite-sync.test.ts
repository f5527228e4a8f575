import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { temporaryFolder } from "./temporary.ts";

const root = temporaryFolder();
const traceable = spawnSync("strace", ["-o", "/dev/null", process.execPath, "--version"]).status === 0;

// Skipped where strace is not installed or may not trace.
it.skipIf(!traceable)("an append to the SQLite journal is synced to disk before it resolves", () => {
  const trace = join(root, "trace");
  const script = fileURLToPath(new URL("append-thrice.ts", import.meta.url));
  const { status, stderr } = spawnSync(
    "strace",
    [
      ...["-f", "-y", "-e", "trace=pwrite64,fsync,fdatasync,write", "-o", trace],
      ...[process.execPath, "--conditions=@tributary/source", "--import", import.meta.resolve("tsx")],
      ...[script, join(root, "journal.sqlite")],
    ],
    { encoding: "utf8" },
  );
  expect(stderr).toContain("resolved 3");
  expect(status).toBe(0);
  // What happened to the journal's log between the start of each append and its end.
  const steps = wholeCalls(readFileSync(trace, "utf8")).flatMap((line) => {
    if (/write\(2.*"append \d/.test(line)) return ["append"];
    if (/write\(2.*"resolved \d/.test(line)) return ["resolved"];
    if (/pwrite64\(\d+<[^>]*journal\.sqlite-wal>/.test(line)) return ["written"];
    if (/(?:fsync|fdatasync)\(\d+<[^>]*journal\.sqlite-wal>\) += 0/.test(line)) return ["synced"];
    return [];
  });
  const appends = steps.join(" ").split("append").slice(1);
  expect(appends).toHaveLength(3);
  for (const append of appends) expect(append).toMatch(/written synced (?:written )?resolved/);
});

/** The lines of a trace, each call in one: where a thread cuts in, a call is "unfinished" in one line and "resumed" in another. */
function wholeCalls(trace: string): string[] {
  const begun = new Map<string, string>();
  return trace.split("\n").flatMap((line) => {
    const [, thread = "", begin] = /^(\d+) +(.*) <unfinished \.\.\.>$/.exec(line) ?? [];
    if (begin !== undefined) {
      begun.set(thread, begin);
      return [];
    }
    const [, resumed = "", end] = /^(\d+) +<\.\.\. \w+ resumed>(.*)$/.exec(line) ?? [];
    return end === undefined ? [line] : [`${begun.get(resumed) ?? ""}${end}`];
  });
}
