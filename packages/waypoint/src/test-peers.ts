/** The ztunnels on both sides of a waypoint, real: what a client's opens, and what takes the waypoint's tunnels in front of an application. */
import { once } from "node:events";
import { request as httpRequest, type IncomingHttpHeaders, type RequestOptions } from "node:http";
import { createServer, connect as tcpConnect } from "node:net";
import type { Duplex } from "node:stream";
import {
  defaultClientSettings,
  defaultEngineName,
  defaultServerSettings,
  parseAuthority,
  type ServerTunnel,
  type TunnelStream,
  tunnelEngine,
} from "@fairway/hbone";
import { parseSpiffeId, type SpiffeId, spiffeId } from "@fairway/model";
import { type Authority, createMeshTls, localCaClient, SecretManager } from "@fairway/pki";
import { silentLogger, systemClock } from "@fairway/runtime";
import type { ExecutionContext } from "ava";

export const waypointIdentity: SpiffeId = spiffeId({ trustDomain: "cluster.local", namespace: "default", serviceAccount: "waypoint" });
/** The port of every tunnel here. */
export const tunnelPort = 15_008;

/** The ztunnels on both sides of a waypoint. */
export class TestPeers {
  readonly #t: ExecutionContext;
  readonly #ip: string;
  readonly #certificates: SecretManager;
  readonly #signal: AbortSignal;

  constructor(t: ExecutionContext, authority: Authority, ip: string) {
    this.#t = t;
    this.#ip = ip;
    this.#certificates = new SecretManager({ ca: localCaClient(authority), clock: systemClock, log: silentLogger });
    const ended = new AbortController();
    this.#signal = ended.signal;
    t.teardown(async () => {
      ended.abort();
      await this.#certificates[Symbol.asyncDispose]();
    });
  }

  /** A stream through the waypoint, as the ztunnel of pod `name` opens it. Throws HBONE_REFUSED. */
  async connect(name: string, authority: string, more: TestRequest["tunnel"] = {}): Promise<TunnelStream> {
    const identity = parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${name}`);
    const signal = new AbortController().signal;
    const certificate = await this.#certificates.fetch(identity, { signal });
    const raw = tcpConnect({ host: this.#ip, port: tunnelPort });
    raw.on("error", () => undefined);
    await once(raw, "connect");
    this.#t.teardown(() => raw.destroy());
    const { socket } = await createMeshTls({ clock: systemClock }).connect(raw, certificate, [waypointIdentity], { signal });
    const tunnel = await tunnelEngine(defaultEngineName).connect(socket, defaultClientSettings, { signal });
    this.#t.teardown(() => tunnel.destroy());
    const { stream } = await tunnel.open({ authority, ...more }, { signal });
    return stream;
  }

  /** One HTTP/1.1 request of pod `name`. */
  async request(name: string, authority: string, path: string, options: TestRequest = {}): Promise<TestAnswer> {
    const stream = await this.connect(name, authority, options.tunnel);
    return exchangeOver(stream.duplex(), path, options);
  }

  /** A port whose connections go through the waypoint as connections of pod `name` to `authority`: what its ztunnel does for any client. */
  async captured(name: string, authority: string): Promise<number> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => undefined);
      this.connect(name, authority)
        .then((stream) => stream.pipe(socket, { signal: this.#signal }))
        .catch(() => socket.resetAndDestroy());
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    this.#t.teardown(() => server.close());
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** The ztunnel of pod `name` at `ip`: takes tunnels from the waypoint and hands their streams to `application`. */
  async workload(name: string, ip: string, app: { port: number }, identity: string = name): Promise<{ readonly peers: string[] }> {
    const peers: string[] = [];
    const own = parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${identity}`);
    const signal = new AbortController().signal;
    const certificate = await this.#certificates.fetch(own, { signal });
    const tls = createMeshTls({ clock: systemClock });
    const tunnels = new Set<ServerTunnel>();
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => undefined);
      tls
        .accept(socket, certificate, { signal })
        .then(({ socket: proven, peer }) => {
          peers.push(peer);
          const tunnel = tunnelEngine(defaultEngineName).serve(proven, defaultServerSettings, (exchange) => {
            const to = parseAuthority(exchange.request.authority);
            if (to?.kind !== "address") return exchange.reject(400);
            const upstream = tcpConnect({ host: ip, port: app.port, allowHalfOpen: true });
            upstream.once("error", () => exchange.reject(503));
            upstream.once("connect", () => void exchange.accept({}).pipe(upstream, { signal }));
          });
          tunnels.add(tunnel);
        })
        .catch(() => undefined);
    });
    server.listen(tunnelPort, ip);
    await once(server, "listening");
    this.#t.teardown(() => {
      server.close();
      for (const tunnel of tunnels) tunnel.destroy();
    });
    return { peers };
  }
}

export interface TestRequest {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly tunnel?: { forwarded?: string; baggage?: string };
}

export interface TestAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export function exchangeOver(transport: Duplex, path: string, { method = "GET", headers = {}, body }: TestRequest): Promise<TestAnswer> {
  return new Promise((resolve, reject) => {
    const options: RequestOptions = { createConnection: () => transport, method, path, headers: { host: "api", ...headers } };
    const request = httpRequest(options, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end(body);
  });
}
