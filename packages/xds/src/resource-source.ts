/** A resource source that is filled by setting and deleting; the controller keeps one per type. */
import { createHash } from "node:crypto";
import type { ResourceSource, ServedResource } from "./mesh-source.ts";

/** A resource before it has a version. */
export interface ResourceContent {
  readonly name: string;
  /** Serialised message, without the Any envelope. */
  readonly body: Uint8Array;
  readonly aliases?: readonly string[];
}

const versionLength = 16;

/** Equal bytes have equal versions, in this process and the next (controller contract 6.4). */
export function contentVersion(body: Uint8Array): string {
  return createHash("sha256").update(body).digest("hex").slice(0, versionLength);
}

export class MutableResourceSource implements ResourceSource {
  readonly typeUrl: string;
  readonly #resources = new Map<string, ServedResource>();
  /** Alias to the name of whoever claimed it last. */
  readonly #names = new Map<string, string>();
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
    const owner = this.#names.get(name);
    return owner === undefined ? undefined : this.#resources.get(owner);
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
    for (const { name, body, aliases = [] } of batch.set ?? []) {
      touch(name);
      this.#drop(name);
      this.#resources.set(name, { name, version: contentVersion(body), body, aliases });
      for (const alias of aliases) this.#names.set(alias, name);
    }
    const changed = new Set<string>();
    for (const [name, old] of before) if (!sameResource(old, this.#resources.get(name))) changed.add(name);
    if (changed.size > 0) for (const listener of [...this.#listeners]) listener(changed);
    return changed;
  }

  #drop(name: string): void {
    for (const alias of this.#resources.get(name)?.aliases ?? []) if (this.#names.get(alias) === name) this.#names.delete(alias);
    this.#resources.delete(name);
  }
}

function sameResource(a: ServedResource | undefined, b: ServedResource | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.version === b.version && a.aliases.length === b.aliases.length && a.aliases.every((alias, index) => alias === b.aliases[index]);
}
