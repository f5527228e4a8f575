import { widen } from "../tensor/convert.ts";
import type { Params } from "../tensor/params.ts";
import { float32, type Tensor } from "../tensor/tensor.ts";
import type { ModelParameter } from "./model.ts";
import type { TaskModel } from "./task.ts";

/** The shape in which checkpoints hold a tensor. */
export function storedShape({ shape, transposed }: ModelParameter): readonly number[] {
  return transposed ? [...shape].reverse() : shape;
}

/** A tensor of a checkpoint in float32, matrices as [out, in]. */
export function fromCheckpoint(stored: Tensor, { transposed }: ModelParameter): Tensor<"float32"> {
  return transposed ? turned(stored) : widen(stored);
}

/** Tensors under names of a model as its checkpoints hold them; those that checkpoints hold alike are shared. */
export function checkpointTensors({ model, config, task }: TaskModel, tensors: Params): Params {
  const parameters = model.parameters(config, task);
  return new Map(
    [...tensors].map(([name, value]) => [name, parameters.get(name)?.transposed ? turned(value) : value]),
  );
}

function turned(matrix: Tensor): Tensor<"float32"> {
  const [rows, columns] = matrix.shape;
  if (rows === undefined || columns === undefined || matrix.shape.length !== 2)
    throw new RangeError(`checkpoint: got [${matrix.shape}], expected a matrix`);
  const { data } = widen(matrix);
  const values = new Float32Array(data.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) values[j * rows + i] = data[i * columns + j]!;
  }
  return float32([columns, rows], values);
}
