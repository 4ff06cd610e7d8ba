#!/bin/sh
# The header compiles alone, as C99 and as C++17, with every warning an error: sh check_header.sh CC CXX
set -eu
cd "$(dirname "$0")"
warnings="-Wall -Wextra -pedantic -Werror -fsyntax-only -I ../include"
"$1" -std=c99 $warnings -x c header.c
"$1" -std=c99 $warnings -x c -include stddef.h ../include/p2pos/p2pos.h
"$2" -std=c++17 $warnings -x c++ header.c
echo "the header compiles alone as C99 and C++17"
