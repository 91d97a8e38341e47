/**
 * Files with the boxes of an MP4 whose index is at the end, as cameras write them: `ftyp`, `mdat` with
 * the frames, `moov` with where they are. Frames are bytes of a pattern, so that they can be checked.
 *
 * @module
 */
import { Pattern } from "../../mod.ts";

/** What there is of a movie. */
export interface Movie {
  /** Frames. */
  frames: number;
  /** Bytes of each. */
  frameBytes: number;
}

/** Where a frame is. */
export interface Frame {
  /** Offset of its first byte. */
  offset: number;
  /** Bytes. */
  length: number;
}

/** Reads bytes of a file; fills the buffer. */
export type ReadAt = (buffer: Uint8Array<ArrayBuffer>, offset: number) => void;

const HEADER_BYTES = 16;
/** Boxes that hold boxes, on the way to the index of frames. */
const PARENTS = ["trak", "mdia", "minf", "stbl"];

/** Writes a movie. */
export async function writeMovie(path: string, { frames, frameBytes }: Movie): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const type = box("ftyp", text("isom"), u32(512), text("isommp42"));
  await writeAll(file, type);
  await writeAll(file, join(u32(1), text("mdat"), u64(HEADER_BYTES + frames * frameBytes)));
  const first = type.length + HEADER_BYTES;
  const pattern = new Pattern(), frame = new Uint8Array(frameBytes);
  const offsets: Uint8Array[] = [];
  for (let index = 0; index < frames; index++) {
    const offset = first + index * frameBytes;
    pattern.fill(frame, offset);
    await writeAll(file, frame);
    offsets.push(u64(offset));
  }
  const sizes = box("stsz", u32(0), u32(frameBytes), u32(frames));
  const index = box("stbl", sizes, box("co64", u32(0), u32(frames), ...offsets));
  const track = box("trak", box("mdia", box("minf", index)));
  await writeAll(file, box("moov", box("mvhd", new Uint8Array(100)), track));
}

/** Finds the frames, as a player does: box after box up to the index, wherever that is. */
export function findFrames(readAt: ReadAt, size: number): Frame[] {
  const header = new Uint8Array(HEADER_BYTES);
  for (let at = 0; at + HEADER_BYTES <= size;) {
    readAt(header, at);
    const { type, length } = parseHeader(header);
    if (length < 8 || at + length > size) throw new Error(`A box at ${at} does not fit`);
    if (type === "moov") {
      const content = new Uint8Array(length - 8);
      readAt(content, at + 8);
      return readIndex(content);
    }
    at += length;
  }
  throw new Error("The file has no moov");
}

/** Whether bytes are those of the frame. */
export function isFrame(bytes: Uint8Array<ArrayBuffer>, { offset }: Frame): boolean {
  const expected = new Uint8Array(bytes.length);
  new Pattern().fill(expected, offset);
  return expected.every((byte, at) => byte === bytes[at]);
}

function readIndex(content: Uint8Array<ArrayBuffer>): Frame[] {
  const boxes = new Map<string, DataView>();
  collect(content, boxes);
  const sizes = boxes.get("stsz"), offsets = boxes.get("co64");
  if (sizes === undefined || offsets === undefined) throw new Error("moov has no index of frames");
  const length = sizes.getUint32(4);
  return Array.from({ length: offsets.getUint32(4) }, (_, index) => ({
    offset: Number(offsets.getBigUint64(8 + 8 * index)),
    length,
  }));
}

function collect(content: Uint8Array<ArrayBuffer>, boxes: Map<string, DataView>): void {
  for (let at = 0; at + 8 <= content.length;) {
    const { type, length } = parseHeader(content.subarray(at));
    if (length < 8) throw new Error(`The box ${type} is too short`);
    const inner = content.subarray(at + 8, at + length);
    if (PARENTS.includes(type)) collect(inner, boxes);
    else boxes.set(type, new DataView(inner.buffer, inner.byteOffset, inner.length));
    at += length;
  }
}

function parseHeader(bytes: Uint8Array<ArrayBuffer>): { type: string; length: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const length = view.getUint32(0), type = new TextDecoder().decode(bytes.subarray(4, 8));
  return { type, length: length === 1 ? Number(view.getBigUint64(8)) : length };
}

function box(type: string, ...contents: Uint8Array[]): Uint8Array {
  const content = join(...contents);
  return join(u32(content.length + 8), text(type), content);
}

function text(characters: string): Uint8Array {
  return new TextEncoder().encode(characters);
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

function u64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}

function join(...parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}
