/**
 * linux/nbd.h and linux/nbd-netlink.h: how a process asks the kernel's NBD client for a device.
 *
 * @module
 */
import { checked, ERRNO, SystemError } from "./errno.ts";
import { libc } from "./libc.ts";
import { type Attribute, type Attributes, parseAttributes, unsigned } from "./netlink.ts";
import { GenericNetlink } from "./netlink_socket.ts";

/** Requests of ioctl(2) on /dev/nbdN; all take a plain integer. */
export const NBD_IOCTL = {
  SET_SOCK: 0xab00,
  SET_BLKSIZE: 0xab01,
  SET_SIZE: 0xab02,
  DO_IT: 0xab03,
  CLEAR_SOCK: 0xab04,
  SET_SIZE_BLOCKS: 0xab07,
  DISCONNECT: 0xab08,
  SET_TIMEOUT: 0xab09,
  SET_FLAGS: 0xab0a,
} as const;

/** What the server of a device can do: NBD's transmission flags. */
export const NBD_FLAG = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  CAN_MULTI_CONN: 1 << 8,
} as const;

/** What happens to a device later. */
export const NBD_CFLAG = { DESTROY_ON_DISCONNECT: 1, DISCONNECT_ON_CLOSE: 2 } as const;

/** The generic netlink family. */
export const NBD_GENL = { NAME: "nbd", VERSION: 1, MULTICAST_GROUP: "nbd_mc_group" } as const;

/** Commands of the family; LINK_DEAD is the kernel's, to the multicast group. */
export const NBD_CMD = {
  CONNECT: 1,
  DISCONNECT: 2,
  RECONFIGURE: 3,
  LINK_DEAD: 4,
  STATUS: 5,
} as const;

/** Attributes of the family. */
export const NBD_ATTR = {
  INDEX: 1,
  SIZE_BYTES: 2,
  BLOCK_SIZE_BYTES: 3,
  TIMEOUT: 4,
  SERVER_FLAGS: 5,
  CLIENT_FLAGS: 6,
  SOCKETS: 7,
  DEAD_CONN_TIMEOUT: 8,
  DEVICE_LIST: 9,
  BACKEND_IDENTIFIER: 10,
} as const;

const SOCK_ITEM = 1;
const SOCK_FD = 1;
const DEVICE_ITEM = 1;
const DEVICE = { INDEX: 1, CONNECTED: 2 } as const;

const symbols = libc({
  // int ioctl(int fd, unsigned long request, unsigned long arg)
  ioctl: { parameters: ["i32", "usize", "usize"], result: "i32" },
  // the same, off this thread: DO_IT returns when the device ends, DISCONNECT may wait for its server
  ioctlAsync: {
    name: "ioctl",
    parameters: ["i32", "usize", "usize"],
    result: "i32",
    nonblocking: true,
  },
});

/** What a device is made of. */
export interface NbdConfiguration {
  /** N of /dev/nbdN; the kernel takes a free device, or makes one, unless told. */
  index?: number;
  /** Bytes. */
  size: number;
  /** Bytes that are read and written at once: a power of two from 512 to 4096. */
  blockSize: number;
  /** Seconds after which a request counts as lost. */
  timeout: number;
  /** Seconds that requests wait for a new connection when all are lost; 0 fails them. */
  deadConnectionTimeout: number;
  /** Bits of {@linkcode NBD_FLAG}. */
  serverFlags: number;
  /** Bits of {@linkcode NBD_CFLAG}; none unless told. */
  clientFlags?: number;
  /** Connected stream sockets, descriptors of the process that sends the request. */
  sockets: number[];
  /** A name for the device's owner, which sysfs shows. */
  identifier?: string;
}

