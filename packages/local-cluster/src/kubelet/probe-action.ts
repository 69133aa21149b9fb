/** One attempt of a probe or an HTTP hook, from the node's network namespace as a kubelet would. Never throws: the result says what happened. */
import { request as httpRequest } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Probe } from "@fairway/kube";
import type { PodNetwork } from "@fairway/linux";
import { MeshError, messageOf } from "@fairway/runtime";
import type { Container } from "../resources.ts";
import type { ProbeResult } from "./probe-loop.ts";

export interface ProbeTarget {
  readonly network: PodNetwork;
  readonly podIp: string;
  readonly container: Container;
  /** Runs a command in the container; resolves with its exit code and output. */
  readonly exec: (argv: readonly string[], timeoutMs: number, signal: AbortSignal) => Promise<{ code: number; output: string }>;
}

/** How much of a body is read before the answer counts. */
const maxBodyBytes = 10 * 1024;

/** Tries a probe once. */
export async function attemptProbe(probe: Probe, target: ProbeTarget, timeoutMs: number, signal: AbortSignal): Promise<ProbeResult> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  try {
    if (probe.httpGet !== undefined) return await httpGet(probe.httpGet, target, timeoutMs, limited);
    if (probe.tcpSocket !== undefined) {
      const socket = await dial(target, probe.tcpSocket, timeoutMs, limited);
      socket.destroy();
      return { ok: true, message: "" };
    }
    if (probe.grpc !== undefined) return await grpcHealth(probe.grpc, target, timeoutMs, limited);
    if (probe.exec !== undefined) {
      const { code, output } = await target.exec(probe.exec.command ?? [], timeoutMs, limited);
      return code === 0 ? { ok: true, message: "" } : { ok: false, message: output.trim() || `command exited with ${code}` };
    }
    return { ok: true, message: "" };
  } catch (thrown) {
    return { ok: false, message: limited.aborted && !signal.aborted ? `timed out after ${timeoutMs} ms` : messageOf(thrown) };
  }
}

/** The number of a port given by number or by the container's name for it. Throws LOCAL_CLUSTER_PROBE_PORT. */
function portNumber(port: number | string, container: Container): number {
  const number = typeof port === "number" ? port : (container.ports?.find(({ name }) => name === port)?.containerPort ?? Number(port));
  if (!Number.isInteger(number) || number < 1 || number > 65_535) throw new MeshError("LOCAL_CLUSTER_PROBE_PORT", `the container names no port "${port}"`);
  return number;
}

async function dial(target: ProbeTarget, { host, port }: { host?: string; port: number | string }, timeoutMs: number, signal: AbortSignal): Promise<Socket> {
  const { socket } = await target.network.dial({ host: host ?? target.podIp, port: portNumber(port, target.container), mark: 0, timeoutMs, signal });
  // The attempt's own end is decided elsewhere; a late error must not go unheard.
  socket.on("error", () => undefined);
  return socket;
}

async function httpGet(probe: NonNullable<Probe["httpGet"]>, target: ProbeTarget, timeoutMs: number, signal: AbortSignal): Promise<ProbeResult> {
  const plain = await dial(target, probe, timeoutMs, signal);
  const secure = probe.scheme?.toUpperCase() === "HTTPS";
  // Kubelets do not verify a probe's certificate either.
  const socket = secure ? connectTls({ socket: plain, rejectUnauthorized: false }) : plain;
  socket.on("error", () => undefined);
  try {
    const status = await new Promise<number>((resolve, reject) => {
      const port = portNumber(probe.port, target.container);
      const host = target.podIp.includes(":") ? `[${target.podIp}]` : target.podIp;
      const headers: Record<string, string> = { host: `${host}:${port}`, "user-agent": "kube-probe/1.32", accept: "*/*", connection: "close" };
      for (const { name, value } of probe.httpHeaders ?? []) headers[name.toLowerCase()] = value;
      const path = probe.path === undefined || probe.path === "" ? "/" : probe.path.startsWith("/") ? probe.path : `/${probe.path}`;
      const request = httpRequest({ createConnection: () => socket, path, headers, signal });
      request.on("error", reject);
      // A dialled socket is handed over paused.
      request.on("socket", () => plain.resume());
      request.on("response", (response) => {
        let read = 0;
        response.on("data", (chunk: Buffer) => {
          read += chunk.length;
          if (read > maxBodyBytes) response.destroy();
        });
        response.on("error", () => undefined);
        response.on("close", () => resolve(response.statusCode ?? 0));
      });
      request.end();
    });
    return status >= 200 && status < 400 ? { ok: true, message: "" } : { ok: false, message: `HTTP probe failed with statuscode: ${status}` };
  } finally {
    socket.destroy();
    plain.destroy();
  }
}

/** grpc.health.v1.Health/Check, whose messages are small enough to write by hand: a string field 1, an enum field 1. */
async function grpcHealth(
  { port, service = "" }: NonNullable<Probe["grpc"]>,
  target: ProbeTarget,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<ProbeResult> {
  const socket = await dial(target, { port }, timeoutMs, signal);
  socket.resume();
  const session = connectHttp2(`http://${target.podIp.includes(":") ? "pod" : target.podIp}:${port}`, { createConnection: () => socket });
  session.on("error", () => undefined);
  try {
    const body = await new Promise<Buffer>((resolve, reject) => {
      const stream = session.request(
        { ":method": "POST", ":path": "/grpc.health.v1.Health/Check", "content-type": "application/grpc", te: "trailers" },
        { signal },
      );
      const chunks: Buffer[] = [];
      stream.on("error", reject);
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("close", () => resolve(Buffer.concat(chunks)));
      const name = Buffer.from(service).subarray(0, 120);
      const message = name.length === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.from([0x0a, name.length]), name]);
      stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]));
    });
    const serving = body.length >= 7 && body[5] === 0x08 && body[6] === 1;
    return serving ? { ok: true, message: "" } : { ok: false, message: `service unhealthy (answer ${body.toString("hex").slice(0, 40) || "empty"})` };
  } finally {
    session.destroy();
    socket.destroy();
  }
}
