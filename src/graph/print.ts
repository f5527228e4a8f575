import type { Tensor } from "../tensor/tensor.ts";
import { inputsOf, type Node, topological, type Value } from "./value.ts";

/** Attributes that the printed type of the result already states. */
const statedByType: ReadonlySet<string> = new Set(["shape", "dtype", "to"]);

const typeOf = ({ dtype, shape }: Value): string => `${dtype}[${shape.join(", ")}]`;

const number = (x: number | bigint): string => (Object.is(x, -0) ? "-0" : String(x));

function attributesOf({ op, attributes }: Node): string[] {
  return Object.entries(attributes).flatMap(([name, value]: [string, unknown]) => {
    if (value === false || statedByType.has(name) || (op === "MatMul" && value === 1)) return [];
    if (value === true) return [name];
    return [`${name}=${Array.isArray(value) ? `[${value.join(", ")}]` : value}`];
  });
}

/** A number for a float32 scalar, a number with its type for another scalar. */
function literal({ dtype, shape, data }: Tensor): string | undefined {
  const [value] = data;
  if (shape.length > 0 || value === undefined) return undefined;
  return dtype === "float32" ? number(value) : `${number(value)}:${dtype}`;
}

/**
 * A graph as text: its inputs, its large constants, then one typed equation per line in order of computation, and at
 * the end outputs that are no result of their own. Results carry the names of outputs, or `%n`; unused ones are `_`.
 */
export function printGraph(outputs: ReadonlyMap<string, Value>): string {
  const values = [...outputs.values()];
  const nodes = topological(values);
  const used = new Set<Value>([...values, ...nodes.flatMap((node) => node.inputs)]);
  const names = new Map<Value, string>();
  const lines: string[] = [];
  for (const value of used) if (value.name !== undefined) names.set(value, value.name);
  for (const [name, value] of inputsOf(values)) {
    lines.push(`input ${name}: ${typeOf(value)}`);
  }
  let large = 0;
  for (const value of used) {
    if (!value.constant) continue;
    const name = literal(value.constant) ?? `#${large++}`;
    names.set(value, name);
    if (name.startsWith("#")) lines.push(`constant ${name}: ${typeOf(value)}`);
  }
  const copies: string[] = [];
  for (const [name, value] of outputs) {
    if (names.has(value)) copies.push(`${name} = ${names.get(value)}`);
    else names.set(value, name);
  }
  let count = 0;
  const nameOf = (value: Value): string => {
    const known = names.get(value) ?? `%${count++}`;
    names.set(value, known);
    return known;
  };
  for (const node of nodes) {
    const operands = [...node.inputs.map(nameOf), ...attributesOf(node)];
    const results = node.outputs.map((value) =>
      used.has(value) ? `${nameOf(value)}: ${typeOf(value)}` : "_",
    );
    while (results.at(-1) === "_") results.pop();
    lines.push(`${results.join(", ")} = ${node.op}(${operands.join(", ")})`);
  }
  return [...lines, ...copies].join("\n");
}
