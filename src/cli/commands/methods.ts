import { assemble } from "../../job/assemble.ts";
import { type CostShapes, costShapes, type MethodCost, methodCosts, type NoCost } from "../../job/cost.ts";
import { loadJob } from "../../job/load.node.ts";
import {
  methods as allMethods,
  exampleJob,
  type Method,
  methodNamed,
  nearestMethod,
} from "../../job/methods.ts";
import { bytes, count } from "../../job/units.ts";
import { plainMean } from "../../strategies/catalogue/entries.ts";
import type { Command, CommandContext, ParsedArgs } from "../command.ts";
import { usageError } from "../exit.ts";
import { clipped, hanging, wrapped } from "../progress/format.ts";
import { type Column, row, table, widths } from "../progress/table.ts";
import { lines } from "../terminal.ts";

/** Characters of a line where the terminal does not say otherwise. */
const WIDTH = 100;

/** `tributary methods`. */
export const methods: Command = {
  name: "methods",
  summary: "list the federated methods, show one, or count what each costs for a job",
  usage: "[NAME] [flags]",
  arguments: [0, 1],
  takesJob: true,
  flags: [
    {
      name: "cost",
      value: "JOB",
      description: "bytes down and up for each client and round, and on the server, for this job",
    },
  ],
  examples: [
    ["tributary methods", "all of them in a table"],
    ["tributary methods fedex-lora", "options, paper, what travels, an example"],
    ["tributary methods --cost job.yaml --rank 16", "what each would send for a job"],
    ["tributary methods flora --cost job.yaml --json", "one of them, for a machine"],
  ],
  async run(args, context) {
    const [name] = args.positionals;
    if (name !== undefined && methodNamed(name) === undefined) {
      const meant = nearestMethod(name);
      throw usageError(
        `methods: got ${name}, expected the name of a method; ${meant === undefined ? "tributary methods lists them" : `did you mean ${meant}?`}`,
      );
    }
    const cost = args.flags.get("cost");
    if (cost !== undefined) return showCosts(cost, args, context);
    const [typed] = args.job;
    if (typed !== undefined)
      throw usageError(
        `--${typed.path}: changes a job, so it goes with --cost JOB; add it, or leave this out`,
      );
    const { terminal, json } = context;
    const found = name === undefined ? undefined : methodNamed(name);
    if (json) return terminal.out(`${JSON.stringify(found ?? { methods: allMethods() })}\n`);
    terminal.out(lines(found === undefined ? overview() : methodLines(found)));
  },
};

function overview(): string[] {
  const columns = [
    { title: "method" },
    { title: "down" },
    { title: "up" },
    { title: "mean of the clients?" },
    { title: "RPBS" },
  ];
  return [
    ...table(
      columns,
      allMethods().map((method) => [
        method.name,
        clipped(method.down, 23),
        clipped(method.up, 19),
        clipped(method.exact, 24),
        letters(method),
      ]),
    ),
    "",
    ...wrapped(
      "Scalars to and from a client in a round: L(r) = Σ r (out + in) over adapted layers, H trained beside them, D = L(r) + H, C(q) a base change of rank q, K clients of a round, R = Σ p_k B_k A_k − B̄Ā.",
      WIDTH,
    ),
    "R unequal ranks, P a model for each client, B changes the base, S a sum of updates is enough.",
    "tributary methods NAME shows one; docs/methods has a page for each.",
  ];
}

function letters({ unequalRanks, personal, changesBase, weightedSum }: Method): string {
  const flags = [
    ["R", unequalRanks],
    ["P", personal],
    ["B", changesBase],
    ["S", weightedSum],
  ] as const;
  return flags.map(([letter, holds]) => (holds ? letter : "-")).join("");
}

function methodLines(method: Method): string[] {
  const { options, declares } = method;
  const declared = Object.entries(declares).flatMap(([name, holds]) => (holds === true ? [name] : []));
  const facts: readonly (readonly [string, string])[] = [
    ["paper", method.paper],
    ["trains", method.trains],
    ["down", `${method.down} scalars to a client in a round`],
    ["up", `${method.up} scalars from it`],
    ["server", `${method.kept} scalars from round to round`],
    ["mean", `the clients' weighted mean? ${method.exact}`],
    ["declares", declared.join(", ") || "nothing"],
    ["page", `docs/methods/${method.page}`],
  ];
  return [
    `${method.name}: ${method.title}`,
    method.summary,
    "",
    ...facts.flatMap(([key, text]) =>
      hanging(`${key.padEnd(10)}`, text, WIDTH).map((line, i) => (i === 0 ? key.padEnd(10) + line : line)),
    ),
    "",
    options.length === 0 ? "options: none" : "options:",
    ...options.flatMap((option) => {
      const head = `  ${option.name.padEnd(Math.max(...options.map((one) => one.name.length)))}  `;
      const text = `${option.meaning} ${choice(option)}`;
      return hanging(head, text, WIDTH).map((line, i) => (i === 0 ? head + line : line));
    }),
    "",
    "in a job:",
    ...exampleJob(method)
      .split("\n")
      .map((line) => `  ${line}`),
  ];
}

