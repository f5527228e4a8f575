import { TributaryError } from "../../errors.ts";
import type { BlobBytes, BlobStore } from "../../federation/blob-store.ts";
import type { Digest } from "../../federation/digest.ts";
import type { Env } from "../../federation/env.ts";
import type { HostedRun } from "../../federation/federate.ts";
import type { AssignmentRef } from "../../federation/message.ts";
import type { Identities } from "./identities.ts";
import type { Presence } from "./presence.ts";
import {
  type Enrolment,
  type Failure,
  type Heartbeat,
  type Ids,
  INLINE,
  type Joining,
  messages,
  type Next,
  PROTOCOL,
  type Reference,
  type Submission,
  type Welcome,
  type WireLimits,
} from "./protocol.ts";
import { Refused } from "./refusal.ts";
import { type Call, jsonBody, parseMessage, type Reply, type Route } from "./route.ts";
import { runNamed, type ServedRun } from "./served-run.ts";
import { turnstile } from "./turnstile.ts";

/** What the routes of clients work on. */
export interface ClientRoutesOptions {
  readonly runs: ReadonlyMap<string, ServedRun>;
  readonly identities: Identities;
  readonly presence: Presence;
  readonly limits: WireLimits;
  readonly env: Env;
  /** Name and version of the program. */
  readonly server: string;
}

/** Updates that are read and checked at one time. */
const INTAKES = 4;

/** Milliseconds between two signs of life on a connection that is kept open; proxies cut what is silent for a minute. */
const PULSE = 10_000;

