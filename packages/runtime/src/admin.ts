/** Small HTTP/1.1 servers for readiness, metrics and administration. */
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { gzip } from "node:zlib";
import { MeshError, messageOf } from "./error.ts";
import type { MetricSource } from "./metrics.ts";
import type { Readiness } from "./readiness.ts";

export interface AdminResponse {
  readonly status?: number;
  readonly contentType?: string;
  readonly body: string;
  /** Long and repetitive: compressed for those who accept gzip. */
  readonly compressible?: boolean;
}

export type AdminHandler = (request: { method: string; url: URL; headers: IncomingMessage["headers"] }) => AdminResponse | Promise<AdminResponse>;

export interface AdminServer extends AsyncDisposable {
  readonly port: number;
}

const headersTimeoutMs = 2_000;
/** How often node:http looks for requests that are late; its own default would make 30 s of the 2. */
const lateRequestsCheckMs = 500;
/** As the reference writes it: some compare the text (ztunnel contract 9.1). */
const openMetricsType = "application/openmetrics-text;charset=utf-8;version=1.0.0";

/** Serves `routes` by exact path; unknown paths are 404. A handler that throws is a 500 that says so. */
export async function serveAdmin(address: { host: string; port: number }, routes: ReadonlyMap<string, AdminHandler>): Promise<AdminServer> {
  const server = createServer({ headersTimeout: headersTimeoutMs, connectionsCheckingInterval: lateRequestsCheckMs }, (request, response) => {
    void answer(request, routes).then(async ({ status = 200, contentType = "text/plain; charset=utf-8", body, compressible = false }) => {
      const compressed = compressible && acceptsGzip(request.headers["accept-encoding"]) ? await gzipped(body) : undefined;
      const vary = compressible ? { vary: "accept-encoding" } : {};
      response.writeHead(status, { "content-type": contentType, ...vary, ...(compressed === undefined ? {} : { "content-encoding": "gzip" }) });
      response.end(request.method === "HEAD" ? undefined : (compressed ?? body));
    });
  });
  await listening(server, address);
  const bound = server.address() as AddressInfo;
  return {
    port: bound.port,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
      }),
  };
}

/** RFC 9110 12.5.3, for the one coding that every scraper has. */
function acceptsGzip(header: string | string[] | undefined): boolean {
  const codings = String(header ?? "").split(",");
  return codings.some((coding) => {
    const [name = "", ...parameters] = coding.toLowerCase().split(";");
    return name.trim() === "gzip" && !parameters.some((parameter) => /^\s*q\s*=\s*0(\.0*)?\s*$/.test(parameter));
  });
}

/** Undefined when it cannot be done: then the text goes as it is. */
function gzipped(body: string): Promise<Buffer | undefined> {
  return new Promise((resolve) => gzip(body, (error, result) => resolve(error === null ? result : undefined)));
}

async function answer(request: IncomingMessage, routes: ReadonlyMap<string, AdminHandler>): Promise<AdminResponse> {
  const url = URL.canParse(request.url ?? "/", "http://admin") ? new URL(request.url ?? "/", "http://admin") : undefined;
  const handler = url === undefined ? undefined : routes.get(url.pathname);
  if (url === undefined || handler === undefined) return { status: 404, body: "not found\n" };
  try {
    return await handler({ method: request.method ?? "GET", url, headers: request.headers });
  } catch (thrown) {
    return { status: 500, body: `${messageOf(thrown)}\n` };
  }
}

function listening(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (cause: Error): void => {
      reject(new MeshError("RUNTIME_LISTEN_FAILED", `cannot listen on ${host}:${port}; is another process using the port?`, { cause }));
    };
    server.once("error", onError);
    server.listen(port, host, () => {
      server.off("error", onError);
      resolve();
    });
  });
}

/** `/healthz/ready` as the reference answers it: 200 "ready", or 500 naming what is awaited. */
export function readinessRoutes(readiness: Readiness): Map<string, AdminHandler> {
  const handler: AdminHandler = ({ method }) => {
    if (method !== "GET") return { status: 405, body: "method not allowed\n" };
    const { pending } = readiness;
    return pending.length === 0 ? { body: "ready\n" } : { status: 500, body: `not ready, pending: ${pending.join(", ")}\n` };
  };
  return new Map([["/healthz/ready", handler]]);
}

/** A registry, or several as one, as OpenMetrics text on the two paths that scrapers use. */
export function metricsRoutes(registry: MetricSource): Map<string, AdminHandler> {
  const handler: AdminHandler = async ({ headers }) => ({
    contentType: headers.accept?.includes("application/openmetrics-text") ? openMetricsType : "text/plain; charset=utf-8",
    body: await registry.metrics(),
    compressible: true,
  });
  return new Map([
    ["/metrics", handler],
    ["/stats/prometheus", handler],
  ]);
}
