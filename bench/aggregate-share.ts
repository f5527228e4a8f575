import { aggregateShare } from "./aggregate.ts";

const { method, shape, share, processes } = JSON.parse(process.argv[2] ?? "{}");
process.send?.(await aggregateShare(method, shape, share, processes), () => process.disconnect());
