import { describe, expect, it } from "vitest";
import { networkOf, tokenBuckets } from "../../src/transports/http/rates.ts";
import { newClientKey, signatureOf } from "../../src/transports/http/signature.ts";
import { toyServer } from "./toy-server.ts";

describe("token buckets", () => {
  it("let a burst through, then the rate, and each key has its own", () => {
    let now = 0;
    const buckets = tokenBuckets({ monotonic: () => now }, { perSecond: 2, burst: 3 });
    expect([1, 2, 3].map(() => buckets.take("a"))).toEqual([0, 0, 0]);
    expect(buckets.take("a")).toBe(0.5);
    expect(buckets.take("b")).toBe(0);
    now = 250;
    // A refusal costs nothing.
    expect(buckets.take("a")).toBe(0.25);
    now = 500;
    expect(buckets.wait("a")).toBe(0);
    expect(buckets.take("a")).toBe(0);
    expect(buckets.wait("a")).toBe(0.5);
    now = 60_000;
    expect([1, 2, 3, 4].map(() => buckets.take("a"))).toEqual([0, 0, 0, 0.5]);
  });

  it("remember so many keys and no more: of those beyond, the one that was quiet for longest is new again", () => {
    const buckets = tokenBuckets({ monotonic: () => 0 }, { perSecond: 1, burst: 1 });
    buckets.take("first");
    buckets.take("second");
    for (let i = 0; i < 19_998; i++) buckets.take(`k${i}`);
    expect(buckets.take("first")).toBeGreaterThan(0);
    buckets.take("one more");
    expect(buckets.wait("first")).toBeGreaterThan(0);
    expect(buckets.wait("second")).toBe(0);
  });
});

describe("the network of a request", () => {
  const from = (remoteAddress: string, forwarded?: string): string =>
    networkOf({
      socket: { remoteAddress } as never,
      headers: forwarded === undefined ? {} : { "x-forwarded-for": forwarded },
    });

  it.each([
    ["192.0.2.7", "192.0.2.7"],
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
    ["2001:db8:1:2::6", "2001:db8:1:2"],
    ["2001:db8::6", "2001:db8:0:0"],
    ["::1", "0:0:0:0"],
  ])("of %s is %s", (address, network) => {
    expect(from(address)).toBe(network);
  });

  it("is what a proxy on the same machine appended, and nothing that another machine says", () => {
    expect(from("127.0.0.1", "10.0.0.1, 192.0.2.9")).toBe("192.0.2.9");
    expect(from("::ffff:127.0.0.1", "2001:db8:1:2::6")).toBe("2001:db8:1:2");
    expect(from("198.51.100.1", "192.0.2.9")).toBe("198.51.100.1");
  });
});

describe("a server", () => {
  it("tells a stranger who is refused too often to wait, and hears its clients all the same", async () => {
    const server = await toyServer({ strangerRate: { perSecond: 0.2, burst: 3 } });
    const key = newClientKey();
    const token = await server.identities.issueToken(60);
    const enrol = (name: string, shown: string): Promise<Response> =>
      fetch(`${server.url}/v1/enrol`, {
        method: "POST",
        body: JSON.stringify({ token: shown, publicKey: key.publicKey, name }),
      });
    expect((await enrol("c00", token)).status).toBe(200);
    const guess = "A".repeat(22);
    const statuses: number[] = [];
    for (let i = 0; i < 5; i++) statuses.push((await enrol("c01", guess)).status);
    expect(statuses).toEqual([403, 403, 403, 429, 429]);
    const late = await enrol("c01", await server.identities.issueToken(60));
    expect(late.status).toBe(429);
    expect(Number(late.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(await late.json()).toMatchObject({ error: { code: "too-many" } });
    const path = "/v1/runs/toy";
    const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const headers = signatureOf({ method: "GET", path, body: empty, client: "c00" }, key, Date.now());
    expect((await fetch(`${server.url}${path}`, { headers })).status).toBe(200);
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    await server.close();
  });

  it("tells a client that asks too often to wait, and no other", async () => {
    const server = await toyServer({ clientRate: { perSecond: 0.2, burst: 2 } });
    const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const path = "/v1/runs/toy";
    const statuses: Record<string, number[]> = {};
    for (const client of ["c00", "c01"]) {
      const key = newClientKey();
      const token = await server.identities.issueToken(60);
      await server.identities.enrol({ token, publicKey: key.publicKey, name: client });
      for (let i = 0; i < 3; i++) {
        const headers = signatureOf({ method: "GET", path, body: empty, client }, key, Date.now());
        const { status } = await fetch(`${server.url}${path}`, { headers });
        statuses[client] = [...(statuses[client] ?? []), status];
      }
    }
    expect(statuses).toEqual({ c00: [200, 200, 429], c01: [200, 200, 429] });
    await server.close();
  });
});
