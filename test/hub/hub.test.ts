import { createHash } from "node:crypto";
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { fetchFile, fetchModel, type HubProgress, resolveCommit } from "../../src/hub/hub.node.ts";
import { parseHubReference } from "../../src/hub/reference.ts";
import { type HubSettings, hubSettings } from "../../src/hub/settings.node.ts";
import { type FakeHub, type FakeRepo, fakeHub } from "./server.ts";

const commit = "1".repeat(40);
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const large = Uint8Array.from({ length: 70_000 }, (_, i) => (i * 31 + (i >> 8)) & 255);
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

const tiny: FakeRepo = {
  kind: "model",
  repo: "org/tiny",
  commit,
  files: {
    "README.md": text("a card"),
    "config.json": text('{"model_type":"llama"}'),
    "model.safetensors": large,
    "onnx/model.onnx": large,
    "pytorch_model.bin": large,
    "tokenizer.json": text("{}"),
  },
};
const sharded: FakeRepo = {
  kind: "model",
  repo: "org/sharded",
  commit,
  files: {
    "config.json": text("{}"),
    "model-00001-of-00002.safetensors": large,
    "model-00002-of-00002.safetensors": large.slice(1),
    "model.safetensors.index.json": text(
      JSON.stringify({
        weight_map: { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" },
      }),
    ),
  },
};
const pickled: FakeRepo = {
  kind: "model",
  repo: "org/pickled",
  commit,
  files: { "config.json": text("{}"), "pytorch_model.bin": large },
};
const gated: FakeRepo = { ...tiny, repo: "org/gated", token: "hf_secret" };
const set: FakeRepo = {
  kind: "dataset",
  repo: "org/set",
  commit,
  files: { "data/train.jsonl": text('{"text":"one"}\n'), "data/large.jsonl": large },
};

let hub: FakeHub;
let folder: string;
let settings: HubSettings;
beforeEach(async () => {
  hub = await fakeHub([tiny, sharded, pickled, gated, set]);
  folder = await mkdtemp(join(tmpdir(), "tributary-hub-"));
  settings = { endpoint: hub.endpoint, cache: folder, offline: false };
});
afterEach(async () => {
  await hub.close();
  await rm(folder, { recursive: true });
});

const reference = (name: string) => {
  const found = parseHubReference(name);
  if (found === undefined) throw new Error(`${name} is no reference`);
  return found;
};
const retry = { pauseMs: 0 };

describe("references to the hub", () => {
  it("name a model, a revision and a file", () => {
    expect(parseHubReference("org/name")).toEqual({ kind: "model", repo: "org/name", revision: "main" });
    expect(parseHubReference("hf://org/name@v1.0")).toEqual({
      kind: "model",
      repo: "org/name",
      revision: "v1.0",
    });
    expect(parseHubReference("hf://datasets/org/name@refs%2Fpr%2F1/a/b.parquet")).toEqual({
      kind: "dataset",
      repo: "org/name",
      revision: "refs/pr/1",
      path: "a/b.parquet",
    });
  });

  it.each(["", "name", "./a/b", "../a", "a/b/c", "/a/b", "a/", "C:\\a", "org/name@../x"])(
    "are not what a path says: %j",
    (path) => expect(parseHubReference(path)).toBeUndefined(),
  );

  it.each(["hf://", "hf://name", "hf://org/name/../x", "hf://org/name@a@b", "hf://datasets/org"])(
    "are refused where they begin so and are none: %j",
    (path) => expect(() => parseHubReference(path)).toThrow(/expected hf:/),
  );
});

describe("fetching a model", () => {
  it("brings configuration, tokenizer and safetensors alone, in the layout of huggingface_hub", async () => {
    const seen: HubProgress[] = [];
    const path = await fetchModel(reference("org/tiny"), {
      settings,
      onProgress: (each) => void seen.push(each),
    });
    expect(path).toBe(join(folder, "models--org--tiny", "snapshots", commit));
    expect((await readdir(path)).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    expect(new Uint8Array(await readFile(join(path, "model.safetensors")))).toEqual(large);
    expect(await readlink(join(path, "model.safetensors"))).toBe(join("..", "..", "blobs", sha256(large)));
    expect(await readFile(join(folder, "models--org--tiny", "refs", "main"), "utf8")).toBe(commit);
    const last = seen.at(-1);
    expect(last?.done).toBe(last?.total);
    expect(last?.total).toBe(large.length + 24);
  });

  it("asks nothing again for a commit whose files are there", async () => {
    await fetchModel(reference("org/tiny"), { settings });
    const before = hub.requests.length;
    await fetchModel(reference(`org/tiny@${commit}`), { settings });
    expect(hub.requests.length).toBe(before);
  });

  it("brings all shards that the index lists", async () => {
    const path = await fetchModel(reference("org/sharded"), { settings });
    expect((await readdir(path)).sort()).toEqual(Object.keys(sharded.files).sort());
  });

  it("takes a cut connection up where it ended", async () => {
    hub.cut(...[1e9, 1e9], 20_000, 0, 30_000);
    const path = await fetchModel(reference("org/tiny"), { settings, retry, onProgress: hub.release });
    expect(new Uint8Array(await readFile(join(path, "model.safetensors")))).toEqual(large);
    const ranges = hub.requests.filter(({ at }) => at === "storage").map(({ range }) => range);
    expect(ranges[0]).toBeUndefined();
    expect(ranges.length).toBeGreaterThan(2);
    expect(ranges.slice(1).every((range) => /^bytes=\d+-$/.test(range ?? ""))).toBe(true);
  });

  it("goes on in a later call with what an earlier one kept", async () => {
    hub.cut(...[1e9, 1e9], 50_000, 0, 0);
    await expect(
      fetchModel(reference("org/tiny"), {
        settings,
        retry: { ...retry, attempts: 2 },
        onProgress: hub.release,
      }),
    ).rejects.toThrow(/bytes are kept, run the same command to go on/);
    const kept = (await lstat(join(folder, "models--org--tiny", "blobs", `${sha256(large)}.incomplete`)))
      .size;
    await fetchModel(reference("org/tiny"), { settings, retry });
    const last = hub.requests.filter(({ at }) => at === "storage").at(-1);
    expect(kept).toBeGreaterThan(0);
    expect(last?.range).toBe(`bytes=${kept}-`);
  });

  it("fetches anew what a disk or a proxy changed, and gives up the second time", async () => {
    const blobs = join(folder, "models--org--tiny", "blobs");
    await mkdir(blobs, { recursive: true });
    await writeFile(join(blobs, `${sha256(large)}.incomplete`), new Uint8Array(50_000));
    const path = await fetchModel(reference("org/tiny"), { settings, retry });
    expect(new Uint8Array(await readFile(join(path, "model.safetensors")))).toEqual(large);

    hub.corrupt(2);
    await expect(
      fetchFile({ ...reference("hf://datasets/org/set"), path: "data/large.jsonl" }, { settings, retry }),
    ).rejects.toMatchObject({
      code: "hub-corrupt",
    });
  });

  it("waits and asks again where the hub is busy", async () => {
    hub.answer(429, 503);
    const path = await fetchModel(reference("org/tiny"), { settings, retry });
    expect((await readdir(path)).length).toBe(3);
  });

  it("refuses weights in pickles before it fetches them, and says how to get others", async () => {
    await expect(fetchModel(reference("org/pickled"), { settings })).rejects.toThrow(
      /pytorch_model\.bin, which is a program for Python.*docs\/models\.md/,
    );
    expect(hub.requests.some(({ at }) => at === "storage")).toBe(false);
  });

  it("stops when it is told to", async () => {
    const stop = new AbortController();
    stop.abort();
    await expect(fetchModel(reference("org/tiny"), { settings, signal: stop.signal })).rejects.toThrow(
      /abort/i,
    );
  });
});

describe("the token", () => {
  it("opens a gated repository, and is shown to the hub alone", async () => {
    await fetchModel(reference("org/gated"), { settings: { ...settings, token: "hf_secret" } });
    const [atHub, atStorage] = (["hub", "storage"] as const).map((at) =>
      hub.requests.filter((one) => one.at === at),
    );
    expect(atHub?.every(({ authorization }) => authorization === "Bearer hf_secret")).toBe(true);
    expect(atStorage?.length).toBeGreaterThan(0);
    expect(atStorage?.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it("is asked for by name where it is missing, and is in no message", async () => {
    const refused = await fetchModel(reference("org/gated"), {
      settings: { ...settings, token: "hf_wrong" },
    }).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "hub-unauthorized" });
    expect(String(refused)).toMatch(/set HF_TOKEN/);
    expect(JSON.stringify(refused, Object.getOwnPropertyNames(refused)) + String(refused)).not.toContain(
      "hf_wrong",
    );
  });

  it("comes from HF_TOKEN or the file that a login leaves", async () => {
    await writeFile(join(folder, "token"), "hf_file\n");
    expect((await hubSettings({ HF_HOME: folder })).token).toBe("hf_file");
    expect((await hubSettings({ HF_HOME: folder, HF_TOKEN: "hf_env" })).token).toBe("hf_env");
    expect(
      (await hubSettings({ HF_HOME: folder, HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" })).token,
    ).toBeUndefined();
    await expect(hubSettings({ HF_HOME: folder, HF_TOKEN: "hf_a\r\nb" })).rejects.toMatchObject({
      code: "hub-settings",
    });
  });
});

describe("the settings", () => {
  it("are those of huggingface_hub", async () => {
    expect(await hubSettings({ HF_HOME: "/h" })).toEqual({
      endpoint: "https://huggingface.co",
      cache: "/h/hub",
      offline: false,
    });
    const other = {
      HF_HOME: "/h",
      HF_HUB_CACHE: "/c",
      HF_ENDPOINT: "http://mirror:8080/",
      HF_HUB_OFFLINE: "1",
    };
    expect(await hubSettings(other)).toEqual({ endpoint: "http://mirror:8080", cache: "/c", offline: true });
    await expect(hubSettings({ HF_HOME: "/h", HF_ENDPOINT: "mirror" })).rejects.toThrow(/HF_ENDPOINT/);
  });
});

describe("offline", () => {
  it("uses what is there and asks nothing", async () => {
    const path = await fetchModel(reference("org/tiny"), { settings });
    hub.move("2".repeat(40));
    const before = hub.requests.length;
    const apart = { ...settings, offline: true };
    expect(await fetchModel(reference("org/tiny"), { settings: apart })).toBe(path);
    await expect(fetchModel(reference("org/sharded"), { settings: apart })).rejects.toMatchObject({
      code: "hub-offline",
    });
    expect(hub.requests.length).toBe(before);
  });
});

describe("revisions", () => {
  it("become commits, so that a run keeps the model that it began with", async () => {
    expect(await resolveCommit(reference("org/tiny"), { settings })).toBe(commit);
    hub.move("2".repeat(40));
    expect(await resolveCommit(reference("org/tiny"), { settings })).toBe("2".repeat(40));
    expect(await resolveCommit(reference(`org/tiny@${commit}`), { settings })).toBe(commit);
  });

  it.each([
    ["org/none", "hub-unauthorized"],
    ["org/tiny@v9", "hub-not-found"],
  ])("that are not there are refused: %s", async (name, code) => {
    await expect(resolveCommit(reference(name), { settings })).rejects.toMatchObject({ code });
  });

  it("of a hub that is not there are refused with the way around", async () => {
    await hub.close();
    const asked = resolveCommit(reference("org/tiny"), { settings });
    await expect(asked).rejects.toThrow(/cannot be reached; .*HF_HUB_OFFLINE=1/);
    hub = await fakeHub([]);
  });
});

describe("files of data sets", () => {
  it("are fetched one by one", async () => {
    const file = { ...reference("hf://datasets/org/set/data/train.jsonl"), path: "data/train.jsonl" };
    const path = await fetchFile(file, { settings });
    expect(await readFile(path, "utf8")).toBe('{"text":"one"}\n');
    const other = { ...file, path: "data/dev.jsonl" };
    await expect(fetchFile(other, { settings })).rejects.toThrow(/no such file; it has data\/train\.jsonl/);
  });
});
