/** A persistent index from a name to the many values under it: endpoints of a service, workloads of a node, policies of a namespace. */
import { hashText, type Keyed, PersistentMap } from "./persistent-map.ts";

interface Group<M extends string, V extends object> {
  readonly name: string;
  readonly members: PersistentMap<M, V>;
}

const byGroupName: Keyed<string, Group<string, object>> = {
  keyOf: ({ name }) => name,
  hash: hashText,
  isKey: ({ name }, key) => name === key,
};

/** `M` is the key of a value within its group. */
export class GroupIndex<M extends string, V extends object> {
  readonly #groups: PersistentMap<string, Group<M, V>>;
  readonly #none: PersistentMap<M, V>;

  private constructor(groups: PersistentMap<string, Group<M, V>>, none: PersistentMap<M, V>) {
    this.#groups = groups;
    this.#none = none;
  }

  static empty<M extends string, V extends object>(members: Keyed<M, V>): GroupIndex<M, V> {
    return new GroupIndex(PersistentMap.empty(byGroupName as Keyed<string, Group<M, V>>), PersistentMap.empty(members));
  }

  /** The same object as long as the group does not change. */
  members(name: string): PersistentMap<M, V> {
    return this.#groups.get(name)?.members ?? this.#none;
  }

  /** Each group that `batch` touches is rebuilt once; one that becomes empty is forgotten. */
  apply(batch: GroupBatch<M, V>): GroupIndex<M, V> {
    const groups = this.#groups.edit((editor) => {
      for (const [name, changes] of batch.changes) {
        const members = this.members(name).edit((group) => {
          for (const [key, value] of changes) {
            if (value === undefined) group.delete(key);
            else group.set(value);
          }
        });
        if (members.size === 0) editor.delete(name);
        else editor.set({ name, members });
      }
    });
    return groups === this.#groups ? this : new GroupIndex(groups, this.#none);
  }
}

/** Changes to several groups, the last one for a member wins; undefined removes it. */
export class GroupBatch<M extends string, V extends object> {
  readonly changes: Map<string, Map<M, V | undefined>> = new Map();

  set(group: string, key: M, value: V | undefined): void {
    const changes = this.changes.get(group) ?? new Map<M, V | undefined>();
    if (changes.size === 0) this.changes.set(group, changes);
    changes.set(key, value);
  }
}
