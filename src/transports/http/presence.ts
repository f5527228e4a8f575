import type { Env } from "../../federation/env.ts";

/** Which clients hold a connection to a server, and when each was last heard. */
export interface Presence {
  /** Notes a request of a client. */
  hear(client: string): void;
  /** Notes a connection that a client keeps open; the function that is returned notes its end, and says whether it was the last. */
  enter(client: string): () => boolean;
  isHere(client: string): boolean;
  /** Seconds since the last request; undefined where there was none. */
  silentFor(client: string): number | undefined;
}

/** Presence since the server's start. */
export function presenceBook(env: Pick<Env, "monotonic">): Presence {
  const heard = new Map<string, number>();
  const open = new Map<string, number>();
  return {
    hear: (client) => void heard.set(client, env.monotonic()),
    enter(client) {
      open.set(client, (open.get(client) ?? 0) + 1);
      let left = false;
      return () => {
        if (left) return false;
        left = true;
        const rest = (open.get(client) ?? 1) - 1;
        if (rest > 0) open.set(client, rest);
        else open.delete(client);
        heard.set(client, env.monotonic());
        return rest === 0;
      };
    },
    isHere: (client) => open.has(client),
    silentFor(client) {
      const at = heard.get(client);
      return at === undefined ? undefined : (env.monotonic() - at) / 1000;
    },
  };
}
