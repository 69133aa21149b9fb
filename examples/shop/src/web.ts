/** The front of the shop: every request is answered with what the api says, so one request crosses the whole shop. */
import { request as ask, createServer } from "node:http";

const api = process.env["API_URL"] ?? "http://api:8080";
const requestTimeoutMs = 5_000;

/** Asks the api on a connection of its own, so that each request shows what the mesh does with a new one. */
function askApi(path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = ask(new URL(path, api), { agent: false, timeout: requestTimeoutMs }, (reply) => {
      let body = "";
      reply.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      reply.on("end", () => resolve({ status: reply.statusCode ?? 502, body }));
      reply.on("error", reject);
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error(`no answer within ${requestTimeoutMs} ms`)));
    outgoing.on("error", reject);
    outgoing.end();
  });
}

const server = createServer((request, response) => {
  askApi(request.url ?? "/")
    .catch((error: unknown) => ({ status: 502, body: JSON.stringify({ error: `web could not reach ${api}: ${String(error)}` }) }))
    .then(({ status, body }) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(body);
    });
});

server.listen(8080, "::");
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
