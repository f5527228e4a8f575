import { bytes } from "../job/units.ts";
import { bestOf } from "../metrics/table.ts";
import { countedValue } from "../sweep/figures.ts";
import { spreadOf } from "../sweep/statistics.ts";
import type { Figure, Line, Point } from "./chart.ts";
import { heldOutCurves, slug, trafficUntil } from "./run-figures.ts";
import type { SweepRecord, SweptRun } from "./sweep-record.node.ts";
import { counted, figure } from "./text.ts";

/** Plots of one partition of a sweep. */
export interface PartitionPlots {
  readonly partition: string;
  readonly figures: readonly Figure[];
}

/** More methods than this have a panel each. */
const mostLines = 6;

/** The plots of a sweep, partition by partition. */
export function sweepPlots({ sweep, runs }: SweepRecord): PartitionPlots[] {
  return sweep.partitions.map(({ label, slug: part }, i) => {
    const own = runs.filter(({ row }) => row.partition === label && row.failure === undefined);
    const suffix = sweep.partitions.length > 1 ? `-${slug(part)}-${i + 1}` : "";
    const named = sweep.methods
      .map(({ label: method }) => ({ method, runs: own.filter(({ row }) => row.method === method) }))
      .filter(({ runs }) => runs.length > 0);
    if (named.length === 0) return { partition: label, figures: [] };
    const { metric, metricProtocol: protocol } = sweep;
    const names = metric === "loss" ? [metric] : [metric, "loss"];
    const value = ({ row }: SweptRun): number | undefined => countedValue(row, metric, protocol);
    const finals = named.map(({ method, runs }) => ({
      name: method,
      values: runs.flatMap((run) => value(run) ?? []),
    }));
    const measured = finals.filter(({ values }) => values.length > 0);
    const counts = protocol === "best" ? "the best value after any round" : "the value after the last round";
    const figures: Figure[] = [
      ...(measured.length === 0
        ? []
        : [
            {
              name: `final${suffix}`,
              title: `${capital(metric)} of each method`,
              text: `Each ring is the ${metric} of one seed (${counts}); the bar across is their mean, which the figure at the right gives. ${leader(metric, measured)}`,
              chart: { kind: "rows", x: { title: metric }, rows: finals } as const,
            },
            {
              name: `cost${suffix}`,
              title: `${capital(metric)} against bytes`,
              text: `Each mark is a run: what it sent down and up, on a logarithmic axis, and its ${metric}. ${cheapest(named)}`,
              chart: {
                kind: "points",
                x: { title: "bytes down and up", unit: "bytes", log: true },
                y: { title: metric },
                groups: named.map(({ method, runs }) => ({
                  name: method,
                  points: runs.flatMap((run): Point[] => {
                    const reached = value(run);
                    return reached === undefined ? [] : [[run.row.bytesDown + run.row.bytesUp, reached]];
                  }),
                })),
              } as const,
            },
          ]),
      ...names.flatMap((name): Figure[] => {
        const curves = named.map(({ method, runs }) => ({ method, curve: meanCurve(runs, name) }));
        if (curves.every(({ curve }) => curve.length === 0)) return [];
        const seeds = Math.max(...named.map(({ runs }) => runs.length));
        const shown = curves.filter(({ curve }) => curve.length > 0);
        const kind = shown.length > mostLines ? "panels" : "lines";
        const grey = kind === "panels" ? " Behind each method, the others are faint." : "";
        const sent = shown.flatMap(({ curve }) => curve.at(-1)?.sent ?? []).filter((bytes) => bytes > 0);
        const log = Math.max(...sent) > 10 * Math.min(...sent);
        const how = `A line is the mean over ${counted(seeds, "seed")}${seeds > 1 ? "; the band around it is one standard deviation to each side" : ""}.`;
        return [
          {
            name: `${slug(name)}${suffix}`,
            title: `Held-out ${name} by round`,
            text: `${how}${grey}`,
            chart: {
              kind,
              x: { title: "round", whole: true },
              y: { title: name },
              lines: shown.map(({ method, curve }) => lineOf(method, curve, ({ round }) => round)),
            },
          },
          ...(sent.length === 0
            ? []
            : [
                {
                  name: `${slug(name)}-traffic${suffix}`,
                  title: `Held-out ${name} by bytes sent`,
                  text: `${how} Bytes are the mean over seeds of what all rounds so far have sent${log ? ", on a logarithmic axis, which has no place for the start" : ""}.${grey}`,
                  chart: {
                    kind,
                    x: { title: "bytes down and up so far", unit: "bytes", log },
                    y: { title: name },
                    lines: shown
                      .filter(({ curve }) => (curve.at(-1)?.sent ?? 0) > 0)
                      .map(({ method, curve }) => lineOf(method, curve, ({ sent }) => sent)),
                  },
                } as const,
              ]),
        ];
      }),
    ];
    return { partition: label, figures };
  });
}

