import { assert, assertEquals, assertMatch } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { boundFile } from "../../lib/device/loop.ts";
import { probeFuse } from "../../lib/device/fuse.ts";
import { cleanStale, findStale, type StaleDevice } from "../../lib/device/stale.ts";
import { readMountTable } from "../../lib/fuse/mount_table.ts";
import { AS_NOBODY, NOBODY, OpenCopy } from "../other_user.ts";
import { requires, requiresAll, requiresThat, withReason } from "../requires.ts";
import { shell, temporaryDirectory, tryShell, until } from "./command.ts";
import { COUNT } from "./counted_backend.ts";
import { serveFile } from "./served_file.ts";

openLibc();

const MIB = 1 << 20;
const probe = probeFuse();
const needs = requiresAll(requires("root"), requiresThat(probe.available, probe.reason));

function test(name: string, fn: () => Promise<void>, further = needs): void {
  const all = requiresAll(needs, further);
  Deno.test({ name: withReason(`fuse: ${name}`, all), ignore: all.ignore, fn });
}

function isMounted(mountPoint: string): boolean {
  return readMountTable().some((entry) => entry.mountPoint === mountPoint);
}

function startDd(path: string): Deno.ChildProcess {
  const args = [`if=${path}`, "of=/dev/null", "bs=4096", "count=1", "iflag=direct"];
  return new Deno.Command("dd", { args, stdout: "null", stderr: "piped" }).spawn();
}

async function words(child: Deno.ChildProcess): Promise<string> {
  return new TextDecoder().decode((await child.output()).stderr);
}

test("reads that hang end with an error when the file is taken away", async () => {
  await using served = await serveFile({ size: MIB, manner: "hanging" });
  const { device, server } = served;
  const readers = [startDd(device.path), startDd(device.path)];
  await until(() => server.counters[COUNT.HELD] === 2, "both reads to reach the backend");
  await device.detach({ force: true });
  for (const reader of readers) assertMatch(await words(reader), /connection abort|not connected/i);
  assertEquals(isMounted(device.mountPoint), false);
  assertEquals(await device.gone, undefined);
  // The answers come after all, to a connection that is gone.
  server.release();
});

