/** Header fields of an HTTP message: ordered, repeatable, names in lower case. One flat list, because a proxy reads few and copies all. */

export class HeaderFields {
  /** Name, value, name, value, … */
  #flat: string[];

  /** Takes the list over; the names must be in lower case already. */
  constructor(flat: string[] = []) {
    this.#flat = flat;
  }

  static of(fields: Readonly<Record<string, string | readonly string[]>>): HeaderFields {
    const headers = new HeaderFields();
    for (const [name, values] of Object.entries(fields)) {
      for (const value of typeof values === "string" ? [values] : values) headers.append(name.toLowerCase(), value);
    }
    return headers;
  }

  /** Name, value, name, value, …; not to be changed. */
  get flat(): readonly string[] {
    return this.#flat;
  }

  /** Number of fields. */
  get size(): number {
    return this.#flat.length / 2;
  }

  /** The first value. */
  get(name: string): string | undefined {
    const at = this.#indexOf(name, 0);
    return at < 0 ? undefined : this.#flat[at + 1];
  }

  getAll(name: string): readonly string[] {
    const values: string[] = [];
    for (let at = this.#indexOf(name, 0); at >= 0; at = this.#indexOf(name, at + 2)) values.push(this.#flat[at + 1] ?? "");
    return values;
  }

  has(name: string): boolean {
    return this.#indexOf(name, 0) >= 0;
  }

  append(name: string, value: string): void {
    this.#flat.push(name, value);
  }

  /** Replaces every field of that name; the first keeps its place. */
  set(name: string, value: string): void {
    const at = this.#indexOf(name, 0);
    if (at < 0) {
      this.append(name, value);
      return;
    }
    this.#flat[at + 1] = value;
    if (this.#indexOf(name, at + 2) >= 0) this.#flat = this.#flat.filter((_, index, all) => index <= at + 1 || all[index & ~1] !== name);
  }

  delete(name: string): void {
    if (this.has(name)) this.#flat = this.#flat.filter((_, index, all) => all[index & ~1] !== name);
  }

  *[Symbol.iterator](): Generator<readonly [name: string, value: string]> {
    for (let at = 0; at < this.#flat.length; at += 2) yield [this.#flat[at] ?? "", this.#flat[at + 1] ?? ""];
  }

  clone(): HeaderFields {
    return new HeaderFields([...this.#flat]);
  }

  #indexOf(name: string, from: number): number {
    for (let at = from; at < this.#flat.length; at += 2) if (this.#flat[at] === name) return at;
    return -1;
  }
}
