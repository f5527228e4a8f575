import { spawn } from "node:child_process";

export interface BesideOptions {
  /** Runs one measurement of ours in a process of its own: program and arguments. */
  readonly own: readonly string[];
  /** The other program's command, read by a shell; its last line of output is a JSON object. */
  readonly command: string;
  /** How often the two take turns. */
  readonly repeat: number;
  readonly onLine: (line: string) => void;
}

type Figures = Readonly<Record<string, unknown>>;

export interface BesideFigures {
  readonly bench: "beside";
  readonly command: string;
  readonly repeat: number;
  /** How many times as fast ours is: medians over the turns. */
  readonly speed: number;
  /** Our peak memory as a share of theirs: medians. */
  readonly memory: number;
}

/** Takes turns with another program, so that both meet the same machine, and compares the medians. */
export async function benchBeside({ own, command, repeat, onLine }: BesideOptions): Promise<BesideFigures> {
  const ours: Figures[] = [];
  const theirs: Figures[] = [];
  const [program = "", ...args] = own;
  for (let turn = 0; turn < repeat; turn++) {
    for (const [into, run] of [
      [ours, () => lastLine(program, args, false)],
      [theirs, () => lastLine(command, [], true)],
    ] as const) {
      const line = await run();
      onLine(line);
      into.push(JSON.parse(line) as Figures);
    }
  }
  return {
    bench: "beside",
    command,
    repeat,
    speed: median(theirs.map(secondsOf)) / median(ours.map(secondsOf)),
    memory: median(ours.map(peakOf)) / median(theirs.map(peakOf)),
  };
}

/** Seconds for the same work: a step, an example or a token. */
function secondsOf(figures: Figures): number {
  const { secondsPerStep, examplesPerSecond, tokensPerSecond } = figures;
  return secondsPerStep === undefined
    ? 1 / Number(examplesPerSecond ?? tokensPerSecond)
    : Number(secondsPerStep);
}

const peakOf = ({ peakMB }: Figures): number => Number(peakMB);

const median = (values: readonly number[]): number =>
  [...values].sort((x, y) => x - y)[values.length >> 1] ?? Number.NaN;

function lastLine(program: string, args: readonly string[], shell: boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { shell, stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    child.on("error", reject);
    child.on("close", (code) => {
      const last = text.trim().split("\n").at(-1) ?? "";
      if (code === 0 && last.startsWith("{")) resolve(last);
      else
        reject(
          new Error(
            `bench: "${program}" ended with ${code} and printed ${JSON.stringify(last)}; expected a JSON line`,
          ),
        );
    });
  });
}
