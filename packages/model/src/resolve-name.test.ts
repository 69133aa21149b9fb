import test, { type ExecutionContext } from "ava";
import { networkId, parseIp } from "./address.ts";
import { kubernetesSearchDomains, type NameAnswer, type NameContext, resolveName } from "./resolve-name.ts";
import { aMesh, aService, aWorkload } from "./sample-mesh.ts";
import type { Service } from "./service.ts";
import type { SnapshotChange } from "./snapshot.ts";

const domain = "cluster.local";

/** A service of Kubernetes: its hostname has the namespace and the cluster's domain. */
function kubernetes(name: string, namespace: string, fields: Parameters<typeof aService>[1] = {}): Service {
  return aService(name, { namespace, hostname: `${name}.${namespace}.svc.${domain}`, canonical: true, ...fields });
}

function contextOf(change: SnapshotChange, more: Partial<NameContext> = {}): NameContext {
  const clientNamespace = more.clientNamespace ?? "shop";
  return {
    snapshot: aMesh(change),
    clientNamespace,
    network: networkId(""),
    clusterDomain: domain,
    searchDomains: kubernetesSearchDomains(clientNamespace, domain),
    preferredNamespace: undefined,
    ...more,
  };
}

function ask(context: NameContext, name: string, family: "ipv4" | "ipv6" = "ipv4"): NameAnswer {
  return resolveName({ name, family }, context);
}

function is(t: ExecutionContext, answer: NameAnswer, addresses: readonly string[], canonicalName?: string): void {
  t.deepEqual(answer, { kind: "addresses", addresses: addresses.map(parseIp), canonicalName });
}

const api = kubernetes("api", "shop", { ip: ["10.0.0.1", "fd00::1"] });
const billing = kubernetes("billing", "money", { ip: ["10.0.0.2"] });

for (const name of ["api", "api.shop", "api.shop.svc", "api.shop.svc.cluster.local"]) {
  test(`a service of the own namespace is found as ${name}`, (t) => {
    const context = contextOf({ services: [api, billing] });
    is(t, ask(context, name), ["10.0.0.1"]);
    is(t, ask(context, name, "ipv6"), ["fd00::1"]);
  });
}

for (const name of ["billing.money", "billing.money.svc", "billing.money.svc.cluster.local"]) {
  test(`a service of another namespace is found as ${name}`, (t) => is(t, ask(contextOf({ services: [api, billing] }), name), ["10.0.0.2"]));
}

test("the bare name of a service of another namespace is foreign", (t) => {
  t.deepEqual(ask(contextOf({ services: [billing] }), "billing"), { kind: "foreign" });
});

test("a name to which the client's resolver appended a search domain leads to what was meant, behind an alias", (t) => {
  const external = aService("example", { namespace: "shop", hostname: "www.example.com", ip: ["240.0.0.1"] });
  const context = contextOf({ services: [api, billing, external] });
  is(t, ask(context, "www.example.com.shop.svc.cluster.local"), ["240.0.0.1"], "www.example.com");
  is(t, ask(context, "www.example.com.svc.cluster.local"), ["240.0.0.1"], "www.example.com");
  is(t, ask(context, "www.example.com.cluster.local"), ["240.0.0.1"], "www.example.com");
  is(t, ask(context, "billing.money.shop.svc.cluster.local"), ["10.0.0.2"], "billing.money");
  t.deepEqual(ask(context, "www.example.com.other.svc.cluster.local"), { kind: "foreign" }, "another namespace's search domain is not ours");
});

test("a family that a service does not have is no data, and not foreign", (t) => {
  const context = contextOf({ services: [billing, kubernetes("only4", "shop", { ip: ["10.0.0.3", "fd00::3"], ipFamilies: "ipv4" })] });
  t.deepEqual(ask(context, "billing.money", "ipv6"), { kind: "no-data" });
  t.deepEqual(ask(context, "only4", "ipv6"), { kind: "no-data" });
  is(t, ask(context, "only4"), ["10.0.0.3"]);
});

test("addresses on another network are no data", (t) => {
  const far = kubernetes("far", "shop", { vips: [{ network: networkId("west"), ip: parseIp("10.0.0.9") }] });
  t.deepEqual(ask(contextOf({ services: [far] }), "far"), { kind: "no-data" });
  is(t, ask(contextOf({ services: [far] }, { network: networkId("west") }), "far"), ["10.0.0.9"]);
});

test("a wildcard answers under the name that was asked, the most specific one first", (t) => {
  const wide = aService("wide", { namespace: "shop", hostname: "*.example.com", ip: ["240.0.0.1"] });
  const narrow = aService("narrow", { namespace: "shop", hostname: "*.eu.example.com", ip: ["240.0.0.2"] });
  const exact = aService("exact", { namespace: "shop", hostname: "www.eu.example.com", ip: ["240.0.0.3"] });
  const context = contextOf({ services: [wide, narrow, exact] });
  is(t, ask(context, "a.b.example.com"), ["240.0.0.1"]);
  is(t, ask(context, "shop.eu.example.com"), ["240.0.0.2"]);
  is(t, ask(context, "www.eu.example.com"), ["240.0.0.3"]);
  is(t, ask(context, "shop.eu.example.com.shop.svc.cluster.local"), ["240.0.0.2"]);
  t.deepEqual(ask(context, "example.com"), { kind: "foreign" }, "a wildcard is not its own parent");
});

test("a lone last label is not widened", (t) => {
  const everything = aService("everything", { namespace: "shop", hostname: "*", ip: ["240.0.0.1"] });
  t.deepEqual(ask(contextOf({ services: [everything] }), "example.com"), { kind: "foreign" });
});

