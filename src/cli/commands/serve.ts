import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { loadJob } from "../../job/load.node.ts";
import { type ServeEvent, serveJob } from "../../job/serve.node.ts";
import type { Command } from "../command.ts";
import { interrupted, usageError } from "../exit.ts";
import { numberFlag } from "../number-flag.ts";
import { measure } from "../progress/format.ts";

/** `tributary serve`. */
export const serve: Command = {
  name: "serve",
  summary: "carry a job as the coordinator of silos on other machines",
  usage: "JOB --clients N [flags]",
  arguments: [1, 1],
  takesJob: true,
  flags: [
    { name: "clients", value: "N", description: "silos that the run waits for before its first round" },
    { name: "host", value: "HOST", description: "address to listen on (default: 127.0.0.1)" },
    { name: "port", value: "N", description: "port (default: 7788; 0 for any free one)" },
    { name: "cert", value: "FILE", description: "TLS certificate in PEM; required off this machine" },
    { name: "key", value: "FILE", description: "its private key in PEM" },
    { name: "plain", description: "plain HTTP off this machine, where a proxy in front ends TLS" },
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
  ],
  examples: [
    ["tributary serve job.yaml --clients 3", "wait for three silos on this machine"],
    ["tributary serve job.yaml --clients 3 --host 0.0.0.0 --cert cert.pem --key key.pem", "from anywhere"],
  ],
  async run({ positionals: [path = ""], flags, job: typed }, { terminal, signal, json, onInterrupt }) {
    if (!flags.has("clients")) throw usageError("serve: got no --clients, expected how many silos take part");
    const { job } = await loadJob({ flags: typed, cwd: terminal.cwd, path });
    const tls = await certificate(flags, terminal.cwd);
    onInterrupt(() => terminal.err("stopping; run the same command to go on\n"));
    try {
      await serveJob(job, {
        clients: numberFlag(flags, "clients", { fallback: 1, minimum: 1, whole: true }),
        port: numberFlag(flags, "port", { fallback: 7788, minimum: 0, maximum: 65_535, whole: true }),
        graceMs: 1000 * numberFlag(flags, "grace", { fallback: 2, minimum: 0 }),
        leaseMs: 1000 * numberFlag(flags, "lease", { fallback: 60, minimum: 1 }),
        plain: flags.has("plain"),
        ...(flags.has("host") && { host: flags.get("host") ?? "" }),
        ...(tls && { tls }),
        signal,
        onEvent: (event) => {
          const text = json ? JSON.stringify(event) : line(event, job.out);
          if (text !== undefined) terminal.out(`${text}\n`);
        },
      });
    } catch (error) {
      if (signal.aborted)
        throw interrupted(`stopped; everything is kept in ${job.out}, run the same command to go on`);
      throw error;
    }
  },
};

async function certificate(
  flags: ReadonlyMap<string, string>,
  cwd: string,
): Promise<{ readonly cert: string; readonly key: string } | undefined> {
  const [cert, key] = [flags.get("cert"), flags.get("key")];
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined)
    throw usageError("serve: --cert and --key go together; give both");
  return { cert: await readFile(resolve(cwd, cert), "utf8"), key: await readFile(resolve(cwd, key), "utf8") };
}

/** What a person reads of an event; nothing of those that say too little. */
function line(event: ServeEvent, folder: string): string | undefined {
  switch (event.type) {
    case "listening":
      return `${event.run} at ${event.url}, waiting for ${event.clients} silos; their tokens are in ${folder}/tokens.txt`;
    case "client-joined":
      return `${event.client} has joined (${event.of} of ${event.waitsFor})`;
    case "round-opened":
      return `round ${event.round} is open for ${event.cohort.length} silos, quorum ${event.quorum}`;
    case "update-accepted":
      return `round ${event.round}: ${event.client} has delivered, loss ${measure("loss", event.loss)}`;
    case "client-dropped":
      return `round ${event.round}: ${event.client} dropped out: ${event.reason}`;
    case "round-failed":
      return `round ${event.round} failed: ${event.reason}`;
    case "round-committed":
      return `round ${event.round.number} is done, loss ${measure("loss", event.round.loss)}`;
    case "waiting":
      return event.why;
    case "run-ended":
      return `done after ${event.rounds} rounds; everything is in ${folder}`;
    default:
      return undefined;
  }
}
