/**
 * The `nbd` device against the real kernel. Runs inside the virtual machine (see `../vm_test.ts`), as
 * root, with nothing else that uses NBD devices.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ERRNO, SystemError } from "../../../ffi/errno.ts";
import { openLibc } from "../../../ffi/libc.ts";
import type { Backend } from "../../../lib/backend/backend.ts";
import {
  ClosedError,
  TelemapError,
  UnsupportedError,
  UsageError,
} from "../../../lib/backend/errors.ts";
import { openMemory } from "../../../lib/backend/memory.ts";
import { attachNbd, type AttachNbdOptions, type NbdDevice } from "../../../lib/device/nbd.ts";
import { probeNbd } from "../../../lib/device/nbd_probe.ts";
import { findStaleNbd, sweepStaleNbd } from "../../../lib/device/nbd_stale.ts";
import { readAttribute } from "../../../lib/device/sysfs.ts";
import { BackendHost } from "../../../lib/host/host.ts";
import type { BackendSource } from "../../../lib/host/source.ts";
import { AS_NOBODY } from "../../other_user.ts";
import { FATAL } from "./stuck_backend.ts";

openLibc();

const MIB = 1 << 20;
const STUCK = new URL("stuck_backend.ts", import.meta.url);
const CHILD = new URL("nbd_child.ts", import.meta.url).pathname;

interface Attached extends AsyncDisposable {
  host: BackendHost;
  device: NbdDevice;
}

/** Hosts a backend and attaches it; disposing detaches, by force where that takes it. */
async function attach(
  source: BackendSource,
  options: Partial<AttachNbdOptions> = {},
): Promise<Attached> {
  const host = await BackendHost.start(source);
  try {
    const device = await attachTo(host, options);
    const dispose = async () => {
      await device.detach({ force: true });
      await host.close();
    };
    return { host, device, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await host.close();
    throw error;
  }
}

function attachTo(host: BackendHost, options: Partial<AttachNbdOptions> = {}): Promise<NbdDevice> {
  return attachNbd({
    size: host.facts.size,
    readOnly: false,
    serve: (fd, flags, onDetached) => host.serveNbd(fd, flags, onDetached),
    ...options,
  });
}

function attribute(index: number, name: string): string | undefined {
  return readAttribute(`/sys/block/nbd${index}/${name}`);
}

function assertFree(index: number): void {
  assertEquals([attribute(index, "size"), attribute(index, "pid")], ["0", undefined]);
}

async function run(command: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, { args, stdout: "null" }).output();
  assert(success, `${command} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

/** dd that reads one block directly, past every cache. */
function startRead(path: string, block: number): Deno.ChildProcess {
  const args = [`if=${path}`, "of=/dev/null", "bs=64K", "count=1", `skip=${block}`, "iflag=direct"];
  return new Deno.Command("dd", { args, stderr: "null" }).spawn();
}

/** Waits until the kernel has requests of a device in flight. */
async function untilInFlight(index: number): Promise<void> {
  while (!/[1-9]/.test(attribute(index, "inflight") ?? "")) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Starts a process of its own that attaches; answers it and the line that it prints. */
async function startChild(
  args: string[],
  prefix: string[] = [],
  [deno, script]: [string, string] = [Deno.execPath(), CHILD],
): Promise<{ child: Deno.ChildProcess; line: string }> {
  const [command, ...rest] = [...prefix, deno, "run", "-A", "--no-check", script, ...args];
  const child = new Deno.Command(command!, { args: rest, stdout: "piped" }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let line = "";
  for (let part; !line.includes("\n") && !(part = await reader.read()).done;) line += part.value;
  await reader.cancel();
  return { child, line: line.trim() };
}

async function kill(child: Deno.ChildProcess): Promise<void> {
  try {
    child.kill("SIGKILL");
  } catch {
    // It ended by itself.
  }
  await child.status;
}

function indexOf(path: string): number {
  assert(/^\/dev\/nbd\d+$/.test(path), path);
  return Number(path.slice("/dev/nbd".length));
}

for (const via of ["netlink", "ioctl"] as const) {
  Deno.test(`${via}: a file system survives being detached and attached again`, async () => {
    const host = await BackendHost.start("memory:64MiB");
    const directory = await Deno.makeTempDir();
    const data = crypto.getRandomValues(new Uint8Array(65536));
    const first = await attachTo(host, { via });
    assertEquals(attribute(first.index, "size"), `${64 * MIB / 512}`);
    assertEquals(attribute(first.index, "queue/logical_block_size"), "4096");
    await run("mkfs.ext4", "-q", first.path);
    await run("mount", first.path, directory);
    for (let file = 0; file < 100; file++) await Deno.writeFile(`${directory}/${file}`, data);
    await run("umount", directory);
    await first.detach();
    assertEquals(await first.gone, undefined);
    assertFree(first.index);

    const second = await attachTo(host, { via });
    await run("fsck.ext4", "-fn", second.path);
    await run("mount", second.path, directory);
    for (let file = 0; file < 100; file++) {
      assertEquals(await Deno.readFile(`${directory}/${file}`), data);
    }
    await run("umount", directory);
    await second.detach();
    await host.close();
    await Deno.remove(directory);
  });

  Deno.test(`${via}: what was written reaches a backend of this isolate before detach answers`, async () => {
    const memory = openMemory({ size: 16 * MIB });
    let flushes = 0;
    // Without share() the calls come back to this isolate.
    const backend: Backend = {
      size: memory.size,
      blockSize: 1,
      durable: false,
      readOnly: false,
      readAt: (buffer, offset) => memory.readAt(buffer, offset),
      writeAt: (buffer, offset) => memory.writeAt(buffer, offset),
      flush: () => void flushes++,
      close: () => memory.close(),
      [Symbol.asyncDispose]: () => memory[Symbol.asyncDispose](),
    };
    const { device, host } = await attach(backend, { via });
    const data = new Uint8Array(4 * MIB);
    for (let at = 0; at < data.length; at += 65536) {
      crypto.getRandomValues(data.subarray(at, at + 65536));
    }
    const path = await Deno.makeTempFile();
    await Deno.writeFile(path, data);
    await run("dd", `if=${path}`, `of=${device.path}`, "bs=1M", "seek=3");
    await device.detach();
    const received = new Uint8Array(data.length);
    await memory.readAt(received, 3 * MIB);
    assertEquals(received, data);
    assert(flushes > 0);
    await host.close();
    await Deno.remove(path);
  });

  Deno.test(`${via}: a read-only region is a read-only device`, async () => {
    await using attached = await attach("memory:1MiB", { via, readOnly: true });
    const { device } = attached;
    assertEquals(attribute(device.index, "ro"), "1");
    const write = new Deno.Command("dd", {
      args: ["if=/dev/zero", `of=${device.path}`, "bs=4K", "count=1", "oflag=direct"],
      stderr: "null",
    });
    assertEquals((await write.output()).success, false);
    await run("dd", `if=${device.path}`, "of=/dev/null");
  });

  Deno.test(`${via}: the kernel's announcement tells readiness too`, async () => {
    for (let round = 0; round < 3; round++) {
      await using attached = await attach("memory:1MiB", { via, ready: "uevent" });
      assertEquals(attribute(attached.device.index, "size"), "2048");
    }
  });

  Deno.test(`${via}: every connection is used, and requests are as large as asked`, async () => {
    const options = { via, maxRequest: 4 * MIB, readAhead: 2 * MIB };
    await using attached = await attach("memory:16MiB", options);
    const { index } = attached.device;
    const queues = [...Deno.readDirSync(`/sys/block/nbd${index}/mq`)].length;
    assertEquals(queues, Math.min(2, navigator.hardwareConcurrency));
    assertEquals(attribute(index, "queue/max_sectors_kb"), "4096");
    assertEquals(attribute(index, "queue/read_ahead_kb"), "2048");
  });

  Deno.test(`${via}: detaching by force returns while a request is never answered`, async () => {
    const { host, device } = await attach({ module: STUCK.href }, { via });
    const read = startRead(device.path, 50);
    await untilInFlight(device.index);
    await device.detach({ force: true });
    assertEquals((await read.status).success, false);
    assertFree(device.index);
    await host.close();
  });

  Deno.test(`${via}: force ends a detach that waits for a backend which never answers`, async () => {
    const { host, device } = await attach({ module: STUCK.href }, { via });
    const args = ["if=/dev/zero", `of=${device.path}`, "bs=64K", "seek=50", "count=1"];
    const write = new Deno.Command("dd", { args, stderr: "null" }).spawn();
    await untilInFlight(device.index);
    const gentle = assertRejects(() => device.detach(), TelemapError);
    await device.detach({ force: true });
    await write.status;
    assertStringIncludes((await gentle).message, "by force");
    assertFree(device.index);
    await host.close();
  });

  Deno.test(`${via}: detaching in the middle of traffic returns, and the traffic fails`, async () => {
    const { host, device } = await attach("memory:64MiB", { via });
    const reads = [1, 2, 3, 4].map(() =>
      new Deno.Command("sh", {
        args: ["-c", `while dd if=${device.path} of=/dev/null bs=64K iflag=direct; do :; done`],
        stderr: "null",
      }).spawn()
    );
    await untilInFlight(device.index);
    await device.detach({ force: true });
    // An empty device reads as an empty file, so that the loops go on; they end here.
    for (const read of reads) await kill(read);
    await host.close();
  });

  Deno.test(`${via}: a device that is mounted is not detached, until it is unmounted`, async () => {
    const { host, device } = await attach("memory:16MiB", { via });
    const directory = await Deno.makeTempDir();
    await run("mkfs.ext4", "-q", device.path);
    await run("mount", device.path, directory);
    const error = await assertRejects(() => device.detach(), TelemapError);
    assertEquals(error.code, "EBUSY");
    await Deno.writeTextFile(`${directory}/file`, "still here");
    await run("umount", directory);
    await device.detach();
    assertFree(device.index);
    await host.close();
    await Deno.remove(directory);
  });

  Deno.test(`${via}: when the server fails, requests in flight fail and it is told`, async () => {
    const { host, device } = await attach({ module: STUCK.href }, { via });
    const read = startRead(device.path, FATAL / 65536);
    const error = await device.gone;
    assertStringIncludes(error!.message, `Cannot use ${device.path} any more`);
    assertEquals((await read.status).success, false);
    await device.detach();
    assertFree(device.index);
    const failure = await host.ended;
    assert(failure instanceof ClosedError);
    assertStringIncludes(failure.message, "as asked");
    await host.close();
  });

  Deno.test(`${via}: a device that somebody else disconnects is gone, and detaching is in order`, async () => {
    const { host, device } = await attach("memory:1MiB", { via });
    await run("nbd-client", "-d", device.path);
    const error = await device.gone;
    assertStringIncludes(error!.message, device.path);
    await device.detach();
    assertFree(device.index);
    await host.close();
  });

  Deno.test(`${via}: a device in use is EBUSY, and several are attached at a time`, async () => {
    const host = await BackendHost.start("memory:1MiB");
    const devices = await Promise.all([1, 2, 3].map(() => attachTo(host, { via })));
    assertEquals(new Set(devices.map(({ index }) => index)).size, 3);
    const index = devices[0]!.index;
    const error = await assertRejects(() => attachTo(host, { via, index }), SystemError);
    assertEquals(error.errno, ERRNO.EBUSY);
    assertStringIncludes(error.message, `/dev/nbd${index}`);
    for (const device of devices) await device.detach();
    const again = await attachTo(host, { via, index });
    assertEquals(again.index, index);
    await again.detach();
    await host.close();
  });
}

