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

/**
 * What a client is told of an error: a refusal as it is; of stores that are full that they are; of anything else that the
 * server's log has it.
 */
export function refusalOf(error: unknown): Refused {
  if (error instanceof Refused) return error;
  if (error instanceof TributaryError && error.code === "disk-write")
    return new Refused(507, "storage", "the server cannot write at the moment; send it again later", 5);
  const refused = new Refused(500, "internal", "the server failed; its log says why");
  refused.cause = error;
  return refused;
}
