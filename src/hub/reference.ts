import { TributaryError } from "../errors.ts";

/** A repository of the Hugging Face hub at a revision, or one file of it. */
export interface HubReference {
  readonly kind: "model" | "dataset";
  /** `organisation/name`. */
  readonly repo: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
  /** A file below the root of the repository; absent for the repository as a whole. */
  readonly path?: string;
}

const part = /^[A-Za-z0-9][\w.-]*$/;

/**
 * Reads `hf://org/name[@revision][/file]`, `hf://datasets/org/name[@revision]/file`, and `org/name[@revision]` for models.
 * Undefined where a text has neither form; a text that begins with `hf://` and is no reference is an error.
 */
export function parseHubReference(text: string): HubReference | undefined {
  const explicit = text.startsWith("hf://");
  const [first = "", ...others] = (explicit ? text.slice("hf://".length) : text).split("/");
  const kind = explicit && first === "datasets" ? "dataset" : "model";
  const [owner = "", last = "", ...below] =
    explicit && (first === "datasets" || first === "models") ? others : [first, ...others];
  const [name = "", revision = "main", ...more] = last.split("@");
  const path = below.join("/");
  const revisionText = decoded(revision);
  const sound =
    part.test(owner) &&
    part.test(name) &&
    more.length === 0 &&
    isRevision(revisionText) &&
    (below.length === 0 || (explicit && isInside(path)));
  if (sound) {
    const reference = { kind, repo: `${owner}/${name}`, revision: revisionText } as const;
    return path === "" ? reference : { ...reference, path };
  }
  if (!explicit) return undefined;
  throw new TributaryError(
    "hub-reference",
    `${text}: no reference to the Hugging Face hub, expected hf://org/name, hf://org/name@revision or hf://datasets/org/name/file`,
  );
}

/** A reference as `parseHubReference` reads it, always with its revision. */
export function hubReferenceText({ kind, repo, revision, path }: HubReference): string {
  const below = path === undefined ? "" : `/${path}`;
  return `hf://${kind === "dataset" ? "datasets/" : ""}${repo}@${encodeURIComponent(revision)}${below}`;
}

/** What Python knows a model by: the repository of a reference, or a path as it is. */
export function repositoryOf(model: string): string {
  return model.startsWith("hf://") ? (parseHubReference(model)?.repo ?? model) : model;
}

/** Whether two references differ in their revisions at most. */
export function isSameFile(one: HubReference, other: HubReference): boolean {
  return one.kind === other.kind && one.repo === other.repo && one.path === other.path;
}

/** Whether a revision is a commit, which never changes. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/** Whether a path from a repository stays within the folder that it is joined to. */
export function isInside(path: string): boolean {
  return path
    .split("/")
    .every((step) => step !== "" && step !== "." && step !== ".." && !/[\\:\0]/.test(step));
}

function isRevision(revision: string): boolean {
  return /^[\w][\w./-]*$/.test(revision) && isInside(revision);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
