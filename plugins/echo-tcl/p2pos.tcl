# The p2pOS plugin protocol, version 1, in core Tcl 8.6: no package. Copy this file beside your plugin.
#
# From top to bottom: protobuf, as far as needed; frames; the session; a stream; the socket of a detached stream. Everything runs on the event
# loop, so reading never waits for writing [S-FRAME-6]; each stream that a peer opens runs in a coroutine of its own, so what waits looks like
# what does not. Names like [S-FLOW-3] are rules of plugin-protocol/SPEC.md; the numbers are plugin.proto's.
# Left out: datagrams, events, contacts.
#
# What goes wrong is thrown as {P2POS ENDED code app} (how a stream ended, if not well) or {P2POS REFUSED code} (the bad answer to a request).

namespace eval p2pos {
    variable frameMax [expr {1 << 20}]      ;# what we take; the default, as Hello tells no other [S-FRAME-2]
    variable window [expr {256 << 10}]      ;# what the daemon may send on a stream before we have read: the default [S-FLOW-2]
    variable queuedMax [expr {256 << 10}]   ;# Data waits for the socket above this; answers wait for nobody
    variable pingAfter 15000                ;# ms of silence; after three times as much the daemon is taken for dead [S-PING-1]
    variable closeMax 2000                  ;# ms for what is still to be written at the end
    variable daemon "" rest "" rid 0 id -1 waiting {} services {} streams {} heard 0 over 0 why "" room {}
    variable dataMax 65536 credit [expr {256 << 10}]
}

# --- protobuf, writing: a field is its number and wire type, then a varint or a length and bytes. Zero is not written.
proc p2pos::varint {n} {
    set out ""
    while {$n > 127} {
        append out [binary format c [expr {$n & 127 | 128}]]
        set n [expr {$n >> 7}]
    }
    return $out[binary format c $n]
}
proc p2pos::number {field n} {
    if {$n == 0} { return "" }
    return [varint [expr {$field << 3}]][varint $n]
}
proc p2pos::block {field bytes} { return [varint [expr {$field << 3 | 2}]][varint [string length $bytes]]$bytes }
proc p2pos::text {field text} { return [block $field [encoding convertto utf-8 $text]] }

# --- protobuf, reading: a message becomes a dict from field number to value; the last one of a field counts.
proc p2pos::takeVarint {bytes atName} {
    upvar 1 $atName at
    set n 0
    for {set shift 0} {$shift < 70} {incr shift 7} {
        if {[binary scan $bytes @${at}cu byte] != 1} { error "a frame came that ends within a number \[S-MSG-4]" }
        incr at
        set n [expr {$n | ($byte & 127) << $shift}]
        if {$byte < 128} { return $n }
    }
    error "a frame came with a number of more than ten bytes \[S-MSG-4]"
}
proc p2pos::fields {bytes} {
    set out [dict create]
    for {set at 0} {$at < [string length $bytes]} {} {
        set key [takeVarint $bytes at]
        set field [expr {$key >> 3}]
        dict unset out $field ;# the last one stands last
        switch [expr {$key & 7}] {
            0 { dict set out $field [takeVarint $bytes at] }
            1 { incr at 8 }
            2 {
                set length [takeVarint $bytes at]
                if {$at + $length > [string length $bytes]} { error "a frame came that reaches out of itself \[S-MSG-4]" }
                dict set out $field [string range $bytes $at [expr {$at + $length - 1}]]
                incr at $length
            }
            5 { incr at 4 }
            default { error "a frame came with wire type [expr {$key & 7}] \[S-MSG-4]" }
        }
    }
    return $out
}
proc p2pos::field {message number {default 0}} {
    if {[dict exists $message $number]} { return [dict get $message $number] }
    return $default
}
proc p2pos::textOf {message number} { return [encoding convertfrom utf-8 [field $message $number ""]] }

# --- frames: u32 big-endian length, then Frame{rid = 1, one body}. The number of the body says which message it is.
proc p2pos::frame {rid body message} {
    set frame [number 1 $rid][block $body $message]
    return [binary format I [string length $frame]]$frame
}
proc p2pos::lengthOf {head} {
    variable frameMax
    binary scan $head Iu length
    if {$length == 0 || $length > $frameMax} { error "a frame of $length bytes came \[S-FRAME-2]" }
    return $length
}
# {rid body bytes}; body 0: none that we know. Of several the last known one counts [S-MSG-3].
proc p2pos::bodyOf {frame} {
    set known 0
    foreach number [dict keys $frame] {
        if {$number >= 2 && $number <= 36} { set known $number }
    }
    return [list [field $frame 1] $known [field $frame $known ""]]
}
proc p2pos::dial {} {
    if {![regexp {^tcp:(.+):(\d+)$} $::env(P2POS_ENDPOINT) - host port]} {
        error "P2POS_ENDPOINT is $::env(P2POS_ENDPOINT): this plugin needs socket = \"tcp\" in plugin.toml"
    }
    set channel [socket $host $port]
    chan configure $channel -translation binary -buffering full -blocking 0
    return $channel
}

