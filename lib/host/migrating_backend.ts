/**
 * The backend of a region that can move to another host, or comes from one, put together from the
 * stages of `lib/chunk`: whoever uses it goes through a lock, and what is written is noticed.
 *
 * @module
 */
import type { Awaitable, Backend, Extent, ZeroOptions } from "../backend/backend.ts";
import { settleAll } from "../backend/settle.ts";
import { ClosedError, ProtocolError, UsageError } from "../backend/errors.ts";
import { HandoverFile } from "../backend/handover_file.ts";
import type { HandoverBook } from "../backend/handover_group.ts";
import { NOBODY, UNRECORDED } from "../backend/handover_record.ts";
import { MemoryBackend } from "../backend/memory.ts";
import { KeptProfile } from "../chunk/kept_profile.ts";
import { openJournal } from "../chunk/journal_file.ts";
import { lockBackend, type LockedBackend } from "../chunk/lock.ts";
import { SlowStage } from "../chunk/slow.ts";
import { Stage } from "../chunk/stage.ts";
import { trackBackend, type TrackedBackend } from "../chunk/track.ts";
import type { GroupPart } from "../migration/group_head.ts";
import { LeechedRegion } from "../migration/leeched_region.ts";
import { LeecherCore } from "../migration/leecher_core.ts";
import { SeederClient } from "../migration/seeder_client.ts";
import { type SeededProgram, SeederCore } from "../migration/seeder_core.ts";
import { targetAfterRestart } from "../migration/target_handover.ts";
import { sourceAfterRestart } from "../migration/source_handover.ts";
import type { RemoteBackend } from "../rpc/client.ts";
import { openHandoverTarget } from "./copy_target.ts";
import { partsOf } from "./group_backend.ts";
import { lockBefore } from "./handover_place.ts";
import { checkUnchanged, leechPlace, leechRecord } from "./leech_place.ts";

/** How a region is seeded; structured-cloneable. */
export interface SeedOptions {
  /** Bytes of a chunk, a multiple of 4 KiB up to 32 MiB. */
  chunkSize: number;
  /** Whether the region is a group; it is not unless told. */
  group?: boolean | undefined;
}

/** How a region is leeched; structured-cloneable. */
export interface LeechOptions {
  /** Bytes of a chunk that are asked for; the source decides. */
  chunkSize: number;
  /** 16 random bytes that tell this leecher from others, where it begins. */
  leech: Uint8Array;
  /** The address of the source, for people who look at the record. */
  peer: string;
  /** Requests to the source at a time; by measured latency and rate unless told. */
  pullWorkers?: number | undefined;
  /** Bytes a second at most, while the program runs at the source. */
  pullRate?: number | undefined;
  /**
   * A file for the access profile: what it tells of is copied first, and in the end it tells what was
   * read here.
   */
  profile?: string | undefined;
  /** Whether the region has to be a group; it may be anything unless told. */
  group?: boolean | undefined;
}

/** Nobody waits at the lock but while a region is taken over, or is not here yet. */
const HOLD_MS = 2 ** 31 - 1;

/** See the module. */
export class MigratingBackend extends Stage {
  /** What everybody goes through. */
  readonly lock: LockedBackend;
  /** What slows writes. */
  readonly slow: SlowStage;
  /** What notices writes. */
  readonly track: TrackedBackend;
  /** Bytes of a chunk. */
  readonly chunkSize: number;
  /** What brings the region here, where it comes from elsewhere. */
  leecher: LeecherCore | undefined;
  /** What of it is read here, where that is recorded. */
  profile: KeptProfile | undefined;
  /** What gives it away, once {@linkcode seed} was called. */
  seeder: SeederCore | undefined;

  /** The record of who owns the region, locked; missing where that lives in memory. */
  readonly handover: HandoverBook | undefined;
  /** The parts of a group; missing where it is one region. */
  parts: readonly GroupPart[] | undefined;

  /** Over `backend`, which belongs to it, as `handover` does. */
  constructor(backend: Backend, chunkSize: number, handover: HandoverBook | undefined) {
    const track = trackBackend(backend, { chunkSize });
    const lock = lockBackend(track, { holdTimeout: HOLD_MS });
    const slow = new SlowStage(lock);
    super(slow);
    this.lock = lock;
    this.slow = slow;
    this.track = track;
    this.chunkSize = chunkSize;
    this.handover = handover;
  }

  /** Whether nothing goes on by itself now, but for timers that may be late by some ms. */
  get atRest(): boolean {
    const stage = this.seeder?.stage;
    const handsOver = stage === "suspending" || stage === "offered";
    return !handsOver && (this.leecher === undefined || this.leecher.isOver);
  }

  /** As of a stage, but where writes have to wait. */
  get writesNow(): boolean {
    return this.track.writesAtOnce === true && !this.lock.locked && !this.slow.isSlow;
  }

  /**
   * As of the region, once it is offered: as nobody writes, what is sent from there does not change
   * between its checksum and the network.
   */
  get memory(): Backend["memory"] {
    const stage = this.seeder?.stage;
    return stage === "offered" || stage === "given" ? this.track.memory : undefined;
  }

  /** Lets others take the region over from now on, once. */
  seed(program: SeededProgram): SeederCore {
    if (this.seeder !== undefined) throw new UsageError("Cannot seed a region twice");
    const { lock, slow, track, chunkSize } = this;
    const state = sourceAfterRestart(
      this.handover?.record ?? {
        ...UNRECORDED,
        epoch: this.leecher?.metrics.epoch ?? 0,
      },
    );
    if (state === undefined) throw new UsageError("Cannot seed a region that is not here");
    return this.seeder = new SeederCore({ lock, slow, track, chunkSize, program, state });
  }

