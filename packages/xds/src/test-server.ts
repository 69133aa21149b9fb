/** A discovery server on loopback with TLS, for the tests of both ends. */
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService, type DeltaDiscoveryResponse } from "@fairway/protocol";
import { type ChannelCredentials, credentials, Metadata, Server, ServerCredentials } from "@grpc/grpc-js";
import type { ControlPlaneAccess } from "./control-plane-access.ts";
import { discoveryServerOptions } from "./server-options.ts";

/** A certificate for 127.0.0.1 and its key, made for these tests and trusted nowhere else. */
const testCertificate = `-----BEGIN CERTIFICATE-----
MIIBozCCAUmgAwIBAgIUSAZMlqWAxizkGUG5lb+yCdeQQAowCgYIKoZIzj0EAwIw
GDEWMBQGA1UECgwNZmFpcndheSB0ZXN0czAgFw0yNjExMjExMzI4MjhaGA8yMTI2
MTAyODEzMjgyOFowGDEWMBQGA1UECgwNZmFpcndheSB0ZXN0czBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABKgAzG9DeCjd4ZoxruHa7pav3f4yBxMDPV7mAFoPFsBd
AMnpSR3eqSP8kz054f153VSsibFOReZTc1hqU6El1ZKjbzBtMB0GA1UdDgQWBBTm
iclZTvZg6gAbxVDUcGdOLB+lBzAfBgNVHSMEGDAWgBTmiclZTvZg6gAbxVDUcGdO
LB+lBzAPBgNVHRMBAf8EBTADAQH/MBoGA1UdEQQTMBGHBH8AAAGCCWxvY2FsaG9z
dDAKBggqhkjOPQQDAgNIADBFAiEA65zjgZoc3XsfaX8AkmNEdDoEbKQyxwLr8K6T
Ac37SV4CIB/bxHDhkmnDaRUrwg5Xh+H9iiY98qYmIchZncMr5GMl
-----END CERTIFICATE-----
`;
const testKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg9UxC6yvALjhqzx26
OY+6Nrpl67jEd8WwRC/ap3U5bZ6hRANCAASoAMxvQ3go3eGaMa7h2u6Wr93+MgcT
Az1e5gBaDxbAXQDJ6Ukd3qkj/JM9OeH9ed1UrImxTkXmU3NYalOhJdWS
-----END PRIVATE KEY-----
`;

export interface TestServer {
  readonly port: number;
  readonly target: string;
  /** Drops every connection at once. */
  stop(): void;
}

/** `serialize` replaces what is written for a response, to send what no message would encode to. */
export async function listen(
  service: AggregatedDiscoveryServiceServer,
  port = 0,
  serialize: (response: DeltaDiscoveryResponse) => Buffer = AggregatedDiscoveryServiceService.deltaAggregatedResources.responseSerialize,
): Promise<TestServer> {
  const server = new Server(discoveryServerOptions);
  const { deltaAggregatedResources, ...others } = AggregatedDiscoveryServiceService;
  server.addService({ ...others, deltaAggregatedResources: { ...deltaAggregatedResources, responseSerialize: serialize } }, service);
  const tls = ServerCredentials.createSsl(null, [{ private_key: Buffer.from(testKey), cert_chain: Buffer.from(testCertificate) }]);
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${port}`, tls, (error, actual) => (error === null ? resolve(actual) : reject(error))),
  );
  return { port: bound, target: `127.0.0.1:${bound}`, stop: () => server.forceShutdown() };
}

/** Credentials that trust only the roots of the platform. */
export async function systemCredentials(): Promise<{ readonly credentials: ChannelCredentials }> {
  return { credentials: credentials.createSsl() };
}

export function accessTo(target: string, { token = "token", roots = testCertificate }: { token?: string; roots?: string } = {}): ControlPlaneAccess {
  return {
    target,
    channelOptions: {},
    credentials: async () => ({ credentials: credentials.createSsl(Buffer.from(roots)) }),
    metadata: async () => {
      const metadata = new Metadata();
      metadata.set("authorization", `Bearer ${token}`);
      return metadata;
    },
  };
}
