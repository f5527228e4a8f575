import {
  svd as exactSvd,
  fixSigns,
  leadingSvd,
  randomizedSvd,
  type Svd,
  truncate,
} from "../tensor/linalg.ts";
import { type Matrix, matrixOf, transpose } from "../tensor/matrix.ts";
import type { RandomStream } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Projection } from "./optimizer.ts";

/** The projectors of one parameter: columns and rows are orthonormal. */
export interface Projectors {
  /** [out, rank] */
  readonly leftProjector?: Tensor;
  /** [rank, in] */
  readonly rightProjector?: Tensor;
}

/**
 * The leading singular vectors of a gradient in the shapes and dtypes of the projectors that are held. Signs are free in
 * a decomposition, and seen where moments outlive a refresh: the entry of largest magnitude of each kept vector is
 * positive, of the left one where both are kept.
 */
export function refreshedProjectors(
  gradient: Tensor,
  { leftProjector, rightProjector }: Projectors,
  decomposition: Projection["decomposition"],
  random: RandomStream,
): Projectors {
  const rank = leftProjector?.shape[1] ?? rightProjector?.shape[0] ?? 0;
  const found = decompose(matrixOf(gradient), rank, decomposition, random);
  const { u, vt } = leftProjector ? fixSigns(found) : rightSigns(found);
  return {
    ...(leftProjector && { leftProjector: like(leftProjector, u) }),
    ...(rightProjector && { rightProjector: like(rightProjector, vt) }),
  };
}

function decompose(
  gradient: Matrix,
  rank: number,
  decomposition: Projection["decomposition"],
  random: RandomStream,
): Svd {
  switch (decomposition) {
    case "auto":
      return leadingSvd(gradient, rank, random);
    case "exact":
      return truncate(exactSvd(gradient), rank);
    case "randomized":
      return randomizedSvd(gradient, rank, random);
  }
}

/** Signs by the right vectors. */
function rightSigns({ u, singularValues, vt }: Svd): Svd {
  const turned = fixSigns({ u: transpose(vt), singularValues, vt: transpose(u) });
  return { u: transpose(turned.vt), singularValues, vt: transpose(turned.u) };
}

function like({ dtype, shape }: Tensor, { data }: Matrix): Tensor {
  return dtype === "float64"
    ? { dtype, shape, data }
    : { dtype: "float32", shape, data: Float32Array.from(data) };
}
