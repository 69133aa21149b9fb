/** The mesh as derived collections: each kind of resource from the inputs it depends on, wired in one place. */
import {
  type AuthorizationPolicyObject,
  type Collection,
  type ConditionWish,
  type Derived,
  derive,
  deriveMany,
  deriveOne,
  type Fetch,
  filter,
  index,
  join,
  type Service as KubeService,
  type Namespace,
  type PeerAuthentication,
  type Pod,
} from "@fairway/kube";
import { type AuthorizationPolicy, type NetworkId, networkId, type PolicyKey, policyKey, type Service, type Workload } from "@fairway/model";
import { type DestinationRuleReading, readDestinationRule } from "./destination-rules.ts";
import { deriveEnforcement, type Enforcement } from "./enforcement.ts";
import { deriveGuards } from "./guarded-pods.ts";
import type { Inputs } from "./inputs.ts";
import { isOurRevision, label, matchesLabels, noLabels } from "./labels.ts";
import { nodeLocality } from "./locality.ts";
import { complaintAbout, convertPeerAuthentication, type PeerAuthenticationScope, peerAuthenticationKeys, staticStrictPolicy } from "./peer-authentications.ts";
import { convertPolicy, hasTargets, type PolicyOutcome } from "./policies.ts";
import { convertService, isSelectorless, selects } from "./services.ts";
import type { MeshSettings } from "./settings.ts";
import { derivePrograms, type Programs } from "./waypoint-programs.ts";
import { type Binding, isGatewayService, readWaypoint, resolveBinding, type Waypoint, type WaypointReference } from "./waypoints.ts";
import { convertPod, convertSlice, mayHaveAddresses, podAddresses, sliceNames, slicePods } from "./workloads.ts";

export interface Mesh {
  /** Pods, and endpoints that are not pods. */
  readonly workloads: Collection<Workload>;
  readonly services: Collection<Service>;
  readonly policies: Collection<AuthorizationPolicy>;
  readonly waypoints: Collection<Waypoint>;
  /** The waypoint of each Service, by the Service's key; what its status condition says. */
  readonly serviceBindings: Collection<Binding>;
  /** Services by the key of their Service object. */
  readonly meshServices: Collection<Service>;
  /** What became of each AuthorizationPolicy that ztunnel enforces, by its key. */
  readonly policyOutcomes: Collection<PolicyOutcome>;
  /** What is wrong with a PeerAuthentication, by its key; those that can be read whole have none. */
  readonly peerAuthenticationComplaints: Collection<ConditionWish>;
  /** Policies that waypoints enforce. */
  readonly targetedPolicies: Collection<AuthorizationPolicyObject>;
  /** What waypoints are told, and what came of the objects that say it. */
  readonly programs: Programs;
  readonly enforcement: Enforcement;
  readonly destinationRules: Collection<DestinationRuleReading>;
}

const only = "mesh";

