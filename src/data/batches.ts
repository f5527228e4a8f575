import { TributaryError } from "../errors.ts";
import { type RandomStream, stream } from "../tensor/random.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import { type Example, ignored } from "./examples.ts";
import { writeValues } from "./images/processor.ts";

/** Examples in tensors: B rows, padded on the right to T tokens; or B images, and T is 0. */
export interface Batch {
  /** Images as their model reads them, where the examples are images. */
  readonly pixelValues?: Tensor<"float32">; // [B, channels, height, width]
  readonly inputIds: Tensor<"int64">; // [B, T]
  /** 1 for tokens, 0 for padding; by length, so a padding id inside a text counts as a token. */
  readonly attentionMask: Tensor<"int64">; // [B, T]
  readonly tokenTypeIds?: Tensor<"int64">; // [B, T]
  /** Where several sequences share a row: their numbers from 1, 0 for padding; and positions from 0 in each. */
  readonly segmentIds?: Tensor<"int64">; // [B, T]
  readonly positionIds?: Tensor<"int64">; // [B, T]
  /** Flat indices b * T + t of the positions whose next token is predicted; empty where rows have one label each. */
  readonly labelPositions: Tensor<"int64">; // [L]
  /** The id after each label position; or the class or target of each row. */
  readonly labels: Tensor<"int64"> | Tensor<"float32">; // [L] or [B]
  readonly numExamples: number;
  /** L, or B where rows have one label each. */
  readonly numLabels: number;
}

export interface CollateOptions {
  /** The id in padded places. It is masked, so any valid id does. */
  readonly padId?: number;
  /** Pads rows to this length instead of the longest one's. */
  readonly padTo?: number;
  /** Whether `label` is a target to regress on instead of a class. */
  readonly regression?: boolean;
}

/** Puts examples of one kind into a batch, in their order. */
export function collate(
  examples: readonly Example[],
  { padId = 0, padTo, regression = false }: CollateOptions = {},
): Batch {
  const [first] = examples;
  if (first === undefined)
    throw new TributaryError("no-examples", "collate: got no examples, expected at least one");
  const rows = examples.length;
  const longest = examples.reduce((most, { inputIds }) => Math.max(most, inputIds.length), 0);
  const width = padTo ?? longest;
  if (longest > width)
    throw new RangeError(
      `collate: an example has ${longest} tokens, expected at most ${width}; cut it or raise padTo`,
    );

  const ids = new BigInt64Array(rows * width).fill(BigInt(padId));
  const mask = new BigInt64Array(rows * width);
  const types = first.tokenTypeIds === undefined ? undefined : new BigInt64Array(rows * width);
  const positions: bigint[] = [];
  const next: bigint[] = [];
  const rowLabels: number[] = [];
  for (const [b, { inputIds, labels, label, tokenTypeIds }] of examples.entries()) {
    if (
      (labels === undefined) !== (first.labels === undefined) ||
      (label === undefined) !== (first.label === undefined)
    ) {
      throw new TypeError(
        `collate: example ${b} has other labels than example 0, expected one kind in a batch`,
      );
    }
    if ((tokenTypeIds === undefined) !== (types === undefined)) {
      throw new TypeError(
        `collate: example ${b} and example 0 differ in having tokenTypeIds, expected all or none`,
      );
    }
    for (let t = 0; t < inputIds.length; t++) {
      const at = b * width + t;
      ids[at] = BigInt(inputIds[t] ?? padId);
      mask[at] = 1n;
      if (types !== undefined) types[at] = BigInt(tokenTypeIds?.[t] ?? 0);
      const following = labels?.[t + 1];
      if (following !== undefined && following !== ignored) {
        positions.push(BigInt(at));
        next.push(BigInt(following));
      }
    }
    if (label !== undefined) rowLabels.push(label);
  }

  const numLabels = first.labels === undefined ? rowLabels.length : positions.length;
  if (numLabels === 0)
    throw new TributaryError(
      "no-labels",
      `collate: the ${rows} examples have no labels, expected at least one to train on`,
    );
  const shape = [rows, width];
  const packed = examples.some(({ segments }) => segments !== undefined);
  return {
    ...(first.image === undefined ? {} : { pixelValues: pixelValues(examples) }),
    inputIds: tensor("int64", shape, ids),
    attentionMask: tensor("int64", shape, mask),
    ...(types === undefined ? {} : { tokenTypeIds: tensor("int64", shape, types) }),
    ...(packed && sharedRows(examples, width)),
    labelPositions: tensor("int64", [positions.length], BigInt64Array.from(positions)),
    labels:
      first.labels !== undefined
        ? tensor("int64", [next.length], BigInt64Array.from(next))
        : regression
          ? tensor("float32", [rows], Float32Array.from(rowLabels))
          : tensor("int64", [rows], BigInt64Array.from(rowLabels, classId)),
    numExamples: rows,
    numLabels,
  };
}

