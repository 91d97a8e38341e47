/** Clients of other projects on the NBD server: libnbd's tools, QEMU's, fio, nbd-client, nbdkit. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { openLibc } from "../../ffi/libc.ts";
import { serve } from "../../lib/host/serve.ts";
import { pattern } from "../backend_model.ts";
import { requires } from "../requires.ts";
import { TelemapProcess } from "../telemap_process.ts";
import { run, tryRun } from "./command.ts";
import { NbdServerProcess } from "./nbd_server_process.ts";
import { serveAt, test } from "./served_folder.ts";

openLibc();

const MIB = 1 << 20;
const libnbd = requires("nbdinfo", "nbdcopy");
const qemuImage = requires("qemu-img");
const qemuIo = requires("qemu-io");

/** Writes an image of `size` bytes with data and holes, and answers its path. */
async function makeImage(folder: string, size: number): Promise<string> {
  const path = `${folder}/image`;
  using file = await Deno.open(path, { create: true, write: true });
  await file.truncate(size);
  const parts = [[0, 3 * MIB], [10 * MIB + 4096, 100_000], [size / 2, MIB], [size - 5, 5]];
  for (const [offset, length] of parts as [number, number][]) {
    await file.seek(offset, Deno.SeekMode.Start);
    for (let at = 0; at < length;) {
      at += await file.write(pattern(length, offset % 251).subarray(at));
    }
  }
  return path;
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  using file = await Deno.open(path);
  for await (const bytes of file.readable) hash.update(bytes);
  return hash.digest("hex");
}

test("nbdinfo reads what the server offers", libnbd, async (folder) => {
  const options = { name: "disk", description: "a region of telemap" };
  await using server = await serveAt(folder, "memory:256MiB", options);
  const { url } = server;
  assertEquals((await run("nbdinfo", "--size", url)).trim(), `${256 * MIB}`);
  const info = JSON.parse(await run("nbdinfo", "--json", url));
  assertEquals([info.protocol, info.TLS, info.structured], ["newstyle-fixed", false, true]);
  const { contexts, ...offered } = info.exports[0];
  assertEquals(contexts, ["base:allocation"]);
  const expected: Record<string, unknown> = {
    "export-name": "disk",
    description: "a region of telemap",
    "export-size": 256 * MIB,
    is_rotational: false,
    is_read_only: false,
    can_cache: true,
    can_df: true,
    can_fast_zero: true,
    can_flush: true,
    can_fua: true,
    can_multi_conn: true,
    can_trim: true,
    can_zero: true,
    block_size_minimum: 1,
    block_size_preferred: 4096,
    block_size_maximum: 32 * MIB,
  };
  for (const [key, value] of Object.entries(expected)) assertEquals(offered[key], value, key);
  const list = JSON.parse(await run("nbdinfo", "--list", "--json", url));
  assertEquals(list.exports.map((one: Record<string, unknown>) => one["export-name"]), ["disk"]);
});

test("nbdinfo can do all there is to do, on a read-only export less", libnbd, async (folder) => {
  const abilities = ["connect", "read", "cache", "df", "flush", "fua", "multi-conn"];
  const changes = ["write", "trim", "zero", "fast-zero"];
  for (const readOnly of [false, true]) {
    await using server = await serveAt(folder, "memory:1MiB", { readOnly });
    for (const ability of [...abilities, ...changes, "structured-reply"]) {
      const { code } = await tryRun("nbdinfo", ["--can", ability, server.url]);
      assertEquals(code, readOnly && changes.includes(ability) ? 2 : 0, ability);
    }
    const { code } = await tryRun("nbdinfo", ["--is", "read-only", server.url]);
    assertEquals(code, readOnly ? 0 : 2);
  }
});

