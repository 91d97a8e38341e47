/**
 * Pieces of what was written last at a source, for a leecher that asked for them before the program
 * was suspended (`last_set.ts`): read one after the other, behind what is sent already.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import type { Backend } from "../backend/backend.ts";
import type { RangeList } from "../backend/range_list.ts";
import { encodePiece } from "./message_codec.ts";
import { PieceRooms } from "./piece_rooms.ts";
import { pieceOf } from "./pieces.ts";

/** See the module. */
export class LastPieces {
  readonly #region: Pick<Backend, "readAt">;
  readonly #rooms = new PieceRooms();
  #reading: Promise<unknown> = Promise.resolve();

  /** Reads from that region. */
  constructor(region: Pick<Backend, "readAt">) {
    this.#region = region;
  }

  /** Memory for a piece that is to come. */
  room(): Uint8Array<ArrayBuffer> {
    return this.#rooms.take();
  }

  /** The message with piece `index` of these ranges, in that memory. */
  async read(index: number, ranges: RangeList, room: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
    const piece = this.#reading.then(async () => {
      await new Promise<void>((resolve) => setImmediate(resolve));
      return await this.#read(index, ranges, room);
    });
    this.#reading = piece.catch(() => {});
    return await piece;
  }

  async #read(
    index: number,
    ranges: RangeList,
    room: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array> {
    const parts = pieceOf(ranges, index);
    const length = parts.reduce((sum, { length }) => sum + length, 0);
    const { message, content } = encodePiece(index, length, room);
    let at = 0;
    for (const { offset, length } of parts) {
      await this.#region.readAt(content.subarray(at, at + length), offset);
      at += length;
    }
    return message;
  }
}