/** A measure after one round, over seeds. */
interface Moment {
  readonly round: number;
  readonly sent: number;
  readonly mean: number;
  readonly deviation?: number;
}

/** The mean curve of some runs; rounds that not all of them have are left out, so that it never jumps between sets. */
function meanCurve(runs: readonly SweptRun[], name: string): Moment[] {
  const found = runs.map(({ row, rounds }) => ({
    values: new Map(
      (heldOutCurves(rounds, row.before).get(name) ?? []).map(([round, value]) => [round, value]),
    ),
    until: trafficUntil(rounds),
  }));
  const rounds = [...(found[0]?.values.keys() ?? [])].filter((round) =>
    found.every(({ values }) => values.has(round)),
  );
  return rounds.flatMap((round): Moment[] => {
    const spread = spreadOf(found.flatMap(({ values }) => values.get(round) ?? []));
    const sent = spreadOf(found.flatMap(({ until }) => until.get(round) ?? []));
    return spread === undefined || sent === undefined
      ? []
      : [
          {
            round,
            sent: sent.mean,
            mean: spread.mean,
            ...(spread.deviation === undefined ? {} : { deviation: spread.deviation }),
          },
        ];
  });
}

function lineOf(name: string, curve: readonly Moment[], x: (moment: Moment) => number): Line {
  const points = curve.map((moment): Point => [x(moment), moment.mean]);
  if (curve.some(({ deviation }) => deviation === undefined)) return { name, points };
  const edge = (sign: number): Point[] =>
    curve.map((moment) => [x(moment), moment.mean + sign * (moment.deviation ?? 0)]);
  return { name, points, band: { lower: edge(-1), upper: edge(1) } };
}

interface Final {
  readonly name: string;
  readonly values: readonly number[];
}

/** Which method has the best mean, and whether the next one is within the spread over seeds. */
function leader(metric: string, finals: readonly Final[]): string {
  const spreads = finals.flatMap(({ name, values }) => {
    const spread = spreadOf(values);
    return spread === undefined ? [] : [{ name, ...spread }];
  });
  const best = bestOf(
    metric,
    spreads.map(({ mean }) => mean),
  );
  const first = spreads.find(({ mean }) => mean === best);
  if (first === undefined || spreads.length < 2) return "";
  const others = spreads.filter((one) => one !== first);
  const next = others.find(
    ({ mean }) =>
      mean ===
      bestOf(
        metric,
        others.map((one) => one.mean),
      ),
  );
  if (next === undefined) return "";
  const distance = Math.abs(first.mean - next.mean);
  const spread = Math.max(first.deviation ?? 0, next.deviation ?? 0);
  const verdict =
    first.n < 2 || next.n < 2
      ? "with one seed, the difference may be chance"
      : distance <= spread
        ? "less apart than the seeds of one method are, so this order may be chance"
        : "further apart than the seeds of one method are";
  return `The best mean is that of ${first.name}, ${figure(first.mean)}; the next is ${next.name} with ${figure(next.mean)}, ${verdict}.`;
}

function cheapest(named: readonly { readonly method: string; readonly runs: readonly SweptRun[] }[]): string {
  const sent = named
    .map(({ method, runs }) => ({
      method,
      mean: runs.reduce((sum, { row }) => sum + row.bytesDown + row.bytesUp, 0) / runs.length,
    }))
    .sort((a, b) => a.mean - b.mean);
  const none = sent.filter(({ mean }) => mean === 0).map(({ method }) => method);
  const [least, most] = [sent[none.length], sent.at(-1)];
  const without = none.length === 0 ? "" : ` Not on this axis: ${none.join(", ")}, which sent nothing.`;
  if (least === undefined || most === undefined || least === most) return without.trim();
  return `${least.method} sent least, ${bytes(least.mean)}; ${most.method} sent most, ${bytes(most.mean)}.${without}`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
