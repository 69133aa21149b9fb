import test from "ava";
import {
  AggregatedDiscoveryServiceService,
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  IstioCertificateRequest,
  IstioCertificateResponse,
  IstioCertificateServiceService,
} from "./index.ts";
import { fieldContent, fieldNumbers, int, len } from "./sample-resources.ts";

test("the services are called by the names that others call", (t) => {
  t.is(AggregatedDiscoveryServiceService.deltaAggregatedResources.path, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources");
  t.is(AggregatedDiscoveryServiceService.streamAggregatedResources.path, "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources");
  t.is(IstioCertificateServiceService.createCertificate.path, "/istio.v1.auth.IstioCertificateService/CreateCertificate");
});

test("a delta request carries its fields under Envoy's numbers", (t) => {
  const bytes = DeltaDiscoveryRequest.encode(
    DeltaDiscoveryRequest.fromPartial({
      node: {
        id: "id",
        cluster: "c",
        metadata: { NODE_NAME: "n" },
        locality: {},
        userAgentName: "a",
        userAgentVersionType: { $case: "userAgentVersion", value: "1" },
        clientFeatures: ["f"],
      },
      typeUrl: "t",
      resourceNamesSubscribe: ["a"],
      resourceNamesUnsubscribe: ["b"],
      initialResourceVersions: new Map([["r", "1"]]),
      responseNonce: "n",
      errorDetail: { message: "no", code: 1 },
    }),
  ).finish();
  t.deepEqual(fieldNumbers(bytes), [1, 2, 3, 4, 5, 6, 7]);
  t.deepEqual(fieldNumbers(fieldContent(bytes, 1)), [1, 2, 3, 4, 6, 7, 10]);
  t.deepEqual([...fieldContent(bytes, 5)], [...len(1, "r"), ...len(2, "1")]);
  t.deepEqual(fieldNumbers(fieldContent(bytes, 7)), [1, 2]);
});

test("a delta response written by hand from Envoy's numbers is read field by field", (t) => {
  const any = [...len(1, "type"), ...len(2, [1, 2, 3])];
  const resource = [...len(1, "v7"), ...len(2, any), ...len(3, "name"), ...len(4, "alias")];
  const response = DeltaDiscoveryResponse.decode(
    Uint8Array.from([...len(1, "sys"), ...len(2, resource), ...len(4, "url"), ...len(5, "nonce"), ...len(6, "gone"), ...len(7, len(1, "cp"))]),
  );
  t.deepEqual(
    [response.systemVersionInfo, response.typeUrl, response.nonce, response.removedResources, response.controlPlane?.identifier],
    ["sys", "url", "nonce", ["gone"], "cp"],
  );
  const [read] = response.resources;
  t.deepEqual([read?.name, read?.aliases, read?.version, read?.resource?.typeUrl], ["name", ["alias"], "v7", "type"]);
  t.deepEqual([...(read?.resource?.value ?? [])], [1, 2, 3]);
});

test("a certificate request names the identity it stands in for in a Struct", (t) => {
  const bytes = IstioCertificateRequest.encode({ csr: "pem", validityDuration: 86_400, metadata: { ImpersonatedIdentity: "spiffe://a" } }).finish();
  const value = len(2, len(3, "spiffe://a"));
  t.deepEqual([...bytes], [...len(1, "pem"), ...int(3, 86_400), ...len(4, len(1, [...len(1, "ImpersonatedIdentity"), ...value]))]);
  t.deepEqual(IstioCertificateResponse.decode(Uint8Array.from([...len(1, "leaf"), ...len(1, "root")])).certChain, ["leaf", "root"]);
});
