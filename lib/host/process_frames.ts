/**
 * Messages between a process and the one that hosts a backend for it, in a stream of bytes: the
 * length of each, and the value as V8 serializes it. Both ends are of one program, and trust each other.
 *
 * @module
 */
import { deserialize, serialize } from "node:v8";
import { Buffer } from "node:buffer";

const LENGTH_BYTES = 4;

/** A value as it goes into the stream. */
export function encodeFrame(value: unknown): Uint8Array<ArrayBuffer> {
  const payload = serialize(value);
  const frame = new Uint8Array(LENGTH_BYTES + payload.length);
  new DataView(frame.buffer).setUint32(0, payload.length, true);
  frame.set(payload, LENGTH_BYTES);
  return frame;
}

/** The values of a stream, one by one; what is cut off at its end is left out. */
export async function* decodeFrames(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<unknown> {
  let rest = new Uint8Array(0);
  for await (const piece of stream) {
    const bytes = new Uint8Array(rest.length + piece.length);
    bytes.set(rest);
    bytes.set(piece, rest.length);
    const view = new DataView(bytes.buffer);
    let at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const end = at + LENGTH_BYTES + view.getUint32(at, true);
      if (end > bytes.length) break;
      yield deserialize(Buffer.from(bytes.subarray(at + LENGTH_BYTES, end)));
      at = end;
    }
    rest = bytes.slice(at);
  }
}
