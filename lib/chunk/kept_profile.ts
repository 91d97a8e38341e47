/**
 * The access profile of a region in a file: what it tells of when the region is opened, and what
 * takes its place in the end.
 *
 * @module
 */
import { errorCode, TelemapError } from "../backend/errors.ts";
import type { ByteRange } from "../backend/range_list.ts";
import { checkWritable, readProfile, writeProfile } from "./access_profile.ts";
import { AccessRecorder, type ProfileCounts } from "./access_recorder.ts";
import { countChunks } from "./chunk_states.ts";

/** See the module. */
export class KeptProfile {
  readonly #path: string;
  readonly #chunkSize: number;
  readonly #recorder: AccessRecorder;

  /**
   * Reads the file, if it is there, for a region of `size` bytes in chunks of another size or the
   * same.
   *
   * @throws {UsageError} it is no profile, or could not be written in the end.
   */
  static async open(path: string, size: number, chunkSize: number): Promise<KeptProfile> {
    // The directory of the process may be another one by the end.
    const absolute = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
    const expected = await readProfile(absolute, size);
    await checkWritable(absolute);
    const layout = { count: countChunks(size, chunkSize), chunkSize };
    return new KeptProfile(absolute, chunkSize, new AccessRecorder(layout, expected));
  }

  private constructor(path: string, chunkSize: number, recorder: AccessRecorder) {
    this.#path = path;
    this.#chunkSize = chunkSize;
    this.#recorder = recorder;
  }

  /** What the file told of, in order. */
  get expected(): Iterable<ByteRange> {
    return this.#recorder.expected();
  }

  /** How far it was right so far. */
  get counts(): ProfileCounts {
    return this.#recorder.counts;
  }

  /** Chunks `[from, to)` are read. */
  touch(from: number, to: number): void {
    this.#recorder.touch(from, to);
  }

  /**
   * Writes what was read; where that is nothing, the file stays as it is.
   *
   * @throws {TelemapError} it cannot be written; the file is what it was before.
   */
  async save(): Promise<void> {
    const { used, missed } = this.counts;
    if (used + missed === 0) return;
    try {
      await writeProfile(this.#path, this.#recorder.next(), this.#chunkSize);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new TelemapError(
        errorCode(error),
        `Cannot write the access profile ${this.#path}: ${why}`,
        { cause: error },
      );
    }
  }
}
