/** What runs for a Gateway of a waypoint class: a ServiceAccount, a Service and a Deployment (controller contract 3.10). Pure. */
import type { Deployment, GatewayObject, PodSpec, Service, ServiceAccount } from "@fairway/kube";
import type { Labels } from "./labels.ts";
import { annotation, label } from "./labels.ts";
import type { MeshSettings } from "./settings.ts";
import { managedWaypoint, waypointAccount, waypointObjectName } from "./waypoint-classes.ts";

/** What the pods of all waypoints have in common; the chart's values. */
export interface WaypointPodSettings {
  readonly image: string;
  readonly imagePullPolicy: string;
  readonly imagePullSecrets: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly resources: NonNullable<NonNullable<PodSpec["containers"]>[number]["resources"]>;
  readonly labels: Labels;
  readonly annotations: Labels;
  readonly nodeSelector: Labels;
  readonly affinity: NonNullable<PodSpec["affinity"]>;
  readonly tolerations: NonNullable<PodSpec["tolerations"]>;
  readonly topologySpreadConstraints: NonNullable<PodSpec["topologySpreadConstraints"]>;
  readonly terminationGracePeriodSeconds: number;
  /** Where discovery and certificates are served. */
  readonly controlPlane: string;
}

export interface WaypointObjects {
  readonly serviceAccount: ServiceAccount;
  readonly service: Service;
  readonly deployment: Deployment;
}

const ports = { admin: 15_000, traffic: 15_008, metrics: 15_020, readiness: 15_021 } as const;
/** Both are the reference's: nobody else's files belong to them. */
const user = 1337;
/** Not copied from the Gateway: they speak about the Gateway itself. */
const ownAnnotations: ReadonlySet<string> = new Set([
  "kubectl.kubernetes.io/last-applied-configuration",
  annotation.controllerVersion,
  annotation.nameOverride,
  annotation.gatewayServiceAccount,
]);

