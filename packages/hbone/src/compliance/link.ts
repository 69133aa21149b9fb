/** Connections to run a tunnel over in tests: in memory, TCP, and TLS with a certificate made on the spot. */
import { generateKeyPairSync, sign } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { type Duplex, duplexPair } from "node:stream";
import { createSecureContext, TLSSocket, connect as tlsConnect } from "node:tls";

export interface Link {
  readonly client: Duplex;
  readonly server: Duplex;
}

export async function memoryLink(): Promise<Link> {
  const [client, server] = duplexPair();
  return { client, server };
}

/** Two connected TCP sockets on loopback that allow half-open connections. */
export async function tcpLink(): Promise<{ client: Socket; server: Socket }> {
  const listener: Server = createServer({ allowHalfOpen: true, noDelay: true });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  if (address === null || typeof address === "string") throw new Error("the listener has no port");
  const client = connect({ port: address.port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
  const accepted = once(listener, "connection");
  await once(client, "connect");
  const [server] = (await accepted) as [Socket];
  listener.close();
  return { client, server };
}

const { key, certificate } = selfSigned();
const context = createSecureContext({ key, cert: certificate, minVersion: "TLSv1.3" });

export async function tlsLink(): Promise<Link> {
  const { client, server } = await tcpLink();
  const far = new TLSSocket(server, { isServer: true, secureContext: context, ALPNProtocols: ["h2"] });
  // The certificate is nobody's; who is at the other end is not what these tests are about.
  const near = tlsConnect({ socket: client, secureContext: context, ALPNProtocols: ["h2"], rejectUnauthorized: false });
  await Promise.all([once(near, "secureConnect"), once(far, "secure")]);
  return { client: near, server: far };
}

/** A self-signed P-256 certificate, as little DER as TLS accepts. */
function selfSigned(): { key: string; certificate: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const algorithm = der(0x30, der(0x06, Buffer.from("2a8648ce3d040302", "hex")));
  const name = der(0x30, der(0x31, der(0x30, der(0x06, Buffer.from("550403", "hex")), der(0x0c, Buffer.from("tunnel test")))));
  const validity = der(0x30, der(0x18, Buffer.from("20200101000000Z")), der(0x18, Buffer.from("21200101000000Z")));
  const body = der(0x30, der(0x02, Buffer.from([1])), algorithm, name, validity, name, publicKey.export({ type: "spki", format: "der" }));
  const signature = der(0x03, Buffer.from([0]), sign("sha256", body, privateKey));
  const base64 = der(0x30, body, algorithm, signature).toString("base64").replaceAll(/.{64}/g, "$&\n");
  return {
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    certificate: `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`,
  };
}

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const length = content.length < 128 ? [content.length] : content.length < 256 ? [0x81, content.length] : [0x82, content.length >> 8, content.length & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), content]);
}
