/**
 * Groups of regions that move while a program counts in all of them: what comes is of one moment, and
 * all of the parts are written at one side alone.
 *
 * `TELEMAP_MIGRATION_RUNS` sets how many runs, `TELEMAP_SEED` the seed of the first.
 */
import { existsSync } from "node:fs";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { closeAsync, O, openAsync } from "../../ffi/file.ts";
import { openLibc } from "../../ffi/libc.ts";
import {
  FencedError,
  Leecher,
  leechGroup,
  type Mount,
  openBackend,
  Seeder,
  seedGroup,
  type SeedGroupOptions,
  TelemapError,
  UsageError,
} from "../../mod.ts";
import { boundFile } from "../../lib/device/loop.ts";
import { freePort } from "../free_port.ts";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { checkMoment, GroupCounter, stepsOf } from "./group_counter.ts";
import { Side } from "./migration_side.ts";
import { PAGE } from "./migration_pages.ts";
import { makeRandom, runSeeds } from "./random.ts";

openLibc();

const RUNS = Number(Deno.env.get("TELEMAP_MIGRATION_RUNS") ?? 10);
const PROGRAM = import.meta.resolve("./group_program.ts");
const FILE = { as: "file", device: "fuse" } as const;
const SLICE = { as: "slice", device: "userfault" } as const;
const LISTEN = "telemap://127.0.0.1:0";
const LOOP = { as: "file", device: "loop" } as const;
const needs = requires("root", "/dev/fuse", "/dev/userfaultfd", "/dev/loop-control");

/** The forms that parts may have, in any order. */
const ORDERS = [
  ...[[FILE, LOOP, SLICE], [FILE, SLICE, LOOP], [LOOP, FILE, SLICE]],
  ...[[LOOP, SLICE, FILE], [SLICE, FILE, LOOP], [SLICE, LOOP, FILE]],
];

function test(name: string, fn: (path: string) => Promise<void>): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      await fn(directory.path);
    },
  });
}

/** Runs something with numbers at random, again and again, each time in a directory of its own. */
async function withSeeds(
  path: string,
  run: (path: string, random: (limit: number) => number) => Promise<string>,
): Promise<void> {
  await runSeeds(RUNS, (seed) => {
    const within = `${path}/${seed}`;
    Deno.mkdirSync(within);
    return run(within, makeRandom(Math.imul(seed, 0x9e37_79b1) >>> 0));
  });
}

/** The parts `a`, `b`, … in files of whole pages. */
function filesIn(path: string, pages: readonly number[]) {
  return pages.map((count, index) => {
    const name = String.fromCharCode(97 + index);
    return { name, backend: `file:${path}/${name}?size=${count * PAGE}`, ...FILE };
  });
}

async function assertMayNotWrite(mounts: Iterable<Mount>): Promise<void> {
  for (const { file } of mounts) {
    await file.seek(0, Deno.SeekMode.Start);
    await assertRejects(async () => {
      await file.write(new Uint8Array(10));
      await file.syncData();
    });
  }
}

/** Nobody can write to those files, and each may still be read. */
async function assertGiven(path: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    await assertRejects(() => openBackend(`file:${path}/${name}`), FencedError, "given away");
    await (await openBackend(`file:${path}/${name}?readonly`)).close();
  }
}

test(`files whose program does not stop are cut at one moment, ${RUNS} times`, (path) =>
  withSeeds(path, async (path, random) => {
    const parts = filesIn(path, Array.from({ length: 2 + random(2) }, () => 1 + random(64)));
    const chunkSize = [4096, 16384, 65536][random(3)]!;
    await using seeder = await seedGroup({ parts, chunkSize, listen: LISTEN });
    // What is written to such a file is in the region when the write is answered.
    const counter = new GroupCounter(seeder.mounts.values());
    const counting = counter.go().catch((error: Error) => error);
    await using leecher = await leechGroup({
      ...{ source: seeder.url, local: `file:${path}/copy`, ...FILE },
    });
    if (random(2) === 0) await leecher.copied();
    const mounts = await leecher.finalize({ strategy: "force", maxTime: random(200) });
    assert(await counting instanceof Error, "it could go on after the region was given");
    const steps = await stepsOf(mounts.values());
    checkMoment(steps);
    assert(steps[0]! >= counter.step, `step ${counter.step} was promised to be kept`);
    await assertMayNotWrite(seeder.mounts.values());
    const next = new GroupCounter(mounts.values(), { step: steps.at(-1)! });
    await next.go(20);
    await leecher.completed();
    await seeder.released;
    assertEquals(await stepsOf(mounts.values()), parts.map(() => next.step));
    await leecher.close();
    await seeder.close();
    await assertGiven(path, parts.map(({ name }) => name));
    return `${parts.length} parts, steps ${steps.join(", ")}`;
  }));

