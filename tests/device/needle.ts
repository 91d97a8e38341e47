/**
 * A program that maps a remote region as bytes, and finds a needle in it: the first 8 bytes say where
 * it lies, little endian, and there a NUL ends it. It prints the needle, or with `--json` what moved to
 * find it.
 *
 *     deno run -A needle.ts telemap://HOST:PORT [--device fuse] [--json]
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { type DeviceChoice, mountDirect } from "../../mod.ts";

const { json, device, _: [url] } = parseArgs(Deno.args, { boolean: ["json"], string: ["device"] });

await using region = await mountDirect({
  backend: `${url}`,
  as: "slice",
  device: (device ?? "userfault") as DeviceChoice,
  readOnly: true,
});
const { bytes } = region;
const offset = Number(new DataView(bytes.buffer).getBigUint64(0, true));
const needle = new TextDecoder().decode(bytes.subarray(offset, bytes.indexOf(0, offset)));
if (json) {
  const { faults, readBytes, wire } = await region.statistics();
  console.log(JSON.stringify({ needle, offset, size: region.size, faults, readBytes, wire }));
} else {
  console.log(needle);
}
