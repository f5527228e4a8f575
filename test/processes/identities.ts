import type { Env } from "../../src/federation/env.ts";
import { memoryJournal } from "../../src/storage/memory.ts";
import { type Identities, openIdentities } from "../../src/transports/http/identities.ts";
import { clientKeyPem, newClientKey } from "../../src/transports/http/signature.ts";

/** Key pairs of some clients, as text. */
export function keysOf(clients: readonly { readonly id: string }[]): {
  readonly publicKeys: Record<string, string>;
  readonly pems: Record<string, string>;
} {
  const pairs = clients.map(({ id }) => [id, newClientKey()] as const);
  return {
    publicKeys: Object.fromEntries(pairs.map(([id, { publicKey }]) => [id, publicKey])),
    pems: Object.fromEntries(pairs.map(([id, key]) => [id, clientKeyPem(key)])),
  };
}

/** The list of a server that knows some clients from the start. */
export async function knownClients(
  keys: Readonly<Record<string, string>>,
  env: Env,
  operatorToken = "operator",
): Promise<Identities> {
  const identities = await openIdentities({ journal: memoryJournal(), env, operatorToken });
  for (const [name, publicKey] of Object.entries(keys))
    await identities.enrol({ token: await identities.issueToken(60), publicKey, name });
  return identities;
}