test("the root is foreign whatever patterns there are", (t) => {
  const pattern = aService("pattern", { namespace: "shop", hostname: `*.shop.svc.${domain}`, ip: ["240.0.0.1"] });
  t.deepEqual(ask(contextOf({ services: [pattern] }), ""), { kind: "foreign" });
});

test("a headless service is its healthy endpoints, one address of the family each", (t) => {
  const headless = kubernetes("db", "shop");
  const of = { [`shop/${headless.hostname}`]: { 80: 80 } };
  const workloads = [
    aWorkload("a", { ips: ["10.1.0.1", "10.1.0.2", "fd01::1"], of }),
    aWorkload("b", { ips: ["10.1.0.3"], of }),
    aWorkload("c", { ips: ["10.1.0.4"], of, status: "unhealthy" }),
  ];
  const context = contextOf({ services: [headless], workloads });
  const answer = ask(context, "db");
  t.deepEqual(answer.kind === "addresses" && [...answer.addresses].sort(), ["10.1.0.1", "10.1.0.3"]);
  is(t, ask(context, "db", "ipv6"), ["fd01::1"]);
  const all = { ...headless, loadBalancing: { ...headless.loadBalancing, healthPolicy: "allow-all" as const } };
  const published = ask(contextOf({ services: [all], workloads }), "db");
  t.is(published.kind === "addresses" && published.addresses.length, 3);
});

test("a headless service without endpoints is no data", (t) => {
  t.deepEqual(ask(contextOf({ services: [kubernetes("db", "shop")] }), "db"), { kind: "no-data" });
});

test("any other service without addresses of its own is foreign: a resolver knows it", (t) => {
  const entry = aService("entry", { namespace: "shop", hostname: "www.example.com", ranges: ["240.0.0.0/8"] });
  t.deepEqual(ask(contextOf({ services: [entry] }), "www.example.com"), { kind: "foreign" });
});

test("one without addresses does not hide one with addresses under the same hostname", (t) => {
  const [bare, full] = [[], ["240.0.0.1"]].map((ip, index) => aService("x", { namespace: index === 0 ? "shop" : "money", hostname: "www.example.com", ip }));
  if (bare === undefined || full === undefined) return t.fail();
  is(t, ask(contextOf({ services: [bare, full] }), "www.example.com"), ["240.0.0.1"]);
});

test("of several under one hostname the client's namespace wins, then canonical, then the preferred namespace, then the first by name", (t) => {
  const at = (namespace: string, ip: string, canonical = false): Service => aService("x", { namespace, hostname: "www.example.com", ip: [ip], canonical });
  const all = [at("zoo", "240.0.0.1"), at("attic", "240.0.0.2"), at("kept", "240.0.0.3"), at("first", "240.0.0.4", true), at("shop", "240.0.0.5")];
  const preferring = { preferredNamespace: "kept" };
  for (const services of [all, all.toReversed()]) {
    is(t, ask(contextOf({ services }, preferring), "www.example.com"), ["240.0.0.5"]);
    is(t, ask(contextOf({ services: services.filter(({ namespace }) => namespace !== "shop") }, preferring), "www.example.com"), ["240.0.0.4"]);
    const plain = services.filter(({ namespace }) => namespace !== "shop" && namespace !== "first");
    is(t, ask(contextOf({ services: plain }, preferring), "www.example.com"), ["240.0.0.3"]);
    is(t, ask(contextOf({ services: plain }), "www.example.com"), ["240.0.0.2"]);
  }
});

test("a service that only its own namespace may see is foreign to others", (t) => {
  const hidden = kubernetes("secret", "money", { ip: ["10.0.0.8"], visibility: "namespace" });
  t.deepEqual(ask(contextOf({ services: [hidden] }), "secret.money"), { kind: "foreign" });
  is(t, ask(contextOf({ services: [hidden] }, { clientNamespace: "money" }), "secret"), ["10.0.0.8"]);
});

test("a workload with a hostname and addresses answers in its namespace, one with only a hostname is a resolver's", (t) => {
  const machine = aWorkload("vm", { namespace: "shop", ips: ["10.5.0.1"], hostname: "vm.example.com" });
  const named = aWorkload("named", { namespace: "shop", hostname: "db.example.com" });
  const context = contextOf({ workloads: [machine, named] });
  is(t, ask(context, "vm.example.com"), ["10.5.0.1"]);
  t.deepEqual(ask(context, "vm.example.com", "ipv6"), { kind: "no-data" });
  t.deepEqual(ask(context, "db.example.com"), { kind: "foreign" });
  t.deepEqual(ask(contextOf({ workloads: [machine] }, { clientNamespace: "money" }), "vm.example.com"), { kind: "foreign" });
});

test("a workload with the very name comes before a wildcard over it", (t) => {
  const wide = aService("wide", { namespace: "shop", hostname: "*.example.com", ip: ["240.0.0.1"] });
  const machine = aWorkload("vm", { namespace: "shop", ips: ["10.5.0.1"], hostname: "vm.example.com" });
  is(t, ask(contextOf({ services: [wide], workloads: [machine] }), "vm.example.com"), ["10.5.0.1"]);
});

test("a name of a pod under its service is foreign", (t) => {
  t.deepEqual(ask(contextOf({ services: [api] }), "web-0.api.shop.svc.cluster.local"), { kind: "foreign" });
});

test("the search domains of a client are those that it was given, and no others", (t) => {
  const context = contextOf({ services: [api] }, { searchDomains: ["corp.example"] });
  is(t, ask(context, "api.shop.corp.example"), ["10.0.0.1"], "api.shop");
  t.deepEqual(ask(context, "api.shop.shop.svc.cluster.local"), { kind: "foreign" });
});
