/** Layers, top to bottom: a folder imports only itself and what stands above it (docs/architecture.md). */
const layers = [
  "tensor",
  "formats",
  "hub",
  "graph",
  "runtime",
  "nn",
  "models",
  "adapters",
  "optim",
  "data",
  "train",
  "plan",
  "metrics",
  "federation",
  "strategies|wrappers",
  "transports",
  "storage",
  "simulation",
  "eval",
  "job",
  "sweep",
  "report",
  "cli",
];

const upward = layers.slice(0, -1).map((layer, i) => ({
  name: `layer-${layer.replace("|", "-")}`,
  severity: "error",
  comment: `${layer} imports a layer below it`,
  from: { path: `^src/(${layer})/` },
  to: { path: `^src/(${layers.slice(i + 1).join("|")})/` },
}));

module.exports = {
  forbidden: [
    ...upward,
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    {
      name: "models-are-pure",
      severity: "error",
      comment: "models know neither adapters nor training nor devices",
      from: { path: "^src/(models|nn)/" },
      to: { path: "^src/(adapters|train|runtime)/" },
    },
    {
      name: "one-runtime",
      severity: "error",
      comment: "only runtime/ort.*.ts know ONNX Runtime",
      from: { path: "^src/", pathNot: "^src/runtime/ort[.-]" },
      to: { path: "onnxruntime" },
    },
    {
      name: "strategies-are-plug-ins",
      severity: "error",
      comment: "a strategy is named by the catalogue and by other strategies only",
      from: { path: "^src/", pathNot: "^src/strategies/" },
      to: { path: "^src/strategies/[^/]+\\.ts$" },
    },
    {
      name: "node-is-a-seam",
      severity: "error",
      comment: "node: modules only in cli, transports, storage and *.node.ts",
      from: { path: "^src/", pathNot: "^src/(cli|transports|storage)/|\\.node\\.ts$" },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "coordinator-is-light",
      severity: "error",
      comment: "a server that only aggregates loads no ONNX Runtime",
      from: { path: "^src/federation/coordinator\\.ts$" },
      to: { path: "^src/(train|runtime)/|onnxruntime", reachable: true },
    },
    {
      name: "cli-is-the-top",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/cli/" },
      to: { path: "^src/cli/" },
    },
    {
      name: "no-barrel-inside",
      severity: "error",
      from: { path: "^src/.+/" },
      to: { path: "^src/(index|node)\\.ts$" },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: "specify",
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: {
      conditionNames: ["@tributary/source", "node", "import", "types", "default"],
      extensions: [".ts", ".mjs", ".js"],
    },
  },
};
