import { widen } from "../tensor/convert.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import type { Pixels } from "./images/pixels.ts";
import { type DataRecord, malformed, type Records } from "./record.ts";

const splitNames = "train|training|valid|validation|val|test|testing";
const before = new RegExp(`^(${splitNames})_(.+)$`);
const after = new RegExp(`^(.+)_(${splitNames})$`);

/** What arrays of images and of classes are often called. */
const fieldNames: ReadonlyMap<string, string> = new Map([
  ["images", "image"],
  ["x", "image"],
  ["labels", "label"],
  ["targets", "label"],
  ["y", "label"],
]);

/**
 * Rows of arrays that run along their first axis: a field for each array, and `split` where their names begin or end with
 * train, val or test. Bytes of height x width, with channels last or none, are images.
 */
export function arrayRecords(arrays: ReadonlyMap<string, Tensor>, name: string): Records {
  const parts = new Map<string, Map<string, Tensor>>();
  for (const [key, array] of arrays) {
    const [split = "", field = key] = before.exec(key)?.slice(1) ?? after.exec(key)?.slice(1).reverse() ?? [];
    const part = parts.get(split) ?? new Map<string, Tensor>();
    part.set(fieldNames.get(field) ?? field, array);
    parts.set(split, part);
  }
  const rows: DataRecord[] = [];
  for (const [split, fields] of parts) {
    const counts = new Map([...fields].map(([field, { shape }]) => [field, shape[0] ?? 0]));
    const [count = 0] = counts.values();
    if ([...counts.values()].some((other) => other !== count)) {
      const got = [...counts].map(([field, rows]) => `${field} with ${rows}`).join(", ");
      throw malformed(name, undefined, got, "arrays of one length along their first axis");
    }
    const columns = [...fields].map(([field, array]) => [field, rowsOf(array)] as const);
    for (let i = 0; i < count; i++) {
      const record = Object.fromEntries(columns.map(([field, at]) => [field, at(i)]));
      rows.push(
        split === ""
          ? record
          : { ...record, split: split === "training" ? "train" : split === "testing" ? "test" : split },
      );
    }
  }
  return { rows, dropped: [] };
}

/** How row i of an array stands in a record: an image, a number, or a list of numbers. */
function rowsOf(array: Tensor): (i: number) => Pixels | number | readonly number[] {
  const [, ...inner] = array.shape;
  const size = inner.reduce((product, dim) => product * dim, 1);
  const [height = 0, width = 0, channels = 1] = inner;
  const { data } = array;
  if (data instanceof Uint8Array && array.dtype === "uint8" && isImage(inner)) {
    return (i) => ({ height, width, channels, data: data.subarray(i * size, (i + 1) * size) });
  }
  const numbers = /^b?float(?:16|8)/.test(array.dtype) ? widen(array).data : data;
  return (i) =>
    size === 1 ? Number(numbers[i]) : Array.from(numbers.subarray(i * size, (i + 1) * size), Number);
}

function isImage(inner: readonly number[]): boolean {
  return inner.length === 2 || (inner.length === 3 && (inner[2] === 1 || inner[2] === 3));
}

/** The batches of CIFAR-10: a class and 32 x 32 pixels, one plane for each colour. */
export function cifarArrays(bytes: Uint8Array, name: string): ReadonlyMap<string, Tensor> {
  const area = 32 * 32;
  const row = 1 + 3 * area;
  if (bytes.length === 0 || bytes.length % row !== 0)
    throw malformed(
      name,
      undefined,
      `${bytes.length} bytes`,
      `rows of ${row} bytes, as CIFAR-10's binary version has them`,
    );
  const count = bytes.length / row;
  const images = new Uint8Array(count * 3 * area);
  const labels = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    labels[i] = bytes[i * row]!;
    for (let place = 0; place < area; place++)
      for (let c = 0; c < 3; c++) images[(i * area + place) * 3 + c] = bytes[i * row + 1 + c * area + place]!;
  }
  return new Map<string, Tensor>([
    ["images", tensor("uint8", [count, 32, 32, 3], images)],
    ["labels", tensor("uint8", [count], labels)],
  ]);
}

/** Square gray images as bare bytes, one a label. */
export function squareImages(
  bytes: Uint8Array,
  labels: Uint8Array,
  name: string,
): ReadonlyMap<string, Tensor> {
  const side = Math.sqrt(bytes.length / labels.length);
  if (!(Number.isInteger(side) && side > 0))
    throw malformed(
      name,
      undefined,
      `${bytes.length} bytes for ${labels.length} labels`,
      "as many square images of a byte a pixel",
    );
  return new Map<string, Tensor>([
    ["images", tensor("uint8", [labels.length, side, side], bytes)],
    ["labels", tensor("uint8", [labels.length], labels)],
  ]);
}
