import type { JobTask } from "./job.ts";

/** Whether a task sorts its examples into classes. */
export function hasClasses(task: JobTask | undefined): boolean {
  return task === "sequence-classification" || task === "image-classification";
}
