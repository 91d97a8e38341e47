import { assert, assertEquals } from "@std/assert";
import { AnswerRate } from "./answer_rate.ts";

/** Answers of 1000 bytes, so many ms apart, to requests that were sent so many ms apart. */
function row(
  rate: AnswerRate,
  count: number,
  times: { sent: number; came: number; every: number },
) {
  const { sent, came, every } = times;
  for (let index = 0; index < count; index++) {
    rate.answered(1000, sent, came + index * every);
  }
}

Deno.test("the first answers tell the rate by how close they follow one another", () => {
  const rate = new AnswerRate();
  rate.answered(1000, 0, 100);
  rate.beginRound(100, true);
  assertEquals(rate.best, 0);
  rate.answered(1000, 0, 102);
  rate.answered(1000, 0, 104);
  assertEquals(rate.best, 0);
  rate.answered(1000, 0, 106);
  assertEquals(rate.best, 500);
  // The next four were asked for later; they tell nothing but that so much goes.
  row(rate, 4, { sent: 20, came: 120, every: 4 });
  assertEquals(rate.best, 500);
});

Deno.test("answers come no closer than their requests were sent, whatever it looks like", () => {
  const rate = new AnswerRate();
  rate.beginRound(100, true);
  for (let index = 0; index < 4; index++) rate.answered(1000, index * 10, 150);
  assertEquals(rate.best, 100);
  const atOnce = new AnswerRate();
  atOnce.beginRound(100, true);
  row(atOnce, 4, { sent: 0, came: 150, every: 0 });
  assertEquals(atOnce.best, 3000 / 2.5);
});

Deno.test("the best average of the last rounds counts, and a row is believed for two", () => {
  const rate = new AnswerRate();
  rate.beginRound(0, true);
  let now = 0;
  const round = (bytes: number, wanted = true) => {
    // All of it comes in the middle of the round, to requests that were sent evenly.
    for (let index = 0; index < 20; index++) {
      rate.answered(bytes / 20, now - 100 + index * 5, now + 50);
    }
    now += 100;
    rate.beginRound(now, wanted);
  };
  round(100_000);
  round(100_000);
  assertEquals(rate.average, 1000);
  round(200_000);
  assertEquals(rate.average, 2000);
  assertEquals(rate.best, 2000);
  for (let count = 0; count < 7; count++) round(100_000);
  assertEquals(rate.average, 2000);
  round(100_000);
  assertEquals(rate.average, 1000);
  for (let count = 0; count < 20; count++) round(10_000, false);
  assertEquals(rate.average, 1000);
  // Rows that are better than the average, as there was a time without answers.
  for (let index = 0; index < 20; index++) {
    rate.answered(5000, now - 100 + index * 4, now + index * 4);
  }
  assertEquals(rate.best, 1250);
  assert(rate.average < 1001);
});
