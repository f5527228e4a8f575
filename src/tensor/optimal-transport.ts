import type { Matrix } from "./matrix.ts";

/** Amounts below this share of the whole are rounding. */
const NOTHING = 1e-15;

/**
 * Least cost of moving `supply` onto `demand`, two distributions of the same mass, where moving one unit from i to j costs
 * `cost[i, j]`. Exact: mass goes along the cheapest path of the residual graph until none is left. For few places.
 *
 * Ahuja, Magnanti and Orlin, Network Flows, 1993, section 9.7.
 */
export function transportCost(cost: Matrix, supply: ArrayLike<number>, demand: ArrayLike<number>): number {
  const { rows, cols } = cost;
  const left = Array.from(supply);
  const open = Array.from(demand);
  const mass = left.reduce((a, b) => a + b, 0);
  const flow = new Float64Array(rows * cols);
  let total = 0;
  for (;;) {
    const path = cheapestPath(cost, flow, left, open, NOTHING * mass);
    if (path === undefined) return total;
    const first = path[0] ?? { from: 0, to: 0, forward: true };
    const last = path.at(-1) ?? first;
    let amount = Math.min(left[first.from] ?? 0, open[last.to] ?? 0);
    for (const { from, to, forward } of path) {
      if (!forward) amount = Math.min(amount, flow[from * cols + to] ?? 0);
    }
    for (const { from, to, forward } of path) {
      const at = from * cols + to;
      flow[at] = (flow[at] ?? 0) + (forward ? amount : -amount);
      total += (forward ? amount : -amount) * (cost.data[at] ?? 0);
    }
    left[first.from] = (left[first.from] ?? 0) - amount;
    open[last.to] = (open[last.to] ?? 0) - amount;
  }
}

/** An edge from a source to a sink, along its direction or, taking flow back, against it. */
interface Edge {
  readonly from: number;
  readonly to: number;
  readonly forward: boolean;
}

/** Bellman and Ford from all sources with mass to the nearest sink with room. */
function cheapestPath(
  { rows, cols, data }: Matrix,
  flow: Float64Array,
  left: readonly number[],
  open: readonly number[],
  nothing: number,
): Edge[] | undefined {
  const toSource = left.map((mass) => (mass > nothing ? 0 : Number.POSITIVE_INFINITY));
  const toSink = open.map(() => Number.POSITIVE_INFINITY);
  const backward = new Map<number, number>(); // source -> sink it was reached from
  const forward = new Map<number, number>(); // sink -> source it was reached from
  for (let pass = 0; pass < rows + cols; pass++) {
    let changed = false;
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++) {
        const price = data[i * cols + j] ?? 0;
        const slack = 1e-12 * Math.abs(price);
        const there = (toSource[i] ?? 0) + price;
        if (there < (toSink[j] ?? 0) - slack) {
          toSink[j] = there;
          forward.set(j, i);
          changed = true;
        }
        const back = (toSink[j] ?? 0) - price;
        if ((flow[i * cols + j] ?? 0) > nothing && back < (toSource[i] ?? 0) - slack) {
          toSource[i] = back;
          backward.set(i, j);
          changed = true;
        }
      }
    }
    if (!changed) break;
  }
  let sink: number | undefined;
  for (const [j, room] of open.entries()) {
    const nearer = sink === undefined || (toSink[j] ?? 0) < (toSink[sink] ?? 0);
    if (room > nothing && Number.isFinite(toSink[j]) && nearer) sink = j;
  }
  if (sink === undefined) return undefined;
  const path: Edge[] = [];
  for (let to = sink; ; ) {
    const from = forward.get(to) ?? 0;
    path.unshift({ from, to, forward: true });
    const before = backward.get(from);
    if (before === undefined) return path;
    path.unshift({ from, to: before, forward: false });
    to = before;
  }
}
