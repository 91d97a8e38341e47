/**
 * What trackMemory() tells of the memory of a WebAssembly instance, by each method that this host
 * has.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { close, O, open, pread } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { probeTracking } from "../../lib/tracking/tracking_probe.ts";
import {
  ClosedError,
  RangeList,
  SystemError,
  type TrackingMethod,
  trackMemory,
  UsageError,
} from "../../mod.ts";
import { type Requirement, requires, requiresAll, requiresThat, withReason } from "../requires.ts";
import { makeHammer } from "./write_hammer_module.ts";

openLibc();

const PAGE = 65536;
const MOVING = new URL("./moving_memory.ts", import.meta.url).pathname;

function trackingTest(
  name: string,
  fn: (method: TrackingMethod) => Promise<void>,
  more: Requirement = requires(),
): void {
  for (const { method, available, reason = "" } of probeTracking()) {
    const needs = requiresAll(requiresThat(available, reason), more);
    Deno.test({
      name: withReason(`${method}: ${name}`, needs),
      ignore: needs.ignore,
      fn: () => fn(method),
    });
  }
}

/** The pages of 64 KiB that have a byte of the ranges. */
function pagesOf(ranges: RangeList): number[] {
  const pages = new Set<number>();
  for (const { offset, length } of ranges) {
    for (let page = Math.floor(offset / PAGE); page * PAGE < offset + length; page++) {
      pages.add(page);
    }
  }
  return [...pages];
}

trackingTest("dirty() tells what an instance wrote since the last time", async (method) => {
  const memory = new WebAssembly.Memory({ initial: 64 });
  const { hammer } = makeHammer(memory);
  await using tracker = await trackMemory(memory, { method });
  assertEquals(tracker.method, method);
  assertEquals((await tracker.dirty()).count, 0);
  let state = 0x1234567;
  for (let round = 0; round < 5; round++) {
    const before = new Uint8Array(memory.buffer).slice();
    state = hammer(state, 50, 64 * PAGE - 4);
    const after = new Uint8Array(memory.buffer);
    const changed = new Set<number>();
    after.forEach((byte, at) => byte !== before[at] && changed.add(Math.floor(at / 4096)));
    const told = new Set<number>();
    for (const { offset, length } of await tracker.dirty()) {
      for (let at = offset; at < offset + length; at += 4096) told.add(at / 4096);
      assertEquals(
        tracker.bytes.subarray(offset, offset + length),
        after.subarray(offset, offset + length),
      );
    }
    assert(changed.isSubsetOf(told), "what changed was told");
    const written = new Set([...told].map((page) => Math.floor(page * 4096 / PAGE)));
    assert(written.size <= 50 && told.size <= 50 * PAGE / 4096, `${told.size} pages were told`);
  }
  assertEquals((await tracker.dirty()).count, 0);
});

trackingTest("a memory that grows is written from there on, and tracked", async (method) => {
  const memory = new WebAssembly.Memory({ initial: 2 });
  await using tracker = await trackMemory(memory, { method });
  for (let size = 2; size < 40; size += 7) {
    memory.grow(7);
    new Uint8Array(memory.buffer)[PAGE] = size;
    const ranges = await tracker.dirty();
    const grown = Array.from({ length: 7 }, (_, page) => size + page);
    assertEquals(pagesOf(ranges), [1, ...grown]);
    assertEquals(tracker.bytes.length, (size + 7) * PAGE);
    new Uint8Array(memory.buffer)[(size + 6) * PAGE] = 1;
    assertEquals(pagesOf(await tracker.dirty()), [size + 6]);
  }
  assertEquals((await tracker.dirty()).count, 0);
});

