import { credentials, Server, ServerCredentials, status } from "@grpc/grpc-js";
import test from "ava";
import {
  AggregatedDiscoveryServiceClient,
  type AggregatedDiscoveryServiceServer,
  AggregatedDiscoveryServiceService,
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  IstioCertificateRequest,
  IstioCertificateServiceClient,
  type IstioCertificateServiceServer,
  IstioCertificateServiceService,
} from "./index.ts";

async function listen(server: Server): Promise<string> {
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error)));
  });
  return `127.0.0.1:${port}`;
}

test("a delta stream carries requests one way and responses the other", async (t) => {
  const server = new Server();
  const service: AggregatedDiscoveryServiceServer = {
    streamAggregatedResources: (call) => call.end(),
    deltaAggregatedResources: (call) => {
      call.on("data", (request: DeltaDiscoveryRequest) => call.write(DeltaDiscoveryResponse.create({ typeUrl: request.typeUrl, nonce: "1" })));
      call.on("end", () => call.end());
    },
  };
  server.addService(AggregatedDiscoveryServiceService, service);
  const client = new AggregatedDiscoveryServiceClient(await listen(server), credentials.createInsecure());
  t.teardown(() => {
    client.close();
    server.forceShutdown();
  });
  const call = client.deltaAggregatedResources();
  call.write(DeltaDiscoveryRequest.create({ typeUrl: "type.googleapis.com/istio.workload.Address" }));
  const response = await new Promise<DeltaDiscoveryResponse>((resolve, reject) => call.once("data", resolve).once("error", reject));
  t.deepEqual([response.typeUrl, response.nonce], ["type.googleapis.com/istio.workload.Address", "1"]);
  call.end();
});

test("a certificate call that the server cannot read is an error of the call, not of the process", async (t) => {
  const server = new Server();
  const service: IstioCertificateServiceServer = {
    createCertificate: (call, done) => done(null, { certChain: [call.request.csr, String(call.request.metadata?.["ImpersonatedIdentity"])] }),
  };
  server.addService(IstioCertificateServiceService, service);
  const address = await listen(server);
  const client = new IstioCertificateServiceClient(address, credentials.createInsecure());
  t.teardown(() => {
    client.close();
    server.forceShutdown();
  });
  const chain = await new Promise((resolve, reject) => {
    const request = IstioCertificateRequest.create({ csr: "csr", metadata: { ImpersonatedIdentity: "spiffe://a" } });
    client.createCertificate(request, (error, response) => (error === null ? resolve(response.certChain) : reject(error)));
  });
  t.deepEqual(chain, ["csr", "spiffe://a"]);
  const { path } = IstioCertificateServiceService.createCertificate;
  const garbage = Buffer.from([0x0a, 0xff, 0xff]);
  const code = await new Promise((resolve) => {
    client.makeUnaryRequest(
      path,
      () => garbage,
      (bytes) => bytes,
      garbage,
      (error) => resolve(error?.code),
    );
  });
  t.is(code, status.INTERNAL);
});
