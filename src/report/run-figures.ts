import type { Contribution, Round } from "../federation/round.ts";
import type { RunHeader } from "../job/events.ts";
import { bytes, count } from "../job/units.ts";
import type { Chart, Figure, Line, Point } from "./chart.ts";
import type { RankHistory } from "./ranks.ts";
import { counted, duration, figure, withoutPrefix } from "./text.ts";

/** What the plots of a run are made of. */
export interface RunPlots {
  readonly rounds: readonly Round[];
  readonly silos: RunHeader["silos"];
  /** Held-out measurements before round 1. */
  readonly before: Readonly<Record<string, number>>;
  /** Ranks of what has come together, or why there are none. */
  readonly ranks: RankHistory | string;
}

/** A part of a report. */
export interface Section {
  readonly title: string;
  readonly figures: readonly Figure[];
  /** What is said where there is nothing to plot. */
  readonly notes?: readonly string[];
}

/** The plots of a run, in the order of the report. */
export function runSections(run: RunPlots): Section[] {
  return [
    { title: "Loss and measurements", ...progress(run) },
    { title: "Who holds what", ...holdings(run) },
    { title: "Clients", ...clients(run) },
    { title: "Aggregation", ...aggregation(run) },
    { title: "Time", figures: [seconds(run)] },
  ];
}

/** Curves of what was measured on held-out data, by name, from round 0 where that was measured. */
export function heldOutCurves(
  rounds: readonly Round[],
  before: Readonly<Record<string, number>>,
): ReadonlyMap<string, readonly Point[]> {
  const names = new Set([before, ...rounds.map(({ evaluation }) => evaluation)].flatMap(Object.keys));
  return new Map(
    [...names]
      .sort(byImportance)
      .map((name): [string, Point[]] => [
        name,
        finite([
          [0, before[name]],
          ...rounds.map(({ number, evaluation }) => [number, evaluation[name]] as const),
        ]),
      ]),
  );
}

/** Bytes down and up of all rounds up to each; round 0 has sent nothing. */
export function trafficUntil(rounds: readonly Round[]): ReadonlyMap<number, number> {
  let sum = 0;
  const until = new Map([[0, 0]]);
  for (const { number, bytesDown, bytesUp } of rounds) {
    sum += bytesDown + bytesUp;
    until.set(number, sum);
  }
  return until;
}

const rounded = { title: "round", whole: true } as const;

function progress({ rounds, before }: RunPlots): Omit<Section, "title"> {
  const curves = heldOutCurves(rounds, before);
  const trained = finite(rounds.map(({ number, loss }) => [number, loss]));
  const heldOutLoss = curves.get("loss") ?? [];
  const lossLines: Line[] = [
    { name: "clients", points: trained },
    { name: "held-out", points: heldOutLoss },
  ].filter(({ points }) => points.length > 0);
  const until = trafficUntil(rounds);
  const others = [...curves].filter(([name, points]) => name !== "loss" && points.length > 0);
  const byBytes = [...curves]
    .filter(([, points]) => points.length > 0)
    .map(([name, points]) => ({ name: `held-out ${name}`, points: against(points, until) }));
  const traffic =
    byBytes.length > 0 ? byBytes : [{ name: "loss of the clients", points: against(trained, until) }];
  const total = until.get(rounds.at(-1)?.number ?? 0) ?? 0;
  const full = rounds.reduce((sum, { bytesFull }) => sum + bytesFull, 0);
  const sent = `${bytes(total)} went down and up in ${counted(rounds.length, "round")}${full > 0 ? `; the same exchanges with the full weights would have been ${bytes(full)}` : ""}.`;
  const figures: Figure[] = [
    ...(lossLines.length === 0
      ? []
      : [
          {
            name: "loss",
            title: "Loss by round",
            text: [
              sentence("The mean loss of the clients while they trained", trained),
              sentence("The loss on held-out data", heldOutLoss),
            ].join(" "),
            chart: { kind: "lines", x: rounded, y: { title: "loss" }, lines: lossLines } satisfies Chart,
          },
        ]),
    ...others.map(([name, points]): Figure => {
      const own = finite(rounds.map(({ number, metrics }) => [number, metrics[name]]));
      return {
        name: `held-out-${slug(name)}`,
        title: `Held-out ${name} by round`,
        text: sentence(`The ${name} on held-out data`, points),
        chart: {
          kind: "lines",
          x: rounded,
          y: { title: name },
          lines: [
            ...(own.length === 0 ? [] : [{ name: "clients", points: own }]),
            { name: "held-out", points },
          ],
        },
      };
    }),
    ...traffic
      .filter(({ points }) => points.length > 0)
      .map(
        ({ name, points }, i): Figure => ({
          name: `traffic-${slug(name)}`,
          title: `${capital(name)} by bytes sent`,
          text: `${i === 0 ? `${sent} ` : ""}${sentence(`The ${name}`, points, "bytes")}`,
          chart: {
            kind: "lines",
            x: { title: "bytes down and up so far", unit: "bytes" },
            y: { title: name },
            lines: [{ name: "", points }],
          },
        }),
      ),
  ];
  const notes = curves.size === 0 ? ["Nothing was measured on held-out data in this run."] : [];
  return { figures, notes };
}

