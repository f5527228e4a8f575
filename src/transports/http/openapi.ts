import { z } from "zod";
import { signatureHeaders } from "./protocol.ts";
import type { Route } from "./route.ts";

/** The routes of a server in OpenAPI 3.1, with the JSON Schemas of their messages. */
export function openApi(routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const verbs = paths[route.path] ?? {};
    verbs[route.method.toLowerCase()] = operation(route);
    paths[route.path] = verbs;
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Tributary coordinator",
      version,
      description:
        "Lends work to clients and takes in their updates. docs/protocol.md says in which order and why.",
    },
    paths,
    components: {
      securitySchemes: {
        client: {
          type: "apiKey",
          in: "header",
          name: signatureHeaders.signature,
          description: `Ed25519 over method, path, SHA-256 of the body, time, nonce and client, with the headers ${Object.values(signatureHeaders).join(", ")}.`,
        },
        operator: { type: "http", scheme: "bearer" },
      },
    },
  };
}

function operation({ path, summary, who, query = {}, body, answer }: Route): object {
  const parameters = [
    ...[...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
      name,
      in: "path",
      required: true,
      schema: { type: "string", pattern: "^[a-z0-9-]{1,64}$" },
    })),
    ...Object.entries(query).map(([name, description]) => ({
      name,
      in: "query",
      description,
      schema: { type: "number" },
    })),
  ];
  return {
    summary,
    ...(who !== "anyone" && { security: [{ [who]: [] }] }),
    ...(parameters.length > 0 && { parameters }),
    ...(body && {
      requestBody: {
        required: true,
        content: content(body.kind === "json" ? body.schema : "application/octet-stream", body.limit),
      },
    }),
    responses: {
      ...(answer === undefined
        ? { "2XX": { description: "Done; bytes where the path names a blob." } }
        : { "200": { description: "The answer.", content: content(answer) } }),
      default: {
        description: "Refused: a code for programs and a sentence for people.",
        content: {
          "application/json": {
            schema: {
              type: "object",
              required: ["error"],
              properties: {
                error: {
                  type: "object",
                  required: ["code", "message"],
                  properties: { code: { type: "string" }, message: { type: "string" } },
                },
              },
            },
          },
        },
      },
    },
  };
}

function content(form: z.ZodType | string, limit?: number): object {
  const bound = limit === undefined ? {} : { "x-max-bytes": limit };
  if (typeof form === "string") return { [form]: bound };
  return { "application/json": { schema: z.toJSONSchema(form, { unrepresentable: "any" }), ...bound } };
}
