/**
 * Access profiles: files that tell in which order a region's bytes were read for the first time, so
 * that they can be pulled in that order the next time.
 *
 * A profile is a text. Its first line is `telemap-profile 1 UNIT`; each other one is a range, as
 * `FIRST+COUNT` in units of UNIT bytes, or `FIRST` where the count is 1. It is a hint: what lies
 * outside a region that has become smaller is left out.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";
import type { ByteRange } from "../backend/range_list.ts";
import { PROFILE_RANGES } from "./access_recorder.ts";

const HEADER = /^telemap-profile ([0-9]{1,9}) ([0-9]{1,9})$/;
const RANGE = /^([0-9]{1,16})(?:\+([0-9]{1,16}))?$/;
const VERSION = 1;
/** Bytes of the longest line. */
const LINE_BYTES = 36;
const FILE_BYTES = PROFILE_RANGES * LINE_BYTES;

/** The text of a profile; each range begins and ends at a multiple of `unit` bytes. */
export function formatProfile(ranges: Iterable<ByteRange>, unit: number): string {
  const lines = [`telemap-profile ${VERSION} ${unit}`];
  for (const { offset, length } of ranges) {
    const count = Math.ceil(length / unit);
    lines.push(count === 1 ? `${offset / unit}` : `${offset / unit}+${count}`);
  }
  return lines.join("\n") + "\n";
}

/**
 * The ranges of a profile that lie in a region of `size` bytes, in order. Throws
 * {@linkcode UsageError} where the text, called `name` in the message, is no profile.
 */
export function parseProfile(text: string, size: number, name = "the profile"): ByteRange[] {
  const lines = text.split("\n", PROFILE_RANGES + 2);
  const header = HEADER.exec(lines[0] ?? "");
  const unit = Number(header?.[2]);
  if (header === null || unit < 1) throw unreadable(name, "it does not begin as one");
  if (Number(header[1]) !== VERSION) {
    throw unreadable(name, `it has version ${header[1]}, and ${VERSION} is the one known`);
  }
  if (lines.at(-1) === "") lines.pop();
  if (lines.length > PROFILE_RANGES + 1) throw unreadable(name, "it has too many ranges");
  const ranges: ByteRange[] = [];
  for (const [index, line] of lines.entries()) {
    if (index === 0) continue;
    const match = RANGE.exec(line);
    if (match === null) throw unreadable(name, `line ${index + 1} is no range`);
    const offset = Number(match[1]) * unit;
    const end = Math.min(offset + Number(match[2] ?? 1) * unit, size);
    if (offset < end) ranges.push({ offset, length: end - offset });
  }
  return ranges;
}

/**
 * Reads a profile for a region of `size` bytes; undefined where there is no such file. Throws
 * {@linkcode UsageError} where it cannot be read as one.
 */
export async function readProfile(path: string, size: number): Promise<ByteRange[] | undefined> {
  const content = await readContent(path);
  return content && parseProfile(new TextDecoder().decode(content), size, path);
}

async function readContent(path: string): Promise<Uint8Array | undefined> {
  try {
    const { size, isFile } = await Deno.stat(path);
    if (!isFile) throw unreadable(path, "it is no file");
    if (size > FILE_BYTES) throw unreadable(path, "it is too large");
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    if (error instanceof UsageError) throw error;
    throw new UsageError(`Cannot read ${path} as an access profile: ${messageOf(error)}`);
  }
}

/** Writes a profile, in place of the one that is there only once it is whole and on its disk. */
export async function writeProfile(
  path: string,
  ranges: Iterable<ByteRange>,
  unit: number,
): Promise<void> {
  const text = new TextEncoder().encode(formatProfile(ranges, unit));
  await withDraft(path, async (draft, file) => {
    for (let at = 0; at < text.length;) at += await file.write(text.subarray(at));
    await file.sync();
    await Deno.rename(draft, path);
  });
}

/** Throws {@linkcode UsageError} where a profile could not be written. */
export async function checkWritable(path: string): Promise<void> {
  try {
    await withDraft(path, (draft) => Deno.remove(draft));
  } catch (error) {
    throw new UsageError(`Cannot record an access profile in ${path}: ${messageOf(error)}`, {
      hint: "give a path in a directory that can be written",
    });
  }
}

/** Uses a new file beside `path`, which is gone afterwards, or has another name by then. */
async function withDraft(
  path: string,
  use: (draft: string, file: Deno.FsFile) => Promise<void>,
): Promise<void> {
  const draft = `${path}.${crypto.randomUUID()}`;
  using file = await Deno.open(draft, { write: true, createNew: true });
  try {
    await use(draft, file);
  } catch (error) {
    await Deno.remove(draft).catch(() => {});
    throw error;
  }
}

function unreadable(name: string, why: string): UsageError {
  return new UsageError(`Cannot read ${name} as an access profile: ${why}`, {
    hint: "remove it, and it is recorded anew",
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
