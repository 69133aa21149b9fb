/**
 * An immutable map whose successors share what did not change: a hash trie of 32-way branches that hold their values directly, and up to
 * sixteen values that agree in their first bits as a plain list. Values know their own key (`Keyed`), so an entry costs one slot and its share
 * of a list, and a change copies the path to it and nothing else.
 */

/** How a map finds the key in a value, and compares keys. The functions must be pure, and equal keys must hash equally. */
export interface Keyed<K, V> {
  keyOf(value: V): K;
  /** Any 32-bit number. */
  hash(key: K): number;
  /** Whether this is the key of the value. */
  isKey(value: V, key: K): boolean;
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
/** A list costs a third of a branch, and is searched from its start. */
const longestList = 16;
/** Half of it, so that a value which comes and goes does not make and unmake a branch. */
const mergedList = 8;

/** Two or more values, in the order in which branches would hold them; more than `longestList` only where hashes are equal in all bits. */
type List<V> = readonly V[];
/** A value of a map is never an array. */
type Slot<V> = V | Branch<V> | List<V>;
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

export class PersistentMap<K, V extends object> implements Iterable<V> {
  readonly size: number;
  readonly #keyed: Keyed<K, V>;
  /** Undefined when the map is empty. */
  readonly #root: Slot<V> | undefined;

  private constructor(keyed: Keyed<K, V>, root: Slot<V> | undefined, size: number) {
    this.#keyed = keyed;
    this.#root = root;
    this.size = size;
  }

