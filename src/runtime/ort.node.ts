import { env, InferenceSession, Tensor } from "onnxruntime-node";
import { TributaryError } from "../errors.ts";
import { externalData, wrapSession } from "./ort-session.ts";
import type { Device, Runtime, SessionOptions } from "./session.ts";

const devices: readonly Device[] = ["cpu", "webgpu", "cuda"];

/** ONNX Runtime in Node.js. */
export const runtime: Runtime = {
  name: "onnxruntime-node",
  version: env.versions.node ?? env.versions.common,
  devices,
  async openSession(
    graph,
    { device = "cpu", threads = 1, keepsMemory = true, constants }: SessionOptions = {},
  ) {
    if (!devices.includes(device)) {
      throw new TributaryError(
        "device-absent",
        `runtime: got device "${device}"; Node.js has ${devices.join(", ")}`,
      );
    }
    try {
      const session = await InferenceSession.create(graph, {
        executionProviders: [device],
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        executionMode: "sequential",
        graphOptimizationLevel: "all",
        // The pattern is one more block beside what the first run has taken: a third of the memory, for no speed.
        enableMemPattern: false,
        enableCpuMemArena: keepsMemory,
        logSeverityLevel: 3,
        ...externalData(constants),
      });
      return wrapSession(session, Tensor, { device, threads });
    } catch (cause) {
      if (device === "cpu") throw cause;
      throw new TributaryError(
        "device-absent",
        `runtime: device "${device}" cannot be opened here; use "cpu", or install its driver`,
        { cause },
      );
    }
  },
};
