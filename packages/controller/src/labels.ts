/** Label keys of the ambient API, and selectors over labels. */
import type { LabelSelector, ObjectMeta } from "@fairway/kube";

export const label = {
  canonicalName: "service.istio.io/canonical-name",
  canonicalRevision: "service.istio.io/canonical-revision",
  dataplaneMode: "istio.io/dataplane-mode",
  gatewayClassName: "gateway.networking.k8s.io/gateway-class-name",
  gatewayManaged: "gateway.istio.io/managed",
  gatewayName: "gateway.networking.k8s.io/gateway-name",
  ingressUseWaypoint: "istio.io/ingress-use-waypoint",
  network: "topology.istio.io/network",
  region: "topology.kubernetes.io/region",
  revision: "istio.io/rev",
  serviceName: "kubernetes.io/service-name",
  subzone: "topology.istio.io/subzone",
  tunnel: "networking.istio.io/tunnel",
  useWaypoint: "istio.io/use-waypoint",
  useWaypointNamespace: "istio.io/use-waypoint-namespace",
  waypointFor: "istio.io/waypoint-for",
  workloadName: "service.istio.io/workload-name",
  zone: "topology.kubernetes.io/zone",
} as const;

export const annotation = {
  /** Ours: the reference has no guard to switch off. */
  allowWaypointBypass: "fairway.dev/allow-waypoint-bypass",
  controllerVersion: "gateway.istio.io/controller-version",
  dryRun: "istio.io/dry-run",
  forServiceAccount: "istio.io/for-service-account",
  gatewayServiceAccount: "gateway.istio.io/service-account",
  inboundBinding: "ambient.istio.io/waypoint-inbound-binding",
  nameOverride: "gateway.istio.io/name-override",
  redirection: "ambient.istio.io/redirection",
  serviceType: "networking.istio.io/service-type",
  sidecarStatus: "sidecar.istio.io/status",
  trafficDistribution: "networking.istio.io/traffic-distribution",
} as const;

export type Labels = Readonly<Record<string, string>>;

export const noLabels: Labels = {};

/** Every wanted label is there with that value; nothing wanted matches everything. */
export function matchesLabels(wanted: Labels, labels: Labels): boolean {
  return Object.entries(wanted).every(([key, value]) => labels[key] === value);
}

/** A Kubernetes label selector. An operator that we do not know matches nothing. */
export function matchesSelector(selector: LabelSelector, labels: Labels): boolean {
  return (
    matchesLabels(selector.matchLabels ?? noLabels, labels) &&
    (selector.matchExpressions ?? []).every(({ key, operator, values = [] }) => {
      const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
      switch (operator) {
        case "In":
          return value !== undefined && values.includes(value);
        case "NotIn":
          return value === undefined || !values.includes(value);
        case "Exists":
          return value !== undefined;
        case "DoesNotExist":
          return value === undefined;
        default:
          return false;
      }
    })
  );
}

/** Whether this control plane owns the object: no revision label, or ours (controller contract 1.2). */
export function isOurRevision({ labels = {} }: ObjectMeta, revision: string): boolean {
  const wanted = labels[label.revision];
  return wanted === undefined || wanted === "" || wanted === revision;
}

/** Oldest first; the name settles equal ages, so that every replica decides the same. */
export function byAge(a: { metadata: ObjectMeta }, b: { metadata: ObjectMeta }): number {
  const created = (a.metadata.creationTimestamp ?? "").localeCompare(b.metadata.creationTimestamp ?? "");
  return created !== 0 ? created : a.metadata.name.localeCompare(b.metadata.name);
}
