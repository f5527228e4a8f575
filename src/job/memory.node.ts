import { readFileSync } from "node:fs";
import process from "node:process";

/** Largest resident memory of this process so far, in bytes. */
export function peakMemory(): number {
  // What Linux gives to getrusage begins with the peak of the process that started this one; VmHWM does not.
  const high = /^VmHWM:\s+(\d+) kB$/m.exec(statusText())?.[1];
  return 1024 * (high === undefined ? process.resourceUsage().maxRSS : Number(high));
}

function statusText(): string {
  try {
    return readFileSync("/proc/self/status", "utf8");
  } catch {
    return "";
  }
}
