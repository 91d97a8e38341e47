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

/** See the module. */
export class ProgramRequests implements SeededProgram {
  readonly #send: (message: HostMessage) => void;
  readonly #pushMemory: () => Promise<void>;
  readonly #handover: HandoverBook | undefined;
  readonly #pending = new Map<number, PromiseWithResolvers<void>>();
  #nextAsk = 1;

  /**
   * Asks by messages; `pushMemory` brings memory that this Worker pages in to the region, of whose
   * owner `handover` is the record, if it has one.
   */
  constructor(
    send: (message: HostMessage) => void,
    pushMemory: () => Promise<void>,
    handover: HandoverBook | undefined,
  ) {
    this.#send = send;
    this.#pushMemory = pushMemory;
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
    await this.#pushMemory();
    await this.#ask("flush");
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
