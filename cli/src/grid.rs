use console::{Alignment, measure_text_width, pad_str, style};

/// Text from outside, on one line. It must not control the terminal: control characters become `�`.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// A table of cells in aligned columns.
#[derive(Debug)]
pub(crate) struct Grid {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// The heads of the columns. A head with a leading `>` is for numbers, which are right-aligned.
    pub fn new(heads: &[&str]) -> Self {
        let right = heads.iter().map(|head| head.starts_with('>')).collect();
        let heads = heads.iter().map(|head| head.trim_start_matches('>').to_owned());
        Self { right, rows: vec![heads.collect()] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Does the grid have no rows?
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The lines, with dimmed heads if colours are on. `stderr` tells which of the two outputs they are for.
    pub fn lines(&self, indent: &str, stderr: bool) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell_width = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| measure_text_width(cell));
        let width = |column| self.rows.iter().map(|row| cell_width(row, column)).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |(at, row): (usize, &Vec<String>)| {
            let cell = |(column, cell): (usize, &String)| {
                let right = self.right.get(column).copied().unwrap_or(false);
                pad_str(cell, widths[column], if right { Alignment::Right } else { Alignment::Left }, None).into_owned()
            };
            let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
            let text = format!("{indent}{}", cells.join("  ").trim_end());
            match (at, stderr) {
                (0, true) => style(text).dim().for_stderr().to_string(),
                (0, false) => style(text).dim().to_string(),
                _ => text,
            }
        };
        self.rows.iter().enumerate().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_right_aligned_without_trailing_spaces() {
        let mut grid = Grid::new(&["topic", ">records", "note"]);
        grid.row(["a".to_owned(), "12,345,678".to_owned(), String::new()]);
        grid.row(["größer".to_owned(), "1".to_owned(), "x".to_owned()]);
        let expected = [" topic      records  note", " a       12,345,678", " größer           1  x"];
        assert_eq!(grid.lines(" ", true), expected);
    }
}
