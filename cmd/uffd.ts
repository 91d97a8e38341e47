/**
 * `telemap uffd`: pages the memory of other processes in until it is stopped.
 *
 * @module
 */
import { formatSize, serveUserfault, type UserfaultClientEvent } from "../mod.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { StopSignals } from "./stop_signals.ts";
import { readToken, TOKEN_OPTION } from "./token.ts";

/** See the module. */
export const uffd: Command = defineCommand({
  name: "uffd",
  summary: "Page the memory of other processes in from a region",
  description:
    "Takes the userfaultfds of processes that connect to a Unix socket, as Firecracker " +
    "does when it loads a snapshot, and resolves their page faults from the region, until SIGINT " +
    "or SIGTERM. What a client drops by madvise(2), as a balloon does, reads as zeroes from then " +
    "on. What a client touches when the handler is gone waits for the next handler, never to " +
    "read zeroes in place of data.\n" +
    "With --json it prints a line for each event:\n" +
    '{"event":"listening","socket":"/run/uffd.sock","size":268435456}\n' +
    '{"event":"attached","client":1,"pid":4711,"regions":1,"bytes":268435456}',
  operands: [{ name: "BACKEND", help: "URL of the region", value: "url" }],
  options: {
    socket: {
      help: "where to listen; this user alone may connect",
      value: "path",
      label: "PATH",
      required: true,
    },
    "fault-around": {
      help: "bytes that a fault brings in; more where they are in order",
      value: "size",
      label: "SIZE",
      default: "64KiB",
    },
    "on-loss": {
      help: "what becomes of who touches a page that cannot be read",
      value: ["wait", "poison"],
      default: "wait",
    },
    "max-clients": { help: "clients at a time", value: "count", label: "N", default: "100" },
    "token-file": TOKEN_OPTION,
    json: JSON_OPTION,
  },
  examples: [
    {
      call: "telemap uffd file:/srv/snapshot.mem --socket /run/uffd.sock",
      does: "the memory of a Firecracker snapshot, with mem_backend of type Uffd at that socket",
    },
    {
      call: "telemap uffd telemap://server:4100 --socket /run/uffd.sock --fault-around 256KiB",
      does: "from another host, in larger steps",
    },
  ],
  async run([backend], options) {
    using stop = new StopSignals();
    const backendToken = await readToken(options["token-file"]);
    const handler = await serveUserfault(backend!, {
      socket: options.socket,
      faultAround: options["fault-around"],
      onLoss: options["on-loss"],
      maxClients: options["max-clients"],
      ...(backendToken !== undefined && { backendToken }),
      onClient: (event) => console.log(options.json ? JSON.stringify(event) : lineOf(event)),
    });
    try {
      const { socket, size } = handler;
      console.log(
        options.json
          ? JSON.stringify({ event: "listening", socket, size })
          : `Paging in from ${formatSize(size)} for who connects to ${socket}`,
      );
      const failure = await Promise.race([stop.received, handler.closed]);
      if (failure instanceof Error) throw failure;
    } finally {
      await handler.close();
    }
    if (options.json) console.log(JSON.stringify({ event: "closed" }));
  },
});

function lineOf(event: UserfaultClientEvent): string {
  const process = event.pid === 0 ? "a process" : `process ${event.pid}`;
  if (event.event === "refused") return `Refused ${process}: ${event.reason}`;
  if (event.event === "attached") {
    const what = event.regions === 1 ? "one region" : `${event.regions} regions`;
    return `Client ${event.client}, ${process}, attached ${what} of ${formatSize(event.bytes)}`;
  }
  const { faults, copiedPages, zeroPages, readBytes } = event.statistics;
  return `Client ${event.client}, ${process}, detached: ${event.reason}; ${faults} faults, ` +
    `${copiedPages} pages copied, ${zeroPages} zeroed, ${formatSize(readBytes)} read`;
}
