import { access, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { TributaryError } from "../errors.ts";
import { serveClients } from "../federation/client.ts";
import { sha256Text } from "../federation/digest.ts";
import type { Receipt } from "../federation/message.ts";
import { writeFileAtomic } from "../formats/files.node.ts";
import { nodeEnv } from "../storage/node-env.ts";
import { lockRun } from "../storage/run-lock.ts";
import { openSiloFolder } from "../storage/silo-folder.ts";
import { trainingPartFile } from "../storage/training-part.node.ts";
import { httpTransport } from "../transports/http/client.ts";
import { connect } from "../transports/http/connection.ts";
import { keepLive } from "../transports/http/live.ts";
import { messages } from "../transports/http/protocol.ts";
import { type ClientKey, clientKeyPem, newClientKey, readClientKey } from "../transports/http/signature.ts";
import { assemble, openTraining } from "./assemble.ts";
import { checkJob } from "./check.ts";
import type { Job } from "./job.ts";
import { assertAgreed, type Leaving, leavingOf, openPolicy, type SiloPolicy } from "./policy.node.ts";

/** What a silo tells while it takes part. */
export type JoinEvent =
  | { readonly type: "enrolled"; readonly client: string; readonly url: string }
  | { readonly type: "joined"; readonly run: string; readonly job: Job; readonly examples: number }
  | { readonly type: "waiting"; readonly why: string; readonly seconds?: number }
  | { readonly type: "receipt"; readonly round: number; readonly receipt: Receipt }
  | { readonly type: "over" };

/** How a silo takes part in a run. */
export interface JoinOptions {
  /** Origin of the server. */
  readonly url: string;
  /** The silo's own data; they stay where they are. */
  readonly data: string | readonly string[];
  /** Where the silo keeps its key, its unsent update and what it remembers. */
  readonly folder: string;
  /** The name that it enrols under. */
  readonly name: string;
  /** The one-time token; needed the first time. */
  readonly token?: string;
  /** Folder of the base model, where it is not where the job says. */
  readonly model?: string;
  readonly workers?: number;
  /** Of a server that carries several runs the one to take part in. */
  readonly run?: string;
  /** What the silo agrees to. Default: every run. */
  readonly policy?: SiloPolicy;
  /** Asked before the first round of a job what may leave; asked once for each job. Default: yes. */
  readonly agrees?: (leaving: Leaving) => Promise<boolean>;
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: JoinEvent) => void;
}

/** Takes part in the run of a server until it is over. */
export async function joinRun(options: JoinOptions): Promise<void> {
  const { url, folder, policy = openPolicy, agrees = async () => true, onEvent = () => {} } = options;
  const env = nodeEnv();
  const signal = options.signal ?? new AbortController().signal;
  // What is missing here is said before a token is spent.
  for (const path of [options.data].flat()) await access(path).catch(missingData(path));
  await mkdir(folder, { recursive: true, mode: 0o700 }).catch(noFolder(folder));
  const connection = await connect({
    url,
    env,
    signal,
    onWait: (why, seconds) => onEvent({ type: "waiting", why, seconds }),
  }).catch(noCoordinator(url, signal));
  const { client, key } = await enrolment();
  const run = runOf(connection.welcome.runs, options);
  const signer = { client, key };
  const told = await connection
    .ask({ method: "GET", path: `/v1/runs/${run}`, signer, schema: messages.described })
    .catch(strangeFolder(folder, client));
  const job = { ...ownJob(JSON.parse(told.job), options), out: folder };
  const lock = lockRun(join(folder, run));
  try {
    await takePart();
  } finally {
    lock.release();
  }

  async function takePart(): Promise<void> {
    const assembly = await assemble(job).catch(otherForm(job, options));
    if (assembly.base.root !== told.base) {
      throw new TributaryError(
        "base-mismatch",
        `the model at ${job.model} is not that of the run: its digest is ${assembly.base.root.slice(0, 12)}, the run's ${told.base.slice(0, 12)}; give the same model with --model`,
      );
    }
    const examples = assembly.silos.flatMap((silo) => silo.examples);
    const { strategy, initial } = assembly;
    const [member] = assembly.clients;
    const leaving: Leaving = {
      digest: await sha256Text(told.job, env.hash),
      run,
      strategy: job.strategy.name,
      paper: strategy.paper,
      rounds: job.rounds,
      ...leavingOf(
        { strategy, initial, client: { id: client, rank: member?.rank ?? 0, scaling: member?.scaling ?? 1 } },
        job,
      ),
      ...(policy.shareExampleCounts && { examples: examples.length }),
    };
    assertAgreed(policy, leaving, job);
    await agreement(leaving);
    await connection.fetch({
      method: "POST",
      path: `/v1/runs/${run}/join`,
      json: {
        ...(policy.shareExampleCounts && { numExamples: job.weighting === "uniform" ? 1 : examples.length }),
      },
      signer,
    });
    onEvent({ type: "joined", run, job, examples: examples.length });
    const partFile = join(folder, run, "training.safetensors");
    const { pool, trainer } = await openTraining(
      job,
      { ...assembly, silos: [{ name: client, examples }] },
      trainingPartFile(partFile),
    );
    const over = new AbortController();
    const live = keepLive({
      url,
      connection,
      signer,
      run,
      env,
      signal: AbortSignal.any([signal, over.signal]),
    });
    try {
      const transport = httpTransport({
        connection,
        signer,
        run,
        base: told.base,
        store: await openSiloFolder(join(folder, run)),
        env,
        onReceipt: (receipt, { submission }) =>
          onEvent({ type: "receipt", round: submission.assignment.round, receipt }),
        onIdle: (why) => onEvent({ type: "waiting", why }),
      });
      await serveClients({ transport, trainer, strategy, initial, signal });
      await rm(partFile, { force: true });
      onEvent({ type: "over" });
    } finally {
      over.abort();
      await live;
      await pool.close();
    }
  }

  /** Asks once for each job; what was agreed to is kept. */
  async function agreement(asked: Leaving): Promise<void> {
    const path = join(folder, "agreed.json");
    const text = await readFile(path, "utf8").catch(absent);
    const agreed = text === undefined ? [] : z.array(z.string()).parse(JSON.parse(text));
    if (agreed.includes(asked.digest)) return;
    if (!(await agrees(asked)))
      throw new TributaryError("not-agreed", `nothing has left: run ${run} was not agreed to`);
    const list = JSON.stringify([...agreed, asked.digest]);
    await writeFileAtomic(path, new TextEncoder().encode(list));
  }

  /** Who this silo is to the server: as it was enrolled, or enrols now. */
  async function enrolment(): Promise<{ readonly client: string; readonly key: ClientKey }> {
    const path = join(folder, "enrolled.json");
    const known = await readFile(path, "utf8").catch(absent);
    if (known !== undefined)
      return { client: messages.enrolled.parse(JSON.parse(known)).client, key: await clientKey(folder) };
    if (options.token === undefined) {
      throw new TributaryError(
        "no-token",
        `${folder} is not enrolled at ${url} yet; give the one-time token of its operator with --token`,
      );
    }
    // Two processes would enrol two keys, and one of them would be kept.
    const lock = lockRun(folder);
    try {
      const key = await clientKey(folder);
      const { publicKey } = key;
      const enrolled = await connection.ask({
        method: "POST",
        path: "/v1/enrol",
        json: { token: options.token, publicKey, name: options.name },
        schema: messages.enrolled,
      });
      await writeFileAtomic(path, new TextEncoder().encode(JSON.stringify(enrolled)));
      onEvent({ type: "enrolled", client: enrolled.client, url });
      return { client: enrolled.client, key };
    } finally {
      lock.release();
    }
  }
}

