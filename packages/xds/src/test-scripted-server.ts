/** A discovery server that says what a test tells it to, right or wrong. */
import type { AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest, DeltaDiscoveryResponse } from "@fairway/protocol";
import type { ServerDuplexStream } from "@grpc/grpc-js";
import type { ExecutionContext } from "ava";
import { listen } from "./test-server.ts";

type Stream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

export interface ScriptedServer {
  readonly target: string;
  readonly requests: {
    readonly all: readonly DeltaDiscoveryRequest[];
    find(accept: (request: DeltaDiscoveryRequest, index: number) => boolean): Promise<DeltaDiscoveryRequest>;
    length(count: number): Promise<DeltaDiscoveryRequest>;
  };
}

/** A server that does what the test says with each request. */
export async function scripted(
  t: ExecutionContext,
  onRequest: (stream: Stream, request: DeltaDiscoveryRequest) => void,
  serialize?: (response: DeltaDiscoveryResponse) => Buffer,
): Promise<ScriptedServer> {
  const all: DeltaDiscoveryRequest[] = [];
  const listeners = new Set<() => void>();
  const service: AggregatedDiscoveryServiceServer = {
    streamAggregatedResources: () => undefined,
    deltaAggregatedResources: (stream) => {
      stream.on("error", () => undefined);
      stream.on("data", (request: DeltaDiscoveryRequest) => {
        all.push(request);
        onRequest(stream, request);
        for (const listener of listeners) listener();
      });
    },
  };
  const server = await listen(service, 0, serialize);
  t.teardown(() => server.stop());
  const find = (accept: (request: DeltaDiscoveryRequest, index: number) => boolean): Promise<DeltaDiscoveryRequest> =>
    new Promise((resolve, reject) => {
      AbortSignal.timeout(60_000).addEventListener("abort", () => reject(new Error("the request did not come")));
      const look = (): void => {
        const found = all.find(accept);
        if (found !== undefined) resolve(found);
      };
      listeners.add(look);
      look();
    });
  return { target: server.target, requests: { all, find, length: (count: number) => find((_, index) => index + 1 >= count) } };
}
