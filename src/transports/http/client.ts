import { TributaryError } from "../../errors.ts";
import { type BaseChain, baseChain, extendChain } from "../../federation/base-chain.ts";
import type { BlobStore } from "../../federation/blob-store.ts";
import type { Digest } from "../../federation/digest.ts";
import type { Env } from "../../federation/env.ts";
import {
  AT_ONCE,
  type ClientMemory,
  getManifest,
  openBaseChanges,
  openMemory,
  openPayload,
  putSealed,
  readPayload,
  type Sealed,
  sealMemory,
  sealUpdate,
  whole,
  wholeStream,
} from "../../federation/manifest.ts";
import type {
  Assignment,
  ClientUpdate,
  Incomplete,
  Progress,
  Receipt,
  Work,
} from "../../federation/message.ts";
import type { Payload } from "../../federation/strategy.ts";
import type { ClientTransport } from "../../federation/transport.ts";
import type { Connection } from "./connection.ts";
import { INLINE, messages, type Next, type Submission } from "./protocol.ts";
import type { Signer } from "./send.ts";
import { turnstile } from "./turnstile.ts";

/** What a client keeps on its own machine for one run. */
export interface ClientStore {
  /** Its unsent update, what it remembers, and what it fetched. */
  readonly blobs: BlobStore;
  /** The submission that has no receipt yet. */
  unsent(): Promise<Unsent | undefined>;
  /** Durable on return. */
  keepUnsent(unsent: Unsent | undefined): Promise<void>;
}

/** A submission that waits for its receipt. */
export interface Unsent {
  readonly client: string;
  readonly submission: Submission;
}

/** How a client takes part in a run over HTTP. */
export interface HttpTransportOptions {
  readonly connection: Connection;
  readonly signer: Signer;
  readonly run: string;
  /** Names the pretrained weights of the run. */
  readonly base: string;
  readonly store: ClientStore;
  readonly env: Env;
  /** Milliseconds between two heartbeats. Default: 5,000. */
  readonly heartbeatMs?: number;
  /** Called with every receipt. */
  readonly onReceipt?: (receipt: Receipt, unsent: Unsent) => void;
  /** Told why there is no work. */
  readonly onIdle?: (why: string) => void;
}

/** Chunks on their way at one time. */
const IN_FLIGHT = 4;

/** Bytes per second of the slowest network on which a chunk is not given up. */
const SLOWEST = 4096;

/** Longest time for a blob whose size is not known. */
const BLOB_TIMEOUT = 600_000;

/** Tries at something that the network or a server's restart may spoil. */
const TRIES = 10;

