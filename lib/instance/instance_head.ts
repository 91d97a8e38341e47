/**
 * What an instance has beside its memory, as it lies in the first bytes of the region that moves it:
 * its exported globals and the state of the application around it. Pure.
 *
 * | at | bytes                                    |
 * | -- | ---------------------------------------- |
 * |  0 | "TMINST\n\1"                              |
 * |  8 | u32 bytes of what follows, little-endian |
 * | 12 | JSON of {@linkcode InstanceHead}         |
 *
 * Numbers are decimal text, as JSON has neither 64-bit integers nor NaN, infinities and -0.
 *
 * @module
 */
import { IntegrityError, UsageError } from "../backend/errors.ts";

/** Bytes of the head; the memory follows, from the start of a page of WebAssembly. */
export const HEAD_BYTES = 65536;

/** Values that globals can be told by. */
export type GlobalValue = number | bigint;

/** See the module. */
export interface InstanceHead {
  /** Bytes of the memory. */
  memoryBytes: number;
  /** By the name of their export. */
  globals: ReadonlyMap<string, GlobalValue>;
  /** What the application wants to have there; as `JSON.stringify` takes it. */
  state: unknown;
}

const MAGIC = new TextEncoder().encode("TMINST\n\u0001");
const TEXT_AT = 12;

/**
 * Makes the first bytes of a region, of the length that they need.
 *
 * @throws {UsageError} the state is no JSON, or all of it takes more than {@linkcode HEAD_BYTES}.
 */
export function encodeHead({ memoryBytes, globals, state }: InstanceHead): Uint8Array<ArrayBuffer> {
  const told = [...globals].map(([name, value]) => [name, typeof value, textOf(value)]);
  const text = new TextEncoder().encode(jsonOf({ memoryBytes, globals: told, state }));
  const head = new Uint8Array(TEXT_AT + text.length);
  if (head.length > HEAD_BYTES) {
    throw new UsageError(`Cannot move ${text.length} bytes of state with an instance`, {
      hint: `keep what is large in its memory: up to ${
        HEAD_BYTES - TEXT_AT
      } bytes are for the rest`,
    });
  }
  head.set(MAGIC);
  new DataView(head.buffer).setUint32(8, text.length, true);
  head.set(text, TEXT_AT);
  return head;
}

/**
 * Reads them; `head` has at least {@linkcode HEAD_BYTES}, or all of a smaller region.
 *
 * @throws {IntegrityError} it is no such region, or one that is damaged.
 */
export function decodeHead(head: Uint8Array): InstanceHead {
  const length = head.length < TEXT_AT
    ? Infinity
    : new DataView(head.buffer, head.byteOffset).getUint32(8, true);
  if (!MAGIC.every((byte, at) => head[at] === byte) || TEXT_AT + length > head.length) {
    throw new IntegrityError("Cannot make an instance of a region that is none", {
      hint: "give the address of a process that called seedInstance",
    });
  }
  return readHead(head.slice(TEXT_AT, TEXT_AT + length));
}

function readHead(text: Uint8Array): InstanceHead {
  try {
    const found: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
    if (!isRecord(found)) throw new TypeError("It is no object");
    const { memoryBytes, globals, state } = found;
    if (!Number.isSafeInteger(memoryBytes) || (memoryBytes as number) < 0) {
      throw new TypeError("It has no size");
    }
    if (!Array.isArray(globals)) throw new TypeError("It has no globals");
    return { memoryBytes: memoryBytes as number, globals: new Map(globals.map(readGlobal)), state };
  } catch (cause) {
    throw new IntegrityError(`Cannot read the state of an instance: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function readGlobal(entry: unknown): [string, GlobalValue] {
  if (!Array.isArray(entry)) throw new TypeError("A global is no list");
  const [name, type, text] = entry as unknown[];
  if (typeof name !== "string" || typeof text !== "string") throw new TypeError("It has no name");
  if (type === "bigint") return [name, BigInt(text)];
  if (type === "number") return [name, Number(text)];
  throw new TypeError(`A global cannot be a ${type}`);
}

function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch (cause) {
    throw new UsageError(`Cannot move the state: ${(cause as Error).message}`, { cause });
  }
}

function textOf(value: GlobalValue): string {
  return Object.is(value, -0) ? "-0" : `${value}`;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
