/*
 * A process whose memory a handler pages in, the way Firecracker has it done: it maps regions,
 * registers them with a userfaultfd that tells of removals, and sends both over a Unix socket.
 *
 *     uffd_client SOCKET FILE REGIONS wait|poison
 *
 * FILE is what the handler pages in from: the regions are as large as the file altogether, and what
 * is read is compared with it. It does what each line of its standard input says, and answers each
 * with one line:
 *
 *     check OFFSET LENGTH STRIDE   touch every STRIDEth page until all were touched, compare them
 *     zeroes OFFSET LENGTH         touch all bytes, compare them with 0
 *     write OFFSET                 write one byte that is not in the file
 *     drop OFFSET LENGTH           give the memory back, as a balloon does
 *
 * When the connection ends it prints `lost`; with `wait` it connects again until a handler answers,
 * wakes whoever waits and prints `attached`; with `poison` it poisons all missing pages and prints
 * `poisoned`. A touch that ends in SIGBUS is answered with `SIGBUS`.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Of Linux 6.6, which the headers may be older than. */
#ifndef UFFDIO_POISON
struct uffdio_poison {
  struct uffdio_range range;
  __u64 mode;
  __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

#define REGIONS_MAX 16

struct region {
  char *address;
  size_t size;
  size_t offset;
};

static struct region regions[REGIONS_MAX];
static size_t region_count;
static size_t page;
static const char *socket_path;
static int file, uffd, connection;
static int poisons;
static sigjmp_buf touching;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void say(const char *line) {
  printf("%s\n", line);
  fflush(stdout);
}

static void map_regions(void) {
  struct stat stat;
  if (fstat(file, &stat) != 0) fail("fstat");
  size_t size = stat.st_size / region_count / page * page;
  for (size_t i = 0; i < region_count; i++) {
    regions[i].offset = i * size;
    regions[i].size = i + 1 < region_count ? size : (size_t)stat.st_size - i * size;
    regions[i].address = mmap(NULL, regions[i].size, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (regions[i].address == MAP_FAILED) fail("mmap");
  }
}

static void register_regions(void) {
  struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
  uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  if (uffd < 0) fail("userfaultfd");
  if (ioctl(uffd, UFFDIO_API, &api) != 0) fail("UFFDIO_API");
  for (size_t i = 0; i < region_count; i++) {
    struct uffdio_register registered = {
        .range = {.start = (uintptr_t)regions[i].address, .len = regions[i].size},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    if (ioctl(uffd, UFFDIO_REGISTER, &registered) != 0) fail("UFFDIO_REGISTER");
  }
}

static int try_connect(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, socket_path, sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

static int hand_over(void) {
  char text[REGIONS_MAX * 200] = "[";
  for (size_t i = 0; i < region_count; i++) {
    sprintf(text + strlen(text),
            "%s{\"base_host_virt_addr\":%zu,\"size\":%zu,\"offset\":%zu,"
            "\"page_size\":%zu,\"page_size_kib\":%zu}",
            i == 0 ? "" : ",", (size_t)regions[i].address, regions[i].size, regions[i].offset,
            page, page);
  }
  strcat(text, "]");
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  memset(&control, 0, sizeof control);
  struct iovec data = {.iov_base = text, .iov_len = strlen(text)};
  struct msghdr message = {
      .msg_iov = &data,
      .msg_iovlen = 1,
      .msg_control = control.bytes,
      .msg_controllen = sizeof control.bytes,
  };
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(&control.header), &uffd, sizeof uffd);
  return sendmsg(connection, &message, MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

static void connect_again(void) {
  for (;;) {
    char byte;
    connection = try_connect();
    /* A handler on its way out may still let clients in, but answers none. */
    if (connection >= 0 && hand_over() && read(connection, &byte, 1) == 1) break;
    if (connection >= 0) close(connection);
    usleep(5000);
  }
  for (size_t i = 0; i < region_count; i++) {
    struct uffdio_range range = {.start = (uintptr_t)regions[i].address, .len = regions[i].size};
    if (ioctl(uffd, UFFDIO_WAKE, &range) != 0) fail("UFFDIO_WAKE");
  }
}

static void poison_missing(void) {
  for (size_t i = 0; i < region_count; i++) {
    for (size_t at = 0; at < regions[i].size; at += page) {
      struct uffdio_poison poison = {
          .range = {.start = (uintptr_t)regions[i].address + at, .len = page},
      };
      /* Where it fails the page is there. */
      if (ioctl(uffd, UFFDIO_POISON, &poison) != 0) ioctl(uffd, UFFDIO_WAKE, &poison.range);
    }
  }
}

static void *watch(void *unused) {
  char byte;
  for (;;) {
    while (read(connection, &byte, 1) > 0) continue;
    close(connection);
    say("lost");
    if (poisons) {
      poison_missing();
      say("poisoned");
      return unused;
    }
    connect_again();
    say("attached");
  }
}

static void on_sigbus(int signal) {
  siglongjmp(touching, signal);
}

static char *address_of(size_t offset) {
  for (size_t i = 0; i < region_count; i++) {
    if (offset >= regions[i].offset && offset - regions[i].offset < regions[i].size) {
      return regions[i].address + (offset - regions[i].offset);
    }
  }
  return NULL;
}

static const char *check(size_t offset, size_t length, size_t stride) {
  static char answer[64];
  char expected[65536];
  for (size_t first = 0; first < stride; first++) {
    for (size_t at = offset + first * page; at < offset + length; at += stride * page) {
      char *found = address_of(at);
      if (pread(file, expected, page, at) != (ssize_t)page) fail("pread");
      if (memcmp(found, expected, page) == 0) continue;
      sprintf(answer, "differs in the page at %zu", at);
      return answer;
    }
  }
  return "equal";
}

static const char *zeroes(size_t offset, size_t length) {
  for (size_t at = offset; at < offset + length; at++) {
    if (*address_of(at) != 0) return "not zeroes";
  }
  return "zeroes";
}

static const char *drop(size_t offset, size_t length) {
  for (size_t at = offset; at < offset + length; at += page) {
    if (madvise(address_of(at), page, MADV_DONTNEED) != 0) fail("madvise");
  }
  return "dropped";
}

static const char *write_byte(size_t offset) {
  char expected;
  if (pread(file, &expected, 1, offset) != 1) fail("pread");
  *address_of(offset) = ~expected;
  return *address_of(offset) == (char)~expected ? "written" : "not written";
}

static const char *obey(const char *line) {
  size_t offset = 0, length = 0, stride = 1;
  if (sigsetjmp(touching, 1) != 0) return "SIGBUS";
  if (sscanf(line, "check %zu %zu %zu", &offset, &length, &stride) == 3) {
    return check(offset, length, stride);
  }
  if (sscanf(line, "zeroes %zu %zu", &offset, &length) == 2) return zeroes(offset, length);
  if (sscanf(line, "drop %zu %zu", &offset, &length) == 2) return drop(offset, length);
  if (sscanf(line, "write %zu", &offset) == 1) return write_byte(offset);
  return "not understood";
}

int main(int argc, char **argv) {
  char line[256];
  pthread_t watcher;
  struct sigaction action = {.sa_handler = on_sigbus};
  if (argc != 5) return 2;
  socket_path = argv[1];
  file = open(argv[2], O_RDONLY | O_CLOEXEC);
  if (file < 0) fail("open");
  region_count = strtoul(argv[3], NULL, 10);
  if (region_count < 1 || region_count > REGIONS_MAX) return 2;
  poisons = strcmp(argv[4], "poison") == 0;
  page = sysconf(_SC_PAGESIZE);
  sigaction(SIGBUS, &action, NULL);
  map_regions();
  register_regions();
  connection = try_connect();
  if (connection < 0) fail("connect");
  if (!hand_over()) fail("sendmsg");
  say("attached");
  if (pthread_create(&watcher, NULL, watch, NULL) != 0) fail("pthread_create");
  while (fgets(line, sizeof line, stdin) != NULL) say(obey(line));
  return 0;
}
