/**
 * Random operations on a backend, held against an array of bytes that they are done to as well.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type Backend, type Extent, extentsOf } from "../lib/backend/backend.ts";
import { UnsupportedError } from "../lib/backend/errors.ts";

/** Bytes of a region that a sequence of operations works on, so that it stays quick on any region. */
const WINDOW = 256 * 1024;

type Operation =
  | { kind: "read" | "discard" | "extents" | "flush"; offset: number; length: number }
  | { kind: "write"; offset: number; length: number; seed: number }
  | { kind: "zero"; offset: number; length: number; allocate: boolean };

/** A part of a region, and operations on it with offsets from its beginning. */
interface Sequence {
  base: number;
  length: number;
  operations: Operation[];
}

/** How {@linkcode assertMatchesModel} tries. */
export interface ModelOptions {
  /** Opens a fresh region for each sequence; it is closed at its end. */
  open: () => Promise<Backend>;
  /** Takes what `open` made away. */
  remove: () => Promise<void>;
  /** Sequences to try. */
  runs: number;
  /** Seed of the random choices, to repeat a failure. */
  seed?: number | undefined;
}

/**
 * Does random sequences of reads, writes, zeroes, discards, flushes and extents at the beginning,
 * in the middle and at the end of a region. A failure is shrunk to a short sequence, and shown with
 * the seed that repeats it.
 */
export async function assertMatchesModel(options: ModelOptions): Promise<void> {
  const { size, blockSize } = await describe(options);
  const property = fc.asyncProperty(sequences(size, blockSize), async (sequence) => {
    const backend = await options.open();
    try {
      await runSequence(backend, sequence);
    } finally {
      await backend.close();
      await options.remove();
    }
  });
  const seed = options.seed === undefined ? {} : { seed: options.seed };
  await fc.assert(property, { numRuns: options.runs, ...seed });
}

/** Bytes that differ from place to place and from seed to seed. */
export function pattern(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++) {
    bytes[index] = Math.imul(index + 1, 0x9e3779b1) >>> 24 ^ seed;
  }
  return bytes;
}

/** Asserts that bytes are equal, and says where the first ones differ. */
export function assertBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assertEquals(actual.length, expected.length, what);
  let at = 0;
  while (at < actual.length && actual[at] === expected[at]) at++;
  assertEquals(actual[at], expected[at], `${what} differs first at byte ${at}`);
}

/** Reads a range into a new buffer, which is not zeroed, so that bytes left alone show. */
export async function readBack(
  backend: Backend,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const buffer = new Uint8Array(length).fill(0xa5);
  await backend.readAt(buffer, offset);
  return buffer;
}

/** Asserts what the contract says of the extents of a range, and that zero ones read as zeroes. */
export async function assertExtents(
  backend: Backend,
  offset: number,
  length: number,
): Promise<Extent[]> {
  const extents = await extentsOf(backend, offset, length);
  let at = offset;
  let previous: Extent | undefined;
  for (const extent of extents) {
    assertEquals(extent.offset, at, "An extent begins where the one before it ends");
    assert(extent.length > 0, "An extent has a length");
    const same = extent.hole === previous?.hole && extent.zero === previous.zero;
    assert(!same, "Adjoining extents differ");
    at += extent.length;
    previous = extent;
    if (!extent.zero) continue;
    for (let zero = extent.offset; zero < at; zero += 1 << 20) {
      const count = Math.min(1 << 20, at - zero);
      const bytes = await readBack(backend, zero, count);
      assertBytes(bytes, new Uint8Array(count), `A zero extent at ${zero}`);
    }
  }
  assertEquals(at, offset + length, "Extents end where the range ends");
  return extents;
}

async function describe(options: ModelOptions): Promise<{ size: number; blockSize: number }> {
  const backend = await options.open();
  const { size, blockSize } = backend;
  await backend.close();
  await options.remove();
  return { size, blockSize };
}

function sequences(size: number, blockSize: number): fc.Arbitrary<Sequence> {
  const length = Math.min(size, WINDOW - WINDOW % blockSize);
  const middle = size > 2 ** 32 + WINDOW ? 2 ** 32 - length / 2 : (size - length) / 2;
  const bases = [0, middle - middle % blockSize, size - length];
  return fc.record({
    base: fc.constantFrom(...new Set(bases)),
    length: fc.constant(length),
    operations: fc.array(operations(length / blockSize, blockSize), { maxLength: 40 }),
  });
}

/** Operations on `blocks` blocks, small and large, many of them at the edges. */
function operations(blocks: number, blockSize: number): fc.Arbitrary<Operation> {
  const range = fc.tuple(
    fc.oneof(fc.nat(blocks), fc.nat(Math.min(8, blocks))),
    fc.oneof(fc.nat(blocks), fc.nat(Math.min(8, blocks)), fc.constant(blocks)),
  ).map(([from, count]) => ({
    offset: from * blockSize,
    length: Math.min(count, blocks - from) * blockSize,
  }));
  const plain = fc.constantFrom<"read" | "discard" | "extents" | "flush">(
    "read",
    "discard",
    "extents",
    "flush",
  );
  return fc.oneof(
    { weight: 3, arbitrary: fc.tuple(range, fc.nat(255)).map(([at, seed]) => write(at, seed)) },
    {
      weight: 2,
      arbitrary: fc.tuple(range, fc.boolean())
        .map(([at, allocate]): Operation => ({ kind: "zero", ...at, allocate })),
    },
    {
      weight: 3,
      arbitrary: fc.tuple(plain, range).map(([kind, at]): Operation => ({ kind, ...at })),
    },
  );
}

function write(at: { offset: number; length: number }, seed: number): Operation {
  return { kind: "write", ...at, seed };
}

async function runSequence(backend: Backend, sequence: Sequence): Promise<void> {
  const model = new Uint8Array(sequence.length);
  for (const operation of sequence.operations) {
    await runOperation(backend, sequence.base, model, operation);
  }
  await assertExtents(backend, sequence.base, sequence.length);
  assertBytes(await readBack(backend, sequence.base, sequence.length), model, "The window");
}

async function runOperation(
  backend: Backend,
  base: number,
  model: Uint8Array,
  operation: Operation,
): Promise<void> {
  const { offset, length } = operation;
  const part = model.subarray(offset, offset + length);
  switch (operation.kind) {
    case "read":
      assertBytes(await readBack(backend, base + offset, length), part, "A read");
      return;
    case "write":
      part.set(pattern(length, operation.seed));
      await backend.writeAt(part.slice(), base + offset);
      return;
    case "zero":
      if (await zeroQuickly(backend, base + offset, length, operation.allocate)) part.fill(0);
      return;
    case "discard": {
      await backend.discard?.(base + offset, length);
      const kept = await readBack(backend, base + offset, length);
      const wrong = kept.findIndex((byte, index) => byte !== 0 && byte !== part[index]);
      assertEquals(wrong, -1, "A discarded byte is zero or as before");
      part.set(kept);
      return;
    }
    case "extents":
      await assertExtents(backend, base + offset, length);
      return;
    case "flush":
      await backend.flush();
  }
}

/** Zeroes a range by `Backend.zero`; answers false where the backend has no quick way to. */
export async function zeroQuickly(
  backend: Backend,
  offset: number,
  length: number,
  allocate: boolean,
): Promise<boolean> {
  try {
    await backend.zero?.(offset, length, { allocate });
    return backend.zero !== undefined;
  } catch (error) {
    if (error instanceof UnsupportedError) return false;
    throw error;
  }
}
