import { z } from "zod";
import { type Manifest, payloadKinds } from "../../federation/manifest.ts";
import {
  type Assignment,
  type FailReason,
  failCodes,
  type Incomplete,
  type Progress,
  type Receipt,
  rejectCodes,
} from "../../federation/message.ts";
import { dtypes } from "../../tensor/dtype.ts";

/** Version of the wire; a server says which it speaks, a client refuses what it does not know. */
export const PROTOCOL = 1;

/** Sizes that are checked before anything is read. A server announces its own in `Welcome`. */
export interface WireLimits {
  /** Largest body of a control message. */
  readonly messageBytes: number;
  /** Largest chunk of a stream of tensors. */
  readonly chunkBytes: number;
  /** Largest manifest. */
  readonly manifestBytes: number;
  /** Longest wait for an assignment, in seconds. */
  readonly waitSeconds: number;
}

/** Bytes of a manifest up to which it travels in the message that names it. */
export const INLINE: number = 2 ** 16;

/** The limits of a server that is not told others. */
export const usualLimits: WireLimits = {
  messageBytes: 256 * 1024,
  chunkBytes: 4 * 2 ** 20,
  manifestBytes: 4 * 2 ** 20,
  waitSeconds: 25,
};

/** What a server says to whoever asks. */
export interface Welcome {
  readonly server: string;
  readonly protocol: { readonly least: number; readonly most: number };
  /** Milliseconds of the server's clock: clients count on from it. */
  readonly time: number;
  readonly limits: WireLimits;
  readonly runs: readonly string[];
}

/** A client shows a one-time token and its own public key (Ed25519, 32 bytes in base64url). */
export interface Enrolment {
  readonly token: string;
  readonly publicKey: string;
  readonly name: string;
}

/** Under which name the server knows the client from now on. */
export interface Enrolled {
  readonly client: string;
}

/** What a client brings to a run. */
export interface Joining {
  /** Examples that it holds; absent where its policy keeps that to itself. */
  readonly numExamples?: number | undefined;
}

/** The run as a client has to know it. */
export interface Described {
  readonly run: string;
  /** The job, as canonical JSON, without what is the coordinator's own. */
  readonly job: string;
  /** Names the pretrained weights. */
  readonly base: string;
}

/** Work, or why there is none. */
export type Next =
  | {
      readonly kind: "work";
      readonly assignment: Assignment;
      /** Digest of the manifest of what the client receives. */
      readonly payload: string;
      /** That manifest, where it has at most `INLINE` bytes. */
      readonly text?: string;
      /** Changes of the base by round, from the round asked for: their manifest, and the version of the base after them. */
      readonly bases: readonly { readonly changes: string | null; readonly version: string }[];
    }
  | { readonly kind: "none"; readonly why: string }
  | { readonly kind: "over"; readonly rounds: number; readonly why: string };

/** Names an assignment; its client is whoever signed. */
export interface Reference {
  readonly id: string;
  readonly round: number;
}

/** How far a client is. */
export interface Heartbeat {
  readonly assignment: Reference;
  /** Absent while what the client starts from is on its way to it. */
  readonly progress?: Progress;
}

/** Whether the client should go on. */
export interface HeartbeatAnswer {
  readonly verdict: "continue" | "abandon";
}

/** An update whose chunks and manifest the server has. */
export interface Submission {
  readonly assignment: Reference;
  /** Digest of the update's manifest. */
  readonly manifest: string;
  /** That manifest, where it has at most `INLINE` bytes; a larger one is put as a blob first. */
  readonly text?: string;
  readonly memory?: string | undefined;
  readonly numExamples: number;
  readonly loss: number;
  readonly metrics?: Readonly<Record<string, number>> | undefined;
}

/** A client gives an assignment back. */
export interface Failure extends FailReason {
  readonly assignment: Reference;
}

/** Digests of which a client asks what the server has not; and the answer. */
export interface Ids {
  readonly ids: readonly string[];
}

/** Where a run stands. */
export interface RunStatus {
  readonly run: string;
  readonly phase: "gathering" | "collecting" | "aggregating" | "paused" | "stopped" | "failed" | "ended";
  /** Committed rounds, and those that the job asks for. */
  readonly rounds: { readonly done: number; readonly of: number };
  /** The open round. */
  readonly open?:
    | {
        readonly round: number;
        readonly attempt: number;
        readonly accepted: number;
        readonly target: number;
        readonly quorum: number;
        readonly elapsedSeconds: number;
        readonly deadlineSeconds: number | null;
      }
    | undefined;
  /** What it waits for, or why it ended. */
  readonly why: string;
  /** Clients that take part, and those that hold a connection. */
  readonly clients: { readonly joined: number; readonly of: number; readonly here: number };
  /** Mean training loss of the last round. */
  readonly loss?: number | undefined;
  /** Median of the seconds that a round took. */
  readonly roundSeconds?: number | undefined;
}

