/**
 * `pods/portforward` over WebSocket: kubectl's tunnel (port-forward-tunnel.ts), or v4, which other clients speak: the i-th `ports` parameter has channel 2i for data and 2i+1 for errors; each channel
 * opens with its port number, two bytes, little-endian.
 */
import type { Duplex } from "node:stream";
import { MeshError, messageOf } from "@fairway/runtime";
import { ApiError } from "./api-error.ts";
import type { SessionOptions } from "./exec-session.ts";
import { runTunnel, tunnelProtocol } from "./port-forward-tunnel.ts";

export const forwardProtocols: readonly string[] = [tunnelProtocol, "v4.channel.k8s.io"];

/** Ports one session may name. */
const maxPorts = 16;

/** Forwards until either side is gone, in the protocol the client chose. */
export async function runForward(options: SessionOptions): Promise<void> {
  if (options.protocol === tunnelProtocol) return await runTunnel(options);
  const { client, info, gateway, signal } = options;
  const gone = new AbortController();
  const closed = new Promise<void>((resolve) => client.once("close", () => resolve()));
  client.once("close", () => gone.abort(new MeshError("LOCAL_CLUSTER_API_CLIENT_GONE", "the client closed the connection")));
  const ending = AbortSignal.any([signal, gone.signal]);
  ending.addEventListener("abort", () => client.terminate(), { once: true });
  client.pause();
  const ports = info.query.getAll("ports").flatMap((text) => text.split(","));
  const connections = new Map<number, Duplex>();
  try {
    if (ports.length === 0 || ports.length > maxPorts) throw ApiError.badRequest(`between 1 and ${maxPorts} ports can be forwarded`);
    for (const [index, text] of ports.entries()) {
      const port = Number(text);
      if (!Number.isInteger(port) || port < 1 || port > 65_535) throw ApiError.badRequest("ports must be between 1 and 65535");
      const number = Buffer.from([port & 0xff, port >> 8]);
      client.send(Buffer.concat([Buffer.from([index * 2]), number]));
      client.send(Buffer.concat([Buffer.from([index * 2 + 1]), number]));
      try {
        const connection = await gateway.dial({ namespace: info.namespace, pod: info.name, port }, { signal: ending });
        connections.set(index * 2, connection);
        attach(connection, index * 2, options);
      } catch (thrown) {
        const message = `unable to forward port ${port} of pod ${info.namespace}/${info.name}: ${messageOf(thrown)}`;
        client.send(Buffer.concat([Buffer.from([index * 2 + 1]), Buffer.from(message)]));
      }
    }
    client.on("message", (data) => {
      const message = Buffer.isBuffer(data) ? data : Buffer.from(data instanceof ArrayBuffer ? new Uint8Array(data) : Buffer.concat(data));
      const connection = connections.get(message[0] ?? -1);
      if (connection === undefined || connection.destroyed || message.length < 2) return;
      if (!connection.write(message.subarray(1))) {
        client.pause();
        connection.once("drain", () => client.resume());
        connection.once("close", () => client.resume());
      }
    });
    client.resume();
    await closed;
  } catch (thrown) {
    client.close(1011, messageOf(thrown).slice(0, 120));
  } finally {
    for (const connection of connections.values()) connection.destroy();
  }
}

function attach(connection: Duplex, channel: number, { client }: SessionOptions): void {
  connection.on("error", () => connection.destroy());
  connection.on("data", (chunk: Buffer) => {
    if (client.readyState !== client.OPEN) return;
    connection.pause();
    client.send(Buffer.concat([Buffer.from([channel]), chunk]), () => connection.resume());
  });
  // A dialled socket arrives paused, and a listener alone does not start one that was paused.
  connection.resume();
  // The protocol cannot close one channel: the end of the only connection ends the session.
  connection.once("close", () => client.close(1000));
}
