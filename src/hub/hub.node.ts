import { readFile } from "node:fs/promises";
import { TributaryError } from "../errors.ts";
import { type CachedRepo, cachedRepo } from "./cache.node.ts";
import { type ContentDigest, type DownloadOptions, download, refusal } from "./download.node.ts";
import { type HubReference, hubReferenceText, isCommit, isInside } from "./reference.ts";
import { type HubSettings, hubSettings } from "./settings.node.ts";

/** How far the files of a reference have come. */
export interface HubProgress {
  /** What is fetched, as it was named. */
  readonly name: string;
  /** Bytes that are here, and all bytes. */
  readonly done: number;
  readonly total: number;
}

export interface HubOptions {
  /** Default: those of the environment. */
  readonly settings?: HubSettings;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: HubProgress) => void;
  /** How cut connections are taken up. */
  readonly retry?: Pick<DownloadOptions, "attempts" | "pauseMs" | "stallMs">;
}

/** The files of a repository that are fetched. */
interface Layout {
  /** What such a repository is called. */
  readonly called: string;
  /** The file without which it is none. */
  readonly config: string;
  /** Files that it may hold beside its weights. */
  readonly companions: readonly string[];
  /** Its weights as one file. */
  readonly weights: string;
  /** The list of its weights as several files. */
  readonly index?: string;
  /** Weights that are not read. */
  readonly pickle: RegExp;
}

const modelLayout: Layout = {
  called: "a model in Hugging Face layout",
  config: "config.json",
  companions: [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "preprocessor_config.json",
  ],
  weights: "model.safetensors",
  index: "model.safetensors.index.json",
  pickle: /^pytorch_model.*\.bin$/,
};

const adapterLayout: Layout = {
  called: "an adapter in PEFT's layout",
  config: "adapter_config.json",
  companions: ["adapter_config.json"],
  weights: "adapter_model.safetensors",
  pickle: /^adapter_model\.bin$/,
};

/** The commit that a reference stands at now; in offline mode, where it stood when it was last fetched. */
export async function resolveCommit(reference: HubReference, options: HubOptions = {}): Promise<string> {
  const { revision } = reference;
  if (isCommit(revision)) return revision;
  const settings = options.settings ?? (await hubSettings());
  const cached = cachedRepo(settings.cache, reference);
  if (settings.offline) {
    const commit = await cached.readRef(revision);
    if (commit !== undefined && isCommit(commit)) return commit;
    throw offline(reference, settings, "this revision");
  }
  const { modelInfo, datasetInfo } = await import("@huggingface/hub");
  const asked = {
    name: reference.repo,
    revision,
    hubUrl: settings.endpoint,
    fetch: hubFetch(settings, options.signal),
    additionalFields: ["sha" as const],
  };
  const { sha } = await answered(reference, settings, () =>
    reference.kind === "model" ? modelInfo(asked) : datasetInfo(asked),
  );
  if (typeof sha !== "string" || !isCommit(sha)) {
    throw new TributaryError(
      "hub-unreachable",
      `${hubReferenceText(reference)}: ${settings.endpoint} named no commit; expected the interface of the Hugging Face hub`,
    );
  }
  await cached.writeRef(revision, sha);
  return sha;
}

/** The folder of a model's files in the cache, after fetching those that are not there: configuration, tokenizer, safetensors. */
export function fetchModel(reference: HubReference, options: HubOptions = {}): Promise<string> {
  return fetchFolder(reference, [modelLayout], options);
}

/** The folder of an adapter's files in the cache, after fetching those that are not there. */
export function fetchAdapter(reference: HubReference, options: HubOptions = {}): Promise<string> {
  return fetchFolder(reference, [adapterLayout], options);
}

/** The same of a model or an adapter, whichever the repository is. */
export function fetchModelOrAdapter(reference: HubReference, options: HubOptions = {}): Promise<string> {
  return fetchFolder(reference, [modelLayout, adapterLayout], options);
}