test(`a file, a block device and memory are handed over with what the program wrote last, ${RUNS} times`, (path) =>
  withSeeds(path, async (path, random) => {
    const pages = [1 + random(64), 1 + random(64), 1 + random(64)];
    const forms = ORDERS[random(ORDERS.length)]!;
    const parts = filesIn(path, pages).map((part, index) => ({ ...part, ...forms[index]! }));
    await using seeder = await seedGroup({
      ...{ parts, listen: LISTEN },
      hooks: { onSuspend: () => counter.stop(), onResume: () => void counter.go() },
    });
    const counter = new GroupCounter(seeder.mounts.values());
    void counter.go();
    await using leecher = await leechGroup({
      ...{ source: seeder.url, local: `file:${path}/copy` },
      parts: Object.fromEntries(parts.map(({ name }, index) => [name, forms[index]!])),
    });
    const strategy = random(2) === 0 ? "wait" : "force";
    const mounts = await leecher.finalize({ strategy, maxTime: 5000, maxDowntime: 500 });
    const steps = await stepsOf(mounts.values());
    checkMoment(steps);
    assertEquals(steps.at(-1), counter.step);
    await leecher.completed();
    await seeder.released;
    return `${forms.map(({ device }) => device).join(", ")}; steps ${steps.join(", ")}`;
  }));

test("a leecher that is killed before it has the group leaves all of it where it is", async (path) => {
  const parts = filesIn(path, [20, 30]), copy = `${path}/copy`;
  let leecher: Side | undefined;
  await using seeder = await seedGroup({
    ...{ parts, listen: LISTEN },
    hooks: {
      onSuspend: async () => {
        await counter.stop();
        leecher?.kill();
        await leecher?.over;
        suspended.resolve();
      },
      onResume: () => {
        void counter.go();
        resumed.resolve();
      },
    },
  });
  const suspended = Promise.withResolvers<void>(), resumed = Promise.withResolvers<void>();
  const counter = new GroupCounter(seeder.mounts.values());
  void counter.go();
  leecher = new Side(["leech", seeder.url, `file:${copy}`], undefined, PROGRAM);
  await suspended.promise;
  assert(!leecher.has("owner"), JSON.stringify(leecher.events));
  await resumed.promise;
  await counter.stop();
  const before = counter.step;
  await counter.go(50);
  assertEquals([counter.step, seeder.stage], [before + 50, "serving"]);
  assertEquals(await stepsOf(seeder.mounts.values()), [before + 50, before + 50]);
  await assertRejects(() => openBackend(`file:${copy}`), FencedError, "not whole");
  // Whoever comes next can have it.
  leecher = undefined;
  await using next = await leechGroup({
    ...{ source: seeder.url, local: `file:${copy}`, ...FILE },
  });
  const mounts = await next.finalize();
  assertEquals(await stepsOf(mounts.values()), [before + 50, before + 50]);
  await assertMayNotWrite(seeder.mounts.values());
  await next.completed();
});

test("a group whose source is killed once it was given is given still, and completes", async (path) => {
  const listen = `telemap://127.0.0.1:${freePort()}`;
  const named = filesIn(path, [500, 600]).map(({ name, backend }) => `${name}=${backend}`);
  await using first = new Side(["seed", listen, ...named], undefined, PROGRAM);
  assert(await first.saw("ready"), JSON.stringify(first.events));
  await using leecher = await leechGroup({
    ...{ source: listen, local: `file:${path}/copy`, ...FILE },
    ...{ pullWorkers: 1, pullRate: 1 << 20 },
  });
  const mounts = await leecher.finalize({ strategy: "force", maxTime: 0 });
  const { size, localBytes } = await leecher.progress();
  assert(localBytes < size, "everything was there already");
  first.kill();
  await first.over;
  await using second = new Side(["seed", listen, ...named], undefined, PROGRAM);
  assert(await second.saw("ready"), JSON.stringify(second.events));
  assertEquals(second.events[0]?.["stage"], "given");
  checkMoment(await stepsOf(mounts.values()));
  await leecher.completed();
  assert(await second.saw("closed"), JSON.stringify(second.events));
  await assertGiven(path, ["a", "b"]);
});

