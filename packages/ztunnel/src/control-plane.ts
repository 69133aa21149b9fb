/** Where this process learns of the mesh and gets its certificates: the control plane, a local file, or a CA of its own for tests. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { SnapshotChange } from "@fairway/model";
import {
  Authority,
  type AuthorityPem,
  type CaClient,
  type ControlPlane as ControlPlaneAccess,
  controlPlane,
  grpcCaClient,
  localCaClient,
  postQuantumGroup,
} from "@fairway/pki";
import { type Clock, Counter, Gauge, type Logger, type MetricRegistry } from "@fairway/runtime";
import { createXdsMeshView, type MeshView, parseMesh, readMeshFile, staticMeshView, type XdsMeshView, type XdsMeshViewOptions } from "@fairway/xds";
import type { Config, ControlPlane } from "./config.ts";
import { ztunnelError } from "./failure.ts";

/** The mesh over discovery, started with what a local file says; or that file alone. Throws XDS_FILE_* and PKI_BAD_*. */
export async function openMesh(config: Config, { log, clock, registry }: { log: Logger; clock: Clock; registry: MetricRegistry }): Promise<MeshView> {
  const { xds, proxy, node } = config;
  const initial = await readLocalMesh(config);
  if (xds.address === undefined) return staticMeshView(initial, { nodeName: proxy.nodeName, clock });
  const view = createXdsMeshView({
    access: access(config, xds, xds.address),
    node,
    nodeName: proxy.nodeName,
    clock,
    log: log.scope("xds"),
    initial,
    rootNamespace: config.rootNamespace,
    onDemand: proxy.onDemand ? { clusterId: proxy.clusterId } : undefined,
    observer: countDiscovery(registry),
  });
  if (view.demand !== undefined) registerDemandMetrics(registry, view.demand);
  return view;
}

/** What the local file says now; nothing without one. Throws XDS_FILE_*. */
export async function readLocalMesh({ xds: { local } }: Config): Promise<SnapshotChange> {
  if (local === undefined) return {};
  return local.kind === "file" ? readMeshFile(local.path) : parseMesh(local.yaml, "LOCAL_XDS");
}

/** The CA. Throws ZTUNNEL_UNSUPPORTED without one, ZTUNNEL_LOCAL_CA and PKI_CA_MATERIAL for bad files, PKI_BAD_* for a bad address. */
export function openCa(config: Config, { clock }: { clock: Clock }): CaClient {
  const { ca, trustDomain, mode } = config;
  if (ca.localPath !== undefined) return localCaClient(Authority.load(readAuthority(ca.localPath), clock));
  if (ca.fake) return localCaClient(Authority.createSelfSigned({ trustDomain, clock }));
  if (ca.address === undefined)
    throw ztunnelError("ZTUNNEL_UNSUPPORTED", "CA_ADDRESS is empty: without certificates nothing can be tunnelled (FAKE_CA is for tests)");
  return grpcCaClient({ controlPlane: access(config, ca, ca.address), impersonate: mode.kind === "shared" });
}

/** The files as the Secrets of a plugged-in CA name them. */
function readAuthority(directory: string): AuthorityPem {
  const read = (name: string): string => {
    try {
      return readFileSync(join(directory, name), "utf8");
    } catch (cause) {
      throw ztunnelError("ZTUNNEL_LOCAL_CA", `cannot read ${name} in ${directory}, the directory of LOCAL_CA_PATH`, cause);
    }
  };
  const optional = (name: string): string => (existsSync(join(directory, name)) ? read(name) : "");
  return { caCert: read("ca-cert.pem"), caKey: read("ca-key.pem"), certChain: optional("cert-chain.pem"), rootCert: optional("root-cert.pem") };
}

function access(config: Config, { roots, headers, altHostname }: ControlPlane, address: string): ControlPlaneAccess {
  return controlPlane({
    address,
    roots,
    token: config.token,
    clusterId: config.proxy.clusterId,
    headers,
    allowTls12: config.tls12,
    ...(config.postQuantumOnly ? { groups: postQuantumGroup } : {}),
    alternativeHostname: altHostname,
  });
}

function registerDemandMetrics(registry: MetricRegistry, demand: NonNullable<XdsMeshView["demand"]>): void {
  const names: Gauge = new Gauge({
    name: "fairway_ztunnel_demanded_names",
    help: "Names asked of the control plane and not let go of",
    registers: [registry],
    collect: () => names.set(demand.size),
  });
}

/** What comes, and how streams end, by the reference's words (contract 9.1). */
function countDiscovery(registry: MetricRegistry): NonNullable<XdsMeshViewOptions["observer"]> {
  const registers = [registry];
  const messages = new Counter({ name: "istio_xds_message_total", help: "Discovery responses, by type", labelNames: ["url"], registers });
  const bytes = new Counter({ name: "istio_xds_message_bytes_total", help: "Bytes of their resources", labelNames: ["url"], registers });
  const terminations = new Counter({
    name: "istio_xds_connection_terminations_total",
    help: "Discovery streams that ended, by reason",
    labelNames: ["reason"],
    registers,
  });
  const reasons = { unconnected: "ConnectionError", normal: "Reconnect", error: "Error", clean: "Complete" } as const;
  return {
    received: (url, size) => {
      messages.inc({ url });
      bytes.inc({ url }, size);
    },
    ended: (how) => terminations.inc({ reason: reasons[how] }),
  };
}
