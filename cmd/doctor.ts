/**
 * `telemap doctor`: tells what this host can do, why not, and how to change that.
 *
 * @module
 */
import { type Probe, probeHost, sweepStale } from "../mod.ts";
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
    const cleaned = options.clean ? await sweepStale() : undefined;
    const probes = await probeHost();
    if (options.json) {
      return console.log(JSON.stringify(cleaned === undefined ? { probes } : { probes, cleaned }));
    }
    console.log(probes.map(describe).join("\n"));
    if (cleaned === undefined) return;
    const list = cleaned.length === 0
      ? "nothing was left behind"
      : `took away ${cleaned.join(", ")}`;
    console.log(`Cleaned: ${list}`);
  },
});

function describe({ name, available, reason, fix }: Probe): string {
  const line = `${available ? "yes" : "no "}  ${name.padEnd(12)} ${reason}`;
  return fix === undefined ? line : `${line}\n     ${"".padEnd(12)} to fix: ${fix}`;
}
