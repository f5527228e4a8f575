import { connect, createServer, type Server, type Socket } from "node:net";
import { stream } from "../../src/tensor/random.ts";

/** What happens to the bytes that pass. Everything may change while connections are open. */
export interface Faults {
  /** Milliseconds that a piece takes, and how much that varies. */
  latencyMs?: number;
  jitterMs?: number;
  /** Bytes per second in each direction of each connection. */
  bytesPerSecond?: number;
  /** Bytes per second of all connections together, by direction. */
  link?: { readonly up?: number; readonly down?: number };
  /** Ends a connection after so many bytes of it. */
  cutAfter?: number;
  /** Share of request bodies in which one bit is turned. Headers stay whole: a transport with checksums would not change them. */
  bitFlips?: number;
  /** Smallest body in which a bit is turned. Default: 1,024. */
  smallest?: number;
  /** Lets nothing through in a direction, and says nothing of it. */
  blackHole?: "up" | "down" | "both";
  /** Keeps back what goes in a direction for as long as this is set, as a network does that is down for a while. */
  hold?: "up" | "down" | "both";
  /** Ends the client's side without a word to the server's: the server believes that the client is there. */
  halfOpen?: boolean;
}

/** A proxy between clients and a server. */
export interface FaultProxy {
  readonly url: string;
  readonly faults: Faults;
  /** Bytes that clients sent while there was a server. */
  sent(): number;
  /** Bodies in which a bit was turned. */
  flipped(): number;
  /** Connections that were cut. */
  cuts(): number;
  /** Resolves once clients have sent so many bytes in all. */
  sentSoMany(bytes: number): Promise<void>;
  /** Ends every open connection. */
  cutAll(): void;
  close(): Promise<void>;
}

/** Starts a proxy in front of a server on this machine. */
export async function faultProxy({
  port,
  seed,
  faults = {},
}: {
  readonly port: () => number;
  readonly seed: number;
  readonly faults?: Faults;
}): Promise<FaultProxy> {
  const random = stream({ seed, purpose: "fault proxy" });
  const sockets = new Set<Socket>();
  let [sent, flipped, cuts] = [0, 0, 0];
  let closed = false;
  /** When the link has let through what was sent so far, on the clock of `performance`. */
  const free = { up: 0, down: 0 };
  let waiting: { readonly bytes: number; done(): void }[] = [];

  function count(bytes: number): void {
    sent += bytes;
    for (const one of waiting) if (sent >= one.bytes) one.done();
    waiting = waiting.filter((one) => sent < one.bytes);
  }

  /** Milliseconds until the link has let a piece through, after those that came before it. */
  function turn(bytes: number, direction: "up" | "down"): number {
    const rate = faults.link?.[direction];
    if (rate === undefined) return 0;
    const now = performance.now();
    free[direction] = Math.max(now, free[direction]) + (1000 * bytes) / rate;
    return free[direction] - now;
  }

  const server: Server = createServer((client) => {
    const upstream = connect(port(), "127.0.0.1");
    const connected = new Promise<boolean>((resolve) => {
      upstream.once("connect", () => resolve(true));
      upstream.once("close", () => resolve(false));
    });
    let passed = 0;
    const cut = (): void => {
      cuts++;
      client.destroy();
      if (!faults.halfOpen) upstream.destroy();
    };
    const bodies = bodyFlipper(
      () => {
        if (random.uniform() >= (faults.bitFlips ?? 0)) return undefined;
        flipped++;
        return random.uniform();
      },
      () => faults.smallest ?? 1024,
    );
    const pass = (from: Socket, to: Socket, direction: "up" | "down"): void => {
      let ready = Promise.resolve();
      from.on("data", (piece: Buffer) => {
        passed += piece.length;
        if (faults.cutAfter !== undefined && passed > faults.cutAfter) return cut();
        const { latencyMs = 0, jitterMs = 0, bytesPerSecond = Number.POSITIVE_INFINITY } = faults;
        const own = (1000 * piece.length) / bytesPerSecond;
        const ms = latencyMs + jitterMs * random.uniform() + Math.max(own, turn(piece.length, direction));
        from.pause();
        ready = ready.then(async () => {
          if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
          if (!(await connected)) return;
          while (!closed && (faults.hold === "both" || faults.hold === direction))
            await new Promise((resolve) => setTimeout(resolve, 10));
          if (direction === "up") count(piece.length);
          const lost = faults.blackHole === "both" || faults.blackHole === direction;
          if (!lost && !to.destroyed) to.write(direction === "up" ? bodies(piece) : piece);
          from.resume();
        });
      });
      from.on("error", () => undefined);
      from.on("close", () => {
        sockets.delete(from);
        void ready.then(() => to.end());
      });
      sockets.add(from);
    };
    pass(client, upstream, "up");
    pass(upstream, client, "down");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" ? address?.port : address}`,
    faults,
    sent: () => sent,
    flipped: () => flipped,
    cuts: () => cuts,
    sentSoMany: (bytes) =>
      new Promise((resolve) => {
        if (sent >= bytes) resolve();
        else waiting.push({ bytes, done: resolve });
      }),
    cutAll() {
      for (const socket of sockets) socket.destroy();
    },
    close: () =>
      new Promise((resolve) => {
        closed = true;
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
}

/** Follows the requests of a connection and turns a bit in bodies: `draw` gives the place in one, or nothing. */
function bodyFlipper(draw: () => number | undefined, smallest: () => number): (piece: Buffer) => Buffer {
  let head = "";
  let left = 0;
  let place = -1; // bytes of the body before the one that is changed
  return (piece) => {
    const changed = Buffer.from(piece);
    for (let at = 0; at < changed.length; ) {
      if (left > 0) {
        const part = Math.min(left, changed.length - at);
        if (place >= 0 && place < part) changed[at + place] = (changed[at + place] ?? 0) ^ 1;
        place -= part;
        left -= part;
        at += part;
        continue;
      }
      const text = head + changed.toString("latin1", at);
      const end = text.indexOf("\r\n\r\n");
      if (end < 0) {
        head = text;
        return changed;
      }
      at += end + 4 - head.length;
      head = "";
      left = Number(/\r\ncontent-length: *(\d+)/i.exec(text.slice(0, end))?.[1] ?? 0);
      const where = left >= smallest() ? draw() : undefined;
      place = where === undefined ? -1 : Math.floor(where * left);
    }
    return changed;
  };
}
