import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../backend/errors.ts";
import {
  ANSWER_BYTES_MAX,
  formatAnswer,
  type HandoffAnswer,
  parseAnswer,
} from "./handoff_answer.ts";

const ANSWERS: HandoffAnswer[] = [
  { answer: "attached" },
  { answer: "refused", reason: 'it is "no"\nreason' },
];

for (const answer of ANSWERS) {
  Deno.test(`the answer ${answer.answer} is read once its line is complete`, () => {
    const line = formatAnswer(answer);
    for (let length = 0; length < line.length; length++) {
      assertEquals(parseAnswer(line.subarray(0, length)), undefined);
    }
    assertEquals(parseAnswer(line), answer);
  });
}

Deno.test("the longest reason is cut to what an answer takes", () => {
  const line = formatAnswer({ answer: "refused", reason: "\u0001".repeat(10_000) });
  assert(line.length < ANSWER_BYTES_MAX, `${line.length}`);
  assertEquals(parseAnswer(line)?.answer, "refused");
});

Deno.test("what is no answer is refused, at the latest when it is too long for one", () => {
  const encoder = new TextEncoder();
  for (const text of ["\n", "hello\n", "null\n", "{}\n", '{"answer":"refused"}\n']) {
    assertThrows(() => parseAnswer(encoder.encode(text)), ProtocolError);
  }
  const long = new Uint8Array(ANSWER_BYTES_MAX).fill(0x20);
  assertEquals(parseAnswer(long.subarray(1)), undefined);
  assertThrows(() => parseAnswer(long), ProtocolError);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
    try {
      parseAnswer(bytes);
    } catch (error) {
      assert(error instanceof ProtocolError, `${error}`);
    }
  }));
});
