/**
 * A WebAssembly module that computes over its memory, as bytes:
 *
 * ```wat
 * (module
 *   (import "env" "memory" (memory 1))
 *   (func (export "sum") (param $at i32) (param $end i32) (result i64)
 *     (local $sum i64)
 *     (block $done (loop $next
 *       (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
 *       (local.set $sum (i64.add
 *         (i64.mul (local.get $sum) (i64.const 31)) (i64.load32_u (local.get $at))))
 *       (local.set $at (i32.add (local.get $at) (i32.const 4)))
 *       (br $next)))
 *     (local.get $sum))
 *   (func (export "store") (param $at i32) (param $value i32)
 *     (i32.store (local.get $at) (local.get $value))))
 * ```
 *
 * @module
 */

/** What an instance exports. */
export interface Checksum {
  /** A polynomial of the words in `[at, end)`, modulo 2^64. */
  sum(at: number, end: number): bigint;
  /** Stores a word. */
  store(at: number, value: number): void;
}

const I32 = 0x7f, I64 = 0x7e, GET = 0x20, SET = 0x21, END = 0x0b;

const TYPES = [0x60, 2, I32, I32, 1, I64, 0x60, 2, I32, I32, 0];
const IMPORT = [3, ...name("env"), 6, ...name("memory"), 0x02];
const LIMITS = { plain: [0x00, 1], shared: [0x03, 1, 0x80, 0x80, 4] };
const EXPORTS = [3, ...name("sum"), 0, 0, 5, ...name("store"), 0, 1];

const SUM = [
  ...[1, 1, I64], // one local: $sum
  ...[0x02, 0x40, 0x03, 0x40], // block, loop
  ...[GET, 0, GET, 1, 0x4f, 0x0d, 1], // i32.ge_u, br_if 1
  ...[GET, 2, 0x42, 31, 0x7e, GET, 0, 0x35, 2, 0, 0x7c, SET, 2], // i64.mul, i64.load32_u, i64.add
  ...[GET, 0, 0x41, 4, 0x6a, SET, 0], // i32.add
  ...[0x0c, 0, END, END, GET, 2, END], // br 0
];
const STORE = [0, GET, 0, GET, 1, 0x36, 2, 0, END];

/** An instance whose memory is `memory`, of a page of 64 KiB or more; shared, of up to 65536. */
export async function instantiateChecksum(memory: WebAssembly.Memory): Promise<Checksum> {
  const isShared = memory.buffer instanceof SharedArrayBuffer;
  const imports = [1, ...IMPORT, ...(isShared ? LIMITS.shared : LIMITS.plain)];
  const bytes = new Uint8Array([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [2, ...TYPES]),
    ...section(2, imports),
    ...section(3, [2, 0, 1]),
    ...section(7, [2, ...EXPORTS]),
    ...section(10, [2, SUM.length, ...SUM, STORE.length, ...STORE]),
  ]);
  const { instance } = await WebAssembly.instantiate(bytes, { env: { memory } });
  return instance.exports as unknown as Checksum;
}

function section(id: number, content: number[]): number[] {
  return [id, content.length, ...content];
}

function name(text: string): number[] {
  return [...new TextEncoder().encode(text)];
}
