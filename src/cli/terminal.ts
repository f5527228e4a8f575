import type { Style } from "./progress/style.ts";

/** Where a command reads and writes. */
export interface Terminal {
  /** Writes results. */
  out(text: string): void;
  /** Writes what is no result: notices and errors. */
  err(text: string): void;
  /** Whether a person can be asked. */
  readonly interactive: boolean;
  /** Whether lines of the output can be drawn again in place. */
  readonly live: boolean;
  readonly columns: number;
  readonly style: Style;
  readonly cwd: string;
  /** How a person starts this program, such as `tributary` or `npx tributary`. */
  readonly program: string;
}

/** Lines as one text. */
export function lines(parts: readonly string[]): string {
  return parts.map((part) => `${part}\n`).join("");
}
