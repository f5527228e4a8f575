import type {
  InferenceSession,
  Tensor as OrtTensor,
  TensorConstructor,
  TypedTensor,
} from "onnxruntime-common";
import { TributaryError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Device, Session } from "./session.ts";

type OrtType = OrtTensor.Type;

const ortTypes: { readonly [K in DType]?: OrtType } = {
  float32: "float32",
  float64: "float64",
  float16: "float16",
  bfloat16: "uint16", // as the graph reads it
  int8: "int8",
  int16: "int16",
  int32: "int32",
  int64: "int64",
  uint8: "uint8",
  uint16: "uint16",
  uint32: "uint32",
  uint64: "uint64",
  bool: "bool",
};

const dtypes = new Map<OrtType, DType>(
  Object.entries(ortTypes)
    .filter(([dtype]) => dtype !== "bfloat16")
    .map(([dtype, type]) => [type, dtype as DType] as const),
);

const bitsOf = (data: unknown): unknown =>
  ArrayBuffer.isView(data) ? new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2) : data;

function fromOrt(name: string, value: TypedTensor<OrtType>): Tensor {
  const dtype = dtypes.get(value.type);
  if (!dtype)
    throw new TributaryError(
      "dtype",
      `session: output "${name}" has dtype ${value.type}, which has no host array`,
    );
  const { data } = value;
  // An engine with Float16Array is given one; a float16 tensor holds its bits.
  const isBits = dtype !== "float16" || data instanceof Uint16Array;
  return { dtype, shape: value.dims, data: isBits ? data : bitsOf(data) } as Tensor;
}

/** Constants as ONNX Runtime takes them. */
export function externalData(
  constants: ReadonlyMap<string, Uint8Array> = new Map(),
): Pick<InferenceSession.SessionOptions, "externalData"> {
  return constants.size === 0 ? {} : { externalData: [...constants].map(([path, data]) => ({ path, data })) };
}

/** Wraps a session of ONNX Runtime. Host arrays go in and out without a copy on the CPU. */
export function wrapSession(
  session: InferenceSession,
  TensorClass: TensorConstructor,
  { device, threads }: { readonly device: Device; readonly threads: number },
): Session {
  // A feed that stays the same object between runs, such as a base weight, keeps its wrapper.
  const wrappers = new WeakMap<Tensor, OrtTensor>();
  const toOrt = (name: string, value: Tensor): OrtTensor => {
    const known = wrappers.get(value);
    if (known) return known;
    const type = ortTypes[value.dtype];
    if (!type)
      throw new TributaryError(
        "dtype",
        `session: feed "${name}" has dtype ${value.dtype}; convert it before feeding`,
      );
    const wrapped = new TensorClass(type, value.data as never, value.shape);
    wrappers.set(value, wrapped);
    return wrapped;
  };
  return {
    inputNames: session.inputNames,
    outputNames: session.outputNames,
    device,
    threads,
    async run(feeds: Params): Promise<Params> {
      const wrapped: Record<string, OrtTensor> = {};
      const missing: string[] = [];
      for (const name of session.inputNames) {
        const value = feeds.get(name);
        if (value) wrapped[name] = toOrt(name, value);
        else missing.push(name);
      }
      if (missing.length > 0) {
        throw new TributaryError(
          "missing-feed",
          `session: no value for ${missing.length} graph inputs: ${missing.slice(0, 8).join(", ")}`,
        );
      }
      const results = await session.run(wrapped);
      return new Map(
        session.outputNames.map((name) => {
          const value = results[name];
          if (!value) throw new Error(`session: output "${name}" is missing`);
          return [name, fromOrt(name, value as TypedTensor<OrtType>)] as const;
        }),
      );
    },
    dispose: () => session.release(),
  };
}
