/** Validation of names, labels and the fields that controllers rely on, in the words of the reference. */
import { ApiError, type FieldError, invalid, required } from "./api-error.ts";
import { arrayAt, atPath, isObject, type Json, type JsonObject, objectAt, sameJson } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import type { ResourceType } from "./resource-types.ts";
import { labelSelectorObject } from "./selectors.ts";

const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const label1123 = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const label1035 = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;
const qualifiedName = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
const labelValue = /^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/;
/** The total size of annotations, as in the reference. */
const maxAnnotationBytes = 262_144;

const subdomainRule =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

/** Throws a 422 that lists every finding. */
export function validateObject(object: KubeObject, type: ResourceType, live: KubeObject | undefined): void {
  const errors = [...metadataErrors(object, type), ...kindErrors(object, type), ...(live === undefined ? [] : changeErrors(object, live, type))];
  if (type.custom !== undefined && errors.length === 0) errors.push(...type.custom.schema.errors(object));
  if (errors.length > 0) throw ApiError.invalid(type.kind, type.group, object.metadata.name, errors);
}

function metadataErrors(object: KubeObject, type: ResourceType): FieldError[] {
  const { name, labels = {}, annotations = {}, finalizers = [] } = object.metadata;
  const errors: FieldError[] = [];
  if (name === "") errors.push(required("metadata.name", "name or generateName is required"));
  else if (type.group === "rbac.authorization.k8s.io") {
    if (name === "." || name === ".." || /[/%]/.test(name) || name.length > 253) errors.push(invalid("metadata.name", name, "may not contain '/' or '%'"));
  } else if (type.table === "namespaces" || type.table === "services") {
    const [pattern, words] =
      type.table === "services"
        ? [label1035, "a DNS-1035 label must start with a letter"]
        : [label1123, "a lowercase RFC 1123 label must hold only a-z, 0-9 or '-'"];
    if (name.length > 63 || !pattern.test(name)) errors.push(invalid("metadata.name", name, words));
  } else if (name.length > 253 || !subdomain.test(name)) errors.push(invalid("metadata.name", name, subdomainRule));
  for (const [key, value] of Object.entries(labels)) {
    if (!isQualifiedName(key)) errors.push(invalid("metadata.labels", key, "name part must consist of alphanumeric characters, '-', '_' or '.'"));
    if (value.length > 63 || !labelValue.test(value))
      errors.push(invalid("metadata.labels", value, "a valid label must be an empty string or at most 63 alphanumeric characters, '-', '_' or '.'"));
  }
  let bytes = 0;
  for (const [key, value] of Object.entries(annotations)) {
    bytes += key.length + value.length;
    if (!isQualifiedName(key.toLowerCase()))
      errors.push(invalid("metadata.annotations", key, "name part must consist of alphanumeric characters, '-', '_' or '.'"));
  }
  if (bytes > maxAnnotationBytes) {
    errors.push({ kind: "FieldValueInvalid", field: "metadata.annotations", detail: `Too long: may not be more than ${maxAnnotationBytes} bytes` });
  }
  for (const finalizer of finalizers) if (!isQualifiedName(finalizer)) errors.push(invalid("metadata.finalizers", finalizer, "must be a qualified name"));
  return errors;
}

function isQualifiedName(key: string): boolean {
  return key.length <= 317 && qualifiedName.test(key) && (key.split("/").at(-1)?.length ?? 0) <= 63;
}

function kindErrors(object: KubeObject, type: ResourceType): FieldError[] {
  const spec = objectAt(object["spec"]);
  switch (type.table) {
    case "pods":
      return podErrors(spec, "spec");
    case "deployments.apps":
    case "daemonsets.apps":
    case "replicasets.apps":
    case "statefulsets.apps":
      return workloadErrors(spec);
    case "jobs.batch":
      return podErrors(objectAt(atPath(spec, "template", "spec")), "spec.template.spec");
    case "services":
      return serviceErrors(spec);
    case "configmaps":
    case "secrets":
      return dataErrors(object);
    case "endpointslices.discovery.k8s.io":
      return ["IPv4", "IPv6", "FQDN"].includes(String(object["addressType"])) ? [] : [required("addressType")];
    case "roles.rbac.authorization.k8s.io":
    case "clusterroles.rbac.authorization.k8s.io":
      return arrayAt(object["rules"]).flatMap((rule, index) =>
        arrayAt(atPath(rule, "verbs")).length > 0 ? [] : [required(`rules[${index}].verbs`, "verbs must contain at least one value")],
      );
    case "rolebindings.rbac.authorization.k8s.io":
    case "clusterrolebindings.rbac.authorization.k8s.io":
      return ["kind", "name"].flatMap((key) => (nonEmpty(atPath(object, "roleRef", key)) ? [] : [required(`roleRef.${key}`)]));
    default:
      return [];
  }
}

