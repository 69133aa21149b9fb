/**
 * One copy of what thousands of resources repeat: the namespace, the node, the port mappings of a deployment. A decoder would make them
 * anew for each; with the pool a workload costs less than half. It is a cache and has no other effect: any value may be missing from it.
 */

/** Forgets everything when full, and fills again; values in use stay alive through their users. */
export class Pool<T> {
  readonly #limit: number;
  readonly #values: Map<string, T> = new Map();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The value made for an equal `key` before, else a new one. Values made for equal keys must be equal and never change. */
  share(key: string, make: (key: string) => T): T {
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    if (this.#values.size >= this.#limit) this.#values.clear();
    const value = make(key);
    this.#values.set(key, value);
    return value;
  }

  get size(): number {
    return this.#values.size;
  }
}
