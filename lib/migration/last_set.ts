/**
 * What was written last before a handover, on its way here: it is asked for piece by piece before it is
 * known what that is, as far as it arrives before anything else could; the rest is read once it is known.
 *
 * @module
 */
import { ProtocolError } from "../backend/errors.ts";
import type { ByteRange, RangeList } from "../backend/range_list.ts";
import type { LeechedRegion } from "./leeched_region.ts";
import { MESSAGE_LIMIT } from "./messages.ts";
import { PieceRooms } from "./piece_rooms.ts";
import { countPieces, pieceOf, rangesBehind } from "./pieces.ts";
import type { SeederClient } from "./seeder_client.ts";

/** Pieces that are asked for ahead at most, as a server has no more of them in hand. */
const PIECES_MOST = 32;
/**
 * Bytes in flight of the rest, at least and at most, and so many times what the link carries in a round
 * trip: nobody waits for anything else, and who does not get his core for some ms shall not run dry.
 */
const READ_BYTES = { LEAST: 16 << 20, MOST: 32 << 20, TRIPS: 4 } as const;

/** What is known of the link: its rate in bytes a ms, and its round trip in ms. */
export interface Link {
  rate: number;
  roundTrip: number;
}

/** See the module. */
export class LastSet {
  readonly #client: SeederClient;
  readonly #copy: LeechedRegion;
  /** Pieces of the latest round: the last set is expected to have about as many. */
  #expected = 1;
  readonly #rooms = new PieceRooms();
  #ahead: { epoch: number; pieces: Promise<Uint8Array>[] } | undefined;
  /** Bytes that the link carries in a round trip. */
  #carried = 0;

  /** Nothing is expected yet. */
  constructor(client: SeederClient, copy: LeechedRegion) {
    this.#client = client;
    this.#copy = copy;
  }

  /** These were written in the latest round. */
  expect(ranges: RangeList): void {
    if (ranges.count > 0) this.#expected = countPieces(ranges);
  }

  /** Is ready for what will be asked for ahead over such a link, as the program runs still. */
  prepare(link: Link): void {
    this.#rooms.prepare(countArriving(link));
  }

  /**
   * Asks for pieces of what will be offered under an epoch; those that are too many are empty.
   */
  askAhead(epoch: number, link: Link): void {
    if (this.#ahead?.epoch === epoch) return;
    this.#carried = bytesOnTheWay(link);
    const count = Math.min(countArriving(link), 2 * this.#expected + 2);
    const asked = Array.from({ length: count }, async (_, index) => {
      return (await this.#client.last({ epoch, index }, { room: this.#rooms.take() })).content;
    });
    // Where the offer fails, so do they.
    for (const piece of asked) piece.catch(() => {});
    this.#ahead = { epoch, pieces: asked };
  }

  /** Answers when all of what is offered is here, but for what a lost connection has cost. */
  async bring(ranges: RangeList): Promise<void> {
    const pieces = (this.#ahead?.pieces ?? []).slice(0, countPieces(ranges));
    const rest = rangesBehind(ranges, pieces.length);
    const { LEAST, MOST, TRIPS } = READ_BYTES;
    const bytes = Math.min(Math.max(TRIPS * this.#carried, LEAST), MOST);
    const reading = this.#copy.bring(rest, bytes).catch(() => {});
    try {
      for (const [index, piece] of pieces.entries()) {
        const content = await piece.catch(() => undefined);
        if (content === undefined) break;
        await this.#store(pieceOf(ranges, index), content);
      }
    } finally {
      // What arrived once the program goes on at the source would be out of date.
      await reading;
    }
  }

  async #store(parts: readonly ByteRange[], content: Uint8Array): Promise<void> {
    let at = 0;
    for (const { offset, length } of parts) {
      await this.#copy.store(offset, content.subarray(at, at + length));
      at += length;
    }
    if (at !== content.length) {
      throw new ProtocolError(`Cannot use a piece of ${content.length} bytes instead of ${at}`);
    }
  }
}

function bytesOnTheWay({ rate, roundTrip }: Link): number {
  return rate * roundTrip;
}

/** What is read comes more quickly, but takes a round trip and some time to get going. */
function countArriving(link: Link): number {
  return Math.min(Math.ceil(bytesOnTheWay(link) / MESSAGE_LIMIT.PIECE) + 1, PIECES_MOST);
}
