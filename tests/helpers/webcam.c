/* A USB camera without hardware: loaded in front of libc, it makes the file $WEBCAM a V4L2 device that shows
   red, YUYV, with noise. $WEBCAM_MODE: busy, freeze, unplug or still (after 20 pictures). The device is a timer,
   so that select() waits for it as for a camera. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BUFFERS = 4, MAX_FDS = 1024, STUCK_AFTER = 20 };

static char is_camera[MAX_FDS];
static unsigned width = 640, height = 480, fps = 30, queued[BUFFERS], first, count, pictures;
static uint8_t *memory[BUFFERS];

static int is_mode(const char *mode) {
  const char *set = getenv("WEBCAM_MODE");
  return set && strcmp(set, mode) == 0;
}

static int is_webcam(const char *path) {
  const char *node = getenv("WEBCAM");
  char real[PATH_MAX];
  return node && path && realpath(path, real) && strcmp(real, node) == 0;
}

static int open_camera(void) {
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  if (fd >= 0 && fd < MAX_FDS) is_camera[fd] = 1;
  return fd;
}

#define OPENER(name)                                                          \
  int name(const char *path, int flags, ...) {                                \
    va_list rest;                                                             \
    va_start(rest, flags);                                                    \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;   \
    va_end(rest);                                                             \
    if (is_webcam(path)) return open_camera();                                \
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);            \
    return next(path, flags, mode);                                           \
  }
OPENER(open)
OPENER(open64)

int close(int fd) {
  int (*next)(int) = dlsym(RTLD_NEXT, "close");
  if (fd >= 0 && fd < MAX_FDS) is_camera[fd] = 0;
  return next(fd);
}

static void *map(size_t length, off_t offset) {
  void *(*next)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
  void *made = next(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memory[offset / (1 << 24)] = made;
  return made;
}

#define MAPPER(name)                                                                             \
  void *name(void *at, size_t length, int access, int flags, int fd, off_t offset) {             \
    if (fd >= 0 && fd < MAX_FDS && is_camera[fd]) return map(length, offset);                    \
    void *(*next)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, #name);               \
    return next(at, length, access, flags, fd, offset);                                          \
  }
MAPPER(mmap)
MAPPER(mmap64)

static void set_timer(int fd, unsigned rate) {
  struct timespec every = {0, rate ? 1000000000 / rate : 0};
  struct itimerspec spec = {every, every};
  timerfd_settime(fd, 0, &spec, NULL);
}

static int fail(int error) {
  errno = error;
  return -1;
}

static int take_picture(int fd, struct v4l2_buffer *buffer) {
  uint64_t ticks;
  int is_stuck = pictures >= STUCK_AFTER;
  if (is_stuck && is_mode("unplug")) return fail(ENODEV);
  if (is_stuck && is_mode("freeze")) set_timer(fd, 0);
  if (!count || read(fd, &ticks, sizeof ticks) != sizeof ticks) return fail(EAGAIN);
  unsigned index = queued[first];
  first = (first + 1) % BUFFERS;
  count--;
  if (!(is_stuck && is_mode("still"))) pictures++;
  for (unsigned i = 0; i < width * height / 2; i++)
    memcpy(memory[index] + 4 * i, (uint8_t[]){81 + (i + pictures) % 2, 90, 81, 240}, 4);
  buffer->index = index;
  buffer->bytesused = buffer->length = 2 * width * height;
  buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
  return 0;
}

static void describe(struct v4l2_format *format) {
  struct v4l2_pix_format *pix = &format->fmt.pix;
  pix->width = width;
  pix->height = height;
  pix->pixelformat = V4L2_PIX_FMT_YUYV;
  pix->field = V4L2_FIELD_NONE;
  pix->bytesperline = 2 * width;
  pix->sizeimage = 2 * width * height;
}

static int answer(int fd, unsigned long request, void *data) {
  struct v4l2_capability *capability = data;
  struct v4l2_format *format = data;
  struct v4l2_buffer *buffer = data;
  struct v4l2_fract *interval = &((struct v4l2_streamparm *)data)->parm.capture.timeperframe;
  switch (request) {
    case VIDIOC_QUERYCAP:
      memset(capability, 0, sizeof *capability);
      strcpy((char *)capability->card, "Webcam");
      capability->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
      capability->capabilities = capability->device_caps | V4L2_CAP_DEVICE_CAPS;
      return 0;
    case VIDIOC_G_INPUT:
      *(int *)data = 0;
      return 0;
    case VIDIOC_S_FMT:
      if (is_mode("busy")) return fail(EBUSY);
      width = format->fmt.pix.width;
      height = format->fmt.pix.height;
      describe(format);
      return 0;
    case VIDIOC_G_FMT:
    case VIDIOC_TRY_FMT:
      describe(format);
      return 0;
    case VIDIOC_S_PARM:
      if (interval->numerator) fps = interval->denominator / interval->numerator;
      /* fall through */
    case VIDIOC_G_PARM:
      ((struct v4l2_streamparm *)data)->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
      *interval = (struct v4l2_fract){1, fps};
      return 0;
    case VIDIOC_REQBUFS:
      if (((struct v4l2_requestbuffers *)data)->count > BUFFERS) ((struct v4l2_requestbuffers *)data)->count = BUFFERS;
      first = count = 0;
      return 0;
    case VIDIOC_QUERYBUF:
      buffer->length = 2 * width * height;
      buffer->m.offset = buffer->index << 24;
      return 0;
    case VIDIOC_QBUF:
      queued[(first + count++) % BUFFERS] = buffer->index;
      return 0;
    case VIDIOC_DQBUF:
      return take_picture(fd, buffer);
    case VIDIOC_STREAMON:
      set_timer(fd, fps);
      return 0;
    case VIDIOC_STREAMOFF:
      set_timer(fd, 0);
      first = count = 0;
      return 0;
  }
  return fail(EINVAL);
}

int ioctl(int fd, unsigned long request, ...) {
  va_list rest;
  va_start(rest, request);
  void *data = va_arg(rest, void *);
  va_end(rest);
  if (fd >= 0 && fd < MAX_FDS && is_camera[fd]) return answer(fd, request & 0xffffffff, data);
  int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
  return next(fd, request, data);
}
