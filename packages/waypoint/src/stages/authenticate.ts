/** Who the request's token says it is from (controller contract 4.8): none is no fault, a wrong one is 401. */
import type { ServedPort } from "@fairway/model";
import type { Exchange, Stage } from "../exchange.ts";
import type { Answer } from "../http-connection.ts";
import type { TokenVerifier } from "../token-verifier.ts";

export function authenticate(tokens: TokenVerifier): Stage {
  return (exchange, next) => {
    const { tokens: rules } = exchange.downstream.port;
    return rules.length === 0 ? next() : verified(exchange, tokens, rules, next);
  };
}

async function verified(exchange: Exchange, tokens: TokenVerifier, rules: ServedPort["tokens"], next: () => Promise<Answer>): Promise<Answer> {
  const { claims, head } = await tokens.verify(rules, exchange.head, { signal: exchange.signal });
  exchange.claims = claims;
  exchange.head = head;
  return next();
}
