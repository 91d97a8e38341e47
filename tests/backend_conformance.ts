/**
 * The tests that every backend passes, those of telemap and your own.
 *
 * ```ts ignore
 * import { testBackend } from "./backend_conformance.ts";
 * import { MyBackend } from "./my_backend.ts";
 *
 * let name = 0;
 * testBackend("my backend", {
 *   open: () => MyBackend.create(`region-${++name}`, 4 << 20),
 *   reopen: () => MyBackend.open(`region-${name}`),
 *   remove: () => MyBackend.remove(`region-${name}`),
 * });
 * ```
 *
 * A region of a few MiB tests everything but far offsets, which one of over 4 GiB tests too. Its
 * size need be no round number. No test touches more than 8 MiB of it.
 *
 * @module
 */
import { assert, assertEquals, assertIsError, assertRejects } from "@std/assert";
import { type Awaitable, type Backend, writeZeroes } from "../lib/backend/backend.ts";
import { ClosedError, ReadOnlyError } from "../lib/backend/errors.ts";
import {
  assertBytes,
  assertExtents,
  assertMatchesModel,
  pattern,
  readBack,
  zeroQuickly,
} from "./backend_model.ts";
import { type Requirement, withReason } from "./requires.ts";

export type { Requirement };

/** A backend for {@linkcode testBackend}, and how to come by it. */
export interface BackendUnderTest {
  /** Opens a new region, of which nothing was ever written, each time. */
  open(): Awaitable<Backend>;
  /**
   * Opens the region that {@linkcode open} made last once more, after it was closed; what was
   * flushed must be in it. Missing: the bytes are gone with the backend.
   */
  reopen?(): Awaitable<Backend>;
  /** As {@linkcode reopen}, for reading only. Missing: the backend is never read-only. */
  openReadOnly?(): Awaitable<Backend>;
  /** Takes the region that {@linkcode open} made last away, after it was closed. */
  remove?(): Awaitable<void>;
  /** What the tests need of this host; all of them are skipped where it is not there. */
  requires?: Requirement;
  /** Random sequences of operations to try; 30 unless told. */
  runs?: number;
  /** Seed of the random operations, as a failure showed it; another one each time unless told. */
  seed?: number;
}

/** Registers the tests of a backend with `Deno.test`, under its name. */
export function testBackend(name: string, subject: BackendUnderTest): void {
  const needs = subject.requires ?? { ignore: false, reason: "" };
  const test = (what: string, fn: () => Promise<void>) => {
    Deno.test({ name: withReason(`${name}: ${what}`, needs), ignore: needs.ignore, fn });
  };
  for (const [what, run] of Object.entries(CASES)) {
    test(what, () => withRegion(subject, run));
  }
  test("random operations do what they do to an array of bytes", () =>
    assertMatchesModel({
      open: async () => await subject.open(),
      remove: async () => await subject.remove?.(),
      runs: subject.runs ?? 30,
      seed: subject.seed,
    }));
  const { reopen, openReadOnly } = subject;
  if (reopen !== undefined) {
    test("what was flushed is there after it was opened again", () =>
      withRegion(subject, (backend) => testReopen(backend, () => reopen.call(subject))));
  }
  if (openReadOnly !== undefined) {
    test("read-only, it is read and refuses to be changed", () =>
      withRegion(subject, (backend) => testReadOnly(backend, () => openReadOnly.call(subject))));
  }
}

/** A test of a fresh region. */
type Case = (backend: Backend) => Promise<void>;

const CASES: Record<string, Case> = {
  "a region says what it is": testProperties,
  "a new region reads as zeroes": testFresh,
  "the first, the last and no bytes are read and written": testEdges,
  "buffers are filled where they lie, and are the caller's afterwards": testBuffers,
  "what lies outside is refused and changes nothing": testOutside,
  "zeroed ranges read as zeroes, and others as before": testZero,
  "discarded ranges read as zeroes or as before, and others as before": testDiscard,
  "extents show what was written as data": testExtents,
  "operations side by side do not disturb each other": testSideBySide,
  "offsets over 32 bits are told apart": testFarOffsets,
  "closed, it refuses everything but another close": testClose,
  "it closes while operations are under way": testCloseUnderWay,
};

