/**
 * Addresses to listen on and to connect to, as URLs. For NBD they are the NBD URI form
 * (NetworkBlockDevice/nbd, doc/uri.md), so that every NBD tool takes the same ones:
 *
 * - `nbd://HOST[:PORT]/NAME`, `telemap://HOST[:PORT]/NAME`: TCP
 * - `nbd+unix:///NAME?socket=PATH`, `telemap+unix:///NAME?socket=PATH`: a Unix socket
 * - `nbd+systemd:///NAME[?fd=N]`, `telemap+systemd:///NAME[?fd=N]`: listen on a socket that this
 *   process inherited by systemd socket activation
 *
 * `nbds` and `telemaps` in place of `nbd` and `telemap` mean TLS. A `WHATWG` URL would resolve `..`
 * and decode `+` in names and paths, so the text is taken apart here, as RFC 3986 has it.
 *
 * @module
 */
import { UsageError } from "../backend/errors.ts";

/** What is spoken at an address. */
export type Protocol = "nbd" | "telemap";

/** What carries it. `port` 0 lets a listener choose; `fd` is an inherited, listening socket. */
export type Transport =
  | { kind: "tcp"; host: string; port: number }
  | { kind: "unix"; path: string }
  | { kind: "systemd"; fd: number };

/** A URL taken apart; {@linkcode formatAddress} puts it together. */
export interface Address {
  /** What is spoken there. */
  protocol: Protocol;
  /** Whether the connection is to be encrypted. */
  tls: boolean;
  /** What carries it. */
  transport: Transport;
  /** Name of the export; the default export is "". */
  name: string;
  /** Parameters that are not part of the address itself, decoded. */
  params: ReadonlyMap<string, string>;
}

/** Ports that are taken where a URL names none. */
export const DEFAULT_PORTS: Readonly<Record<Protocol, number>> = { nbd: 10809, telemap: 4100 };

/** Bytes of the longest export name (NBD, doc/proto.md, "String values"). */
const NAME_LIMIT = 4096;

/** Bytes of the longest Unix socket path: `sun_path` of `sockaddr_un` less its NUL (unix(7)). */
const SOCKET_PATH_LIMIT = 107;

/** The first socket that systemd hands over (sd_listen_fds(3)). */
const FIRST_SYSTEMD_FD = 3;

const SCHEME = /^(nbd|telemap)(s?)(?:\+(unix|systemd))?$/;
const PARTS = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?$/;
const AUTHORITY = /^(?:(\[[0-9A-Fa-f:.]+\])|([A-Za-z0-9._-]+))?(?::([0-9]{1,5}))?$/;

/**
 * Takes a URL apart.
 *
 * @param url See the module's forms; a host that is left out is `localhost`.
 * @param allowed Names of further parameters that the caller knows.
 * @throws {UsageError} The URL is not of these forms, or has a parameter that is not known.
 */
export function parseAddress(url: string | URL, allowed: readonly string[] = []): Address {
  const text = url instanceof URL ? url.href : url;
  const parts = PARTS.exec(text);
  const scheme = SCHEME.exec(parts?.[1]?.toLowerCase() ?? "");
  if (parts === null || scheme === null) {
    throw new UsageError(`Cannot use ${quote(text)} as an address`, { hint: expectedForms("nbd") });
  }
  const [, , authority = "", path = "", query] = parts;
  const protocol: Protocol = scheme[1] === "nbd" ? "nbd" : "telemap";
  const refuse = (why: string): never => {
    throw new UsageError(`Cannot use ${quote(text)} as an address as ${why}`, {
      hint: expectedForms(protocol),
    });
  };
  const params = parseQuery(query, refuse);
  const transport = scheme[3] === undefined
    ? parseTcp(authority, DEFAULT_PORTS[protocol], refuse)
    : parseLocal(scheme[3], authority, params, refuse);
  for (const key of params.keys()) {
    if (!allowed.includes(key)) refuse(`the parameter ${quote(key)} is not known`);
  }
  const name = decode(path.slice(1), "the export name", refuse);
  if (new TextEncoder().encode(name).length > NAME_LIMIT) {
    refuse(`the export name is longer than ${NAME_LIMIT} bytes`);
  }
  return { protocol, tls: scheme[2] === "s", transport, name, params };
}