function missingData(path: string): () => never {
  return () => {
    throw new TributaryError("missing-file", `${path}: no such file or folder; give the path of the data`);
  };
}

function noFolder(folder: string): (cause: Error) => never {
  return (cause) => {
    throw new TributaryError(
      "folder",
      `${folder} cannot be made: ${cause.message}; give another --folder, or make it writable`,
      { cause },
    );
  };
}

/** Says of whatever answers in place of a coordinator what was expected there. */
function noCoordinator(url: string, signal: AbortSignal): (cause: unknown) => never {
  return (cause) => {
    if (signal.aborted || (cause instanceof TributaryError && cause.code === "protocol")) throw cause;
    const why = (cause instanceof Error ? cause.message : String(cause)).replace(`${url}: `, "");
    throw new TributaryError(
      "no-coordinator",
      `${url} is no coordinator: ${why}; give the address that tributary serve prints`,
      { cause },
    );
  };
}

/** Says of a server that does not know this silo what may have happened. */
function strangeFolder(folder: string, client: string): (cause: unknown) => never {
  return (cause) => {
    if (!(cause instanceof TributaryError && cause.code === "unknown-client")) throw cause;
    throw new TributaryError(
      cause.code,
      `${cause.message}; ${folder} holds the key of ${client} for the server where it enrolled: for another server, or a new start after a removal, give another --folder with a new --token`,
      { cause },
    );
  };
}

/** Says of data that the job cannot read that the job is another's. */
function otherForm({ task, data }: Job, { data: path }: JoinOptions): (cause: unknown) => never {
  return (cause) => {
    if (!(cause instanceof TributaryError && cause.code === "malformed-data")) throw cause;
    const { path: _path, splits: _splits, ...form } = data;
    throw new TributaryError(
      cause.code,
      `${[path].flat().join(", ")} is not in the form that the run's job reads (${task}, data ${JSON.stringify(form)}): ${cause.message}. The job is the coordinator's: write the file in that form, or ask for another job`,
      { cause },
    );
  };
}

/** The run that is asked for, or the only one. */
function runOf(runs: readonly string[], { url, run }: Pick<JoinOptions, "url" | "run">): string {
  const names = runs.join(", ");
  if (run !== undefined) {
    if (runs.includes(run)) return run;
    throw new TributaryError("no-run", `${url} carries no run ${run}; its runs are: ${names || "none"}`);
  }
  const [only] = runs;
  if (only === undefined) throw new TributaryError("no-run", `${url} carries no run`);
  if (runs.length === 1) return only;
  throw new TributaryError("several-runs", `${url} carries several runs; name one of ${names}`);
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}

/** The run's job over the silo's own data and machine. */
function ownJob(given: Job, { data, model, workers }: JoinOptions): Job {
  // A share is held out of every silo's data; files of held-out data are the coordinator's.
  const splits = Object.fromEntries(
    Object.entries(given.data.splits).filter(([key, value]) => key === "field" || typeof value === "number"),
  );
  const { clientsPerRound: _clients, quorum: _quorum, ...rest } = given;
  return checkJob({
    ...rest,
    ...(model === undefined ? {} : { model }),
    ...(workers === undefined ? {} : { workers }),
    data: { ...given.data, path: data, splits },
    partition: { kind: "contiguous", clients: 1 },
    participation: 1,
  });
}

async function clientKey(folder: string): Promise<ClientKey> {
  const path = join(folder, "key.pem");
  const text = await readFile(path, "utf8").catch(absent);
  if (text !== undefined) return readClientKey(text);
  const key = newClientKey();
  await writeFileAtomic(path, new TextEncoder().encode(clientKeyPem(key)), { mode: 0o600 });
  return key;
}
