/**
 * A managed mount and the server of its remote, real processes of which either is killed at any
 * moment, while programs write to the file and sync it: what an fsync promised is there when both
 * run again, in the mount or at the remote, as the durability says.
 *
 * Set TELEMAP_CRASH_RUNS for more lives than are fit for every day, TELEMAP_SEED for those of another
 * time, as far as the processes' own timing lets them come back.
 *
 * @module
 */
import { assert, assertEquals, AssertionError } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { bytesOf, CrashBooks, UNIT } from "../crash_books.ts";
import { requires, withReason } from "../requires.ts";
import { TelemapProcess } from "../telemap_process.ts";
import { temporaryDirectory } from "./command.ts";
import { makeRandom, runSeeds } from "./random.ts";
import { startServer } from "./served_region.ts";

openLibc();

const RUNS = Number(Deno.env.get("TELEMAP_CRASH_RUNS") ?? 5);
/** No multiple of a chunk. */
const SIZE = (1 << 20) + 9 * UNIT;
const UNITS = SIZE / UNIT;
const PROGRAMS = 3;
const needs = requires("root", "/dev/fuse");

type Durability = "local" | "remote";
type Random = (limit: number) => number;

/** The server of a region, which is killed and started again at one address. */
class Server {
  url: string | undefined;
  readonly #backend: string;
  #process: TelemapProcess | undefined;

  constructor(backend: string) {
    this.#backend = backend;
  }

  async start(): Promise<void> {
    if (this.#process !== undefined) return;
    const { process, url } = await startServer(this.#backend, this.url);
    this.#process = process;
    this.url = url;
  }

  async kill(): Promise<void> {
    await this.#process?.[Symbol.asyncDispose]();
    this.#process = undefined;
  }
}

/** Mounts the remote behind a cache; answers the process, and the path of the file. */
async function mount(
  remote: string,
  cache: string,
  durability: Durability,
  random: Random,
): Promise<{ process: TelemapProcess; path: string }> {
  const process = new TelemapProcess([
    ...["mount", remote, "--managed", "--cache", cache, "--chunk", "4KiB", "--device", "fuse"],
    ...["--durability", durability, "--push-interval", ["30ms", "20s"][random(2)]!],
    ...["--pull-workers", `${random(3)}`, "--json"],
  ]);
  try {
    const { path } = await process.next();
    return { process, path: `${path}` };
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
}

/** A program that reads, writes and syncs the file until that fails; answers how it did. */
async function useFile(
  path: string,
  books: CrashBooks,
  durability: Durability,
  random: Random,
): Promise<number> {
  let done = 0;
  try {
    using file = await Deno.open(path, { read: true, write: true });
    for (;; done++) {
      const from = random(UNITS), to = Math.min(from + 1 + random([3, 90][random(2)]!), UNITS);
      const what = random(10);
      await file.seek(from * UNIT, Deno.SeekMode.Start);
      if (what === 0) {
        const promise = books.flush();
        await file.sync();
        promise({ remotely: durability === "remote" });
      } else if (what < 4) {
        const check = books.read(from, to);
        const bytes = new Uint8Array((to - from) * UNIT);
        if (await readFully(file, bytes)) check(bytes);
      } else if (!books.busy(from, to)) {
        const written = books.begin(from, to, random(8) === 0);
        const bytes = bytesOf(written);
        const count = await file.write(bytes);
        books.end(written, count === bytes.length);
      }
    }
  } catch (error) {
    if (error instanceof AssertionError) throw error;
    return done;
  }
}

async function readFully(file: Deno.FsFile, bytes: Uint8Array): Promise<boolean> {
  for (let at = 0; at < bytes.length;) {
    const count = await file.read(bytes.subarray(at));
    if (count === null) return false;
    at += count;
  }
  return true;
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function run(seed: number): Promise<string> {
  const random = makeRandom(seed);
  using directory = temporaryDirectory();
  const region = `${directory.path}/region`, cache = `file:${directory.path}/cache`;
  const books = new CrashBooks(UNITS);
  const server = new Server(`file:${region}?size=${SIZE}`);
  let steps = 0;
  try {
    for (let life = 0; life < RUNS; life++) {
      await server.start();
      const durability = random(2) === 0 ? "local" : "remote";
      const { process, path } = await mount(server.url!, cache, durability, random);
      await using _process = process;
      if (random(2) === 0) books.checkMount(0, await Deno.readFile(path));
      const programs = Promise.allSettled(
        Array.from({ length: PROGRAMS }, () => useFile(path, books, durability, random)),
      );
      await pause(random(300));
      if (random(2) === 0) {
        await server.kill();
        books.checkRemote(await Deno.readFile(region));
        await pause(random(100));
        if (random(2) === 0) await server.start();
        await pause(random(200));
      }
      process.kill("SIGKILL");
      for (const result of await programs) {
        if (result.status === "rejected") throw result.reason;
        steps += result.value;
      }
      await process.end();
      books.crashed();
      if (random(2) === 0) await server.kill();
    }
    await server.start();
    const { process, path } = await mount(server.url!, cache, "remote", random);
    await using _process = process;
    const bytes = await Deno.readFile(path);
    books.checkMount(0, bytes);
    process.kill("SIGTERM");
    const { code, err } = await process.end();
    assertEquals({ code, err }, { code: 0, err: "" });
    assertEquals(await Deno.readFile(region), bytes, "the remote alone is what the mount was");
    assert(steps > 0);
    return `${RUNS} lives, ${steps} steps`;
  } finally {
    await server.kill();
  }
}

Deno.test({
  name: withReason("a managed mount keeps what fsync promised, whoever is killed", needs),
  ignore: needs.ignore,
  fn: () => runSeeds(1, run),
});
