import type { DataRecord } from "../record.ts";
import { type Preset, textIn } from "./preset.ts";

/** Slots that the papers spell otherwise than the files do. */
const spelled: ReadonlyMap<string, string> = new Map([
  ["eatType", "Type"],
  ["priceRange", "price"],
  ["familyFriendly", "family friendly"],
]);

/** Restaurants in words, from slots and values. */
export const e2eNlg: Preset = {
  name: "e2e-nlg",
  title: "E2E NLG: descriptions of restaurants",
  paper: "Novikova et al., SIGDIAL 2017",
  source: "https://github.com/tuetschek/e2e-dataset",
  license: "CC BY-SA 4.0",
  columns: { mr: "slots with values, such as name[The Eagle], area[riverside]", ref: "a description" },
  splits:
    "42,061 train, 4,672 validation and 4,693 test descriptions, several for one row of slots. Name the file of a part in data.splits; without it a job holds out 10 %",
  template:
    "name : The Eagle | area : riverside || ..., as Li and Liang (2021) and Hu et al. (2022) write it; the description is trained",
  job: {
    task: "causal-lm",
    data: { template: "prompt-completion", maxLength: 256, splits: { validation: 0.1 } },
    evaluation: { metrics: ["bleu", "nist", "meteor", "rougeLCoco", "cider"], maxTokens: 64 },
  },
  prepare: (rows) => rows.map(prepared),
};

function prepared(row: DataRecord): DataRecord | string {
  const [slots, description] = [textIn(row, "mr"), textIn(row, "ref")];
  if (description.trim() === "") return "an empty description";
  const found = [...slots.matchAll(/([^,[\]]+)\[([^\]]*)\]/g)];
  if (found.length === 0) return "no slots in mr";
  const parts = found.map(([, slot = "", value = ""]) => {
    const name = slot.trim();
    return `${spelled.get(name) ?? name} : ${value}`;
  });
  return { ...row, prompt: `${parts.join(" | ")} ||`, completion: ` ${description.trim()}` };
}
