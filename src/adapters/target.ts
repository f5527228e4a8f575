/**
 * Which modules an adapter changes, as in PEFT: a list of suffixes, a regular expression that matches whole names, or
 * `"all-linear"`, every linear layer but the output layer.
 */
export type Target = readonly string[] | string;

/** A module that can be chosen. */
export interface Candidate {
  readonly linear: boolean;
  /** Is the output layer. */
  readonly head: boolean;
}

/** A test of whole names by a regular expression. Throws TypeError that quotes a malformed one. */
function fullMatch(pattern: string): RegExp {
  try {
    return new RegExp(`^(?:${pattern})$`, "u");
  } catch (cause) {
    throw new TypeError(`target: "${pattern}" is not a regular expression`, { cause });
  }
}

/** Whether a name is one of the suffixes, or matches the regular expression as a whole. */
export function matches(name: string, target: Target): boolean {
  return typeof target === "string"
    ? fullMatch(target).test(name)
    : target.some((suffix) => name === suffix || name.endsWith(`.${suffix}`));
}

/** The chosen modules in the order of the candidates. Throws RangeError where nothing matches. */
export function chooseModules(candidates: ReadonlyMap<string, Candidate>, target: Target): string[] {
  const chosen = [...candidates]
    .filter(([name, { linear, head }]) => (target === "all-linear" ? linear && !head : matches(name, target)))
    .map(([name]) => name);
  if (chosen.length === 0) {
    const last = new Set([...candidates.keys()].map((name) => name.replace(/^.*\.(?=[^.]*[^.\d])/, "")));
    throw new RangeError(
      `target: ${JSON.stringify(target)} matches no module; modules end in ${[...last].join(", ")}`,
    );
  }
  return chosen;
}

/** The value of the first pattern that matches a module or a suffix of it, as PEFT reads `rank_pattern`. */
export function patternValue(
  patterns: Readonly<Record<string, number>>,
  module: string,
  otherwise: number,
): number {
  for (const [pattern, value] of Object.entries(patterns)) {
    if (fullMatch(`(?:.*\\.)?(?:${pattern})`).test(module)) return value;
  }
  return otherwise;
}
