/** What one golden case showed. */
export interface ParityLine {
  readonly name: string;
  /** What was compared. */
  readonly what: string;
  readonly maxAbs: number;
  readonly maxRel: number;
  readonly tolerance: number;
  readonly verdict: "passed" | "failed" | "unsupported";
  readonly note?: string;
}
