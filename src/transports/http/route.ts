import type { IncomingHttpHeaders } from "node:http";
import type { z } from "zod";
import { Refused } from "./refusal.ts";

/** A request that has passed the checks of its route. */
export interface Call {
  /** Who signed it, where the route asks for a client. */
  readonly client?: string;
  readonly parameters: ReadonlyMap<string, string>;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** The pieces of a body of bytes, as they arrive; none where the route takes no bytes. */
  readonly bytes: AsyncIterable<Uint8Array>;
  /** The message of the body, of the form that the route names. */
  readonly json: unknown;
  /** Aborted when whoever asked is gone. */
  readonly gone: AbortSignal;
}

/** What is answered: a message, or bytes, or text, or events as they happen, or nothing. */
export interface Reply {
  readonly status: number;
  readonly json?: unknown;
  readonly bytes?: Uint8Array;
  readonly text?: string;
  /** Server-sent events; the connection stays open until they end. */
  readonly events?: AsyncIterable<string>;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One verb on one path. */
export interface Route {
  readonly method: "GET" | "HEAD" | "POST" | "PUT";
  /** With parameters such as `{run}`; each takes one segment of 1 to 64 letters, digits and hyphens. */
  readonly path: string;
  readonly summary: string;
  /** Who may ask. */
  readonly who: "anyone" | "client" | "operator";
  readonly query?: Readonly<Record<string, string>>;
  readonly body?:
    | {
        readonly kind: "json";
        readonly limit: number;
        readonly schema: z.ZodType;
        parse(bytes: Uint8Array): unknown;
      }
    | { readonly kind: "bytes"; readonly limit: number };
  /** The form of the answer where it is a message, or its media type. */
  readonly answer?: z.ZodType | string;
  /** Called while a large body travels, in either direction. */
  moves?(call: Pick<Call, "client" | "parameters">): void;
  handle(call: Call): Promise<Reply>;
}

/** A body that is a message of a form. */
export function jsonBody(schema: z.ZodType, limit: number): NonNullable<Route["body"]> {
  return {
    kind: "json",
    limit,
    schema,
    parse: (bytes) => parseMessage(schema, bytes),
  };
}

/** The message in some bytes; throws where they are not of its form. */
export function parseMessage<T>(schema: z.ZodType<T>, bytes: Uint8Array): T {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Refused(400, "not-json", "the body is not JSON in UTF-8");
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue?.path.join(".") || "the body";
  throw new Refused(
    400,
    "bad-message",
    `${where}: ${issue?.message ?? "not of the form that is expected here"}`,
  );
}

const segment = /^[a-z0-9-]{1,64}$/;

/** The route of a request, with the parameters of its path. */
export function findRoute(
  routes: readonly Route[],
  method: string,
  url: string,
): {
  readonly route: Route;
  readonly parameters: ReadonlyMap<string, string>;
  readonly query: URLSearchParams;
} {
  const [path = "", query = ""] = url.split("?", 2);
  const asked = path.split("/");
  const matching = routes.flatMap((route) => {
    const parameters = match(route.path.split("/"), asked);
    return parameters ? [{ route, parameters }] : [];
  });
  if (matching.length === 0)
    throw new Refused(
      404,
      "not-found",
      "there is nothing at this path; /v1/openapi.json lists what there is",
    );
  const found = matching.find(({ route }) => route.method === method);
  if (!found) {
    const allowed = matching.map(({ route }) => route.method).join(", ");
    throw new Refused(405, "wrong-method", `this path answers ${allowed}`);
  }
  return { ...found, query: new URLSearchParams(query) };
}

function match(
  pattern: readonly string[],
  asked: readonly string[],
): ReadonlyMap<string, string> | undefined {
  if (pattern.length !== asked.length) return undefined;
  const parameters = new Map<string, string>();
  for (const [i, part] of pattern.entries()) {
    const text = asked[i] ?? "";
    if (!part.startsWith("{")) {
      if (part !== text) return undefined;
    } else if (segment.test(text)) parameters.set(part.slice(1, -1), text);
    else return undefined;
  }
  return parameters;
}