export function deriveMesh(inputs: Inputs, settings: MeshSettings): Mesh {
  const { pods, services, nodes, namespaces, endpointSlices, gateways, gatewayClasses } = inputs;
  const network = deriveOne<NetworkId>(only, (fetch) => {
    const value = fetch.get(namespaces, settings.rootNamespace)?.metadata.labels?.[label.network];
    return value === undefined ? settings.network : networkId(value);
  });
  const networkOf = (fetch: Fetch): NetworkId => fetch.get(network, only) ?? settings.network;
  const localities = derive(nodes, nodeLocality);
  // Labels and annotations only: a namespace's status changes concern nobody here.
  const namespaceFacts = derive<Namespace, Namespace>(namespaces, ({ metadata: { name, labels = {}, annotations = {} } }) => ({
    metadata: { name, labels, annotations },
  }));

  const waypoints = derive(gateways, (gateway, fetch) => {
    const gatewayClass = fetch.get(gatewayClasses, gateway.spec?.gatewayClassName ?? "");
    return readWaypoint(gateway, gatewayClass, { network: networkOf(fetch), clusterDomain: settings.clusterDomain });
  });
  const waypointsByAccountNamespace = index(waypoints, ({ namespace, forServiceAccount }) => (forServiceAccount === undefined ? [] : [namespace]));
  const podsByNamespace = index(pods, ({ metadata }) => [metadata.namespace ?? ""]);
  const servicesByLabel = index(services, selectorLabel);
  const slicesByPod = index(endpointSlices, slicePods);

  const bindingOf = (
    fetch: Fetch,
    question: { kind: "service" | "workload"; namespace: string; labels: Record<string, string>; serviceAccount: () => string | undefined },
  ): Binding => {
    const forAccounts = fetch.lookup(waypointsByAccountNamespace, question.namespace);
    return resolveBinding({
      ...question,
      serviceAccount: forAccounts.length === 0 ? undefined : question.serviceAccount(),
      namespaceLabels: fetch.get(namespaceFacts, question.namespace)?.metadata.labels ?? noLabels,
      find: ({ namespace, name }: WaypointReference) => fetch.get(waypoints, `${namespace}/${name}`),
      findForServiceAccount: (_namespace, account) => forAccounts.find(({ forServiceAccount }) => forServiceAccount === account),
      clusterDomain: settings.clusterDomain,
    });
  };

  const serviceBindings = derive<KubeService, Binding>(services, (service, fetch) => {
    if (isGatewayService(service.metadata)) return { kind: "none" };
    const namespace = service.metadata.namespace ?? "";
    const serviceAccount = (): string | undefined =>
      sharedAccount(fetch.lookup(podsByNamespace, namespace).filter(({ metadata }) => selects(service, metadata.labels ?? noLabels)));
    return bindingOf(fetch, { kind: "service", namespace, labels: service.metadata.labels ?? {}, serviceAccount });
  });

  const meshServices = derive(services, (service, fetch) =>
    convertService(service, {
      settings,
      network: networkOf(fetch),
      namespace: fetch.get(namespaceFacts, service.metadata.namespace ?? ""),
      binding: fetch.get(serviceBindings, keyIn(service.metadata.namespace, service.metadata.name)) ?? { kind: "none" },
    }),
  );

  const ourPolicies = filter(inputs.authorizationPolicies, ({ metadata }) => isOurRevision(metadata, settings.revision));
  const policyOutcomes = derive(ourPolicies, (object) => (hasTargets(object) ? undefined : convertPolicy(object, settings)));
  const selectorPolicies = index(policyOutcomes, ({ namespace, selector, policy }) => (selector === undefined || policy === undefined ? [] : [namespace]));
  const peerAuthentications = filter(inputs.peerAuthentications, ({ metadata }) => isOurRevision(metadata, settings.revision));
  const peerAuthenticationsByNamespace = index(peerAuthentications, ({ metadata }) => [metadata.namespace ?? ""]);
  const peerScope = (fetch: Fetch, namespace: string): PeerAuthenticationScope => ({
    rootNamespace: settings.rootNamespace,
    namespace,
    inRoot: fetch.lookup(peerAuthenticationsByNamespace, settings.rootNamespace),
    inNamespace: fetch.lookup(peerAuthenticationsByNamespace, namespace),
  });

  const ownGatewayOf = (fetch: Fetch, { metadata: { namespace = "", labels = {} } }: Pod): Waypoint | undefined => {
    const ofGateway = labels[label.gatewayName];
    return ofGateway === undefined ? undefined : fetch.get(waypoints, `${namespace}/${ofGateway}`);
  };
  const podBindings = derive<Pod, Binding>(pods, (pod, fetch) => {
    // Asked first, so that a pod without addresses depends on nothing.
    if (!mayHaveAddresses(pod)) return undefined;
    if (ownGatewayOf(fetch, pod) !== undefined) return { kind: "none" };
    const { namespace = "", labels = {} } = pod.metadata;
    return bindingOf(fetch, { kind: "workload", namespace, labels, serviceAccount: () => pod.spec?.serviceAccountName });
  });

  // Keys only, so that a service that changes otherwise leaves the pods' membership alone.
  const podServices = derive(pods, (pod, fetch): readonly string[] | undefined => {
    if (!mayHaveAddresses(pod)) return undefined;
    const { namespace = "", name, labels = {}, uid } = pod.metadata;
    const selecting = Object.entries(labels)
      .flatMap(([key, value]) => fetch.lookup(servicesByLabel, labelIn(namespace, key, value)))
      .filter((service) => selects(service, labels));
    const naming = fetch.lookup(slicesByPod, `${namespace}/${name}`).flatMap((slice) => {
      if (!sliceNames(slice, { name, uid })) return [];
      const service = fetch.get(services, keyIn(slice.metadata.namespace, slice.metadata.labels?.[label.serviceName] ?? ""));
      return service !== undefined && isSelectorless(service) ? [service] : [];
    });
    return [...new Set([...selecting, ...naming].map(({ metadata }) => keyIn(metadata.namespace, metadata.name)))].sort();
  });

  const targetedPolicies = filter(ourPolicies, hasTargets);
  const targetedAuthentications = filter(inputs.requestAuthentications, (object) => isOurRevision(object.metadata, settings.revision) && hasTargets(object));
  const enforcement = deriveEnforcement(targetedPolicies, targetedAuthentications, settings);
  const podGuards = deriveGuards({ inputs, settings, waypoints, serviceBindings, podBindings, podServices, namespaceFacts, enforcement });

  // On their own, so that a changed policy is matched against labels only, and recomputes the workloads that it concerns.
  const podPolicies = derive(pods, ({ metadata: { namespace = "", name, labels = {} } }, fetch): readonly PolicyKey[] => {
    const candidates = [
      ...fetch.lookup(selectorPolicies, namespace),
      ...(namespace === settings.rootNamespace ? [] : fetch.lookup(selectorPolicies, settings.rootNamespace)),
    ];
    const selected = candidates.filter(({ selector }) => selector !== undefined && matchesLabels(selector, labels)).map(({ key }) => key);
    const guard = fetch.get(podGuards, keyIn(namespace, name));
    const guarding = guard === undefined ? [] : [policyKey(guard.namespace, guard.name)];
    return [...selected, ...guarding, ...peerAuthenticationKeys(labels, peerScope(fetch, namespace))].sort();
  });

  const podWorkloads = derive(pods, (pod, fetch) => {
    if (podAddresses(pod).length === 0) return undefined;
    const { namespace = "", name } = pod.metadata;
    return convertPod(pod, {
      settings,
      network: networkOf(fetch),
      locality: fetch.get(localities, pod.spec?.nodeName ?? ""),
      services: (fetch.get(podServices, keyIn(namespace, name)) ?? []).flatMap((key) => fetch.get(services, key) ?? []),
      binding: fetch.get(podBindings, keyIn(namespace, name)) ?? { kind: "none" },
      applicationTunnel: ownGatewayOf(fetch, pod)?.applicationTunnel,
      authorizationPolicies: fetch.get(podPolicies, keyIn(namespace, name)) ?? [],
    });
  });

  const policies = join<AuthorizationPolicy>(
    derive(policyOutcomes, ({ policy }) => policy),
    staticPolicies(peerAuthentications, settings),
    deriveMany(peerAuthentications, (object, fetch) => {
      const policy = convertPeerAuthentication(object, peerScope(fetch, object.metadata.namespace ?? ""));
      return policy === undefined ? [] : [[policyKey(policy.namespace, policy.name), policy] as const];
    }),
    deriveMany(podGuards, (policy) => [[policyKey(policy.namespace, policy.name), policy] as const]),
  );

  const sliceWorkloads = deriveMany(endpointSlices, (slice, fetch) => {
    const service = fetch.get(services, keyIn(slice.metadata.namespace, slice.metadata.labels?.[label.serviceName] ?? ""));
    return convertSlice(slice, service, { settings, network: networkOf(fetch) }).map((workload) => [workload.uid, workload] as const);
  });

  const workloads = join<Workload>(podWorkloads, sliceWorkloads);
  const destinationRules = derive(
    filter(inputs.destinationRules, ({ metadata }) => isOurRevision(metadata, settings.revision)),
    (object) => readDestinationRule(object, settings),
  );
  const programs = derivePrograms({
    inputs,
    settings,
    enforcement,
    destinationRules,
    waypoints,
    serviceBindings,
    meshServices,
    podBindings,
    podWorkloads,
    workloads,
  });

  return {
    workloads,
    services: meshServices,
    meshServices,
    policies,
    waypoints,
    serviceBindings,
    policyOutcomes,
    peerAuthenticationComplaints: derive(peerAuthentications, complaintAbout),
    targetedPolicies,
    programs,
    enforcement,
    destinationRules,
  };
}

