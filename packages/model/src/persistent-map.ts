/**
 * An immutable map whose successors share what did not change: a hash trie of 32-way branches that hold their values directly.
 * Values know their own key (`Keyed.keyOf`), so an entry costs one slot, and a change copies the path to it and nothing else.
 */

/** How a map finds the key in a value, and compares keys. The functions must be pure, and equal keys must hash equally. */
export interface Keyed<K, V> {
  keyOf(value: V): K;
  /** Any 32-bit number. */
  hash(key: K): number;
  same(a: K, b: K): boolean;
}

/** Changes one map in place of many; only lives inside `PersistentMap.edit`. */
export interface MapEditor<K, V> {
  get(key: K): V | undefined;
  set(value: V): void;
  delete(key: K): void;
}

const bitsPerLevel = 5;
const slotMask = 31;
const hashBits = 32;

type Slot<V> = V | Branch<V> | Collision<V>;
/** Marks the branches that one edit made and may still change. */
type Owner = object;

class Branch<V> {
  bitmap: number;
  /** One per set bit, lowest bit first; always exactly as long as needed, since arrays that grew keep spare room. */
  slots: Slot<V>[];
  readonly owner: Owner;

  constructor(bitmap: number, slots: Slot<V>[], owner: Owner) {
    this.bitmap = bitmap;
    this.slots = slots;
    this.owner = owner;
  }
}

/** Two or more values whose hashes are equal in all bits. */
class Collision<V> {
  readonly values: readonly V[];

  constructor(values: readonly V[]) {
    this.values = values;
  }
}

export class PersistentMap<K, V> implements Iterable<V> {
  readonly size: number;
  readonly #keyed: Keyed<K, V>;
  readonly #root: Branch<V>;

  private constructor(keyed: Keyed<K, V>, root: Branch<V>, size: number) {
    this.#keyed = keyed;
    this.#root = root;
    this.size = size;
  }

  static empty<K, V>(keyed: Keyed<K, V>): PersistentMap<K, V> {
    return new PersistentMap(keyed, new Branch<V>(0, [], keyed), 0);
  }

