/**
 * `struct sockaddr` of sys/un.h, netinet/in.h and linux/netlink.h: made from names, and read back.
 *
 * @module
 */
import { ERRNO, SystemError } from "./errno.ts";
import { cString, libc } from "./libc.ts";

/** Address families (bits/socket.h). */
export const AF = { UNIX: 1, INET: 2, INET6: 10, NETLINK: 16 } as const;

const SUN_PATH_SIZE = 108;
const INET_SIZE = 16;
const INET6_SIZE = 28;
const NETLINK_SIZE = 12;
// A typed array of 64 bytes or less may lie on the moving V8 heap, so what C sees is made larger.
const STORAGE_SIZE = 128;

const symbols = libc({
  // int inet_pton(int af, const char *src, void *dst)
  inet_pton: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // const char *inet_ntop(int af, const void *src, char *dst, socklen_t size)
  inet_ntop: { parameters: ["i32", "buffer", "buffer", "u32"], result: "pointer" },
});

/** An address as bind(2) and connect(2) take it. */
export interface SocketAddress {
  /** One of {@linkcode AF}. */
  family: number;
  /** The `struct sockaddr`; only its first `length` bytes count. */
  bytes: Uint8Array<ArrayBuffer>;
  /** Bytes of the structure. */
  length: number;
  /** The address as people write it, for the text of an error. */
  text: string;
}

/**
 * A `struct sockaddr_un`. A path that begins with `@` lies in the abstract namespace.
 *
 * @throws {SystemError} ENAMETOOLONG where the path takes over 107 bytes.
 */
export function unixAddress(path: string): SocketAddress {
  const name = cString(path);
  const abstract = path.startsWith("@");
  // Names in the abstract namespace are not NUL-terminated: each byte counts.
  const nameLength = abstract ? name.length - 1 : name.length;
  if (path === "" || nameLength > SUN_PATH_SIZE) {
    const errno = path === "" ? ERRNO.ENOENT : ERRNO.ENAMETOOLONG;
    const hint = `a socket's path takes 1 to ${SUN_PATH_SIZE - 1} bytes`;
    throw new SystemError({ syscall: "use a socket path", errno, subject: path, hint });
  }
  const { bytes, view } = storage(AF.UNIX);
  bytes.set(name.subarray(0, nameLength), 2);
  if (abstract) view.setUint8(2, 0);
  return { family: AF.UNIX, bytes, length: 2 + nameLength, text: path };
}

/**
 * A `struct sockaddr_in` or `sockaddr_in6` of a numeric address, with or without brackets, or of
 * `localhost`, which stands for 127.0.0.1. Other names are not looked up here.
 *
 * @throws {SystemError} EADDRNOTAVAIL where the host is a name.
 * @throws {RangeError} where the port is not an integer of 0 to 65535.
 */
export function inetAddress(host: string, port: number): SocketAddress {
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
    throw new RangeError(`Cannot use port ${port}: it is not an integer of 0 to 65535`);
  }
  const name = host === "localhost" ? "127.0.0.1" : host.replace(/^\[(.*)\]$/, "$1");
  const address = new Uint8Array(STORAGE_SIZE);
  if (symbols().inet_pton(AF.INET, cString(name), address) === 1) {
    const { bytes, view } = storage(AF.INET);
    view.setUint16(2, port);
    bytes.set(address.subarray(0, 4), 4);
    return { family: AF.INET, bytes, length: INET_SIZE, text: `${name}:${port}` };
  }
  if (symbols().inet_pton(AF.INET6, cString(name), address) === 1) {
    const { bytes, view } = storage(AF.INET6);
    view.setUint16(2, port);
    bytes.set(address.subarray(0, 16), 8);
    return { family: AF.INET6, bytes, length: INET6_SIZE, text: `[${name}]:${port}` };
  }
  throw new SystemError({
    syscall: "use a host",
    errno: ERRNO.EADDRNOTAVAIL,
    subject: host,
    hint: "give a numeric IPv4 or IPv6 address, or localhost",
  });
}

/** A `struct sockaddr_nl`: port 0 lets the kernel choose one (or is the kernel, as a destination). */
export function netlinkAddress(groups = 0, port = 0): SocketAddress {
  const { bytes, view } = storage(AF.NETLINK);
  view.setUint32(4, port, true);
  view.setUint32(8, groups, true);
  return { family: AF.NETLINK, bytes, length: NETLINK_SIZE, text: `netlink port ${port}` };
}

/**
 * The text of an address that the kernel gave: `127.0.0.1:80`, `[::1]:80`, a path (`@name` in the
 * abstract namespace), or an empty string for a socket without a name.
 */
export function formatAddress(bytes: Uint8Array<ArrayBuffer>, length: number): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  const family = length < 2 ? 0 : view.getUint16(0, true);
  if (family === AF.UNIX) return formatUnix(bytes.subarray(2, length));
  if (family === AF.INET) return `${numericHost(AF.INET, bytes.slice(4, 8))}:${portOf(view)}`;
  if (family === AF.INET6) return `[${numericHost(AF.INET6, bytes.slice(8, 24))}]:${portOf(view)}`;
  return "";
}

/** The port of an IPv4 or IPv6 address that the kernel gave. */
export function portOf(view: DataView): number {
  return view.getUint16(2);
}

function formatUnix(name: Uint8Array): string {
  if (name.length === 0) return "";
  const text = new TextDecoder();
  if (name[0] === 0) return "@" + text.decode(name.subarray(1));
  const end = name.indexOf(0);
  return text.decode(end < 0 ? name : name.subarray(0, end));
}

function numericHost(family: number, address: Uint8Array<ArrayBuffer>): string {
  const text = new Uint8Array(STORAGE_SIZE);
  symbols().inet_ntop(family, address, text, text.length);
  return new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
}

function storage(family: number): { bytes: Uint8Array<ArrayBuffer>; view: DataView } {
  const bytes = new Uint8Array(STORAGE_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, family, true);
  return { bytes, view };
}
