import { TributaryError } from "../errors.ts";
import { baseChain, extendChain } from "../federation/base-chain.ts";
import { emptyRun, type RunState, reduce } from "../federation/coordinator.ts";
import { sha256 } from "../federation/digest.ts";
import { foldFor } from "../federation/fold.ts";
import { assertReadable, readChain } from "../federation/journal.ts";
import { getManifest, openState, seal, sealBaseChanges, sealState } from "../federation/manifest.ts";
import type { ClientRef, StateTree } from "../federation/strategy.ts";
import { openRunFolder } from "../storage/run-folder.ts";
import type { Params } from "../tensor/params.ts";
import type { PlacedJob } from "./run.ts";
import { readManifest, readTrained } from "./run-files.node.ts";
import { jobStrategy } from "./updates.ts";

/** What replaying one round found. */
export interface VerifiedRound {
  readonly round: number;
  readonly updates: number;
  /** Whether the state, the published model and the base came out with the digests of the journal. */
  readonly same: boolean;
  /** What differs; empty where nothing does. */
  readonly differs: readonly string[];
}

/** What replaying a run found. */
export interface Verification {
  readonly events: number;
  readonly rounds: readonly VerifiedRound[];
  /** Whether the files of the adapter are the model of the last round; undefined where there is none. */
  readonly adapter?: boolean;
}

/**
 * Replays a run from its journal and blobs: checks the hash chain, folds the stored updates of every round again and
 * compares the digests of what comes out. Throws TributaryError `journal-damaged` or `blob-damaged` where it cannot go on.
 */
export async function verifyRun(
  job: PlacedJob,
  onRound: (round: VerifiedRound) => void = () => {},
): Promise<Verification> {
  const manifest = await readManifest(job.out);
  const clients = new Map(manifest.clients.map((client) => [client.id, client]));
  const strategy = jobStrategy(job);
  const store = await openRunFolder(job.out);
  const rounds: VerifiedRound[] = [];
  let state: RunState = emptyRun;
  let events = 0;
  let chain = baseChain(manifest.base);
  let last: StateTree | undefined;
  try {
    for await (const { event } of readChain(store.journal)) {
      events++;
      const { body } = event;
      const before = state;
      assertReadable(event, state.created);
      state = reduce(state, [body]);
      if (body.type !== "checkpoint-committed") continue;
      if (body.round === 0 || before.open === undefined || before.created === undefined) {
        last = await openState(store.blobs, body.state);
        continue;
      }
      const { open: round, created } = before;
      const [first] = round.accepted.values();
      const plan = first ? (await getManifest(store.blobs, first.manifest)).tensors : [];
      const fold = foldFor(strategy, { how: round.opened.fold, plan, blobs: store.blobs });
      for (const { client, manifest: digest, numExamples } of round.accepted.values()) {
        await fold.addStored({ client: refOf(clients, client), numExamples }, digest);
      }
      const context = { round: body.round, seed: created.seed, numClients: created.numClients };
      const { state: reached, base: changes = [] } = await fold.finish(last ?? null, context);
      const head = { run: created.run, round: body.round } as const;
      const sealed = await sealState({ kind: "state", ...head, parent: round.opened.state }, reached);
      const model =
        strategy.declares.personal === true
          ? null
          : (await seal({ kind: "model", ...head }, strategy.global(reached))).digest;
      const base =
        changes.length === 0 ? null : (await sealBaseChanges({ kind: "base", ...head }, changes)).digest;
      chain = await extendChain(chain, changes, sha256);
      const differs = [
        ...(sealed.digest === body.state ? [] : ["state"]),
        ...(model === body.model ? [] : ["model"]),
        ...(base === body.base && chain.version === body.baseVersion ? [] : ["base"]),
      ];
      const verified = {
        round: body.round,
        updates: round.accepted.size,
        same: differs.length === 0,
        differs,
      };
      rounds.push(verified);
      onRound(verified);
      last = await openState(store.blobs, body.state);
    }
  } finally {
    store.close();
  }
  if (events === 0)
    throw new TributaryError("missing-file", `${job.out}: the journal is empty; run its job first`);
  const personal = strategy.declares.personal === true || last === undefined;
  return {
    events,
    rounds,
    ...(personal
      ? {}
      : { adapter: equal((await readTrained(job.out)).params, strategy.global(last ?? null)) }),
  };
}

function refOf(clients: ReadonlyMap<string, ClientRef>, id: string): ClientRef {
  const known = clients.get(id);
  if (known !== undefined) return known;
  throw new TributaryError(
    "journal-damaged",
    `verify: the journal names the client ${id}, which the run folder does not list`,
  );
}

function equal(a: Params, b: Params): boolean {
  if (a.size !== b.size) return false;
  for (const [name, { shape, data }] of a) {
    const other = b.get(name);
    if (other === undefined || other.shape.join() !== shape.join()) return false;
    for (let i = 0; i < data.length; i++) if (!Object.is(data[i], other.data[i])) return false;
  }
  return true;
}
