import { advance, code, F64, I32, repeatWhileBelow, V128, wasmModule } from "./wasm.ts";

/**
 * Vectors of one length that lie in an array: entry t of vector k is `data[k * between + t * along]`, one of the two
 * steps being 1.
 */
export interface Vectors {
  readonly data: Float32Array | Float64Array;
  readonly count: number;
  readonly length: number;
  readonly between: number;
  readonly along: number;
}

/** Vectors that lie one after the other. */
export function oneAfterTheOther(data: Float64Array, count: number, length: number): Vectors {
  return { data, count, length, between: length, along: 1 };
}

/** `out[i, j] += <x_i, y_j>`; where y is left out, the products of all x with each other. */
export function addDots(out: Float64Array, x: readonly Vectors[], y?: readonly Vectors[]): void {
  const { count: xCount } = sizes(x);
  const { count: width } = sizes(y ?? x);
  for (let row = 0; row < xCount; row += BLOCK) {
    const rows = range(x, row, Math.min(row + BLOCK, xCount));
    for (let column = 0; column < (y ? width : row + 1); column += BLOCK) {
      const square = y === undefined && row === column;
      const columns = square ? rows : range(y ?? x, column, Math.min(column + BLOCK, width));
      dotsOf(rows, square ? undefined : columns, (i, j, sum) => {
        const at = (row + i) * width + column + j;
        out[at] = out[at]! + sum;
        if (y !== undefined || row + i === column + j) return;
        const mirrored = (column + j) * width + row + i;
        out[mirrored] = out[mirrored]! + sum;
      });
    }
  }
}

/** Visits the inner products of all x with all y; of x with each other, j <= i, where y is left out. */
function dotsOf(
  x: readonly Vectors[],
  y: readonly Vectors[] | undefined,
  visit: (i: number, j: number, sum: number) => void,
): void {
  const { count: xCount, length } = sizes(x);
  const { count: yCount } = sizes(y ?? x);
  const xPanels = Math.ceil(xCount / 4);
  const yPanels = Math.ceil(yCount / 4);
  const width = 4 * yPanels;
  const { dots, reserve } = kernels();
  const xAt = 32 * xPanels * width;
  const yAt = y ? xAt + 32 * xPanels * CHUNK : xAt;
  const memory = reserve(yAt + 32 * yPanels * CHUNK);
  memory.fill(0, 0, 4 * xPanels * width);
  for (let start = 0; start < length; start += CHUNK) {
    const used = Math.min(CHUNK, length - start);
    const panel = 32 * pack(memory, xAt / 8, x, start, used); // bytes
    if (y) pack(memory, yAt / 8, y, start, used);
    for (let p = 0; p < xPanels; p++) {
      const from = xAt + p * panel;
      for (let q = 0; q < (y ? yPanels : p + 1); q++) {
        const to = 32 * p * width + 32 * q;
        dots(from, yAt + q * panel, to, 8 * width, from + panel);
        dots(from, yAt + q * panel + 32, to + 16, 8 * width, from + panel);
      }
    }
  }
  for (let i = 0; i < xCount; i++)
    for (let j = 0; j < (y ? yCount : i + 1); j++) visit(i, j, memory[i * width + j]!);
}

/** Entries [start, start + values.length) of one combination. */
export type VisitStretch = (combination: number, start: number, values: Float64Array) => void;

/** Gives the combinations `sum_k w[k, j] x_k` of the vectors x, `width` of them, stretch by stretch. */
export function combine(
  list: readonly Vectors[],
  weights: Float64Array,
  width: number,
  visit: VisitStretch,
): void {
  if (sizes(list).count === 0) return;
  for (let first = 0; first < width; first += BLOCK) {
    const last = Math.min(first + BLOCK, width);
    combineSome(list, { weights, width, first, last }, visit);
  }
}

