import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { foldFor } from "../src/federation/fold.ts";
import { getManifest, putSealed, sealUpdate } from "../src/federation/manifest.ts";
import type { StateTree, Strategy } from "../src/federation/strategy.ts";
import { diskBlobs } from "../src/storage/disk.ts";
import { addScaled, type Params } from "../src/tensor/params.ts";
import {
  type AggregateMethod,
  type AggregateShape,
  clientsOf,
  factors,
  inProcess,
  modulesOfLlama,
  strategyOf,
} from "./aggregate.ts";

/** What one process measured that folded a round out of a store. */
export interface StoredAggregate {
  /** Seconds of the fold, reading and checking of the chunks included. */
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly peakMegabytes: number;
  /** Resident before the fold: the state of the server and the program. */
  readonly restMegabytes: number;
}

interface Task {
  readonly method: AggregateMethod;
  readonly shape: AggregateShape;
  readonly folder: string;
  /** Manifests of the updates, by client; absent where they are to be made. */
  readonly manifests?: readonly string[];
}

/** The fold of a round whose updates lie in a store on disk, as the coordinator does it: in one process, module by module. */
export async function benchStoredAggregate(
  method: AggregateMethod,
  shape: AggregateShape,
): Promise<StoredAggregate> {
  const folder = await mkdtemp(join(tmpdir(), "tributary-aggregate-"));
  try {
    const program = new URL("./aggregate-stored-process.ts", import.meta.url);
    const manifests = await inProcess<readonly string[]>(program, { method, shape, folder });
    return await inProcess<StoredAggregate>(program, { method, shape, folder, manifests });
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** The work of one of the two processes. */
export async function storedAggregateTask(task: Task): Promise<readonly string[] | StoredAggregate> {
  return task.manifests ? foldStored(task, task.manifests) : makeUpdates(task);
}

async function makeUpdates({ shape, folder }: Task): Promise<readonly string[]> {
  const blobs = diskBlobs(folder);
  const start = startOf(shape);
  const manifests: string[] = [];
  for (const { id } of clientsOf(shape)) {
    const params = new Map(
      modulesOfLlama(shape).flatMap((module) => [
        ...addScaled(pick(start, module.name), shape.drift, factors(module, shape.rank, id)),
      ]),
    );
    const sealed = await sealUpdate({ kind: "update", run: "bench", round: 1, client: id }, { params });
    await putSealed(blobs, sealed);
    manifests.push(sealed.digest);
  }
  return manifests;
}

async function foldStored(
  { method, shape, folder }: Task,
  manifests: readonly string[],
): Promise<StoredAggregate> {
  const blobs = diskBlobs(folder);
  const strategy: Strategy<StateTree> = strategyOf(method, shape);
  const clients = clientsOf(shape);
  const state = strategy.init(startOf(shape), clients);
  const plan = (await getManifest(blobs, manifests[0] ?? "")).tensors;
  const fold = foldFor(strategy, { how: { kind: "modules" }, plan, blobs });
  for (const [k, client] of clients.entries()) {
    await fold.addStored({ client, numExamples: 10 + k }, manifests[k] ?? "");
  }
  const restMegabytes = process.memoryUsage.rss() / 1e6;
  const began = performance.now();
  const busy = process.cpuUsage();
  await fold.finish(state, { round: 1, seed: 1, numClients: shape.clients });
  const { user, system } = process.cpuUsage(busy);
  return {
    seconds: (performance.now() - began) / 1e3,
    cpuSeconds: (user + system) / 1e6,
    peakMegabytes: process.resourceUsage().maxRSS / 1e3,
    restMegabytes,
  };
}

function startOf(shape: AggregateShape): Params {
  return new Map(modulesOfLlama(shape).flatMap((module) => [...factors(module, shape.rank, "start")]));
}

function pick(params: Params, module: string): Params {
  return new Map([...params].filter(([name]) => name.startsWith(`${module}.`)));
}
