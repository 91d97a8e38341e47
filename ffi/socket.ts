/**
 * sys/socket.h: stream sockets by descriptor, for event loops of our own and for handing them to the
 * kernel. All are non-blocking and close-on-exec.
 *
 * A write to a socket whose peer is gone answers EPIPE: the runtime ignores SIGPIPE from its start.
 *
 * @module
 */
import { checked, ERRNO, errno, SystemError, throwErrno } from "./errno.ts";
import { close, type Iovec } from "./file.ts";
import { cString, libc } from "./libc.ts";
import {
  AF,
  formatAddress,
  inetAddress,
  portOf,
  type SocketAddress,
  unixAddress,
} from "./socket_address.ts";

/** Socket types and the flags that go with them (bits/socket_type.h). */
export const SOCK = {
  STREAM: 1,
  DGRAM: 2,
  RAW: 3,
  NONBLOCK: 0o4000,
  CLOEXEC: 0o2000000,
} as const;

/** Option levels (bits/socket.h, netinet/in.h, linux/netlink.h). */
export const SOL = { SOCKET: 1, TCP: 6, IPV6: 41, NETLINK: 270 } as const;

/** Options of {@linkcode SOL}.SOCKET (asm-generic/socket.h; equal on x86_64 and aarch64). */
export const SO = {
  REUSEADDR: 2,
  TYPE: 3,
  ERROR: 4,
  SNDBUF: 7,
  RCVBUF: 8,
  KEEPALIVE: 9,
  PEERCRED: 17,
  SNDBUFFORCE: 32,
} as const;

/** Flags of send(2) and recv(2). */
export const MSG = { PEEK: 0x2, DONTWAIT: 0x40, NOSIGNAL: 0x4000 } as const;

/** Options of {@linkcode SOL}.TCP (netinet/tcp.h). */
const TCP = { NODELAY: 1, KEEPIDLE: 4, KEEPINTVL: 5, KEEPCNT: 6 } as const;
/** When an idle peer is asked whether it is there: after so many s, and how often before it is not. */
const KEEP_ALIVE = { IDLE: 30, INTERVAL: 10, COUNT: 3 } as const;
/** linux/sockios.h. */
const SIOCOUTQ = 0x5411n;
const IPV6_V6ONLY = 26;
const SHUT_RDWR = 2;
const STREAM = SOCK.STREAM | SOCK.NONBLOCK | SOCK.CLOEXEC;
const ACCEPT_FLAGS = SOCK.NONBLOCK | SOCK.CLOEXEC;

const symbols = libc({
  // ssize_t recv(int sockfd, void *buf, size_t len, int flags); counts stay under 2^31 here
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  // ssize_t send(int sockfd, const void *buf, size_t len, int flags)
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  // int socket(int domain, int type, int protocol)
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int socketpair(int domain, int type, int protocol, int sv[2])
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // int bind(int sockfd, const struct sockaddr *addr, socklen_t addrlen)
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // int listen(int sockfd, int backlog)
  listen: { parameters: ["i32", "i32"], result: "i32" },
  // int accept4(int sockfd, struct sockaddr *addr, socklen_t *addrlen, int flags)
  accept4: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  // int connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen)
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // int shutdown(int sockfd, int how)
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  // int getsockname(int sockfd, struct sockaddr *addr, socklen_t *addrlen)
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int getpeername(int sockfd, struct sockaddr *addr, socklen_t *addrlen)
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen)
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // int getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen)
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int chmod(const char *pathname, mode_t mode)
  chmod: { parameters: ["buffer", "u32"], result: "i32" },
  // ssize_t readv(int fd, const struct iovec *iov, int iovcnt); counts stay under 2^31 here
  readv: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // ssize_t writev(int fd, const struct iovec *iov, int iovcnt)
  writev: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // int ioctl(int fd, unsigned long request, int *argument)
  ioctl: { parameters: ["i32", "usize", "buffer"], result: "i32" },
});

/** What {@linkcode unread} gets. */
const unreadBytes = new Int32Array(1);

/** Opens a socket (non-blocking and close-on-exec are added). Throws {@linkcode SystemError}. */
export function socket(family: number, type: number, protocol = 0): number {
  const flags = type | SOCK.NONBLOCK | SOCK.CLOEXEC;
  return checked(symbols().socket(family, flags, protocol), "socket", `address family ${family}`);
}

/** Two connected Unix stream sockets. Throws {@linkcode SystemError} (EMFILE, …). */
export function socketpair(): [number, number] {
  const pair = new Int32Array(32);
  checked(symbols().socketpair(AF.UNIX, STREAM, 0, pair), "socketpair");
  return [pair[0]!, pair[1]!];
}

/** Gives a socket its address. Throws {@linkcode SystemError} (EADDRINUSE, EACCES, …). */
export function bind(fd: number, address: SocketAddress): void {
  checked(symbols().bind(fd, address.bytes, address.length), "bind a socket", address.text);
}

