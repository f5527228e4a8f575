import { TributaryError } from "../errors.ts";
import { applyChanges } from "../federation/base-chain.ts";
import { emptyRun, type RunState, reduce } from "../federation/coordinator.ts";
import type { FederatedClient } from "../federation/door.ts";
import { assertReadable, readChain } from "../federation/journal.ts";
import { clientHalf } from "../federation/local-rule.ts";
import { openBaseChanges, openMemory, openState } from "../federation/manifest.ts";
import type { BaseChange, Strategy } from "../federation/strategy.ts";
import { openRunFolder } from "../storage/run-folder.ts";
import type { Params } from "../tensor/params.ts";
import { readManifest } from "./run-files.node.ts";

/** The model that one client of a run has of its own. */
export interface PersonalModel {
  /** What the client would start the next round from. */
  readonly params: Params;
  /** What is added to the base for it. */
  readonly offset: Params;
}

/** Most clients that a message names. */
const named = 12;

/**
 * The client of a run that is asked for. Throws TributaryError `client` with those that there are, where each has a model of
 * its own and none or an unknown one is named.
 */
export async function namedClient(folder: string, id: string | undefined): Promise<FederatedClient> {
  const { clients } = await readManifest(folder);
  const found = clients.find((client) => client.id === id);
  if (found !== undefined) return found;
  const more = clients.length > named ? ` and ${clients.length - named} more` : "";
  const known = `${clients
    .slice(0, named)
    .map((client) => client.id)
    .join(", ")}${more}`;
  throw new TributaryError(
    "client",
    id === undefined
      ? `${folder}: each client of this run has a model of its own, got no client; say whose with --client, one of ${known}`
      : `${folder}: got the client ${JSON.stringify(id)}, expected one of ${known}; correct --client`,
  );
}

/** The model of a client after the last committed round of a run, from its journal: as the run itself evaluates it. */
export async function readPersonalModel(
  folder: string,
  client: FederatedClient,
  { strategy, initial }: { readonly strategy: Strategy; readonly initial: Params },
): Promise<PersonalModel> {
  const store = await openRunFolder(folder);
  const { blobs, journal } = store;
  try {
    let run: RunState = emptyRun;
    for await (const { event } of readChain(journal)) {
      assertReadable(event, run.created);
      run = reduce(run, [event.body]);
    }
    const { checkpoint, created, bases, memories } = run;
    if (checkpoint === undefined || created === undefined)
      throw new TributaryError(
        "missing-file",
        `${folder}: has no round yet; run its job first: tributary run ${folder}`,
      );
    const { seed, numClients } = created;
    const context = { round: checkpoint.round + 1, seed, numClients };
    const received = strategy.broadcast(await openState(blobs, checkpoint.state), client, context);
    const kept = memories.get(client.id);
    const memory = kept === undefined ? undefined : (await openMemory(blobs, kept)).memory;
    const { start, personalBase } = clientHalf(strategy, { client, received, memory, initial, context });
    const shared: BaseChange[] = [];
    for (const { changes } of bases)
      if (changes !== null) shared.push(...(await openBaseChanges(blobs, changes)));
    return { params: start.params, offset: applyChanges(new Map(), [...shared, ...personalBase]) };
  } finally {
    store.close();
  }
}
