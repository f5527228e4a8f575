import { text } from "node:stream/consumers";
import { fedexLora } from "../../src/strategies/fedex-lora.ts";
import { joinToy, settings } from "./toy-server.ts";

/** The clients of a toy federation at the URL that is given; their tokens come on the standard input. */
const [, , url = ""] = process.argv;
const tokens = JSON.parse(await text(process.stdin)) as readonly string[];
await Promise.all(
  settings.clients.map(({ id }, i) =>
    joinToy(url, id, fedexLora(), { token: tokens[i] ?? "", signal: new AbortController().signal }),
  ),
);
process.exit(0);
