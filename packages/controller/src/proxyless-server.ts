/**
 * Discovery for proxyless gRPC clients: a port without TLS of its own, because their library knows no credentials towards a control
 * plane; the mesh protects what goes to it. It serves nothing but names of services (waypoint contract 3).
 */
import { index } from "@fairway/kube";
import { type IpAddress, tryParseIp } from "@fairway/model";
import { AggregatedDiscoveryServiceService } from "@fairway/protocol";
import { type Clock, type Logger, type Watch, Watched } from "@fairway/runtime";
import { createXdsServer, type XdsClientStatus, type XdsServerObserver } from "@fairway/xds";
import { ServerCredentials } from "@grpc/grpc-js";
import { bindGrpc, createGrpcServer } from "./grpc-server.ts";
import type { Inputs } from "./inputs.ts";
import type { Mesh } from "./mesh.ts";
import { proxylessAuthorizer } from "./proxyless-callers.ts";
import { ProxylessMesh } from "./proxyless-mesh.ts";
import { deriveProxylessTables } from "./proxyless-routes.ts";
import { maxProxylessNames, openProxylessScope } from "./proxyless-scope.ts";
import type { MeshSettings } from "./settings.ts";

export interface ProxylessServerOptions {
  readonly host: string;
  readonly port: number;
  readonly inputs: Pick<Inputs, "pods" | "services" | "namespaces">;
  readonly mesh: Mesh;
  readonly settings: MeshSettings;
  readonly observer: XdsServerObserver;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface ProxylessServer extends AsyncDisposable {
  readonly port: number;
  readonly clients: Watch<ReadonlyMap<string, XdsClientStatus>>;
}

/** A client names services; even a thousand names are a small message. */
const maxRequestBytes = 256 * 1024;

export async function serveProxyless({ host, port, inputs, mesh, settings, observer, clock, log }: ProxylessServerOptions): Promise<ProxylessServer> {
  await using opening = new AsyncDisposableStack();
  const tables = deriveProxylessTables({
    services: inputs.services,
    meshServices: mesh.services,
    routes: mesh.programs.routes,
    backendFacts: mesh.programs.backendFacts,
  });
  const { services, pods } = inputs;
  const proxyless = opening.use(new ProxylessMesh({ services, pods, meshServices: mesh.services, workloads: mesh.workloads, tables }));
  const podsByIp = index(pods, ({ status }) => (status?.podIPs ?? [{ ip: status?.podIP ?? "" }]).flatMap(({ ip = "" }) => tryParseIp(ip) ?? []));
  const xds = opening.use(
    createXdsServer({
      openScope: (scope) => openProxylessScope(proxyless, { namespace: scope.kind === "grpc" ? scope.namespace : "", clusterDomain: settings.clusterDomain }),
      authorize: proxylessAuthorizer({ podsAt: (ip: IpAddress) => podsByIp.lookup(ip), namespace: (name) => inputs.namespaces.get(name) }),
      clock,
      log,
      ready: new Watched(true),
      observer,
      limits: { maxNamesPerType: maxProxylessNames },
    }),
  );
  const grpc = createGrpcServer({ "grpc.max_receive_message_length": maxRequestBytes });
  grpc.addService(AggregatedDiscoveryServiceService, xds.service);
  const bound = await bindGrpc(grpc, { host, port }, ServerCredentials.createInsecure());
  opening.defer(() => grpc.forceShutdown());
  const stack = opening.move();
  return { port: bound, clients: xds.clients, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}
