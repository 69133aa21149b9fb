/** A process is ready when nothing blocks it any more; what still blocks it has a name. */

export class Readiness {
  readonly #blockers = new Map<symbol, string>();

  /** Not ready until disposed. */
  block(name: string): Disposable {
    const key = Symbol(name);
    this.#blockers.set(key, name);
    return { [Symbol.dispose]: () => void this.#blockers.delete(key) };
  }

  /** Names of what is still awaited, oldest first; empty means ready. */
  get pending(): readonly string[] {
    return [...this.#blockers.values()];
  }
}
