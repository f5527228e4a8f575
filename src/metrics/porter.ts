/**
 * The stem of a word by Porter's algorithm in nltk's variant, which differs from the paper's: words of one or two letters
 * stay, some irregular forms have a stem of their own, `-ies` and `-ied` after one letter keep an `e`, `y` becomes `i` after
 * any consonant but the first letter, and step 2 has the rules `-alli` (repeated), `-fulli` and `-logi`.
 *
 * Porter, Program 1980. https://tartarus.org/martin/PorterStemmer/def.txt; nltk's `PorterStemmer` in its default mode.
 */
export function porterStem(word: string): string {
  const lower = word.toLowerCase();
  const irregular = irregularStems.get(lower);
  if (irregular !== undefined) return irregular;
  if (letters(word) <= 2) return lower;
  return [step1a, step1b, step1c, step2, step3, step4, step5a, step5b].reduce(
    (stem, step) => step(stem),
    lower,
  );
}

const irregularStems: ReadonlyMap<string, string> = new Map([
  ["sky", "sky"],
  ["skies", "sky"],
  ["dying", "die"],
  ["lying", "lie"],
  ["tying", "tie"],
  ["news", "news"],
  ["innings", "inning"],
  ["inning", "inning"],
  ["outings", "outing"],
  ["outing", "outing"],
  ["cannings", "canning"],
  ["canning", "canning"],
  ["howe", "howe"],
  ["proceed", "proceed"],
  ["exceed", "exceed"],
  ["succeed", "succeed"],
]);

/** A suffix, what takes its place, and when. */
type Rule = readonly [suffix: string, replacement: string, condition?: (stem: string) => boolean];

/** Applies the first rule whose suffix the word has; where its condition fails, no other rule is tried. */
function apply(word: string, rules: readonly Rule[]): string {
  for (const [suffix, replacement, condition] of rules) {
    if (!word.endsWith(suffix)) continue;
    const stem = word.slice(0, word.length - suffix.length);
    return condition === undefined || condition(stem) ? stem + replacement : word;
  }
  return word;
}

const letters = (word: string): number => [...word].length;

/** For each letter whether it is a consonant: `y` is one at the start and after a vowel. */
function consonants(word: string): boolean[] {
  const flags: boolean[] = [];
  for (const [i, letter] of [...word].entries())
    flags.push("aeiou".includes(letter) ? false : letter !== "y" || i === 0 || flags[i - 1] === false);
  return flags;
}

/** m: how often a consonant follows a vowel, `[C](VC)^m[V]`. */
function measure(stem: string): number {
  const flags = consonants(stem);
  return flags.filter((flag, i) => flag && i > 0 && flags[i - 1] === false).length;
}

const above0 = (stem: string): boolean => measure(stem) > 0;
const above1 = (stem: string): boolean => measure(stem) > 1;
const hasVowel = (stem: string): boolean => consonants(stem).includes(false);

/** *d: the word ends with a double consonant. */
function endsDouble(word: string): boolean {
  const [last, before] = [...word].reverse();
  return last !== undefined && last === before && consonants(word).at(-1) === true;
}

/** *o: the word ends consonant, vowel, consonant, the last of which is not w, x or y; or is a vowel and a consonant. */
function endsShort(word: string): boolean {
  const flags = consonants(word);
  const [a, b, c] = flags.slice(-3);
  if (flags.length >= 3) return a === true && b === false && c === true && !/[wxy]$/.test(word);
  return flags.length === 2 && a === false && b === true;
}

function step1a(word: string): string {
  if (word.endsWith("ies") && letters(word) === 4) return word.slice(0, -1);
  return apply(word, [
    ["sses", "ss"],
    ["ies", "i"],
    ["ss", "ss"],
    ["s", ""],
  ]);
}

function step1b(word: string): string {
  if (word.endsWith("ied")) return letters(word) === 4 ? word.slice(0, -1) : word.slice(0, -2);
  if (word.endsWith("eed")) return apply(word, [["eed", "ee", above0]]);
  const suffix = ["ed", "ing"].find(
    (ending) => word.endsWith(ending) && hasVowel(word.slice(0, -ending.length)),
  );
  if (suffix === undefined) return word;
  const stem = word.slice(0, -suffix.length);
  if (/at$|bl$|iz$/.test(stem)) return `${stem}e`;
  if (endsDouble(stem)) return /[lsz]$/.test(stem) ? stem : stem.slice(0, -1);
  return measure(stem) === 1 && endsShort(stem) ? `${stem}e` : stem;
}

function step1c(word: string): string {
  return apply(word, [["y", "i", (stem) => letters(stem) > 1 && consonants(stem).at(-1) === true]]);
}

function step2(word: string): string {
  if (word.endsWith("alli") && above0(word.slice(0, -4))) return step2(word.slice(0, -2));
  return apply(word, [
    ["ational", "ate", above0],
    ["tional", "tion", above0],
    ["enci", "ence", above0],
    ["anci", "ance", above0],
    ["izer", "ize", above0],
    ["bli", "ble", above0],
    ["alli", "al", above0],
    ["entli", "ent", above0],
    ["eli", "e", above0],
    ["ousli", "ous", above0],
    ["ization", "ize", above0],
    ["ation", "ate", above0],
    ["ator", "ate", above0],
    ["alism", "al", above0],
    ["iveness", "ive", above0],
    ["fulness", "ful", above0],
    ["ousness", "ous", above0],
    ["aliti", "al", above0],
    ["iviti", "ive", above0],
    ["biliti", "ble", above0],
    ["fulli", "ful", above0],
    // The measure is taken with the l that stays.
    ["logi", "log", (stem) => above0(`${stem}l`)],
  ]);
}

function step3(word: string): string {
  return apply(word, [
    ["icate", "ic", above0],
    ["ative", "", above0],
    ["alize", "al", above0],
    ["iciti", "ic", above0],
    ["ical", "ic", above0],
    ["ful", "", above0],
    ["ness", "", above0],
  ]);
}

function step4(word: string): string {
  return apply(word, [
    ["al", "", above1],
    ["ance", "", above1],
    ["ence", "", above1],
    ["er", "", above1],
    ["ic", "", above1],
    ["able", "", above1],
    ["ible", "", above1],
    ["ant", "", above1],
    ["ement", "", above1],
    ["ment", "", above1],
    ["ent", "", above1],
    ["ion", "", (stem) => above1(stem) && /[st]$/.test(stem)],
    ["ou", "", above1],
    ["ism", "", above1],
    ["ate", "", above1],
    ["iti", "", above1],
    ["ous", "", above1],
    ["ive", "", above1],
    ["ize", "", above1],
  ]);
}

function step5a(word: string): string {
  return apply(word, [["e", "", (stem) => measure(stem) > 1 || (measure(stem) === 1 && !endsShort(stem))]]);
}

function step5b(word: string): string {
  return apply(word, [["ll", "l", (stem) => above1(`${stem}l`)]]);
}
