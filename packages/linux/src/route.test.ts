import { errorCode } from "@fairway/runtime";
import test from "ava";
import { hasRoute } from "./route.ts";
import { joined, skipped, testNamespace } from "./test-namespaces.ts";

test.serial("a route is there or not, by namespace and family, without a packet sent", (t) => {
  if (skipped(t)) return;
  const [a, b] = [testNamespace(t), testNamespace(t)];
  t.false(hasRoute(a.namespace, "192.0.2.1"));
  joined(a, b);
  t.true(hasRoute(a.namespace, "10.99.0.2"));
  t.true(hasRoute(a.namespace, "10.99.0.77"));
  t.true(hasRoute(a.namespace, "fd99::2"));
  t.false(hasRoute(a.namespace, "192.0.2.1"));
  t.false(hasRoute(a.namespace, "2001:db8::1"));
  a.ip("-6", "route", "add", "default", "via", "fd99::2");
  t.false(hasRoute(a.namespace, "192.0.2.1"));
  t.true(hasRoute(a.namespace, "2001:db8::1"));
});

test("something that is no address is the caller's error", (t) => {
  t.is(errorCode(t.throws(() => hasRoute(undefined, "nowhere"))), "LINUX_BAD_ADDRESS");
});
