/**
 * `telemap doctor`: tells what this host can do, why not, and how to change that.
 *
 * @module
 */
import { type Probe, probeHost, sweepStale } from "../mod.ts";
import { listStale } from "../lib/device/probe.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";

/** See the module. */
export const doctor: Command = defineCommand({
  name: "doctor",
  summary: "Tell what this host can do, and how to make it do more",
  description: "",
  operands: [],
  options: {
    clean: { help: "take away the devices that dead telemap processes left behind" },
    json: JSON_OPTION,
  },
  examples: [
    { call: "telemap doctor", does: "before the first mount" },
    { call: "telemap doctor --clean", does: "after a crash" },
  ],
  async run(_operands, options) {
    const cleaned = options.clean ? await sweepStale() : [];
    const probes = probeHost();
    const stale = await listStale();
    if (options.json) return console.log(JSON.stringify({ probes, stale, cleaned }));
    console.log(probes.map(describe).join("\n"));
    if (cleaned.length > 0) console.log(`Took away what was left behind: ${cleaned.join(", ")}`);
    if (stale.length === 0) return;
    const clean = options.clean ? "and is still in use" : "telemap doctor --clean takes it away";
    console.log(`Left behind by dead processes: ${stale.join(", ")}; ${clean}`);
  },
});

function describe({ name, available, reason, fix }: Probe): string {
  const line = `${available ? "yes" : "no "}  ${name.padEnd(12)} ${reason}`;
  return fix === undefined ? line : `${line}\n     ${"".padEnd(12)} to fix: ${fix}`;
}
