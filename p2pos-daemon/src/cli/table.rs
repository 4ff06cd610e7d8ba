//! Plain tables: a heading, columns as wide as they need, two spaces between. No frames, so that `cut` and `awk` work.

use p2pos_identity::Untrusted;

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table with its headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds a row. Whatever a cell holds that could command a terminal is escaped.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.iter().map(|cell| Untrusted(cell).to_string()).collect());
    }

    /// The table's lines; empty if it has only headings.
    pub(crate) fn text(&self) -> String {
        if self.rows.len() < 2 {
            return String::new();
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["a-long-name", "up"]);
        table.row(["b", ""]);
        assert_eq!(table.text(), "NAME         STATE\na-long-name  up\nb\n");
    }

    #[test]
    fn a_table_of_nothing_is_nothing() {
        assert_eq!(Table::new(&["NAME"]).text(), "");
    }

    #[test]
    fn a_hostile_cell_commands_no_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["\x1b[2Jbo\n"]);
        assert!(!table.text().contains('\x1b'));
        assert_eq!(table.text().lines().count(), 2);
    }
}
