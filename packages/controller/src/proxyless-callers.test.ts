import type { Pod } from "@fairway/kube";
import { errorCode, messageOf } from "@fairway/runtime";
import { Metadata } from "@grpc/grpc-js";
import test from "ava";
import { namespace, pod } from "./fixtures.ts";
import { proxylessAuthorizer } from "./proxyless-callers.ts";

const enrolled = { "ambient.istio.io/redirection": "enabled" };
const client = (changes: Parameters<typeof pod>[1] = {}): Pod =>
  pod("client", { ...changes, metadata: { annotations: enrolled, ...changes.metadata }, spec: { nodeName: "n1", serviceAccountName: "web", ...changes.spec } });

function ask(pods: readonly Pod[], { address = "10.0.0.1:4711", metadata = { GENERATOR: "grpc" } }: { address?: string; metadata?: object } = {}) {
  const authorize = proxylessAuthorizer({
    podsAt: (ip) => pods.filter(({ status }) => status?.podIP === ip),
    namespace: (name) => namespace(name, name === "ambient" ? { "istio.io/dataplane-mode": "ambient" } : {}),
  });
  const node = { id: "n", metadata: { ...metadata } };
  return authorize({ metadata: new Metadata(), node, address }, { signal: new AbortController().signal });
}

test("an enrolled pod is known by its address, however the socket writes it", async (t) => {
  const peer = { identity: { namespace: "shop", serviceAccount: "web" }, node: "n1", scope: { kind: "grpc", namespace: "shop" } };
  for (const address of ["10.0.0.1:4711", "::ffff:10.0.0.1:4711", "[::ffff:10.0.0.1]:4711"]) t.deepEqual(await ask([client()], { address }), peer as never);
  const six = client({ status: { podIP: "fd00::1" } });
  for (const address of ["[fd00::1]:4711", "fd00::1:4711"]) t.deepEqual(await ask([six], { address }), peer as never);
  const inherited = client({ metadata: { namespace: "ambient", annotations: {} } });
  t.like(await ask([inherited]), { scope: { kind: "grpc", namespace: "ambient" } });
});

const refusals: readonly [string, Parameters<typeof ask>, RegExp][] = [
  ["a client that is no gRPC client", [[client()], { metadata: {} }], /GENERATOR/],
  ["an address of no pod", [[client()], { address: "10.9.9.9:1" }], /10\.9\.9\.9:1 is not the address of one running pod/],
  ["what is no address", [[client()], { address: "unix:/run/x" }], /not the address/],
  ["a pod outside the mesh", [[client({ metadata: { annotations: {} } })]], /shop\/client is not enrolled/],
  ["a pod of the host's network", [[client({ spec: { hostNetwork: true } })]], /not the address of one running pod/],
  ["a pod that has ended", [[client({ status: { phase: "Failed" } })]], /not the address of one running pod/],
  ["an address that two pods have", [[client(), client({ metadata: { name: "other" } })]], /not the address of one running pod/],
];
for (const [title, question, expected] of refusals) {
  test(`refused: ${title}`, async (t) => {
    const error = await t.throwsAsync(ask(...question));
    t.is(errorCode(error), "XDS_PERMISSION_DENIED");
    t.regex(messageOf(error), expected);
  });
}

test("the address of a pod that ended is the next pod's", async (t) => {
  const ended = client({ metadata: { name: "old" }, status: { phase: "Succeeded" } });
  t.like(await ask([ended, client()]), { identity: { serviceAccount: "web" } });
});