  static empty<K, V extends object>(keyed: Keyed<K, V>): PersistentMap<K, V> {
    return new PersistentMap(keyed, undefined, 0);
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

class Edit<K, V extends object> implements MapEditor<K, V> {
  root: Slot<V> | undefined;
  size: number;
  readonly #keyed: Keyed<K, V>;
  readonly #owner: Owner = {};

  constructor(keyed: Keyed<K, V>, root: Slot<V> | undefined, size: number) {
    this.#keyed = keyed;
    this.root = root;
    this.size = size;
  }

  get(key: K): V | undefined {
    return find(this.#keyed, this.root, key);
  }

  set(value: V): void {
    const key = this.#keyed.keyOf(value);
    if (this.root !== undefined) this.root = this.#put(this.root, 0, this.#keyed.hash(key), key, value);
    else {
      this.size++;
      this.root = value;
    }
  }

  delete(key: K): void {
    if (this.root !== undefined) this.root = this.#remove(this.root, 0, this.#keyed.hash(key), key);
  }

  #put(slot: Slot<V>, shift: number, hash: number, key: K, value: V): Slot<V> {
    if (!(slot instanceof Branch)) return this.#putIntoList(isList(slot) ? slot : [slot], slot, shift, hash, key, value);
    const bit = bitOf(hash, shift);
    const position = countBits(slot.bitmap & (bit - 1));
    if ((slot.bitmap & bit) === 0) {
      this.size++;
      return this.#withSlots(slot, slot.bitmap | bit, inserted(slot.slots, position, value));
    }
    return this.#withSlot(slot, position, this.#put(slot.slots[position] as Slot<V>, shift + bitsPerLevel, hash, key, value));
  }

  /** `slot` is what holds the values, a list or a lone one. */
  #putIntoList(values: List<V>, slot: Slot<V>, shift: number, hash: number, key: K, value: V): Slot<V> {
    const at = values.findIndex((other) => this.#keyed.isKey(other, key));
    if (at >= 0) {
      if (values[at] === value) return slot;
      return values.length === 1 ? value : values.with(at, value);
    }
    this.size++;
    let position = 0;
    while (position < values.length && !comesBefore(hash, this.#hashOf(values[position] as V), shift)) position++;
    const grown = inserted(values, position, value);
    return grown.length > longestList && shift < hashBits ? this.#split(grown, shift) : grown;
  }

  /** A branch over the values of a list, which are in its order already. */
  #split(values: List<V>, shift: number): Branch<V> {
    let bitmap = 0;
    const slots: Slot<V>[] = [];
    for (let from = 0; from < values.length; ) {
      const bit = bitOf(this.#hashOf(values[from] as V), shift);
      let to = from + 1;
      while (to < values.length && bitOf(this.#hashOf(values[to] as V), shift) === bit) to++;
      bitmap |= bit;
      slots.push(this.#slotOf(values.slice(from, to), shift + bitsPerLevel));
      from = to;
    }
    return new Branch(bitmap, slots.slice(), this.#owner);
  }

  #slotOf(values: List<V>, shift: number): Slot<V> {
    if (values.length === 1) return values[0] as V;
    return values.length > longestList && shift < hashBits ? this.#split(values, shift) : values;
  }

  /** What is left of a slot: itself when the key is not in it, a list or a lone value when a branch around them is no longer needed. */
  #remove(slot: Slot<V>, shift: number, hash: number, key: K): Slot<V> | undefined {
    if (!(slot instanceof Branch)) return this.#removeFromList(slot, key);
    const bit = bitOf(hash, shift);
    if ((slot.bitmap & bit) === 0) return slot;
    const position = countBits(slot.bitmap & (bit - 1));
    const inner = slot.slots[position] as Slot<V>;
    const kept = this.#remove(inner, shift + bitsPerLevel, hash, key);
    if (kept === inner) return slot;
    if (kept === undefined) return merged(this.#withSlots(slot, slot.bitmap & ~bit, without(slot.slots, position)));
    return merged(this.#withSlot(slot, position, kept));
  }

  #removeFromList(slot: V | List<V>, key: K): V | List<V> | undefined {
    const values = isList(slot) ? slot : [slot];
    const at = values.findIndex((value) => this.#keyed.isKey(value, key));
    if (at < 0) return slot;
    this.size--;
    if (values.length === 1) return undefined;
    const rest = without(values, at);
    return rest.length === 1 ? rest[0] : rest;
  }

  #hashOf(value: V): number {
    return this.#keyed.hash(this.#keyed.keyOf(value));
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

function find<K, V extends object>(keyed: Keyed<K, V>, root: Slot<V> | undefined, key: K): V | undefined {
  if (root === undefined) return undefined;
  let slot = root;
  if (slot instanceof Branch) {
    const hash = keyed.hash(key);
    for (let shift = 0; slot instanceof Branch; shift += bitsPerLevel) {
      const bit = bitOf(hash, shift);
      if ((slot.bitmap & bit) === 0) return undefined;
      slot = slot.slots[countBits(slot.bitmap & (bit - 1))] as Slot<V>;
    }
  }
  if (!isList(slot)) return keyed.isKey(slot, key) ? slot : undefined;
  for (const value of slot) if (keyed.isKey(value, key)) return value;
  return undefined;
}

function* walk<V extends object>(slot: Slot<V> | undefined): IterableIterator<V> {
  if (slot === undefined) return;
  if (slot instanceof Branch) for (const inner of slot.slots) yield* walk(inner);
  else if (isList(slot)) yield* slot;
  else yield slot;
}

function isList<V>(slot: V | List<V>): slot is List<V> {
  return Array.isArray(slot);
}

/** A branch that holds no other and few values is a list again; one that holds nothing is nothing. */
function merged<V extends object>(branch: Branch<V>): Slot<V> | undefined {
  if (branch.slots.length > mergedList) return branch;
  const values: V[] = [];
  for (const slot of branch.slots) {
    if (slot instanceof Branch) return branch;
    if (isList(slot)) values.push(...slot);
    else values.push(slot);
    if (values.length > mergedList) return branch;
  }
  return values.length > 1 ? values.slice() : values[0];
}

/** Whether branches from `shift` on would hold the one hash before the other. */
function comesBefore(hash: number, other: number, shift: number): boolean {
  for (let at = shift; at < hashBits; at += bitsPerLevel) {
    const [one, two] = [(hash >>> at) & slotMask, (other >>> at) & slotMask];
    if (one !== two) return one < two;
  }
  return false;
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
