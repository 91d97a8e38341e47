/**
 * `telemap copy`: copies a region from any store to any other.
 *
 * @module
 */
import { type Backend, copyBackend, formatSize, openBackend } from "../mod.ts";
import { openCopyTarget } from "../lib/host/copy_target.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { CopyProgressBar } from "./copy_progress_bar.ts";
import { StopSignals } from "./stop_signals.ts";
import { readToken } from "./token.ts";

/** See the module. */
export const copy: Command = defineCommand({
  name: "copy",
  summary: "Copy a region to another",
  description:
    "Holes stay holes, and chunks of zeroes become holes. A target memory:, or a file: or " +
    "dir: that is not there yet, needs no size: it gets that of the source. Nobody else may write " +
    "to either meanwhile.",
  operands: [
    { name: "SOURCE", help: "URL of the region to copy", value: "url" },
    { name: "TARGET", help: "URL of the region to copy it to", value: "url" },
  ],
  options: {
    verify: { help: "read both back afterwards and compare" },
    concurrency: { help: "chunks in flight", value: "count", label: "N", default: "8" },
    "chunk-size": { help: "bytes of a chunk", value: "size", label: "SIZE", default: "1MiB" },
    "source-token-file": {
      help: "file with the token for a SOURCE that is telemap://",
      value: "path",
      label: "FILE",
    },
    "target-token-file": {
      help: "file with the token for a TARGET that is telemap://",
      value: "path",
      label: "FILE",
    },
    json: JSON_OPTION,
  },
  examples: [
    {
      call: "telemap copy nbd://server/disk file:/srv/disk.img --verify",
      does: "an NBD export to a sparse file",
    },
    {
      call: "telemap copy file:/srv/disk.img telemap://server:4100",
      does: "a file to a region that telemap serves",
    },
  ],
  async run([from, to], options) {
    using stop = new StopSignals();
    await using source = await openBackend(from!, {
      token: await readToken(options["source-token-file"]),
    });
    await using target = await openCopyTarget(to!, source.size, {
      token: await readToken(options["target-token-file"]),
    });
    const { verify, concurrency, json } = options;
    const started = performance.now();
    const result = await copyShowing(source, target, {
      verify,
      concurrency,
      chunkSize: options["chunk-size"],
      signal: stop.signal,
    });
    const seconds = (performance.now() - started) / 1000;
    if (json) return console.log(JSON.stringify({ event: "copied", ...result, seconds }));
    const verified = result.verified ? ", verified" : "";
    console.log(
      `Copied ${formatSize(result.size)} in ${seconds.toFixed(1)} s: ` +
        `${formatSize(result.written)} of data, ${formatSize(result.zeroed)} of zeroes${verified}`,
    );
  },
});

type CopyOptions = NonNullable<Parameters<typeof copyBackend>[2]>;

async function copyShowing(source: Backend, target: Backend, options: CopyOptions) {
  if (!Deno.stderr.isTerminal()) return await copyBackend(source, target, options);
  await using bar = new CopyProgressBar(source.size);
  return await copyBackend(source, target, {
    ...options,
    onProgress: (progress) => bar.show(progress),
  });
}
