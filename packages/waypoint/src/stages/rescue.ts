/** Where every failure of the stages below becomes an answer. */
import type { Stage } from "../exchange.ts";
import { rescued } from "../rescue.ts";

export function rescue(): Stage {
  return async (exchange, next) => {
    try {
      return await next();
    } catch (thrown) {
      return rescued(exchange, thrown);
    }
  };
}
