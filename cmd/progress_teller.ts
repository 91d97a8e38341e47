/**
 * Shows how far something is that goes on for long: a line on standard error that is written anew, or
 * events for scripts.
 *
 * @module
 */

/** What is told of, as it is at one moment. */
export interface Progress<T> {
  /** Looks at it. Where that fails, nothing more is told. */
  look(): Promise<T>;
  /** What about it has to change for it to be told again. */
  mark(now: T): string;
  /** The line; `before` is what was found at the last look, so many ms ago. */
  line(now: T, before: { found: T; ms: number } | undefined): string;
}

/** Ms between looks. */
const INTERVAL = 1000;
const ERASE_LINE = "\r\x1b[K";

/** Tells of something whenever it has changed, until it is disposed of. */
export class ProgressTeller<T extends object> implements Disposable {
  /** Whether a person sees the line. */
  readonly shows: boolean;
  readonly #progress: Progress<T>;
  readonly #json: boolean;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #before: { found: T; at: number } | undefined;
  #told = "";
  #over = false;

  /** With `json` by events on standard output, otherwise by a line, where a person sees that. */
  constructor(progress: Progress<T>, { json }: { json: boolean }) {
    this.#progress = progress;
    this.#json = json;
    this.shows = !json && Deno.stderr.isTerminal();
    if (json || this.shows) this.#lookLater();
  }

  /** Takes the line away for now, as others have something to print. */
  clear(): void {
    if (this.shows) write(ERASE_LINE);
  }

  /** Tells no more, and ends the line. */
  [Symbol.dispose](): void {
    this.#over = true;
    clearTimeout(this.#timer);
    this.clear();
  }

  #lookLater(): void {
    this.#timer = setTimeout(() => this.#look(), INTERVAL);
  }

  async #look(): Promise<void> {
    const found = await this.#progress.look().catch(() => undefined);
    if (this.#over || found === undefined) return;
    const at = performance.now(), mark = this.#progress.mark(found);
    if (mark !== this.#told) this.#tell(found, at);
    this.#told = mark;
    this.#before = { found, at };
    this.#lookLater();
  }

  #tell(found: T, at: number): void {
    if (this.#json) return console.log(JSON.stringify({ event: "progress", ...found }));
    const before = this.#before && { found: this.#before.found, ms: at - this.#before.at };
    write(`${ERASE_LINE}${this.#progress.line(found, before)}`);
  }
}

function write(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}
