import { join } from "node:path";
import { stream } from "../../src/tensor/random.ts";
import { type Faults, faultProxy } from "../../test/processes/fault-proxy.ts";
import { problemsOf } from "../../test/processes/kept.ts";
import { type Program, type Programs, programs, type Said } from "../../test/processes/programs.ts";
import { processRun } from "../../test/processes/run.ts";
import { clientsOf, type Setting } from "../../test/processes/setting.ts";
import { type Campaign, type CampaignOptions, reportOf } from "./campaign.ts";

/** Milliseconds in which a run ends once nothing goes wrong any more. */
const PATIENCE = 60_000;

const chunkBytes = 16 * 1024;

/**
 * Small federations between processes: coordinator and clients are killed at random moments, and a proxy between them cuts,
 * delays, corrupts, keeps back and swallows.
 */
export const kills: Campaign = {
  name: "kills",
  every: 50,
  async open(options) {
    const bundled = await programs(["coordinator", "silo"]);
    return {
      run: async (seed) => reportOf("kills", seed, await problemsUnder(seed, bundled, options), options),
      close: () => bundled.close(),
    };
  },
};

async function problemsUnder(seed: number, bundled: Programs, options: CampaignOptions): Promise<string[]> {
  const random = stream({ seed, purpose: "kills" });
  const { onTrace = () => {} } = options;
  const some = <T>(of: readonly T[]): T | undefined => of[random.integer(of.length)];
  const between = (least: number, most: number): number => least + (most - least) * random.uniform();
  const clients = options.clients ?? 2 + random.integer(4);
  const setting: Setting = {
    clients,
    rounds: options.rounds ?? 3 + random.integer(4),
    length: 500 + random.integer(20_000),
    tensors: 1 + random.integer(3),
    seed,
    workMs: 20 + random.integer(150),
    quorum: random.uniform() < 0.5 ? clients : 1 + random.integer(clients),
    ...(random.uniform() < 0.5 && { updateMemory: 0 }),
  };
  const began = performance.now();
  const trace = (line: string): void =>
    onTrace(`${((performance.now() - began) / 1000).toFixed(2)} s: ${line}`);
  trace(`setting ${JSON.stringify(setting)}`);

  const run = await processRun({
    programs: bundled,
    setting,
    chunkBytes,
    graceMs: 1000,
    leaseMs: 10_000,
    heartbeatMs: 200,
  });
  const port = (): number => Number(new URL(run.url()).port);
  // Chunks say by their digest that they are damaged; a signed message that is changed is refused for good.
  const proxy = await faultProxy({ port, seed, faults: { smallest: 4096 } });
  const problems: string[] = [];
  const said: (readonly Said[])[] = [];
  const start = (client: string): Program => {
    const silo = run.silo({ clients: [client], url: proxy.url });
    said.push(silo.said);
    return silo;
  };
  let life = await run.coordinator();
  const silos = new Map(clientsOf(setting).map(({ id }) => [id, start(id)]));
  const clear = (): void => {
    const { faults } = proxy;
    if (faults.blackHole) proxy.cutAll();
    const past: (keyof Faults)[] = ["latencyMs", "jitterMs", "cutAfter", "bitFlips", "blackHole", "hold"];
    for (const name of past) delete faults[name];
  };
  const directions = ["up", "down", "both"] as const;
  const actions: readonly (readonly [string, () => Promise<void>])[] = [
    [
      "the coordinator is killed",
      async () => {
        life.kill();
        const { signal, code } = await life.ended;
        if (signal === null && !over(life))
          problems.push(`the coordinator ended with code ${code}: ${last(life)}`);
        life = await run.coordinator();
      },
    ],
    [
      "a client is killed",
      async () => {
        const id = some([...silos.keys()]) ?? "";
        const silo = silos.get(id);
        silo?.kill();
        const ended = await silo?.ended;
        if (ended?.signal === null && ended.code !== 0) problems.push(`${id} ended with code ${ended.code}`);
        silos.set(id, start(id));
      },
    ],
    [
      "the network is slow",
      async () => void Object.assign(proxy.faults, { latencyMs: between(0, 20), jitterMs: between(0, 50) }),
    ],
    [
      "connections are cut early",
      async () => void Object.assign(proxy.faults, { cutAfter: between(2000, 200_000) }),
    ],
    ["bits turn", async () => void Object.assign(proxy.faults, { bitFlips: between(0, 0.2) })],
    ["the network is down", async () => void Object.assign(proxy.faults, { hold: some(directions) })],
    ["the network swallows", async () => void Object.assign(proxy.faults, { blackHole: some(directions) })],
    ["every connection is cut", async () => proxy.cutAll()],
    ["the network is well", async () => clear()],
  ];
  const count = 4 + random.integer(12);
  for (let i = 0; i < count && !over(life); i++) {
    await new Promise((resolve) => setTimeout(resolve, between(20, 500)));
    const [name, act] = some(actions) ?? ["nothing", async () => undefined];
    trace(name);
    await act();
  }
  clear();
  trace("nothing goes wrong any more");
  const ends = (async () => {
    await life.heard("done");
    for (const silo of silos.values()) await silo.ended;
  })();
  const late = await within(ends, PATIENCE);
  if (late !== undefined) problems.push(`${late}: ${last(life)}`);
  for (const [id, silo] of silos)
    if (late !== undefined) silo.kill();
    else if ((await silo.ended).code !== 0) problems.push(`${id} ended with ${last(silo)}`);
  life.kill(late === undefined ? "SIGTERM" : "SIGKILL");
  await life.ended;
  await proxy.close();
  if (late === undefined)
    problems.push(
      ...(await problemsOf({ setting, folder: join(run.folder, "coordinator"), said: said.flat() })),
    );
  await run.close();
  trace(problems.length === 0 ? "all is well" : "a promise is broken");
  return problems;
}

/** Why something did not come to its end in time; undefined where it did. */
async function within(work: Promise<void>, ms: number): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const time = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`the run did not end within ${ms / 1000} s of the last fault`), ms);
  });
  const why = await Promise.race([work.then(() => undefined, String), time]);
  clearTimeout(timer);
  return why;
}

function over({ said }: Program): boolean {
  return said.some(({ type }) => type === "done");
}

function last({ said, complaints }: Program): string {
  return `${JSON.stringify(said.at(-1))} ${complaints()}`.slice(0, 1000);
}
