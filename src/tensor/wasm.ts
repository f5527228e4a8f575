/** Types of values in WebAssembly. */
export const I32 = 0x7f;
export const F64 = 0x7c;
export const V128 = 0x7b;

/** A function of a module: its name, what it takes, the variables it declares, its instructions. */
export interface WasmFunction {
  readonly name: string;
  readonly parameters: readonly number[];
  readonly result?: number;
  /** Variables, counted on from the parameters. */
  readonly locals: readonly number[];
  readonly body: Code;
}

/** Instructions as bytes. */
type Code = readonly number[];

/** The instructions that the kernels use. Core specification 2.0, section 5.4. */
interface Instructions {
  get(local: number): Code;
  set(local: number): Code;
  i32(value: number): Code;
  readonly i32Add: Code;
  readonly i32LessThan: Code;
  f64Load(offset: number): Code;
  f64Store(offset: number): Code;
  readonly f64Add: Code;
  /** Two float64 from memory. */
  load(offset: number): Code;
  /** One float64 from memory, in both lanes. */
  loadBoth(offset: number): Code;
  store(offset: number): Code;
  /** One float64 in both lanes. */
  readonly both: Code;
  lane(lane: number): Code;
  readonly add: Code;
  readonly subtract: Code;
  readonly multiply: Code;
}

/** The instructions that the kernels use. */
export const code: Instructions = {
  get: (local) => [0x20, ...unsigned(local)],
  set: (local) => [0x21, ...unsigned(local)],
  i32: (value) => [0x41, ...signed(value)],
  i32Add: [0x6a],
  i32LessThan: [0x49],
  f64Load: (offset) => [0x2b, 3, ...unsigned(offset)],
  f64Store: (offset) => [0x39, 3, ...unsigned(offset)],
  f64Add: [0xa0],
  load: (offset) => [...simd(0x00), 4, ...unsigned(offset)],
  loadBoth: (offset) => [...simd(0x0a), 3, ...unsigned(offset)],
  store: (offset) => [...simd(0x0b), 4, ...unsigned(offset)],
  both: simd(0x14),
  lane: (lane) => [...simd(0x21), lane],
  add: simd(0xf0),
  subtract: simd(0xf1),
  multiply: simd(0xf2),
};

/** `local += value` */
export function advance(local: number, value: number): number[] {
  return [...code.get(local), ...code.i32(value), ...code.i32Add, ...code.set(local)];
}

/** Repeats the body while `local < end` after it, both unsigned. */
export function repeatWhileBelow(local: number, end: number, body: Code): number[] {
  return [0x03, 0x40, ...body, ...code.get(local), ...code.get(end), ...code.i32LessThan, 0x0d, 0, 0x0b];
}

/** The binary form of a module of some functions over one imported memory, `env.memory`. Core specification 2.0, section 5.5. */
export function wasmModule(functions: readonly WasmFunction[]): Uint8Array<ArrayBuffer> {
  const types = functions.map(({ parameters, result }) => [
    0x60,
    ...list(parameters.map((type) => [type])),
    ...list(result === undefined ? [] : [[result]]),
  ]);
  const bodies = functions.map(({ locals, body }) =>
    sized([...list(locals.map((type) => [1, type])), ...body, 0x0b]),
  );
  return new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list(types)),
    ...section(2, list([[...text("env"), ...text("memory"), 2, 0, 0]])),
    ...section(3, list(functions.map((_, i) => unsigned(i)))),
    ...section(7, list(functions.map(({ name }, i) => [...text(name), 0, ...unsigned(i)]))),
    ...section(10, list(bodies)),
  ]);
}

function simd(opcode: number): number[] {
  return [0xfd, ...unsigned(opcode)];
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...sized(content)];
}

function sized(content: readonly number[]): number[] {
  return [...unsigned(content.length), ...content];
}

function list(items: readonly (readonly number[])[]): number[] {
  return [...unsigned(items.length), ...items.flat()];
}

function text(name: string): number[] {
  return sized([...new TextEncoder().encode(name)]);
}

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)];
}

function signed(value: number): number[] {
  const low = value & 127;
  const rest = value >> 7;
  const last = (rest === 0 && low < 64) || (rest === -1 && low >= 64);
  return last ? [low] : [low | 128, ...signed(rest)];
}
