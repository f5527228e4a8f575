import { env, InferenceSession, Tensor } from "onnxruntime-web";
import { TributaryError } from "../errors.ts";
import { externalData, wrapSession } from "./ort-session.ts";
import type { Device, Runtime, SessionOptions } from "./session.ts";

const devices: readonly Device[] = ["wasm", "webgpu"];

/** ONNX Runtime in a browser. Threads need a cross-origin isolated page; without one there is one thread. */
export const runtime: Runtime = {
  name: "onnxruntime-web",
  version: env.versions.web ?? env.versions.common,
  devices,
  async openSession(graph, { device = "wasm", threads = 1, constants }: SessionOptions = {}) {
    if (!devices.includes(device)) {
      throw new TributaryError(
        "device-absent",
        `runtime: got device "${device}"; a browser has ${devices.join(", ")}`,
      );
    }
    const granted = globalThis.crossOriginIsolated ? threads : 1;
    env.wasm.numThreads = granted;
    const session = await InferenceSession.create(graph, {
      executionProviders: [device],
      graphOptimizationLevel: "all",
      logSeverityLevel: 3,
      ...externalData(constants),
    });
    return wrapSession(session, Tensor, { device, threads: granted });
  },
};
