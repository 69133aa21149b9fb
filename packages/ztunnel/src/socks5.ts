/** The server's side of SOCKS5 (RFC 1928, ztunnel contract 5B.3): no authentication, CONNECT only. */
import type { Socket } from "node:net";
import { type IpAddress, ipFromBytes } from "@fairway/model";
import { type AskedDestination, askedFor } from "./asked-destination.ts";
import { type AskedOutcome, outcomeOf } from "./asked-outcome.ts";
import { ztunnelError } from "./failure.ts";
import type { HandshakeReader } from "./handshake-reader.ts";

const version = 5;
const noAuthentication = 0;
const noAcceptableMethod = 0xff;
const connectCommand = 1;
const typeIpv4 = 1;
const typeName = 3;
const typeIpv6 = 4;

const replies: Readonly<Record<AskedOutcome, number>> = { denied: 2, unresolved: 4, refused: 5, timeout: 4, failed: 1 };
const succeeded = 0;
/** The reference's answer to everything that it does not speak: other commands, other address types, nonsense. */
const notSupported = 7;

/** Speaks until the client's request is read. Throws ZTUNNEL_BAD_REQUEST; where the protocol has an answer to it, it was given. */
export async function readSocks5Request(socket: Socket, reader: HandshakeReader): Promise<AskedDestination> {
  const [spoken, methods = 0] = await reader.exactly(2);
  if (spoken !== version) throw badRequest("the client does not speak SOCKS5");
  const offered = methods === 0 ? [] : [...(await reader.exactly(methods))];
  if (!offered.includes(noAuthentication)) {
    socket.write(Buffer.of(version, noAcceptableMethod));
    throw badRequest("the client does not offer to go without authentication");
  }
  socket.write(Buffer.of(version, noAuthentication));
  const [again, command, , type] = await reader.exactly(4);
  const host = again === version ? await readHost(reader, type) : undefined;
  const port = host === undefined ? 0 : (await reader.exactly(2)).readUInt16BE();
  const asked = command === connectCommand && host !== undefined ? askedFor(host, port) : undefined;
  if (asked !== undefined) return asked;
  socket.write(reply(notSupported));
  throw badRequest(
    command === connectCommand ? "the client asks for what is no destination" : `the client asks for command ${command}; only CONNECT (1) is served`,
  );
}

export function socks5Succeeded(): Buffer {
  return reply(succeeded);
}

export function socks5Failed(error: Error): Buffer {
  return reply(replies[outcomeOf(error)]);
}

async function readHost(reader: HandshakeReader, type: number | undefined): Promise<IpAddress | string | undefined> {
  switch (type) {
    case typeIpv4:
      return ipFromBytes(await reader.exactly(4));
    case typeIpv6:
      return ipFromBytes(await reader.exactly(16));
    case typeName: {
      const [length = 0] = await reader.exactly(1);
      return length === 0 ? "" : (await reader.exactly(length)).toString("latin1");
    }
    default:
      return undefined;
  }
}

/** The address of our end is nobody's business, as with the reference. */
function reply(code: number): Buffer {
  return Buffer.of(version, code, 0, typeIpv4, 0, 0, 0, 0, 0, 0);
}

function badRequest(message: string): Error {
  return ztunnelError("ZTUNNEL_BAD_REQUEST", message);
}