function combineSome(
  list: readonly Vectors[],
  { weights, width, first, last }: { weights: Float64Array; width: number; first: number; last: number },
  visit: VisitStretch,
): void {
  const { count, length } = sizes(list);
  const panels = Math.ceil(count / 4);
  const outputs = Math.ceil((last - first) / 4);
  const { combine4x4, reserve } = kernels();
  const weightsAt = 32 * panels * CHUNK;
  const resultsAt = weightsAt + 128 * panels * outputs;
  const memory = reserve(resultsAt + 32 * outputs * CHUNK);
  // Weights of four outputs lie together: [output / 4][k][output % 4].
  memory.fill(0, weightsAt / 8, resultsAt / 8);
  for (let k = 0; k < count; k++) {
    for (let j = 0; j < last - first; j++) {
      memory[weightsAt / 8 + (j >> 2) * 16 * panels + 4 * k + (j & 3)] = weights[k * width + first + j]!;
    }
  }
  for (let start = 0; start < length; start += CHUNK) {
    const used = Math.min(CHUNK, length - start);
    const padded = pack(memory, 0, list, start, used);
    for (let group = 0; group < outputs; group++) {
      const from = weightsAt + 128 * panels * group;
      const to = resultsAt + 32 * CHUNK * group;
      for (let t = 0; t < padded; t += 4)
        combine4x4(32 * t, from, to + 8 * t, 32 * padded, from + 128 * panels);
    }
    for (let j = first; j < last; j++) {
      const at = resultsAt / 8 + (j - first) * CHUNK;
      visit(j, start, memory.subarray(at, at + used));
    }
  }
}

/** Rows in the memory of the kernels that `rotate` and `dot` work on. */
export interface Rotor {
  /** The rows, each `width` long: a number of rows that is even, and zeros behind their end. */
  readonly rows: Float64Array;
  readonly width: number;
  /** The inner product of two rows. */
  dot(p: number, q: number): number;
  /** Row p becomes `cos * p - sin * q`, row q `sin * p + cos * q`. */
  rotate(p: number, q: number, cos: number, sin: number): void;
}

/** Room for `count` rows of zeros; it is lost with the next call of any kernel. */
export function rotor(count: number, length: number): Rotor {
  const width = 4 * Math.ceil(length / 4);
  const { dot, rotate, reserve } = kernels();
  const rows = reserve(8 * count * width).subarray(0, count * width);
  rows.fill(0);
  const bytes = 8 * width;
  return {
    rows,
    width,
    dot: (p, q) => dot(p * bytes, q * bytes, (p + 1) * bytes),
    rotate: (p, q, cos, sin) => rotate(p * bytes, q * bytes, (p + 1) * bytes, cos, sin),
  };
}

/** Entries of a vector per pass: four panels of them stay in the first-level cache, some hundred vectors in the second. */
const CHUNK = 256;

/** Vectors that are worked on together, so that the memory of the kernels stays small. */
const BLOCK = 512;

/** The vectors [from, to) of the list. */
function range(list: readonly Vectors[], from: number, to: number): Vectors[] {
  let before = 0;
  return list.flatMap((vectors) => {
    const start = Math.max(from - before, 0);
    const end = Math.min(to - before, vectors.count);
    before += vectors.count;
    if (start >= end) return [];
    return { ...vectors, data: vectors.data.subarray(start * vectors.between), count: end - start };
  });
}

function sizes(list: readonly Vectors[]): { readonly count: number; readonly length: number } {
  const length = list[0]?.length ?? 0;
  const other = list.find((vectors) => vectors.length !== length);
  if (other) throw new RangeError(`kernels: vectors of lengths ${length} and ${other.length}`);
  return { count: list.reduce((sum, { count }) => sum + count, 0), length };
}

/**
 * Packs entries [start, start + used) of all vectors as panels of four: two entries of the first vector, two of the
 * second, third and fourth, then the next two. Ends are filled with zeros. Gives the number of entries with filling.
 */
