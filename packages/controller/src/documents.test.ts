import { readFileSync } from "node:fs";
import { type KubeObject, parseManifests, type ResourceType, resources } from "@fairway/kube";
import test from "ava";
import { resolveBackend } from "./backends.ts";
import { testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh } from "./mesh.ts";
import { routeProblems } from "./routes.ts";

const documents = ["routing.md", "policy.md"] as const;

function manifests(document: string): readonly KubeObject[] {
  const text = readFileSync(new URL(`../../../docs/${document}`, import.meta.url), "utf8");
  return [...text.matchAll(/^```yaml\n(.*?)^```$/gms)].flatMap(([, block = ""]) => [...parseManifests(block)]);
}

test("every manifest of the documents is understood whole", (t) => {
  const objects = documents.flatMap(manifests);
  const inputs = testInputs();
  const stores: Readonly<Record<string, { set: (object: never) => void }>> = {
    AuthorizationPolicy: inputs.authorizationPolicies,
    DestinationRule: inputs.destinationRules,
    Gateway: inputs.gateways,
    GRPCRoute: inputs.grpcRoutes,
    HTTPRoute: inputs.httpRoutes,
    Namespace: inputs.namespaces,
    ReferenceGrant: inputs.referenceGrants,
    RequestAuthentication: inputs.requestAuthentications,
    Service: inputs.services,
  };
  for (const object of objects) {
    const store = stores[object.kind ?? ""];
    t.truthy(store, `${object.kind} is in the documents and not in this test`);
    store?.set(object as never);
  }
  const versions = new Map(
    Object.values(resources).map((type: ResourceType) => [type.kind, type.group === "" ? type.version : `${type.group}/${type.version}`]),
  );
  for (const { kind = "", apiVersion, metadata } of objects) t.is(apiVersion, versions.get(kind), `${kind} ${metadata.name}`);

  const { programs, enforcement, destinationRules, policyOutcomes, serviceBindings } = deriveMesh(inputs, testSettings);
  const facts = {
    service: (namespace: string, name: string) => inputs.services.get(`${namespace}/${name}`),
    grants: (namespace: string) => [...inputs.referenceGrants.list()].filter(({ metadata }) => metadata.namespace === namespace),
  };
  const readings = [...programs.routes.list()];
  t.true(readings.length >= 5);
  for (const reading of readings) {
    const problems = routeProblems(reading, (reference, from) => {
      const answer = resolveBackend(reference, from, facts);
      return answer.kind === "nowhere" ? answer : { kind: "cluster", cluster: "" };
    });
    t.deepEqual(problems, [], reading.key);
  }
  for (const { key, problems, unsupported, targets } of enforcement.requestPolicies.list()) {
    t.deepEqual([problems, unsupported], [[], undefined], key);
    for (const target of targets) t.true(inputs.services.get(target.slice(8)) !== undefined || inputs.gateways.get(target.slice(8)) !== undefined, target);
  }
  for (const { key, problems } of enforcement.tokenRules.list()) t.deepEqual(problems, [], key);
  for (const { key, condition } of policyOutcomes.list()) t.is(condition.reason, "Accepted", key);
  for (const { key, condition } of destinationRules.list()) t.is(condition, undefined, key);
  t.is(serviceBindings.get("shop/api")?.kind, "bound");
});
