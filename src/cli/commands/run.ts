import { loadJob } from "../../job/load.node.ts";
import { quickJob } from "../../job/quick.ts";
import { runJob } from "../../job/run.ts";
import type { Command } from "../command.ts";
import { interrupted, usageError } from "../exit.ts";
import { openDisplay } from "../progress/display.ts";

/** `tributary run`. */
export const run: Command = {
  name: "run",
  summary: "run a job; an interrupted run goes on where it stopped",
  usage: "[JOB|RUN] [flags]",
  arguments: [0, 1],
  takesJob: true,
  flags: [
    {
      name: "quick",
      description:
        "a few small rounds on a part of the data, in a folder of their own where --out names none",
    },
    { name: "fresh", description: "delete what is in the run folder and start anew" },
  ],
  examples: [
    ["tributary run job.yaml", "run it, or go on with it"],
    ["tributary run job.yaml --out runs/two --rounds 3 --strategy fedex-lora", "keys as flags"],
    ["tributary run job.yaml --quick", "see within seconds that everything fits"],
    ["tributary run job.yaml --json > rounds.jsonl", "one event a line"],
    ["tributary run runs/my-job", "go on with a run"],
  ],
  async run({ positionals: [path], flags, job: typed }, { terminal, signal, json, onInterrupt }) {
    if (path === undefined && typed.length === 0) {
      throw usageError(
        "run: got no job, expected a job file or job keys as flags; make one with tributary init",
      );
    }
    const { job: loaded } = await loadJob({
      flags: typed,
      cwd: terminal.cwd,
      ...(path === undefined ? {} : { path }),
    });
    const placed = typed.some(({ path: key }) => key === "out");
    const small = { ...quickJob(loaded), ...(placed ? { out: loaded.out } : {}) };
    const job = flags.has("quick") ? small : loaded;
    const display = openDisplay({
      write: terminal.out,
      columns: terminal.columns,
      live: terminal.live && !json,
      style: terminal.style,
      program: terminal.program,
      cwd: terminal.cwd,
      now: () => performance.now() / 1000,
    });
    const timer = terminal.live && !json ? setInterval(display.tick, 250) : undefined;
    timer?.unref();
    const again =
      "stopping after the current step; run the same command to go on (Ctrl-C again to stop at once)";
    onInterrupt(() => (json ? terminal.err(`${again}\n`) : display.say(again)));
    if (!json) display.wait("reading the model and the data");
    try {
      await runJob(job, {
        signal,
        fresh: flags.has("fresh"),
        onEvent: (event) => (json ? terminal.out(`${JSON.stringify(event)}\n`) : display.show(event)),
      });
    } catch (error) {
      if (signal.aborted)
        throw interrupted(`stopped; everything is kept in ${job.out}, run the same command to go on`);
      throw error;
    } finally {
      clearInterval(timer);
    }
  },
};
