import { storedAggregateTask } from "./aggregate-stored.ts";

process.send?.(await storedAggregateTask(JSON.parse(process.argv[2] ?? "{}")), () => process.disconnect());
