import type { FileSystem, OpenFile } from "../formats/file-system.node.ts";
import type { RandomStream } from "../tensor/random.ts";
import type { Life } from "./life.ts";

/** What a disk does wrong at the moment. */
export interface DiskTrouble {
  /** Bytes that a write still takes; infinite where there is room. */
  room(): number;
  failsWrite(): boolean;
  failsSync(): boolean;
  /** Milliseconds that a sync takes, and a read; 0 for none. */
  syncMs(): number;
  readMs(): number;
}

/** What stands around a disk that a process works on. */
export interface Mount {
  readonly life: Life;
  readonly trouble: DiskTrouble;
  /** Called after every effect that a crash may come behind: a write, a sync, a rename. */
  committed(what: string): void;
}

/** The file system of a machine; what was appended to a file and not synced is lost or torn when power is. */
export interface SimFiles extends FileSystem {
  /** Opens a file to append to it. */
  append(path: string): Promise<OpenFile>;
}

/** A disk in memory: a file is durable once it and its folder are synced. */
export interface SimDisk {
  mount(mount: Mount): SimFiles;
  /** Keeps what is durable, and of the rest what the draw leaves, torn where it was being written. */
  losePower(draw: RandomStream): void;
}

interface File {
  readonly kind: "file";
  bytes: Uint8Array;
  length: number;
  durable: number;
  /** A sync failed: whether later ones reach the disk is unknown, so they do not. */
  lost: boolean;
  at: number;
}

interface Folder {
  readonly kind: "folder";
  entries: Map<string, File | Folder>;
  readonly durable: Map<string, File | Folder>;
  pending: Change[];
}

/** Entries that change together. */
interface Change {
  readonly sets: readonly (readonly [string, File | Folder | undefined])[];
  lost: boolean;
}

/** An error of a system call. */
function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

/** Whether an error is one that a simulated disk made up. */
export function isDiskFailure(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ("code" in error && (error.code === "EIO" || error.code === "ENOSPC")) || isDiskFailure(error.cause);
}

