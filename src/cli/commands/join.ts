import { hostname } from "node:os";
import { resolve } from "node:path";
import { confirm } from "@clack/prompts";
import { type JoinEvent, joinRun } from "../../job/join.node.ts";
import { leavingText, readPolicy } from "../../job/policy.node.ts";
import { runName } from "../../job/served-run.node.ts";
import { counted } from "../../report/text.ts";
import type { Command } from "../command.ts";
import { interrupted, usageError } from "../exit.ts";
import { lines } from "../terminal.ts";

/** `tributary join`. */
export const join: Command = {
  name: "join",
  summary: "take part in a run of another machine with data that stay here",
  usage: "URL --data FILE [flags]",
  arguments: [1, 1],
  flags: [
    { name: "data", value: "FILE", description: "the silo's own data, in a form that the job reads" },
    { name: "token", value: "TOKEN", description: "one-time token of the operator; needed the first time" },
    { name: "name", value: "NAME", description: "name of the silo (default: that of this machine)" },
    {
      name: "folder",
      value: "DIR",
      description: "where key, unsent update and memory are kept (default: silo)",
    },
    { name: "model", value: "DIR", description: "the base model, where it is not where the job says" },
    { name: "run", value: "NAME", description: "of a server with several runs the one to take part in" },
    { name: "policy", value: "FILE", description: "what this silo agrees to (docs/silos.md lists the keys)" },
    { name: "yes", description: "agree to what leaves without being asked" },
  ],
  examples: [
    ["tributary join http://127.0.0.1:7788 --data mine.jsonl --token TOKEN", "the first time"],
    ["tributary join http://127.0.0.1:7788 --data mine.jsonl", "again, after a restart"],
  ],
  async run({ positionals: [url = ""], flags }, { terminal, signal, json, onInterrupt }) {
    const data = flags.get("data");
    if (data === undefined) throw usageError("join: got no --data, expected the file or folder of this silo");
    const origin = originOf(url);
    const token = flags.get("token")?.trim();
    if (token !== undefined && !/^[A-Za-z0-9_-]{22}$/.test(token))
      throw usageError(
        `--token: got ${JSON.stringify(token)}, expected 22 letters, digits, - and _; take a line of tokens.txt that the operator gives you`,
      );
    onInterrupt(() => terminal.err("stopping; run the same command to go on\n"));
    const place = (path: string): string => resolve(terminal.cwd, path);
    const [model, run, policy] = ["model", "run", "policy"].map((name) => flags.get(name));
    let last = "";
    const say = (event: JoinEvent): void => {
      const plain = JSON.stringify(event);
      // A wait of months is no log of months.
      if (plain === last) return;
      last = plain;
      terminal.out(`${json ? JSON.stringify({ at: new Date().toISOString(), ...event }) : line(event)}\n`);
    };
    try {
      await joinRun({
        url: origin,
        data: place(data),
        folder: place(flags.get("folder") ?? "silo"),
        name: runName(flags.get("name") ?? hostname()),
        ...(token !== undefined && { token }),
        ...(model !== undefined && { model: place(model) }),
        ...(run !== undefined && { run }),
        ...(policy !== undefined && { policy: await readPolicy(place(policy)) }),
        async agrees(leaving) {
          if (!json) terminal.out(lines(leavingText(leaving)));
          if (flags.has("yes")) return true;
          if (terminal.interactive) return (await confirm({ message: "May this leave?" })) === true;
          throw usageError(
            "join: nobody can be asked here whether this may leave, expected --yes, or a first start on a terminal",
          );
        },
        signal,
        onEvent: say,
      });
    } catch (error) {
      if (signal.aborted) throw interrupted("stopped; run the same command to go on");
      throw error;
    }
  },
};

/** The origin of an address. Throws where it is none of a server. */
function originOf(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  const { protocol, pathname, search, hash, origin } = parsed ?? {};
  if ((protocol === "http:" || protocol === "https:") && `${pathname}${search}${hash}` === "/")
    return origin ?? url;
  throw usageError(
    `join: got ${url}, expected the address that tributary serve prints, such as http://127.0.0.1:7788 or https://fl.example.org; correct it`,
  );
}

function line(event: JoinEvent): string {
  switch (event.type) {
    case "enrolled":
      return `enrolled at ${event.url} as ${event.client}`;
    case "joined":
      return `in run ${event.run} with ${counted(event.examples, "example")}: ${counted(event.job.rounds, "round")} of ${event.job.strategy.name}`;
    case "waiting":
      return event.seconds === undefined ? event.why : `${event.why}; again in ${event.seconds} s`;
    case "receipt":
      return event.receipt.status === "accepted"
        ? `round ${event.round}: the update is in`
        : `round ${event.round}: the update was refused: ${event.receipt.reason}`;
    case "over":
      return "the run is over";
  }
}
