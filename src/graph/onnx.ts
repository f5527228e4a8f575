import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { convert } from "../tensor/convert.ts";
import type { DType } from "../tensor/dtype.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import { type Dim, factorsOf, type Shape, timesDim } from "./shape.ts";
import { constantKey, inputsOf, type Node, type OpType, topological, type Value } from "./value.ts";

/**
 * ONNX serialization (https://onnx.ai/onnx/intro/concepts.html; field numbers of onnx.proto3). Opset 20 of ai.onnx for
 * Gelu, and com.microsoft 1 for the fused ops that ONNX Runtime carries on every target.
 */
const IR_VERSION = 9;
const OPSET = 20;
const FUSED = "com.microsoft";

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
  bfloat16: 16,
  float8e4m3: 17,
  float8e5m2: 19,
};

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
  readonly #taken = new Set<string>();
  #count = 0;

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

  fresh(): string {
    let name = `v${this.#count++}`;
    while (this.#taken.has(name)) name = `v${this.#count++}`;
    return name;
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

  /** A Reshape target: 0 copies the dimension at the same place, one -1 is inferred. */
  target(from: Shape, to: Shape): string {
    const plan = to.map((dim, i) => (typeof dim === "number" ? dim : from[i] === dim ? 0 : -1));
    if (plan.includes(0) && to.some((dim) => dim === 0))
      throw new RangeError("onnx: Reshape of an empty tensor");
    return plan.filter((dim) => dim === -1).length <= 1 ? this.ints(plan) : this.shape(to);
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
  Reshape: (e, node, [x = ""], outputs) => {
    const from = node.inputs[0]?.shape ?? [];
    e.emit("Reshape", [x, e.target(from, node.attributes.shape)], {}, outputs);
  },
  Slice: (e, { attributes: { axis, start, end } }, [x = ""], outputs) =>
    e.emit("Slice", [x, e.ints([start]), e.ints([end]), e.ints([axis])], {}, outputs),
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
  Cast: (e, node, names, outputs) =>
    e.emit("Cast", names, { to: { int: elementTypes[node.attributes.to] } }, outputs),
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

/**
 * ONNX bytes of a graph. Symbolic dimensions stay symbolic, so that one session serves all batch sizes and lengths.
 * Throws where a symbol of a shape is not a dimension of any input.
 */
export function encodeOnnx({ outputs }: Graph): Uint8Array<ArrayBuffer> {
  const inputs = inputsOf([...outputs.values()]);
  const e = new Emitter(inputs.values(), outputs.keys());
  for (const name of outputs.keys()) {
    if (inputs.has(name)) throw new RangeError(`onnx: "${name}" names an input and an output; rename one`);
  }
  const copies = [...outputs].filter(([name, value]) => !e.claim(value, name));
  for (const node of topological([...outputs.values()])) emitNode(e, node);
  for (const [name, value] of copies) e.emit("Identity", [e.name(value)], {}, [name]);
  const w = new BinaryWriter();
  int(w, 1, IR_VERSION);
  text(w, 2, "tributary");
  message(w, 7, () => {
    for (const node of e.nodes) message(w, 1, () => writeNode(w, node));
    text(w, 2, "tributary");
    for (const { name, value } of e.constants.values()) message(w, 5, () => writeTensor(w, name, value));
    for (const [name, value] of inputs) message(w, 11, () => writeValueInfo(w, name, value));
    for (const [name, value] of outputs) message(w, 12, () => writeValueInfo(w, name, value));
  });
  for (const [domain, version] of [
    ["", OPSET],
    [FUSED, 1],
  ] as const) {
    message(w, 8, () => {
      text(w, 1, domain);
      int(w, 2, version);
    });
  }
  return w.finish();
}
