/** Clients as a program of their own: `node silo.mjs SETTINGS.json`; says what happens in JSON lines. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { serveClients } from "../../src/federation/client.ts";
import { nodeEnv } from "../../src/storage/node-env.ts";
import { openSiloFolder } from "../../src/storage/silo-folder.ts";
import { httpTransport } from "../../src/transports/http/client.ts";
import { connect } from "../../src/transports/http/connection.ts";
import { keepLive } from "../../src/transports/http/live.ts";
import { readClientKey } from "../../src/transports/http/signature.ts";
import { federationOf, noiseTrainer, type Setting } from "./setting.ts";

/** What the program reads. */
export interface SiloOptions {
  readonly setting: Setting;
  readonly url: string;
  readonly folder: string;
  /** Private keys in PEM by client: all that this program plays. */
  readonly keys: Readonly<Record<string, string>>;
  readonly heartbeatMs?: number;
}

const say = (line: object): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

const { setting, url, folder, keys, heartbeatMs } = JSON.parse(
  await readFile(process.argv[2] ?? "", "utf8"),
) as SiloOptions;
const env = nodeEnv();
const halt = new AbortController();
const { signal } = halt;
const { strategy, initial } = federationOf(setting);
const trainer = noiseTrainer(setting);

async function takePart(client: string, pem: string): Promise<void> {
  const onWait = (why: string): void => say({ type: "waiting", client, why });
  const connection = await connect({ url, env, signal, onWait });
  const signer = { client, key: readClientKey(pem) };
  void keepLive({ url, connection, signer, run: "toy", env, signal });
  const transport = httpTransport({
    connection,
    signer,
    run: "toy",
    base: "pretrained",
    store: await openSiloFolder(join(folder, client)),
    env,
    ...(heartbeatMs !== undefined && { heartbeatMs }),
    onReceipt: (receipt, { submission }) =>
      say({ type: "receipt", client, round: submission.assignment.round, ...receipt, sent: submission }),
  });
  await serveClients({
    transport,
    trainer: {
      train(task, options) {
        say({ type: "training", client, round: task.assignment.round });
        return trainer.train(task, options);
      },
    },
    strategy,
    initial,
    signal,
  });
}

say({ type: "started" });
try {
  await Promise.all(Object.entries(keys).map(([client, pem]) => takePart(client, pem)));
  say({ type: "over" });
  halt.abort();
} catch (error) {
  say({ type: "failed", message: error instanceof Error ? (error.stack ?? error.message) : String(error) });
  process.exit(1);
}
