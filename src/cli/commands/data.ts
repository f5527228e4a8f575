import type { Command } from "../command.ts";

/** `tributary data`. */
export const data: Command = {
  name: "data",
  summary: "",
  usage: "",
  arguments: [0, 9],
  flags: [],
  examples: [],
  async run() {},
};
