/** A table of lengths of longest common subsequences: entry `i * (columns + 1) + j` is of the first i and the first j tokens. */
export function lcsTable(rows: readonly string[], columns: readonly string[]): Int32Array {
  const width = columns.length + 1;
  const table = new Int32Array((rows.length + 1) * width);
  for (let i = 1; i <= rows.length; i++) {
    const token = rows[i - 1];
    for (let j = 1; j < width; j++) {
      const at = i * width + j;
      table[at] =
        token === columns[j - 1] ? table[at - width - 1]! + 1 : Math.max(table[at - width]!, table[at - 1]!);
    }
  }
  return table;
}

/** Length of the longest common subsequence of two lists of tokens. */
export function lcsLength(a: readonly string[], b: readonly string[]): number {
  return lcsTable(a, b).at(-1) ?? 0;
}