function pack(
  memory: Float64Array,
  at: number,
  list: readonly Vectors[],
  start: number,
  used: number,
): number {
  const padded = 4 * Math.ceil(used / 4);
  let index = 0;
  for (const { data, count, between, along } of list) {
    for (let k = 0; k < count; ) {
      const to = at + (index >> 2) * 4 * padded + (index & 3) * 2;
      const from = k * between + start * along;
      const together = index % 4 === 0 && k + 4 <= count ? 4 : 1;
      if (together === 4) packFour(memory, to, data, from, between, along, used);
      else packOne(memory, to, data, from, along, used);
      for (let v = 0; v < together; v++)
        for (let t = used; t < padded; t++) memory[to + 2 * v + (t >> 1) * 8 + (t & 1)] = 0;
      index += together;
      k += together;
    }
  }
  for (; index % 4 !== 0; index++) {
    const to = at + (index >> 2) * 4 * padded + (index & 3) * 2;
    for (let t = 0; t < padded; t++) memory[to + (t >> 1) * 8 + (t & 1)] = 0;
  }
  return padded;
}

function packOne(
  memory: Float64Array,
  to: number,
  data: Vectors["data"],
  from: number,
  along: number,
  used: number,
): void {
  for (let t = 0; t < used; t++) memory[to + (t >> 1) * 8 + (t & 1)] = data[from + t * along]!;
}

function packFour(
  memory: Float64Array,
  to: number,
  data: Vectors["data"],
  from: number,
  between: number,
  along: number,
  used: number,
): void {
  const even = used - (used % 2);
  let place = to;
  let a = from;
  for (let t = 0; t < even; t += 2, place += 8, a += 2 * along) {
    const b = a + between;
    const c = b + between;
    const d = c + between;
    memory[place] = data[a]!;
    memory[place + 1] = data[a + along]!;
    memory[place + 2] = data[b]!;
    memory[place + 3] = data[b + along]!;
    memory[place + 4] = data[c]!;
    memory[place + 5] = data[c + along]!;
    memory[place + 6] = data[d]!;
    memory[place + 7] = data[d + along]!;
  }
  if (even < used) for (let v = 0; v < 4; v++) memory[place + 2 * v] = data[a + v * between]!;
}

interface Kernels {
  /** The memory with room for so many bytes. */
  reserve(bytes: number): Float64Array;
  /** Adds 4 x 2 inner products of a panel of four and half a panel to out; `end` is that of the first panel. */
  dots(x: number, y: number, out: number, width: number, end: number): void;
  /** Four entries of four combinations: panels from x on, `panel` bytes apart, times their weights up to `end`. */
  combine4x4(x: number, weights: number, out: number, panel: number, end: number): void;
  dot(x: number, y: number, end: number): number;
  rotate(x: number, y: number, end: number, cos: number, sin: number): void;
}

let instance: Kernels | undefined;

/** The kernels, made at their first use. Sums of pairs of float64 lanes are the same bits on every machine. */
function kernels(): Kernels {
  instance ??= instantiate();
  return instance;
}

function instantiate(): Kernels {
  const memory = new WebAssembly.Memory({ initial: 0 });
  const module = new WebAssembly.Module(wasmModule([dotsKernel, combineKernel, dotKernel, rotateKernel]));
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  let view = new Float64Array(memory.buffer);
  return {
    ...(exports as Pick<Kernels, "dots" | "combine4x4" | "dot" | "rotate"> & WebAssembly.Exports),
    reserve(bytes) {
      if (bytes > 8 * view.length) {
        memory.grow(Math.ceil((bytes - 8 * view.length) / 65536));
        view = new Float64Array(memory.buffer);
      }
      return view;
    },
  };
}

