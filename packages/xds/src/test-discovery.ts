/** A discovery server of ours on loopback that tests stop and start, and views of it. */
import type { Snapshot } from "@fairway/model";
import { addressTypeUrl, authorizationTypeUrl } from "@fairway/protocol";
import { silentLogger, systemClock, Watched } from "@fairway/runtime";
import type { ExecutionContext } from "ava";
import type { XdsPeer } from "./mesh-source.ts";
import { createXdsMeshView, type XdsMeshView, type XdsMeshViewOptions } from "./mesh-view.ts";
import { type NodeIdentity, ztunnelNode } from "./node.ts";
import { MutableResourceSource } from "./resource-source.ts";
import { createXdsServer, type XdsServer, type XdsServerOptions } from "./server.ts";
import { accessTo, listen, type TestServer } from "./test-server.ts";

export const node: NodeIdentity = ztunnelNode({
  instanceIp: "10.0.0.1",
  podName: "ztunnel-x",
  podNamespace: "istio-system",
  nodeName: "node-1",
  metadata: { CLUSTER_ID: "c1" },
});
/** For what should take no time. */
export const soon = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(60_000) });

export const peer: XdsPeer = { identity: { namespace: "istio-system", serviceAccount: "ztunnel" }, node: "node-1", scope: { kind: "node" } };

export async function until(view: XdsMeshView, accept: (snapshot: Snapshot) => boolean): Promise<void> {
  await view.changes.until(({ snapshot }) => accept(snapshot), soon());
}

export interface TestDiscovery {
  readonly policies: MutableResourceSource;
  readonly addresses: MutableResourceSource;
  readonly target: string;
  readonly server: XdsServer;
  stop(): Promise<void>;
  restart(): Promise<void>;
  connect(change?: Partial<XdsMeshViewOptions>): XdsMeshView;
}

/** A server with two sources that can be stopped and started again on its port. */
export async function start(t: ExecutionContext, options: Partial<XdsServerOptions> = {}): Promise<TestDiscovery> {
  const policies = new MutableResourceSource(authorizationTypeUrl);
  const addresses = new MutableResourceSource(addressTypeUrl);
  let running: { xds: XdsServer; server: TestServer } | undefined;
  const open = async (port?: number): Promise<{ xds: XdsServer; server: TestServer }> => {
    const xds = createXdsServer({
      openScope: () => ({ sources: [policies, addresses], [Symbol.dispose]: () => undefined }),
      authorize: async () => peer,
      clock: systemClock,
      log: silentLogger,
      ready: new Watched(true),
      ...options,
    });
    return { xds, server: await listen(xds.service, port) };
  };
  const first = await open();
  running = first;
  const { port, target } = first.server;
  const stop = async (): Promise<void> => {
    running?.server.stop();
    await running?.xds[Symbol.asyncDispose]();
    running = undefined;
  };
  t.teardown(stop);
  return {
    policies,
    addresses,
    target,
    get server() {
      return running?.xds ?? first.xds;
    },
    stop,
    async restart() {
      running = await open(port);
    },
    connect(change: Partial<XdsMeshViewOptions> = {}): XdsMeshView {
      const view = createXdsMeshView({ access: accessTo(target), node, nodeName: "node-1", clock: systemClock, log: silentLogger, ...change });
      t.teardown(() => view[Symbol.asyncDispose]());
      return view;
    },
  };
}
