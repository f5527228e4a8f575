import type { BlobStore } from "../../federation/blob-store.ts";
import type { HostedRun } from "../../federation/federate.ts";
import type { Offers } from "./offers.ts";
import type { ClientStatus, Described, Joining, RunStatus } from "./protocol.ts";
import { Refused } from "./refusal.ts";
import type { Call } from "./route.ts";

/** A run that a server carries. */
export interface ServedRun {
  readonly id: string;
  /** The run; undefined while it waits for its clients. */
  hosted(): HostedRun | undefined;
  readonly blobs: BlobStore;
  readonly offers: Offers;
  /** The run as clients have to know it. */
  readonly described: Described;
  /** Lets a client in, or back in. Throws `Refused` where the run has no place for it. */
  join(client: string, joining: Joining): Promise<void>;
  /** Where the run stands, and what it waits for. */
  status(): RunStatus;
  /** What a client does in the run; undefined where it has not joined. */
  clientState(client: string): Omit<ClientStatus["runs"][number], "run"> | undefined;
}

/** The run that a request names. */
export function runNamed(
  runs: ReadonlyMap<string, ServedRun>,
  { parameters }: Pick<Call, "parameters">,
): ServedRun {
  const id = parameters.get("run") ?? "";
  const run = runs.get(id);
  if (run) return run;
  const names = [...runs.keys()].join(", ") || "none";
  throw new Refused(404, "unknown-run", `there is no run ${id} here; the runs are: ${names}`);
}
