/**
 * A process that attaches a backend and stays until it is killed: `nbd_child.ts URL|MODULE.ts [WAY]`.
 * It prints one line: the device's path, or the error's code and message.
 *
 * @module
 */
import { errorCode } from "../../../lib/backend/errors.ts";
import { attachNbd } from "../../../lib/device/nbd.ts";
import type { NbdInterface } from "../../../lib/device/nbd_control.ts";
import { BackendHost } from "../../../lib/host/host.ts";

const [source = "memory:16MiB", via] = Deno.args;
const module = source.endsWith(".ts");
const host = await BackendHost.start(module ? { module: `file://${source}` } : source);
try {
  const device = await attachNbd({
    size: host.facts.size,
    readOnly: false,
    serve: (fd, flags, onDetached) => host.serveNbd(fd, flags, onDetached),
    ...(via === undefined ? {} : { via: via as NbdInterface }),
  });
  console.log(device.path);
} catch (error) {
  console.log(`${errorCode(error)} ${(error as Error).message}`);
  await host.close();
  Deno.exit(1);
}
