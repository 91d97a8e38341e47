/**
 * A process for device tests that reads and writes a slice of a region at random, compares it with
 * a model in memory, and makes garbage all the while, as several Workers beside it do. It prints a
 * line of JSON every now and then, so that whoever started it sees when it hangs.
 *
 *     deno run -A slice_hammer.ts URL fuse|userfault SECONDS SEED
 *
 * @module
 */
import { createHash } from "node:crypto";
import { addressOf } from "../../ffi/libc.ts";
import { adviseAt, pageSize } from "../../ffi/mman.ts";
import { type DirectMountOptions, type Mount, mountDirect } from "../../mod.ts";
import { makeRandom } from "./random.ts";

/** Takes pages out of memory, so that the next touch is a fault again (Linux 5.4). */
const MADV_PAGEOUT = 21;
const WORKERS = 2;
/** Mounts one after the other: what is missing then comes from what was written before. */
const ROUNDS = 2;
const TOUCHES_A_TURN = 100;
const LENGTH_MOST = 32 << 10;

/** Faults of this process so far that had to wait for I/O (proc(5), /proc/pid/stat). */
function majorFaults(): number {
  const stat = Deno.readTextFileSync("/proc/self/stat");
  return Number(stat.slice(stat.lastIndexOf(")")).split(" ")[10]);
}

/** Touches the slice, and keeps what it read for a while. */
function touch(
  slice: Uint8Array,
  model: Uint8Array,
  random: (limit: number) => number,
  garbage: unknown[],
): void {
  const offset = random(slice.length);
  const length = Math.min(random(LENGTH_MOST) + 1, slice.length - offset);
  if (random(2) === 0) {
    const bytes = new Uint8Array(length).fill(random(256));
    slice.set(bytes, offset);
    model.set(bytes, offset);
    return;
  }
  const found = slice.slice(offset, offset + length);
  const expected = model.subarray(offset, offset + length);
  const differs = found.findIndex((byte, index) => byte !== expected[index]);
  if (differs >= 0) throw new Error(`The byte at ${offset + differs} is not what was written`);
  garbage.push({ offset, found, text: `${offset}`.repeat(100) });
  if (garbage.length > 1000) garbage.length = 0;
}

function say(event: Record<string, unknown>): void {
  console.log(JSON.stringify(event));
}

/** Mounts the slice; by `userfault`, a fault is to bring in no more than its page. */
function mountSlice(): Promise<Mount> {
  const options: DirectMountOptions = { backend, as: "slice", device };
  if (device === "userfault") options.memory = { faultAround: pageSize() };
  return mountDirect(options);
}

/** Touches that had to wait for the region so far. */
async function waitedTouches(mount: Mount): Promise<number> {
  return device === "userfault" ? (await mount.statistics()).faults : majorFaults();
}

/** Touches until the time is over, while what was written is written back. */
async function hammer(mount: Mount, end: number): Promise<void> {
  const { bytes } = mount;
  let syncing: Promise<void> = Promise.resolve();
  while (performance.now() < end) {
    for (let turn = 0; turn < TOUCHES_A_TURN; turn++) touch(bytes, model, random, garbage);
    touches += TOUCHES_A_TURN;
    await syncing;
    if (random(2) === 0) adviseAt(addressOf(bytes), bytes.length, MADV_PAGEOUT, "the slice");
    syncing = mount.sync();
    say({ touches });
  }
  await mount.sync();
}

const [backend, device, seconds, seed] = Deno.args as [
  string,
  "fuse" | "userfault",
  string,
  string,
];
const random = makeRandom(Number(seed));
const garbageWorker = new URL("./garbage_worker.ts", import.meta.url);
const workers = Array.from(
  { length: WORKERS },
  () => new Worker(garbageWorker, { type: "module" }),
);
const garbage: unknown[] = [];
let touches = 0, waited = 0;
let mount = await mountSlice();
const model = new Uint8Array(mount.size);
for (let round = 1;; round++) {
  await hammer(mount, performance.now() + Number(seconds) * 1000 / ROUNDS);
  waited += await waitedTouches(mount);
  if (round === ROUNDS) break;
  await mount.close();
  mount = await mountSlice();
}
const sum = createHash("sha256").update(model).digest("hex");
say({ sum, touches, waited });
for (const worker of workers) worker.terminate();
// What is said next tells that the region was looked at by another path while it was mounted.
await Deno.stdin.read(new Uint8Array(1));
const { bytes } = mount;
await mount.close();
say({ lengthWhenClosed: bytes.length });
