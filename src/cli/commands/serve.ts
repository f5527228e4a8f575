import { appendFileSync, closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { createSecureContext } from "node:tls";
import { TributaryError } from "../../errors.ts";
import { loadJob } from "../../job/load.node.ts";
import type { PlacedJob } from "../../job/run.ts";
import { type LogLine, type ServeEvent, serveJobs } from "../../job/serve.node.ts";
import { counted } from "../../report/text.ts";
import type { Command } from "../command.ts";
import { interrupted, usageError } from "../exit.ts";
import { numberFlag } from "../number-flag.ts";
import { duration, measure, shortPath } from "../progress/format.ts";
import { readVersions } from "./version.ts";

/** `tributary serve`. */
export const serve: Command = {
  name: "serve",
  summary: "carry jobs as the coordinator of silos on other machines",
  usage: "JOB... [flags]",
  arguments: [1, 64],
  takesJob: true,
  flags: [
    {
      name: "clients",
      value: "N",
      description:
        "silos that a run waits for before its first round (default: partition.clients of the job)",
    },
    { name: "host", value: "HOST", description: "address to listen on (default: 127.0.0.1)" },
    { name: "port", value: "N", description: "port (default: 7788; 0 for any free one)" },
    { name: "cert", value: "FILE", description: "TLS certificate in PEM; required off this machine" },
    { name: "key", value: "FILE", description: "its private key in PEM" },
    { name: "plain", description: "plain HTTP off this machine, where a proxy in front ends TLS" },
    {
      name: "home",
      value: "DIR",
      description: "where the list of silos and the operator's token lie (default: the folder of the run)",
    },
    {
      name: "round-deadline",
      value: "SECONDS",
      description:
        "time after which a round ends with what it has, where the job has no deadline (default: 3600)",
    },
    {
      name: "grace",
      value: "SECONDS",
      description: "time that a round with its quorum waits for silos that are away (default: 2)",
    },
    {
      name: "lease",
      value: "SECONDS",
      description: "time without progress after which a silo is given up (default: 60)",
    },
    {
      name: "keep-rounds",
      value: "N",
      description: "rounds whose updates are kept for verify (default: all)",
    },
    { name: "log", value: "FILE", description: "append the log to this file, a JSON object a line" },
  ],
  examples: [
    ["tributary serve job.yaml --clients 3", "wait for three silos on this machine"],
    ["tributary serve job.yaml --clients 3 --host 0.0.0.0 --cert cert.pem --key key.pem", "from anywhere"],
    ["tributary serve a.yaml b.yaml --home server --log server.jsonl", "two runs with the same silos"],
  ],
  async run({ positionals, flags, job: typed }, { terminal, signal, json, onInterrupt }) {
    const jobs: PlacedJob[] = [];
    for (const path of positionals) jobs.push((await loadJob({ flags: typed, cwd: terminal.cwd, path })).job);
    const tls = await certificate(flags, terminal.cwd);
    const place = (name: string): string | undefined => {
      const value = flags.get(name);
      return value === undefined ? undefined : resolve(terminal.cwd, value);
    };
    const [home, logFile] = [place("home"), place("log")];
    if (jobs.length > 1 && home === undefined)
      throw usageError("serve: got several jobs, expected --home DIR for what their server keeps");
    refuseShared(jobs, positionals);
    if (logFile !== undefined) assertWritable(logFile);
    const { tributary } = await readVersions();
    const log = (line: LogLine): void => {
      const text = `${JSON.stringify(line)}\n`;
      if (json) terminal.out(text);
      // Lines keep their order, and are there after a crash of the process.
      if (logFile !== undefined) appendFileSync(logFile, text, { mode: 0o600 });
    };
    onInterrupt(() => terminal.err("stopping; run the same command to go on\n"));
    const failed: string[] = [];
    try {
      await serveJobs(jobs, {
        clients: jobs.map((job) => clientsOf(job, flags)),
        port: numberFlag(flags, "port", { fallback: 7788, minimum: 0, maximum: 65_535, whole: true }),
        graceMs: 1000 * numberFlag(flags, "grace", { fallback: 2, minimum: 0 }),
        leaseMs: 1000 * numberFlag(flags, "lease", { fallback: 60, minimum: 1 }),
        deadlineMs: 1000 * numberFlag(flags, "round-deadline", { fallback: 3600, minimum: 1 }),
        plain: flags.has("plain"),
        program: `tributary ${tributary}`,
        ...(flags.has("keep-rounds") && {
          keepRounds: numberFlag(flags, "keep-rounds", { fallback: 1, minimum: 1, whole: true }),
        }),
        ...(home !== undefined && { home }),
        ...(flags.has("host") && { host: flags.get("host") ?? "" }),
        ...(tls && { tls }),
        signal,
        onLog: log,
        onEvent(event) {
          if (event.type === "run-failed") failed.push(`${event.run}: ${event.reason}`);
          const text = json ? undefined : line(event, jobs.length > 1, terminal.cwd);
          if (text !== undefined) terminal.out(`${text}\n`);
        },
      });
      if (!json)
        for (const { out } of jobs) terminal.out(`everything is in ${shortPath(out, terminal.cwd)}\n`);
    } catch (error) {
      if (signal.aborted) throw interrupted("stopped; everything is kept, run the same command to go on");
      if (jobs.length === 1 || failed.length === 0) throw listening(error, flags);
      const what = `${failed.length} of ${jobs.length} runs failed`;
      throw new TributaryError("runs-failed", [what, ...failed].join("\n"), { cause: error });
    }
  },
};

/** Held-out measurements in a line; undefined where there are none. */
function measured(metrics: Readonly<Record<string, number>>): string | undefined {
  const parts = Object.entries(metrics).map(([name, value]) => `${name} ${measure(name, value)}`);
  return parts.length === 0 ? undefined : `held-out ${parts.join(", ")}`;
}

/** The silos of a job, as a flag or the job says. */
function clientsOf({ name, partition }: PlacedJob, flags: ReadonlyMap<string, string>): number {
  if (flags.has("clients")) return numberFlag(flags, "clients", { fallback: 1, minimum: 1, whole: true });
  if ("clients" in partition && typeof partition.clients === "number") return partition.clients;
  throw usageError(
    `serve: got no --clients, expected how many silos take part in ${name}, whose partition does not say`,
  );
}

async function certificate(
  flags: ReadonlyMap<string, string>,
  cwd: string,
): Promise<{ readonly cert: string; readonly key: string } | undefined> {
  const [cert, key] = [flags.get("cert"), flags.get("key")];
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined)
    throw usageError("serve: --cert and --key go together; give both");
  const read = (name: string, path: string): Promise<string> =>
    readFile(resolve(cwd, path), "utf8").catch((error: Error) => {
      throw usageError(`--${name}: got ${path}, expected a file in PEM: ${error.message}`);
    });
  const tls = { cert: await read("cert", cert), key: await read("key", key) };
  try {
    createSecureContext(tls);
  } catch (error) {
    throw usageError(
      `serve: ${cert} and ${key} are no certificate and its private key in PEM: ${String(error)}; correct --cert and --key`,
    );
  }
  return tls;
}

