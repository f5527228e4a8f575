import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { TributaryError } from "../errors.ts";

/** What the content of a file has to hash to: SHA-256 of large files, Git's SHA-1 of a blob for the others. */
export interface ContentDigest {
  readonly algorithm: "sha256" | "git-sha1";
  readonly hex: string;
}

export interface DownloadOptions {
  readonly url: string;
  /** The name that messages use. */
  readonly name: string;
  /** Where the file goes once it is whole; until then it grows at `<target>.incomplete`. */
  readonly target: string;
  readonly size: number;
  readonly digest: ContentDigest;
  readonly fetch: typeof fetch;
  readonly signal?: AbortSignal;
  /** Called with the bytes that are there. */
  readonly onProgress?: (bytes: number) => void;
  /** Attempts in a row that may bring nothing new. */
  readonly attempts?: number;
  /** Milliseconds before the second attempt; doubled for each further one, up to 30 seconds. */
  readonly pauseMs?: number;
  /** Milliseconds without a byte after which a connection counts as cut. */
  readonly stallMs?: number;
}

/**
 * Fetches a file into the cache. A connection that is cut is taken up where it ended, within this call and in later ones;
 * the whole is compared with its digest before it gets its name.
 */
export async function download(options: DownloadOptions): Promise<void> {
  const { name, target, size, digest, signal, attempts = 5, pauseMs = 500 } = options;
  const partial = `${target}.incomplete`;
  await mkdir(dirname(target), { recursive: true });
  let failures = 0;
  let restarts = 0;
  for (;;) {
    signal?.throwIfAborted();
    const before = await sizeOf(partial);
    const outcome: Cut | undefined =
      before === size && size > 0 ? undefined : await fetchRest(options, partial, before);
    if (outcome === undefined) {
      if ((await digestOf(partial, digest.algorithm, size)) === digest.hex) break;
      await rm(partial, { force: true });
      restarts++;
      if (restarts > 1) {
        throw new TributaryError(
          "hub-corrupt",
          `${name}: the content twice differed from its digest ${digest.hex}; something between here and the hub changes files`,
        );
      }
      continue;
    }
    failures = (await sizeOf(partial)) > before ? 1 : failures + 1;
    if (failures >= attempts) {
      throw new TributaryError(
        "hub-unreachable",
        `${name}: ${outcome.reason}, ${attempts} times in a row; ${await sizeOf(partial)} of ${size} bytes are kept, run the same command to go on`,
        { cause: outcome.cause },
      );
    }
    const wait = Math.max(outcome.waitMs ?? 0, pauseMs * 2 ** (failures - 1));
    await pause(Math.min(wait, 30_000), undefined, signal === undefined ? {} : { signal });
  }
  await rename(partial, target);
}

/** Why an attempt ended before the file was whole. */
interface Cut {
  readonly reason: string;
  readonly waitMs?: number;
  readonly cause?: unknown;
}

async function fetchRest(options: DownloadOptions, partial: string, have: number): Promise<Cut | undefined> {
  const { url, size, fetch, signal, stallMs = 60_000, onProgress = () => {} } = options;
  let start = have > size ? 0 : have;
  const stalled = new AbortController();
  let timer = setTimeout(() => stalled.abort(), stallMs);
  try {
    const response = await fetch(url, {
      signal: signal === undefined ? stalled.signal : AbortSignal.any([signal, stalled.signal]),
      // Content that is packed on the way would make byte ranges mean something else.
      headers: { "accept-encoding": "identity", ...(start > 0 ? { range: `bytes=${start}-` } : {}) },
    });
    if (response.status === 416) {
      await rm(partial, { force: true });
      return { reason: "the hub refused the range" };
    }
    if (response.status === 429 || response.status >= 500) {
      await response.body?.cancel();
      const seconds = Number(response.headers.get("retry-after") ?? 0);
      return {
        reason: `the hub answered with status ${response.status}`,
        waitMs: Number.isFinite(seconds) ? 1000 * seconds : 0,
      };
    }
    if (!response.ok || response.body === null) throw await refusal(response, options.name);
    if (response.status !== 206 || rangeStart(response) !== start) {
      if (response.status === 206) {
        await response.body.cancel();
        await rm(partial, { force: true });
        return { reason: "the hub sent another range" };
      }
      start = 0;
    }
    const file = await open(partial, start === 0 ? "w" : "r+");
    try {
      let at = start;
      for await (const chunk of response.body) {
        clearTimeout(timer);
        timer = setTimeout(() => stalled.abort(), stallMs);
        if (at + chunk.length > size) {
          await file.truncate(0);
          return { reason: `the hub sent more than the ${size} bytes of the file` };
        }
        await file.writev([chunk], at);
        at += chunk.length;
        onProgress(at);
      }
      return at === size ? undefined : { reason: "the connection ended early" };
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof TributaryError || signal?.aborted === true) throw cause;
    if (isDiskError(cause)) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new TributaryError("disk-write", `${options.name} was not written: ${why}`, { cause });
    }
    return { reason: stalled.signal.aborted ? "no byte came for too long" : "the connection was cut", cause };
  } finally {
    clearTimeout(timer);
  }
}

/** The error of a status of the hub that no further attempt would change. */
export async function refusal(
  response: { readonly status: number; readonly body?: { cancel(): Promise<void> } | null },
  name: string,
): Promise<TributaryError> {
  await response.body?.cancel();
  const { status } = response;
  if (status === 401 || status === 403) {
    const next =
      status === 401
        ? "correct the name, or set HF_TOKEN to a token that may read it"
        : "ask for access on its page, with the account of HF_TOKEN";
    return new TributaryError(
      "hub-unauthorized",
      `${name}: the hub answered with status ${status}: it is not public, or not there; ${next}`,
    );
  }
  if (status === 404) {
    return new TributaryError(
      "hub-not-found",
      `${name}: not on the hub (status 404); correct the name or the revision`,
    );
  }
  return new TributaryError(
    "hub-unreachable",
    `${name}: the hub answered with status ${status}; try again later`,
  );
}

function rangeStart(response: Response): number | undefined {
  const found = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "");
  return found === null ? undefined : Number(found[1]);
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (found) => found.size,
    () => 0,
  );
}

async function digestOf(path: string, algorithm: ContentDigest["algorithm"], size: number): Promise<string> {
  const hash = createHash(algorithm === "sha256" ? "sha256" : "sha1");
  if (algorithm === "git-sha1") hash.update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}

function isDiskError(error: unknown): boolean {
  return (
    error instanceof Error && "code" in error && /^(?:ENOSPC|EACCES|EROFS|EDQUOT)$/.test(String(error.code))
  );
}
