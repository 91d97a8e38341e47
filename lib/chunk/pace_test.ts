import { assertEquals } from "@std/assert";
import { Pace } from "./pace.ts";

Deno.test("a pace lets as much go as was earned, and what is overdrawn comes first", () => {
  const pace = new Pace({ rate: 10, most: 100, least: 0 });
  assertEquals(pace.delay(1000), 0);
  pace.use(60, 1000);
  assertEquals(pace.delay(1000), 0);
  pace.use(60, 1000);
  assertEquals(pace.delay(1000), 2);
  assertEquals(pace.delay(1001), 1);
  assertEquals(pace.delay(1002), 0);
});

Deno.test("who is late goes on at once, for as much as is kept", () => {
  const pace = new Pace({ rate: 10, most: 100, least: 0 });
  pace.use(100, 0);
  for (let count = 0; count < 5; count++) {
    assertEquals(pace.delay(500), 0);
    pace.use(20, 500);
  }
  pace.use(20, 500);
  assertEquals(pace.delay(500), 2);
});

Deno.test("once all is used, so much as asked for has to be there", () => {
  const pace = new Pace({ rate: 10, most: 100, least: 100 });
  pace.use(40, 0);
  assertEquals(pace.delay(0), 0);
  pace.use(60, 0);
  assertEquals(pace.delay(0), 10);
  assertEquals(pace.delay(9), 1);
  assertEquals(pace.delay(10), 0);
});

Deno.test("another pace holds from then on", () => {
  const pace = new Pace({ rate: 1, most: 10, least: 10 });
  pace.use(20, 0);
  pace.set({ rate: 100, most: 1000, least: 0 });
  assertEquals(pace.delay(0), 0.1);
});

Deno.test("a clock that goes back earns nothing", () => {
  const pace = new Pace({ rate: 10, most: 100, least: 0 });
  pace.use(150, 100);
  assertEquals(pace.delay(90), 5);
});
