/**
 * The answer to a handoff: who hands its userfaultfd over is told, in one line of JSON on the same
 * connection, whether its memory is paged in from now on. Clients that expect no answer, such as
 * Firecracker, never read it.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";

/** Bytes of the longest answer, with its end of line. */
export const ANSWER_BYTES_MAX = 4096;
const REASON_MAX = 500;

/** What a handler answers. */
export type HandoffAnswer =
  | { answer: "attached" }
  /** `reason`: why not, for people. */
  | { answer: "refused"; reason: string };

const encoder = new TextEncoder();

/** The line that tells an answer. */
export function formatAnswer(answer: HandoffAnswer): Uint8Array<ArrayBuffer> {
  const told = answer.answer === "refused"
    ? { ...answer, reason: answer.reason.slice(0, REASON_MAX) }
    : answer;
  return encoder.encode(`${JSON.stringify(told)}\n`);
}

/**
 * Reads an answer from what came so far; undefined where more is to come.
 *
 * @throws {ProtocolError} it is no answer.
 */
export function parseAnswer(bytes: Uint8Array): HandoffAnswer | undefined {
  const end = bytes.indexOf(0x0a);
  if (end < 0) {
    if (bytes.length >= ANSWER_BYTES_MAX) throw notAnAnswer();
    return undefined;
  }
  let told: unknown;
  try {
    told = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  } catch (cause) {
    throw notAnAnswer(cause);
  }
  if (typeof told === "object" && told !== null && "answer" in told) {
    if (told.answer === "attached") return { answer: "attached" };
    if (told.answer === "refused" && "reason" in told && typeof told.reason === "string") {
      return { answer: "refused", reason: told.reason };
    }
  }
  throw notAnAnswer();
}

function notAnAnswer(cause?: unknown): ProtocolError {
  return new ProtocolError("The handler did not answer as telemap's does", {
    hint: "connect to the socket of telemap uffd",
    ...(cause !== undefined && { cause }),
  });
}
