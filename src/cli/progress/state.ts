import type { Progress } from "../../federation/message.ts";
import type { Round } from "../../federation/round.ts";
import type { JobEvent, RunHeader } from "../../job/events.ts";

/** The round under way. */
export interface CurrentRound {
  readonly number: number;
  readonly attempt: number;
  readonly cohort: readonly string[];
  readonly target: number;
  readonly accepted: readonly {
    readonly client: string;
    readonly loss: number;
    readonly numExamples: number;
  }[];
  readonly dropped: readonly string[];
  /** Share of its steps that each client under way has done. */
  readonly working: ReadonlyMap<string, number>;
  readonly bytesUp: number;
  /** When it was opened, in seconds of the display's clock. */
  readonly since: number;
}

/** What goes on between rounds, and since when in seconds of the display's clock. */
export interface Phase {
  readonly what: string;
  readonly since: number;
  /** Bytes that were there at its begin, that are there now, and all, where it fetches something. */
  readonly fetched?: { readonly first: number; readonly done: number; readonly total: number };
}

/** What a display knows of a run. */
export interface ProgressState {
  readonly header?: RunHeader;
  readonly rounds: readonly Round[];
  /** Held-out measurements by round, from 0. */
  readonly evaluations: ReadonlyMap<number, Readonly<Record<string, number>>>;
  readonly current?: CurrentRound;
  readonly phase?: Phase;
  /** The first round that this process saw opened, and when. */
  readonly began?: { readonly round: number; readonly at: number };
}

/** Before the first event. */
export const noProgress: ProgressState = { rounds: [], evaluations: new Map() };

/** What a display knows after an event that reached it at `now` seconds. */
export function progressed(state: ProgressState, event: JobEvent, now: number): ProgressState {
  switch (event.type) {
    case "fetching": {
      const { done, total, name } = event;
      const what = `fetching ${name}`;
      const began = state.phase?.what === what ? state.phase : { since: now };
      const first = "fetched" in began ? (began.fetched?.first ?? done) : done;
      return { ...state, phase: { what, since: began.since, fetched: { first, done, total } } };
    }
    case "started":
      return withPhase({ ...state, header: event.header }, "starting the workers", now);
    case "resumed":
      return {
        ...withoutPhase(state),
        rounds: event.rounds,
        evaluations: new Map([
          [0, event.evaluation ?? {}],
          ...event.rounds.map(({ number, evaluation }) => [number, evaluation] as const),
        ]),
      };
    case "round-opened":
      return {
        ...withoutPhase(state),
        began: state.began ?? { round: event.round, at: now },
        current: {
          number: event.round,
          attempt: event.attempt,
          cohort: event.cohort,
          target: event.target,
          accepted: [],
          dropped: [],
          working: new Map(),
          bytesUp: 0,
          since: now,
        },
      };
    case "client-started":
      return withCurrent(state, (current) => ({
        ...current,
        working: new Map(current.working).set(event.client, 0),
      }));
    case "client-progress":
      return withCurrent(state, (current) => ({
        ...current,
        working: new Map(current.working).set(event.client, shareOf(event.progress)),
      }));
    case "update-accepted":
      return withCurrent(state, (current) => ({
        ...current,
        accepted: [
          ...current.accepted,
          { client: event.client, loss: event.loss, numExamples: event.numExamples },
        ],
        working: without(current.working, event.client),
        bytesUp: current.bytesUp + event.bytes,
      }));
    case "client-dropped":
      return withCurrent(state, (current) => ({
        ...current,
        dropped: [...current.dropped, event.client],
        working: without(current.working, event.client),
      }));
    case "round-failed": {
      const { current: _, ...rest } = state;
      return rest;
    }
    case "round-committed": {
      const { current: _, ...rest } = state;
      const { round } = event;
      const rounds = [...state.rounds.filter(({ number }) => number !== round.number), round];
      return withPhase({ ...rest, rounds }, `measuring round ${round.number}`, now);
    }
    case "evaluated":
      return {
        ...withoutPhase(state),
        evaluations: new Map(state.evaluations).set(event.round, event.metrics),
      };
    case "sample":
      return event.when === "before"
        ? withPhase(state, "measuring the base model", now)
        : withoutPhase(state);
    case "finished":
      return withoutPhase(state);
    case "waiting":
      return withPhase(state, event.why, now);
    case "round-closed":
    case "run-ended":
      return state;
  }
}

/** Mean loss of the updates that are in, weighted by examples. */
export function lossSoFar({ accepted }: CurrentRound): number {
  const examples = accepted.reduce((sum, { numExamples }) => sum + numExamples, 0);
  return accepted.reduce((sum, { loss, numExamples }) => sum + loss * numExamples, 0) / examples;
}

/** Share of the round's work that is done, half-trained clients included. */
export function shareDone({ target, accepted, working }: CurrentRound): number {
  const started = [...working.values()].reduce((sum, share) => sum + share, 0);
  return Math.min(1, (accepted.length + started) / Math.max(1, target));
}

/** Seconds until all rounds are done, by the pace of those that this process saw; undefined while too little is done. */
export function secondsLeft(
  { current, began, header }: ProgressState,
  now: number,
): { readonly round: number; readonly run: number } | undefined {
  if (current === undefined || began === undefined) return undefined;
  const share = shareDone(current);
  if (share <= 0.02) return undefined;
  const done = current.number - began.round + share;
  const total = header?.rounds ?? current.number;
  return {
    round: ((now - current.since) * (1 - share)) / share,
    run: ((now - began.at) * (total - current.number + 1 - share)) / done,
  };
}

/** The state with what goes on from `since` until the next event. */
export function withPhase(state: ProgressState, what: string, since: number): ProgressState {
  return { ...state, phase: { what, since } };
}

function withoutPhase({ phase: _, ...rest }: ProgressState): ProgressState {
  return rest;
}

function shareOf(progress: Progress): number {
  return progress.steps > 0 ? progress.step / progress.steps : 0;
}

function withCurrent(state: ProgressState, change: (current: CurrentRound) => CurrentRound): ProgressState {
  return state.current === undefined ? state : { ...state, current: change(state.current) };
}

function without(map: ReadonlyMap<string, number>, key: string): ReadonlyMap<string, number> {
  const rest = new Map(map);
  rest.delete(key);
  return rest;
}
