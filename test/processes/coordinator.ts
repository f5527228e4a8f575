/** A coordinator as a program of its own: `node coordinator.mjs SETTINGS.json`; says what happens in JSON lines. */
import { readFile } from "node:fs/promises";
import { federate, type HostedRun } from "../../src/federation/federate.ts";
import { nodeEnv } from "../../src/storage/node-env.ts";
import { openRunFolder } from "../../src/storage/run-folder.ts";
import { payloadOffers } from "../../src/transports/http/offers.ts";
import { presenceBook } from "../../src/transports/http/presence.ts";
import { usualLimits } from "../../src/transports/http/protocol.ts";
import { clientRoutes } from "../../src/transports/http/routes.ts";
import type { ServedRun } from "../../src/transports/http/served-run.ts";
import { startServer } from "../../src/transports/http/server.ts";
import { crashing, die } from "./crash-points.ts";
import { knownClients } from "./identities.ts";
import { federationOf, type Setting } from "./setting.ts";

/** What the program reads. */
export interface CoordinatorOptions {
  readonly setting: Setting;
  readonly folder: string;
  readonly port: number;
  /** Public keys by client. */
  readonly keys: Readonly<Record<string, string>>;
  readonly chunkBytes?: number;
  readonly graceMs?: number;
  readonly leaseMs?: number;
  readonly waitSeconds?: number;
}

const say = (line: object): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

const options = JSON.parse(await readFile(process.argv[2] ?? "", "utf8")) as CoordinatorOptions;
const { setting, folder, port, keys, graceMs = 2000, leaseMs = 60_000 } = options;
const { CRASH_POINT: point = "", CRASH_ROUND: crashRound = "0" } = process.env;
const limits = {
  ...usualLimits,
  ...(options.chunkBytes !== undefined && { chunkBytes: options.chunkBytes }),
  ...(options.waitSeconds !== undefined && { waitSeconds: options.waitSeconds }),
};
const env = nodeEnv();
const opened = await openRunFolder(folder);
// What is watched is read as a whole.
const store = point === "" ? opened : crashing(opened, { point, round: Number(crashRound) });
const identities = await knownClients(keys, env);
let hosted: HostedRun | undefined;
const served: ServedRun = {
  id: "toy",
  hosted: () => hosted,
  blobs: store.blobs,
  offers: payloadOffers(env, limits.chunkBytes),
  described: { run: "toy", job: "{}", base: "pretrained" },
  join: async () => undefined,
  status: () => ({
    run: "toy",
    phase: "collecting",
    rounds: { done: 0, of: 1 },
    why: "the round goes on",
    clients: { joined: 1, of: 1, here: 1 },
  }),
  clientState: () => undefined,
};
const runs = new Map([["toy", served]]);
const server = await startServer({
  port,
  env,
  identities,
  limits,
  routes: clientRoutes({ runs, identities, presence: presenceBook(env), limits, env, server: "test" }),
  onError(error, route) {
    process.stderr.write(`${route}: ${error instanceof Error ? error.stack : String(error)}\n`);
  },
  onAnswer({ route, status, code, client, ms }) {
    const submitted = route.endsWith("/submit") && status === 200;
    if (submitted && point === "after receipt" && hosted?.state().open?.opened.round === Number(crashRound))
      die();
    if (status >= 400) say({ type: "refused", route, status, code, client, ms });
  },
});
process.once("SIGTERM", () => {
  void server.close().then(() => process.exit(0));
});
say({ type: "listening", url: server.url, ms: Math.round(performance.now()) });
try {
  for await (const round of federate({
    ...federationOf(setting),
    store,
    env,
    leaseMs,
    host: {
      graceMs,
      open(run) {
        hosted = run;
      },
    },
    onEvent: ({ type, ...rest }) => {
      if (type === "client-progress") return;
      say({
        type,
        ...("round" in rest && typeof rest.round === "number" && { round: rest.round }),
        at: Date.now(),
      });
    },
  }))
    say({ type: "round", number: round.number });
  // From the journal, so that it says the same whichever life committed a round.
  const { rounds = [], ended } = hosted?.state() ?? {};
  say({
    type: "done",
    states: rounds.map(({ state }) => state),
    accepted: rounds.map(({ accepted }) => accepted.map(({ client }) => client)),
    failedAttempts: rounds.map(({ failedAttempts }) => failedAttempts),
    ended: ended?.state,
  });
} catch (error) {
  say({ type: "failed", message: String(error) });
  process.exit(1);
}
