/**
 * `struct msghdr` and `struct cmsghdr` of sys/socket.h: descriptors that travel to another process
 * over a Unix socket (SCM_RIGHTS, unix(7)).
 *
 * @module
 */
import { checked, ERRNO, SystemError } from "./errno.ts";
import { close, Iovec } from "./file.ts";
import { addressOf, libc } from "./libc.ts";
import { MSG, SOL } from "./socket.ts";

/** Descriptors that one message carries at most (SCM_MAX_FD of net/scm.h). */
export const DESCRIPTORS_MAX = 253;

const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
// Offsets in struct msghdr and struct cmsghdr on a 64-bit machine.
const MSGHDR = { IOV: 16, IOVLEN: 24, CONTROL: 32, CONTROLLEN: 40, FLAGS: 48 } as const;
const CMSGHDR = { LEN: 0, LEVEL: 8, TYPE: 12, SIZE: 16 } as const;
const CONTROL_SIZE = CMSGHDR.SIZE + DESCRIPTORS_MAX * 4 + 4;

const symbols = libc({
  // ssize_t sendmsg(int sockfd, const struct msghdr *msg, int flags); counts stay under 2^31 here
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // ssize_t recvmsg(int sockfd, struct msghdr *msg, int flags)
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
});

/**
 * Sends bytes, at least one, and with their first byte copies of descriptors; answers the bytes
 * taken. Throws {@linkcode SystemError} (EAGAIN, EPIPE, EBADF, ETOOMANYREFS, …).
 */
export function sendDescriptors(fd: number, data: Uint8Array, descriptors: number[]): number {
  if (data.length === 0 || descriptors.length > DESCRIPTORS_MAX) {
    throw new RangeError(`Cannot send over ${DESCRIPTORS_MAX} descriptors, or none of any byte`);
  }
  const message = new Message(data.length);
  message.data.set(data);
  message.putDescriptors(descriptors);
  const flags = MSG.NOSIGNAL | MSG.DONTWAIT;
  return checked(symbols().sendmsg(fd, message.header, flags), "sendmsg", `descriptor ${fd}`);
}

/** What came over a Unix socket. */
export interface ReceivedMessage {
  /** Bytes read into the buffer; 0 at the end of the stream. */
  length: number;
  /** Descriptors that came with them; the receiver has to close them. */
  descriptors: number[];
}

/**
 * Receives bytes and the descriptors that came with them (close-on-exec), `limit` of them at most.
 * Throws {@linkcode SystemError}: EAGAIN where nothing is there, EMSGSIZE where more descriptors came
 * than the limit (all of them are closed).
 */
export function receiveDescriptors(fd: number, buffer: Uint8Array, limit: number): ReceivedMessage {
  const message = new Message(buffer.length);
  const flags = MSG.DONTWAIT | MSG_CMSG_CLOEXEC;
  const subject = `descriptor ${fd}`;
  const length = checked(symbols().recvmsg(fd, message.header, flags), "recvmsg", subject);
  buffer.set(message.data.subarray(0, length));
  const descriptors = message.takeDescriptors();
  if (descriptors.length <= limit && !message.truncated) return { length, descriptors };
  descriptors.forEach(close);
  const hint = `the peer sent more than ${limit} descriptors`;
  throw new SystemError({ syscall: "recvmsg", errno: ERRNO.EMSGSIZE, subject, hint });
}

/** One `struct msghdr` over a buffer of its own, with room for control data. */
class Message {
  /** The structure, as the C functions take it. */
  readonly header = new Uint8Array(128);
  /** What is sent or was received. */
  readonly data: Uint8Array<ArrayBuffer>;
  readonly #headerView = new DataView(this.header.buffer);
  readonly #control = new Uint8Array(CONTROL_SIZE);
  readonly #controlView = new DataView(this.#control.buffer);
  readonly #iovec = new Iovec(1);

  constructor(length: number) {
    // A typed array of 64 bytes or less may lie on the moving V8 heap.
    this.data = new Uint8Array(Math.max(length, 128)).subarray(0, length);
    this.#iovec.set(0, addressOf(this.data), length);
    this.#setPointer(MSGHDR.IOV, addressOf(this.#iovec.bytes));
    this.#setPointer(MSGHDR.IOVLEN, 1);
    this.#setPointer(MSGHDR.CONTROL, addressOf(this.#control));
    this.#setPointer(MSGHDR.CONTROLLEN, CONTROL_SIZE);
  }

  /** Whether there were more descriptors than room, or than this process may open. */
  get truncated(): boolean {
    return (this.#headerView.getInt32(MSGHDR.FLAGS, true) & MSG_CTRUNC) !== 0;
  }

  putDescriptors(descriptors: number[]): void {
    const length = CMSGHDR.SIZE + descriptors.length * 4;
    this.#controlView.setBigUint64(CMSGHDR.LEN, BigInt(length), true);
    this.#controlView.setInt32(CMSGHDR.LEVEL, SOL.SOCKET, true);
    this.#controlView.setInt32(CMSGHDR.TYPE, SCM_RIGHTS, true);
    descriptors.forEach((fd, index) => {
      this.#controlView.setInt32(CMSGHDR.SIZE + index * 4, fd, true);
    });
    this.#setPointer(MSGHDR.CONTROLLEN, descriptors.length === 0 ? 0 : length);
  }

  takeDescriptors(): number[] {
    if (this.#headerView.getBigUint64(MSGHDR.CONTROLLEN, true) < CMSGHDR.SIZE) return [];
    const level = this.#controlView.getInt32(CMSGHDR.LEVEL, true);
    const type = this.#controlView.getInt32(CMSGHDR.TYPE, true);
    if (level !== SOL.SOCKET || type !== SCM_RIGHTS) return [];
    const length = Number(this.#controlView.getBigUint64(CMSGHDR.LEN, true));
    const descriptors: number[] = [];
    for (let at: number = CMSGHDR.SIZE; at + 4 <= length; at += 4) {
      descriptors.push(this.#controlView.getInt32(at, true));
    }
    return descriptors;
  }

  #setPointer(at: number, value: number): void {
    this.#headerView.setBigUint64(at, BigInt(value), true);
  }
}