const { get, set, i32Add, load, loadBoth, store, add, subtract, multiply } = code;
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Parameters x, y, out, width, end; s_ij from local 5 on, then y_0, y_1 and x_i. */
const dotsKernel = {
  name: "dots",
  parameters: [I32, I32, I32, I32, I32],
  locals: upTo(11).map(() => V128),
  body: [
    ...repeatWhileBelow(0, 4, [
      ...[0, 64].flatMap((pair) => [
        ...[...get(1), ...load(pair), ...set(13), ...get(1), ...load(pair + 16), ...set(14)],
        ...upTo(4).flatMap((i) => [
          ...[...get(0), ...load(pair + 16 * i), ...set(15)],
          ...upTo(2).flatMap((j) => {
            const sum = 5 + 2 * i + j;
            return [...get(sum), ...get(15), ...get(13 + j), ...multiply, ...add, ...set(sum)];
          }),
        ]),
      ]),
      ...advance(1, 128),
      ...advance(0, 128),
    ]),
    ...upTo(4).flatMap((i) => [
      ...upTo(2).flatMap((j) => {
        const sum = get(5 + 2 * i + j);
        const both = [...sum, ...code.lane(0), ...sum, ...code.lane(1), ...code.f64Add];
        return [
          ...get(2),
          ...get(2),
          ...code.f64Load(8 * j),
          ...both,
          ...code.f64Add,
          ...code.f64Store(8 * j),
        ];
      }),
      ...[...get(2), ...get(3), ...i32Add, ...set(2)],
    ]),
  ],
};

/** Parameters x, weights, out, panel, end; sums of output j and pair i in local 5 + 2 j + i, then x_k and a weight. */
const combineKernel = {
  name: "combine4x4",
  parameters: [I32, I32, I32, I32, I32],
  locals: upTo(11).map(() => V128),
  body: [
    ...repeatWhileBelow(1, 4, [
      ...upTo(4).flatMap((k) => [
        ...[...get(0), ...load(16 * k), ...set(13), ...get(0), ...load(64 + 16 * k), ...set(14)],
        ...upTo(4).flatMap((j) => [
          ...[...get(1), ...loadBoth(32 * k + 8 * j), ...set(15)],
          ...upTo(2).flatMap((i) => {
            const sum = 5 + 2 * j + i;
            return [...get(sum), ...get(15), ...get(13 + i), ...multiply, ...add, ...set(sum)];
          }),
        ]),
      ]),
      ...[...get(0), ...get(3), ...i32Add, ...set(0)],
      ...advance(1, 128),
    ]),
    ...upTo(4).flatMap((j) =>
      upTo(2).flatMap((i) => [...get(2), ...get(5 + 2 * j + i), ...store(8 * CHUNK * j + 16 * i)]),
    ),
  ],
};

/** Parameters x, y, end; two sums. */
const dotKernel = {
  name: "dot",
  parameters: [I32, I32, I32],
  result: F64,
  locals: [V128, V128],
  body: [
    ...repeatWhileBelow(0, 2, [
      ...upTo(2).flatMap((i) => [
        ...[...get(3 + i), ...get(0), ...load(16 * i), ...get(1), ...load(16 * i)],
        ...[...multiply, ...add, ...set(3 + i)],
      ]),
      ...advance(1, 32),
      ...advance(0, 32),
    ]),
    ...[...get(3), ...get(4), ...add, ...set(3)],
    ...[...get(3), ...code.lane(0), ...get(3), ...code.lane(1), ...code.f64Add],
  ],
};

/** Parameters x, y, end, cos, sin; cos and sin in both lanes, then a and b. */
const rotateKernel = {
  name: "rotate",
  parameters: [I32, I32, I32, F64, F64],
  locals: upTo(4).map(() => V128),
  body: [
    ...[...get(3), ...code.both, ...set(5), ...get(4), ...code.both, ...set(6)],
    ...repeatWhileBelow(0, 2, [
      ...[0, 16].flatMap((offset) => [
        ...[...get(0), ...load(offset), ...set(7), ...get(1), ...load(offset), ...set(8)],
        ...[...get(0), ...get(5), ...get(7), ...multiply, ...get(6), ...get(8), ...multiply],
        ...[...subtract, ...store(offset)],
        ...[...get(1), ...get(6), ...get(7), ...multiply, ...get(5), ...get(8), ...multiply],
        ...[...add, ...store(offset)],
      ]),
      ...advance(1, 32),
      ...advance(0, 32),
    ]),
  ],
};
