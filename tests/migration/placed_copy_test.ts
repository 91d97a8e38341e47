import { openLibc } from "../../ffi/libc.ts";
import { assertEquals } from "@std/assert";
import { type MemoryBackend, openMemory } from "../../lib/backend/memory.ts";
import { RangeList } from "../../lib/backend/range_list.ts";
import { digestOf } from "../../lib/chunk/digests.ts";
import { LeechedRegion } from "../../lib/migration/leeched_region.ts";
import { assertBytes } from "../backend_model.ts";
import { Gate, settle } from "../gate.ts";
import { ScheduledBackend } from "../scheduled_backend.ts";

openLibc();

const CHUNK = 4096, SIZE = 4 * CHUNK;

/** A copy in memory of a source of which each read waits at a gate. */
class PlacedCopy implements AsyncDisposable {
  readonly gate = new Gate();
  readonly source = new ScheduledBackend({ size: SIZE, step: this.gate.step, fails: () => false });
  readonly local: MemoryBackend = openMemory({ size: SIZE });
  readonly copy = new LeechedRegion({ remote: this.source, local: this.local, chunkSize: CHUNK });

  constructor() {
    this.source.bytes.fill(1);
    this.copy.fetcher.beginPlacing();
    this.gate.hold(/^read/);
  }

  /** Which chunks are local. */
  get held(): boolean[] {
    const { states } = this.copy.region;
    return Array.from({ length: SIZE / CHUNK }, (_, chunk) => states.local.has(chunk));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.gate.open();
    await this.copy.close();
  }
}

/** Chunk 1. */
function second(): RangeList {
  const ranges = new RangeList();
  ranges.add(CHUNK, 2 * CHUNK);
  return ranges;
}

Deno.test("a first copy in memory is received where it belongs, and not written again", async () => {
  await using placed = new PlacedCopy();
  const { copy, local, gate } = placed;
  let writes = 0;
  local.writeAt = () => void writes++;
  const bringing = copy.bring([{ offset: 0, length: SIZE }], SIZE);
  gate.open();
  await bringing;
  assertEquals([placed.held, writes], [[true, true, true, true], 0]);
  assertBytes(local.memory.bytes, new Uint8Array(SIZE).fill(1), "The copy");
});

Deno.test("what a placed chunk has is no memory where it is all zeroes", async () => {
  await using placed = new PlacedCopy();
  const { copy, source, local, gate } = placed;
  source.bytes.fill(0);
  gate.open();
  await copy.bring([{ offset: 0, length: SIZE }], SIZE);
  assertEquals(copy.region.zeroBytes, SIZE);
  assertEquals(local.extents(0, SIZE), [{ offset: 0, length: SIZE, hole: true, zero: true }]);
});

Deno.test("an outdated chunk that is being placed is fetched again, behind that", async () => {
  await using placed = new PlacedCopy();
  const { copy, source, local, gate } = placed;
  const first = copy.bring([{ offset: 0, length: SIZE }], SIZE);
  await settle();
  await copy.forget(second());
  gate.pass();
  await settle();
  assertEquals([placed.held, gate.waiting], [[true, false, true, true], ["read 4096+4096"]]);
  source.bytes.fill(2, CHUNK, 2 * CHUNK);
  gate.open();
  await first;
  assertBytes(local.memory.bytes, source.bytes, "The copy");
});

Deno.test("a piece that comes while its chunk is being placed is left to whoever fetches it", async () => {
  await using placed = new PlacedCopy();
  const { copy, source, gate } = placed;
  const first = copy.bring([{ offset: 0, length: SIZE }], SIZE);
  await settle();
  await copy.forget(second());
  source.bytes.fill(2, CHUNK, 2 * CHUNK);
  await copy.store(CHUNK, new Uint8Array(CHUNK).fill(2));
  assertEquals(placed.held, [false, false, false, false]);
  gate.open();
  await first;
  assertBytes(placed.local.memory.bytes, source.bytes, "The copy");
});

Deno.test("once a copy is the region, a write waits for what is being placed, and nothing else is", async () => {
  await using placed = new PlacedCopy();
  const { copy, local, source, gate } = placed;
  const first = copy.bring([{ offset: 0, length: 2 * CHUNK }], SIZE);
  await settle();
  await copy.own(() => Promise.resolve());
  const rest = copy.bring([{ offset: 2 * CHUNK, length: 2 * CHUNK }], SIZE);
  await settle();
  const nines = new Uint8Array(10).fill(9);
  await copy.writeAt(nines, 2 * CHUNK);
  let written = false;
  const writing = Promise.resolve(copy.writeAt(nines, 0)).then(() => written = true);
  await settle();
  assertEquals(written, false);
  gate.open();
  await Promise.all([first, rest, writing]);
  for (const offset of [0, 2 * CHUNK]) source.bytes.set(nines, offset);
  assertBytes(local.memory.bytes, source.bytes, "The copy");
});

Deno.test("an old content is compared when nothing is placed any more", async () => {
  await using placed = new PlacedCopy();
  const { copy, source, gate } = placed;
  const first = copy.bring([{ offset: 0, length: SIZE }], SIZE);
  await settle();
  const digests = Array.from(
    { length: SIZE / CHUNK },
    (_, chunk) => digestOf(source.bytes.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)),
  );
  let adopted = false;
  const adopting = copy.adopt(0, digests).then((found) => {
    adopted = true;
    return found;
  });
  await settle();
  assertEquals(adopted, false);
  gate.open();
  await first;
  assertEquals(await adopting, { equal: 4, different: 0, left: 0 });
});
