/** What the controller knows, as JSON, for whoever is on its own machine (controller contract 6.6). */
import type { AdminHandler } from "@fairway/runtime";
import type { XdsServer } from "@fairway/xds";
import type { Mesh } from "./mesh.ts";

/** Served on loopback only: it names every workload and policy of the mesh. */
export function debugRoutes({ clients, mesh }: { clients: XdsServer["clients"]; mesh: Mesh }): Map<string, AdminHandler> {
  const json =
    (produce: () => unknown): AdminHandler =>
    () => ({ contentType: "application/json", body: `${JSON.stringify(produce(), plain, 2)}\n` });
  return new Map([
    ["/debug/syncz", json(() => [...clients.current.values()].map((client) => ({ ...client, connectedAt: new Date(client.connectedAt).toISOString() })))],
    ["/debug/connections", json(() => ({ connections: [...clients.current].map(([id, { nodeId, address }]) => ({ id, nodeId, address })) }))],
    [
      "/debug/ambientz",
      json(() => ({
        workloads: [...mesh.workloads.list()],
        services: [...mesh.services.list()],
        policies: [...mesh.policies.list()],
        waypoints: [...mesh.waypoints.list()],
      })),
    ],
  ]);
}

/** Maps and byte arrays have no JSON of their own. */
function plain(_key: string, value: unknown): unknown {
  if (value instanceof Map) return Object.fromEntries(value);
  return value;
}
