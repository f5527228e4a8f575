import { defineConfig, type UserConfig } from "tsdown";

const config: UserConfig = defineConfig({
  entry: [
    "src/index.ts",
    "src/node.ts",
    "src/{strategies,models,adapters,optim,wrappers,storage}/*.ts",
    "src/graph/index.ts",
    "src/federation/coordinator.ts",
    "src/cli/main.ts",
    "src/runtime/ort.*.ts",
    "src/train/worker.node.ts",
  ],
  format: "esm",
  platform: "neutral",
  unbundle: true,
  dts: true,
  clean: true,
  logLevel: "warn",
  outDir: "dist",
  deps: { neverBundle: [/^#/, /^node:/, /^onnxruntime/] },
});

export default config;
