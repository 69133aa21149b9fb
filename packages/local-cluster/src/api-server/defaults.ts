/** The defaults the reference fills in when it decodes a built-in object, as far as anybody here reads them. */
import { arrayAt, isObject, type JsonObject } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import type { ResourceType } from "./resource-types.ts";
import { fieldsOf } from "./shapes.ts";

/** Fills in defaults. Changes `object`, which the caller owns. */
export function applyDefaults(object: KubeObject, type: ResourceType): void {
  if (type.custom !== undefined) {
    type.custom.schema.applyDefaults(object);
    return;
  }
  const spec = fieldsOf(type.shape)?.has("spec") === true || isObject(object["spec"]) ? child(object, "spec") : {};
  switch (type.kind) {
    case "Namespace":
      object.metadata.labels = { ...object.metadata.labels, "kubernetes.io/metadata.name": object.metadata.name };
      fill(spec, { finalizers: ["kubernetes"] });
      fill(child(object, "status"), { phase: "Active" });
      break;
    case "Pod":
      podDefaults(spec);
      fill(child(object, "status"), { phase: "Pending", qosClass: qosClass(spec) });
      break;
    case "Deployment":
      fill(spec, { replicas: 1, revisionHistoryLimit: 10, progressDeadlineSeconds: 600 });
      rollingDefaults(child(spec, "strategy"), { maxUnavailable: "25%", maxSurge: "25%" });
      templateDefaults(spec);
      break;
    case "ReplicaSet":
      fill(spec, { replicas: 1 });
      selectorFromTemplate(spec);
      templateDefaults(spec);
      break;
    case "DaemonSet":
      fill(spec, { revisionHistoryLimit: 10 });
      rollingDefaults(child(spec, "updateStrategy"), { maxUnavailable: 1, maxSurge: 0 });
      templateDefaults(spec);
      break;
    case "StatefulSet":
      fill(spec, { replicas: 1, revisionHistoryLimit: 10, podManagementPolicy: "OrderedReady" });
      rollingDefaults(child(spec, "updateStrategy"), { partition: 0 });
      templateDefaults(spec);
      break;
    case "Job":
      fill(spec, { parallelism: 1, completions: 1, backoffLimit: 6, completionMode: "NonIndexed", suspend: false });
      templateDefaults(spec);
      jobSelector(object, spec);
      break;
    case "CronJob":
      fill(spec, { concurrencyPolicy: "Allow", suspend: false, successfulJobsHistoryLimit: 3, failedJobsHistoryLimit: 1 });
      break;
    case "Service":
      serviceDefaults(spec);
      fill(child(object, "status"), { loadBalancer: {} });
      break;
    case "Secret":
      secretData(object);
      fill(object, { type: "Opaque" });
      break;
    case "EndpointSlice":
      for (const port of arrayAt(object["ports"])) if (isObject(port)) fill(port, { name: "", protocol: "TCP" });
      break;
    case "RoleBinding":
    case "ClusterRoleBinding":
      bindingDefaults(object);
      break;
    case "HorizontalPodAutoscaler":
      fill(spec, { minReplicas: 1 });
      break;
    case "CustomResourceDefinition":
      definitionDefaults(spec);
      break;
    default:
  }
}

function child(parent: JsonObject, key: string): JsonObject {
  const existing = parent[key];
  if (isObject(existing)) return existing;
  const created: JsonObject = {};
  parent[key] = created;
  return created;
}

function fill(target: JsonObject, defaults: JsonObject): void {
  for (const [key, value] of Object.entries(defaults)) if (target[key] === undefined || target[key] === null) target[key] = value;
}

function rollingDefaults(strategy: JsonObject, parameters: JsonObject): void {
  fill(strategy, { type: "RollingUpdate" });
  if (strategy["type"] === "RollingUpdate") fill(child(strategy, "rollingUpdate"), parameters);
}

function selectorFromTemplate(spec: JsonObject): void {
  const labels = child(child(spec, "template"), "metadata")["labels"];
  if (spec["selector"] === undefined && isObject(labels)) spec["selector"] = { matchLabels: { ...labels } };
}

/** A Job without a selector owns exactly the pods labelled with its uid; `kubectl logs job/name` finds them by it. */
function jobSelector(object: KubeObject, spec: JsonObject): void {
  if (spec["manualSelector"] === true || spec["selector"] !== undefined) return;
  const { uid, name } = object.metadata;
  const labels = child(child(child(spec, "template"), "metadata"), "labels");
  fill(labels, { "batch.kubernetes.io/controller-uid": uid, "controller-uid": uid, "batch.kubernetes.io/job-name": name, "job-name": name });
  spec["selector"] = { matchLabels: { "batch.kubernetes.io/controller-uid": uid } };
}

function templateDefaults(spec: JsonObject): void {
  const template = child(spec, "template");
  fill(child(template, "metadata"), { creationTimestamp: null });
  podDefaults(child(template, "spec"));
}

