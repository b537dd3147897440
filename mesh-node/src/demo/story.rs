//! What the demonstration prints, and which of its steps held.

use std::fmt;
use std::io;
use std::io::IsTerminal;
use std::io::Write;

use serde_json::Value;
use serde_json::json;

/// Tells the steps line by line, and keeps what became of each.
pub(crate) struct Story {
    out: Box<dyn Write>,
    has_colour: bool,
    steps: Vec<Step>,
    total: usize,
    /// The first time that nobody could be told.
    lost: Option<io::Error>,
}

struct Step {
    title: &'static str,
    /// None as long as it is under way, also when the story breaks off there.
    outcome: Option<Result<(), Miss>>,
}

impl Step {
    fn holds(&self) -> bool {
        matches!(self.outcome, Some(Ok(())))
    }
}

/// A step saw something else than it expected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Miss {
    pub(crate) expected: String,
    pub(crate) seen: String,
}

impl Miss {
    pub(crate) fn new(expected: impl Into<String>, seen: impl fmt::Display) -> Self {
        Self {
            expected: expected.into(),
            seen: seen.to_string(),
        }
    }

    /// Says what was done when an operation failed, for `map_err`.
    pub(crate) fn at<E: fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| Self::new(what, error)
    }
}

/// Goes on only where `holds`; `seen` is what a reader is told otherwise.
pub(crate) fn expect(
    holds: bool,
    expected: impl Into<String>,
    seen: impl fmt::Display,
) -> Result<(), Miss> {
    if holds {
        Ok(())
    } else {
        Err(Miss::new(expected, seen))
    }
}

impl Story {
    /// A story of `total` steps on standard output, with colour where that is a terminal.
    pub(crate) fn on_stdout(total: usize) -> Self {
        let out = io::stdout();
        let has_colour = out.is_terminal();
        Self::new(Box::new(out), has_colour, total)
    }

    /// A story that nobody reads; what became of its steps is kept.
    pub(crate) fn untold(total: usize) -> Self {
        Self::new(Box::new(io::sink()), false, total)
    }

    fn new(out: Box<dyn Write>, has_colour: bool, total: usize) -> Self {
        Self {
            out,
            has_colour,
            steps: Vec::new(),
            total,
            lost: None,
        }
    }

    /// A line that stands out, after an empty one.
    pub(crate) fn headline(&mut self, text: &str) {
        let line = self.paint(BOLD, text);
        self.line("");
        self.line(&line);
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, title: &'static str) {
        let number = self.steps.len() + 1;
        self.steps.push(Step {
            title,
            outcome: None,
        });
        self.headline(&format!("{number}. {title}"));
    }

    /// Ends the step with what became of it.
    pub(crate) fn end(&mut self, outcome: Result<(), Miss>) {
        match &outcome {
            Ok(()) => {
                let mark = self.paint(GREEN, "held");
                self.line(&format!("   {mark}"));
            }
            Err(miss) => {
                let mark = self.paint(RED, "DID NOT HOLD");
                self.line(&format!("   {mark}"));
                self.wrapped("   expected  ", &miss.expected);
                self.wrapped("   seen      ", &miss.seen);
            }
        }
        if let Some(step) = self.steps.last_mut() {
            step.outcome = Some(outcome);
        }
    }

    /// A sentence.
    pub(crate) fn say(&mut self, text: &str) {
        self.wrapped("   ", text);
    }

    /// What was sent.
    pub(crate) fn sent(&mut self, text: &str) {
        self.wrapped("   -> ", text);
    }

    /// What came back.
    pub(crate) fn got(&mut self, text: &str) {
        self.wrapped("   <- ", text);
    }

    /// Where a reader finds the same.
    pub(crate) fn look(&mut self, text: &str) {
        let line = self.paint(DIM, &format!("   see  {text}"));
        self.line(&line);
    }

    /// A line that is not wrapped.
    pub(crate) fn raw(&mut self, text: &str) {
        self.line(&format!("      {text}"));
    }

    /// How many steps held, and how many there are.
    pub(crate) fn score(&self) -> (usize, usize) {
        let held = self.steps.iter().filter(|step| step.holds()).count();
        (held, self.total)
    }

    /// The last line.
    pub(crate) fn verdict(&self) -> String {
        let (held, total) = self.score();
        format!("demo: {held} of {total} steps held")
    }

    /// Whether all steps were taken and held.
    pub(crate) fn holds(&self) -> bool {
        let (held, total) = self.score();
        held == total
    }

    /// Why the story ends early.
    pub(crate) fn failed(&mut self, why: &str) {
        self.line("");
        let lead = self.paint(RED, "failed:");
        self.wrapped(&format!("{lead} "), why);
    }

    /// The steps, for scripts.
    pub(crate) fn report(&self) -> Value {
        let (held, total) = self.score();
        let steps = self.steps.iter().map(|step| {
            let missed = step.outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
            json!({
                "title": step.title, "held": step.holds(),
                "expected": missed.map(|miss| &miss.expected), "seen": missed.map(|miss| &miss.seen),
            })
        });
        json!({ "ok": held == total, "held": held, "total": total, "steps": steps.collect::<Vec<_>>() })
    }

    /// Prints `text` after `lead`, and what does not fit below it.
    fn wrapped(&mut self, lead: &str, text: &str) {
        let indent = " ".repeat(lead.chars().count());
        let mut line = lead.to_owned();
        let mut is_begun = false;
        for word in text.split_whitespace() {
            let width = line.chars().count() + usize::from(is_begun) + word.chars().count();
            if is_begun && width > COLUMNS {
                self.line(&line);
                line.clone_from(&indent);
                is_begun = false;
            }
            if is_begun {
                line.push(' ');
            }
            line.push_str(word);
            is_begun = true;
        }
        self.line(&line);
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.has_colour {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }

    fn line(&mut self, line: &str) {
        let written = writeln!(self.out, "{}", line.trim_end()).and_then(|()| self.out.flush());
        // A reader that has seen enough does not change what holds.
        if let (Err(error), None) = (written, &self.lost) {
            tracing::debug!(%error, "nobody reads the story");
            self.lost = Some(error);
        }
    }
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Story")
            .field("steps", &self.steps.len())
            .finish_non_exhaustive()
    }
}

/// Fits a terminal that is a little wider than the classic one, and a README.
const COLUMNS: usize = 98;
// ECMA-48 section 8.3.117, select graphic rendition.
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_that_ended_well_counts_as_held() {
        let mut story = Story::untold(3);
        story.step("one");
        story.end(Ok(()));
        story.step("two");
        story.end(Err(Miss::new("200", "503")));
        story.step("three, which is broken off");
        assert_eq!(story.verdict(), "demo: 1 of 3 steps held");
        assert!(!story.holds());
        assert_eq!(story.report()["steps"][1]["seen"], "503");
        assert_eq!(story.report()["ok"], false);
    }

    #[test]
    fn long_text_is_wrapped_below_its_start() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let mut story = Story::new(Box::new(path.reopen().unwrap()), false, 1);
        story.got(&"word ".repeat(40));
        let text = std::fs::read_to_string(path.path()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= COLUMNS));
        assert!(lines[0].starts_with("   <- word") && lines[1].starts_with("      word"));
    }
}
