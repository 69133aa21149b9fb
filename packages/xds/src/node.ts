/** How a proxy introduces itself to the control plane (ztunnel contract 3.2). */

/** What the server is told of the client. */
export interface NodeIdentity {
  readonly id: string;
  readonly metadata: Readonly<Record<string, unknown>>;
}

export interface ProxyNode {
  readonly instanceIp: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly nodeName: string;
  /** `ISTIO_META_*` without the prefix, after them `ISTIO_METAJSON_*`; they may replace the standard keys. */
  readonly metadata?: Readonly<Record<string, unknown>>;
}

export function ztunnelNode(node: ProxyNode): NodeIdentity {
  return proxyNode("ztunnel", node);
}

export function waypointNode(node: ProxyNode): NodeIdentity {
  return proxyNode("waypoint", node);
}

function proxyNode(type: string, { instanceIp, podName, podNamespace, nodeName, metadata = {} }: ProxyNode): NodeIdentity {
  return {
    id: `${type}~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    metadata: { NAME: podName, NAMESPACE: podNamespace, INSTANCE_IPS: instanceIp, NODE_NAME: nodeName, ...metadata },
  };
}