Deno.test("by netlink there are more devices than the module was loaded with", async () => {
  const host = await BackendHost.start("memory:1MiB");
  const devices: NbdDevice[] = [];
  for (let made = 0; made < 6; made++) devices.push(await attachTo(host, { via: "netlink" }));
  const error = await assertRejects(() => attachTo(host, { via: "ioctl" }), SystemError);
  assertEquals(error.code, "EBUSY");
  for (const device of devices) await device.detach();
  await host.close();
});

Deno.test("sizes decide the block size, and those of no block device are refused", async () => {
  const host = await BackendHost.start(`memory:${MIB + 512}`);
  const device = await attachTo(host);
  assertEquals(device.blockSize, 512);
  assertEquals(attribute(device.index, "size"), `${MIB / 512 + 1}`);
  await device.detach();
  for (const size of [0, 511, MIB + 1]) {
    await assertRejects(() => attachTo(host, { size }), UsageError);
  }
  await host.close();
});

Deno.test("netlink: what a killed process leaves is found, and swept with what waits for it", async () => {
  const { child, line } = await startChild([STUCK.pathname, "netlink"]);
  const index = indexOf(line);
  assertEquals(await findStaleNbd(), []);
  const read = startRead(line, 50);
  await untilInFlight(index);
  await kill(child);
  assertEquals(await findStaleNbd(), [{ index, path: line }]);
  assertEquals(await sweepStaleNbd(), [{ index, path: line }]);
  assertEquals((await read.status).success, false);
  assertFree(index);
  assertEquals(await sweepStaleNbd(), []);
});

