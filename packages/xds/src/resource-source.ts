/** A resource source that is filled by setting and deleting; the controller keeps one per type. */
import { createHash } from "node:crypto";
import { parseAddressName, parseRangeName, type RangeName, rangeHolds } from "./address-names.ts";
import type { ResourceSource, ServedResource } from "./mesh-source.ts";

/** A resource before it has a version. */
export interface ResourceContent {
  readonly name: string;
  /** Serialised message, without the Any envelope. */
  readonly body: Uint8Array;
  readonly aliases?: readonly string[];
  readonly partOf?: readonly string[];
}

const versionLength = 16;

/** Equal bytes have equal versions, in this process and the next (controller contract 6.4). */
export function contentVersion(body: Uint8Array): string {
  return createHash("sha256").update(body).digest("hex").slice(0, versionLength);
}

export class MutableResourceSource implements ResourceSource {
  readonly typeUrl: string;
  readonly #resources = new Map<string, ServedResource>();
  /** Alias to the names of those that claim it, the last one last. */
  readonly #names = new Map<string, Set<string>>();
  /** Name to the names of what belongs to it. */
  readonly #parts = new Map<string, Set<string>>();
  /** Aliases that are ranges; few. */
  readonly #ranges = new Map<string, RangeName>();
  readonly #listeners = new Set<(names: ReadonlySet<string>) => void>();

  constructor(typeUrl: string) {
    this.typeUrl = typeUrl;
  }

  get size(): number {
    return this.#resources.size;
  }

  /** By name, else by alias. */
  get(name: string): ServedResource | undefined {
    const direct = this.#resources.get(name);
    if (direct !== undefined) return direct;
    const owner = [...(this.#names.get(name) ?? [])].at(-1);
    return owner === undefined ? undefined : this.#resources.get(owner);
  }

  matching(name: string): Iterable<ServedResource> {
    const found = new Set<string>([name, ...(this.#names.get(name) ?? [])]);
    const address = this.#ranges.size === 0 ? undefined : parseAddressName(name);
    if (address !== undefined) {
      for (const [alias, range] of this.#ranges) if (rangeHolds(range, address)) for (const owner of this.#names.get(alias) ?? []) found.add(owner);
    }
    for (const owner of [...found]) for (const part of this.#parts.get(owner) ?? []) found.add(part);
    return [...found].flatMap((one) => this.#resources.get(one) ?? []);
  }

  all(): Iterable<ServedResource> {
    return this.#resources.values();
  }

  subscribe(listener: (names: ReadonlySet<string>) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** Applies a batch, deletions first, and returns the names whose bytes or aliases really changed; only those wake the listeners. */
  update(batch: { readonly set?: Iterable<ResourceContent>; readonly delete?: Iterable<string> }): ReadonlySet<string> {
    const before = new Map<string, ServedResource | undefined>();
    const touch = (name: string): void => {
      if (!before.has(name)) before.set(name, this.#resources.get(name));
    };
    for (const name of batch.delete ?? []) {
      touch(name);
      this.#drop(name);
    }
    for (const { name, body, aliases = [], partOf = [] } of batch.set ?? []) {
      touch(name);
      this.#drop(name);
      this.#resources.set(name, { name, version: contentVersion(body), body, aliases, partOf });
      for (const owner of partOf) addTo(this.#parts, owner, name);
      for (const alias of aliases) {
        addTo(this.#names, alias, name);
        const range = parseRangeName(alias);
        if (range !== undefined) this.#ranges.set(alias, range);
      }
    }
    const changed = new Set<string>();
    for (const [name, old] of before) if (!sameResource(old, this.#resources.get(name))) changed.add(name);
    if (changed.size > 0) for (const listener of [...this.#listeners]) listener(changed);
    return changed;
  }

  #drop(name: string): void {
    const { aliases = [], partOf = [] } = this.#resources.get(name) ?? {};
    for (const owner of partOf) removeFrom(this.#parts, owner, name);
    for (const alias of aliases) {
      removeFrom(this.#names, alias, name);
      if (!this.#names.has(alias)) this.#ranges.delete(alias);
    }
    this.#resources.delete(name);
  }
}

function addTo(index: Map<string, Set<string>>, key: string, name: string): void {
  const names = index.get(key) ?? new Set();
  names.add(name);
  index.set(key, names);
}

function removeFrom(index: Map<string, Set<string>>, key: string, name: string): void {
  const names = index.get(key);
  names?.delete(name);
  if (names?.size === 0) index.delete(key);
}

function sameResource(a: ServedResource | undefined, b: ServedResource | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.version === b.version && a.aliases.length === b.aliases.length && a.aliases.every((alias, index) => alias === b.aliases[index]);
}
