/** Streams to a proxy: each its own mutual TLS connection, or many in a few tunnels. */
import { once } from "node:events";
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { type TLSSocket, connect as tlsConnect } from "node:tls";
import { defaultEngineName, type TunnelKey, TunnelPool, tunnelEngine } from "@fairway/hbone";
import { type AuthorityPem, createMeshTls } from "@fairway/pki";
import { systemClock } from "@fairway/runtime";
import { certificateOf, clientIdentity, waypointIdentity } from "../identities.ts";
import { service, type TargetProxy } from "./measures.ts";
import { pemOf } from "./pem.ts";

export interface CarrierSource extends AsyncDisposable {
  /** A byte stream on which HTTP can be spoken; `http2` where the protocol is negotiated. */
  stream(protocol?: "http1" | "http2"): Promise<Duplex>;
}

export async function openCarrier(authority: AuthorityPem, target: TargetProxy): Promise<CarrierSource> {
  return target.carrier === "tls" ? tlsCarrier(authority, target) : tunnelCarrier(authority, target);
}

function tlsCarrier(authority: AuthorityPem, target: TargetProxy): CarrierSource {
  const { key, cert, ca } = pemOf(authority, clientIdentity);
  const open: TLSSocket[] = [];
  return {
    stream: async (protocol = "http1") => {
      const port = protocol === "http1" ? target.port : target.http2Port;
      const socket = tlsConnect({
        port,
        host: "127.0.0.1",
        key,
        cert,
        ca,
        ALPNProtocols: [protocol === "http1" ? "http/1.1" : "h2"],
        // The certificate names a SPIFFE identity, which is not a host name.
        checkServerIdentity: () => undefined,
      });
      open.push(socket);
      socket.setNoDelay(true);
      await once(socket, "secureConnect");
      return socket;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of open) socket.destroy();
    },
  };
}

async function tunnelCarrier(authority: AuthorityPem, target: TargetProxy): Promise<CarrierSource> {
  const { signal } = new AbortController();
  const certificate = await certificateOf(authority, clientIdentity);
  const tls = createMeshTls({ clock: systemClock });
  const pool = new TunnelPool({ engine: tunnelEngine(defaultEngineName) });
  const key: TunnelKey = { owner: "bench", source: clientIdentity, expected: [waypointIdentity], workload: "bench", address: `127.0.0.1:${target.port}` };
  const dial = async (dialing: AbortSignal): Promise<Duplex> => {
    const socket = connect({ port: target.port, host: "127.0.0.1", noDelay: true });
    await once(socket, "connect", { signal: dialing });
    return (await tls.connect(socket, certificate, [waypointIdentity], { signal: dialing })).socket;
  };
  return {
    stream: async (protocol = "http1") => {
      const authorityOf = `${service.vip}:${protocol === "http1" ? service.port : service.grpcPort}`;
      const { stream } = await pool.open(key, { authority: authorityOf }, dial, { signal });
      return stream.duplex();
    },
    [Symbol.asyncDispose]: async () => pool[Symbol.asyncDispose](),
  };
}
