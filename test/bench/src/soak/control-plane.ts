/**
 * A control plane that cannot keep still: discovery over plain HTTP/2 on the loopback of a node, in which workloads come and go and a policy
 * is set and withdrawn, every so often. Told nothing, it goes on until it is killed.
 *   node dist/soak/control-plane.js <mesh.yaml> <every ms> <port to deny now and then>
 */
import { readFileSync } from "node:fs";
import { createServer, type ServerHttp2Stream } from "node:http2";
import { type AuthorizationPolicy, emptyMatch, policyKey, type Workload } from "@fairway/model";
import { addressTypeUrl, authorizationTypeUrl, DeltaDiscoveryRequest, DeltaDiscoveryResponse, encodeAuthorization, encodeWorkload } from "@fairway/protocol";
import { parseMesh } from "@fairway/xds";
import { discoveryPort } from "./places.ts";

/** Workloads beside the pods, half of which are replaced at each change. */
const passing = 200;
const grpcPrefixBytes = 5;

interface Content {
  readonly name: string;
  readonly typeUrl: string;
  readonly body: Uint8Array;
}

class Discovery {
  readonly #contents = new Map<string, Content>();
  readonly #streams = new Map<ServerHttp2Stream, Set<string>>();
  #nonce = 0;

  set(contents: readonly Content[], removed: readonly Pick<Content, "name" | "typeUrl">[] = []): void {
    for (const { name } of removed) this.#contents.delete(name);
    for (const content of contents) this.#contents.set(content.name, content);
    for (const [stream, types] of this.#streams) for (const type of types) this.#send(stream, type, contents, removed);
  }

  serve(stream: ServerHttp2Stream): void {
    const types = new Set<string>();
    this.#streams.set(stream, types);
    stream.on("error", () => {}).once("close", () => this.#streams.delete(stream));
    stream.respond({ ":status": 200, "content-type": "application/grpc" });
    let pending: Buffer = Buffer.alloc(0);
    stream.on("data", (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      while (pending.length >= grpcPrefixBytes && pending.length >= grpcPrefixBytes + pending.readUInt32BE(1)) {
        const end = grpcPrefixBytes + pending.readUInt32BE(1);
        const { typeUrl } = DeltaDiscoveryRequest.decode(pending.subarray(grpcPrefixBytes, end));
        pending = pending.subarray(end);
        if (types.has(typeUrl)) continue;
        types.add(typeUrl);
        this.#send(stream, typeUrl, [...this.#contents.values()], [], true);
      }
    });
  }

  #send(stream: ServerHttp2Stream, typeUrl: string, contents: readonly Content[], removed: readonly Pick<Content, "name" | "typeUrl">[], first = false): void {
    const ours = contents.filter((content) => content.typeUrl === typeUrl);
    const gone = removed.filter((content) => content.typeUrl === typeUrl);
    if (!first && ours.length === 0 && gone.length === 0) return;
    this.#nonce += 1;
    const body = DeltaDiscoveryResponse.encode({
      systemVersionInfo: "",
      typeUrl,
      nonce: String(this.#nonce),
      controlPlane: undefined,
      removedResources: gone.map(({ name }) => name),
      resources: ours.map(({ name, body: value }) => ({
        name,
        version: String(this.#nonce),
        aliases: [],
        ttl: undefined,
        cacheControl: undefined,
        resource: { typeUrl, value: Buffer.from(value) },
      })),
    }).finish();
    const prefix = Buffer.alloc(grpcPrefixBytes);
    prefix.writeUInt32BE(body.length, 1);
    stream.write(Buffer.concat([prefix, body]));
  }
}

function workloadContent(workload: Workload): Content {
  return { name: workload.uid, typeUrl: addressTypeUrl, body: encodeWorkload(workload) };
}

function deny(port: number): Content {
  const policy: AuthorizationPolicy = {
    name: "now-and-then",
    namespace: "default",
    scope: "namespace",
    action: "deny",
    rules: [{ clauses: [{ matches: [{ ...emptyMatch, destinationPorts: [port] }] }] }],
    dryRun: false,
  };
  return { name: policyKey("default", "now-and-then"), typeUrl: authorizationTypeUrl, body: encodeAuthorization(policy) };
}

/** `round` makes the names differ, so that the mesh never has the same workloads twice. */
function passers(model: Workload, round: number): Content[] {
  return Array.from({ length: passing / 2 }, (_, index) => {
    const name = `passer-${round}-${index}`;
    const uid = `cluster//Pod/far/${name}` as Workload["uid"];
    return workloadContent({ ...model, uid, name, namespace: "far", addresses: [], serviceAccount: name, workloadName: name });
  });
}

const [meshFile = "", everyMs = "1000", deniedPort = "8003"] = process.argv.slice(2);
const { workloads = [] } = parseMesh(readFileSync(meshFile, "utf8"));
const [model] = workloads;
if (model === undefined) throw new Error(`${meshFile} has no workload`);
const discovery = new Discovery();
const denial = deny(Number(deniedPort));
discovery.set(workloads.map(workloadContent));
discovery.set(passers(model, 0));
let round = 0;
setInterval(() => {
  round += 1;
  const leaving = round < 2 ? [] : passers(model, round - 2);
  if (round % 2 === 1) discovery.set([...passers(model, round), denial], leaving);
  else discovery.set(passers(model, round), [...leaving, denial]);
}, Number(everyMs));
const server = createServer();
server.on("sessionError", () => {});
server.on("stream", (stream) => discovery.serve(stream));
server.listen(discoveryPort, "127.0.0.1", () => process.send?.("ready"));
process.once("disconnect", () => process.exit(0));
