import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CoordinatorOptions } from "./coordinator.ts";
import { keysOf } from "./identities.ts";
import type { Program, Programs } from "./programs.ts";
import { clientsOf, type Setting } from "./setting.ts";

/** Processes of one federation: a coordinator that is killed and started again, and clients. */
export interface ProcessRun {
  readonly folder: string;
  /** Where the coordinator listens. */
  url(): string;
  /** Starts a coordinator, on the port of the one before it. Resolves when it listens. */
  coordinator(env?: Readonly<Record<string, string>>): Promise<Program>;
  /** The same without waiting for it. */
  start(env?: Readonly<Record<string, string>>): Program;
  /** Waits until a started coordinator listens; false where it ended before. */
  listening(coordinator: Program): Promise<boolean>;
  /** Starts a process that plays some clients, by default all. */
  silo(options?: {
    readonly clients?: readonly string[];
    readonly url?: string;
    readonly setting?: Setting;
  }): Program;
  /** Private key of a client in PEM. */
  keyOf(client: string): string;
  close(): Promise<void>;
}

/** What is the same in every life of a coordinator. */
export interface ProcessRunOptions
  extends Partial<Pick<CoordinatorOptions, "chunkBytes" | "graceMs" | "leaseMs" | "waitSeconds">> {
  readonly programs: Programs;
  readonly setting: Setting;
  /** Where the coordinator's files lie. Default: a new folder. */
  readonly at?: string;
  readonly under?: readonly string[];
  readonly heartbeatMs?: number;
  /** Where clients keep what is theirs. Default: a new folder. */
  readonly silosAt?: string;
}

/** A federation whose parts are processes, in a folder of its own. */
export async function processRun(options: ProcessRunOptions): Promise<ProcessRun> {
  const { programs, setting, at, under, heartbeatMs, silosAt, ...given } = options;
  const folder = await mkdtemp(join(tmpdir(), "tributary-processes-"));
  const { publicKeys, pems } = keysOf(clientsOf(setting));
  let url = "";
  const start = (env: Readonly<Record<string, string>> = {}): Program => {
    const port = url === "" ? 0 : Number(new URL(url).port);
    const settings: CoordinatorOptions = {
      setting,
      folder: at ?? join(folder, "coordinator"),
      port,
      keys: publicKeys,
      ...given,
    };
    return programs.start({ name: "coordinator", settings, env, ...(under && { under }) });
  };
  const heard = async (program: Program): Promise<string> => {
    url = String((await program.heard("listening")).url);
    return url;
  };
  return {
    folder,
    url: () => url,
    start,
    listening: (program) => heard(program).then(Boolean, () => false),
    async coordinator(env) {
      const program = start(env);
      await heard(program);
      return program;
    },
    silo({ clients = Object.keys(pems), url: to = url, setting: own = setting } = {}) {
      const settings = {
        setting: own,
        url: to,
        folder: silosAt ?? join(folder, "silos"),
        keys: Object.fromEntries(clients.map((client) => [client, pems[client] ?? ""])),
        ...(heartbeatMs !== undefined && { heartbeatMs }),
      };
      return programs.start({ name: "silo", settings });
    },
    keyOf: (client) => pems[client] ?? "",
    close: () => rm(folder, { recursive: true, force: true }),
  };
}
