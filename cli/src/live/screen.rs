use std::io;

use console::Term;

/// Lines on a terminal that are redrawn in place. The cursor is hidden meanwhile.
#[derive(Debug)]
pub(crate) struct Screen {
    term: Term,
    drawn: usize,
}

impl Screen {
    /// Opens the screen on stderr, where progress belongs.
    pub fn open() -> io::Result<Self> {
        let term = Term::buffered_stderr();
        term.hide_cursor()?;
        term.flush()?;
        Ok(Self { term, drawn: 0 })
    }

    /// The width and height for lines; the last row is for the cursor.
    pub fn size(&self) -> (usize, usize) {
        let (rows, columns) = self.term.size();
        (usize::from(columns), usize::from(rows).saturating_sub(1))
    }

    /// Draws the lines over the previous ones, in one write, so that nothing flickers.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        if self.drawn > 0 {
            self.term.move_cursor_up(self.drawn)?;
        }
        for line in lines {
            self.term.clear_line()?;
            self.term.write_line(line)?;
        }
        // Clears the rest of longer lines, and the ^C that the terminal echoes.
        self.term.clear_line()?;
        self.term.clear_to_end_of_screen()?;
        self.drawn = lines.len();
        self.term.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, the cursor doesn't matter.
        let _ = self.term.show_cursor();
        let _ = self.term.flush();
    }
}
