import { openSync, readlinkSync } from "node:fs";
import { errorCode } from "@fairway/runtime";
import test from "ava";
import { currentNamespace, hasIpv6, inNamespace, openNamespace, sameNamespace } from "./namespace.ts";
import { run, skipped, testNamespace } from "./test-namespaces.ts";

const here = (): string => readlinkSync("/proc/thread-self/ns/net");

test.serial("a visit runs in the namespace and comes back", (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  const home = here();
  t.not(inNamespace(pod.namespace, here), home);
  t.is(here(), home);
});

test.serial("a visit that throws comes back too", (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  const home = here();
  t.throws(() =>
    inNamespace(pod.namespace, () => {
      throw new Error("inside");
    }),
  );
  t.is(here(), home);
});

test.serial("a visit within a visit comes back to the outer one", (t) => {
  if (skipped(t)) return;
  const [outer, inner] = [testNamespace(t), testNamespace(t)];
  const home = here();
  inNamespace(outer.namespace, () => {
    const between = here();
    t.not(inNamespace(inner.namespace, here), between);
    t.is(here(), between);
  });
  t.is(here(), home);
});

test.serial("a visit that would go on after its return is refused", (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  t.is(errorCode(t.throws(() => inNamespace(pod.namespace, async () => {}))), "LINUX_NAMESPACE_ASYNC");
});

test.serial("two descriptors of one namespace are the same, two namespaces are not", (t) => {
  if (skipped(t)) return;
  const [one, other] = [testNamespace(t), testNamespace(t)];
  using again = openNamespace(openSync(`/run/netns/${one.name}`, "r"));
  t.true(sameNamespace(one.namespace, again));
  t.false(sameNamespace(one.namespace, other.namespace));
});

test.serial("a closed namespace cannot be entered, and the thread stays at home", (t) => {
  if (skipped(t)) return;
  const namespace = currentNamespace();
  const home = here();
  namespace[Symbol.dispose]();
  namespace[Symbol.dispose]();
  t.is(errorCode(t.throws(() => inNamespace(namespace, here))), "LINUX_NAMESPACE_ENTER_FAILED");
  t.is(here(), home);
});

test("a file that is no namespace, and a path that is not there, are told apart", (t) => {
  t.is(errorCode(t.throws(() => openNamespace("/proc/self/status"))), "LINUX_NOT_A_NAMESPACE");
  t.is(errorCode(t.throws(() => openNamespace("/proc/self/ns/uts"))), "LINUX_NOT_A_NAMESPACE");
  t.is(errorCode(t.throws(() => openNamespace("/nowhere/net"))), "LINUX_NAMESPACE_NOT_FOUND");
  t.is(errorCode(t.throws(() => openNamespace(999_999))), "LINUX_NOT_A_NAMESPACE");
});

test.serial("IPv6 is what the namespace's own loopback says", (t) => {
  if (skipped(t)) return;
  const pod = testNamespace(t);
  t.true(hasIpv6(pod.namespace));
  run("ip", "netns", "exec", pod.name, "sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1");
  t.false(hasIpv6(pod.namespace));
});
