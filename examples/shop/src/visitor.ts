/**
 * A visitor of the shop: sleeps until it is asked to do something from inside its pod.
 *
 *   visitor get <url> [name:value …] one request with these headers; prints {status, body, error, ms}
 *   visitor many <url> <count>       so many requests on a few connections; prints how many were answered by which version, and with which status
 *   visitor chat <ws url> <count>    so many messages over a WebSocket, one after the other; prints how many came back
 *   visitor grpc <target> <count>    so many calls of shop.Orders/Place; prints how many each version took. The target may be xds:///…
 *   visitor stream <target> <count>  shop.Orders/Watch and /Talk with so many messages; prints how many came, and the trailers
 *   visitor load <url> <every ms>    a request each interval on a new connection; prints a line for each until stopped
 *   visitor hold <host> <port>       holds a TCP connection open; prints when it opened and how it closed
 */

import { Agent, type AgentOptions, request } from "node:http";
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

/** Status 0 means that no HTTP answer arrived. Without an agent the request has a connection of its own. */
function get(url: string, { agent = false, headers = {} }: { agent?: Agent | false; headers?: Record<string, string> } = {}): Promise<Answer> {
  const at = Date.now();
  return new Promise((resolve) => {
    const done = (answer: { status: number; body?: string; error?: string }): void => resolve({ at, ms: Date.now() - at, ...answer });
    const outgoing = request(url, { agent, headers, timeout: requestTimeoutMs }, (response) => {
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

function fieldsOf(lines: readonly string[]): Record<string, string> {
  const fields = lines
    .filter((line) => line !== "")
    .map((line) => [line.slice(0, line.indexOf(":")).trim(), line.slice(line.indexOf(":") + 1).trim()] as const);
  return Object.fromEntries(fields);
}

function hold(host: string, port: number): void {
  const socket = connect(port, host);
  socket.on("connect", () => print({ event: "open", at: Date.now() }));
  socket.on("error", (error) => print({ event: "error", at: Date.now(), error: error.message }));
  socket.on("close", () => print({ event: "closed", at: Date.now() }));
}

const manyConnections: AgentOptions = { keepAlive: true, maxSockets: 8 };

async function many(url: string, count: number): Promise<void> {
  const agent = new Agent(manyConnections);
  const statuses: Record<string, number> = {};
  const versions: Record<string, number> = {};
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) {
      const { status, body } = await get(url, { agent });
      statuses[status] = (statuses[status] ?? 0) + 1;
      const version = /"version":"(\w+)"/.exec(body ?? "")?.[1];
      if (version !== undefined) versions[version] = (versions[version] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: manyConnections.maxSockets ?? 1 }, worker));
  agent.destroy();
  print({ statuses, versions });
}

const [action, target = "", detail = "", ...more] = process.argv.slice(2);
process.on("SIGTERM", () => process.exit(0));
if (action === "get") print(await get(target, { headers: fieldsOf([detail, ...more]) }));
else if (action === "many") await many(target, Number(detail));
else if (action === "chat") print(await (await import("./visitor-streams.ts")).chat(target, Number(detail)));
else if (action === "grpc") print(await (await import("./visitor-streams.ts")).placeOrders(target, Number(detail)));
else if (action === "stream") print(await (await import("./visitor-streams.ts")).stream(target, Number(detail)));
else if (action === "load") await load(target, Number(detail));
else if (action === "hold") hold(target, Number(detail));
else setInterval(() => undefined, 60_000);
