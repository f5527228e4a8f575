import type { z } from "zod";
import { TributaryError } from "../../errors.ts";
import { patience } from "./patience.ts";
import { type ClientList, messages, type RunStatus, type ServerStatus } from "./protocol.ts";

/** What an operator asks of a server. */
export interface Operator {
  status(): Promise<ServerStatus>;
  clients(): Promise<ClientList>;
  hold(run: string, verb: "pause" | "resume" | "stop"): Promise<RunStatus>;
  kick(client: string, reason: string): Promise<ClientList>;
  tokens(count: number, seconds: number): Promise<readonly string[]>;
}

/** How an operator reaches a server. */
export interface OperatorOptions {
  readonly url: string;
  readonly token: string;
  readonly signal?: AbortSignal;
}

/** Speaks to a server as its operator. Throws TributaryError with the server's code, or `unreachable`. */
export function operatorOf({ url, token, signal }: OperatorOptions): Operator {
  async function ask<T>(
    method: "GET" | "POST",
    path: string,
    form: z.ZodType<T>,
    body?: unknown,
  ): Promise<T> {
    const waiting = patience(30_000, signal);
    let response: Response;
    let text: string;
    try {
      response = await fetch(`${url}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${token}`,
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        redirect: "error",
        signal: waiting.signal,
      });
      text = await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      const cause =
        error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
      throw new TributaryError("unreachable", `${url} cannot be reached: ${cause}; is the server running?`);
    } finally {
      waiting.end();
    }
    if (!response.ok) {
      const problem = messages.problem.safeParse(jsonOrNothing(text));
      const { code, message } = problem.success
        ? problem.data.error
        : {
            code: `http-${response.status}`,
            message: `the server answered ${response.status} without a reason; is a coordinator of tributary at this address?`,
          };
      throw new TributaryError(code, `${url}: ${message}`);
    }
    const answer = form.safeParse(jsonOrNothing(text));
    if (answer.success) return answer.data;
    throw new TributaryError(
      "protocol",
      `${url} answered what this program does not know; use the version of the server`,
    );
  }

  return {
    status: () => ask("GET", "/v1/status", messages.serverStatus),
    clients: () => ask("GET", "/v1/clients", messages.clientList),
    hold: (run, verb) => ask("POST", `/v1/runs/${run}/${verb}`, messages.runStatus),
    kick: (client, reason) => ask("POST", `/v1/clients/${client}/kick`, messages.clientList, { reason }),
    tokens: async (count, seconds) =>
      (await ask("POST", "/v1/tokens", messages.tokens, { count, seconds })).tokens,
  };
}

function jsonOrNothing(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
