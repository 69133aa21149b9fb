/** gateway.networking.k8s.io/v1, as far as it is read here. The definitions are the user's to install and may be missing. */
import type { KubeObject, ResourceType } from "../collection.ts";
import type { LabelSelector } from "./apps.ts";
import type { Condition } from "./core.ts";

export interface GatewayListener {
  name: string;
  port: number;
  protocol: string;
  hostname?: string;
  allowedRoutes?: { namespaces?: { from?: string; selector?: LabelSelector }; kinds?: { group?: string; kind: string }[] };
  tls?: Record<string, unknown>;
}

export interface GatewayListenerStatus {
  name: string;
  attachedRoutes: number;
  supportedKinds?: { group?: string; kind: string }[];
  conditions: Condition[];
}

export interface GatewayObject extends KubeObject {
  spec?: {
    gatewayClassName: string;
    listeners?: GatewayListener[];
    addresses?: { type?: string; value?: string }[];
    infrastructure?: { labels?: Record<string, string>; annotations?: Record<string, string>; parametersRef?: { group: string; kind: string; name: string } };
  };
  status?: { addresses?: { type?: string; value: string }[]; conditions?: Condition[]; listeners?: GatewayListenerStatus[] };
}

export interface GatewayClass extends KubeObject {
  spec?: { controllerName: string; parametersRef?: { group: string; kind: string; name: string; namespace?: string } };
  status?: { conditions?: Condition[] };
}

const gateway = <T extends KubeObject>(plural: string, kind: string, namespaced: boolean): ResourceType<T> => ({
  group: "gateway.networking.k8s.io",
  version: "v1",
  plural,
  kind,
  namespaced,
});

export const gateways: ResourceType<GatewayObject> = gateway("gateways", "Gateway", true);
export const gatewayClasses: ResourceType<GatewayClass> = gateway("gatewayclasses", "GatewayClass", false);