/** A listening TCP socket and the port that it got. */
export interface TcpListener {
  /** The descriptor. */
  fd: number;
  /** The port; the kernel's choice where 0 was asked for. */
  port: number;
}

/**
 * Listens on a numeric address or `localhost`; port 0 lets the kernel choose. An IPv6 address takes
 * no IPv4 connections. Throws {@linkcode SystemError} (EADDRINUSE, EADDRNOTAVAIL, EACCES, …).
 */
export function listenTcp(host: string, port: number, backlog = 1024): TcpListener {
  const address = inetAddress(host, port);
  const fd = socket(address.family, STREAM);
  try {
    setOption(fd, SOL.SOCKET, SO.REUSEADDR, 1);
    if (address.family === AF.INET6) setOption(fd, SOL.IPV6, IPV6_V6ONLY, 1);
    bind(fd, address);
    checked(symbols().listen(fd, backlog), "listen", address.text);
    return { fd, port: portOf(new DataView(nameOf(symbols().getsockname, fd).bytes.buffer)) };
  } catch (error) {
    close(fd);
    throw error;
  }
}

/**
 * Listens on a path, which must be free, or on `@name` in the abstract namespace. The socket file
 * has `mode` before anybody can connect. Throws {@linkcode SystemError} (EADDRINUSE, ENOENT, …).
 */
