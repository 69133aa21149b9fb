import { createLogger } from "@fairway/runtime";
import test from "ava";
import { logComplaints } from "./complaints.ts";
import { peerAuthentication, policy, testInputs, testSettings } from "./fixtures.ts";
import { deriveMesh } from "./mesh.ts";

test("an object that cannot be read whole is one line with a code, again only when it says something else", (t) => {
  const lines: string[] = [];
  const log = createLogger("policy", { write: (line) => void lines.push(line) });
  const inputs = testInputs();
  inputs.authorizationPolicies.set(policy("early", { action: "ALLOW", rules: [{ form: [] }] } as never));
  inputs.authorizationPolicies.set(policy("fine", { action: "ALLOW", rules: [{}] }));
  const mesh = deriveMesh(inputs, testSettings);
  using _complaints = logComplaints(mesh, log);
  inputs.peerAuthentications.set(peerAuthentication("late", { mlts: {} } as never));
  const told = (): unknown => lines.map((line) => /(CONTROLLER_\w+).*?(shop\/\w+).*?(form|mlts|modes)/.exec(line)?.slice(1));
  const before = [
    ["CONTROLLER_POLICY_INVALID", "shop/early", "form"],
    ["CONTROLLER_PEER_AUTHENTICATION_INVALID", "shop/late", "mlts"],
  ];
  t.deepEqual(told(), before);
  inputs.peerAuthentications.set(peerAuthentication("late", { mlts: { other: "value" } } as never));
  t.deepEqual(told(), before, "nothing new to say");
  inputs.peerAuthentications.set(peerAuthentication("late", { modes: {} } as never));
  t.deepEqual(told(), [...before, ["CONTROLLER_PEER_AUTHENTICATION_INVALID", "shop/late", "modes"]]);
  inputs.peerAuthentications.set(peerAuthentication("late", {}));
  inputs.authorizationPolicies.delete("shop/early");
  t.is(lines.length, 3);
  t.true(lines.every((line) => line.includes("\twarn\t")));
});