trackingTest("ranges that are restored are told again", async (method) => {
  const memory = new WebAssembly.Memory({ initial: 8 });
  await using tracker = await trackMemory(memory, { method });
  const bytes = new Uint8Array(memory.buffer);
  bytes[0] = bytes[3 * PAGE] = 1;
  const ranges = await tracker.dirty();
  await tracker.restore(ranges);
  bytes[5 * PAGE] = 1;
  assertEquals(pagesOf(await tracker.dirty()), [0, 3, 5]);
  assertEquals((await tracker.dirty()).count, 0);
  const some = new RangeList();
  some.add(7 * PAGE, 7 * PAGE + 1);
  await tracker.restore(some);
  assertEquals(pagesOf(await tracker.dirty()), [7]);
});

trackingTest("calls at the same time share what was written", async (method) => {
  const memory = new WebAssembly.Memory({ initial: 8 });
  const tracker = await trackMemory(memory, { method });
  new Uint8Array(memory.buffer)[0] = 1;
  const [first, second] = [tracker.dirty(), tracker.dirty()];
  const closing = tracker.close();
  await assertRejects(() => tracker.dirty(), ClosedError, "after it was closed");
  assertEquals([pagesOf(await first), pagesOf(await second)], [[0], []]);
  await Promise.all([closing, tracker.close()]);
  new Uint8Array(memory.buffer)[0] = 2;
});

trackingTest("a memory can be tracked again after its tracker was closed", async (method) => {
  const memory = new WebAssembly.Memory({ initial: 8 });
  for (let time = 0; time < 3; time++) {
    await using tracker = await trackMemory(memory, { method });
    new Uint8Array(memory.buffer)[time * PAGE] = 1;
    assertEquals(pagesOf(await tracker.dirty()), [time]);
  }
});

trackingTest("a memory that had to move is refused from then on", async (method) => {
  const command = new Deno.Command(Deno.execPath(), { args: ["run", "-A", MOVING, method] });
  const { stdout, stderr, success } = await command.output();
  assert(success, new TextDecoder().decode(stderr));
  const { before, errors } = JSON.parse(new TextDecoder().decode(stdout));
  assertEquals(before, 1);
  assertEquals(errors.length, 2);
  for (const { name, code, message } of errors) {
    assertEquals([name, code], ["UnsupportedError", "EOPNOTSUPP"]);
    assertMatch(message, /^Cannot track a memory any more that moved as it grew, from 0x[0-9a-f]+/);
  }
}, requires("prlimit"));

const async = probeTracking().find(({ method }) => method === "async-wp")!;
const needs = requiresThat(async.available, async.reason ?? "");

Deno.test({
  name: withReason("a second tracker on a memory is refused, but for one that compares", needs),
  ignore: needs.ignore,
  fn: async () => {
    const memory = new WebAssembly.Memory({ initial: 8 });
    await using tracker = await trackMemory(memory, { method: "async-wp" });
    const error = await assertRejects(
      () => trackMemory(memory, { method: "async-wp" }),
      SystemError,
      "another userfaultfd has part of it",
    );
    assertEquals(error.code, "EBUSY");
    await assertRejects(() => trackMemory(memory, { method: "wp-faults" }), Error, "EBUSY");
    await using comparing = await trackMemory(memory, { method: "compare" });
    new Uint8Array(memory.buffer)[0] = 1;
    assertEquals(pagesOf(await comparing.dirty()), [0]);
    assertEquals(pagesOf(await tracker.dirty()), [0]);
  },
});

Deno.test({
  name: withReason("async-wp notices what system calls write, in user mode too", needs),
  ignore: needs.ignore,
  fn: async () => {
    const memory = new WebAssembly.Memory({ initial: 8 });
    await using tracker = await trackMemory(memory, { method: "async-wp", userModeOnly: true });
    const file = open("/proc/self/exe", O.RDONLY);
    const read = pread(file, new Uint8Array(memory.buffer, 3 * PAGE, 100), 0);
    close(file);
    assertEquals(read, 100);
    assertEquals(pagesOf(await tracker.dirty()), [3]);
  },
});

Deno.test("a memory without pages cannot be tracked", async () => {
  const memory = new WebAssembly.Memory({ initial: 0 });
  await assertRejects(() => trackMemory(memory), UsageError, "grow it first");
});
