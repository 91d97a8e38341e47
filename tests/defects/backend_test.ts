/**
 * What stores promise those who mount them, and what implementations of such mounts are known to
 * break: stale bytes in place of holes and of failed reads, and data that opening damages.
 */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { SystemError } from "../../ffi/errno.ts";
import { openLibc } from "../../ffi/libc.ts";
import { O } from "../../ffi/file.ts";
import type { Awaitable, Backend } from "../../lib/backend/backend.ts";
import { openDirectory } from "../../lib/backend/directory.ts";
import { DiskFile } from "../../lib/backend/disk_file.ts";
import {
  IntegrityError,
  ProtocolError,
  RemoteError,
  UsageError,
} from "../../lib/backend/errors.ts";
import { openFile } from "../../lib/backend/file.ts";
import { openHttps } from "../../lib/backend/https.ts";
import { openMemory } from "../../lib/backend/memory.ts";
import { OpenFiles } from "../../lib/backend/open_files.ts";
import { alignBackend } from "../../lib/chunk/align.ts";
import { CacheStage } from "../../lib/chunk/cache.ts";
import { assertBytes, pattern, readBack } from "../backend_model.ts";
import { BlockBackend } from "../block_backend.ts";
import { type RawReply, ScriptedServer } from "../http/scripted_server.ts";

openLibc();

const CHUNK = 4096, SIZE = 16 * CHUNK;

