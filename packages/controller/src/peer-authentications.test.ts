import type { PeerAuthentication } from "@fairway/kube";
import { emptyMatch } from "@fairway/model";
import test from "ava";
import { peerAuthentication } from "./fixtures.ts";
import { convertPeerAuthentication, type PeerAuthenticationScope, peerAuthenticationKeys, staticStrictPolicy } from "./peer-authentications.ts";

const root = "fairway-system";
const strict = `${root}/istio_converted_static_strict`;
const app = { app: "web" };
const plain = { ...emptyMatch, notPrincipals: [{ kind: "presence" as const }] };

interface Levels {
  readonly mesh?: string;
  readonly namespace?: string;
  readonly workload?: { mode?: string; ports?: Record<string, string> };
}

function scope({ mesh, namespace, workload }: Levels): PeerAuthenticationScope & { own: PeerAuthentication | undefined } {
  const mtls = (mode: string | undefined) => (mode === undefined ? {} : { mtls: { mode } });
  const own =
    workload &&
    peerAuthentication("w", {
      selector: { matchLabels: app },
      ...mtls(workload.mode),
      portLevelMtls: Object.fromEntries(Object.entries(workload.ports ?? {}).map(([port, mode]) => [port, { mode }])),
    });
  return {
    rootNamespace: root,
    namespace: "shop",
    inRoot: mesh === undefined ? [] : [peerAuthentication("mesh", mtls(mesh), { namespace: root })],
    inNamespace: [...(namespace === undefined ? [] : [peerAuthentication("ns", mtls(namespace))]), ...(own === undefined ? [] : [own])],
    own,
  };
}

/** Levels, the keys a matching workload refers to, and the ports that the converted policy speaks of. */
const matrix: readonly [string, Levels, readonly string[], { exempt: number[] } | { strict: number[] } | undefined][] = [
  ["nothing", {}, [], undefined],
  ["mesh strict", { mesh: "STRICT" }, [strict], undefined],
  ["mesh strict, namespace permissive", { mesh: "STRICT", namespace: "PERMISSIVE" }, [], undefined],
  ["mesh strict, namespace unset inherits", { mesh: "STRICT", namespace: "UNSET" }, [strict], undefined],
  ["namespace strict, workload disabled", { namespace: "STRICT", workload: { mode: "DISABLE" } }, [], undefined],
  ["namespace strict, workload unset", { namespace: "STRICT", workload: {} }, [strict], undefined],
  ["workload strict", { workload: { mode: "STRICT" } }, [strict], undefined],
  [
    "strict with a permissive port",
    { workload: { mode: "STRICT", ports: { 8080: "PERMISSIVE" } } },
    ["shop/converted_peer_authentication_w"],
    { exempt: [8080] },
  ],
  ["strict with a disabled port", { workload: { mode: "STRICT", ports: { 8080: "DISABLE" } } }, ["shop/converted_peer_authentication_w"], { exempt: [8080] }],
  ["strict with a strict port", { workload: { mode: "STRICT", ports: { 8080: "STRICT" } } }, [strict], undefined],
  ["strict with an unset port", { workload: { mode: "STRICT", ports: { 8080: "UNSET" } } }, [strict], undefined],
  [
    "permissive with strict ports",
    { workload: { mode: "PERMISSIVE", ports: { 9090: "STRICT", 8080: "STRICT" } } },
    ["shop/converted_peer_authentication_w"],
    { strict: [8080, 9090] },
  ],
  ["unset under permissive with a strict port", { workload: { ports: { 8080: "STRICT" } } }, ["shop/converted_peer_authentication_w"], { strict: [8080] }],
  [
    "unset under strict with a permissive port",
    { mesh: "STRICT", workload: { ports: { 8080: "PERMISSIVE" } } },
    ["shop/converted_peer_authentication_w"],
    { exempt: [8080] },
  ],
  [
    "unset under strict with a disabled port",
    { namespace: "STRICT", workload: { ports: { 8080: "DISABLE" } } },
    ["shop/converted_peer_authentication_w"],
    { exempt: [8080] },
  ],
  ["unset under strict with a strict port", { mesh: "STRICT", workload: { ports: { 8080: "STRICT" } } }, [strict], undefined],
  ["permissive with a permissive port", { workload: { mode: "PERMISSIVE", ports: { 8080: "PERMISSIVE" } } }, [], undefined],
  [
    "permissive under strict with a strict port",
    { mesh: "STRICT", workload: { mode: "PERMISSIVE", ports: { 8080: "STRICT" } } },
    ["shop/converted_peer_authentication_w"],
    { strict: [8080] },
  ],
  ["a port that is none is ignored", { workload: { mode: "STRICT", ports: { 99999: "PERMISSIVE", http: "PERMISSIVE" } } }, [strict], undefined],
  ["a word that nobody knows is strict", { workload: { mode: "strict" } }, [strict], undefined],
];
for (const [title, levels, keys, ports] of matrix) {
  test(title, (t) => {
    const levelsScope = scope(levels);
    t.deepEqual(peerAuthenticationKeys(app, levelsScope) as readonly string[], keys);
    const converted = levelsScope.own && convertPeerAuthentication(levelsScope.own, levelsScope);
    if (ports === undefined) return t.is(converted, undefined);
    const rules =
      "exempt" in ports
        ? [{ clauses: [{ matches: [plain] }, ...ports.exempt.map((port) => ({ matches: [{ ...emptyMatch, notDestinationPorts: [port] }] }))] }]
        : ports.strict.map((port) => ({ clauses: [{ matches: [{ ...plain, destinationPorts: [port] }] }] }));
    t.deepEqual(converted?.rules, rules);
    return t.like(converted, { action: "deny", scope: "workload-selector", namespace: "shop", name: "converted_peer_authentication_w" });
  });
}

test("the oldest object of a level decides, and a workload that is not selected is not concerned", (t) => {
  const older = peerAuthentication("z-older", { mtls: { mode: "STRICT" } }, { creationTimestamp: "2020-01-01T00:00:00Z" });
  const newer = peerAuthentication("a-newer", { mtls: { mode: "PERMISSIVE" } }, { creationTimestamp: "2021-01-01T00:00:00Z" });
  const twoScopes = { rootNamespace: root, namespace: "shop", inRoot: [], inNamespace: [newer, older] };
  t.deepEqual(peerAuthenticationKeys(app, twoScopes) as readonly string[], [strict]);
  t.deepEqual(peerAuthenticationKeys({ app: "other" }, scope({ workload: { mode: "STRICT" } })), []);
});

test("in the root namespace a selector means nothing, and its ports neither", (t) => {
  const object = peerAuthentication(
    "w",
    { selector: { matchLabels: app }, mtls: { mode: "STRICT" }, portLevelMtls: { 8080: { mode: "DISABLE" } } },
    { namespace: root },
  );
  const rootScope = { rootNamespace: root, namespace: root, inRoot: [object], inNamespace: [object] };
  t.deepEqual(peerAuthenticationKeys(app, rootScope), []);
  t.is(convertPeerAuthentication(object, rootScope), undefined);
});

test("the static policy denies whoever has no identity", (t) => {
  t.deepEqual(staticStrictPolicy(root), {
    name: "istio_converted_static_strict",
    namespace: root,
    scope: "workload-selector",
    action: "deny",
    rules: [{ clauses: [{ matches: [plain] }] }],
    dryRun: false,
  });
});
