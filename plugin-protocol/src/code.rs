//! The registry of error codes: number, name, and what a person can do about it (SPEC.md, "Error codes").
//!
//! A code is a number on the wire, so that codes of later versions survive a trip through this one; names and hints
//! are for people. The class tells what ends: 1xx the session, 2xx one request, 3xx an attempt to reach a peer, 4xx
//! one stream, 5xx is our own fault. This file refuses to know when a code is used: that stands where it happens.

use std::fmt;

/// Says why something ended or was refused, as a number that never changes its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(u32);

/// Says what a code puts an end to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 1xx: the session.
    Session,
    /// 2xx: one request.
    Request,
    /// 3xx: an attempt to reach a peer.
    Peer,
    /// 4xx: one stream.
    Stream,
    /// 5xx: something in the daemon itself broke.
    Internal,
    /// A number of a class that this version does not know.
    Unknown,
}

macro_rules! registry {
    ($($number:literal $name:ident $hint:literal)*) => {
        impl Code {
            $(
                #[doc = concat!(stringify!($number), ": ", $hint, ".")]
                pub const $name: Self = Self($number);
            )*

            /// Every code of this version, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name that SPEC.md gives this number, `UNKNOWN_CODE` for those of other versions.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => stringify!($name),)*
                    _ => "UNKNOWN_CODE",
                }
            }

            /// What a person can do about it; empty for codes of other versions.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self.0 {
                    $($number => $hint,)*
                    _ => "",
                }
            }
        }
    };
}

registry! {
    100 PROTOCOL "the sender broke a rule of the plugin protocol; SPEC.md names the rule"
    101 VERSION "update whichever of plugin and daemon is older"
    102 AUTH "start the plugin through p2pos, or take a fresh token with `p2pos plugins run`"
    103 FRAME_TOO_LARGE "send smaller frames; Welcome.limits tells the largest"
    104 HANDSHAKE_TIMEOUT "send Hello within 5 seconds of connecting"
    105 SHUTTING_DOWN "nothing is wrong: the other side ends"
    106 SLOW_CONSUMER "read from the socket all the time, also while you write"
    107 REVOKED "the user withdrew the plugin's permission to run"
    200 BAD_REQUEST "a field of the request is wrong; the message names it"
    201 UNKNOWN_METHOD "this daemon is older than the request; look at Welcome.features"
    202 PERMISSION_DENIED "the plugin's manifest must ask for it and the user must grant it"
    203 PERMISSION_PENDING "the user has not answered yet; see `p2pos plugins list`"
    204 ALREADY_REGISTERED "another plugin serves this protocol; stop one of the two"
    205 NOT_REGISTERED "register the protocol first"
    206 LIMIT "wait until earlier requests are done; Welcome.limits tells how many fit"
    207 TIMEOUT "nothing came in time; try again later"
    208 CANCELLED "nothing is wrong: the request was given up"
    209 NOT_FOUND "there is no such thing; look at the spelling"
    210 TOO_BIG "send less in one piece; the message tells the limit"
    300 UNKNOWN "no address of this peer is known; add one with `p2pos contacts add PEER --addr HOST:PORT`"
    301 OFFLINE "the peer's daemon does not run, or has no network"
    302 UNREACHABLE "no way to the peer worked; the details tell what was tried, `p2pos ping PEER` tries again"
    303 NEEDS_RELAY "only a relay would reach the peer, and none is allowed; `p2pos contacts relay PEER auto` allows them"
    304 PROTOCOL_NOT_SUPPORTED "no plugin of the peer serves it; the details tell what it serves"
    305 REFUSED "the peer's plugin does not want this stream"
    306 NOT_READY "the peer's plugin is not running just now; try again later"
    307 IDENTITY_MISMATCH "reserved, never sent: whoever else is at the peer's address stays silent, which is 302"
    308 LOCAL_OFFLINE "this machine has no network"
    400 APP "the other plugin's own code; see app_code"
    401 STREAM_LIMIT "close streams before opening more; Welcome.limits tells how many fit"
    402 FLOW_CONTROL "send no more than the credit that was given"
    403 PLUGIN_GONE "the other plugin ended; it may come back"
    404 PATH_LOST "the connection to the peer broke; open the stream again"
    405 IDLE "nothing moved on the stream for too long"
    500 INTERNAL "a fault of the daemon; please report it with `p2pos plugins logs ID`"
}

impl Code {
    /// Takes any number from the wire, also one that this version has no name for.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// What this code puts an end to.
    #[must_use]
    pub const fn class(self) -> Class {
        match self.0 {
            100..200 => Class::Session,
            200..300 => Class::Request,
            300..400 => Class::Peer,
            400..500 => Class::Stream,
            500..600 => Class::Internal,
            _ => Class::Unknown,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.name())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a stream or a session ended: the code, and the plugin's own number if the code is [`Code::APP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End {
    /// Why.
    pub code: Code,
    /// The plugin's own number; 0 unless `code` is [`Code::APP`].
    pub app: u32,
}

impl End {
    /// An end for one of the registry's reasons.
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self { code, app: 0 }
    }

    /// An end for a plugin's own reason.
    #[must_use]
    pub const fn app(app: u32) -> Self {
        Self { code: Code::APP, app }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.code, f)?;
        if self.app != 0 {
            write!(f, " ({})", self.app)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ascending_and_in_a_known_class() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(Code::ALL.iter().all(|code| code.class() != Class::Unknown && !code.hint().is_empty()));
    }

    #[test]
    fn a_code_of_a_later_version_keeps_its_number() {
        let later = Code::from_number(499);
        assert_eq!((later.number(), later.name(), later.class()), (499, "UNKNOWN_CODE", Class::Stream));
        assert_eq!(Code::PATH_LOST.to_string(), "404 PATH_LOST");
        assert_eq!(End::app(7).to_string(), "400 APP (7)");
    }
}