function podErrors(spec: JsonObject, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const containers = arrayAt(spec["containers"]);
  if (containers.length === 0) errors.push(required(`${path}.containers`));
  const volumes = new Set(arrayAt(spec["volumes"]).map((volume) => atPath(volume, "name")));
  arrayAt(spec["volumes"]).forEach((volume, index) => {
    if (!nonEmpty(atPath(volume, "name"))) errors.push(required(`${path}.volumes[${index}].name`));
  });
  const names = new Set<string>();
  const all = [
    ...containers.map((item, index) => [item, `${path}.containers[${index}]`] as const),
    ...arrayAt(spec["initContainers"]).map((item, index) => [item, `${path}.initContainers[${index}]`] as const),
  ];
  for (const [container, at] of all) {
    const name = atPath(container, "name");
    if (typeof name !== "string" || name === "") errors.push(required(`${at}.name`));
    else if (name.length > 63 || !label1123.test(name)) errors.push(invalid(`${at}.name`, name, "a lowercase RFC 1123 label must hold only a-z, 0-9 or '-'"));
    else if (names.has(name)) errors.push({ kind: "FieldValueDuplicate", field: `${at}.name`, detail: `Duplicate value: ${JSON.stringify(name)}` });
    else names.add(name);
    if (!nonEmpty(atPath(container, "image"))) errors.push(required(`${at}.image`));
    arrayAt(atPath(container, "ports")).forEach((port, index) => {
      errors.push(...portErrors(atPath(port, "containerPort"), `${at}.ports[${index}].containerPort`));
    });
    arrayAt(atPath(container, "volumeMounts")).forEach((mount, index) => {
      const volume = atPath(mount, "name") ?? null;
      if (!volumes.has(volume))
        errors.push({ kind: "FieldValueInvalid", field: `${at}.volumeMounts[${index}].name`, detail: `Not found: ${JSON.stringify(volume)}` });
    });
  }
  const policy = spec["restartPolicy"];
  if (policy !== undefined && !["Always", "OnFailure", "Never"].includes(String(policy))) {
    errors.push({
      kind: "FieldValueNotSupported",
      field: `${path}.restartPolicy`,
      detail: 'Unsupported value: supported values: "Always", "Never", "OnFailure"',
    });
  }
  return errors;
}

function workloadErrors(spec: JsonObject): FieldError[] {
  const errors: FieldError[] = [];
  const replicas = spec["replicas"];
  if (typeof replicas === "number" && replicas < 0) errors.push(invalid("spec.replicas", replicas, "must be greater than or equal to 0"));
  const selector = spec["selector"];
  if (!isObject(selector) || Object.keys(selector).length === 0) errors.push(required("spec.selector"));
  else if (!labelSelectorObject(selector)(objectAt(atPath(spec, "template", "metadata", "labels")))) {
    errors.push(invalid("spec.template.metadata.labels", atPath(spec, "template", "metadata", "labels"), "`selector` does not match template `labels`"));
  }
  return [...errors, ...podErrors(objectAt(atPath(spec, "template", "spec")), "spec.template.spec")];
}

