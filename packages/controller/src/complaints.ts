/** What is wrong with the objects of others, as log lines: for who operates the mesh. Their authors read the same in the status. */
import type { Collection, CollectionEvent, ConditionWish } from "@fairway/kube";
import type { Logger } from "@fairway/runtime";
import type { Mesh } from "./mesh.ts";
import { listProblems } from "./unknown-fields.ts";

type ComplaintSources = Pick<Mesh, "policyOutcomes" | "peerAuthenticationComplaints" | "enforcement" | "destinationRules">;

interface Subject<T> {
  readonly code: string;
  readonly kind: string;
  /** Undefined when there is nothing to say. */
  readonly complaint: (value: T) => Pick<ConditionWish, "message"> | undefined;
}

/** One line for each object that cannot be read whole, now and whenever its complaint changes. Dispose to stop. */
export function logComplaints({ policyOutcomes, peerAuthenticationComplaints, enforcement, destinationRules }: ComplaintSources, log: Logger): Disposable {
  const subscriptions = [
    follow(enforcement.requestPolicies, log, {
      code: "CONTROLLER_POLICY_INVALID",
      kind: "AuthorizationPolicy",
      complaint: ({ problems, unsupported }) => said([...problems, ...(unsupported === undefined ? [] : [unsupported])]),
    }),
    follow(enforcement.tokenRules, log, {
      code: "CONTROLLER_REQUEST_AUTHENTICATION_INVALID",
      kind: "RequestAuthentication",
      complaint: ({ problems }) => said(problems),
    }),
    follow(destinationRules, log, {
      code: "CONTROLLER_DESTINATION_RULE_INVALID",
      kind: "DestinationRule",
      complaint: ({ condition }) => (condition?.reason === "Invalid" ? condition : undefined),
    }),
    follow(policyOutcomes, log, {
      code: "CONTROLLER_POLICY_INVALID",
      kind: "AuthorizationPolicy",
      complaint: ({ condition }) => (condition.reason === "Invalid" ? condition : undefined),
    }),
    follow(peerAuthenticationComplaints, log, {
      code: "CONTROLLER_PEER_AUTHENTICATION_INVALID",
      kind: "PeerAuthentication",
      complaint: (condition) => condition,
    }),
  ];
  return {
    [Symbol.dispose]: () => {
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
    },
  };
}

function said(problems: readonly string[]): { readonly message: string } | undefined {
  return problems.length === 0 ? undefined : { message: listProblems(problems) };
}

function follow<T>(collection: Collection<T>, log: Logger, { code, kind, complaint }: Subject<T>): Disposable {
  const say = (key: string, message: string): void =>
    log.warn("an object cannot be read whole; it is enforced as strictly as it can be", { code, kind, key, message });
  for (const [key, value] of collection.entries()) {
    const message = complaint(value)?.message;
    if (message !== undefined) say(key, message);
  }
  return collection.subscribe((events: readonly CollectionEvent<T>[]) => {
    for (const event of events) {
      if (event.type === "deleted") continue;
      const message = complaint(event.object)?.message;
      const former = event.type === "updated" ? complaint(event.previous)?.message : undefined;
      if (message !== undefined && message !== former) say(event.key, message);
    }
  });
}
