import { bell } from "../../federation/bell.ts";

/** Events for whoever listens, as server-sent events. */
export interface EventFeed {
  /** Tells every listener. */
  publish(type: string, data: unknown): void;
  /** The events from now on until the signal aborts; a comment every ten seconds keeps the connection open. */
  listen(signal: AbortSignal): AsyncIterable<string>;
}

/** Events that a listener may be behind before it is cut off. */
const MOST_BEHIND = 1000;

/** Milliseconds between two signs of life. */
const PULSE = 10_000;

/** A feed without listeners. */
export function eventFeed(): EventFeed {
  const listeners = new Set<(piece: string) => void>();
  return {
    publish(type, data) {
      if (listeners.size === 0) return;
      const piece = serverSentEvent(type, data);
      for (const tell of listeners) tell(piece);
    },
    async *listen(signal) {
      const waiting: string[] = [];
      const changed = bell();
      const tell = (piece: string): void => {
        waiting.push(piece);
        changed.ring();
      };
      listeners.add(tell);
      const pulse = setInterval(() => tell(": \n\n"), PULSE);
      try {
        while (!signal.aborted && waiting.length <= MOST_BEHIND) {
          if (waiting.length === 0) await changed.wait(signal);
          else yield waiting.splice(0).join("");
        }
      } finally {
        clearInterval(pulse);
        listeners.delete(tell);
      }
    },
  };
}

/** One event in the form of the HTML standard, section 9.2. JSON has no line breaks. */
export function serverSentEvent(type: string, data: unknown): string {
  return `event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
}
