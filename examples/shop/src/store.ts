/** A store for machines without redis-server: the few Redis commands that the shop uses, in memory. */
import { createServer } from "node:net";

const counters = new Map<string, number>();
const longestLine = 512;

function reply(line: string): string {
  const [command = "", key = ""] = line.trim().split(/\s+/);
  if (command.toUpperCase() === "PING") return "+PONG\r\n";
  if (command.toUpperCase() !== "INCR" || key === "") return `-ERR unknown command ${JSON.stringify(command.slice(0, 20))}\r\n`;
  const next = (counters.get(key) ?? 0) + 1;
  counters.set(key, next);
  return `:${next}\r\n`;
}

const server = createServer((socket) => {
  let pending = "";
  socket.on("data", (chunk: Buffer) => {
    pending += chunk.toString();
    const lines = pending.split("\r\n");
    pending = lines.pop() ?? "";
    for (const line of lines) socket.write(reply(line));
    if (pending.length > longestLine) socket.destroy();
  });
  socket.on("error", () => socket.destroy());
});

server.listen(6379, "::");
process.on("SIGTERM", () => process.exit(0));
