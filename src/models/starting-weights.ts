/**
 * What a model takes from its checkpoint: "pretrained", all that its task has; "trunk", all but the head of the task;
 * "random", nothing. The rest is drawn from the seed, as the configuration says.
 */
export type StartingWeights = (typeof startingWeights)[number];

export const startingWeights: readonly ["pretrained", "trunk", "random"] = ["pretrained", "trunk", "random"];
