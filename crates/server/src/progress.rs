//! What a long command shows to a person who waits for it: nothing unless stderr is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Format;

/// A line on the terminal that follows a command. It is gone when this is dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Follows a command through so many bytes, if that is known. JSON is for programs, which do not wait.
    pub fn new(total_bytes: Option<u64>, format: Format) -> Self {
        let bar = match (format, total_bytes) {
            (Format::Json, _) => ProgressBar::hidden(),
            (Format::Text, Some(bytes)) => ProgressBar::new(bytes).with_style(style(
                "{bar:30} {binary_bytes} of {binary_total_bytes}, {msg}, {binary_bytes_per_sec}, {eta} left",
            )),
            (Format::Text, None) => ProgressBar::new_spinner().with_style(style(
                "{spinner} {binary_bytes}, {msg}, {binary_bytes_per_sec}",
            )),
        };
        Self(bar)
    }

    /// The command has come so far.
    pub fn set(&self, rows: u64, bytes: u64) {
        // A hidden bar has nobody to make a sentence for.
        if !self.0.is_hidden() {
            self.0.set_position(bytes);
            self.0.set_message(format!("{rows} rows"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is one of the above")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_one() {
        for total in [None, Some(1)] {
            let progress = Progress::new(total, Format::Text);
            progress.set(1, 1);
        }
    }
}
