/** The server's side of HTTP/1.1 CONNECT (RFC 9110 9.3.6) for applications that are told of a proxy; it forwards nothing else. */
import type { Socket } from "node:net";
import { errorCode } from "@fairway/runtime";
import { type AskedDestination, parseAskedFor } from "./asked-destination.ts";
import { type AskedOutcome, outcomeOf } from "./asked-outcome.ts";
import { ztunnelError } from "./failure.ts";
import type { HandshakeReader } from "./handshake-reader.ts";

/** Request line and headers together. */
const maxHeadBytes = 8_192;
const endOfHead = "\r\n\r\n";
const headerLine = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*$/;

/** With the words of RFC 9209 for what a proxy can meet. */
const answers: Readonly<Record<AskedOutcome, readonly [status: string, proxyError: string]>> = {
  denied: ["403 Forbidden", "connection_refused"],
  unresolved: ["502 Bad Gateway", "dns_error"],
  refused: ["502 Bad Gateway", "connection_refused"],
  timeout: ["504 Gateway Timeout", "connection_timeout"],
  failed: ["502 Bad Gateway", "destination_unavailable"],
};

/** Reads the head of the request. Throws ZTUNNEL_BAD_REQUEST after it was answered with 400 or 405. */
export async function readConnectRequest(socket: Socket, reader: HandshakeReader): Promise<AskedDestination> {
  const refuse = (status: string, message: string, more: readonly string[] = []): Error => {
    socket.write(response(status, more));
    return ztunnelError("ZTUNNEL_BAD_REQUEST", message);
  };
  let head: Buffer;
  try {
    head = await reader.upTo(endOfHead, maxHeadBytes);
  } catch (thrown) {
    if (errorCode(thrown) === "ZTUNNEL_BAD_REQUEST") socket.write(response("431 Request Header Fields Too Large", []));
    throw thrown;
  }
  const [line = "", ...headers] = head.subarray(0, -endOfHead.length).toString("latin1").split("\r\n");
  const [, method, target = ""] = /^([A-Z]+) ([\x21-\x7e]+) HTTP\/1\.[01]$/.exec(line) ?? [];
  if (method === undefined || !headers.every((header) => headerLine.test(header))) throw refuse("400 Bad Request", "the client does not speak HTTP/1.1");
  if (method !== "CONNECT") throw refuse("405 Method Not Allowed", "the client asks for another method than CONNECT", ["allow: CONNECT"]);
  const asked = parseAskedFor(target);
  if (asked === undefined) throw refuse("400 Bad Request", "the client asks for what is no host:port");
  return asked;
}

export function connectSucceeded(): Buffer {
  return Buffer.from("HTTP/1.1 200 Connection established\r\n\r\n", "latin1");
}

export function connectFailed(error: Error): Buffer {
  const [status, proxyError] = answers[outcomeOf(error)];
  return response(status, [`proxy-status: ztunnel; error=${proxyError}; details="${errorCode(error) ?? ""}"`]);
}

function response(status: string, headers: readonly string[]): Buffer {
  return Buffer.from([`HTTP/1.1 ${status}`, ...headers, "content-length: 0", "connection: close", "", ""].join("\r\n"), "latin1");
}