/** The static policy, while there is any PeerAuthentication. */
function staticPolicies(peerAuthentications: Collection<PeerAuthentication>, { rootNamespace }: MeshSettings): Derived<AuthorizationPolicy> {
  const policy = staticStrictPolicy(rootNamespace);
  return deriveOne(policyKey(rootNamespace, policy.name), (fetch) => {
    for (const _any of fetch.all(peerAuthentications)) return policy;
    return undefined;
  });
}

/** One label that a service's pods must carry, so that a change of the service looks only at pods that carry it. */
function selectorLabel({ metadata, spec }: KubeService): readonly string[] {
  const [first] = Object.entries(spec?.selector ?? noLabels);
  return first === undefined ? [] : [labelIn(metadata.namespace ?? "", ...first)];
}

function labelIn(namespace: string, key: string, value: string): string {
  return `${namespace}/${key}=${value}`;
}

/** The one service account of all these pods; undefined when there are several, or no pods. */
function sharedAccount(pods: readonly Pod[]): string | undefined {
  const accounts = new Set(pods.map(({ spec }) => spec?.serviceAccountName ?? "default"));
  return accounts.size === 1 ? [...accounts][0] : undefined;
}

function keyIn(namespace: string | undefined, name: string): string {
  return `${namespace ?? ""}/${name}`;
}
