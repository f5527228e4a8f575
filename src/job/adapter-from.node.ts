import { adapterBase } from "../adapters/adapter.ts";
import { inCheckpointNames } from "../adapters/peft-names.ts";
import { openFolder } from "../formats/files.node.ts";
import { type PeftAdapter, readPeftAdapter } from "../formats/peft.ts";
import type { TaskModel } from "../models/task.ts";
import { localAdapter } from "./hub.node.ts";
import type { Job } from "./job.ts";

/** The PEFT adapter that a job starts from, in the names of its model; undefined where it starts from none. */
export async function readAdapterFrom(
  { adapter }: Pick<Job, "adapter">,
  model: TaskModel,
): Promise<PeftAdapter | undefined> {
  if (adapter.kind !== "lora" || adapter.from === undefined) return undefined;
  const folder = await localAdapter(adapter.from);
  return inCheckpointNames(adapterBase(model), await readPeftAdapter(await openFolder(folder)));
}
