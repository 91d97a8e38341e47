/**
 * The process that serves a device which another process maps: that it is another one, and what
 * becomes of either when the other is gone.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { openLibc } from "../../ffi/libc.ts";
import { mountDirect, UsageError } from "../../mod.ts";
import { requires, withReason } from "../requires.ts";
import { shell, temporaryDirectory, until } from "./command.ts";

openLibc();

const MIB = 1 << 20;
const needs = requires("root", "/dev/fuse");

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: withReason(name, needs), ignore: needs.ignore, fn });
}

/** Processes that host a backend for process `parent`. */
function hostsOf(parent: number): number[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name)).filter((pid) => {
    if (Number.isNaN(pid)) return false;
    try {
      const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
      const [, ppid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return Number(ppid) === parent &&
        Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes("host_process.ts");
    } catch {
      // It ended meanwhile.
      return false;
    }
  });
}

function isThere(pid: number): boolean {
  try {
    return !/\) Z /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}

test("a slice of a device is served by a process of its own, which ends with the mount", async () => {
  using directory = temporaryDirectory();
  const backend = `file:${directory.path}/region?size=1MiB`;
  const mount = await mountDirect({ backend, device: "fuse", as: "slice" });
  const [host, ...more] = hostsOf(Deno.pid);
  assertEquals(more, []);
  mount.bytes.fill(7);
  await mount.close();
  assert(!isThere(host!), "the process is still there");
  assertEquals(await Deno.readFile(`${directory.path}/region`), new Uint8Array(MIB).fill(7));
});

test("what is not mapped needs no process", async () => {
  await using _file = await mountDirect({ backend: "memory:1MiB", device: "fuse", as: "file" });
  assertEquals(hostsOf(Deno.pid), []);
});

test("a region that cannot be opened leaves no process behind", async () => {
  const backend = "file:/no/such/file";
  const error = await mountDirect({ backend, device: "fuse", as: "slice" }).catch((error) => error);
  assert(!(error instanceof UsageError));
  assertStringIncludes(error.message, "/no/such/file");
  assertEquals(hostsOf(Deno.pid), []);
});

test("a mount whose process was killed tells, and is closed", async () => {
  const mount = await mountDirect({ backend: "memory:1MiB", device: "fuse", as: "slice" });
  Deno.kill(hostsOf(Deno.pid)[0]!, "SIGKILL");
  assertStringIncludes(`${await mount.closed}`, "SIGKILL");
  await mount.close().catch(() => {});
  assertEquals(await shell(`grep -F ${mount.path} /proc/mounts || true`), "");
});

test("a process whose program was killed takes what the kernel writes back, and ends", async () => {
  using directory = temporaryDirectory();
  const region = `${directory.path}/region`;
  const program = `
    import { mountDirect } from ${JSON.stringify(import.meta.resolve("../../mod.ts"))};
    const backend = "file:${region}?size=1MiB";
    const mount = await mountDirect({ backend, device: "fuse", as: "slice" });
    mount.bytes.fill(7);
    console.log(mount.path);
    setInterval(() => {}, 1000);
  `;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-check",
      "--allow-all",
      `data:text/javascript,${encodeURIComponent(program)}`,
    ],
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const path = (await lines.read()).value!.trim();
  const [host] = hostsOf(child.pid);
  child.kill("SIGKILL");
  await child.status;
  await lines.cancel();
  await until(() => !isThere(host!), "the end of the process");
  assertEquals(await shell(`grep -F ${path} /proc/mounts || true`), "");
  assertEquals(await Deno.readFile(region), new Uint8Array(MIB).fill(7));
});
