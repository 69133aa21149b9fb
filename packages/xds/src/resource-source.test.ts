import test from "ava";
import { contentVersion, MutableResourceSource } from "./resource-source.ts";

const body = (text: string): Uint8Array => Buffer.from(text);

test("listeners hear only names whose bytes or aliases really changed", (t) => {
  const source = new MutableResourceSource("t");
  const heard: string[][] = [];
  const subscription = source.subscribe((names) => heard.push([...names].toSorted()));
  source.update({
    set: [
      { name: "a", body: body("1") },
      { name: "b", body: body("1") },
    ],
  });
  source.update({ set: [{ name: "a", body: body("1") }] });
  source.update({
    set: [
      { name: "a", body: body("2") },
      { name: "b", body: body("1") },
    ],
    delete: ["absent"],
  });
  source.update({ set: [{ name: "b", body: body("1"), aliases: ["x"] }] });
  source.update({ delete: ["a"], set: [{ name: "a", body: body("2") }] });
  subscription[Symbol.dispose]();
  source.update({ delete: ["a"] });
  t.deepEqual(heard, [["a", "b"], ["a"], ["b"]]);
  t.is(source.size, 1);
});

test("the version is the content's, the same in every process", (t) => {
  const source = new MutableResourceSource("t");
  source.update({ set: [{ name: "a", body: body("hello") }] });
  t.is(source.get("a")?.version, "2cf24dba5fb0a30e");
  t.is(contentVersion(body("hello")), "2cf24dba5fb0a30e");
});

test("an alias leads to whoever claimed it last and disappears with him", (t) => {
  const source = new MutableResourceSource("t");
  source.update({ set: [{ name: "old", body: body("1"), aliases: ["/10.0.0.1"] }] });
  source.update({ set: [{ name: "new", body: body("2"), aliases: ["/10.0.0.1"] }] });
  t.is(source.get("/10.0.0.1")?.name, "new");
  source.update({ delete: ["old"] });
  t.is(source.get("/10.0.0.1")?.name, "new");
  source.update({ delete: ["new"] });
  t.is(source.get("/10.0.0.1"), undefined);
});

test("a name goes before an alias", (t) => {
  const source = new MutableResourceSource("t");
  source.update({
    set: [
      { name: "a", body: body("1") },
      { name: "b", body: body("2"), aliases: ["a"] },
    ],
  });
  t.is(source.get("a")?.name, "a");
});
