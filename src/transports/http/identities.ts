import { createHash, type KeyObject, randomBytes, timingSafeEqual } from "node:crypto";
import type { Env } from "../../federation/env.ts";
import { eventHash, GENESIS, type Journal, readChain } from "../../federation/journal.ts";
import type { Enrolment } from "./protocol.ts";
import { Refused } from "./refusal.ts";
import { verifyingKey } from "./signature.ts";

/** What happens to the list of those who may speak to a server. */
export type IdentityEvent =
  /** A token that admits one client, named by its hash. */
  | { readonly type: "token-issued"; readonly token: string; readonly expires: number }
  | {
      readonly type: "client-enrolled";
      readonly client: string;
      readonly publicKey: string;
      readonly token: string;
    }
  | { readonly type: "client-revoked"; readonly client: string; readonly reason: string };

/** A client that a server knows. */
export interface KnownClient {
  readonly client: string;
  readonly publicKey: string;
  /** Why it was removed; absent while it may speak. */
  readonly revoked?: string;
}

/** Who may speak to a server. */
export interface Identities {
  /** The key of a client that is enrolled and not removed. */
  keyOf(client: string): KeyObject | undefined;
  /** All clients, in order of name. */
  list(): readonly KnownClient[];
  /** A new token, to be handed to one client; it is kept as a hash. */
  issueToken(seconds: number): Promise<string>;
  /** Takes in the key of a client that shows a token. The same key and name again is answered alike. */
  enrol(enrolment: Enrolment): Promise<string>;
  revoke(client: string, reason: string): Promise<void>;
  /** Throws unless the header is that of an operator. */
  assertOperator(authorization: string | undefined): void;
}

/** Opens the list that a journal holds. */
export async function openIdentities({
  journal,
  env,
  operatorToken,
}: {
  readonly journal: Journal<IdentityEvent>;
  readonly env: Env;
  /** What operators send as bearer token. */
  readonly operatorToken: string;
}): Promise<Identities> {
  const tokens = new Map<string, { readonly expires: number; client?: string }>();
  const clients = new Map<string, KnownClient>();
  const keys = new Map<string, KeyObject>();
  let seq = 0;
  let hash = GENESIS;
  for await (const { event, hash: next } of readChain(journal, env.hash)) {
    apply(event.body);
    seq = event.seq;
    hash = next;
  }
  let writing: Promise<unknown> = Promise.resolve();

  function apply(event: IdentityEvent): void {
    switch (event.type) {
      case "token-issued":
        tokens.set(event.token, { expires: event.expires });
        return;
      case "client-enrolled": {
        const token = tokens.get(event.token);
        if (token) token.client = event.client;
        clients.set(event.client, { client: event.client, publicKey: event.publicKey });
        keys.set(event.client, verifyingKey(event.publicKey));
        return;
      }
      case "client-revoked": {
        const known = clients.get(event.client);
        if (known) clients.set(event.client, { ...known, revoked: event.reason });
        keys.delete(event.client);
      }
    }
  }

  /** Appends one event after the other; it counts once it is durable. */
  function record(make: () => IdentityEvent | undefined): Promise<void> {
    const work = writing.then(async () => {
      const body = make();
      if (!body) return;
      const event = { seq: seq + 1, previousHash: hash, at: new Date(env.wall()).toISOString(), body };
      await journal.append([event], seq);
      seq = event.seq;
      hash = await eventHash(event, env.hash);
      apply(body);
    });
    writing = work.catch(() => undefined);
    return work;
  }

  return {
    keyOf: (client) => keys.get(client),
    list: () => [...clients.values()].sort((a, b) => (a.client < b.client ? -1 : 1)),
    async issueToken(seconds) {
      const token = randomBytes(16).toString("base64url");
      await record(() => ({
        type: "token-issued",
        token: hashOf(token),
        expires: env.wall() + 1000 * seconds,
      }));
      return token;
    },
    async enrol({ token, publicKey, name }) {
      const hashed = hashOf(token);
      await record(() => {
        const known = tokens.get(hashed);
        if (!known) throw new Refused(403, "bad-token", "the enrolment token is not one of this server");
        const holder = clients.get(name);
        if (holder && holder.publicKey === publicKey && known.client === name) return undefined;
        if (known.client !== undefined)
          throw new Refused(403, "used-token", "the enrolment token was used before; ask for another");
        if (known.expires < env.wall())
          throw new Refused(403, "expired-token", "the enrolment token is too old; ask for another");
        if (holder)
          throw new Refused(
            409,
            "name-taken",
            `a client ${name} is enrolled with another key; choose another name`,
          );
        return { type: "client-enrolled", client: name, publicKey, token: hashed };
      });
      return name;
    },
    revoke: (client, reason) =>
      record(() =>
        clients.has(client) && clients.get(client)?.revoked === undefined
          ? { type: "client-revoked", client, reason }
          : undefined,
      ),
    assertOperator(authorization) {
      const given = hashOf(authorization?.replace(/^Bearer /, "") ?? "");
      if (!timingSafeEqual(Buffer.from(given), Buffer.from(hashOf(operatorToken))))
        throw new Refused(
          401,
          "not-operator",
          "this needs the operator's token of the server; it is in operator.token in the server's home",
        );
    },
  };
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
