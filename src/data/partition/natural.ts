import { TributaryError } from "../../errors.ts";
import type { DataRecord } from "../record.ts";
import { type Partition, withoutEmptySilos } from "./partition.ts";

export interface NaturalOptions {
  /** The field that names the silo: a source, an author, a hospital. */
  readonly field: string;
  /** Fewest records of a silo; one with fewer is an error with the code `empty-silo`. */
  readonly minExamples?: number;
}

/** One client for each value of a field, in the order of its first record; named by the value. */
export function natural(
  records: readonly DataRecord[],
  { field, minExamples = 1 }: NaturalOptions,
): Partition {
  const silos = new Map<string, number[]>();
  for (const [i, record] of records.entries()) {
    const value = record[field];
    if ((typeof value !== "string" && typeof value !== "number") || value === "") {
      throw new TributaryError(
        "malformed-data",
        `natural: record ${i} has no text or number in the field "${field}", expected the name of its silo; its fields are ${Object.keys(record).join(", ")}`,
      );
    }
    const silo = silos.get(String(value));
    if (silo === undefined) silos.set(String(value), [i]);
    else silo.push(i);
  }
  if (silos.size === 0)
    throw new TributaryError(
      "empty-silo",
      "natural: there are no records, expected at least one for each silo",
    );
  return withoutEmptySilos("natural", silos, minExamples);
}
