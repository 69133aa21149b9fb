/** Who the request's token says it is from (controller contract 4.8): none is no fault, a wrong one is 401. */
import type { Stage } from "../exchange.ts";
import type { TokenVerifier } from "../token-verifier.ts";

export function authenticate(tokens: TokenVerifier): Stage {
  return async (exchange, next) => {
    const { tokens: rules } = exchange.downstream.port;
    if (rules.length === 0) return next();
    const { claims, head } = await tokens.verify(rules, exchange.head, { signal: exchange.signal });
    exchange.claims = claims;
    exchange.head = head;
    return next();
  };
}
