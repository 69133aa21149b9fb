/** nginx and haproxy as L7 proxies with mutual TLS on both sides: the native measures beside the waypoint. One process, one thread, one core. */
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AuthorityPem } from "@fairway/pki";
import { type Child, startCommand } from "../child.ts";
import { freePorts } from "../free-ports.ts";
import { clientIdentity, waypointIdentity } from "../identities.ts";
import type { TargetProxy } from "./measures.ts";
import { pemOf } from "./pem.ts";

export interface NativeProxy {
  readonly target: TargetProxy;
  readonly child: Child;
  stop(): Promise<void>;
}

type Program = "nginx" | "haproxy";

/** Undefined when the program is not on this machine. */
export async function startNative(program: Program, authority: AuthorityPem, backendPort: number, core: number): Promise<NativeProxy | undefined> {
  const path = [`/usr/sbin/${program}`, `/usr/local/sbin/${program}`, `/usr/bin/${program}`].find((candidate) => existsSync(candidate));
  if (path === undefined) return undefined;
  const folder = await mkdtemp(join(tmpdir(), "fairway-bench-"));
  const [port = 0, http2Port = 0] = await freePorts(2);
  const own = pemOf(authority, waypointIdentity);
  const client = pemOf(authority, clientIdentity);
  await writeFile(join(folder, "ca.pem"), own.ca);
  await writeFile(join(folder, "own.pem"), `${own.cert}\n${own.key}`, { mode: 0o600 });
  await writeFile(join(folder, "client.pem"), `${client.cert}\n${client.key}`, { mode: 0o600 });
  const config = join(folder, `${program}.conf`);
  const setup: Setup = { folder, port, http2Port, backendPort };
  await writeFile(config, program === "nginx" ? nginxConfig(setup) : haproxyConfig(setup));
  const args = program === "nginx" ? ["-e", join(folder, "error.log"), "-c", config] : ["-db", "-f", config];
  const child = startCommand(path, args, core);
  return {
    // haproxy tells the versions of HTTP apart on one port, nginx of Debian 12 needs two.
    target: { carrier: "tls", port, http2Port: program === "nginx" ? http2Port : port },
    child,
    stop: async () => {
      await child[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

interface Setup {
  readonly folder: string;
  readonly port: number;
  readonly http2Port: number;
  readonly backendPort: number;
}

/** Tuned as its documentation says for keep-alive on both sides; its access log is on, as ours is. */
function nginxConfig({ folder, port, http2Port, backendPort }: Setup): string {
  const tls = `ssl_certificate ${folder}/own.pem; ssl_certificate_key ${folder}/own.pem; ssl_client_certificate ${folder}/ca.pem;
    ssl_verify_client on; ssl_protocols TLSv1.3;`;
  const upstreamTls = (prefix: string): string => `${prefix}_ssl_certificate ${folder}/client.pem; ${prefix}_ssl_certificate_key ${folder}/client.pem;
      ${prefix}_ssl_trusted_certificate ${folder}/ca.pem; ${prefix}_ssl_protocols TLSv1.3; ${prefix}_ssl_session_reuse on;`;
  return `worker_processes 1; daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log crit;
events { worker_connections 4096; }
http {
  access_log ${folder}/access.log combined buffer=64k flush=1s;
  keepalive_requests 100000000; keepalive_timeout 300s; client_max_body_size 0; tcp_nodelay on;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
  # Two, because nginx would use a kept HTTP/2 connection for HTTP/1.1.
  upstream app { server 127.0.0.1:${backendPort}; keepalive 512; keepalive_requests 100000000; }
  upstream grpc_app { server 127.0.0.1:${backendPort}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port} ssl backlog=4096; ${tls}
    location / {
      proxy_pass https://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_request_buffering off; proxy_max_temp_file_size 0;
      ${upstreamTls("proxy")}
    }
  }
  server {
    listen 127.0.0.1:${http2Port} ssl http2 backlog=4096; ${tls} http2_max_concurrent_streams 256;
    location / { grpc_pass grpcs://grpc_app; ${upstreamTls("grpc")} }
  }
}
`;
}

function haproxyConfig({ folder, port, backendPort }: Setup): string {
  return `global
  nbthread 1
  maxconn 4096
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  http-reuse always
frontend in
  bind 127.0.0.1:${port} ssl crt ${folder}/own.pem ca-file ${folder}/ca.pem verify required alpn h2,http/1.1
  use_backend grpc if { req.hdr(content-type) -m beg application/grpc }
  default_backend app
backend app
  server s 127.0.0.1:${backendPort} ssl verify required ca-file ${folder}/ca.pem crt ${folder}/client.pem alpn http/1.1
backend grpc
  server s 127.0.0.1:${backendPort} ssl verify required ca-file ${folder}/ca.pem crt ${folder}/client.pem alpn h2
`;
}
