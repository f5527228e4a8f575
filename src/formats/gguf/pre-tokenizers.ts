import { isObject, type Json, type JsonObject } from "../json.ts";

/** How a byte-level tokenizer cuts text before it merges, under the names of `tokenizer.ggml.pre`. */
interface PreTokenizer {
  readonly names: readonly string[];
  /** Regular expressions that isolate their matches, one after another. */
  readonly splits: readonly string[];
  /** Whether a word of the vocabulary is taken whole, whatever its merges say. */
  readonly ignoreMerges?: boolean;
  /** Whether a text begins with the start token where the file does not say. */
  readonly addBos?: boolean;
  /** Unicode form of the text. */
  readonly normalizer?: "NFC";
}

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const CONTRACTIONS = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const words = (numbers: string): string =>
  `(?:${CONTRACTIONS})|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${numbers}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

const preTokenizers: readonly PreTokenizer[] = [
  { names: ["smollm", "starcoder", "refact", "command-r"], splits: ["\\p{N}", GPT2] },
  { names: ["gpt-2", "phi-2"], splits: [GPT2] },
  {
    names: ["llama-bpe", "llama3", "llama-v3"],
    splits: [words("\\p{N}{1,3}")],
    ignoreMerges: true,
    addBos: true,
  },
  { names: ["qwen2", "deepseek-r1-qwen"], splits: [words("\\p{N}")], normalizer: "NFC" },
  { names: ["default"], splits: ["[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"] },
];

/** The rule of a name, or undefined where it is not known. */
export function preTokenizerOf(name: string): PreTokenizer | undefined {
  return preTokenizers.find(({ names }) => names.includes(name));
}

/** Every known name. */
export const preTokenizerNames: readonly string[] = preTokenizers.flatMap(({ names }) => names);

/** The rule as the `pre_tokenizer` of a tokenizer.json. */
export function preTokenizerJson({ splits }: PreTokenizer): JsonObject {
  const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  const last = splits.at(-1) === GPT2;
  const steps: JsonObject[] = (last ? splits.slice(0, -1) : splits).map((regex) =>
    regex === "\\p{N}"
      ? { type: "Digits", individual_digits: true }
      : { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false },
  );
  steps.push({ ...level, use_regex: last });
  const [only] = steps;
  return steps.length === 1 && only !== undefined ? only : { type: "Sequence", pretokenizers: steps };
}

/** The name under which llama.cpp knows a `pre_tokenizer`; undefined where it has none. */
export function nameOfPreTokenizer(json: Json | undefined): string | undefined {
  const splits = splitsOf(json);
  if (splits === undefined) return undefined;
  return preTokenizers.find((known) => known.splits.join("\n") === splits.join("\n"))?.names[0];
}

/** The regular expressions of a byte-level pre-tokenizer; undefined where it does anything else. */
function splitsOf(json: Json | undefined): string[] | undefined {
  if (!isObject(json)) return undefined;
  switch (json.type) {
    case "ByteLevel":
      if (json.add_prefix_space === true) return undefined;
      return json.use_regex === false ? [] : [GPT2];
    case "Digits":
      return json.individual_digits === true ? ["\\p{N}"] : undefined;
    case "Split": {
      const regex = isObject(json.pattern) ? json.pattern.Regex : undefined;
      if (typeof regex !== "string" || json.invert === true) return undefined;
      if (json.behavior !== "Isolated" && json.behavior !== "Removed") return undefined;
      return [regex.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", `(?:${CONTRACTIONS})`)];
    }
    case "Sequence": {
      if (!Array.isArray(json.pretokenizers)) return undefined;
      const parts = json.pretokenizers.map(splitsOf);
      return parts.every((part) => part !== undefined) ? parts.flat() : undefined;
    }
    default:
      return undefined;
  }
}
