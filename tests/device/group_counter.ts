/**
 * A program that counts in all parts of a group, one after the other: step after step, a page of the
 * first part gets the number of the step, then one of the second, and so on (`migration_pages.ts`).
 *
 * @module
 */
import type { Mount } from "../../mod.ts";
import { leftAfterCrash, PAGE, pagesOf, stepOf } from "./migration_pages.ts";

/** See the module. */
export class GroupCounter {
  /** The last step that is in all of the parts. */
  step = 0;
  readonly #mounts: readonly Mount[];
  /** The parts that a step is still to be written to. */
  #left: Mount[] = [];
  #isStopped = false;
  #over: Promise<void> = Promise.resolve();

  /** Counts in those, in that order, from a step. */
  constructor(mounts: Iterable<Mount>, { step = 0 } = {}) {
    this.#mounts = [...mounts];
    this.step = step;
  }

  /** Goes on, for so many steps at most. Settles with what a write threw that ended it. */
  go(steps = Infinity): Promise<void> {
    this.#isStopped = false;
    return this.#over = this.#run(this.step + steps);
  }

  /** Stops wherever it is, also between two parts. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#over;
  }

  async #run(end: number): Promise<void> {
    for (; this.step < end; this.step++) {
      if (this.#left.length === 0) this.#left = [...this.#mounts];
      while (this.#left.length > 0) {
        if (this.#isStopped) return;
        await writeStep(this.#left[0]!, this.step + 1);
        this.#left.shift();
      }
    }
  }
}

async function writeStep(mount: Mount, step: number): Promise<void> {
  const page = new Uint8Array(PAGE);
  new DataView(page.buffer).setUint32(0, step, true);
  const offset = step * PAGE % mount.size;
  if (isSlice(mount)) {
    mount.bytes.set(page, offset);
    // A turn, so that there is a moment to be stopped in.
    return await new Promise((resolve) => setTimeout(resolve, 0));
  }
  await mount.file.seek(offset, Deno.SeekMode.Start);
  await mount.file.write(page);
}

/** The last step in each of the parts. Throws where one holds pages of no moment. */
export async function stepsOf(mounts: Iterable<Mount>): Promise<number[]> {
  const steps: number[] = [];
  for (const mount of mounts) steps.push(stepOf(await contentOf(mount)));
  return steps;
}

/**
 * Brings parts that a crash has left anywhere after the step that was `kept` to the last step that is
 * in any of them, and answers that.
 */
export async function mendParts(mounts: Iterable<Mount>, kept: number): Promise<number> {
  const parts = [...mounts], contents = await Promise.all(parts.map(contentOf));
  const last = Math.max(...contents.map((content) => leftAfterCrash(content, kept).step));
  for (const [index, content] of contents.entries()) {
    const mount = parts[index]!;
    for (const { found, expected } of pagesOf(content, last)) {
      if (found !== expected) await writeStep(mount, expected);
    }
  }
  return last;
}

/** Throws unless those are the steps of one moment of a {@linkcode GroupCounter}. */
export function checkMoment(steps: readonly number[]): void {
  const [first = 0] = steps, last = steps.at(-1)!;
  const falls = steps.every((step, index) => index === 0 || step <= steps[index - 1]!);
  if (!falls || last < first - 1) {
    throw new Error(`The steps are of no moment: ${steps.join(", ")}`);
  }
}

async function contentOf(mount: Mount): Promise<Uint8Array> {
  if (isSlice(mount)) return mount.bytes.slice();
  const content = new Uint8Array(mount.size);
  await mount.file.seek(0, Deno.SeekMode.Start);
  for (let done = 0; done < content.length;) {
    done += (await mount.file.read(content.subarray(done)))!;
  }
  return content;
}

function isSlice(mount: Mount): boolean {
  return mount.device === "userfault";
}
