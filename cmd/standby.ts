/**
 * Warm standbys: a `telemap leech --follow` that keeps up with its source until `telemap migrate
 * promote` has it take over, by a signal.
 *
 * @module
 */
import { type Leeching, type MigrationMetrics, TelemapError } from "../mod.ts";

/** What a standby is told by which signal. The runtime takes SIGUSR1 for itself. */
const SIGNALS = [
  { name: "SIGUSR2", number: 12, sourceIsDead: false },
  { name: "SIGPWR", number: 30, sourceIsDead: true },
] as const;

/** How a standby is to take over. */
export interface Promotion {
  /** Whether the source is not to be asked, as it will never come back. */
  readonly sourceIsDead: boolean;
}

/** Listens for promotions from its making on; one that nobody waits for yet is kept. */
export class Promotions implements Disposable {
  /** Settles when it was told that the source is dead. */
  readonly sourceIsDead: Promise<void>;
  #next = Promise.withResolvers<Promotion>();
  readonly #handlers: readonly { name: Deno.Signal; handler: () => void }[];

  constructor() {
    const dead = Promise.withResolvers<void>();
    this.sourceIsDead = dead.promise;
    this.#handlers = SIGNALS.map(({ name, sourceIsDead }) => ({
      name,
      handler: () => {
        if (sourceIsDead) dead.resolve();
        this.#next.resolve({ sourceIsDead });
      },
    }));
    for (const { name, handler } of this.#handlers) Deno.addSignalListener(name, handler);
  }

  /** The next one, which stays that until it is taken. */
  next(): Promise<Promotion> {
    return this.#next.promise;
  }

  /** The next one, once. */
  async take(): Promise<Promotion> {
    const promotion = await this.#next.promise;
    this.#next = Promise.withResolvers();
    return promotion;
  }

  /** Listens no more. */
  [Symbol.dispose](): void {
    for (const { name, handler } of this.#handlers) Deno.removeSignalListener(name, handler);
  }
}

/** Has a standby in another process take over. Throws where that process is none. */
export function promoteProcess(pid: number, { sourceIsDead }: Promotion): void {
  const signal = SIGNALS.find((each) => each.sourceIsDead === sourceIsDead)!;
  // Whoever does not listen would be ended by it.
  if (!listensFor(pid, signal.number)) {
    throw new TelemapError("EBUSY", `Cannot promote process ${pid}: it is no standby`, {
      hint: "only a telemap leech --follow can be promoted; end the process, or wait for it",
    });
  }
  Deno.kill(pid, signal.name);
}

function listensFor(pid: number, signal: number): boolean {
  try {
    const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`));
    return (BigInt(`0x${caught?.[1] ?? "0"}`) >> BigInt(signal - 1) & 1n) === 1n;
  } catch {
    return false;
  }
}

/**
 * Follows with a round every so many ms, and tells how far it is behind as often, until a promotion
 * comes. Throws what following throws.
 */
export async function standBy(
  leecher: Leeching<unknown>,
  interval: number,
  promotions: Promotions,
  tell: (metrics: MigrationMetrics) => void,
): Promise<Promotion> {
  const promoted = promotions.take();
  const failed = leecher.follow({ interval }).then(() => new Promise<never>(() => {}));
  failed.catch(() => {});
  const timer = setInterval(async () => {
    const metrics = await leecher.progress().catch(() => undefined);
    if (metrics !== undefined) tell(metrics);
  }, Math.max(interval, 100));
  try {
    return await Promise.race([promoted, failed]);
  } finally {
    clearInterval(timer);
  }
}
