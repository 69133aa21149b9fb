/** What a fresh cluster already holds: its namespaces, the API's own service, the default roles, the priority classes. */
import { randomUUID } from "node:crypto";
import { gatewayDefinitions } from "./gateway-definitions.ts";
import type { JsonObject } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import type { ObjectWriter, WriteOptions } from "./object-writer.ts";
import { timestamp } from "./object-writer.ts";
import type { ResourceTypes } from "./resource-types.ts";
import type { Storage } from "./storage.ts";

export interface BootstrapOptions {
  readonly storage: Storage;
  readonly types: ResourceTypes;
  readonly writer: ObjectWriter;
  readonly nowMs: number;
  readonly securePort: number;
  readonly gatewayApi: boolean;
}

const write: WriteOptions = { fieldManager: "fairway-api-server", subresource: "", dryRun: false, fieldValidation: "Ignore", warn: () => undefined };
const rbac = "rbac.authorization.k8s.io";

export function bootstrap({ storage, types, writer, nowMs, securePort, gatewayApi }: BootstrapOptions): void {
  const create = (group: string, version: string, plural: string, namespace: string, body: JsonObject): void => {
    const type = types.find(group, version, plural);
    if (type !== undefined) writer.create(type, namespace, body, write);
  };
  for (const name of ["default", "kube-node-lease", "kube-public", "kube-system"]) create("", "v1", "namespaces", "", { metadata: { name } });
  create("", "v1", "services", "default", {
    metadata: { name: "kubernetes", labels: { component: "apiserver", provider: "kubernetes" } },
    spec: { clusterIP: "10.96.0.1", ports: [{ name: "https", port: 443, targetPort: securePort, protocol: "TCP" }] },
  });
  for (const [name, value] of [
    ["system-cluster-critical", 2_000_000_000],
    ["system-node-critical", 2_000_001_000],
  ] as const) {
    create("scheduling.k8s.io", "v1", "priorityclasses", "", { metadata: { name }, value, globalDefault: false, preemptionPolicy: "PreemptLowerPriority" });
  }
  const stored = (table: string, kind: string, name: string, content: JsonObject): void => {
    const metadata = {
      name,
      uid: randomUUID(),
      resourceVersion: "",
      creationTimestamp: timestamp(nowMs),
      labels: { "kubernetes.io/bootstrapping": "rbac-defaults" },
    };
    const object: KubeObject = { apiVersion: `${rbac}/v1`, kind, metadata, ...content };
    storage.put(table, object);
  };
  for (const [name, rules] of Object.entries(clusterRoles)) stored(`clusterroles.${rbac}`, "ClusterRole", name, { rules });
  for (const [name, group] of Object.entries(groupBindings)) {
    stored(`clusterrolebindings.${rbac}`, "ClusterRoleBinding", name, {
      roleRef: { apiGroup: rbac, kind: "ClusterRole", name },
      subjects: group.map((subject) => ({ apiGroup: rbac, kind: "Group", name: subject })),
    });
  }
  if (gatewayApi) for (const definition of gatewayDefinitions) create("apiextensions.k8s.io", "v1", "customresourcedefinitions", "", definition);
}

const read = ["get", "list", "watch"];
const readAndWrite = [...read, "create", "delete", "deletecollection", "patch", "update"];
const workloads: JsonObject[] = [
  { apiGroups: ["apps"], resources: ["*"] },
  { apiGroups: ["batch"], resources: ["*"] },
  { apiGroups: ["autoscaling"], resources: ["*"] },
  { apiGroups: ["networking.k8s.io"], resources: ["ingresses", "networkpolicies"] },
  { apiGroups: ["policy"], resources: ["poddisruptionbudgets"] },
  { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"] },
];
const viewed = [
  "configmaps",
  "endpoints",
  "events",
  "namespaces",
  "persistentvolumeclaims",
  "pods",
  "pods/log",
  "pods/status",
  "serviceaccounts",
  "services",
  "services/status",
];
const edited = [
  "configmaps",
  "endpoints",
  "events",
  "persistentvolumeclaims",
  "pods",
  "pods/exec",
  "pods/attach",
  "pods/portforward",
  "pods/eviction",
  "secrets",
  "serviceaccounts",
  "services",
];
const view: JsonObject[] = [...workloads.map((rule) => ({ ...rule, verbs: read })), { apiGroups: [""], resources: viewed, verbs: read }];
const edit: JsonObject[] = [
  ...view,
  ...workloads.map((rule) => ({ ...rule, verbs: readAndWrite })),
  { apiGroups: [""], resources: edited, verbs: readAndWrite },
];

/** The default roles people bind to; the reference's own are larger, these cover the types served here. */
const clusterRoles: Readonly<Record<string, JsonObject[]>> = {
  "cluster-admin": [
    { apiGroups: ["*"], resources: ["*"], verbs: ["*"] },
    { nonResourceURLs: ["*"], verbs: ["*"] },
  ],
  admin: [
    ...edit,
    { apiGroups: [rbac], resources: ["roles", "rolebindings"], verbs: readAndWrite },
    { apiGroups: [""], resources: ["serviceaccounts/token"], verbs: ["create"] },
  ],
  edit,
  view,
  "system:discovery": [
    {
      nonResourceURLs: ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"],
      verbs: ["get"],
    },
  ],
  "system:public-info-viewer": [{ nonResourceURLs: ["/healthz", "/livez", "/readyz", "/version", "/version/"], verbs: ["get"] }],
  "system:basic-user": [
    { apiGroups: ["authorization.k8s.io"], resources: ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], verbs: ["create"] },
    { apiGroups: ["authentication.k8s.io"], resources: ["selfsubjectreviews"], verbs: ["create"] },
  ],
  "system:service-account-issuer-discovery": [{ nonResourceURLs: ["/.well-known/openid-configuration", "/openid/v1/jwks"], verbs: ["get"] }],
  "system:auth-delegator": [
    { apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"] },
    { apiGroups: ["authorization.k8s.io"], resources: ["subjectaccessreviews"], verbs: ["create"] },
  ],
};

const groupBindings: Readonly<Record<string, readonly string[]>> = {
  "cluster-admin": ["system:masters"],
  "system:discovery": ["system:authenticated"],
  "system:basic-user": ["system:authenticated"],
  "system:public-info-viewer": ["system:authenticated", "system:unauthenticated"],
  "system:service-account-issuer-discovery": ["system:serviceaccounts"],
};
