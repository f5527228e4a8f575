import { openSafetensors, type TensorFile } from "../formats/safetensors.ts";
import { type ExactSum, exactSum } from "../tensor/exact-sum.ts";
import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { BlobStore } from "./blob-store.ts";
import { aggregateByModule } from "./by-module.ts";
import type { Digest } from "./digest.ts";
import type { RoundOpened } from "./journal.ts";
import { getManifest, joinUpdate, open, splitUpdate, streamNames, streamOf } from "./manifest.ts";
import type { PlanEntry } from "./plan.ts";
import { byText } from "./sampling.ts";
import type { Aggregate, ClientRef, RoundContext, StateTree, Strategy, Update } from "./strategy.ts";

/** An accepted update without its tensors. */
export type UpdateHead = Pick<Update, "client" | "numExamples">;

/** Takes in the accepted updates of a round, in any order, and gives the next state. */
export interface Fold<State extends StateTree> {
  /** Whether tensors that were added are held until the end; otherwise their memory is free again. */
  readonly keeps: boolean;
  /** Takes in an update in memory, which a store, where there is one, holds under the digest of its manifest. */
  add(update: Update, manifest: Digest): void;
  /** Takes in an update that only the store holds. */
  addStored(head: UpdateHead, manifest: Digest): Promise<void>;
  /** The server step over all that was added; the same bits whatever the order. */
  finish(state: State, context: RoundContext): Promise<Aggregate<State>>;
}

/** What a fold may need beside the strategy. */
export interface FoldOptions {
  readonly how: RoundOpened["fold"];
  /** What every update holds. */
  readonly plan: readonly PlanEntry[];
  /** Where the updates of the round are; required by folds of `modules`. */
  readonly blobs?: BlobStore;
}

/** How the updates of a round are folded: kept until the end, streamed into one exact weighted sum, or read module by module. */
export function foldFor<State extends StateTree>(
  strategy: Strategy<State>,
  { how, plan, blobs }: FoldOptions,
): Fold<State> {
  switch (how.kind) {
    case "all":
      return keepAll(strategy, blobs);
    case "sum":
      return addUp(strategy, exactSumOf(how, plan), blobs);
    case "modules":
      return readModules(strategy, storeOf(blobs));
  }
}

function keepAll<State extends StateTree>(
  strategy: Strategy<State>,
  blobs: BlobStore | undefined,
): Fold<State> {
  const updates = new Map<string, Update>();
  const add = (update: Update): void => {
    updates.set(update.client.id, update);
  };
  return {
    keeps: true,
    add,
    addStored: async (head, manifest) => add(await stored(blobs, head, manifest)),
    finish: async (state, context) => strategy.aggregate(state, inOrder(updates), context),
  };
}

function addUp<State extends StateTree>(
  strategy: Strategy<State>,
  sum: ExactSum,
  blobs: BlobStore | undefined,
): Fold<State> {
  let first: ClientRef | undefined;
  let numExamples = 0;
  let folded = 0;
  const add = (update: Update): void => {
    sum.fold(joinUpdate(update), strategy.declares.uniformWeights ? 1 : update.numExamples);
    if (!first || update.client.id < first.id) first = update.client;
    numExamples += update.numExamples;
    folded++;
  };
  return {
    keeps: false,
    add,
    addStored: async (head, manifest) => add(await stored(blobs, head, manifest)),
    finish: async (state, context) => {
      const mean: Params = first ? sum.mean() : new Map();
      const merged = first ? [{ client: first, numExamples, folded, ...splitUpdate(mean) }] : [];
      return strategy.aggregate(state, merged, context);
    },
  };
}

function exactSumOf(
  { bound, maxWeight }: Extract<RoundOpened["fold"], { kind: "sum" }>,
  plan: readonly PlanEntry[],
): ExactSum {
  return exactSum({ shapes: new Map(plan.map(({ name, shape }) => [name, shape])), bound, maxWeight });
}

/** Of the updates only heads are kept; their tensors are read from the store when the module is aggregated. */
function readModules<State extends StateTree>(strategy: Strategy<State>, blobs: BlobStore): Fold<State> {
  const heads = new Map<string, { readonly head: UpdateHead; readonly manifest: Digest }>();
  const add = ({ client, numExamples }: UpdateHead, manifest: Digest): void => {
    heads.set(client.id, { head: { client, numExamples }, manifest });
  };
  return {
    keeps: false,
    add,
    addStored: async (head, manifest) => add(head, manifest),
    finish: async (state, context) => {
      const files: { readonly head: UpdateHead; readonly file: TensorFile }[] = [];
      for (const { head, manifest } of inOrder(heads)) {
        const source = streamOf(blobs, await getManifest(blobs, manifest));
        files.push({ head, file: await openSafetensors(source, `update ${manifest}`) });
      }
      const read = async (names: ReadonlySet<string>): Promise<Update[]> => {
        const updates: Update[] = [];
        for (const { head, file } of files) updates.push({ ...head, ...(await partOf(file, names)) });
        return updates;
      };
      return aggregateByModule(strategy, { state, context, read });
    },
  };
}

/** The tensors of an update that have these names, in the order in which they lie. */
async function partOf(
  file: TensorFile,
  names: ReadonlySet<string>,
): Promise<{ readonly params: Params; readonly extra?: Params }> {
  const wanted = new Set([...names].flatMap(streamNames));
  const part = new Map<string, Tensor>();
  for (const name of file.names) if (wanted.has(name)) part.set(name, await file.tensor(name));
  return splitUpdate(part);
}

async function stored(blobs: BlobStore | undefined, head: UpdateHead, manifest: Digest): Promise<Update> {
  const { params } = await open(storeOf(blobs), manifest);
  return { ...head, ...splitUpdate(params) };
}

function storeOf(blobs: BlobStore | undefined): BlobStore {
  if (blobs) return blobs;
  throw new RangeError("fold: there is no store to read updates from");
}

/** The values in the order of their clients. */
function inOrder<T>(byClient: ReadonlyMap<string, T>): T[] {
  return [...byClient].sort(([a], [b]) => byText(a, b)).map(([, value]) => value);
}
