/** The label set of the TCP metrics, in the order of ztunnel contract 9.1. Missing values are the word "unknown". */
import type { ConnectionRecord, End } from "./connection-record.ts";

export type TrafficLabels = Readonly<Record<string, string>>;

/** Names in their order; the four of the locality group come last and only together. */
export const trafficLabelNames: readonly string[] = [
  "reporter",
  ...endNames("source"),
  "destination_service",
  "destination_service_namespace",
  "destination_service_name",
  ...endNames("destination"),
  "request_protocol",
  "response_flags",
  "connection_security_policy",
  "source_region",
  "source_zone",
  "destination_region",
  "destination_zone",
];

const unknown = "unknown";

/** Every label of `record` but the flag, which is "-" until a connection fails. */
export function trafficLabels(record: ConnectionRecord): TrafficLabels {
  const { from, to, service, mutualTls } = record;
  return {
    reporter: record.direction === "inbound" ? "destination" : "source",
    // A source is only somebody when a certificate says so; a destination is also who the mesh says it is.
    ...endLabels("source", from, mutualTls ? from.identity : undefined),
    destination_service: orUnknown(service?.hostname),
    destination_service_namespace: orUnknown(service?.namespace),
    destination_service_name: orUnknown(service?.name),
    ...endLabels("destination", to, to.identity),
    request_protocol: "tcp",
    response_flags: "-",
    connection_security_policy: mutualTls ? "mutual_tls" : unknown,
    ...localityLabels(from, to),
  };
}

/** Names and values of what is said of a source alone. */
export const sourceLabelNames: readonly string[] = endNames("source");

export function sourceLabels(source: End): TrafficLabels {
  return endLabels("source", source, source.identity);
}

function endNames(side: "source" | "destination"): readonly string[] {
  return [
    `${side}_workload`,
    `${side}_canonical_service`,
    `${side}_canonical_revision`,
    `${side}_workload_namespace`,
    `${side}_principal`,
    `${side}_app`,
    `${side}_version`,
    `${side}_cluster`,
  ];
}

function endLabels(side: "source" | "destination", { workload, baggage }: End, principal: string | undefined): TrafficLabels {
  return {
    [`${side}_workload`]: orUnknown(workload?.workloadName ?? baggage?.workloadName),
    [`${side}_canonical_service`]: orUnknown(workload?.canonicalName ?? baggage?.serviceName),
    [`${side}_canonical_revision`]: orUnknown(workload?.canonicalRevision ?? baggage?.serviceVersion),
    [`${side}_workload_namespace`]: orUnknown(workload?.namespace ?? baggage?.namespace),
    [`${side}_principal`]: orUnknown(principal),
    [`${side}_app`]: orUnknown(workload?.canonicalName ?? baggage?.workloadName),
    [`${side}_version`]: orUnknown(workload?.canonicalRevision ?? baggage?.serviceVersion),
    [`${side}_cluster`]: orUnknown(workload?.clusterId ?? baggage?.clusterName),
  };
}

function localityLabels(from: End, to: End): TrafficLabels {
  const [source, destination] = [localityOf(from), localityOf(to)];
  if (source === undefined && destination === undefined) return {};
  return {
    source_region: orUnknown(source?.region),
    source_zone: orUnknown(source?.zone),
    destination_region: orUnknown(destination?.region),
    destination_zone: orUnknown(destination?.zone),
  };
}

function localityOf({ workload, baggage }: End): { region: string | undefined; zone: string | undefined } | undefined {
  if (workload?.locality !== undefined) return workload.locality;
  if (baggage?.region === undefined && baggage?.zone === undefined) return undefined;
  return { region: baggage.region, zone: baggage.zone };
}

function orUnknown(text: string | undefined): string {
  return text === undefined || text === "" ? unknown : text;
}
