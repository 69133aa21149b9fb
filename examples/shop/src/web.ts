/** The front of the shop: every request is answered with what the api says, so one request crosses the whole shop. */
import { createServer } from "node:http";

const api = process.env["API_URL"] ?? "http://api:8080";
const requestTimeoutMs = 5_000;

const server = createServer((request, response) => {
  const answer = async (): Promise<{ status: number; body: string }> => {
    const reply = await fetch(new URL(request.url ?? "/", api), { signal: AbortSignal.timeout(requestTimeoutMs) });
    return { status: reply.status, body: await reply.text() };
  };
  answer()
    .catch((error: unknown) => ({ status: 502, body: JSON.stringify({ error: `web could not reach ${api}: ${String(error)}` }) }))
    .then(({ status, body }) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(`${body}\n`);
    });
});

server.listen(8080, "::");
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
