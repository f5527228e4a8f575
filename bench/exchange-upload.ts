/** One client that uploads a large update, made as it goes: `node exchange-upload.mjs SETTINGS.json`. */
import { readFile } from "node:fs/promises";
import { nodeEnv } from "../src/storage/node-env.ts";
import { connect } from "../src/transports/http/connection.ts";
import { messages } from "../src/transports/http/protocol.ts";
import { readClientKey } from "../src/transports/http/signature.ts";
import { turnstile } from "../src/transports/http/turnstile.ts";

/** What the program reads. */
export interface UploadOptions {
  readonly url: string;
  readonly client: string;
  readonly key: string;
  readonly chunks: number;
  readonly chunkBytes: number;
}

const { url, client, key, chunks, chunkBytes } = JSON.parse(
  await readFile(process.argv[2] ?? "", "utf8"),
) as UploadOptions;
const env = nodeEnv();
const { signal } = new AbortController();
const connection = await connect({ url, env, signal });
const signer = { client, key: readClientKey(key) };
const line = turnstile(4);

/** The same bytes for the same place, in every life of this program. */
function chunk(place: number): Uint8Array {
  const bytes = new Uint8Array(chunkBytes).fill(1);
  new DataView(bytes.buffer).setUint32(0, place);
  return bytes;
}

const ids: string[] = [];
for (let place = 0; place < chunks; place++) ids.push(await env.hash([chunk(place)]));
const absent = new Set<string>();
for (let from = 0; from < ids.length; from += 3000) {
  const answer = await connection.ask({
    method: "POST",
    path: "/v1/runs/toy/blobs/missing",
    json: { ids: ids.slice(from, from + 3000) },
    signer,
    schema: messages.ids,
  });
  for (const id of answer.ids) absent.add(id);
}
process.stdout.write(`${JSON.stringify({ type: "uploading", chunks: absent.size })}\n`);
const began = performance.now();
await Promise.all(
  ids.map((id, place) =>
    line(async () => {
      if (!absent.has(id)) return;
      const path = `/v1/runs/toy/blobs/${id}`;
      await connection.fetch({ method: "PUT", path, bytes: [chunk(place)], digest: id, signer });
      process.stdout.write(`${JSON.stringify({ type: "put" })}\n`);
    }),
  ),
);
process.stdout.write(
  `${JSON.stringify({ type: "uploaded", chunks: absent.size, seconds: (performance.now() - began) / 1000 })}\n`,
);
