export { readRecords, readTokenizer } from "./data/files.node.ts";
export { openFolder, writeFileAtomic } from "./formats/files.node.ts";
export type { JobEvent, RunSummary } from "./job/events.ts";
export { type RunJobOptions, runJob } from "./job/run.ts";
export { openPool, type Pool, planPool } from "./train/pool.node.ts";
