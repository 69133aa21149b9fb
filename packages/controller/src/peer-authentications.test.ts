import type { PeerAuthentication } from "@fairway/kube";
import { emptyMatch } from "@fairway/model";
import test from "ava";
import { peerAuthentication } from "./fixtures.ts";
import { complaintAbout, convertPeerAuthentication, type PeerAuthenticationScope, peerAuthenticationKeys, staticStrictPolicy } from "./peer-authentications.ts";

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
  ["what is no port is exempt from nothing", { workload: { mode: "STRICT", ports: { 99999: "PERMISSIVE", http: "PERMISSIVE" } } }, [strict], undefined],
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

/** What cannot be read, and what its author is told; each is strict, with no port exempt. */
const unreadable: readonly [string, unknown, RegExp][] = [
  ["a word that nobody knows", { mtls: { mode: "strict" } }, /spec\.mtls\.mode: "strict" is none of/],
  ["a misspelt mtls", { selector: { matchLabels: app }, mlts: { mode: "STRICT" } }, /spec\.mlts: no such field/],
  ["a misspelt mode", { mtls: { mod: "STRICT" } }, /spec\.mtls\.mod/],
  ["a misspelt selector beside PERMISSIVE", { selektor: { matchLabels: app }, mtls: { mode: "PERMISSIVE" } }, /spec\.selektor/],
  ["a selector with more than labels", { selector: { matchLabels: app, matchExpressions: [] }, mtls: { mode: "DISABLE" } }, /spec\.selector\.matchExpressions/],
  ["misspelt ports", { selector: { matchLabels: app }, mtls: { mode: "PERMISSIVE" }, portLevelMtl: { 8080: { mode: "STRICT" } } }, /spec\.portLevelMtl:/],
  [
    "a port that is none",
    { selector: { matchLabels: app }, mtls: { mode: "PERMISSIVE" }, portLevelMtls: { http: { mode: "STRICT" } } },
    /portLevelMtls\.http: is not a port/,
  ],
  [
    "a port's misspelt mode",
    { selector: { matchLabels: app }, portLevelMtls: { 8080: { mood: "STRICT" }, 9090: { mode: "DISABLE" } } },
    /portLevelMtls\.8080\.mood/,
  ],
  ["a mode that is no word", { mtls: { mode: 7 } }, /spec\.mtls\.mode: 7/],
  ["text for mtls", { mtls: "STRICT" }, /spec\.mtls: is not an object/],
  ["a list of ports", { portLevelMtls: [8080] }, /spec\.portLevelMtls: is not an object/],
  ["text for a spec", "STRICT", /spec: is not an object/],
];
for (const [title, spec, told] of unreadable) {
  test(`strict, and said: ${title}`, (t) => {
    const object = peerAuthentication("w", spec as PeerAuthentication["spec"]);
    const around = {
      rootNamespace: root,
      namespace: "shop",
      inRoot: [peerAuthentication("mesh", { mtls: { mode: "PERMISSIVE" } }, { namespace: root })],
      inNamespace: [object],
    };
    t.deepEqual(peerAuthenticationKeys(app, around) as readonly string[], [strict]);
    t.is(convertPeerAuthentication(object, around), undefined, "no port is exempt");
    const complaint = complaintAbout(object);
    t.like(complaint, { type: "ZtunnelAccepted", status: "False", reason: "Invalid" });
    t.regex(complaint?.message ?? "", told);
    t.regex(complaint?.message ?? "", /counts as STRICT/);
  });
}

test("what can be read, empty or null, is nobody's complaint", (t) => {
  const empty = { selector: null, mtls: { mode: null }, portLevelMtls: { 8080: null } } as never;
  for (const spec of [undefined, {}, empty, { selector: { matchLabels: app }, mtls: { mode: "UNSET" }, portLevelMtls: { 80: { mode: "STRICT" } } }]) {
    const object = peerAuthentication("w", spec);
    t.is(complaintAbout(object), undefined);
    t.notThrows(() => peerAuthenticationKeys(app, { rootNamespace: root, namespace: "shop", inRoot: [], inNamespace: [object] }));
  }
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
