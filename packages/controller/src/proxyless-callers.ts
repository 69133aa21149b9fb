/**
 * Which proxyless gRPC clients are served. They know no credentials towards a control plane, so that the address of their pod has to do:
 * nobody else can complete a connection from it (waypoint contract 3.5).
 */
import type { Namespace, Pod } from "@fairway/kube";
import { type IpAddress, tryParseIp } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import type { XdsPeer, XdsServerOptions } from "@fairway/xds";
import { isEnrolled } from "./node-authorization.ts";

export interface ProxylessFacts {
  /** All pods with this address. */
  podsAt(ip: IpAddress): readonly Pod[];
  namespace(name: string): Namespace | undefined;
}

/** Node metadata by which a gRPC client says what it is, as the reference's bootstrap writes it (waypoint contract 3.7). */
const generator = "grpc";

export function proxylessAuthorizer(facts: ProxylessFacts): XdsServerOptions["authorize"] {
  return async ({ node, address }): Promise<XdsPeer> => {
    if (node.metadata["GENERATOR"] !== generator) throw denied(`this port serves gRPC clients only, whose node says GENERATOR: ${generator}`);
    const ip = addressOf(address);
    const pods = ip === undefined ? [] : facts.podsAt(ip).filter(mayAsk);
    const [pod, other] = pods;
    if (pod === undefined || other !== undefined) throw denied(`${address} is not the address of one running pod`);
    const { namespace = "", name } = pod.metadata;
    if (!isEnrolled(pod, facts.namespace(namespace))) throw denied(`pod ${namespace}/${name} is not enrolled`);
    return {
      identity: { namespace, serviceAccount: pod.spec?.serviceAccountName ?? "default" },
      node: pod.spec?.nodeName,
      scope: { kind: "grpc", namespace },
    };
  };
}

/** Has a network of its own and has not ended: the address of one that ended may be another pod's already. */
function mayAsk({ spec, status }: Pod): boolean {
  return spec?.hostNetwork !== true && status?.phase !== "Succeeded" && status?.phase !== "Failed";
}

/** Of `10.0.0.1:1234` or `[fd00::1]:1234`. */
function addressOf(socket: string): IpAddress | undefined {
  const host = socket.slice(0, Math.max(0, socket.lastIndexOf(":")));
  return tryParseIp(host.startsWith("[") && host.endsWith("]") ? host.slice(1, -1) : host);
}

function denied(why: string): MeshError {
  return new MeshError("XDS_PERMISSION_DENIED", `the client may not ask for services: ${why}`);
}
