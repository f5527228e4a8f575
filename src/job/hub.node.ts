import { TributaryError } from "../errors.ts";
import {
  fetchAdapter,
  fetchFile,
  fetchModel,
  fetchModelOrAdapter,
  type HubOptions,
  type HubProgress,
  resolveCommit,
} from "../hub/hub.node.ts";
import {
  type HubReference,
  hubReferenceText,
  isCommit,
  isSameFile,
  parseHubReference,
} from "../hub/reference.ts";
import type { Job } from "./job.ts";
import { readResolvedJob } from "./load.node.ts";

export type { HubProgress };

/** What a run asks of the hub, by its place in the job. */
type References = ReadonlyMap<string, HubReference>;

/** A reference that begins with `hf://`; other texts are paths. */
function explicit(text: unknown): HubReference | undefined {
  return typeof text === "string" && text.startsWith("hf://") ? parseHubReference(text) : undefined;
}

/** The folder of a model, or its GGUF file: as given, or from the hub's cache, where it is fetched to first. */
export async function localModel(model: string, options: HubOptions = {}): Promise<string> {
  const reference = explicit(model);
  if (reference === undefined) return model;
  const { path } = reference;
  return path === undefined ? fetchModel(reference, options) : fetchFile({ ...reference, path }, options);
}

/** The folder of an adapter: as given, or from the hub's cache, where it is fetched to first. */
export async function localAdapter(adapter: string, options: HubOptions = {}): Promise<string> {
  const reference = explicit(adapter);
  if (reference === undefined) return adapter;
  if (reference.path === undefined) return fetchAdapter(reference, options);
  throw new TributaryError(
    "hub-reference",
    `${adapter}: names a file, expected a repository with an adapter, such as org/name`,
  );
}

/** What a path or a reference names, a model, an adapter or a file of data: here, or in the hub's cache. */
export async function localPath(path: string, options: HubOptions = {}): Promise<string> {
  const reference = explicit(path);
  const isFolder = reference?.path === undefined && reference?.kind === "model";
  return isFolder ? fetchModelOrAdapter(reference, options) : localData(path, options);
}

/** A data file: as given, or from the hub's cache, where it is fetched to first. */
export async function localData(path: string, options: HubOptions = {}): Promise<string> {
  const reference = explicit(path);
  if (reference === undefined) return path;
  const { path: file } = reference;
  if (file !== undefined) return fetchFile({ ...reference, path: file }, options);
  // The client's refusal lists the files that there are.
  return fetchFile({ ...reference, path: "data" }, options);
}

/**
 * The job with every reference to the hub at a commit, its files fetched. A run that goes on keeps the commits that it began
 * with, also where a branch has moved since.
 */
export async function pinnedJob<J extends Job & { readonly out: string }>(
  job: J,
  { fresh = false, ...options }: HubOptions & { readonly fresh?: boolean } = {},
): Promise<J> {
  const asked = referencesOf(job);
  if (asked.size === 0) return job;
  const before = fresh ? undefined : await readResolvedJob(job.out);
  const kept: References = before === undefined ? new Map() : referencesOf(before);
  const pinned = new Map<string, string>();
  for (const [text, reference] of asked) {
    const old = [...kept.values()].find((one) => isSameFile(one, reference) && isCommit(one.revision));
    const revision =
      !isCommit(reference.revision) && old !== undefined
        ? old.revision
        : await resolveCommit(reference, options);
    const at = hubReferenceText({ ...reference, revision });
    pinned.set(text, at);
    if (text === job.model) await localModel(at, options);
    if (text === adapterOf(job)) await localAdapter(at, options);
    if (dataOf(job).includes(text)) await localData(at, options);
  }
  const place = <T>(value: T): T | string =>
    typeof value === "string" ? (pinned.get(value) ?? value) : value;
  const { path, splits } = job.data;
  const from = adapterOf(job);
  return {
    ...job,
    model: place(job.model),
    ...(from === undefined ? {} : { adapter: { ...job.adapter, from: place(from) } }),
    data: {
      ...job.data,
      path: typeof path === "string" ? place(path) : path.map(place),
      splits: {
        ...splits,
        ...(splits.validation === undefined ? {} : { validation: place(splits.validation) }),
        ...(splits.test === undefined ? {} : { test: place(splits.test) }),
      },
    },
  };
}

/** The adapter that a job starts from. */
function adapterOf({ adapter }: Job): string | undefined {
  return adapter.kind === "lora" ? adapter.from : undefined;
}

/** The data files of a job, and shares in their place. */
function dataOf({ data: { path, splits } }: Job): readonly unknown[] {
  return [...(typeof path === "string" ? [path] : path), splits.validation, splits.test];
}

function referencesOf(job: Job): References {
  const found = new Map<string, HubReference>();
  for (const text of [job.model, adapterOf(job), ...dataOf(job)]) {
    const reference = explicit(text);
    if (reference !== undefined) found.set(String(text), reference);
  }
  return found;
}
