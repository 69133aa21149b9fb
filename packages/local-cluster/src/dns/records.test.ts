import test from "ava";
import { decode, encode, type Packet, streamDecode } from "dns-packet";
import type { EndpointSlice, Service } from "../resources.ts";
import { replyTo } from "./message.ts";
import { answerQuestion, type DnsSources } from "./records.ts";

const service = (name: string, spec: NonNullable<Service["spec"]>): Service => ({ metadata: { name, namespace: "shop" }, spec });
const all: Service[] = [
  service("web", { clusterIPs: ["10.96.1.0", "fd00:10:96::100"], ports: [{ name: "http", port: 80 }] }),
  service("db", { clusterIP: "None", clusterIPs: ["None"], ports: [{ name: "sql", port: 5432 }] }),
  service("empty", { clusterIP: "None", clusterIPs: ["None"] }),
  service("outside", { type: "ExternalName", externalName: "example.com" }),
];
const slices: EndpointSlice[] = [
  {
    metadata: { name: "db-0", namespace: "shop" },
    addressType: "IPv4",
    ports: [{ name: "sql", port: 5432, protocol: "TCP" }],
    endpoints: [{ addresses: ["10.244.1.7"], hostname: "db-0" }, { addresses: ["10.244.2.7"] }, { addresses: ["10.244.2.8"], conditions: { ready: false } }],
  },
];
const sources: DnsSources = {
  domain: "cluster.local",
  service: (namespace, name) => (namespace === "shop" ? all.find(({ metadata }) => metadata.name === name) : undefined),
  slices: (_namespace, name) => (name === "db" ? slices : []),
  hasNamespace: (namespace) => namespace === "shop",
};
const ask = (name: string, type = "A"): unknown => {
  const answer = answerQuestion({ name, type }, sources);
  return answer.kind === "found" ? answer.answers.map(({ data }) => data) : answer.kind;
};

test("a service's name gives its addresses, by family", (t) => {
  t.deepEqual(ask("web.shop.svc.cluster.local"), ["10.96.1.0"]);
  t.deepEqual(ask("WEB.shop.svc.cluster.local.", "AAAA"), ["fd00:10:96::100"]);
  t.is(ask("web.shop.svc.cluster.local", "MX"), "no-data");
  t.deepEqual(ask("outside.shop.svc.cluster.local"), ["example.com"]);
});

test("a headless service gives its ready pods, and each pod its own name", (t) => {
  t.deepEqual(ask("db.shop.svc.cluster.local"), ["10.244.1.7", "10.244.2.7"]);
  t.deepEqual(ask("db-0.db.shop.svc.cluster.local"), ["10.244.1.7"]);
  t.deepEqual(ask("10-244-2-7.db.shop.svc.cluster.local"), ["10.244.2.7"]);
  t.is(ask("db-0.db.shop.svc.cluster.local", "AAAA"), "no-data");
  t.is(ask("db-9.db.shop.svc.cluster.local"), "no-name");
  t.is(ask("db-0.web.shop.svc.cluster.local"), "no-name");
  t.is(ask("empty.shop.svc.cluster.local"), "no-name");
});

test("ports are found by name and protocol", (t) => {
  t.deepEqual(ask("_http._tcp.web.shop.svc.cluster.local", "SRV"), [{ priority: 0, weight: 100, port: 80, target: "web.shop.svc.cluster.local" }]);
  t.deepEqual(
    (ask("_sql._tcp.db.shop.svc.cluster.local", "SRV") as { target: string }[]).map(({ target }) => target),
    ["db-0.db.shop.svc.cluster.local", "10-244-2-7.db.shop.svc.cluster.local"],
  );
  t.is(ask("_http._udp.web.shop.svc.cluster.local", "SRV"), "no-name");
});

test("names that only lie on the way exist without data, unknown ones do not exist, and others are not ours", (t) => {
  for (const name of ["cluster.local", "svc.cluster.local", "shop.svc.cluster.local", "pod.cluster.local"]) t.is(ask(name), "no-data", name);
  for (const name of ["x.cluster.local", "none.svc.cluster.local", "none.shop.svc.cluster.local", "a.b.web.shop.svc.cluster.local"])
    t.is(ask(name), "no-name", name);
  for (const name of ["example.com", "cluster.locale", "xcluster.local", ""]) t.is(ask(name), "foreign", name);
  t.deepEqual(ask("10-1-2-3.shop.pod.cluster.local"), ["10.1.2.3"]);
});

const query = (name: string, extra: Partial<Packet> = {}): Buffer => encode({ type: "query", id: 7, flags: 256, questions: [{ type: "A", name }], ...extra });
const answered = (bytes: Uint8Array | undefined): ReturnType<typeof decode> => decode(Buffer.from(bytes ?? []));

test("replies carry the query's id, say whether a name exists, and let negative answers be remembered", (t) => {
  const found = answered(replyTo(query("web.shop.svc.cluster.local"), "udp", sources)?.bytes);
  t.like(found, { id: 7, type: "response", rcode: "NOERROR", flag_aa: true });
  const none = answered(replyTo(query("none.shop.svc.cluster.local"), "udp", sources)?.bytes);
  t.like(none, { rcode: "NXDOMAIN" });
  t.is(none.authorities?.[0]?.type, "SOA");
  const foreign = replyTo(query("example.com"), "udp", sources);
  t.true(foreign?.foreign);
  t.like(answered(foreign?.bytes), { rcode: "REFUSED" });
  t.is(streamDecode(Buffer.from(replyTo(query("web.shop.svc.cluster.local"), "tcp", sources)?.bytes ?? [])).id, 7);
});

test("an answer that does not fit a datagram is cut and says so", (t) => {
  const endpoints = Array.from({ length: 60 }, (_, index) => ({ addresses: [`10.244.1.${index + 2}`] }));
  const many: DnsSources = { ...sources, slices: () => [{ metadata: { name: "x" }, addressType: "IPv4", endpoints }] };
  const cut = answered(replyTo(query("db.shop.svc.cluster.local"), "udp", many)?.bytes);
  t.like(cut, { flag_tc: true, rcode: "NOERROR" });
  t.is(cut.answers?.length, 0);
  const tcp = streamDecode(Buffer.from(replyTo(query("db.shop.svc.cluster.local"), "tcp", many)?.bytes ?? []));
  t.is(tcp.answers?.length, 60);
});

test("bytes that are not a query get no answer and do no harm", (t) => {
  t.is(replyTo(Buffer.alloc(0), "udp", sources), undefined);
  t.is(replyTo(encode({ type: "response", id: 1, questions: [] }), "udp", sources), undefined);
  t.like(answered(replyTo(encode({ type: "query", id: 1, questions: [] }), "udp", sources)?.bytes), { rcode: "FORMERR" });
  const whole = query("web.shop.svc.cluster.local");
  for (let length = 0; length < whole.length; length += 1) t.notThrows(() => replyTo(whole.subarray(0, length), "udp", sources));
  for (let index = 0; index < whole.length; index += 1) {
    const broken = Buffer.from(whole);
    broken[index] = 0xff;
    t.notThrows(() => replyTo(broken, "udp", sources));
  }
});
