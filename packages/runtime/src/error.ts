/** Errors with a stable code: what was tried, what to check, and the cause, for logs, metrics and people. */

export interface MeshErrorOptions {
  readonly cause?: unknown;
  /** Facts for the log line; never secrets, never a peer's raw bytes. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/** The one error base. `code` is stable and documented; the message says what was tried and what to check. */
export class MeshError<Code extends string = string> extends Error {
  readonly code: Code;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: Code, message: string, options: MeshErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "MeshError";
    this.code = code;
    this.details = options.details ?? {};
  }

  /** Gives anything thrown a code; a MeshError passes through unchanged. Call once, at the edge. */
  static from<Code extends string>(thrown: unknown, code: Code): MeshError {
    if (thrown instanceof MeshError) return thrown;
    return new MeshError(code, messageOf(thrown), { cause: thrown });
  }
}

/** The code of a MeshError or of a system error (`ECONNREFUSED`), when there is one. */
export function errorCode(thrown: unknown): string | undefined {
  if (typeof thrown !== "object" || thrown === null || !("code" in thrown)) return undefined;
  return typeof thrown.code === "string" ? thrown.code : undefined;
}

/** One line for a person: the message and, where they add something, the messages of its causes. */
export function messageOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const own = thrown.message === "" ? thrown.name : thrown.message;
  if (thrown.cause === undefined) return own;
  const cause = messageOf(thrown.cause);
  return own.includes(cause) ? own : `${own}: ${cause}`;
}

/** An error without its class, which structured clone would drop. */
export interface PlainError {
  readonly code: string;
  readonly message: string;
}

/** To be said to another thread; what has no code gets `code`. */
export function plainError(thrown: unknown, code: string): PlainError {
  const error = MeshError.from(thrown, code);
  return { code: error.code, message: messageOf(error) };
}

export function fromPlainError({ code, message }: PlainError): MeshError {
  return new MeshError(code, message);
}

/** Closes a switch over a union: a new member fails to compile here. */
export function assertNever(value: never): never {
  throw new MeshError("RUNTIME_UNREACHABLE", `unexpected value ${JSON.stringify(value)}`);
}
