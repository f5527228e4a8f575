import { runtime } from "#ort";
import { loraFeeds, loraStep } from "../browser/lora-step.ts";

/** Prints the results of one training step on the device named on the command line, as JSON by output name. */
const [device] = process.argv.slice(2);
if (device !== "cpu" && device !== "webgpu") throw new Error(`webgpu-steps: got device "${device}"`);
const session = await runtime.openSession(loraStep(), { device });
const results = await session.run(loraFeeds());
await session.dispose();
const entries = [...results].map(([name, { data }]) => [name, Array.from(data, Number)] as const);
process.stdout.write(JSON.stringify(Object.fromEntries(entries)));
