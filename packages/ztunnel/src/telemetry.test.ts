import { parseIp, parseSpiffeId, workloadIdentity } from "@fairway/model";
import { createLogger, createRegistry, LogFilter, ManualClock, type MetricRegistry } from "@fairway/runtime";
import test from "ava";
import { AccessLog } from "./access-log.ts";
import { type ConnectionRecord, unknownEnd } from "./connection-record.ts";
import { OnDemandNames } from "./dns-metrics.ts";
import { ztunnelError } from "./failure.ts";
import { createZtunnelMetrics } from "./metrics.ts";
import { ConnectionReport, reportRefused, type Telemetry } from "./telemetry.ts";
import { workload } from "./test-mesh.ts";
import { TrafficMetrics } from "./traffic-metrics.ts";

const client = workload("client", "10.0.0.1", { locality: { region: "eu", zone: "eu-1", subzone: "" } });
const server = workload("server", "10.0.0.2");
const source = { ip: parseIp("10.0.0.1"), port: 40_000 };

function record(more: Partial<ConnectionRecord> = {}): ConnectionRecord {
  return {
    direction: "outbound",
    source,
    destination: "10.0.0.2:15008",
    authority: "10.0.0.2:80",
    from: { workload: client, identity: workloadIdentity(client), baggage: undefined },
    to: { workload: server, identity: workloadIdentity(server), baggage: undefined },
    service: { name: "web", namespace: "default", hostname: "web.default.svc.cluster.local" },
    mutualTls: true,
    ...more,
  };
}

function telemetry(): Telemetry & { lines: string[]; registry: MetricRegistry; clock: ManualClock } {
  const lines: string[] = [];
  const registry = createRegistry();
  const log = createLogger("ztunnel", { write: (line) => void lines.push(line), now: () => new Date(0), filter: new LogFilter("info") });
  return { metrics: createZtunnelMetrics(registry), accessLog: new AccessLog(log), clock: new ManualClock(), lines, registry };
}

test("an outbound line has every field in its order", (t) => {
  const parts = telemetry();
  const report = new ConnectionReport(parts, record(), 0);
  report.bytes(100, 2_000);
  report.close(undefined);
  t.is(
    parts.lines.join(""),
    "1970-01-01T00:00:00.000Z\tinfo\taccess\tconnection complete\t" +
      'src.addr=10.0.0.1:40000 src.workload="client" src.namespace="default" src.identity="spiffe://cluster.local/ns/default/sa/client" src.cluster="Kubernetes" ' +
      'dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:80 dst.service="web.default.svc.cluster.local" dst.workload="server" dst.namespace="default" ' +
      'dst.identity="spiffe://cluster.local/ns/default/sa/server" dst.cluster="Kubernetes" direction="outbound" bytes_sent=100 bytes_recv=2000 duration="0ms"\n',
  );
});

test("an inbound line counts from the server's side, and plaintext shows no identity", (t) => {
  const parts = telemetry();
  const report = new ConnectionReport(parts, record({ direction: "inbound", authority: undefined, mutualTls: false, service: undefined }), 0);
  report.bytes(100, 2_000);
  report.close(undefined);
  const [line = ""] = parts.lines;
  t.regex(line, /direction="inbound" bytes_sent=2000 bytes_recv=100/);
  t.notRegex(line, /identity|hbone_addr|dst\.service/);
});

test("a failure is an error line and counts under its flag; a second close says nothing", async (t) => {
  const parts = telemetry();
  const report = new ConnectionReport(parts, record(), 0);
  report.close(ztunnelError("ZTUNNEL_HBONE_TIMEOUT", "timed out"));
  report.close(undefined);
  t.is(parts.lines.length, 1);
  t.regex(parts.lines[0] ?? "", /\terror\taccess\tconnection complete\t.*error="timed out"\n$/);
  const text = await parts.registry.metrics();
  t.regex(text, /istio_tcp_connections_closed_total\{.*response_flags="NETWORK_POLICY".*\} 1\n/);
  t.regex(text, /istio_tcp_connections_failed_total\{.*response_flags="NETWORK_POLICY".*\} 1\n/);
  t.regex(text, /istio_tcp_connections_opened_total\{.*response_flags="-".*\} 1\n/);
  t.regex(text, /istio_tcp_sockets_open\{reporter="source"\} 0\n/);
});