/** Most rows that a plot of clients has; of more, evenly spread ones are shown. */
const mostRows = 60;

function holdings({ silos }: RunPlots): Omit<Section, "title"> {
  if (silos.length === 0)
    return { figures: [], notes: ["The run folder does not say how many examples each client holds."] };
  const shown = spreadOver(silos, mostRows);
  const some =
    shown.length < silos.length ? ` Of ${count(silos.length)} clients, ${shown.length} are shown.` : "";
  const sizes = silos.map(({ examples }) => examples);
  const total = sizes.reduce((a, b) => a + b, 0);
  const labels = labelsOf(silos);
  return {
    figures: [
      {
        name: "holdings",
        title: "Training examples of each client",
        text: `${counted(silos.length, "client")} ${silos.length === 1 ? "holds" : "hold"} ${count(total)} training examples; the smallest ${count(Math.min(...sizes))}, the largest ${count(Math.max(...sizes))}.${some}`,
        chart: {
          kind: "bars",
          x: { title: "examples", whole: true },
          bars: shown.map(({ name, examples }) => ({ name, value: examples })),
        },
      },
      ...(labels.length === 0
        ? []
        : [
            {
              name: "labels",
              title: "Labels of each client",
              text: `Each row is a client; a cell is the share of its records that have the label, dark none and light many. ${skew(silos, labels)}${some}`,
              chart: {
                kind: "heat",
                x: "label",
                columns: labels,
                rows: shown.map(({ name }) => name),
                title: "share of the client's records",
                cells: shown.flatMap((silo, row) =>
                  labels.map((label, column) => ({ row, column, value: shareOf(silo, label) })),
                ),
              } satisfies Chart,
            },
          ]),
    ],
  };
}

type Silo = RunHeader["silos"][number];

/** Labels by number, then by text. */
function labelsOf(silos: readonly Silo[]): string[] {
  const labels = new Set(silos.flatMap(({ labels = {} }) => Object.keys(labels)));
  return [...labels].sort((a, b) => Number(a) - Number(b) || (a < b ? -1 : 1));
}

function shareOf({ labels = {} }: Silo, label: string): number {
  const all = Object.values(labels).reduce((a, b) => a + b, 0);
  return all === 0 || !Object.hasOwn(labels, label) ? 0 : (labels[label] ?? 0) / all;
}

/** How unequal the shares are, by the label of which clients differ most. */
function skew(silos: readonly Silo[], labels: readonly string[]): string {
  const ranges = labels.map((label) => {
    const shares = silos.map((silo) => shareOf(silo, label));
    return { label, low: Math.min(...shares), high: Math.max(...shares) };
  });
  const [widest] = ranges.sort((a, b) => b.high - b.low - (a.high - a.low));
  if (widest === undefined || silos.length < 2) return "";
  return `Clients differ most in "${widest.label}": from ${percent(widest.low)} to ${percent(widest.high)} of their records.`;
}

/** Up to so many clients have lines of their own; more are shown by their spread. */
const mostLines = 8;

function clients({ rounds }: RunPlots): Omit<Section, "title"> {
  const names = [...new Set(rounds.flatMap(({ accepted }) => accepted.map(({ client }) => client)))].sort();
  if (names.length === 0) return { figures: [], notes: ["No update of a client was accepted."] };
  const measures: readonly {
    readonly name: string;
    readonly title: string;
    readonly what: string;
    value(own: Contribution): number | null;
  }[] = [
    {
      name: "client-loss",
      title: "Loss of each client",
      what: "mean training loss of a client in the round",
      value: ({ loss }) => loss,
    },
    {
      name: "client-norm",
      title: "Norm of each client's change",
      what: "norm of what a client changed in the round",
      value: ({ norm }) => norm,
    },
    {
      name: "client-examples",
      title: "Examples behind each update",
      what: "examples that a client trained on",
      value: ({ numExamples }) => numExamples,
    },
  ];
  return {
    figures: measures.flatMap(({ name, title, what, value }): Figure[] => {
      const lines = names.length <= mostLines ? ownLines(rounds, names, value) : spreadLines(rounds, value);
      if (lines.every(({ points }) => points.length === 0)) return [];
      const how =
        names.length <= mostLines
          ? `One line a client: the ${what}.`
          : `The ${what}, over ${count(names.length)} clients: the line is the median, the inner band holds the middle half, the outer band all.`;
      const last =
        rounds
          .at(-1)
          ?.accepted.map(value)
          .filter((one) => typeof one === "number") ?? [];
      return [
        {
          name,
          title,
          text: `${how}${last.length > 1 ? ` In the last round it lies between ${figure(Math.min(...last))} and ${figure(Math.max(...last))}.` : ""}`,
          chart: { kind: "lines", x: rounded, y: { title: "" }, lines },
        },
      ];
    }),
  };
}

