import test from "ava";
import { changedHeaders, redirectLocation, rewritten } from "./change-request.ts";
import { HeaderFields } from "./header-fields.ts";
import type { PathChange, PathMatch, Redirect } from "./http-route.ts";
import { compilePattern } from "./pattern.ts";
import { aHead, aRoute } from "./sample-request.ts";

const toPath = (target: string, prefix: string, change: PathChange): string =>
  rewritten(aHead(target), aRoute("r", { path: { kind: "path-prefix", value: prefix } }, { rewrite: { authority: undefined, path: change } })).path;

test("headers are set, added and removed in this order, and repeated fields keep their places", (t) => {
  const headers = HeaderFields.of({ a: ["1", "2"], b: "3", c: "4" });
  const changed = changedHeaders(headers, { set: [{ name: "A", value: "9" }], add: [{ name: "b", value: "5" }], remove: ["C", "missing"] });
  t.deepEqual(
    [...changed],
    [
      ["a", "9"],
      ["b", "3"],
      ["b", "5"],
    ],
  );
  t.deepEqual(headers.getAll("a"), ["1", "2"]);
  t.is(changedHeaders(headers, { set: [], add: [], remove: [] }), headers);
});

test("a prefix is replaced without doubling or losing slashes, and the query stays", (t) => {
  t.is(toPath("/foo/bar?q", "/foo", { kind: "prefix", value: "/xyz" }), "/xyz/bar?q");
  t.is(toPath("/foo/bar", "/foo/", { kind: "prefix", value: "/xyz/" }), "/xyz/bar");
  t.is(toPath("/foo", "/foo", { kind: "prefix", value: "/" }), "/");
  t.is(toPath("/foo/", "/foo", { kind: "prefix", value: "" }), "/");
  t.is(toPath("/foo/bar", "/foo", { kind: "prefix", value: "/" }), "/bar");
  t.is(toPath("/bar", "/", { kind: "prefix", value: "/x" }), "/x/bar");
  t.is(toPath("/foo?q=1", "/", { kind: "full", value: "/all" }), "/all?q=1");
  t.is(toPath("/v1/x", "/", { kind: "regex", pattern: compilePattern("^/v(\\d)"), substitution: "/w\\1" }), "/w1/x");
});

test("an authority is rewritten and nothing else", (t) => {
  const head = aHead("/a");
  const route = aRoute("r", {}, { rewrite: { authority: "other.example", path: undefined } });
  t.like(rewritten(head, route), { authority: "other.example", path: "/a" });
  t.is(rewritten(head, aRoute("plain")), head);
});

test("a redirect keeps what it does not name, and leaves out the port of its scheme", (t) => {
  const none: Redirect = { scheme: undefined, hostname: undefined, port: undefined, path: undefined, status: 302 };
  const prefix: PathMatch = { kind: "path-prefix", value: "/old" };
  const at = (redirect: Partial<Redirect>, authority = "shop:8080"): string =>
    redirectLocation(aHead("/old/x?q=1", { authority }), aRoute("r", { path: prefix }), { ...none, ...redirect });
  t.is(at({ hostname: "new.example" }), "http://new.example:8080/old/x?q=1");
  t.is(at({ scheme: "https" }), "https://shop/old/x?q=1");
  t.is(at({ scheme: "https", port: 8443 }), "https://shop:8443/old/x?q=1");
  t.is(at({ port: 80 }), "http://shop/old/x?q=1");
  t.is(at({ path: { kind: "prefix", value: "/new" } }, "shop"), "http://shop/new/x?q=1");
  t.is(at({}, "[::1]:9"), "http://[::1]:9/old/x?q=1");
});
