#!/usr/bin/env tclsh
# Serves /echo-tcl/1: every stream gets back what it sends. Core Tcl 8.6, no package: the whole plugin protocol that an honest
# plugin needs is here. README.md walks through it; plugin-protocol/SPEC.md is the contract; the numbers are plugin.proto's.

# --- protobuf, writing: a field is its number and wire type, then a varint or a length and bytes. Zero and empty are not written.
proc varint {n} {
    set out ""
    while {$n > 127} {
        append out [binary format c [expr {$n & 127 | 128}]]
        set n [expr {$n >> 7}]
    }
    return $out[binary format c $n]
}
proc number {field n} {
    if {$n == 0} { return "" }
    return [varint [expr {$field << 3}]][varint $n]
}
proc block {field bytes} { return [varint [expr {$field << 3 | 2}]][varint [string length $bytes]]$bytes }

# --- protobuf, reading: a message becomes a dict from field number to value; of a repeated field the last one stays.
proc takeVarint {bytes atName} {
    upvar 1 $atName at
    set n 0
    for {set shift 0} {$shift < 64} {incr shift 7} {
        if {[binary scan $bytes @${at}cu byte] != 1} { error "the message ends within a number" }
        incr at
        set n [expr {$n | ($byte & 127) << $shift}]
        if {$byte < 128} { return $n }
    }
    error "a number has more than ten bytes"
}
proc fields {bytes} {
    set out [dict create]
    for {set at 0} {$at < [string length $bytes]} {} {
        set key [takeVarint $bytes at]
        switch [expr {$key & 7}] {
            0 { dict set out [expr {$key >> 3}] [takeVarint $bytes at] }
            1 { incr at 8 }
            2 {
                set length [takeVarint $bytes at]
                dict set out [expr {$key >> 3}] [string range $bytes $at [expr {$at + $length - 1}]]
                incr at $length
            }
            5 { incr at 4 }
            default { error "wire type [expr {$key & 7}] is not of proto3" }
        }
    }
    return $out
}
proc field {message number default} {
    if {[dict exists $message $number]} { return [dict get $message $number] }
    return $default
}

# --- frames: u32 big-endian length, then Frame{rid = 1, one body}. The number of the body says which message it is.
proc tell {body message {rid 0}} {
    set frame [number 1 $rid][block $body $message]
    puts -nonewline $::daemon [binary format I [string length $frame]]$frame
    flush $::daemon
}
proc nextFrame {} {
    # The end of the connection is the end of the daemon, however it came.
    if {[catch {read $::daemon 4} prefix] || [binary scan $prefix Iu length] != 1} { exit 0 }
    return [fields [read $::daemon $length]]
}

# --- one stream: what waits to go back, how much we may send, whether the other side has finished.
proc begin {stream} {
    dict set ::streams $stream [dict create waiting "" credit $::window fin 0]
}
proc echoBack {stream} {
    set state [dict get $::streams $stream]
    dict with state {
        while {$credit > 0 && $waiting ne ""} {
            set count [expr {min($credit, [string length $waiting], $::dataMax)}]
            tell 2 [number 1 $stream][block 2 [string range $waiting 0 $count-1]]
            # Only what has left us makes room for more: so a reader that stops, stops the writer too.
            tell 3 [number 1 $stream][number 2 $count]
            set waiting [string range $waiting $count end]
            incr credit -$count
        }
        if {$fin == 1 && $waiting eq ""} {
            tell 2 [number 1 $stream][number 3 1]
            set fin 2
        }
    }
    dict set ::streams $stream $state
}

proc handle {frame} {
    set rid [field $frame 1 0]
    dict unset frame 1
    if {[dict size $frame] == 0} return
    lassign $frame body bytes
    set message [fields $bytes]
    set stream [field $message 1 0]
    switch $body {
        2 { # Data
            if {![dict exists $::streams $stream]} return
            dict with ::streams $stream {
                append waiting [field $message 2 ""]
                if {[field $message 3 0]} { set fin 1 }
            }
            echoBack $stream
        }
        3 { # Window
            if {![dict exists $::streams $stream]} return
            dict with ::streams $stream { incr credit [field $message 2 0] }
            echoBack $stream
        }
        6 { # StopSending: nobody reads what we echo, so there is no sense in reading either.
            tell 5 [number 1 $stream][number 2 [field $message 2 0]][number 3 [field $message 3 0]]
            dict unset ::streams $stream
        }
        7 { # StreamClosed
            dict unset ::streams $stream
        }
        10 { # Incoming: the only protocol that we registered, so nothing to choose.
            begin $stream
            tell 11 [number 1 $stream] $rid
        }
        13 { # Ping: its one field is a nonce, which goes back as it came.
            tell 14 $bytes $rid
        }
        15 - 20 { # Error, Refused: a person reads stderr in `p2pos plugins logs echo-tcl`.
            set at [expr {$body == 15 ? 3 : 2}]
            puts stderr "the daemon says [field $message 1 0]: [encoding convertfrom utf-8 [field $message $at ""]]"
            exit 1
        }
        17 { # Welcome: its limits tell how much may be sent.
            set limits [fields [field $message 8 ""]]
            set ::dataMax [field $limits 2 65536]
            set ::window [field $limits 3 262144]
        }
        24 { # Done: we are registered, so start-up is over.
            tell 28 ""
        }
        36 { # Shutdown
            exit 0
        }
    }
}

if {![regexp {^tcp:(.+):(\d+)$} $env(P2POS_ENDPOINT) - host port]} {
    puts stderr "P2POS_ENDPOINT is $env(P2POS_ENDPOINT): this plugin needs socket = \"tcp\" in plugin.toml"
    exit 78
}
set streams [dict create]
set daemon [socket $host $port]
chan configure $daemon -translation binary -buffering full
tell 16 [block 1 p2pOS][number 2 1][number 3 1][block 5 "echo-tcl 0.1"][block 6 $env(P2POS_TOKEN)] 1
tell 25 [block 1 [block 1 /echo-tcl/1][number 2 1]] 2
while 1 { handle [nextFrame] }
