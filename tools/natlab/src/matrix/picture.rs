//! The matrix as a picture: one square for each cell, rows dial columns. Plain SVG, readable in the dark and without colours: each square
//! carries a letter, too.

use std::fmt::Write as _;

use super::{CellReport, Outcome, Report};
use crate::promise::word;
use crate::topology::Kind;

/// Side of a square, in the picture's units.
const SQUARE: usize = 26;
/// Room for names on the left.
const LEFT: usize = 150;
/// Room for slanted names above.
const TOP: usize = 130;
/// Room for the legend below.
const BOTTOM: usize = 40;
/// Room for the last slanted name on the right.
const RIGHT: usize = 110;

/// Draws a report.
#[must_use]
pub fn svg(report: &Report) -> String {
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| report.cells.iter().any(|cell| cell.pair.from == *kind || cell.pair.to == *kind))
        .collect();
    let side = kinds.len() * SQUARE;
    let (width, height) = (LEFT + side + RIGHT, TOP + side + BOTTOM);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (place, kind) in kinds.iter().enumerate() {
        let (x, y) = (LEFT + place * SQUARE + SQUARE / 2, TOP + place * SQUARE + SQUARE / 2 + 4);
        put(&mut text, format_args!("<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{kind}</text>", LEFT - 6));
        let turn = format!("translate({x},{}) rotate(-50)", TOP - 6);
        put(&mut text, format_args!("<text transform=\"{turn}\">{kind}</text>"));
    }
    for cell in &report.cells {
        let place = |kind: Kind| kinds.iter().position(|other| *other == kind);
        if let (Some(row), Some(column)) = (place(cell.pair.from), place(cell.pair.to)) {
            square(&mut text, cell, LEFT + column * SQUARE, TOP + row * SQUARE);
        }
    }
    let legend = "rows dial columns; D direct, d with opener, g by guess, r relayed, t relayed over TCP; \
                  green kept, red broken, grey not built";
    put(&mut text, format_args!("<text x=\"10\" y=\"{}\" font-size=\"10\">{legend}</text>", height - 14));
    text + "</svg>\n"
}

fn square(text: &mut String, cell: &CellReport, x: usize, y: usize) {
    let (colour, what) = match &cell.outcome {
        // No figures: the picture changes when a result does, and not with every run.
        Outcome::Passed(_) => ("#9fd8a4", "kept".to_owned()),
        Outcome::Failed { why, .. } => ("#f2a39b", why.join("; ")),
        Outcome::Missing { part } => ("#d9d9d9", format!("not built: {part}")),
    };
    let (side, middle, base) = (SQUARE - 2, x + SQUARE / 2 - 1, y + SQUARE / 2 + 3);
    let title = escaped(&format!("{} to {}: {}; {what}", cell.pair.from, cell.pair.to, word(cell.expected)));
    put(
        text,
        format_args!(
            "<g><title>{title}</title><rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"3\" fill=\"{colour}\"/>\
             <text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\">{}</text></g>",
            letter(cell)
        ),
    );
}

/// The letter of connectivity's table.
fn letter(cell: &CellReport) -> char {
    use p2pos_traversal::predict::Expected::{Direct, DirectByGuess, DirectWithOpener, Relayed, TcpRelayed};
    match cell.expected {
        Direct => 'D',
        DirectWithOpener => 'd',
        DirectByGuess => 'g',
        Relayed => 'r',
        TcpRelayed => 't',
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use p2pos_traversal::predict::Expected;

    use super::*;
    use crate::matrix::Pair;

    #[test]
    fn a_reason_with_angle_brackets_does_not_break_the_picture() {
        let outcome = Outcome::Failed { why: vec!["a < b & c".to_owned()], measured: None };
        let pair = Pair { from: Kind::Home, to: Kind::Public };
        let cells = vec![CellReport { pair, expected: Expected::Direct, is_second: false, outcome }];
        let picture = svg(&Report { schema: "p2pos.natlab-matrix/1", cells, took_ms: 1 });
        assert!(picture.contains("a &lt; b &amp; c"));
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }
}
