import type { Env } from "../../federation/env.ts";
import type { Connection } from "./connection.ts";
import { piecesOf } from "./pieces.ts";
import type { Signer } from "./send.ts";
import { bodyDigest, signatureOf } from "./signature.ts";

/** How a client keeps a connection open. */
export interface LiveOptions {
  readonly url: string;
  readonly connection: Connection;
  readonly signer: Signer;
  readonly run: string;
  readonly env: Env;
  readonly signal: AbortSignal;
}

/** Milliseconds before a connection that was cut is opened again. */
const PAUSE = 1000;

/**
 * Keeps one connection open until the signal aborts, so that the server learns at once when this client is gone. Without
 * it (a proxy may refuse long answers) the lease of the work tells, later.
 */
export async function keepLive({ url, connection, signer, run, env, signal }: LiveOptions): Promise<void> {
  const path = `/v1/runs/${run}/live`;
  while (!signal.aborted) {
    try {
      const request = {
        method: "GET",
        path,
        body: bodyDigest(new Uint8Array()),
        client: signer.client,
      } as const;
      const headers = { ...signatureOf(request, signer.key, connection.time()) };
      const { body } = await fetch(`${url}${path}`, { headers, redirect: "error", signal });
      if (body) for await (const _ of piecesOf(body, signal));
    } catch {
      // The requests that do the work say what is wrong with the network.
    }
    await env.sleep(PAUSE, signal).catch(() => undefined);
  }
}
