import { resolve } from "node:path";
import { TributaryError } from "../../errors.ts";
import { readResolvedJob } from "../../job/load.node.ts";
import { verifyRun } from "../../job/verify.ts";
import type { Command } from "../command.ts";
import { usageError } from "../exit.ts";

/** `tributary verify`. */
export const verify: Command = {
  name: "verify",
  summary: "replay a run from its journal and compare digests",
  usage: "RUN",
  arguments: [1, 1],
  flags: [],
  examples: [["tributary verify runs/my-job", "fold the stored updates of every round again"]],
  async run({ positionals: [path = ""] }, { terminal, json }) {
    const folder = resolve(terminal.cwd, path);
    const job = await readResolvedJob(folder);
    if (job === undefined)
      throw usageError(`verify: ${folder} is no run folder, expected one that tributary run has written`);
    const { good, bad } = terminal.style;
    const found = await verifyRun({ ...job, out: folder }, ({ round, updates, same, differs }) => {
      if (!json)
        terminal.out(
          `round ${round}: ${updates} updates, ${same ? good("same digests") : bad(`differs: ${differs.join(", ")}`)}\n`,
        );
    });
    const wrong = found.rounds.filter(({ same }) => !same).map(({ round }) => `round ${round}`);
    if (found.adapter === false) wrong.push("the adapter files");
    if (json) terminal.out(`${JSON.stringify({ run: folder, verified: wrong.length === 0, ...found })}\n`);
    if (wrong.length > 0) {
      throw new TributaryError(
        "verify-failed",
        `verify: ${wrong.join(", ")} of ${folder} do not follow from the journal; restore the run folder from a copy`,
      );
    }
    if (!json)
      terminal.out(
        `${good("verified")}: ${found.events} events, ${found.rounds.length} rounds${found.adapter === true ? ", adapter files" : ""}\n`,
      );
  },
};
