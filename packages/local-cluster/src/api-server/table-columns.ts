/** The columns `kubectl get` shows for the built-in types, and how each cell is read from an object. */
import { arrayAt, atPath, isObject, type Json, type JsonObject, numberAt, objectAt, stringAt } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";

export interface Column {
  readonly name: string;
  readonly type: "string" | "integer" | "boolean" | "number" | "date";
  readonly format?: "name";
  readonly priority: 0 | 1;
  readonly cell: (object: KubeObject, nowMs: number) => Json;
}

const column = (name: string, cell: Column["cell"], priority: 0 | 1 = 0, type: Column["type"] = "string"): Column => ({ name, type, priority, cell });
const at =
  (...path: readonly string[]): Column["cell"] =>
  (object) => {
    const value = atPath(object, ...path);
    return value === undefined || value === null || value === "" ? "<none>" : typeof value === "object" ? JSON.stringify(value) : value;
  };
const count =
  (...path: readonly string[]): Column["cell"] =>
  (object) =>
    numberAt(atPath(object, ...path)) ?? 0;

export const nameColumn: Column = { name: "Name", type: "string", format: "name", priority: 0, cell: (object) => object.metadata.name };
export const ageColumn: Column = column("Age", (object, nowMs) => age(object.metadata.creationTimestamp, nowMs));

const size =
  (field: string): Column["cell"] =>
  (object) =>
    Object.keys(objectAt(object[field])).length;
const podTemplate = (object: KubeObject): readonly Json[] => arrayAt(atPath(object, "spec", "template", "spec", "containers"));
const containerColumns: readonly Column[] = [
  column("Containers", (object) => joined(podTemplate(object).map((item) => atPath(item, "name"))), 1),
  column("Images", (object) => joined(podTemplate(object).map((item) => atPath(item, "image"))), 1),
  column("Selector", (object) => selectorText(objectAt(atPath(object, "spec", "selector", "matchLabels"))), 1),
];
const ready = (object: KubeObject): string =>
  `${numberAt(atPath(object, "status", "readyReplicas")) ?? 0}/${numberAt(atPath(object, "spec", "replicas")) ?? 0}`;

