import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";

/** How the hub is reached, and where what comes from it is kept. */
export interface HubSettings {
  /** Address without a slash at its end. */
  readonly endpoint: string;
  /** The cache folder, shared with Python's `huggingface_hub`. */
  readonly cache: string;
  /** Whether nothing is fetched. */
  readonly offline: boolean;
  readonly token?: string;
}

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the variables that `huggingface_hub` documents: HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_HUB_OFFLINE,
 * HF_TOKEN, HF_TOKEN_PATH and HF_HUB_DISABLE_IMPLICIT_TOKEN. The token is in no message of this package.
 */
export async function hubSettings(env: Environment = process.env): Promise<HubSettings> {
  const home =
    located(env.HF_HOME) ?? join(located(env.XDG_CACHE_HOME) ?? join(homedir(), ".cache"), "huggingface");
  const cache = located(env.HF_HUB_CACHE) ?? located(env.HUGGINGFACE_HUB_CACHE) ?? join(home, "hub");
  const token = isOn(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)
    ? undefined
    : (tokenOf(env.HF_TOKEN) ??
      tokenOf(env.HUGGING_FACE_HUB_TOKEN) ??
      (await tokenFile(located(env.HF_TOKEN_PATH) ?? join(home, "token"))));
  return {
    endpoint: endpointOf(env.HF_ENDPOINT || "https://huggingface.co"),
    cache,
    offline: isOn(env.HF_HUB_OFFLINE) || isOn(env.TRANSFORMERS_OFFLINE),
    ...(token === undefined ? {} : { token }),
  };
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && /^https?:$/.test(url.protocol) && url.username === "")
    return text.replace(/\/+$/, "");
  throw new TributaryError(
    "hub-settings",
    "HF_ENDPOINT: got no web address, expected one such as https://huggingface.co; correct or unset it",
  );
}

/** A folder of the environment; `~` at its front is the home folder. */
function located(path: string | undefined): string | undefined {
  if (path === undefined || path === "") return undefined;
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}

function isOn(value: string | undefined): boolean {
  return /^(?:1|on|yes|true)$/i.test(value ?? "");
}

function tokenOf(text: string | undefined): string | undefined {
  const token = text?.trim() ?? "";
  if (token === "") return undefined;
  // What is no token must not reach a header, where its characters could mean something else.
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new TributaryError(
    "hub-settings",
    "the token of the Hugging Face hub has spaces or other signs in it; correct HF_TOKEN or log in again",
  );
}

async function tokenFile(path: string): Promise<string | undefined> {
  return tokenOf(await readFile(path, "utf8").catch(() => undefined));
}