async function withRegion(subject: BackendUnderTest, run: Case): Promise<void> {
  const backend = await subject.open();
  try {
    await run(backend);
  } finally {
    await backend.close();
    await subject.remove?.();
  }
}

/** The next multiple of the backend's block size. */
export function blocks(backend: Backend, bytes: number): number {
  return Math.ceil(bytes / backend.blockSize) * backend.blockSize;
}

async function testProperties(backend: Backend): Promise<void> {
  const { size, blockSize, durable, readOnly } = backend;
  assert(Number.isSafeInteger(size) && size > 0, `The size is a count of bytes: ${size}`);
  assert(Number.isSafeInteger(blockSize) && blockSize > 0, `So is the block size: ${blockSize}`);
  assertEquals(size % blockSize, 0, "The size is a multiple of the block size");
  assertEquals(typeof durable, "boolean");
  assertEquals(readOnly, false);
  assertEquals(backend.memory?.bytes.length ?? size, size);
  await backend.flush();
  assertEquals(backend.size, size);
}

async function testFresh(backend: Backend): Promise<void> {
  const length = Math.min(backend.size, 4 << 20);
  for (const offset of [0, backend.size - length]) {
    const found = await readBack(backend, offset, length);
    assertBytes(found, new Uint8Array(length), `The ${length} bytes at ${offset}`);
    await assertExtents(backend, offset, length);
  }
}

async function testEdges(backend: Backend): Promise<void> {
  const { size, blockSize } = backend;
  for (const offset of [0, size]) {
    await backend.readAt(new Uint8Array(0), offset);
    await backend.writeAt(new Uint8Array(0), offset);
    await backend.discard?.(offset, 0);
    await writeZeroes(backend, offset, 0);
    assertEquals(await assertExtents(backend, offset, 0), []);
  }
  for (const [offset, seed] of [[0, 1], [size - blockSize, 2]] as const) {
    await backend.writeAt(pattern(blockSize, seed), offset);
  }
  assertBytes(await readBack(backend, 0, blockSize), pattern(blockSize, 1), "The first block");
  const last = await readBack(backend, size - blockSize, blockSize);
  assertBytes(last, pattern(blockSize, 2), "The last block");
  const most = Math.min(size, blocks(backend, 8 << 20));
  await backend.writeAt(pattern(most, 3), size - most);
  assertBytes(await readBack(backend, size - most, most), pattern(most, 3), "Much at once");
}

async function testBuffers(backend: Backend): Promise<void> {
  const { blockSize } = backend;
  const length = Math.min(blocks(backend, 20), backend.size);
  const around = new Uint8Array(length + 2 * blockSize).fill(0xee);
  const inside = around.subarray(blockSize, blockSize + length);
  inside.set(pattern(length, 4));
  await backend.writeAt(inside, 0);
  inside.fill(0xdd);
  await backend.readAt(inside, 0);
  assertBytes(inside, pattern(length, 4), "What was written before the buffer changed");
  const margin = new Uint8Array(blockSize).fill(0xee);
  assertBytes(around.subarray(0, blockSize), margin, "What lies before the buffer");
  assertBytes(around.subarray(blockSize + length), margin, "What lies behind the buffer");
}

async function testOutside(backend: Backend): Promise<void> {
  const { size, blockSize } = backend;
  const length = Math.min(size, blocks(backend, 4096));
  await backend.writeAt(pattern(length, 5), size - length);
  const outside = [size, size - length + blockSize, -blockSize, 2 ** 53, NaN, Infinity, -Infinity];
  for (const offset of [...outside, 0.5]) {
    await assertRefused(() => backend.readAt(new Uint8Array(length), offset), RangeError);
    await assertRefused(() => backend.writeAt(pattern(length, 6), offset), RangeError);
    await assertRefusedRange(backend, offset, length);
  }
  for (const wrong of [-blockSize, size + blockSize, 2 ** 53, NaN, Infinity, 0.5]) {
    await assertRefusedRange(backend, 0, wrong);
  }
  const found = await readBack(backend, size - length, length);
  assertBytes(found, pattern(length, 5), "The end of the region");
}

