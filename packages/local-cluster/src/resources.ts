/** The Kubernetes objects this cluster reads and writes, reduced to the fields it honours, and the address of each kind. */
import type { KubeObject, Probe, ResourceType } from "@fairway/kube";

export interface LabelSelector {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

export interface KeyToPath {
  key: string;
  path: string;
  mode?: number;
}

export interface DownwardItem {
  path: string;
  mode?: number;
  fieldRef?: { fieldPath: string };
  resourceFieldRef?: { containerName?: string; resource: string; divisor?: string };
}

export interface ProjectedSource {
  serviceAccountToken?: { audience?: string; expirationSeconds?: number; path: string };
  configMap?: { name: string; items?: KeyToPath[]; optional?: boolean };
  secret?: { name: string; items?: KeyToPath[]; optional?: boolean };
  downwardAPI?: { items?: DownwardItem[] };
}

export interface Volume {
  name: string;
  configMap?: { name: string; items?: KeyToPath[]; optional?: boolean; defaultMode?: number };
  secret?: { secretName: string; items?: KeyToPath[]; optional?: boolean; defaultMode?: number };
  emptyDir?: { medium?: string };
  hostPath?: { path: string; type?: string };
  projected?: { sources?: ProjectedSource[]; defaultMode?: number };
  downwardAPI?: { items?: DownwardItem[]; defaultMode?: number };
}

export interface VolumeMount {
  name: string;
  mountPath: string;
  subPath?: string;
  readOnly?: boolean;
  mountPropagation?: string;
}

export interface EnvVar {
  name: string;
  value?: string;
  valueFrom?: {
    fieldRef?: { fieldPath: string };
    resourceFieldRef?: { containerName?: string; resource: string; divisor?: string };
    configMapKeyRef?: { name: string; key: string; optional?: boolean };
    secretKeyRef?: { name: string; key: string; optional?: boolean };
  };
}

export interface LifecycleHandler {
  exec?: { command?: string[] };
  sleep?: { seconds: number };
  httpGet?: { path?: string; port: number | string; host?: string; scheme?: string };
}

export interface SecurityContext {
  privileged?: boolean;
  runAsUser?: number;
  runAsGroup?: number;
  runAsNonRoot?: boolean;
  readOnlyRootFilesystem?: boolean;
  allowPrivilegeEscalation?: boolean;
  capabilities?: { add?: string[]; drop?: string[] };
}

export interface Container {
  name: string;
  image?: string;
  command?: string[];
  args?: string[];
  workingDir?: string;
  env?: EnvVar[];
  envFrom?: { prefix?: string; configMapRef?: { name: string; optional?: boolean }; secretRef?: { name: string; optional?: boolean } }[];
  ports?: { name?: string; containerPort: number; protocol?: string; hostPort?: number }[];
  volumeMounts?: VolumeMount[];
  resources?: { limits?: Record<string, string | number>; requests?: Record<string, string | number> };
  livenessProbe?: Probe;
  readinessProbe?: Probe;
  startupProbe?: Probe;
  lifecycle?: { postStart?: LifecycleHandler; preStop?: LifecycleHandler };
  securityContext?: SecurityContext;
  restartPolicy?: string;
  terminationMessagePath?: string;
  stdin?: boolean;
  tty?: boolean;
}

export interface NodeSelectorTerm {
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
  matchFields?: { key: string; operator: string; values?: string[] }[];
}

/** Pods of the same namespace that `labelSelector` picks, on nodes with the same value of `topologyKey`. */
export interface PodAffinityTerm {
  topologyKey: string;
  labelSelector?: LabelSelector;
}

export interface PodSpec {
  nodeName?: string;
  nodeSelector?: Record<string, string>;
  affinity?: {
    nodeAffinity?: { requiredDuringSchedulingIgnoredDuringExecution?: { nodeSelectorTerms?: NodeSelectorTerm[] } };
    podAntiAffinity?: {
      requiredDuringSchedulingIgnoredDuringExecution?: PodAffinityTerm[];
      preferredDuringSchedulingIgnoredDuringExecution?: { weight?: number; podAffinityTerm?: PodAffinityTerm }[];
    };
  };
  containers: Container[];
  initContainers?: Container[];
  volumes?: Volume[];
  hostNetwork?: boolean;
  hostname?: string;
  subdomain?: string;
  serviceAccountName?: string;
  restartPolicy?: string;
  terminationGracePeriodSeconds?: number;
  dnsPolicy?: string;
  dnsConfig?: { nameservers?: string[]; searches?: string[]; options?: { name: string; value?: string }[] };
  hostAliases?: { ip: string; hostnames?: string[] }[];
  securityContext?: { runAsUser?: number; runAsGroup?: number; fsGroup?: number; sysctls?: { name: string; value: string }[] };
  enableServiceLinks?: boolean;
  readinessGates?: { conditionType: string }[];
}

export interface Condition {
  type: string;
  status: string;
  reason?: string;
  message?: string;
  lastTransitionTime?: string;
  lastUpdateTime?: string;
}

export interface ContainerState {
  waiting?: { reason?: string; message?: string };
  running?: { startedAt?: string };
  terminated?: { exitCode: number; signal?: number; reason?: string; message?: string; startedAt?: string; finishedAt?: string; containerID?: string };
}

export interface ContainerStatus {
  name: string;
  image: string;
  imageID: string;
  containerID?: string;
  ready: boolean;
  started?: boolean;
  restartCount: number;
  state: ContainerState;
  lastState: ContainerState;
}

export interface PodStatus {
  phase?: string;
  reason?: string;
  message?: string;
  hostIP?: string;
  hostIPs?: { ip: string }[];
  podIP?: string;
  podIPs?: { ip: string }[];
  startTime?: string;
  qosClass?: string;
  conditions?: Condition[];
  containerStatuses?: ContainerStatus[];
  initContainerStatuses?: ContainerStatus[];
}

export interface Pod extends KubeObject {
  spec: PodSpec;
  status?: PodStatus;
}

export interface PodTemplate {
  metadata?: { labels?: Record<string, string>; annotations?: Record<string, string> };
  spec: PodSpec;
}

export interface NodeObject extends KubeObject {
  spec?: { podCIDR?: string; podCIDRs?: string[]; unschedulable?: boolean };
  status?: { conditions?: Condition[]; addresses?: { type: string; address: string }[] };
}

export interface ServicePort {
  name?: string;
  port: number;
  targetPort?: number | string;
  protocol?: string;
  nodePort?: number;
  appProtocol?: string;
}

export interface Service extends KubeObject {
  spec?: {
    type?: string;
    clusterIP?: string;
    clusterIPs?: string[];
    ipFamilies?: string[];
    ports?: ServicePort[];
    selector?: Record<string, string>;
    publishNotReadyAddresses?: boolean;
    externalName?: string;
  };
}

export interface Endpoint {
  addresses: string[];
  conditions?: { ready?: boolean; serving?: boolean; terminating?: boolean };
  hostname?: string;
  nodeName?: string;
  zone?: string;
  targetRef?: { kind: string; namespace: string; name: string; uid: string };
}

export interface EndpointSlice extends KubeObject {
  addressType: string;
  endpoints?: Endpoint[];
  ports?: { name?: string; port?: number; protocol?: string; appProtocol?: string }[];
}

export interface ReplicaSet extends KubeObject {
  spec: { replicas?: number; selector: LabelSelector; template: PodTemplate };
  status?: { replicas?: number; readyReplicas?: number; availableReplicas?: number; fullyLabeledReplicas?: number; observedGeneration?: number };
}

export interface RollingUpdate {
  maxSurge?: number | string;
  maxUnavailable?: number | string;
}

export interface Deployment extends KubeObject {
  spec: {
    replicas?: number;
    selector: LabelSelector;
    template: PodTemplate;
    strategy?: { type?: string; rollingUpdate?: RollingUpdate };
    paused?: boolean;
    revisionHistoryLimit?: number;
  };
  status?: Record<string, unknown>;
}

export interface DaemonSet extends KubeObject {
  spec: { selector: LabelSelector; template: PodTemplate; updateStrategy?: { type?: string; rollingUpdate?: RollingUpdate } };
  status?: Record<string, unknown>;
}

export interface StatefulSet extends KubeObject {
  spec: { replicas?: number; selector: LabelSelector; serviceName?: string; template: PodTemplate; podManagementPolicy?: string };
  status?: Record<string, unknown>;
}

export interface Job extends KubeObject {
  spec: { template: PodTemplate; backoffLimit?: number; completions?: number; parallelism?: number; selector?: LabelSelector };
  status?: { succeeded?: number; failed?: number; active?: number; startTime?: string; completionTime?: string; conditions?: Condition[] };
}

export interface ConfigMap extends KubeObject {
  data?: Record<string, string>;
  binaryData?: Record<string, string>;
}

export interface Secret extends KubeObject {
  data?: Record<string, string>;
  type?: string;
}

export interface Lease extends KubeObject {
  spec: { holderIdentity?: string; leaseDurationSeconds?: number; renewTime?: string };
}

const resource = <T extends KubeObject>(group: string, plural: string, kind: string, namespaced = true): ResourceType<T> => ({
  group,
  version: "v1",
  plural,
  kind,
  namespaced,
});

export const pods: ResourceType<Pod> = resource("", "pods", "Pod");
export const nodes: ResourceType<NodeObject> = resource("", "nodes", "Node", false);
export const services: ResourceType<Service> = resource("", "services", "Service");
export const configMaps: ResourceType<ConfigMap> = resource("", "configmaps", "ConfigMap");
export const secrets: ResourceType<Secret> = resource("", "secrets", "Secret");
export const events: ResourceType = resource("", "events", "Event");
export const serviceAccounts: ResourceType = resource("", "serviceaccounts", "ServiceAccount");
export const endpointSlices: ResourceType<EndpointSlice> = resource("discovery.k8s.io", "endpointslices", "EndpointSlice");
export const deployments: ResourceType<Deployment> = resource("apps", "deployments", "Deployment");
export const replicaSets: ResourceType<ReplicaSet> = resource("apps", "replicasets", "ReplicaSet");
export const daemonSets: ResourceType<DaemonSet> = resource("apps", "daemonsets", "DaemonSet");
export const statefulSets: ResourceType<StatefulSet> = resource("apps", "statefulsets", "StatefulSet");
export const jobs: ResourceType<Job> = resource("batch", "jobs", "Job");
export const leases: ResourceType<Lease> = resource("coordination.k8s.io", "leases", "Lease");

/** `namespace/name`, the key of a collection. */
export function keyOf(object: KubeObject): string {
  return object.metadata.namespace === undefined ? object.metadata.name : `${object.metadata.namespace}/${object.metadata.name}`;
}

/** The controller owner's uid, when there is one. */
export function controllerOf(object: KubeObject): string | undefined {
  return object.metadata.ownerReferences?.find((owner) => owner.controller === true)?.uid;
}

/** The reference a child carries to its controller. */
export function ownerReference(apiVersion: string, kind: string, owner: KubeObject): NonNullable<KubeObject["metadata"]["ownerReferences"]>[number] {
  return { apiVersion, kind, name: owner.metadata.name, uid: owner.metadata.uid ?? "", controller: true, blockOwnerDeletion: true };
}

/** Whether a pod has the Ready condition. */
export function isReady(pod: Pod): boolean {
  return pod.status?.conditions?.some((condition) => condition.type === "Ready" && condition.status === "True") === true;
}

/** A pod that will not run again. */
export function isFinished(pod: Pod): boolean {
  return pod.status?.phase === "Succeeded" || pod.status?.phase === "Failed";
}
