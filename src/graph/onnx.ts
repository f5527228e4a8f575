import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { convert } from "../tensor/convert.ts";
import type { DType } from "../tensor/dtype.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import { type Activations, BLOCK } from "./ops/blocks.ts";
import { packedBlocks } from "./packed-blocks.ts";
import { type Dim, factorsOf, type Shape, timesDim } from "./shape.ts";
import { constantKey, inputsOf, type Node, type OpType, topological, type Value } from "./value.ts";

/**
 * ONNX serialization (https://onnx.ai/onnx/intro/concepts.html; field numbers of onnx.proto3). Opset 20 of ai.onnx for
 * Gelu, and com.microsoft 1 for the fused ops that ONNX Runtime carries on every target.
 */
const IR_VERSION = 9;
const OPSET = 20;
const FUSED = "com.microsoft";
/** Operators of later opsets, and the IR version that these ask for. */
const LATER = {
  blockedDequantizeLinear: { opset: 21, ir: 10 },
  bitCast: { opset: 26, ir: 13 },
} as const;

const elementTypes: { readonly [K in DType]: number } = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
  bfloat16: 4, // JavaScript's tensors of ONNX Runtime have no bfloat16: its bits travel as uint16
  float8e4m3: 17,
  float8e5m2: 19,
};
const BFLOAT16 = 16;

/** Ops that move elements and do not look into them. */
const moving: ReadonlySet<OpType> = new Set<OpType>([
  ...(["Identity", "Reshape", "Transpose", "Slice", "Concat", "Expand", "Gather", "After"] as const),
]);

type Attribute =
  | { readonly float: number }
  | { readonly int: number }
  | { readonly ints: readonly number[] }
  | { readonly text: string }
  | { readonly tensor: Tensor };

interface OnnxNode {
  readonly op: string;
  readonly domain?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

/** What an op becomes: an operator of the same name unless stated here. */
interface Lowering {
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

class Emitter {
  readonly nodes: OnnxNode[] = [];
  readonly constants = new Map<string | Tensor, { name: string; value: Tensor }>();
  readonly #names = new Map<Value, string>();
  readonly #symbols: ReadonlyMap<string, { input: string; axis: number }>;
  readonly #dims = new Map<Dim, string>();
  readonly #targets = new Map<string, string>();
  readonly #sums = new Map<string, string>();
  readonly #taken = new Set<string>();
  #count = 0;
  #opset = OPSET;
  #ir = IR_VERSION;

  /** `taken` are the names of outputs. */
  constructor(inputs: Iterable<Value>, taken: Iterable<string>) {
    for (const name of taken) this.#taken.add(name);
    const symbols = new Map<string, { input: string; axis: number }>();
    for (const { name, shape } of inputs) {
      if (name !== undefined) this.#taken.add(name);
      shape.forEach((dim, axis) => {
        if (name !== undefined && typeof dim === "string" && !symbols.has(dim))
          symbols.set(dim, { input: name, axis });
      });
    }
    this.#symbols = symbols;
  }