/** Throws where two jobs would write to one folder. */
function refuseShared(jobs: readonly PlacedJob[], paths: readonly string[]): void {
  for (const [i, { out }] of jobs.entries()) {
    const first = jobs.findIndex((job) => job.out === out);
    if (first < i)
      throw usageError(
        `serve: ${paths[first]} and ${paths[i]} write to the same folder ${out}; give one of them another out`,
      );
  }
}

/** Throws where a log cannot be appended to, before anything is served. */
function assertWritable(path: string): void {
  try {
    closeSync(openSync(path, "a", 0o600));
  } catch (error) {
    throw usageError(
      `--log: got ${path}, expected a file in a folder that exists and may be written to: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

/** What was thrown; a refusal to listen in the words of the flags. */
function listening(error: unknown, flags: ReadonlyMap<string, string>): unknown {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (error instanceof TributaryError && code === "tls-required")
    return new TributaryError(error.code, `${error.message}: --cert FILE --key FILE, or --plain`);
  const [host, port] = [flags.get("host") ?? "127.0.0.1", flags.get("port") ?? "7788"];
  switch (code) {
    case "EADDRINUSE":
      return usageError(
        `--port: ${host}:${port} is in use by another process; give another port, or stop the other server`,
      );
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return usageError(`--host: got ${host}, expected an address or name of this machine, such as 0.0.0.0`);
    case "EACCES":
      return usageError(`--port: ${host}:${port} is not allowed to this user; give a port from 1024`);
    default:
      return error;
  }
}

/** What a person reads of an event; nothing of those that say too little. */
function line(event: ServeEvent, several: boolean, cwd: string): string | undefined {
  const text = sentence(event, cwd);
  return several && text !== undefined && "run" in event ? `${event.run}: ${text}` : text;
}

function sentence(event: ServeEvent, cwd: string): string | undefined {
  switch (event.type) {
    case "listening": {
      const tokens =
        event.tokens === undefined ? "" : `; their one-time tokens are in ${shortPath(event.tokens, cwd)}`;
      return `${event.runs.join(", ")} at ${event.url}, for ${counted(event.clients, "silo")}${tokens}`;
    }
    case "client-joined":
      return `${event.client} has joined (${event.of} of ${event.waitsFor})`;
    case "resumed":
      return event.openRound === undefined
        ? `going on after round ${event.rounds.length}`
        : `going on in round ${event.openRound}, ${event.kept} updates are already in`;
    case "round-opened":
      return `round ${event.round} is open for ${counted(event.cohort.length, "silo")}, quorum ${event.quorum}`;
    case "update-accepted":
      return `round ${event.round}: ${event.client} has delivered, loss ${measure("loss", event.loss)}`;
    case "client-dropped":
      return `round ${event.round}: ${event.client} dropped out: ${event.reason}`;
    case "round-failed":
      return `round ${event.round} failed: ${event.reason}`;
    case "round-committed":
      return `round ${event.round.number} is done in ${duration(event.round.seconds)}, loss ${measure("loss", event.round.loss)}`;
    case "evaluated":
      return measured(event.metrics) && `round ${event.round}: ${measured(event.metrics)}`;
    case "waiting":
      return event.why;
    case "run-ended":
      return `done after ${counted(event.rounds, "round")}`;
    case "run-failed":
      return `stopped: ${event.reason}`;
    default:
      return undefined;
  }
}
