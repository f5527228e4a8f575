import { resolve } from "node:path";
import type { Command } from "../command.ts";
import { usageError } from "../exit.ts";
import { shortPath } from "../progress/format.ts";

/** `tributary report`. */
export const report: Command = {
  name: "report",
  summary: "plots and tables of a run or a sweep, as one HTML file and as SVG files",
  usage: "RUN|SWEEP [flags]",
  arguments: [1, 1],
  flags: [
    {
      name: "out",
      value: "FILE.html",
      description:
        "the file to write (default: report/report.html in the folder); its plots go to FILE-plots",
    },
  ],
  examples: [
    ["tributary report runs/my-job", "write runs/my-job/report/report.html"],
    ["tributary report runs/my-sweep --out compared.html", "compare the methods of a sweep"],
  ],
  async run({ positionals: [path = ""], flags }, { terminal, json }) {
    const out = flags.get("out");
    if (out !== undefined && !/\.html?$/i.test(out))
      throw usageError(`report: got --out ${out}, expected a file that ends in .html`);
    // The plotting library is loaded only where plots are drawn.
    const { writeReport } = await import("../../report/report.node.ts");
    const folder = resolve(terminal.cwd, path);
    const made = await writeReport(folder, out === undefined ? {} : { out: resolve(terminal.cwd, out) });
    if (json) terminal.out(`${JSON.stringify(made)}\n`);
    else
      terminal.out(
        `report: ${shortPath(made.path, terminal.cwd)}, with ${made.plots.length} plots as SVG files\n`,
      );
  },
};