async function inDirectory(run: (path: string) => Promise<void>): Promise<void> {
  const path = Deno.makeTempDirSync();
  try {
    await run(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

const STORES: Record<string, (path: string) => Backend> = {
  "memory": () => openMemory({ size: SIZE }),
  "a file": (path) => openFile({ path: `${path}/file`, size: SIZE }),
  "a directory": (path) => openDirectory({ path: `${path}/dir`, size: SIZE, chunkSize: CHUNK }),
  "aligned blocks": () => alignBackend(new BlockBackend({ size: SIZE, blockSize: CHUNK, seed: 1 })),
  "a cache": () =>
    new CacheStage({
      ...{ remote: openMemory({ size: SIZE }), local: openMemory({ size: SIZE }) },
      chunkSize: CHUNK,
    }),
};

for (const [name, open] of Object.entries(STORES)) {
  Deno.test(`${name}: a hole is zeroes, whatever the buffer held before`, () =>
    inDirectory(async (path) => {
      await using store = open(path);
      await store.writeAt(pattern(CHUNK, 1), 2 * CHUNK);
      const expected = new Uint8Array(SIZE);
      expected.set(pattern(CHUNK, 1), 2 * CHUNK);
      const buffer = new Uint8Array(100);
      for (const at of [2 * CHUNK, CHUNK - 50, 3 * CHUNK - 50, 9 * CHUNK, SIZE - 100]) {
        await store.readAt(buffer, at);
        assertBytes(buffer, expected.subarray(at, at + 100), `What is read at ${at}`);
      }
      assertBytes(await readBack(store, 0, SIZE), expected, "The region");
    }));
}

Deno.test("a store that became shorter is an error, not what the buffer held", () =>
  inDirectory(async (path) => {
    await using store = openFile({ path: `${path}/file`, size: SIZE });
    await store.writeAt(pattern(SIZE, 1), 0);
    Deno.truncateSync(`${path}/file`, CHUNK + 10);
    await assertRejects(() => readBack(store, CHUNK, CHUNK), IntegrityError, "shrank");
  }));

Deno.test("a write into a block that cannot be read fails, and changes nothing", async () => {
  const blocks = new BlockBackend({ size: SIZE, blockSize: CHUNK });
  await blocks.writeAt(pattern(SIZE, 2), 0);
  const aligned = alignBackend(blocks);
  const read = blocks.readAt.bind(blocks);
  blocks.readAt = (): Awaitable<void> => Promise.reject(new Error("a bad sector"));
  const write = async () => await aligned.writeAt(new Uint8Array(10), CHUNK - 5);
  await assertRejects(write, Error, "a bad sector");
  blocks.readAt = read;
  assertBytes(await readBack(blocks, 0, SIZE), pattern(SIZE, 2), "The region");
  await aligned.close();
});

Deno.test("writes side by side to one block of a store are all kept", async () => {
  const blocks = new BlockBackend({ size: SIZE, blockSize: CHUNK, seed: 3 });
  const aligned = alignBackend(blocks);
  const bytes = pattern(2 * CHUNK, 3), PART = 100;
  await Promise.all(Array.from({ length: Math.ceil(bytes.length / PART) }, async (_, part) => {
    await aligned.writeAt(bytes.slice(part * PART, (part + 1) * PART), part * PART);
  }));
  assertBytes(await readBack(aligned, 0, bytes.length), bytes, "The blocks");
  await aligned.close();
});

const FACTS = { "accept-ranges": "bytes", etag: '"a"', "content-length": `${SIZE}` };
const NOTHING = new Uint8Array(0);
const RANGE = { ...FACTS, "content-range": `bytes 0-99/${SIZE}` };
const ANSWERS: [what: string, reply: RawReply, typeof RemoteError | typeof ProtocolError][] = [
  ["no access", { status: 403, headers: {}, body: NOTHING }, RemoteError],
  ["that nothing is there", { status: 404, headers: {}, body: NOTHING }, RemoteError],
  ["no content", { status: 204, headers: FACTS, body: NOTHING }, RemoteError],
  [
    "fewer bytes than asked for",
    { status: 206, headers: { ...RANGE, "content-length": "50" }, body: pattern(50, 4) },
    ProtocolError,
  ],
];
for (const [what, reply, ErrorClass] of ANSWERS) {
  Deno.test(`an object's server answers ${what}: the read fails, and shows no bytes`, async () => {
    await using server = new ScriptedServer(({ method }) =>
      method === "HEAD" ? { status: 200, headers: FACTS, body: NOTHING } : reply
    );
    await using object = await openHttps(server.url, { readTimeout: 2000, log: () => {} });
    await assertRejects(() => readBack(object, 0, 100), ErrorClass);
  });
}

Deno.test("a directory is not opened by another chunk size, and opening and reading change nothing", () =>
  inDirectory(async (dir) => {
    const path = `${dir}/store`;
    const made = openDirectory({ path, size: SIZE, chunkSize: 4 * CHUNK });
    await made.writeAt(pattern(4 * CHUNK, 5), 0);
    await made.close();
    assertThrows(() => openDirectory({ path, chunkSize: CHUNK }), UsageError, "chunk 16KiB");
    await using store = openDirectory({ path });
    const expected = new Uint8Array(SIZE);
    expected.set(pattern(4 * CHUNK, 5));
    assertBytes(await readBack(store, 0, SIZE), expected, "The region");
    const files = [...Deno.readDirSync(`${path}/0`)].map(({ name }) => name);
    assertEquals(files.map((name) => Deno.statSync(`${path}/0/${name}`).size), [4 * CHUNK]);
  }));

/** Notes when it is synced, and closed. */
class NotedFile extends DiskFile {
  readonly #log: string[];

  constructor(path: string, log: string[]) {
    super(path, O.RDWR | O.CREAT, { inMemory: false });
    this.#log = log;
  }

  override async sync(): Promise<void> {
    await super.sync();
    this.#log.push("synced");
  }

  override close(): Awaitable<void> {
    this.#log.push(this.dirty ? "closed dirty" : "closed");
    return super.close();
  }
}

Deno.test("a file that makes room for others is synced before it is closed", () =>
  inDirectory(async (path) => {
    const files = new OpenFiles(1);
    const logs: string[][] = [[], []];
    for (const [key, log] of logs.entries()) {
      const open = () => new NotedFile(`${path}/${key}`, log);
      await files.use(key, open, (file) => file.write(pattern(10, key), 0));
    }
    assertEquals(logs, [["synced", "closed"], []]);
    await files.close();
  }));

Deno.test("what a store has no object of arrives as zeroes, over whatever was there before", () =>
  inDirectory(async (path) => {
    const remote = openDirectory({ path: `${path}/store`, size: SIZE, chunkSize: CHUNK });
    await remote.writeAt(pattern(CHUNK, 1), 5 * CHUNK);
    const local = openMemory({ size: SIZE });
    local.writeAt(pattern(SIZE, 2), 0);
    await using cache = new CacheStage({ remote, local, chunkSize: CHUNK });
    assertBytes(await readBack(cache, 5 * CHUNK, CHUNK), pattern(CHUNK, 1), "What is there");
    // In the buffer that this came by.
    assertBytes(await readBack(cache, 9 * CHUNK, CHUNK), new Uint8Array(CHUNK), "What is not");
    const expected = new Uint8Array(SIZE);
    expected.set(pattern(CHUNK, 1), 5 * CHUNK);
    await cache.pull().complete();
    assertBytes(await readBack(cache, 0, SIZE), expected, "The region");
  }));

Deno.test("an object that somebody removed from a store is an error, not what a buffer held", () =>
  inDirectory(async (path) => {
    await using store = openDirectory({ path, size: SIZE, chunkSize: CHUNK, maxOpen: 1 });
    for (const chunk of [0, 1]) await store.writeAt(pattern(CHUNK, chunk), chunk * CHUNK);
    await store.flush();
    Deno.removeSync(`${path}/0/0`);
    const error = await assertRejects(() => readBack(store, 10, 100), SystemError);
    assertEquals(error.code, "ENOENT");
  }));
