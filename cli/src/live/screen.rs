use std::io;

use console::Term;

/// Lines on a terminal that are drawn again in place. The cursor is hidden meanwhile.
#[derive(Debug)]
pub(crate) struct Screen {
    term: Term,
    drawn: usize,
}

impl Screen {
    /// On stderr, where progress belongs.
    pub fn open() -> io::Result<Self> {
        let term = Term::buffered_stderr();
        term.hide_cursor()?;
        term.flush()?;
        Ok(Self { term, drawn: 0 })
    }

    /// The width and height that lines may have: the last row is the cursor's.
    pub fn size(&self) -> (usize, usize) {
        let (rows, columns) = self.term.size();
        (usize::from(columns), usize::from(rows).saturating_sub(1))
    }

    /// Draws the lines over those that were drawn before, in one write, so that nothing flickers.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        if self.drawn > 0 {
            self.term.move_cursor_up(self.drawn)?;
        }
        for line in lines {
            self.term.clear_line()?;
            self.term.write_line(line)?;
        }
        // What was longer before, and the ^C that the terminal echoes.
        self.term.clear_line()?;
        self.term.clear_to_end_of_screen()?;
        self.drawn = lines.len();
        self.term.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no cursor.
        let _ = self.term.show_cursor();
        let _ = self.term.flush();
    }
}
