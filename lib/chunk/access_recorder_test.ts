import { assertEquals } from "@std/assert";
import fc from "fast-check";
import type { ByteRange } from "../backend/range_list.ts";
import { AccessRecorder } from "./access_recorder.ts";

const UNIT = 4096;
const layout = { count: 100, chunkSize: UNIT };

/** Chunks `[from, to)` in bytes. */
function chunks(from: number, to: number): ByteRange {
  return { offset: from * UNIT, length: (to - from) * UNIT };
}

Deno.test("first touches are recorded in their order, runs as one", () => {
  const recorder = new AccessRecorder(layout);
  recorder.touch(50, 52);
  recorder.touch(52, 53);
  recorder.touch(3, 4);
  recorder.touch(49, 55);
  const touched = [chunks(50, 53), chunks(3, 4), chunks(49, 50), chunks(53, 55)];
  assertEquals([...recorder.ranges()], touched);
  assertEquals([...recorder.next()], touched);
  assertEquals(recorder.counts, { expected: 0, used: 0, wasted: 0, missed: 7 });
});

Deno.test("what was expected is compared to what is touched", () => {
  const recorder = new AccessRecorder(layout, [chunks(10, 14), chunks(12, 13)]);
  assertEquals([...recorder.expected()], [chunks(10, 14), chunks(12, 13)]);
  recorder.touch(12, 15);
  recorder.touch(12, 13);
  assertEquals(recorder.counts, { expected: 4, used: 2, wasted: 2, missed: 1 });
});

Deno.test("what is touched takes the place of what was expected", () => {
  const recorder = new AccessRecorder(layout, [chunks(10, 14)]);
  recorder.touch(50, 52);
  assertEquals([...recorder.next()], [chunks(50, 52)]);
});

Deno.test("a glance keeps what was expected, behind what it touched", () => {
  const recorder = new AccessRecorder(layout, [chunks(40, 50), chunks(10, 14)]);
  assertEquals([...recorder.next()], [chunks(40, 50), chunks(10, 14)]);
  recorder.touch(99, 100);
  recorder.touch(44, 46);
  recorder.touch(10, 11);
  assertEquals([...recorder.next()], [
    ...[chunks(99, 100), chunks(44, 46), chunks(10, 11)],
    ...[chunks(40, 44), chunks(46, 50), chunks(11, 14)],
  ]);
});

const runs = fc.array(
  fc.tuple(fc.nat(90), fc.integer({ min: 1, max: 10 })).map((
    [from, count],
  ) => [from, from + count]),
);

function members(ranges: Iterable<ByteRange>): number[] {
  return [...ranges].flatMap(({ offset, length }) =>
    Array.from({ length: length / UNIT }, (_, index) => offset / UNIT + index)
  );
}

Deno.test("the next profile begins with each chunk that was touched, once and in order", () => {
  fc.assert(fc.property(runs, runs, (expected, touches) => {
    const recorder = new AccessRecorder(layout, expected.map(([from, to]) => chunks(from!, to!)));
    for (const [from, to] of touches) recorder.touch(from!, to!);
    const touched = [...new Set(members(touches.map(([from, to]) => chunks(from!, to!))))];
    const next = members(recorder.next());
    assertEquals(next.slice(0, touched.length), touched);
    const before = new Set(members(recorder.expected()));
    const { used, wasted, missed } = recorder.counts;
    assertEquals([used + wasted, used + missed], [before.size, touched.length]);
    const kept = touched.length * 2 < before.size ? [...before] : [];
    assertEquals(new Set(next), new Set([...touched, ...kept]));
  }));
});
