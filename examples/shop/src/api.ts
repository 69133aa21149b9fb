/** Counts orders in a Redis-speaking store and says who asked, as the api sees it. */
import { createServer } from "node:http";
import { connect } from "node:net";

const storeHost = process.env["STORE_HOST"] ?? "store";
const storePort = Number(process.env["STORE_PORT"] ?? 6379);
const storeTimeoutMs = 5_000;

/** One INCR on a connection of its own. RESP: `:<number>\r\n`. */
function increment(key: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect(storePort, storeHost);
    socket.setTimeout(storeTimeoutMs, () => socket.destroy(new Error("the store did not answer")));
    let reply = "";
    socket.on("connect", () => socket.write(`INCR ${key}\r\n`));
    socket.on("data", (chunk: Buffer) => {
      reply += chunk.toString();
      const match = /^:(\d+)\r\n/.exec(reply);
      if (match === null) return;
      socket.end();
      resolve(Number(match[1]));
    });
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`the store closed the connection after ${JSON.stringify(reply)}`)));
  });
}

const server = createServer((request, response) => {
  const client = request.socket.remoteAddress?.replace(/^::ffff:/, "") ?? "";
  const answer = (status: number, body: object): void => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(`${JSON.stringify(body)}\n`);
  };
  increment("orders").then(
    (orders) => answer(200, { orders, client, path: request.url, pod: process.env["HOSTNAME"] ?? "" }),
    (error: unknown) => answer(502, { error: `api could not reach the store at ${storeHost}:${storePort}: ${String(error)}` }),
  );
});

server.listen(8080, "::");
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