# --- waiting: a coroutine puts its name on a list and yields; whoever changes something wakes the list.
proc p2pos::await {listName} {
    upvar 1 $listName sleepers
    lappend sleepers [info coroutine]
    yield
}
proc p2pos::wake {listName} {
    upvar 1 $listName sleepers
    foreach sleeper $sleepers { after 0 $sleeper }
    set sleepers {}
}

# --- the session. Tcl keeps one queue of bytes for the socket, so the order of frames is the order in which they were sent.
proc p2pos::send {body message {rid 0}} {
    variable daemon
    variable over
    if {$over} return
    if {[catch { puts -nonewline $daemon [frame $rid $body $message]; flush $daemon } problem]} { end $problem }
}
# Sends a request and gives its answer, as a message. To be called in a coroutine.
proc p2pos::ask {body message} {
    variable rid
    variable waiting
    variable over
    if {$over} { throw {P2POS ENDED 105 0} "the session is over" }
    send $body $message [incr rid]
    dict set waiting $rid [info coroutine]
    lassign [yield] answer bytes
    if {$answer == 0} { throw {P2POS ENDED 105 0} "the session is over" }
    set message [fields $bytes]
    if {$answer != 15} { return $message }
    throw [list P2POS REFUSED [field $message 1]] "[field $message 1]: [textOf $message 3] ([textOf $message 4])"
}
# False if nobody waits for it (any more): then it is ignored [S-REQ-4].
proc p2pos::answered {rid body bytes} {
    variable waiting
    if {![dict exists $waiting $rid]} { return 0 }
    set asker [dict get $waiting $rid]
    dict unset waiting $rid
    # In a later turn, but before what comes behind it: `after 0` keeps its order.
    after 0 [list $asker [list $body $bytes]]
    return 1
}
proc p2pos::readable {} {
    variable daemon
    variable rest
    variable heard [clock milliseconds]
    variable over
    if {[catch {
        append rest [read $daemon 262144]
        set at 0
        while {!$over && $at + 4 <= [string length $rest]} {
            set length [lengthOf [string range $rest $at $at+3]]
            if {$at + 4 + $length > [string length $rest]} break
            set frame [fields [string range $rest $at+4 [expr {$at + 3 + $length}]]]
            incr at [expr {4 + $length}]
            handle {*}[bodyOf $frame]
        }
        set rest [string range $rest $at end]
    } problem options]} {
        # A connection that breaks is the end of the daemon, as end of file is, however it came [S-END-1].
        end [expr {[lindex [dict get $options -errorcode] 0] eq "POSIX" ? "" : $problem}]
    } elseif {[eof $daemon]} {
        end ""
    }
}
proc p2pos::handle {rid body bytes} {
    variable streams
    set message [fields $bytes]
    # Of Data to StreamClosed the first field is the stream. One that is not there is over: what came crossed its end [S-STREAM-9].
    if {$body in {2 3 5 6 7}} {
        set id [field $message 1]
        if {![dict exists $streams $id]} return
        set stream [dict get $streams $id]
    }
    switch $body {
        2 { $stream onData [field $message 2 ""] [field $message 3] }
        3 { $stream onWindow [field $message 2] }
        5 { $stream onReset [field $message 2] [field $message 3] }
        6 { $stream onStop [field $message 2] [field $message 3] }
        7 {
            dict unset streams $id
            $stream onClosed {*}[lmap number {2 3 4 5 6} { field $message $number }]
        }
        10 { offer $rid $message }
        13 { send 14 $bytes $rid }
        20 { end "[field $message 1]: [textOf $message 2] ([textOf $message 3])" } ;# Refused: there is no session
        8 - 9 - 17 - 24 { answered $rid $body $bytes }
        15 { # Error: an answer, or a complaint. One of class 1xx is about the connection, and the last that is read [S-END-2].
            if {![answered $rid $body $bytes] && $rid == 0 && [field $message 1] / 100 == 1} {
                end "[field $message 1]: [textOf $message 3]"
            }
        }
        36 { end "" }
        0 { # of a later version: with a rid it is a request [S-MSG-6]
            if {$rid} { send 15 [number 1 201][text 2 UNKNOWN_METHOD] $rid }
        }
    }
}
# A peer opens a stream: its coroutine runs the service's command with the stream, which it accepts or rejects. The stream stands at once,
# as Data may come before we have accepted [S-STREAM-3].
proc p2pos::offer {rid message} {
    variable services
    set protocol [textOf $message 3]
    set stream [Stream new [field $message 1] [textOf $message 2] $protocol $rid [field $message 8 ""]]
    coroutine serving$rid.[field $message 1] apply {{stream service} {
        try {
            if {$service ne ""} { {*}$service $stream }
        } trap {P2POS ENDED} {} {
            # The peer was faster with its end.
        } on error {problem options} {
            puts stderr [dict get $options -errorinfo]
            $stream reset 0
        }
        if {[info object isa object $stream]} { $stream reject "nobody took it" }
    } ::p2pos} $stream [field $services $protocol ""]
}
# Opens the first of these protocols that the peer serves, and gives the stream. To be called in a coroutine.
proc p2pos::open {peer protocols {isDetached 0}} {
    variable id
    variable streams
    # Ours are odd; taken in the same turn in which Open is sent, so they go out in their order [S-STREAM-1].
    set own [incr id 2]
    set stream [Stream new $own $peer "" 0 ""]
    set names [join [lmap name $protocols { text 3 $name }] ""]
    try {
        set opened [ask 8 [number 1 $own][text 2 $peer]$names[number 4 1][number 5 [expr {$isDetached ? 2 : 0}]]]
    } on error {problem options} {
        $stream forget
        return -options $options $problem
    }
    $stream opened [textOf $opened 2] [field $opened 4 ""]
    return $stream
}
proc p2pos::watch {} {
    variable heard
    variable pingAfter
    set silence [expr {[clock milliseconds] - $heard}]
    if {$silence >= $pingAfter} { send 13 [number 1 1] }
    if {$silence > 3 * $pingAfter} { end "nothing came from the daemon for $silence ms" }
    after $pingAfter p2pos::watch
}
proc p2pos::stdin {} {
    read stdin
    if {[eof stdin]} { end "" } ;# our daemon is gone [S-END-3]
}
# Data waits for the socket, so that a fast program does not fill the memory.
proc p2pos::writable {} {
    variable room
    variable daemon
    chan event $daemon writable ""
    wake room
}
# Ends the session once, and with it all that waits [S-END-1]. An empty `problem` is a good end.
proc p2pos::end {problem} {
    variable over
    variable why $problem
    variable waiting
    variable streams
    variable daemon
    variable closeMax
    if {$over} return
    set over 1
    foreach stream [dict values $streams] { $stream onClosed 3 105 0 0 0 }
    foreach asker [dict values $waiting] { after 0 [list $asker 0] }
    chan event $daemon readable ""
    after $closeMax {set p2pos::left 1}
    chan event $daemon writable {if {[catch {flush $p2pos::daemon}] || [chan pending output $p2pos::daemon] == 0} { set p2pos::left 1 }}
}
# Serves until the end: SERVICES is a list of {protocol command ?detached?}; INIT, if given, runs in a coroutine once all is registered.
# Gives "" if the daemon asked for the end or is gone, otherwise what was wrong.
proc p2pos::run {sdk services {init ""}} {
    variable daemon [dial]
    variable heard [clock milliseconds]
    variable pingAfter
    variable why
    chan event $daemon readable p2pos::readable
    if {[info exists ::env(P2POS_EXIT_ON_STDIN_CLOSE)] && $::env(P2POS_EXIT_ON_STDIN_CLOSE) eq "1"} {
        chan configure stdin -blocking 0 -translation binary
        chan event stdin readable p2pos::stdin
    }
    after $pingAfter p2pos::watch
    coroutine greeting p2pos::guarded p2pos::hello $sdk
    coroutine registering p2pos::guarded p2pos::register $services $init
    vwait p2pos::left
    return $why
}
proc p2pos::guarded {args} {
    try { {*}$args } trap {P2POS ENDED} {} {} on error {problem} { end $problem }
}
proc p2pos::hello {sdk} {
    variable dataMax
    variable credit
    set hello [text 1 p2pOS][number 2 1][number 3 1][text 5 $sdk][text 6 $::env(P2POS_TOKEN)]
    set limits [fields [field [ask 16 $hello] 8 ""]] ;# Welcome: its limits hold [S-LIMIT-1]
    set dataMax [field $limits 2 $dataMax]
    set credit [field $limits 3 $credit]
}
# Register goes out right behind Hello: with a token nobody need wait for Welcome [S-HELLO-7].
proc p2pos::register {list init} {
    variable services
    set protocols ""
    foreach service $list {
        lassign $service protocol command isDetached
        dict set services $protocol $command ;# before the answer: the first Incoming may come right behind it
        append protocols [block 1 [text 1 $protocol][number 2 1][number 5 [expr {$isDetached eq "detached" ? 2 : 0}]]]
    }
    ask 25 $protocols
    send 28 "" ;# Ready: start-up is over
    {*}$init
}

