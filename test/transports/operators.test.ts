import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ClientTrainer } from "../../src/federation/client.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { operatorOf } from "../../src/transports/http/operator.ts";
import { toyTrainer } from "../federation/toy.ts";
import { settings, type ToyServer, toyServer } from "./toy-server.ts";

let server: ToyServer;
beforeEach(async () => {
  server = await toyServer();
});
afterEach(() => server.close());

const operator = () => operatorOf({ url: server.url, token: "operator" });

/** Resolves when a run has come to something. */
async function until(reached: () => boolean): Promise<void> {
  for (let tries = 0; !reached(); tries++) {
    if (tries > 1000) throw new Error("it did not come to that");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe("operators", () => {
  it("are told from others by their token", async () => {
    for (const { method, path, who } of server.routes) {
      if (who !== "operator") continue;
      const at = path.replace("{run}", "toy").replace("{client}", "c00");
      for (const headers of [{}, { authorization: "Bearer guess" }]) {
        const response = await fetch(`${server.url}${at}`, {
          method,
          headers,
          ...(method === "POST" && { body: "{}" }),
        });
        expect([path, response.status]).toEqual([path, 401]);
      }
    }
    await expect(operatorOf({ url: server.url, token: "guess" }).status()).rejects.toThrow(
      /needs the operator's token/,
    );
  });

  it("pause a run: no round opens until it is resumed, and it ends with the bytes of one that was not paused", async () => {
    const strategy = fedAvg();
    let release: () => void = () => {};
    const paused = new Promise<void>((resolve) => {
      release = resolve;
    });
    // Clients at work may deliver: one of them works until the run is paused.
    const slow: ClientTrainer = {
      async train(task, options) {
        if (task.assignment.round === 2) await paused;
        return toyTrainer().train(task, options);
      },
    };
    const loops = settings.clients.map(({ id }, i) =>
      server.join(id, strategy, i === 0 ? { trainer: slow } : {}),
    );
    const made = server.rounds(strategy, {
      onEvent(event) {
        if (event.type === "round-opened" && event.round === 2)
          void operator().hold("toy", "pause").then(release);
      },
    });
    await paused;
    await until(() => server.hosted()?.state().rounds.length === 2);
    const at = server.hosted()?.state().rounds.length;
    expect((await operator().status()).runs[0]?.phase).toBe("paused");
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(server.hosted()?.state().rounds.length).toBe(at);
    await operator().hold("toy", "resume");
    const rounds = await made;
    await Promise.allSettled(loops);
    expect(rounds).toHaveLength(settings.rounds);

    const calm = await toyServer();
    const others = settings.clients.map(({ id }) => calm.join(id, strategy));
    const expected = await calm.rounds(strategy);
    await Promise.allSettled(others);
    await calm.close();
    expect(rounds.map(({ state }) => state)).toEqual(expected.map(({ state }) => state));
  });

  it("stop a run with its last committed round, and clients hear why", async () => {
    const strategy = fedAvg();
    const loops = settings.clients.map(({ id }) => server.join(id, strategy));
    const rounds = await server.rounds(strategy, {
      rounds: 1000,
      onEvent(event) {
        if (event.type === "round-committed" && event.round.number === 2) void operator().hold("toy", "stop");
      },
    });
    await Promise.all(loops);
    expect(rounds.length).toBeGreaterThanOrEqual(2);
    expect(rounds.length).toBeLessThan(1000);
    expect(server.hosted()?.state().ended?.round).toBe(rounds.length);
    for (const verb of ["pause", "resume", "stop"] as const)
      await expect(operator().hold("toy", verb)).rejects.toMatchObject({
        code: "run-over",
        message: expect.stringContaining(`nothing left to ${verb}`),
      });
  });

  it("remove a client: its key is refused, and the round goes on without it", async () => {
    const strategy = fedAvg();
    const [first, ...others] = settings.clients;
    const out = server.join(first?.id ?? "", strategy, {
      trainer: {
        // It works on until it is told to stop.
        async train(_, { onProgress, signal }) {
          for (let step = 0; !signal.aborted; step++) {
            onProgress({ step, steps: 1000 });
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
          throw signal.reason;
        },
      },
    });
    out.catch(() => undefined);
    const loops = others.map(({ id }) => server.join(id, strategy));
    const made = server.rounds(strategy, { rounds: 2 });
    await until(
      () =>
        server
          .hosted()
          ?.state()
          .open?.leases.has(first?.id ?? "") === true,
    );
    const { clients } = await operator().kick(first?.id ?? "", "sends noise");
    expect(clients[0]?.revoked).toBe("sends noise");
    const rounds = await made;
    expect(rounds[0]?.rejected).toEqual([{ client: first?.id, code: "revoked", reason: "sends noise" }]);
    expect(rounds[1]?.clients).toEqual(others.map(({ id }) => id));
    await Promise.allSettled(loops);
    await expect(out).rejects.toThrow(/no client c00 is enrolled here, or it was removed/);
    await server.close();
    await expect(operatorOf({ url: server.url, token: "operator" }).status()).rejects.toThrow(
      /cannot be reached/,
    );
  });

  it("make tokens that admit one client each", async () => {
    const tokens = await operator().tokens(2, 60);
    expect(new Set(tokens).size).toBe(2);
    const enrol = (name: string, key: string): Promise<Response> =>
      fetch(`${server.url}/v1/enrol`, {
        method: "POST",
        body: JSON.stringify({ token: tokens[0], publicKey: key.repeat(43), name }),
      });
    expect((await enrol("bern", "A")).status).toBe(200);
    expect((await enrol("lima", "A")).status).toBe(403);
    expect((await operator().clients()).clients.map(({ client }) => client)).toEqual(["bern"]);
  });

  it("listen to the rounds as they are made, the earlier ones first", async () => {
    const strategy = fedAvg();
    const loops = settings.clients.map(({ id }) => server.join(id, strategy));
    const heard: number[] = [];
    const stop = new AbortController();
    const made = server.rounds(strategy);
    await until(() => (server.hosted()?.state().rounds.length ?? 0) >= 1);
    const { body, headers } = await fetch(`${server.url}/v1/events`, {
      headers: { authorization: "Bearer operator" },
      signal: stop.signal,
    });
    expect(headers.get("content-type")).toBe("text/event-stream");
    let text = "";
    const listening = (async () => {
      for await (const piece of body ?? []) text += new TextDecoder().decode(piece);
    })().catch(() => undefined);
    await made;
    await until(() => text.includes("run-ended"));
    stop.abort();
    await listening;
    for (const [, data = ""] of text.matchAll(/event: round-committed\ndata: (.*)\n/g))
      heard.push(JSON.parse(data).round.number);
    expect(heard).toEqual([1, 2, 3]);
    await Promise.allSettled(loops);
  });
});

describe("machines that watch", () => {
  it("read health, readiness and metrics without a token, and no client's name in them", async () => {
    const read = async (path: string): Promise<[number, string]> => {
      const response = await fetch(`${server.url}${path}`);
      return [response.status, await response.text()];
    };
    expect(await read("/healthz")).toEqual([200, '{"ok":true,"problems":[]}']);
    expect(await read("/readyz")).toEqual([200, '{"ok":true,"problems":[]}']);
    server.metrics.committed(
      "toy",
      [
        {
          type: "assignment-ended",
          round: 1,
          client: "bern",
          assignment: "",
          code: "lease-expired",
          reason: "no progress for 60 s",
          elapsedMs: 1,
        },
      ],
      0.002,
    );
    server.metrics.answered({ method: "PUT", route: "/x", status: 204, bytesIn: 7, bytesOut: 0, ms: 1 });
    const [status, text] = await read("/metrics");
    expect(status).toBe(200);
    expect(text).toContain('tributary_updates_total{run="toy",result="missing",reason="lease-expired"} 1');
    expect(text).toContain('tributary_lease_expired_total{run="toy"} 1');
    expect(text).toContain('tributary_bytes_total{direction="in"} 7');
    expect(text).toContain('tributary_journal_commit_seconds_count{run="toy"} 1');
    expect(text).not.toContain("bern");
  });

  it("read a description of every route", async () => {
    const described = await (await fetch(`${server.url}/v1/openapi.json`)).json();
    expect(described.openapi).toBe("3.1.0");
    for (const { method, path } of server.routes)
      expect(Object.keys(described.paths[path] ?? {}), path).toContain(method.toLowerCase());
    const submit = described.paths["/v1/runs/{run}/submit"].post;
    expect(submit.requestBody.content["application/json"].schema.required).toContain("manifest");
    expect(submit.security).toEqual([{ client: [] }]);
  });
});
