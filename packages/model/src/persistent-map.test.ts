import test from "ava";
import fc from "fast-check";
import { hashText, type Keyed, PersistentMap } from "./persistent-map.ts";

interface Entry {
  readonly key: string;
  readonly value: number;
}

const wellHashed: Keyed<string, Entry> = { keyOf: ({ key }) => key, hash: hashText, isKey: (entry, key) => entry.key === key };
/** Four hashes for all keys: every entry collides in all bits. */
const badlyHashed: Keyed<string, Entry> = { ...wellHashed, hash: (key) => (key.length & 3) * 0x40000001 };
/** Hashes that agree in all but the last bits, so that tries grow deep. */
const deeplyHashed: Keyed<string, Entry> = { ...wellHashed, hash: (key) => hashText(key) & 0xc0000000 };

const step = fc.record({ key: fc.string({ maxLength: 3 }), value: fc.option(fc.nat(), { nil: undefined }) });
const batches = fc.array(fc.array(step, { maxLength: 20 }), { maxLength: 20 });

for (const [name, keyed] of Object.entries({ wellHashed, badlyHashed, deeplyHashed })) {
  test(`a persistent map behaves as a Map does, and its past versions stay as they were (${name})`, (t) => {
    fc.assert(
      fc.property(batches, (changes) => {
        let map = PersistentMap.empty(keyed);
        const reference = new Map<string, number>();
        const versions: { map: PersistentMap<string, Entry>; expected: string }[] = [];
        for (const batch of changes) {
          map = map.edit((editor) => {
            for (const { key, value } of batch) {
              if (value === undefined) {
                editor.delete(key);
                reference.delete(key);
              } else {
                editor.set({ key, value });
                reference.set(key, value);
              }
              if (editor.get(key)?.value !== value) throw new Error("an editor does not see its own change");
            }
          });
          versions.push({ map, expected: textOf([...reference].map(([key, value]) => ({ key, value }))) });
          if (map.size !== reference.size) throw new Error(`size ${map.size}, not ${reference.size}`);
          for (const [key, value] of reference) if (map.get(key)?.value !== value) throw new Error(`lost ${key}`);
        }
        for (const version of versions) if (textOf([...version.map]) !== version.expected) throw new Error("a past version changed");
      }),
      { numRuns: 200 },
    );
    t.pass();
  });

  test(`the order of a map depends on its keys and not on how it came to be (${name})`, (t) => {
    const keys = Array.from({ length: 300 }, (_, index) => `key-${index}`);
    const grown = fill(PersistentMap.empty(keyed), keys);
    const shrunk = fill(PersistentMap.empty(keyed), [...keys, ...keys.map((key) => `${key}-gone`)].reverse()).edit((editor) => {
      for (const key of keys) editor.delete(`${key}-gone`);
    });
    t.is(shrunk.size, 300);
    if (keyed === wellHashed)
      t.deepEqual(
        [...shrunk].map(({ key }) => key),
        [...grown].map(({ key }) => key),
      );
    else t.is(textOf([...shrunk]), textOf([...grown]));
  });
}

test("the order stays what it was while a map grows from a list to branches and shrinks back", (t) => {
  const keys = Array.from({ length: 200 }, (_, index) => `key-${index}`);
  const order = [...fill(PersistentMap.empty(wellHashed), keys)].map(({ key }) => key);
  let map = PersistentMap.empty(wellHashed);
  const check = (expected: ReadonlySet<string>): void => {
    const [actual, wanted] = [[...map].map(({ key }) => key), order.filter((key) => expected.has(key))];
    t.deepEqual(actual, wanted);
  };
  const present = new Set<string>();
  for (const key of keys) {
    map = map.edit((editor) => editor.set({ key, value: 0 }));
    check(present.add(key));
  }
  for (const key of keys) {
    map = map.edit((editor) => editor.delete(key));
    present.delete(key);
    check(present);
  }
  t.is(map.size, 0);
});

test("an edit that changes nothing returns the same map", (t) => {
  const entry = { key: "a", value: 1 };
  const map = PersistentMap.empty(wellHashed).edit((editor) => editor.set(entry));
  t.is(
    map.edit((editor) => {
      editor.set(entry);
      editor.delete("never there");
    }),
    map,
  );
});

test("one change to a hundred thousand entries looks at a handful of them", (t) => {
  let looks = 0;
  const counting: Keyed<string, Entry> = {
    ...wellHashed,
    keyOf: ({ key }) => {
      looks++;
      return key;
    },
    isKey: (entry, key) => {
      looks++;
      return entry.key === key;
    },
  };
  const map = fill(
    PersistentMap.empty(counting),
    Array.from({ length: 100_000 }, (_, index) => `cluster1//Pod/namespace/pod-${index}`),
  );
  looks = 0;
  map.edit((editor) => {
    editor.set({ key: "cluster1//Pod/namespace/new", value: 0 });
    editor.delete("cluster1//Pod/namespace/pod-77");
  });
  t.true(looks < 40, `${looks} looks`);
});

function fill(map: PersistentMap<string, Entry>, keys: readonly string[]): PersistentMap<string, Entry> {
  return map.edit((editor) => {
    for (const key of keys) editor.set({ key, value: key.length });
  });
}

function textOf(entries: readonly Entry[]): string {
  return entries
    .map(({ key, value }) => JSON.stringify([key, value]))
    .sort()
    .join();
}
