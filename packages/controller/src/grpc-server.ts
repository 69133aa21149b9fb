/** gRPC servers of the control plane: how long their connections live, and where they listen (controller contract 6.1). */
import { MeshError } from "@fairway/runtime";
import { type ChannelOptions, Server, type ServerCredentials } from "@grpc/grpc-js";

/** Streams are ended at this age, so that clients spread over the replicas; jittered by gRPC itself. */
const maxConnectionAgeMs = 30 * 60_000;
const connectionGraceMs = 10_000;
const keepaliveMs = 30_000;

export function createGrpcServer(options: ChannelOptions = {}): Server {
  return new Server({
    "grpc.max_connection_age_ms": maxConnectionAgeMs,
    "grpc.max_connection_age_grace_ms": connectionGraceMs,
    "grpc.keepalive_time_ms": keepaliveMs,
    "grpc.keepalive_timeout_ms": connectionGraceMs,
    ...options,
  });
}

/** The port that was bound; port 0 lets the system choose. Throws CONTROLLER_LISTEN_FAILED. */
export function bindGrpc(server: Server, { host, port }: { readonly host: string; readonly port: number }, credentials: ServerCredentials): Promise<number> {
  const address = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, bound) => {
      if (error === null) resolve(bound);
      else reject(new MeshError("CONTROLLER_LISTEN_FAILED", `cannot serve gRPC on ${address}; is another process using the port?`, { cause: error }));
    });
  });
}
