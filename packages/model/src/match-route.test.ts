import test from "ava";
import { normalizePath } from "./http-path.ts";
import { compareRoutes, hasPathPrefix, routeOf } from "./match-route.ts";
import { compilePattern } from "./pattern.ts";
import { aHead, aRoute, aTable } from "./sample-request.ts";

const named = (table: ReturnType<typeof aTable>, ...request: Parameters<typeof aHead>): string | undefined => routeOf(table, aHead(...request))?.name;

test("a prefix matches by path elements, and its last slash means nothing", (t) => {
  for (const prefix of ["/foo", "/foo/"]) {
    t.deepEqual(
      ["/foo", "/foo/", "/foo/bar", "/foobar", "/fo", "/"].map((path) => hasPathPrefix(path, prefix)),
      [true, true, true, false, false, false],
    );
  }
  t.true(hasPathPrefix("/anything", "/"));
});

test("the first route that matches is taken, and the query is no part of the path", (t) => {
  const table = aTable(aRoute("exact", { path: { kind: "exact", value: "/a" } }), aRoute("rest"));
  t.is(named(table, "/a?x=1"), "exact");
  t.is(named(table, "/a/b"), "rest");
});

test("path, method, headers and query must all match", (t) => {
  const route = aRoute("narrow", {
    method: "POST",
    headers: [{ name: "x-tenant", value: { kind: "exact", value: "blue" }, invert: false }],
    query: [{ name: "q", value: { kind: "regex", pattern: compilePattern("[a-z]+") } }],
  });
  const table = aTable(route);
  const whole = { method: "POST", headers: { "x-tenant": "blue" } };
  t.is(named(table, "/?q=abc", whole), "narrow");
  t.is(named(table, "/?q=ab1", whole), undefined);
  t.is(named(table, "/?q=abc&q=1", whole), "narrow");
  t.is(named(table, "/?q=%61bc", whole), "narrow");
  t.is(named(table, "/?q=abc", { ...whole, method: "GET" }), undefined);
  t.is(named(table, "/?q=abc", { method: "POST", headers: { "x-tenant": ["red", "blue"] } }), undefined);
});

test("an inverted header match holds without the header", (t) => {
  const table = aTable(aRoute("no-debug", { headers: [{ name: "x-debug", value: { kind: "present" }, invert: true }] }));
  t.is(named(table, "/"), "no-debug");
  t.is(named(table, "/", { headers: { "x-debug": "" } }), undefined);
});

test("a gRPC route takes requests of that content type alone", (t) => {
  const table = aTable(aRoute("grpc", { grpc: true }));
  t.is(named(table, "/s/m", { headers: { "content-type": "application/grpc+proto" } }), "grpc");
  t.is(named(table, "/s/m", { headers: { "content-type": "application/grpc-web" } }), undefined);
});

test("virtual hosts are chosen exact before suffix before prefix before any, without regard to case", (t) => {
  const host = (...domains: string[]) => ({ name: domains[0] ?? "", domains, routes: [aRoute(domains[0] ?? "")] });
  const table = { name: "t", virtualHosts: [host("*"), host("api.*"), host("*.shop"), host("*.eu.shop"), host("api.shop")] };
  const at = (authority: string) => routeOf(table, aHead("/", { authority }))?.name;
  t.deepEqual(["API.shop", "web.shop", "web.eu.shop", "api.other", "else"].map(at), ["api.shop", "*.shop", "*.eu.shop", "api.*", "*"]);
});

test("routes are ordered by exactness, length, method, headers and query", (t) => {
  const exact = aRoute("exact", { path: { kind: "exact", value: "/a" } });
  const long = aRoute("long", { path: { kind: "path-prefix", value: "/a/b" } });
  const withMethod = aRoute("method", { path: { kind: "path-prefix", value: "/a" }, method: "GET" });
  const withHeader = aRoute("header", { path: { kind: "path-prefix", value: "/a" }, headers: [{ name: "x", value: { kind: "present" }, invert: false }] });
  const withQuery = aRoute("query", { path: { kind: "path-prefix", value: "/a" }, query: [{ name: "x", value: { kind: "present" } }] });
  const plain = aRoute("plain", { path: { kind: "path-prefix", value: "/a" } });
  const regex = aRoute("regex", { path: { kind: "regex", pattern: compilePattern("/a/b/c/d/e.*") } });
  const sorted = [regex, plain, withQuery, withHeader, withMethod, long, exact].sort((a, b) => compareRoutes(a.match, b.match));
  t.deepEqual(
    sorted.map(({ name }) => name),
    ["exact", "long", "method", "header", "query", "plain", "regex"],
  );
});

test("paths are normalised once: unreserved escapes, dot segments and backslashes", (t) => {
  const base = (path: string) => normalizePath(path);
  t.deepEqual(base("/%61dmin"), { path: "/admin" });
  t.deepEqual(base("/./admin"), { path: "/admin" });
  t.deepEqual(base("/a/../admin?x=/../y"), { path: "/admin?x=/../y" });
  t.deepEqual(base("/a/%2e%2E/admin"), { path: "/admin" });
  t.deepEqual(base("/..\\admin"), { path: "/admin" });
  t.deepEqual(base("/a/.."), { path: "/" });
  t.deepEqual(base("/a/."), { path: "/a/" });
  t.deepEqual(base("//admin"), { path: "//admin" });
  t.deepEqual(base("/admin%2fx"), { path: "/admin%2fx" });
  t.deepEqual(base("/%C3%A9%20"), { path: "/%C3%A9%20" });
  t.deepEqual(base("*"), { path: "*" });
  t.deepEqual(normalizePath("//a///b/../c", "merge-slashes"), { path: "/a/c" });
  t.deepEqual(normalizePath("/a%2f%2Fb%5cc", "decode-and-merge-slashes"), { path: "/a/b/c" });
  t.deepEqual(normalizePath("/a/../%61", "none"), { path: "/a/../%61" });
});

test("paths that have no one meaning are refused", (t) => {
  for (const path of ["admin", "", "/a#b", "/a?b#c", "/%", "/%4", "/%zz", "/a%00b", "/a b", "/a\u0000", "http://x/"]) {
    t.true("refused" in normalizePath(path), JSON.stringify(path));
  }
});

test("patterns are RE2, match the whole text, and what is none is refused", (t) => {
  t.true(compilePattern("/v[0-9]+").matches("/v12"));
  t.false(compilePattern("/v[0-9]+").matches("/v12/x"));
  t.is(compilePattern("^/a/(.*)$").replaceAll("/a/b$c", "/x/\\1"), "/x/b$c");
  t.throws(() => compilePattern("(a"), { message: /not a regular expression/ });
  t.throws(() => compilePattern("(?=a)"), { message: /not a regular expression/ });
  t.throws(() => compilePattern("a".repeat(2000)), { message: /at most 1024/ });
});
