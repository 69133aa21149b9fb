/**
 * A visitor of the shop: sleeps until it is asked to do something from inside its pod.
 *
 *   visitor get <url>                one request; prints {status, body, error, ms}
 *   visitor load <url> <every ms>    a request each interval on a new connection; prints a line for each until stopped
 *   visitor hold <host> <port>       holds a TCP connection open; prints when it opened and how it closed
 */

import { request } from "node:http";
import { connect } from "node:net";

const requestTimeoutMs = 5_000;

interface Answer {
  readonly at: number;
  readonly status: number;
  readonly ms: number;
  readonly body?: string;
  readonly error?: string;
}

function print(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Status 0 means that no HTTP answer arrived. Every request has a connection of its own. */
function get(url: string): Promise<Answer> {
  const at = Date.now();
  return new Promise((resolve) => {
    const done = (answer: { status: number; body?: string; error?: string }): void => resolve({ at, ms: Date.now() - at, ...answer });
    const outgoing = request(url, { agent: false, timeout: requestTimeoutMs }, (response) => {
      let body = "";
      response.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      response.on("end", () => done({ status: response.statusCode ?? 0, body }));
      response.on("error", (error) => done({ status: 0, error: error.message }));
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error(`no answer within ${requestTimeoutMs} ms`)));
    outgoing.on("error", (error) => done({ status: 0, error: error.message }));
    outgoing.end();
  });
}

async function load(url: string, everyMs: number): Promise<void> {
  for (let next = Date.now(); ; next += everyMs) {
    void get(url).then(({ body: _body, ...answer }) => print(answer));
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, next + everyMs - Date.now())));
  }
}

function hold(host: string, port: number): void {
  const socket = connect(port, host);
  socket.on("connect", () => print({ event: "open", at: Date.now() }));
  socket.on("error", (error) => print({ event: "error", at: Date.now(), error: error.message }));
  socket.on("close", () => print({ event: "closed", at: Date.now() }));
}

const [action, target = "", detail = ""] = process.argv.slice(2);
process.on("SIGTERM", () => process.exit(0));
if (action === "get") print(await get(target));
else if (action === "load") await load(target, Number(detail));
else if (action === "hold") hold(target, Number(detail));
else setInterval(() => undefined, 60_000);
