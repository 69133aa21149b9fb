/** Heads and bodies of HTTP, as a waypoint reads them, and what an application may ask a ztunnel by address. */
import { PassThrough } from "node:stream";
import { parseGrpcTimeout } from "../../packages/waypoint/dist/grpc-timeout.js";
import { defaultHttpLimits } from "../../packages/waypoint/dist/http-connection.js";
import { decoderOf } from "../../packages/waypoint/dist/http1/body-decoder.js";
import { findHeadEnd, parseRequest, parseResponse } from "../../packages/waypoint/dist/http1/head.js";
import { requestFault } from "../../packages/waypoint/dist/http1/header-block.js";
import { readFields, readRequest, readTrailers } from "../../packages/waypoint/dist/http2/fields.js";
import { HandshakeReader } from "../../packages/ztunnel/dist/handshake-reader.js";
import { readConnectRequest } from "../../packages/ztunnel/dist/http-connect.js";
import { readSocks5Request } from "../../packages/ztunnel/dist/socks5.js";
import { type FuzzEntry, latin1 } from "./entry.ts";

const request = "POST /a%2fb?c=d HTTP/1.1\r\nHost: web.default:80\r\nContent-Length: 5\r\nX-A: b\r\nConnection: keep-alive, x-a\r\n";
const chunked = "5;a=b\r\nhello\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n";
const fields = ":method\n:POST\n:path\n/\n:scheme\nhttp\n:authority\nweb:80\ncontent-length\n5\ncookie\na=b\nte\ntrailers";

/** A head as a server takes it out of bytes, and its body out of what follows, in two pieces. */
function message(bytes: Buffer): void {
  const end = findHeadEnd(bytes, 0);
  if (end < 0) return;
  const { framing } = parseRequest(bytes.toString("latin1", 0, end - 2), defaultHttpLimits);
  const decoder = decoderOf(framing, defaultHttpLimits, requestFault);
  const half = end + ((bytes.length - end) >> 1);
  for (const piece of [bytes.subarray(end, half), bytes.subarray(half)]) {
    for (let at = 0; decoder !== undefined && at < piece.length && !decoder.done; ) {
      const next = decoder.decode(piece, at);
      if (next <= at && decoder.piece === undefined && !decoder.done) throw new Error("the decoder of the body stands still");
      at = next;
    }
  }
  decoder?.finish();
}

/** A client that says `bytes` and hangs up. */
async function ask(bytes: Buffer, read: (socket: never, reader: HandshakeReader) => Promise<unknown>): Promise<void> {
  const socket = new PassThrough();
  const { signal } = new AbortController();
  socket.on("error", () => {});
  const reader = new HandshakeReader(socket as never, { signal });
  const reading = read({ write: () => true } as never, reader);
  socket.end(bytes);
  await reading;
}

export const httpEntries: readonly FuzzEntry[] = [
  { name: "http1-request", samples: [request, "GET http://web:80/ HTTP/1.0\r\n"], run: latin1((head) => parseRequest(head, defaultHttpLimits)) },
  {
    name: "http1-response",
    samples: ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n"],
    run: latin1((head) => parseResponse(head, "GET", defaultHttpLimits)),
  },
  {
    name: "http1-message",
    samples: [`${request}\r\nhello`, `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunked}`],
    run: message,
  },
  {
    name: "http2-fields",
    samples: [fields],
    run: latin1((all) => {
      const raw = all.split("\n");
      if (raw.length % 2 === 1) raw.push("");
      readRequest(raw, defaultHttpLimits);
      readFields(raw);
      readTrailers(raw);
    }),
  },
  { name: "grpc-timeout", samples: ["10S", "100m", "99999999H"], run: latin1(parseGrpcTimeout) },
  {
    name: "socks5",
    samples: [
      Buffer.from("050100" + "050100010a0000010050", "hex"),
      Buffer.concat([Buffer.from("05010005010003", "hex"), Buffer.from("\u0003web\0P", "latin1")]),
    ],
    run: (bytes) => ask(bytes, readSocks5Request),
  },
  { name: "http-connect", samples: ["CONNECT web.default:80 HTTP/1.1\r\nHost: web.default:80\r\n\r\n"], run: (bytes) => ask(bytes, readConnectRequest) },
];
