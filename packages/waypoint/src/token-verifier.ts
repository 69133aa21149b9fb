/** The seam of token checks. */
import type { Claims, RequestHead, TokenRule } from "@fairway/model";

export interface VerifiedRequest {
  readonly claims: Claims | undefined;
  readonly head: RequestHead;
}

export interface TokenVerifier {
  verify(rules: readonly TokenRule[], head: RequestHead, options: { signal: AbortSignal }): Promise<VerifiedRequest>;
}
