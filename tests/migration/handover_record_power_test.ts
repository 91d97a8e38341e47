/**
 * The record of who owns a region, through power cuts, kills, and writes and flushes that fail: what
 * was once recorded, or found and acted on, is never forgotten.
 */
import { assert, assertEquals } from "@std/assert";
import { SystemError } from "../../ffi/errno.ts";
import type { Backend } from "../../lib/backend/backend.ts";
import {
  decodeHandover,
  HANDOVER_BYTES,
  type HandoverRecord,
  UNRECORDED,
} from "../../lib/backend/handover_record.ts";
import { HandoverSlots, type SlotWrite } from "../../lib/backend/handover_slots.ts";
import { type Chooser, chooser, Power, PowerCutDisk, PowerCutError } from "../power_cut.ts";

/** Seeds of this run; a failure names the one to put here. */
const SEEDS = Array.from({ length: 60 }, () => Math.floor(Math.random() * 2 ** 32));

/** Records are told apart by their epochs, which count attempts. */
interface Known {
  /** The last one that was tried. */
  tried: number;
  /** The last one that must not be forgotten. */
  held: number;
}

function find(disk: PowerCutDisk) {
  const bytes = new Uint8Array(HANDOVER_BYTES);
  disk.read(bytes, 0);
  return decodeHandover(bytes, "the record");
}

function check(disk: PowerCutDisk, { tried, held }: Known): void {
  const epoch = find(disk)?.record.epoch ?? 0;
  assert(epoch >= held && epoch <= tried, `Found ${epoch}, and ${held} was held of ${tried}`);
}

async function persist(backend: Backend, { offset, bytes }: SlotWrite): Promise<void> {
  await backend.writeAt(bytes, offset);
  await backend.flush();
}

/** One life of the process that owns the record: it takes it up as `HandoverFile` does, and writes. */
async function live(disk: PowerCutDisk, power: Power, known: Known, writes: number): Promise<void> {
  const backend = disk.open(power);
  const found = find(disk);
  if (found !== undefined) {
    await persist(backend, HandoverSlots.again(found));
    known.held = found.record.epoch;
  }
  const slots = new HandoverSlots(found);
  for (let left = writes; left > 0; left--) {
    const record: HandoverRecord = { ...UNRECORDED, epoch: ++known.tried };
    try {
      await persist(backend, slots.next(record));
      slots.wrote();
      known.held = record.epoch;
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
    }
  }
}

/** Lives until the power goes, and lets the disk have what survives a cut, or a kill. */
async function crash(disk: PowerCutDisk, choose: Chooser, known: Known, cut: number) {
  const power = new Power({ choose, cutAfter: cut });
  power.failOneIn = choose(2) * 4;
  try {
    await live(disk, power, known, 6);
  } catch (error) {
    if (!(error instanceof PowerCutError || error instanceof SystemError)) throw error;
  }
  power.cut();
  if (choose(2) === 0) disk.cut(choose);
}

Deno.test("crash after crash, what was recorded or acted on holds", async () => {
  for (const seed of SEEDS) {
    const choose = chooser(seed);
    const disk = new PowerCutDisk(HANDOVER_BYTES);
    const known = { tried: 0, held: 0 };
    try {
      for (let life = 0; life < 30; life++) {
        await crash(disk, choose, known, choose(14));
        check(disk, known);
      }
    } catch (cause) {
      throw new Error(`Seed ${seed}: ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
  }
});

Deno.test("writes that fail again and again leave what holds in its slot", () => {
  const slots = new HandoverSlots({ record: UNRECORDED, slot: 1, sequence: 7 });
  const offsets = [1, 2, 3].map((epoch) => slots.next({ ...UNRECORDED, epoch }).offset);
  assertEquals(offsets, [0, 0, 0]);
  slots.wrote();
  assertEquals(slots.next(UNRECORDED).offset, HANDOVER_BYTES / 2);
});