test("nbdinfo maps what was written", libnbd, async (folder) => {
  const image = await makeImage(folder, 64 * MIB);
  await using server = await serveAt(folder, `file:${image}`);
  const map: { offset: number; length: number; type: number }[] = JSON.parse(
    await run("nbdinfo", "--map", "--json", server.url),
  );
  let at = 0;
  for (const { offset, length } of map) {
    assertEquals(offset, at);
    at += length;
  }
  assertEquals(at, 64 * MIB);
  const typeAt = (offset: number) =>
    map.find((run) => run.offset <= offset && offset < run.offset + run.length)!.type;
  const offsets = [0, 3 * MIB - 1, 5 * MIB, 10 * MIB + 5000, 20 * MIB, 32 * MIB, 64 * MIB - 1];
  assertEquals(offsets.map(typeAt), [0, 0, 3, 0, 3, 0, 0]);
  assertMatch(await run("nbdinfo", "--map", "--totals", server.url), /hole,zero/);
});

test("nbdinfo knows a region of many terabytes", libnbd, async (folder) => {
  const path = `${folder}/sparse`;
  using file = await Deno.open(path, { create: true, write: true });
  const size = 8 * 2 ** 40;
  await file.truncate(size);
  await file.seek(5 * 2 ** 40, Deno.SeekMode.Start);
  await file.write(pattern(4096, 1));
  await using server = await serveAt(folder, `file:${path}`);
  assertEquals((await run("nbdinfo", "--size", server.url)).trim(), `${size}`);
  const totals = await run("nbdinfo", "--map", "--totals", server.url);
  assertMatch(totals, /^ *4096 .* 0 +data$/m);
});

for (const store of ["memory", "file", "dir"]) {
  test(`nbdcopy copies to ${store} and back`, libnbd, async (folder) => {
    const size = 80 * MIB;
    const image = await makeImage(folder, size);
    const sum = await sha256(image);
    const backends: Record<string, string> = {
      memory: `memory:${size}`,
      file: `file:${folder}/region?size=${size}`,
      dir: `dir:${folder}/region?size=${size}&chunk=1MiB`,
    };
    await using server = await serveAt(folder, backends[store]);
    const { url } = server;
    const ways = [
      ["--connections=4", "--threads=2", "--requests=64", "--request-size=1048576"],
      ["--flush", "--allocated"],
      ["--synchronous", "--request-size=65536"],
      ["--no-extents", "--request-size=33554432", "--queue-size=67108864"],
    ];
    for (const way of ways) {
      await run("nbdcopy", ...way, image, url);
      await run("nbdcopy", ...way, url, `${folder}/copy`);
      assertEquals(await sha256(`${folder}/copy`), sum, way.join(" "));
      await Deno.remove(`${folder}/copy`);
    }
  });
}

test("nbdcopy trusts a new region to be zero", libnbd, async (folder) => {
  const image = await makeImage(folder, 64 * MIB);
  await using server = await serveAt(folder, "memory:64MiB");
  await run("nbdcopy", "--destination-is-zero", "--flush", image, server.url);
  await run("nbdcopy", server.url, `${folder}/copy`);
  assertEquals(await sha256(`${folder}/copy`), await sha256(image));
});

test("nbdcopy copies from one server to another", libnbd, async (folder) => {
  const image = await makeImage(folder, 64 * MIB);
  const socket = (name: string) => `nbd+unix:///?socket=${folder}/${name}`;
  await using one = await serve(`file:${image}`, socket("one"));
  await using other = await serve("memory:64MiB", socket("other"));
  await run("nbdcopy", "--connections=4", one.url, other.url);
  await run("nbdcopy", other.url, `${folder}/copy`);
  assertEquals(await sha256(`${folder}/copy`), await sha256(image));
});

