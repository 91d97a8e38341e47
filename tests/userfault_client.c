/*
 * A process whose memory the test fills: it registers pages, sends its userfaultfd and their address
 * over the socket whose number is its argument, and then does what each byte from there says:
 * 'f' forks a child that touches the first page, and answers the byte that the child read.
 * It ends with the socket.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 4

static void check(int fine, int status) {
  if (!fine) exit(status);
}

static void send_descriptor(int socket, int descriptor, uint64_t address) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec data = {&address, sizeof address};
  struct msghdr message = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  memset(&control, 0, sizeof control);
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(&control.header), &descriptor, sizeof descriptor);
  check(sendmsg(socket, &message, 0) == sizeof address, 10);
}

static char touch_in_child(const volatile char *memory) {
  int status = 0;
  pid_t child = fork();
  check(child >= 0, 11);
  if (child == 0) _exit(memory[0]);
  check(waitpid(child, &status, 0) == child && WIFEXITED(status), 12);
  return (char)WEXITSTATUS(status);
}

int main(int count, char **arguments) {
  check(count == 2, 2);
  int socket = atoi(arguments[1]);
  check(fcntl(socket, F_SETFL, 0) == 0, 8);
  size_t length = PAGES * (size_t)sysconf(_SC_PAGESIZE);
  char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(memory != MAP_FAILED, 3);
  int uffd = (int)syscall(SYS_userfaultfd, 02000000 | 04000);
  check(uffd >= 0, 4);
  struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK};
  check(ioctl(uffd, UFFDIO_API, &api) == 0, 5);
  struct uffdio_register registration = {.range = {(uintptr_t)memory, length},
                                         .mode = UFFDIO_REGISTER_MODE_MISSING};
  check(ioctl(uffd, UFFDIO_REGISTER, &registration) == 0, 6);
  send_descriptor(socket, uffd, (uintptr_t)memory);
  close(uffd);
  for (char command; read(socket, &command, 1) == 1;) {
    char answer = command == 'f' ? touch_in_child(memory) : 0;
    check(write(socket, &answer, 1) == 1, 7);
  }
  return 0;
}