const columns: ReadonlyMap<string, readonly Column[]> = new Map<string, readonly Column[]>([
  [
    "pods",
    [
      nameColumn,
      column("Ready", podReady),
      column("Status", podStatus),
      column("Restarts", podRestarts),
      ageColumn,
      column("IP", at("status", "podIP"), 1),
      column("Node", at("spec", "nodeName"), 1),
      column("Nominated Node", at("status", "nominatedNodeName"), 1),
      column("Readiness Gates", () => "<none>", 1),
    ],
  ],
  [
    "services",
    [
      nameColumn,
      column("Type", at("spec", "type")),
      column("Cluster-IP", at("spec", "clusterIP")),
      column("External-IP", externalIp),
      column("Port(s)", servicePorts),
      ageColumn,
      column("Selector", (object) => selectorText(objectAt(atPath(object, "spec", "selector"))), 1),
    ],
  ],
  ["namespaces", [nameColumn, column("Status", at("status", "phase")), ageColumn]],
  [
    "nodes",
    [
      nameColumn,
      column("Status", nodeStatus),
      column("Roles", nodeRoles),
      ageColumn,
      column("Version", at("status", "nodeInfo", "kubeletVersion")),
      column("Internal-IP", nodeAddress("InternalIP"), 1),
      column("External-IP", nodeAddress("ExternalIP"), 1),
      column("OS-Image", at("status", "nodeInfo", "osImage"), 1),
      column("Kernel-Version", at("status", "nodeInfo", "kernelVersion"), 1),
      column("Container-Runtime", at("status", "nodeInfo", "containerRuntimeVersion"), 1),
    ],
  ],
  ["endpoints", [nameColumn, column("Endpoints", endpointsText), ageColumn]],
  ["configmaps", [nameColumn, column("Data", (object) => Number(size("data")(object, 0)) + Number(size("binaryData")(object, 0))), ageColumn]],
  ["secrets", [nameColumn, column("Type", at("type")), column("Data", size("data")), ageColumn]],
  ["serviceaccounts", [nameColumn, column("Secrets", (object) => arrayAt(object["secrets"]).length), ageColumn]],
  [
    "events",
    [
      column("Last Seen", (object, nowMs) =>
        age(stringAt(object["lastTimestamp"]) ?? stringAt(object["eventTime"]) ?? object.metadata.creationTimestamp, nowMs),
      ),
      column("Type", at("type")),
      column("Reason", at("reason")),
      column(
        "Object",
        (object) => `${String(atPath(object, "involvedObject", "kind") ?? "").toLowerCase()}/${String(atPath(object, "involvedObject", "name") ?? "")}`,
      ),
      column("Message", (object) => (stringAt(object["message"]) ?? "").trim()),
      { ...nameColumn, priority: 1 },
    ],
  ],
  [
    "deployments.apps",
    [
      nameColumn,
      column("Ready", ready),
      column("Up-to-date", count("status", "updatedReplicas")),
      column("Available", count("status", "availableReplicas")),
      ageColumn,
      ...containerColumns,
    ],
  ],
  [
    "daemonsets.apps",
    [
      nameColumn,
      column("Desired", count("status", "desiredNumberScheduled")),
      column("Current", count("status", "currentNumberScheduled")),
      column("Ready", count("status", "numberReady")),
      column("Up-to-date", count("status", "updatedNumberScheduled")),
      column("Available", count("status", "numberAvailable")),
      column("Node Selector", (object) => selectorText(objectAt(atPath(object, "spec", "template", "spec", "nodeSelector")))),
      ageColumn,
      ...containerColumns,
    ],
  ],
  [
    "replicasets.apps",
    [
      nameColumn,
      column("Desired", count("spec", "replicas")),
      column("Current", count("status", "replicas")),
      column("Ready", count("status", "readyReplicas")),
      ageColumn,
      ...containerColumns,
    ],
  ],
  ["statefulsets.apps", [nameColumn, column("Ready", ready), ageColumn, ...containerColumns.slice(0, 2)]],
  [
    "jobs.batch",
    [
      nameColumn,
      column("Status", (object) => conditionTrue(object, "Complete") ?? conditionTrue(object, "Failed") ?? "Running"),
      column("Completions", (object) => `${numberAt(atPath(object, "status", "succeeded")) ?? 0}/${numberAt(atPath(object, "spec", "completions")) ?? 1}`),
      ageColumn,
    ],
  ],
  [
    "cronjobs.batch",
    [nameColumn, column("Schedule", at("spec", "schedule")), column("Suspend", (object) => atPath(object, "spec", "suspend") === true), ageColumn],
  ],
  [
    "endpointslices.discovery.k8s.io",
    [
      nameColumn,
      column("AddressType", at("addressType")),
      column("Ports", (object) =>
        few(
          arrayAt(object["ports"]).map((port) => atPath(port, "port")),
          "<unset>",
        ),
      ),
      column("Endpoints", (object) =>
        few(
          arrayAt(object["endpoints"]).flatMap((endpoint) => arrayAt(atPath(endpoint, "addresses"))),
          "<unset>",
        ),
      ),
      ageColumn,
    ],
  ],
  ["leases.coordination.k8s.io", [nameColumn, column("Holder", at("spec", "holderIdentity")), ageColumn]],
  ["roles.rbac.authorization.k8s.io", [nameColumn, column("Created At", at("metadata", "creationTimestamp"))]],
  ["clusterroles.rbac.authorization.k8s.io", [nameColumn, column("Created At", at("metadata", "creationTimestamp"))]],
  ["rolebindings.rbac.authorization.k8s.io", [nameColumn, column("Role", roleText), ageColumn]],
  ["clusterrolebindings.rbac.authorization.k8s.io", [nameColumn, column("Role", roleText), ageColumn]],
  [
    "poddisruptionbudgets.policy",
    [
      nameColumn,
      column("Min Available", orNa("spec", "minAvailable")),
      column("Max Unavailable", orNa("spec", "maxUnavailable")),
      column("Allowed Disruptions", count("status", "disruptionsAllowed")),
      ageColumn,
    ],
  ],
  [
    "horizontalpodautoscalers.autoscaling",
    [
      nameColumn,
      column(
        "Reference",
        (object) => `${String(atPath(object, "spec", "scaleTargetRef", "kind") ?? "")}/${String(atPath(object, "spec", "scaleTargetRef", "name") ?? "")}`,
      ),
      column("Targets", () => "<unknown>"),
      column("MinPods", count("spec", "minReplicas")),
      column("MaxPods", count("spec", "maxReplicas")),
      column("Replicas", count("status", "currentReplicas")),
      ageColumn,
    ],
  ],
  [
    "networkpolicies.networking.k8s.io",
    [nameColumn, column("Pod-Selector", (object) => selectorText(objectAt(atPath(object, "spec", "podSelector", "matchLabels")))), ageColumn],
  ],
  [
    "priorityclasses.scheduling.k8s.io",
    [nameColumn, column("Value", (object) => object["value"] ?? 0), column("Global-Default", (object) => object["globalDefault"] === true), ageColumn],
  ],
  ["customresourcedefinitions.apiextensions.k8s.io", [nameColumn, column("Created At", at("metadata", "creationTimestamp"))]],
]);