Deno.test("ioctl: what a killed process leaves goes by itself", async () => {
  const { child, line } = await startChild([STUCK.pathname, "ioctl"]);
  const index = indexOf(line);
  const read = startRead(line, 50);
  await untilInFlight(index);
  await kill(child);
  assertEquals((await read.status).success, false);
  assertFree(index);
});

Deno.test("where netlink does not reach the kernel's client, ioctl does", async () => {
  const { child, line } = await startChild(["memory:1MiB"], ["unshare", "--net"]);
  const index = indexOf(line);
  assertEquals(attribute(index, "backend"), undefined);
  await run("dd", `if=${line}`, "of=/dev/null");
  await kill(child);
});

Deno.test("other users are refused with what they need", async () => {
  const copy = Deno.env.get("TELEMAP_OPEN_COPY")!;
  const script = `${copy}/tests/vm/inside/nbd_child.ts`;
  const prefix = [...AS_NOBODY, "env", "HOME=/tmp"];
  const { child, line } = await startChild(["memory:1MiB"], prefix, [`${copy}/deno`, script]);
  const { code, signal } = await child.status;
  assertEquals({ code, signal }, { code: 1, signal: null });
  assertStringIncludes(line, "EPERM");
  assertStringIncludes(line, "needs root");
});

Deno.test("without the module the probe and the error say what to do", async () => {
  assertEquals(probeNbd().available, true);
  await run("/bin/busybox", "rmmod", "nbd");
  const { available, reason } = probeNbd();
  assertEquals(available, false);
  assertStringIncludes(reason, "module");
  const error = await assertRejects(() => attach("memory:1MiB"), UnsupportedError);
  assertStringIncludes(error.message, "modprobe nbd");
});