function ownLines(
  rounds: readonly Round[],
  names: readonly string[],
  value: (own: Contribution) => number | null,
): Line[] {
  return names.map((name) => ({
    name,
    points: finite(
      rounds.flatMap(({ number, accepted }) =>
        accepted.filter(({ client }) => client === name).map((own) => [number, value(own)] as const),
      ),
    ),
  }));
}

/** The median with the middle half around it, and the range of all. */
function spreadLines(rounds: readonly Round[], value: (own: Contribution) => number | null): Line[] {
  const sorted = rounds.flatMap(({ number, accepted }) => {
    const values = accepted.map(value).filter((one) => typeof one === "number" && Number.isFinite(one));
    return values.length === 0
      ? []
      : [{ number, values: values.sort((a, b) => (a ?? 0) - (b ?? 0)) as number[] }];
  });
  const at = (share: number): Point[] =>
    sorted.map(({ number, values }) => [number, quantile(values, share)]);
  return [
    { name: "", points: [], band: { lower: at(0), upper: at(1) } },
    { name: "median", points: at(0.5), band: { lower: at(0.25), upper: at(0.75) } },
  ];
}

function aggregation({ rounds, ranks }: RunPlots): Omit<Section, "title"> {
  const deviation = deviationFigure(rounds);
  const rank = typeof ranks === "string" ? undefined : rankFigure(ranks);
  return {
    figures: [...(deviation === undefined ? [] : [deviation]), ...(rank === undefined ? [] : [rank])],
    notes: [
      ...(deviation === undefined
        ? ["The strategy did not measure how far its aggregate is from the mean of the clients' models."]
        : []),
      ...(typeof ranks === "string" ? [ranks] : []),
    ],
  };
}

const relative = "relativeDeviation/";

function deviationFigure(rounds: readonly Round[]): Figure | undefined {
  const names = new Set(rounds.flatMap(({ measurements }) => Object.keys(measurements)));
  const modules = [...names]
    .filter((name) => name.startsWith(relative))
    .map((name) => name.slice(relative.length));
  if (modules.length === 0) return undefined;
  const values = (module: string): Point[] =>
    finite(rounds.map(({ number, measurements }) => [number, measurements[relative + module]]));
  const short = withoutPrefix(modules);
  const means = rounds.flatMap(({ number, measurements }): Point[] => {
    const found = modules.flatMap((module) => measurements[relative + module] ?? []);
    return found.length === 0 ? [] : [[number, found.reduce((a, b) => a + b, 0) / found.length]];
  });
  const largest = means.reduce((most, [, value]) => Math.max(most, value), 0);
  const text = `How far the aggregate is from the mean of the clients' effective weights, in every adapted module, relative to the norm of that mean; 0 is exact. ${largest < 1e-6 ? `It is ${largest === 0 ? "0" : `below ${figure(largest * 1.01)}`} in every round: the aggregate is exact up to rounding.` : sentence("The mean over modules", means)}`;
  const title = "Deviation from the ideal aggregate";
  if (largest === 0) {
    const points = rounds.map(({ number }): Point => [number, 0]);
    const lines = [{ name: "all modules", points }];
    return {
      name: "deviation",
      title,
      text,
      chart: { kind: "lines", x: rounded, y: { title: "relative deviation" }, lines },
    };
  }
  if (modules.length <= 6) {
    const lines = modules.map((module, i) => ({ name: short[i] ?? module, points: values(module) }));
    return {
      name: "deviation",
      title,
      text,
      chart: { kind: "lines", x: rounded, y: { title: "relative deviation" }, lines },
    };
  }
  return {
    name: "deviation",
    title,
    text: `${text} A row is a module, a column a round; dark is near.`,
    chart: {
      kind: "heat",
      x: "round",
      columns: rounds.map(({ number }) => String(number)),
      rows: short,
      title: "relative deviation",
      cells: modules.flatMap((module, row) =>
        rounds.flatMap(({ measurements }, column) => {
          const value = measurements[relative + module];
          return typeof value === "number" ? [{ row, column, value }] : [];
        }),
      ),
    },
  };
}

