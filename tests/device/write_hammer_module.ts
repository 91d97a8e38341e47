/**
 * A WebAssembly module that hammers its memory, as bytes.
 *
 * @module
 */

/** What the module exports. */
export interface HammerExports {
  /**
   * Adds 1 to `count` 32-bit words, at random below the power of two whose mask of whole words
   * `mask` is, and answers the random state to go on from.
   */
  hammer(state: number, count: number, mask: number): number;
}

const PARAMETERS = { state: 0, count: 1, mask: 2, address: 3 } as const;
const I32 = 0x7f, VOID = 0x40;

function get(name: keyof typeof PARAMETERS): number[] {
  return [0x20, PARAMETERS[name]];
}

function set(name: keyof typeof PARAMETERS): number[] {
  return [0x21, PARAMETERS[name]];
}

function constant(value: number): number[] {
  return [0x41, value];
}

const XOR = 0x73, SHIFT_LEFT = 0x74, SHIFT_RIGHT = 0x76, AND = 0x71, ADD = 0x6a, SUBTRACT = 0x6b;
const LOOP = 0x03, BRANCH_IF = 0x0d, END = 0x0b;
const LOAD = [0x28, 2, 0], STORE = [0x36, 2, 0];

/** state ^= state shifted by `bits`. */
function scramble(shift: number, bits: number): number[] {
  return [...get("state"), ...get("state"), ...constant(bits), shift, XOR, ...set("state")];
}

const BODY = [
  ...[1, 1, I32],
  ...[LOOP, VOID],
  ...scramble(SHIFT_LEFT, 13),
  ...scramble(SHIFT_RIGHT, 17),
  ...scramble(SHIFT_LEFT, 5),
  ...[...get("state"), ...get("mask"), AND, ...set("address")],
  ...[...get("address"), ...get("address"), ...LOAD, ...constant(1), ADD, ...STORE],
  ...[...get("count"), ...constant(1), SUBTRACT, 0x22, PARAMETERS.count],
  ...[BRANCH_IF, 0, END],
  ...[...get("state"), END],
];

/** The module; it imports its memory, shared or not, as `env.memory`. */
export function hammerModule({ shared }: { shared: boolean }): WebAssembly.Module {
  const limits = shared ? [3, 1, ...[0x80, 0x80, 0x04]] : [0, 1];
  const memory = [2, ...limits];
  return new WebAssembly.Module(
    new Uint8Array([
      ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...section(1, [1, 0x60, 3, I32, I32, I32, 1, I32]),
      ...section(2, [1, ...name("env"), ...name("memory"), ...memory]),
      ...section(3, [1, 0]),
      ...section(7, [1, ...name("hammer"), 0, 0]),
      ...section(10, [1, BODY.length, ...BODY]),
    ]),
  );
}

/** Makes an instance that hammers `memory`. */
export function makeHammer(memory: WebAssembly.Memory): HammerExports {
  const shared = memory.buffer instanceof SharedArrayBuffer;
  const instance = new WebAssembly.Instance(hammerModule({ shared }), { env: { memory } });
  return instance.exports as unknown as HammerExports;
}

/** A section; all are shorter than 128 bytes. */
function section(id: number, content: number[]): number[] {
  return [id, content.length, ...content];
}

function name(text: string): number[] {
  return [text.length, ...new TextEncoder().encode(text)];
}