test(
  "the command line serves them, until it is told to stop",
  requires("nbdinfo", "qemu-img"),
  async (folder) => {
    const image = await makeImage(folder, 64 * MIB);
    const url = `nbd+unix:///?socket=${folder}/socket`;
    await using server = new TelemapProcess(["serve", "memory:64MiB", "--listen", url, "--json"]);
    assertEquals((await server.next())["url"], url);
    assertEquals((await run("nbdinfo", "--size", url)).trim(), `${64 * MIB}`);
    await run("nbdcopy", "--flush", image, url);
    await run("nbdcopy", url, `${folder}/copy`);
    assertEquals(await sha256(`${folder}/copy`), await sha256(image));
    const compared = await run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, url);
    assertStringIncludes(compared, "Images are identical");
    server.kill("SIGTERM");
    assertEquals((await server.end()).code, 0);
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), ["copy", "image"]);
  },
);

test("the tools start the server themselves, by socket activation", libnbd, async (folder) => {
  const image = await makeImage(folder, 20 * MIB);
  const program = new URL("../../cmd/telemap.ts", import.meta.url).pathname;
  const server = (backend: string) => [
    "--",
    "[",
    Deno.execPath(),
    ...["run", "--quiet", "--no-check", "--allow-all", program, "serve"],
    ...[backend, "--listen", "nbd+systemd:///"],
    "]",
  ];
  const lines = await run("nbdinfo", "--size", ...server("memory:20MiB"));
  assertEquals(lines.trim().split("\n").at(-1), `${20 * MIB}`);
  const region = `file:${folder}/region?size=20MiB`;
  const [dashes, ...bracket] = server(region);
  await run("nbdcopy", "--flush", dashes!, image, ...bracket);
  assertEquals(await sha256(`${folder}/region`), await sha256(image));
});

test("qemu-img reads, maps, compares and converts", qemuImage, async (folder) => {
  const image = await makeImage(folder, 64 * MIB);
  await using server = await serveAt(folder, "memory:64MiB");
  const { url } = server;
  await run(
    "qemu-img",
    ...["convert", "-n", "-W", "-m", "16"],
    ...["-f", "raw", "-O", "raw"],
    image,
    url,
  );
  const compared = await run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, url);
  assertStringIncludes(compared, "Images are identical");
  const info = JSON.parse(await run("qemu-img", "info", "--output=json", "-f", "raw", url));
  assertEquals(info["virtual-size"], 64 * MIB);
  const map: { start: number; length: number; zero: boolean }[] = JSON.parse(
    await run("qemu-img", "map", "--output=json", "-f", "raw", url),
  );
  assertEquals(map.reduce((sum, { length }) => sum + length, 0), 64 * MIB);
  assert(map.some(({ zero }) => zero) && map.some(({ zero }) => !zero));
  await run("qemu-img", "convert", "-f", "raw", "-O", "raw", url, `${folder}/copy`);
  assertEquals(await sha256(`${folder}/copy`), await sha256(image));
  await run("qemu-img", "bench", "-f", "raw", "-c", "5000", "-d", "64", "-s", "4096", "-w", url);
});

test("qemu-io finds the patterns that it wrote", qemuIo, async (folder) => {
  for (const backend of ["memory:16MiB", `file:${folder}/region?size=16MiB`]) {
    await using server = await serveAt(folder, backend);
    const commands = [
      "write -P 0xa5 0 256k",
      "write -P 0x5a 1234567 77777",
      "write -z -u 64k 64k",
      "write -z 192k 4k",
      "write -f -P 0x11 1M 4k",
      "discard 128k 64k",
      "flush",
      "read -P 0xa5 0 64k",
      "read -P 0 64k 64k",
      "read -P 0 192k 4k",
      "read -P 0x11 1M 4k",
      "read -P 0x5a 1234567 77777",
      "aio_write -P 0x77 2M 1M",
      "aio_write -P 0x78 3M 1M",
      "aio_write -z 4M 1M",
      "aio_flush",
      "aio_read -P 0x77 2M 1M",
      "aio_read -P 0x78 3M 1M",
      "aio_read -P 0 4M 1M",
      "aio_flush",
      "map",
    ];
    const args = commands.flatMap((command) => ["-c", command]);
    const out = await run("qemu-io", "-f", "raw", ...args, server.url);
    assert(!/verification failed|error/i.test(out), out);
    const { code } = await tryRun("qemu-io", [
      ...["-r", "-f", "raw", "-c", "write 0 4k"],
      server.url,
    ]);
    assertEquals(code, 1, "qemu-io tells what went wrong");
  }
});

