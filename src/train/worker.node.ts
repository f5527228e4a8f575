import { parentPort } from "node:worker_threads";
import { openFolder } from "../formats/files.node.ts";
import { loadModel } from "../models/load.ts";
import type { Task } from "../models/model.ts";
import { createWorkerHost, type Request } from "./worker-host.ts";

const port = parentPort;
if (!port) throw new Error("worker.node: must be started as a worker thread");

const receive = createWorkerHost({
  post: (reply) => port.postMessage(reply),
  async loadBase(source) {
    if (source.kind === "params") return source.params;
    const { path, seed, numLabels, precision = "float32", weights = "pretrained" } = source;
    const loaded = await loadModel(await openFolder(path), {
      task: source.task as Task,
      numLabels,
      seed,
      precision,
      weights,
    });
    return loaded.weights;
  },
});
port.on("message", (request: Request) => receive(request));
