// Starts the worker from its TypeScript source; the built package starts worker.node.js itself.
import { register } from "tsx/esm/api";

register();
await import("./worker.node.ts");
