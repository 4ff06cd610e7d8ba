//! `p2pos-natlab wire`: a wire by hand.

use std::io::BufRead as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::{Direction, End, Link, MTU_BYTES, Wire, WireSpec};

/// Joins two network namespaces by a wire of chosen delay, jitter, loss and rate, until standard input ends.
///
/// Lines on standard input change it while it runs: `both delay=40ms`, `there loss=100%`, `back rate=1mbit`, `counters`.
#[derive(Debug, Args)]
pub struct WireArguments {
    /// One end, NAMESPACE:INTERFACE[=ADDRESS/BITS]; the interface is made, and goes with the wire.
    a: String,
    /// The other end.
    b: String,
    /// What both directions do: delay=20ms,jitter=2ms,loss=0.1%,rate=100mbit,queue=500k. Delay is one way.
    #[arg(long, default_value_t)]
    link: Link,
    /// What the way back does, if it differs.
    #[arg(long)]
    back: Option<Link>,
    /// Largest IP packet, bytes.
    #[arg(long, default_value_t = MTU_BYTES)]
    mtu: u16,
    /// The same seed loses the same packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the wire until standard input ends.
///
/// # Errors
/// What keeps the wire from being made; lines that say nothing are answered and do not end it.
#[expect(clippy::print_stderr, reason = "words of a command line")]
pub fn run(arguments: &WireArguments) -> Result<()> {
    let WireArguments { a, b, link, back, mtu, seed } = arguments;
    let (a, b) = (end(a)?, end(b)?);
    let back = back.unwrap_or(*link);
    let wire = Wire::start(&WireSpec { a, b, there: *link, back, mtu: *mtu, seed: *seed })?;
    eprintln!("the wire is up: there {link}; back {back}");
    for line in std::io::stdin().lock().lines() {
        match command(&wire, line?.trim()) {
            Ok(answer) => eprintln!("{answer}"),
            Err(error) => eprintln!("{error:#}"),
        }
    }
    Ok(())
}

fn command(wire: &Wire, line: &str) -> Result<String> {
    if line == "counters" {
        let (there, back) = (wire.counters(Direction::There), wire.counters(Direction::Back));
        return Ok(format!("there {there:?}\nback {back:?}"));
    }
    let (direction, link) =
        line.split_once(' ').context("both, there or back, then what the link does; or counters")?;
    let link: Link = link.parse()?;
    match direction {
        "both" => wire.set_both(link),
        "there" => wire.set(Direction::There, link),
        "back" => wire.set(Direction::Back, link),
        other => bail!("`{other}` is not a direction: both, there or back"),
    }
    Ok(format!("{direction} {link}"))
}

fn end(text: &str) -> Result<End> {
    let (namespace, rest) = text.split_once(':').context("an end is NAMESPACE:INTERFACE[=ADDRESS/BITS]")?;
    let (interface, address) =
        rest.split_once('=').map_or((rest, None), |(name, address)| (name, Some(address)));
    Ok(End::in_namespace(namespace, interface, address.as_slice()))
}
