/**
 * What a seeder in a host Worker asks of the program whose region it has, in the isolate that started
 * the Worker.
 *
 * @module
 */
import type { HandoverBook } from "../backend/handover_group.ts";
import type { Offer } from "../migration/source_handover.ts";
import type { SeededProgram, SeederStage } from "../migration/seeder_core.ts";
import type { HostMessage, ProgramRequest } from "./protocol.ts";
import { type PortableError, unpackError } from "./remote_error.ts";

/** How what the program wrote gets to the region. */
export interface Flushing {
  /** Whether the program has to do something for that. */
  readonly flushes: boolean;
  /** Brings memory that this Worker pages in to the region. */
  readonly pushMemory: () => Promise<void>;
}

/** See the module. */
export class ProgramRequests implements SeededProgram {
  readonly #send: (message: HostMessage) => void;
  readonly #flushing: Flushing;
  readonly #handover: HandoverBook | undefined;
  readonly #pending = new Map<number, PromiseWithResolvers<void>>();
  #nextAsk = 1;

  /** Asks by messages; `handover` is the record of the region's owner, if it has one. */
  constructor(
    send: (message: HostMessage) => void,
    flushing: Flushing,
    handover: HandoverBook | undefined,
  ) {
    this.#send = send;
    this.#flushing = flushing;
    this.#handover = handover;
  }

  /** What was asked for is done, or failed. */
  did(ask: number, error: PortableError | undefined): void {
    const pending = this.#pending.get(ask);
    this.#pending.delete(ask);
    if (error === undefined) pending?.resolve();
    else pending?.reject(unpackError(error));
  }

  async flush(): Promise<void> {
    const { flushes, pushMemory } = this.#flushing;
    if (flushes) await this.#ask("flush");
    // Last, as the program may have written to it just now.
    await pushMemory();
  }

  suspend(): Promise<void> {
    return this.#ask("suspend");
  }

  resume(): Promise<void> {
    return this.#ask("resume");
  }

  throttle(rate: number): Promise<void> {
    return this.#ask("throttle", rate === Infinity ? undefined : rate);
  }

  record(state: "given" | "released", { leech, epoch }: Offer): void {
    this.#handover?.write({ state, epoch, leech, peer: "" });
  }

  onStage(stage: SeederStage): void {
    this.#send({ event: "seeder", stage });
  }

  #ask(what: ProgramRequest, rate?: number): Promise<void> {
    const ask = this.#nextAsk++;
    const pending = Promise.withResolvers<void>();
    this.#pending.set(ask, pending);
    this.#send({ event: "ask", ask, what, ...(rate !== undefined && { rate }) });
    return pending.promise;
  }
}
