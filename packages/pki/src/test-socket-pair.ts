/** A real connection for tests of what runs over one. */
import { once } from "node:events";
import { connect, createServer, type ServerOpts, type Socket } from "node:net";
import type { ExecutionContext } from "ava";

/** Two ends of one loopback TCP connection, closed with the test. `accepted` is how the server accepts it. */
export async function pair(t: ExecutionContext, accepted: ServerOpts = {}): Promise<{ client: Socket; server: Socket }> {
  const listener = createServer(accepted);
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const client = connect({ port: address.port, host: "127.0.0.1", allowHalfOpen: accepted.allowHalfOpen ?? false });
  const [[server]] = await Promise.all([once(listener, "connection"), once(client, "connect")]);
  listener.close();
  t.teardown(() => {
    client.destroy();
    server.destroy();
  });
  return { client, server };
}
