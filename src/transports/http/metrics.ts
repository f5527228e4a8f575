import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { EventBody } from "../../federation/journal.ts";
import type { Answered } from "./server.ts";

/** What a monitoring system reads of a server. Client ids are no labels. */
export interface ServerMetrics {
  /** Counts what a commit of a run's journal holds, and how long it took. */
  committed(run: string, events: readonly EventBody[], seconds: number): void;
  answered(answered: Answered): void;
  /** Text in the exposition format of Prometheus 0.0.4, and its media type. */
  text(): Promise<{ readonly type: string; readonly text: string }>;
}

/** What is counted at the moment of asking. */
export interface ClientCounts {
  readonly run: string;
  readonly state: "joined" | "here" | "working" | "revoked";
  readonly count: number;
}

/** The metrics of a server, under `tributary_`. */
export function serverMetrics(clients: () => readonly ClientCounts[]): ServerMetrics {
  const registers = [new Registry()];
  const [registry = new Registry()] = registers;
  const counter = (name: string, help: string, labelNames: string[]): Counter =>
    new Counter({ name: `tributary_${name}`, help, labelNames, registers });
  const histogram = (name: string, help: string, labelNames: string[], buckets: number[]): Histogram =>
    new Histogram({ name: `tributary_${name}`, help, labelNames, buckets, registers });

  const rounds = counter("rounds_total", "Rounds by how they ended.", ["run", "result"]);
  const updates = counter("updates_total", "Updates by what became of them.", ["run", "result", "reason"]);
  const expired = counter("lease_expired_total", "Leases that ended without progress.", ["run"]);
  const bytes = counter("bytes_total", "Bytes of bodies, as the server sees them.", ["direction"]);
  const requests = counter("requests_total", "Requests by route and status.", ["method", "route", "status"]);
  const commits = histogram(
    "journal_commit_seconds",
    "Time of a commit.",
    ["run"],
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3],
  );
  const lengths = histogram(
    "round_seconds",
    "Time from the opening of a round to its checkpoint.",
    ["run"],
    [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000],
  );
  new Gauge({
    name: "tributary_clients",
    help: "Clients by what they are to a run.",
    labelNames: ["run", "state"],
    registers,
    collect() {
      this.reset();
      for (const { run, state, count } of clients()) this.set({ run, state }, count);
    },
  });

  function count(run: string, event: EventBody): void {
    switch (event.type) {
      case "checkpoint-committed":
        if (!event.record) return;
        rounds.inc({ run, result: "committed" });
        lengths.observe({ run }, event.record.seconds);
        return;
      case "round-failed":
        rounds.inc({ run, result: "failed" });
        return;
      case "update-accepted":
        updates.inc({ run, result: "accepted", reason: "" });
        return;
      case "update-rejected":
        updates.inc({ run, result: "rejected", reason: event.code });
        return;
      case "assignment-ended":
        updates.inc({ run, result: "missing", reason: event.code });
        if (event.code === "lease-expired") expired.inc({ run });
    }
  }

  return {
    committed(run, events, seconds) {
      for (const event of events) count(run, event);
      commits.observe({ run }, seconds);
    },
    answered({ method, route, status, bytesIn, bytesOut }) {
      bytes.inc({ direction: "in" }, bytesIn);
      bytes.inc({ direction: "out" }, bytesOut);
      requests.inc({ method, route, status: String(status) });
    },
    text: async () => ({ type: registry.contentType, text: await registry.metrics() }),
  };
}