export function listenUnix(path: string, mode = 0o600, backlog = 1024): number {
  const address = unixAddress(path);
  const fd = socket(AF.UNIX, STREAM);
  try {
    bind(fd, address);
    if (!path.startsWith("@")) checked(symbols().chmod(cString(path), mode), "chmod", path);
    checked(symbols().listen(fd, backlog), "listen", path);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** Takes a waiting connection: its descriptor, or -1 with errno set (EAGAIN: none is waiting). */
export function accept(fd: number): number {
  return symbols().accept4(fd, null, null, ACCEPT_FLAGS);
}

/** Connects to a listening path or `@name`. Throws {@linkcode SystemError} (ENOENT, ECONNREFUSED, …). */
export function connectUnix(path: string): number {
  const address = unixAddress(path);
  const fd = socket(AF.UNIX, STREAM);
  if (symbols().connect(fd, address.bytes, address.length) === 0) return fd;
  return failConnect(fd, path);
}

/**
 * Begins to connect to a numeric address or `localhost`. The socket is writable when that is over;
 * {@linkcode takeError} then says how it ended. Throws {@linkcode SystemError} where it fails at once.
 */
export function connectTcp(host: string, port: number): number {
  const address = inetAddress(host, port);
  const fd = socket(address.family, STREAM);
  if (symbols().connect(fd, address.bytes, address.length) === 0) return fd;
  if (errno() === ERRNO.EINPROGRESS) return fd;
  return failConnect(fd, address.text);
}

/** The error of a socket since it was last asked for: an errno, 0 for none (SO_ERROR). */
export function takeError(fd: number): number {
  return getOption(fd, SOL.SOCKET, SO.ERROR);
}

/** Ends both directions of a connection; whoever reads it gets the end. Gone peers are no error. */
export function shutdown(fd: number): void {
  if (symbols().shutdown(fd, SHUT_RDWR) === 0 || errno() === ERRNO.ENOTCONN) return;
  throwErrno("shutdown", `descriptor ${fd}`);
}

/**
 * Asks for `bytes` of send buffer; answers what the socket got, which the kernel counts double for
 * its bookkeeping. Beyond net.core.wmem_max this needs CAP_NET_ADMIN, and is cut down without it.
 */
export function setSendBuffer(fd: number, bytes: number): number {
  const value = new Int32Array(32).fill(bytes, 0, 1);
  if (symbols().setsockopt(fd, SOL.SOCKET, SO.SNDBUFFORCE, value, 4) !== 0) {
    setOption(fd, SOL.SOCKET, SO.SNDBUF, bytes);
  }
  return getOption(fd, SOL.SOCKET, SO.SNDBUF);
}

/** Sends small TCP segments at once. Does nothing on a Unix socket. */
export function setNoDelay(fd: number): void {
  setTcpOption(fd, TCP.NODELAY, 1);
}

/**
 * Has a TCP connection fail after a minute when its peer is gone without a word, although nothing is
 * sent; routers on the way do not forget it meanwhile. Does nothing on a Unix socket.
 */
export function setKeepAlive(fd: number): void {
  setTcpOption(fd, TCP.KEEPIDLE, KEEP_ALIVE.IDLE);
  setTcpOption(fd, TCP.KEEPINTVL, KEEP_ALIVE.INTERVAL);
  setTcpOption(fd, TCP.KEEPCNT, KEEP_ALIVE.COUNT);
  setOption(fd, SOL.SOCKET, SO.KEEPALIVE, 1);
}

function setTcpOption(fd: number, option: number, value: number): void {
  const cell = new Int32Array(32).fill(value, 0, 1);
  if (symbols().setsockopt(fd, SOL.TCP, option, cell, 4) === 0) return;
  if (errno() !== ERRNO.EOPNOTSUPP) throwErrno(`setsockopt TCP ${option}`, `descriptor ${fd}`);
}

/** Sets an `int` option. Throws {@linkcode SystemError}. */
export function setOption(fd: number, level: number, option: number, value: number): void {
  const cell = new Int32Array(32).fill(value, 0, 1);
  const result = symbols().setsockopt(fd, level, option, cell, 4);
  checked(result, `setsockopt ${level}/${option}`, `descriptor ${fd}`);
}

/** Reads an `int` option. Throws {@linkcode SystemError} (ENOTSOCK, ENOPROTOOPT, …). */
export function getOption(fd: number, level: number, option: number): number {
  const cell = new Int32Array(32);
  const length = new Uint32Array(32).fill(4, 0, 1);
  const result = symbols().getsockopt(fd, level, option, cell, length);
  checked(result, `getsockopt ${level}/${option}`, `descriptor ${fd}`);
  return cell[0]!;
}

/** Who made the other end of a Unix socket (`struct ucred`). */
export interface PeerCredentials {
  /** Its process id in this pid namespace; 0 where it lives in one that cannot be seen. */
  pid: number;
  /** Its effective user id then. */
  uid: number;
  /** Its effective group id then. */
  gid: number;
}

/** Who connected to, or listened on, the other end of a Unix socket. Throws {@linkcode SystemError}. */
export function peerCredentials(fd: number): PeerCredentials {
  const credentials = new DataView(new ArrayBuffer(128));
  const length = new Uint32Array(32).fill(12, 0, 1);
  const result = symbols().getsockopt(fd, SOL.SOCKET, SO.PEERCRED, credentials, length);
  checked(result, "getsockopt SO_PEERCRED", `descriptor ${fd}`);
  return {
    pid: credentials.getInt32(0, true),
    uid: credentials.getUint32(4, true),
    gid: credentials.getUint32(8, true),
  };
}

/** The own address of a socket, as {@linkcode formatAddress} writes it. Throws {@linkcode SystemError}. */
export function socketName(fd: number): string {
  const name = nameOf(symbols().getsockname, fd);
  return formatAddress(name.bytes, name.length);
}

/** The address of the other end, empty where that has no name. Throws {@linkcode SystemError}. */
export function peerName(fd: number): string {
  const name = nameOf(symbols().getpeername, fd);
  return formatAddress(name.bytes, name.length);
}

/**
 * Reads into the first `count` entries of a table: bytes read, 0 at the end of the stream, or -1
 * with errno set (EAGAIN: nothing is there yet).
 */
export function readv(fd: number, iovec: Iovec, count: number): number {
  return symbols().readv(fd, iovec.bytes, count);
}

/**
 * Writes the first `count` entries of a table: bytes taken, perhaps fewer than all, or -1 with errno
 * set (EAGAIN: the buffer is full, EPIPE: the peer is gone).
 */
export function writev(fd: number, iovec: Iovec, count: number): number {
  return symbols().writev(fd, iovec.bytes, count);
}

/**
 * What the peer of a Unix socket has still to read, in bytes of kernel memory: up to twice what was
 * written, and about 768 more a write. Of a TCP socket: what was not acknowledged, which says less. 0 where the
 * kernel does not tell.
 */
export function unread(fd: number): number {
  return symbols().ioctl(fd, SIOCOUTQ, unreadBytes) === 0 ? unreadBytes[0]! : 0;
}

/** Reads into a buffer: bytes read, 0 at the end of the stream, or -1 with errno set. */
export function recv(fd: number, buffer: Uint8Array): number {
  return symbols().recv(fd, buffer as BufferSource, BigInt(buffer.length), 0);
}

/** Whether {@linkcode recv} would answer something else than EAGAIN: bytes, the end, an error. */
export function isReadable(fd: number): boolean {
  const result = symbols().recv(fd, new Uint8Array(64), 1n, MSG.PEEK);
  return result >= 0 || errno() !== ERRNO.EAGAIN;
}

/** Writes a buffer: bytes taken, perhaps fewer than all, or -1 with errno set. */
export function send(fd: number, buffer: Uint8Array): number {
  return symbols().send(fd, buffer as BufferSource, BigInt(buffer.length), MSG.NOSIGNAL);
}

type NameCall = ReturnType<typeof symbols>["getsockname"];

function nameOf(call: NameCall, fd: number): { bytes: Uint8Array<ArrayBuffer>; length: number } {
  const bytes = new Uint8Array(128);
  const length = new Uint32Array(32).fill(bytes.length, 0, 1);
  checked(call(fd, bytes, length), "read a socket's name", `descriptor ${fd}`);
  return { bytes, length: Math.min(length[0]!, bytes.length) };
}

function failConnect(fd: number, subject: string): never {
  const error = new SystemError({ syscall: "connect", errno: errno(), subject });
  close(fd);
  throw error;
}
