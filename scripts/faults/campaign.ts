/** One way to run federations under faults. */
export interface Campaign {
  readonly name: string;
  /** Beside other campaigns it takes one seed of so many: some take milliseconds, others seconds. */
  readonly every: number;
  open(options: CampaignOptions): Promise<OpenCampaign>;
}

/** What every campaign is given. */
export interface CampaignOptions {
  /** Default: the campaign's own. */
  readonly clients?: number;
  readonly rounds?: number;
  readonly onTrace?: (line: string) => void;
}

/** A campaign that takes seeds. */
export interface OpenCampaign {
  /** What went wrong under a seed, with the command that shows it again; nothing where all went well. */
  run(seed: number): Promise<string | undefined>;
  close(): Promise<void>;
}

/** What is wrong with a seed, and the command that shows it again. */
export function reportOf(
  name: string,
  seed: number,
  problems: readonly string[],
  { clients, rounds }: CampaignOptions,
): string | undefined {
  if (problems.length === 0) return undefined;
  const shown = problems.slice(0, 8).map((problem) => `  ${problem}`);
  if (problems.length > shown.length) shown.push(`  and ${problems.length - shown.length} more`);
  const size = [
    ...(clients === undefined ? [] : [`--clients ${clients}`]),
    ...(rounds === undefined ? [] : [`--rounds ${rounds}`]),
  ];
  const again = ["npm run faults -- --campaign", name, "--seed", seed, ...size, "--trace"].join(" ");
  return [`${name}, seed ${seed}:`, ...shown, `  again: ${again}`].join("\n");
}
