/**
 * Request policies to and from Envoy's RBAC filters: one filter per action, the rules of policies in dry run as its shadow rules, each
 * rule under the reference's key `ns[<namespace>]-policy[<name>]-rule[<index>]` (waypoint contract 2.5, 2.7).
 */
import type { RequestCondition, RequestPolicy } from "@fairway/model";
import * as wire from "../gen/resources/envoy/config/rbac/v3/rbac.ts";
import { ProtocolEncodeError } from "../protocol-error.ts";
import {
  anyPermission,
  anyPrincipal,
  noPermission,
  noPrincipal,
  permissionFromWire,
  permissionToWire,
  principalFromWire,
  principalToWire,
  sideOf,
} from "./condition-codec.ts";
import { Place } from "./place.ts";

export interface RbacRules {
  readonly rules: wire.RBAC | undefined;
  readonly shadowRules: wire.RBAC | undefined;
}

const actions: Readonly<Record<RequestPolicy["action"], wire.RBAC_Action>> = {
  deny: wire.RBAC_Action.DENY,
  allow: wire.RBAC_Action.ALLOW,
  audit: wire.RBAC_Action.LOG,
};
/** In the order of evaluation. */
const order: readonly RequestPolicy["action"][] = ["deny", "allow", "audit"];
/** More than these parts of one rule are not written; no policy a user can write has more than one. */
const maxParts = 64;

/** One entry per filter. Policies keep their order within an action, enforced ones before those in dry run. */
export function policiesToWire(policies: readonly RequestPolicy[]): readonly RbacRules[] {
  return order.flatMap((action) => {
    const ofAction = policies.filter((policy) => policy.action === action);
    const rules = rulesToWire(ofAction.filter(({ dryRun }) => !dryRun));
    const shadowRules = rulesToWire(ofAction.filter(({ dryRun }) => dryRun));
    return rules === undefined && shadowRules === undefined ? [] : [{ rules, shadowRules }];
  });
}

export function policiesFromWire(place: Place, { rules, shadowRules }: RbacRules): RequestPolicy[] {
  return [...rulesFromWire(place.at("rules"), rules, false), ...rulesFromWire(place.at("shadow_rules"), shadowRules, true)];
}

function rulesToWire(policies: readonly RequestPolicy[]): wire.RBAC | undefined {
  const [first] = policies;
  if (first === undefined) return undefined;
  return wire.RBAC.fromPartial({ action: actions[first.action], policies: new Map(policies.flatMap(policyToWire)) });
}

/** A policy without rules never matches, and says so: of action ALLOW its presence alone denies. */
function policyToWire({ namespace, name, rules }: RequestPolicy): [key: string, policy: wire.Policy][] {
  const key = `ns[${namespace}]-policy[${name}]-rule`;
  if (rules.length === 0) return [[`${key}[0]`, never]];
  return rules.flatMap((rule, index) => partsOf(rule).map((part, at): [string, wire.Policy] => [`${key}[${index}]${at === 0 ? "" : `-part[${at}]`}`, part]));
}

const never: wire.Policy = wire.Policy.fromPartial({ permissions: [noPermission], principals: [noPrincipal] });

/** What an Envoy policy holds: conditions of the request and of the client, all of which must hold. */
interface Part {
  readonly permissions: readonly RequestCondition[];
  readonly principals: readonly RequestCondition[];
}

function partsOf(rule: RequestCondition): wire.Policy[] {
  const parts = split(rule);
  if (parts.length === 0) return [never];
  return parts.map(({ permissions, principals }) =>
    wire.Policy.fromPartial({
      permissions: [joined(permissions, permissionToWire, anyPermission, (rules) => ({ rule: { $case: "andRules", value: { rules } } }))],
      principals: [joined(principals, principalToWire, anyPrincipal, (ids) => ({ identifier: { $case: "andIds", value: { ids } } }))],
    }),
  );
}

function joined<T>(conditions: readonly RequestCondition[], toWire: (condition: RequestCondition) => T, none: T, all: (each: T[]) => T): T {
  const [first, second] = conditions.map(toWire);
  if (first === undefined) return none;
  return second === undefined ? first : all(conditions.map(toWire));
}

/** A condition that mixes client and destination in one alternative becomes several policies, any of which matches. */
function split(condition: RequestCondition): Part[] {
  const side = sideOf(condition);
  if (condition.kind === "any") return [{ permissions: [], principals: [] }];
  if (condition.kind === "all") return condition.of.map(split).reduce<Part[]>(crossed, [{ permissions: [], principals: [] }]);
  if (side === "client") return [{ permissions: [], principals: [condition] }];
  if (side !== "both") return [{ permissions: [condition], principals: [] }];
  if (condition.kind === "some") return condition.of.flatMap(split);
  return condition.kind === "not" ? split(negated(condition.of)) : [];
}

