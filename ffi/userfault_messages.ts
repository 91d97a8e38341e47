/**
 * `struct uffd_msg` of linux/userfaultfd.h: the page faults and changes of mappings that a
 * userfaultfd tells of, read many at a time and looked at in place.
 *
 * @module
 */
import { ERRNO, errno, throwErrno } from "./errno.ts";
import { addressOf, libc } from "./libc.ts";

/**
 * What a message tells. All but PAGEFAULT come only where the feature was asked for, and hold the
 * thread that changes the mapping, and every fill (EAGAIN), until they are read.
 */
export const UFFD_EVENT = {
  /** A thread waits for a page. */
  PAGEFAULT: 0x12,
  /** The process forked; the message brings the child's userfaultfd. */
  FORK: 0x13,
  /** A mapping was moved by mremap(2). */
  REMAP: 0x14,
  /** Pages were dropped by madvise(2): from now on they are zeroes. */
  REMOVE: 0x15,
  /** A range was unmapped. */
  UNMAP: 0x16,
} as const;

/** Why a thread waits for a page; none of them: it read a missing page. */
export const UFFD_FAULT = {
  /** It writes. */
  WRITE: 1,
  /** The page is write-protected. */
  WP: 2,
  /** The page is in its file, but not in this mapping. */
  MINOR: 4,
} as const;

const MESSAGE_SIZE = 32;
const MESSAGE_WORDS = MESSAGE_SIZE / 4;
const HIGH = 0x1_0000_0000;

const symbols = libc({
  // ssize_t read(int fd, void *buf, size_t count), by the buffer's address; under 2^31 here
  read: { parameters: ["i32", "usize", "usize"], result: "i32" },
});

/** A buffer of messages. Reading them makes no object. */
export class UserfaultMessages {
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #address: bigint;
  readonly #size: bigint;

  /** Makes a buffer for up to `capacity` messages a read. */
  constructor(capacity = 64) {
    if (!(capacity >= 1 && capacity <= 1 << 16)) {
      throw new RangeError(`Cannot hold ${capacity} messages: from 1 to ${1 << 16}`);
    }
    // At least 4 messages: a typed array of 64 bytes or less may lie on the moving V8 heap.
    this.#words = new Uint32Array(Math.max(capacity, 4) * MESSAGE_WORDS);
    this.#address = BigInt(addressOf(new Uint8Array(this.#words.buffer)));
    this.#size = BigInt(capacity * MESSAGE_SIZE);
  }

  /**
   * Reads the messages that wait, and answers how many there are; 0 where none waits. The messages
   * of the last read are gone then. Each of several threads with the same descriptor gets messages
   * that no other gets.
   *
   * Throws `SystemError` (EBADF; EINVAL where its features are not negotiated yet).
   */
  read(fd: number): number {
    const bytes = symbols().read(fd, this.#address, this.#size);
    if (bytes >= 0) return bytes / MESSAGE_SIZE;
    const failed = errno();
    if (failed === ERRNO.EAGAIN || failed === ERRNO.EINTR) return 0;
    throwErrno("read the messages of a userfaultfd", `descriptor ${fd}`);
  }

  /** What message `index` tells, of {@linkcode UFFD_EVENT}. */
  event(index: number): number {
    return this.#words[index * MESSAGE_WORDS]! & 0xff;
  }

  /** PAGEFAULT: bits of {@linkcode UFFD_FAULT}. */
  flags(index: number): number {
    return this.#words[index * MESSAGE_WORDS + 2]!;
  }

  /** PAGEFAULT: the page's address, or with EXACT_ADDRESS that of the touched byte. */
  address(index: number): number {
    return this.#number(index, 4);
  }

  /** PAGEFAULT: the id of the thread that waits; 0 without THREAD_ID. */
  threadId(index: number): number {
    return this.#words[index * MESSAGE_WORDS + 6]!;
  }

  /** REMOVE and UNMAP: the first byte of the range. */
  start(index: number): number {
    return this.#number(index, 2);
  }

  /** REMOVE and UNMAP: the byte behind the range. */
  end(index: number): number {
    return this.#number(index, 4);
  }

  /** REMAP: where the range was. */
  from(index: number): number {
    return this.#number(index, 2);
  }

  /** REMAP: where it is now. */
  to(index: number): number {
    return this.#number(index, 4);
  }

  /** REMAP: its bytes. */
  length(index: number): number {
    return this.#number(index, 6);
  }

  /** FORK: the child's userfaultfd, a descriptor of this process that the reader has to close. */
  forkFd(index: number): number {
    return this.#words[index * MESSAGE_WORDS + 2]!;
  }

  #number(index: number, word: number): number {
    const at = index * MESSAGE_WORDS + word;
    return this.#words[at]! + this.#words[at + 1]! * HIGH;
  }
}
