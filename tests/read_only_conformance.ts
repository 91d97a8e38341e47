/**
 * The tests of {@linkcode testBackend} for a backend that can only be read: it shows bytes that the
 * test knows from the beginning.
 *
 * @module
 */
import { assert, assertEquals, assertIsError } from "@std/assert";
import fc from "fast-check";
import type { Awaitable, Backend } from "../lib/backend/backend.ts";
import { ClosedError, ReadOnlyError } from "../lib/backend/errors.ts";
import { assertRefused, blocks, testClose } from "./backend_conformance.ts";
import { assertBytes, assertExtents, pattern, readBack } from "./backend_model.ts";

/** A backend for {@linkcode testReadOnlyBackend}, and what it shows. */
export interface ReadOnlyBackendUnderTest {
  /** Opens it. */
  open(): Awaitable<Backend>;
  /** Fills a buffer with the bytes that the region has at `offset`. */
  fill(buffer: Uint8Array, offset: number): void;
  /** Takes away what {@linkcode open} made last, after it was closed. */
  remove?(): Awaitable<void>;
}

/** Registers the tests of a read-only backend with `Deno.test`, under its name. */
export function testReadOnlyBackend(name: string, subject: ReadOnlyBackendUnderTest): void {
  for (const [what, run] of Object.entries(CASES)) {
    Deno.test(`${name}: ${what}`, async () => {
      const backend = await subject.open();
      try {
        await run(backend, (offset, length) => {
          const bytes = new Uint8Array(length);
          subject.fill(bytes, offset);
          return bytes;
        });
      } finally {
        await backend.close();
        await subject.remove?.();
      }
    });
  }
}

/** The bytes that a region has to have. */
type Known = (offset: number, length: number) => Uint8Array;

/** A test of an open region. */
type Case = (backend: Backend, known: Known) => Promise<void>;

const CASES: Record<string, Case> = {
  "a region says what it is": testProperties,
  "the first, the last and no bytes are read": testEdges,
  "buffers are filled where they lie": testBuffers,
  "what lies outside is refused": testOutside,
  "it refuses to be changed": testRefusals,
  "ranges of any kind are read": testRanges,
  "reads side by side do not disturb each other": testSideBySide,
  "offsets over 32 bits are told apart": testFarOffsets,
  "closed, it refuses everything but another close": testClose,
  "it closes while reads are under way": testCloseUnderWay,
};

async function testProperties(backend: Backend): Promise<void> {
  const { size, blockSize } = backend;
  assert(Number.isSafeInteger(size) && size > 0, `The size is a count of bytes: ${size}`);
  assert(Number.isSafeInteger(blockSize) && blockSize > 0, `So is the block size: ${blockSize}`);
  assertEquals(size % blockSize, 0, "The size is a multiple of the block size");
  assertEquals(backend.readOnly, true);
  assertEquals(typeof backend.durable, "boolean");
  await backend.flush();
  await assertExtents(backend, 0, Math.min(size, blocks(backend, 1 << 20)));
}

async function testEdges(backend: Backend, known: Known): Promise<void> {
  const { size, blockSize } = backend;
  for (const offset of [0, size]) {
    await backend.readAt(new Uint8Array(0), offset);
    assertEquals(await assertExtents(backend, offset, 0), []);
  }
  const most = Math.min(size, blocks(backend, 20 << 20));
  for (const length of [blockSize, most]) {
    for (const offset of [0, size - length]) {
      const what = `${length} bytes at ${offset}`;
      assertBytes(await readBack(backend, offset, length), known(offset, length), what);
    }
  }
}

async function testBuffers(backend: Backend, known: Known): Promise<void> {
  const { blockSize } = backend;
  const length = Math.min(blocks(backend, 5000), backend.size);
  const around = new Uint8Array(length + 2 * blockSize).fill(0xee);
  await backend.readAt(around.subarray(blockSize, blockSize + length), 0);
  const expected = new Uint8Array(around.length).fill(0xee);
  expected.set(known(0, length), blockSize);
  assertBytes(around, expected, "The buffer and what lies around it");
}

async function testOutside(backend: Backend): Promise<void> {
  const { size, blockSize } = backend;
  const length = Math.min(size, blocks(backend, 4096));
  const outside = [size, size - length + blockSize, -blockSize, 2 ** 53, NaN, Infinity, -Infinity];
  for (const offset of [...outside, 0.5]) {
    const buffer = new Uint8Array(length);
    await assertRefused(() => backend.readAt(buffer, offset), RangeError);
    await assertRefused(() => backend.writeAt(pattern(length, 1), offset), RangeError);
    assertBytes(buffer, new Uint8Array(length), "The buffer of a refused read");
  }
}

async function testRefusals(backend: Backend, known: Known): Promise<void> {
  const { blockSize } = backend;
  await assertRefused(() => backend.writeAt(pattern(blockSize, 2), 0), ReadOnlyError);
  if (backend.zero) await assertRefused(() => backend.zero?.(0, blockSize), ReadOnlyError);
  if (backend.discard) await assertRefused(() => backend.discard?.(0, blockSize), ReadOnlyError);
  assertBytes(await readBack(backend, 0, blockSize), known(0, blockSize), "The first block");
}

async function testRanges(backend: Backend, known: Known): Promise<void> {
  const { size, blockSize } = backend;
  const count = size / blockSize;
  const range = fc.tuple(fc.maxSafeNat(), fc.oneof(fc.nat(20), fc.nat(300_000)));
  await fc.assert(
    fc.asyncProperty(range, async ([from, most]) => {
      const offset = (from % count) * blockSize;
      const length = Math.min(blocks(backend, most), size - offset);
      const what = `${length} bytes at ${offset}`;
      assertBytes(await readBack(backend, offset, length), known(offset, length), what);
    }),
    { numRuns: 50 },
  );
}

async function testSideBySide(backend: Backend, known: Known): Promise<void> {
  const length = blocks(backend, 5000);
  const count = Math.min(200, Math.floor(backend.size / length));
  const reads = Array.from({ length: count }, async (_, index) => {
    const offset = index * length;
    const found = await readBack(backend, offset, length);
    assertBytes(found, known(offset, length), `Read ${index}`);
  });
  await Promise.all(reads);
}

async function testFarOffsets(backend: Backend, known: Known): Promise<void> {
  const { size } = backend;
  const length = blocks(backend, 8192);
  const offsets = [31, 32, 33, 36, 40, 44, 48].map((bits) => 2 ** bits - backend.blockSize)
    .filter((offset) => offset + length <= size);
  for (const offset of [...offsets, Math.max(0, size - length)]) {
    const found = await readBack(backend, offset, Math.min(length, size));
    assertBytes(found, known(offset, found.length), `The bytes at ${offset}`);
  }
}

/** What is under way may be done or refused, but is answered. */
async function testCloseUnderWay(backend: Backend): Promise<void> {
  const length = Math.min(backend.size, blocks(backend, 2 << 20));
  const reads = Array.from({ length: 40 }, async () => {
    await backend.readAt(new Uint8Array(length), 0);
  });
  const answers = Promise.allSettled(reads);
  await backend.close();
  for (const answer of await answers) {
    if (answer.status === "rejected") assertIsError(answer.reason, ClosedError);
  }
}
