import { TributaryError } from "../errors.ts";
import { type ByteSource, bytesSource } from "../formats/byte-source.ts";
import { openSafetensors, readTensors, safetensorsPieces } from "../formats/safetensors.ts";
import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { BlobStore } from "./blob-store.ts";
import { canonicalJson } from "./canonical-json.ts";
import { type Digest, type Hash, joined, webHash } from "./digest.ts";
import { type PlanEntry, planOf } from "./plan.ts";
import { type Json, packState, unpackState } from "./state.ts";
import type { BaseChange, Payload, StateTree } from "./strategy.ts";

/** What a payload is. */
export type PayloadKind = (typeof payloadKinds)[number];

/** Everything that travels or is kept as a stream of tensors; a `payload` is what a client receives in a round. */
export const payloadKinds = ["state", "model", "base", "update", "memory", "payload"] as const;

/** Names a payload: one safetensors stream cut into content-addressed chunks. The digest of its canonical JSON names the payload everywhere. */
export interface Manifest {
  readonly kind: PayloadKind;
  readonly run: string;
  readonly round: number;
  readonly client?: string;
  readonly tensors: readonly PlanEntry[];
  /** Length of the stream. */
  readonly bytes: number;
  readonly chunkSize: number;
  readonly chunks: readonly Digest[];
  /** Digest of the manifest that this one continues. */
  readonly parent?: Digest;
  readonly versions: Readonly<Record<string, string>>;
}

/** What a manifest says beyond its content. */
export interface ManifestHead {
  readonly kind: PayloadKind;
  readonly run: string;
  readonly round: number;
  readonly client?: string;
  readonly parent?: Digest;
}

/** A manifest with its digest and the bytes that it names. */
export interface Sealed {
  readonly digest: Digest;
  readonly manifest: Manifest;
  /** By digest: the chunks, as views of the tensors, and the manifest's own bytes. */
  readonly blobs: ReadonlyMap<Digest, readonly Uint8Array[]>;
}

/** The size at which streams are cut. */
export const CHUNK_SIZE: number = 1024 * 1024;

/** Versions that every manifest and journal carry. */
export const VERSIONS: Readonly<Record<string, string>> = { protocol: "1", safetensors: "1" };

/** What a payload consists of. */
export interface SealOptions {
  /** Goes into the header of the stream. */
  readonly json?: Json;
  /** Default: 1 MiB. */
  readonly chunkSize?: number;
  readonly hash?: Hash;
}

/** The manifest and the chunks of some tensors and the JSON document that goes with them. No tensor is copied. */
export async function seal(
  head: ManifestHead,
  params: Params,
  { json, chunkSize = CHUNK_SIZE, hash = webHash }: SealOptions = {},
): Promise<Sealed> {
  const pieces = safetensorsPieces(
    params,
    json === undefined ? undefined : new Map([["json", canonicalJson(json)]]),
  );
  const blobs = new Map<Digest, readonly Uint8Array[]>();
  const chunks: Digest[] = [];
  for (const chunk of cut(pieces, chunkSize)) {
    const digest = await hash(chunk);
    blobs.set(digest, chunk);
    chunks.push(digest);
  }
  const manifest: Manifest = {
    ...head,
    tensors: planOf(params),
    bytes: pieces.reduce((sum, { length }) => sum + length, 0),
    chunkSize,
    chunks,
    versions: VERSIONS,
  };
  const text = [new TextEncoder().encode(canonicalJson(manifest))];
  const digest = await hash(text);
  blobs.set(digest, text);
  return { digest, manifest, blobs };
}

/** The stream of some pieces in chunks of one size, the last one smaller. */
function cut(pieces: readonly Uint8Array[], size: number): Uint8Array[][] {
  const chunks: Uint8Array[][] = [];
  let room = 0;
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      if (room === 0) {
        chunks.push([]);
        room = size;
      }
      const part = piece.subarray(at, at + room);
      chunks.at(-1)?.push(part);
      at += part.length;
      room -= part.length;
    }
  }
  return chunks;
}

/** Chunks that are put at one time: each waits for the disk. */
const SIDE_BY_SIDE = 4;

/** Puts what the store has not yet: chunks first, the manifest last. */
export async function putSealed(store: BlobStore, { digest, manifest, blobs }: Sealed): Promise<void> {
  const missing = new Set(await store.missing([...blobs.keys()]));
  const put = async (id: Digest): Promise<void> => {
    const pieces = blobs.get(id);
    if (pieces && missing.has(id)) await store.put(id, pieces);
  };
  const chunks = [...new Set(manifest.chunks)];
  for (let from = 0; from < chunks.length; from += SIDE_BY_SIDE)
    await Promise.all(chunks.slice(from, from + SIDE_BY_SIDE).map(put));
  await put(digest);
}

/** The bytes of some pieces, copied only where there are several. */
export function whole(pieces: readonly Uint8Array[]): Uint8Array {
  const [only] = pieces;
  return only && pieces.length === 1 ? only : joined(pieces);
}

