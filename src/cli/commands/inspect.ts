import type { Command } from "../command.ts";

/** `tributary inspect`. */
export const inspect: Command = {
  name: "inspect",
  summary: "",
  usage: "",
  arguments: [0, 9],
  flags: [],
  examples: [],
  async run() {},
};
