/** How a node proxy introduces itself to the control plane (ztunnel contract 3.2). */

/** What the server is told of the client. */
export interface NodeIdentity {
  readonly id: string;
  readonly metadata: Readonly<Record<string, unknown>>;
}

export interface ZtunnelNode {
  readonly instanceIp: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly nodeName: string;
  /** `ISTIO_META_*` without the prefix, after them `ISTIO_METAJSON_*`; they may replace the standard keys. */
  readonly metadata?: Readonly<Record<string, unknown>>;
}

export function ztunnelNode({ instanceIp, podName, podNamespace, nodeName, metadata = {} }: ZtunnelNode): NodeIdentity {
  return {
    id: `ztunnel~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    metadata: { NAME: podName, NAMESPACE: podNamespace, INSTANCE_IPS: instanceIp, NODE_NAME: nodeName, ...metadata },
  };
}
