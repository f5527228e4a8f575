import { TributaryError } from "../../errors.ts";

/** A request that is refused: its status, and a code and a sentence for the client. */
export class Refused extends TributaryError {
  readonly status: number;
  /** Seconds after which it is worth another try. */
  readonly retryAfter: number | undefined;

  constructor(status: number, code: string, message: string, retryAfter?: number) {
    super(code, message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}
