/**
 * The standard labels of the mesh's metrics (waypoint contract row 69): who asked, who answered, and for which service. A source is only
 * somebody when a certificate says so; what a client says of itself (baggage) fills in what the mesh does not know of it.
 */
import { type Baggage, parseBaggage } from "@fairway/hbone";
import { identityOf, type NetworkId, type Snapshot, type Workload, type WorkloadUid, workloadIdentity } from "@fairway/model";
import type { Downstream } from "./exchange.ts";

export type Labels = Readonly<Record<string, string>>;

const unknown = "unknown";

const endNames = (side: "source" | "destination"): readonly string[] => [
  `${side}_workload`,
  `${side}_canonical_service`,
  `${side}_canonical_revision`,
  `${side}_workload_namespace`,
  `${side}_principal`,
  `${side}_app`,
  `${side}_version`,
  `${side}_cluster`,
];

/** Of every metric of the mesh. */
export const commonLabelNames: readonly string[] = [
  "reporter",
  ...endNames("source"),
  ...endNames("destination"),
  "destination_service",
  "destination_service_name",
  "destination_service_namespace",
  "request_protocol",
  "response_flags",
  "connection_security_policy",
];
export const requestLabelNames: readonly string[] = [...commonLabelNames, "response_code", "grpc_response_status"];

/** What a request or a connection was about, as far as it became known. */
export interface TrafficFacts {
  readonly downstream: Downstream;
  /** Uid of the workload that answered. */
  readonly workload: string | undefined;
  /** The service behind the cluster that was used; the target's own otherwise. */
  readonly service: { readonly namespace: string; readonly hostname: string } | undefined;
}

/** Labels of both ends, remembered as long as what they were made of. */
export class TrafficLabels {
  readonly #snapshot: () => Snapshot;
  readonly #network: NetworkId;
  /** A tunnel stream has one source; its requests share the labels. */
  readonly #sources = new WeakMap<Downstream, Labels>();
  readonly #destinations = new WeakMap<Workload, Labels>();
  readonly #nobody: Labels = endLabels("destination", undefined, undefined, undefined);

  constructor(snapshot: () => Snapshot, network: NetworkId) {
    this.#snapshot = snapshot;
    this.#network = network;
  }

  source(downstream: Downstream): Labels {
    const known = this.#sources.get(downstream);
    if (known !== undefined) return known;
    const workload = this.workloadOf(downstream);
    const labels = endLabels("source", workload, workload === undefined ? baggageOf(downstream) : undefined, downstream.identity);
    this.#sources.set(downstream, labels);
    return labels;
  }

  destination(uid: string | undefined): Labels {
    const workload = uid === undefined || uid === "" ? undefined : this.#snapshot().workload(uid as WorkloadUid);
    if (workload === undefined) return this.#nobody;
    const known = this.#destinations.get(workload);
    if (known !== undefined) return known;
    const labels = endLabels("destination", workload, undefined, workloadIdentity(workload));
    this.#destinations.set(workload, labels);
    return labels;
  }

  /** By address, when its certificate is of the one who lives there. */
  workloadOf({ source, identity }: Downstream): Workload | undefined {
    const known = this.#snapshot().workloadByAddress(this.#network, source.ip);
    return known !== undefined && workloadIdentity(known) === identity ? known : undefined;
  }

  service({ downstream, service }: TrafficFacts): Labels {
    const { target } = downstream;
    const named = service !== undefined && service.hostname !== "" ? service : target.kind === "service" ? target : undefined;
    return {
      destination_service: orUnknown(named?.hostname),
      destination_service_name: orUnknown(named?.hostname.split(".", 1)[0]),
      destination_service_namespace: orUnknown(named?.namespace),
    };
  }
}

function baggageOf({ baggage }: Downstream): Baggage {
  return parseBaggage(baggage);
}

function endLabels(side: "source" | "destination", workload: Workload | undefined, baggage: Baggage | undefined, principal: Downstream["identity"]): Labels {
  return {
    [`${side}_workload`]: orUnknown(workload?.workloadName ?? baggage?.workloadName),
    [`${side}_canonical_service`]: orUnknown(workload?.canonicalName ?? baggage?.serviceName),
    [`${side}_canonical_revision`]: orUnknown(workload?.canonicalRevision ?? baggage?.serviceVersion),
    // The certificate knows the namespace even of those whom the mesh does not.
    [`${side}_workload_namespace`]: orUnknown(workload?.namespace ?? (principal === undefined ? baggage?.namespace : identityOf(principal).namespace)),
    [`${side}_principal`]: orUnknown(principal),
    [`${side}_app`]: orUnknown(workload?.canonicalName ?? baggage?.serviceName),
    [`${side}_version`]: orUnknown(workload?.canonicalRevision ?? baggage?.serviceVersion),
    [`${side}_cluster`]: orUnknown(workload?.clusterId ?? baggage?.clusterName),
  };
}

function orUnknown(text: string | undefined): string {
  return text === undefined || text === "" ? unknown : text;
}
