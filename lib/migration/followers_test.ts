import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ChangedError, TelemapError } from "../backend/errors.ts";
import { RangeList } from "../backend/range_list.ts";
import { Followers, FOLLOWERS_MOST, RANGES_MOST } from "./followers.ts";

const CHUNK = 4096;

function rangesOf(...bounds: number[]): RangeList {
  return RangeList.fromBounds(Float64Array.from(bounds));
}

Deno.test("A follower is told what was written since it was told last", () => {
  const followers = new Followers({ size: 10 * CHUNK + 5, chunkSize: CHUNK });
  followers.add("a", 0, 0);
  followers.written(rangesOf(1, 2, 10 * CHUNK, 10 * CHUNK + 5));
  const first = followers.tell("a", 0, 0);
  assertEquals(first.generation, 1);
  assertEquals([...first.ranges.bounds()], [0, CHUNK, 10 * CHUNK, 10 * CHUNK + 5]);
  assertEquals(followers.tell("a", 1, 0).ranges.count, 0);
});

Deno.test("What a follower did not receive it is told again", () => {
  const followers = new Followers({ size: 10 * CHUNK, chunkSize: CHUNK });
  followers.add("a", 0, 0);
  followers.written(rangesOf(0, 1));
  const lost = followers.tell("a", 0, 0);
  followers.written(rangesOf(CHUNK, CHUNK + 1));
  assertEquals(followers.tell("a", 0, 0), lost);
  assertEquals([...followers.tell("a", 1, 0).ranges.bounds()], [CHUNK, 2 * CHUNK]);
});

Deno.test("Followers do not take from each other", () => {
  const followers = new Followers({ size: 10 * CHUNK, chunkSize: CHUNK });
  followers.add("a", 0, 0);
  followers.add("b", 0, 0);
  followers.written(rangesOf(0, 1));
  followers.tell("a", 0, 0);
  assertEquals([...followers.tell("b", 0, 0).ranges.bounds()], [0, CHUNK]);
});

Deno.test("More ranges than are told at once follow in the next set", () => {
  const chunks = 3 * RANGES_MOST;
  const followers = new Followers({ size: chunks * CHUNK, chunkSize: CHUNK });
  followers.add("a", 0, 0);
  const written = new RangeList();
  for (let chunk = 0; chunk < chunks; chunk += 2) written.add(chunk * CHUNK, chunk * CHUNK + 1);
  followers.written(written);
  const first = followers.tell("a", 0, 0);
  assertEquals([first.ranges.count, first.more], [RANGES_MOST, true]);
  const second = followers.tell("a", 1, 0);
  assertEquals([second.ranges.count, second.more], [RANGES_MOST / 2, false]);
});

Deno.test("Who does not follow, or counts otherwise, has to begin anew", () => {
  const followers = new Followers({ size: CHUNK, chunkSize: CHUNK });
  assertThrows(() => followers.tell("a", 0, 0), ChangedError);
  followers.add("a", 0, 0);
  assertThrows(() => followers.tell("a", 1, 0), ChangedError);
  followers.tell("a", 0, 0);
  followers.tell("a", 1, 0);
  assertThrows(() => followers.tell("a", 0, 0), ChangedError);
});

Deno.test("One more follower than there may be takes the place of one that is silent", () => {
  const followers = new Followers({ size: CHUNK, chunkSize: CHUNK });
  for (let index = 0; index < FOLLOWERS_MOST; index++) followers.add(`${index}`, index, 100);
  assertThrows(() => followers.add("late", 50, 100), TelemapError, "more than");
  followers.add("late", 101, 100);
  assertEquals([followers.has("0"), followers.has("1"), followers.has("late")], [
    false,
    true,
    true,
  ]);
});

Deno.test("No write is lost on a follower, however answers get lost", () => {
  const seed = Number(Deno.env.get("TELEMAP_SEED") ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`seed ${seed}`);
  const step = fc.oneof(
    fc.record({ write: fc.tuple(fc.nat(63), fc.integer({ min: 1, max: 9 })) }),
    fc.record({ ask: fc.boolean() }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const size = 64 * CHUNK;
      const followers = new Followers({ size, chunkSize: CHUNK });
      followers.add("a", 0, 0);
      let generation = 0;
      const owed = new Set<number>();
      const ask = (arrives: boolean) => {
        const told = followers.tell("a", generation, 0);
        if (!arrives) return;
        generation = told.generation;
        for (const { offset, length } of told.ranges) {
          for (let at = offset; at < offset + length; at += CHUNK) owed.delete(at / CHUNK);
        }
      };
      for (const one of steps) {
        if ("ask" in one) ask(one.ask);
        else {
          const [from, count] = one.write, to = Math.min(from + count, 64);
          followers.written(rangesOf(from * CHUNK, to * CHUNK));
          for (let chunk = from; chunk < to; chunk++) owed.add(chunk);
        }
      }
      ask(true);
      ask(true);
      assertEquals(owed.size, 0);
    }),
    { seed },
  );
});