/** An empty disk. */
export function simDisk(now: () => number): SimDisk {
  const root = emptyFolder();
  let folders = new Map([["/", root]]);

  function folderOf(path: string): { readonly folder: Folder; readonly name: string } {
    const cut = path.lastIndexOf("/");
    const folder = folders.get(cut === 0 ? "/" : path.slice(0, cut));
    if (!folder) throw failure("ENOENT", path);
    return { folder, name: path.slice(cut + 1) };
  }

  function fileAt(path: string): File | undefined {
    const cut = path.lastIndexOf("/");
    const found = folders.get(cut === 0 ? "/" : path.slice(0, cut))?.entries.get(path.slice(cut + 1));
    return found?.kind === "file" ? found : undefined;
  }

  function change(folder: Folder, sets: Change["sets"]): void {
    set(folder.entries, sets);
    folder.pending.push({ sets, lost: false });
  }

  function makeFolder(path: string): string | undefined {
    if (folders.has(path)) return undefined;
    const cut = path.lastIndexOf("/");
    const first = cut > 0 ? makeFolder(path.slice(0, cut)) : undefined;
    const { folder, name } = folderOf(path);
    const made = emptyFolder();
    change(folder, [[name, made]]);
    folders.set(path, made);
    return first ?? path;
  }

  function settle(folder: Folder, path: string, draw: RandomStream, keep: number): void {
    for (const { sets } of folder.pending) if (draw.uniform() < keep) set(folder.durable, sets);
    folder.pending = [];
    folder.entries = new Map(folder.durable);
    folders.set(path, folder);
    for (const [name, entry] of folder.entries) {
      if (entry.kind === "folder") settle(entry, path === "/" ? `/${name}` : `${path}/${name}`, draw, keep);
      else tear(entry, draw, keep);
    }
  }

  return {
    losePower(draw) {
      folders = new Map();
      // Nothing, some or all of what is on its way reaches the disk.
      settle(root, "/", draw, draw.integer(3) / 2);
    },
    mount({ life, trouble, committed }) {
      const never = new Promise<never>(() => {});

      /** One effect of a living process; what comes after it is decided by whoever listens. */
      async function effect<T>(what: string, path: string, run: () => T): Promise<T> {
        if (!life.alive) return never;
        const value = run();
        committed(`${what} ${path}`);
        return life.alive ? value : never;
      }

      async function sync(what: string, path: string, run: () => void): Promise<void> {
        const ms = trouble.syncMs();
        if (ms > 0) await life.env.sleep(ms);
        return effect(what, path, run);
      }

      const opened = (file: File, path: string): OpenFile => ({
        write: (bytes) =>
          effect("write", path, () => {
            if (trouble.failsWrite()) throw failure("EIO", path);
            const taken = Math.min(bytes.length, Math.floor(trouble.room()));
            if (taken === 0 && bytes.length > 0) throw failure("ENOSPC", path);
            appendTo(file, bytes, taken);
            file.at = now();
            return taken;
          }),
        sync: () =>
          sync("sync", path, () => {
            if (trouble.failsSync()) {
              file.lost = true;
              throw failure("EIO", path);
            }
            if (!file.lost) file.durable = file.length;
          }),
        close: async () => (life.alive ? undefined : never),
      });

      return {
        makeFolder: (path) => effect("mkdir", path, () => makeFolder(path)),
        create: (path) =>
          effect("create", path, () => {
            if (trouble.failsWrite()) throw failure("EIO", path);
            const { folder, name } = folderOf(path);
            const file: File = {
              kind: "file",
              bytes: new Uint8Array(0),
              length: 0,
              durable: 0,
              lost: false,
              at: now(),
            };
            change(folder, [[name, file]]);
            return opened(file, path);
          }),
        async append(path) {
          const file = fileAt(path);
          if (!file) throw failure("ENOENT", path);
          return life.alive ? opened(file, path) : never;
        },
        async read(path) {
          const ms = trouble.readMs();
          if (ms > 0) await life.env.sleep(ms);
          if (!life.alive) return never;
          const file = fileAt(path);
          if (!file) throw failure("ENOENT", path);
          return file.bytes.slice(0, file.length);
        },
        modified: async (path) => (life.alive ? fileAt(path)?.at : never),
        async touch(path) {
          const file = fileAt(path);
          if (!file) throw failure("ENOENT", path);
          file.at = now();
          if (!life.alive) return never;
        },
        rename: (from, to) =>
          effect("rename", to, () => {
            const { folder, name } = folderOf(from);
            const target = folderOf(to);
            const file = folder.entries.get(name);
            if (!file) throw failure("ENOENT", from);
            if (target.folder !== folder) throw failure("EXDEV", from);
            change(folder, [
              [name, undefined],
              [target.name, file],
            ]);
          }),
        remove: (path) =>
          effect("remove", path, () => {
            const file = fileAt(path);
            if (!file) return;
            const { folder, name } = folderOf(path);
            change(folder, [[name, undefined]]);
          }),
        async list(path) {
          if (!life.alive) return never;
          const folder = folders.get(path);
          return folder ? [...filesOf(folder, path)] : [];
        },
        syncFolder: (path) =>
          sync("sync-folder", path, () => {
            const folder = folders.get(path);
            if (!folder) throw failure("ENOENT", path);
            if (trouble.failsSync()) {
              for (const pending of folder.pending)
                if (pending.sets.some(([, entry]) => entry?.kind === "file")) pending.lost = true;
              throw failure("EIO", path);
            }
            const settled = new Set<string>();
            for (const { sets, lost } of folder.pending) {
              if (lost) continue;
              set(folder.durable, sets);
              for (const [name] of sets) settled.add(name);
            }
            folder.pending = folder.pending.filter(
              ({ sets, lost }) => lost && !sets.some(([name]) => settled.has(name)),
            );
          }),
        now,
      };
    },
  };
}

function emptyFolder(): Folder {
  return { kind: "folder", entries: new Map(), durable: new Map(), pending: [] };
}

function set(entries: Map<string, File | Folder>, sets: Change["sets"]): void {
  for (const [name, entry] of sets) {
    if (entry) entries.set(name, entry);
    else entries.delete(name);
  }
}

function appendTo(file: File, bytes: Uint8Array, taken: number): void {
  if (file.length + taken > file.bytes.length) {
    const grown = new Uint8Array(file.length === 0 ? taken : 2 * (file.length + taken));
    grown.set(file.bytes.subarray(0, file.length));
    file.bytes = grown;
  }
  file.bytes.set(taken === bytes.length ? bytes : bytes.subarray(0, taken), file.length);
  file.length += taken;
}

/** Cuts a file to what is durable and a part of the rest, of which the last bytes may be others. */
function tear(file: File, draw: RandomStream, keep: number): void {
  const loose = file.length - file.durable;
  if (loose > 0 && draw.uniform() >= keep) {
    file.length = file.durable + draw.integer(loose + 1);
    if (file.length > file.durable && draw.integer(2) === 0) file.bytes[file.length - 1] = draw.integer(256);
  }
  // What was found after the crash is on the disk.
  file.durable = file.length;
  file.lost = false;
}

function* filesOf(folder: Folder, path: string): Generator<string> {
  for (const [name, entry] of folder.entries) {
    const at = path === "/" ? `/${name}` : `${path}/${name}`;
    if (entry.kind === "file") yield at;
    else yield* filesOf(entry, at);
  }
}
