import type { Env } from "../../federation/env.ts";
import type { HostedRun } from "../../federation/federate.ts";
import { type EventFeed, serverSentEvent } from "./event-feed.ts";
import type { Identities } from "./identities.ts";
import type { ServerMetrics } from "./metrics.ts";
import { openApi } from "./openapi.ts";
import type { Presence } from "./presence.ts";
import {
  type ClientStatus,
  type Health,
  messages,
  type Removal,
  type ServerStatus,
  type TokenOrder,
  type WireLimits,
} from "./protocol.ts";
import { Refused } from "./refusal.ts";
import { type Call, jsonBody, type Reply, type Route } from "./route.ts";
import { runNamed, type ServedRun } from "./served-run.ts";

/** What the routes of operators and of machines that watch work on. */
export interface OperatorRoutesOptions {
  readonly runs: ReadonlyMap<string, ServedRun>;
  readonly identities: Identities;
  readonly presence: Presence;
  readonly metrics: ServerMetrics;
  readonly feed: EventFeed;
  readonly limits: WireLimits;
  readonly env: Env;
  /** Name and version of the program. */
  readonly server: string;
  /** What keeps the server from its work; empty where nothing does. */
  problems(): readonly string[];
}

/** The routes of operators, with those that only watch; `others` are described beside them. */
export function operatorRoutes(options: OperatorRoutesOptions, others: readonly Route[]): Route[] {
  const { runs, identities, presence, metrics, feed, limits, env, server } = options;
  const began = env.monotonic();

  function hostedOf(call: Call): HostedRun {
    const run = runNamed(runs, call);
    const hosted = run.hosted();
    if (hosted) return hosted;
    throw new Refused(409, "run-waits", `${run.status().why}; it can be held once its first round is open`);
  }

  function statusOf(client: string, revoked: string | undefined): ClientStatus {
    const seen = presence.silentFor(client);
    return {
      client,
      here: presence.isHere(client),
      ...(seen !== undefined && { seenSeconds: seen }),
      ...(revoked !== undefined && { revoked }),
      runs: [...runs.values()].flatMap((run) => {
        const part = run.clientState(client);
        return part ? [{ run: run.id, ...part }] : [];
      }),
    };
  }

  const hold = (verb: "pause" | "resume" | "stop", summary: string): Route => ({
    method: "POST",
    path: `/v1/runs/{run}/${verb}`,
    summary,
    who: "operator",
    answer: messages.runStatus,
    async handle(call) {
      const hosted = hostedOf(call);
      const { ended, halted } = hosted.state();
      const { why, phase } = runNamed(runs, call).status();
      // What is asked for again is answered again.
      if (ended || phase === "failed" || (halted === "stopped" && verb !== "stop"))
        throw new Refused(409, "run-over", `there is nothing left to ${verb}: ${why}`);
      await hosted[verb]();
      return { status: 200, json: runNamed(runs, call).status() };
    },
  });

  const health = (problems: readonly string[]): Reply => {
    const answer: Health = { ok: problems.length === 0, problems };
    return { status: answer.ok ? 200 : 503, json: answer };
  };

  const routes: Route[] = [
    {
      method: "GET",
      path: "/v1/status",
      summary: "Where the server and its runs stand.",
      who: "operator",
      answer: messages.serverStatus,
      async handle() {
        const status: ServerStatus = {
          server,
          upSeconds: (env.monotonic() - began) / 1000,
          runs: [...runs.values()].map((run) => run.status()),
        };
        return { status: 200, json: status };
      },
    },
    {
      method: "GET",
      path: "/v1/clients",
      summary: "The clients that are enrolled, and what each does.",
      who: "operator",
      answer: messages.clientList,
      async handle() {
        const clients = identities.list().map(({ client, revoked }) => statusOf(client, revoked));
        return { status: 200, json: { clients } };
      },
    },
    hold("pause", "Lends nothing more and opens no round; clients at work may deliver."),
    hold("resume", "Lets a run go on that was paused."),
    hold("stop", "Ends a run with its last committed round."),
    {
      method: "POST",
      path: "/v1/clients/{client}/kick",
      summary: "Removes a client from the server and all its runs.",
      who: "operator",
      body: jsonBody(messages.removal, limits.messageBytes),
      answer: messages.clientList,
      async handle(call) {
        const client = call.parameters.get("client") ?? "";
        if (!identities.list().some((known) => known.client === client))
          throw new Refused(
            404,
            "unknown-client",
            `no client ${client} is enrolled here; tributary clients lists those that are`,
          );
        const { reason } = call.json as Removal;
        // First in the runs: a crash in between leaves a client that is asked to leave once more.
        for (const run of runs.values()) await run.hosted()?.revoke(client, reason);
        await identities.revoke(client, reason);
        return { status: 200, json: { clients: [statusOf(client, reason)] } };
      },
    },
    {
      method: "POST",
      path: "/v1/tokens",
      summary: "Makes one-time tokens, each for one client.",
      who: "operator",
      body: jsonBody(messages.tokenOrder, limits.messageBytes),
      answer: messages.tokens,
      async handle({ json }) {
        const { count, seconds } = json as TokenOrder;
        const tokens: string[] = [];
        for (let i = 0; i < count; i++) tokens.push(await identities.issueToken(seconds));
        return { status: 200, json: { tokens } };
      },
    },
    {
      method: "GET",
      path: "/v1/events",
      summary: "What happens in the runs, as it happens; first the rounds so far.",
      who: "operator",
      answer: "text/event-stream",
      handle: async ({ gone }) => ({ status: 200, events: history(gone) }),
    },
    {
      method: "GET",
      path: "/metrics",
      summary: "Metrics for Prometheus.",
      who: "anyone",
      answer: "text/plain",
      async handle() {
        const { type, text } = await metrics.text();
        return { status: 200, text, headers: { "content-type": type } };
      },
    },
    {
      method: "GET",
      path: "/healthz",
      summary: "Whether the server answers.",
      who: "anyone",
      answer: messages.health,
      handle: async () => health([]),
    },
    {
      method: "GET",
      path: "/readyz",
      summary: "Whether the server can take work; 503 with the reasons where not.",
      who: "anyone",
      answer: messages.health,
      handle: async () => health(options.problems()),
    },
    {
      method: "GET",
      path: "/v1/openapi.json",
      summary: "This description.",
      who: "anyone",
      answer: "application/json",
      handle: async () => ({ status: 200, json: openApi([...others, ...routes], server) }),
    },
  ];
  return routes;

  async function* history(gone: AbortSignal): AsyncGenerator<string> {
    const later = feed.listen(gone);
    const past = [...runs.values()].flatMap((run) =>
      (run.hosted()?.state().rounds ?? []).map((round) =>
        serverSentEvent("round-committed", { run: run.id, round }),
      ),
    );
    yield `: ${server}\n\n${past.join("")}`;
    yield* later;
  }
}
