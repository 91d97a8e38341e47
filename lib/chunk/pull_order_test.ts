import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { Bitmap } from "../backend/bitmap.ts";
import { UsageError } from "../backend/errors.ts";
import { ChunkStates } from "./chunk_states.ts";
import { type ChunkRun, listPriorities, listRanges, PullOrder } from "./pull_order.ts";

const CHUNK = 4096;

function states(count: number): ChunkStates {
  return new ChunkStates({ local: new Bitmap(count), dirty: new Bitmap(count) });
}

/** Takes the next chunks as if they arrived at once. */
function take(chunks: ChunkStates, order: PullOrder): ChunkRun | undefined {
  const run = order.next();
  for (let chunk = run?.from ?? 0; chunk < (run?.to ?? 0); chunk++) chunks.arrived(chunk);
  return run;
}

function takeAll(chunks: ChunkStates, order: PullOrder): [number, number][] {
  const runs: [number, number][] = [];
  for (let run; (run = take(chunks, order)) !== undefined;) runs.push([run.from, run.to]);
  return runs;
}

Deno.test("chunks come in the order of the region, as many together as may be", () => {
  const chunks = states(10);
  chunks.arrived(2);
  chunks.pulling(5, 6);
  chunks.failed(8);
  assertEquals(takeAll(chunks, new PullOrder(chunks, 2)), [[0, 2], [3, 5], [6, 8], [9, 10]]);
});

Deno.test("a fault moves the place, and everything is pulled all the same", () => {
  const chunks = states(10);
  const order = new PullOrder(chunks, 2);
  take(chunks, order);
  chunks.arrived(6);
  order.fault({ from: 6, to: 7 });
  assertEquals(takeAll(chunks, order), [[7, 9], [9, 10], [2, 4], [4, 6]]);
});

Deno.test("a list comes first, and a fault before it with what is near", () => {
  const chunks = states(100);
  const list = listRanges([
    { offset: 50 * CHUNK, length: 4 * CHUNK },
    { offset: 20 * CHUNK + 1, length: CHUNK },
  ], { count: 100, chunkSize: CHUNK });
  const order = new PullOrder(chunks, 2, { wanted: list });
  assertEquals(take(chunks, order), { from: 50, to: 52 });
  order.fault({ from: 80, to: 81 });
  assertEquals(take(chunks, order), { from: 81, to: 83 });
  order.fault({ from: 83, to: 84 });
  assertEquals(take(chunks, order), { from: 84, to: 86 });
  assertEquals(take(chunks, order), { from: 86, to: 88 }, "In order: twice as many");
  assertEquals(take(chunks, order), { from: 52, to: 54 });
  assertEquals(take(chunks, order), { from: 20, to: 22 });
  assertEquals(take(chunks, order), { from: 0, to: 2 });
});

Deno.test("what is expected comes before what is wanted, and can be had alone", () => {
  const chunks = states(20);
  const layout = { count: 20, chunkSize: CHUNK };
  const order = new PullOrder(chunks, 4, {
    expected: listRanges([{ offset: 9 * CHUNK, length: 3 * CHUNK }], layout),
    wanted: listRanges([{ offset: 11 * CHUNK, length: 2 * CHUNK }], layout),
  });
  const first = order.nextExpected();
  assertEquals(first, { from: 9, to: 12 });
  assertEquals(order.nextExpected(), undefined);
  order.again({ from: 10, to: 11 });
  assertEquals(order.nextExpected(), { from: 10, to: 11 });
  chunks.pulling(9, 12);
  assertEquals(order.next(), { from: 12, to: 13 });
  assertEquals(order.next(), { from: 0, to: 4 });
});

Deno.test("what was not pulled after all comes next, and what failed after a restart", () => {
  const chunks = states(6);
  const order = new PullOrder(chunks, 2);
  const first = order.next()!;
  order.again(first);
  chunks.failed(3);
  assertEquals(takeAll(chunks, order), [[0, 2], [2, 3], [4, 6]]);
  order.restart();
  assertEquals(takeAll(chunks, order), [[3, 4]]);
});

Deno.test("higher priorities come first, equal ones in the order of the region", () => {
  const layout = { count: 8, chunkSize: CHUNK };
  const list = listPriorities(
    (offset) => offset === 6 * CHUNK ? 2 : offset < CHUNK ? 1 : 0,
    layout,
  );
  assertEquals([...list], [6, 7, 0, 6, 7, 8]);
  const backwards = listPriorities((offset) => offset, layout);
  assertEquals([...backwards.slice(0, 4)], [7, 8, 6, 7]);
  assertEquals([...listPriorities(() => 1, layout)], [0, 8]);
  assertThrows(() => listPriorities(() => NaN, layout), UsageError);
});

Deno.test("a priority is asked for a bounded number of times", () => {
  let asked = 0;
  const list = listPriorities((offset) => (asked++, -offset), { count: 2 ** 24, chunkSize: CHUNK });
  assertEquals(asked, 2 ** 20);
  assertEquals([...list], [0, 2 ** 24]);
});

Deno.test("ranges outside the region are refused", () => {
  const layout = { count: 2, chunkSize: CHUNK };
  for (const range of [{ offset: -1, length: 5 }, { offset: 0, length: 8193 }]) {
    assertThrows(() => listRanges([range], layout), RangeError);
  }
  assertEquals([...listRanges([{ offset: 5000, length: 0 }], layout)], [1, 2].slice(2));
});

const COUNT = 40;
const event = fc.oneof(
  fc.record({ kind: fc.constant("fault" as const), from: fc.nat(COUNT - 1) }),
  fc.record({ kind: fc.constant("arrive" as const), from: fc.nat(COUNT - 1) }),
  fc.record({ kind: fc.constant("again" as const), from: fc.nat(COUNT - 1) }),
  fc.record({ kind: fc.constant("take" as const), from: fc.nat(1) }),
);
const range = fc.tuple(fc.nat(COUNT - 1), fc.nat(10)).map(([from, length]) => ({
  offset: from * CHUNK,
  length: Math.min(length, COUNT - from) * CHUNK,
}));

Deno.test("each chunk comes once, whatever happens meanwhile", () => {
  const property = fc.property(
    fc.array(event, { maxLength: 60 }),
    fc.array(range, { maxLength: 5 }),
    fc.array(range, { maxLength: 5 }),
    fc.integer({ min: 1, max: 5 }),
    (events, expected, wanted, most) => {
      const chunks = states(COUNT);
      const layout = { count: COUNT, chunkSize: CHUNK };
      const order = new PullOrder(chunks, most, {
        expected: listRanges(expected, layout),
        wanted: listRanges(wanted, layout),
      });
      for (const { kind, from } of events) {
        if (kind === "fault") order.fault({ from, to: from + 1 });
        else if (kind === "again") order.again({ from, to: Math.min(from + 3, COUNT) });
        else if (kind === "arrive") chunks.local.has(from) || chunks.arrived(from);
        else takeAbsent(chunks, order, most);
      }
      while (takeAbsent(chunks, order, most));
      assert(chunks.complete, `${chunks.localCount} of ${COUNT} chunks came`);
    },
  );
  fc.assert(property, { numRuns: 500 });
});

function takeAbsent(chunks: ChunkStates, order: PullOrder, most: number): boolean {
  const run = order.next();
  if (run === undefined) return false;
  assert(run.from < run.to && run.to - run.from <= most);
  for (let chunk = run.from; chunk < run.to; chunk++) {
    assert(!chunks.local.has(chunk), `Chunk ${chunk} comes twice`);
    chunks.arrived(chunk);
  }
  return true;
}