test("a detach that waits for a file in use is not held up by it", async () => {
  await using served = await serveFile({ size: MIB });
  const { device } = served;
  const user = new Deno.Command("sh", {
    args: ["-c", `exec 3< ${device.path}; echo open; read line`],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const output = user.stdout.getReader();
  await output.read();
  await device.detach();
  assertEquals(isMounted(device.mountPoint), false);
  await user.stdin.close();
  await user.status;
  await output.cancel();
});

test("a program that hangs can be killed, and other signals do not end its call", async () => {
  await using served = await serveFile({ size: MIB, manner: "hanging" });
  const { device, server } = served;
  const dd = (...args: string[]) =>
    new Deno.Command("dd", { args: ["bs=4096", "count=1", ...args], stderr: "piped" }).spawn();
  const writing = ["if=/dev/zero", `of=${device.path}`, "conv=notrunc"];
  const killed = dd(...writing);
  await until(() => server.counters[COUNT.HELD] === 1, "the write to reach the backend");
  killed.kill("SIGUSR1"); // dd has a handler for it
  killed.kill("SIGTERM");
  assertEquals((await killed.output()).signal, "SIGTERM");
  const writer = dd(...writing);
  await until(() => server.counters[COUNT.HELD] === 2, "the other write to reach the backend");
  writer.kill("SIGUSR1");
  const reader = dd(`if=${device.path}`, "of=/dev/null", "skip=2");
  await until(() => server.counters[COUNT.HELD]! >= 3, "the read to reach the backend");
  reader.kill("SIGKILL");
  assertEquals((await reader.output()).signal, "SIGKILL");
  server.release();
  assertMatch(await words(writer), /4096 bytes .*copied/);
});

test("a file whose Worker was killed can be taken away", async () => {
  await using served = await serveFile({ size: MIB });
  const { device, server } = served;
  server.kill();
  const reader = startDd(device.path);
  await device.detach({ force: true });
  assertMatch(await words(reader), /dd: /);
  assertEquals(isMounted(device.mountPoint), false);
});

test("a file system that is unmounted from outside is noticed", async () => {
  await using served = await serveFile({ size: MIB });
  await shell(`umount ${served.device.mountPoint}`);
  assertEquals(await served.device.gone, undefined);
  await served.device.detach({ force: true });
});

/** Starts `attached_process.ts` and answers what it printed. */
async function startAttached(
  kind: "fuse" | "loop",
  ending: "wait" | "exit" | "throw" | "detach",
  prefix: string[] = [],
  env: Record<string, string> = {},
  copy?: OpenCopy,
): Promise<{ child: Deno.ChildProcess; path: string; mountPoint: string }> {
  const script = copy?.file("tests/device/attached_process.ts") ??
    new URL("./attached_process.ts", import.meta.url).pathname;
  const deno = copy?.deno ?? Deno.execPath();
  const [command = "", ...args] = [...prefix, deno, "run", "-q", "-A", script];
  const child = new Deno.Command(command, {
    args: [...args, kind, ending],
    env,
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let text = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (text.split("\n").length > 2) break;
  }
  const [path = "", mountPoint = ""] = text.split("\n");
  assert(mountPoint !== "", "the process attached nothing");
  return { child, path, mountPoint };
}

for (const ending of ["exit", "throw"] as const) {
  test(`a process that ends by ${ending} with dirty pages takes its file with it`, async () => {
    const { child, mountPoint } = await startAttached("fuse", ending);
    assertEquals((await child.status).code, ending === "exit" ? 0 : 1);
    assertEquals(isMounted(mountPoint), false);
  });
}

test("a process that ends takes its loop device with it", async () => {
  const { child, path, mountPoint } = await startAttached("loop", "exit");
  assertEquals((await child.status).code, 0);
  assertEquals(boundFile(path), undefined);
  assertEquals(isMounted(mountPoint), false);
});

for (const kind of ["fuse", "loop"] as const) {
  test(`a killed process is let go by its watchdog, and its ${kind} device taken away`, async () => {
    const { child, path, mountPoint } = await startAttached(kind, "wait");
    child.kill("SIGKILL");
    assertEquals((await child.status).signal, "SIGKILL");
    await until(() => !isMounted(mountPoint), "the mount to be gone");
    await until(() => !exists(mountPoint), "the directory to be gone");
    if (kind === "loop") await until(() => boundFile(path) === undefined, "the device to be free");
  });
}

test("what a killed process left is found and cleaned up, with its dirty pages in the way", async () => {
  const file = await startAttached("fuse", "wait");
  const loop = await startAttached("loop", "wait");
  const paths = [file.mountPoint, loop.mountPoint, loop.path].sort();
  assertEquals(ours(findStale(), paths), []);
  killWatchdog(file.mountPoint);
  killWatchdog(loop.mountPoint);
  file.child.kill("SIGKILL");
  loop.child.kill("SIGKILL");
  await until(() => ours(findStale(), paths).length === 3, "the processes to be gone");
  assertEquals(ours(await cleanStale(), paths), paths);
  // It is only now that the first one can end: its dirty pages waited for its own server.
  assertEquals((await file.child.status).signal, "SIGKILL");
  assertEquals((await loop.child.status).signal, "SIGKILL");
  assertEquals(ours(findStale(), paths), []);
  assertEquals(boundFile(loop.path), undefined);
});

/** Which of some paths are among stale devices; other programs leave theirs on the same host. */
function ours(stale: StaleDevice[], paths: string[]): string[] {
  return stale.map(({ path }) => path).filter((path) => paths.includes(path)).sort();
}

/** Kills the process that would clean up after another one. */
function killWatchdog(mountPoint: string): void {
  const watchdogs = [...Deno.readDirSync("/proc")].filter(({ name }) => {
    if (!/^\d+$/.test(name)) return false;
    const command = commandLine(name);
    return command.includes("telemap-watchdog") && command.at(-1) === mountPoint;
  });
  assertEquals(watchdogs.length, 1);
  for (const { name } of watchdogs) Deno.kill(Number(name), "SIGKILL");
}

function commandLine(pid: string): string[] {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").slice(0, -1);
  } catch {
    return [];
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Lets every user open /dev/fuse, as udev's rules do, where there is no udev. */
function allowFuse(): Disposable {
  const mode = Deno.statSync("/dev/fuse").mode! & 0o777;
  Deno.chmodSync("/dev/fuse", 0o666);
  return { [Symbol.dispose]: () => Deno.chmodSync("/dev/fuse", mode) };
}

test("a user without privilege mounts by fusermount3", async () => {
  using _open = allowFuse();
  using directory = temporaryDirectory();
  await Deno.chown(directory.path, NOBODY, NOBODY);
  using copy = new OpenCopy();
  const env = { TMPDIR: directory.path, XDG_RUNTIME_DIR: directory.path, HOME: directory.path };
  const detached = await startAttached("fuse", "detach", AS_NOBODY, env, copy);
  assertEquals((await detached.child.status).code, 0);
  assertEquals([...Deno.readDirSync(directory.path)].map(({ name }) => name), [".cache"]);
  const killed = await startAttached("fuse", "wait", AS_NOBODY, env, copy);
  const entry = readMountTable().find(({ mountPoint }) => mountPoint === killed.mountPoint);
  assertEquals(entry?.type, "fuse.telemap");
  const size = `stat -c %s ${killed.path}`;
  assertEquals(await shell(`${AS_NOBODY.join(" ")} ${size}`), `${8 * MIB}\n`);
  // Whoever may see whatever a user wrote still is not let in by FUSE.
  assertMatch((await tryShell(size)).stderr, /Permission denied/);
  killWatchdog(killed.mountPoint);
  killed.child.kill("SIGKILL");
  await killed.child.status;
  const paths = [killed.mountPoint];
  await until(() => ours(findStale(), paths).length === 1, "the process to be gone");
  assertEquals(ours(await cleanStale(), paths), paths);
}, requires("fusermount3", "setpriv"));
