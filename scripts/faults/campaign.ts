/** One way to run federations under faults. */
export interface Campaign {
  readonly name: string;
  run(options: CampaignOptions): AsyncIterable<CampaignStep>;
}

/** What every campaign is given. */
export interface CampaignOptions {
  readonly seeds: Iterable<number>;
  readonly clients: number;
  readonly rounds: number;
  readonly onTrace?: (line: string) => void;
}

/** What a campaign did since the step before. */
export interface CampaignStep {
  /** Seeds. */
  readonly done: number;
  /** What went wrong. */
  readonly failure?: string;
}
