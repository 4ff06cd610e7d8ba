//! The demo's report for people.

use std::fmt::Write as _;

use p2pos_control::DemoReport;
use p2pos_identity::Untrusted;

use crate::cli::micros;

/// Width of the names before the values.
const LABEL_CHARS: usize = 12;

/// What was moved and measured, a line each.
pub(crate) fn render(report: &DemoReport) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        writeln!(text, "{label:LABEL_CHARS$}{value}").expect("a String takes every write");
    };
    for (index, path) in report.paths.iter().enumerate() {
        line(label(index, "path"), format!("{} -> {}  {}", path.from, path.to, path.path));
    }
    for (index, chat) in report.chat.iter().enumerate() {
        line(label(index, "chat"), format!("{} -> {}  {}", chat.from, chat.to, Untrusted(&chat.text)));
    }
    for (index, moved) in report.transfers.iter().enumerate() {
        let checksum = if moved.is_verified { "checksum ok" } else { "CHECKSUM WRONG" };
        let (from, to) = (&moved.from, &moved.to);
        let rate = format!("{} in {} ms, {:.0} MiB/s", mib(moved.bytes), moved.took_ms, moved.mib_per_s);
        line(label(index, "bulk"), format!("{from} -> {to}  {rate}, {checksum}"));
    }
    let times = &report.round_trip;
    if times.rounds > 0 {
        let (half, most) = (micros(times.p50_us), micros(times.p99_us));
        line("round trip", format!("64 bytes, {} times: p50 {half}, p99 {most}", times.rounds));
    }
    if report.datagrams_sent > 0 {
        line("datagrams", format!("{} of {} came back", report.datagrams_received, report.datagrams_sent));
    }
    for (index, skipped) in report.skipped.iter().enumerate() {
        line(label(index, "left out"), Untrusted(skipped).to_string());
    }
    let seconds = format!("{}.{} s", report.took_ms / 1_000, report.took_ms % 1_000 / 100);
    let verdict = if report.is_verified { "every byte was verified" } else { "NOT EVERY BYTE WAS RIGHT" };
    line("result", format!("{verdict}, {} daemons, {seconds} in all", report.peers));
    text
}

fn label(index: usize, name: &str) -> &str {
    if index == 0 { name } else { "" }
}

fn mib(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{bytes} bytes"),
        _ => format!("{} MiB", bytes >> 20),
    }
}
