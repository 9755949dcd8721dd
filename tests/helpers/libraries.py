"""Delegate libraries of a few lines of C, good and bad, built by the compiler that is here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

# The head of TfLiteDelegate, as the runtime reads it. The option `mode` selects what it does.
DELEGATE = """
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct delegate {
  void *data;
  int (*prepare)(void *context, struct delegate *self);
  void *copy_from, *copy_to, *free_buffer;
  int64_t flags;
  void *builder;
};

static int take_nothing(void *context, struct delegate *self) { return 0; }
static int refuse(void *context, struct delegate *self) { return 1; }
static int crash(void *context, struct delegate *self) { abort(); }

void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  const char *mode = "";
  for (size_t i = 0; i < count; i++)
    if (strcmp(keys[i], "mode") == 0) mode = values[i];
  if (strcmp(mode, "absent") == 0) { report("nothing on the bus"); return NULL; }
  if (strcmp(mode, "hang") == 0) for (;;) pause();
  struct delegate *made = calloc(1, sizeof *made);
  made->prepare = strcmp(mode, "refuse") == 0 ? refuse : strcmp(mode, "crash") == 0 ? crash : take_nothing;
  return made;
}

void tflite_plugin_destroy_delegate(void *made) { free(made); }
"""
CRASHES_ON_LOAD = "#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { abort(); }\n"
NOT_A_DELEGATE = "int answer(void) { return 42; }\n"
LACKS_A_SYMBOL = "extern int nobody_has_this(void); int (*used)(void) = nobody_has_this;\n"


def build(path: Path, source: str) -> Path:
    """Compile C source to a shared library at `path`; skip the test where no compiler is."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: sudo apt install gcc libc6-dev")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source.encode(), check=True)
    return path


def for_another_machine(path: Path, library: Path) -> Path:
    """Copy a library and mark it in its ELF header as built for another processor."""
    data = bytearray(library.read_bytes())
    data[18:20] = (8).to_bytes(2, "little")  # e_machine = EM_MIPS
    path.write_bytes(data)
    return path
