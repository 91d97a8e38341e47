/**
 * The records of who owns the parts of a group, as the one record that the group has.
 *
 * The first one decides, and is written last. So when the group is given, no part of it can be opened
 * any more to be written; and where the process ended before, it was not given, and whoever opens the
 * same group again has all of its parts owned again. The others tell by the peer which group it is.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { FencedError } from "./errors.ts";
import type { HandoverFile } from "./handover_file.ts";
import { type HandoverRecord, NOBODY } from "./handover_record.ts";

/** A record, or several as one. */
export type HandoverBook = Pick<HandoverFile, "record" | "write" | "close">;

/** How the peer of a record begins that is about a group. */
export const GROUP_PEER = "group:";
const ID_DIGITS = 32;

/** See the module. */
export class HandoverGroup implements HandoverBook {
  readonly #first: HandoverFile;
  readonly #others: readonly HandoverFile[];
  readonly #peer: string;

  /**
   * Over the locked records of all parts that have one, which belong to it; makes the others what the
   * first one decided, where the process ended before they were.
   *
   * @throws {FencedError} a part was given away, and not with all of this group.
   */
  constructor(first: HandoverFile, others: readonly HandoverFile[]) {
    this.#first = first;
    this.#others = others;
    const paths = [first, ...others].map(({ path }) => path).join("\n");
    const id = createHash("sha256").update(paths).digest("hex").slice(0, ID_DIGITS);
    this.#peer = `${GROUP_PEER}${id}`;
    const decided = first.record;
    for (const file of others) this.#check(file, decided);
    for (const file of others) this.#settle(file, decided);
  }

  /** What holds for all of them. Throws as `HandoverFile.record` does. */
  get record(): HandoverRecord {
    const record = this.#first.record;
    const epochs = this.#others.map(({ record }) => record.epoch);
    return { ...record, epoch: Math.max(record.epoch, ...epochs) };
  }

  /** Records something of all of them, durably. May be called again where it throws. */
  write(record: Parameters<HandoverFile["write"]>[0]): void {
    const all = { ...record, peer: this.#peer };
    for (const file of this.#others) file.write(all);
    this.#first.write(all);
  }

  /** Lets others have them. */
  close(): void {
    for (const file of [this.#first, ...this.#others]) file.close();
  }

  /** Throws unless a record is one that this group may have left beside what was decided. */
  #check({ path, record }: HandoverFile, decided: HandoverRecord): void {
    const isOurs = record.peer === this.#peer;
    const agrees = decided.state === "owner"
      ? record.state === "owner" || isOurs && record.epoch > decided.epoch
      : isOurs && record.epoch === decided.epoch && record.leech === decided.leech;
    if (agrees) return;
    throw new FencedError("Cannot use a group of which not all was given away together", {
      hint: `telemap migrate status tells of each part; ${path} differs from ${this.#first.path}`,
    });
  }

  #settle(file: HandoverFile, decided: HandoverRecord): void {
    const { state, epoch } = file.record;
    if (state === decided.state) return;
    // An epoch that was not given away is burnt.
    if (decided.state === "owner") file.write({ state: "owner", epoch, leech: NOBODY, peer: "" });
    else file.write(decided);
  }
}
