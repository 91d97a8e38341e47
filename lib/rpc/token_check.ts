/**
 * Whether a peer shows the right token, and what it is told where it does not.
 *
 * @module
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { ERRNO } from "../../ffi/errno.ts";
import type { Refusal } from "./hello_prefix.ts";

/** How long a wrong token waits for its refusal, so that guessing is slow, in ms. */
export const WRONG_TOKEN_MS = 250;

/** See the module. */
export class TokenCheck {
  readonly #digest: Uint8Array | undefined;

  /** Asks for this token; for none where it is missing. */
  constructor(token: string | undefined) {
    this.#digest = token === undefined ? undefined : digest(token);
  }

  /** Whether this is the token; takes as long for any wrong one. */
  admits(shown: string): boolean {
    return this.#digest === undefined || timingSafeEqual(digest(shown), this.#digest);
  }
}

/** The answer to a token that is not admitted. */
export function wrongToken(shown: string): Refusal {
  const message = shown === "" ? "A token is needed" : "The token is wrong";
  return { code: ERRNO.EACCES, message };
}

function digest(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}