test("a refusal is a short warning, and counts nowhere", async (t) => {
  const parts = telemetry();
  reportRefused(parts, { source, destination: undefined, direction: "outbound", error: new Error("no\nway") });
  t.is(parts.lines.join(""), '1970-01-01T00:00:00.000Z\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:40000 direction="outbound" error="no\\nway"\n');
  t.notRegex(await parts.registry.metrics(), /^istio_tcp_connections_\w+\{/m);
});

test("labels come in the order of the contract, missing ones as unknown, locality when one side has one", async (t) => {
  const parts = telemetry();
  new ConnectionReport(parts, record({ service: undefined }), 0).bytes(7, 9);
  const line = /istio_tcp_received_bytes_total\{(.*)\} 7/.exec(await parts.registry.metrics())?.[1] ?? "";
  const names = [...line.matchAll(/(\w+)="/g)].map((match) => match[1]);
  t.deepEqual(names, [
    "reporter",
    ...["workload", "canonical_service", "canonical_revision", "workload_namespace", "principal", "app", "version", "cluster"].map((name) => `source_${name}`),
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    ...["workload", "canonical_service", "canonical_revision", "workload_namespace", "principal", "app", "version", "cluster"].map(
      (name) => `destination_${name}`,
    ),
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "source_region",
    "source_zone",
    "destination_region",
    "destination_zone",
  ]);
  t.true(line.includes('destination_service="unknown"') && line.includes('source_region="eu"') && line.includes('destination_zone="unknown"'));
});

test("baggage names what the mesh does not know, and no more", async (t) => {
  const parts = telemetry();
  const from = {
    workload: undefined,
    identity: parseSpiffeId("spiffe://cluster.local/ns/far/sa/x"),
    baggage: { workloadName: "far-app", namespace: "far", serviceName: "far-service" },
  };
  new ConnectionReport(parts, record({ direction: "inbound", from }), 0);
  const text = await parts.registry.metrics();
  t.regex(
    text,
    /source_workload="far-app",source_canonical_service="far-service".*source_principal="spiffe:\/\/cluster\.local\/ns\/far\/sa\/x",source_app="far-app"/,
  );
});

test("label sets are bounded: idle ones make room, and when none is idle the rest share one that says nothing", async (t) => {
  const registry = createRegistry();
  const traffic = new TrafficMetrics(registry, { maxSeries: 2 });
  const of = (name: string): ConnectionRecord => record({ to: { workload: workload(name, "10.0.0.9"), identity: undefined, baggage: undefined } });
  const [one, two] = [traffic.series(of("one")), traffic.series(of("two"))];
  one.open();
  two.open();
  traffic.series(of("three")).open();
  t.regex(await registry.metrics(), /fairway_ztunnel_traffic_series_overflow_total 1\n/);
  one.close("-");
  t.is(traffic.series(of("three")).labels["destination_workload"], "three");
  const text = await registry.metrics();
  t.false(text.includes('destination_workload="one"'));
  t.regex(text, /destination_workload="unknown".*\} 1\n/);
});

test("the same pair is the same series while its workloads are, and follows them when they change", (t) => {
  const traffic = new TrafficMetrics(createRegistry());
  const before = traffic.series(record());
  t.is(traffic.series(record()), before);
  const renamed = record({ to: { workload: { ...server, canonicalRevision: "v2" }, identity: undefined, baggage: undefined } });
  t.not(traffic.series(renamed), before);
  t.is(traffic.series(record({ from: { ...record().from, workload: { ...client } } })), before, "an equal workload has equal labels");
  t.truthy(unknownEnd);
});

test("of the names of workloads the first thousand are counted apart, and all others together", async (t) => {
  const registry = createRegistry();
  const names = new OnDemandNames(registry);
  const from = { workload: undefined, identity: undefined, baggage: undefined };
  for (let index = 0; index < 1_003; index++) names.count(from, `w${index}.example`);
  names.count(from, "w0.example");
  const text = await registry.metrics();
  t.regex(text, /,hostname="w0\.example"\} 2\n/);
  t.regex(text, /,hostname="w999\.example"\} 1\n/);
  t.regex(text, /,hostname="unknown"\} 3\n/);
});
