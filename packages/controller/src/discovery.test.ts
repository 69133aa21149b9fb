import { authorizationTypeUrl } from "@fairway/protocol";
import { createRegistry, silentLogger, systemClock, Watched } from "@fairway/runtime";
import type { XdsClientStatus } from "@fairway/xds";
import test from "ava";
import { followRejections } from "./discovery.ts";
import { createControllerMetrics } from "./metrics.ts";

function client(...rejected: readonly (readonly [string, string])[]): XdsClientStatus {
  const status = { sentNonce: "1", ackedNonce: "", sentAt: 0, lastError: "", rejected: new Map(rejected) };
  return {
    nodeId: "ztunnel~x",
    peer: { identity: { namespace: "fairway-system", serviceAccount: "ztunnel" }, node: "n1" },
    address: "10.0.0.1:1",
    connectedAt: 0,
    types: new Map([[authorizationTypeUrl, status]]),
  };
}

test("what several ztunnels reject is one rejection that counts them, and goes when they accept or leave", (t) => {
  const clients = new Watched<ReadonlyMap<string, XdsClientStatus>>(new Map());
  const metrics = createControllerMetrics(createRegistry(), systemClock);
  const { rejections } = followRejections(clients, { log: silentLogger, metrics });
  const heard: string[] = [];
  rejections.subscribe((events) => heard.push(...events.map(({ type, key }) => `${type} ${key}`)));
  clients.set(
    new Map([
      ["1", client(["shop/p", "no"])],
      ["2", client(["shop/p", "no"], ["shop/q", "neither"])],
    ]),
  );
  t.deepEqual(rejections.get("shop/p"), { name: "shop/p", message: "no", proxies: 2 });
  clients.set(
    new Map([
      ["1", client(["shop/p", "no"])],
      ["2", client(["shop/p", "no"])],
    ]),
  );
  clients.set(new Map([["1", client()]]));
  t.deepEqual([...rejections.list()], []);
  t.deepEqual(heard, ["added shop/p", "added shop/q", "deleted shop/q", "deleted shop/p"]);
});
