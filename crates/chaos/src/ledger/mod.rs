//! The three ledgers side by side: what was accepted, what Posthorn says, what was received.
//!
//! Each check is a sentence that either holds or names its first exceptions with all that is known of them.

pub mod accepted;
pub mod answers;
pub mod attempts;
pub mod books;
pub mod counters;
pub mod ends;
pub mod leftovers;
pub mod quiet;
pub mod repeats;

/// How many exceptions are printed.
const SHOWN: usize = 10;

/// A sentence about the run, and where it does not hold.
#[derive(Debug)]
pub struct Check {
    pub sentence: &'static str,
    /// The first exceptions, in words.
    shown: Vec<String>,
    pub exceptions: usize,
    /// What is worth knowing beside it.
    pub note: String,
}

impl Check {
    pub fn new(sentence: &'static str) -> Self {
        Self { sentence, shown: Vec::new(), exceptions: 0, note: String::new() }
    }

    pub fn holds(&self) -> bool {
        self.exceptions == 0
    }

    /// Notes an exception; `words` is asked for only while it would be shown.
    pub fn except(&mut self, words: impl FnOnce() -> String) {
        self.exceptions += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(words());
        }
    }

    pub fn print(&self) {
        let verdict = if self.holds() { "ok" } else { "FAILED" };
        let note = if self.note.is_empty() { String::new() } else { format!(" ({})", self.note) };
        crate::say(format_args!("{verdict:<6} {}{note}", self.sentence));
        if !self.holds() {
            crate::say(format_args!("       {} exceptions, the first of them:", self.exceptions));
            for words in &self.shown {
                crate::say(format_args!("       - {words}"));
            }
        }
    }
}
