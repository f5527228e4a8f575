import { defineConfig, type ViteUserConfig } from "vitest/config";

const conditions = ["@tributary/source", "node", "import", "module", "default"];

const config: ViteUserConfig = defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ["test/**/*.test.ts"],
    // Two cores: one worker trains or times while the other only waits.
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    server: { deps: { external: [/onnxruntime/] } },
  },
});
export default config;
