import type { KubeClient } from "@fairway/kube";
import { MeshError, silentLogger } from "@fairway/runtime";
import test from "ava";
import { type Uninstall, watchForUninstall } from "./uninstall.ts";

type Answer = { readonly deletionTimestamp?: string } | string;

/** Answers one after the other: an object's metadata, or the code of an error. */
function clientOf(...answers: Answer[]): Pick<KubeClient, "get"> {
  const get = async (): Promise<unknown> => {
    const answer = answers.shift() ?? "KUBE_UNAVAILABLE";
    if (typeof answer === "string") throw new MeshError(answer, "as told");
    return { metadata: { name: "a", ...answer } };
  };
  return { get } as unknown as Pick<KubeClient, "get">;
}

const cases: readonly (readonly [string, readonly [Answer, Answer], Uninstall])[] = [
  ["the DaemonSet stands: a restart or an upgrade", [{}, {}], "no"],
  ["the DaemonSet is being deleted", [{}, { deletionTimestamp: "2026-01-01T00:00:00Z" }], "certain"],
  ["the DaemonSet is gone", [{}, "KUBE_NOT_FOUND"], "certain"],
  ["the right to read it is gone with it", [{}, "KUBE_FORBIDDEN"], "likely"],
  ["the API server is away", [{}, "KUBE_UNAVAILABLE"], "no"],
  ["it never could be read: a wrong name", ["KUBE_NOT_FOUND", "KUBE_NOT_FOUND"], "no"],
  ["it never could be read: no rights", ["KUBE_FORBIDDEN", "KUBE_FORBIDDEN"], "no"],
];

for (const [title, [before, after], expected] of cases) {
  test(`${title}: an uninstall: ${expected}`, async (t) => {
    const watch = await watchForUninstall(clientOf(before, after), { daemonSetName: "agent", podNamespace: "fairway-system" }, silentLogger);
    t.is(await watch.uninstall(), expected);
  });
}

test("without a name nothing is ever cleaned up, and nothing asked", async (t) => {
  const watch = await watchForUninstall(clientOf(), { daemonSetName: undefined, podNamespace: "fairway-system" }, silentLogger);
  t.is(await watch.uninstall(), "no");
});