/** The attributes of CONNECT. */
export function connectAttributes(configuration: NbdConfiguration): Attribute[] {
  const { index, clientFlags = 0, identifier } = configuration;
  const attributes: Attribute[] = [];
  if (index !== undefined) attributes.push(indexAttribute(index));
  attributes.push(
    { type: NBD_ATTR.SIZE_BYTES, value: { u64: configuration.size } },
    { type: NBD_ATTR.BLOCK_SIZE_BYTES, value: { u64: configuration.blockSize } },
    { type: NBD_ATTR.TIMEOUT, value: { u64: configuration.timeout } },
    { type: NBD_ATTR.DEAD_CONN_TIMEOUT, value: { u64: configuration.deadConnectionTimeout } },
    { type: NBD_ATTR.SERVER_FLAGS, value: { u64: configuration.serverFlags } },
    { type: NBD_ATTR.CLIENT_FLAGS, value: { u64: clientFlags } },
    socketsAttribute(configuration.sockets),
  );
  if (identifier !== undefined) attributes.push(identifierAttribute(identifier));
  return attributes;
}

/** The attributes of DISCONNECT. */
export function disconnectAttributes(index: number): Attribute[] {
  return [indexAttribute(index)];
}

/**
 * The attributes of RECONFIGURE: new sockets in the place of dead ones. The identifier must be that
 * of CONNECT.
 */
export function reconfigureAttributes(
  index: number,
  sockets: number[],
  identifier?: string,
): Attribute[] {
  const attributes = [indexAttribute(index), socketsAttribute(sockets)];
  if (identifier !== undefined) attributes.push(identifierAttribute(identifier));
  return attributes;
}

/** The attributes of STATUS: of one device, or of all. */
export function statusAttributes(index?: number): Attribute[] {
  return index === undefined ? [] : [indexAttribute(index)];
}

/** One device in the answer to STATUS. */
export interface NbdStatus {
  /** N of /dev/nbdN. */
  index: number;
  /** Whether it is configured, or just open in some process. */
  connected: boolean;
}

/** N of /dev/nbdN in the answer to CONNECT. Throws `RangeError` where it is missing. */
export function connectedIndex(answer: Attributes | undefined): number {
  return unsigned(answer?.get(NBD_ATTR.INDEX));
}

/** The devices in the answer to STATUS. Throws `RangeError` where it is malformed. */
export function statusDevices(answer: Attributes | undefined): NbdStatus[] {
  const list = answer?.get(NBD_ATTR.DEVICE_LIST) ?? new Uint8Array();
  return parseAttributes(list).filter(([type]) => type === DEVICE_ITEM).map(([, item]) => {
    const device = new Map(parseAttributes(item));
    return {
      index: unsigned(device.get(DEVICE.INDEX)),
      connected: unsigned(device.get(DEVICE.CONNECTED)) !== 0,
    };
  });
}

/** An ioctl on this thread. Throws {@linkcode SystemError}. */
export function deviceControl(fd: number, request: number, argument: number, what: string): number {
  const result = symbols().ioctl(fd, BigInt(request), BigInt(argument));
  return checked(result, what, `descriptor ${fd}`);
}

/** An ioctl off this thread; a negative number where it fails (errno is lost). */
export function deviceControlAsync(fd: number, request: number, argument: number): Promise<number> {
  return symbols().ioctlAsync(fd, BigInt(request), BigInt(argument));
}

/** The kernel's NBD client by netlink; undefined where there is none, or not in this container. */
export function openNbdFamily(): GenericNetlink | undefined {
  try {
    return new GenericNetlink(NBD_GENL.NAME, NBD_GENL.VERSION);
  } catch (error) {
    if (error instanceof SystemError && error.errno === ERRNO.ENOENT) return undefined;
    throw error;
  }
}

function indexAttribute(index: number): Attribute {
  return { type: NBD_ATTR.INDEX, value: { u32: index } };
}

function identifierAttribute(identifier: string): Attribute {
  return { type: NBD_ATTR.BACKEND_IDENTIFIER, value: { string: identifier } };
}

function socketsAttribute(sockets: number[]): Attribute {
  const nest = sockets.map((fd): Attribute => ({
    type: SOCK_ITEM,
    value: { nest: [{ type: SOCK_FD, value: { u32: fd } }] },
  }));
  return { type: NBD_ATTR.SOCKETS, value: { nest } };
}
