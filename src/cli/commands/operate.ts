import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { TributaryError } from "../../errors.ts";
import { serverFiles } from "../../job/serve.node.ts";
import { type Operator, operatorOf } from "../../transports/http/operator.ts";
import type { ClientStatus, RunStatus } from "../../transports/http/protocol.ts";
import type { Command, CommandContext, FlagSpec } from "../command.ts";
import { usageError } from "../exit.ts";
import { numberFlag } from "../number-flag.ts";
import { duration, measure } from "../progress/format.ts";

const tokenFlag: FlagSpec = {
  name: "operator-token",
  value: "FILE",
  description: "the operator's token of a server on another machine (operator.token in its home)",
};

const runFlag: FlagSpec = {
  name: "run",
  value: "NAME",
  description: "of several runs the one that is meant",
};

/** `tributary status`. */
export const status: Command = {
  name: "status",
  summary: "where a server and its runs stand",
  usage: "SERVER [flags]",
  arguments: [1, 1],
  flags: [tokenFlag],
  examples: [
    ["tributary status runs/my-job", "of a server on this machine, by its folder"],
    ["tributary status https://fl.example.org --operator-token operator.token", "of one elsewhere"],
  ],
  async run({ positionals, flags }, context) {
    const found = await (await reach(positionals, flags, context)).status();
    say(context, found, [
      `${found.server}, up ${duration(found.upSeconds)}`,
      ...found.runs.flatMap(runLines),
    ]);
  },
};

/** `tributary clients`. */
export const clients: Command = {
  name: "clients",
  summary: "the silos of a server, and what each does",
  usage: "SERVER [flags]",
  arguments: [1, 1],
  flags: [tokenFlag],
  examples: [["tributary clients runs/my-job", "a line for each silo"]],
  async run({ positionals, flags }, context) {
    const found = await (await reach(positionals, flags, context)).clients();
    say(
      context,
      found,
      found.clients.length === 0 ? ["no silo is enrolled yet"] : found.clients.map(clientLine),
    );
  },
};

function holding(verb: "pause" | "resume" | "stop", summary: string, what: string): Command {
  return {
    name: verb,
    summary,
    usage: "SERVER [flags]",
    arguments: [1, 1],
    flags: [runFlag, tokenFlag],
    examples: [[`tributary ${verb} runs/my-job`, what]],
    async run({ positionals, flags }, context) {
      const operator = await reach(positionals, flags, context);
      const held = await operator.hold(flags.get("run") ?? (await onlyRun(operator)), verb);
      say(context, held, runLines(held));
    },
  };
}

/** `tributary pause`. */
export const pause: Command = holding(
  "pause",
  "hold a run: nothing more is lent, silos at work may deliver",
  "until it is resumed",
);

/** `tributary resume`. */
export const resume: Command = holding("resume", "let a run go on that was paused", "goes on where it was");

/** `tributary stop`. */
export const stop: Command = holding(
  "stop",
  "end a run with its last committed round",
  "the adapter of the last round stays",
);

/** `tributary kick`. */
export const kick: Command = {
  name: "kick",
  summary: "remove a silo from a server and its runs",
  usage: "SERVER SILO --reason TEXT [flags]",
  arguments: [2, 2],
  flags: [{ name: "reason", value: "TEXT", description: "why; the journal keeps it" }, tokenFlag],
  examples: [
    ['tributary kick runs/my-job bern --reason "sends noise"', "its key is worth nothing from now on"],
  ],
  async run({ positionals, flags }, context) {
    const reason = flags.get("reason");
    if (!reason)
      throw usageError("kick: got no --reason, expected why the silo is removed; the journal keeps it");
    const [, silo = ""] = positionals;
    const answer = await (await reach(positionals, flags, context)).kick(silo, reason);
    say(context, answer, answer.clients.map(clientLine));
  },
};

