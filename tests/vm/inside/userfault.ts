/**
 * The `userfault` device on a kernel without WP_ASYNC, PAGEMAP_SCAN and POISON. Runs inside the virtual
 * machine (see `../vm_test.ts`).
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { UserfaultFeatureError } from "../../../ffi/userfault_open.ts";
import { addressOf, openLibc } from "../../../ffi/libc.ts";
import {
  type DirectMountOptions,
  type Mount,
  mountDirect,
  openBackend,
  Pattern,
} from "../../../mod.ts";
import { temporaryDirectory } from "../../device/command.ts";
import { ScriptedBackend } from "../../device/scripted_module.ts";
import { startServer } from "../../device/served_region.ts";
import { readOnThread } from "../../touch.ts";

openLibc();

const MIB = 1 << 20;
const PAGE = 4096;
const SIZE = 3 * MIB + 1234;

type Memory = NonNullable<DirectMountOptions["memory"]>;

function mountSlice(backend: DirectMountOptions["backend"], memory: Memory = {}): Promise<Mount> {
  return mountDirect({ backend, as: "slice", device: "userfault", memory });
}

async function fill(url: string): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(SIZE);
  new Pattern(1).fill(bytes, 0);
  await using backend = await openBackend(url);
  await backend.writeAt(bytes, 0);
  await backend.zero!(MIB, MIB);
  return bytes.fill(0, MIB, 2 * MIB);
}

function assertSame(found: Uint8Array, expected: Uint8Array): void {
  assertEquals(found.findIndex((byte, index) => byte !== expected[index]), -1, "differs at");
}

for (const memory of [{}, { tracking: "compare" }] as const) {
  const how = "tracking" in memory ? "comparing" : "faults";
  Deno.test(`a slice that is written is synced, by ${how}`, async () => {
    using directory = temporaryDirectory();
    const path = `${directory.path}/region`, url = `file:${path}?size=${SIZE}`;
    const expected = await fill(url);
    const mount = await mountSlice(url, memory);
    const places = [0, MIB, MIB + 10 * PAGE, SIZE - 1];
    for (let round = 1; round <= 3; round++) {
      const before = await mount.statistics();
      for (const at of places) expected[at] = mount.bytes[at] = round;
      await mount.sync();
      const { pushedBytes } = await mount.statistics();
      assertEquals(pushedBytes - before.pushedBytes, 3 * PAGE + SIZE % PAGE);
      assertSame(await Deno.readFile(path), expected);
    }
    assertSame(mount.bytes, expected);
    const { writeFaults } = await mount.statistics();
    assertEquals(writeFaults > 0, how === "faults", `${writeFaults} write faults`);
    mount.bytes[5] = expected[5] = 9;
    await mount.close();
    assertSame(await Deno.readFile(path), expected);
  });
}

Deno.test("what this kernel lacks is named, with the Linux that has it", async () => {
  const wanted: [Memory, string][] = [
    [{ onLoss: "poison" }, "6.6"],
    [{ tracking: "async-wp" }, "6.7"],
  ];
  for (const [memory, since] of wanted) {
    const error = await assertRejects(() => mountSlice("memory:1MiB", memory));
    assert(error instanceof UserfaultFeatureError && error.since === since, `${error}`);
  }
});

Deno.test("a region is prefetched while a fault goes first", async () => {
  const backend = new ScriptedBackend(SIZE);
  backend.hold(MIB);
  await using mount = await mountSlice(backend.source, { prefetch: true });
  await backend.holding(3);
  const expected = new Uint8Array(SIZE);
  new Pattern(1).fill(expected, 0);
  const at = 2 * MIB + 5 * PAGE;
  const found = await readOnThread(addressOf(mount.bytes) + at, 16);
  assertEquals(found, expected.slice(at, at + 16));
  backend.release();
  assertSame(mount.bytes, expected);
});

Deno.test("threads go on with the right bytes when a killed server is there again", async () => {
  using directory = temporaryDirectory();
  const url = `file:${directory.path}/region?size=${SIZE}`;
  const expected = await fill(url);
  const first = await startServer(url);
  await using killed = first.process;
  const mount = await mountSlice(first.url, { faultAround: PAGE });
  mount.bytes[MIB] = expected[MIB] = 7;
  await mount.sync();
  killed.kill("SIGKILL");
  await killed.end();
  const read = readOnThread(addressOf(mount.bytes), SIZE);
  const { process } = await startServer(url, first.url);
  await using _process = process;
  assertSame(await read, expected);
  await mount.close();
});
