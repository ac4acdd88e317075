#!/bin/sh
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# tracked.sh FILE COMMAND [ARGUMENT...]: runs a program built with BOOST_ASIO_ENABLE_HANDLER_TRACKING,
# keeps the trace that it writes to its standard error in FILE, where handlerviz.pl can read it, and
# fails if the program does or if the trace has no handler in it.
set -eu
file=$1
shift
status=0
"$@" 2>"$file" || status=$?
cat "$file"
if ! grep -q '^@asio|[0-9.]*|>' "$file"; then
    echo "no handler in the trace"
    exit 1
fi
exit "$status"
