/** The dynamic table of an HPACK decoder (RFC 7541 2.3.2 and section 4): newest entry first, oldest evicted to stay within its size. */
import type { HeaderField } from "./static-table.ts";

/** What an entry costs besides its bytes (RFC 7541 4.1). */
const entryOverhead = 32;

export function fieldSize([name, value]: HeaderField): number {
  return name.length + value.length + entryOverhead;
}

export class DynamicTable {
  /** Oldest first from `#first` on; the dead front is cut off now and then. */
  #entries: HeaderField[] = [];
  #first = 0;
  #size = 0;
  #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get length(): number {
    return this.#entries.length - this.#first;
  }

  get size(): number {
    return this.#size;
  }

  /** 0 is the newest entry. */
  get(index: number): HeaderField | undefined {
    return index < 0 || index >= this.length ? undefined : this.#entries[this.#entries.length - 1 - index];
  }

  add(field: HeaderField): void {
    const size = fieldSize(field);
    this.#evict(this.#capacity - size);
    // An entry larger than the table empties it and is not added (RFC 7541 4.4).
    if (size > this.#capacity) return;
    this.#entries.push(field);
    this.#size += size;
  }

  resize(capacity: number): void {
    this.#capacity = capacity;
    this.#evict(capacity);
  }

  #evict(most: number): void {
    while (this.#size > most && this.length > 0) {
      const oldest = this.#entries[this.#first];
      this.#first += 1;
      if (oldest !== undefined) this.#size -= fieldSize(oldest);
    }
    if (this.#first * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first);
      this.#first = 0;
    }
  }
}