export function columnsOf(table: string): readonly Column[] {
  return columns.get(table) ?? [nameColumn, ageColumn];
}

/** How long ago, as kubectl writes it: 45s, 3m12s, 5h, 2d3h, 40d. */
export function age(time: string | undefined, nowMs: number): string {
  const then = time === undefined ? Number.NaN : Date.parse(time);
  if (Number.isNaN(then)) return "<unknown>";
  const seconds = Math.max(0, Math.floor((nowMs - then) / 1000));
  const two = (large: number, largeUnit: string, small: number, smallUnit: string): string =>
    `${large}${largeUnit}${small === 0 ? "" : `${small}${smallUnit}`}`;
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return two(minutes, "m", seconds % 60, "s");
  if (minutes < 180) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 8) return two(hours, "h", minutes % 60, "m");
  if (hours < 48) return `${hours}h`;
  const days = Math.floor(hours / 24);
  if (days < 8) return two(days, "d", hours % 24, "h");
  return days < 730 ? `${days}d` : two(Math.floor(days / 365), "y", days % 365, "d");
}

function podReady(pod: KubeObject): Json {
  const statuses = arrayAt(atPath(pod, "status", "containerStatuses"));
  return `${statuses.filter((status) => atPath(status, "ready") === true).length}/${arrayAt(atPath(pod, "spec", "containers")).length}`;
}

function podStatus(pod: KubeObject): Json {
  if (pod.metadata.deletionTimestamp !== undefined) return "Terminating";
  const initializing = arrayAt(atPath(pod, "status", "initContainerStatuses"));
  const unfinished = initializing.findIndex((status) => atPath(status, "state", "terminated", "exitCode") !== 0 && atPath(status, "started") !== true);
  if (unfinished >= 0 && atPath(pod, "status", "phase") === "Pending") return `Init:${unfinished}/${initializing.length}`;
  for (const status of [...arrayAt(atPath(pod, "status", "containerStatuses"))].reverse()) {
    const waiting = stringAt(atPath(status, "state", "waiting", "reason"));
    if (waiting !== undefined && waiting !== "") return waiting;
    const ended = stringAt(atPath(status, "state", "terminated", "reason"));
    if (ended !== undefined && ended !== "") return ended;
  }
  return stringAt(atPath(pod, "status", "reason")) ?? stringAt(atPath(pod, "status", "phase")) ?? "Unknown";
}

