/**
 * How a proxy reaches its control plane (ztunnel contract 3.1 and 4.5): TLS with the mesh's root, the token of its service
 * account in every call, both read again whenever they are used, because both are rotated as files.
 * The CA client uses it here; the discovery client is given the same thing.
 */
import { readFile } from "node:fs/promises";
import { checkServerIdentity, createSecureContext, rootCertificates } from "node:tls";
import { MeshError } from "@fairway/runtime";
import { ChannelCredentials, type ChannelOptions, credentials, Metadata } from "@grpc/grpc-js";
import { parseCertificates } from "./certificate.ts";

/** `file` is read again for every connection; `plaintext` is for loopback demos only. */
export type ControlPlaneRoots =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "pem"; readonly pem: string }
  | { readonly kind: "system" }
  | { readonly kind: "plaintext" };

export type ControlPlaneToken =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "literal"; readonly token: string }
  | { readonly kind: "none" };

export interface ControlPlaneOptions {
  /** `https://host:port`, `host:port` or `http://host:port`; a path is refused. */
  readonly address: string;
  readonly roots: ControlPlaneRoots;
  readonly token: ControlPlaneToken;
  readonly clusterId: string;
  /** `XDS_HEADER_*` or `CA_HEADER_*`. */
  readonly headers?: ReadonlyMap<string, string>;
  /** `TLS12_ENABLED` of ztunnel contract 2.2; TLS 1.3 alone unless set. */
  readonly allowTls12?: boolean;
  /** Key exchange groups, as for tunnels; the platform's default unless given. */
  readonly groups?: string;
  /** A second name the server's certificate may carry (`ALT_XDS_HOSTNAME`, `ALT_CA_HOSTNAME`). */
  readonly alternativeHostname?: string | undefined;
}

/** What a gRPC client of the control plane needs; nothing is opened by making one. */
export interface ControlPlane {
  /** `host:port`. */
  readonly target: string;
  readonly channelOptions: ChannelOptions;
  /** TLS with the roots as they are now. The text changes when the roots do: a channel of another text is out of date. Throws MeshError PKI_ROOTS_UNREADABLE. */
  credentials(): Promise<{ readonly version: string; readonly credentials: ChannelCredentials }>;
  /** The headers of one call, with the token as it is now. Throws MeshError PKI_TOKEN_UNREADABLE. */
  metadata(): Promise<Metadata>;
}

/** Throws MeshError PKI_BAD_ADDRESS or PKI_BAD_HEADER. */
export function controlPlane(options: ControlPlaneOptions): ControlPlane {
  const { target, plaintext } = parseAddress(options.address);
  const insecure = plaintext || options.roots.kind === "plaintext";
  checkHeaders(options);
  return {
    target,
    channelOptions: {
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.keepalive_permit_without_calls": 1,
      "grpc.initial_reconnect_backoff_ms": 1_000,
      "grpc.max_reconnect_backoff_ms": 15_000,
      "grpc.enable_http_proxy": 0,
      "grpc.service_config_disable_resolution": 1,
    },
    async credentials() {
      if (insecure) return { version: "plaintext", credentials: credentials.createInsecure() };
      const roots = await readRoots(options.roots);
      const context = createSecureContext({
        ca: roots,
        minVersion: options.allowTls12 === true ? "TLSv1.2" : "TLSv1.3",
        ...(options.groups === undefined ? {} : { ecdhCurve: options.groups }),
      });
      return {
        version: roots,
        credentials: ChannelCredentials.createFromSecureContext(context, { checkServerIdentity: identityCheck(options.alternativeHostname) }),
      };
    },
    async metadata() {
      const metadata = new Metadata();
      for (const [name, value] of options.headers ?? []) metadata.set(name.toLowerCase(), value);
      metadata.set("clusterid", options.clusterId);
      const token = await readToken(options.token);
      // A token over plaintext would be anybody's.
      if (token !== undefined && !insecure) metadata.set("authorization", `Bearer ${token}`);
      return metadata;
    },
  };
}

const defaultPort = 15_012;

function parseAddress(address: string): { target: string; plaintext: boolean } {
  const text = address.includes("://") ? address : `https://${address}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !["https:", "http:"].includes(url.protocol) || url.pathname.length > 1 || url.search !== "" || url.username !== "") {
    throw new MeshError("PKI_BAD_ADDRESS", `${JSON.stringify(address)} is not a control plane address; write https://host:port`);
  }
  // The URL parser drops the default ports of its scheme.
  const port = url.port !== "" ? url.port : /:(\d+)\/?$/.exec(text)?.[1];
  return { target: `${url.hostname}:${port ?? defaultPort}`, plaintext: url.protocol === "http:" };
}

function checkHeaders({ headers, clusterId }: ControlPlaneOptions): void {
  try {
    const metadata = new Metadata();
    metadata.set("clusterid", clusterId);
    for (const [name, value] of headers ?? []) metadata.set(name.toLowerCase(), value);
  } catch (cause) {
    throw new MeshError("PKI_BAD_HEADER", "a configured control plane header is not valid in gRPC; check XDS_HEADER_*, CA_HEADER_* and CLUSTER_ID", { cause });
  }
}

async function readRoots(roots: ControlPlaneRoots): Promise<string> {
  if (roots.kind === "system") return rootCertificates.join("\n");
  const where = roots.kind === "file" ? roots.path : "the given text";
  const pem = roots.kind === "pem" ? roots.pem : roots.kind === "file" ? await readText(roots.path, "PKI_ROOTS_UNREADABLE", "control plane roots") : "";
  try {
    if (parseCertificates(pem).length > 0) return pem;
  } catch (cause) {
    throw new MeshError("PKI_ROOTS_UNREADABLE", `the control plane roots in ${where} are not PEM certificates`, { cause });
  }
  throw new MeshError("PKI_ROOTS_UNREADABLE", `${where} holds no control plane root; is the ConfigMap istio-ca-root-cert mounted?`);
}

async function readToken(token: ControlPlaneToken): Promise<string | undefined> {
  if (token.kind === "none") return undefined;
  const text = (token.kind === "literal" ? token.token : await readText(token.path, "PKI_TOKEN_UNREADABLE", "service account token")).trim();
  // The text itself stays out of the message: it is a secret, also when it is malformed.
  if (!/^[\x21-\x7e]+$/.test(text))
    throw new MeshError("PKI_TOKEN_UNREADABLE", "the service account token is empty or not one line of ASCII; is the projected token mounted?");
  return text;
}

async function readText(path: string, code: "PKI_ROOTS_UNREADABLE" | "PKI_TOKEN_UNREADABLE", what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new MeshError(code, `cannot read the ${what} at ${path}`, { cause });
  }
}

type IdentityCheck = typeof checkServerIdentity;

function identityCheck(alternative: string | undefined): IdentityCheck {
  return (hostname, certificate) => {
    const mismatch = checkServerIdentity(hostname, certificate);
    if (mismatch === undefined || alternative === undefined) return mismatch;
    return checkServerIdentity(alternative, certificate) === undefined ? undefined : mismatch;
  };
}
