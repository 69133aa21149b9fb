#!/usr/bin/env node
/** The cluster DNS as a program: it runs as a pod and watches services and their endpoints. */
import { connectKube, type KubeObject } from "@fairway/kube";
import { createLogger, Readiness, readinessRoutes, runProgram, serveAdmin } from "@fairway/runtime";
import { clusterDomain } from "../kubelet/container-files.ts";
import { type EndpointSlice, endpointSlices, services } from "../resources.ts";
import { serveDns } from "./server.ts";

const dnsPort = 53;
const readyPort = 8181;

const log = createLogger("cluster-dns");
await runProgram(log, async ({ stop }) => {
  const client = connectKube({ log });
  const readiness = new Readiness();
  const first = readiness.block("services and endpoints");
  await using knownServices = client.collection(services);
  await using knownSlices = client.collection(endpointSlices);
  await using _admin = await serveAdmin({ host: "0.0.0.0", port: readyPort }, readinessRoutes(readiness));
  const byService = new Map<string, Map<string, EndpointSlice>>();
  using _subscription = knownSlices.subscribe((events) => {
    for (const { type, object } of events) index(byService, object, type === "deleted");
  });
  await Promise.all([knownServices.synced, knownSlices.synced]);
  for (const slice of knownSlices.list()) index(byService, slice, false);
  const [upstream] = (process.env["DNS_UPSTREAM"] ?? "").split(",").filter((address) => address !== "");
  await using _server = await serveDns({
    host: "0.0.0.0",
    port: dnsPort,
    upstream,
    log,
    sources: {
      domain: clusterDomain,
      service: (namespace, name) => knownServices.get(`${namespace}/${name}`),
      slices: (namespace, name) => [...(byService.get(`${namespace}/${name}`)?.values() ?? [])],
      hasNamespace: (namespace) => [...knownServices.list()].some(({ metadata }: KubeObject) => metadata.namespace === namespace),
    },
  });
  first[Symbol.dispose]();
  log.info("serving", { domain: clusterDomain, port: dnsPort });
  await new Promise((resolve) => stop.addEventListener("abort", resolve, { once: true }));
});

function index(byService: Map<string, Map<string, EndpointSlice>>, slice: EndpointSlice, deleted: boolean): void {
  const key = `${slice.metadata.namespace}/${slice.metadata.labels?.["kubernetes.io/service-name"] ?? ""}`;
  const own = byService.get(key) ?? new Map<string, EndpointSlice>();
  if (deleted) own.delete(slice.metadata.name);
  else own.set(slice.metadata.name, slice);
  if (own.size === 0) byService.delete(key);
  else byService.set(key, own);
}
