import type { Strategy } from "../federation/strategy.ts";
import { repositoryOf } from "../hub/reference.ts";
import type { Job } from "./job.ts";

/** The README.md of an adapter folder. */
export function modelCard(job: Job, strategy: Strategy, round: number): string {
  const front = [
    "---",
    "library_name: peft",
    `base_model: ${nameOf(job.model)}`,
    "tags:",
    "- lora",
    "- federated",
    "---",
  ];
  const changed = strategy.declares.changesBase === true;
  return [
    ...front,
    "",
    `# ${job.name}`,
    "",
    `Adapter of \`${nameOf(job.model)}\` after round ${round} of ${job.rounds} with ${strategy.name} (${strategy.paper}).`,
    ...(changed
      ? [
          "",
          "The strategy also changed the base weights: without `base-offset.safetensors` of the run folder the adapter alone is not the model. `tributary export merged` folds both.",
        ]
      : []),
    "",
  ].join("\n");
}

/** The repository of a model on the hub, or the last part of a path. */
function nameOf(path: string): string {
  if (path.startsWith("hf://")) return repositoryOf(path);
  return path.split(/[\\/]/).findLast((part) => part !== "") ?? path;
}
