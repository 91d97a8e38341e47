/**
 * A process for device tests that attaches a device and then, as told, waits to be killed, detaches
 * and ends, or ends without. It prints the device's path and its mount point, one a line.
 *
 *     deno run -A attached_process.ts fuse|loop wait|detach|exit|throw
 *
 * @module
 */
import { O, open } from "../../ffi/file.ts";
import { MAP, Mapping } from "../../ffi/mman.ts";
import { serveFile, serveLoop } from "./served_file.ts";

const SIZE = 8 << 20;
const [kind, ending] = Deno.args;
const served = kind === "loop"
  ? await serveLoop({ size: SIZE, bare: true })
  : await serveFile({ size: SIZE, bare: true });
const { device } = served;
const mountPoint = "mountPoint" in device ? device.mountPoint : device.file.mountPoint;
if (kind === "fuse" && Deno.uid() === 0) {
  // Dirty pages that the kernel writes back when the process ends: to a server that ends with it.
  const mapping = Mapping.map({ length: SIZE, flags: MAP.SHARED, fd: open(device.path, O.RDWR) });
  mapping.bytes.fill(1);
}
console.log(`${device.path}\n${mountPoint}`);
if (ending === "detach") await device.detach();
if (ending === "wait") setInterval(() => {}, 1 << 30);
else if (ending === "throw") setTimeout(() => JSON.parse("not JSON"), 1);
else Deno.exit(0);
