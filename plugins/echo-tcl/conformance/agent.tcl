#!/usr/bin/env tclsh
# The agent in Tcl: obeys tools/conformance/ORDERS.md by p2pos.tcl. Silver, over TCP: core Tcl has no unix sockets.

source [file join [file dirname [info script]] .. p2pos.tcl]

# Streams that nobody has taken yet, oldest first, and the orders that wait for one.
set untaken [dict create stream {} detached {}]
set takers [dict create stream {} detached {}]

proc keep {kind stream} {
    $stream accept
    dict lappend ::untaken $kind $stream
    foreach taker [dict get $::takers $kind] { after 0 $taker }
    dict set ::takers $kind {}
}
proc refuse {stream} { $stream reject "as ordered" }

proc obey {orders} {
    $orders accept
    set subject ""
    set said ""
    while {[set chunk [$orders read]] ne ""} {
        append said $chunk
        while {[set at [string first \n $said]] >= 0} {
            set line [string range $said 0 $at-1]
            set said [string range $said $at+1 end]
            try {
                set answer [carryOut $line subject]
            } trap {P2POS ENDED} {- options} {
                set answer "ended [lrange [dict get $options -errorcode] 2 3]"
            } trap {P2POS REFUSED} {- options} {
                set answer "error [lindex [dict get $options -errorcode] 2]"
            } on error {problem} {
                set answer "failed: [string map {\n " "} $problem]"
            }
            $orders write $answer\n
        }
    }
    $orders finish
}

proc carryOut {line subjectName} {
    upvar 1 $subjectName subject
    set words [lassign [split $line] word]
    switch $word {
        hello { return "ok p2pos.tcl of echo-tcl" }
        take {
            set kind [expr {[llength $words] ? [lindex $words 0] : "stream"}]
            if {![dict exists $::untaken $kind]} { return unsupported }
            while {[dict get $::untaken $kind] eq ""} {
                dict lappend ::takers $kind [info coroutine]
                yield
            }
            dict set ::untaken $kind [lassign [dict get $::untaken $kind] subject]
            return "ok [$subject peer] [$subject protocol]"
        }
        open {
            lassign $words peer protocol kind
            if {$kind ni {"" detached}} { return unsupported }
            set subject [p2pos::open $peer [list $protocol] [expr {$kind eq "detached"}]]
            return "ok [$subject protocol]"
        }
        write {
            lassign $words count seed
            $subject write [pattern $count $seed]
            return "ok $count"
        }
        read { return [readSum $subject [lindex $words 0]] }
        echo {
            set count 0
            while {[set chunk [$subject read]] ne ""} {
                $subject write $chunk
                incr count [string length $chunk]
            }
            $subject finish
            return "ok $count"
        }
        finish {
            $subject finish
            return ok
        }
        reset - stop {
            $subject $word [lindex $words 0]
            return ok
        }
        closed {
            set facts [lassign [$subject closed] cause]
            return "ok [lindex {ended finished local remote} $cause] $facts"
        }
    }
    return unsupported
}

proc pattern {count seed} {
    for {set i 0} {$i < 251} {incr i} { lappend round [expr {($seed + $i) % 251}] }
    return [string range [string repeat [binary format c* $round] [expr {$count / 251 + 1}]] 0 $count-1]
}

proc readSum {stream count} {
    set sum [zlib adler32 ""]
    for {set got 0} {$count eq "end" || $got < $count} {incr got [string length $chunk]} {
        set chunk [$stream read [expr {$count eq "end" ? 65536 : min(65536, $count - $got)}]]
        if {$chunk eq ""} { return "ok $got $sum fin" }
        set sum [zlib adler32 $chunk $sum]
    }
    return "ok $got $sum more"
}

set prefix /p2pos/conformance
set why [p2pos::run "agent in Tcl" [list \
    [list $prefix/1 obey] [list $prefix-stream/1 {keep stream}] \
    [list $prefix-refused/1 refuse] [list $prefix-detached/1 {keep detached} detached]]]
if {$why ne ""} { puts stderr $why } ;# and still 0: ORDERS.md, "Start and end"
exit 0
