import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { nodeEnv } from "../../src/storage/node-env.ts";
import { connect } from "../../src/transports/http/connection.ts";
import { piecesOf } from "../../src/transports/http/pieces.ts";
import { PROTOCOL, usualLimits } from "../../src/transports/http/protocol.ts";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

let server: Server;
let answer: (response: ServerResponse) => void;
let collecting: NodeJS.Timeout;
const speaks = (least: number, most: number): string =>
  JSON.stringify({ server: "test 7.1", protocol: { least, most }, time: 0, limits: usualLimits, runs: [] });
let hello = "";

beforeEach(async () => {
  hello = speaks(1, 1);
  server = createServer((request, response) => {
    if (request.url === "/v1/hello") response.end(hello);
    else answer(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  collecting = setInterval(collectGarbage, 20);
});
afterEach(async () => {
  clearInterval(collecting);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});
const url = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

describe("a request without an end is tried again, also after its signals were collected as garbage", () => {
  it.each([
    ["no answer at all", () => undefined],
    [
      "an answer that stops",
      (response: ServerResponse) => {
        response.writeHead(200, { "content-length": 10 });
        response.write("abc");
      },
    ],
  ] as const)("%s", async (_, first) => {
    let requests = 0;
    answer = (response) => {
      if (requests++ === 0) first(response);
      else response.end("whole");
    };
    const waits: string[] = [];
    const connection = await connect({
      url: url(),
      env: nodeEnv(),
      signal: new AbortController().signal,
      onWait: (why) => waits.push(why),
    });
    const bytes = await connection.fetch({ method: "GET", path: "/", timeoutMs: 300 });
    expect(new TextDecoder().decode(bytes)).toBe("whole");
    expect(waits).toEqual([expect.stringContaining("no answer within")]);
  });
});

describe("an address at which no coordinator is", () => {
  it("is said to be none where it answers a page", async () => {
    hello = "<html>welcome</html>";
    await expect(
      connect({ url: url(), env: nodeEnv(), signal: new AbortController().signal }),
    ).rejects.toMatchObject({
      code: "not-json",
      message: expect.stringContaining("is a coordinator of tributary at this address"),
    });
  });

  it("is not tried for ever where it does not speak TLS", async () => {
    const secure = url().replace("http:", "https:");
    await expect(
      connect({ url: secure, env: nodeEnv(), signal: AbortSignal.timeout(10_000) }),
    ).rejects.toMatchObject({ code: "no-tls" });
  });
});

describe("a server of another version", () => {
  const meet = (): Promise<unknown> =>
    connect({ url: url(), env: nodeEnv(), signal: new AbortController().signal });

  it.each([
    ["asks for a later one", [PROTOCOL + 1, PROTOCOL + 2], `${PROTOCOL + 1} to ${PROTOCOL + 2}`],
    ["speaks earlier ones only", [PROTOCOL - 2, PROTOCOL - 1], `${PROTOCOL - 2} to ${PROTOCOL - 1}`],
  ] as const)(
    "that %s is refused with both protocols and the version to install",
    async (_, range, named) => {
      hello = speaks(...range);
      await expect(meet()).rejects.toMatchObject({
        code: "protocol",
        message: expect.stringContaining(
          `speaks protocol ${named}, this program ${PROTOCOL}; install the version of the server (test 7.1)`,
        ),
      });
    },
  );

  it("that speaks ours among others is met", async () => {
    hello = speaks(PROTOCOL - 1, PROTOCOL + 3);
    await expect(meet()).resolves.toMatchObject({ welcome: { server: "test 7.1" } });
  });
});

it("a body that is read ends with its signal, and so does its connection", async () => {
  answer = (response) => response.write("x");
  const halt = new AbortController();
  const closed = new Promise((resolve) => {
    server.once("connection", (socket) => socket.once("close", resolve));
  });
  const reading = (async () => {
    const { body } = await fetch(`${url()}/`, { signal: halt.signal });
    if (body)
      for await (const _ of piecesOf(body, halt.signal)) setTimeout(() => halt.abort(new Error("over")), 200);
  })();
  await expect(reading).rejects.toThrow("over");
  await closed;
});