  get(key: K): V | undefined {
    return find(this.#keyed, this.#root, key);
  }

  /** In an order that depends on the keys only. */
  [Symbol.iterator](): IterableIterator<V> {
    return walk(this.#root);
  }

  /** The map after `change`; this one stays as it is. Returns this map when nothing changed. */
  edit(change: (editor: MapEditor<K, V>) => void): PersistentMap<K, V> {
    const editor = new Edit(this.#keyed, this.#root, this.size);
    change(editor);
    return editor.root === this.#root ? this : new PersistentMap(this.#keyed, editor.root, editor.size);
  }
}

class Edit<K, V> implements MapEditor<K, V> {
  root: Branch<V>;
  size: number;
  readonly #keyed: Keyed<K, V>;
  readonly #owner: Owner = {};

  constructor(keyed: Keyed<K, V>, root: Branch<V>, size: number) {
    this.#keyed = keyed;
    this.root = root;
    this.size = size;
  }

  get(key: K): V | undefined {
    return find(this.#keyed, this.root, key);
  }

  set(value: V): void {
    const key = this.#keyed.keyOf(value);
    this.root = this.#put(this.root, 0, this.#keyed.hash(key), key, value);
  }

  delete(key: K): void {
    const kept = this.#remove(this.root, 0, this.#keyed.hash(key), key);
    this.root = kept instanceof Branch ? kept : new Branch<V>(0, [], this.#owner);
  }

  #put(branch: Branch<V>, shift: number, hash: number, key: K, value: V): Branch<V> {
    const bit = bitOf(hash, shift);
    const position = countBits(branch.bitmap & (bit - 1));
    if ((branch.bitmap & bit) === 0) {
      this.size++;
      return this.#withSlots(branch, branch.bitmap | bit, inserted(branch.slots, position, value));
    }
    const slot = branch.slots[position] as Slot<V>;
    if (slot === value) return branch;
    return this.#withSlot(branch, position, this.#putIntoSlot(slot, shift + bitsPerLevel, hash, key, value));
  }

  #putIntoSlot(slot: Slot<V>, shift: number, hash: number, key: K, value: V): Slot<V> {
    if (slot instanceof Branch) return this.#put(slot, shift, hash, key, value);
    if (slot instanceof Collision) {
      const others = slot.values.filter((other) => !this.#keyed.same(this.#keyed.keyOf(other), key));
      if (others.length === slot.values.length) this.size++;
      return new Collision([...others, value]);
    }
    const present = this.#keyed.keyOf(slot);
    if (this.#keyed.same(present, key)) return value;
    this.size++;
    return this.#pair(shift, this.#keyed.hash(present), slot, hash, value);
  }

  /** Two values that met in one slot, apart as soon as their hashes differ. */
  #pair(shift: number, hashA: number, a: V, hashB: number, b: V): Slot<V> {
    if (shift >= hashBits) return new Collision([a, b]);
    const bitA = bitOf(hashA, shift);
    const bitB = bitOf(hashB, shift);
    if (bitA === bitB) return new Branch<V>(bitA, [this.#pair(shift + bitsPerLevel, hashA, a, hashB, b)], this.#owner);
    return new Branch<V>(bitA | bitB, bitA >>> 0 < bitB >>> 0 ? [a, b] : [b, a], this.#owner);
  }

  /** What is left of a branch: itself when the key is not in it, a lone value when a branch around it is no longer needed. */
  #remove(branch: Branch<V>, shift: number, hash: number, key: K): Slot<V> | undefined {
    const bit = bitOf(hash, shift);
    if ((branch.bitmap & bit) === 0) return branch;
    const position = countBits(branch.bitmap & (bit - 1));
    const slot = branch.slots[position] as Slot<V>;
    const kept = this.#removeFromSlot(slot, shift + bitsPerLevel, hash, key);
    if (kept === slot) return branch;
    if (kept !== undefined) {
      if (branch.slots.length === 1 && shift > 0 && !(kept instanceof Branch)) return kept;
      return this.#withSlot(branch, position, kept);
    }
    if (branch.slots.length === 1) return undefined;
    const rest = without(branch.slots, position);
    const only = rest.length === 1 ? rest[0] : undefined;
    if (shift > 0 && only !== undefined && !(only instanceof Branch)) return only;
    return this.#withSlots(branch, branch.bitmap & ~bit, rest);
  }

  #removeFromSlot(slot: Slot<V>, shift: number, hash: number, key: K): Slot<V> | undefined {
    if (slot instanceof Branch) return this.#remove(slot, shift, hash, key);
    if (slot instanceof Collision) {
      const rest = slot.values.filter((value) => !this.#keyed.same(this.#keyed.keyOf(value), key));
      if (rest.length === slot.values.length) return slot;
      this.size--;
      return rest.length === 1 ? rest[0] : new Collision(rest);
    }
    if (!this.#keyed.same(this.#keyed.keyOf(slot), key)) return slot;
    this.size--;
    return undefined;
  }

  #withSlot(branch: Branch<V>, position: number, slot: Slot<V>): Branch<V> {
    if (branch.slots[position] === slot) return branch;
    const own = branch.owner === this.#owner ? branch : new Branch(branch.bitmap, branch.slots.slice(), this.#owner);
    own.slots[position] = slot;
    return own;
  }

  #withSlots(branch: Branch<V>, bitmap: number, slots: Slot<V>[]): Branch<V> {
    if (branch.owner !== this.#owner) return new Branch(bitmap, slots, this.#owner);
    branch.bitmap = bitmap;
    branch.slots = slots;
    return branch;
  }
}

/** FNV-1a with a final mix, so that names which differ in one digit spread over all branches. */
export function hashText(text: string, seed = 0x811c9dc5): number {
  let hash = seed;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return hash ^ (hash >>> 13);
}

function find<K, V>(keyed: Keyed<K, V>, root: Branch<V>, key: K): V | undefined {
  const hash = keyed.hash(key);
  let branch = root;
  for (let shift = 0; ; shift += bitsPerLevel) {
    const bit = bitOf(hash, shift);
    if ((branch.bitmap & bit) === 0) return undefined;
    const slot = branch.slots[countBits(branch.bitmap & (bit - 1))] as Slot<V>;
    if (slot instanceof Branch) branch = slot;
    else if (slot instanceof Collision) return slot.values.find((value) => keyed.same(keyed.keyOf(value), key));
    else return keyed.same(keyed.keyOf(slot), key) ? slot : undefined;
  }
}

function* walk<V>(branch: Branch<V>): IterableIterator<V> {
  for (const slot of branch.slots) {
    if (slot instanceof Branch) yield* walk(slot);
    else if (slot instanceof Collision) yield* slot.values;
    else yield slot;
  }
}

function bitOf(hash: number, shift: number): number {
  return 1 << ((hash >>> shift) & slotMask);
}

function countBits(bits: number): number {
  let count = bits - ((bits >>> 1) & 0x55555555);
  count = (count & 0x33333333) + ((count >>> 2) & 0x33333333);
  return Math.imul((count + (count >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

function inserted<T>(items: readonly T[], position: number, item: T): T[] {
  const result = new Array<T>(items.length + 1);
  for (let index = 0; index < position; index++) result[index] = items[index] as T;
  result[position] = item;
  for (let index = position; index < items.length; index++) result[index + 1] = items[index] as T;
  return result;
}

function without<T>(items: readonly T[], position: number): T[] {
  const result = new Array<T>(items.length - 1);
  for (let index = 0; index < position; index++) result[index] = items[index] as T;
  for (let index = position + 1; index < items.length; index++) result[index - 1] = items[index] as T;
  return result;
}
