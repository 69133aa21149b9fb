/** The gRPC service of the orders, described without a .proto file: its messages are JSON. */
import type { ServiceDefinition } from "@grpc/grpc-js";

const serialize = (message: object): Buffer => Buffer.from(JSON.stringify(message));
const deserialize = (bytes: Buffer): object => JSON.parse(bytes.toString()) as object;
const json = { requestSerialize: serialize, requestDeserialize: deserialize, responseSerialize: serialize, responseDeserialize: deserialize };

export const ordersService: ServiceDefinition = {
  Place: { path: "/shop.Orders/Place", requestStream: false, responseStream: false, ...json },
  Watch: { path: "/shop.Orders/Watch", requestStream: false, responseStream: true, ...json },
  Talk: { path: "/shop.Orders/Talk", requestStream: true, responseStream: true, ...json },
};