function crossed(left: Part[], right: Part[]): Part[] {
  if (left.length * right.length > maxParts) {
    throw new ProtocolEncodeError(`a rule with more than ${maxParts} combinations of clients and destinations`);
  }
  return left.flatMap((a) => right.map((b) => ({ permissions: [...a.permissions, ...b.permissions], principals: [...a.principals, ...b.principals] })));
}

function negated(condition: RequestCondition): RequestCondition {
  switch (condition.kind) {
    case "all":
      return { kind: "some", of: condition.of.map(negated) };
    case "some":
      return { kind: "all", of: condition.of.map(negated) };
    case "not":
      return condition.of;
    default:
      return { kind: "not", of: condition };
  }
}

function rulesFromWire(place: Place, rbac: wire.RBAC | undefined, dryRun: boolean): RequestPolicy[] {
  if (rbac === undefined) return [];
  const { action: number, policies: entries, ...rest } = rbac;
  place.refuseRest(wire.RBAC, rest);
  const action = order.find((each) => actions[each] === number);
  if (action === undefined) throw place.at("action").unknownEnum(number);
  const found = new Map<string, { readonly name: KeyedRule; readonly rules: KeyedRule[] }>();
  for (const [key, policy] of entries) {
    const rule = keyFromWire(place, key, policy);
    const id = `${rule.namespace}/${rule.name}`;
    const rules = found.get(id)?.rules ?? [];
    rules.push(rule);
    found.set(id, { name: rule, rules });
  }
  return [...found.values()].map(({ name: { namespace, name }, rules }) => {
    const at = new Place(`policy ${JSON.stringify(`${namespace}/${name}`)}`);
    return { namespace, name, action, dryRun, rules: conditionsFromWire(at, rules) };
  });
}

interface KeyedRule {
  readonly namespace: string;
  readonly name: string;
  readonly rule: number;
  readonly part: number;
  readonly policy: wire.Policy;
}

const keyPattern = /^ns\[([^[\]]*)\]-policy\[([^[\]]+)\]-rule\[(\d{1,6})\](?:-part\[(\d{1,6})\])?$/;

function keyFromWire(place: Place, key: string, policy: wire.Policy): KeyedRule {
  const [, namespace, name, rule, part = "0"] = keyPattern.exec(key) ?? [];
  if (namespace === undefined || name === undefined) throw place.at("policies").invalid(`${JSON.stringify(key)} is not ns[...]-policy[...]-rule[...]`);
  return { namespace, name, rule: Number(rule), part: Number(part), policy };
}

/** Maps have no order on the wire. The parts of one rule are alternatives. */
function conditionsFromWire(place: Place, keyed: readonly KeyedRule[]): RequestCondition[] {
  const rules: RequestCondition[][] = [];
  for (const { rule, policy } of keyed.toSorted((a, b) => a.rule - b.rule || a.part - b.part)) {
    const at = place.at(`rule[${rule}]`);
    const condition = policyFromWire(at, policy);
    if (condition === undefined && keyed.length === 1 && rule === 0) return [];
    if (rule > rules.length) throw at.invalid("the rules before it are missing");
    const parts = rules[rule] ?? [];
    parts.push(condition ?? { kind: "not", of: { kind: "any" } });
    rules[rule] = parts;
  }
  return rules.map((parts) => alternatives(parts));
}

/** Undefined for the policy that never matches. */
function policyFromWire(place: Place, { permissions, principals, ...rest }: wire.Policy): RequestCondition | undefined {
  place.refuseRest(wire.Policy, rest);
  if (permissions.length === 0) throw place.at("permissions").missing();
  if (principals.length === 0) throw place.at("principals").missing();
  const permission = alternatives(permissions.map((each) => permissionFromWire(place.at("permissions"), each)));
  const principal = alternatives(principals.map((each) => principalFromWire(place.at("principals"), each)));
  if (isNever(permission) && isNever(principal)) return undefined;
  const [first = { kind: "any" }, ...others] = [...conjuncts(permission), ...conjuncts(principal)] as [RequestCondition?, ...RequestCondition[]];
  return others.length === 0 ? first : { kind: "all", of: [first, ...others] };
}

function alternatives(conditions: readonly RequestCondition[]): RequestCondition {
  const [only, second] = conditions;
  return only !== undefined && second === undefined ? only : { kind: "some", of: conditions };
}

function conjuncts(condition: RequestCondition): readonly RequestCondition[] {
  if (condition.kind === "any") return [];
  return condition.kind === "all" ? condition.of : [condition];
}

function isNever(condition: RequestCondition): boolean {
  return condition.kind === "not" && condition.of.kind === "any";
}
