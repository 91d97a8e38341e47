/**
 * `telemap seed`: mounts a region that another host may take over while it is in use.
 *
 * @module
 */
import { formatSize, Seeder, type SeederStage } from "../mod.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { closeOnceFree } from "./close_mount.ts";
import { runShell } from "./shell.ts";
import { StopSignals } from "./stop_signals.ts";
import { readToken } from "./token.ts";

/** See the module. */
export const seed: Command = defineCommand({
  name: "seed",
  summary: "Mount a region that another host may take over while it is in use",
  description: "The region appears as with telemap mount. Whoever runs telemap leech with the " +
    "address follows it, and takes it over once: then --suspend is run, which has to stop whatever " +
    "writes and to unmount or freeze a file system on the device, and from the answer on writes " +
    "fail here. Where the leecher is lost before, --resume is run, and all goes on as before.\n" +
    "It ends when the leecher has everything, or on SIGINT or SIGTERM. With --json it prints one " +
    'line for each event, first\n{"event":"ready","url":"telemap://127.0.0.1:4100",' +
    '"device":"loop","path":"/dev/loop3",…}',
  operands: [{ name: "BACKEND", help: "URL of the region", value: "url" }],
  options: {
    listen: {
      help: "address for leechers; port 0 takes a free one",
      value: "url",
      label: "URL",
      many: true,
    },
    dial: {
      help: "address where a leecher waits for this side to dial",
      value: "url",
      label: "URL",
    },
    device: {
      help: "what it appears as",
      value: ["auto", "nbd", "fuse", "loop"],
      default: "auto",
    },
    at: { help: "directory where the fuse file appears", value: "path", label: "PATH" },
    chunk: {
      help: "bytes in which writes are noticed",
      value: "size",
      label: "SIZE",
      default: "64KiB",
    },
    suspend: { help: "shell command that stops what writes", value: "text", label: "CMD" },
    resume: { help: "shell command that lets it go on", value: "text", label: "CMD" },
    "token-file": {
      help: "file with the token that leechers must show",
      value: "path",
      label: "FILE",
    },
    insecure: { help: "listen beyond this host although anyone who gets there may take it" },
    json: JSON_OPTION,
  },
  examples: [
    {
      call: "telemap seed file:/srv/disk.img --listen telemap://127.0.0.1:4100 " +
        "--suspend ./stop.sh",
      does: "a block device that another host may take over",
    },
  ],
  async run([backend], options) {
    using stop = new StopSignals();
    const token = await readToken(options["token-file"]);
    const { json, suspend, resume, at } = options;
    const tell = (stage: SeederStage) => {
      console.log(json ? JSON.stringify({ event: "stage", stage }) : SAID[stage]);
    };
    const seeder = await Seeder.open({
      ...{ backend: backend!, device: options.device, as: "path" },
      ...(options.listen.length > 0 && { listen: options.listen }),
      ...(options.dial !== undefined && { dial: options.dial }),
      ...{ chunkSize: options.chunk, insecure: options.insecure },
      ...(at !== undefined && { at }),
      ...(token !== undefined && { token }),
      hooks: {
        onSuspend: () => runShell(suspend, "--suspend"),
        onResume: () => runShell(resume, "--resume"),
        onStage: tell,
      },
    });
    let lost: Error | undefined;
    try {
      const { device, path, size } = seeder.mount;
      const url = options.listen.length > 0 ? seeder.url : options.dial;
      console.log(
        json
          ? JSON.stringify({ event: "ready", url, device, path, size })
          : `Mounted ${formatSize(size)} at ${path} by ${device}; ${
            options.listen.length > 0 ? "leechers follow" : "dialling"
          } ${url}`,
      );
      lost = await Promise.race([
        seeder.mount.closed,
        stop.received.then(() => undefined),
        seeder.released.then(() => undefined),
      ]);
    } finally {
      await closeOnceFree(seeder.mount, () => seeder.close()).catch((error) => lost ??= error);
    }
    if (lost !== undefined) throw lost;
    if (json) console.log(JSON.stringify({ event: "closed" }));
  },
});

const SAID: Record<SeederStage, string> = {
  serving: "The region is here, and can be written",
  suspending: "Somebody takes the region over: suspending",
  offered: "The region is offered, and stands still",
  given: "The region was given away: writes fail here from now on",
  released: "Whoever has the region now needs this side no more",
};