function serviceErrors(spec: JsonObject): FieldError[] {
  const errors: FieldError[] = [];
  const type = String(spec["type"]);
  const ports = arrayAt(spec["ports"]);
  if (!["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"].includes(type)) {
    errors.push({ kind: "FieldValueNotSupported", field: "spec.type", detail: `Unsupported value: ${JSON.stringify(type.slice(0, 64))}` });
  }
  if (type === "ExternalName" && !nonEmpty(spec["externalName"])) errors.push(required("spec.externalName"));
  if (ports.length === 0 && type !== "ExternalName" && spec["clusterIP"] !== "None") errors.push(required("spec.ports"));
  const names = new Set<string>();
  ports.forEach((port, index) => {
    const at = `spec.ports[${index}]`;
    errors.push(...portErrors(atPath(port, "port"), `${at}.port`));
    const name = atPath(port, "name");
    if (typeof name !== "string" || name === "") {
      if (ports.length > 1) errors.push(required(`${at}.name`));
    } else if (names.has(name)) errors.push({ kind: "FieldValueDuplicate", field: `${at}.name`, detail: `Duplicate value: ${JSON.stringify(name)}` });
    else if (name.length > 63 || !label1123.test(name)) errors.push(invalid(`${at}.name`, name, "must be a lowercase RFC 1123 label"));
    else names.add(name);
  });
  return errors;
}

function dataErrors(object: KubeObject): FieldError[] {
  return ["data", "binaryData"].flatMap((field) =>
    Object.entries(objectAt(object[field])).flatMap(([key, value]): FieldError[] => {
      if (!/^[-._a-zA-Z0-9]{1,253}$/.test(key))
        return [invalid(`${field}[${key.slice(0, 64)}]`, key, "a valid config key must consist of alphanumeric characters, '-', '_' or '.'")];
      const encoded = object.kind === "Secret" || field === "binaryData";
      if (encoded && typeof value === "string" && !/^[A-Za-z0-9+/\r\n]*={0,2}\s*$/.test(value))
        return [invalid(`${field}[${key}]`, "<hidden>", "must be base64")];
      return [];
    }),
  );
}

/** Fields that may not change once written. */
function changeErrors(object: KubeObject, live: KubeObject, type: ResourceType): FieldError[] {
  const fixed: Readonly<Record<string, readonly (readonly string[])[]>> = {
    "deployments.apps": [["spec", "selector"]],
    "daemonsets.apps": [["spec", "selector"]],
    "replicasets.apps": [["spec", "selector"]],
    "statefulsets.apps": [
      ["spec", "selector"],
      ["spec", "serviceName"],
    ],
    "jobs.batch": [["spec", "template"]],
    "rolebindings.rbac.authorization.k8s.io": [["roleRef"]],
    "clusterrolebindings.rbac.authorization.k8s.io": [["roleRef"]],
    "endpointslices.discovery.k8s.io": [["addressType"]],
    secrets: [["type"]],
    "customresourcedefinitions.apiextensions.k8s.io": [
      ["spec", "group"],
      ["spec", "scope"],
      ["spec", "names", "plural"],
    ],
  };
  const errors = (fixed[type.table] ?? [])
    .filter((path) => !sameJson(atPath(object, ...path), atPath(live, ...path)))
    .map((path) => invalid(path.join("."), atPath(object, ...path), "field is immutable"));
  if ((type.table === "configmaps" || type.table === "secrets") && live["immutable"] === true) {
    if (!sameJson(object["data"], live["data"]) || object["immutable"] !== true) {
      errors.push({ kind: "FieldValueForbidden", field: "data", detail: "Forbidden: field is immutable when `immutable` is set" });
    }
  }
  if (type.table === "pods" && !sameJson(changeableBlanked(object), changeableBlanked(live))) {
    errors.push({
      kind: "FieldValueForbidden",
      field: "spec",
      detail:
        "Forbidden: pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` or `spec.terminationGracePeriodSeconds`",
    });
  }
  return errors;
}

function changeableBlanked(pod: KubeObject): Json {
  const {
    activeDeadlineSeconds: _deadline,
    tolerations: _tolerations,
    terminationGracePeriodSeconds: _grace,
    schedulingGates: _gates,
    ...spec
  } = objectAt(pod["spec"]);
  const blank = (containers: Json | undefined): Json[] => arrayAt(containers).map((item) => (isObject(item) ? { ...item, image: "" } : item));
  return { ...spec, containers: blank(spec["containers"]), initContainers: blank(spec["initContainers"]) };
}

function portErrors(port: Json | undefined, field: string): FieldError[] {
  if (port === undefined) return [required(field)];
  return typeof port === "number" && port >= 1 && port <= 65_535 ? [] : [invalid(field, port, "must be between 1 and 65535, inclusive")];
}

function nonEmpty(value: Json | undefined): boolean {
  return typeof value === "string" && value !== "";
}
