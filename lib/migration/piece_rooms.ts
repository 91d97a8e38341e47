/**
 * Memory for messages with a piece of what was written last. The kernel has given it by the time that
 * it is needed, as the program stands still then.
 *
 * @module
 */
import { Slabs } from "../chunk/slabs.ts";
import { PIECE_BYTES } from "./message_codec.ts";

const PAGE = 4096;

/** See the module. */
export class PieceRooms {
  readonly #slabs = new Slabs(PIECE_BYTES);
  readonly #ready: Uint8Array<ArrayBuffer>[] = [];

  /** Has so many at hand. */
  prepare(count: number): void {
    while (this.#ready.length < count) this.#ready.push(this.#make());
  }

  /** Room for a piece, for good: it is not known when a connection is done with it. */
  take(): Uint8Array<ArrayBuffer> {
    return this.#ready.pop() ?? this.#make();
  }

  #make(): Uint8Array<ArrayBuffer> {
    const room = this.#slabs.take();
    for (let at = 0; at < room.length; at += PAGE) room[at] = 0;
    return room;
  }
}