/** Numbers of the sequences of each row and positions within them; a row of one sequence is number 1. */
function sharedRows(
  examples: readonly Example[],
  width: number,
): Required<Pick<Batch, "segmentIds" | "positionIds">> {
  const shape = [examples.length, width];
  const segmentIds = new BigInt64Array(examples.length * width);
  const positionIds = new BigInt64Array(examples.length * width);
  for (const [b, { inputIds, segments }] of examples.entries()) {
    let start = 0;
    for (let t = 0; t < inputIds.length; t++) {
      const segment = segments?.[t] ?? 1;
      if (t > 0 && segment !== (segments?.[t - 1] ?? 1)) start = t;
      segmentIds[b * width + t] = BigInt(segment);
      positionIds[b * width + t] = BigInt(t - start);
    }
  }
  return { segmentIds: tensor("int64", shape, segmentIds), positionIds: tensor("int64", shape, positionIds) };
}

function pixelValues(examples: readonly Example[]): Tensor<"float32"> {
  const images = examples.map(({ image }, i) => {
    if (image !== undefined) return image;
    throw new TypeError(`collate: example ${i} has no image and example 0 has one, expected all or none`);
  });
  const { channels, height, width } = images[0]?.processor ?? { channels: 0, height: 0, width: 0 };
  const size = channels * height * width;
  const values = new Float32Array(images.length * size);
  for (const [b, image] of images.entries()) {
    if (image.pixels.length !== size)
      throw new TypeError(`collate: image ${b} has another size than image 0, expected one size in a batch`);
    writeValues(image, values, b * size);
  }
  return tensor("float32", [images.length, channels, height, width], values);
}

function classId(label: number): bigint {
  if (!Number.isInteger(label))
    throw new TypeError(`collate: the class ${label} is no integer; for targets set regression`);
  return BigInt(label);
}

/** Which examples form which batch: indices into the examples. */
export type BatchPlan = readonly (readonly number[])[];

export interface BucketOptions {
  readonly batchSize: number;
  /** The stream that decides the order. */
  readonly random: RandomStream;
  /** Fewest batches whose examples are sorted together; more means less padding and less mixing. */
  readonly bucketBatches?: number;
}

/**
 * Batches of examples of like length in random order: the shuffled examples are cut into stretches of at least
 * `bucketBatches` batches, each stretch is sorted by length and cut into batches, and all batches are shuffled.
 */
export function bucketed(
  lengths: readonly number[],
  { batchSize, random, bucketBatches = 50 }: BucketOptions,
): BatchPlan {
  checkBatchSize(batchSize);
  const order = random.permutation(lengths.length);
  const plan: number[][] = [];
  const numBatches = Math.ceil(lengths.length / batchSize);
  const stretches = Math.max(1, Math.floor(numBatches / bucketBatches));
  const stretch = batchSize * Math.max(1, Math.ceil(numBatches / stretches));
  for (let start = 0; start < order.length; start += stretch) {
    // The sort is stable, so equal lengths keep their random order.
    const sorted = order.slice(start, start + stretch).sort((a, b) => (lengths[b] ?? 0) - (lengths[a] ?? 0));
    plan.push(...cut(sorted, batchSize));
  }
  return random.shuffle(plan);
}

/** Batches in the order of the examples. */
export function inOrder(count: number, batchSize: number): BatchPlan {
  checkBatchSize(batchSize);
  return cut(
    Array.from({ length: count }, (_, i) => i),
    batchSize,
  );
}

/** The share of padded places in all places of the batches of a plan. */
export function paddingShare(lengths: readonly number[], plan: BatchPlan): number {
  let places = 0;
  let tokens = 0;
  for (const indices of plan) {
    const row = indices.map((i) => lengths[i] ?? 0);
    places += row.length * row.reduce((most, length) => Math.max(most, length), 0);
    tokens += row.reduce((sum, length) => sum + length, 0);
  }
  return places === 0 ? 0 : 1 - tokens / places;
}

export interface BatchOptions extends CollateOptions {
  readonly batchSize: number;
  /** Seed, round and client of the order; absent, the examples stay in theirs. */
  readonly shuffle?: { readonly seed: number; readonly round?: number; readonly client?: string };
}

/** The batches of one pass over the examples: bucketed by length with `shuffle`, else in order. */
export function* batches(
  examples: readonly Example[],
  { batchSize, shuffle, ...options }: BatchOptions,
): Generator<Batch> {
  const plan =
    shuffle === undefined
      ? inOrder(examples.length, batchSize)
      : bucketed(lengthsOf(examples), { batchSize, random: stream({ ...shuffle, purpose: "batches" }) });
  for (const indices of plan) {
    yield collate(
      indices.flatMap((i) => examples[i] ?? []),
      options,
    );
  }
}

/** The number of tokens of each example. */
export function lengthsOf(examples: readonly Example[]): number[] {
  return examples.map(({ inputIds }) => inputIds.length);
}

function cut(order: readonly number[], batchSize: number): number[][] {
  const plan: number[][] = [];
  for (let start = 0; start < order.length; start += batchSize)
    plan.push(order.slice(start, start + batchSize));
  return plan;
}

function checkBatchSize(batchSize: number): void {
  if (!(Number.isInteger(batchSize) && batchSize >= 1)) {
    throw new RangeError(`batches: batchSize ${batchSize}, expected an integer of at least 1`);
  }
}
