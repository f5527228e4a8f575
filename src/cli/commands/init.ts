import type { Command } from "../command.ts";

/** `tributary init`. */
export const init: Command = {
  name: "init",
  summary: "",
  usage: "",
  arguments: [0, 9],
  flags: [],
  examples: [],
  async run() {},
};
