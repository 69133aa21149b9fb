/** The Gateway API's routes and grants, as far as they are read here. The definitions are the user's to install and may be missing. */
import type { KubeObject, ResourceType } from "../collection.ts";
import type { Condition } from "./core.ts";

export interface RouteParentReference {
  group?: string;
  kind?: string;
  namespace?: string;
  name: string;
  sectionName?: string;
  port?: number;
}

export interface RouteBackendReference {
  group?: string;
  kind?: string;
  namespace?: string;
  name: string;
  port?: number;
}

export interface RouteHeaderFilter {
  set?: { name: string; value: string }[];
  add?: { name: string; value: string }[];
  remove?: string[];
}

export interface RoutePathModifier {
  type: string;
  replaceFullPath?: string;
  replacePrefixMatch?: string;
}

export interface RouteFilter {
  type: string;
  requestHeaderModifier?: RouteHeaderFilter;
  responseHeaderModifier?: RouteHeaderFilter;
  requestMirror?: { backendRef: RouteBackendReference; percent?: number; fraction?: { numerator: number; denominator?: number } };
  requestRedirect?: { scheme?: string; hostname?: string; port?: number; path?: RoutePathModifier; statusCode?: number };
  urlRewrite?: { hostname?: string; path?: RoutePathModifier };
}

export interface WeightedBackendReference extends RouteBackendReference {
  weight?: number;
  filters?: RouteFilter[];
}

export interface RouteValueMatch {
  type?: string;
  name: string;
  value: string;
}

export interface HttpRouteMatch {
  path?: { type?: string; value?: string };
  headers?: RouteValueMatch[];
  queryParams?: RouteValueMatch[];
  method?: string;
}

export interface HttpRouteRule {
  name?: string;
  matches?: HttpRouteMatch[];
  filters?: RouteFilter[];
  backendRefs?: WeightedBackendReference[];
  timeouts?: { request?: string; backendRequest?: string };
  retry?: { codes?: number[]; attempts?: number; backoff?: string };
}

export interface GrpcRouteMatch {
  method?: { type?: string; service?: string; method?: string };
  headers?: RouteValueMatch[];
}

export interface GrpcRouteRule {
  name?: string;
  matches?: GrpcRouteMatch[];
  filters?: RouteFilter[];
  backendRefs?: WeightedBackendReference[];
}

/** What one controller says of one parent of a route. */
export interface RouteParentStatus {
  parentRef: RouteParentReference;
  controllerName: string;
  conditions: Condition[];
}

export interface RouteObject<Rule> extends KubeObject {
  spec?: { parentRefs?: RouteParentReference[]; hostnames?: string[]; rules?: Rule[] };
  status?: { parents?: RouteParentStatus[] };
}

export type HttpRouteObject = RouteObject<HttpRouteRule>;
export type GrpcRouteObject = RouteObject<GrpcRouteRule>;

/** Lets objects of other namespaces refer to objects of this one. */
export interface ReferenceGrantObject extends KubeObject {
  spec?: {
    from?: { group: string; kind: string; namespace: string }[];
    to?: { group: string; kind: string; name?: string }[];
  };
}

const gateway = <T extends KubeObject>(plural: string, kind: string, version: string): ResourceType<T> => ({
  group: "gateway.networking.k8s.io",
  version,
  plural,
  kind,
  namespaced: true,
});

export const httpRoutes: ResourceType<HttpRouteObject> = gateway("httproutes", "HTTPRoute", "v1");
export const grpcRoutes: ResourceType<GrpcRouteObject> = gateway("grpcroutes", "GRPCRoute", "v1");
/** Not yet v1 in most installed versions of the Gateway API. */
export const referenceGrants: ResourceType<ReferenceGrantObject> = gateway("referencegrants", "ReferenceGrant", "v1beta1");
