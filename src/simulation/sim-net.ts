import { joined } from "../federation/digest.ts";
import type { VirtualEnv } from "../federation/env.ts";
import type { RandomStream } from "../tensor/random.ts";
import type { Answer, Send } from "../transports/http/send.ts";
import type { Life } from "./life.ts";

/** A request as it reaches a server. */
export interface Arrival {
  readonly method: string;
  readonly path: string;
  readonly body: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
  readonly client: string;
  /** Aborted when whoever asked is gone. */
  readonly gone: AbortSignal;
}

/** A server that listens. */
export interface Listener {
  readonly life: Life;
  answer(arrival: Arrival): Promise<Answer>;
}

/** What a network does wrong at the moment. */
export interface NetTrouble {
  /** Whether what travels this way now is lost. */
  loses(client: string, way: "up" | "down"): boolean;
  /** Whether a request arrives twice. */
  duplicates(): boolean;
  /** Whether a bit of a blob turns. */
  corrupts(): boolean;
  delayMs(): number;
}

/** What a network joins. */
export interface NetOptions {
  readonly clock: VirtualEnv;
  readonly draw: RandomStream;
  readonly trouble: NetTrouble;
  /** Who listens now. */
  listener(): Listener | undefined;
  trace(what: () => string): void;
}

/** A network: the way out of one process. */
export type SimNet = (client: string, life: Life) => Send;

/** What waits at a server aborts when whoever asked is gone; nothing else reads the signal. */
const waiting = /\/(next|live)\b/;
const patient = new AbortController().signal;

/** A network that loses, doubles, delays and reorders what travels; either way of an exchange by itself. */
export function simNet({ clock, draw, trouble, listener, trace }: NetOptions): SimNet {
  let exchanges = 0;
  return (client, life) => (request) =>
    new Promise<Answer>((resolve, reject) => {
      if (!life.alive) return;
      const { method, path, timeoutMs, signal } = request;
      const name = `${++exchanges} ${client} ${method} ${path}`;
      const gone = waiting.test(path) ? new AbortController() : undefined;
      let over = false;

      function end(settle: () => void): void {
        if (over) return;
        over = true;
        cancel();
        forget();
        signal.removeEventListener("abort", abort);
        if (life.alive) settle();
      }
      /** The connection breaks: whoever asked notices after a while. */
      function broken(why: string, ms: number): void {
        trace(() => `${name}: ${why}`);
        clock.after(ms, () => end(() => reject(new Error(why))));
      }
      function leave(): void {
        if (gone && !over) clock.after(trouble.delayMs(), () => gone.abort(new Error("the client is gone")));
      }
      const abort = (): void => {
        leave();
        end(() => reject(signal.reason));
      };
      const cancel = clock.after(timeoutMs, () => {
        leave();
        end(() => reject(new Error("no answer in time")));
      });
      const forget = life.onKill(() => {
        leave();
        over = true;
        cancel();
      });
      signal.addEventListener("abort", abort, { once: true });

      function arrive(): void {
        const server = listener();
        if (trouble.loses(client, "up")) {
          broken("the request is lost", lossMs());
          return;
        }
        if (!server) {
          broken("connection refused", 1);
          return;
        }
        trace(() => `${name}: arrives`);
        const unhear = server.life.onKill(() => broken("connection reset", trouble.delayMs()));
        const body = carried(joined(request.body ?? []), method === "PUT");
        const arrival: Arrival = {
          method,
          path,
          body,
          headers: request.headers,
          client,
          gone: gone?.signal ?? patient,
        };
        void server.answer(arrival).then((answer) => {
          if (!server.life.alive) return;
          unhear();
          if (trouble.loses(client, "down")) {
            broken(`its answer ${answer.status} is lost`, lossMs());
            return;
          }
          clock.after(trouble.delayMs(), () => {
            trace(() => `${name}: ${answer.status} ${over ? "comes too late" : ""}`);
            end(() =>
              resolve({
                ...answer,
                body: carried(
                  answer.body,
                  answer.status === 200 && method === "GET" && path.includes("/blobs/"),
                ),
              }),
            );
          });
        });
      }

      function carried(bytes: Uint8Array, isBlob: boolean): Uint8Array {
        if (!isBlob || bytes.length === 0 || !trouble.corrupts()) return bytes;
        trace(() => `${name}: a bit turns`);
        const turned = bytes.slice();
        const place = draw.integer(turned.length);
        turned[place] = (turned[place] ?? 0) ^ (1 << draw.integer(8));
        return turned;
      }

      clock.after(trouble.delayMs(), arrive);
      if (trouble.duplicates()) clock.after(trouble.delayMs() + trouble.delayMs(), arrive);
    });

  /** Now and then nothing tells that an exchange is lost but the time that it takes. */
  function lossMs(): number {
    return draw.integer(8) === 0 ? Number.POSITIVE_INFINITY : draw.uniformRange(5, 2000);
  }
}
