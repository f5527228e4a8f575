import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { collate } from "../../src/data/batches.ts";
import { readTokenizer } from "../../src/data/files.node.ts";
import { chat } from "../../src/data/templates.ts";
import type { Tokenizer } from "../../src/data/tokenizer.ts";
import type { ParityLine } from "./line.ts";

/** A file of `tokenizers/`: what the reference library gives for texts, pairs, padded batches and chats. */
interface Golden {
  readonly about?: string;
  readonly padId: number;
  readonly texts: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly idsWithoutSpecial: readonly number[];
    readonly tokens: readonly string[];
    readonly decoded: string;
    readonly decodedWithSpecial: string;
  }[];
  readonly pairs?: readonly {
    readonly text: string;
    readonly pair: string;
    readonly ids: readonly number[];
    readonly tokenTypeIds: readonly number[];
  }[];
  readonly batches: readonly {
    readonly texts: readonly string[];
    readonly pairs?: readonly string[];
    readonly maxLength: number | null;
    readonly padding: "longest" | "max_length" | false;
    readonly ids: readonly (readonly number[])[];
    readonly attentionMask: readonly (readonly number[])[];
    readonly tokenTypeIds?: readonly (readonly number[])[];
  }[];
  readonly chats?: readonly {
    readonly messages: readonly Record<string, unknown>[];
    readonly addGenerationPrompt: boolean;
    readonly rendered: string;
    readonly ids: readonly number[];
  }[];
}

/** Compares the tokenizers of the goldens folder `dir` with the recorded ids and texts, all of which must be equal. */
export async function* tokenizerCases(dir: string): AsyncIterable<ParityLine> {
  const folder = join(dir, "tokenizers");
  if (!existsSync(folder)) return;
  for (const file of (await readdir(folder)).filter((name) => name.endsWith(".json")).sort()) {
    const name = `tokenizers/${basename(file, ".json")}`;
    const golden: Golden = JSON.parse(await readFile(join(folder, file), "utf8"));
    const model = modelFolder(dir, basename(file, ".json"), golden.about);
    if (model === undefined) {
      const note = `no folder with a tokenizer.json under ${join(dir, "..", "models")}`;
      yield {
        name,
        what: "ids",
        maxAbs: Number.NaN,
        maxRel: Number.NaN,
        tolerance: 0,
        verdict: "unsupported",
        note,
      };
      continue;
    }
    const tokenizer = await readTokenizer(model);
    for (const [what, differing] of compare(tokenizer, golden)) {
      const wrong = differing.filter((d) => d !== undefined);
      const note =
        wrong[0] === undefined
          ? `${differing.length} cases equal`
          : `${wrong.length} of ${differing.length} differ, first: ${wrong[0]}`;
      // Ids and texts are equal or not: the difference counts the cases that are not.
      const share = differing.length === 0 ? 0 : wrong.length / differing.length;
      yield {
        name,
        what,
        maxAbs: wrong.length,
        maxRel: share,
        tolerance: 0,
        verdict: wrong.length === 0 ? "passed" : "failed",
        note,
      };
    }
  }
}

function modelFolder(dir: string, name: string, about = ""): string | undefined {
  const named = /([\w.-]+(?:\/[\w.-]+)*)\/tokenizer\.json/.exec(about)?.[1];
  const candidates = [
    join(dir, "..", "models", name),
    ...(named === undefined ? [] : [join(dir, "..", named), join(dir, named)]),
  ];
  return candidates.find((folder) => existsSync(join(folder, "tokenizer.json")));
}

/** For each thing compared, one entry per case: undefined where equal, else the input. */
function compare(tokenizer: Tokenizer, golden: Golden): Map<string, (string | undefined)[]> {
  const results = new Map<string, (string | undefined)[]>();
  const check = (what: string, input: unknown, got: unknown, expected: unknown): void => {
    const entry = JSON.stringify(got) === JSON.stringify(expected) ? undefined : JSON.stringify(input);
    results.set(what, [...(results.get(what) ?? []), entry]);
  };
  for (const c of golden.texts) {
    const { ids } = tokenizer.encode(c.text);
    check("ids", c.text, ids, c.ids);
    check(
      "ids without special tokens",
      c.text,
      tokenizer.encode(c.text, { addSpecialTokens: false }).ids,
      c.idsWithoutSpecial,
    );
    check(
      "tokens",
      c.text,
      ids.map((id) => tokenizer.token(id)),
      c.tokens,
    );
    check("decoded", c.text, tokenizer.decode(c.ids), c.decoded);
    check(
      "decoded with special tokens",
      c.text,
      tokenizer.decode(c.ids, { skipSpecialTokens: false }),
      c.decodedWithSpecial,
    );
  }
  for (const c of golden.pairs ?? []) {
    const { ids, typeIds } = tokenizer.encode(c.text, { textPair: c.pair });
    check("pairs", [c.text, c.pair], [ids, typeIds], [c.ids, c.tokenTypeIds]);
  }
  for (const c of golden.batches) {
    const maxLength = c.maxLength === null ? {} : { maxLength: c.maxLength };
    const examples = c.texts.map((text, i) => {
      const pair = c.pairs?.[i];
      const { ids, typeIds } = tokenizer.encode(text, {
        ...maxLength,
        ...(pair === undefined ? {} : { textPair: pair }),
      });
      return {
        inputIds: Int32Array.from(ids),
        ...(c.tokenTypeIds ? { tokenTypeIds: Int32Array.from(typeIds) } : {}),
        label: 0,
      };
    });
    const batch = collate(examples, {
      padId: golden.padId,
      ...(c.padding === "max_length" && c.maxLength !== null ? { padTo: c.maxLength } : {}),
    });
    check("batches", c.texts, rows(batch.inputIds), c.ids);
    check("attention masks", c.texts, rows(batch.attentionMask), c.attentionMask);
    if (c.tokenTypeIds && batch.tokenTypeIds)
      check("token types", c.texts, rows(batch.tokenTypeIds), c.tokenTypeIds);
  }
  if (golden.chats !== undefined) {
    const { renderMessages } = chat(tokenizer);
    for (const c of golden.chats) {
      const rendered = renderMessages(c.messages, { addGenerationPrompt: c.addGenerationPrompt });
      check("chats", c.messages, rendered, c.rendered);
      check("chat ids", c.messages, tokenizer.encode(rendered, { addSpecialTokens: false }).ids, c.ids);
    }
  }
  return results;
}

function rows({
  shape,
  data,
}: {
  readonly shape: readonly number[];
  readonly data: BigInt64Array;
}): number[][] {
  const [count = 0, width = 0] = shape;
  return Array.from({ length: count }, (_, i) =>
    Array.from(data.subarray(i * width, (i + 1) * width), Number),
  );
}
