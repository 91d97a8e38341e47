/** The NBD client against the servers of nbdkit and QEMU, old and new, good and bad. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { IntegrityError, ReadOnlyError, RemoteError } from "../../lib/backend/errors.ts";
import { connectNbd, type NbdBackend } from "../../lib/nbd/client.ts";
import { describeExport, listExports } from "../../lib/nbd/client_open.ts";
import { parseAddress } from "../../lib/net/address.ts";
import { testBackend } from "../backend_conformance.ts";
import { pattern } from "../backend_model.ts";
import { requires, withReason } from "../requires.ts";
import { NbdServerProcess } from "./nbd_server_process.ts";

openLibc();

const MIB = 1 << 20;
const nbdkit = requires("nbdkit");
const qemu = requires("qemu-nbd");

function test(name: string, needs: typeof nbdkit, fn: (folder: string) => Promise<void>): void {
  Deno.test({
    name: withReason(name, needs),
    ignore: needs.ignore,
    fn: async () => {
      const folder = await Deno.makeTempDir();
      try {
        await fn(folder);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

const SERVERS: [name: string, args: string[]][] = [
  ["nbdkit memory", ["memory", "5M"]],
  ["nbdkit without structured replies", ["--no-sr", "memory", "5M"]],
  ["nbdkit with the oldest newstyle handshake", ["--mask-handshake=0", "memory", "5M"]],
  ["nbdkit without extents", ["--filter=noextents", "memory", "5M"]],
  ["nbdkit without zeroing", ["--filter=nozero", "memory", "5M"]],
  ["nbdkit with blocks of 4096", [
    "--filter=blocksize-policy",
    "memory",
    "5M",
    "blocksize-minimum=4096",
    "blocksize-preferred=4096",
    "blocksize-maximum=64K",
    "blocksize-error-policy=error",
  ]],
];
for (const [name, args] of SERVERS) {
  let folder: string;
  let server: NbdServerProcess;
  testBackend(name, {
    requires: nbdkit,
    runs: 15,
    open: async () => {
      folder = await Deno.makeTempDir();
      server = await NbdServerProcess.nbdkit(folder, ...args);
      return await connectNbd(server.url);
    },
    reopen: () => connectNbd(server.url),
    remove: async () => {
      await server.kill();
      await Deno.remove(folder, { recursive: true });
    },
  });
}

const SHAPES: [name: string, args: string[], options: { connections?: number }][] = [
  ["qemu-nbd", [], {}],
  ["qemu-nbd with several connections", ["--shared=4"], { connections: 4 }],
];
for (const [name, args, options] of SHAPES) {
  let folder: string;
  let server: NbdServerProcess;
  testBackend(name, {
    requires: qemu,
    runs: 15,
    open: async () => {
      folder = await Deno.makeTempDir();
      await Deno.writeFile(`${folder}/disk`, new Uint8Array(0));
      await Deno.truncate(`${folder}/disk`, 5 * MIB + 512);
      server = await NbdServerProcess.qemu(
        folder,
        ...args,
        "--format=raw",
        "--discard=unmap",
        `${folder}/disk`,
      );
      return await connectNbd(server.url, options);
    },
    reopen: () => connectNbd(server.url, options),
    remove: async () => {
      await server.kill();
      await Deno.remove(folder, { recursive: true });
    },
  });
}

test("an export is described and listed", nbdkit, async (folder) => {
  await using server = await NbdServerProcess.nbdkit(
    folder,
    "--readonly",
    "--filter=exportname",
    "memory",
    "1M",
    "exportname=first",
    "exportname=second",
    "exportdesc=fixed:Some bytes",
    "exportname-list=explicit",
  );
  const address = parseAddress(server.url);
  assertEquals(await listExports(address), [
    { name: "first", description: "Some bytes" },
    { name: "second", description: "Some bytes" },
  ]);
  const found = await describeExport({ ...address, name: "second" });
  assertEquals(found.size, MIB);
  assertEquals(found.name, "second");
  assertEquals(found.description, "Some bytes");
  assertEquals(found.structured, true);
  await using backend = await connectNbd(server.url);
  assertEquals(backend.readOnly, true);
  assertThrows(() => backend.writeAt(new Uint8Array(1), 0), ReadOnlyError);
});

test("an export that is not there is said to be so", nbdkit, async (folder) => {
  await using server = await NbdServerProcess.nbdkit(
    folder,
    "--filter=exportname",
    "memory",
    "1M",
    "exportname=only",
    "exportname-strict=true",
  );
  const address = { ...parseAddress(server.url), name: "other" };
  const error = await assertRejects(() => connectNbd(address), RemoteError);
  assertEquals(error.code, "ENOENT");
});

test("an error of the server is the error of that call alone", nbdkit, async (folder) => {
  await using server = await NbdServerProcess.nbdkit(
    folder,
    "--filter=error",
    "memory",
    "1M",
    "error-pwrite=ENOSPC",
    "error-pwrite-rate=50%",
  );
  await using backend = await connectNbd(server.url);
  const results = await Promise.allSettled(
    Array.from({ length: 200 }, (_, at) => backend.writeAt(new Uint8Array(512).fill(1), at * 512)),
  );
  const failed = results.filter((result) => result.status === "rejected");
  assert(failed.length > 50 && failed.length < 150, `${failed.length} of 200 failed`);
  for (const { reason } of failed) {
    assert(reason instanceof RemoteError);
    assertEquals(reason.code, "ENOSPC");
  }
  const buffer = new Uint8Array(512);
  for (const [at, result] of results.entries()) {
    await backend.readAt(buffer, at * 512);
    assertEquals(buffer[0], result.status === "fulfilled" ? 1 : 0);
  }
});

test("answers that come late and out of order find their requests", nbdkit, async (folder) => {
  await using server = await NbdServerProcess.nbdkit(
    folder,
    "--filter=delay",
    "pattern",
    "64M",
    "delay-read=20ms",
  );
  await using backend = await connectNbd(server.url);
  const start = performance.now();
  await Promise.all(Array.from({ length: 64 }, async (_, index) => {
    const offset = index * 999 * 8;
    const buffer = new Uint8Array(512 + index * 8);
    await backend.readAt(buffer, offset);
    const view = new DataView(buffer.buffer);
    for (let at = 0; at < buffer.length; at += 8) {
      assertEquals(view.getBigUint64(at), BigInt(offset + at));
    }
  }));
  assert(performance.now() - start < 64 * 20, "64 reads of 20 ms each go side by side");
});

test(
  "killed amid pipelined writes, the server is back and nothing is missing",
  nbdkit,
  async (folder) => {
    await Deno.writeFile(`${folder}/disk`, new Uint8Array(0));
    await Deno.truncate(`${folder}/disk`, 16 * MIB);
    await using server = await NbdServerProcess.nbdkit(folder, "file", `${folder}/disk`);
    const lines: string[] = [];
    await using backend = await connectNbd(server.url, { log: (line) => lines.push(line) });
    const data = pattern(16 * MIB, 1);
    const kills = [2, 5, 9];
    let done = 0;
    let next = 0;
    let restarting = Promise.resolve();
    await Promise.all(Array.from({ length: 48 }, async () => {
      while (next < data.length) {
        const length = Math.min(next % 5 === 0 ? 40_000 : 3000, data.length - next);
        const offset = next;
        next += length;
        await backend.writeAt(data.subarray(offset, offset + length), offset);
        done += length;
        if (done > (kills[0] ?? Infinity) * MIB) {
          kills.shift();
          restarting = restarting.then(() => server.restart());
        }
      }
    }));
    await restarting;
    assertEquals(kills, []);
    // The host's page cache survived, so that nothing is lost; but a client cannot know that.
    await assertRejects(() => backend.flush(), IntegrityError, "may have lost writes");
    await backend.flush();
    assertEquals(await readAll(backend), data);
    assertEquals(await Deno.readFile(`${folder}/disk`), data);
    assert(lines.some((line) => line.startsWith("Lost the connection")), lines.join("\n"));
    assert(lines.some((line) => line.includes("again")), lines.join("\n"));
  },
);

test("a server that ends between calls is reconnected by the next", nbdkit, async (folder) => {
  await Deno.writeFile(`${folder}/disk`, pattern(MIB, 2));
  await using server = await NbdServerProcess.nbdkit(folder, "file", `${folder}/disk`);
  await using backend = await connectNbd(server.url, { log: () => {} });
  await server.restart();
  await backend.flush();
  assertEquals(await readAll(backend), pattern(MIB, 2));
});

test("an export that changed meanwhile is not taken for the old one", nbdkit, async (folder) => {
  await Deno.writeFile(`${folder}/disk`, new Uint8Array(MIB));
  await using server = await NbdServerProcess.nbdkit(folder, "file", `${folder}/disk`);
  await using backend = await connectNbd(server.url, { log: () => {} });
  await Deno.truncate(`${folder}/disk`, 2 * MIB);
  await server.restart();
  await assertRejects(
    () => backend.readAt(new Uint8Array(1), 0),
    IntegrityError,
    "its size was 1048576, is 2097152",
  );
});

async function readAll(backend: NbdBackend): Promise<Uint8Array> {
  const buffer = new Uint8Array(backend.size);
  await backend.readAt(buffer, 0);
  return buffer;
}