function podRestarts(pod: KubeObject, nowMs: number): Json {
  const statuses = arrayAt(atPath(pod, "status", "containerStatuses"));
  const restarts = statuses.reduce<number>((sum, status) => sum + (numberAt(atPath(status, "restartCount")) ?? 0), 0);
  const last = statuses
    .flatMap((status) => stringAt(atPath(status, "lastState", "terminated", "finishedAt")) ?? [])
    .sort()
    .at(-1);
  return restarts > 0 && last !== undefined ? `${restarts} (${age(last, nowMs)} ago)` : String(restarts);
}

function externalIp(service: KubeObject): Json {
  const spec = objectAt(service["spec"]);
  if (spec["type"] === "ExternalName") return stringAt(spec["externalName"]) ?? "<none>";
  const ingress = arrayAt(atPath(service, "status", "loadBalancer", "ingress")).flatMap(
    (entry) => stringAt(atPath(entry, "ip")) ?? stringAt(atPath(entry, "hostname")) ?? [],
  );
  const all = [...ingress, ...arrayAt(spec["externalIPs"])];
  return all.length > 0 ? joined(all) : spec["type"] === "LoadBalancer" ? "<pending>" : "<none>";
}

function servicePorts(service: KubeObject): Json {
  return joined(arrayAt(atPath(service, "spec", "ports")).map((port) => `${String(atPath(port, "port"))}/${String(atPath(port, "protocol"))}`));
}

function nodeStatus(node: KubeObject): Json {
  const status = arrayAt(atPath(node, "status", "conditions")).find((condition) => atPath(condition, "type") === "Ready");
  const word = atPath(status, "status") === "True" ? "Ready" : status === undefined ? "Unknown" : "NotReady";
  return atPath(node, "spec", "unschedulable") === true ? `${word},SchedulingDisabled` : word;
}

function nodeRoles(node: KubeObject): Json {
  const prefix = "node-role.kubernetes.io/";
  return joined(
    Object.keys(node.metadata.labels ?? {})
      .filter((key) => key.startsWith(prefix))
      .map((key) => key.slice(prefix.length)),
  );
}

function nodeAddress(type: string): Column["cell"] {
  return (node) =>
    stringAt(
      atPath(
        arrayAt(atPath(node, "status", "addresses")).find((address) => atPath(address, "type") === type),
        "address",
      ),
    ) ?? "<none>";
}

function endpointsText(endpoints: KubeObject): Json {
  return few(
    arrayAt(endpoints["subsets"]).flatMap((subset) =>
      arrayAt(atPath(subset, "addresses")).flatMap((address) =>
        arrayAt(atPath(subset, "ports")).map((port) => `${String(atPath(address, "ip"))}:${String(atPath(port, "port"))}`),
      ),
    ),
    "<none>",
  );
}

function roleText(binding: KubeObject): Json {
  return `${String(atPath(binding, "roleRef", "kind") ?? "")}/${String(atPath(binding, "roleRef", "name") ?? "")}`;
}

function orNa(...path: readonly string[]): Column["cell"] {
  return (object) => atPath(object, ...path) ?? "N/A";
}

function conditionTrue(object: KubeObject, type: string): string | undefined {
  return arrayAt(atPath(object, "status", "conditions")).some((item) => isObject(item) && item["type"] === type && item["status"] === "True")
    ? type
    : undefined;
}

function selectorText(labels: JsonObject): string {
  return joined(Object.entries(labels).map(([key, value]) => `${key}=${String(value)}`));
}

function joined(values: readonly (Json | undefined)[]): string {
  return values.length === 0 ? "<none>" : values.map(String).join(",");
}

function few(values: readonly (Json | undefined)[], none: string): string {
  if (values.length === 0) return none;
  return values.length <= 3 ? joined(values) : `${joined(values.slice(0, 3))} + ${values.length - 3} more...`;
}
