/** An error that a program may want to catch, told apart by `code`. The message is for people. */
export class TributaryError extends Error {
  override readonly name = "TributaryError";
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
