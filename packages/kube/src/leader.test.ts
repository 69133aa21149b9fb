import { ManualClock, MeshError, silentLogger } from "@fairway/runtime";
import test from "ava";
import type { KubeClient } from "./collection.ts";
import { electLeader } from "./leader.ts";
import type { Lease } from "./resources/coordination.ts";

/** One Lease with optimistic concurrency; `away` makes every call fail. */
function leaseServer(): { client: KubeClient; current: () => Lease | undefined; away: boolean } {
  let stored: Lease | undefined;
  let version = 0;
  const state = {
    away: false,
    current: () => stored,
    client: {
      get: async () => {
        if (state.away) throw new MeshError("KUBE_UNAVAILABLE", "away");
        if (stored === undefined) throw new MeshError("KUBE_NOT_FOUND", "none");
        return structuredClone(stored);
      },
      create: async (_type: unknown, object: Lease) => {
        if (stored !== undefined) throw new MeshError("KUBE_CONFLICT", "exists");
        stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(++version) } };
        return stored;
      },
      replace: async (_type: unknown, object: Lease) => {
        if (state.away) throw new MeshError("KUBE_UNAVAILABLE", "away");
        if (object.metadata.resourceVersion !== stored?.metadata.resourceVersion) throw new MeshError("KUBE_CONFLICT", "changed");
        stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(++version) } };
        return stored;
      },
    } as unknown as KubeClient,
  };
  return state;
}

function candidate(server: { client: KubeClient }, clock: ManualClock, identity: string, log: string[]): { stop: () => Promise<void> } {
  const controller = new AbortController();
  const done = electLeader({
    client: server.client,
    namespace: "fairway-system",
    lease: "leader",
    identity,
    clock,
    log: silentLogger,
    signal: controller.signal,
    lead: (signal) =>
      new Promise((resolve) => {
        log.push(`${identity} leads`);
        signal.addEventListener("abort", () => {
          log.push(`${identity} stops`);
          resolve();
        });
      }),
  });
  return {
    stop: async () => {
      controller.abort(new Error("stop"));
      await done;
    },
  };
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

test("one leads, the other follows when the first gives the lease back", async (t) => {
  const server = leaseServer();
  const clock = new ManualClock(1_000);
  const log: string[] = [];
  const a = candidate(server, clock, "a", log);
  await settle();
  const b = candidate(server, clock, "b", log);
  await clock.advance(60_000);
  t.deepEqual(log, ["a leads"]);
  await a.stop();
  t.is(server.current()?.spec?.holderIdentity, "");
  await clock.advance(5_000);
  t.deepEqual(log, ["a leads", "a stops", "b leads"]);
  t.is(server.current()?.spec?.leaseTransitions, 1);
  await b.stop();
});

test("a leader that cannot renew stops before anybody else may lead", async (t) => {
  const server = leaseServer();
  const clock = new ManualClock(1_000);
  const log: string[] = [];
  const a = candidate(server, clock, "a", log);
  await settle();
  server.away = true;
  await clock.advance(9_000);
  t.deepEqual(log, ["a leads"]);
  await clock.advance(4_000);
  t.deepEqual(log, ["a leads", "a stops"]);
  await a.stop();
});
