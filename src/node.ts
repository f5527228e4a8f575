export { readRecords, readTokenizer } from "./data/files.node.ts";
export { openFolder, writeFileAtomic } from "./formats/files.node.ts";
export { fetchFile, fetchModel, type HubOptions, type HubProgress } from "./hub/hub.node.ts";
export { type HubReference, parseHubReference } from "./hub/reference.ts";
export type { JobEvent, RunSummary } from "./job/events.ts";
export { type RunJobOptions, runJob } from "./job/run.ts";
export { openPool, type Pool, planPool } from "./train/pool.node.ts";
