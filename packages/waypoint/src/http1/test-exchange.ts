/** Raw bytes against the server's side of HTTP/1, for tests: what it takes for requests and what it answers. */
import { duplexPair } from "node:stream";
import { HeaderFields } from "@fairway/model";
import { ManualClock } from "@fairway/runtime";
import { textBody } from "../body.ts";
import { defaultHttpLimits, type HttpLimits, type IncomingRequest } from "../http-connection.ts";
import { serveHttp1 } from "./server-connection.ts";

/** A request as it was understood. */
export interface Seen {
  readonly method: string;
  readonly authority: string;
  readonly path: string;
  readonly headers: readonly string[];
  body: string;
  trailers: readonly string[] | undefined;
  /** Undefined until its body was over. */
  outcome: "whole" | "broken" | undefined;
}

export interface Served {
  /** Everything the client read. */
  readonly answer: string;
  /** Status codes of it, in order. */
  readonly statuses: readonly number[];
  readonly seen: readonly Seen[];
  readonly refused: readonly { status: number; detail: string }[];
  /** The server ended the connection. */
  readonly ended: boolean;
}

export interface ExchangeOptions {
  readonly limits?: Partial<HttpLimits>;
  /** The client sends FIN after its bytes. */
  readonly end?: boolean;
  /** Instead of answering with the path once the body is whole. */
  readonly onRequest?: (request: IncomingRequest) => void;
  readonly clock?: ManualClock;
  readonly advanceMs?: number;
}

/** Sends `pieces`, each in its own turn, and collects what comes back. */
export async function exchange(pieces: readonly (string | Buffer)[], options: ExchangeOptions = {}): Promise<Served> {
  const { limits = {}, end = false, onRequest, clock = new ManualClock(), advanceMs = 0 } = options;
  const [client, server] = duplexPair();
  const seen: Seen[] = [];
  const refused: { status: number; detail: string }[] = [];
  let answer = "";
  let ended = false;
  client.on("error", () => undefined);
  client.on("data", (chunk: Buffer) => {
    answer += chunk.toString("latin1");
  });
  client.once("end", () => {
    ended = true;
  });
  const connection = serveHttp1(server, {
    limits: { ...defaultHttpLimits, ...limits },
    clock,
    onRefused: (refusal) => refused.push(refusal),
    onRequest: onRequest ?? ((request) => answerWithPath(request, seen)),
  });
  for (const piece of pieces) {
    client.write(typeof piece === "string" ? Buffer.from(piece, "latin1") : piece);
    await turns(2);
  }
  if (end) client.end();
  await turns(4);
  if (advanceMs > 0) {
    await clock.advance(advanceMs);
    await turns(4);
  }
  const outcome = { answer, ended };
  connection.destroy(new Error("the test is over"));
  await connection.closed;
  // An answer is found by its status line; no body of these tests looks like one.
  const statuses = [...answer.matchAll(/HTTP\/1\.1 ([0-9]{3}) /g)].map(([, status]) => Number(status));
  return { ...outcome, statuses, seen, refused };
}

function answerWithPath(request: IncomingRequest, seen: Seen[]): void {
  const { method, authority, path, headers } = request.head;
  const entry: Seen = { method, authority, path, headers: headers.flat, body: "", trailers: undefined, outcome: undefined };
  seen.push(entry);
  request.body.flowInto({
    write: (bytes) => {
      entry.body += Buffer.from(bytes).toString("latin1");
      return true;
    },
    end: (trailers) => {
      entry.trailers = trailers?.flat;
      entry.outcome = "whole";
      request.respond({ status: 200, headers: new HeaderFields(), body: textBody(path) });
    },
    fail: () => {
      entry.outcome = "broken";
      request.respond({ status: 400, headers: new HeaderFields(), body: textBody("") });
    },
    onReady: undefined,
  });
}

export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