test("a slice that is mapped of a file moves with a file beside it", async (path) => {
  const parts = filesIn(path, [3, 5]).map((part, index) =>
    index === 0 ? part : { ...part, as: "slice", device: "fuse" } as const
  );
  await using seeder = await seedGroup({ parts, listen: LISTEN });
  const filled = (mount: Mount, seed: number) => new Uint8Array(mount.size).fill(seed);
  await seeder.mounts.get("a")!.file.write(filled(seeder.mounts.get("a")!, 1));
  seeder.mounts.get("b")!.bytes.fill(2);
  await using leecher = await leechGroup({
    ...{ source: seeder.url, local: `file:${path}/copy`, ...FILE },
    parts: { b: { as: "slice", device: "fuse" } },
  });
  const mounts = await leecher.finalize();
  const a = mounts.get("a")!, b = mounts.get("b")!, content = new Uint8Array(a.size);
  for (let done = 0; done < a.size;) done += (await a.file.read(content.subarray(done)))!;
  assertEquals([content, b.bytes.slice()], [filled(a, 1), filled(b, 2)]);
  await leecher.completed();
});

test("a group moves on from where it came to, and is found again there", async (path) => {
  const parts = filesIn(path, [10, 20]);
  const copy = `file:${path}/copy`;
  {
    await using seeder = await seedGroup({ parts, listen: LISTEN });
    await new GroupCounter(seeder.mounts.values()).go(33);
    await using leecher = await leechGroup({ source: seeder.url, local: copy, ...FILE });
    const mounts = await leecher.finalize();
    const paths = [...mounts.values()].map(({ path }) => path);
    await using next = await leecher.seed({ listen: LISTEN });
    assertEquals([...next.mounts.values()].map(({ path }) => path), paths);
    await using last = await leechGroup({ source: next.url, local: "memory:", ...FILE });
    // It stays here, as nobody takes it over there.
    await last.copied();
    await new GroupCounter(next.mounts.values(), { step: 33 }).go(10);
  }
  const named = parts.map(({ name }) => ({ name, ...FILE }));
  await using again = await seedGroup({ parts: named, region: copy, listen: LISTEN });
  assertEquals(await stepsOf(again.mounts.values()), [43, 43]);
});

test("a group of which a device is in use stays, and can be closed later", async (path) => {
  const parts = filesIn(path, [3, 4]).map((part) => ({ ...part, ...LOOP }));
  await using seeder = await seedGroup({ parts, listen: LISTEN });
  await using leecher = await leechGroup({
    ...{ source: seeder.url, local: `file:${path}/copy`, ...LOOP },
  });
  const mounts = await leecher.finalize();
  await leecher.completed();
  for (const [group, held] of [[seeder, seeder.mounts], [leecher, mounts]] as const) {
    // As a file system on it would.
    const fd = await openAsync(held.get("a")!.path, O.RDONLY | O.EXCL);
    const error = await assertRejects(() => group.close(), TelemapError, "in use");
    assertEquals(error.code, "EBUSY");
    await closeAsync(fd);
    await group.close();
    for (const { path } of held.values()) assertEquals(boundFile(path), undefined);
  }
});

test("a group that cannot be is refused", async (path) => {
  const refuse = async (options: Partial<SeedGroupOptions>, refusal: string) => {
    const parts = filesIn(path, [1, 1]);
    await assertRejects(
      () => seedGroup({ parts, listen: LISTEN, ...options }),
      UsageError,
      refusal,
    );
  };
  const [a, b] = filesIn(path, [1, 1]);
  await refuse({ parts: [] }, "0 parts");
  await refuse({ parts: [a!, { ...b!, name: "a" }] }, "two parts of the name a");
  await refuse({ parts: [{ name: "a", ...FILE }] }, "without a backend");
  await refuse({ region: "memory:1MiB" }, "backend of their own");
  await refuse({ region: "memory:1MiB", parts: [{ name: "a", ...FILE }] }, "no group");
  await refuse({ parts: [{ ...a!, ...SLICE }, { ...b!, as: "slice" }] }, "the same device");
  await using seeder = await seedGroup({ parts: [a!, b!], listen: LISTEN });
  const leech = { source: seeder.url, local: `file:${path}/copy` };
  await assertRejects(
    () => leechGroup({ ...leech, ...FILE, parts: { c: FILE } }),
    UsageError,
    "the group has a, b",
  );
  {
    // It goes on with what was begun.
    await using leecher = await leechGroup({ ...leech, ...FILE, parts: { b: FILE } });
    await leecher.copied();
  }
  await using single = await Seeder.open({ backend: "memory:1MiB", listen: LISTEN, ...FILE });
  await assertRejects(
    () => leechGroup({ source: single.url, local: `file:${path}/other` }),
    UsageError,
    "no group",
  );
  assertEquals(existsSync(`${path}/other`), false);
  // It is one region for who does not ask for its parts.
  await using whole = await Leecher.open({ ...leech, local: "memory:", ...FILE });
  await whole.copied();
});
