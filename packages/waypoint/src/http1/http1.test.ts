/** HTTP/1 over in-memory transports: what is answered to what bytes, one table of bad input, and one message after another. */
import { duplexPair } from "node:stream";
import { HeaderFields } from "@fairway/model";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { textBody } from "../body.ts";
import { defaultHttpLimits, type HttpLimits, type IncomingRequest } from "../http-connection.ts";
import { serveHttp1 } from "./server-connection.ts";

interface Served {
  /** What the client reads until the connection ends, or for as long as `pause` turns. */
  readonly answer: string;
  readonly requests: readonly IncomingRequest[];
  readonly refused: readonly { status: number; detail: string }[];
  readonly ended: boolean;
}

/** Sends `pieces`, one per turn, and reads what comes back. */
async function exchange(pieces: readonly string[], { limits = {}, end = false }: { limits?: Partial<HttpLimits>; end?: boolean } = {}): Promise<Served> {
  const [client, server] = duplexPair();
  const requests: IncomingRequest[] = [];
  const refused: { status: number; detail: string }[] = [];
  let answer = "";
  let ended = false;
  client.on("data", (chunk: Buffer) => {
    answer += chunk.toString("latin1");
  });
  client.once("end", () => {
    ended = true;
  });
  const connection = serveHttp1(server, {
    limits: { ...defaultHttpLimits, ...limits },
    clock: new ManualClock(),
    onRefused: (refusal) => refused.push(refusal),
    onRequest: (request) => {
      requests.push(request);
      request.body.flowInto({
        write: () => true,
        end: () => request.respond({ status: 200, headers: new HeaderFields(), body: textBody(request.head.path) }),
        fail: () => request.respond({ status: 400, headers: new HeaderFields(), body: textBody("broken") }),
        onReady: undefined,
      });
    },
  });
  for (const piece of pieces) {
    client.write(Buffer.from(piece, "latin1"));
    await turns(3);
  }
  if (end) client.end();
  await turns(6);
  connection.destroy(new Error("over"));
  await connection.closed;
  return { answer, requests, refused, ended };
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

test("a request is answered and the connection takes the next", async (t) => {
  const { answer, requests } = await exchange(["GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /b HTTP/1.1\r\nHost: x\r\n\r\n"]);
  t.is(answer, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n/aHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n/b");
  t.is(requests.length, 2);
});
