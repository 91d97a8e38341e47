import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Draws } from "./draws.ts";

function first(draws: Draws, count: number): number[] {
  return Array.from({ length: count }, (_, index) => draws.at(index));
}

Deno.test("draws follow from seed, purpose and index", () => {
  const numbers = first(new Draws(7, "jitter"), 100);
  assertEquals(first(new Draws(7, "jitter"), 100), numbers);
  assertEquals(new Draws(7, "jitter").at(42), numbers[42]);
  const others = [new Draws(8, "jitter"), new Draws(7, "cuts"), new Draws(7 + 2 ** 32, "jitter")];
  for (const other of others) assertNotEquals(first(other, 100), numbers);
});

Deno.test("draws fill the range from 0 to 1 evenly", () => {
  for (const seed of [0, 1, 2, Number.MAX_SAFE_INTEGER]) {
    const tenths = new Array<number>(10).fill(0);
    for (const number of first(new Draws(seed, "failures"), 10_000)) {
      assert(number >= 0 && number < 1);
      tenths[Math.floor(number * 10)]!++;
    }
    for (const count of tenths) assert(Math.abs(count - 1000) < 150, `${tenths}`);
  }
});
