#!/usr/bin/env tclsh
# Serves /echo-tcl/1: every stream gets back what it sends. p2pos.tcl beside this file speaks the protocol; README.md walks through.

source [file join [file dirname [info script]] p2pos.tcl]

# Runs in a coroutine of its own for each stream.
proc serve {stream} {
    $stream accept
    try {
        # `write` waits for credit, so we read no faster than the peer does: nothing piles up.
        while {[set chunk [$stream read]] ne ""} { $stream write $chunk }
        $stream finish
    } trap {P2POS ENDED} {- options} {
        # Who reads no echo need not write either. If the stream is over already, this says nothing.
        $stream reset [lindex [dict get $options -errorcode] 3]
    } finally {
        $stream destroy
    }
}

if {[catch { p2pos::run "echo-tcl 0.1" {{/echo-tcl/1 serve}} } why] || $why ne ""} {
    puts stderr $why ;# a person reads it in `p2pos plugins logs echo-tcl`
    exit 1
}
exit 0
