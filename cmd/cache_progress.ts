/**
 * Shows how far the cache of a managed mount is: a line on standard error that is written anew, or
 * events for scripts.
 *
 * @module
 */
import { type CacheProgress, formatSize, type ManagedMount, type ProfileCounts } from "../mod.ts";

/** Ms between looks. */
const INTERVAL = 1000;
const ERASE_LINE = "\r\x1b[K";

/** Tells of the cache whenever something about it has changed, until it is disposed of. */
export class CacheProgressTeller implements Disposable {
  readonly #mount: ManagedMount;
  readonly #tell: (progress: CacheProgress) => void;
  readonly #shows: boolean;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #told = "";
  #over = false;

  /** With `json` by events on standard output, otherwise by a line, where a person sees that. */
  constructor(mount: ManagedMount, { json }: { json: boolean }) {
    this.#mount = mount;
    this.#shows = !json && Deno.stderr.isTerminal();
    this.#tell = json ? tellEvent : this.#shows ? tellLine : () => {};
    this.#look();
  }

  /** Tells no more, and ends the line. */
  [Symbol.dispose](): void {
    this.#over = true;
    clearTimeout(this.#timer);
    if (this.#shows) write(ERASE_LINE);
  }

  #look(): void {
    this.#timer = setTimeout(async () => {
      const progress = await this.#mount.progress().catch(() => undefined);
      if (this.#over || progress === undefined) return;
      const { localBytes, dirtyBytes, profile } = progress;
      const state = `${localBytes} ${dirtyBytes} ${profile?.used} ${profile?.missed}`;
      if (state !== this.#told) this.#tell(progress);
      this.#told = state;
      this.#look();
    }, INTERVAL);
  }
}

function tellEvent(progress: CacheProgress): void {
  console.log(JSON.stringify({ event: "progress", ...progress }));
}

function tellLine(progress: CacheProgress): void {
  write(`${ERASE_LINE}${cacheLine(progress)}`);
}

function write(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}

/** The line for a state, e.g. `local 42%  dirty 1536KiB  96 MiB/s  round trip 25 ms`. */
export function cacheLine(progress: CacheProgress): string {
  const { size, localBytes, dirtyBytes, rate, latency, profile } = progress;
  const parts = [
    `local ${Math.floor(localBytes / size * 100)}%`,
    `dirty ${formatSize(dirtyBytes)}`,
  ];
  if (rate > 0) parts.push(`${(rate / 2 ** 20).toFixed(0)} MiB/s`);
  if (latency > 0) parts.push(`round trip ${latency.toFixed(latency < 10 ? 1 : 0)} ms`);
  if (profile !== undefined && profile.expected > 0) {
    parts.push(`profile ${profile.used} of ${profile.expected} used, ${profile.missed} missed`);
  }
  return parts.join("  ");
}

/** What is told in the end of a profile that was used and recorded. */
export function profileLine({ expected, used, wasted, missed }: ProfileCounts): string {
  if (expected === 0) return `Profile: ${missed} chunks recorded`;
  return `Profile: ${used} of ${expected} chunks used, ${wasted} wasted, ${missed} missed`;
}