test("qemu-nbd lists the export", requires("qemu-nbd"), async (folder) => {
  const options = { name: "disk", description: "a region of telemap" };
  await using _server = await serveAt(folder, "memory:64MiB", options);
  const out = await run("qemu-nbd", "-L", "-k", `${folder}/socket`);
  const flags = "readonly|flush|fua|trim|zeroes|df|multi|cache|fast-zero|rotational";
  const told = /flags: .*\((.*)\)/.exec(out)![1]!.split(" ").filter((word) => word !== "");
  assertEquals(told.sort(), [
    "cache",
    "df",
    "fast-zero",
    "flush",
    "fua",
    "multi",
    "trim",
    "zeroes",
  ]);
  assert(told.every((word) => flags.includes(word)));
  for (
    const expected of [
      "exports available: 1",
      "export: 'disk'",
      "description: a region of telemap",
      `size:  ${64 * MIB}`,
      "min block: 1",
      "opt block: 4096",
      `max block: ${32 * MIB}`,
      "base:allocation",
    ]
  ) {
    assertStringIncludes(out, expected);
  }
});

for (const store of ["memory", "file", "dir"]) {
  test(`fio verifies what it wrote to ${store}`, requires("fio"), async (folder) => {
    const backends: Record<string, string> = {
      memory: "memory:64MiB",
      file: `file:${folder}/region?size=64MiB`,
      dir: `dir:${folder}/region?size=64MiB&chunk=256KiB`,
    };
    await using server = await serveAt(folder, backends[store]);
    const out = await run(
      "fio",
      ...["--name=verify", "--ioengine=nbd", `--uri=${server.url}`, "--thread"],
      ...["--rw=randrw", "--bsrange=4k-128k", "--iodepth=64", "--numjobs=2"],
      ...["--size=24M", "--offset_increment=32M", "--group_reporting", "--output-format=json"],
      ...["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--fsync=64"],
    );
    const [job] = JSON.parse(out.slice(out.indexOf("{"))).jobs;
    assertEquals(job.error, 0);
    assert(job.write.total_ios > 100 && job.read.total_ios > 100);
  });
}

test("nbd-client lists the export", requires("nbd-client"), async () => {
  await using server = await serve("memory:1MiB", "nbd://127.0.0.1:0/disk");
  const port = new URL(server.url.replace("nbd:", "http:")).port;
  const out = await run("nbd-client", "-l", "127.0.0.1", port);
  assertStringIncludes(out, "disk");
});

test("nbdkit stands between, as a proxy", requires("nbdkit", "nbdcopy"), async (folder) => {
  const image = await makeImage(folder, 64 * MIB);
  await using server = await serveAt(folder, "memory:64MiB");
  await using proxy = await NbdServerProcess.nbdkit(folder, "nbd", `uri=${server.url}`, "shared=1");
  await run("nbdcopy", "--flush", image, proxy.url);
  await run("nbdcopy", proxy.url, `${folder}/copy`);
  assertEquals(await sha256(`${folder}/copy`), await sha256(image));
});

test("TLS is refused, with the reason", libnbd, async (folder) => {
  await using _server = await serveAt(folder);
  const url = `nbds+unix:///?socket=${folder}/socket`;
  const { code, err } = await tryRun("nbdinfo", [url], { LIBNBD_DEBUG: "1" });
  assertEquals(code, 1);
  assertStringIncludes(err, "This server has no TLS");
});
