/**
 * Access profiles of managed mounts: what one mount reads, the next one brings first.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import {
  type ByteRange,
  type ManagedMount,
  type ManagedMountOptions,
  mountManaged,
  Pattern,
  UsageError,
} from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { type Event, telemap, TelemapProcess } from "../telemap_process.ts";
import { temporaryDirectory } from "./command.ts";

openLibc();

const KIB = 1 << 10;
const CHUNK = 64 * KIB;
const CHUNKS = 64;
/** The last chunk is a short one. */
const SIZE = CHUNKS * CHUNK - 1000;
const REMOTE = `pattern:${SIZE}`;
const PAGE = 4096;
/** Chunks that a program reads, in that order. */
const TOUCHES = [40, 7, 63, 41, 8, 20];
const needs = requires("root", "/dev/fuse", "/dev/userfaultfd");

/** A directory for the files of one test. */
interface Place {
  directory: string;
  profile: string;
}

function test(name: string, fn: (place: Place) => Promise<void>): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      await fn({ directory: directory.path, profile: `${directory.path}/profile` });
    },
  });
}

type Options = Partial<ManagedMountOptions>;

/** Mounts the region with a new cache. */
function mountAnew(options: Options): Promise<ManagedMount> {
  return mountManaged({ remote: REMOTE, local: "memory:", device: "fuse", as: "file", ...options });
}

/** Reads a page of each chunk, and checks what it reads. */
async function touch(mount: ManagedMount, chunks: readonly number[]): Promise<void> {
  for (const chunk of chunks) {
    const offset = chunk * CHUNK + 2 * PAGE;
    const page = new Uint8Array(PAGE), expected = new Uint8Array(PAGE);
    new Pattern().fill(expected, offset);
    if (mount.device === "userfault") {
      page.set(mount.bytes.subarray(offset, offset + PAGE));
    } else {
      await mount.file.seek(offset, Deno.SeekMode.Start);
      await mount.file.read(page);
    }
    assertEquals(page, expected);
  }
}

/** Records the touches of a program in a profile. */
async function record(options: Options, chunks: readonly number[] = TOUCHES): Promise<void> {
  await using mount = await mountAnew(options);
  await touch(mount, chunks);
}

/** What comes to a new cache, in its order, where nothing is read before all is there. */
async function replay(options: Options): Promise<ByteRange[]> {
  const came: ByteRange[] = [];
  const onChunkIsLocal = (offset: number, length: number) => void came.push({ offset, length });
  await using _mount = await mountAnew({
    ...{ pullWorkers: 1, pullFirst: true, hooks: { onChunkIsLocal }, ...options },
  });
  return came;
}

/** The chunks that ranges are in, of that size. */
function chunksOf(ranges: readonly ByteRange[], chunkSize = CHUNK): number[] {
  return ranges.flatMap(({ offset, length }) => {
    const from = Math.floor(offset / chunkSize), to = Math.ceil((offset + length) / chunkSize);
    return Array.from({ length: to - from }, (_, index) => from + index);
  });
}

/** The first `count` different numbers. */
function firsts(numbers: readonly number[], count: number): number[] {
  return [...new Set(numbers)].slice(0, count);
}

function others(chunks: readonly number[]): number[] {
  return Array.from({ length: CHUNKS }, (_, chunk) => chunk)
    .filter((chunk) => !chunks.includes(chunk));
}

const FORMS: Record<string, Options> = {
  "a file by fuse": { as: "file", device: "fuse" },
  "a slice by userfault": { as: "slice", device: "userfault", memory: { faultAround: PAGE } },
};

for (const [form, options] of Object.entries(FORMS)) {
  test(`profile of ${form}: what was read comes first the next time`, async ({ profile }) => {
    await record({ profile, ...options });
    const came = chunksOf(await replay({ profile, ...options }));
    // Reads of the kernel and of the device itself, ahead of the program's, would show here.
    assertEquals(came, [...TOUCHES, ...others(TOUCHES)]);
  });

  test(`profile of ${form}: tells how far it was right`, async ({ profile }) => {
    {
      await using mount = await mountAnew({ profile, ...options });
      const nothing = { expected: 0, used: 0, wasted: 0, missed: 0 };
      assertEquals((await mount.progress()).profile, nothing);
      await touch(mount, TOUCHES);
      const recorded = { ...nothing, missed: TOUCHES.length };
      assertEquals((await mount.progress()).profile, recorded);
    }
    await using mount = await mountAnew({ profile, ...options });
    await touch(mount, [7, 40, 30, 8, 63, 31, 7]);
    const counts = { expected: 6, used: 4, wasted: 2, missed: 2 };
    assertEquals((await mount.progress()).profile, counts);
  });
}

test("profile: serves chunks of another size", async ({ profile }) => {
  await record({ profile });
  for (const chunkSize of [PAGE, 4 * CHUNK]) {
    const told = TOUCHES.map((chunk) => ({ offset: chunk * CHUNK, length: CHUNK }));
    const expected = [...new Set(chunksOf(told, chunkSize))];
    const came = chunksOf(await replay({ profile, chunkSize }), chunkSize);
    assertEquals(came.slice(0, expected.length), expected);
  }
});

