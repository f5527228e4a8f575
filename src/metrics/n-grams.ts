/** How often each n-gram occurs, under a key of its own. */
export type NGramCounts = ReadonlyMap<string, number>;

/** Joins the tokens of an n-gram; tokens are made of what stands between white space, so it occurs in none. */
const separator = "\u001f";

/** Counts of the n-grams of one order. */
export function nGramCounts(tokens: readonly string[], order: number): NGramCounts {
  const counts = new Map<string, number>();
  for (let i = 0; i + order <= tokens.length; i++) {
    const key = order === 1 ? (tokens[i] ?? "") : tokens.slice(i, i + order).join(separator);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}

/** Counts of the n-grams of each order from 1 to `most`. */
export function nGramOrders(tokens: readonly string[], most: number): NGramCounts[] {
  return Array.from({ length: most }, (_, i) => nGramCounts(tokens, i + 1));
}

/** The n-gram without its last token; undefined for a single token. */
export function shortened(key: string): string | undefined {
  const end = key.lastIndexOf(separator);
  return end < 0 ? undefined : key.slice(0, end);
}

/** Number of n-grams, each as often as it occurs. */
export function sizeOf(counts: NGramCounts): number {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
}

/** The n-grams that both sides have, each as often as the side that has fewer of it. */
export function overlap(a: NGramCounts, b: NGramCounts): number {
  let sum = 0;
  for (const [key, count] of a) sum += Math.min(count, b.get(key) ?? 0);
  return sum;
}

/** For each n-gram the most that one of several texts has of it. */
export function largest(all: readonly NGramCounts[]): NGramCounts {
  const most = new Map<string, number>();
  for (const counts of all)
    for (const [key, count] of counts) most.set(key, Math.max(count, most.get(key) ?? 0));
  return most;
}
