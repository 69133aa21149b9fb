/**
 * The shapes of the built-in types, as far as the server needs them: which fields exist (strict validation), their
 * coarse types, and how their lists merge (strategic merge patch and server-side apply).
 *
 * One line per field list. `a` anything, `a:s` string, `a:i` integer, `a:b` boolean, `a:m` map of strings, `a:q` integer
 * or string, `a>Shape` object; then `[]` an atomic list, `[*]` a set, `[k,l]` a list merged by its keys; `!` replaced as a
 * whole by apply. In a strategic merge only the first key counts, as in the reference.
 */
import { own } from "./json.ts";

export type ScalarType = "s" | "i" | "b" | "m" | "q";
export type ListKind = "atomic" | "set" | readonly string[];

export interface FieldShape {
  readonly scalar?: ScalarType;
  readonly shape?: string;
  readonly list?: ListKind;
  readonly atomic: boolean;
}

const template = "template>PodTemplateSpec";
const conditions = "conditions>Condition[type]";

const shapeTexts: Readonly<Record<string, string>> = {
  ObjectMeta: "name:s generateName:s namespace:s labels:m annotations:m finalizers:s[*] ownerReferences>OwnerReference[uid]",
  OwnerReference: "apiVersion:s kind:s name:s uid:s controller:b blockOwnerDeletion:b",
  Condition: "type:s status:s reason:s message:s lastTransitionTime lastUpdateTime lastProbeTime lastHeartbeatTime observedGeneration:i",
  LabelSelector: "matchLabels:m matchExpressions>LabelSelectorRequirement[]",
  LabelSelectorRequirement: "key:s operator:s values:s[]",
  LocalObjectReference: "name:s",
  ObjectReference: "kind:s namespace:s name:s uid:s apiVersion:s resourceVersion:s fieldPath:s",

  Namespace: "spec>NamespaceSpec status>NamespaceStatus",
  NamespaceSpec: "finalizers:s[]",
  NamespaceStatus: `phase:s ${conditions}`,
  Node: "spec>NodeSpec status>NodeStatus",
  NodeSpec: "podCIDR:s podCIDRs:s[*] providerID:s unschedulable:b taints>Taint[] configSource externalID:s",
  Taint: "key:s value:s effect:s timeAdded",
  NodeStatus: `capacity allocatable phase:s ${conditions} addresses>NodeAddress[type] daemonEndpoints nodeInfo images[] volumesInUse:s[] volumesAttached[] config runtimeHandlers[] features`,
  NodeAddress: "type:s address:s",

  Pod: "spec>PodSpec status>PodStatus",
  PodTemplateSpec: "metadata>ObjectMeta spec>PodSpec",
  PodSpec:
    "activeDeadlineSeconds:i affinity automountServiceAccountToken:b containers>Container[name] dnsConfig dnsPolicy:s enableServiceLinks:b ephemeralContainers>Container[name] hostAliases>HostAlias[ip] hostIPC:b hostNetwork:b hostPID:b hostUsers:b hostname:s imagePullSecrets>LocalObjectReference[name] initContainers>Container[name] nodeName:s nodeSelector:m! os overhead preemptionPolicy:s priority:i priorityClassName:s readinessGates[] resourceClaims[] resources restartPolicy:s runtimeClassName:s schedulerName:s schedulingGates[] securityContext serviceAccount:s serviceAccountName:s setHostnameAsFQDN:b shareProcessNamespace:b subdomain:s terminationGracePeriodSeconds:i tolerations>Toleration[] topologySpreadConstraints>TopologySpread[topologyKey,whenUnsatisfiable] volumes>Volume[name]",
  HostAlias: "ip:s hostnames:s[]",
  Toleration: "key:s operator:s value:s effect:s tolerationSeconds:i",
  TopologySpread:
    "maxSkew:i topologyKey:s whenUnsatisfiable:s labelSelector>LabelSelector! minDomains:i nodeAffinityPolicy:s nodeTaintsPolicy:s matchLabelKeys:s[]",
  Container:
    "name:s image:s command:s[] args:s[] workingDir:s ports>ContainerPort[containerPort,protocol] envFrom>EnvFrom[] env>EnvVar[name] resources>Resources resizePolicy[] restartPolicy:s volumeMounts>VolumeMount[mountPath] volumeDevices>VolumeDevice[devicePath] livenessProbe>Probe readinessProbe>Probe startupProbe>Probe lifecycle>Lifecycle terminationMessagePath:s terminationMessagePolicy:s imagePullPolicy:s securityContext>SecurityContext stdin:b stdinOnce:b tty:b targetContainerName:s",
  ContainerPort: "name:s hostPort:i containerPort:i protocol:s hostIP:s",
  EnvFrom: "prefix:s configMapRef>OptionalReference secretRef>OptionalReference",
  OptionalReference: "name:s optional:b",
  EnvVar: "name:s value:s valueFrom>EnvVarSource",
  EnvVarSource: "fieldRef>FieldReference resourceFieldRef>ResourceFieldReference configMapKeyRef>KeyReference secretKeyRef>KeyReference",
  FieldReference: "apiVersion:s fieldPath:s",
  ResourceFieldReference: "containerName:s resource:s divisor",
  KeyReference: "name:s key:s optional:b",
  Resources: "limits requests claims[]",
  VolumeMount: "name:s readOnly:b recursiveReadOnly:s mountPath:s subPath:s mountPropagation:s subPathExpr:s",
  VolumeDevice: "name:s devicePath:s",
  Probe:
    "exec>ExecAction httpGet>HttpGet tcpSocket>TcpSocket grpc>GrpcAction initialDelaySeconds:i timeoutSeconds:i periodSeconds:i successThreshold:i failureThreshold:i terminationGracePeriodSeconds:i",
  ExecAction: "command:s[]",
  HttpGet: "path:s port:q host:s scheme:s httpHeaders>HttpHeader[]",
  HttpHeader: "name:s value:s",
  TcpSocket: "port:q host:s",
  GrpcAction: "port:i service:s",
  Lifecycle: "postStart>LifecycleHandler preStop>LifecycleHandler stopSignal:s",
  LifecycleHandler: "exec>ExecAction httpGet>HttpGet tcpSocket>TcpSocket sleep",
  SecurityContext:
    "capabilities>Capabilities privileged:b seLinuxOptions windowsOptions runAsUser:i runAsGroup:i runAsNonRoot:b readOnlyRootFilesystem:b allowPrivilegeEscalation:b procMount:s seccompProfile appArmorProfile",
  Capabilities: "add:s[] drop:s[]",
  Volume:
    "name:s hostPath>HostPath emptyDir secret>SecretVolume persistentVolumeClaim nfs downwardAPI>DownwardApi configMap>ConfigMapVolume projected>Projected csi ephemeral image iscsi gcePersistentDisk awsElasticBlockStore gitRepo glusterfs rbd flexVolume cinder cephfs flocker fc azureFile vsphereVolume quobyte azureDisk photonPersistentDisk portworxVolume scaleIO storageos",
  HostPath: "path:s type:s",
  SecretVolume: "secretName:s items>KeyToPath[] defaultMode:i optional:b",
  ConfigMapVolume: "name:s items>KeyToPath[] defaultMode:i optional:b",
  KeyToPath: "key:s path:s mode:i",
  DownwardApi: "items[] defaultMode:i",
  Projected: "sources>VolumeProjection[] defaultMode:i",
  VolumeProjection: "secret>SecretVolume2 downwardAPI>DownwardApi configMap>ConfigMapVolume serviceAccountToken>TokenProjection clusterTrustBundle",
  SecretVolume2: "name:s items>KeyToPath[] optional:b",
  TokenProjection: "audience:s expirationSeconds:i path:s",
  PodStatus: `observedGeneration:i phase:s ${conditions} message:s reason:s nominatedNodeName:s hostIP:s hostIPs>PodIp[] podIP:s podIPs>PodIp[ip] startTime initContainerStatuses[] containerStatuses[] qosClass:s ephemeralContainerStatuses[] resize:s resourceClaimStatuses[]`,
  PodIp: "ip:s",

  Deployment: `spec>DeploymentSpec status>WorkloadStatus`,
  DeploymentSpec: `replicas:i selector>LabelSelector! ${template} strategy>Strategy minReadySeconds:i revisionHistoryLimit:i paused:b progressDeadlineSeconds:i`,
  Strategy: "type:s rollingUpdate>RollingUpdate",
  RollingUpdate: "maxUnavailable:q maxSurge:q partition:i",
  WorkloadStatus: `observedGeneration:i replicas:i updatedReplicas:i readyReplicas:i availableReplicas:i unavailableReplicas:i terminatingReplicas:i fullyLabeledReplicas:i currentReplicas:i currentRevision:s updateRevision:s collisionCount:i currentNumberScheduled:i numberMisscheduled:i desiredNumberScheduled:i numberReady:i updatedNumberScheduled:i numberAvailable:i numberUnavailable:i ${conditions}`,
  ReplicaSet: "spec>ReplicaSetSpec status>WorkloadStatus",
  ReplicaSetSpec: `replicas:i minReadySeconds:i selector>LabelSelector! ${template}`,
  DaemonSet: "spec>DaemonSetSpec status>WorkloadStatus",
  DaemonSetSpec: `selector>LabelSelector! ${template} updateStrategy>Strategy minReadySeconds:i revisionHistoryLimit:i`,
  StatefulSet: "spec>StatefulSetSpec status>WorkloadStatus",
  StatefulSetSpec: `replicas:i selector>LabelSelector! ${template} volumeClaimTemplates[] serviceName:s podManagementPolicy:s updateStrategy>Strategy revisionHistoryLimit:i minReadySeconds:i persistentVolumeClaimRetentionPolicy ordinals`,
  Job: "spec>JobSpec status",
  JobSpec: `parallelism:i completions:i activeDeadlineSeconds:i podFailurePolicy successPolicy backoffLimit:i backoffLimitPerIndex:i maxFailedIndexes:i selector>LabelSelector! manualSelector:b ${template} ttlSecondsAfterFinished:i completionMode:s suspend:b podReplacementPolicy:s managedBy:s`,
  CronJob: "spec>CronJobSpec status",
  CronJobSpec:
    "schedule:s timeZone:s startingDeadlineSeconds:i concurrencyPolicy:s suspend:b jobTemplate>JobTemplate successfulJobsHistoryLimit:i failedJobsHistoryLimit:i",
  JobTemplate: "metadata>ObjectMeta spec>JobSpec",

  Service: "spec>ServiceSpec status>ServiceStatus",
  ServiceSpec:
    "ports>ServicePort[port,protocol] selector:m! clusterIP:s clusterIPs:s[] type:s externalIPs:s[] sessionAffinity:s loadBalancerIP:s loadBalancerSourceRanges:s[] externalName:s externalTrafficPolicy:s healthCheckNodePort:i publishNotReadyAddresses:b sessionAffinityConfig ipFamilies:s[] ipFamilyPolicy:s allocateLoadBalancerNodePorts:b loadBalancerClass:s internalTrafficPolicy:s trafficDistribution:s",
  ServicePort: "name:s protocol:s appProtocol:s port:i targetPort:q nodePort:i",
  ServiceStatus: `loadBalancer ${conditions}`,
  Endpoints: "subsets[]",
  EndpointSlice: "addressType:s endpoints>Endpoint[] ports>EndpointPort[]",
  Endpoint: "addresses:s[] conditions hostname:s targetRef>ObjectReference! deprecatedTopology nodeName:s zone:s hints",
  EndpointPort: "name:s protocol:s port:i appProtocol:s",
  ConfigMap: "data:m binaryData:m immutable:b",
  Secret: "data:m stringData:m type:s immutable:b",
  ServiceAccount: "secrets>ObjectReference[name] imagePullSecrets>LocalObjectReference[] automountServiceAccountToken:b",
  Lease: "spec>LeaseSpec",
  LeaseSpec: "holderIdentity:s leaseDurationSeconds:i acquireTime renewTime leaseTransitions:i strategy:s preferredHolder:s",
  Role: "rules>PolicyRule[]",
  ClusterRole: "rules>PolicyRule[] aggregationRule",
  PolicyRule: "verbs:s[] apiGroups:s[] resources:s[] resourceNames:s[] nonResourceURLs:s[]",
  RoleBinding: "subjects>Subject[] roleRef>RoleRef!",
  ClusterRoleBinding: "subjects>Subject[] roleRef>RoleRef!",
  Subject: "kind:s apiGroup:s name:s namespace:s",
  RoleRef: "apiGroup:s kind:s name:s",
  PodDisruptionBudget: "spec>PodDisruptionBudgetSpec status",
  PodDisruptionBudgetSpec: "minAvailable:q maxUnavailable:q selector>LabelSelector! unhealthyPodEvictionPolicy:s",
  HorizontalPodAutoscaler: "spec>HorizontalPodAutoscalerSpec status",
  HorizontalPodAutoscalerSpec: "scaleTargetRef minReplicas:i maxReplicas:i metrics[] behavior",
  NetworkPolicy: "spec>NetworkPolicySpec",
  NetworkPolicySpec: "podSelector>LabelSelector! policyTypes:s[] ingress[] egress[]",
  ValidatingWebhookConfiguration: "webhooks>Webhook[name]",
  MutatingWebhookConfiguration: "webhooks>Webhook[name]",
  Webhook:
    "name:s clientConfig rules[] failurePolicy:s matchPolicy:s namespaceSelector>LabelSelector! objectSelector>LabelSelector! sideEffects:s timeoutSeconds:i admissionReviewVersions:s[] reinvocationPolicy:s matchConditions[]",
  PriorityClass: "value:i globalDefault:b description:s preemptionPolicy:s",
};

