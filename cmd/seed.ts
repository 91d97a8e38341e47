/**
 * `telemap seed`: mounts a region that another host may take over while it is in use.
 *
 * @module
 */
import { Seeder, seedGroup, UsageError } from "../mod.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { closeOnceFree } from "./close_mount.ts";
import { firstGone, mountFields, mountWords, oneMount, parsePart, pathsOf } from "./mounted.ts";
import { HOOK_OPTIONS, seedingHooks } from "./seeding_hooks.ts";
import { ProgramCommands } from "./shell.ts";
import { StopSignals } from "./stop_signals.ts";
import { readToken } from "./token.ts";

/** See the module. */
export const seed: Command = defineCommand({
  name: "seed",
  summary: "Mount a region that another host may take over while it is in use",
  description: "The region appears as with telemap mount. Those who run telemap leech with its " +
    "address follow it, and one of them may take it over: then --suspend is run, which has to stop " +
    "whatever writes and to unmount or freeze a file system on the device; writes wait from then " +
    "on, and fail once the region is given away. Where the leecher is lost before, --resume is run, " +
    "and all goes on as before.\n" +
    "With --group several regions move together, with one consistent cut: each appears by itself, " +
    "and telemap leech --group takes all of them over. To move such a group on, give the region " +
    "where it lies, and its parts by their names.\n" +
    "It ends when the leecher has everything, or on SIGINT or SIGTERM. With --json it prints one " +
    'line for each event: ready, stage and closed; first\n{"event":"ready","url":"telemap://127.0.0.1:4100",' +
    '"device":"loop","path":"/dev/loop3",…}',
  operands: [
    {
      name: "BACKEND",
      help: "URL of the region, or where a group lies",
      value: "url",
      optional: true,
    },
  ],
  options: {
    group: {
      help: "a part of a group: NAME=URL, or NAME of BACKEND",
      value: "text",
      label: "NAME[=BACKEND]",
      many: true,
    },
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
    at: {
      help: "directory of the fuse file, or of the one under loop",
      value: "path",
      label: "PATH",
    },
    chunk: {
      help: "bytes in which writes are noticed",
      value: "size",
      label: "SIZE",
      default: "64KiB",
    },
    ...HOOK_OPTIONS,
    "token-file": {
      help: "file with the token that leechers must show; for --dial too",
      value: "path",
      label: "FILE",
    },
    "backend-token-file": {
      help: "file with the token for a BACKEND that is telemap://",
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
    {
      call: "telemap seed --group a=file:/srv/a.img --group b=file:/srv/b.img " +
        "--listen telemap://127.0.0.1:0",
      does: "two block devices that move together",
    },
    {
      call: "telemap seed file:/srv/vm --group a --group b --listen telemap://127.0.0.1:0",
      does: "the same again where telemap leech --group has brought them",
    },
  ],
  async run([backend], options) {
    using stop = new StopSignals();
    const token = await readToken(options["token-file"]);
    const backendToken = await readToken(options["backend-token-file"]);
    const { json, at } = options;
    const parts = readParts(backend, options.group);
    checkOne(backend, parts.length > 0, at);
    await using program = new ProgramCommands(options.suspend, options.resume);
    const form = { device: options.device, as: "path" } as const;
    const how = {
      ...(options.listen.length > 0 && { listen: options.listen }),
      ...(options.dial !== undefined && { dial: options.dial }),
      ...{ chunkSize: options.chunk, insecure: options.insecure },
      ...(token !== undefined && { token }),
      ...(backendToken !== undefined && { backendToken }),
      hooks: seedingHooks(program, json),
    };
    const seeder = parts.length > 0
      ? await seedGroup({
        ...how,
        ...(backend !== undefined && { region: backend }),
        parts: parts.map((part) => ({ ...part, ...form })),
      })
      : await Seeder.open({ ...how, ...form, backend: backend!, ...(at !== undefined && { at }) });
    const mounted = seeder instanceof Seeder ? oneMount(seeder.mount) : seeder.mounts;
    let lost: Error | undefined;
    try {
      const url = options.listen.length > 0 ? seeder.url : options.dial;
      console.log(
        json
          ? JSON.stringify({ event: "ready", url, ...mountFields(mounted) })
          : `Mounted ${mountWords(mounted)}; ${
            options.listen.length > 0 ? "leechers follow" : "dialling"
          } ${url}`,
      );
      lost = await Promise.race([
        firstGone(mounted),
        stop.received.then(() => undefined),
        seeder.released.then(() => undefined),
      ]);
    } finally {
      const close = () => seeder.close();
      await closeOnceFree(pathsOf(mounted), close).catch((error) => lost ??= error);
    }
    if (lost !== undefined) throw lost;
    if (json) console.log(JSON.stringify({ event: "closed" }));
  },
});

/** The parts that `--group` names: those of a region by their names, all others with their URLs. */
function readParts(
  region: string | undefined,
  texts: readonly string[],
): { name: string; backend?: string }[] {
  if (region === undefined) return texts.map(parsePart);
  if (!texts.some((text) => text.includes("="))) return texts.map((name) => ({ name }));
  throw new UsageError("Cannot seed a region beside a group", {
    hint: "give it as a part; or, where the group lies in it, its parts by their names alone",
  });
}

/** Throws {@linkcode UsageError} unless there is either a region or a group. */
function checkOne(backend: string | undefined, isGroup: boolean, at: string | undefined): void {
  if (backend === undefined && !isGroup) throw new UsageError("BACKEND or --group is missing");
  if (isGroup && at !== undefined) {
    throw new UsageError("Cannot have several regions appear in one directory", {
      hint: "leave out --at",
    });
  }
}