/** Where a server and its runs stand. */
export interface ServerStatus {
  readonly server: string;
  readonly upSeconds: number;
  readonly runs: readonly RunStatus[];
}

/** What a server knows of a client. */
export interface ClientStatus {
  readonly client: string;
  readonly here: boolean;
  /** Seconds since its last request; absent where it has sent none since the server started. */
  readonly seenSeconds?: number | undefined;
  /** Why it was removed. */
  readonly revoked?: string | undefined;
  /** What it does in each run that it has joined. */
  readonly runs: readonly {
    readonly run: string;
    readonly state: "waiting" | "working" | "delivered" | "dropped" | "not-asked";
    readonly accepted: number;
    readonly progress?: Progress | undefined;
  }[];
}

/** All clients of a server. */
export interface ClientList {
  readonly clients: readonly ClientStatus[];
}

/** Why an operator removes a client. */
export interface Removal {
  readonly reason: string;
}

/** How many one-time tokens an operator wants, and for how long. */
export interface TokenOrder {
  readonly count: number;
  readonly seconds: number;
}

/** One-time tokens, each for one client. */
export interface Tokens {
  readonly tokens: readonly string[];
}

/** Whether a server does its work. */
export interface Health {
  readonly ok: boolean;
  readonly problems: readonly string[];
}

/** What is said of a request that failed. */
export interface Problem {
  readonly error: { readonly code: string; readonly message: string };
}

const count = z.int().min(0);
const digest = z.string().regex(/^[0-9a-f]{64}$/);
const name = z.string().regex(/^[a-z0-9-]{1,64}$/);
const reference = z.strictObject({ id: digest, round: z.int().min(1) });
const progress = z.strictObject({ step: count, steps: count, loss: z.number().exactOptional() });
const assignment = z.strictObject({
  id: digest,
  round: z.int().min(1),
  client: name,
  run: z.string().max(128),
  attempt: z.int().min(1),
  lease: z.int().min(1),
  context: z.strictObject({ round: z.int(), seed: z.int(), numClients: z.int() }),
  ref: z.object({ id: name, rank: count, scaling: z.number() }),
  state: z.string().max(128),
  baseVersion: z.string().max(256),
  memory: digest.exactOptional(),
});

const runStatus = z.strictObject({
  run: name,
  phase: z.enum(["gathering", "collecting", "aggregating", "paused", "stopped", "failed", "ended"]),
  rounds: z.strictObject({ done: count, of: count }),
  open: z
    .strictObject({
      round: z.int().min(1),
      attempt: z.int().min(1),
      accepted: count,
      target: count,
      quorum: count,
      elapsedSeconds: z.number(),
      deadlineSeconds: z.number().nullable(),
    })
    .exactOptional(),
  why: z.string(),
  clients: z.strictObject({ joined: count, of: count, here: count }),
  loss: z.number().exactOptional(),
  roundSeconds: z.number().exactOptional(),
});

