/** A bounded load of requests, and large bodies, as they run inside a pod. */
import { createHash } from "node:crypto";
import { Agent, request } from "node:http";
import { fetchOne } from "./echo-client.ts";
import { testStream, testStreamDigest } from "./test-stream.ts";

const connectionsAtOnce = 16;

export interface Load {
  readonly sent: number;
  /** By status; by the failure where no answer arrived. */
  readonly outcomes: Readonly<Record<string, number>>;
}

/** Requests at a rate, over connections that are kept; every tenth over one of its own. */
export async function load(url: string, perSecond: number, durationMs: number): Promise<Load> {
  const agent = new Agent({ keepAlive: true, maxSockets: connectionsAtOnce });
  const outcomes: Record<string, number> = {};
  const asked: Promise<void>[] = [];
  const ask = async (own: boolean): Promise<void> => {
    const { status, error } = await fetchOne(url, {}, own ? false : agent);
    const outcome = status === 0 || error !== undefined ? `failed: ${error}` : String(status);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  };
  const startedAt = Date.now();
  while (Date.now() - startedAt < durationMs) {
    const due = Math.floor(((Date.now() - startedAt) / 1_000) * perSecond);
    while (asked.length < due) asked.push(ask(asked.length % 10 === 0));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await Promise.all(asked);
  agent.destroy();
  return { sent: asked.length, outcomes };
}

/** Sends the test stream to `/digest` and reads it from `/source`; both as "<bytes> <sha256>", and as it should be. */
export async function largeBodies(base: string, bytes: number): Promise<{ up: string; down: string; expected: string }> {
  const up = await new Promise<string>((resolve, reject) => {
    const outgoing = request(`${base}/digest`, { agent: false, method: "POST" }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      response.on("end", () => resolve(text));
    });
    outgoing.on("error", reject);
    testStream(bytes).pipe(outgoing);
  });
  const down = await new Promise<string>((resolve, reject) => {
    const outgoing = request(`${base}/source/${bytes}`, { agent: false }, (response) => {
      const hash = createHash("sha256");
      let received = 0;
      response.on("data", (chunk: Buffer) => {
        received += chunk.length;
        hash.update(chunk);
      });
      response.on("error", reject);
      response.on("end", () => resolve(`${received} ${hash.digest("hex")}`));
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
  return { up, down, expected: `${bytes} ${testStreamDigest(bytes)}` };
}
