import { compareLabels, type Label, type Partition } from "./partition/partition.ts";

export interface PictureOptions {
  /** Characters of the longest bar. */
  readonly width?: number;
  /** The labels of the examples; absent, only sizes are shown. */
  readonly labels?: readonly Label[];
  /** Most labels with a column of their own; the rest share one. */
  readonly maxLabels?: number;
  /** What is counted, as the head of its column. Default: examples. */
  readonly counted?: string;
}

const shades = ["·", "░", "▒", "▓", "█"];

/**
 * Who holds what, as lines of text: a client a line with its size and a bar, and one cell for each label, shaded by the
 * label's share in the client.
 */
export function picture(
  partition: Partition,
  { width = 40, labels, maxLabels = 20, counted = "examples" }: PictureOptions = {},
): string {
  const sizes = [...partition.values()].map((indices) => indices.length);
  const largest = sizes.reduce((a, b) => Math.max(a, b), 0);
  const total = sizes.reduce((a, b) => a + b, 0);
  const nameWidth = [...partition.keys()].reduce(
    (most, name) => Math.max(most, name.length),
    "client".length,
  );
  const sizeWidth = Math.max(String(total).length, counted.length);
  const shown = labels === undefined ? [] : labelColumns(partition, labels, maxLabels);
  const cellWidth = Math.max(shown.length, "labels".length);
  const line = (name: string, size: string, cells: string, bar: string): string =>
    `${name.padEnd(nameWidth)}  ${size.padStart(sizeWidth)}  ${cells === "" ? "" : `${cells.padEnd(cellWidth)}  `}${bar}`.trimEnd();

  const head = line("client", counted, shown.length === 0 ? "" : "labels", "");
  const body = [...partition].map(([name, indices]) => {
    const filled =
      largest === 0
        ? 0
        : Math.max(indices.length > 0 ? 1 : 0, Math.round((indices.length / largest) * width));
    const cells = shown.map((holds) => shade(indices, holds)).join("");
    return line(name, String(indices.length), cells, "█".repeat(filled));
  });
  const foot = line("all", String(total), "", "");
  const legend = labels === undefined ? [] : [legendOf(partition, labels, maxLabels)];
  return [head, ...body, foot, ...legend].join("\n");
}

type Holds = (index: number) => boolean;

function distinct(partition: Partition, labels: readonly Label[]): Label[] {
  const found = new Set<Label>();
  for (const indices of partition.values()) {
    for (const i of indices) {
      const label = labels[i];
      if (label !== undefined) found.add(label);
    }
  }
  return [...found].sort(compareLabels);
}

function labelColumns(partition: Partition, labels: readonly Label[], maxLabels: number): Holds[] {
  const all = distinct(partition, labels);
  const own = all.length <= maxLabels ? all : all.slice(0, maxLabels - 1);
  const columns = own.map(
    (label): Holds =>
      (i) =>
        labels[i] === label,
  );
  if (own.length === all.length) return columns;
  const rest = new Set(all.slice(own.length));
  return [...columns, (i) => rest.has(labels[i] ?? "")];
}

function shade(indices: readonly number[], holds: Holds): string {
  const count = indices.filter(holds).length;
  if (count === 0) return shades[0] ?? "";
  const share = count / indices.length;
  return shades[Math.min(shades.length - 1, 1 + Math.floor(share * (shades.length - 1)))] ?? "";
}

function legendOf(partition: Partition, labels: readonly Label[], maxLabels: number): string {
  const all = distinct(partition, labels);
  const own = all.length <= maxLabels ? all : all.slice(0, maxLabels - 1);
  const rest = all.length - own.length;
  return `labels: ${own.join(", ")}${rest === 0 ? "" : ` and ${rest} more`} (share in the client: · none, ░ to 25 %, ▒ 50 %, ▓ 75 %, █ more)`;
}