/** The client's side of the wire: fetches work, keeps updates until their receipt, goes on where either side was cut off. */
export function httpTransport(options: HttpTransportOptions): ClientTransport {
  const { connection, signer, run, store, env, heartbeatMs = 5000 } = options;
  const { onReceipt = () => {}, onIdle = () => {} } = options;
  const at = `/v1/runs/${run}`;
  const line = turnstile(IN_FLIGHT);
  const digestOf = (bytes: Uint8Array): Digest | Promise<Digest> => env.hash([bytes]);
  let chain: BaseChain = baseChain(options.base);
  let known = 0;
  /** Blobs of the changes of the base. */
  const ofBase = new Set<Digest>();
  let current: Assignment | undefined;
  let arrived = env.monotonic();
  let beaten = { at: Number.NEGATIVE_INFINITY, verdict: "continue" as "continue" | "abandon", id: "" };

  /** Renews the lease while work arrives: what the server has long handed to the network may be on its way for minutes. */
  function arriving(): void {
    if (!current || env.monotonic() - arrived < heartbeatMs) return;
    arrived = env.monotonic();
    const { id, round } = current;
    connection
      .fetch({ method: "POST", path: `${at}/heartbeat`, json: { assignment: { id, round } }, signer })
      // The exchange that it is about says what is wrong.
      .catch(() => undefined);
  }

  /** A blob of the server, verified; in `into`, where it has that length. */
  async function fetchBlob(id: Digest, into?: Uint8Array): Promise<Uint8Array> {
    for (let tries = 1; ; tries++) {
      const bytes = await line(() =>
        connection.fetch({
          method: "GET",
          path: `${at}/blobs/${id}`,
          signer,
          timeoutMs: BLOB_TIMEOUT,
          onPiece: arriving,
          ...(into && { into }),
        }),
      );
      if ((await digestOf(bytes)) === id) return bytes;
      if (tries === TRIES)
        throw new TributaryError(
          "blob-damaged",
          `blob ${id} arrived damaged ${tries} times; look at the network between here and the server`,
        );
    }
  }

  /** Brings a manifest and its chunks into the store, and names them: what is there is not fetched again. */
  async function download(digest: Digest): Promise<readonly Digest[]> {
    const has = async (id: Digest): Promise<boolean> => (await store.blobs.missing([id])).length === 0;
    const bring = async (id: Digest): Promise<void> => {
      if (!(await has(id))) await store.blobs.put(id, await fetchBlob(id));
    };
    await bring(digest);
    const manifest = messages.manifest.parse(
      JSON.parse(new TextDecoder().decode(await store.blobs.get(digest))),
    );
    await Promise.all([...new Set(manifest.chunks)].map(bring));
    return [digest, ...manifest.chunks];
  }

  /** What the server sends in a round. */
  async function payloadOf(digest: Digest, text: string | undefined, live: Set<Digest>): Promise<Payload> {
    const sent = text === undefined ? undefined : new TextEncoder().encode(text);
    const bytes = sent && (await digestOf(sent)) === digest ? sent : await fetchBlob(digest);
    const manifest = messages.manifest.parse(JSON.parse(new TextDecoder().decode(bytes)));
    const large = manifest.bytes > AT_ONCE;
    if (large) for (const id of [digest, ...manifest.chunks]) live.add(id);
    // What earlier rounds have left makes room first.
    await store.blobs.sweep(live, 0);
    // What is large goes through the store, where a restart finds it.
    if (!large) return readPayload(await wholeStream(manifest, fetchBlob), digest);
    await store.blobs.put(digest, bytes);
    await download(digest);
    return openPayload(store.blobs, digest);
  }

  async function catchUp(bases: Extract<Next, { kind: "work" }>["bases"], version: string): Promise<void> {
    for (const { changes } of bases) {
      if (changes !== null) {
        for (const id of await download(changes)) ofBase.add(id);
        chain = await extendChain(chain, await openBaseChanges(store.blobs, changes), digestOf);
      }
      known++;
    }
    if (chain.version === version) return;
    throw new TributaryError(
      "base-mismatch",
      `the base here is at version ${chain.version}, the server's at ${version}; are both the same pretrained weights?`,
    );
  }

  async function workOf({
    assignment,
    payload,
    text,
    bases,
  }: Extract<Next, { kind: "work" }>): Promise<Work> {
    current = assignment;
    arrived = env.monotonic();
    await catchUp(bases, assignment.baseVersion);
    const { memory } = assignment;
    const kept: ClientMemory = memory === undefined ? {} : await openMemory(store.blobs, memory);
    // Every update before this assignment has its receipt, and of what it remembers the server has named what counts.
    const live = new Set(ofBase);
    if (memory !== undefined)
      for (const id of [memory, ...(await getManifest(store.blobs, memory)).chunks]) live.add(id);
    return { assignment, payload: await payloadOf(payload, text, live), chain, ...kept };
  }

  /** Uploads what the server has not, from memory where it still is, and submits until there is a receipt. */
  async function deliver(unsent: Unsent, sealed?: Sealed): Promise<Receipt> {
    const { submission } = unsent;
    const manifest = await bytesOf(submission.manifest, sealed);
    const { chunks } = sealed?.manifest ?? (await getManifest(store.blobs, submission.manifest));
    const inline = manifest.length <= INLINE && { text: new TextDecoder().decode(manifest) };
    const all = [...new Set(inline ? chunks : [...chunks, submission.manifest])];
    const send = (id: Digest): Promise<void> => upload(id, sealed);
    // Of an update that was made just now the server has nothing; where it is small, asking costs more than sending.
    let absent = sealed && all.length <= IN_FLIGHT ? all : await missing(all);
    for (;;) {
      await Promise.all(absent.filter((id) => id !== submission.manifest).map(send));
      if (absent.includes(submission.manifest)) await send(submission.manifest);
      const answer: Receipt | Incomplete = await connection.ask({
        method: "POST",
        path: `${at}/submit`,
        json: { ...submission, ...inline },
        signer,
        schema: messages.answer,
        timeoutMs: 600_000,
      });
      if (answer.status !== "incomplete") {
        onReceipt(answer, unsent);
        await store.keepUnsent(undefined);
        return answer;
      }
      absent = [...answer.missing];
    }
  }

  /**
   * A crash may bring back the note of an update whose blobs were swept since. That is done after its receipt only, so
   * there is nothing left to send.
   */
  async function outlived(error: unknown): Promise<void> {
    if (!hasCode(error, "blob-missing")) throw error;
    await store.keepUnsent(undefined);
  }

  async function missing(ids: readonly Digest[]): Promise<Digest[]> {
    const absent: Digest[] = [];
    for (let from = 0; from < ids.length; from += 3000) {
      const { ids: some } = await connection.ask({
        method: "POST",
        path: `${at}/blobs/missing`,
        json: { ids: ids.slice(from, from + 3000) },
        signer,
        schema: messages.ids,
      });
      absent.push(...some);
    }
    return absent;
  }

  /** A small blob, as a whole. */
  async function bytesOf(id: Digest, sealed: Sealed | undefined): Promise<Uint8Array> {
    const pieces = sealed?.blobs.get(id);
    return pieces ? whole(pieces) : store.blobs.get(id);
  }

  /** Sends one blob, again where it arrived damaged. */
  const upload = (id: Digest, sealed?: Sealed): Promise<void> =>
    line(async () => {
      const bytes = sealed?.blobs.get(id) ?? [await store.blobs.get(id)];
      const length = bytes.reduce((sum, piece) => sum + piece.length, 0);
      const timeoutMs = 60_000 + Math.ceil((1000 * length) / SLOWEST);
      for (let tries = 1; ; tries++) {
        try {
          await connection.fetch({
            method: "PUT",
            path: `${at}/blobs/${id}`,
            bytes,
            digest: id,
            signer,
            timeoutMs,
          });
          return;
        } catch (error) {
          if (!hasCode(error, "wrong-digest") || tries === TRIES) throw error;
        }
      }
    });

  return {
    async next({ waitMs, signal }) {
      const end = env.monotonic() + waitMs;
      const left = await store.unsent();
      if (left) await deliver(left).catch(outlived);
      for (let spoiled = 0; !signal.aborted; ) {
        const wait = Math.min(
          connection.welcome.limits.waitSeconds,
          Math.max(0, (end - env.monotonic()) / 1000),
        );
        const answer = await connection.ask({
          method: "GET",
          path: `${at}/next?wait=${Math.ceil(wait)}&since=${known}`,
          signer,
          schema: messages.next,
          timeoutMs: 1000 * (Math.ceil(wait) + 30),
        });
        if (answer.kind === "work") {
          try {
            return await workOf(answer);
          } catch (error) {
            // A server that has started again offers a payload when it is asked for work.
            if (!hasCode(error, "no-blob") || ++spoiled === TRIES) throw error;
            continue;
          }
        }
        if (answer.kind === "over") return null;
        onIdle(answer.why);
        if (env.monotonic() >= end) return null;
      }
      return null;
    },
    async heartbeat({ id, round }, progress?: Progress) {
      if (beaten.id === id && env.monotonic() - beaten.at < heartbeatMs) return beaten.verdict;
      beaten = { at: env.monotonic(), verdict: beaten.id === id ? beaten.verdict : "continue", id };
      const { verdict } = await connection.ask({
        method: "POST",
        path: `${at}/heartbeat`,
        json: { assignment: { id, round }, ...(progress && { progress }) },
        signer,
        schema: messages.heartbeatAnswer,
      });
      beaten = { ...beaten, verdict };
      return verdict;
    },
    async submit({ id }, update) {
      if (current?.id !== id)
        throw new RangeError(`http: assignment ${id} is not the one that this client holds`);
      const { unsent, sealed } = await keep(current, update);
      return deliver(unsent, sealed);
    },
    async fail({ id, round }, { code, message }) {
      await connection.fetch({
        method: "POST",
        path: `${at}/fail`,
        json: { assignment: { id, round }, code, message: message.slice(0, 2000) },
        signer,
      });
    },
    async close() {},
  };

  /** Makes an update durable here before the first byte of it leaves. */
  async function keep(
    assignment: Assignment,
    update: ClientUpdate,
  ): Promise<{ readonly unsent: Unsent; readonly sealed: Sealed }> {
    const { id, run, round, client, state } = assignment;
    const head = { run, round, client } as const;
    const chunkSize = connection.welcome.limits.chunkBytes;
    const sealed = await sealUpdate({ kind: "update", ...head, parent: state }, update, env.hash, chunkSize);
    await putSealed(store.blobs, sealed);
    const { memory, optimizer, numExamples, loss, metrics } = update;
    const kept =
      memory || optimizer
        ? await sealMemory(
            { kind: "memory", ...head },
            { ...(memory && { memory }), ...(optimizer && { optimizer }) },
            env.hash,
          )
        : undefined;
    if (kept) await putSealed(store.blobs, kept);
    const unsent: Unsent = {
      client,
      submission: {
        assignment: { id, round },
        manifest: sealed.digest,
        ...(kept && { memory: kept.digest }),
        numExamples,
        loss,
        ...(metrics && { metrics }),
      },
    };
    await store.keepUnsent(unsent);
    return { unsent, sealed };
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof TributaryError && error.code === code;
}
