import { isMap, isScalar, isSeq, LineCounter, parseDocument } from "yaml";
import { TributaryError } from "../errors.ts";
import type { PlaceOf } from "./problem.ts";

/** The content of a job file, and the line of each key. */
export interface JobText {
  readonly value: unknown;
  readonly placeOf: PlaceOf;
}

/** Parses YAML or JSON (which is YAML). Throws TributaryError `job-syntax` with file, line and column. */
export function parseJobText(text: string, file: string): JobText {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [error] = document.errors;
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0]);
    throw new TributaryError("job-syntax", `${file}:${line}:${col}: ${error.message}; correct the YAML`);
  }
  const places = new Map<string, number>();
  const visit = (node: unknown, path: string): void => {
    if (isMap(node)) {
      for (const { key, value } of node.items) {
        const name = isScalar(key) ? String(key.value) : "";
        const full = path === "" ? name : `${path}.${name}`;
        if (isScalar(key) && key.range) places.set(full, lines.linePos(key.range[0]).line);
        visit(value, full);
      }
    } else if (isSeq(node)) {
      for (const [i, item] of node.items.entries()) visit(item, `${path}.${i}`);
    }
  };
  visit(document.contents, "");
  return {
    value: document.toJS(),
    placeOf(path) {
      for (let at = path; at !== ""; at = at.slice(0, Math.max(0, at.lastIndexOf(".")))) {
        const line = places.get(at);
        if (line !== undefined) return `${file}:${line}`;
      }
      return file;
    },
  };
}
