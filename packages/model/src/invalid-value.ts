/** What every parser of this package throws: the value was outside input and is not what it should be. */
export class InvalidValueError extends Error {
  readonly code = "MODEL_INVALID_VALUE";
  constructor(message: string) {
    super(message);
    this.name = "InvalidValueError";
  }
}
