import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { SystemError } from "../../ffi/errno.ts";
import { O } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import { requires, withReason } from "../../tests/requires.ts";
import { DiskFile } from "./disk_file.ts";
import { IntegrityError, UsageError } from "./errors.ts";
import { openFile } from "./file.ts";
import { openLocal } from "./open_local.ts";

openLibc();

const MIB = 1 << 20;
const ONES = new Uint8Array(100).fill(1);

/** Runs a test in a directory of its own. */
async function inDirectory(run: (path: string) => Promise<void> | void, dir?: string) {
  const path = Deno.makeTempDirSync(dir === undefined ? {} : { dir });
  try {
    await run(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

/** Bytes that a file takes up on its disk. */
function allocated(path: string): number {
  return Deno.statSync(path).blocks! * 512;
}

function run(command: string, ...args: string[]): void {
  const { success, stderr } = new Deno.Command(command, { args }).outputSync();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

Deno.test("a size makes a file that is all hole; without one it is opened as it is", () =>
  inDirectory(async (dir) => {
    const path = `${dir}/a b?#%`;
    await using made = openFile({ path, size: 2 ** 40 });
    assertEquals([made.size, made.durable, made.readOnly], [2 ** 40, true, false]);
    assert(allocated(path) < MIB, "it is sparse");
    assertEquals(made.extents!(0, 2 ** 40), [
      { offset: 0, length: 2 ** 40, hole: true, zero: true },
    ]);
    await using again = openFile({ path });
    assertEquals(again.size, 2 ** 40);
    await using shared = openLocal((made.share!() as { url: string }).url)!;
    made.writeAt(new Uint8Array([7]), 5);
    const byte = new Uint8Array(1);
    await shared.readAt(byte, 5);
    assertEquals([byte[0], shared.size], [7, 2 ** 40]);
  }));

Deno.test("a file that is there is never changed to fit", () =>
  inDirectory((dir) => {
    const path = `${dir}/f`;
    Deno.writeFileSync(path, new Uint8Array(1000).fill(1));
    for (const size of [999, 1001]) {
      const error = assertThrows(() => openFile({ path, size }), UsageError);
      assert(error.message.includes(`${size} bytes as it has 1000`), error.message);
    }
    assertEquals(Deno.readFileSync(path), new Uint8Array(1000).fill(1));
    Deno.truncateSync(path);
    assertThrows(() => openFile({ path }), UsageError, "it is empty");
    assertThrows(() => openFile({ path, size: 10 }), UsageError, "it is empty");
  }));

Deno.test("what is not there, or no file, is refused with what to do", () =>
  inDirectory((dir) => {
    const missing = assertThrows(() => openFile({ path: `${dir}/no` }), SystemError);
    assertEquals([missing.code, missing.subject], ["ENOENT", `${dir}/no`]);
    assert(missing.message.includes("give a size"), missing.message);
    assertThrows(() => openFile({ path: `${dir}/no`, size: 9, readOnly: true }), SystemError);
    assertThrows(() => openFile({ path: `${dir}/no`, size: 9, create: false }), SystemError);
    const inside = assertThrows(() => openFile({ path: `${dir}/no/f`, size: 9 }), SystemError);
    assertEquals(inside.code, "ENOENT");
    assertThrows(() => openFile({ path: dir }), UsageError, "by dir:");
    run("mkfifo", `${dir}/fifo`);
    assertThrows(() => openFile({ path: `${dir}/fifo`, readOnly: true }), UsageError, "no regular");
    assertThrows(() => openFile({ path: `${dir}/f`, size: 0 }), UsageError, "over 0");
    assertEquals([...Deno.readDirSync(dir)].map(({ name }) => name), ["fifo"]);
  }));

Deno.test("a file that cannot have the size is not left behind", () =>
  inDirectory((dir) => {
    const error = assertThrows(() => openFile({ path: `${dir}/f`, size: 2 ** 52 }), SystemError);
    assertEquals([error.syscall, error.code], ["ftruncate", "EFBIG"]);
    assertEquals([...Deno.readDirSync(dir)], []);
  }));

Deno.test("a write aside that fails tells why, and the next one goes all the same", () =>
  inDirectory(async (dir) => {
    const path = `${dir}/f`;
    Deno.writeFileSync(path, new Uint8Array(1000));
    const readOnly = new DiskFile(path, O.RDONLY, { inMemory: false });
    const error = await assertRejects(() => readOnly.writeAside(ONES, 0), SystemError);
    assertEquals([error.syscall, error.code, error.subject], ["write", "EBADF", path]);
    await readOnly.close();

    // The second one begins beyond what any file may have.
    const file = new DiskFile(path, O.RDWR, { inMemory: false });
    const writes = [0, 2 ** 62, 500].map((offset) => file.writeAside(ONES, offset));
    const outcomes = await Promise.allSettled(writes);
    assertEquals(outcomes.map(({ status }) => status), ["fulfilled", "rejected", "fulfilled"]);
    await file.close();
    assertEquals(Deno.readFileSync(path).filter((byte) => byte === 1).length, 200);
  }));

Deno.test("a file is closed behind all that is written aside", () =>
  inDirectory(async (dir) => {
    const path = `${dir}/f`;
    Deno.writeFileSync(path, new Uint8Array(1000));
    const file = new DiskFile(path, O.RDWR, { inMemory: false });
    const writes = [0, 100, 200].map((offset) => file.writeAside(ONES, offset));
    assertEquals(file.idle, false);
    await file.close();
    await Promise.all(writes);
    assertEquals(Deno.readFileSync(path).subarray(0, 301), new Uint8Array(301).fill(1, 0, 300));
  }));

Deno.test("holes are kept, shown and made", () =>
  inDirectory(async (dir) => {
    const path = `${dir}/f`;
    await using file = openFile({ path, size: 1024 * MIB });
    await file.writeAt(new Uint8Array(2 * MIB).fill(1), 100 * MIB);
    await file.flush();
    assert(allocated(path) >= 2 * MIB && allocated(path) < 3 * MIB, `${allocated(path)}`);
    assertEquals(file.extents!(99 * MIB, 4 * MIB), [
      { offset: 99 * MIB, length: MIB, hole: true, zero: true },
      { offset: 100 * MIB, length: 2 * MIB, hole: false, zero: false },
      { offset: 102 * MIB, length: MIB, hole: true, zero: true },
    ]);
    await file.zero!(100 * MIB, MIB);
    await file.discard!(101 * MIB, MIB);
    await file.flush();
    assert(allocated(path) < MIB, `${allocated(path)}`);
    await file.zero!(0, MIB, { allocate: true });
    assert(allocated(path) >= MIB, `${allocated(path)}`);
    assertEquals(Deno.statSync(path).size, 1024 * MIB);
  }));

const needsDd = requires("dd");
Deno.test({
  name: withReason("what the page cache does not hold is read all the same", needsDd),
  ignore: needsDd.ignore,
  fn: () =>
    inDirectory(async (dir) => {
      const path = `${dir}/f`;
      const expected = crypto.getRandomValues(new Uint8Array(65536));
      await using file = openFile({ path, size: 4 * MIB });
      for (let offset = 0; offset < file.size; offset += 65536) file.writeAt(expected, offset);
      await file.flush();
      run("dd", `of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0");
      let away = 0;
      await Promise.all(Array.from({ length: 64 }, async (_, index) => {
        const buffer = new Uint8Array(65536 + 10);
        const answer = file.readAt(buffer.subarray(10), index * 65536);
        if (answer !== undefined) away++;
        await answer;
        assertEquals(buffer.subarray(10), expected);
      }));
      assert(away > 0, "some of it was read off this thread");
    }),
});

const needsShm = requires("/dev/shm");
Deno.test({
  name: withReason("a file in memory answers at once, and does not claim to be durable", needsShm),
  ignore: needsShm.ignore,
  fn: () =>
    inDirectory(async (dir) => {
      await using file = openFile({ path: `${dir}/f`, size: MIB });
      assertEquals(file.durable, false);
      assertEquals(file.writeAt(new Uint8Array(4096), 0), undefined);
      assertEquals(file.readAt(new Uint8Array(MIB), 0), undefined);
    }, "/dev/shm"),
});

Deno.test("a file that was truncated while it was open is an error, not zeroes", () =>
  inDirectory(async (dir) => {
    const path = `${dir}/f`;
    await using file = openFile({ path, size: MIB });
    Deno.truncateSync(path, 10_000);
    await file.readAt(new Uint8Array(10_000), 0);
    const read = async () => await file.readAt(new Uint8Array(10_001), 0);
    await assertRejects(read, IntegrityError, "shrank to 10000 bytes");
    assertThrows(() => file.extents!(0, MIB), IntegrityError, "shrank to 10000 bytes");
  }));
