/**
 * Log lines of a thread on their way to the one that writes them: whole lines, several a message, one message under way. What comes faster
 * than it is written waits, up to a bound; past it what comes is counted instead of kept, so that logging can never exhaust the process.
 */
const maxWaitingCharacters = 4 * 1024 * 1024;

export class LineSender {
  readonly #send: (text: string) => void;
  #waiting: string[] = [];
  #waitingCharacters = 0;
  #dropped = 0;
  #underWay = false;
  #scheduled = false;

  /** `send` is called again only after `written`. */
  constructor(send: (text: string) => void) {
    this.#send = send;
  }

  /** Takes one whole line or several, line breaks included. */
  readonly write = (lines: string): void => {
    if (this.#waitingCharacters >= maxWaitingCharacters) {
      this.#dropped++;
      return;
    }
    this.#waiting.push(lines);
    this.#waitingCharacters += lines.length;
    if (this.#scheduled || this.#underWay) return;
    this.#scheduled = true;
    // What is logged in one turn goes together.
    setImmediate(() => this.flush());
  };

  /** The lines sent before were written. Returns how many calls of `write` were dropped since the last. */
  written(): number {
    this.#underWay = false;
    this.flush();
    const dropped = this.#dropped;
    this.#dropped = 0;
    return dropped;
  }

  /** Sends what waits, whatever is under way: for the end. */
  flushNow(): void {
    this.#underWay = false;
    this.flush();
  }

  /** Sends what waits, if nothing is under way. */
  flush(): void {
    this.#scheduled = false;
    if (this.#underWay || this.#waiting.length === 0) return;
    this.#underWay = true;
    const text = this.#waiting.join("");
    this.#waiting = [];
    this.#waitingCharacters = 0;
    this.#send(text);
  }
}