# --- a stream. `reading` and `writing` say why nothing more comes or may be written: "" while it may, {code app}, or `fin`.
oo::class create p2pos::Stream {
    variable id peer protocol rid ticket raw credit arrived consumed reading writing closed sleepers isOffered

    constructor {itsId itsPeer itsProtocol itsRid itsTicket} {
        namespace path {::p2pos ::oo::Helpers}
        lassign [list $itsId $itsPeer $itsProtocol $itsRid $itsTicket] id peer protocol rid ticket
        lassign [list "" $::p2pos::credit "" 0 "" "" "" {}] raw credit arrived consumed reading writing closed sleepers
        set isOffered [expr {$rid != 0}]
        dict set ::p2pos::streams $id [self]
    }
    method peer {} { return $peer }
    method protocol {} { return $protocol }

    # Takes a stream that a peer wants to open.
    method accept {} {
        if {[llength $reading] == 2} { my Fail $reading }
        if {!$isOffered} return
        set isOffered 0
        send 11 [number 1 $id] $rid
        if {$ticket ne ""} { my Attach }
    }
    # Refuses it, and the object is gone: the peer's program gets 305. Harmless behind accept.
    method reject {reason} {
        if {!$isOffered} return
        if {[llength $reading] != 2} { send 12 [number 1 $id][number 2 305][text 3 $reason] $rid }
        my forget
    }
    # For a stream that never was: no StreamClosed follows [S-STREAM-10].
    method forget {} {
        lassign {fin fin} reading writing
        my destroy
    }
    # `destroy` gives a stream back: one that is not over is reset.
    destructor {
        my reset 0
        my CloseSocket
        dict unset ::p2pos::streams $id
    }
    method opened {itsProtocol itsTicket} {
        set protocol $itsProtocol
        set ticket $itsTicket
        if {$ticket ne ""} { my Attach }
    }

    # Up to `max` bytes, as soon as there are some; "" when the other side has finished.
    method read {{max 65536}} {
        while 1 {
            if {$raw ne "" && $reading eq ""} { my ReadSocket $max }
            if {$arrived ne ""} { return [my Consume $max] }
            if {$reading eq "fin"} { return "" }
            if {$reading ne ""} { my Fail $reading }
            my Wait
        }
    }
    method Consume {max} {
        set taken [string range $arrived 0 $max-1]
        set arrived [string range $arrived $max end]
        incr consumed [string length $taken]
        # Credit is for what was read, so a reader that stops makes its writer stop; it comes at half of the window, so that the writer need
        # not wait; and not for somebody who writes no more [S-FLOW-4].
        if {$raw eq "" && $reading eq "" && $consumed >= $::p2pos::window / 2} {
            send 3 [number 1 $id][number 2 $consumed]
            set consumed 0
        }
        return $taken
    }
    # Hands over all bytes; waits while there is no credit.
    method write {bytes} {
        set at 0
        while {$at < [string length $bytes]} {
            if {$writing ne ""} { my Fail $writing }
            if {$raw ne ""} {
                my WriteSocket $bytes
                return
            }
            if {$credit <= 0} {
                my Wait
                continue
            }
            if {[chan pending output $::p2pos::daemon] > $::p2pos::queuedMax} {
                chan event $::p2pos::daemon writable p2pos::writable
                await ::p2pos::room
                continue
            }
            set count [expr {min($credit, $::p2pos::dataMax, [string length $bytes] - $at)}]
            send 2 [number 1 $id][block 2 [string range $bytes $at [expr {$at + $count - 1}]]]
            incr credit -$count
            incr at $count
        }
    }
    # Says that we write no more (fin). Reading goes on.
    method finish {} {
        if {$writing ne ""} { my Fail $writing }
        set writing fin
        if {$raw eq ""} {
            send 2 [number 1 $id][number 3 1]
        } elseif {$reading eq ""} {
            chan close $raw write
        } else {
            my CloseSocket
        }
    }
    # Says that we read no more. Writing goes on. Not for detached streams [S-ATTACH-4].
    method stop {app} {
        if {$reading ne "" || $raw ne ""} return
        set reading [list 400 $app]
        set arrived ""
        send 6 [number 1 $id][number 2 400][number 3 $app]
        my Wake
    }
    # Ends both directions at once; the other program gets the number. Harmless for a stream that is over.
    method reset {app} {
        if {$closed ne "" || ($raw eq "" && $reading ne "" && $writing ne "")} return
        send 5 [number 1 $id][number 2 400][number 3 $app]
        my onReset 400 $app
    }
    # Waits for the daemon's last word: {cause code app bytes_in bytes_out}; cause 1 finished, 2 reset by us, 3 reset by the other side.
    method closed {} {
        while {$closed eq ""} { my Wait }
        return $closed
    }

    # What the session tells.
    method onData {payload isLast} {
        if {$reading ne ""} return ;# it was on its way when we stopped reading [S-STREAM-6]
        append arrived $payload
        if {$isLast} { set reading fin }
        my Wake
    }
    method onWindow {bytes} {
        incr credit $bytes
        my Wake
    }
    method onStop {code app} {
        if {$writing eq ""} { set writing [list $code $app] }
        my Wake
    }
    method onReset {code app} {
        if {$reading eq ""} {
            set reading [list $code $app]
            set arrived ""
        }
        my onStop $code $app
        wake ::p2pos::room
    }
    method onClosed {cause code app bytesIn bytesOut} {
        set closed [list $cause $code $app $bytesIn $bytesOut]
        # Two sockets have no order between them, so a reset stream's own one stays open until here: closed before, it is a fin [S-ATTACH-3].
        if {$cause != 1} {
            my onReset $code $app
            my CloseSocket
        }
        my Wake
    }

    # The socket of a detached stream. Behind Attached it is the stream; Tcl hands out so many bytes as we ask for and keeps the rest.
    method Attach {} {
        try {
            set socket [dial]
            puts -nonewline $socket [frame 1 21 [block 1 $ticket]]
            flush $socket
            lassign [bodyOf [fields [my Exactly $socket [lengthOf [my Exactly $socket 4]]]]] - body bytes
            set message [fields $bytes]
            if {$body == 20} { throw [list P2POS REFUSED [field $message 1]] "[field $message 1]: [textOf $message 2]" }
            if {$body != 22} { error "the answer to Attach is body $body" }
        } on error {problem options} {
            if {[info exists socket]} { chan close $socket }
            my reset 0
            return -options $options $problem
        }
        set raw $socket
    }
    method Exactly {socket count} {
        set bytes ""
        while 1 {
            append bytes [::read $socket [expr {$count - [string length $bytes]}]]
            if {[string length $bytes] == $count} { return $bytes }
            if {[eof $socket]} { my Fail {404 0} }
            if {[llength $reading] == 2} { my Fail $reading }
            my WaitFor $socket readable
        }
    }
    method ReadSocket {max} {
        if {[catch { append arrived [::read $raw $max] }]} { set reading {404 0} }
        if {[eof $raw] && $arrived eq ""} {
            set reading fin
            if {$writing eq "fin"} { my CloseSocket }
        }
        if {$arrived eq "" && $reading eq ""} { chan event $raw readable [list [self] woken readable] }
    }
    method WriteSocket {bytes} {
        try {
            puts -nonewline $raw $bytes
            flush $raw
            while {$writing eq "" && [chan pending output $raw] > 0} { my WaitFor $raw writable }
        } trap POSIX {} {
            if {$writing eq ""} { set writing {404 0} } ;# `closed` tells the truth
        }
        if {$writing ne ""} { my Fail $writing }
    }
    method WaitFor {socket event} {
        chan event $socket $event [list [self] woken $event]
        my Wait
        if {$socket in [chan names]} { chan event $socket $event "" }
    }
    method woken {event} {
        if {$raw ne ""} { chan event $raw $event "" }
        my Wake
    }
    method CloseSocket {} {
        if {$raw in [chan names]} { catch { chan close $raw } }
    }

    method Wait {} { await [my varname sleepers] }
    method Wake {} { wake [my varname sleepers] }
    method Fail {why} {
        if {$why eq "fin"} { error "the stream was finished already" }
        throw [list P2POS ENDED {*}$why] "the stream ended with code [lindex $why 0], number [lindex $why 1]"
    }
}