/** The folder of a repository in the cache, fetched by the first of some layouts that it has. */
async function fetchFolder(
  reference: HubReference,
  layouts: readonly [Layout, ...Layout[]],
  options: HubOptions,
): Promise<string> {
  const settings = options.settings ?? (await hubSettings());
  const commit = await resolveCommit(reference, { ...options, settings });
  const cached = cachedRepo(settings.cache, reference);
  for (const layout of layouts)
    if (await isWhole(cached, commit, layout, settings)) return cached.snapshot(commit);
  if (settings.offline) throw offline(reference, settings, "all of its files");
  const listed = await listing({ ...reference, revision: commit }, settings, options.signal);
  const present = new Set(listed.map(({ path }) => path));
  const layout = layouts.find(({ config }) => present.has(config)) ?? layouts[0];
  const { companions, weights, index } = layout;
  refusePickles(reference, present, layout);
  const files = listed.filter(({ path }) => companions.includes(path));
  const shard = /^model-\d+-of-\d+\.safetensors$/;
  const single = listed.filter(({ path }) => path === weights);
  const parts = single.length > 0 ? single : listed.filter(({ path }) => path === index || shard.test(path));
  await fetchFiles({ ...reference, revision: commit }, [...files, ...parts], settings, options);
  for (const name of [...companions, weights, ...(index === undefined ? [] : [index])])
    if (!present.has(name)) await cached.noteAbsence(commit, name);
  return cached.snapshot(commit);
}

/** One file of a repository in the cache, after fetching it where it is not there. */
export async function fetchFile(
  reference: HubReference & { readonly path: string },
  options: HubOptions = {},
): Promise<string> {
  const settings = options.settings ?? (await hubSettings());
  const commit = await resolveCommit(reference, { ...options, settings });
  const cached = cachedRepo(settings.cache, reference);
  const found = await cached.file(commit, reference.path);
  if (found !== undefined) return found;
  if (settings.offline) throw offline(reference, settings, "this file");
  const pinned = { ...reference, revision: commit };
  const listed = await listing(pinned, settings, options.signal);
  const wanted = listed.filter(({ path }) => path === reference.path);
  if (wanted.length === 0) {
    const beside = listed
      .map(({ path }) => path)
      .filter((path) => /\.(?:parquet|jsonl?|csv|tsv|txt|gguf)(?:\.gz)?$/.test(path));
    throw new TributaryError(
      "hub-not-found",
      `${hubReferenceText(reference)}: the repository has no such file; it has ${beside.slice(0, 8).join(", ") || "no data files"}`,
    );
  }
  const [path = ""] = await fetchFiles(pinned, wanted, settings, options);
  return path;
}

/** A file as the hub lists it. */
interface ListedFile {
  readonly path: string;
  readonly size: number;
  /** The name of its blob in the cache. */
  readonly etag: string;
  readonly digest: ContentDigest;
}

async function fetchFiles(
  reference: HubReference,
  files: readonly ListedFile[],
  settings: HubSettings,
  { signal, onProgress = () => {}, retry = {} }: HubOptions,
): Promise<string[]> {
  const cached = cachedRepo(settings.cache, reference);
  const name = hubReferenceText(reference);
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const kind = reference.kind === "dataset" ? "datasets/" : "";
  const paths: string[] = [];
  let before = 0;
  for (const { path, size, etag, digest } of files) {
    const whole = await cached.file(reference.revision, path);
    if (whole === undefined) {
      await download({
        url: `${settings.endpoint}/${kind}${reference.repo}/resolve/${reference.revision}/${path.split("/").map(encodeURIComponent).join("/")}`,
        name: `${name}/${path}`,
        target: cached.blob(etag),
        size,
        digest,
        fetch: hubFetch(settings),
        ...(signal === undefined ? {} : { signal }),
        onProgress: (bytes) => onProgress({ name, done: before + bytes, total }),
        ...retry,
      });
    }
    paths.push(whole ?? (await cached.link(etag, reference.revision, path)));
    before += size;
    onProgress({ name, done: before, total });
  }
  return paths;
}

async function listing(
  reference: HubReference,
  settings: HubSettings,
  signal: AbortSignal | undefined,
): Promise<ListedFile[]> {
  const { listFiles } = await import("@huggingface/hub");
  return answered(reference, settings, async () => {
    const files: ListedFile[] = [];
    const entries = listFiles({
      repo: { type: reference.kind, name: reference.repo },
      revision: reference.revision,
      recursive: true,
      hubUrl: settings.endpoint,
      fetch: hubFetch(settings, signal),
    });
    for await (const { type, path, size, oid, lfs } of entries) {
      if (type !== "file") continue;
      const digest: ContentDigest =
        lfs === undefined ? { algorithm: "git-sha1", hex: oid ?? "" } : { algorithm: "sha256", hex: lfs.oid };
      // These become names of files here.
      if (!isInside(path) || !/^[0-9a-f]{40,64}$/.test(digest.hex)) {
        throw new TributaryError(
          "hub-reference",
          `${hubReferenceText(reference)}: lists ${JSON.stringify(path.slice(0, 80))}, which cannot be a file of the cache`,
        );
      }
      files.push({ path, size: lfs?.size ?? size, etag: digest.hex, digest });
    }
    return files;
  });
}