/** The URL of an address: {@linkcode parseAddress} gives the same address for it. */
export function formatAddress(address: Address): string {
  const { protocol, tls, transport, name } = address;
  const query = [...address.params];
  let scheme = tls ? `${protocol}s` : protocol as string;
  let authority = "";
  if (transport.kind === "tcp") {
    authority = `${transport.host}:${transport.port}`;
  } else {
    scheme += `+${transport.kind}`;
    if (transport.kind === "unix") query.unshift(["socket", transport.path]);
    else query.unshift(["fd", `${transport.fd}`]);
  }
  const path = authority !== "" && name === "" ? "" : `/${encode(name)}`;
  const tail = query.map(([key, value]) => `${encode(key)}=${encode(value)}`).join("&");
  return `${scheme}://${authority}${path}${tail === "" ? "" : `?${tail}`}`;
}

type Refuse = (why: string) => never;

function parseTcp(authority: string, defaultPort: number, refuse: Refuse): Transport {
  if (authority.includes("@")) return refuse("it names a user, which means nothing here");
  const match = AUTHORITY.exec(authority);
  if (match === null) return refuse(`${quote(authority)} is not a host and port`);
  const [, literal, domain = "localhost", digits] = match;
  if (literal !== undefined && !URL.canParse(`http://${literal}`)) {
    return refuse(`${literal} is not an IPv6 address`);
  }
  const port = digits === undefined ? defaultPort : Number(digits);
  if (port > 0xffff) return refuse(`the port ${digits} is over 65535`);
  return { kind: "tcp", host: literal ?? domain, port };
}

function parseLocal(
  kind: string,
  authority: string,
  params: Map<string, string>,
  refuse: Refuse,
): Transport {
  if (authority !== "") {
    return refuse(`${quote(authority)} stands where no host can be; write three slashes`);
  }
  if (kind === "systemd") {
    const fd = params.get("fd") ?? `${FIRST_SYSTEMD_FD}`;
    params.delete("fd");
    if (!/^[0-9]{1,5}$/.test(fd) || Number(fd) < FIRST_SYSTEMD_FD) {
      return refuse(`the inherited socket ${quote(fd)} is not a number from ${FIRST_SYSTEMD_FD}`);
    }
    return { kind: "systemd", fd: Number(fd) };
  }
  const path = params.get("socket") ?? "";
  params.delete("socket");
  if (path === "") return refuse("it does not say which socket");
  if (new TextEncoder().encode(path).length > SOCKET_PATH_LIMIT) {
    return refuse(`the socket path is longer than ${SOCKET_PATH_LIMIT} bytes`);
  }
  return { kind: "unix", path };
}

function parseQuery(query: string | undefined, refuse: Refuse): Map<string, string> {
  const params = new Map<string, string>();
  if (query === undefined || query === "") return params;
  for (const pair of query.split("&")) {
    const equals = pair.indexOf("=");
    const key = decode(equals < 0 ? pair : pair.slice(0, equals), "a parameter", refuse);
    if (params.has(key)) return refuse(`the parameter ${quote(key)} is there twice`);
    params.set(key, equals < 0 ? "" : decode(pair.slice(equals + 1), `"${key}"`, refuse));
  }
  return params;
}

function decode(text: string, what: string, refuse: Refuse): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text);
  } catch {
    return refuse(`${what} has a bad percent-escape`);
  }
  if (!decoded.isWellFormed()) return refuse(`${what} is not well-formed Unicode`);
  return decoded.includes("\0") ? refuse(`${what} has a NUL`) : decoded;
}

function encode(text: string): string {
  return encodeURIComponent(text).replaceAll("%2F", "/");
}

function quote(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}

function expectedForms(protocol: Protocol): string {
  return `expected ${protocol}://HOST:PORT/NAME, ${protocol}+unix:///NAME?socket=PATH or, ` +
    `to listen, ${protocol}+systemd:///NAME`;
}