async function assertRefusedRange(
  backend: Backend,
  offset: number,
  length: number,
): Promise<void> {
  const { extents, zero, discard } = backend;
  if (extents) await assertRefused(() => extents.call(backend, offset, length), RangeError);
  if (zero) await assertRefused(() => zero.call(backend, offset, length), RangeError);
  if (discard) await assertRefused(() => discard.call(backend, offset, length), RangeError);
}

/** Asserts that a call throws or rejects: a method may do either. */
export async function assertRefused(
  call: () => unknown,
  ErrorClass: abstract new (...args: never[]) => Error,
): Promise<void> {
  await assertRejects(async () => await call(), ErrorClass);
}

/** Writes a pattern over the first bytes and answers it, and a range inside for the test to change. */
async function fill(backend: Backend, seed: number) {
  const length = Math.min(backend.size, blocks(backend, 3 << 20));
  const expected = pattern(length, seed);
  await backend.writeAt(expected, 0);
  const { blockSize } = backend;
  const ranges = [
    { from: blockSize, to: Math.min(blocks(backend, 700), length) },
    { from: Math.min(blocks(backend, 100_001), length), to: length - blockSize },
  ].filter(({ from, to }) => from < to);
  return { expected, ranges };
}

async function testZero(backend: Backend): Promise<void> {
  for (const allocate of [false, true]) {
    const { expected, ranges } = await fill(backend, 7);
    for (const { from, to } of ranges) {
      if (await zeroQuickly(backend, from, to - from, allocate)) expected.fill(0, from, to);
      const found = await readBack(backend, 0, expected.length);
      assertBytes(found, expected, `The bytes around ${from} to ${to}, zeroed`);
      await writeZeroes(backend, from, to - from, { allocate });
      expected.fill(0, from, to);
      const after = await readBack(backend, 0, expected.length);
      assertBytes(after, expected, `The bytes around ${from} to ${to}, zeroed in any way`);
    }
  }
}

async function testDiscard(backend: Backend): Promise<void> {
  const { expected, ranges } = await fill(backend, 8);
  for (const { from, to } of ranges) {
    await backend.discard?.(from, to - from);
    const found = await readBack(backend, 0, expected.length);
    const kept = found.subarray(from, to);
    const wrong = kept.findIndex((byte, index) => byte !== 0 && byte !== expected[from + index]);
    assertEquals(wrong, -1, "A discarded byte is zero or as before");
    expected.set(kept, from);
    assertBytes(found, expected, `The bytes around ${from} to ${to}`);
  }
}

async function testExtents(backend: Backend): Promise<void> {
  const { size } = backend;
  const length = Math.min(size, blocks(backend, 5000));
  const offset = Math.min(size - length, blocks(backend, 300_000));
  await backend.writeAt(pattern(length, 9), offset);
  const around = Math.min(size, 4 << 20);
  const extents = await assertExtents(backend, 0, around);
  for (const extent of extents) {
    const apart = extent.offset >= offset + length || extent.offset + extent.length <= offset;
    assert(apart || !extent.hole && !extent.zero, "What was written is data");
  }
  await assertExtents(backend, offset, length);
}

async function testSideBySide(backend: Backend): Promise<void> {
  const slot = blocks(backend, 5000);
  const count = Math.min(200, Math.floor(backend.size / slot));
  const expected = new Uint8Array(count * slot);
  await Promise.all(Array.from({ length: count }, async (_, index) => {
    const bytes = pattern(slot, index);
    await backend.writeAt(bytes, index * slot);
    assertBytes(await readBack(backend, index * slot, slot), bytes, `Slot ${index}`);
    if (index % 3 === 0) {
      await writeZeroes(backend, index * slot, slot);
      return;
    }
    if (index % 7 === 0) await backend.flush();
    expected.set(bytes, index * slot);
  }));
  const found = await Promise.all(
    Array.from({ length: count }, (_, index) => readBack(backend, index * slot, slot)),
  );
  found.forEach((bytes, index) => {
    const slotBytes = expected.subarray(index * slot, (index + 1) * slot);
    assertBytes(bytes, slotBytes, `Slot ${index} afterwards`);
  });
}

