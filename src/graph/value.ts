import type { DType } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Dim, Shape } from "./shape.ts";

interface None {
  readonly [key: string]: never;
}

/** Every op with its attributes. The gradient table and the ONNX lowering are complete over these keys. */
export interface OpAttributes {
  Add: None;
  Sub: None;
  Mul: None;
  Div: None;
  Pow: None;
  Min: None;
  Max: None;
  Neg: None;
  Exp: None;
  Log: None;
  Sqrt: None;
  Reciprocal: None;
  Tanh: None;
  Sigmoid: None;
  Erf: None;
  Abs: None;
  Sign: None;
  Identity: None;
  Relu: None;
  Sin: None;
  Cos: None;
  Gelu: { readonly approximate: "none" | "tanh" };
  QuickGelu: { readonly alpha: number };
  Where: None;
  Equal: None;
  Less: None;
  LessOrEqual: None;
  And: None;
  Not: None;
  Cast: { readonly to: DType };
  MatMul: { readonly transA: boolean; readonly transB: boolean; readonly alpha: number };
  Gemm: None;
  Softmax: None;
  LogSoftmax: None;
  LayerNormalization: { readonly epsilon: number };
  SimplifiedLayerNormalization: { readonly epsilon: number };
  RotaryEmbedding: None;
  Reshape: { readonly shape: Shape };
  Transpose: { readonly perm: readonly number[] };
  Slice: { readonly axis: number; readonly start: number; readonly end: number };
  Concat: { readonly axis: number };
  Split: { readonly axis: number; readonly lengths: Shape };
  Expand: { readonly shape: Shape };
  Fill: { readonly shape: Shape; readonly value: number; readonly dtype: DType };
  DimSize: { readonly dim: Dim };
  Range: { readonly dim: Dim };
  ReduceSum: { readonly axes: readonly number[]; readonly keepDims: boolean };
  ReduceMean: { readonly axes: readonly number[]; readonly keepDims: boolean };
  ReduceMax: { readonly axes: readonly number[]; readonly keepDims: boolean };
  Gather: { readonly axis: number };
  GatherElements: { readonly axis: number };
  ScatterElements: { readonly axis: number };
  ScatterND: None;
  ArgMax: { readonly axis: number };
  After: None;
  DequantizeBlocks: None;
  DequantizeHalf: { readonly half: "even" | "odd" };
  MatMulNBits: { readonly activations: "float32" | "int8" };
}

export type OpType = keyof OpAttributes;

/** One application of an op. */
export interface Node<K extends OpType = OpType> {
  readonly op: K;
  readonly attributes: OpAttributes[K];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

/** A symbolic tensor: a graph input, a constant, or an output of a node. Identity is the object. */
export interface Value {
  readonly dtype: DType;
  readonly shape: Shape;
  /** Name of a graph input. */
  readonly name?: string;
  readonly constant?: Tensor;
  readonly node?: Node;
}

/** A graph input. */
export function input(name: string, dtype: DType, shape: Shape): Value {
  return { name, dtype, shape };
}

/** A constant that is stored in the graph. */
export function constant(value: Tensor): Value {
  return { dtype: value.dtype, shape: value.shape, constant: value };
}

/** A key that small constants of equal type, shape and bits share; undefined for large ones. */
export function constantKey({ dtype, shape, data }: Tensor): string | undefined {
  if (data.length > 16) return undefined;
  return `${dtype}|${shape}|${new Uint8Array(data.buffer, data.byteOffset, data.byteLength)}`;
}

/** Applies an op whose outputs have the given types. */
export function applyOp<K extends OpType>(
  op: K,
  attributes: OpAttributes[K],
  inputs: readonly Value[],
  outputs: readonly { readonly dtype: DType; readonly shape: Shape }[],
): readonly Value[] {
  const values: Value[] = [];
  const node: Node<K> = { op, attributes, inputs, outputs: values };
  for (const { dtype, shape } of outputs) values.push({ dtype, shape, node: node as Node });
  return values;
}

/** Narrows a node to one op. */
export function isOp<K extends OpType>(node: Node | undefined, op: K): node is Node<K> & Node {
  return node?.op === op;
}

/** All nodes that the outputs depend on, each after its inputs. */
export function topological(outputs: readonly Value[]): Node[] {
  const order: Node[] = [];
  const state = new Map<Node, "open" | "done">();
  for (const output of outputs) {
    if (!output.node || state.has(output.node)) continue;
    const stack: { node: Node; next: number }[] = [{ node: output.node, next: 0 }];
    state.set(output.node, "open");
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const child = top.node.inputs[top.next++];
      if (child === undefined) {
        if (top.next > top.node.inputs.length) {
          state.set(top.node, "done");
          order.push(top.node);
          stack.pop();
        }
      } else if (child.node && !state.has(child.node)) {
        state.set(child.node, "open");
        stack.push({ node: child.node, next: 0 });
      }
    }
  }
  return order;
}

/** Graph inputs that the outputs depend on, by name, in order of first use. Inputs of one name and type are one input. */
export function inputsOf(outputs: readonly Value[]): Map<string, Value> {
  const found = new Map<string, Value>();
  const add = (value: Value): void => {
    if (value.name === undefined) return;
    const known = found.get(value.name);
    if (known && (known.dtype !== value.dtype || String(known.shape) !== String(value.shape))) {
      throw new Error(
        `graph: two inputs are named "${value.name}": ${known.dtype}[${known.shape}] and ${value.dtype}[${value.shape}]`,
      );
    }
    found.set(value.name, known ?? value);
  };
  for (const output of outputs) add(output);
  for (const node of topological(outputs)) for (const value of node.inputs) add(value);
  return found;
}
