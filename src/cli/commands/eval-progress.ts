import type { EvaluationProgress } from "../../eval/evaluate.ts";
import type { OfModel } from "../../job/evaluate.ts";
import { count } from "../../job/units.ts";
import type { MetricNeeds } from "../../metrics/metric.ts";
import { bar, clipped, duration } from "../progress/format.ts";
import type { Terminal } from "../terminal.ts";

/** What the examples of a kind are called. */
const called: Readonly<Record<MetricNeeds, string>> = {
  losses: "texts",
  classes: "texts classified",
  numbers: "texts",
  choices: "questions",
  texts: "answers",
};

/** Seconds between plain lines, where none can be drawn again. */
const plainEvery = 10;

/** Shows how far an evaluation is. */
export interface EvaluationDisplay {
  show(progress: OfModel<EvaluationProgress>): void;
  /** Takes away what is drawn in place. */
  end(): void;
}

/** A bar with the time that is left on a terminal, plain lines every few seconds elsewhere. */
export function openEvaluationDisplay(
  { live, columns, out, err }: Pick<Terminal, "live" | "columns" | "out" | "err">,
  now: () => number,
): EvaluationDisplay {
  let [pass, since, told] = ["", 0, 0];
  let drawn = false;
  return {
    show({ model, kind, done, total }) {
      if (pass !== `${model} ${kind}`) {
        pass = `${model} ${kind}`;
        since = now();
        told = since;
      }
      const seconds = now() - since;
      const text = `${model}: ${count(Math.floor(done))} of ${count(total)} ${called[kind]}`;
      const left = done > 0 && done < total ? `, ${duration((seconds * (total - done)) / done)} left` : "";
      if (live) {
        const line = clipped(`${bar(done / Math.max(1, total), 20)} ${text}${left}`, columns);
        out(`${drawn ? "\u001b[1A\u001b[2K" : ""}${line}\n`);
        drawn = true;
      } else if (now() - told >= plainEvery) {
        told = now();
        err(`${text}${left}\n`);
      }
    },
    end() {
      if (drawn) out("\u001b[1A\u001b[2K");
      drawn = false;
    },
  };
}
