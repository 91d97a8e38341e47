/**
 * `telemap serve`: serves a region until it is stopped.
 *
 * @module
 */
import { formatSize, serve as serveBackend, type ServedExport, UsageError } from "../mod.ts";
import { type Command, defineCommand, JSON_OPTION } from "./command.ts";
import { StopSignals } from "./stop_signals.ts";
import { readToken } from "./token.ts";

/** See the module. */
export const serve: Command = defineCommand({
  name: "serve",
  summary: "Serve a region to the network",
  description: "Serves nbd addresses to any NBD client and telemap addresses to telemap, until " +
    "SIGINT or SIGTERM. Then it answers what is in hand, flushes and ends.\n" +
    "With --json it prints one line for each address that is ready:\n" +
    '{"event":"listening","url":"nbd://127.0.0.1:10809","size":268435456,"durable":false}',
  operands: [{ name: "BACKEND", help: "URL of the region", value: "url" }],
  options: {
    listen: {
      help: "address to listen at; port 0 takes a free one",
      value: "url",
      label: "URL",
      many: true,
      required: true,
    },
    name: { help: "name of the export; else the one in the address", value: "text", label: "NAME" },
    "export": {
      help: "one more region at the same addresses",
      value: "text",
      label: "NAME=BACKEND",
      many: true,
    },
    "read-only": { help: "refuse writes" },
    "token-file": {
      help: "file with the token that telemap clients must show",
      value: "path",
      label: "FILE",
    },
    "backend-token-file": {
      help: "file with the token for a BACKEND that is telemap://",
      value: "path",
      label: "FILE",
    },
    insecure: { help: "listen beyond this host although anyone who gets there may connect" },
    "max-connections": {
      help: "connections at a time",
      value: "count",
      label: "N",
      default: "100",
    },
    json: JSON_OPTION,
  },
  examples: [
    {
      call: "telemap serve memory:256MiB --listen 'nbd+unix:///?socket=/tmp/region.sock'",
      does: "a region in memory, for any NBD client on this host",
    },
    {
      call: "telemap serve 'file:/srv/region?size=10GiB' --listen telemap://0.0.0.0:4100 " +
        "--token-file token.txt",
      does: "a region in a file, for telemap on other hosts",
    },
  ],
  async run([backend], options) {
    using stop = new StopSignals();
    const token = await readToken(options["token-file"]);
    const backendToken = await readToken(options["backend-token-file"]);
    const server = await serveBackend(backend!, options.listen, {
      readOnly: options["read-only"],
      insecure: options.insecure,
      maxConnections: options["max-connections"],
      exports: options.export.map((text) => namedExport(text, options["read-only"])),
      ...(options.name !== undefined && { name: options.name }),
      ...(token !== undefined && { token }),
      ...(backendToken !== undefined && { backendToken }),
    });
    try {
      const { size, durable, urls } = server;
      for (const url of urls) {
        console.log(
          options.json
            ? JSON.stringify({ event: "listening", url, size, durable })
            : `Serving ${formatSize(size)} at ${url}`,
        );
      }
      const failure = await Promise.race([stop.received, server.closed]);
      if (failure instanceof Error) throw failure;
    } finally {
      await server.close();
    }
    if (options.json) console.log(JSON.stringify({ event: "closed" }));
  },
});

function namedExport(text: string, readOnly: boolean): ServedExport {
  const at = text.indexOf("=");
  if (at > 0) return { name: text.slice(0, at), backend: text.slice(at + 1), readOnly };
  throw new UsageError(`Cannot serve ${JSON.stringify(text)} as an export`, {
    hint: "expected NAME=BACKEND, such as --export disk=memory:1GiB",
  });
}