/** The manifest that a digest names. */
export async function getManifest(store: BlobStore, digest: Digest): Promise<Manifest> {
  // The digest has vouched for the bytes, which only `seal` writes.
  return JSON.parse(new TextDecoder().decode(await store.get(digest))) as Manifest;
}

/** Throws TributaryError `blob-damaged` unless a manifest has a chunk for each part of its stream. */
function assertChunks({ bytes, chunkSize, chunks }: Manifest): void {
  if (chunks.length === Math.ceil(bytes / chunkSize)) return;
  throw new TributaryError(
    "blob-damaged",
    `a manifest lists ${chunks.length} chunks of ${chunkSize} bytes for ${bytes} bytes`,
  );
}

/** Throws TributaryError `blob-damaged` unless a chunk has the length of its place. */
function assertChunk({ bytes, chunkSize, chunks }: Manifest, place: number, { length }: Uint8Array): void {
  const expected = Math.min(chunkSize, bytes - place * chunkSize);
  if (length === expected) return;
  throw new TributaryError(
    "blob-damaged",
    `chunk ${place} of ${chunks.length} has ${length} bytes, its manifest declares ${expected}`,
  );
}

/** Streams up to this size are read as a whole; of larger ones a few megabytes at a time. */
export const AT_ONCE: number = 64 * 2 ** 20;

/**
 * The stream that a manifest names, in one array: `get` brings each chunk, into its place where it can. `into` has room
 * for the stream.
 */
export async function wholeStream(
  manifest: Manifest,
  get: (id: Digest, into: Uint8Array) => Promise<Uint8Array>,
  into: Uint8Array = new Uint8Array(manifest.bytes),
): Promise<Uint8Array> {
  const { bytes, chunkSize, chunks } = manifest;
  assertChunks(manifest);
  const read = async (id: Digest, place: number): Promise<void> => {
    const target = into.subarray(place * chunkSize, Math.min((place + 1) * chunkSize, bytes));
    const chunk = await get(id, target);
    assertChunk(manifest, place, chunk);
    if (chunk !== target) target.set(chunk);
  };
  for (let from = 0; from < chunks.length; from += SIDE_BY_SIDE) {
    // Whoever gave `into` may use it again where this throws: no read may still be under way then.
    const reads = chunks.slice(from, from + SIDE_BY_SIDE).map((id, i) => read(id, from + i));
    for (const end of await Promise.allSettled(reads)) if (end.status === "rejected") throw end.reason;
  }
  return into.subarray(0, bytes);
}

/** The stream that a manifest names, read by range. The chunks of the last range are kept: ranges in order read each once. */
export function streamOf(store: BlobStore, manifest: Manifest): ByteSource {
  const { bytes, chunkSize, chunks } = manifest;
  assertChunks(manifest);
  let kept = new Map<number, Uint8Array>();

  async function chunkAt(place: number, into?: Uint8Array): Promise<Uint8Array> {
    const chunk = await store.get(chunks[place] ?? "", into);
    assertChunk(manifest, place, chunk);
    return chunk;
  }

  return {
    size: bytes,
    async read(start, end) {
      const used = new Map<number, Uint8Array>();
      const first = Math.floor(start / chunkSize);
      if (end <= (first + 1) * chunkSize) {
        const chunk = kept.get(first) ?? (await chunkAt(first));
        kept = new Map([[first, chunk]]);
        return chunk.subarray(start - first * chunkSize, end - first * chunkSize);
      }
      const range = new Uint8Array(end - start);
      for (let place = first; place * chunkSize < end; place++) {
        const from = place * chunkSize; // of the chunk, in the stream
        const to = Math.min(from + chunkSize, bytes);
        const inside = from >= start && to <= end;
        const target = inside ? range.subarray(from - start, to - start) : undefined;
        const chunk = kept.get(place) ?? (await chunkAt(place, target));
        if (chunk === target) continue;
        used.set(place, chunk);
        range.set(chunk.subarray(Math.max(start - from, 0), end - from), Math.max(from - start, 0));
      }
      kept = used;
      return range;
    },
  };
}

/** The tensors and the JSON document that a manifest names. */
export async function open(
  store: BlobStore,
  digest: Digest,
): Promise<{ readonly params: Params; readonly json: Json | undefined; readonly manifest: Manifest }> {
  const manifest = await getManifest(store, digest);
  const source =
    manifest.bytes > AT_ONCE
      ? streamOf(store, manifest)
      : bytesSource(await wholeStream(manifest, (id, into) => store.get(id, into)));
  return { ...(await readStream(source, digest)), manifest };
}

/** The tensors, which are views where they can be, and the JSON document of a stream that nobody writes to any more. */
async function readStream(
  source: ByteSource,
  digest: Digest,
): Promise<{ readonly params: Params; readonly json: Json | undefined }> {
  const file = await openSafetensors(source, `manifest ${digest}`, { views: true });
  const text = file.metadata.get("json");
  return {
    params: await readTensors(file),
    json: text === undefined ? undefined : (JSON.parse(text) as Json),
  };
}

