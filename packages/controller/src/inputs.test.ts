import type { Pod } from "@fairway/kube";
import test from "ava";
import { pod, service, testInputs, testSettings } from "./fixtures.ts";
import { inputNames, reducePod } from "./inputs.ts";
import { deriveMesh } from "./mesh.ts";

const whole = pod("web", {
  metadata: {
    annotations: { "ambient.istio.io/redirection": "enabled", "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(1_000), note: "long" },
    generateName: "web-",
    ownerReferences: [{ apiVersion: "apps/v1", kind: "StatefulSet", name: "web", uid: "u", controller: true }],
  },
  spec: {
    nodeName: "n1",
    serviceAccountName: "sa",
    hostNetwork: true,
    containers: [{ name: "c", image: "i", env: [{ name: "SECRET", value: "s" }], ports: [{ name: "http", containerPort: 8080 }] }],
    initContainers: [{ name: "s", restartPolicy: "Always", ports: [{ name: "side", containerPort: 9000 }] }],
    volumes: [{ name: "v", emptyDir: {} }],
  },
});

test("a reduced pod makes the same workload as the whole one, and keeps nothing that nobody reads", (t) => {
  const workload = (object: Pod): unknown => {
    const inputs = testInputs();
    inputs.services.set(
      service("web", {
        spec: {
          ports: [
            { port: 1, targetPort: "http" },
            { port: 2, targetPort: "side" },
          ],
        },
      }),
    );
    inputs.pods.set(object);
    return [...deriveMesh(inputs, testSettings).workloads.list()][0];
  };
  const reduced = reducePod(structuredClone(whole));
  t.deepEqual(workload(reduced), workload(whole));
  const text = JSON.stringify(reduced);
  for (const gone of ["SECRET", "xxx", "emptyDir", "note"]) t.false(text.includes(gone), gone);
});

test("every input is awaited by name", (t) => {
  t.deepEqual([...inputNames()].sort(), Object.keys(testInputs()).sort());
});