async function testFarOffsets(backend: Backend): Promise<void> {
  const { size } = backend;
  const length = blocks(backend, 8192);
  const boundaries = [31, 32, 33, 36, 40, 44, 48].map((bits) => 2 ** bits);
  const offsets = [...boundaries, size - length]
    .map((offset) => Math.max(0, offset - offset % backend.blockSize))
    .filter((offset) => offset + length <= size);
  for (const [index, offset] of offsets.entries()) {
    await backend.writeAt(pattern(length, index), offset);
  }
  for (const [index, offset] of offsets.entries()) {
    const found = await readBack(backend, offset, length);
    assertBytes(found, pattern(length, index), `The bytes at ${offset}`);
    await assertExtents(backend, offset, length);
  }
}

async function testReopen(first: Backend, reopen: () => Awaitable<Backend>): Promise<void> {
  const length = Math.min(first.size, blocks(first, 2 << 20));
  const offset = first.size - length;
  const expected = pattern(length, 10);
  await first.writeAt(expected, offset);
  const gap = Math.min(length, blocks(first, 1 << 20));
  await writeZeroes(first, offset, gap);
  expected.fill(0, 0, gap);
  await first.flush();
  await first.close();
  await using second = await reopen();
  assertEquals(second.size, first.size);
  assertBytes(await readBack(second, offset, length), expected, "What was flushed");
}

async function testReadOnly(first: Backend, open: () => Awaitable<Backend>): Promise<void> {
  const { blockSize } = first;
  await first.writeAt(pattern(blockSize, 11), 0);
  await first.flush();
  await first.close();
  await using backend = await open();
  assertEquals(backend.readOnly, true);
  await assertRefused(() => backend.writeAt(pattern(blockSize, 12), 0), ReadOnlyError);
  if (backend.zero) await assertRefused(() => backend.zero?.(0, blockSize), ReadOnlyError);
  if (backend.discard) await assertRefused(() => backend.discard?.(0, blockSize), ReadOnlyError);
  await backend.flush();
  await assertExtents(backend, 0, blockSize);
  assertBytes(await readBack(backend, 0, blockSize), pattern(blockSize, 11), "What was written");
}

/** Asserts that a backend refuses everything once it is closed, but another close. */
export async function testClose(backend: Backend): Promise<void> {
  const { blockSize, extents, zero, discard, share } = backend;
  await backend.close();
  await backend.close();
  await backend[Symbol.asyncDispose]();
  await assertRefused(() => backend.readAt(new Uint8Array(blockSize), 0), ClosedError);
  await assertRefused(() => backend.writeAt(new Uint8Array(blockSize), 0), ClosedError);
  await assertRefused(() => backend.flush(), ClosedError);
  if (extents) await assertRefused(() => extents.call(backend, 0, blockSize), ClosedError);
  if (zero) await assertRefused(() => zero.call(backend, 0, blockSize), ClosedError);
  if (discard) await assertRefused(() => discard.call(backend, 0, blockSize), ClosedError);
  if (share) await assertRefused(() => share.call(backend), ClosedError);
  assertEquals(backend.memory?.bytes.length ?? 0, 0, "Its memory is empty");
}

/** What is under way may be done or refused, but is answered. */
async function testCloseUnderWay(backend: Backend): Promise<void> {
  const length = Math.min(backend.size, blocks(backend, 2 << 20));
  const underWay = [
    ...Array.from({ length: 8 }, async () => await backend.writeAt(pattern(length, 13), 0)),
    ...Array.from({ length: 8 }, async () => await backend.readAt(new Uint8Array(length), 0)),
    (async () => await backend.discard?.(0, length))(),
    (async () => await backend.flush())(),
  ];
  const answers = Promise.allSettled(underWay);
  await backend.close();
  for (const answer of await answers) {
    if (answer.status === "rejected") assertIsError(answer.reason, ClosedError);
  }
}