test("profile: comes before what has priority", async ({ profile }) => {
  await record({ profile });
  const last = Array.from({ length: CHUNKS }, (_, index) => CHUNKS - 1 - index);
  const byNumber = await replay({ profile, pullPriority: (offset) => offset });
  assertEquals(chunksOf(byNumber), firsts([...TOUCHES, ...last], CHUNKS));
  const ranges = [{ offset: 50 * CHUNK, length: CHUNK }, { offset: 40 * CHUNK, length: 2 * CHUNK }];
  const byRange = await replay({ profile, pullPriority: ranges });
  assertEquals(chunksOf(byRange).slice(0, 7), [...TOUCHES, 50]);
});

test("profile: is left as it is where nothing was read", async ({ profile }) => {
  await replay({ profile });
  await assertRejects(() => Deno.stat(profile), Deno.errors.NotFound);
  await record({ profile });
  const before = await Deno.readTextFile(profile), { ino } = await Deno.stat(profile);
  await replay({ profile });
  assertEquals([await Deno.readTextFile(profile), (await Deno.stat(profile)).ino], [before, ino]);
});

test("profile: what is only looked at does not take its place", async ({ profile }) => {
  await record({ profile });
  await record({ profile }, [0, 63]);
  const came = chunksOf(await replay({ profile }));
  assertEquals(came.slice(0, 7), [0, 63, 40, 7, 41, 8, 20]);
});

test("profile: one that is none is refused before anything is made", async (place) => {
  const { profile, directory } = place;
  const local = `file:${directory}/cache`;
  await Deno.writeTextFile(profile, "what a program reads\n");
  await assertRejects(() => mountAnew({ local, profile }), UsageError, "as an access profile");
  const nowhere = `${directory}/no/profile`;
  await assertRejects(() => mountAnew({ local, profile: nowhere }), UsageError, "Cannot record");
  const idle = { local, profile: `${directory}/new`, pullWorkers: 0 };
  await assertRejects(() => mountAnew(idle), UsageError, "pullWorkers");
  assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name), ["profile"]);
});

test("profile: one that cannot be written in the end is told of, by a mount that is gone", async (place) => {
  const there = `${place.directory}/there`;
  await Deno.mkdir(there);
  const mount = await mountAnew({ profile: `${there}/profile` });
  await touch(mount, TOUCHES);
  await Deno.remove(there);
  const { path } = mount;
  const error = await assertRejects(() => mount.close(), Error, "Cannot write the access profile");
  assertStringIncludes(error.message, `${there}/profile`);
  await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
});

/** Mounts by the command line, reads, and ends; answers the events. */
async function runCommand(args: string[], chunks: readonly number[]): Promise<Event[]> {
  await using process = new TelemapProcess([
    ...["mount", REMOTE, "--managed", "--cache", "memory:", "--device", "fuse", "--json", ...args],
  ]);
  const { path } = await process.next();
  using file = await Deno.open(`${path}`);
  for (const chunk of chunks) {
    await file.seek(chunk * CHUNK, Deno.SeekMode.Start);
    await file.read(new Uint8Array(PAGE));
  }
  file.close();
  process.kill("SIGTERM");
  const { code, events, err } = await process.end();
  assertEquals({ code, err }, { code: 0, err: "" });
  return events;
}

test("telemap mount --profile records, replays and tells how far it was right", async (place) => {
  const { profile } = place;
  const args = ["--profile", profile];
  const ends = async (chunks: readonly number[]) => (await runCommand(args, chunks)).slice(-2);
  assertEquals(await ends(TOUCHES), [
    { event: "profile", expected: 0, used: 0, wasted: 0, missed: 6 },
    { event: "closed" },
  ]);
  assertEquals(chunksOf(await replay({ profile })).slice(0, 6), TOUCHES);
  assertEquals(await ends([8, 7, 50, 40]), [
    { event: "profile", expected: 6, used: 3, wasted: 3, missed: 1 },
    { event: "closed" },
  ]);
});

test("telemap mount --pull-rate limits what fills the cache", async ({ directory }) => {
  await using process = new TelemapProcess([
    ...["mount", REMOTE, "--managed", "--cache", `file:${directory}/cache`, "--device", "fuse"],
    ...["--pull-rate", "1B/s", "--json"],
  ]);
  await process.next();
  const { event, localBytes } = await process.next();
  // One request goes at once; the next one would be due in days.
  assertEquals([event, localBytes], ["progress", 1 << 20]);
});

test("telemap mount: what a cache is asked for in vain is wrong use", async (place) => {
  const { directory, profile } = place;
  await Deno.writeTextFile(`${directory}/wrong`, "telemap-profile 9 4096\n");
  const cached = ["--managed", "--cache", `file:${directory}/cache`];
  const wrong = {
    "without --managed": ["--profile", profile],
    "has version 9": [...cached, "--profile", `${directory}/wrong`],
    "is no file": [...cached, "--profile", directory],
    "Cannot record": [...cached, "--profile", `${directory}/no/profile`],
    "as a rate": [...cached, "--pull-rate", "20MB"],
    "over 0": [...cached, "--pull-rate", "0/s"],
    "without --cache": ["--managed"],
  };
  for (const [reason, args] of Object.entries(wrong)) {
    const { code, out, err } = await telemap(["mount", REMOTE, "--device", "fuse", ...args]);
    assertEquals({ reason, code, out }, { reason, code: 2, out: "" });
    assert(/^telemap: [^\n]+$/.test(err) && err.includes(reason), err);
  }
});
