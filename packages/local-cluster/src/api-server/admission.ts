/** What must hold or be filled in with a look at other objects: namespaces, service accounts, priorities, cluster IPs. */
import { ApiError } from "./api-error.ts";
import type { ClusterIps } from "./cluster-ips.ts";
import { acceptDefinition, definitionsTable, typesOf } from "./custom-definitions.ts";
import { containerDefaults } from "./defaults.ts";
import { arrayAt, atPath, isObject, type JsonObject, objectAt } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import type { ResourceType } from "./resource-types.ts";
import type { Storage } from "./storage.ts";

export const tokenMountPath = "/var/run/secrets/kubernetes.io/serviceaccount";
const tokenVolumePrefix = "kube-api-access-";

export interface AdmissionContext {
  readonly storage: Storage;
  readonly ips: ClusterIps;
  readonly now: string;
  /** A short random suffix, as generateName uses. */
  readonly suffix: () => string;
}

/** Before an object is created: its namespace must exist and live on. */
export function admitNamespace(storage: Storage, type: ResourceType, namespace: string, name: string): void {
  if (!type.namespaced) return;
  const found = storage.get("namespaces", "", namespace);
  if (found === undefined) throw ApiError.notFound({ group: "", plural: "namespaces" }, namespace);
  if (found.metadata.deletionTimestamp !== undefined) {
    throw new ApiError(
      403,
      "Forbidden",
      `${type.plural} ${JSON.stringify(name)} is forbidden: unable to create new content in namespace ${namespace} because it is being terminated`,
      {
        name,
        kind: type.plural,
        causes: [{ reason: "NamespaceTerminating", message: `namespace ${namespace} is being terminated`, field: "metadata.namespace" }],
      },
    );
  }
}

/** Completes an object about to be written. Changes `object`; throws what forbids it. */
export function admitObject(object: KubeObject, live: KubeObject | undefined, type: ResourceType, context: AdmissionContext): void {
  if (type.table === "services") context.ips.assign(object, live);
  else if (type.table === "pods" && live === undefined) admitPod(object, context);
  else if (type.table === definitionsTable) {
    typesOf(object);
    acceptDefinition(object, context.now);
  }
}

function admitPod(pod: KubeObject, { storage, suffix }: AdmissionContext): void {
  const spec = objectAt(pod["spec"]);
  const account = typeof spec["serviceAccountName"] === "string" && spec["serviceAccountName"] !== "" ? spec["serviceAccountName"] : "default";
  spec["serviceAccountName"] = account;
  spec["serviceAccount"] = account;
  const found = storage.get("serviceaccounts", pod.metadata.namespace ?? "", account);
  if (found === undefined) {
    throw ApiError.forbidden(
      { group: "", plural: "pods" },
      pod.metadata.name,
      `error looking up service account ${pod.metadata.namespace}/${account}: serviceaccount ${JSON.stringify(account)} not found`,
    );
  }
  const priority = spec["priorityClassName"];
  if (typeof priority === "string" && priority !== "") {
    const known = storage.get("priorityclasses.scheduling.k8s.io", "", priority);
    if (known === undefined) throw ApiError.forbidden({ group: "", plural: "pods" }, pod.metadata.name, `no PriorityClass with name ${priority} was found`);
    spec["priority"] = known["value"] ?? 0;
  } else spec["priority"] ??= 0;
  spec["preemptionPolicy"] ??= "PreemptLowerPriority";
  if ((spec["automountServiceAccountToken"] ?? found["automountServiceAccountToken"]) !== false) mountToken(spec, suffix());
}

/** The projected volume every pod gets: token, cluster CA, namespace. */
function mountToken(spec: JsonObject, suffix: string): void {
  const name = `${tokenVolumePrefix}${suffix}`;
  let used = false;
  for (const container of [...arrayAt(spec["containers"]), ...arrayAt(spec["initContainers"])]) {
    if (!isObject(container)) continue;
    const mounts = arrayAt(container["volumeMounts"]);
    if (mounts.some((mount) => atPath(mount, "mountPath") === tokenMountPath)) continue;
    container["volumeMounts"] = [...mounts, { name, readOnly: true, mountPath: tokenMountPath }];
    containerDefaults(container);
    used = true;
  }
  if (!used) return;
  const sources = [
    { serviceAccountToken: { expirationSeconds: 3607, path: "token" } },
    { configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] } },
    { downwardAPI: { items: [{ path: "namespace", fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } }] } },
  ];
  spec["volumes"] = [...arrayAt(spec["volumes"]), { name, projected: { sources, defaultMode: 0o644 } }];
}
