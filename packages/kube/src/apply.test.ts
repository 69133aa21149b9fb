import test from "ava";
import { applyConditions } from "./apply.ts";
import type { KubeClient } from "./collection.ts";
import { resources } from "./resources/resources.ts";

const wish = { type: "ZtunnelAccepted", status: "True", reason: "Accepted", message: "attached to ztunnel" } as const;
const options = { fieldManager: "fairway", owned: ["ZtunnelAccepted"], now: new Date("2026-01-02T03:04:05.678Z") };

function recorder(): { client: KubeClient; bodies: unknown[] } {
  const bodies: unknown[] = [];
  const apply = async (_type: unknown, object: unknown): Promise<unknown> => {
    bodies.push(object);
    return object;
  };
  return { client: { apply } as unknown as KubeClient, bodies };
}

test("a condition is applied with its generation, once", async (t) => {
  const { client, bodies } = recorder();
  const policy = { metadata: { name: "p", namespace: "shop", generation: 3 } };
  t.is(await applyConditions(client, resources.authorizationPolicies, policy, [wish], options), "applied");
  const condition = { ...wish, observedGeneration: 3, lastTransitionTime: "2026-01-02T03:04:05Z" };
  t.deepEqual(bodies, [{ metadata: { name: "p", namespace: "shop" }, status: { conditions: [condition] } }]);
  const now = { ...policy, status: { conditions: [condition, { type: "Other", status: "True" }] } };
  t.is(await applyConditions(client, resources.authorizationPolicies, now, [wish], options), "unchanged");
});

test("the transition time stays while the status does, and what is no longer wished for is pruned", async (t) => {
  const { client, bodies } = recorder();
  const before = { ...wish, message: "old", lastTransitionTime: "2020-01-01T00:00:00Z" };
  const policy = { metadata: { name: "p", namespace: "shop" }, status: { conditions: [before] } };
  await applyConditions(client, resources.authorizationPolicies, policy, [wish], options);
  await applyConditions(client, resources.authorizationPolicies, policy, [], options);
  t.like(bodies[0], { status: { conditions: [{ message: "attached to ztunnel", lastTransitionTime: "2020-01-01T00:00:00Z" }] } });
  t.deepEqual(bodies[1], { metadata: { name: "p", namespace: "shop" }, status: { conditions: [] } });
});
