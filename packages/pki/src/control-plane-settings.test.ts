import test from "ava";
import { controlPlaneAddress, controlPlaneRoots, controlPlaneToken } from "./control-plane-settings.ts";

test("an address is TLS unless it says otherwise, and the cluster's or this machine's unless one is given", (t) => {
  t.is(controlPlaneAddress("cp.example:15012", { inCluster: true }), "https://cp.example:15012");
  t.is(controlPlaneAddress("http://localhost:15010", { inCluster: true }), "http://localhost:15010");
  t.is(controlPlaneAddress(undefined, { inCluster: true }), "https://istiod.istio-system.svc:15012");
  t.is(controlPlaneAddress(undefined, { inCluster: false }), "https://localhost:15012");
});

test("roots are the system's, the certificates that are given, or a file of them", (t) => {
  const pem = "-----BEGIN CERTIFICATE-----\nx";
  t.deepEqual(controlPlaneRoots("SYSTEM"), { kind: "system" });
  t.deepEqual(controlPlaneRoots(pem), { kind: "pem", pem });
  t.deepEqual(controlPlaneRoots("/roots.pem"), { kind: "file", path: "/roots.pem" });
  t.deepEqual(controlPlaneRoots(undefined), { kind: "file", path: "./var/run/secrets/istio/root-cert.pem" });
});

test("a token is the text of a file that exists, the text that is given, or the mounted one", (t) => {
  const mounted = "./var/run/secrets/tokens/istio-token";
  t.deepEqual(
    controlPlaneToken("/token", (path) => path === "/token"),
    { kind: "file", path: "/token" },
  );
  t.deepEqual(
    controlPlaneToken("secret", (path) => path === mounted),
    { kind: "literal", token: "secret" },
  );
  t.deepEqual(
    controlPlaneToken(undefined, (path) => path === mounted),
    { kind: "file", path: mounted },
  );
  t.deepEqual(
    controlPlaneToken(undefined, () => false),
    { kind: "none" },
  );
});