  get version(): { readonly opset: number; readonly ir: number } {
    return { opset: this.#opset, ir: this.#ir };
  }

  /** Asks for the opset of a later operator. */
  needs({ opset, ir }: { readonly opset: number; readonly ir: number }): void {
    this.#opset = Math.max(this.#opset, opset);
    this.#ir = Math.max(this.#ir, ir);
  }

  fresh(): string {
    let name = `v${this.#count++}`;
    while (this.#taken.has(name)) name = `v${this.#count++}`;
    return name;
  }

  /** Every value that has been given a name in the graph. */
  get named(): ReadonlyMap<Value, string> {
    return this.#names;
  }

  /** Gives a computed value the name of an output; false if it has one already, or is an input or a constant. */
  claim(value: Value, name: string): boolean {
    if (!value.node || this.#names.has(value)) return false;
    this.#names.set(value, name);
    return true;
  }

  name(value: Value): string {
    if (value.name !== undefined) return value.name;
    if (value.constant) return this.constantName(value.constant);
    const known = this.#names.get(value) ?? this.fresh();
    this.#names.set(value, known);
    return known;
  }

  constantName(value: Tensor): string {
    const key = constantKey(value) ?? value;
    const known = this.constants.get(key) ?? { name: this.fresh(), value };
    this.constants.set(key, known);
    return known.name;
  }

  ints(values: readonly number[]): string {
    return this.constantName(tensor("int64", [values.length], BigInt64Array.from(values, BigInt)));
  }

  emit(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    outputs = [this.fresh()],
    domain = "",
  ): string {
    this.nodes.push({ op, inputs, outputs, attributes, domain });
    return outputs[0] ?? "";
  }

  /** A dimension as an int64 vector of length 1, read from a graph input where it is symbolic. */
  dim(dim: Dim): string {
    const known = this.#dims.get(dim);
    if (known !== undefined) return known;
    const { coefficient, symbols } = factorsOf(dim);
    let name = symbols.length === 0 || coefficient !== 1 ? this.ints([coefficient]) : undefined;
    for (const symbol of symbols) {
      const source = this.#symbols.get(symbol);
      if (!source) throw new Error(`onnx: no graph input has the dimension "${symbol}"`);
      const shape = this.emit("Shape", [source.input], {
        start: { int: source.axis },
        end: { int: source.axis + 1 },
      });
      name = name === undefined ? shape : this.emit("Mul", [name, shape]);
    }
    if (name === undefined) throw new Error(`onnx: dimension "${dim}" has no factors`);
    this.#dims.set(dim, name);
    return name;
  }

  /** A shape as an int64 vector. */
  shape(shape: Shape): string {
    const known = shape.every((dim) => typeof dim === "number");
    if (known) return this.ints(shape.map(Number));
    return this.emit(
      "Concat",
      shape.map((dim) => this.dim(dim)),
      { axis: { int: 0 } },
    );
  }

  /**
   * A Reshape, whose target copies the dimension at the same place where it says 0, and infers one -1. A target that is
   * computed says 0 where there is nothing.
   */
  reshape(x: string, from: Shape, to: Shape, outputs: string[]): void {
    const plan = to.map((dim, i) => (typeof dim === "number" ? dim : from[i] === dim ? 0 : -1));
    if (plan.includes(0) && to.some((dim) => dim === 0))
      throw new RangeError("onnx: Reshape of an empty tensor");
    if (plan.filter((dim) => dim === -1).length <= 1) this.emit("Reshape", [x, this.ints(plan)], {}, outputs);
    else this.emit("Reshape", [x, this.shape(to)], { allowzero: { int: 1 } }, outputs);
  }

  /** The target `[-1, 0, ...]` of a Reshape that keeps its shape, known once `cause` is: no length is below 0. */
  targetAfter(cause: string, axis: number, rank: number): string {
    const shared = (key: string, make: () => string): string => {
      const known = this.#targets.get(key) ?? make();
      this.#targets.set(key, known);
      return known;
    };
    const length = shared(`${axis} ${cause}`, () =>
      axis < 0
        ? this.neverNegative(cause)
        : this.emit("Shape", [cause], { start: { int: axis }, end: { int: axis + 1 } }),
    );
    const kept = Array.from({ length: rank }, (_, i) => (i === 0 ? -1 : 0));
    return shared(`${rank} of ${length}`, () => this.emit("Min", [length, this.ints(kept)]));
  }

  /** An integer vector of length 1 that is at least 0, known once `value` is. */
  neverNegative(value: string): string {
    const flat = this.emit("Reshape", [value, this.ints([-1])]);
    const element = this.emit("Slice", [flat, this.ints([0]), this.ints([1]), this.ints([0])]);
    const whole = this.emit("Cast", [element], { to: { int: elementTypes.int64 } });
    return this.emit("Max", [whole, this.ints([0])]);
  }

  /** The sums of `x` over blocks, where its last axis is split as `shape` says. */
  blockSums(x: string, shape: Shape): string {
    const known = this.#sums.get(x);
    if (known !== undefined) return known;
    const apart = this.emit("Reshape", [x, this.shape(shape)]);
    const sums = this.emit("ReduceSum", [apart, this.ints([-1])], { keepdims: { int: 0 } });
    this.#sums.set(x, sums);
    return sums;
  }

  scalarDim(dim: Dim): string {
    return this.emit("Squeeze", [this.dim(dim), this.ints([0])]);
  }
}

const flag = (value: boolean): Attribute => ({ int: value ? 1 : 0 });

function lowerMatMul(e: Emitter, node: Node<"MatMul">, names: readonly string[], outputs: string[]): void {
  const { transA, transB, alpha } = node.attributes;
  const [a, b] = node.inputs;
  const [x = "", y = ""] = names;
  if (!a || !b) throw new Error("onnx: MatMul without operands");
  const plain = !transA && !transB && alpha === 1;
  if (plain) e.emit("MatMul", [x, y], {}, outputs);
  else if (a.shape.length === 2 && b.shape.length === 2 && (alpha === 1 || a.dtype === "float32")) {
    e.emit("Gemm", [x, y], { transA: flag(transA), transB: flag(transB), alpha: { float: alpha } }, outputs);
  } else if (a.dtype === "float32") {
    const attributes = { transA: flag(transA), transB: flag(transB), alpha: { float: alpha } };
    e.emit("FusedMatMul", [x, y], attributes, outputs, FUSED);
  } else {
    // The alpha of FusedMatMul and Gemm is a float32.
    const swapped = (name: string, rank: number): string =>
      e.emit("Transpose", [name], { perm: { ints: [...Array(rank - 2).keys(), rank - 1, rank - 2] } });
    const left = transA ? swapped(x, a.shape.length) : x;
    const right = transB ? swapped(y, b.shape.length) : y;
    if (alpha === 1) e.emit("MatMul", [left, right], {}, outputs);
    else {
      // ONNX Runtime fuses a scalar factor into the product, as a float32; a reshape between them keeps its digits.
      const factor = e.constantName(convert(tensor("float64", [], Float64Array.of(alpha)), a.dtype));
      const flat = e.emit("Reshape", [e.emit("MatMul", [left, right]), e.ints([-1])]);
      const scaled = e.emit("Mul", [flat, factor]);
      e.emit("Reshape", [scaled, e.shape(node.outputs[0]?.shape ?? [])], {}, outputs);
    }
  }
}

/** bfloat16 is the upper half of a float32, whose bits are held as uint16. */
function lowerCast(e: Emitter, node: Node<"Cast">, [x = ""]: readonly string[], outputs: string[]): void {
  const { to } = node.attributes;
  const from = node.inputs[0]?.dtype;
  if (from === "bfloat16" || to === "bfloat16") e.needs(LATER.bitCast);
  const source = from === "bfloat16" ? e.emit("BitCast", [x], { to: { int: BFLOAT16 } }) : x;
  if (to === "bfloat16") {
    const narrow = e.emit("Cast", [source], { to: { int: BFLOAT16 } });
    e.emit("BitCast", [narrow], { to: { int: elementTypes.uint16 } }, outputs);
  } else e.emit("Cast", [source], { to: { int: elementTypes[to] } }, outputs);
}

/**
 * A Reshape to the shape that is there, which moves nothing. The cause's symbolic dimension is read, or an element of it where
 * all are known: known dimensions are folded.
 */
function lowerAfter(
  e: Emitter,
  { inputs: [x, cause] }: Node<"After">,
  [source = "", trigger = ""]: readonly string[],
  outputs: string[],
): void {
  const axis = cause?.shape.findIndex((dim) => typeof dim === "string") ?? -1;
  if (cause?.constant !== undefined || x === undefined || x.shape.length === 0) {
    e.emit("Identity", [source], {}, outputs);
    return;
  }
  const target = e.targetAfter(trigger, axis, x.shape.length);
  e.emit("Reshape", [source, target], {}, outputs);
}

/** `scale * level` of the even or odd columns [out, in / 2]; each block has 16 of them. */
function lowerHalf(
  e: Emitter,
  half: "even" | "odd",
  { levels, scales, blocks }: NamedBlocks,
  outputs?: string[],
): string {
  e.needs(LATER.blockedDequantizeLinear);
  const byte = (value: number): string => e.constantName(tensor("uint8", [], Uint8Array.of(value)));
  const nibbles =
    half === "even"
      ? e.emit("BitwiseAnd", [levels, byte(15)])
      : e.emit("BitShift", [levels, byte(4)], { direction: { text: "RIGHT" } });
  const rows = e.emit("Reshape", [nibbles, e.ints([-1, (blocks * BLOCK) / 2])]);
  const attributes = { axis: { int: 1 }, block_size: { int: BLOCK / 2 } };
  return e.emit("DequantizeLinear", [rows, scales], attributes, outputs);
}

/** A matrix in blocks by the names of its parts, and its blocks of a row. */
interface NamedBlocks {
  readonly levels: string;
  readonly scales: string;
  readonly blocks: number;
}

function lowerDequantizeBlocks(
  e: Emitter,
  { inputs: [, scaled] }: Node<"DequantizeBlocks">,
  [levels = "", scales = "", offsets]: readonly string[],
  outputs: string[],
): void {
  const [out = 0, count] = scaled?.shape ?? [];
  const blocks = Number(count);
  if (offsets === undefined) {
    e.needs(LATER.blockedDequantizeLinear);
    const middle = { value: { tensor: tensor("uint8", [1], Uint8Array.of(128)) } };
    const zeros = e.emit("ConstantOfShape", [e.shape([out, blocks, 1])], middle);
    const factors = e.emit("Unsqueeze", [scales, e.ints([-1])]);
    const attributes = { axis: { int: 2 }, block_size: { int: BLOCK } };
    const numbers = e.emit("DequantizeLinear", [levels, factors, zeros], attributes);
    e.emit("Reshape", [numbers, e.ints([-1, BLOCK * blocks])], {}, outputs);
    return;
  }
  const halves = (["even", "odd"] as const).map((half) =>
    e.emit("Unsqueeze", [lowerHalf(e, half, { levels, scales, blocks }), e.ints([-1])]),
  );
  const pairs = e.emit("Concat", halves, { axis: { int: 2 } });
  const rows = e.emit("Reshape", [pairs, e.shape([out, blocks, BLOCK])]);
  const numbers = e.emit("Sub", [rows, e.emit("Unsqueeze", [offsets, e.ints([-1])])]);
  e.emit("Reshape", [numbers, e.shape([out, BLOCK * blocks])], {}, outputs);
}

/** How ONNX Runtime rounds the rows of a product with blocks that it packed. */
const accuracyLevels: { readonly [K in Activations]: number } = { float32: 1, int8: 4 };

function lowerMatMulNBits(
  e: Emitter,
  { attributes: { activations }, inputs: [x, levels, scales, offsets] }: Node<"MatMulNBits">,
  [rows = "", fedLevels = "", fedScales = "", fedOffsets = ""]: readonly string[],
  outputs: string[],
): void {
  const [out, blocks] = [Number(scales?.shape[0]), Number(scales?.shape[1])];
  const attributes = {
    K: { int: BLOCK * blocks },
    N: { int: out },
    bits: { int: offsets ? 4 : 8 },
    block_size: { int: BLOCK },
  };
  if (!levels?.constant || !scales?.constant || (offsets && !offsets.constant)) {
    // Levels that are fed are dequantized at each product; there the zero of a block may be any number of levels.
    const zeros = e.emit("Div", [fedOffsets, fedScales]);
    e.emit("MatMulNBits", [rows, fedLevels, fedScales, zeros], attributes, outputs, FUSED);
    return;
  }
  const packed = packedBlocks(levels.constant, scales.constant, offsets?.constant);
  const product = e.emit(
    "MatMulNBits",
    [rows, e.constantName(packed.levels), e.constantName(packed.scales)],
    { ...attributes, accuracy_level: { int: accuracyLevels[activations] } },
    packed.rest ? undefined : outputs,
    FUSED,
  );
  if (!packed.rest) return;
  const sums = e.blockSums(rows, [...(x?.shape.slice(0, -1) ?? []), blocks, BLOCK]);
  e.emit("Add", [product, e.emit("MatMul", [sums, e.constantName(packed.rest)])], {}, outputs);
}

type Special = {
  readonly [K in OpType]?: (e: Emitter, node: Node<K>, names: readonly string[], outputs: string[]) => void;
};

const reduction =
  (op: "ReduceSum" | "ReduceMean" | "ReduceMax") =>
  (
    e: Emitter,
    node: Node<"ReduceSum" | "ReduceMean" | "ReduceMax">,
    [x = ""]: readonly string[],
    outputs: string[],
  ): void => {
    const { axes, keepDims } = node.attributes;
    e.emit(op, [x, e.ints(axes)], { keepdims: flag(keepDims) }, outputs);
  };

/** Ops whose operands or attributes take another form in ONNX. */
const special: Special = {
  MatMul: lowerMatMul,
  Gemm: (e, _, names, outputs) => e.emit("Gemm", names, { transB: { int: 1 } }, outputs),
  Reshape: (e, node, [x = ""], outputs) =>
    e.reshape(x, node.inputs[0]?.shape ?? [], node.attributes.shape, outputs),
  Slice: (e, { attributes: { axis, start, end } }, [x = ""], outputs) =>
    e.emit("Slice", [x, e.ints([start]), e.ints([end]), e.ints([axis])], {}, outputs),
  Split: (e, { attributes: { axis, lengths } }, [x = ""], outputs) =>
    e.emit("Split", [x, e.shape(lengths)], { axis: { int: axis } }, outputs),
  Expand: (e, node, [x = ""], outputs) => e.emit("Expand", [x, e.shape(node.attributes.shape)], {}, outputs),
  Fill: (e, { attributes: { shape, value, dtype } }, _, outputs) => {
    const element = convert(tensor("float64", [1], Float64Array.of(value)), dtype);
    e.emit("ConstantOfShape", [e.shape(shape)], { value: { tensor: element } }, outputs);
  },
  DimSize: (e, node, _, outputs) => e.emit("Squeeze", [e.dim(node.attributes.dim), e.ints([0])], {}, outputs),
  Range: (e, node, _, outputs) => {
    const [zero, one] = [0n, 1n].map((n) => e.constantName(tensor("int64", [], BigInt64Array.of(n))));
    e.emit("Range", [zero ?? "", e.scalarDim(node.attributes.dim), one ?? ""], {}, outputs);
  },
  ReduceSum: reduction("ReduceSum"),
  ReduceMean: reduction("ReduceMean"),
  ReduceMax: reduction("ReduceMax"),
  ArgMax: (e, node, names, outputs) =>
    e.emit("ArgMax", names, { axis: { int: node.attributes.axis }, keepdims: { int: 0 } }, outputs),
  Cast: lowerCast,
  After: lowerAfter,
  DequantizeBlocks: lowerDequantizeBlocks,
  DequantizeHalf: (e, { attributes: { half }, inputs: [, scaled] }, [levels = "", scales = ""], outputs) => {
    lowerHalf(e, half, { levels, scales, blocks: Number(scaled?.shape[1]) }, outputs);
  },
  MatMulNBits: lowerMatMulNBits,
  // ScatterND of ONNX Runtime splits the rows over threads and loses sums where an index repeats; ScatterElements does not.
  ScatterND: (e, { inputs: [, indices, updates] }, [x = "", at = "", rows = ""], outputs) => {
    const lead = timesDim(...(updates?.shape.slice(0, -1) ?? []));
    const matrix = (name: string, value: Value | undefined): string =>
      value?.shape.length === 2 ? name : e.emit("Reshape", [name, e.shape([lead, value?.shape.at(-1) ?? 1])]);
    const flat = matrix(rows, updates);
    const places = e.emit("Expand", [matrix(at, indices), e.emit("Shape", [flat])]);
    e.emit("ScatterElements", [x, places, flat], { axis: { int: 0 }, reduction: { text: "add" } }, outputs);
  },
  ScatterElements: (e, node, names, outputs) =>
    e.emit(
      "ScatterElements",
      names,
      { axis: { int: node.attributes.axis }, reduction: { text: "add" } },
      outputs,
    ),
};

/** Operators with another domain or plain attributes. */
function lowering(node: Node): Lowering {
  switch (node.op) {
    case "Gelu":
      return { attributes: { approximate: { text: (node as Node<"Gelu">).attributes.approximate } } };
    case "QuickGelu":
      return {
        domain: FUSED,
        attributes: { alpha: { float: (node as Node<"QuickGelu">).attributes.alpha } },
      };
    case "LayerNormalization":
    case "SimplifiedLayerNormalization":
      return {
        attributes: {
          axis: { int: -1 },
          epsilon: { float: (node as Node<"LayerNormalization">).attributes.epsilon },
        },
      };
    case "Softmax":
    case "LogSoftmax":
      return { attributes: { axis: { int: -1 } } };
    case "RotaryEmbedding":
      return { domain: FUSED };
    case "Transpose":
      return { attributes: { perm: { ints: (node as Node<"Transpose">).attributes.perm } } };
    case "Concat":
    case "Gather":
    case "GatherElements":
      return { attributes: { axis: { int: (node as Node<"Gather">).attributes.axis } } };
    default:
      return {};
  }
}

function emitNode<K extends OpType>(e: Emitter, node: Node<K>): void {
  if (node.op !== "Cast" && !moving.has(node.op) && node.inputs.some(({ dtype }) => dtype === "bfloat16"))
    throw new TypeError(`onnx: ${node.op} of bfloat16; cast it to float32 first`);
  const names = node.inputs.map((value) => e.name(value));
  const outputs = node.outputs.map((value) => e.name(value));
  const lower = special[node.op] as
    | ((e: Emitter, node: Node<K>, names: readonly string[], outputs: string[]) => void)
    | undefined;
  if (lower) lower(e, node, names, outputs);
  else {
    const { domain = "", attributes = {} } = lowering(node as Node);
    e.emit(node.op, names, attributes, outputs, domain);
  }
}

function bytesOf(value: Tensor): Uint8Array {
  return new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.byteLength);
}

/** Nested message `field` of `w`. */
function message(w: BinaryWriter, field: number, write: () => void): void {
  w.tag(field, WireType.LengthDelimited).fork();
  write();
  w.join();
}

const text = (w: BinaryWriter, field: number, value: string): BinaryWriter =>
  w.tag(field, WireType.LengthDelimited).string(value);
const int = (w: BinaryWriter, field: number, value: number): BinaryWriter =>
  w.tag(field, WireType.Varint).int64(value);

/** Bytes from which on a constant is large: a message of protobuf has room for 2 GB, and a runtime that reads one copies it. */
const LARGE = 1024;
const EXTERNAL = 1;

/** A constant that is left out of the graph, under its name. */
function writePlace(w: BinaryWriter, name: string, { shape, dtype, data }: Tensor): void {
  for (const dim of shape) int(w, 1, dim);
  int(w, 2, elementTypes[dtype]);
  text(w, 8, name);
  const place = { location: name, offset: "0", length: String(data.byteLength) };
  for (const [key, entry] of Object.entries(place)) {
    message(w, 13, () => {
      text(w, 1, key);
      text(w, 2, entry);
    });
  }
  int(w, 14, EXTERNAL);
}

function writeTensor(w: BinaryWriter, name: string, value: Tensor): void {
  for (const dim of value.shape) int(w, 1, dim);
  int(w, 2, elementTypes[value.dtype]);
  text(w, 8, name);
  w.tag(9, WireType.LengthDelimited).bytes(bytesOf(value));
}

function writeAttribute(w: BinaryWriter, name: string, attribute: Attribute): void {
  text(w, 1, name);
  if ("float" in attribute) {
    w.tag(2, WireType.Bit32).float(attribute.float);
    int(w, 20, 1);
  } else if ("int" in attribute) {
    int(w, 3, attribute.int);
    int(w, 20, 2);
  } else if ("text" in attribute) {
    text(w, 4, attribute.text);
    int(w, 20, 3);
  } else if ("tensor" in attribute) {
    message(w, 5, () => writeTensor(w, "", attribute.tensor));
    int(w, 20, 4);
  } else {
    for (const value of attribute.ints) int(w, 8, value);
    int(w, 20, 7);
  }
}

function writeNode(w: BinaryWriter, node: OnnxNode): void {
  for (const name of node.inputs) text(w, 1, name);
  for (const name of node.outputs) text(w, 2, name);
  text(w, 4, node.op);
  for (const [name, attribute] of Object.entries(node.attributes ?? {})) {
    message(w, 5, () => writeAttribute(w, name, attribute));
  }
  if (node.domain) text(w, 7, node.domain);
}

function writeValueInfo(w: BinaryWriter, name: string, value: Value): void {
  text(w, 1, name);
  message(w, 2, () =>
    message(w, 1, () => {
      int(w, 1, elementTypes[value.dtype]);
      message(w, 2, () => {
        for (const dim of value.shape) {
          message(w, 1, () => (typeof dim === "number" ? int(w, 1, dim) : text(w, 2, dim)));
        }
      });
    }),
  );
}

/** A graph as it is sent to a runtime: named outputs. Inputs are the named values they depend on. */
export interface Graph {
  readonly outputs: ReadonlyMap<string, Value>;
}

/** ONNX bytes, and the large constants that they name. */
export interface EncodedGraph {
  readonly graph: Uint8Array<ArrayBuffer>;
  /** Bytes of constants by the place that the graph gives for them. */
  readonly constants: ReadonlyMap<string, Uint8Array>;
}

/**
 * ONNX bytes of a graph. Symbolic dimensions stay symbolic, so that one session serves all batch sizes and lengths.
 * Throws where a symbol of a shape is not a dimension of any input.
 */
export function encodeOnnx(graph: Graph): Uint8Array<ArrayBuffer> {
  return encodeApart(graph, () => false).graph;
}

/** ONNX bytes of a graph, and its large constants apart. */
export function encodeWithConstants(graph: Graph): EncodedGraph {
  return encodeApart(graph, ({ data }) => data.byteLength > LARGE);
}

function encodeApart({ outputs }: Graph, isApart: (constant: Tensor) => boolean): EncodedGraph {
  const inputs = inputsOf([...outputs.values()]);
  const e = new Emitter(inputs.values(), outputs.keys());
  for (const name of outputs.keys()) {
    if (inputs.has(name)) throw new RangeError(`onnx: "${name}" names an input and an output; rename one`);
  }
  const copies = [...outputs].filter(([name, value]) => !e.claim(value, name));
  for (const node of topological([...outputs.values()])) emitNode(e, node);
  for (const [name, value] of copies) e.emit("Identity", [e.name(value)], {}, [name]);
  const w = new BinaryWriter();
  int(w, 1, e.version.ir);
  text(w, 2, "tributary");
  message(w, 7, () => {
    for (const node of e.nodes) message(w, 1, () => writeNode(w, node));
    text(w, 2, "tributary");
    for (const { name, value } of e.constants.values()) {
      const write = isApart(value) ? writePlace : writeTensor;
      message(w, 5, () => write(w, name, value));
    }
    for (const [name, value] of inputs) message(w, 11, () => writeValueInfo(w, name, value));
    for (const [name, value] of outputs) message(w, 12, () => writeValueInfo(w, name, value));
    // ONNX Runtime reuses the memory of values whose shapes it knows to be equal, and searches long for that of others.
    for (const [value, name] of e.named) {
      if (!outputs.has(name)) message(w, 13, () => writeValueInfo(w, name, value));
    }
  });
  for (const [domain, version] of [
    ["", e.version.opset],
    [FUSED, 1],
  ] as const) {
    message(w, 8, () => {
      text(w, 1, domain);
      int(w, 2, version);
    });
  }
  const large = [...e.constants.values()].filter(({ value }) => isApart(value));
  return { graph: w.finish(), constants: new Map(large.map(({ name, value }) => [name, bytesOf(value)])) };
}
