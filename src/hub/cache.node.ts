import { access, lstat, mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import type { HubReference } from "./reference.ts";

/**
 * The folders of a repository in the cache, as Python's `huggingface_hub` lays them out: `blobs/<etag>` with the bytes,
 * `snapshots/<commit>/<file>` that link to them, `refs/<revision>` with a commit, `.no_exist/<commit>/<file>` for files that
 * a commit does not have.
 */
export interface CachedRepo {
  readonly folder: string;
  snapshot(commit: string): string;
  blob(etag: string): string;
  /** The file of a snapshot, or undefined where it is not there. */
  file(commit: string, path: string): Promise<string | undefined>;
  /** Whether a commit is known not to have a file. */
  lacks(commit: string, path: string): Promise<boolean>;
  noteAbsence(commit: string, path: string): Promise<void>;
  /** The commit that a branch or tag last stood at. */
  readRef(revision: string): Promise<string | undefined>;
  writeRef(revision: string, commit: string): Promise<void>;
  /** Puts a blob under its name in a snapshot; returns the path there. */
  link(etag: string, commit: string, path: string): Promise<string>;
}

/** A repository in a cache folder. */
export function cachedRepo(cache: string, { kind, repo }: Pick<HubReference, "kind" | "repo">): CachedRepo {
  const folder = join(cache, `${kind}s--${repo.replaceAll("/", "--")}`);
  const snapshot = (commit: string): string => join(folder, "snapshots", commit);
  const blob = (etag: string): string => join(folder, "blobs", etag);
  const absence = (commit: string, path: string): string => join(folder, ".no_exist", commit, path);
  return {
    folder,
    snapshot,
    blob,
    async file(commit, path) {
      const found = join(snapshot(commit), path);
      return (await isThere(found)) ? found : undefined;
    },
    lacks: (commit, path) => isThere(absence(commit, path)),
    async noteAbsence(commit, path) {
      await mkdir(dirname(absence(commit, path)), { recursive: true });
      await writeFile(absence(commit, path), "");
    },
    async readRef(revision) {
      const text = await readFile(join(folder, "refs", revision), "utf8").catch(() => "");
      return text.trim() || undefined;
    },
    async writeRef(revision, commit) {
      const path = join(folder, "refs", revision);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, commit);
    },
    async link(etag, commit, path) {
      const place = join(snapshot(commit), path);
      await mkdir(dirname(place), { recursive: true });
      // A link whose blob was deleted is in the way of the new one.
      if (await isLink(place)) await rm(place);
      await symlink(relative(dirname(place), blob(etag)), place).catch(async (error: unknown) => {
        if (isCode(error, "EEXIST")) return;
        // Where links need a privilege, the file itself stands in the snapshot.
        if (!isCode(error, "EPERM")) throw error;
        await rename(blob(etag), place);
      });
      return place;
    },
  };
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function isLink(path: string): Promise<boolean> {
  return lstat(path).then(
    (found) => found.isSymbolicLink(),
    () => false,
  );
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