/** Pod defaults; also those of the service account admission that need nothing but the pod. */
function podDefaults(spec: JsonObject): void {
  fill(spec, {
    restartPolicy: "Always",
    dnsPolicy: "ClusterFirst",
    schedulerName: "default-scheduler",
    terminationGracePeriodSeconds: 30,
    enableServiceLinks: true,
    securityContext: {},
  });
  if (spec["serviceAccountName"] === undefined && typeof spec["serviceAccount"] === "string") spec["serviceAccountName"] = spec["serviceAccount"];
  if (typeof spec["serviceAccountName"] === "string") spec["serviceAccount"] = spec["serviceAccountName"];
  for (const container of [...arrayAt(spec["containers"]), ...arrayAt(spec["initContainers"])]) if (isObject(container)) containerDefaults(container);
  for (const volume of arrayAt(spec["volumes"])) if (isObject(volume)) volumeDefaults(volume);
}

/** Defaults of one container, also for those that admission adds to. */
export function containerDefaults(container: JsonObject): void {
  const image = typeof container["image"] === "string" ? container["image"] : "";
  const tag = /:([^/:@]+)$/.exec(image)?.[1];
  fill(container, {
    imagePullPolicy: !image.includes("@") && (tag === undefined || tag === "latest") ? "Always" : "IfNotPresent",
    terminationMessagePath: "/dev/termination-log",
    terminationMessagePolicy: "File",
    resources: {},
  });
  for (const port of arrayAt(container["ports"])) if (isObject(port)) fill(port, { protocol: "TCP" });
  for (const variable of arrayAt(container["env"])) {
    if (!isObject(variable) || !isObject(variable["valueFrom"])) continue;
    const reference = variable["valueFrom"]["fieldRef"];
    if (isObject(reference)) fill(reference, { apiVersion: "v1" });
  }
  for (const key of ["livenessProbe", "readinessProbe", "startupProbe"]) {
    const probe = container[key];
    if (!isObject(probe)) continue;
    fill(probe, { timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 });
    if (isObject(probe["httpGet"])) fill(probe["httpGet"], { scheme: "HTTP", path: "/" });
  }
}

function volumeDefaults(volume: JsonObject): void {
  const sources = Object.keys(volume).filter((key) => key !== "name");
  if (sources.length === 0) volume["emptyDir"] = {};
  for (const kind of ["secret", "configMap", "downwardAPI", "projected"]) {
    const source = volume[kind];
    if (!isObject(source)) continue;
    fill(source, { defaultMode: 0o644 });
    for (const projection of arrayAt(source["sources"])) {
      if (!isObject(projection)) continue;
      if (isObject(projection["serviceAccountToken"])) fill(projection["serviceAccountToken"], { expirationSeconds: 3600 });
      if (isObject(projection["downwardAPI"])) downwardDefaults(projection["downwardAPI"]);
    }
    if (kind === "downwardAPI") downwardDefaults(source);
  }
  if (isObject(volume["hostPath"])) fill(volume["hostPath"], { type: "" });
}

function downwardDefaults(source: JsonObject): void {
  for (const item of arrayAt(source["items"])) if (isObject(item) && isObject(item["fieldRef"])) fill(item["fieldRef"], { apiVersion: "v1" });
}

function qosClass(spec: JsonObject): string {
  const resources = arrayAt(spec["containers"]).map((container) => (isObject(container) ? container["resources"] : undefined));
  const has = (key: string): readonly boolean[] => resources.map((item) => isObject(item) && isObject(item[key]) && Object.keys(item[key]).length > 0);
  if (![...has("requests"), ...has("limits")].includes(true)) return "BestEffort";
  const guaranteed = resources.every((item) => {
    if (!isObject(item) || !isObject(item["limits"])) return false;
    const limits = item["limits"];
    const requests = isObject(item["requests"]) ? item["requests"] : limits;
    return ["cpu", "memory"].every((name) => limits[name] !== undefined && (requests[name] ?? limits[name]) === limits[name]);
  });
  return guaranteed ? "Guaranteed" : "Burstable";
}

function serviceDefaults(spec: JsonObject): void {
  fill(spec, { type: "ClusterIP", sessionAffinity: "None" });
  if (spec["type"] !== "ExternalName") fill(spec, { internalTrafficPolicy: "Cluster" });
  if (spec["type"] === "NodePort" || spec["type"] === "LoadBalancer") fill(spec, { externalTrafficPolicy: "Cluster" });
  for (const port of arrayAt(spec["ports"])) {
    if (!isObject(port)) continue;
    fill(port, { protocol: "TCP" });
    if (port["port"] !== undefined && (port["targetPort"] === undefined || port["targetPort"] === "")) port["targetPort"] = port["port"];
  }
}

/** `stringData` is write-only: it becomes base64 in `data`. */
function secretData(object: KubeObject): void {
  const text = object["stringData"];
  if (!isObject(text)) return;
  const data = child(object, "data");
  for (const [key, value] of Object.entries(text)) if (typeof value === "string") data[key] = Buffer.from(value, "utf8").toString("base64");
  delete object["stringData"];
}

function bindingDefaults(object: KubeObject): void {
  const group = "rbac.authorization.k8s.io";
  if (isObject(object["roleRef"])) fill(object["roleRef"], { apiGroup: group });
  for (const subject of arrayAt(object["subjects"])) {
    if (isObject(subject) && (subject["kind"] === "User" || subject["kind"] === "Group")) fill(subject, { apiGroup: group });
  }
}

function definitionDefaults(spec: JsonObject): void {
  const names = child(spec, "names");
  const kind = typeof names["kind"] === "string" ? names["kind"] : "";
  fill(names, { singular: kind.toLowerCase(), listKind: `${kind}List` });
  fill(spec, { conversion: { strategy: "None" } });
}