/** Whether all files of a layout are there, so that nothing has to be asked; in offline mode, those it cannot do without. */
async function isWhole(
  cached: CachedRepo,
  commit: string,
  { config, companions, weights, index: indexName }: Layout,
  { offline }: HubSettings,
): Promise<boolean> {
  for (const name of offline ? [config] : companions) {
    if ((await cached.file(commit, name)) === undefined && !(await cached.lacks(commit, name))) return false;
  }
  if ((await cached.file(commit, weights)) !== undefined) return true;
  const index = indexName === undefined ? undefined : await cached.file(commit, indexName);
  if (index === undefined) return false;
  const parsed: unknown = JSON.parse(await readFile(index, "utf8"));
  const map =
    typeof parsed === "object" && parsed !== null && "weight_map" in parsed ? parsed.weight_map : {};
  const shards = new Set(Object.values(typeof map === "object" && map !== null ? map : {}).map(String));
  for (const shard of shards) if ((await cached.file(commit, shard)) === undefined) return false;
  return shards.size > 0;
}

function refusePickles(
  reference: HubReference,
  present: ReadonlySet<string>,
  { called, weights, index = weights, pickle: unread }: Layout,
): void {
  if (present.has(weights) || present.has(index)) return;
  const names = [...present];
  const pickle = names.find((name) => unread.test(name));
  const gguf = names.filter((name) => name.endsWith(".gguf"));
  const text = hubReferenceText(reference);
  if (pickle === undefined && gguf.length > 0) {
    throw new TributaryError(
      "missing-file",
      `${text}: has no safetensors, but GGUF files; name one, such as ${text}/${gguf[0]}`,
    );
  }
  throw new TributaryError(
    pickle === undefined ? "missing-file" : "pickled-weights",
    pickle === undefined
      ? `${text}: has no ${weights}; expected ${called}`
      : `${text}: has its weights in ${pickle}, which is a program for Python and is not read; take a revision with safetensors, such as ${reference.repo}@refs%2Fpr%2F1 where the hub has converted it, or fetch it with hf download ${reference.repo} --local-dir DIR and convert the folder (docs/models.md)`,
  );
}

/** A `fetch` that shows the token to the hub alone: not to the storage that it redirects to, nor to pages that it links. */
function hubFetch({ endpoint, token }: HubSettings, signal?: AbortSignal): typeof fetch {
  return (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : input);
    const headers = new Headers(init.headers);
    if (token !== undefined && url.origin === new URL(endpoint).origin)
      headers.set("authorization", `Bearer ${token}`);
    return fetch(url, { ...init, headers, ...(signal === undefined ? {} : { signal }) });
  };
}

/** Runs a question to the hub and puts what goes wrong in words. */
async function answered<T>(
  reference: HubReference,
  { endpoint }: HubSettings,
  ask: () => Promise<T>,
): Promise<T> {
  try {
    return await ask();
  } catch (cause) {
    if (cause instanceof TributaryError || (cause instanceof Error && cause.name === "AbortError"))
      throw cause;
    const name = hubReferenceText(reference);
    if (cause instanceof Error && "statusCode" in cause && typeof cause.statusCode === "number")
      throw await refusal({ status: cause.statusCode }, name);
    throw new TributaryError(
      "hub-unreachable",
      `${name}: ${endpoint} cannot be reached; look at the network, or set HF_HUB_OFFLINE=1 to use what was fetched before`,
      { cause },
    );
  }
}

function offline(reference: HubReference, { cache }: HubSettings, what: string): TributaryError {
  return new TributaryError(
    "hub-offline",
    `${hubReferenceText(reference)}: HF_HUB_OFFLINE is set and ${cache} does not hold ${what}; unset it once to fetch it`,
  );
}
