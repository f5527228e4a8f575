import { type ClientTrainer, serveClients, type TrainingTask } from "../federation/client.ts";
import type { Env } from "../federation/env.ts";
import type { Receipt } from "../federation/message.ts";
import type { StateTree, Strategy } from "../federation/strategy.ts";
import { openSiloFolder } from "../storage/silo-folder.ts";
import type { Params } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import { httpTransport, type Unsent } from "../transports/http/client.ts";
import { connect } from "../transports/http/connection.ts";
import type { Send, Signer } from "../transports/http/send.ts";
import { RUN } from "./coordinator.ts";
import type { Life } from "./life.ts";
import type { SimFiles } from "./sim-disk.ts";
import { toyResult } from "./toy-training.ts";

/** What one life of a client is made of. */
export interface SiloOptions<State extends StateTree> {
  readonly signer: Signer;
  readonly life: Life;
  readonly files: SimFiles;
  readonly send: Send;
  readonly strategy: Strategy<State>;
  readonly initial: Params;
  /** Called at each step of training; throws where it fails. */
  onStep(task: TrainingTask): void;
  onReceipt(receipt: Receipt, unsent: Unsent): void;
}

/** One life of a client: goes on with what its disk holds, and returns when the run is over. */
export async function takePart<State extends StateTree>(options: SiloOptions<State>): Promise<void> {
  const { life, files, signer, send, strategy, initial } = options;
  const { env } = life;
  const { signal } = new AbortController();
  const store = await openSiloFolder("/silo", { files, hash: env.hash });
  const connection = await connect({ url: "sim:", env, signal, send });
  const transport = httpTransport({
    connection,
    signer,
    run: RUN,
    base: "pretrained",
    store,
    env,
    onReceipt: (receipt, unsent) => life.alive && options.onReceipt(receipt, unsent),
  });
  await serveClients({ transport, trainer: slowly(env, options.onStep), strategy, initial, signal });
}

/** Trains as `toyResult`, in a few steps that take their time. */
function slowly(env: Env, onStep: (task: TrainingTask) => void): ClientTrainer {
  return {
    async train(task, { signal, onProgress }) {
      const { client, round, context } = task.assignment;
      const draw = stream({ seed: context.seed, round, client, purpose: "pace" });
      const straggles = draw.integer(20) === 0;
      const steps = 1 + draw.integer(3);
      for (let step = 0; step < steps; step++) {
        onProgress({ step, steps });
        await env.sleep(draw.uniformRange(50, 600) * (straggles ? 20 : 1), signal);
        onStep(task);
      }
      return toyResult(task);
    },
  };
}
