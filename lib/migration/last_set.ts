/**
 * What was written last before a handover, on its way here: as much as arrives before anything else
 * could is asked for before it is known what that is; the rest is pulled.
 *
 * @module
 */
import type { ByteRange, RangeList } from "../backend/range_list.ts";
import type { LeechedRegion } from "./leeched_region.ts";
import { countPieces, rangesBehind } from "./pieces.ts";
import type { SeederClient } from "./seeder_client.ts";

/** Pieces that are asked for ahead at most, as a server has no more of them in hand, and their bytes. */
const PIECES_MOST = 32, PIECE_BYTES = 1 << 20;

/** See the module. */
export class LastSet {
  readonly #client: SeederClient;
  readonly #copy: LeechedRegion;
  /** Pieces of the latest round and their bytes: the last set is expected to have about as many. */
  #expected = { pieces: 1, bytes: PIECE_BYTES };
  #ahead: { epoch: number; pieces: Promise<{ offset: number; content: Uint8Array }>[] } | undefined;

  /** Nothing is expected yet. */
  constructor(client: SeederClient, copy: LeechedRegion) {
    this.#client = client;
    this.#copy = copy;
  }

  /** These were written in the latest round. */
  expect(ranges: RangeList): void {
    if (ranges.count === 0) return;
    this.#expected = { pieces: countPieces(ranges), bytes: ranges.byteLength };
  }

  /** Asks for pieces of what will be offered under an epoch; `rate` in bytes a ms, `roundTrip` in ms. */
  askAhead(epoch: number, { rate, roundTrip }: { rate: number; roundTrip: number }): void {
    if (this.#ahead?.epoch === epoch) return;
    const { pieces, bytes } = this.#expected;
    // What is pulled comes more quickly, but takes a round trip and some time to get going.
    const arriving = Math.ceil(rate * roundTrip / (bytes / pieces));
    const count = Math.min(3 * arriving + 1, 2 * pieces + 2, PIECES_MOST);
    const asked = Array.from({ length: count }, (_, index) => {
      const piece = this.#client.last({ epoch, index });
      // Where the offer fails, so do they.
      piece.catch(() => {});
      return piece;
    });
    this.#ahead = { epoch, pieces: asked };
  }

  /** Answers when all of these is here, which `pull` brings as far as it was not asked for. */
  async bring(
    ranges: RangeList,
    pull: (ranges: Iterable<ByteRange>) => Promise<void>,
  ): Promise<void> {
    // Pieces beyond are empty, and may be long in coming.
    const pieces = (this.#ahead?.pieces ?? []).slice(0, countPieces(ranges));
    const rest = rangesBehind(ranges, pieces.length);
    const pulling = rest.length > 0 ? pull(rest) : undefined;
    pulling?.catch(() => {});
    for await (const { offset, content } of pieces) await this.#copy.store(offset, content);
    await (pulling ?? pull(ranges));
  }
}