/** The routes of clients. */
export function clientRoutes({
  runs,
  identities,
  presence,
  limits,
  env,
  server,
}: ClientRoutesOptions): Route[] {
  const intake = turnstile(INTAKES);
  const published = new Map<string, Promise<{ readonly rounds: number; readonly ids: Set<Digest> }>>();
  const { messageBytes, chunkBytes, manifestBytes, waitSeconds } = limits;

  const runOf = (call: Pick<Call, "parameters">): ServedRun => runNamed(runs, call);

  /** Bytes on their way are progress: a slow network costs nobody its lease. */
  function moves(call: Pick<Call, "client" | "parameters">): void {
    runOf(call)
      .hosted()
      ?.door.renew(call.client ?? "");
  }

  function open(call: Call): {
    readonly run: ServedRun;
    readonly hosted: HostedRun;
    readonly client: string;
  } {
    const run = runOf(call);
    const hosted = run.hosted();
    // A coordinator that starts again listens before it has read its journal: its clients are asked to wait.
    if (!hosted) throw new Refused(503, "run-waits", run.status().why, 1);
    return { run, hosted, client: call.client ?? "" };
  }

  const routes: Route[] = [
    {
      method: "GET",
      path: "/v1/hello",
      summary: "What this server is, its clock, its limits and its runs.",
      who: "anyone",
      answer: messages.welcome,
      async handle() {
        const welcome: Welcome = {
          server,
          protocol: { least: PROTOCOL, most: PROTOCOL },
          time: env.wall(),
          limits,
          runs: [...runs.keys()],
        };
        return { status: 200, json: welcome };
      },
    },
    {
      method: "POST",
      path: "/v1/enrol",
      summary: "Takes in the public key of a client that shows a one-time token.",
      who: "anyone",
      body: jsonBody(messages.enrolment, messageBytes),
      answer: messages.enrolled,
      async handle({ json }) {
        return { status: 200, json: { client: await identities.enrol(json as Enrolment) } };
      },
    },
    {
      method: "GET",
      path: "/v1/runs/{run}",
      summary: "The job of a run, and what its clients start from.",
      who: "client",
      answer: messages.described,
      async handle(call) {
        return { status: 200, json: runOf(call).described };
      },
    },
    {
      method: "POST",
      path: "/v1/runs/{run}/join",
      summary: "Lets a client into a run, or back into it.",
      who: "client",
      body: jsonBody(messages.joining, messageBytes),
      async handle(call) {
        await runOf(call).join(call.client ?? "", call.json as Joining);
        return { status: 204 };
      },
    },
    {
      method: "GET",
      path: "/v1/runs/{run}/next",
      summary: "Work for the client, lent; or why there is none.",
      who: "client",
      query: {
        wait: "Seconds to wait for work.",
        since: "First round whose changes of the base are asked for.",
      },
      answer: messages.next,
      async handle(call) {
        const run = runOf(call);
        const client = call.client ?? "";
        const wait = Math.min(waitSeconds, Math.max(0, Number(call.query.get("wait") ?? 0)));
        return {
          status: 200,
          json: await nextFor(run, client, wait, Number(call.query.get("since") ?? 0), call.gone),
        };
      },
    },
    {
      method: "GET",
      path: "/v1/runs/{run}/live",
      summary:
        "A connection that a client keeps open while it takes part: a round learns from its end that it is gone.",
      who: "client",
      answer: "text/event-stream",
      async handle(call) {
        return { status: 200, events: live(runOf(call), call.client ?? "", call.gone) };
      },
    },
    {
      method: "POST",
      path: "/v1/runs/{run}/heartbeat",
      summary: "Renews the lease of an assignment.",
      who: "client",
      body: jsonBody(messages.heartbeat, messageBytes),
      answer: messages.heartbeatAnswer,
      async handle(call) {
        const { hosted, client } = open(call);
        const { assignment, progress } = call.json as Heartbeat;
        hosted.door.note(client, "here");
        const verdict = await hosted.door.heartbeat(refOf(assignment, client), progress);
        return { status: 200, json: { verdict } };
      },
    },
    {
      method: "POST",
      path: "/v1/runs/{run}/submit",
      summary: "Hands over an update; answered after it is on disk and counted.",
      who: "client",
      body: jsonBody(messages.submission, messageBytes),
      answer: messages.answer,
      async handle(call) {
        const { run, hosted, client } = open(call);
        return {
          status: 200,
          json: await intake(() => submit(run, hosted, client, call.json as Submission)),
        };
      },
    },
    {
      method: "POST",
      path: "/v1/runs/{run}/fail",
      summary: "Gives an assignment back.",
      who: "client",
      body: jsonBody(messages.failure, messageBytes),
      async handle(call) {
        const { hosted, client } = open(call);
        const { assignment, code, message } = call.json as Failure;
        await hosted.door.fail(refOf(assignment, client), { code, message });
        return { status: 204 };
      },
    },
    {
      method: "POST",
      path: "/v1/runs/{run}/blobs/missing",
      summary: "Which of some blobs the server has not.",
      who: "client",
      body: jsonBody(messages.ids, messageBytes),
      answer: messages.ids,
      async handle(call) {
        const { ids } = call.json as Ids;
        return { status: 200, json: { ids: await runOf(call).blobs.missing(ids) } };
      },
    },
    {
      method: "PUT",
      path: "/v1/runs/{run}/blobs/{digest}",
      summary: "Stores a chunk or a manifest under its SHA-256.",
      who: "client",
      body: { kind: "bytes", limit: Math.max(chunkBytes, manifestBytes) },
      moves,
      async handle(call) {
        const run = runOf(call);
        await putNamed(run.blobs, digestOf(call), call.bytes);
        return { status: 204 };
      },
    },
    ...(["GET", "HEAD"] as const).map(
      (method): Route => ({
        method,
        path: "/v1/runs/{run}/blobs/{digest}",
        summary: "The bytes of a chunk or a manifest, or a range of them.",
        who: "client",
        moves,
        handle: async (call) => ranged(await blobOf(runOf(call), digestOf(call)), call, method),
      }),
    ),
  ];
  return routes.map((route) => ({
    ...route,
    handle(call) {
      if (call.client !== undefined) presence.hear(call.client);
      return route.handle(call);
    },
  }));

  async function nextFor(
    run: ServedRun,
    client: string,
    wait: number,
    since: number,
    gone: AbortSignal,
  ): Promise<Next> {
    const hosted = run.hosted();
    const { phase, why } = run.status();
    // Nobody opens the door of a run that has failed before the server is started again.
    if (!hosted || phase === "failed") {
      await env.sleep(1000 * Math.min(wait, hosted ? 5 : 1), gone).catch(() => undefined);
      return { kind: "none", why };
    }
    const { door, state } = hosted;
    const over = endOf(hosted);
    if (over) return over;
    if (state().revoked.has(client))
      throw new Refused(403, "revoked", "an operator has taken this client out of the run");
    door.note(client, "here");
    // A run that fails wakes nobody: its clients hear of it when they ask again.
    const work = await door.next({ client, waitMs: 1000 * wait, signal: gone });
    if (gone.aborted && !presence.isHere(client)) door.note(client, "away");
    if (!work) return endOf(hosted) ?? { kind: "none", why: run.status().why };
    const { assignment, payload } = work;
    const digest = await run.offers.offer(assignment.run, assignment.round, payload);
    const manifest = run.offers.get(digest);
    const text = manifest && manifest.length <= INLINE && new TextDecoder().decode(manifest);
    return {
      kind: "work",
      assignment,
      payload: digest,
      ...(text && { text }),
      bases: state().bases.slice(since),
    };
  }

  async function* live(run: ServedRun, client: string, gone: AbortSignal): AsyncGenerator<string> {
    const leave = presence.enter(client);
    let told: HostedRun | undefined;
    try {
      while (!gone.aborted) {
        // Once: an open connection of a client that is silent for longer than its lease says nothing.
        const hosted = run.hosted();
        if (hosted !== told) hosted?.door.note(client, "here");
        told = hosted;
        yield ": here\n\n";
        await env.sleep(PULSE, gone).catch(() => undefined);
      }
    } finally {
      if (leave()) run.hosted()?.door.note(client, "away");
    }
  }

  async function submit(
    { blobs }: ServedRun,
    { door }: HostedRun,
    client: string,
    { assignment, manifest: digest, text, ...claims }: Submission,
  ): Promise<unknown> {
    const sent = text === undefined ? undefined : new TextEncoder().encode(text);
    if (sent) await putNamed(blobs, digest, sent);
    else if ((await blobs.missing([digest])).length > 0) return { status: "incomplete", missing: [digest] };
    const bytes = sent ?? (await blobs.get(digest));
    if (bytes.length > manifestBytes)
      throw new Refused(
        413,
        "too-large",
        `the manifest has ${bytes.length} bytes, the limit is ${manifestBytes}`,
      );
    const manifest = parseMessage(messages.manifest, bytes);
    const { numExamples, loss, memory, metrics } = claims;
    try {
      return await door.submitStored(refOf(assignment, client), {
        digest,
        manifest,
        numExamples,
        loss,
        ...(memory !== undefined && { memory }),
        ...(metrics !== undefined && { metrics }),
      });
    } catch (error) {
      // What was there a moment ago was swept or removed: it is asked for again.
      if (!(error instanceof TributaryError && error.code === "blob-missing")) throw error;
      return { status: "incomplete", missing: await blobs.missing([...new Set(manifest.chunks)]) };
    }
  }

  /** What clients may read: what they are offered, and the changes of the base. Updates of others are none of it. */
  async function blobOf(run: ServedRun, id: Digest): Promise<Uint8Array> {
    const offered = run.offers.get(id);
    if (offered) return offered;
    if (!(await isOfBase(run, id))) throw new Refused(404, "no-blob", `there is no blob ${id} here`);
    return run.blobs.get(id);
  }

  /** Whether a blob belongs to the changes of a run's base; their manifests are read once. */
  async function isOfBase({ id: run, hosted, blobs }: ServedRun, id: Digest): Promise<boolean> {
    const reading = (published.get(run) ?? Promise.resolve({ rounds: 0, ids: new Set<Digest>() })).then(
      async ({ rounds, ids }) => {
        const bases = hosted()?.state().bases ?? [];
        for (const { changes } of bases.slice(rounds)) {
          if (!changes) continue;
          const { chunks } = parseMessage(messages.manifest, await blobs.get(changes));
          for (const one of [changes, ...chunks]) ids.add(one);
        }
        return { rounds: bases.length, ids };
      },
    );
    published.set(run, reading);
    reading.catch(() => published.delete(run));
    return (await reading).ids.has(id);
  }
}

