/** gRPC settings of a server that carries discovery (controller contract 6.1); the controller may add its own. */
import type { ChannelOptions } from "@grpc/grpc-js";

/**
 * A client that reconnects tells the version of everything it holds: some 80 bytes each, so that the library's limit of 4 MiB
 * would lock out every client of a mesh beyond 50,000 resources.
 */
const maxRequestBytes = 64 * 1024 * 1024;

export const discoveryServerOptions: ChannelOptions = {
  "grpc.max_receive_message_length": maxRequestBytes,
  "grpc.max_send_message_length": -1,
  "grpc.max_concurrent_streams": 100_000,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  // Clients reconnect now and then, so that they spread over new replicas; resuming is cheap.
  "grpc.max_connection_age_ms": 1_800_000,
  "grpc.max_connection_age_grace_ms": 10_000,
};
