import type { RopeOptions, RopeScaling } from "../nn/rope.ts";
import type { ConfigReader } from "./config.ts";

/** Positions in the rotary tables of a graph; longer contexts than this are not addressed. */
export const TABLE_POSITIONS = 8192;

/** What turns the heads of a layer, from where Transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`) has it. */
export function ropeOptions(
  read: ConfigReader,
  { headDim, maxPositions }: Pick<RopeOptions, "headDim" | "maxPositions">,
): RopeOptions {
  read.only("partial_rotary_factor", 1);
  const parameters = read.object("rope_parameters");
  parameters?.only("partial_rotary_factor", 1);
  const theta = parameters?.has("rope_theta") ? parameters : read;
  const scaling = ropeScaling(parameters ?? read.object("rope_scaling"));
  return { headDim, maxPositions, theta: theta.number("rope_theta", 10000), scaling };
}

/** The name of a scaling: "default" where there is none. */
export function ropeType(read: ConfigReader | undefined): string {
  return read?.string("rope_type", read.string("type", "default")) ?? "default";
}

/** The scaling that an object of config.json describes. */
export function ropeScaling(read: ConfigReader | undefined): RopeScaling {
  const type = ropeType(read);
  if (!read || type === "default") return { type: "default" };
  if (type === "linear") return { type, factor: read.number("factor") };
  if (type === "llama3") {
    return {
      type,
      factor: read.number("factor"),
      lowFreqFactor: read.number("low_freq_factor"),
      highFreqFactor: read.number("high_freq_factor"),
      originalMaxPositionEmbeddings: read.number("original_max_position_embeddings"),
    };
  }
  read.refuse(read.has("rope_type") ? "rope_type" : "type", '"default", "linear" or "llama3"');
  return { type: "default" };
}
