/** The executable that the container runtime starts: environment and standard input in, one HTTP request to the agent, JSON out. */
import { request as httpRequest } from "node:http";
import { type AddRequest, type AddResponse, addPath, parseAddResponse, pluginTimeoutMs } from "../plugin-protocol.ts";
import { runPlugin } from "./cni-plugin.ts";

const inputLimit = 1_048_576;
const answerLimit = 65_536;

async function main(): Promise<void> {
  const stdin = await readAll(process.stdin, inputLimit);
  const { exitCode, stdout } = await runPlugin({ env: process.env, stdin, pid: process.pid, ask });
  if (exitCode !== 0) process.stderr.write(stdout);
  await new Promise<void>((resolve) => process.stdout.write(stdout, () => resolve()));
  process.exit(exitCode);
}

function ask(socketPath: string, wanted: AddRequest): Promise<AddResponse> {
  const body = JSON.stringify(wanted);
  const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
  return new Promise((resolve, reject) => {
    const request = httpRequest({ socketPath, path: addPath, method: "POST", headers, signal: AbortSignal.timeout(pluginTimeoutMs) }, (response) => {
      readAll(response, answerLimit).then((text) => {
        const answer = parseAddResponse(text);
        if (answer === undefined) reject(new Error(`its answer (status ${response.statusCode ?? 0}) was not understood`));
        else resolve(answer);
      }, reject);
    });
    request.on("error", (error) =>
      reject(error.name === "AbortError" || error.name === "TimeoutError" ? new Error(`no answer within ${pluginTimeoutMs} ms`) : error),
    );
    request.end(body);
  });
}

async function readAll(stream: AsyncIterable<Buffer | string>, limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream) {
    const bytes = Buffer.from(chunk);
    length += bytes.length;
    if (length > limit) throw new Error(`more than ${limit} bytes`);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString("utf8");
}

main().catch((thrown: unknown) => {
  const msg = `fairway-cni: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
  process.stdout.write(`${JSON.stringify({ cniVersion: "1.0.0", code: 999, msg })}\n`, () => process.exit(1));
});