  /**
   * Lets go of a copy that will not become the region: nobody sees what is in it, and nobody is told
   * that it has what he writes. Where it becomes the region all the same, as its source has given it
   * by then, it is used as such until it is closed.
   */
  async abandon(): Promise<void> {
    await this.leecher!.close();
    if (this.leecher!.isOwner) return;
    this.lock.refuse(new ClosedError("Cannot use a region that was not taken over"), "all");
    this.lock.release();
  }

  readAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.backend.readAt(buffer, offset);
  }

  writeAt(buffer: Uint8Array, offset: number): Awaitable<void> {
    return this.backend.writeAt(buffer, offset);
  }

  /**
   * As of any stage. While the region is not here yet there is nothing to flush, and once it was given
   * away nothing more is written: neither waits at the lock, nor is refused.
   */
  override flush(): Awaitable<void> {
    if (this.leecher?.isOwner === false) return;
    const stage = this.seeder?.stage;
    return stage === "given" || stage === "released" ? this.track.flush() : super.flush();
  }

  /** Ends what is under way, and closes the region. */
  override async close(): Promise<void> {
    this.seeder?.close();
    await this.leecher?.close();
    try {
      const closing = async () => await super.close();
      await settleAll([closing(), this.profile?.save() ?? Promise.resolve()]);
    } finally {
      this.handover?.close();
    }
  }

  protected zeroRange(offset: number, length: number, options?: ZeroOptions): Awaitable<void> {
    return this.backend.zero!(offset, length, options);
  }

  protected discardRange(offset: number, length: number): Awaitable<void> {
    return this.backend.discard!(offset, length);
  }

  protected findExtents(offset: number, length: number): Awaitable<Extent[]> {
    return this.backend.extents!(offset, length);
  }
}

/** A region that is here, to be seeded. */
export async function openSeeded(
  backend: Backend,
  handover: HandoverBook | undefined,
  { chunkSize, group }: SeedOptions,
): Promise<MigratingBackend> {
  const parts = group ? await partsOf(backend) : undefined;
  const seeded = new MigratingBackend(backend, chunkSize, handover);
  seeded.parts = parts;
  return seeded;
}

/**
 * Begins to bring a region from `remote`, which belongs to the answer, into a cache on this host: a
 * `file:` or `dir:` that is made where it is not there, or `memory:`. One that was begun before goes
 * on where it was, also where the region was taken over already.
 */
export async function openLeeched(
  remote: RemoteBackend,
  cacheUrl: string,
  options: LeechOptions,
): Promise<MigratingBackend> {
  const place = leechPlace(cacheUrl);
  let handover = place && lockBefore(place);
  let local: Backend | undefined;
  try {
    const found = leechRecord(cacheUrl, place);
    const leech = found.leech === NOBODY ? options.leech : Uint8Array.fromHex(found.leech);
    const client = new SeederClient(remote, leech);
    const { state, epoch } = found;
    const start = targetAfterRestart({
      ...found,
      ...(state === "owner" && { state: "receiving" }),
    })!;
    const tracked = await client.track({ chunkSize: options.chunkSize });
    const { size, chunkSize } = tracked;
    checkSize(size, remote.size, options.peer);
    const parts = options.group ? await partsOf(remote) : undefined;
    const peer = options.peer, id = leech.toHex();
    // One that is in doubt stays so on disk, until the source tells.
    const receive = () => {
      if (start.state.at === "following") {
        handover?.write({ state: "receiving", epoch, leech: id, peer });
      }
    };
    // Where it lies beside the copy, nobody takes that for a region of its own at any moment.
    const isBeside = handover !== undefined;
    if (isBeside) receive();
    const anew = start.state.at === "following";
    local = await openHandoverTarget(cacheUrl, size, { anew });
    if (!isBeside && place !== undefined) {
      handover = HandoverFile.lock(place.path);
      checkUnchanged(handover, found, cacheUrl);
      receive();
    }
    // Of what is not written down as taken, only the digests tell what of it is right.
    const isTaken = state === "taken", discard = !isTaken;
    const journal = await openJournal({
      ...{ url: cacheUrl, cache: local, size, chunkSize, discard },
      remote: { id: remote.regionId },
    });
    const isOld = found.time !== 0 && discard;
    if (local instanceof MemoryBackend) local.expectAll();
    const profile = options.profile === undefined
      ? undefined
      : await KeptProfile.open(options.profile, size, chunkSize);
    const onRead = profile && ((from: number, to: number) => profile.touch(from, to));
    const copy = new LeechedRegion({ remote, local, chunkSize, journal, onRead });
    const backend = new MigratingBackend(copy, chunkSize, handover);
    backend.parts = parts;
    if (!isTaken) {
      await backend.lock.lock();
      // Nobody but the migration writes to it yet.
      copy.fetcher.beginPlacing();
    }
    backend.profile = profile;
    backend.leecher = new LeecherCore({
      ...{ remote, client, copy, lock: backend.lock, isOld, tracked, start },
      pull: { workers: options.pullWorkers, rateLimit: options.pullRate },
      expected: profile?.expected,
      record: async (state, epoch, promoted) => {
        await handover?.write({ state, epoch, leech: id, peer, promoted });
      },
    });
    return backend;
  } catch (error) {
    await local?.close();
    handover?.close();
    throw error;
  }
}

/** Throws where the source tracks another region than it serves: bytes of the two must not be mixed. */
function checkSize(tracked: number, served: number, peer: string): void {
  if (tracked === served) return;
  throw new ProtocolError(
    `Cannot bring a region of ${tracked} bytes here that ${peer} serves as one of ${served}`,
    { hint: "both sides need the same telemap: see telemap version on each" },
  );
}