const fieldPattern = /^(\w+)(?::([sibmq]))?(?:>(\w+))?(?:\[([^\]]*)\])?(!?)$/;

/** Nothing is deeper than the table: an unknown shape name is a mistake of ours, found by the table's own test. */
const parsed: ReadonlyMap<string, ReadonlyMap<string, FieldShape>> = new Map(
  Object.entries(shapeTexts).map(([name, text]) => [name, new Map(text.split(" ").map(parseField))]),
);

/** The fields of a shape, or nothing when the server knows no shape of that name (then everything is accepted). */
export function fieldsOf(shape: string | undefined): ReadonlyMap<string, FieldShape> | undefined {
  return shape === undefined ? undefined : parsed.get(shape);
}

export function hasShape(kind: string): boolean {
  return own(shapeTexts, kind) !== undefined;
}

/** Every shape name that some field refers to. */
export function referencedShapes(): ReadonlySet<string> {
  return new Set([...parsed.values()].flatMap((fields) => [...fields.values()].flatMap((field) => (field.shape === undefined ? [] : [field.shape]))));
}

function parseField(text: string): [string, FieldShape] {
  const [, name = text, scalar, shape, list, atomic] = fieldPattern.exec(text) ?? [];
  return [
    name,
    {
      atomic: atomic === "!",
      ...(scalar === undefined ? {} : { scalar: scalar as ScalarType }),
      ...(shape === undefined ? {} : { shape }),
      ...(list === undefined ? {} : { list: list === "" ? "atomic" : list === "*" ? "set" : list.split(",") }),
    },
  ];
}
