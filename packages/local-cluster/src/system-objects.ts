/** What the cluster installs into itself: the API's endpoints, and its DNS as a deployment like any other. */
import type { KubeClient, KubeObject, ResourceType } from "@fairway/kube";
import { apiServerUnderlayAddress, apiServerUnderlayPort, clusterDnsAddress } from "./network/address-plan.ts";
import { deployments, endpointSlices, serviceAccounts, services } from "./resources.ts";

export const dnsImage = "fairway/cluster-dns";
const dnsLabels = { "k8s-app": "kube-dns" };
const dnsName = "cluster-dns";

const clusterRoles: ResourceType = { group: "rbac.authorization.k8s.io", version: "v1", plural: "clusterroles", kind: "ClusterRole", namespaced: false };
const clusterRoleBindings: ResourceType = { ...clusterRoles, plural: "clusterrolebindings", kind: "ClusterRoleBinding" };

/** Creates them all. Throws KUBE_… errors. */
export async function installSystem(client: KubeClient, upstream: string | undefined): Promise<void> {
  const namespace = "kube-system";
  const role = `system:${dnsName}`;
  const apiEndpoints = {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name: "kubernetes", namespace: "default", labels: { "kubernetes.io/service-name": "kubernetes" } },
    addressType: "IPv4",
    endpoints: [{ addresses: [apiServerUnderlayAddress.ipv4], conditions: { ready: true } }],
    ports: [{ name: "https", port: apiServerUnderlayPort, protocol: "TCP" }],
  };
  await Promise.all([
    client.create(endpointSlices, apiEndpoints),
    client.create(serviceAccounts, { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: dnsName, namespace } }),
    client.create(
      clusterRoles,
      asObject({
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRole",
        metadata: { name: role },
        rules: [
          { apiGroups: [""], resources: ["services"], verbs: ["get", "list", "watch"] },
          { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["get", "list", "watch"] },
        ],
      }),
    ),
    client.create(
      clusterRoleBindings,
      asObject({
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRoleBinding",
        metadata: { name: role },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role },
        subjects: [{ kind: "ServiceAccount", name: dnsName, namespace }],
      }),
    ),
    client.create(services, {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "kube-dns", namespace, labels: { ...dnsLabels, "kubernetes.io/name": "CoreDNS" } },
      spec: {
        clusterIP: clusterDnsAddress,
        selector: dnsLabels,
        ports: [
          { name: "dns", port: 53, protocol: "UDP", targetPort: 53 },
          { name: "dns-tcp", port: 53, protocol: "TCP", targetPort: 53 },
        ],
      },
    }),
  ]);
  await client.create(deployments, {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: dnsName, namespace, labels: dnsLabels },
    spec: {
      replicas: 1,
      selector: { matchLabels: dnsLabels },
      template: {
        metadata: { labels: dnsLabels },
        spec: {
          serviceAccountName: dnsName,
          dnsPolicy: "Default",
          terminationGracePeriodSeconds: 2,
          containers: [
            {
              name: "dns",
              image: dnsImage,
              env: [{ name: "DNS_UPSTREAM", value: upstream ?? "" }],
              ports: [
                { name: "dns", containerPort: 53, protocol: "UDP" },
                { name: "dns-tcp", containerPort: 53, protocol: "TCP" },
              ],
              readinessProbe: { httpGet: { path: "/healthz/ready", port: 8181 }, periodSeconds: 5 },
              securityContext: { readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"], add: ["NET_BIND_SERVICE"] } },
            },
          ],
        },
      },
    },
  });
}

function asObject(object: KubeObject & Record<string, unknown>): KubeObject {
  return object;
}
