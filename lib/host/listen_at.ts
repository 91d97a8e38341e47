/**
 * Begins to listen at an address, where that is safe.
 *
 * @module
 */
import { getOption, listenTcp, SOL } from "../../ffi/socket.ts";
import { UnsupportedError, UsageError } from "../backend/errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { ListeningSocket, listenOnPath, orInUse } from "../net/listening_socket.ts";
import { LIMIT } from "../rpc/wire.ts";

/** SO_ACCEPTCONN (asm-generic/socket.h): whether a socket listens. */
const SO_ACCEPTCONN = 30;

/** What keeps strangers out. */
export interface Guard {
  /** What peers must show (1 to 1024 bytes). */
  token?: string | undefined;
  /** Listen beyond this host although whoever reaches the port may use it. */
  insecure?: boolean | undefined;
}

/** Throws {@linkcode UsageError} for a token that is empty or too long. */
export function checkToken(token: string | undefined): void {
  if (token === undefined) return;
  const { length } = new TextEncoder().encode(token);
  if (length > 0 && length <= LIMIT.TOKEN) return;
  throw new UsageError(`Cannot use a token of ${length} bytes`, {
    hint: `give one of 1 to ${LIMIT.TOKEN}`,
  });
}

/**
 * Throws {@linkcode UsageError} for an address beyond this host that anyone could use, and
 * {@linkcode UnsupportedError} for one with TLS.
 */
export function checkGuarded(address: Address, options: Guard): void {
  const { transport, protocol } = address;
  if (address.tls) {
    throw new UnsupportedError(`Cannot listen at ${formatAddress(address)}`, {
      hint: "TLS is not there yet; listen on loopback or a Unix socket behind a TLS proxy",
    });
  }
  const guarded = protocol === "telemap" && options.token !== undefined;
  if (transport.kind !== "tcp" || isLoopback(transport.host) || guarded || options.insecure) return;
  throw new UsageError(`Cannot listen at ${formatAddress(address)} beyond this host`, {
    hint: protocol === "telemap"
      ? "set a token (--token-file), or say that anyone may connect (--insecure)"
      : "NBD has no token: say that anyone may connect (--insecure), or use telemap://",
  });
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || /^127(\.[0-9]{1,3}){3}$/.test(host);
}

/** Begins to listen, beside the sockets that were made before. */
export function listenAt(
  address: Address,
  before: readonly ListeningSocket[] = [],
): ListeningSocket {
  return orInUse(() => listenOn(address, before));
}

function listenOn(address: Address, before: readonly ListeningSocket[]): ListeningSocket {
  const { transport } = address;
  switch (transport.kind) {
    case "tcp": {
      const { fd, port } = listenTcp(transport.host, transport.port);
      const bound = { ...address, transport: { ...transport, port } };
      return new ListeningSocket(fd, formatAddress(bound));
    }
    case "unix":
      return listenOnPath(transport.path, formatAddress(address));
    case "systemd":
      return new ListeningSocket(inheritedSocket(transport.fd, before), formatAddress(address));
  }
}

/** A socket that the service manager handed over (sd_listen_fds(3)). */
function inheritedSocket(fd: number, before: readonly ListeningSocket[]): number {
  const refuse = (why: string): never => {
    throw new UsageError(`Cannot listen at descriptor ${fd} as ${why}`, {
      hint: "start the server by socket activation, which sets LISTEN_FDS",
    });
  };
  const count = Number(Deno.env.get("LISTEN_FDS") ?? 0);
  if (!(fd >= 3 && fd < 3 + count)) return refuse("no such socket was handed over");
  const pid = Deno.env.get("LISTEN_PID");
  if (pid !== undefined && Number(pid) !== Deno.pid) return refuse("it is for another process");
  if (before.some((socket) => socket.fd === fd)) return refuse("it is named twice");
  if (getOption(fd, SOL.SOCKET, SO_ACCEPTCONN) === 0) return refuse("it does not listen");
  return fd;
}