/** The form of every message: what does not fit is refused before anything is done with it. */
export const messages: {
  readonly version: z.ZodType<Pick<Welcome, "server" | "protocol">>;
  readonly welcome: z.ZodType<Welcome>;
  readonly enrolment: z.ZodType<Enrolment>;
  readonly enrolled: z.ZodType<Enrolled>;
  readonly joining: z.ZodType<Joining>;
  readonly described: z.ZodType<Described>;
  readonly next: z.ZodType<Next>;
  readonly heartbeat: z.ZodType<Heartbeat>;
  readonly heartbeatAnswer: z.ZodType<HeartbeatAnswer>;
  readonly submission: z.ZodType<Submission>;
  readonly answer: z.ZodType<Receipt | Incomplete>;
  readonly failure: z.ZodType<Failure>;
  readonly ids: z.ZodType<Ids>;
  readonly manifest: z.ZodType<Manifest>;
  readonly problem: z.ZodType<Problem>;
  readonly serverStatus: z.ZodType<ServerStatus>;
  readonly runStatus: z.ZodType<RunStatus>;
  readonly clientList: z.ZodType<ClientList>;
  readonly removal: z.ZodType<Removal>;
  readonly tokenOrder: z.ZodType<TokenOrder>;
  readonly tokens: z.ZodType<Tokens>;
  readonly health: z.ZodType<Health>;
} = {
  version: z.object({ server: z.string(), protocol: z.object({ least: z.int(), most: z.int() }) }),
  welcome: z.strictObject({
    server: z.string(),
    protocol: z.strictObject({ least: z.int(), most: z.int() }),
    time: z.number(),
    limits: z.strictObject({
      messageBytes: count,
      chunkBytes: count,
      manifestBytes: count,
      waitSeconds: z.number(),
    }),
    runs: z.array(name),
  }),
  enrolment: z.strictObject({
    token: z.string().regex(/^[A-Za-z0-9_-]{22}$/),
    publicKey: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
    name,
  }),
  enrolled: z.strictObject({ client: name }),
  joining: z.strictObject({ numExamples: z.int().min(1).exactOptional() }),
  described: z.strictObject({ run: name, job: z.string(), base: z.string() }),
  next: z.discriminatedUnion("kind", [
    z.strictObject({
      kind: z.literal("work"),
      assignment,
      payload: digest,
      text: z.string().max(INLINE).exactOptional(),
      bases: z.array(z.strictObject({ changes: digest.nullable(), version: z.string() })),
    }),
    z.strictObject({ kind: z.literal("none"), why: z.string() }),
    z.strictObject({ kind: z.literal("over"), rounds: count, why: z.string() }),
  ]),
  heartbeat: z.strictObject({ assignment: reference, progress: progress.exactOptional() }),
  heartbeatAnswer: z.strictObject({ verdict: z.enum(["continue", "abandon"]) }),
  submission: z.strictObject({
    assignment: reference,
    manifest: digest,
    text: z.string().max(INLINE).exactOptional(),
    memory: digest.exactOptional(),
    numExamples: count,
    loss: z.number(),
    metrics: z.record(z.string().max(128), z.number()).exactOptional(),
  }),
  answer: z.discriminatedUnion("status", [
    z.strictObject({ status: z.literal("accepted"), submission: digest }),
    z.strictObject({
      status: z.literal("rejected"),
      submission: digest,
      code: z.enum(rejectCodes),
      reason: z.string(),
    }),
    z.strictObject({ status: z.literal("incomplete"), missing: z.array(digest) }),
  ]),
  failure: z.strictObject({
    assignment: reference,
    code: z.enum(failCodes),
    message: z.string().max(2000),
  }),
  ids: z.strictObject({ ids: z.array(digest).max(3000) }),
  manifest: z.strictObject({
    kind: z.enum(payloadKinds),
    run: z.string().max(128),
    round: count,
    client: name.exactOptional(),
    tensors: z
      .array(
        z.strictObject({ name: z.string().max(300), dtype: z.enum(dtypes), shape: z.array(count).max(8) }),
      )
      .max(100_000),
    bytes: count,
    chunkSize: z.int().min(1),
    chunks: z.array(digest),
    parent: digest.exactOptional(),
    versions: z.record(z.string().max(64), z.string().max(64)),
  }),
  problem: z.strictObject({ error: z.strictObject({ code: z.string(), message: z.string() }) }),
  runStatus,
  serverStatus: z.strictObject({ server: z.string(), upSeconds: z.number(), runs: z.array(runStatus) }),
  clientList: z.strictObject({
    clients: z.array(
      z.strictObject({
        client: name,
        here: z.boolean(),
        seenSeconds: z.number().exactOptional(),
        revoked: z.string().exactOptional(),
        runs: z.array(
          z.strictObject({
            run: name,
            state: z.enum(["waiting", "working", "delivered", "dropped", "not-asked"]),
            accepted: count,
            progress: progress.exactOptional(),
          }),
        ),
      }),
    ),
  }),
  removal: z.strictObject({ reason: z.string().min(1).max(2000) }),
  tokenOrder: z.strictObject({ count: z.int().min(1).max(10_000), seconds: z.int().min(1) }),
  tokens: z.strictObject({ tokens: z.array(z.string()) }),
  health: z.strictObject({ ok: z.boolean(), problems: z.array(z.string()) }),
};

/** The headers of a signed request. */
export const signatureHeaders = {
  client: "tributary-client",
  time: "tributary-time",
  nonce: "tributary-nonce",
  signature: "tributary-signature",
} as const;

/** The text that a client signs: method, path with query, digest of the body, server time and nonce, a line each. */
export function signedText(request: {
  readonly method: string;
  readonly path: string;
  readonly body: string;
  readonly time: string;
  readonly nonce: string;
  readonly client: string;
}): string {
  const { method, path, body, time, nonce, client } = request;
  return ["tributary-1", method, path, body, time, nonce, client].join("\n");
}