function choice({ expects, required, ...option }: Method["options"][number]): string {
  if (required && option.default === undefined) return `(${expects}; has to be given)`;
  return option.default === undefined
    ? `(${expects})`
    : `(${expects}; default ${JSON.stringify(option.default)})`;
}

async function showCosts(
  path: string,
  { positionals: [name], job: typed }: ParsedArgs,
  { terminal, json, signal, onInterrupt }: CommandContext,
): Promise<void> {
  onInterrupt(() => {});
  const { job } = await loadJob({ path, flags: typed, cwd: terminal.cwd });
  const { model, weights, silos, perRound, base } = await assemble({
    ...job,
    // The silos of all methods are those of the job, also where its own pools them.
    strategy: plainMean,
    updates: { packing: { kind: "none" }, precision: "float32" },
  });
  const options = {
    job,
    model: { ...model, weights: await weights() },
    clients: silos.map((silo) => ({ id: silo.name, numExamples: silo.examples.length })),
    perRound,
    fullBytes: base.bytes,
    ...(name === undefined ? {} : { names: [name] }),
  };
  const shapes = costShapes(options);
  const found: (MethodCost | NoCost)[] = [];
  const sizes = widths(
    columns,
    allMethods().map(({ name: method }) => [method]),
  );
  if (!json) terminal.out(lines(costHead(shapes, sizes)));
  for (const cost of methodCosts(options)) {
    found.push(cost);
    if (!json) terminal.out(lines([costRow(cost, sizes)]));
    await new Promise((resolve) => setImmediate(resolve)); // Ctrl-C is heard between two methods.
    signal.throwIfAborted();
  }
  const counted = found.filter((one) => "server" in one);
  const left = found.filter((one) => "reason" in one);
  if (json) return terminal.out(`${JSON.stringify({ shapes, methods: counted, left })}\n`);
  const [single] = counted;
  terminal.out(
    lines([
      "",
      ...(name !== undefined && single ? exchangeLines(single) : []),
      ...left.flatMap(({ name: who, reason }) => [`${who}: ${reason}`]),
      ...(left.length > 0 ? [""] : []),
      ...wrapped(
        "Float32, headers apart, in a round in which the method has settled, the mean over its clients; all tensors were serialised and counted. Server: the state of all clients, the updates of a round, and at most two dense base changes.",
        WIDTH,
      ),
    ]),
  );
}

const columns: readonly Column[] = [
  { title: "method" },
  { title: "down", align: "right", width: 8 },
  { title: "up", align: "right", width: 8 },
  { title: "x full", align: "right", width: 7 },
  { title: "server", align: "right", width: 8 },
  { title: "down, up in closed form" },
];

function costHead(shapes: CostShapes, sizes: readonly number[]): string[] {
  const { modules, rank, clients, perRound, pairs, weights, beside, fullBytes } = shapes;
  const full = ["full weights", bytes(fullBytes), bytes(fullBytes), "1", "", "P, P"];
  return [
    `${count(modules)} layers of rank ${rank}: L(r) ${count(pairs)}, F ${count(weights)}, H ${count(beside)}; ${count(perRound)} of ${count(clients)} clients a round`,
    "",
    row(
      columns,
      columns.map(({ title }) => title),
      sizes,
    ),
    row(columns, full, sizes),
  ];
}

function costRow(cost: MethodCost | NoCost, sizes: readonly number[]): string {
  if ("reason" in cost) return row(columns, [cost.name, "-", "-", "-", "-", "not for this job"], sizes);
  const forms = cost.agrees ? `${cost.down}, ${cost.up}` : `NOT AS SENT: ${cost.down}, ${cost.up}`;
  const used = sizes.slice(0, -1).reduce((sum, width) => sum + width + 2, 0);
  return row(
    columns,
    [
      cost.name,
      bytes(cost.bytesDown),
      bytes(cost.bytesUp),
      multiple(cost.shareOfFull),
      bytes(cost.server.total),
      clipped(forms, WIDTH - used),
    ],
    sizes,
  );
}

/** A share of full weights in at most seven characters. */
function multiple(share: number): string {
  return share > 0 && share < 1e-3 ? share.toExponential(1) : String(Number(share.toPrecision(2)));
}

/** Every rehearsed round of one method, client by client. */
function exchangeLines({ exchanges }: MethodCost): string[] {
  return [
    ...table(
      [
        { title: "round", align: "right" },
        { title: "client" },
        { title: "down", align: "right" },
        { title: "sent", align: "right" },
        { title: "up", align: "right" },
        { title: "sent", align: "right" },
      ],
      exchanges.map(({ round, client, down, up }) => [
        String(round),
        client,
        count(down.closed),
        count(down.sent),
        count(up.closed),
        count(up.sent),
      ]),
    ),
    "",
  ];
}
