/** Types that are questions: TokenReview, SubjectAccessReview and its self forms. Nothing is stored. */
import { ApiError } from "./api-error.ts";
import type { Authenticator, User } from "./authentication.ts";
import type { Attributes, Authorizer } from "./authorization.ts";
import { type Exchange, neededBody, sendJson } from "./exchange.ts";
import { arrayAt, isObject, type JsonObject, objectAt, stringAt } from "./json.ts";

export class ReviewHandlers {
  readonly #authenticator: Authenticator;
  readonly #authorizer: Authorizer;

  constructor(authenticator: Authenticator, authorizer: Authorizer) {
    this.#authenticator = authenticator;
    this.#authorizer = authorizer;
  }

  /** Answers a review of the given plural; false when there is no such review. */
  async answer(exchange: Exchange, plural: string): Promise<boolean> {
    const respond = reviews.get(plural);
    if (respond === undefined) return false;
    const body = await neededBody(exchange);
    if (!isObject(body)) throw ApiError.badRequest("the body must be a review object");
    const spec = objectAt(body["spec"]);
    const status = respond(spec, exchange.user, this.#authenticator, this.#authorizer);
    sendJson(exchange, 201, { ...body, metadata: body["metadata"] ?? {}, spec, status });
    return true;
  }
}

type Review = (spec: JsonObject, user: User, authenticator: Authenticator, authorizer: Authorizer) => unknown;

const reviews: ReadonlyMap<string, Review> = new Map<string, Review>([
  [
    "tokenreviews",
    (spec, _user, authenticator) => {
      const token = stringAt(spec["token"]) ?? "";
      const audiences = arrayAt(spec["audiences"]).filter((item) => typeof item === "string");
      const proven = token === "" ? undefined : authenticator.user(token, audiences);
      if (proven === undefined) return { user: {}, error: "the token is invalid, expired, for another audience, or its service account or pod is gone" };
      const { name, uid, groups, extra } = proven.user;
      return { authenticated: true, user: { username: name, uid, groups, extra }, audiences: proven.audiences };
    },
  ],
  ["selfsubjectreviews", (_spec, { name, uid, groups, extra }) => ({ userInfo: { username: name, uid, groups, extra } })],
  ["selfsubjectaccessreviews", (spec, user, _authenticator, authorizer) => ({ allowed: authorizer.allowed(user, attributesFrom(spec)) })],
  [
    "subjectaccessreviews",
    (spec, _user, _authenticator, authorizer) => {
      const groups = arrayAt(spec["groups"]).filter((item) => typeof item === "string");
      const subject: User = { name: stringAt(spec["user"]) ?? "", uid: stringAt(spec["uid"]) ?? "", groups, extra: {} };
      return { allowed: authorizer.allowed(subject, attributesFrom(spec)) };
    },
  ],
  [
    "selfsubjectrulesreviews",
    (spec, user, _authenticator, authorizer) => {
      const rules = authorizer.rules(user, stringAt(spec["namespace"]) ?? "");
      return {
        resourceRules: rules
          .filter((rule) => rule["resources"] !== undefined)
          .map(({ verbs, apiGroups, resources, resourceNames }) => ({ verbs, apiGroups, resources, resourceNames })),
        nonResourceRules: rules.filter((rule) => rule["nonResourceURLs"] !== undefined).map(({ verbs, nonResourceURLs }) => ({ verbs, nonResourceURLs })),
        incomplete: false,
      };
    },
  ],
]);

function attributesFrom(spec: JsonObject): Attributes {
  const path = spec["nonResourceAttributes"];
  if (isObject(path)) return { kind: "path", verb: stringAt(path["verb"]) ?? "", path: stringAt(path["path"]) ?? "" };
  const resource = spec["resourceAttributes"];
  if (!isObject(resource)) throw ApiError.badRequest("exactly one of nonResourceAttributes or resourceAttributes must be specified");
  const text = (key: string): string => stringAt(resource[key]) ?? "";
  return {
    kind: "resource",
    verb: text("verb"),
    group: text("group"),
    resource: text("resource"),
    subresource: text("subresource"),
    namespace: text("namespace"),
    name: text("name"),
  };
}