/** That a run is over, and why; undefined while it goes on. */
function endOf({ state }: HostedRun): Next | undefined {
  const { ended, halted, rounds } = state();
  if (ended)
    return {
      kind: "over",
      rounds: rounds.length,
      why: halted === "stopped" ? "an operator stopped the run" : "all rounds are done",
    };
  return undefined;
}

function refOf({ id, round }: Reference, client: string): AssignmentRef {
  return { id, round, client };
}

function digestOf({ parameters }: Call): Digest {
  const id = parameters.get("digest") ?? "";
  if (/^[0-9a-f]{64}$/.test(id)) return id;
  throw new Refused(404, "no-blob", `"${id}" is not a SHA-256 in lower-case hexadecimal`);
}

/** Stores what a client says is of a digest. */
async function putNamed(blobs: BlobStore, id: Digest, bytes: BlobBytes): Promise<void> {
  try {
    await blobs.put(id, bytes);
  } catch (error) {
    if (error instanceof TributaryError && error.code === "blob-damaged")
      throw new Refused(422, "wrong-digest", `what was sent does not hash to ${id}; send it again`);
    throw error;
  }
}

/** The bytes, or the range of them that is asked for. */
function ranged(bytes: Uint8Array, { headers }: Call, method: "GET" | "HEAD"): Reply {
  const wanted = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "");
  const all = { "accept-ranges": "bytes", etag: "immutable" };
  if (!wanted)
    return {
      status: 200,
      bytes: method === "HEAD" ? new Uint8Array() : bytes,
      headers: { ...all, "content-length": String(bytes.length) },
    };
  const start = Number(wanted[1]);
  const end = wanted[2] === "" ? bytes.length : Math.min(Number(wanted[2]) + 1, bytes.length);
  if (start >= end) throw new Refused(416, "bad-range", `the blob has ${bytes.length} bytes`);
  const part = bytes.subarray(start, end);
  return {
    status: 206,
    bytes: part,
    headers: { ...all, "content-range": `bytes ${start}-${end - 1}/${bytes.length}` },
  };
}