export function waypointObjects(gateway: GatewayObject, settings: MeshSettings, pod: WaypointPodSettings): WaypointObjects {
  const { metadata, spec } = gateway;
  const { name, namespace = "", annotations = {} } = metadata;
  const infrastructure = infrastructureOf(gateway);
  const labels = {
    ...infrastructure.labels,
    [label.gatewayName]: name,
    [label.gatewayClassName]: spec?.gatewayClassName ?? "",
    [label.gatewayManaged]: managedWaypoint,
    [label.dataplaneMode]: "none",
  };
  const owned = {
    namespace,
    labels,
    annotations: infrastructure.annotations,
    ownerReferences: [{ apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", name, uid: metadata.uid ?? "" }],
  };
  const objectName = waypointObjectName(gateway);
  const accountName = waypointAccount(gateway);
  const selector = { [label.gatewayName]: name };
  return {
    serviceAccount: { metadata: { ...owned, name: accountName } },
    service: {
      metadata: { ...owned, name: objectName, annotations: { [annotation.trafficDistribution]: "PreferClose", ...infrastructure.annotations } },
      spec: {
        type: annotations[annotation.serviceType] ?? "ClusterIP",
        ipFamilyPolicy: "PreferDualStack",
        selector,
        ports: servicePorts(gateway),
      },
    },
    deployment: {
      metadata: { ...owned, name: objectName },
      // Without replicas: they are the user's, or an autoscaler's.
      spec: {
        selector: { matchLabels: selector },
        template: {
          metadata: {
            labels: { ...pod.labels, ...labels, "sidecar.istio.io/inject": "false", [label.canonicalName]: objectName, [label.canonicalRevision]: "latest" },
            annotations: {
              "prometheus.io/scrape": "true",
              "prometheus.io/port": String(ports.metrics),
              "prometheus.io/path": "/stats/prometheus",
              ...pod.annotations,
              ...infrastructure.annotations,
            },
          },
          spec: podSpec({ gateway: name, accountName, settings, pod }),
        },
      },
    },
  };
}

function podSpec({ gateway, accountName, settings, pod }: { gateway: string; accountName: string; settings: MeshSettings; pod: WaypointPodSettings }): PodSpec {
  const field = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } });
  const rootCertificate = "/var/run/secrets/istio/root-cert.pem";
  const env = {
    GATEWAY_NAME: gateway,
    XDS_ADDRESS: pod.controlPlane,
    CA_ADDRESS: pod.controlPlane,
    XDS_ROOT_CA: rootCertificate,
    CA_ROOT_CA: rootCertificate,
    AUTH_TOKEN: "/var/run/secrets/tokens/istio-token",
    ISTIO_META_CLUSTER_ID: settings.clusterId,
    CLUSTER_ID: settings.clusterId,
    CLUSTER_DOMAIN: settings.clusterDomain,
    NETWORK: settings.network,
    TRUST_DOMAIN: settings.trustDomain,
    TERMINATION_GRACE_PERIOD_SECONDS: String(pod.terminationGracePeriodSeconds),
    ...pod.env,
  };
  const ready = { httpGet: { path: "/healthz/ready", port: ports.readiness } };
  return {
    serviceAccountName: accountName,
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: pod.terminationGracePeriodSeconds,
    ...(pod.imagePullSecrets.length === 0 ? {} : { imagePullSecrets: pod.imagePullSecrets.map((name) => ({ name })) }),
    ...(Object.keys(pod.nodeSelector).length === 0 ? {} : { nodeSelector: { ...pod.nodeSelector } }),
    ...(Object.keys(pod.affinity).length === 0 ? {} : { affinity: pod.affinity }),
    ...(pod.tolerations.length === 0 ? {} : { tolerations: [...pod.tolerations] }),
    ...(pod.topologySpreadConstraints.length === 0 ? {} : { topologySpreadConstraints: [...pod.topologySpreadConstraints] }),
    securityContext: { runAsNonRoot: true, runAsUser: user, runAsGroup: user, fsGroup: user, seccompProfile: { type: "RuntimeDefault" } },
    containers: [
      {
        name: "waypoint",
        image: pod.image,
        ...(pod.imagePullPolicy === "" ? {} : { imagePullPolicy: pod.imagePullPolicy }),
        ports: [
          { name: "hbone", containerPort: ports.traffic, protocol: "TCP" },
          { name: "metrics", containerPort: ports.metrics, protocol: "TCP" },
          { name: "status-port", containerPort: ports.readiness, protocol: "TCP" },
        ],
        startupProbe: { ...ready, periodSeconds: 1, failureThreshold: 30 },
        readinessProbe: { ...ready, periodSeconds: 15, failureThreshold: 4 },
        env: [
          field("POD_NAME", "metadata.name"),
          field("POD_NAMESPACE", "metadata.namespace"),
          field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
          field("NODE_NAME", "spec.nodeName"),
          field("INSTANCE_IP", "status.podIP"),
          ...Object.entries(env).map(([name, value]) => ({ name, value })),
        ],
        resources: pod.resources,
        securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
        volumeMounts: [
          { name: "istio-token", mountPath: "/var/run/secrets/tokens", readOnly: true },
          { name: "istiod-ca-cert", mountPath: "/var/run/secrets/istio", readOnly: true },
          { name: "tmp", mountPath: "/tmp" },
        ],
      },
    ],
    volumes: [
      { name: "istio-token", projected: { sources: [{ serviceAccountToken: { path: "istio-token", expirationSeconds: 43_200, audience: "istio-ca" } }] } },
      { name: "istiod-ca-cert", configMap: { name: "istio-ca-root-cert" } },
      { name: "tmp", emptyDir: {} },
    ],
  };
}

/** One port for readiness and one for each listener; of two that would have one name the later says its number. */
function servicePorts({ spec }: GatewayObject): NonNullable<NonNullable<Service["spec"]>["ports"]> {
  const taken = new Map([["status-port", ports.readiness as number]]);
  for (const { name, port } of spec?.listeners ?? []) {
    if ([...taken.values()].includes(port)) continue;
    const plain = portName(name);
    taken.set(taken.has(plain) ? portName(`${plain}-${port}`) : plain, port);
  }
  const protocols = new Map((spec?.listeners ?? []).map(({ port, protocol }) => [port, protocol.toLowerCase()]));
  return [...taken].map(([name, port]) => ({ name, port, targetPort: port, protocol: "TCP", appProtocol: protocols.get(port) ?? "tcp" }));
}

/** As Kubernetes wants it: lower case letters, digits and dashes, at most 63. */
function portName(text: string): string {
  const plain = text
    .toLowerCase()
    .replace(/[^a-z0-9-]/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 63);
  return plain === "" ? "port" : plain;
}

/** What the Gateway says for what runs for it; its own labels and annotations when it says nothing. */
function infrastructureOf({ metadata, spec }: GatewayObject): { readonly labels: Labels; readonly annotations: Labels } {
  const { labels, annotations } = spec?.infrastructure ?? {};
  const copied = (entries: Labels): Labels =>
    Object.fromEntries(Object.entries(entries).filter(([key]) => !key.startsWith("gateway.networking.k8s.io/") && !ownAnnotations.has(key)));
  return { labels: labels ?? copied(metadata.labels ?? {}), annotations: annotations ?? copied(metadata.annotations ?? {}) };
}
