#!/bin/sh
# Installs a build into an empty place and uses it as an author does: pkg-config, CMake, the tutorial, the man page.
#
#   sh install.sh BUILD_FOLDER
set -eu
sdk="$(cd "$(dirname "$0")/.." && pwd)"
build="$(cd "$1" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cmake -S "$sdk" -B "$work/build" -DCMAKE_INSTALL_PREFIX="$work/usr" -DCMAKE_INSTALL_LIBDIR=lib -DP2POS_BUILD_EXAMPLES=OFF > "$work/log" || { cat "$work/log"; exit 1; }
cmake --build "$work/build" --parallel 2 >> "$work/log" || { cat "$work/log"; exit 1; }
cmake --install "$work/build" >> "$work/log"
export PKG_CONFIG_PATH="$work/usr/lib/pkgconfig"
[ "$(pkg-config --modversion p2pos)" = 0.1.0 ]

cp "$sdk/examples/echo.c" "$work/"
cc -std=c99 -D_POSIX_C_SOURCE=200809L -o "$work/dynamic" "$work/echo.c" $(pkg-config --cflags --libs p2pos) -Wl,-rpath,"$work/usr/lib"
cc -std=c99 -D_POSIX_C_SOURCE=200809L -o "$work/static" "$work/echo.c" $(pkg-config --cflags p2pos) "$work/usr/lib/libp2pos.a" -lprotobuf-nanopb
for program in dynamic static; do
    env -i "$work/$program" 2> "$work/said" && exit 1 || [ $? = 78 ]
    grep -q "p2pos plugins run" "$work/said"
done
readelf -d "$work/dynamic" | grep -q 'NEEDED.*\[libp2pos.so.1\]'

mkdir "$work/user"
cat > "$work/user/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(p2pos 0.1 REQUIRED)
add_executable(user ../echo.c)
target_compile_definitions(user PRIVATE _POSIX_C_SOURCE=200809L)
target_link_libraries(user p2pos::p2pos)
END
cmake -S "$work/user" -B "$work/user/build" -DCMAKE_PREFIX_PATH="$work/usr" >> "$work/log" || { cat "$work/log"; exit 1; }
cmake --build "$work/user/build" >> "$work/log" || { cat "$work/log"; exit 1; }

mandoc -Tlint -Wwarning "$work/usr/share/man/man3/p2pos-sdk.3"
python3 -B "$sdk/tests/tutorial.py" "$work/usr"
echo "installed, found by pkg-config and CMake, and the tutorial's plugin works ($build is left alone)"
