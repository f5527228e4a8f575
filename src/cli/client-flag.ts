import type { FlagSpec } from "./command.ts";

/** The flag of commands that take a run whose clients have models of their own. */
export const clientSpec: FlagSpec = {
  name: "client",
  value: "ID",
  description: "whose model, of a run in which each client has one of its own",
};