/** The tensors of a stored update under one set of names, as views of `into`, which has room for its stream. */
export async function openUpdate(
  store: BlobStore,
  { digest, manifest }: { readonly digest: Digest; readonly manifest: Manifest },
  into: Uint8Array,
): Promise<Params> {
  const bytes = await wholeStream(manifest, (id, target) => store.get(id, target), into);
  return (await readStream(bytesSource(bytes), digest)).params;
}

/** Seals a state of a strategy. */
export function sealState(
  head: ManifestHead,
  state: StateTree,
  hash?: Hash,
  chunkSize?: number,
): Promise<Sealed> {
  const { params, json } = packState(state);
  return seal(head, params, {
    json,
    ...(hash && { hash }),
    ...(chunkSize !== undefined && { chunkSize }),
  });
}

/** The state that `sealState` sealed. */
export async function openState(store: BlobStore, digest: Digest): Promise<StateTree> {
  const { params, json } = await open(store, digest);
  return unpackState({ params, json: json ?? null });
}

/** Seals what a client receives in a round. */
export function sealPayload(
  head: ManifestHead,
  payload: Payload,
  hash?: Hash,
  chunkSize?: number,
): Promise<Sealed> {
  return sealState(head, { ...payload }, hash, chunkSize);
}

/** The payload of a stream in memory that nobody writes to any more. */
export async function readPayload(stream: Uint8Array, digest: Digest): Promise<Payload> {
  const { params, json } = await readStream(bytesSource(stream), digest);
  // The digests of the chunks have vouched for the bytes, which only `sealPayload` writes.
  return unpackState({ params, json: json ?? null }) as { readonly [key: string]: StateTree } & Payload;
}

/** What `sealPayload` sealed. */
export async function openPayload(store: BlobStore, digest: Digest): Promise<Payload> {
  // The digest has vouched for the bytes, which only `sealPayload` writes.
  return (await openState(store, digest)) as { readonly [key: string]: StateTree } & Payload;
}

/** Seals the changes of the base that one round made. */
export function sealBaseChanges(
  head: ManifestHead,
  changes: readonly BaseChange[],
  hash?: Hash,
): Promise<Sealed> {
  return sealState(
    head,
    changes.map((change) => ({ ...change })),
    hash,
  );
}

/** The changes that `sealBaseChanges` sealed. */
export async function openBaseChanges(store: BlobStore, digest: Digest): Promise<readonly BaseChange[]> {
  // The digest has vouched for the bytes, which only `sealBaseChanges` writes.
  return (await openState(store, digest)) as readonly BaseChange[];
}

/** What a client keeps from one round to the next. */
export interface ClientMemory {
  readonly memory?: Params;
  readonly optimizer?: Params;
}

/** Seals what a client keeps. */
export function sealMemory(
  head: ManifestHead,
  { memory, optimizer }: ClientMemory,
  hash?: Hash,
): Promise<Sealed> {
  return sealState(head, { ...(memory && { memory }), ...(optimizer && { optimizer }) }, hash);
}

/** What `sealMemory` sealed. */
export async function openMemory(store: BlobStore, digest: Digest): Promise<ClientMemory> {
  // The digest has vouched for the bytes, which only `sealMemory` writes.
  return (await openState(store, digest)) as ClientMemory;
}

/** Prefixes under which the parts of an update travel in one stream. */
const parts = ["params/", "extra/"] as const;

/** Seals what a client sends: `params/<name>` and `extra/<name>`. */
export function sealUpdate(
  head: ManifestHead,
  update: { readonly params: Params; readonly extra?: Params },
  hash?: Hash,
  chunkSize?: number,
): Promise<Sealed> {
  return seal(head, joinUpdate(update), {
    ...(hash && { hash }),
    ...(chunkSize !== undefined && { chunkSize }),
  });
}

/** Where a tensor of an update may stand in its stream. */
export function streamNames(name: string): string[] {
  return parts.map((part) => `${part}${name}`);
}

/** The tensors of an update under one set of names. */
export function joinUpdate({ params, extra }: { readonly params: Params; readonly extra?: Params }): Params {
  const joined = new Map<string, Tensor>();
  for (const [name, tensor] of params) joined.set(`${parts[0]}${name}`, tensor);
  for (const [name, tensor] of extra ?? []) joined.set(`${parts[1]}${name}`, tensor);
  return joined;
}

/** What `joinUpdate` joined. */
export function splitUpdate(joined: Params): { readonly params: Params; readonly extra?: Params } {
  const [params, extra] = parts.map((part) => {
    const members = new Map<string, Tensor>();
    for (const [name, tensor] of joined)
      if (name.startsWith(part)) members.set(name.slice(part.length), tensor);
    return members;
  });
  return { params: params ?? new Map(), ...(extra && extra.size > 0 && { extra }) };
}