/** `tributary invite`. */
export const invite: Command = {
  name: "invite",
  summary: "make one-time tokens for more silos",
  usage: "SERVER [flags]",
  arguments: [1, 1],
  flags: [
    { name: "count", value: "N", description: "how many (default: 1)" },
    { name: "days", value: "N", description: "how long they are valid (default: 7)" },
    tokenFlag,
  ],
  examples: [["tributary invite runs/my-job --count 2", "two tokens, one a line"]],
  async run({ positionals, flags }, context) {
    const count = numberFlag(flags, "count", { fallback: 1, minimum: 1, maximum: 10_000, whole: true });
    const seconds = Math.round(24 * 3600 * numberFlag(flags, "days", { fallback: 7, minimum: 0.001 }));
    const tokens = await (await reach(positionals, flags, context)).tokens(count, seconds);
    say(context, { tokens }, tokens);
  },
};

/** Where a server listens and what its operator is known by: from its folder here, or as given. */
async function reach(
  [server = ""]: readonly string[],
  flags: ReadonlyMap<string, string>,
  { terminal, signal }: CommandContext,
): Promise<Operator> {
  const given = flags.get("operator-token");
  const remote = /^https?:\/\//.test(server);
  const home = resolve(terminal.cwd, server);
  if (remote && given === undefined)
    throw usageError("got no --operator-token, expected the file with the operator's token of that server");
  const token = await readFile(
    given === undefined ? join(home, serverFiles.operator) : resolve(terminal.cwd, given),
    "utf8",
  ).catch((error: Error) => {
    if (given !== undefined)
      throw usageError(
        `--operator-token: got ${given}, expected a copy of ${serverFiles.operator} in the home of that server: ${error.message}`,
      );
    throw new TributaryError(
      "no-server",
      `${server} is not the home of a server: it has no ${serverFiles.operator}; give its folder or its URL`,
    );
  });
  if (remote) return operatorOf({ url: server.replace(/\/+$/, ""), token: token.trim(), signal });
  const address = await readFile(join(home, serverFiles.address), "utf8").catch(() => undefined);
  if (address === undefined)
    throw new TributaryError(
      "not-running",
      `the server of ${server} is not running; start it with tributary serve, which goes on where it was`,
    );
  const { url } = JSON.parse(address) as { readonly url: string };
  return operatorOf({ url, token: token.trim(), signal });
}

async function onlyRun(operator: Operator): Promise<string> {
  const { runs } = await operator.status();
  const [run] = runs;
  if (run && runs.length === 1) return run.run;
  throw usageError(
    `the server carries ${runs.length} runs, expected --run with one of ${runs.map((one) => one.run).join(", ")}`,
  );
}

function say({ terminal, json }: CommandContext, answer: unknown, text: readonly string[]): void {
  terminal.out(json ? `${JSON.stringify(answer)}\n` : `${text.join("\n")}\n`);
}

function runLines({
  run,
  phase,
  rounds,
  why,
  clients: { joined, of, here },
  loss,
  roundSeconds,
}: RunStatus): string[] {
  const left = rounds.of - rounds.done;
  const eta =
    phase === "collecting" && roundSeconds !== undefined
      ? `, some ${duration(left * roundSeconds)} to go`
      : "";
  return [
    `${run}: ${phase}, ${rounds.done} of ${rounds.of} rounds, loss ${measure("loss", loss)}${eta}`,
    `  ${why}`,
    `  silos: ${joined} of ${of} joined, ${here} connected`,
  ];
}

function clientLine({ client, here, seenSeconds, revoked, runs }: ClientStatus): string {
  const seen = here
    ? "connected"
    : seenSeconds === undefined
      ? "not seen"
      : `seen ${duration(seenSeconds)} ago`;
  const parts = runs.map(({ run, state, accepted, progress }) => {
    const step = progress === undefined ? "" : ` step ${progress.step} of ${progress.steps}`;
    return `${run}: ${state}${step}, ${accepted} updates in`;
  });
  return [client, revoked === undefined ? seen : `removed: ${revoked}`, ...parts].join("  ");
}