function rankFigure({ modules, measured, skipped }: RankHistory): Figure | undefined {
  if (measured.length === 0) return undefined;
  const line = (
    name: string,
    of: (one: { readonly rank: number; readonly effective: number }) => number,
  ): Line => {
    const values = measured.map(({ round, ranks }) => ({ round, all: ranks.map(of) }));
    return {
      name,
      points: values.map(({ round, all }) => [round, all.reduce((a, b) => a + b, 0) / all.length]),
      band: {
        lower: values.map(({ round, all }) => [round, Math.min(...all)]),
        upper: values.map(({ round, all }) => [round, Math.max(...all)]),
      },
    };
  };
  const lines = [line("numerical", ({ rank }) => rank), line("effective", ({ effective }) => effective)];
  const last = (i: number): string => figure(lines[i]?.points.at(-1)?.[1]);
  const some = skipped > 0 ? ` Measured in ${modules} of ${modules + skipped} modules, evenly spread.` : "";
  return {
    name: "rank",
    title: "Rank of the accumulated update",
    text: `What all rounds together have added to a pretrained weight, the adapter included: the number of its singular values above rounding, and its effective rank, e to the entropy of the singular values' shares. Lines are means over modules, bands their range. In the end ${last(0)} and ${last(1)}.${some}`,
    chart: { kind: "lines", x: rounded, y: { title: "rank" }, lines },
  };
}

function seconds({ rounds }: RunPlots): Figure {
  const phases = ["train", "aggregate", "commit"] as const;
  const names = { train: "training", aggregate: "aggregation", commit: "commit" } as const;
  const totals = phases.map((phase) => rounds.reduce((sum, { phases }) => sum + phases[phase], 0));
  return {
    name: "seconds",
    title: "Seconds of each round by phase",
    text: `In all ${phases.map((phase, i) => `${duration(totals[i] ?? 0)} ${names[phase]}`).join(", ")}; evaluation is not counted. The axis is logarithmic.`,
    chart: {
      kind: "lines",
      x: rounded,
      y: { title: "seconds", log: true },
      lines: phases.map((phase) => ({
        name: names[phase],
        points: finite(rounds.map(({ number, phases }) => [number, phases[phase]])),
      })),
    },
  };
}

/** Where a curve begins and ends, and its extremes where these lie between. */
function sentence(what: string, points: readonly Point[], unit: "rounds" | "bytes" = "rounds"): string {
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined) return "";
  const at = (x: number): string =>
    unit === "bytes" && x > 0 ? `after ${bytes(x)}` : x === 0 ? "before round 1" : `in round ${x}`;
  if (points.length === 1) return `${what} is ${figure(last[1])} ${at(last[0])}.`;
  const lowest = points.reduce((a, b) => (b[1] < a[1] ? b : a));
  const highest = points.reduce((a, b) => (b[1] > a[1] ? b : a));
  const inside = [
    ...(lowest[1] < Math.min(first[1], last[1]) ? [`lowest ${figure(lowest[1])} ${at(lowest[0])}`] : []),
    ...(highest[1] > Math.max(first[1], last[1]) ? [`highest ${figure(highest[1])} ${at(highest[0])}`] : []),
  ];
  return `${what} went from ${figure(first[1])} ${at(first[0])} to ${figure(last[1])} ${at(last[0])}${inside.length === 0 ? "" : ` (${inside.join(", ")})`}.`;
}

/** Points without those that were not measured; JSON has null for what is not finite. */
function finite(points: readonly (readonly [number, number | null | undefined])[]): Point[] {
  return points.flatMap(([x, y]): Point[] => (typeof y === "number" && Number.isFinite(y) ? [[x, y]] : []));
}

function against(points: readonly Point[], until: ReadonlyMap<number, number>): Point[] {
  return points.flatMap(([round, value]): Point[] => {
    const sent = until.get(round);
    return sent === undefined ? [] : [[sent, value]];
  });
}

function byImportance(a: string, b: string): number {
  return Number(b === "loss") - Number(a === "loss") || (a < b ? -1 : 1);
}

/** A quantile of sorted values, linear between them. */
function quantile(sorted: readonly number[], share: number): number {
  const at = share * (sorted.length - 1);
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  return low + (at - Math.floor(at)) * ((sorted[Math.ceil(at)] ?? low) - low);
}

function spreadOver<T>(items: readonly T[], most: number): readonly T[] {
  if (items.length <= most) return items;
  return items.filter(
    (_, i) => Math.floor(((i + 1) * most) / items.length) > Math.floor((i * most) / items.length),
  );
}

function percent(share: number): string {
  return `${figure(Number((100 * share).toFixed(1)))}\u00a0%`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A name as part of a file name. */
export function slug(name: string): string {
  return (
    name
      .toLowerCase()
      .replaceAll(/[^a-z0-9]+/g, "-")
      .replaceAll(/^-+|-+$/g, "")
      .slice(0, 40) || "x"
  );
}
