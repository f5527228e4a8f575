import { TributaryError } from "../errors.ts";
import { canonicalJson } from "../federation/canonical-json.ts";
import { type Hash, sha256Text } from "../federation/digest.ts";
import type { Journal, JournalEvent } from "../federation/journal.ts";
import { durableFolders, replaceFile } from "../formats/file-system.node.ts";
import type { SimFiles } from "./sim-disk.ts";

/**
 * A journal in one file: a line for each append, with its length and digest, synced before the append resolves. What a
 * crash tore off is dropped when the file is opened, and the rest is written again: what was read may not be durable.
 */
export async function openSimJournal(
  files: SimFiles,
  { folder, hash }: { readonly folder: string; readonly hash: Hash },
): Promise<Journal> {
  const path = `${folder}/journal`;
  await durableFolders(files, folder).make(folder);
  const found =
    (await files.modified(path)) === undefined ? "" : new TextDecoder().decode(await files.read(path));
  const rows: string[] = [];
  const kept: string[] = [];
  for (const line of found.split("\n").slice(0, -1)) {
    const [length, digest, text] = partsOf(line);
    if (Number(length) !== text.length || (await sha256Text(text, hash)) !== digest) break;
    // The digest has vouched for the line, which only `append` writes.
    for (const event of JSON.parse(text) as readonly JournalEvent[]) rows.push(JSON.stringify(event));
    kept.push(`${line}\n`);
  }
  await replaceFile(files, { path, draft: `${path}.new`, bytes: new TextEncoder().encode(kept.join("")) });
  const file = await files.append(path);
  let failed: unknown;

  return {
    async append(events, expect) {
      if (failed)
        throw new TributaryError("journal-failed", "journal: an earlier append failed", { cause: failed });
      if (rows.length !== expect)
        throw new TributaryError(
          "journal-fenced",
          `journal: it has ${rows.length} events, expected ${expect}`,
        );
      const text = canonicalJson(events);
      const bytes = new TextEncoder().encode(`${text.length} ${await sha256Text(text, hash)} ${text}\n`);
      try {
        for (let at = 0; at < bytes.length; ) at += await file.write(bytes.subarray(at));
        await file.sync();
      } catch (cause) {
        failed = cause;
        throw new TributaryError("journal-failed", "journal: an append failed; open it again", { cause });
      }
      for (const event of events) rows.push(JSON.stringify(event));
    },
    async *read(from) {
      for (let i = from - 1; i < rows.length; i++) {
        const row = rows[i];
        if (row !== undefined) yield JSON.parse(row) as JournalEvent;
      }
    },
  };
}

function partsOf(line: string): [string, string, string] {
  const first = line.indexOf(" ");
  const second = line.indexOf(" ", first + 1);
  return [line.slice(0, first), line.slice(first + 1, second), line.slice(second + 1)];
}
