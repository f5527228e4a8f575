import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A request as the server saw it. */
export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
  /** Which of the two servers: the hub, or the storage that it redirects large files to. */
  readonly at: "hub" | "storage";
}

export interface FakeHub {
  readonly endpoint: string;
  readonly requests: readonly Seen[];
  /** Ends the next answers after so many bytes each: at once after 0, else when `release` is called. */
  cut(...bytes: number[]): void;
  /** Cuts the connections that wait for it; a client that has seen bytes calls it, so that none are lost on the way. */
  release(): void;
  /** Answers the next requests for files with these statuses. */
  answer(...statuses: number[]): void;
  /** Changes a byte of the next answers of the storage. */
  corrupt(times: number): void;
  /** Moves the branch main to another commit. */
  move(commit: string): void;
  close(): Promise<void>;
}

export interface FakeRepo {
  readonly kind: "model" | "dataset";
  readonly repo: string;
  readonly commit: string;
  readonly files: Readonly<Record<string, Uint8Array>>;
  /** Needed to read it. */
  readonly token?: string;
}

/** Files of this size and more are kept as large files, by SHA-256 and in the storage. */
const LARGE = 1000;

/** A server that speaks the routes of the hub: revision, tree in pages, resolve with HEAD, ranges and redirects. */
export async function fakeHub(repos: readonly FakeRepo[]): Promise<FakeHub> {
  const requests: Seen[] = [];
  const cuts: number[] = [];
  const statuses: number[] = [];
  let corrupted = 0;
  let moved: string | undefined;
  const held: ServerResponse[] = [];
  const blobs = new Map<string, Uint8Array>();

  const send = (request: IncomingMessage, response: ServerResponse, whole: Uint8Array): void => {
    const status = statuses.shift();
    if (status !== undefined) {
      response.writeHead(status, { "retry-after": "0" }).end();
      return;
    }
    const from = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = Number(from?.[1] ?? 0);
    if (start >= whole.length && start > 0) {
      response.writeHead(416).end();
      return;
    }
    const end = from?.[2] ? Number(from[2]) + 1 : whole.length;
    const body = Buffer.from(whole.subarray(start, end));
    if (corrupted > 0 && body.length > 0) {
      corrupted--;
      body[0] = (body[0] ?? 0) ^ 255;
    }
    const range = from === null ? {} : { "content-range": `bytes ${start}-${end - 1}/${whole.length}` };
    response.writeHead(from === null ? 200 : 206, { "content-length": body.length, ...range });
    const limit = cuts.shift();
    if (request.method === "HEAD") response.end();
    else if (limit === undefined || limit >= body.length) response.end(body);
    else if (limit === 0) response.destroy();
    else {
      response.write(body.subarray(0, limit));
      held.push(response);
    }
  };

  const storage = createServer((request, response) => {
    note("storage", request);
    const blob = blobs.get(new URL(request.url ?? "", "http://storage").pathname.slice(1));
    if (blob === undefined) response.writeHead(404).end();
    else send(request, response, blob);
  });
  const storageAt = await listen(storage);

  const note = (at: Seen["at"], { method = "", url = "", headers }: IncomingMessage): void => {
    requests.push({ at, method, url, authorization: headers.authorization, range: headers.range });
  };

  const hub = createServer((request, response) => {
    note("hub", request);
    const url = new URL(request.url ?? "", hubAt);
    const api = /^\/api\/(model|dataset)s\/([^/]+\/[^/]+)\/(revision|tree|paths-info)\/([^/]+)/.exec(
      url.pathname,
    );
    const file = /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname);
    const kind = api?.[1] ?? (file?.[1] === undefined ? "model" : "dataset");
    const name = api?.[2] ?? file?.[2];
    const revision = decodeURIComponent(api?.[4] ?? file?.[3] ?? "");
    const repo = repos.find((one) => one.kind === kind && one.repo === name);
    const refuse = (status: number, code: string): void => {
      response.writeHead(status, { "x-error-code": code, "content-type": "application/json" });
      response.end(JSON.stringify({ error: code }));
    };
    if (repo === undefined) return refuse(401, "RepoNotFound");
    if (repo.token !== undefined && request.headers.authorization !== `Bearer ${repo.token}`)
      return refuse(401, "GatedRepo");
    const commit = revision === "main" ? (moved ?? repo.commit) : revision;
    if (commit !== repo.commit && commit !== moved) return refuse(404, "RevisionNotFound");
    if (api?.[3] === "revision") {
      const facts = {
        _id: "1",
        id: repo.repo,
        sha: commit,
        private: false,
        downloads: 0,
        gated: false,
        likes: 0,
      };
      const siblings = Object.keys(repo.files).map((rfilename) => ({ rfilename }));
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ ...facts, siblings, lastModified: "2024-01-01T00:00:00.000Z" }));
      return;
    }
    if (api?.[3] === "tree") {
      const entries = Object.entries(repo.files).map(([path, bytes]) => entryOf(path, bytes));
      const page = Number(url.searchParams.get("cursor") ?? 0);
      const next = new URL(url);
      next.searchParams.set("cursor", String(page + 1));
      const link = 2 * (page + 1) < entries.length ? { link: `<${next}>; rel="next"` } : {};
      response.writeHead(200, { "content-type": "application/json", ...link });
      response.end(JSON.stringify(entries.slice(2 * page, 2 * page + 2)));
      return;
    }
    const path = decodeURIComponent(file?.[4] ?? "");
    const bytes = repo.files[path];
    if (bytes === undefined) return refuse(404, "EntryNotFound");
    const { oid, lfs } = entryOf(path, bytes);
    response.setHeader("x-repo-commit", commit);
    response.setHeader("etag", `"${oid}"`);
    if (lfs === undefined) return send(request, response, bytes);
    blobs.set(lfs.oid, bytes);
    response.setHeader("x-linked-etag", `"${lfs.oid}"`);
    response.setHeader("x-linked-size", String(bytes.length));
    response.writeHead(302, { location: `${storageAt}/${lfs.oid}?signature=secret` }).end();
  });
  const hubAt = await listen(hub);

  return {
    endpoint: hubAt,
    requests,
    release: () => {
      for (const response of held.splice(0)) response.destroy();
    },
    cut: (...bytes) => void cuts.push(...bytes),
    answer: (...next) => void statuses.push(...next),
    corrupt: (times) => {
      corrupted = times;
    },
    move: (commit) => {
      moved = commit;
    },
    async close() {
      for (const server of [hub, storage]) {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      }
    },
  };
}

function entryOf(
  path: string,
  bytes: Uint8Array,
): {
  readonly type: "file";
  readonly path: string;
  readonly size: number;
  readonly oid: string;
  readonly lfs?: { readonly oid: string; readonly size: number; readonly pointerSize: number };
} {
  const oid = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  const entry = { type: "file", path, size: bytes.length, oid } as const;
  if (bytes.length < LARGE) return entry;
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return { ...entry, lfs: { oid: sha256, size: bytes.length, pointerSize: 134 } };
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
