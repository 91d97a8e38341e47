/**
 * Managed mounts of a region that another process serves, as every form.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { ChangedError, type ManagedMountOptions, mountManaged } from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { temporaryDirectory } from "./command.ts";
import { startServer } from "./served_region.ts";

openLibc();

const MIB = 1 << 20;
const SIZE = 4 * MIB + 1000;
const needs = requires("root", "/dev/fuse", "/dev/userfaultfd");

interface Place {
  directory: string;
  /** The file that the server serves. */
  region: string;
  content: Uint8Array<ArrayBuffer>;
  url: string;
  /** Kills the server, and answers how to start it again at its address. */
  killServer(): Promise<() => Promise<void>>;
}

function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(at + 65536, length)));
  }
  return bytes;
}

function test(name: string, fn: (place: Place) => Promise<void>): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    async fn() {
      using directory = temporaryDirectory();
      const region = `${directory.path}/region`;
      const content = randomBytes(SIZE);
      await Deno.writeFile(region, content);
      let server = await startServer(`file:${region}`);
      const { url } = server;
      const killServer = async () => {
        server.process.kill("SIGKILL");
        await server.process.end();
        return async () => void (server = await startServer(`file:${region}`, url));
      };
      try {
        await fn({ directory: directory.path, region, content, url, killServer });
      } finally {
        await server.process[Symbol.asyncDispose]();
      }
    },
  });
}

const FORMS: Record<string, Pick<ManagedMountOptions, "as" | "device">> = {
  "a file by fuse": { as: "file", device: "fuse" },
  "a slice by fuse": { as: "slice", device: "fuse" },
  "a slice by userfault": { as: "slice", device: "userfault" },
};

for (const [form, options] of Object.entries(FORMS)) {
  test(`managed as ${form}: what was written reaches the remote with sync, and stays in the cache`, async (place) => {
    const local = `file:${place.directory}/cache`;
    const change = randomBytes(100_000);
    {
      await using mount = await mountManaged({
        remote: place.url,
        local,
        pushInterval: 0,
        ...options,
      });
      if (options.as === "file") {
        await mount.file.seek(MIB + 7, Deno.SeekMode.Start);
        await mount.file.write(change);
      } else {
        mount.bytes.set(change, MIB + 7);
      }
      await mount.sync();
      place.content.set(change, MIB + 7);
      assertEquals(await Deno.readFile(place.region), place.content);
      assertEquals((await mount.progress()).dirtyBytes, 0);
      await mount.filled();
    }
    const restart = await place.killServer();
    await restart();
    await using again = await mountManaged({
      remote: place.url,
      local,
      pullWorkers: 0,
      ...options,
    });
    const { localBytes, closedInOrder } = await again.progress();
    assertEquals([localBytes, closedInOrder], [SIZE, true]);
    const found = options.as === "file" ? await Deno.readFile(again.path) : again.bytes.slice();
    assertEquals(found, place.content);
  });
}

test("managed: hooks are called, and told of every byte that came", async ({ url, directory }) => {
  const calls: string[] = [];
  let told = 0;
  const mount = await mountManaged({
    remote: url,
    local: `dir:${directory}/cache`,
    as: "file",
    pullFirst: true,
    pullPriority: (offset) => offset,
    hooks: {
      onBeforeSync: () => void calls.push("sync"),
      onBeforeClose: () => void calls.push("close"),
      onChunkIsLocal: (offset, length) => {
        if (told === 0) assertEquals(offset, 4 * MIB, "the last chunk comes first");
        told += length;
      },
    },
  });
  assertEquals(told, SIZE);
  await mount.sync();
  await mount.close();
  assertEquals(calls, ["sync", "close"]);
});

test("managed: a remote that is away takes what is owed when it is back", async (place) => {
  const local = `file:${place.directory}/cache`;
  const options = { remote: place.url, local, as: "file", pushInterval: 0 } as const;
  const mount = await mountManaged({ ...options, pullFirst: true, closeMs: 500 });
  const restart = await place.killServer();
  const change = randomBytes(5000);
  await mount.file.write(change);
  await mount.file.syncData();
  place.content.set(change);
  assertEquals(await Deno.readFile(mount.path), place.content);
  const error = await assertRejects(() => mount.close());
  assertStringIncludes((error as Error).message, "Cannot bring 65536 bytes to the remote");
  await restart();
  await using again = await mountManaged(options);
  assertEquals((await again.progress()).dirtyBytes, 65536);
  await again.sync();
  assertEquals(await Deno.readFile(place.region), place.content);
});

test("managed: a cache of another region is refused", async ({ url, directory }) => {
  const local = `file:${directory}/cache`;
  await using first = await mountManaged({ remote: url, local, as: "file" });
  await assertRejects(() => mountManaged({ remote: url, local, as: "file" }), Error, "in use");
  await first.close();
  const other = { remote: `pattern:${SIZE}`, local, as: "file" } as const;
  await assertRejects(() => mountManaged(other), ChangedError, "another remote");
  await using mount = await mountManaged({ ...other, discardCache: true });
  assert(mount.readOnly);
});
