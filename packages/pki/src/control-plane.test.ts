/** With which servers a proxy speaks at all when it looks for its control plane. */
import { once } from "node:events";
import { createServer, type TlsOptions } from "node:tls";
import { parseSpiffeId } from "@fairway/model";
import { systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { Authority } from "./authority.ts";
import { type ControlPlaneOptions, controlPlane } from "./control-plane.ts";
import { grpcCaClient } from "./grpc-ca-client.ts";
import { postQuantumGroup } from "./tls-context.ts";

const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
const identity = parseSpiffeId("spiffe://cluster.local/ns/default/sa/alice");
const { signal } = new AbortController();

const cases: readonly [string, Partial<ControlPlaneOptions>, TlsOptions, "secured" | "refused"][] = [
  ["TLS 1.3 is spoken", {}, {}, "secured"],
  ["a control plane that speaks only TLS 1.2 is refused", {}, { maxVersion: "TLSv1.2" }, "refused"],
  ["a control plane that speaks only TLS 1.2 is spoken with when that was allowed", { allowTls12: true }, { maxVersion: "TLSv1.2" }, "secured"],
  ["a control plane with the post-quantum group is spoken with when no other is allowed", { groups: postQuantumGroup }, {}, "secured"],
  ["a control plane without the post-quantum group is refused when no other is allowed", { groups: postQuantumGroup }, { ecdhCurve: "X25519" }, "refused"],
];
for (const [what, client, server, expected] of cases) test(what, async (t) => t.is(await met(t, client, server), expected));

test("a silent control plane is asked by PING every 30 seconds, and given up after 10 more", (t) => {
  const { channelOptions } = controlPlane({ address: "istiod:15012", roots: { kind: "system" }, token: { kind: "none" }, clusterId: "Kubernetes" });
  t.is(channelOptions["grpc.keepalive_time_ms"], 30_000);
  t.is(channelOptions["grpc.keepalive_timeout_ms"], 10_000);
  t.is(channelOptions["grpc.keepalive_permit_without_calls"], 1, "between calls too");
});

/** How a server of these options sees a client of those. */
async function met(t: ExecutionContext, client: Partial<ControlPlaneOptions>, server: TlsOptions): Promise<"secured" | "refused"> {
  const { key, cert } = authority.signServer({ dnsNames: [], ips: ["127.0.0.1"] });
  const listener = createServer({ key, cert, ALPNProtocols: ["h2"], ...server }, (socket) => void socket.on("error", () => undefined).destroy());
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  t.teardown(() => void listener.close());
  const address = listener.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  const outcome = Promise.race([
    once(listener, "secureConnection").then(() => "secured" as const),
    once(listener, "tlsClientError").then(() => "refused" as const),
  ]);
  const ca = grpcCaClient({
    controlPlane: controlPlane({
      address: `https://127.0.0.1:${port}`,
      roots: { kind: "pem", pem: authority.rootBundle },
      token: { kind: "none" },
      clusterId: "Kubernetes",
      ...client,
    }),
    impersonate: true,
  });
  t.teardown(() => ca[Symbol.asyncDispose]());
  ca.sign({ csr: "", identity, ttlMs: 0 }, { signal }).catch(() => undefined);
  return outcome;
}
