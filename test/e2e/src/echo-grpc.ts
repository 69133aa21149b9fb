/** The gRPC service of the echo application; its messages are JSON. */
import type { ServiceDefinition } from "@grpc/grpc-js";

const serialize = (message: object): Buffer => Buffer.from(JSON.stringify(message));
const deserialize = (bytes: Buffer): object => JSON.parse(bytes.toString()) as object;
const json = { requestSerialize: serialize, requestDeserialize: deserialize, responseSerialize: serialize, responseDeserialize: deserialize };
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({ path: `/e2e.Echo/${name}`, requestStream, responseStream, ...json });

export const echoMethods: Readonly<Record<"Unary" | "Down" | "Up" | "Both", ServiceDefinition[string]>> = {
  Unary: method("Unary", false, false),
  Down: method("Down", false, true),
  Up: method("Up", true, false),
  Both: method("Both", true, true),
};
